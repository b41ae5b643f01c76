"""Learn a classifier from documents: the split, the report, and as good as the library's."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import corpus
from dvsel.documents.columns import Batch
from dvsel.errors import Notice, UserError
from dvsel.fasttext.examples import LABELS, Training
from dvsel.fasttext.model import FastTextModel
from dvsel.fasttext.training import learn
from dvsel.options import from_mapping, to_mapping

SMALL = Training(dim=10, buckets=20_000, learning_rate=0.5)


def texts_of(domain: str) -> list[str]:
    return [document["text"] for document in corpus.documents() if document["domain"] == domain]


@pytest.fixture(scope="module")
def prose() -> list[str]:
    return texts_of("reference")[:300]


@pytest.fixture(scope="module")
def code() -> list[str]:
    return texts_of("code")[:300]


def batches(texts: Sequence[str], size: int = 1000) -> list[Batch]:
    return [Batch.of(texts[first : first + size]) for first in range(0, len(texts), size)]


def content(model: FastTextModel) -> tuple[bytes, ...]:
    words = model.words.data[: model.words.offsets[-1]]
    return words.tobytes(), model.input.tobytes(), model.output.tobytes()


def test_learns_to_tell_prose_from_code(prose: list[str], code: list[str]) -> None:
    model, report = learn(batches(prose), batches(code), SMALL, "dclm")

    assert model.labels == LABELS == ("1", "0")
    assert report["area"] > 0.97
    assert report["trained"]["positive"] + report["positives"] == len(prose)
    assert report["trained"]["negative"] + report["documents"] - report["positives"] == len(code)
    assert (report["empty"], report["in_both"], report["unscored"]) == (0, 0, 0)
    assert 0.05 < report["documents"] / (len(prose) + len(code)) < 0.15
    json.dumps(report, allow_nan=False)


def test_order_and_batches_change_nothing(prose: list[str], code: list[str]) -> None:
    model, report = learn(batches(prose), batches(code), SMALL, "dclm")
    again, same = learn(batches(prose[::-1], 7), batches(code[1:] + code[:1], 100), SMALL, "dclm")

    assert content(again) == content(model)
    assert same == report


def test_another_seed_is_another_model_on_the_same_split(prose: list[str], code: list[str]) -> None:
    model, report = learn(batches(prose), batches(code), SMALL, "dclm")
    again, other = learn(batches(prose), batches(code), dataclasses.replace(SMALL, training_seed=1), "dclm")

    assert content(again)[1:] != content(model)[1:]
    assert other["trained"] == report["trained"]
    assert other["positives"] == report["positives"]


def test_equal_texts_are_held_out_together(prose: list[str], code: list[str]) -> None:
    _, report = learn(batches(prose), batches(code), SMALL, "dclm")
    _, twice = learn(batches(prose * 2), batches(code), SMALL, "dclm")

    assert twice["positives"] == 2 * report["positives"]


def test_the_held_out_documents_are_not_learned_from(prose: list[str], code: list[str]) -> None:
    """A word that only held-out documents have is not in the vocabulary."""
    marked = [f"{text} mark{number}" for number, text in enumerate(prose)]
    model, report = learn(batches(marked), batches(code), SMALL, "dclm")
    words = {model.words[row] for row in range(len(model.words))}

    assert sum(f"mark{number}".encode() in words for number in range(len(marked))) == report["trained"]["positive"]


def test_nothing_is_held_out_where_that_is_asked_for(prose: list[str], code: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, report = learn(batches(prose), batches(code), dataclasses.replace(SMALL, held_out=0.0), "dclm")

    assert report["trained"] == {"positive": 300, "negative": 300}
    assert (report["documents"], report["area"]) == (0, None)


def test_documents_without_a_word_are_left_out(prose: list[str], code: list[str]) -> None:
    model, report = learn(batches(prose), batches(code), SMALL, "dclm")
    again, with_empty = learn(batches(["", *prose, " \n\t"]), batches([*code, "\0"]), SMALL, "dclm")

    assert content(again) == content(model)
    assert with_empty == report | {"empty": 3}


def test_texts_on_both_sides_are_counted_and_told(prose: list[str], code: list[str]) -> None:
    with pytest.warns(Notice, match="training: 2 texts are both positive and negative"):
        _, report = learn(batches(prose + code[:2]), batches(code), SMALL, "dclm")

    assert report["in_both"] == 2


def test_a_classifier_that_has_learned_nothing_is_told(prose: list[str]) -> None:
    spread = dataclasses.replace(SMALL, held_out=0.5, learning_rate=1e-6)
    shuffled = sorted(set(prose), key=lambda text: text[::-1])
    with pytest.warns(Notice, match="no better than chance"):
        learn(batches(shuffled[::2]), batches(shuffled[1::2]), spread, "dclm")


def test_few_held_out_documents_are_told(prose: list[str], code: list[str]) -> None:
    with pytest.warns(Notice, match="fewer than 20 documents of a side are held out"):
        learn(batches(prose[:60]), batches(code[:60]), SMALL, "dclm")


@pytest.mark.parametrize(
    ("positive", "negative", "options", "message"),
    [
        ([], ["a", "b"], {}, "positive documents: there are none; give at least two"),
        (["a", "b"], [], {}, "negative documents: there are none; give at least two"),
        (["a", "b"], ["c"], {}, "negative documents: 1 with a word, too few to learn from; give more"),
        (["a", " ", ""], ["c", "d"], {}, "positive documents: 1 with a word, too few"),
        (["a", "b"], ["c", "d"], {"held_out": 0.999999}, "all 2 are held out; give more, or lower held_out 0.999999"),
    ],
)
def test_too_few_documents_are_an_error(
    positive: list[str], negative: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        learn(batches(positive), batches(negative), Training(**options), "space")


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0},
        {"word_ngrams": 0},
        {"word_ngrams": 11},
        {"buckets": 0},
        {"buckets": 2**31},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"min_count": 0},
        {"min_chars": 3, "max_chars": 2},
        {"min_chars": -1},
        {"held_out": 1.0},
        {"held_out": float("nan")},
        {"trainer": "other"},
    ],
)
def test_options_out_of_range_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="; "):
        Training(**options)


def test_options_survive_a_recipe() -> None:
    training = Training(dim=5, trainer="fasttext", held_out=0.25)

    assert from_mapping(Training, to_mapping(training), "recipe") == training


@pytest.mark.parametrize(
    ("files", "sides", "sizes"),
    [
        (("pool/acl_abstracts", "pool/reuters21578"), (None, None), (1500, 1500)),
        (("labelled/imdb.train", "labelled/imdb.train"), ("pos", "neg"), (2500, 2500)),
    ],
    ids=["science or news", "liked or disliked"],
)
def test_as_good_as_the_library(
    shared_data: Path, files: tuple[str, str], sides: tuple[str | None, str | None], sizes: tuple[int, int]
) -> None:
    """On the same held-out documents of real text. The library's own fits differ among themselves by about 0.02."""
    pytest.importorskip("fasttext")
    positive, negative = (
        real_texts(shared_data / f"{name}.jsonl.zst", side, size)
        for name, side, size in zip(files, sides, sizes, strict=True)
    )
    training = Training(dim=20, buckets=200_000, learning_rate=0.5, held_out=0.3)
    reports = [
        learn(batches(positive), batches(negative), dataclasses.replace(training, trainer=trainer), "space")[1]
        for trainer in ("dvsel", "fasttext")
    ]

    own, library = reports
    assert own["documents"] == library["documents"] > 0.25 * sum(sizes)
    assert own["accuracy"] > library["accuracy"] - 0.03
    assert own["area"] > library["area"] - 0.02
    assert own["log_loss"] < library["log_loss"] + 0.03


def real_texts(path: Path, label: str | None, count: int) -> list[str]:
    rows = map(json.loads, corpus.content(path).splitlines())
    return [row["text"] for row in rows if row.get("label") == label][:count]
