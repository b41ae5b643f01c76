"""The exact cut: the rows of a pool that fit its budgets, found in streamed passes and bounded memory.

Rows draw on budgets, one a stratum. In each stratum the rows are ranked by key, then tie, both highest first,
then position, earliest first; the longest prefix of that ranking whose costs sum to no more than the budget
is kept.

The three make one number of 160 bits that orders rows totally. A first pass sums the costs of rows by the
number's highest digit of 16 bits; the sums from the top down show in which digit the budget ends. Each
further pass does the same for the next digit, among the rows that share the digits found so far. Once these
are few they are gathered and sorted, almost always in the second pass. Histograms of parts of the pool add
up, so parts may be read in any order and by several threads.

Memory: strata x 65,536 x 16 bytes a thread (x 256 x 16 with more than 64 strata), and `GATHERED` rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dvsel.kernels.jit import kernel

UNLIMITED = -1
GATHERED = 1 << 20  # rows that are sorted at once
_WIDE_STRATA = 64  # up to so many, digits have 16 bits
_WORD_BITS = (32, 64, 64)  # key, tie, position
_KEY, _TIE, _POSITION = range(3)

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Chunk:
    """n consecutive rows.

    first: the position of the first row in the whole pool.
    key: float32 (n,), the highest are kept first; -0.0 equals 0.0, and NaN is never kept.
    tie: uint64 (n,), decides between equal keys: a hash of the document, so that the order of rows does not.
    cost: int64 (n,), 0 or more; the costs of a stratum must sum to less than 2**63.
    stratum: int32 (n,), the number of the budget that a row draws on; rows with a number that no budget has
    are never kept.
    """

    first: int
    key: npt.NDArray[np.float32]
    tie: npt.NDArray[np.uint64]
    cost: npt.NDArray[np.int64]
    stratum: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        rows = {len(column) for column in (self.key, self.tie, self.cost, self.stratum)}
        assert len(rows) == 1, "the columns of a chunk have the same length"

    def __len__(self) -> int:
        return len(self.key)

    @property
    def order(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], int]:
        """Arguments of the kernels: bits of the keys, ties, strata, first position."""
        bits = _kernel_view(self.key, np.float32).view(np.uint32)
        return bits, _kernel_view(self.tie, np.uint64), _kernel_view(self.stratum, np.int32), self.first


Parts = Sequence[Iterable[Chunk]]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The ends of S budgets.

    rows, cost: int64 (S,), the rows that are kept and the sum of their costs.
    eligible_rows, eligible_cost: int64 (S,), the same of all rows that could be kept.
    took_all: bool (S,), True where every eligible row is kept.
    boundary: uint64 (S, 3), the first row of the ranking that is left out, as words that sort; meaningless
    where all are kept.
    """

    rows: npt.NDArray[np.int64]
    cost: npt.NDArray[np.int64]
    eligible_rows: npt.NDArray[np.int64]
    eligible_cost: npt.NDArray[np.int64]
    took_all: Mask
    boundary: Words

    def keep(self, chunk: Chunk) -> Mask:
        """Return the rows of the chunk that are kept, bool (n,). Chunks may come in any order."""
        kept = np.zeros(len(chunk), np.bool_)
        _keep(*chunk.order, self.took_all, self.boundary, kept)
        return kept

    @property
    def threshold(self) -> npt.NDArray[np.float32]:
        """The highest key that is left out, float32 (S,), -inf where none is. Some equal keys may be kept."""
        return np.where(self.took_all, np.float32(-np.inf), _key_of(self.boundary[:, _KEY]))


def cut(passes: Callable[[], Parts], budgets: npt.NDArray[np.int64], threads: int = 1) -> Cut:
    """Find where the budgets end.

    passes: starts a pass over the pool; each pass gives the same rows at the same positions, in parts that
    threads may read side by side. Two passes are the rule, one where no budget ends; a pool in which more
    than GATHERED rows agree in the first digits takes more.
    budgets: int64 (S,), for each stratum the highest sum of costs, or UNLIMITED.
    """
    search = _Search(budgets)
    while search.narrowing:
        search.narrow(reduce(np.add, _over_parts(passes(), threads, search.histogram, search.count)))
    if search.undecided:
        search.finish([rows for found in _over_parts(passes(), threads, list, search.gather) for rows in found])
    return search.result()


def _over_parts(
    parts: Parts, threads: int, start: Callable[[], State], step: Callable[[State, Chunk], None]
) -> list[State]:
    """Run `step` on every chunk; each thread has a state of its own."""

    def read(share: Parts) -> State:
        state = start()
        for part in share:
            for chunk in part:
                step(state, chunk)
        return state

    shares = [parts[thread::threads] for thread in range(min(threads, len(parts)))]
    if len(shares) < 2:
        return [read(parts)]
    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(read, shares))


