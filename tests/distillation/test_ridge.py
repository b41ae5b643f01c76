"""Ridge regression against its closed form, on matrices small enough to write down, plain and side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from dvsel.distillation.ridge import Design, Joint, Ridge, spread
from dvsel.documents.columns import Column
from dvsel.ngrams.shares import Shares
from dvsel.ngrams.spec import NgramSpec

SPEC = NgramSpec(ngrams=2, buckets=60)
WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", ".")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Dense:
    """A matrix that is written down."""

    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    @property
    def square(self) -> float:
        return float(np.square(self.values).sum(1).mean())

    def take(self, rows: npt.NDArray[np.integer]) -> Dense:
        return Dense(self.values[rows])

    def times(self, weights: Floats) -> Floats:
        return self.values @ weights

    def transposed_times(self, values: Floats) -> Floats:
        return self.values.T @ values


def written(design: Design) -> Floats:
    """The design as a matrix."""
    return np.array([design.times(unit) for unit in np.eye(design.width)]).T


def shares(count: int, seed: int = 0) -> Shares:
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 30))).encode() for _ in range(count)]
    return Shares.of(Column.of(texts), SPEC)


def dense(count: int, seed: int = 0) -> Dense:
    return Dense(np.random.default_rng(seed).normal(1, [0.1, 1, 1, 5], (count, 4)))


def joint(count: int, seed: int = 0) -> Joint:
    return Joint((shares(count, seed), dense(count, seed)), (2.0, 0.1))


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


@pytest.mark.parametrize("make", [shares, dense, joint])
@pytest.mark.parametrize("rows", [20, 200], ids=["fewer rows than n-grams", "more"])
@pytest.mark.parametrize("penalty", [10.0, 1.0, 0.03, 0.001])
def test_a_line_is_the_closed_form(make: Callable[..., Design], rows: int, penalty: float) -> None:
    design, others, numbers = make(rows), make(50, 5), numbers_of(rows)
    (line,) = Ridge(design, numbers).path([penalty])
    weights, intercept = closed_form(written(design), numbers, penalty)
    np.testing.assert_allclose(line.weights, weights, atol=1e-4 * np.abs(weights).max())
    assert line.intercept == pytest.approx(intercept, abs=1e-4 * np.abs(weights).max())
    np.testing.assert_allclose(line.of(others), written(others) @ weights + intercept, atol=1e-3)


def test_a_path_gives_what_each_penalty_gives_alone() -> None:
    ridge = Ridge(shares(100), numbers_of(100))
    penalties = (10.0, 1.0, 0.1)
    for line, penalty in zip(ridge.path(penalties), penalties, strict=True):
        (alone,) = ridge.path([penalty])
        np.testing.assert_allclose(line.weights, alone.weights, atol=1e-4 * np.abs(alone.weights).max())


def test_a_row_of_zeros_gets_the_intercept() -> None:
    (line,) = Ridge(shares(30), numbers_of(30)).path([1.0])
    assert line.of(Shares.of(Column.of([b"", b" \n"]), SPEC)).tolist() == [line.intercept] * 2


def test_equal_rows_teach_the_mean() -> None:
    alike = Shares.of(Column.of([b"the cat sat"] * 10), SPEC)
    numbers = numbers_of(10)
    (line,) = Ridge(alike, numbers).path([1.0])
    np.testing.assert_allclose(line.of(shares(5)), numbers.mean())
    assert spread(alike) == 0


def test_the_same_rows_give_the_same_bytes() -> None:
    one, other = (Ridge(joint(60), numbers_of(60)).path([1.0, 0.01])[-1] for _ in range(2))
    assert one.weights.tobytes() == other.weights.tobytes() and one.intercept == other.intercept


@pytest.mark.parametrize("make", [shares, dense, joint])
def test_spread_is_the_mean_squared_distance_from_the_mean(make: Callable[..., Design]) -> None:
    matrix = written(make(30))
    assert spread(make(30)) == pytest.approx(np.square(matrix - matrix.mean(0)).sum(1).mean(), rel=1e-5)


def test_designs_side_by_side() -> None:
    left, right, both = shares(30), dense(30), joint(30)
    matrix = np.hstack([2 * written(left), 0.1 * written(right)])
    np.testing.assert_allclose(written(both), matrix)
    assert (len(both), both.width) == matrix.shape
    assert both.square == pytest.approx(np.square(matrix).sum(1).mean(), rel=1e-6)
    values, weights, rows = numbers_of(30), numbers_of(64), np.array([3, 3, 0])
    np.testing.assert_allclose(both.transposed_times(values), matrix.T @ values)
    np.testing.assert_allclose(both.take(rows).times(weights), matrix[rows] @ weights)
    own = both.split(weights)
    np.testing.assert_allclose(left.times(own[0]) + right.times(own[1]), matrix @ weights)
