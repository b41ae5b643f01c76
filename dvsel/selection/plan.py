"""The rows of a pool's score files to keep, decided before any shard is read.

`Plan.make` finds the cuts of a `dvsel.selection.ranking.Rule` in streamed passes, counts what they keep and leaves one
bit a row on disk for the workers that copy the kept lines.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.budget import Budget
from dvsel.budgets.exact_cut import UNLIMITED, Cut, cut
from dvsel.budgets.quota import Quota
from dvsel.errors import UserError
from dvsel.interface import checked
from dvsel.interface.checked import NO_NOISE, follows_scores
from dvsel.interface.selector import Selector, SetSelector
from dvsel.runs.requests import Reading
from dvsel.score_files.reader import ScoreFile
from dvsel.selection.dedup import Drops
from dvsel.selection.domains import without_budget
from dvsel.selection.ranking import Rule
from dvsel.selection.scored_pool import Pool
from dvsel.selection.tally import Tally, score_range
from dvsel.selectors.topk import TopK
from dvsel.storage.scratch import writing

_COUNTED = ("key", "tokens", "bytes", "status", "domain")


@dataclass(frozen=True)
class Plan:
    """The rows that a run keeps.

    kept: the number of documents kept of each file. masks: folder of `mask_file`s, one for each file of which something
    is kept. notes: remarks of the selector on its work.
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
        # Where noise decides too, topk is cut in the same passes, to report how far the two agree.
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
        """True where every document that competes is kept."""
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
    """Divide each stratum's budget among groups: int64 (groups, strata). The last group takes what rounding leaves."""
    divided = np.full((len(shares), len(amounts)), UNLIMITED, np.int64)
    for place, amount in enumerate(amounts):
        if amount != UNLIMITED:
            # In fractions: a float has 53 bits, and budgets of bytes may need more.
            ends = [int(int(amount) * Fraction(share)) for share in np.cumsum(shares)[:-1]] + [amount]
            divided[:, place] = np.diff([0, *ends])
    return divided


def _with_cuts(rules: Sequence[Rule], pool: Pool, budgets: npt.NDArray[np.int64], threads: int) -> list[Rule]:
    """Find the cuts of all rules in the same passes; each rule has strata of its own and the same budgets."""
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
    """Return the place of the kept rows of the file of that number, as bits, lowest first."""
    return masks / f"{number}.bits"


def weights_file(masks: Path, number: int) -> Path:
    """Return the place of the kept rows' weights, float32, for a selector that gives some."""
    return masks / f"{number}.weights"


def _count(pool: Pool, rule: Rule, best: Rule | None, masks: Path, threads: int) -> tuple[Tally, list[int]]:
    edges = score_range(pool)

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
            _save(mask_file(masks, number), bits)
        if weights:
            _save(weights_file(masks, number), weights)
        return tally, kept_rows

    total = Tally(*edges)
    with ThreadPoolExecutor(threads) as workers:
        counted = list(workers.map(count, range(len(pool.files))))
    for tally, _ in counted:
        total.merge(tally)
    return total, [kept for _, kept in counted]


def _save(path: Path, content: bytes | bytearray) -> None:
    with writing(path):
        path.write_bytes(content)
