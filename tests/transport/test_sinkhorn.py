"""Prices, against POT and against finite differences of the transport cost, both in float64."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist

pytest.importorskip("torch")

import ot

from dvsel.transport import COSTS, cost
from dvsel.transport.potential import potential
from dvsel.transport.sinkhorn import Prices, solve

Array = npt.NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sides() -> tuple[Array, Array, Array, Array]:
    """Documents, targets between some of them, and uneven masses."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(60, 5)) + 3 * draws.integers(0, 2, (60, 1))
    y = x[:20] + draws.normal(size=(20, 5)) / 2
    a, b = draws.uniform(0.5, 2, 60), draws.uniform(0.5, 2, 20)
    return x, y, a / a.sum(), b / b.sum()


def costs(x: Array, y: Array, name: str) -> Array:
    found: Array = cdist(x, y, "cosine") if name == "cosine" else cdist(x, y, "sqeuclidean") / 2
    return found


def plan(prices: Prices, a: Array, b: Array, cost: Array, eps: float) -> Array:
    inside = (prices.f[:, None] + prices.g - cost) / eps
    found: Array = a[:, None] * b * np.exp(inside)
    return found


def truth(a: Array, b: Array, cost: Array, eps: float) -> tuple[float, Array, Array]:
    """The entropic transport cost, and its potentials, those of the targets with mean 0."""
    found, log = ot.bregman.sinkhorn_log(a, b, cost, eps, stopThr=1e-11, numItermax=100_000, log=True)
    f, g = eps * (log["log_u"] - np.log(a)), eps * (log["log_v"] - np.log(b))
    value = (found * cost).sum() + eps * (found * np.log(found / (a[:, None] * b))).sum()
    return value, f + b @ g, g - b @ g


@pytest.mark.parametrize(("name", "eps"), [("cosine", 0.2), ("cosine", 0.02), ("squared", 2.0), ("squared", 0.3)])
def test_prices_and_potentials_are_those_of_pot(
    name: str, eps: float, sides: tuple[Array, Array, Array, Array]
) -> None:
    prices = solve(*sides, name, eps, 1e-5, 20_000)
    x, y, a, b = sides
    value, f, g = truth(a, b, costs(x, y, name), eps)

    assert prices.converged
    assert np.allclose(prices.g, g, atol=1e-3 * eps)
    assert np.allclose(prices.f, f, atol=1e-3 * eps)
    assert a @ prices.f == pytest.approx(value, rel=1e-4)  # since the prices' mean is 0


@pytest.mark.parametrize("rho", [0.02, 0.3, 20])
def test_unbalanced_transport_is_that_of_pot(rho: float, sides: tuple[Array, Array, Array, Array]) -> None:
    x, y, a, b = sides
    cost, eps = costs(x, y, "cosine"), 0.05

    prices = solve(*sides, "cosine", eps, 1e-5, 10_000, rho)

    options = {"reg_type": "kl", "method": "sinkhorn_stabilized", "numItermax": 100_000, "stopThr": 1e-13}
    expected = ot.unbalanced.sinkhorn_unbalanced(a, b, cost, eps, rho, **options)
    assert np.abs(plan(prices, a, b, cost, eps) - expected).sum() < 1e-4 * expected.sum()


def test_with_a_high_rho_unbalanced_transport_is_balanced(sides: tuple[Array, Array, Array, Array]) -> None:
    balanced = solve(*sides, "cosine", 0.1, 1e-5, 1000)
    unbalanced = solve(*sides, "cosine", 0.1, 1e-5, 1000, 1e4)

    assert unbalanced.converged
    assert np.allclose(unbalanced.g - sides[3] @ unbalanced.g, balanced.g, atol=1e-4)


def test_at_a_low_eps_the_cost_is_that_of_exact_transport(sides: tuple[Array, Array, Array, Array]) -> None:
    x, y, a, b = sides

    prices = solve(*sides, "cosine", 0.001, 1e-3, 20_000)

    assert prices.converged
    assert a @ prices.f == pytest.approx(ot.emd2(a, b, costs(x, y, "cosine")), abs=0.005)


@pytest.mark.parametrize("document", [0, 1, 2])
def test_the_potential_of_a_new_document_is_the_first_variation_of_the_cost(
    document: int, sides: tuple[Array, Array, Array, Array]
) -> None:
    x, y, a, b = sides
    new, eps, step = np.random.default_rng(document).normal(size=(1, 5)), 0.1, 1e-4
    prices = solve(*sides, "cosine", eps, 1e-6, 10_000)

    predicted = potential(new, y, b, prices.g, "cosine", eps)[0] - a @ prices.f

    cost = costs(np.concatenate([x, new]), y, "cosine")
    with_new, without = (truth(np.append(a * (1 - t), t), b, cost, eps)[0] for t in (step, 1e-12))
    assert predicted == pytest.approx((with_new - without) / step, abs=2e-3)
    assert abs(predicted) > 0.02


