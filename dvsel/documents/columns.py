"""Documents as columns: byte strings laid end to end, with int64 offsets.

A kernel sees two arrays and never a Python string. Every buffer ends in `PAD` spare bytes, so that a
kernel may load a whole vector at any position of the data.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from dvsel.documents.vectors import Vectors

PAD = 64

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


class Kind(IntEnum):
    """Types of a document's field in its source."""

    MISSING = 0
    NULL = 1
    STRING = 2
    NUMBER = 3
    BOOL = 4
    OTHER = 5  # an array or an object


class Status(IntEnum):
    """Reasons for which a document has a score, or none."""

    SCORED = 0
    BAD_LINE = 1
    EMPTY_TEXT = 2
    UNSCORED = 3


@dataclass(frozen=True, slots=True)
class Column:
    """A field of n documents.

    data: uint8 (offsets[n] + PAD or more,). A string's UTF-8 bytes, unescaped; anything else as its JSON text;
    nothing for MISSING and NULL.
    offsets: int64 (n + 1,); row i is data[offsets[i]:offsets[i + 1]].
    kind: uint8 (n,), values of `Kind`.
    """

    data: Bytes
    offsets: Offsets
    kind: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The bytes of each row, int64 (n,)."""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.integer]) -> Column:
        """Return a column of these rows, in this order."""
        first, last = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        pieces = [self.data[begin:end] for begin, end in zip(first, last, strict=True)]
        return Column(_laid(pieces), _ends(self.sizes[rows]), self.kind[rows])

    def put(self, rows: npt.NDArray[np.integer], values: Sequence[bytes], kinds: Sequence[int]) -> Column:
        """Return a column with these values in rows, ascending, that had none."""
        parts = np.split(self.data[: self.offsets[-1]], self.offsets[rows])
        pieces = [piece for value, part in zip(values, parts, strict=False) for piece in (part, _array(value))]
        sizes, kind = self.sizes, self.kind.copy()
        sizes[rows], kind[rows] = [len(value) for value in values], kinds
        return Column(_laid([*pieces, parts[-1]]), _ends(sizes), kind)

    def without(self, rows: npt.NDArray[np.integer]) -> Column:
        """Return a column with an empty string in these rows."""
        sizes, kind = self.sizes, self.kind.copy()
        kept = np.ones(len(self), np.bool_)
        kept[rows] = False
        data = self.data
        if sizes[rows].any():
            data = _laid([data[: self.offsets[-1]][np.repeat(kept, sizes)]])
        sizes[rows], kind[rows] = 0, Kind.STRING
        return Column(data, _ends(sizes), kind)

    @classmethod
    def join(cls, columns: Sequence[Column]) -> Column:
        """Join columns to one, in order."""
        pieces = [column.data[: column.offsets[-1]] for column in columns]
        sizes = np.concatenate([column.sizes for column in columns])
        return cls(_laid(pieces), _ends(sizes), np.concatenate([column.kind for column in columns]))

    @classmethod
    def of(cls, rows: Sequence[bytes | None], kinds: Sequence[int] | None = None) -> Column:
        """Make a column of byte strings; None is a missing field, unless `kinds` says otherwise."""
        if kinds is None:
            kinds = [Kind.MISSING if row is None else Kind.STRING for row in rows]
        sizes = np.array([len(row or b"") for row in rows], np.int64)
        pieces = [_array(row or b"") for row in rows]
        return cls(_laid(pieces), _ends(sizes), np.array(kinds, np.uint8))


def _array(value: bytes) -> Bytes:
    return np.frombuffer(value, np.uint8)


def _laid(pieces: Sequence[Bytes]) -> Bytes:
    """Lay pieces end to end, and the spare bytes after them, in one copy."""
    spare = np.zeros(PAD, np.uint8)
    return np.concatenate([*pieces, spare])


def _ends(sizes: npt.NDArray[np.int64]) -> Offsets:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents as a scorer gets them, n of them.

    text: their texts. columns: the further fields that the scorer declared in `needs`, by path. keys: uint64 (n,), each
    document's own number (see `identity`). vectors: their embeddings, where the pool has some.
    """

    text: Column
    columns: Mapping[str, Column] = field(default_factory=dict)
    keys: npt.NDArray[np.uint64] | None = None
    vectors: Vectors | None = None

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def join(cls, batches: Iterable[Batch], count: int | None = None) -> Batch:
        """Join batches to one of the first `count` documents, None for all; further batches are not asked for."""
        parts, missing = [cls.of([])], sys.maxsize if count is None else count
        for batch in batches:
            parts.append(batch if len(batch) <= missing else batch.take(np.arange(missing)))
            missing -= len(parts[-1])
            if not missing:
                break
        parts = parts[1:] or parts
        names = parts[0].columns
        keys = [part.keys for part in parts if part.keys is not None]
        vectors = [part.vectors for part in parts if part.vectors is not None]
        return cls(
            Column.join([part.text for part in parts]),
            {name: Column.join([part.columns[name] for part in parts]) for name in names},
            np.concatenate(keys) if len(keys) == len(parts) else None,
            Vectors.join(vectors) if len(vectors) == len(parts) else None,
        )

    def take(self, rows: npt.NDArray[np.integer]) -> Batch:
        """Return a batch of these documents, in this order."""
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        keys = None if self.keys is None else self.keys[rows]
        return Batch(self.text.take(rows), columns, keys, None if self.vectors is None else self.vectors.take(rows))

    @classmethod
    def of(cls, texts: Sequence[str]) -> Batch:
        """Make a batch of Python strings, for tests and small jobs."""
        return cls(Column.of([text.encode() for text in texts]))
