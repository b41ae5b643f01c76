"""The scorer `label-noise`: wrong labels score low, and odd labels are told or stated."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zstandard

import corpus
from commands import failure, ok

pytest.importorskip("torch")

from dvsel.documents.columns import Batch, Column, Kind, Status
from dvsel.documents.vectors import Maker, Vectors
from dvsel.errors import Notice, UserError
from dvsel.runs import fitted_files as storage
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.label_noise import FittedLabelNoise, LabelNoise
from dvsel.testing import check_scorer
from language_models import TEXTS

Array = npt.NDArray[Any]

MAKER = Maker("some-encoder", "00ff", "mean", 6, 128)
MODES = ("knn", "margin", "lava")
CLASSES = (b"blue", b"green", b"red")

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(vectors: Array, labels: Sequence[bytes | None], first: int = 0, kinds: Sequence[int] | None = None) -> Batch:
    """Documents that come with these vectors, numbered from `first`."""
    count = len(vectors)
    return Batch(
        Column.of([b"-"] * count),
        {"label": Column.of(labels, kinds)},
        np.arange(first, first + count, dtype=np.uint64),
        Vectors(vectors.astype(np.float32), MAKER),
    )


def crowds(count: int, seed: int) -> tuple[Array, list[bytes]]:
    """Documents of three crowds, with the right labels."""
    draws = np.random.default_rng(seed)
    codes = draws.integers(0, 3, count)
    return draws.normal(size=(count, 8)) + 3 * np.eye(8)[codes] + 1, [CLASSES[code] for code in codes]


def flipped(labels: list[bytes], share: float, seed: int) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    draws = np.random.default_rng(seed)
    wrong = draws.random(len(labels)) < share
    others = {name: [one for one in sorted(set(labels)) if one != name] for name in set(labels)}
    return [
        draws.choice(others[name]) if is_wrong else name for name, is_wrong in zip(labels, wrong, strict=True)
    ], wrong


def area(scores: Array, wrong: Array) -> float:
    """Under the ROC: how often a wrong label scores below a right one."""
    below = scores[wrong][:, None] < scores[~wrong]
    ties = scores[wrong][:, None] == scores[~wrong]
    return float((below + ties / 2).mean())


def options(mode: str) -> dict[str, Any]:
    return {"mode": mode, "clean": () if mode == "knn" else ("clean.jsonl",)}


def fit(mode: str, pool: Batch, clean: Batch | None = None, **more: Any) -> FittedLabelNoise:
    return LabelNoise(**options(mode), **more).fit([pool], {} if clean is None else {"clean": [clean]})


@pytest.fixture(scope="module")
def clean() -> Batch:
    return batch(*crowds(60, 1), first=10**6)


def test_a_scorer_as_any_other() -> None:
    """Texts get a label and a vector of their own."""

    def of(texts: Sequence[str]) -> Batch:
        draws = [np.random.default_rng(len(text)).normal(size=4) for text in texts]
        labels = [CLASSES[len(text) % 2] for text in texts]
        made = batch(np.array(draws).reshape(-1, 4), labels)
        return Batch(Batch.of(texts).text, made.columns, None, made.vectors)

    check_scorer(LabelNoise(neighbours=5), TEXTS[:30], batch_of=of)


@pytest.mark.parametrize("mode", MODES)
def test_flipped_labels_are_found(mode: str, clean: Batch) -> None:
    vectors, labels = crowds(300, 0)
    noisy, wrong = flipped(labels, 0.2, 2)
    pool = batch(vectors, noisy)
    scores = fit(mode, pool, clean).score(pool)

    assert scores.dtype == np.float32
    assert area(scores, wrong) > {"knn": 0.98, "margin": 0.98, "lava": 0.75}[mode]


@pytest.mark.parametrize("mode", MODES)
def test_documents_beyond_the_fit_are_scored_too(mode: str, clean: Batch) -> None:
    vectors, labels = crowds(300, 0)
    noisy, _ = flipped(labels, 0.2, 2)
    others, truth = crowds(200, 3)
    labelled, wrong = flipped(truth, 0.2, 4)
    fitted = fit(mode, batch(vectors, noisy), clean)

    assert area(fitted.score(batch(others, labelled, first=5000)), wrong) > (0.75 if mode == "lava" else 0.97)


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded_it_scores_the_same(mode: str, clean: Batch) -> None:
    pool = batch(*crowds(80, 0))
    fitted = fit(mode, pool, clean)
    loaded = storage.from_bytes(storage.to_bytes(fitted), "saved")

    np.testing.assert_array_equal(loaded.score(pool), fitted.score(pool))
    assert loaded.scorer.model == MAKER.model and loaded.report == fitted.report  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["trec", "subjectivity"])
def test_as_good_as_cleanlab_on_real_labels(name: str, shared_data: Path) -> None:
    """With the documents' words for vectors, 20% of labels flipped."""
    rank = pytest.importorskip("cleanlab.rank")
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    with zstandard.open(shared_data / "labelled" / f"{name}.train.jsonl.zst", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(800), strict=False)]
    words = HashingVectorizer(n_features=128, alternate_sign=False).transform(row["text"] for row in rows)
    vectors = np.sqrt(words.toarray()) + 1e-3
    labels, wrong = flipped([str(row["label"]).encode() for row in rows], 0.2, 0)
    codes = np.unique(labels, return_inverse=True)[1]
    shares = cross_val_predict(LogisticRegression(max_iter=200), vectors, codes, cv=5, method="predict_proba")
    pool = batch(vectors, labels)

    found = area(fit("knn", pool).score(pool), wrong)
    assert found > area(rank.get_label_quality_scores(codes, shares), wrong) - 0.01


