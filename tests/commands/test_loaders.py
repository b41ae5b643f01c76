"""What other programs read where dvsel wrote: the documents that were kept, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import corpus
from commands import ok

KINDS = {"jsonl": "a.jsonl", "jsonl.gz": "a.jsonl.gz", "jsonl.zst": "a.jsonl.zst", "parquet": "a.parquet"}


@pytest.fixture(scope="module", params=KINDS)
def selected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection from a pool that lies in folders, scored on the way."""
    folder = tmp_path_factory.mktemp("loaders") / "selected"
    documents = corpus.pool()[:400]
    for name, half in (("en", documents[::2]), ("de", documents[1::2])):
        shard = folder.parent / "pool" / name / KINDS[request.param]
        if request.param == "parquet":
            shard.parent.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(half), shard)
        else:
            corpus.write(shard, half)
    corpus.write(folder.parent / "target.jsonl", corpus.target())
    target = ("--target", folder.parent / "target.jsonl")
    ok("select", folder.parent / "pool", "--with", "dsir", *target, "--budget", "30%", "-w", 1, "-o", folder)
    return folder


def test_datasets_opens_the_folder(selected: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(selected), split="train", cache_dir=str(tmp_path))
    assert len(found) == len(corpus.selected_ids(selected)) and set(found["id"]) == corpus.selected_ids(selected)


def _polars(glob: str) -> set[str]:
    scan = polars.scan_parquet if glob.endswith(".parquet") else polars.scan_ndjson
    return set(scan(glob).select("id").collect()["id"])


def _duckdb(glob: str) -> set[str]:
    read = "read_parquet" if glob.endswith(".parquet") else "read_json"
    return {name for (name,) in duckdb.sql(f"select id from {read}('{glob}')").fetchall()}  # type: ignore[union-attr]


@pytest.mark.parametrize("read", [_polars, _duckdb])
def test_a_glob_to_the_bottom_finds_the_shards_alone(selected: Path, read: Callable[[str], set[str]]) -> None:
    """`**` of both looks into hidden folders too, where the scores are."""
    suffix = corpus.shards_of(selected)[0].name.partition(".")[2]
    if suffix == "jsonl.zst" and read is _duckdb:
        pytest.skip("duckdb reads zstd with an extension that it downloads")
    assert read(f"{selected}/**/*.{suffix}") == corpus.selected_ids(selected)


def test_a_fresh_selection_may_begin_from_the_scores_inside(selected: Path, tmp_path: Path) -> None:
    ok("select", selected, "--budget", "30%", "-w", 1, "-o", tmp_path / "again")
    assert corpus.selected_ids(tmp_path / "again") == corpus.selected_ids(selected)
