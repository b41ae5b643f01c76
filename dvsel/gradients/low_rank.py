"""The matrix that documents' gradients are compared with in each layer, one for each group of targets, cut to a rank.

The score of a document is <G, Q> = sum_t g_t^T Q x_t with Q = H^-1 grad. Cut to rank r, Q = L R^T, that is
sum_t (L^T g_t) . (R^T x_t): two thin products a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Direction:
    """Q = left @ right.T. left: (outputs, rank). right: (inputs, rank). energy: the share of squares that is kept."""

    left: torch.Tensor
    right: torch.Tensor
    energy: float = 1.0

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    def times(self, gradient: torch.Tensor) -> float:
        """Return < gradient, Q >."""
        return float(((gradient.to(self.left) @ self.right) * self.left).sum())

    def scaled(self, factor: float) -> Direction:
        """Return factor * Q, for a factor above 0."""
        return Direction(self.left * factor**0.5, self.right * factor**0.5, self.energy)


@dataclass(frozen=True)
class Cut:
    """Rank to cut to. energy: the least rank that keeps this share of the squared singular values. If it is 0, `rank`,
    where 0 is all.
    """

    rank: int
    energy: float = 0.0

    def of(self, matrix: torch.Tensor) -> Direction:
        """Return the best approximation of a matrix (outputs, inputs), in float64."""
        left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
        squares = values.square()
        kept = self._rank(squares)
        # Half of each singular value to either side: both are of like size in whatever precision they are cast to.
        root = values[:kept].sqrt()
        share = float(squares[:kept].sum() / squares.sum()) if values[0] > 0 else 1.0
        return Direction(left[:, :kept] * root, right[:kept].T * root, share)

    def _rank(self, squares: torch.Tensor) -> int:
        """Return how many of the squared singular values, which fall, to keep."""
        if self.energy:
            share = squares.cumsum(0) / squares.sum()
            return min(int((share < self.energy).sum()) + 1, len(squares))
        return min(self.rank or len(squares), len(squares))
