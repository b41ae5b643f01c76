"""Texts out of several fields, and targets whose text lies in another field, through whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import corpus
from commands import failure, ok
from dvsel.runs.fitted_files import load
from dvsel.score_files.reader import ScoreFile

POOL = corpus.pool()[::6]


def halves(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its text in two fields: a string, and a list of lines."""
    middle = len(document["text"]) // 2
    rest = {name: value for name, value in document.items() if name != "text"}
    return rest | {"instruction": document["text"][:middle], "output": document["text"][middle:].split("\n")}


def whole(document: dict[str, Any]) -> dict[str, Any]:
    """What dvsel is to make of it."""
    parts = [part for part in (document["instruction"], "\n".join(document["output"])) if part]
    return {**document, "text": "\n\n".join(parts)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pool in three shapes: two.jsonl, two.parquet and one.jsonl; and a target in two."""
    folder = tmp_path_factory.mktemp("texts")
    two = [halves(document) for document in POOL]
    corpus.write(folder / "two" / "a.jsonl", two)
    pq.write_table(pa.Table.from_pylist(two), folder / "two.parquet")
    corpus.write(folder / "one" / "a.jsonl", [whole(document) for document in two])
    corpus.write(folder / "target.jsonl", corpus.target())
    answers = [{"question": "", "answer": document["text"]} for document in corpus.target()]
    corpus.write(folder / "answers.jsonl", answers)
    return folder


def scores(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    (file,) = folder.glob("*.dvsel.parquet")
    rows = list(ScoreFile(str(file)).rows())
    return tuple(np.concatenate([getattr(part, name) for part in rows]) for name in ("score", "key"))  # type: ignore[return-value]


def score(folder: Path, pool: str, out: Path, *words: object) -> tuple[np.ndarray, np.ndarray]:
    ok("score", "dsir", folder / pool, "--min-words", 20, "-w", 1, "-o", out, *words)
    return scores(out)


def same(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    for now, was in zip(found, expected, strict=True):
        np.testing.assert_array_equal(now, was)


def test_a_text_of_several_fields_scores_as_the_joined_one(folder: Path, tmp_path: Path) -> None:
    target = ("--target", folder / "target.jsonl")
    expected = score(folder, "one", tmp_path / "one", *target)
    both = ("--text-field", "instruction,output", "--target-text-field", "text")
    for pool in ("two", "two.parquet"):
        found = score(folder, pool, tmp_path / f"of {pool}" / "scores", *target, *both)
        same(found, expected)


def test_documents_come_out_as_they_are(folder: Path, tmp_path: Path) -> None:
    words = ("--with", "dsir", "--target", folder / "target.jsonl", "--target-text-field", "text")
    ok(
        "select",
        folder / "two",
        *words,
        "--text-field",
        "instruction,output",
        "--budget",
        "20%",
        "-o",
        tmp_path / "out",
    )
    lines = set(corpus.read_lines(folder / "two" / "a.jsonl"))
    kept = corpus.read_lines(*(tmp_path / "out").glob("a*.jsonl"))
    assert kept and lines.issuperset(kept)


def test_a_stream_takes_several_fields(folder: Path) -> None:
    fit = ("--pool", folder / "one", "--target", folder / "target.jsonl", "--min-words", 20)
    ok("fit", "dsir", *fit, "-o", folder / "dsir.fitted")
    words = ("score", "dsir", "--fitted", folder / "dsir.fitted", "-")
    two = ok(*words, "--text-field", "instruction,output", stdin=(folder / "two" / "a.jsonl").read_bytes()).out
    one = ok(*words, stdin=(folder / "one" / "a.jsonl").read_bytes()).out
    found, expected = ([json.loads(line)["dvsel_dsir"] for line in lines.splitlines()] for lines in (two, one))
    assert found == expected


def test_the_sample_that_distils_has_the_fields(folder: Path, tmp_path: Path) -> None:
    words = ("dsir", "--target", folder / "target.jsonl", "--distil", "--distil-floor", 0, "--distil-documents", 150)
    two = ("--text-field", "instruction,output", "--target-text-field", "text")
    ok("fit", *words, "--pool", folder / "two", *two, "-o", tmp_path / "two.fitted")
    ok("fit", *words, "--pool", folder / "one", "-o", tmp_path / "one.fitted")
    ok("score", "distilled", folder / "two", "--fitted", tmp_path / "two.fitted", *two[:2], "-o", tmp_path / "two")
    ok("score", "distilled", folder / "one", "--fitted", tmp_path / "one.fitted", "-o", tmp_path / "one")
    same(scores(tmp_path / "two"), scores(tmp_path / "one"))


def test_a_field_of_several_that_is_nowhere_is_an_error(folder: Path, tmp_path: Path) -> None:
    words = ("--target", folder / "target.jsonl", "--text-field", "instruction,outptu", "-o", tmp_path / "out")
    assert "did you mean --text-field output?" in failure("score", "dsir", folder / "two", *words)


def test_names_that_lack(folder: Path, tmp_path: Path) -> None:
    words = ("--target", folder / "target.jsonl", "--text-field", "instruction,", "-o", tmp_path / "out")
    assert "text_field 'instruction,': lacks a name" in failure("score", "dsir", folder / "two", *words)
    words = ("--target", folder / "target.jsonl", "--target-text-field", "", "-o", tmp_path / "out")
    assert "target_text_field '': lacks a name" in failure("score", "dsir", folder / "two", *words)


# --- Targets of another shape. ---


def test_a_target_whose_text_lies_in_another_field(folder: Path, tmp_path: Path) -> None:
    expected = score(folder, "one", tmp_path / "a", "--target", folder / "target.jsonl")
    words = ("--target", folder / "answers.jsonl", "--target-text-field", "question,answer")
    found = score(folder, "one", tmp_path / "b", *words)
    same(found, expected)
    assert "target_text_field: question,answer" in (tmp_path / "b" / "recipe.yaml").read_text()
    ok("fit", "dsir", "--pool", folder / "one", "--min-words", 20, *words, "-o", tmp_path / "dsir.fitted")
    arrays, others = (
        load(str(place))[0].arrays for place in (tmp_path / "dsir.fitted", tmp_path / "a" / "dsir.fitted")
    )
    for name, array in others.items():
        np.testing.assert_array_equal(arrays[name], array)


def test_another_field_of_the_target_is_another_run(folder: Path, tmp_path: Path) -> None:
    words = ("score", "dsir", folder / "one", "--target", folder / "answers.jsonl", "-o", tmp_path / "out")
    ok(*words, "--target-text-field", "answer")
    assert "holds another run (its target_text_field is answer" in failure(*words, "--target-text-field", "question")


def test_a_target_without_the_text_names_its_own_flag(folder: Path, tmp_path: Path) -> None:
    err = failure("score", "dsir", folder / "one", "--target", folder / "answers.jsonl", "-o", tmp_path / "out")
    assert "no field 'text' (there are 'question', 'answer'; name another with --target-text-field)" in err


def test_the_field_of_a_target_that_nobody_reads_is_refused(folder: Path, tmp_path: Path) -> None:
    field = ("--target-text-field", "answer")
    score(folder, "one", tmp_path / "scores", "--target", folder / "target.jsonl")
    fitted = ("--fitted", tmp_path / "scores" / "dsir.fitted")
    assert "no target is read" in failure("score", "dsir", folder / "one", *fitted, *field, "-o", tmp_path / "a")
    assert "no target is read" in failure("select", tmp_path / "scores", "--budget", "9%", *field, "-o", tmp_path / "b")
