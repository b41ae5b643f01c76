"""Round-robin over the columns of scores, with a bounded heap for each.

The rule of RDS+ (Ivison et al. 2025): columns, one for each target or query, take turns in order, and each takes the
document that it scores highest of those that nobody has. The exact rule may go as deep into a column as the pool; a
heap keeps the best of each, and what `Heaps.turns` returns says whether that was enough.

Documents are ordered by score, then tie (a hash of the document, highest first), then position (lowest first), so that
the same documents come out whatever the batches, their order and the order of merges.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dvsel.kernels.jit import kernel

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
Ties = npt.NDArray[np.uint64]
Entries = npt.NDArray[np.void]

_DOCUMENT = np.dtype(
    [("score", np.float32), ("tie", np.uint64), ("position", np.int64), ("cost", np.int64)], align=True
)


class Turns(NamedTuple):
    """Picks of round-robin, in order.

    position: int64 (k,), of each pick. column: int32 (k,), whose turn it was. exhausted: columns that ran out before
    the limit was reached though they had scored more documents than their heaps held. sure: how many of the first picks
    are those of the exact rule; k where nothing is exhausted.
    """

    position: Places
    column: npt.NDArray[np.int32]
    exhausted: list[int]
    sure: int


class Heaps:
    """The best documents of each column.

    columns: how many. size: documents that each keeps, at least 1. Memory: 32 bytes for each of columns * size.
    """

    def __init__(self, columns: int, size: int) -> None:
        self._heaps = np.zeros((columns, size), _DOCUMENT)
        self._count = np.zeros(columns, np.int64)
        self._seen = np.zeros(columns, np.int64)

    def add(self, score: Floats, tie: Ties, first: int, cost: Places) -> None:
        """Offer n documents.

        score: (n, columns); a column never takes a document whose score is NaN. tie: (n,). first: the position of the
        first; the others follow. cost: (n,).
        """
        score = np.ascontiguousarray(score, np.float32)
        _offer(score, tie, first, cost, np.empty(1, _DOCUMENT), self._seen, self._heaps, self._count)

    def merge(self, other: Heaps) -> None:
        """Take over what another has kept of other documents for the same columns."""
        _take_over(other._heaps, other._count, self._heaps, self._count)
        self._seen += other._seen

    def turns(self, limit: int) -> Turns:
        """Columns pick in turns until the costs reach the limit, or the next pick would exceed it, or nothing is left.

        A column that has run out is passed over.
        """
        ranked = np.take_along_axis(self._heaps, self._ranks(), 1)
        known, document = np.unique(ranked["position"], return_inverse=True)
        document = document.reshape(ranked.shape)
        picked, column, ended = _turns(document, ranked["cost"], self._count, self._seen, limit, len(known))
        exhausted = np.flatnonzero(ended >= 0)
        sure = int(ended[exhausted].min(initial=len(picked)))
        return Turns(known[picked], column, exhausted.tolist(), sure)

    def _ranks(self) -> Places:
        """The places of each heap, best first, then those that are empty; int64 (columns, size)."""
        ranks = np.empty(self._heaps.shape, np.int64)
        ranks[:] = np.arange(ranks.shape[1])
        for one, count in enumerate(self._count.tolist()):
            kept = self._heaps[one, :count]
            ranks[one, :count] = np.lexsort((kept["position"], ~kept["tie"], -kept["score"]))
        return ranks


@kernel
def _offer(
    score: Floats,
    tie: Ties,
    first: int,
    cost: Places,
    offered: Entries,
    seen: Places,
    heaps: Entries,
    count: Places,
) -> None:
    """offered: (1,), room for a document."""
    columns, size = heaps.shape
    least = np.empty(columns, np.float32)
    for column in range(columns):
        least[column] = heaps[column, 0].score if count[column] == size else -np.inf
    for row in range(len(score)):
        for column in range(columns):
            one = score[row, column]
            # False for NaN.
            seen[column] += one == one
            # A cheap look before the heap: most rank below all that a full heap holds. Equal scores may rank above.
            if one >= least[column]:
                offered[0].score, offered[0].tie = one, tie[row]
                offered[0].position, offered[0].cost = first + row, cost[row]
                count[column] = _push(heaps[column], count[column], offered[0])
                if count[column] == size:
                    least[column] = heaps[column, 0].score


@kernel
def _take_over(others: Entries, number: Places, heaps: Entries, count: Places) -> None:
    for column in range(len(number)):
        for place in range(number[column]):
            count[column] = _push(heaps[column], count[column], others[column, place])


@kernel
def _push(heap: Entries, count: int, document: Any) -> int:
    """Offer a document to a heap, whose first ranks below all others; returns how many it now holds."""
    if count < len(heap):
        _rise(heap, count, document)
        return count + 1
    if _ranks_below(heap[0], document):
        _sink(heap, document)
    return count


@kernel
def _rise(heap: Entries, place: int, document: Any) -> None:
    while place > 0:
        parent = (place - 1) // 2
        if not _ranks_below(document, heap[parent]):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = document


@kernel
def _sink(heap: Entries, document: Any) -> None:
    place = 0
    while 2 * place + 1 < len(heap):
        child = 2 * place + 1
        if child + 1 < len(heap) and _ranks_below(heap[child + 1], heap[child]):
            child += 1
        if not _ranks_below(heap[child], document):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = document


@kernel
def _ranks_below(one: Any, other: Any) -> bool:
    if one.score != other.score:
        return bool(one.score < other.score)
    if one.tie != other.tie:
        return bool(one.tie < other.tie)
    return bool(one.position > other.position)


@kernel
def _turns(
    document: Places, cost: Places, count: Places, seen: Places, limit: int, documents: int
) -> tuple[Places, npt.NDArray[np.int32], Places]:
    """Picks and whose they are, and for each column after how many picks it was exhausted; -1 if it was not.

    document, cost: (columns, size), each column's best first. documents: how many different ones there are.
    """
    columns = len(count)
    picked, whose = np.empty(documents, np.int64), np.empty(documents, np.int32)
    ended = np.full(columns, -1, np.int64)
    reached = np.zeros(columns, np.int64)
    taken = np.zeros(documents, np.bool_)
    picks, spent, idle, column = 0, 0, 0, 0
    while spent < limit and idle < columns:
        place = reached[column]
        while place < count[column] and taken[document[column, place]]:
            place += 1
        reached[column] = place
        if place < count[column]:
            if spent + cost[column, place] > limit:
                break
            spent += cost[column, place]
            picked[picks], whose[picks] = document[column, place], column
            taken[picked[picks]] = True
            picks += 1
            idle = 0
        else:
            if seen[column] > count[column] and ended[column] < 0:
                ended[column] = picks
            idle += 1
        column = (column + 1) % columns
    return picked[:picks], whose[:picks], ended
