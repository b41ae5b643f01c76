"""Costs and their spread, against numpy in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist

pytest.importorskip("torch")

from dvsel.transport import COSTS, cost
from dvsel.transport.cost import Pairs, placed, spread

Array = npt.NDArray[np.float64]


def expected(x: Array, y: Array, name: str) -> Array:
    found: Array = cdist(x, y, "cosine") if name == "cosine" else cdist(x, y, "sqeuclidean") / 2
    return found


@pytest.fixture
def sides() -> tuple[Array, Array]:
    draws = np.random.default_rng(0)
    return draws.normal(size=(40, 6)), draws.normal(size=(7, 6)) + 0.5


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("held", [0, 1 << 20])
def test_a_cost_is_what_its_name_says(
    name: str, held: int, sides: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_HELD", held)
    pairs = Pairs(*sides, name)

    found = [pairs.own_x[where, None] + pairs.own_y - products for where, products in pairs.products()]

    assert np.allclose(np.concatenate(found), expected(*sides, name), atol=1e-5)


@pytest.mark.parametrize("name", COSTS)
def test_spread_is_the_standard_deviation_over_all_pairs(name: str, sides: tuple[Array, Array]) -> None:
    x, y = sides
    copies = np.array([1, 2, 1, 3, 1, 1, 1])

    deviation = spread(x, y, copies, name)

    assert deviation == pytest.approx(expected(x, y.repeat(copies, 0), name).std(), rel=1e-5)


@pytest.mark.parametrize("name", COSTS)
def test_spread_is_nothing_where_only_rounding_differs(name: str) -> None:
    documents = np.random.default_rng(0).normal(size=(1, 384)).repeat(50, 0)

    assert spread(documents, documents[:3], np.ones(3), name) == 0
    assert spread(documents, documents[:3] * 1.5, np.ones(3), name) == 0


def test_a_vector_of_nothing_has_no_place_under_the_cosine() -> None:
    vectors = np.array([[0, 0], [3, 4], [np.nan, 1]], np.float32)

    assert np.allclose(placed(vectors, "cosine"), [[np.nan] * 2, [0.6, 0.8], [np.nan] * 2], equal_nan=True)
