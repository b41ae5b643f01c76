"""Potentials, against the formula in float64."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

pytest.importorskip("torch")

from dvsel.transport import COSTS
from dvsel.transport.potential import Potential, potential

Array = npt.NDArray[np.float64]

pytestmark = pytest.mark.usefixtures("one_thread")


def expected(x: Array, y: Array, b: Array, g: Array, cost: str, eps: float) -> Array:
    net = (cdist(x, y, "cosine") if cost == "cosine" else cdist(x, y, "sqeuclidean") / 2) - g
    if eps == 0:
        found: Array = net.min(1)
    elif math.isinf(eps):
        found = net @ b / b.sum()
    else:
        found = -eps * logsumexp(-net / eps, 1, b / b.sum())
    return found


def sides(seed: int, n: int, m: int, width: int) -> tuple[Array, Array, Array, Array]:
    draws = np.random.default_rng(seed)
    x, y = draws.normal(size=(n, width)), draws.normal(size=(m, width))
    return x, y, draws.uniform(0.1, 2, m), draws.normal(size=m) / 5


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.sampled_from([0, 1, 3, 700]),
    m=st.sampled_from([1, 2, 50]),
    width=st.integers(2, 20),
    cost=st.sampled_from(COSTS),
    eps=st.sampled_from([0.0, 1e-4, 0.02, 0.3, 10.0, math.inf]),
)
def test_potentials_are_those_of_the_formula(seed: int, n: int, m: int, width: int, cost: str, eps: float) -> None:
    x, y, b, g = sides(seed, n, m, width)

    found = potential(x, y, b, g, cost, eps)

    assert found.dtype == np.float32
    assert np.allclose(found, expected(x, y, b, g, cost, eps), rtol=1e-5, atol=2e-5)


def test_at_eps_0_without_prices_it_is_the_highest_similarity() -> None:
    x, y, b, _ = sides(0, 50, 9, 4)
    similarity = (x / np.linalg.norm(x, axis=1)[:, None]) @ (y / np.linalg.norm(y, axis=1)[:, None]).T

    found = potential(x, y, b, np.zeros(9), "cosine", 0)

    assert np.allclose(1 - found, similarity.max(1), atol=1e-6)


@pytest.mark.parametrize("eps", [0, 0.05, math.inf])
def test_a_document_has_the_same_potential_in_any_batch(eps: float) -> None:
    x, y, b, g = sides(0, 1000, 40, 384)
    of = Potential(y, b, g, "cosine", eps)

    assert np.allclose(of(x[::-1])[::-1], of(x), atol=1e-6)
    assert np.allclose(np.concatenate([of(x[row : row + 1]) for row in range(20)]), of(x)[:20], atol=1e-6)


@pytest.mark.parametrize("eps", [0, 0.05, math.inf])
def test_vectors_without_a_cost_have_no_potential_and_leave_the_others_alone(eps: float) -> None:
    x, y, b, g = sides(0, 30, 5, 8)
    damaged = x.copy()
    damaged[3, 2], damaged[7] = np.nan, 0

    found = potential(damaged, y, b, g, "cosine", eps)

    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 7]
    assert np.array_equal(np.delete(found, [3, 7]), np.delete(potential(x, y, b, g, "cosine", eps), [3, 7]))


def test_squared_distances_keep_their_digits_far_from_the_origin() -> None:
    x, y, b, g = sides(0, 30, 5, 8)

    found = potential(x + 1000, y + 1000, b, g, "squared", 0.1)

    assert np.allclose(found, expected(x, y, b, g, "squared", 0.1), atol=0.01)


def test_prices_add_a_constant_to_potentials() -> None:
    x, y, b, g = sides(0, 30, 5, 8)

    assert np.allclose(
        potential(x, y, b, g + 0.7, "cosine", 0.1), potential(x, y, b, g, "cosine", 0.1) - 0.7, atol=1e-5
    )


def test_how_many_targets_a_document_is_compared_with() -> None:
    y = np.eye(4)
    x = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])

    near = Potential(y, np.ones(4), np.zeros(4), "cosine", 0.01).compared(x)
    far = Potential(y, np.ones(4), np.zeros(4), "cosine", 100).compared(x)

    assert np.allclose(near, [1, 2, 4], atol=1e-3)
    assert np.allclose(far, 4, atol=1e-3)
