"""Count a column's n-grams, or sum up a table's entries over them: every n-gram scorer is made of these two."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Column
from dvsel.ngrams import kernels
from dvsel.ngrams.spec import NgramSpec
from dvsel.ngrams.unicode import tables

Array = npt.NDArray[Any]


class Scores(NamedTuple):
    """Sums of a table's entries. sums: float64 (n, columns). words, ngrams: int64 (n,), how many a row has."""

    sums: npt.NDArray[np.float64]
    words: npt.NDArray[np.int64]
    ngrams: npt.NDArray[np.int64]


class Counts(NamedTuple):
    """Numbers of n-grams. buckets: int64 (buckets,), those of a column in each. words: int64 (n,), of each row."""

    buckets: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]


def count(column: Column, spec: NgramSpec) -> Counts:
    """Count the n-grams of a column."""
    counts = np.zeros(spec.buckets, np.int64)
    _, words = _run(column, spec, counts, np.empty((0, spec.buckets), np.float32))
    return Counts(counts, words)


def score(column: Column, table: npt.NDArray[np.float32], spec: NgramSpec) -> Scores:
    """Sum up table[bucket] over the n-grams of each row.

    table: float32 (columns, buckets), C order. A row's sums do not depend on the rows beside it.
    """
    sums, words = _run(column, spec, np.empty(0, np.int64), table)
    ngrams = sum(np.maximum(words - shorter, 0) for shorter in range(spec.ngrams))
    return Scores(sums, words, np.asarray(ngrams, np.int64))


def _run(column: Column, spec: NgramSpec, counts: Array, table: Array) -> tuple[Array, Array]:
    """Take all rows through the kernel; what only `str.lower` can lower-case goes through that first."""
    # `str.lower` maps a final sigma by the letters around it, and one capital I to two characters.
    odd = np.zeros(len(column), np.bool_)
    if spec.lower:
        odd = kernels.needs_python(column.data, column.offsets)
    sums, words = _pass(column, odd, spec, spec.lower, counts, table)
    if rows := np.flatnonzero(odd).tolist():
        lowered = Column.of([_lowered(column[row]) for row in rows])
        sums[rows], words[rows] = _pass(lowered, np.zeros(len(rows), np.bool_), spec, False, counts, table)
    return sums, words


def _pass(
    column: Column, skip: Array, spec: NgramSpec, lower: bool, counts: Array, table: Array
) -> tuple[Array, Array]:
    whitespace = spec.words == "whitespace"
    sums = np.zeros((len(column), len(table)))
    words = np.zeros(len(column), np.int64)
    kernels.run(
        column.data,
        column.offsets,
        skip,
        whitespace,
        lower,
        *tables(whitespace, lower),
        spec.ngrams,
        spec.buckets,
        counts,
        table,
        sums,
        words,
    )
    return sums, words


def _lowered(text: bytes) -> bytes:
    return text.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
