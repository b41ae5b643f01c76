"""Consecutive rows of a score file as arrays, and what they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.causes import Causes
from dvsel.documents.columns import Status

COLUMNS = ("key", "text_hash", "tokens", "bytes", "status", "domain")
VECTOR = "vector"
ROWS_AT_ONCE = 1 << 15  # rows, so that what is computed of them fits a processor's cache
NAMED_BAD_LINES = 100


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of a score file.

    count: n. score: float32 (n, groups); key, text_hash: uint64 (n,); tokens, bytes: uint32 (n,); status: uint8 (n,);
    domain: int32 (n,), indices into `domains`; vectors: float16 or float32 (n, width). Columns that were not asked for
    are empty. The score of a row of embeddings is 0, and NaN where it has none.
    """

    count: int
    score: npt.NDArray[np.float32]
    key: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    text_hash: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    tokens: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    bytes: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    status: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    domain: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    domains: list[str] = field(default_factory=list)
    vectors: npt.NDArray[Any] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def __len__(self) -> int:
        return self.count

    def part(self, first: int, last: int) -> Rows:
        """Return the rows from `first` up to `last`, or to the end."""
        cut = slice(first, last)
        return Rows(
            min(last, self.count) - first,
            self.score[cut],
            self.key[cut],
            self.text_hash[cut],
            self.tokens[cut],
            self.bytes[cut],
            self.status[cut],
            self.domain[cut],
            self.domains,
            self.vectors[cut],
        )


@dataclass
class Totals:
    """Sums over the rows of a score file; those of consecutive parts add up.

    docs, tokens, bytes: of the documents that have a score. status: rows by the name of their `Status`.
    bad_lines: skipped lines by cause. named: line number and cause of the first `NAMED_BAD_LINES` of them.
    absent: by field that was read beside the text, the number of documents in which it is missing or null.
    """

    rows: int = 0
    docs: int = 0
    tokens: int = 0
    bytes: int = 0
    status: dict[str, int] = field(default_factory=dict)
    bad_lines: dict[str, int] = field(default_factory=dict)
    named: list[tuple[int, str]] = field(default_factory=list)
    absent: dict[str, int] = field(default_factory=dict)

    def add(self, other: Totals) -> None:
        """Add the totals of the rows that follow."""
        self.named += [(self.rows + line, cause) for line, cause in other.named]
        del self.named[NAMED_BAD_LINES:]
        self.rows += other.rows
        self.docs += other.docs
        self.tokens += other.tokens
        self.bytes += other.bytes
        self.status = dict(sorted((Counter(self.status) + Counter(other.status)).items()))
        self.bad_lines = dict(sorted((Counter(self.bad_lines) + Counter(other.bad_lines)).items()))
        self.absent = dict(sorted((Counter(self.absent) + Counter(other.absent)).items()))

    @classmethod
    def of(cls, rows: Rows, bad: Mapping[int, str]) -> Totals:
        """Sum up some rows; bad: cause by row."""
        causes = Causes.of(bad)
        scored = rows.status == Status.SCORED
        values, counts = np.unique(rows.status, return_counts=True)
        return cls(
            len(rows),
            int(scored.sum()),
            int(rows.tokens[scored].sum(dtype=np.int64)),
            int(rows.bytes[scored].sum(dtype=np.int64)),
            {Status(value).name.lower(): int(count) for value, count in zip(values, counts, strict=True)},
            causes.counts(),
            [(row + 1, cause) for row, cause in causes.first(NAMED_BAD_LINES)],
        )
