"""A package of one's own: installed beside dvsel, its scorer and its selector work like the built-in ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = ["x" * size for size in (10, 990, 2000, 1005, 500, 4000)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds the example package."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("site")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    package = Path(__file__).parent / "example_package"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *flags, "--target", folder, package],
        check=True,
        capture_output=True,
        text=True,
    )
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def dvsel(environment: dict[str, str], *words: object) -> str:
    command = [sys.executable, "-m", "dvsel", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scores(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    lines = [json.dumps({"id": str(at), "text": text}) + "\n" for at, text in enumerate(TEXTS)]
    (folder / "pool.jsonl").write_text("".join(lines))
    dvsel(environment, "score", "length", folder / "pool.jsonl", "--best", 1000, "-o", folder / "scores", "-w", 1)
    return folder / "scores"


def test_both_are_listed(environment: dict[str, str]) -> None:
    listing = json.loads(dvsel(environment, "list", "--json"))
    summaries = {
        kind: {one["name"]: (one["summary"], one["package"]) for one in listing[kind]}
        for kind in ("scorers", "selectors")
    }
    assert summaries["scorers"]["length"] == ("Prefer documents near a length.", "dvsel-example")
    assert summaries["selectors"]["middle"] == ("Keep the scores nearest to a value.", "dvsel-example")
    assert {"dsir"} < set(summaries["scorers"]) and {"topk"} < set(summaries["selectors"])


def test_its_scorer_scores(scores: Path) -> None:
    from dvsel.score_files.find import SUFFIX
    from dvsel.score_files.reader import ScoreFile

    (rows,) = ScoreFile(str(scores / f"pool.jsonl{SUFFIX}")).rows()
    assert rows.score[:, 0].tolist() == [-abs(len(text) - 1000) for text in TEXTS]


@pytest.mark.parametrize(("centre", "kept"), [(0, [1, 3]), (-3000, [2, 5])])
def test_its_selector_selects(
    centre: int, kept: list[int], scores: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    words = ("--method", "middle", "--centre", centre, "--budget", "2 docs")
    dvsel(environment, "select", scores, *words, "-o", tmp_path / "out")
    lines = (tmp_path / "out" / "pool-00000.jsonl").read_text().splitlines()
    assert [int(json.loads(line)["id"]) for line in lines] == kept


def test_its_recipe_replays(scores: Path, environment: dict[str, str], tmp_path: Path) -> None:
    dvsel(environment, "run", scores / "recipe.yaml", "-o", tmp_path / "again")
    again, first = (next(folder.glob("*.parquet")).read_bytes() for folder in (tmp_path / "again", scores))
    assert again == first


def test_both_have_help_made_from_their_options(environment: dict[str, str]) -> None:
    assert "length that scores highest" in dvsel(environment, "score", "length", "--help")
    assert "score that is kept first" in dvsel(environment, "select", "--method", "middle", "--help")


def test_both_pass_the_checks(environment: dict[str, str]) -> None:
    program = (
        "from dvsel_example import Length, Middle; from dvsel.testing import check_scorer, check_selector\n"
        "check_scorer(Length(best=20), ['some text', 'another', 'one more text that is long'])\n"
        "check_selector(Middle(0.5))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
