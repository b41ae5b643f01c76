"""Which rows of a pool's score files are kept: decided before any shard is read.

A `Rule` turns rows into keys and budgets; `Plan.make` finds the cuts in streamed passes, counts what they keep and
leaves one bit a row on disk for the workers that copy the kept lines.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.budget import Budget
from dvsel.errors import UserError
from dvsel.report import BINS
from dvsel.selectors import Selector
from dvsel.selectors.dedup import Drops
from dvsel.selectors.quota import Quota
from dvsel.selectors.radix import UNLIMITED, Chunk, Cut, cut
from dvsel.selectors.topk import TopK
from dvsel.shards.hashing import mix, uniform
from dvsel.shards.jit import kernel
from dvsel.shards.scorefile import COLUMNS, Rows, ScoreFile

_COUNTED = ("key", "tokens", "bytes", "status", "domain")
_FILES_FOR_RANGE = 16
_ROWS_FOR_RANGE = 1 << 16
_NEGLIGIBLE = 50.0  # exp of minus this, times all rows there can be, is less than a digit of the sum
_NO_NOISE = 0.5  # any constant: it shifts all keys alike


@dataclass(frozen=True)
class Rule:
    """How rows compete: the selector's keys, the budget's unit, and whose budget a row draws on.

    cuts: those found so far, one a group; a row that an earlier group keeps is out of the later ones' reach.
    offset: number of the rule's first stratum, where the cuts of several rules are found together.
    """

    selector: Selector
    seed: int
    unit: str
    quota: Quota | None
    drops: Drops | None = None
    cuts: tuple[Cut, ...] = ()
    offset: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of score files that decide."""
        cost = () if self.unit == "docs" else (self.unit,)
        return ("key", *cost, *(("domain",) if self.quota else ()))

    def chunk(self, rows: Rows, first: int, group: int) -> Chunk:
        """The rows as competitors for the group's budgets; first: the position of the first in the whole pool."""
        stratum = self._stratum(rows, first)
        for earlier in range(group):
            stratum[self.cuts[earlier].keep(self._compete(rows, first, earlier, stratum))] = -1
        return self._compete(rows, first, group, stratum)

    def keep(self, rows: Rows, first: int) -> npt.NDArray[np.bool_]:
        """bool (n,): which rows any group keeps."""
        stratum = self._stratum(rows, first)
        kept = self.cuts[0].keep(self._compete(rows, first, 0, stratum))
        for group, found in enumerate(self.cuts[1:], 1):
            stratum[kept] = -1
            kept |= found.keep(self._compete(rows, first, group, stratum))
        return kept

    def _compete(self, rows: Rows, first: int, group: int, stratum: npt.NDArray[np.int32]) -> Chunk:
        noise = np.broadcast_to(_NO_NOISE, len(rows))
        if self.selector.noisy:
            noise = uniform(rows.key, self.seed + group)
        key = self.selector.key(rows.score[:, group], noise)
        return Chunk(first, key, mix(rows.key, self.seed), self._cost(rows), stratum)

    def _cost(self, rows: Rows) -> npt.NDArray[np.int64]:
        if self.unit == "docs":
            return np.ones(len(rows), np.int64)
        return (rows.tokens if self.unit == "tokens" else rows.bytes).astype(np.int64)

    def _stratum(self, rows: Rows, first: int) -> npt.NDArray[np.int32]:
        stratum = np.full(len(rows), self.offset, np.int32)
        if self.quota:
            of_domain = self.quota.stratum(rows.domains)
            stratum = np.where(of_domain < 0, -1, of_domain + self.offset).astype(np.int32)[rows.domain]
        if self.drops is not None:
            stratum[self.drops[first : first + len(rows)]] = -1
        return stratum


@dataclass
class Tally:
    """What a rule keeps, counted over rows.

    histogram: int64 (2, BINS), the first score's values in the pool and among the kept. domains: int64 (D, 5) by
    name: documents, tokens of the pool; documents, tokens, bytes kept.
    """

    low: float
    high: float
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    domains: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    log_weights: list[tuple[float, float, float]] = field(default_factory=list)
    overlap: int = 0
    duplicates: int = 0

    def add(self, rows: Rows, kept: npt.NDArray[np.bool_]) -> None:
        """Count rows of which `kept` are kept."""
        counts = np.zeros((len(rows.domains), 5), np.int64)
        _tally(rows.score[:, 0], rows.status, kept, rows.domain, rows.tokens, rows.bytes, self.low, self.high,
               self.histogram, counts)  # fmt: skip
        for name, row in zip(rows.domains, counts, strict=True):
            self.domains[name] = self.domains.get(name, 0) + row

    def merge(self, other: Tally) -> None:
        """Add what was counted elsewhere."""
        self.histogram += other.histogram
        for name, row in other.domains.items():
            self.domains[name] = self.domains.get(name, 0) + row
        self.log_weights += other.log_weights
        self.overlap += other.overlap
        self.duplicates += other.duplicates

    def weigh(self, key: npt.NDArray[np.float32]) -> None:
        """Add the weights exp(key) of rows to the effective sample size."""
        top = float(np.fmax.reduce(key, initial=-np.inf))
        if np.isfinite(top):
            weight = np.exp(key[key > top - _NEGLIGIBLE].astype(np.float64) - top)
            self.log_weights.append((top, float(weight.sum()), float(np.square(weight).sum())))

    def effective_sample_size(self) -> float:
        """(sum w)^2 / sum w^2, a number of documents."""
        if not self.log_weights:
            return 0.0
        top, total, squares = np.array(self.log_weights).T
        scale = np.exp(top - top.max())
        return float((total * scale).sum() ** 2 / (squares * scale**2).sum())


