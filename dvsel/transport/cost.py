"""Costs between vectors, as half the squared distance of what they are placed at.

cosine: 1 - cos(x, y), which is half the squared distance of vectors of length 1. squared: |x - y|^2 / 2.
Then c(x, y) = |x|^2 / 2 + |y|^2 / 2 - <x, y>, so that a block of costs is one product of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dvsel.linalg.cpu_matmul import multiply

Array = npt.NDArray[Any]

_ENTRIES = 1 << 17  # of a block of costs, which stays in a core's cache
_MOST_ROWS = 512
_HELD = 1 << 26  # products that are held: 256 MB
_ROUNDING = 1e-5


def placed(vectors: Array, cost: str) -> torch.Tensor:
    """Return vectors as `cost` places them, float32 (n, width); for cosine, NaN where one is zero or has NaN."""
    rows = torch.from_numpy(np.array(vectors, np.float32, order="C"))
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True) if cost == "cosine" else rows


def half_squares(rows: torch.Tensor) -> torch.Tensor:
    """Return |row|^2 / 2, float32 (n,)."""
    return (rows * rows).sum(1) / 2


def block_rows(width: int) -> int:
    """Return the number of rows of a block `width` wide. It depends on nothing else, so that products round alike."""
    return min(max(_ENTRIES // max(width, 1), 16), _MOST_ROWS)


def masses(weights: Array) -> torch.Tensor:
    """Return weights scaled to sum to 1, float32 (n,)."""
    found = torch.tensor(np.asarray(weights, np.float64))
    return (found / found.sum()).float()


class Pairs:
    """Pairs of all n documents with all m targets, a block of documents at a time.

    Products of pairs are held where they are few, else computed at each pass.

    x: (n, width) and y: (m, width), without NaN. cost: of `dvsel.transport.COSTS`.
    """

    def __init__(self, x: Array, y: Array, cost: str) -> None:
        self._rows, self._columns = placed(x, cost), placed(y, cost)
        if cost == "squared":  # a shift leaves distances as they are, and near 0 they lose fewer digits
            centre = self._columns.mean(0)
            self._rows, self._columns = self._rows - centre, self._columns - centre
        self.own_x, self.own_y = half_squares(self._rows), half_squares(self._columns)
        self._size = block_rows(len(self._columns))
        self._held = multiply(self._rows, self._columns) if len(x) * len(y) <= _HELD else None

    def products(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield <x_i, y_j> of each block: its documents, and float32 (documents, m), not to be written to."""
        for first in range(0, len(self._rows), self._size):
            where = slice(first, first + self._size)
            yield where, multiply(self._rows[where], self._columns) if self._held is None else self._held[where]

    def moments(self, a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
        """Return mean and standard deviation of the cost where documents and targets are drawn by their masses."""
        mean = square = 0.0
        for where, products in self.products():
            costs = (self.own_x[where, None] + self.own_y - products).double()
            mean += float(a[where].double() @ (costs @ b.double()))
            square += float(a[where].double() @ (costs.square() @ b.double()))
        return mean, math.sqrt(max(square - mean * mean, 0.0))


def spread(x: Array, y: Array, b: Array, cost: str) -> float:
    """Return the standard deviation of the cost over all pairs, in units of cost; 0 where it is only rounding.

    x: (n, width), all of one mass. y: (m, width). b: (m,), masses. Without NaN.
    """
    pairs = Pairs(x, y, cost)
    deviation = pairs.moments(masses(np.ones(len(x))), masses(b))[1]
    return deviation if deviation > _ROUNDING * float(pairs.own_x.mean() + pairs.own_y.mean()) else 0.0
