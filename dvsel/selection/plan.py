"""Which rows of a pool's score files are kept: decided before any shard is read.

`Plan.make` finds the cuts of a `dvsel.selection.ranking.Rule` in streamed passes, counts what they keep and leaves one
bit a row on disk for the workers that copy the kept lines.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.budget import Budget
from dvsel.budgets.exact_cut import UNLIMITED, Cut, cut
from dvsel.budgets.quota import Quota
from dvsel.documents.columns import Status
from dvsel.errors import UserError
from dvsel.interface import checked
from dvsel.interface.checked import NO_NOISE, follows_scores
from dvsel.interface.selector import Selector, SetSelector
from dvsel.kernels.jit import kernel
from dvsel.runs.report import BINS
from dvsel.runs.requests import Reading
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows
from dvsel.selection.dedup import Drops
from dvsel.selection.domains import without_budget
from dvsel.selection.ranking import Pool, Rule
from dvsel.selectors.topk import TopK
from dvsel.storage.scratch import writing

_COUNTED = ("key", "tokens", "bytes", "status", "domain")
_FILES_FOR_RANGE = 16
_ROWS_FOR_RANGE = 1 << 16
_BAD_LINE = int(Status.BAD_LINE)
_NEGLIGIBLE = 50.0  # exp of minus this, times all rows there can be, is less than a digit of the sum


@dataclass
class Tally:
    """What a rule keeps, counted over rows.

    histogram: int64 (2, BINS), the first score's values in the pool and among the kept; those beyond low and high are
    in the first and the last bin, and outliers, int64 (2,), says how many they are. domains: int64 (6,) by name:
    documents, tokens of the pool; documents, tokens, bytes kept; documents without a score.
    """

    low: float
    high: float
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    outliers: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    domains: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    log_weights: list[tuple[float, float, float]] = field(default_factory=list)
    overlap: int = 0
    duplicates: int = 0

    def add(self, rows: Rows, kept: npt.NDArray[np.bool_]) -> None:
        """Count rows of which `kept` are kept."""
        counts = np.zeros((len(rows.domains), 6), np.int64)
        _tally(rows.score[:, 0], rows.status, kept, rows.domain, rows.tokens, rows.bytes, self.low, self.high,
               self.histogram, self.outliers, counts)  # fmt: skip
        for name, row in zip(rows.domains, counts, strict=True):
            self.domains[name] = self.domains.get(name, 0) + row

    def merge(self, other: Tally) -> None:
        """Add what was counted elsewhere."""
        self.histogram += other.histogram
        self.outliers += other.outliers
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
    outliers: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    bins = histogram.shape[1]
    scale = bins / (high - low)
    for row in range(len(score)):
        if status[row] != 0:
            counts[domain[row], 5] += status[row] != _BAD_LINE
            continue
        if not np.isnan(score[row]):
            outliers[0] += score[row] < low
            outliers[1] += score[row] > high
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
class Plan:
    """What a run keeps.

    kept: documents by file. masks: folder of `mask_file`s, one for each file of which something is kept. notes: what
    the selector says of its work.
    """

    pool: Pool
    rule: Rule
    budget: Budget | None
    asked: int | None
    tally: Tally
    kept: list[int]
    strata: list[dict[str, Any]]
    masks: Path
    notes: list[str]

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
        embeddings: Sequence[ScoreFile] = (),
        reading: Reading | None = None,
    ) -> Plan:
        """Find the cuts and count what they keep.

        embeddings: files with vectors beside the pool's, or none. reading: of documents that the selector names.
        """
        check_budget(selector, budget, quota)
        budget = budget or selector.budget
        unit = (budget.unit if budget else quota.unit if quota else None) or "tokens"
        asked = budget.resolve(pool.total(unit)) if budget else None
        rule = Rule(selector, seed, unit, quota, drops)
        header, notes = pool.files[0].header, list[str]()
        groups, shares = header.groups, header.shares
        if isinstance(selector, SetSelector):
            from dvsel.selection.candidate_passes import Survey  # which needs torch

            survey = Survey(pool, rule, asked, embeddings, masks, reading or Reading())
            notes = checked.rank(selector, survey)
            rule = dataclasses.replace(rule, keys=survey.keys)
            groups, shares = ("",), (1.0,)
        names, amounts = [""], np.array([UNLIMITED if asked is None else asked])
        if quota:
            names, amounts = quota.budgets(asked, budget.unit if budget else None)
        divided = _shared(amounts, shares)
        best = dataclasses.replace(rule, selector=TopK(), offset=len(names))
        rivals = [best] if selector.noisy and follows_scores(selector) else []
        rule, *rivals = _with_cuts([rule, *rivals], pool, divided, threads)
        strata = [
            _stratum(" ".join(filter(None, (group, name))), int(divided[number][place]), found, place)
            for number, (group, found) in enumerate(zip(groups, rule.cuts, strict=True))
            for place, name in enumerate(names)
        ]
        tally, kept = _count(pool, rule, rivals[0] if rivals else None, masks, threads)
        notes = [*notes, *without_budget(tally.domains, quota)]
        return cls(pool, rule, budget, asked, tally, kept, strata, masks, notes)

    @property
    def took_all(self) -> bool:
        """Whether every document that competes is kept."""
        return all(stratum["took_all"] for stratum in self.strata)


def check_budget(selector: Selector, budget: Budget | None, quota: Quota | None) -> None:
    """Raise UserError unless exactly one budget says how much to keep."""
    if selector.budget and budget:
        raise UserError("this selector sets the budget by itself; drop --budget, or choose another --method")
    if isinstance(selector, SetSelector) and selector.divides_budget and quota:
        raise UserError("this selector divides the budget itself; drop --quota, or choose another --method")
    if selector.needs_budget and not (budget or quota):
        raise UserError("no budget; say how much to keep with --budget, such as 30B, 10% or '500k docs'")


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


def weights_file(masks: Path, number: int) -> Path:
    """Where the kept rows' weights lie, float32, for a selector that gives some."""
    return masks / f"{number}.weights"


