"""Documents as the shares of their n-grams in each bucket: a matrix to regress on (`dvsel.distillation.ridge`).

With weights for the buckets, a document's product is the mean of its n-grams' weights, which streams as one pass of
`lookup.score`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Column
from dvsel.kernels.jit import kernel
from dvsel.ngrams.lookup import count
from dvsel.ngrams.spec import NgramSpec

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of each document's n-grams in each bucket, as a sparse matrix (documents, buckets).

    offsets: int64 (n + 1,); document i has entries offsets[i] to offsets[i + 1]. index: int32 (entries,), their
    buckets. share: float32 (entries,); those of a document sum to 1.
    """

    offsets: npt.NDArray[np.int64]
    index: npt.NDArray[np.int32]
    share: npt.NDArray[np.float32]
    buckets: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, column: Column, spec: NgramSpec) -> Shares:
        """Make those of a column's documents; a document without n-grams has no entry."""
        index, share = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        # A document at a time: dense counts of all documents would take documents * buckets numbers.
        for row in range(len(column)):
            counts = count(column.take(np.array([row])), spec).buckets
            found = np.flatnonzero(counts)
            index.append(found.astype(np.int32))
            share.append((counts[found] / max(counts.sum(), 1)).astype(np.float32))
        offsets = np.cumsum([len(one) for one in index])
        return cls(offsets.astype(np.int64), np.concatenate(index), np.concatenate(share), spec.buckets)

    def take(self, rows: npt.NDArray[np.integer]) -> Shares:
        """Return the matrix of these rows, in this order."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        entries = np.repeat(self.offsets[rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Shares(offsets, self.index[entries], self.share[entries], self.buckets)

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.buckets

    @property
    def square(self) -> float:
        """The mean squared length of a row."""
        return float(np.square(self.share, dtype=np.float64).sum() / len(self))

    def times(self, weights: Floats) -> Floats:
        """Return the product with a vector: (buckets,) -> (documents,)."""
        found: Floats = _times(self.offsets, self.index, self.share, weights)
        return found

    def transposed_times(self, values: Floats) -> Floats:
        """Return the product of the transposed matrix with a vector: (documents,) -> (buckets,)."""
        found: Floats = _transposed_times(self.offsets, self.index, self.share, values, self.buckets)
        return found


@kernel
def _times(offsets: Array, index: Array, share: Array, weights: Array) -> Array:
    found = np.zeros(len(offsets) - 1)
    for row in range(len(found)):
        total = 0.0
        for entry in range(offsets[row], offsets[row + 1]):
            total += share[entry] * weights[index[entry]]
        found[row] = total
    return found


@kernel
def _transposed_times(offsets: Array, index: Array, share: Array, values: Array, buckets: int) -> Array:
    found = np.zeros(buckets)
    for row in range(len(values)):
        for entry in range(offsets[row], offsets[row + 1]):
            found[index[entry]] += share[entry] * values[row]
    return found
