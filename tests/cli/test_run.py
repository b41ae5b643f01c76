"""Recipes: those that are shipped, and those that a run writes, give the same again; bad ones are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import corpus
from commands import ROOT, failure, ok

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_as_it_is(recipe: Path, here: Path) -> None:
    ok("run", recipe, "--workers", 1)
    out = here / yaml.safe_load(recipe.read_text())["output"]
    assert corpus.selected_ids(out)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_flags_beat_a_shipped_recipe(recipe: Path, here: Path) -> None:
    shutil.copy(here / "target.jsonl", here / "wiki.jsonl")
    targets = ["wiki.jsonl"] if "target" in yaml.safe_load(recipe.read_text()) else []
    ok(
        "run",
        recipe,
        "pool/a.jsonl",
        *(word for target in targets for word in ("--target", target)),
        "--budget",
        "10 docs",
        "--seed",
        5,
        "-w",
        1,
        "-o",
        "mine",
    )
    assert [path.name for path in corpus.shards_of(here / "mine")] == ["a-00000.jsonl"]
    assert len(corpus.selected_ids(here / "mine")) == 10
    written = yaml.safe_load((here / "mine" / "recipe.yaml").read_text())
    assert written["pool"] == ["pool/a.jsonl"] and written.get("target", []) == targets
    assert (written["budget"], written["seed"], written["output"]) == ("10 docs", 5, "mine")


RUNS: dict[str, tuple[object, ...]] = {
    "select with a scorer": (
        "select", "pool", "--with", "dsir", "--target", "target.jsonl", "--min-words", 50, "--no-lower",
        "--temperature", 30, "--budget", "100 docs", "--dedup", "--quota", "quota.yaml", "--seed", 3,
    ),
    "select": ("select", "scores", "--min-score=-300", "--shard-size", "20KB"),
    "score": ("score", "dsir", "pool", "--target", "target.jsonl", "--ngrams", 1, "--buckets", 500, "--sample", "head"),
    "score with two targets": (
        "score", "dsir", "pool", "--target", "target.jsonl", "--target", "pool/a.jsonl",
        "--target-proportions", "0.5,0.5", "--separate-targets",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS.keys())
def test_a_written_recipe_replays_to_the_same_bytes(words: tuple[object, ...], here: Path) -> None:
    (here / "quota.yaml").write_text("code: 30%\nreference: 60%\n")
    ok(*words, "-w", 1, "-o", "out")
    first = corpus.tree(here / "out")
    shutil.move(here / "out" / "recipe.yaml", here / "kept.yaml")
    shutil.rmtree(here / "out")
    ok("run", "kept.yaml", "-w", 1)
    assert corpus.tree(here / "out") == first


def test_a_finished_run_replayed_in_its_place_is_finished(here: Path) -> None:
    ok("select", "scores", "--budget", "20%", "-w", 1, "-o", "out")
    first = corpus.tree(here / "out")
    ok("run", "out/recipe.yaml", "-w", 1)
    assert corpus.tree(here / "out") == first


def test_the_recipe_may_come_after_flags(here: Path) -> None:
    ok("select", "scores", "--budget", "20%", "-w", 1, "-o", "out")
    ok("run", "--workers", 1, "--budget", "5 docs", "out/recipe.yaml", "-o", "few")
    assert len(corpus.selected_ids(here / "few")) == 5


def test_another_method_beats_the_recipe(here: Path) -> None:
    ok("select", "scores", "--budget", "10 docs", "--temperature", 3, "--method", "resample", "-w", 1, "-o", "out")
    ok("run", "out/recipe.yaml", "--method", "topk", "-w", 1, "-o", "best")
    ok("select", "scores", "--budget", "10 docs", "--method", "topk", "-w", 1, "-o", "expected")
    assert corpus.selected_ids(here / "best") == corpus.selected_ids(here / "expected")


BAD_RECIPES = {
    "no YAML": b"a: [",
    "a list": b"- a\n",
    "no command": b"budget: 10%\n",
    "another command": b"command: demo\n",
    "unknown option": b"command: select\npool: [scores]\nbugdet: 10%\n",
    "wrong type": b"command: select\npool: scores\nbudget: 10%\n",
    "wrong choice": b"command: select\npool: [scores]\non_bad_line: maybe\n",
    "unknown scorer": b"command: select\nscorer: {name: dsri}\n",
    "unknown option of the scorer": b"command: select\nscorer: {name: dsir, bukets: 5}\n",
    "bad option of the selector": b"command: select\nselector: {name: resample, temperature: -1}\n",
    "neither scorer nor fitted": b"command: score\npool: [pool]\noutput: x\n",
    "not UTF-8": b"command: select\npool: [\xe9]\n",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", BAD_RECIPES.values(), ids=BAD_RECIPES.keys())
def test_a_bad_recipe(content: bytes, here: Path) -> None:
    (here / "bad.yaml").write_bytes(content)
    assert "bad.yaml" in failure("run", "bad.yaml", "-w", 1, "-o", "out")
    assert not (here / "out").exists()


def test_an_option_that_is_misspelt_in_a_recipe_is_answered_with_the_nearest(here: Path) -> None:
    (here / "bad.yaml").write_bytes(BAD_RECIPES["unknown option"])
    assert "did you mean 'budget'?" in failure("run", "bad.yaml")