@kernel
def _tally(
    score: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.bool_],
    domain: npt.NDArray[np.int32],
    tokens: npt.NDArray[np.uint32],
    sizes: npt.NDArray[np.uint32],
    low: float,
    high: float,
    histogram: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    bins = histogram.shape[1]
    scale = bins / (high - low)
    for row in range(len(score)):
        if status[row] != 0:
            continue
        if not np.isnan(score[row]):
            at = int(min(max((score[row] - low) * scale, 0.0), bins - 1.0))
            histogram[0, at] += 1
            histogram[1, at] += kept[row]
        counts[domain[row], 0] += 1
        counts[domain[row], 1] += tokens[row]
        if kept[row]:
            counts[domain[row], 2] += 1
            counts[domain[row], 3] += tokens[row]
            counts[domain[row], 4] += sizes[row]


@dataclass(frozen=True)
class Pool:
    """Score files of one fit, in the order of their shards' names, and where each one's rows begin."""

    files: list[ScoreFile]
    first: list[int]

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> Pool:
        """Check that the files go together."""
        if not files:
            raise UserError("no score files; make them with `dvsel score`")
        for file in files[1:]:
            _check_together(files[0], file)
        _check_distinct(files)
        files = sorted(files, key=lambda file: str(file.header.shard["name"]))
        return cls(files, [0, *np.cumsum([len(file) for file in files]).tolist()])

    def chunks(self, rules: Sequence[Rule], group: int) -> list[Iterator[Chunk]]:
        """A pass over all rows, a part for each file; each rule sees them as chunks of its own."""
        columns = rules[0].columns
        return [
            (rule.chunk(rows, at, group) for rows, at in self.rows(number, columns) for rule in rules)
            for number in range(len(self.files))
        ]

    def rows(self, number: int, columns: Sequence[str] = COLUMNS) -> Iterator[tuple[Rows, int]]:
        """The rows of one file, with the position of the first of them."""
        at = self.first[number]
        for rows in self.files[number].rows(columns):
            yield rows, at
            at += len(rows)

    def total(self, unit: str) -> int:
        """Tokens, docs or bytes of all documents that have a score."""
        return sum(int(getattr(file.header.totals, unit)) for file in self.files)


def _check_together(one: ScoreFile, other: ScoreFile) -> None:
    a, b = one.header, other.header
    if a.fingerprint != b.fingerprint:
        raise UserError(
            f"{one.url} and {other.url} hold scores of two different fits ({a.scorer} {a.fingerprint[:8]}, "
            f"{b.scorer} {b.fingerprint[:8]}); score all shards with one --fitted FILE"
        )
    if a.tokens != b.tokens:
        raise UserError(
            f"{one.url} and {other.url} count tokens in different ways; score all shards with the same options"
        )


def _check_distinct(files: Sequence[ScoreFile]) -> None:
    urls: dict[str, ScoreFile] = {}
    names: dict[str, ScoreFile] = {}
    for file in files:
        shard = file.header.shard
        if (other := urls.setdefault(shard["url"], file)) is not file:
            raise UserError(f"{other.url} and {file.url} score the same shard; name one of them")
        if (other := names.setdefault(shard["name"], file)) is not file:
            raise UserError(
                f"{other.url} and {file.url} score shards of the same name, {shard['name']}, which would be written "
                "to one file; score them in one run"
            )


@dataclass(frozen=True)
class Plan:
    """What a run keeps.

    kept: documents by file. masks: folder of `mask_file`s, one for each file of which something is kept.
    """

    pool: Pool
    rule: Rule
    budget: Budget | None
    asked: int | None
    tally: Tally
    kept: list[int]
    strata: list[dict[str, Any]]
    masks: Path

    @classmethod
    def make(
        cls,
        pool: Pool,
        selector: Selector,
        seed: int,
        masks: Path,
        budget: Budget | None,
        quota: Quota | None = None,
        drops: Drops | None = None,
        threads: int = 1,
    ) -> Plan:
        """Find the cuts and count what they keep."""
        check_budget(selector, budget, quota)
        budget = budget or selector.budget
        unit = (budget.unit if budget else quota.unit if quota else None) or "tokens"
        asked = budget.resolve(pool.total(unit)) if budget else None
        rule = Rule(selector, seed, unit, quota, drops)
        header = pool.files[0].header
        names, amounts = [""], np.array([UNLIMITED if asked is None else asked])
        if quota:
            names, amounts = quota.budgets(asked, budget.unit if budget else None)
        shares = _shared(amounts, header.shares)
        best = dataclasses.replace(rule, selector=TopK(), offset=len(names))
        rivals = [best] if selector.noisy and _follows_scores(selector) else []
        rule, *rivals = _with_cuts([rule, *rivals], pool, shares, threads)
        strata = [
            _stratum(" ".join(filter(None, (group, name))), int(shares[number][place]), found, place)
            for number, (group, found) in enumerate(zip(header.groups, rule.cuts, strict=True))
            for place, name in enumerate(names)
        ]
        tally, kept = _count(pool, rule, rivals[0] if rivals else None, masks, threads)
        return cls(pool, rule, budget, asked, tally, kept, strata, masks)

    @property
    def took_all(self) -> bool:
        """Whether every document that competes is kept."""
        return all(stratum["took_all"] for stratum in self.strata)


