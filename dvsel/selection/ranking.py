"""The rule by which rows compete: their keys, their costs, and the budget that each draws on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dvsel.budgets.exact_cut import Chunk, Cut
from dvsel.budgets.quota import Quota
from dvsel.documents.columns import Status
from dvsel.documents.hashing import mix, uniform
from dvsel.interface import checked
from dvsel.interface.checked import NO_NOISE
from dvsel.interface.selector import Selector, SetSelector
from dvsel.score_files.rows import Rows
from dvsel.selection.dedup import Drops


@dataclass(frozen=True)
class Rule:
    """The rule by which rows compete: the selector's keys, the budget's unit, and each row's budget (its stratum).

    cuts: those found so far, one a group; a row that an earlier group keeps does not compete for the later ones.
    keys: of all rows of the pool, float32, where the selector sees the whole set.
    offset: number of the rule's first stratum, where the cuts of several rules are found together.
    """

    selector: Selector
    seed: int
    unit: str
    quota: Quota | None
    drops: Drops | None = None
    cuts: tuple[Cut, ...] = ()
    keys: npt.NDArray[np.float32] | None = None
    offset: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of score files that the rule reads."""
        cost = () if self.unit == "docs" else (self.unit,)
        return ("key", *cost, *(("domain",) if self.quota else ()))

    def chunk(self, rows: Rows, first: int, group: int) -> Chunk:
        """Return the rows as they compete for the group's budgets; first: the position of the first in the pool."""
        stratum = self._stratum(rows, first)
        # A group's cut was found among the rows that the groups before it left, so those are taken out in that order.
        for earlier in range(group):
            stratum[self.cuts[earlier].keep(self._compete(rows, first, earlier, stratum))] = -1
        return self._compete(rows, first, group, stratum)

    def keep(self, rows: Rows, first: int) -> npt.NDArray[np.bool_]:
        """Return bool (n,): the rows that any group keeps."""
        stratum = self._stratum(rows, first)
        kept = self.cuts[0].keep(self._compete(rows, first, 0, stratum))
        for group, found in enumerate(self.cuts[1:], 1):
            stratum[kept] = -1
            kept |= found.keep(self._compete(rows, first, group, stratum))
        return kept

    def _compete(self, rows: Rows, first: int, group: int, stratum: npt.NDArray[np.int32]) -> Chunk:
        return Chunk(first, self._key(rows, first, group), mix(rows.key, self.seed), self.cost(rows), stratum)

    def _key(self, rows: Rows, first: int, group: int) -> npt.NDArray[np.float32]:
        if self.keys is not None:
            return self.keys[first : first + len(rows)]
        noise = np.broadcast_to(NO_NOISE, len(rows))
        if self.selector.noisy:
            noise = uniform(rows.key, self.seed + group)
        return checked.keys(self.selector, rows.score[:, group], noise)

    def competes(self, rows: Rows, first: int) -> npt.NDArray[np.bool_]:
        """Return bool (n,): the rows that have a score, and a budget to draw on."""
        scored: npt.NDArray[np.bool_] = rows.status == Status.SCORED
        return scored & (self._stratum(rows, first) >= 0)

    def weights(self, rows: Rows, first: int, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return the weights of the rows that are kept, float32 (k,)."""
        selector = self.selector
        assert isinstance(selector, SetSelector)
        stratum = self._stratum(rows, first)[kept] - self.offset
        threshold = self.cuts[0].threshold[stratum]
        return checked.weights(selector, self._key(rows, first, 0)[kept], uniform(rows.key, self.seed)[kept], threshold)

    def cost(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return int64 (n,): the cost of each row, in the unit."""
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
