"""Columns take turns: RDS+ (Ivison et al. 2025, "Large-Scale Data Selection for Instruction Tuning")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dvsel.errors import UserError
from dvsel.interface.selector import SetSelector
from dvsel.options import option

if TYPE_CHECKING:
    from dvsel.embeddings.round_robin_heaps import Heaps, Turns
    from dvsel.interface.candidates import Candidates, Part

_DEEPER = 4  # times the picks that a column can expect
_MOST = 1 << 25  # documents in all heaps, 1 GB, to which these grow by themselves


@dataclass(frozen=True)
class RoundRobin(SetSelector):
    """Let targets, or single queries, take turns: each takes the document that it scores highest of those left.

    Without queries the columns of the scores take turns, one for each target. With queries each of these does, in an
    order that the seed draws, and its scores are the cosines with the pool's embeddings.

    A column looks no deeper than its heap. Without --heap the heaps grow, with another pass over the pool each time,
    until none runs out or they hold 1 GB. The summary names columns that ran out; without any, the result is exact.
    """

    queries: tuple[str, ...] = option((), "documents that take turns by their embeddings; repeatable", files=True)
    heap: int = option(0, "documents that a column holds; 0: as many as it takes, up to 1 GB in all", minimum=0)

    divides_budget: ClassVar[bool] = True

    @property
    def looks_at_vectors(self) -> bool:
        """True where queries are given."""
        return bool(self.queries)

    def rank(self, candidates: Candidates) -> list[str]:
        """Give the first pick the highest key. Beyond 16 million picks neighbours may share one: ties then decide."""
        assert candidates.limit is not None, "without a budget there are no turns"
        queries = self._queries(candidates)
        columns = len(candidates.groups) if queries is None else len(queries)
        if columns == 1:
            raise UserError("one column has no turns to take; give several targets or queries, or take --method topk")
        size = self.heap or _expected(candidates, columns)
        while True:
            turns = _turns(candidates, columns, queries, size)
            if self.heap or not turns.exhausted or size >= candidates.docs or columns * size * _DEEPER > _MOST:
                break
            size *= _DEEPER
        candidates.keys[turns.position] = -np.arange(len(turns.position), dtype=np.float32)
        picks = len(turns.position)
        return [
            f"{columns:,} columns took turns, {picks:,} picks",
            *_unserved(picks, columns, candidates.docs),
            *_exhaustion(turns, size),
        ]

    def _queries(self, candidates: Candidates) -> np.ndarray | None:
        """Return the queries' vectors in an order drawn by the seed, so that few picks are not all of one topic."""
        if not self.queries:
            return None
        found = candidates.embedded(self.queries)
        return found[np.random.default_rng(candidates.seed).permutation(len(found))]


def _expected(candidates: Candidates, columns: int) -> int:
    assert candidates.limit is not None
    picks = candidates.docs * min(candidates.limit / max(candidates.cost, 1), 1.0)
    return _DEEPER * math.ceil(picks / columns) + 64


def _turns(candidates: Candidates, columns: int, queries: np.ndarray | None, size: int) -> Turns:
    from dvsel.embeddings.round_robin_heaps import Heaps

    assert candidates.limit is not None
    heaps = Heaps(columns, min(size, max(candidates.docs, 1)))
    for part in candidates.parts(vectors=queries is not None):
        _offer(heaps, part, queries)
    return heaps.turns(candidates.limit)


def _offer(heaps: Heaps, part: Part, queries: np.ndarray | None) -> None:
    score = part.score if queries is None else part.vectors @ queries.T
    heaps.add(np.where(part.eligible[:, None], score, np.float32(np.nan)), part.tie, part.first, part.cost)


def _unserved(picks: int, columns: int, docs: int) -> list[str]:
    if picks >= min(columns, docs):
        return []
    return [
        f"the budget ended in the first turns: of {columns:,} columns {columns - picks:,} picked nothing; give a "
        "larger budget"
    ]


def _exhaustion(turns: Turns, size: int) -> list[str]:
    if not turns.exhausted:
        return []
    return [
        f"{len(turns.exhausted):,} columns used up their heaps of {size:,}: the first {turns.sure:,} picks are those "
        "of the exact rule, the others may not be; give a larger --heap"
    ]
