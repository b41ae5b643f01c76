"""Causes for which rows hold no usable document: a number for each row, and each cause's text once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Causes(Mapping[int, str]):
    """Causes by row.

    rows: int64 (k,), ascending. codes: whole numbers (k,), each an index into `texts`.
    """

    rows: npt.NDArray[np.int64]
    codes: npt.NDArray[np.integer[Any]]
    texts: Sequence[str]

    @classmethod
    def of(cls, causes: Mapping[int, str]) -> Causes:
        """Make them of any mapping."""
        return causes if isinstance(causes, Causes) else cls.pairs(sorted(causes.items()))

    @classmethod
    def pairs(cls, pairs: Iterable[tuple[int, str]]) -> Causes:
        """Make them of rows, ascending, and their causes."""
        rows, codes, numbers = [], [], dict[str, int]()
        for row, cause in pairs:
            rows.append(row)
            codes.append(numbers.setdefault(cause, len(numbers)))
        return cls(np.array(rows, np.int64), np.array(codes, np.int64), list(numbers))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows.tolist())

    def __getitem__(self, row: int) -> str:
        at = int(np.searchsorted(self.rows, row))
        if at == len(self.rows) or self.rows[at] != row:
            raise KeyError(row)
        return self.texts[int(self.codes[at])]

    def or_else(self, other: Causes) -> Causes:
        """Return these, and those of `other` for further rows."""
        if not len(other):
            return self
        if not len(self):
            return other
        further = ~np.isin(other.rows, self.rows, assume_unique=True, kind="table")
        if not further.any():
            return self
        rows = np.concatenate((self.rows, other.rows[further]))
        codes = np.concatenate((self.codes, other.codes[further].astype(np.int64) + len(self.texts)))
        order = np.argsort(rows)
        return Causes(rows[order], codes[order], [*self.texts, *other.texts])

    def first(self, most: int) -> list[tuple[int, str]]:
        """Return row and cause of the first `most`."""
        return [(row, self.texts[code]) for row, code in zip(self.rows[:most].tolist(), self.codes[:most], strict=True)]

    def counts(self) -> Counter[str]:
        """Count rows by cause, without the causes' details."""
        found: Counter[str] = Counter()
        for text, count in zip(self.texts, np.bincount(self.codes, minlength=len(self.texts)).tolist(), strict=True):
            if count:
                found[text.partition(":")[0].partition(" (")[0]] += count
        return found
