"""Training with the library: its fault is there, and what dvsel trains is free of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import corpus
from dvsel.documents.columns import Batch, Column
from dvsel.documents.hashing import hash_rows
from dvsel.errors import UserError
from dvsel.fasttext import library_training, sgd
from dvsel.fasttext.examples import Examples, Training
from dvsel.fasttext.library_training import LEAST_THREADS, damaged_rows, write_documents
from dvsel.fasttext.training import learn

fasttext = pytest.importorskip("fasttext")

SMALL = Training(dim=10, buckets=20_000, learning_rate=0.5, trainer="fasttext")


@pytest.fixture(scope="module")
def texts() -> list[list[str]]:
    """Prose and code."""
    sides = ([one["text"] for one in corpus.documents() if one["domain"] == domain] for domain in ("reference", "code"))
    return [side[:200] for side in sides]


def examples(documents: Sequence[tuple[bytes, bool]]) -> Examples:
    column = Column.of([text for text, _ in documents])
    positive = np.array([positive for _, positive in documents])
    return Examples(column, np.arange(len(column)), positive, hash_rows(column))


def both(texts: list[list[str]]) -> Examples:
    return examples([(" ".join(text.split()).encode(), side == 0) for side in (0, 1) for text in texts[side]])


def test_a_model_that_the_library_trained_scores_held_out_documents(texts: list[list[str]]) -> None:
    model, report = learn([Batch.of(texts[0])], [Batch.of(texts[1])], SMALL, "dclm")

    assert (model.labels, model.loss, model.word_ngrams, model.buckets) == (("1", "0"), "softmax", 2, 20_000)
    assert report["area"] > 0.95


@pytest.mark.parametrize("more", ["positive", "negative"])
def test_the_first_label_is_the_positive_one_whichever_is_commoner(texts: list[list[str]], more: str) -> None:
    """The library puts the commoner label first."""
    positive, negative = (texts[0], texts[1][:60]) if more == "positive" else (texts[0][:60], texts[1])

    training = dataclasses.replace(SMALL, held_out=0.3, learning_rate=1.0)
    assert learn([Batch.of(positive)], [Batch.of(negative)], training, "dclm")[1]["area"] > 0.95


FAULTY = """
import sys
import fasttext
import numpy as np
from dvsel.fasttext.library_training import damaged_rows

