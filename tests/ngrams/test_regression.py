"""The regression against the closed form on a vocabulary small enough to write its matrix down."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.ngrams.regression import Ridge, Shares
from dvsel.ngrams.spec import NgramSpec, buckets_of
from dvsel.shards.columns import Column

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


def closed_form(matrix: Floats, numbers: Floats, penalty: float) -> tuple[Floats, float]:
    """Weights and intercept: the normal equations of the centred problem."""
    mean = matrix.mean(0)
    centred = matrix - mean
    unit = np.square(centred).sum(1).mean()
    gram = centred.T @ centred + penalty * unit * np.eye(matrix.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (numbers - numbers.mean()))
    return weights, numbers.mean() - mean @ weights


def numbers_of(count: int) -> Floats:
    return np.random.default_rng(1).normal(3, 2, count)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=30), max_size=6))
def test_shares_are_those_of_the_definition(documents: list[str]) -> None:
    shares = shares_of(documents)
    found = np.array([shares.times(unit) for unit in np.eye(SPEC.buckets)]).T
    np.testing.assert_allclose(found, dense(documents).reshape(found.shape), rtol=1e-6)


def test_products_are_those_of_the_matrix() -> None:
    documents, values = texts(40), numbers_of(40)
    shares, matrix = shares_of(documents), dense(documents)
    weights = np.random.default_rng(2).normal(size=SPEC.buckets)
    np.testing.assert_allclose(shares.times(weights), matrix @ weights, atol=1e-6)
    np.testing.assert_allclose(shares.transposed_times(values), matrix.T @ values, atol=1e-5)
    rows = np.array([7, 3, 3, 39, 0])
    np.testing.assert_allclose(shares.take(rows).times(weights), matrix[rows] @ weights, atol=1e-6)
    assert len(shares.take(np.array([], np.int64))) == 0


@pytest.mark.parametrize("documents", [20, 200], ids=["fewer documents than buckets", "more"])
@pytest.mark.parametrize("penalty", [10.0, 1.0, 0.03, 0.001])
def test_a_line_is_the_closed_form(documents: int, penalty: float) -> None:
    found, numbers = texts(documents), numbers_of(documents)
    (line,) = Ridge(shares_of(found), numbers).path([penalty])
    weights, intercept = closed_form(dense(found), numbers, penalty)
    np.testing.assert_allclose(line.weights, weights, atol=1e-4 * np.abs(weights).max())
    assert line.intercept == pytest.approx(intercept, abs=1e-4 * np.abs(weights).max())
    others = texts(50, seed=5)
    np.testing.assert_allclose(line.of(shares_of(others)), dense(others) @ weights + intercept, atol=1e-3)


def test_a_path_gives_what_each_penalty_gives_alone() -> None:
    ridge = Ridge(shares_of(texts(100)), numbers_of(100))
    penalties = (10.0, 1.0, 0.1)
    for line, penalty in zip(ridge.path(penalties), penalties, strict=True):
        (alone,) = ridge.path([penalty])
        np.testing.assert_allclose(line.weights, alone.weights, atol=1e-4 * np.abs(alone.weights).max())


def test_a_document_without_words_gets_the_intercept() -> None:
    (line,) = Ridge(shares_of(texts(30)), numbers_of(30)).path([1.0])
    assert line.of(shares_of(["", " \n"])).tolist() == [line.intercept] * 2


def test_equal_documents_teach_the_mean() -> None:
    numbers = numbers_of(10)
    (line,) = Ridge(shares_of(["the cat sat"] * 10), numbers).path([1.0])
    np.testing.assert_allclose(line.of(shares_of(["the cat sat", "a dog"])), numbers.mean())


def test_the_same_documents_give_the_same_bytes() -> None:
    one, other = (Ridge(shares_of(texts(60)), numbers_of(60)).path([1.0, 0.01])[-1] for _ in range(2))
    assert one.weights.tobytes() == other.weights.tobytes() and one.intercept == other.intercept
