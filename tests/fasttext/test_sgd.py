"""Training in one thread: fastText's algorithm, against an oracle in float64 that keeps both labels."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import environment
from dvsel import progress
from dvsel.documents.columns import Column
from dvsel.documents.hashing import hash_rows
from dvsel.errors import UserError
from dvsel.fasttext import sgd, vocabulary
from dvsel.fasttext.examples import Examples, Training
from dvsel.fasttext.model import FastTextModel

DOCUMENTS = [
    (b"the sun rises over the sea", True),
    (b"the sea is calm", True),
    (b"prices rise", False),
    (b"the bank sells the bank", False),
    (b"sun", True),
]
SMALL = Training(dim=8, buckets=50, epochs=3, learning_rate=0.5, training_seed=7)


def examples(documents: Sequence[tuple[bytes, bool]] = DOCUMENTS) -> Examples:
    column = Column.of([text for text, _ in documents])
    return Examples(
        column, np.arange(len(column)), np.array([positive for _, positive in documents]), hash_rows(column)
    )


def digest(model: FastTextModel) -> str:
    words = model.words.data[: model.words.offsets[-1]].tobytes()
    return hashlib.sha256(words + model.input.tobytes() + model.output.tobytes()).hexdigest()


def trained_in_float64(examples: Examples, training: Training) -> tuple[npt.NDArray[np.float64], ...]:
    """fastText's training said plainly: hidden mean, softmax over two labels, steps of both, a rate that falls."""
    corpus = vocabulary.read(examples.text, examples.rows)
    words, ids = vocabulary.vocabulary(corpus, training.min_count)
    features = vocabulary.feature_numbers(corpus, ids, training.word_ngrams, (0, 0), training.used_buckets)
    vectors = sgd.first_vectors(len(words) + training.used_buckets, training.dim, training.training_seed).astype(float)
    labels = np.zeros((2, training.dim))
    tokens, seen = np.diff(corpus.ends), 0
    for epoch in range(training.epochs):
        for document in examples.order(training.training_seed, epoch):
            rate = training.learning_rate * (1 - seen / (training.epochs * tokens.sum()))
            seen += tokens[document]
            own = features.ids[features.ends[document] : features.ends[document + 1]]
            hidden = vectors[own].mean(axis=0)
            odds = np.exp(labels @ hidden)
            wanted = np.array([1.0, 0.0]) if examples.positive[document] else np.array([0.0, 1.0])
            pull = rate * (wanted - odds / odds.sum())
            change = pull @ labels / len(own)
            labels += np.outer(pull, hidden)
            np.add.at(vectors, own, change)
    return vectors, labels


@pytest.mark.parametrize("epochs", [1, 40])
@pytest.mark.parametrize("documents", [DOCUMENTS[:1], DOCUMENTS[2:3], DOCUMENTS])
def test_steps_are_those_of_the_algorithm(documents: list[tuple[bytes, bool]], epochs: int) -> None:
    training = Training(dim=8, buckets=50, epochs=epochs, learning_rate=0.5)
    vectors, labels = trained_in_float64(examples(documents), training)

    model = sgd.train(examples(documents), training)

    assert np.abs(labels).max() > 0.001
    assert np.allclose(model.output, labels, rtol=1e-4, atol=1e-6)
    assert np.allclose(model.input, vectors, rtol=1e-4, atol=1e-6)


def test_the_learning_rate_falls_with_the_tokens_seen() -> None:
    training = Training(epochs=2, learning_rate=0.4)
    tokens = np.array([1, 2, 5])

    assert sgd.learning_rates(tokens, 0, training).tolist() == pytest.approx([0.4, 0.375, 0.325])
    assert sgd.learning_rates(tokens, 1, training).tolist() == pytest.approx([0.2, 0.175, 0.125])


def test_every_vector_starts_uniform_and_none_is_unset() -> None:
    vectors = sgd.first_vectors(20_001, 100, 3)

    assert (np.abs(vectors) <= np.float32(1 / 100)).all()
    assert (vectors != 0).all()
    assert abs(vectors.mean()) < 3 * 0.01 / np.sqrt(3 * vectors.size)
    assert vectors.std() == pytest.approx(0.01 / np.sqrt(3), rel=1e-2)
    assert len(np.unique(vectors[:, 0])) > 19_500
    assert not np.array_equal(vectors, sgd.first_vectors(20_001, 100, 4))


def test_vectors_of_features_that_do_not_occur_stay_as_they_began() -> None:
    model = sgd.train(examples(), SMALL)
    first = sgd.first_vectors(len(model.input), SMALL.dim, SMALL.training_seed)

    changed = (model.input != first).any(axis=1)

    assert changed[: len(model.words)].all()
    assert 0 < changed[len(model.words) :].sum() < SMALL.buckets


def test_the_model_says_what_it_is() -> None:
    model = sgd.train(examples(), SMALL)

    assert (model.labels, model.loss, model.word_ngrams, model.buckets) == (("1", "0"), "softmax", 2, 50)
    assert (model.input.shape, model.output.shape) == ((len(model.words) + 50, 8), (2, 8))
    assert np.array_equal(model.output[0], -model.output[1])
    assert sgd.train(examples(), Training(dim=2, word_ngrams=1)).buckets == 0


def test_the_same_bytes_in_any_order() -> None:
    shuffled = [DOCUMENTS[row] for row in (3, 0, 4, 2, 1)]

    assert digest(sgd.train(examples(shuffled), SMALL)) == digest(sgd.train(examples(), SMALL))


def test_the_same_bytes_as_ever() -> None:
    """A change of this digest is a change of every trained model: say so where it is meant."""
    assert digest(sgd.train(examples(), SMALL)) == "cd977af86b6590415a2d7b92b7058ea8b15f22c88e03e8e673321508124ec243"


@pytest.mark.slow
def test_the_same_bytes_with_a_processor_s_plainest_instructions(tmp_path: Path) -> None:
    program = "import test_sgd as t; print(t.digest(t.sgd.train(t.examples(), t.SMALL)))"
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    folder = Path(__file__).parent

    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(**plain),
        capture_output=True,
        check=True,
        text=True,
    )

    assert found.stdout.strip() == digest(sgd.train(examples(), SMALL))


def test_each_epoch_has_its_own_order() -> None:
    documents = examples([(b"%d" % number, True) for number in range(100)])
    orders = [documents.order(0, epoch).tolist() for epoch in range(3)] + [documents.order(1, 0).tolist()]

    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_a_min_count_that_no_word_reaches_is_an_error() -> None:
    with pytest.raises(UserError, match="min_count 100: no word occurs so often; lower it"):
        sgd.train(examples(), Training(min_count=100))


def test_progress_is_told_in_bytes_of_text() -> None:
    shown: list[tuple[str, int, int]] = []
    with progress.showing(lambda stage, done, total: shown.append((stage, done.bytes, total))):
        sgd.train(examples(), SMALL)

    size = sum(len(text) for text, _ in DOCUMENTS)
    assert shown == [("training", epoch * size, 3 * size) for epoch in (1, 2, 3)]


@given(st.floats(-1e6, 1e6))
def test_the_logistic_function(x: float) -> None:
    assert sgd._logistic(x) == pytest.approx(1 / (1 + np.exp(-np.clip(x, -60, 60))), rel=1e-11, abs=1e-30)
