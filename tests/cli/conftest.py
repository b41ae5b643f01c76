"""A small pool, and a working directory in which it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpus
import language_models
from commands import ok


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/, target.jsonl and a model, as recipes name them, and scores/."""
    folder = tmp_path_factory.mktemp("data")
    documents = corpus.pool()
    corpus.write(folder / "pool" / "a.jsonl", documents[:200:2])
    corpus.write(folder / "pool" / "b.jsonl.zst", documents[200::2])
    corpus.write(folder / "target.jsonl", corpus.target())
    language_models.build(folder / "models" / "all-MiniLM-L6-v2", "bert", task="MaskedLM")
    ok("score", "dsir", folder / "pool", "--target", folder / "target.jsonl", "-w", 1, "-o", folder / "scores")
    return folder


@pytest.fixture
def here(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with pool/, target.jsonl, models/ and scores/."""
    for name in ("pool", "target.jsonl", "models", "scores"):
        (tmp_path / name).symlink_to(data / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
