"""`dvsel losses`: a score run for each model of a ladder, which goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import corpus
import ladders
from commands import failure, ok
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("low", "middle", "high")
SHARDS = ("a.jsonl", "b.jsonl")
DOCUMENTS = ladders.documents(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ladder, a pool, and the pool's losses."""
    folder = tmp_path_factory.mktemp("losses")
    ladders.build(folder)
    corpus.write(folder / "pool" / "a.jsonl", DOCUMENTS[:40])
    corpus.write(folder / "pool" / "b.jsonl", corpus.lines(DOCUMENTS[40:]) + b'{"text": ""}\n')
    ok(*command(folder, folder / "losses"))
    return folder


def command(folder: Path, out: Path) -> tuple[object, ...]:
    return ("losses", folder / "pool", "--ladder", folder / "ladder.yaml", "-o", out)


def files(out: Path) -> dict[Path, int]:
    """When each score file was written."""
    return {path.relative_to(out): path.stat().st_mtime_ns for path in sorted(out.rglob("*.parquet"))}


def rows(out: Path, model: str, shard: str) -> Rows:
    (found,) = ScoreFile(str(out / model / f"{shard}.dvsel.parquet")).rows()
    return found


def test_each_model_has_a_folder_of_ordinary_scores(folder: Path, tmp_path: Path) -> None:
    assert set(files(folder / "losses")) == {Path(name, f"{shard}.dvsel.parquet") for name in NAMES for shard in SHARDS}
    for name in NAMES:
        ok("score", "perplexity", folder / "pool", "--model", folder / "rungs" / name, "--measure", "bits-per-char",
           "-o", tmp_path / name)  # fmt: skip
        for shard in SHARDS:
            alone, found = rows(tmp_path, name, shard), rows(folder / "losses", name, shard)
            np.testing.assert_array_equal(found.score, alone.score)
            np.testing.assert_array_equal(found.key, alone.key)
    assert f"{len(DOCUMENTS)} documents".encode() in ok("inspect", folder / "losses" / "low").out
    ok("select", folder / "losses" / "low", "--budget", "5 docs", "-w", 1, "-o", tmp_path / "out")
    assert len(corpus.selected_ids(tmp_path / "out")) == 5


def test_the_summary_is_a_table_of_models(folder: Path, tmp_path: Path) -> None:
    answer = ok(*command(folder, folder / "losses"), "--json")
    report = json.loads(answer.out)
    assert report == json.loads((folder / "losses" / REPORT).read_text())
    assert [model["name"] for model in report["models"]] == list(NAMES)
    for model in report["models"]:
        parts = [rows(folder / "losses", model["name"], shard) for shard in SHARDS]
        losses = -np.concatenate([part.score[:, 0] for part in parts]).astype(np.float64)
        sizes = np.concatenate([part.bytes for part in parts])
        kept = np.isfinite(losses)
        assert model["documents"] == kept.sum() == len(DOCUMENTS) and model["unscored"] == 0
        assert model["bits_per_char"] == pytest.approx(np.average(losses[kept], weights=sizes[kept]))
        assert model["score"] == ladders.SCORES[model["name"]]
    bits = [model["bits_per_char"] for model in report["models"]]
    assert report["pairs"] == 3
    assert report["ordered"] == (bits[0] > bits[1]) + (bits[0] > bits[2]) + (bits[1] > bits[2])
    table = answer.err.splitlines()
    assert table[0].split() == ["model", "score", "bits/char", "documents", "no", "loss"]
    assert table[1].split() == ["low", "0.2", f"{bits[0]:.4f}", "60", "0"]
    assert "weighted by their bytes" in answer.err


def test_a_shard_that_cannot_be_read_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool" / "a.jsonl", DOCUMENTS[:5]).parent
    (pool / "b.jsonl.zst").write_bytes(b"no zstd")
    words = ("losses", pool, *command(folder, tmp_path / "out")[2:])
    assert "left out 1 files that cannot be read:" in ok(*words, "--on-bad-file", "skip").err


