"""A pool cut into cells of like vectors, each small enough for memory, on disk until its turn comes.

Centres are fitted on a sample of the pool, in a first pass; in a second one each row goes into the file of the cell
whose centre is nearest. A cell with more than `LARGEST` rows is cut again by centres of its own when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dvsel.embeddings.clusters import assign, fit_centres
from dvsel.errors import UserError
from dvsel.storage.scratch import writing

if TYPE_CHECKING:
    from dvsel.interface.candidates import Candidates

ROWS = 2048  # in a cell, about
LARGEST = 4 * ROWS
_MOST = 1024  # cells of a first cut: so many files are written side by side
_SAMPLE = 32  # rows of the sample for each cell
_BUFFERED = 64 << 20  # bytes of rows that wait to be written

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Members:
    """Rows of a pool with their vectors: the members of a cell, or of cells to be.

    position: int64 (n,), in the pool, rising. tie: uint64 (n,). cost: int64 (n,). score: float32 (n,). vectors: float32
    (n, width).
    """

    position: npt.NDArray[np.int64]
    tie: npt.NDArray[np.uint64]
    cost: npt.NDArray[np.int64]
    score: Floats
    vectors: Floats

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: npt.NDArray[np.integer]) -> Members:
        """Return some of them, in this order."""
        return Members(self.position[rows], self.tie[rows], self.cost[rows], self.score[rows], self.vectors[rows])


def sampled(rows: Iterable[Members], count: int, wanted: int) -> Floats:
    """Vectors of about `wanted` of `count` rows, those with the lowest ties, in the order of ties."""
    bound = np.uint64(min(wanted / max(count, 1), 1.0) * float(2**64 - 2048))
    parts = [part.take(np.flatnonzero(part.tie <= bound)) for part in rows] or [_joined([])]
    tie = np.concatenate([part.tie for part in parts])
    return np.concatenate([part.vectors for part in parts])[np.argsort(tie, kind="stable")]


def cells_for(count: int, rows: int = ROWS) -> int:
    """Return the number of cells of about so many rows that a first cut makes."""
    return int(np.clip(count // rows, 1, _MOST))


def centres_of(passes: Callable[[], Iterator[Members]], count: int, cells: int, seed: int) -> Floats:
    """Centres for `count` rows, float32 (cells or fewer, width), fitted on a sample.

    passes: begins a pass over rows that have vectors. Raises UserError where there is none.
    """
    sample = sampled(passes(), count, cells * _SAMPLE)
    if not len(sample):
        sample = sampled(passes(), count, count)
    if not len(sample):
        raise UserError("no document that competes has both a score and a vector; check scores and embeddings")
    return fit_centres(sample, cells, seed)


def cells(passes: Callable[[], Iterator[Members]], count: int, seed: int, folder: Path) -> Iterator[Members]:
    """The rows, cell by cell.

    passes: begins a pass over `count` rows that have vectors. folder: where temporary files may lie.
    """
    if count <= LARGEST:
        yield _joined(list(passes()))
        return
    centres = centres_of(passes, count, cells_for(count), seed)
    with TemporaryDirectory(prefix=".dvsel-cells-", dir=folder) as scratch:
        spill = _Spill(Path(scratch), len(centres))
        for rows in passes():
            spill.add(rows, assign(rows.vectors, centres)[0])
        for rows in spill.read():
            yield from _cut(rows, seed)


def _cut(rows: Members, seed: int) -> Iterator[Members]:
    """The rows in parts that are small enough: by centres of their own, or, where these do not part them, by ties."""
    if len(rows) <= LARGEST:
        yield rows
        return
    centres = fit_centres(sampled([rows], len(rows), cells_for(len(rows)) * _SAMPLE), cells_for(len(rows)), seed)
    cell = assign(rows.vectors, centres)[0]
    parts = [np.flatnonzero(cell == number) for number in range(len(centres))]
    # Many equal vectors are in one cell however often it is cut; ties, hashes of documents, part them at random.
    if max(map(len, parts)) > len(rows) * 0.9:
        parts = [np.sort(part) for part in np.array_split(np.argsort(rows.tie, kind="stable"), len(rows) // ROWS)]
    for part in parts:
        if len(part):
            yield from _cut(rows.take(part), seed)


class _Spill:
    """Members in a file for each cell."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._waiting: list[list[Members]] = [[] for _ in range(count)]
        self._held = 0
        self._width = 0

    def add(self, rows: Members, cell: npt.NDArray[np.int32]) -> None:
        order = np.argsort(cell, kind="stable")
        numbers, first = np.unique(cell[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
            self._waiting[number].append(rows.take(part))
        self._width = rows.vectors.shape[1]
        self._held += rows.vectors.nbytes
        if self._held > _BUFFERED:
            self._write()

    def read(self) -> Iterator[Members]:
        """Yield each cell's rows, in their order; its file is then gone."""
        self._write()
        for number in range(len(self._waiting)):
            path = self._path(number)
            if path.exists():
                found = np.fromfile(path, self._dtype())
                path.unlink()
                names = ("position", "tie", "cost", "score", "vectors")
                yield Members(*(np.ascontiguousarray(found[name]) for name in names))

    def _write(self) -> None:
        for number, parts in enumerate(self._waiting):
            if parts:
                self._append(number, _joined(parts))
                parts.clear()
        self._held = 0

    def _append(self, number: int, rows: Members) -> None:
        records = np.empty(len(rows), self._dtype())
        for name in records.dtype.names or ():
            records[name] = getattr(rows, name)
        with writing(self._path(number)), self._path(number).open("ab") as file:
            file.write(records.data)

    def _path(self, number: int) -> Path:
        return self._folder / f"cell-{number:04}"

    def _dtype(self) -> np.dtype[np.void]:
        plain = [("position", "<i8"), ("tie", "<u8"), ("cost", "<i8"), ("score", "<f4")]
        return np.dtype([*plain, ("vectors", "<f4", (self._width,))])


def _joined(parts: list[Members]) -> Members:
    if not parts:
        empty = np.empty(0, np.float32)
        return Members(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64), empty, empty[:, None])
    names = ("position", "tie", "cost", "score", "vectors")
    return Members(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def competing(candidates: Candidates) -> Iterator[Members]:
    """A pass over the documents that compete and have a vector. Their score is the highest of the columns."""
    for part in candidates.parts(vectors=True):
        rows = np.flatnonzero(part.eligible & np.isfinite(part.vectors).all(axis=1))
        score = np.fmax.reduce(part.score[rows], axis=1)
        yield Members(part.first + rows, part.tie[rows], part.cost[rows], score, part.vectors[rows])
