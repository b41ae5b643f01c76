"""Embeddings as a matrix to regress on (`dvsel.distillation.ridge`), and the scores that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.embeddings.kernels import summing_kernel

Floats = npt.NDArray[np.float64]

_CONSTANT = 1e-3  # of the usual deviation: a coordinate that varies less is rounding, and is left out


@dataclass(frozen=True, slots=True)
class Standardised:
    """Vectors, each coordinate brought to mean 0 and deviation 1.

    values: float32 (n, width). mean, deviation: float64 (width,); the deviation of a coordinate that is left out is
    infinite.
    """

    values: npt.NDArray[np.float32]
    mean: Floats
    deviation: Floats

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float32], like: npt.NDArray[np.integer]) -> Standardised:
        """Finite vectors (n, width), with the mean and deviation of the rows `like`."""
        mean = vectors[like].mean(0, dtype=np.float64)
        deviation = vectors[like].std(0, dtype=np.float64)
        deviation[deviation <= _CONSTANT * np.sqrt(np.square(deviation).mean())] = np.inf
        return cls(((vectors - mean) / deviation).astype(np.float32), mean, deviation)

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.values.shape[1])

    @property
    def square(self) -> float:
        """Mean squared length of a row."""
        return float(np.square(self.values, dtype=np.float64).sum() / len(self))

    def take(self, rows: npt.NDArray[np.integer]) -> Standardised:
        """The matrix of these rows, in this order."""
        return Standardised(self.values[rows], self.mean, self.deviation)

    def times(self, weights: Floats) -> Floats:
        """The product with a vector: (width,) -> (n,)."""
        return products(self.values, weights)

    def transposed_times(self, values: Floats) -> Floats:
        """The product of the transposed matrix with a vector: (n,) -> (width,)."""
        found: Floats = _transposed_times(self.values, values)
        return found

    def plain(self, weights: Floats) -> tuple[Floats, float]:
        """Weights (width,) for the vectors as they were, and what is to be added to the products."""
        own = weights / self.deviation
        return own, -float(self.mean @ own)


def products(vectors: npt.NDArray[np.float32], weights: Floats) -> Floats:
    """Return each row's product with the weights, float64 (n,), whatever the rows beside it."""
    found: Floats = _times(vectors, weights)
    return found


@summing_kernel
def _times(vectors: Any, weights: Any) -> Any:
    found = np.zeros(len(vectors))
    for row in range(len(found)):
        total = 0.0
        for place in range(len(weights)):
            total += vectors[row, place] * weights[place]
        found[row] = total
    return found


@summing_kernel
def _transposed_times(vectors: Any, values: Any) -> Any:
    found = np.zeros(vectors.shape[1])
    for row in range(len(values)):
        for place in range(len(found)):
            found[place] += vectors[row, place] * values[row]
    return found
