"""Names of files end to end: hidden ones that were named, and those that are not UTF-8."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import corpus
from commands import failure, ok, one_line, run

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted scorer."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "pool.jsonl").write_bytes(corpus.lines(corpus.pool()))
    (folder / "target.jsonl").write_bytes(corpus.lines(corpus.target()))
    ok(
        "fit",
        "dsir",
        "--pool",
        folder / "pool.jsonl",
        "--target",
        folder / "target.jsonl",
        "-o",
        folder / "f",
        "--quiet",
    )
    return folder / "f"


def test_a_hidden_shard_that_was_named_is_scored_and_selected(fitted: Path, tmp_path: Path) -> None:
    documents = corpus.pool()[:100]
    for name, half in ((".cache/a.jsonl", documents[:50]), ("b.jsonl", documents[50:])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(corpus.lines(half))
    words = (tmp_path / ".cache", tmp_path / "b.jsonl", "--fitted", fitted, "-o", tmp_path / "scores", "-w", 1)
    ok("score", "dsir", *words, "--quiet")
    ok("select", tmp_path / "scores", "--budget", "100% docs", "--method", "random", "-o", tmp_path / "out", "-w", 1)
    kept = [line for file in ("out/.cache/a-00000.jsonl", "out/b-00000.jsonl") for line in _lines(tmp_path / file)]
    assert set(kept) <= set(corpus.lines(documents).splitlines())
    assert len(kept) > 80 and _lines(tmp_path / "out/.cache/a-00000.jsonl")


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_a_name_that_is_not_utf_8_is_refused_wherever_it_is_met(fitted: Path, tmp_path: Path) -> None:
    shard, plain = tmp_path / "pool" / f"{LATIN}.jsonl", tmp_path / "a.jsonl"
    shard.parent.mkdir()
    for path in (shard, plain):
        path.write_bytes(corpus.lines(corpus.pool()[:20]))
    ok("score", "dsir", plain, "--fitted", fitted, "-o", tmp_path / "scores", "-w", 1, "--quiet")
    row_file = tmp_path / "renamed" / f"{LATIN}.jsonl.dvsel.parquet"
    row_file.parent.mkdir()
    shutil.copy(tmp_path / "scores" / "a.jsonl.dvsel.parquet", row_file)
    out = ("-o", tmp_path / "out")
    for words in (
        ("score", "dsir", shard, "--fitted", fitted, *out),
        ("score", "dsir", shard.parent, "--fitted", fitted, *out),
        ("score", "dsir", tmp_path / "p*" / "*", "--fitted", fitted, *out),
        ("score", "dsir", plain, "--fitted", fitted, "-o", tmp_path / LATIN),
        ("select", tmp_path / "scores", "--budget", "10%", "-o", tmp_path / LATIN),
        ("select", row_file.parent, "--budget", "10%", *out),
        ("select", row_file.parent / "*.dvsel.parquet", "--budget", "10%", *out),
        ("inspect", row_file.parent),
        ("inspect", row_file),
        ("run", tmp_path / f"{LATIN}.yaml"),
    ):
        assert "caf\\xe9" in (line := failure(*words)) and ": this name is not UTF-8; rename it" in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.jsonl*"))


def test_the_refusal_on_a_real_terminal(tmp_path: Path) -> None:
    answer = run("inspect", tmp_path / LATIN)
    assert answer.code == 1
    assert one_line(answer.err).endswith("caf\\xe9: this name is not UTF-8; rename it (convmv does whole folders)\n")
