"""Traces: the highest documents of each query, their tokens, and what the command line makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpus
import language_models
from commands import failure, ok
from dvsel.documents.columns import Batch
from dvsel.score_files.find import SCORES
from dvsel.scorers.influence import Influence

pytest.importorskip("torch")
pytest.importorskip("transformers")

POOL = [text[:150] for text in language_models.TEXTS[:12]]
QUERIES = [text[:150] for text in language_models.TEXTS[20:23]]
OPTIONS = ("--precision", "fp32", "--rank", "4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return language_models.build(tmp_path_factory.mktemp("models") / "llama", hidden=16, layers=1, window=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus.write(tmp_path / "a.jsonl", [{"text": text, "id": f"a{n}"} for n, text in enumerate(POOL[:7])])
    corpus.write(tmp_path / "b.jsonl.zst", [{"text": text} for text in ["", *POOL[7:]]])
    corpus.write(tmp_path / "queries.jsonl", [{"text": text, "id": f"q{n}"} for n, text in enumerate(QUERIES)])
    return tmp_path


def traced(folder: Path, model: str, *more: str) -> list[dict[str, Any]]:
    out = str(folder / "out")
    files = [str(folder / name) for name in ("queries.jsonl", "a.jsonl", "b.jsonl.zst")]
    ok("trace", *files, "--model", model, "-o", out, *OPTIONS, *more)
    return [json.loads(line) for line in (folder / "out" / "traced.jsonl").read_text().splitlines()]


def test_the_highest_documents_of_each_query_are_named(folder: Path, model: str) -> None:
    """Each query scored by itself puts the documents in the same order."""
    found = traced(folder, model, "--top", "4")
    assert [one["rank"] for one in found] == [1, 2, 3, 4] * 3
    pool = [("a.jsonl", row + 1, text) for row, text in enumerate(POOL[:7])]
    pool += [("b.jsonl.zst", row + 2, text) for row, text in enumerate(POOL[7:])]
    for number, query in enumerate(QUERIES):
        scorer = Influence(model=model, precision="fp32", rank=4)
        fitted = scorer.fit([Batch.of(POOL)], {"q": [Batch.of([query])]})
        scores = fitted.score(Batch.of(POOL))
        mine = [one for one in found if one["query"] == f"q{number}"]
        expected = np.argsort(-scores)[:4]
        assert [(one["shard"], one["line"], one["text"]) for one in mine] == [pool[row] for row in expected]
        np.testing.assert_allclose([one["score"] for one in mine], scores[expected], rtol=1e-3)


def test_tokens_spell_the_text_and_their_parts_sum_to_the_score(folder: Path, model: str) -> None:
    for more in ((), ("--similarity", "cosine", "--overwrite")):
        for one in traced(folder, model, "--top", "2", *more):
            assert "".join(one["tokens"]) == "<s>" + one["text"]
            assert sum(one["influence"]) == pytest.approx(one["score"], rel=1e-4)
            assert one["influence"][-1] == 0  # fed to no one


def test_the_same_command_resumes_and_the_recipe_replays(folder: Path, model: str) -> None:
    first = traced(folder, model, "--top", "3")
    scores = folder / "out" / SCORES / "a.jsonl.dvsel.rows"
    before = scores.stat().st_mtime_ns
    (folder / "out" / "traced.jsonl").unlink()
    assert traced(folder, model, "--top", "3") == first
    assert scores.stat().st_mtime_ns == before
    again = folder / "again"
    ok("run", str(folder / "out" / "recipe.yaml"), "-o", str(again))
    assert (again / "traced.jsonl").read_bytes() == (folder / "out" / "traced.jsonl").read_bytes()


def test_queries_whose_text_lies_in_another_field(folder: Path, model: str) -> None:
    expected = traced(folder, model)
    asked = [{"question": text, "id": f"q{n}"} for n, text in enumerate(QUERIES)]
    corpus.write(folder / "queries.jsonl", asked)
    assert traced(folder, model, "--target-text-field", "question", "--overwrite") == expected


def test_queries_without_ids_of_their_own_are_numbered(folder: Path, model: str) -> None:
    corpus.write(folder / "queries.jsonl", [{"text": text, "id": "same"} for text in QUERIES])
    assert {one["query"] for one in traced(folder, model, "--top", "1")} == {"1", "2", "3"}


def test_fewer_documents_than_asked_for(folder: Path, model: str) -> None:
    assert len(traced(folder, model, "--top", "99")) == 3 * len(POOL)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["queries.jsonl"], "nothing to trace in; name the queries first, then the pool's shards"),
        (["queries.jsonl", "a.jsonl", "--top", "0"], "top 0: out of range; give 1 or more"),
        (["empty.jsonl", "a.jsonl"], "target q: no document with a loss"),
    ],
)
def test_what_cannot_be_traced(words: list[str], complaint: str, folder: Path, model: str) -> None:
    corpus.write(folder / "empty.jsonl", [{"text": "", "id": "q"}])
    words = [str(folder / word) if word.endswith(".jsonl") else word for word in words]
    assert complaint in failure("trace", *words, "--model", model, "-o", str(folder / "out"), *OPTIONS)