def test_a_model_that_is_added_leaves_the_others(folder: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        (tmp_path / "rungs").mkdir(exist_ok=True)
        (tmp_path / "rungs" / name).symlink_to(folder / "rungs" / name)
    (tmp_path / "rungs" / "high").symlink_to(folder / "rungs" / "high")
    (tmp_path / "rungs" / "more").symlink_to(folder / "rungs" / "high")
    ladder = ladders.write(tmp_path / "ladder.yaml", ladders.SCORES)
    words = ("losses", folder / "pool", "--ladder", ladder, "-o", tmp_path / "losses")
    ok(*words)
    before = files(tmp_path / "losses")
    ladders.write(ladder, ladders.SCORES | {"more": 0.1})
    answer = ok(*words)
    after = files(tmp_path / "losses")
    assert set(after) - set(before) == {Path("more", f"{shard}.dvsel.parquet") for shard in SHARDS}
    assert {path: after[path] for path in before} == before
    assert [line.split()[0] for line in answer.err.splitlines()[1:5]] == ["more", *NAMES]


def test_what_is_missing_is_computed_and_nothing_else(folder: Path) -> None:
    before = files(folder / "losses")
    missing = Path("middle", "b.jsonl.dvsel.parquet")
    content = (folder / "losses" / missing).read_bytes()
    (folder / "losses" / missing).unlink()
    ok(*command(folder, folder / "losses"))
    after = files(folder / "losses")
    assert [path for path in before if after[path] != before[path]] == [missing]
    assert (folder / "losses" / missing).read_bytes() == content


def test_options_are_passed_on_and_are_another_run(folder: Path, tmp_path: Path) -> None:
    more = ("--window", 16, "--stride", 4, "--batch-tokens", 512, "--precision", "fp32")
    ok(*command(folder, tmp_path / "losses"), *more)
    recipe = yaml.safe_load((tmp_path / "losses" / "low" / "recipe.yaml").read_text())
    expected = {"window": 16, "stride": 4, "batch_tokens": 512, "precision": "fp32", "measure": "bits-per-char"}
    assert expected.items() <= recipe["scorer"].items()
    assert not np.array_equal(
        rows(tmp_path / "losses", "low", "a.jsonl").score, rows(folder / "losses", "low", "a.jsonl").score
    )
    assert "its window is 16, this one's 0" in failure(*command(folder, tmp_path / "losses"))
    ok(*command(folder, tmp_path / "losses"), "--overwrite")
    np.testing.assert_array_equal(
        rows(tmp_path / "losses", "low", "a.jsonl").score, rows(folder / "losses", "low", "a.jsonl").score
    )


def test_the_recipe_replays_it(folder: Path, tmp_path: Path) -> None:
    ok("run", folder / "losses" / "recipe.yaml", "-o", tmp_path / "again")
    assert set(files(tmp_path / "again")) == set(files(folder / "losses"))


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    answer = ok(*command(folder, tmp_path / "losses"), "--dry-run")
    assert "2 shards" in answer.err and "command: losses" in answer.err
    assert not (tmp_path / "losses").exists()


def test_what_a_run_lacks_is_said(folder: Path, tmp_path: Path) -> None:
    ladder = folder / "ladder.yaml"
    assert "--ladder" in failure("losses", folder / "pool", "-o", tmp_path / "out")
    assert "-o" in failure("losses", folder / "pool", "--ladder", ladder)
    assert "name shards" in failure("losses", "--ladder", ladder, "-o", tmp_path / "out")
    (folder / "rungs" / "empty").mkdir()
    bad = ladders.write(folder / "bad.yaml", {"empty": 0.1, **ladders.SCORES})
    assert "empty" in failure("losses", folder / "pool", "--ladder", bad, "-o", tmp_path / "out")
    nothing = corpus.write(tmp_path / "nothing.jsonl", b'{"text": ""}\n')
    message = failure("losses", nothing, "--ladder", ladder, "-o", tmp_path / "none")
    assert "low gives no document of the pool a loss" in message