# --- Odd labels. ---


@pytest.mark.parametrize("mode", MODES)
def test_without_a_label_or_a_vector_there_is_no_score(mode: str, clean: Batch) -> None:
    vectors, labels = crowds(60, 0)
    vectors[3] = np.nan
    rows: list[bytes | None] = [*labels]
    rows[:3] = [None, b"", b'["red"]']
    kinds = [Kind.NULL, Kind.STRING, Kind.OTHER, *[Kind.STRING] * 57]
    pool = batch(vectors, rows, kinds=kinds)
    fitted = fit(mode, pool, clean)

    assert np.isnan(fitted.score(pool)).tolist() == [True] * 4 + [False] * 56
    assert (fitted.report["without a label"], fitted.report["without a vector"]) == (3, 1)
    assert fitted.score(batch(vectors[:0], [])).shape == (0,)


def test_numbers_and_strings_that_read_alike_are_one_label() -> None:
    vectors, labels = crowds(60, 0)
    number = {name: b"%d" % place for place, name in enumerate(CLASSES)}
    named = [number[label] for label in labels]
    kinds = [Kind.NUMBER if row % 2 else Kind.STRING for row in range(60)]

    fitted = fit("knn", batch(vectors, named, kinds=kinds))
    assert fitted.report["labels"] == 3
    strings = batch(vectors, named)
    np.testing.assert_array_equal(fitted.score(strings), fit("knn", strings).score(strings))


def test_a_label_on_one_document_has_no_score() -> None:
    vectors, labels = crowds(60, 0)
    pool = batch(vectors, [b"bleu", *labels[1:]])
    with pytest.warns(Notice, match="label 'bleu': on one document of the sample alone"):
        fitted = fit("knn", pool)

    assert np.isnan(fitted.score(pool)).tolist() == [True] + [False] * 59


def test_labels_that_no_clean_document_has(clean: Batch) -> None:
    vectors, labels = crowds(60, 0)
    pool = batch(vectors, [b"pink", b"pink", *labels[2:]])
    with pytest.warns(Notice, match="label 'pink': on no clean document"):
        fitted = fit("margin", pool, clean)
    assert np.isnan(fitted.score(pool)).tolist() == [True] * 2 + [False] * 58
    assert np.isfinite(fit("lava", pool, clean).score(pool)).all()  # LAVA compares any labels


def test_labels_that_clean_documents_alone_have(clean: Batch) -> None:
    vectors, labels = crowds(60, 0)
    rows = [row for row, label in enumerate(labels) if label != b"red"]
    pool = batch(vectors[rows], [labels[row] for row in rows])
    with pytest.warns(Notice, match="label 'red': on clean documents alone; they have no prices"):
        fitted = fit("margin", pool, clean)

    whole = batch(vectors, labels)
    assert (fitted.score(whole) > 0).mean() > 0.9


def test_many_labels_are_named_in_part() -> None:
    vectors, labels = crowds(60, 0)
    pool = batch(vectors, [*[b"only %d" % row for row in range(5)], *labels[5:]])
    with pytest.warns(Notice, match=r"5 labels \('only 0', 'only 1', 'only 2', ...\): on one document"):
        fit("knn", pool)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ([None] * 60, "no document has a label in the field 'label', or none of those a vector; name"),
        ([b"red"] * 60, "label 'red' is all that two documents carry; label-noise compares labels"),
        ([b"%d" % row for row in range(60)], "no label is all that two documents carry"),
    ],
)
def test_a_pool_whose_labels_cannot_be_compared_is_refused(labels: list[bytes | None], complaint: str) -> None:
    with warnings.catch_warnings(), pytest.raises(UserError, match=complaint):
        warnings.simplefilter("ignore", Notice)
        fit("knn", batch(crowds(60, 0)[0], labels))


