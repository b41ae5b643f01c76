"""Standardised vectors against numpy, and scores that come of weights for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dvsel.embeddings.regression import Standardised, products

LIKE = np.arange(40)


def vectors(width: int = 7) -> npt.NDArray[np.float32]:
    draw = np.random.default_rng(0)
    scale = np.linspace(0.5, 4, width)
    return draw.normal(100, scale, (60, width)).astype(np.float32)


def test_coordinates_have_mean_0_and_deviation_1_over_the_rows_named() -> None:
    values = vectors().astype(np.float64)
    found = Standardised.of(vectors(), LIKE)
    expected = (values - values[LIKE].mean(0)) / values[LIKE].std(0)
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert (len(found), found.width) == (60, 7)
    assert np.isclose(found.square, np.square(expected).sum(1).mean())


def test_products_are_those_of_the_matrix() -> None:
    found, draw = Standardised.of(vectors(), LIKE), np.random.default_rng(1)
    weights, values, rows = draw.normal(size=7), draw.normal(size=60), np.array([5, 5, 59])
    np.testing.assert_allclose(found.times(weights), found.values @ weights)
    np.testing.assert_allclose(found.transposed_times(values), found.values.T @ values)
    np.testing.assert_allclose(found.take(rows).times(weights), found.values[rows] @ weights)


def test_plain_weights_say_the_same_of_the_vectors_as_they_were() -> None:
    found, weights = Standardised.of(vectors(), LIKE), np.random.default_rng(1).normal(size=7)
    own, shift = found.plain(weights)
    np.testing.assert_allclose(products(vectors(), own) + shift, found.times(weights), atol=1e-4)


def test_a_coordinate_that_is_only_rounding_is_left_out() -> None:
    values = vectors()
    values[:, 2], values[:, 4] = 1, 1 + 1e-6 * np.arange(60)
    found = Standardised.of(values, LIKE)
    assert np.flatnonzero(~found.values.any(0)).tolist() == [2, 4]
    own, _ = found.plain(np.ones(7))
    assert np.flatnonzero(own == 0).tolist() == [2, 4]


def test_a_product_depends_on_its_row_alone_and_nan_stays() -> None:
    values, weights = vectors(31), np.random.default_rng(1).normal(size=31)
    values[3, 5] = np.nan
    together = products(values, weights)
    alone = [products(values[row : row + 1], weights)[0] for row in range(60)]
    np.testing.assert_array_equal(together, alone)
    assert np.flatnonzero(np.isnan(together)).tolist() == [3]
