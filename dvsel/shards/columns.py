"""Documents as columns: byte strings laid end to end, with int64 offsets.

A kernel sees two arrays and never a Python string. Every buffer ends in `PAD` spare bytes, so that a
kernel may load a whole vector at any position of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

PAD = 64

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


class Kind(IntEnum):
    """What a field of a document was in its source."""

    MISSING = 0
    NULL = 1
    STRING = 2
    NUMBER = 3
    BOOL = 4
    OTHER = 5  # an array or an object


@dataclass(frozen=True, slots=True)
class Column:
    """One field of n documents.

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
        """Bytes a row, int64 (n,)."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, rows: Sequence[bytes | None], kinds: Sequence[int] | None = None) -> Column:
        """A column from byte strings; None is a missing field, unless `kinds` says otherwise."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row or b"") for row in rows], out=offsets[1:])
        joined = b"".join(row or b"" for row in rows)
        data = np.zeros(len(joined) + PAD, np.uint8)
        data[: len(joined)] = np.frombuffer(joined, np.uint8)
        if kinds is None:
            kinds = [Kind.MISSING if row is None else Kind.STRING for row in rows]
        return cls(data, offsets, np.array(kinds, np.uint8))


@dataclass(frozen=True, slots=True)
class Batch:
    """What a scorer sees: n documents.

    text: their texts. columns: the further fields that the scorer declared in `needs`, by path.
    """

    text: Column
    columns: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.text)

    @classmethod
    def of(cls, texts: Sequence[str]) -> Batch:
        """A batch from Python strings, for tests and small jobs."""
        return cls(Column.of([text.encode() for text in texts]))
