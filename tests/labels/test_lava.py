"""LAVA against POT's solutions, and against what a document's mass really does to the transport cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")
pytest.importorskip("ot")

import ot

from dvsel.errors import Notice
from dvsel.labels.documents import Labelled
from dvsel.labels.lava import Judge, label_distances, learn

Array = npt.NDArray[np.float64]

EPS = 0.1


def crowds(counts: list[int], seed: int) -> Labelled:
    """Documents in the labels' order."""
    draws = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    vectors = draws.normal(size=(len(labels), 6)) + 4 * np.eye(6)[labels]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = tuple(b"label %d" % label for label in range(len(counts)))
    return Labelled(vectors.astype(np.float32), labels, np.arange(len(labels)), names)


@pytest.fixture(scope="module")
def sample() -> Labelled:
    return crowds([14, 8, 10], 0)


@pytest.fixture(scope="module")
def clean() -> Labelled:
    return crowds([6, 1, 7], 1)


def half_squares(x: Array, y: Array) -> Array:
    found: Array = ot.dist(x, y, "sqeuclidean") / 2
    return found


def entropic_cost(a: Array, b: Array, cost: Array, eps: float) -> float:
    """<P, C> + eps KL(P | a x b) of the optimal plan."""
    plan = ot.sinkhorn(a, b, cost, eps, "sinkhorn_log", 2000, 1e-10, warn=False)
    return float((plan * cost).sum() + eps * (plan * np.log(plan / np.outer(a, b))).sum())


def uniform_cost(x: Array, y: Array) -> float:
    return entropic_cost(np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y)), half_squares(x, y), EPS)


def whole_cost(sample: Labelled, clean: Labelled, distances: Array) -> Array:
    found: Array = half_squares(sample.vectors.astype(float), clean.vectors.astype(float))
    return found + distances[sample.labels][:, clean.labels]


def test_distances_between_labels_are_sinkhorn_divergences(
    sample: Labelled, clean: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.labels.lava._TOLERANCE", 1e-9)
    found = label_distances(sample, clean, EPS)

    for label in range(3):
        for other in range(3):
            x = sample.vectors[sample.labels == label].astype(float)
            y = clean.vectors[clean.labels == other].astype(float)
            expected = uniform_cost(x, y) - (uniform_cost(x, x) + uniform_cost(y, y)) / 2
            assert found[label, other] == pytest.approx(expected, abs=1e-5)
    assert (found.argmin(1) == [0, 1, 2]).all()


def test_a_value_is_minus_the_slope_of_the_cost_by_the_documents_mass(
    sample: Labelled, clean: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.labels.lava._TOLERANCE", 1e-9)
    arrays, transported = learn(sample, clean, EPS)
    values = Judge(arrays, EPS).score(sample.vectors, sample.labels)
    cost = whole_cost(sample, clean, arrays["distances"])
    count, b, step = len(sample), np.full(len(clean), 1 / len(clean)), 1e-4

    assert transported == count
    for row in range(0, count, 5):
        more, less = (np.full(count, 1 / count - sign * step / (count - 1)) for sign in (1, -1))
        more[row], less[row] = 1 / count + step, 1 / count - step
        slope = (entropic_cost(more, b, cost, EPS) - entropic_cost(less, b, cost, EPS)) / (2 * step)
        assert values[row] == pytest.approx(-slope, abs=1e-5)


def test_a_document_that_was_not_transported_has_a_value_too(sample: Labelled, clean: Labelled) -> None:
    """It is that of its own copy, if there is one."""
    arrays, _ = learn(sample, clean, EPS)
    judge = Judge(arrays, EPS)

    again = judge.score(sample.vectors[3:4], sample.labels[3:4])
    assert again == pytest.approx(judge.score(sample.vectors, sample.labels)[3:4], abs=1e-6)
    wrong = judge.score(sample.vectors[3:4], sample.labels[3:4] + 1)
    assert wrong < again


def test_transport_that_does_not_end_is_told(
    sample: Labelled, clean: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.labels.lava._STEPS", 2)
    with pytest.warns(Notice, match="lava: transport is not solved after 2 steps; give a higher --eps"):
        learn(sample, clean, 0.01)


def test_large_sets_are_cut(sample: Labelled, clean: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvsel.labels.lava.MOST", 9)
    reverse = np.arange(len(clean))[::-1]
    arrays, transported = learn(sample, clean, EPS)
    again, _ = learn(sample, clean.take(reverse), EPS)

    assert transported == len(arrays["labels"]) == 9
    np.testing.assert_array_equal(np.sort(arrays["prices"]), np.sort(again["prices"]))