def test_the_first_variation_of_unbalanced_transport_grows_with_the_potential(
    sides: tuple[Array, Array, Array, Array],
) -> None:
    """(rho + eps) (1 - exp(-f / (rho + eps))) for mass at x, where nothing is taken from elsewhere."""
    x, y, a, b = sides
    new, eps, rho, step = np.random.default_rng(0).normal(size=(1, 5)), 0.1, 0.4, 1e-4
    prices = solve(*sides, "cosine", eps, 1e-6, 10_000, rho)
    cost = costs(np.concatenate([x, new]), y, "cosine")

    f = float(potential(new, y, b, prices.g, "cosine", eps)[0])

    with_new, without = (unbalanced_cost(np.append(a, mass), b, cost, eps, rho) for mass in (step, 1e-12))
    assert (with_new - without) / step == pytest.approx((rho + eps) * -math.expm1(-f / (rho + eps)), abs=1e-3)


def unbalanced_cost(a: Array, b: Array, cost: Array, eps: float, rho: float) -> float:
    options = {"reg_type": "kl", "numItermax": 100_000, "stopThr": 1e-14}
    found = ot.unbalanced.sinkhorn_unbalanced(a, b, cost, eps, rho, **options)
    return float((found * cost).sum() + eps * divergence(found, a[:, None] * b)
                 + rho * (divergence(found.sum(1), a) + divergence(found.sum(0), b)))  # fmt: skip


def divergence(found: Array, reference: Array) -> float:
    """KL for masses of any sum."""
    return float((found * np.log(found / reference) - found + reference).sum())


@pytest.mark.parametrize("name", COSTS)
def test_prices_are_the_same_where_costs_are_computed_again_at_each_pass(
    name: str, sides: tuple[Array, Array, Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = solve(*sides, name, 0.2, 1e-5, 5000)
    monkeypatch.setattr(cost, "_HELD", 0)
    monkeypatch.setattr(cost, "_MOST_ROWS", 16)

    blocked = solve(*sides, name, 0.2, 1e-5, 5000)

    assert np.allclose(blocked.g, held.g, atol=1e-4)
    assert np.allclose(blocked.f, held.f, atol=1e-4)


def test_copies_of_a_target_are_one_with_their_mass(sides: tuple[Array, Array, Array, Array]) -> None:
    x, y, a, _ = sides
    copies = np.arange(20) % 3 + 1

    merged = solve(x, y, a, copies, "cosine", 0.05, 1e-5, 5000)
    copied = solve(x, y.repeat(copies, 0), a, np.ones(copies.sum()), "cosine", 0.05, 1e-5, 5000)

    assert np.allclose(copied.g, merged.g.repeat(copies), atol=1e-4)


def test_too_few_steps_are_said_so_at_the_eps_that_was_asked_for(sides: tuple[Array, Array, Array, Array]) -> None:
    prices = solve(*sides, "cosine", 0.02, 1e-5, 1)
    x, y, a, b = sides

    received = plan(prices, a, b, costs(x, y, "cosine"), 0.02).sum(0)

    assert not prices.converged
    assert prices.marginal_error == pytest.approx(np.abs(received - b).sum(), rel=1e-3)
    assert prices.marginal_error > 1e-5


def test_a_target_that_exponentials_cannot_see_gets_its_mass() -> None:
    """Without prices its share of any document is exp(-1000), which float32 does not tell from nothing."""
    x, y = np.array([[1, 0], [1, 0.01], [1, 0.02]]), np.array([[1, 0], [-1, 0.1]])
    a, b = np.ones(3) / 3, np.ones(2) / 2

    prices = solve(x, y, a, b, "cosine", 0.002, 1e-4, 1000)

    assert prices.converged
    assert np.allclose(plan(prices, a, b, costs(x, y, "cosine"), 0.002).sum(0), b, atol=1e-2)


def test_one_target_has_no_price(sides: tuple[Array, Array, Array, Array]) -> None:
    x, y, a, _ = sides

    prices = solve(x, y[:1], a, np.ones(1), "cosine", 0.1, 1e-5, 100)

    assert prices.converged
    assert np.allclose(prices.g, 0, atol=1e-6)
    assert np.allclose(prices.f, costs(x, y[:1], "cosine")[:, 0], atol=1e-5)