model = fasttext.train_supervised(
    sys.argv[1], dim=10, bucket=1_000_000, wordNgrams=2, epoch=1, thread=1, lr=1e-5, verbose=0
)
print(damaged_rows(np.array(model.f.getInputMatrix())), 1_000_000 + len(model.get_words()))
"""


def test_with_one_thread_the_library_leaves_nine_tenths_of_its_vectors_unset(
    texts: list[list[str]], tmp_path: Path
) -> None:
    """The fault that training works around, in a new process: what an old one freed may look like vectors."""
    training = dataclasses.replace(SMALL, buckets=1_000_000)
    documents = both(texts)
    write_documents(documents, training, tmp_path / "texts")

    told = subprocess.run(
        [sys.executable, "-c", FAULTY, tmp_path / "texts"], capture_output=True, check=True, text=True
    )

    damaged, rows = map(int, told.stdout.split())
    assert damaged > 0.85 * rows
    for train in (library_training.train, sgd.train):
        vectors = train(documents, training).input
        assert vectors.shape[0] > 1_000_000
        assert damaged_rows(vectors) == 0


def test_vectors_that_did_not_occur_are_uniform(texts: list[list[str]]) -> None:
    documents = both(texts)
    for train in (library_training.train, sgd.train):
        vectors = train(documents, dataclasses.replace(SMALL, buckets=500_000)).input[-400_000:]
        assert np.median(np.abs(vectors)) == pytest.approx(0.5 / SMALL.dim, rel=0.02)
        assert np.mean(np.abs(vectors) <= np.float32(1 / SMALL.dim)) > 0.9


@pytest.mark.parametrize("unset", [0.0, 1e-42, np.nan, np.inf, 1e20, -1e20])
def test_damaged_rows_are_counted(unset: float) -> None:
    vectors: npt.NDArray[np.float32] = np.random.default_rng(0).uniform(-0.1, 0.1, (40_000, 4)).astype(np.float32)
    assert damaged_rows(vectors) == 0

    vectors[[3, 39_999]] = unset
    assert damaged_rows(vectors) == 2


def test_a_document_is_a_line_without_foreign_labels(tmp_path: Path) -> None:
    documents = [
        (b"one\ntwo", True),
        (b"__label__0 three x__label__1 __label__", False),
        (b"four</s> </s> five", True),
        (b"caf\xc3\xa9 \xff\0", False),
    ]
    write_documents(examples(documents), SMALL, tmp_path / "texts")

    lines = (tmp_path / "texts").read_bytes().split(b"\n")
    assert sorted(lines) == [
        b"",
        b"__label__0  three x__label__1 ",
        b"__label__0 caf\xc3\xa9 \xff\0",
        b"__label__1 four</s> ",
        b"__label__1 one two",
    ]


def test_both_trainers_have_the_same_vocabulary(texts: list[list[str]]) -> None:
    odd = [(b"__label__1 here </s> there", True), (b"tab\tand\x0bNUL\0x caf\xc3\xa9", False)]
    documents = examples([(text.encode(), side == 0) for side in (0, 1) for text in texts[side][:50]] + odd)

    for min_count in (1, 3):
        training = dataclasses.replace(SMALL, min_count=min_count)
        own, library = sgd.train(documents, training).words, library_training.train(documents, training).words
        assert {own[row] for row in range(len(own))} == {library[row] for row in range(len(library))}
        assert len(own) == len(library)


def test_the_order_of_lines_depends_on_the_documents_alone(texts: list[list[str]], tmp_path: Path) -> None:
    documents = [(text.replace("\n", " ").encode(), side == 0) for side in (0, 1) for text in texts[side]]
    write_documents(examples(documents), SMALL, tmp_path / "texts")
    write_documents(examples(documents[::-1]), SMALL, tmp_path / "reversed")

    lines = (tmp_path / "texts").read_bytes().splitlines()
    assert (tmp_path / "reversed").read_bytes().splitlines() == lines
    first_half = [line.startswith(b"__label__1") for line in lines[: len(lines) // 2]]
    assert 0.3 < np.mean(first_half) < 0.7


class Failing:
    """Stands in for the library's training: raises as often as asked, and keeps the threads that it was given."""

    def __init__(self, times: int, error: Exception) -> None:
        self.times, self.error = times, error
        self.threads: list[int] = []
        self.train = fasttext.train_supervised

    def __call__(self, **options: Any) -> Any:
        self.threads.append(options["thread"])
        if len(self.threads) <= self.times:
            raise self.error
        return self.train(**options)


def test_nan_is_tried_again_with_more_threads(texts: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(1, RuntimeError("Encountered NaN."))
    monkeypatch.setattr(fasttext, "train_supervised", failing)

    library_training.train(both(texts), SMALL)

    assert failing.threads[0] >= LEAST_THREADS
    assert failing.threads[1] == 2 * failing.threads[0]


def test_nan_twice_is_an_error(texts: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasttext, "train_supervised", Failing(2, RuntimeError("Encountered NaN.")))

    with pytest.raises(UserError, match=r"stopped twice \(Encountered NaN\); train with --trainer dvsel"):
        library_training.train(both(texts), SMALL)


def test_vectors_left_unset_are_an_error(texts: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_training, "damaged_rows", lambda _: 1234)

    with pytest.raises(UserError, match="left 1,234 vectors unset; train with --trainer dvsel"):
        library_training.train(both(texts), SMALL)


def test_a_missing_package_is_an_error(texts: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fasttext", None)

    with pytest.raises(UserError, match=r"the package fasttext is missing; pip install 'dvsel\[fasttext\]'"):
        library_training.train(both(texts), SMALL)
