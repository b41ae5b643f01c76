"""Ridge regression of a number on the rows of a matrix that need not be written down (a `Design`).

    prediction = intercept + row . weights

What is minimised over n rows is

    sum of (number - prediction)^2 + penalty * sum of weight^2

(Hoerl and Kennard 1970, "Ridge Regression: Biased Estimation for Nonorthogonal Problems"; the intercept is free).

Conjugate gradients on the least squares problem (CGLS; Hestenes and Stiefel 1952) take no more than the products of the
matrix and of its transpose with a vector. Everything is computed in one order, on one core, so the same rows give the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS = 200  # of conjugate gradients, at most
PRECISION = 1e-6  # of the gradient, as a share of what it was at weights of zero

_ROUNDING = 1e-12  # what is left of the squared length of rows that are all alike


class Design(Protocol):
    """A matrix (n, width)."""

    def __len__(self) -> int: ...

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def square(self) -> float:
        """Mean squared length of a row."""

    def take(self, rows: npt.NDArray[np.integer]) -> Design:
        """The matrix of these rows, in this order."""

    def times(self, weights: Floats) -> Floats:
        """The product with a vector: (width,) -> (n,)."""

    def transposed_times(self, values: Floats) -> Floats:
        """The product of the transposed matrix with a vector: (n,) -> (width,)."""


def spread(design: Design) -> float:
    """Mean squared length of a row, once centred; 0 where all are alike."""
    mean = design.transposed_times(np.ones(len(design))) / len(design)
    found = design.square - float(mean @ mean)
    return found if found > _ROUNDING * design.square else 0.0


@dataclass(frozen=True, slots=True)
class Joint:
    """Designs side by side, each times a factor: a row is their rows, one after the other."""

    parts: tuple[Design, ...]
    factors: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def width(self) -> int:
        """Columns of all parts."""
        return sum(part.width for part in self.parts)

    @property
    def square(self) -> float:
        """Mean squared length of a row."""
        return sum(factor**2 * part.square for part, factor in self._each())

    def take(self, rows: npt.NDArray[np.integer]) -> Joint:
        """The matrix of these rows, in this order."""
        return Joint(tuple(part.take(rows) for part in self.parts), self.factors)

    def times(self, weights: Floats) -> Floats:
        """The product with a vector: (width,) -> (n,)."""
        pairs = zip(self.parts, self.split(weights), strict=True)
        found: Floats = np.sum([part.times(own) for part, own in pairs], axis=0)
        return found

    def transposed_times(self, values: Floats) -> Floats:
        """The product of the transposed matrix with a vector: (n,) -> (width,)."""
        return np.concatenate([factor * part.transposed_times(values) for part, factor in self._each()])

    def split(self, weights: Floats) -> list[Floats]:
        """The weights (width,) as those of the parts without their factors."""
        ends = np.cumsum([part.width for part in self.parts])[:-1]
        return [factor * own for factor, own in zip(self.factors, np.split(weights, ends), strict=True)]

    def _each(self) -> zip[tuple[Design, float]]:
        return zip(self.parts, self.factors, strict=True)


@dataclass(frozen=True, slots=True)
class Line:
    """Result of a regression. weights: float64 (width,)."""

    weights: Floats
    intercept: float

    def of(self, design: Design) -> Floats:
        """The predictions, (n,)."""
        return design.times(self.weights) + self.intercept


class Ridge:
    """The regressions of numbers (n,) on n rows, one for each penalty.

    Penalties are multiples of the mean squared length of a row, once centred, so that a penalty means the same whatever
    the matrix's scale.
    """

    def __init__(self, design: Design, numbers: Floats) -> None:
        self._design = design
        self._mean = design.transposed_times(np.ones(len(design))) / len(design)
        self._level = float(numbers.mean())
        self._numbers = numbers - self._level
        self._unit = spread(design)

    def path(self, penalties: Sequence[float]) -> list[Line]:
        """A line for each penalty; each begins where the one before it ended, so let them fall."""
        weights = np.zeros(self._design.width)
        found = []
        for penalty in penalties:
            weights = self._solve(weights, penalty * self._unit) if self._unit else weights
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
        return self._design.times(weights) - float(self._mean @ weights)

    def _transposed_times(self, values: Floats) -> Floats:
        found: Floats = self._design.transposed_times(values) - self._mean * values.sum()
        return found
