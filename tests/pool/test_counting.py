"""A random selection from a pool that nobody scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import corpus
from commands import failure, ok

POOL = corpus.pool()[::4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/a.jsonl, pool/b.jsonl.zst and scores of them."""
    folder = tmp_path_factory.mktemp("counts")
    corpus.write(folder / "pool" / "a.jsonl", POOL[:80])
    corpus.write(folder / "pool" / "b.jsonl.zst", POOL[80:])
    corpus.write(folder / "target.jsonl", corpus.target())
    ok("score", "dsir", folder / "pool", "--target", folder / "target.jsonl", "--min-words", 0, "-w", 1,
       "-o", folder / "scores")  # fmt: skip
    return folder


def random(out: Path, *words: object) -> str:
    return ok("select", *words, "--method", "random", "--budget", "10%", "-w", 1, "-o", out).err


@pytest.mark.parametrize("seed", [0, 7])
def test_it_is_what_random_keeps_of_scores(seed: int, folder: Path, tmp_path: Path) -> None:
    random(tmp_path / "scored", folder / "scores", "--seed", seed)
    err = random(tmp_path / "counted", folder / "pool", "--seed", seed)
    found = corpus.selected_ids(tmp_path / "counted")
    assert found and found == corpus.selected_ids(tmp_path / "scored")
    assert "with random on no scores" in err


def test_the_words_of_the_user_may_be_shards(folder: Path, tmp_path: Path) -> None:
    random(tmp_path / "folder", folder / "pool")
    random(tmp_path / "shards", folder / "pool" / "a.jsonl", folder / "pool" / "b.jsonl.zst")
    assert corpus.selected_ids(tmp_path / "folder") == corpus.selected_ids(tmp_path / "shards")


def test_options_of_counting_are_honoured(folder: Path, tmp_path: Path) -> None:
    documents = [document | {"count": 10, "kind": document["domain"]} for document in POOL]
    pool = corpus.write(tmp_path / "a.jsonl", documents)
    (tmp_path / "quota.yaml").write_text("code: 50 tokens\n")
    words = ("--method", "random", "--tokens-field", "count", "--domain-field", "kind")
    ok("select", pool, *words, "--quota", tmp_path / "quota.yaml", "-o", tmp_path / "out")
    found = corpus.selected_ids(tmp_path / "out")
    assert len(found) == 5 and all(name.startswith("code") for name in found)
    assert "--domain-field" in failure(
        "select", pool, "--method", "random", "--budget", "9%", "--domain-field", "knid", "-o", tmp_path / "b"
    )


def test_the_same_command_resumes_and_another_is_refused(folder: Path, tmp_path: Path) -> None:
    words = ("select", folder / "pool", "--method", "random", "--budget", "10%", "-o", tmp_path / "out")
    ok(*words)
    before = corpus.selected_ids(tmp_path / "out")
    ok(*words)
    assert corpus.selected_ids(tmp_path / "out") == before
    assert "holds another run (its seed is 0" in failure(*words, "--seed", 3)


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    words = ("select", folder / "pool", "--method", "random", "--budget", "10%")
    assert "nothing was written" in ok(*words, "--dry-run", "-o", tmp_path / "out").err
    assert not (tmp_path / "out").exists()
    assert "leaves score files; name a folder with -o" in failure(*words, "-o", "-")


def test_other_rules_ask_for_a_scorer(folder: Path, tmp_path: Path) -> None:
    for words in ((), ("--method", "topk"), ("--method", "semdedup", "--threshold", "0.9")):
        err = failure("select", folder / "pool", *words, "--budget", "10%", "-o", tmp_path / "out")
        assert "pool: has no scores; name a scorer (--with dsir --target FILE" in err
    random(tmp_path / "counted", folder / "pool")
    err = failure("select", tmp_path / "counted", "--method", "topk", "--budget", "5%", "-o", tmp_path / "out")
    assert "holds token counts and no scores" in err


def test_options_of_a_scorer_are_refused(folder: Path, tmp_path: Path) -> None:
    words = ("--method", "random", "--budget", "10%", "--target", folder / "target.jsonl", "-o", tmp_path / "out")
    assert "--target: is for scoring, and no scorer is named" in failure("select", folder / "pool", *words)


def test_its_recipe_replays_it(folder: Path, tmp_path: Path) -> None:
    random(tmp_path / "out", folder / "pool", "--seed", 5)
    ok("run", tmp_path / "out" / "recipe.yaml", "-o", tmp_path / "again")
    assert corpus.selected_ids(tmp_path / "again") == corpus.selected_ids(tmp_path / "out")


def test_bad_lines_are_skipped_where_asked_and_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes((folder / "pool" / "a.jsonl").read_bytes() + b"{}\n")
    random(tmp_path / "out", tmp_path / "a.jsonl", "--on-bad-line", "skip")
    report = json.loads(next((tmp_path / "out").rglob("report.json")).read_text())
    assert report["totals"]["status"]["bad_line"] == 1
