"""Prices of targets: Sinkhorn's algorithm, without ever holding a kernel that can underflow to nothing.

One step is one pass over the pairs. Documents' potentials follow from the prices, and so does the plan; the mass that
each target then receives says how its price must change (Cuturi 2013, "Sinkhorn Distances"; in the form of the
semi-dual: Cuturi and Peyre 2018, "Semidual Regularized Optimal Transport"):

    f_i = -eps log sum_j b_j exp((g_j - c_ij) / eps)      P_ij = a_i b_j exp((f_i + g_j - c_ij) / eps)
    g_j <- g_j - eps log(sum_i P_ij / b_j)

Exponentials are of differences to each row's maximum. eps begins at the spread of the costs and is halved down to what
is asked, so that prices are near enough by then for every target to receive mass.

Unbalanced transport (rho < inf) lets both marginals of the plan differ from a and b, at the price of rho times their
KL divergence: both potentials are multiplied by rho / (rho + eps) (Chizat et al. 2018, "Scaling Algorithms for
Unbalanced Optimal Transport Problems"; Sejourne et al. 2019, "Sinkhorn Divergences for Unbalanced Optimal Transport").
Prices then get the constant that makes both masses agree at each step, without which steps are many where rho is large
(Sejourne et al. 2022, "Faster Unbalanced Optimal Transport: Translation invariant Sinkhorn").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dvsel.transport.cost import Array, Pairs, masses

_LOOSE = 0.1  # marginal error at which eps is halved, or after
_EASY = 10  # steps
_LEAST = 1e-37  # share of all mass that a target is taken to receive at least: what float32 can tell from nothing
_TINY = 1e-300


@dataclass(frozen=True)
class Prices:
    """Prices that `solve` found.

    g: float32 (m,), in units of cost. Their mean under b is 0 where transport is balanced (a constant could move to
    f); unbalanced, they are what they are. f: float32 (n,), potentials of the documents under these prices.
    marginal_error: L1 distance between the masses that targets receive and those due to them, as a share of the
    latter. steps: passes over all pairs. converged: whether the error is at most what was asked.
    """

    g: npt.NDArray[np.float32]
    f: npt.NDArray[np.float32]
    marginal_error: float
    steps: int
    converged: bool


def solve(
    x: Array,
    y: Array,
    a: Array,
    b: Array,
    cost: str,
    eps: float,
    tolerance: float,
    max_steps: int,
    rho: float = math.inf,
) -> Prices:
    """Find the prices of the targets y for transport from the documents x.

    x: (n, width) and y: (m, width), finite, and not zero for cosine. a: (n,) and b: (m,), masses above 0, scaled to
    sum to 1. cost: of `dvsel.transport.COSTS`. eps: above 0, and rho, in units of cost. tolerance: the marginal
    error to stop at; rounding keeps it above about 1e-7 / eps of the cost's size. max_steps: passes at most.
    """
    problem = _Problem(Pairs(x, y, cost), masses(a), masses(b), rho)
    g, steps = torch.zeros(len(y), dtype=torch.float64), 0
    *coarse, finest = _levels(eps, problem.pairs.moments(problem.a, problem.b)[1])
    for level in coarse:
        g, _, taken = problem.run(g, level, max(_LOOSE, tolerance), _EASY)
        steps += taken
    g, passed, taken = problem.run(g, finest, tolerance, max(max_steps - steps, 1))
    shift = float(problem.b.double() @ g) if math.isinf(rho) else 0.0
    return Prices(
        (g - shift).float().numpy(), (passed.f + shift).numpy(), passed.error, steps + taken, passed.error <= tolerance
    )


@dataclass(frozen=True)
class _Passed:
    """Results of one pass.

    f: float32 (n,), documents' potentials. received: float64 (m,), the plan's mass by target. due: the sum of what
    targets should receive. error: L1 distance between both, as a share of that sum.
    """

    f: torch.Tensor
    received: torch.Tensor
    due: float
    error: float


@dataclass(frozen=True)
class _Problem:
    """Transport between all pairs. a: float32 (n,) and b: float32 (m,), masses. rho: as for `solve`."""

    pairs: Pairs
    a: torch.Tensor
    b: torch.Tensor
    rho: float

    def run(self, g: torch.Tensor, eps: float, tolerance: float, max_steps: int) -> tuple[torch.Tensor, _Passed, int]:
        """Step from the prices g until the error is small enough; return prices, their pass, and how many passes."""
        damping = 1 / (1 + eps / self.rho)
        for step in range(1, max_steps + 1):
            passed = self._pass(g, eps, damping)
            if passed.error <= tolerance or step == max_steps:
                break
            g = self._step(g, passed, eps, damping)
        return g, passed, step

    def _step(self, g: torch.Tensor, passed: _Passed, eps: float, damping: float) -> torch.Tensor:
        total, shift = max(float(passed.received.sum()), _TINY), 0.0
        if damping < 1:  # the constant at which what is received and what is due sum to the same
            shift = self.rho / (1 + damping) * math.log(passed.due / total)
        # A target that receives nothing in float32 counts as receiving the least that float32 can tell.
        grown = torch.log(passed.received.clamp_min(_LEAST * total) / self.b) + shift * damping / self.rho
        return damping * (g + shift - eps * grown)

    def _pass(self, g: torch.Tensor, eps: float, damping: float) -> _Passed:
        offsets = torch.log(self.b) + (g.float() - self.pairs.own_y) / eps
        f, received = torch.empty_like(self.a), torch.zeros_like(g)
        for where, products in self.pairs.products():
            shares = torch.add(offsets, products, alpha=1 / eps)
            # Taken off before the exponential, so that the largest term is 1: no sum overflows, and none is 0.
            highest = shares.amax(1)
            totals = shares.sub_(highest[:, None]).exp_().sum(1)
            nearness = self.pairs.own_x[where] - eps * (highest + totals.log())
            f[where] = damping * nearness
            sent = torch.log(self.a[where]).double() - f[where].double() / self.rho
            # Likewise for the rows' masses; the sum over all blocks is in float64, for there are many.
            most = sent.max()
            received += most.exp() * (((sent - most).exp().float() / totals) @ shares).double()
        due = self.b * torch.exp(-g / self.rho)
        return _Passed(f, received, float(due.sum()), float((received - due).abs().sum() / due.sum()))


def _levels(eps: float, spread: float) -> list[float]:
    """Temperatures from about the costs' spread down to eps, each half of the one before."""
    halvings = max(math.ceil(math.log2(spread / eps)), 0) if spread > 0 else 0
    return [eps * 2.0**k for k in range(halvings, -1, -1)]
