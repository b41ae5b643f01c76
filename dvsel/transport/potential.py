"""Distances of documents from a target: their potentials under its prices, for any eps from 0 to infinity.

    f(x) = -eps log sum_j b_j exp((g_j - c(x, y_j)) / eps)

is the exact first variation of the transport cost that `sinkhorn.solve` found prices for: with a little mass moved from
one document to another, the cost changes by the difference of their potentials. With g = 0 it is a soft minimum of
the costs. Limits: at eps 0, min_j (c(x, y_j) - g_j); at infinity, sum_j b_j (c(x, y_j) - g_j).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import pad

from dvsel.linalg.cpu_matmul import multiply
from dvsel.transport.cost import Array, block_rows, half_squares, masses, placed


def potential(x: Array, y: Array, b: Array, g: Array, cost: str, eps: float) -> npt.NDArray[np.float32]:
    """Return f(x) of each document, in units of cost, float32 (n,); NaN where x has NaN, or is zero for cosine.

    x: (n, width). y: (m, width), finite. b: (m,), masses above 0, scaled to sum to 1. g: (m,), prices. cost: of
    `dvsel.transport.COSTS`. eps: 0 to infinity, in units of cost. n x m is never held.
    """
    return Potential(y, b, g, cost, eps)(x)


class Potential:
    """`potential` for many sets of documents and one target; the arguments are those of that function."""

    def __init__(self, y: Array, b: Array, g: Array, cost: str, eps: float) -> None:
        targets, due, prices = placed(y, cost), masses(b), torch.tensor(np.asarray(g), dtype=torch.float32)
        self._cost, self._eps = cost, eps
        # Distances stay when all is moved, and near the centre products lose fewer digits.
        self._centre = due @ targets if cost == "squared" else torch.zeros(targets.shape[1])
        targets = targets - self._centre
        offsets = prices - half_squares(targets)
        if eps == 0:
            self._targets, self._offsets = targets, offsets
        elif math.isinf(eps):
            # At infinity the targets count by their mass alone, so one target at their mean stands for all.
            self._targets, self._offsets = (due @ targets)[None], (due @ offsets)[None]
        else:
            self._targets, self._offsets = targets / eps, offsets / eps + torch.log(due)

    def __call__(self, x: Array) -> npt.NDArray[np.float32]:
        """Return f(x), float32 (n,), for x (n, width)."""
        return self._by_blocks(x, self._potentials)

    def compared(self, x: Array) -> npt.NDArray[np.float32]:
        """Return the number of targets that each document is compared with, float32 (n,), for a finite eps above 0.

        It is the exponential of the entropy of the targets' shares in the sum that f is of.
        """
        return self._by_blocks(x, self._effective_numbers)

    def _by_blocks(self, x: Array, function: Callable[[torch.Tensor], torch.Tensor]) -> npt.NDArray[np.float32]:
        found, size = np.empty(len(x), np.float32), block_rows(len(self._targets))
        for first in range(0, len(x), size):
            rows = placed(x[first : first + size], self._cost) - self._centre
            full = pad(rows, (0, 0, 0, size - len(rows)))  # products of one shape round alike
            found[first : first + size] = function(full)[: len(rows)].numpy()
        return found

    def _potentials(self, rows: torch.Tensor) -> torch.Tensor:
        nearness = multiply(rows, self._targets, self._offsets)
        highest = nearness.amax(1)
        if self._eps == 0 or math.isinf(self._eps):
            return half_squares(rows) - highest
        totals = nearness.sub_(highest[:, None]).exp_().sum(1)
        return half_squares(rows) - self._eps * (highest + totals.log_())

    def _effective_numbers(self, rows: torch.Tensor) -> torch.Tensor:
        logs = torch.log_softmax(multiply(rows, self._targets, self._offsets), 1)
        return torch.exp(-(logs.exp() * logs).sum(1))
