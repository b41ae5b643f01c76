"""Shares of n-grams against the definition, on a vocabulary small enough to write the matrix down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column
from dvsel.ngrams.shares import Shares
from dvsel.ngrams.spec import NgramSpec, buckets_of

SPEC = NgramSpec(ngrams=2, buckets=60)
WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", ".")
Floats = npt.NDArray[np.float64]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 30))) for _ in range(count)]


def shares_of(documents: list[str]) -> Shares:
    return Shares.of(Column.of([text.encode() for text in documents]), SPEC)


def dense(documents: list[str]) -> Floats:
    """The matrix of shares, from the definition of n-grams."""
    counts = [np.bincount(buckets_of(text, SPEC), minlength=SPEC.buckets) for text in documents]
    return np.array([row / max(row.sum(), 1) for row in counts])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=30), max_size=6))
def test_shares_are_those_of_the_definition(documents: list[str]) -> None:
    shares = shares_of(documents)
    found = np.array([shares.times(unit) for unit in np.eye(SPEC.buckets)]).T
    np.testing.assert_allclose(found, dense(documents).reshape(found.shape), rtol=1e-6)


def test_products_are_those_of_the_matrix() -> None:
    documents, values = texts(40), np.random.default_rng(1).normal(3, 2, 40)
    shares, matrix = shares_of(documents), dense(documents)
    weights = np.random.default_rng(2).normal(size=SPEC.buckets)
    np.testing.assert_allclose(shares.times(weights), matrix @ weights, atol=1e-6)
    np.testing.assert_allclose(shares.transposed_times(values), matrix.T @ values, atol=1e-5)
    rows = np.array([7, 3, 3, 39, 0])
    np.testing.assert_allclose(shares.take(rows).times(weights), matrix[rows] @ weights, atol=1e-6)
    assert len(shares.take(np.array([], np.int64))) == 0
    assert (len(shares), shares.width) == matrix.shape
    assert np.isclose(shares.square, np.square(matrix).sum(1).mean())
