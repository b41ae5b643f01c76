"""Exact deduplication by the hash of the text, in bounded memory.

Of the eligible rows with one text hash, the one with the highest tie stays, of those the earliest; the others
are dropped. Rows that are not eligible are neither dropped nor a reason to drop others.

One pass: rows are collected up to `BUFFERED`, the losers among these are marked, and the rest is spilled into
files by the highest bits of the hash; then each file, small enough for memory, is settled by itself. A text
that occurs any number of times leaves one row a buffer, so that no file grows with it. On disk: 24 bytes for
each eligible row that is not dropped at once, and one bit a row for the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.kernels.jit import kernel
from dvsel.storage.scratch import mapped, writing

BUFFERED = 1 << 20  # rows that are held in memory; a file holds no more, up to 4 billion rows in all
_ROW = np.dtype([("text", np.uint64), ("tie", np.uint64), ("position", np.int64)])
_MAX_FILE_BITS = 12

Candidates = npt.NDArray[Any]
"""An array of `_ROW`."""
Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TextChunk:
    """n consecutive rows, by their texts.

    text: uint64 (n,), the hash of the row's text. tie: uint64 (n,), the highest stays. eligible: bool (n,).
    """

    text: npt.NDArray[np.uint64]
    tie: npt.NDArray[np.uint64]
    eligible: npt.NDArray[np.bool_]


class Drops:
    """Flags of the dropped rows: `drops[first:last]` is a bool array (last - first,)."""

    def __init__(self, bits: Bits) -> None:
        self._bits = bits

    def __getitem__(self, rows: slice) -> npt.NDArray[np.bool_]:
        return unpacked(self._bits, rows.start, rows.stop)


def unpacked(bits: Bits, first: int, last: int) -> npt.NDArray[np.bool_]:
    """Return the bits from `first` to `last`, bool (last - first,); of each byte the lowest comes first."""
    flags = np.unpackbits(bits[first >> 3 : (last + 7) >> 3], bitorder="little")
    return flags[first & 7 :][: last - first].view(np.bool_)


@contextmanager
def duplicates(chunks: Iterable[TextChunk], rows: int, folder: Path) -> Iterator[Drops]:
    """Find the duplicates among `rows` rows.

    chunks: all rows, in order. folder: where temporary files may lie; they are gone at the end of the
    context. Raises UserError where the folder cannot take them.
    """
    with TemporaryDirectory(prefix=".dvsel-dedup-", dir=folder) as scratch:
        spill = _Spill(Path(scratch), rows)
        for buffer in _buffers(chunks):
            spill.add(buffer)
        spill.settle()
        yield Drops(spill.bits)


class _Spill:
    """Rows that are still candidates, in files by the highest bits of their hash; and the losers so far."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._file_bits = min(max(rows - 1, 0) // BUFFERED, (1 << _MAX_FILE_BITS) - 1).bit_length()
        self.bits: Bits = mapped(folder / "drops", np.uint8, ((rows + 7) // 8 + 1,), 0)

    def add(self, rows: Candidates) -> None:
        """Mark the losers of these rows and spill the others."""
        rows = rows[_survivors(rows, self.bits)]
        # In two steps: to shift 64 bits by 64, as with one file, is undefined.
        number = rows["text"] >> np.uint64(32) >> np.uint64(32 - self._file_bits)
        rows = rows[np.argsort(number.astype(np.uint16), kind="stable")]
        counts = np.bincount(number.astype(np.int64), minlength=1 << self._file_bits)
        for file, part in enumerate(np.split(rows, np.cumsum(counts)[:-1])):
            with writing(self._path(file)), self._path(file).open("ab") as spilled:
                spilled.write(part.tobytes())

    def settle(self) -> None:
        """Mark the losers of each file."""
        for path in sorted(self._folder.glob("rows-*")):
            _survivors(np.fromfile(path, _ROW), self.bits)
            path.unlink()

    def _path(self, file: int) -> Path:
        return self._folder / f"rows-{file:04}"


def _buffers(chunks: Iterable[TextChunk]) -> Iterator[Candidates]:
    """Yield the eligible rows with their positions, about BUFFERED at a time."""
    waiting: list[Candidates] = []
    first = 0
    for chunk in chunks:
        waiting.append(_eligible(chunk, first))
        first += len(chunk.text)
        if sum(map(len, waiting)) >= BUFFERED:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _eligible(chunk: TextChunk, first: int) -> Candidates:
    at = np.flatnonzero(chunk.eligible)
    rows = np.empty(len(at), _ROW)
    rows["text"], rows["tie"], rows["position"] = chunk.text[at], chunk.tie[at], first + at
    return rows


def _survivors(rows: Candidates, drops: Bits) -> npt.NDArray[np.int64]:
    """Return the indices of the rows that stay, and mark the others in `drops`. rows: in order of position."""
    # Twice as many slots as rows or more, or probing gets long; a power of two, so that a mask replaces a division.
    slots = np.full(1 << (2 * len(rows) + 1).bit_length(), -1, np.int64)
    text, tie, position = (np.ascontiguousarray(rows[name]) for name in ("text", "tie", "position"))
    _settle(text, tie, position, slots, drops)
    return np.sort(slots[slots >= 0])


@kernel
def _settle(text: Any, tie: Any, position: Any, slots: Any, drops: Any) -> None:
    """Fill an open-addressing table of row indices by text; mark the rows that lose their slot."""
    last = np.uint64(len(slots) - 1)
    for row in range(len(text)):
        slot = text[row] & last  # files go by the highest bits of the hash, so its lowest are still spread evenly
        while slots[slot] >= 0 and text[slots[slot]] != text[row]:
            slot = (slot + np.uint64(1)) & last
        loser = row
        if slots[slot] < 0 or tie[row] > tie[slots[slot]]:
            loser = slots[slot]
            slots[slot] = row
        if loser >= 0:
            drops[position[loser] >> 3] |= np.uint8(1 << (position[loser] & 7))
