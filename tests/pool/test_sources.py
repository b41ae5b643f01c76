"""What the words of a command name: a folder of scores knows whether it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpus
from commands import failure, ok


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    for name in ("a", "sub/b", "c"):
        corpus.write(tmp_path / "pool" / f"{name}.jsonl", corpus.pool()[:50])
    corpus.write(tmp_path / "target.jsonl", corpus.target())
    ok("score", "dsir", tmp_path / "pool", "--target", tmp_path / "target.jsonl", "-w", 1, "-o", tmp_path / "scores")
    return tmp_path / "scores"


def test_a_folder_that_lacks_files_of_its_run_is_refused(scores: Path, tmp_path: Path) -> None:
    (scores / "sub" / "b.jsonl.dvsel.parquet").unlink()
    words = ("--budget", "50%", "-w", 1, "-o", tmp_path / "out")
    for source in (scores, tmp_path):
        message = failure("select", source, *words)
        assert "is not complete: 1 of its files are missing" in message and "sub/b.jsonl.dvsel.parquet" in message
    assert "is not complete" in failure("inspect", scores)
    assert "the shards of these are left out" in ok("select", scores, *words, "--partial").err
    assert [path.name for path in corpus.shards_of(tmp_path / "out")] == ["a-00000.jsonl", "c-00000.jsonl"]


def test_the_same_command_completes_it(scores: Path, tmp_path: Path) -> None:
    before = corpus.tree(scores)
    (scores / "c.jsonl.dvsel.parquet").unlink()
    ok("score", "dsir", tmp_path / "pool", "--target", tmp_path / "target.jsonl", "-w", 1, "-o", scores)
    assert corpus.tree(scores) == before


def test_files_that_were_gathered_are_whole_as_they_are(scores: Path, tmp_path: Path) -> None:
    (tmp_path / "gathered").mkdir()
    for name in ("a", "c"):
        file = f"{name}.jsonl.dvsel.parquet"
        (scores / file).rename(tmp_path / "gathered" / file)
    ok("select", tmp_path / "gathered", "--budget", "50%", "-w", 1, "-o", tmp_path / "out")


def test_a_shard_that_left_the_pool_is_not_kept_in_silence(scores: Path, tmp_path: Path) -> None:
    fitted = tmp_path / "dsir.fitted"
    (scores / "dsir.fitted").rename(fitted)
    words = ("score", "dsir", tmp_path / "pool", "--fitted", fitted, "-w", 1, "-o", tmp_path / "again")
    ok(*words)
    (tmp_path / "pool" / "a.jsonl").unlink()
    assert "its shard is no longer in the pool" in failure(*words)
    ok(*words, "--overwrite")
    assert not (tmp_path / "again" / "a.jsonl.dvsel.parquet").exists()
