"""Margins between labels' potentials, against POT's solution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import logsumexp

pytest.importorskip("torch")
pytest.importorskip("ot")

import ot

from dvsel.errors import Notice
from dvsel.labels.documents import Labelled
from dvsel.labels.margin import Judge, learn

Array = npt.NDArray[np.float64]

EPS = 0.1

pytestmark = pytest.mark.usefixtures("one_thread")


def crowds(counts: list[int], seed: int, names: tuple[bytes, ...]) -> Labelled:
    draws = np.random.default_rng(seed)
    labels = draws.permutation(np.repeat(np.arange(len(counts)), counts))
    vectors = draws.normal(size=(len(labels), 6)) + 4 * np.eye(6)[labels]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Labelled(vectors.astype(np.float32), labels, draws.permutation(len(labels)), names)


@pytest.fixture(scope="module")
def sample() -> Labelled:
    return crowds([40, 30, 20], 0, (b"a", b"b", b"c"))


@pytest.fixture(scope="module")
def clean() -> Labelled:
    return crowds([12, 1, 9, 5], 1, (b"a", b"b", b"c", b"d"))


def centred(vectors: npt.NDArray[np.float32], mean: npt.NDArray[np.float32]) -> Array:
    left = vectors.astype(np.float64) - mean
    found: Array = left / np.linalg.norm(left, axis=1, keepdims=True)
    return found


def potential(x: Array, y: Array, others: Array) -> Array:
    """Return potentials of documents x, with POT's prices of y for transport from `others`; 0 where there are none."""
    prices = np.zeros(len(y))
    if len(others):
        a, b = np.full(len(others), 1 / len(others)), np.full(len(y), 1 / len(y))
        _, log = ot.sinkhorn(a, b, 1 - others @ y.T, EPS, "sinkhorn_log", 10_000, 1e-12, log=True)
        prices = EPS * log["log_v"]
        prices -= prices.mean()
    found: Array = -EPS * logsumexp((prices - (1 - x @ y.T)) / EPS - np.log(len(y)), axis=1)
    return found


def test_the_margin_is_that_of_exact_potentials(
    sample: Labelled, clean: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.labels.margin._TOLERANCE", 1e-5)
    mean = clean.vectors.mean(0)
    x, y = centred(sample.vectors, mean), centred(clean.vectors, mean)
    distances = np.stack(
        [potential(x, y[clean.labels == label], x[sample.labels == label]) for label in range(4)], axis=1
    )
    judge = Judge(learn(sample, clean, EPS), EPS)
    for label in range(4):
        expected = np.delete(distances, label, axis=1).min(1) - distances[:, label]
        assert judge.score(sample.vectors, np.full(len(x), label)) == pytest.approx(expected, abs=1e-4)


def test_documents_suit_their_own_crowd(sample: Labelled, clean: Labelled) -> None:
    judge = Judge(learn(sample, clean, EPS), EPS)

    assert (judge.score(sample.vectors, sample.labels) > 0).mean() > 0.8
    assert (judge.score(sample.vectors, (sample.labels + 1) % 3) < 0).mean() > 0.8


def test_transport_that_does_not_end_is_told(
    sample: Labelled, clean: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.labels.margin._STEPS", 1)
    with pytest.warns(Notice, match=r"transport ends with a marginal error of .*; give a higher --eps"):
        learn(sample, clean, 0.01)