def test_vectors_that_cannot_be_compared_are_refused() -> None:
    vectors, labels = crowds(60, 0)
    with pytest.raises(UserError, match="all documents have the same vector; see --text-field"):
        fit("knn", batch(np.ones((60, 8)), labels))
    with pytest.raises(UserError, match="or none of those a vector"):
        fit("knn", batch(np.full((60, 8), np.nan), labels))
    other = Vectors(vectors.astype(np.float32), Maker("another", "ff00", "mean", 6, 128))
    plain = batch(vectors, labels)
    with pytest.raises(UserError, match="embedded by another"):
        fit("knn", plain).score(Batch(plain.text, plain.columns, plain.keys, other))


@pytest.mark.parametrize("mode", ["margin", "lava"])
def test_clean_documents_without_labels_are_refused(mode: str) -> None:
    pool = batch(*crowds(60, 0))
    with pytest.raises(UserError, match="--clean: no document has a label in 'label'"):
        fit(mode, pool, batch(np.ones((5, 8)), [None] * 5))


def test_one_label_has_no_margin() -> None:
    with pytest.raises(UserError, match="--clean: label 'red' is the only label; give clean documents of two"):
        fit("margin", batch(*crowds(60, 0)), batch(np.ones((5, 8)), [b"red"] * 5))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"mode": "vote"}, "mode 'vote': unknown"),
        ({"neighbours": 0}, "neighbours 0: out of range"),
        ({"index": 1}, "index 1: out of range"),
        ({"mode": "margin", "clean": ("x",), "eps": 0.001}, "eps 0.001: out of range"),
        ({"eps": float("nan")}, "eps nan: out of range"),
        ({"label_field": ""}, "label_field is empty"),
        ({"clean": ("a.jsonl",)}, "mode knn takes no clean documents"),
        ({"mode": "margin"}, "mode margin needs clean documents; name some with --clean"),
        ({"max_tokens": -1}, "max_tokens -1: out of range"),
    ],
)
def test_bad_options_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        LabelNoise(**values)


# --- The index. ---


def test_the_index_holds_the_first_documents() -> None:
    vectors, labels = crowds(200, 0)
    fitted = fit("knn", batch(vectors, labels), index=50)

    assert fitted.arrays["keys"].tolist() == list(range(50))
    assert np.isfinite(fitted.score(batch(vectors, labels))).all()


def test_a_document_of_the_index_does_not_vote_for_itself() -> None:
    """Under another number it does."""
    vectors, labels = crowds(60, 0)
    labels[0] = b"red" if labels[0] == b"blue" else b"blue"
    pool = batch(vectors, labels)
    fitted = fit("knn", pool, neighbours=3)

    assert fitted.score(pool)[0] < fitted.score(batch(vectors, labels, first=1000))[0]


# --- From the command line. ---


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of two domains, some labelled wrongly and some not at all."""
    documents = corpus.pool()[::6]
    for number, document in enumerate(documents):
        document["label"] = document["domain"] if number % 9 else None if number % 2 else "code"
    return Path(corpus.write(tmp_path_factory.mktemp("pool") / "pool.jsonl", documents))


@pytest.mark.parametrize("mode", MODES)
def test_from_texts_to_scores(mode: str, pool: Path, model: str, tmp_path: Path) -> None:
    clean = corpus.write(tmp_path / "clean.jsonl", [{**one, "label": one["domain"]} for one in corpus.pool()[3::40]])
    more = () if mode == "knn" else ("--clean", clean)
    answer = ok("score", "label-noise", pool, "--model", model, "--mode", mode, *more, "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("pool.jsonl" + SUFFIX))).rows()

    missing = [json.loads(line)["label"] is None for line in pool.read_text().splitlines()]
    assert (rows.status == Status.UNSCORED).tolist() == missing and any(missing)
    assert np.isnan(rows.score[:, 0]).tolist() == missing
    assert "no label, a label that the fit did not know well enough, or no vector" in answer.err


def test_labels_of_mixed_type(shared_data: Path, model: str, tmp_path: Path) -> None:
    dirty = shared_data / "dirty" / "bad_labels.jsonl"
    ok("score", "label-noise", dirty, "--model", model, "-o", tmp_path / "scores")
    (rows,) = ScoreFile(str(tmp_path / "scores" / ("bad_labels.jsonl" + SUFFIX))).rows()

    labels = [json.loads(line).get("label") for line in dirty.read_text(encoding="utf-8").splitlines()]
    unusable = [label is None or label == "" or isinstance(label, list) for label in labels]
    assert (rows.status == Status.UNSCORED).tolist() == unusable


def test_a_field_that_is_not_there_is_told(pool: Path, model: str, tmp_path: Path) -> None:
    line = failure("score", "label-noise", pool, "--model", model, "--label-field", "topic", "-o", tmp_path / "scores")
    assert "has a field 'topic' (--label-field); there are 'id', 'domain', 'text', 'label'" in line


def test_help_imports_no_model() -> None:
    code = (
        "import sys, dvsel.scorers.label_noise; sys.exit(bool({'torch', 'transformers', 'numba'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