class _Rows(NamedTuple):
    """words: uint64 (n, 3). cost: int64 (n,). stratum: int32 (n,)."""

    words: Words
    cost: npt.NDArray[np.int64]
    stratum: npt.NDArray[np.int32]


class _Search:
    """Search for the boundaries: their leading digits so far, and the sums of what lies above them."""

    def __init__(self, budgets: npt.NDArray[np.int64]) -> None:
        strata = len(budgets)
        self.limit = np.where(budgets == UNLIMITED, np.iinfo(np.int64).max, budgets)
        self.boundary = np.zeros((strata, 3), np.uint64)
        self.known = np.zeros(3, np.uint64)  # the bits of `boundary` that are found
        self.searching = np.ones(strata, np.bool_)
        self.kept = np.zeros((strata, 2), np.int64)  # cost and rows above the known digits
        self.eligible = np.zeros((strata, 2), np.int64)
        self.undecided = 0  # rows that agree with the known digits of their stratum's boundary
        self.narrowing = True
        self.bits = 16 if strata <= _WIDE_STRATA else 8
        self.digits = _digits(self.bits)
        self.word, self.shift = next(self.digits)

    def histogram(self) -> npt.NDArray[np.int64]:
        """Return zeros for cost and rows by stratum and digit."""
        return np.zeros((len(self.limit), 1 << self.bits, 2), np.int64)

    def count(self, histogram: npt.NDArray[np.int64], chunk: Chunk) -> None:
        bits, tie, stratum, first = chunk.order
        cost = _kernel_view(chunk.cost, np.int64)
        place = (self.searching, self.boundary, self.known, self.word, self.shift)
        _count(bits, tie, cost, stratum, first, *place, histogram)

    def narrow(self, histogram: npt.NDArray[np.int64]) -> None:
        """Find the next digit of each boundary."""
        if not self.known.any():
            self.eligible[:] = histogram.sum(axis=1)
        self.undecided = sum(self._narrow_one(stratum, histogram[stratum]) for stratum in self._open())
        self.known[self.word] |= np.uint64(((1 << self.bits) - 1) << self.shift)
        following = next(self.digits, None)
        if following is None or self.undecided <= GATHERED:
            self.narrowing = False
        else:
            self.word, self.shift = following

    def _narrow_one(self, stratum: int, bins: npt.NDArray[np.int64]) -> int:
        """Find the next digit of one boundary; return the number of rows that share it."""
        fits = self._keep_prefix(stratum, bins[::-1, 0], bins[::-1, 1])
        if fits == len(bins):
            self.searching[stratum] = False
            return 0
        digit = len(bins) - 1 - fits
        self.boundary[stratum, self.word] |= np.uint64(digit << self.shift)
        return int(bins[digit, 1])

    def _keep_prefix(self, stratum: int, cost: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> int:
        """Keep the longest prefix of groups of rows that still fits; return how many groups it has."""
        # Costs are not negative, so the sums rise and a binary search finds the end of the prefix.
        sums = np.cumsum(cost)
        fits = int(np.searchsorted(sums, self.limit[stratum] - self.kept[stratum, 0], side="right"))
        if fits:
            self.kept[stratum] += sums[fits - 1], rows[:fits].sum()
        return fits

    def gather(self, found: list[_Rows], chunk: Chunk) -> None:
        """Collect the undecided rows."""
        bits, tie, stratum, first = chunk.order
        hit = np.zeros(len(chunk), np.bool_)
        _undecided(bits, tie, stratum, first, self.searching, self.boundary, self.known, hit)
        rows = np.flatnonzero(hit)
        words = np.empty((len(rows), 3), np.uint64)
        _words(bits, tie, first, rows, words)
        found.append(_Rows(words, chunk.cost[rows], chunk.stratum[rows]))

    def finish(self, found: list[_Rows]) -> None:
        """Rank the undecided rows: the boundary is one of them."""
        words, cost, stratum = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((~words[:, _POSITION], ~words[:, _TIE], ~words[:, _KEY], stratum))
        words, cost, stratum = words[order], cost[order], stratum[order]
        for number in self._open():
            first, last = np.searchsorted(stratum, [number, number + 1])
            fits = self._keep_prefix(number, cost[first:last], np.ones(last - first, np.int64))
            self.boundary[number] = words[first + fits]

    def _open(self) -> list[int]:
        return [int(stratum) for stratum in np.flatnonzero(self.searching)]

    def result(self) -> Cut:
        return Cut(
            rows=self.kept[:, 1],
            cost=self.kept[:, 0],
            eligible_rows=self.eligible[:, 1],
            eligible_cost=self.eligible[:, 0],
            took_all=~self.searching,
            boundary=self.boundary,
        )


def _digits(bits: int) -> Iterator[tuple[int, int]]:
    """Yield (word, shift) of each digit of `bits` bits, highest first."""
    for word, width in enumerate(_WORD_BITS):
        for shift in range(width - bits, -1, -bits):
            yield word, shift


def _kernel_view(array: npt.NDArray[Any], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return the array contiguous and read-only, since numba compiles a kernel again for every other layout."""
    assert array.dtype == dtype
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _key_of(word: Words) -> npt.NDArray[np.float32]:
    """Return the float32 that `_sortable` made the word from."""
    bits = word.astype(np.uint32)
    return np.where(bits >> 31, bits ^ np.uint32(1 << 31), ~bits).view(np.float32)


@kernel
def _sortable(bits: Any) -> Any:
    """Return the bits of a float32 as a uint64 below 2**32 that sorts as the float does; -0.0 as 0.0."""
    # A float sorts as its bits do, once the sign is turned over, and for a negative one all other bits too.
    negative = np.uint32(0) - (bits >> np.uint32(31))  # all ones, or none: no processor predicts a branch on the sign
    word = bits ^ (np.uint32(negative) | np.uint32(0x80000000))
    # 0x7FFFFFFF is -0.0, which is to be one with 0.0, the next word.
    return np.uint64(np.uint32(word)) + np.uint64(np.uint32(word) == np.uint32(0x7FFFFFFF))


@kernel
def _is_eligible(bits: Any, stratum: Any, strata: Any) -> Any:
    # Beyond the bits of infinity, sign aside, there are only NaNs.
    not_nan = (bits & np.uint32(0x7FFFFFFF)) <= np.uint32(0x7F800000)
    return not_nan and 0 <= stratum < strata


@kernel
def _count(
    bits: Any,
    tie: Any,
    cost: Any,
    stratum: Any,
    first: Any,
    searching: Any,
    boundary: Any,
    known: Any,
    word: Any,
    shift: Any,
    histogram: Any,
) -> None:
    last = np.uint64(histogram.shape[1] - 1)
    for index in range(len(bits)):
        own = stratum[index]
        if not (_is_eligible(bits[index], own, len(searching)) and searching[own]):
            continue
        value = _sortable(bits[index])
        if value & known[_KEY] != boundary[own, _KEY]:
            continue
        if word != _KEY:  # the first passes never touch ties
            if tie[index] & known[_TIE] != boundary[own, _TIE]:
                continue
            value = tie[index]
        if word == _POSITION:
            value = ~np.uint64(first + index)  # turned over, so that the earliest is the highest
            if value & known[_POSITION] != boundary[own, _POSITION]:
                continue
        digit = (value >> np.uint64(shift)) & last
        histogram[own, digit, 0] += cost[index]
        histogram[own, digit, 1] += 1


@kernel
def _undecided(
    bits: Any, tie: Any, stratum: Any, first: Any, searching: Any, boundary: Any, known: Any, hit: Any
) -> None:
    for index in range(len(bits)):
        own = stratum[index]
        if _is_eligible(bits[index], own, len(searching)) and searching[own]:
            hit[index] = (
                (_sortable(bits[index]) & known[_KEY]) == boundary[own, _KEY]
                and (tie[index] & known[_TIE]) == boundary[own, _TIE]
                and (~np.uint64(first + index) & known[_POSITION]) == boundary[own, _POSITION]
            )


@kernel
def _keep(bits: Any, tie: Any, stratum: Any, first: Any, took_all: Any, boundary: Any, kept: Any) -> None:
    for index in range(len(bits)):
        own = stratum[index]
        if not _is_eligible(bits[index], own, len(took_all)):
            continue
        key = _sortable(bits[index])
        # Almost always the key alone decides; `|` in place of `or` spares a branch a row.
        kept[index] = took_all[own] | (key > boundary[own, _KEY])
        if key == boundary[own, _KEY] and not took_all[own]:
            tied = tie[index] == boundary[own, _TIE]
            earlier = ~np.uint64(first + index) > boundary[own, _POSITION]
            kept[index] = earlier if tied else tie[index] > boundary[own, _TIE]


@kernel
def _words(bits: Any, tie: Any, first: Any, rows: Any, words: Any) -> None:
    for at in range(len(rows)):
        words[at, _KEY] = _sortable(bits[rows[at]])
        words[at, _TIE] = tie[rows[at]]
        words[at, _POSITION] = ~np.uint64(first + rows[at])