def _count(pool: Pool, rule: Rule, best: Rule | None, masks: Path, threads: int) -> tuple[Tally, list[int]]:
    edges = _score_range(pool)

    def count(number: int) -> tuple[Tally, int]:
        tally, kept_rows = Tally(*edges), 0
        bits, weights = bytearray(), bytearray()
        for rows, first in pool.rows(number, _COUNTED):
            kept = rule.keep(rows, first)
            if isinstance(rule.selector, SetSelector) and rule.selector.weight_field:
                weights += rule.weights(rows, first, kept).tobytes()
            bits += np.packbits(kept, bitorder="little").tobytes()
            tally.add(rows, kept)
            if rule.drops is not None:
                tally.duplicates += int(rule.drops[first : first + len(rows)].sum())
            kept_rows += int(kept.sum())
            if best:
                tally.overlap += int((kept & best.keep(rows, first)).sum())
                tally.weigh(rule.selector.key(rows.score[:, 0], np.broadcast_to(NO_NOISE, len(rows))))
        if kept_rows:
            _keep(mask_file(masks, number), bits)
        if weights:
            _keep(weights_file(masks, number), weights)
        return tally, kept_rows

    total = Tally(*edges)
    with ThreadPoolExecutor(threads) as workers:
        counted = list(workers.map(count, range(len(pool.files))))
    for tally, _ in counted:
        total.merge(tally)
    return total, [kept for _, kept in counted]


def _keep(path: Path, content: bytes | bytearray) -> None:
    with writing(path):
        path.write_bytes(content)


def _score_range(pool: Pool) -> tuple[float, float]:
    """Where the histogram begins and ends: quantiles of the scores at the head of some files."""
    step = max(len(pool.files) // _FILES_FOR_RANGE, 1)
    heads = [next(file.rows(()), None) for file in pool.files[::step]]
    found = [rows.score[:_ROWS_FOR_RANGE, 0] for rows in heads if rows is not None]
    scores = np.concatenate(found).astype(np.float64) if found else np.zeros(0)
    scores = scores[np.isfinite(scores)]
    low, high = (float(value) for value in np.quantile(scores, (0.001, 0.999))) if len(scores) else (0.0, 1.0)
    return low, high if high > low else low + 1
