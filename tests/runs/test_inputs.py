"""What a fit read: it is not used again for other content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import corpus
from commands import failure, ok


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    corpus.write(tmp_path / "pool" / "a.jsonl", corpus.pool())
    corpus.write(tmp_path / "target.jsonl", corpus.target())
    return tmp_path


def score(folder: Path, *more: object) -> tuple[object, ...]:
    target = folder / "target.jsonl"
    return ("score", "dsir", folder / "pool", "--target", target, "-w", 1, "-o", folder / "scores", *more)


def same_size_and_time(path: Path, content: bytes) -> None:
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_target_that_changed(folder: Path) -> None:
    ok(*score(folder))
    target = folder / "target.jsonl"
    same_size_and_time(target, target.read_bytes().replace(b" the ", b" a-n "))
    assert "target.jsonl: changed since the fit in" in failure(*score(folder))
    ok(*score(folder, "--overwrite"))
    ok(*score(folder))


def test_a_target_of_the_same_content_is_the_same(folder: Path) -> None:
    ok(*score(folder))
    os.utime(folder / "target.jsonl")
    ok(*score(folder))


def test_a_pool_that_grew_or_shrank(folder: Path) -> None:
    ok(*score(folder))
    corpus.write(folder / "pool" / "b.jsonl", corpus.pool()[:20])
    assert "b.jsonl: is new since the fit" in failure(*score(folder))
    (folder / "pool" / "a.jsonl").unlink()
    message = failure(*score(folder))
    assert "a.jsonl: is gone since the fit" in message


def test_a_pool_that_changed(folder: Path) -> None:
    ok(*score(folder))
    corpus.write(folder / "pool" / "a.jsonl", corpus.pool()[:50])
    assert "a.jsonl: changed since the fit" in failure(*score(folder))


def test_a_fit_that_reads_no_pool_takes_a_pool_that_grows(folder: Path) -> None:
    ok("fit", "dsir", "--pool", folder / "pool", "--target", folder / "target.jsonl", "-o", folder / "dsir.fitted")
    words = ("score", "dsir", folder / "pool", "--fitted", folder / "dsir.fitted", "-w", 1, "-o", folder / "scores")
    ok(*words)
    corpus.write(folder / "pool" / "b.jsonl", corpus.pool()[:20])
    ok(*words)
    assert (folder / "scores" / "b.jsonl.dvsel.parquet").exists()


def test_a_fit_replaces_nothing_but_a_fit(folder: Path) -> None:
    words = ("fit", "dsir", "--pool", folder / "pool", "--target", folder / "target.jsonl")
    before = corpus.tree(folder)
    assert "is an input of the fit" in failure(*words, "-o", folder / "target.jsonl")
    (folder / "thesis.txt").write_text("years of work")
    assert "is not a fitted file" in failure(*words, "-o", folder / "thesis.txt")
    assert corpus.tree(folder) == before | {"thesis.txt": b"years of work"}
    ok(*words, "-o", folder / "dsir.fitted")
    ok(*words, "-o", folder / "dsir.fitted")
