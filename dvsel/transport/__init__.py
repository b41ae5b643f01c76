"""Entropic optimal transport between vectors: costs (`cost`), prices (`sinkhorn`), potentials (`potential`).

With documents x_i of mass a_i, targets y_j of mass b_j and a cost c, the transport cost at temperature eps is

    min over plans P with marginals a and b of  sum_ij P_ij c(x_i, y_j) + eps KL(P | a x b).

Its dual has a price g_j for each target; given the prices, any document has the potential

    f(x) = -eps log sum_j b_j exp((g_j - c(x, y_j)) / eps),

which is how much the cost grows with mass at x, seen or not (Feydy et al. 2019, "Interpolating between Optimal
Transport and MMD using Sinkhorn Divergences", section 2). Everything is computed in float32 on the CPU, a block of
documents at a time. Torch is imported only by code that is about to use it.
"""

COSTS = ("cosine", "squared")
