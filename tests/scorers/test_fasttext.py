"""The scorer `fasttext`: its options, models from files, training, and the commands."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import failure, ok
from corpus import documents
from dvsel.documents.columns import Batch
from dvsel.errors import Notice, UserError
from dvsel.fasttext import MODES
from dvsel.runs import fitted_files as storage
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.fasttext import FastText
from dvsel.testing import check_scorer
from fasttext_models import predict, quantise, train

REFERENCE = [document["text"] for document in documents() if document["domain"] == "reference"]
CODE = [document["text"] for document in documents() if document["domain"] == "code"]
POOL = REFERENCE[1:40:2] + CODE[1:40:2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "quality.bin"
    return train(path, {"cc": CODE[::2], "hq": REFERENCE[::2]}, wordNgrams=2, bucket=20_000)


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "languages.bin"
    texts = {"en": ["the house and the dog"], "de": ["das Haus und der Hund"], "fr": ["la maison et le chien"]}
    return train(path, {label: some * 50 for label, some in texts.items()}, epoch=25)


def batches(texts: list[str], size: int = 7) -> Iterator[Batch]:
    for first in range(0, len(texts), size):
        yield Batch.of(texts[first : first + size])


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": str(row), "text": text}) + "\n" for row, text in enumerate(texts)))
    return path


def fit(**options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        return FastText(**options).fit([], {})


def test_a_scorer_as_any_other(model: Path, languages: Path) -> None:
    check_scorer(FastText(model=str(model), preprocess="dclm", label="hq"), POOL)
    check_scorer(FastText(model=str(languages), preprocess="space", label="de,fr", probability=True), POOL)


@pytest.mark.parametrize("mode", MODES)
def test_probabilities_are_the_librarys_in_every_mode(model: Path, mode: str) -> None:
    truth = {
        "space": lambda text: text.replace("\n", " "),
        "dclm": lambda text: " ".join(text.strip().splitlines()),
        "datatrove": lambda text: text.strip().replace("\n", ""),
    }[mode]
    found = fit(model=str(model), preprocess=mode, probability=True).score(Batch.of(POOL))
    expected = predict(model, [truth(text).encode() for text in POOL])["hq"]  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_model_of_unknown_texts_is_said_to_be_so(model: Path) -> None:
    with pytest.warns(Notice, match="does not say what was done to its training texts.*--preprocess dclm"):
        fitted = FastText(model=str(model)).fit([], {})
    assert fitted.scorer == FastText(model=str(model), label="hq", preprocess="space")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FastText(model=str(model), preprocess="dclm").fit([], {})


def test_labels(languages: Path) -> None:
    texts = Batch.of(["the house", "das Haus", "la maison"])
    assert fit(model=str(languages), label="__label__de").score(texts).argmax() == 1
    assert fit(model=str(languages), label="en,fr").score(texts).argmin() == 1
    with pytest.raises(UserError, match=r"languages.bin: has no label 'hq' among its 3; it has .*de"):
        fit(model=str(languages), label="hq")
    with pytest.raises(UserError, match="name them with --label"):
        fit(model=str(languages))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "no classifier; name a model"),
        ({"model": "m.bin", "positive": ("a",)}, "not trained again"),
        ({"model": "m.bin", "negative": ("a",)}, "not trained again"),
        ({"negative": ("a",)}, "no classifier|none to keep"),
        ({"positive": ("a",), "label": "hq"}, "--label is for a model"),
        ({"model": "m.bin", "preprocess": "lower"}, "preprocess 'lower': unknown"),
        ({"positive": ("a",), "epochs": 0}, "epochs"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        FastText(**options)


def test_what_takes_the_pool() -> None:
    assert FastText(positive=("a",)).takes_pool
    assert not FastText(positive=("a",), negative=("b",)).takes_pool
    assert not FastText(model="m.bin").takes_pool


SMALL: dict[str, Any] = {"positive": ("p",), "dim": 8, "buckets": 5000, "epochs": 3}


def test_training_on_documents() -> None:
    def trained(size: int) -> bytes:
        scorer = FastText(**SMALL, negative=("n",))
        return storage.to_bytes(
            scorer.fit([], {"positive": batches(REFERENCE, size), "negative": batches(CODE * 3, size)})
        )

    first = trained(7)
    assert trained(50) == first
    fitted = storage.from_bytes(first, "saved")
    assert fitted.scorer == FastText(**SMALL, negative=("n",), preprocess="dclm")
    assert fitted.score(Batch.of(REFERENCE)).mean() > fitted.score(Batch.of(CODE)).mean()
    assert any("positive" in line for line in fitted.lines())


def test_the_pool_stands_in_for_negatives() -> None:
    fitted = FastText(**SMALL, preprocess="space").fit(batches(CODE * 3), {"positive": batches(REFERENCE)})
    assert fitted.about.preprocess == fitted.scorer.preprocess == "space"  # type: ignore[attr-defined]
    assert fitted.score(Batch.of(REFERENCE)).mean() > fitted.score(Batch.of(CODE)).mean()


def test_scoring_by_command(model: Path, tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.jsonl", [*POOL, "", "  "])
    answer = ok("score", "fasttext", pool, "--model", model, "-o", tmp_path / "scores")
    assert "does not say what was done to its training texts" in answer.err
    file = ScoreFile(str(tmp_path / "scores" / "pool.jsonl.dvsel.parquet"))
    fitted, fingerprint = storage.load(str(tmp_path / "scores" / "fasttext.fitted"))
    assert file.header.fingerprint == fingerprint
    assert file.header.scorer.startswith("fasttext ") and "label=hq" in file.header.scorer
    scores = np.concatenate([rows.score for rows in file.rows()])[:, 0]
    assert np.array_equal(scores[: len(POOL)], fitted.score(Batch.of(POOL)))
    assert np.isnan(scores[len(POOL)])


def test_fitting_by_command(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.jsonl", REFERENCE), write(tmp_path / "bad.jsonl", CODE * 3)
    options = ("--dim", 8, "--buckets", 5000, "-o", tmp_path / "quality.fitted")
    answer = ok("fit", "fasttext", "--positive", good, "--negative", bad, *options)
    assert "log-odds of 1 against 0" in answer.err and "precision" in answer.err
    ok("score", "fasttext", good, "--fitted", tmp_path / "quality.fitted", "-o", tmp_path / "scores")
    ok("fit", "fasttext", "--positive", good, "--pool", bad, *options)


def test_a_quantised_model_by_command(tmp_path: Path) -> None:
    path = quantise(train(tmp_path / "small.bin", {"cc": CODE, "hq": REFERENCE}, wordNgrams=2, bucket=1000))
    pool = write(tmp_path / "pool.jsonl", POOL)
    answer = ok("score", "fasttext", pool, "--model", path, "-o", tmp_path / "scores")
    assert "its matrices are quantised, so the fasttext package scores" in answer.err


def test_errors_by_command(model: Path, tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.jsonl", POOL)
    (tmp_path / "vectors.vec").write_text("1 2\nword 0.1 0.2\n")
    (tmp_path / "cut.bin").write_bytes(model.read_bytes()[:5000])

    def refused(*words: object) -> str:
        return failure("score", "fasttext", pool, "-o", tmp_path / "scores", *words)

    assert "no classifier" in refused()
    assert "no fastText model" in refused("--model", tmp_path / "vectors.vec")
    assert "truncated" in refused("--model", tmp_path / "cut.bin")
    assert "cannot be read" in refused("--model", tmp_path / "missing.bin")
    assert "no label 'good'" in refused("--model", model, "--label", "good")


def test_a_folded_file_is_small(model: Path) -> None:
    fitted = fit(model=str(model))
    words = 1.5 * 8 * 20_000  # what the vocabulary of these texts takes at most
    assert len(storage.to_bytes(fitted)) < 4 * 20_000 + words + 4096
    assert model.stat().st_size > 8 * len(storage.to_bytes(fitted))
