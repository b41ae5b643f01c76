"""Ridge regression of a number a document on its n-grams.

    prediction = intercept + sum over the n-grams of weight[bucket] / number of n-grams

so that a document streams as one pass of `lookup.score`. What is minimised over n documents is

    sum of (number - prediction)^2 + penalty * sum of weight^2

(Hoerl and Kennard 1970, "Ridge Regression: Biased Estimation for Nonorthogonal Problems"; the intercept is free).

Conjugate gradients on the least squares problem (CGLS; Hestenes and Stiefel 1952) take no matrix but the sparse one of
shares. Everything is computed in one order, on one core, so the same documents give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.ngrams.lookup import count
from dvsel.ngrams.spec import NgramSpec
from dvsel.shards.columns import Column
from dvsel.shards.jit import kernel

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

STEPS = 200  # of conjugate gradients, at most
PRECISION = 1e-6  # of the gradient, as a share of what it was at weights of zero

_ROUNDING = 1e-12  # what is left of the squared length of rows that are all alike


@dataclass(frozen=True, slots=True)
class Shares:
    """Of each document, the share of its n-grams in each bucket, as a sparse matrix (documents, buckets).

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
        """Those of a column's documents; a document without n-grams has no entry."""
        index, share = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        for row in range(len(column)):
            counts = count(column.take(np.array([row])), spec)
            found = np.flatnonzero(counts)
            index.append(found.astype(np.int32))
            share.append((counts[found] / max(counts.sum(), 1)).astype(np.float32))
        offsets = np.cumsum([len(one) for one in index])
        return cls(offsets.astype(np.int64), np.concatenate(index), np.concatenate(share), spec.buckets)

    def take(self, rows: npt.NDArray[np.integer]) -> Shares:
        """The matrix of these rows, in this order."""
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        entries = np.repeat(self.offsets[rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Shares(offsets, self.index[entries], self.share[entries], self.buckets)

    def times(self, weights: Floats) -> Floats:
        """The product with a vector: (buckets,) -> (documents,)."""
        found: Floats = _times(self.offsets, self.index, self.share, weights)
        return found

    def transposed_times(self, values: Floats) -> Floats:
        """The product of the transposed matrix with a vector: (documents,) -> (buckets,)."""
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


@dataclass(frozen=True, slots=True)
class Line:
    """What a regression found. weights: float64 (buckets,)."""

    weights: Floats
    intercept: float

    def of(self, shares: Shares) -> Floats:
        """The predictions, (documents,)."""
        return shares.times(self.weights) + self.intercept


class Ridge:
    """The regressions of numbers (n,) on n documents, one for each penalty.

    Penalties are multiples of the mean over documents of their row's squared length, once centred, so that a penalty
    means the same whatever the documents' lengths.
    """

    def __init__(self, shares: Shares, numbers: Floats) -> None:
        self._shares = shares
        self._mean = shares.transposed_times(np.ones(len(shares))) / len(shares)
        self._level = float(numbers.mean())
        self._numbers = numbers - self._level
        squares = np.square(shares.share, dtype=np.float64).sum() / len(shares)
        self._unit = float(squares - self._mean @ self._mean)
        self._alike = self._unit <= _ROUNDING * squares

    def path(self, penalties: Sequence[float]) -> list[Line]:
        """A line for each penalty; each begins where the one before it ended, so let them fall."""
        weights = np.zeros(self._shares.buckets)
        found = []
        for penalty in penalties:
            weights = weights if self._alike else self._solve(weights, penalty * self._unit)
            found.append(Line(weights, self._level - float(self._mean @ weights)))
        return found

    def _solve(self, weights: Floats, penalty: float) -> Floats:
        """CGLS: min |numbers - A w|^2 + penalty |w|^2, A the centred rows."""
        residual = self._numbers - self._times(weights)
        gradient = self._transposed_times(residual) - penalty * weights
        enough = PRECISION**2 * float(np.square(self._transposed_times(self._numbers)).sum())
        direction, size = gradient, float(gradient @ gradient)
        for _ in range(STEPS):
            if size <= enough:
                break
            image = self._times(direction)
            step = size / float(image @ image + penalty * (direction @ direction))
            weights = weights + step * direction
            residual = residual - step * image
            gradient = self._transposed_times(residual) - penalty * weights
            size, before = float(gradient @ gradient), size
            direction = gradient + size / before * direction
        return weights

    def _times(self, weights: Floats) -> Floats:
        return self._shares.times(weights) - float(self._mean @ weights)

    def _transposed_times(self, values: Floats) -> Floats:
        found: Floats = self._shares.transposed_times(values) - self._mean * values.sum()
        return found
