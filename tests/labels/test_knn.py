"""Labels judged by other documents: both estimates against brute force with the document really left out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")

from dvsel.labels.documents import Labelled
from dvsel.labels.knn import Judge, Learned, learn

Array = npt.NDArray[np.float64]

CLASSES, COUNT, WIDTH = 3, 60, 5

pytestmark = pytest.mark.usefixtures("one_thread")


def unit(vectors: Array) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def sample() -> Labelled:
    """Three overlapping crowds."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, CLASSES, COUNT)
    vectors = unit(draws.normal(size=(COUNT, WIDTH)) + 1.5 * np.eye(WIDTH)[labels] + 1)
    return Labelled(vectors, labels, draws.permutation(COUNT) * 7, (b"a", b"b", b"c"))


@pytest.fixture(scope="module")
def learned(sample: Labelled) -> Learned:
    found = learn(sample, 10)
    assert found is not None
    return found


def centred(sample: Labelled) -> Array:
    left = sample.vectors.astype(np.float64) - sample.vectors.mean(0)
    found: Array = left / np.linalg.norm(left, axis=1, keepdims=True)
    return found


def regression(z: Array, truth: Array, row: Array, ridge: float) -> Array:
    with_constant = np.c_[z, np.ones(len(z))]
    gram = with_constant.T @ with_constant + ridge * np.eye(z.shape[1] + 1)
    found: Array = np.append(row, 1) @ np.linalg.solve(gram, with_constant.T @ truth)
    return found


def votes(z: Array, truth: Array, row: Array, count: int) -> Array:
    cos = z @ row
    nearest = np.argsort(-cos)[:count]
    found: Array = np.average(truth[nearest], axis=0, weights=np.exp(cos[nearest] / 0.2))
    return found


def ridge_of(learned: Learned) -> float:
    """The ridge itself: that with which a constant row and others give the mean eigenvalue."""
    return learned.ridge * 2 * COUNT / (WIDTH + 1)  # all rows have the squared length 2


def test_both_estimates_are_those_without_the_document(sample: Labelled, learned: Learned) -> None:
    z, truth = centred(sample), np.eye(CLASSES)[sample.labels]
    by_neighbours, by_ridge = Judge(learned.arrays, 10).estimates(learned.arrays["vectors"], np.arange(COUNT))

    for row in range(COUNT):
        others = np.arange(COUNT) != row
        expected = regression(z[others], truth[others], z[row], ridge_of(learned))
        assert by_ridge[row] == pytest.approx(expected, abs=1e-4)
        assert by_neighbours[row] == pytest.approx(votes(z[others], truth[others], z[row], 10), abs=1e-4)


def test_a_document_beyond_the_index_is_compared_with_all_of_it(sample: Labelled, learned: Learned) -> None:
    z, truth = centred(sample), np.eye(CLASSES)[sample.labels]
    by_neighbours, by_ridge = Judge(learned.arrays, 10).estimates(learned.arrays["vectors"], np.full(COUNT, -1))

    for row in range(COUNT):
        assert by_ridge[row] == pytest.approx(regression(z, truth, z[row], ridge_of(learned)), abs=1e-4)
        assert by_neighbours[row] == pytest.approx(votes(z, truth, z[row], 10), abs=1e-4)


def test_ridge_and_weight_have_the_least_error_on_documents_left_out(sample: Labelled, learned: Learned) -> None:
    z, truth = centred(sample), np.eye(CLASSES)[sample.labels]
    others = [np.arange(COUNT) != row for row in range(COUNT)]

    def regressions(ridge: float) -> Array:
        scaled = ridge * 2 * COUNT / (WIDTH + 1)
        return np.stack([regression(z[rest], truth[rest], z[row], scaled) for row, rest in enumerate(others)])

    def error(shares: Array) -> float:
        return float(np.square(shares - truth).sum())

    assert learned.ridge == min((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), key=lambda ridge: error(regressions(ridge)))
    by_ridge = regressions(learned.ridge)
    by_neighbours = np.stack([votes(z[rest], truth[rest], z[row], 10) for row, rest in enumerate(others)])
    weights = np.linspace(0.5, 1, 501)
    best = min(weights, key=lambda weight: error(weight * by_ridge + (1 - weight) * by_neighbours))
    assert learned.linear == pytest.approx(best, abs=2e-3)


def test_the_score_is_a_log_ratio_of_shares(sample: Labelled, learned: Learned) -> None:
    judge = Judge(learned.arrays, 10)
    by_neighbours, by_ridge = judge.estimates(learned.arrays["vectors"], np.arange(COUNT))
    shares = np.maximum(learned.linear * by_ridge + (1 - learned.linear) * by_neighbours, 0) + 0.05
    for label in range(CLASSES):
        others = np.delete(shares, label, axis=1).max(1)
        found = judge.score(sample.vectors, np.full(COUNT, label), sample.keys)
        assert found == pytest.approx(np.log(shares[:, label] / others), abs=1e-4)


def test_documents_are_known_by_their_keys(sample: Labelled, learned: Learned) -> None:
    judge = Judge(learned.arrays, 10)
    shuffled = np.random.default_rng(1).permutation(COUNT)

    assert judge.places(sample.keys[shuffled]).tolist() == shuffled.tolist()
    assert judge.places(np.array([1, -5, 10**9])).tolist() == [-1, -1, -1]


def test_what_a_document_itself_is_labelled_does_not_count(sample: Labelled) -> None:
    """A crowd of one label, in which one document has another: it is not its own witness."""
    labels = np.zeros(COUNT, np.int64)
    labels[:2] = 1
    vectors = np.tile(sample.vectors[:1], (COUNT, 1)) + 0.1 * sample.vectors
    vectors[1] = -vectors[1]
    crowd = Labelled(unit(vectors.astype(np.float64)), labels, sample.keys, (b"a", b"b"))
    found = learn(crowd, 10)
    assert found is not None
    scores = Judge(found.arrays, 10).score(crowd.vectors, labels, crowd.keys)

    assert scores[0] < -2 and (scores[2:] > 0).all()


def test_documents_that_are_all_alike_teach_nothing(sample: Labelled) -> None:
    alike = Labelled(np.tile(sample.vectors[:1], (COUNT, 1)), sample.labels, sample.keys, sample.names)

    assert learn(alike, 10) is None


def test_more_neighbours_than_could_be_held(sample: Labelled, learned: Learned) -> None:
    scores = [
        Judge(learned.arrays, count).score(sample.vectors, sample.labels, sample.keys) for count in (COUNT, 1 << 60)
    ]

    assert np.array_equal(scores[0], scores[1])


def test_fewer_documents_than_neighbours(sample: Labelled) -> None:
    few = sample.take(np.arange(6))
    found = learn(few, 50)
    assert found is not None

    assert np.isfinite(Judge(found.arrays, 50).score(few.vectors, few.labels, few.keys)).all()