def check_budget(selector: Selector, budget: Budget | None, quota: Quota | None) -> None:
    """Raise UserError unless exactly one budget says how much to keep."""
    if selector.budget and budget:
        raise UserError("this selector sets the budget by itself; drop --budget, or choose another --method")
    if selector.needs_budget and not (budget or quota):
        raise UserError("no budget; say how much to keep with --budget, such as 30B, 10% or '500k docs'")


def _follows_scores(selector: Selector) -> bool:
    """Whether keys depend on scores: those of 0 and 1 differ under the same noise."""
    return len(set(selector.key(np.array([0, 1], np.float32), np.full(2, _NO_NOISE)).tolist())) > 1


def _shared(amounts: npt.NDArray[np.int64], shares: Sequence[float]) -> npt.NDArray[np.int64]:
    """Each stratum's budget divided among groups, int64 (groups, strata); the last group takes what rounding leaves."""
    divided = np.full((len(shares), len(amounts)), UNLIMITED, np.int64)
    for place, amount in enumerate(amounts):
        if amount != UNLIMITED:
            ends = [int(int(amount) * Fraction(share)) for share in np.cumsum(shares)[:-1]] + [amount]
            divided[:, place] = np.diff([0, *ends])
    return divided


def _with_cuts(rules: Sequence[Rule], pool: Pool, budgets: npt.NDArray[np.int64], threads: int) -> list[Rule]:
    """The rules with their cuts, all found in the same passes; each has strata of its own and the same budgets."""
    rules = list(rules)
    for group, amounts in enumerate(budgets):
        passes = functools.partial(pool.chunks, tuple(rules), group)
        found = cut(passes, np.tile(amounts, len(rules)), threads)
        rules = [dataclasses.replace(rule, cuts=(*rule.cuts, found)) for rule in rules]
    return rules


def _stratum(name: str, asked: int, found: Cut, place: int) -> dict[str, Any]:
    return {
        "name": name,
        "asked": None if asked == UNLIMITED else asked,
        "given": int(found.cost[place]),
        "docs": int(found.rows[place]),
        "took_all": bool(found.took_all[place]),
        "threshold": None if found.took_all[place] else float(found.threshold[place]),
    }


def mask_file(masks: Path, number: int) -> Path:
    """Where the kept rows of the file of that number lie, as bits, lowest first."""
    return masks / f"{number}.bits"


def _count(pool: Pool, rule: Rule, best: Rule | None, masks: Path, threads: int) -> tuple[Tally, list[int]]:
    edges = _score_range(pool)

    def count(number: int) -> tuple[Tally, int]:
        tally, kept_rows = Tally(*edges), 0
        bits = bytearray()
        for rows, first in pool.rows(number, _COUNTED):
            kept = rule.keep(rows, first)
            bits += np.packbits(kept, bitorder="little").tobytes()
            tally.add(rows, kept)
            if rule.drops is not None:
                tally.duplicates += int(rule.drops[first : first + len(rows)].sum())
            kept_rows += int(kept.sum())
            if best:
                tally.overlap += int((kept & best.keep(rows, first)).sum())
                tally.weigh(rule.selector.key(rows.score[:, 0], np.broadcast_to(_NO_NOISE, len(rows))))
        if kept_rows:
            mask_file(masks, number).write_bytes(bits)
        return tally, kept_rows

    total = Tally(*edges)
    with ThreadPoolExecutor(threads) as workers:
        counted = list(workers.map(count, range(len(pool.files))))
    for tally, _ in counted:
        total.merge(tally)
    return total, [kept for _, kept in counted]


def _score_range(pool: Pool) -> tuple[float, float]:
    """Where the histogram begins and ends: quantiles of the scores at the head of some files."""
    step = max(len(pool.files) // _FILES_FOR_RANGE, 1)
    heads = [next(file.rows(()), None) for file in pool.files[::step]]
    found = [rows.score[:_ROWS_FOR_RANGE, 0] for rows in heads if rows is not None]
    scores = np.concatenate(found).astype(np.float64) if found else np.zeros(0)
    scores = scores[np.isfinite(scores)]
    low, high = (float(value) for value in np.quantile(scores, (0.001, 0.999))) if len(scores) else (0.0, 1.0)
    return low, high if high > low else low + 1
