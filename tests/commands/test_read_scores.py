"""`dvsel.read_scores`: score files as one Arrow dataset, which other libraries open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import corpus
import dvsel
import embedded_pool
from dvsel.documents.columns import Status
from python_pool import OPTIONS, rows, score_pool, write_pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def target(pool: Path) -> Path:
    return pool.parent / "target.jsonl"


@pytest.fixture(scope="module")
def scored(pool: Path) -> Path:
    return score_pool(pool)


def test_scores_are_a_dataset_of_all_shards(scored: Path, pool: Path) -> None:
    found = dvsel.read_scores(scored)
    assert isinstance(found, pyarrow.dataset.Dataset)
    names = sorted(shard.name for shard in pool.iterdir())
    files = {name: pq.read_table(scored / f"{name}.dvsel.parquet") for name in names}
    expected = [{"shard": name} | row for name in names for row in files[name].to_pylist()]

    assert rows(found) == repr(expected)
    assert found.to_table(filter=pc.field("shard") == names[1]).num_rows == len(files[names[1]])
    unusable = [one["key"] for one in expected if one["status"] != Status.SCORED]
    assert found.to_table(filter=pc.field("status") != Status.SCORED)["key"].to_pylist() == unusable
    assert len(unusable) >= 2


def test_a_selection_has_scores_too(pool: Path, target: Path, scored: Path, tmp_path: Path) -> None:
    dvsel.select(pool, scorer="dsir", target=target, budget="10%", output=tmp_path / "out", **OPTIONS)
    assert rows(dvsel.read_scores(tmp_path / "out")) == rows(dvsel.read_scores(scored))


def test_pandas_polars_and_duckdb_open_scores(scored: Path) -> None:
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    pytest.importorskip("pandas")
    found = dvsel.read_scores(scored)
    frame = found.to_table().to_pandas()
    usable = frame[frame.status == 0]
    expected = usable.groupby("domain").score.max().to_dict()
    assert set(expected) == {"reference", "code"}

    lazily = polars.scan_pyarrow_dataset(found).filter(polars.col("status") == 0)
    highest = lazily.group_by("domain").agg(polars.col("score").max()).collect()
    assert dict(highest.iter_rows()) == expected
    rows = duckdb.sql("SELECT domain, max(score) FROM found WHERE status = 0 GROUP BY domain").fetchall()
    assert dict(rows) == expected


def test_scores_in_a_store_are_read(scored: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for file in scored.glob("*.parquet"):
        store.pipe(f"/scores/{file.name}", file.read_bytes())
    assert rows(dvsel.read_scores("memory://scores")) == rows(dvsel.read_scores(scored))


def test_damaged_scores_end_a_scan(scored: Path, tmp_path: Path) -> None:
    file = next(scored.glob("0.*.parquet"))
    column = pq.read_metadata(file).row_group(0).column(0)
    damaged = bytearray(file.read_bytes())
    damaged[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    (tmp_path / file.name).write_bytes(damaged)

    found = dvsel.read_scores(tmp_path / file.name)

    with pytest.raises(OSError, match=r"corrupt|checksum|CRC"):
        found.to_table()


def test_scores_that_do_not_go_together_are_refused(pool: Path, target: Path, scored: Path, tmp_path: Path) -> None:
    dvsel.score("dsir", pool, target=target, output=tmp_path / "other", **OPTIONS | {"buckets": 99})
    with pytest.raises(dvsel.UserError, match="hold scores of two different fits"):
        dvsel.read_scores([scored, tmp_path / "other"])
    next((tmp_path / "other").glob("0.*.parquet")).unlink()
    with pytest.raises(dvsel.UserError, match="is not complete: 1 of its files are missing"):
        dvsel.read_scores(tmp_path / "other")
    with pytest.raises(dvsel.UserError, match="holds no score files"):
        dvsel.read_scores(pool)


def test_counts_are_told_from_scores(pool: Path, tmp_path: Path) -> None:
    dvsel.select(pool, method="random", budget="10%", output=tmp_path / "out")
    with pytest.warns(dvsel.Notice, match="was counted for a rule that needs no scores; all are 0"):
        found = dvsel.read_scores(tmp_path / "out")
    assert found.count_rows() == len(corpus.pool()) + 2


def test_embeddings_are_no_scores(pool: Path, tmp_path: Path) -> None:
    embedded_pool.write_pool(tmp_path, [{"text": "a"}, {"text": "b"}])
    embedded_pool.embed(tmp_path, embedded_pool.unit(np.eye(2)))
    with pytest.raises(dvsel.UserError, match="holds vectors and no scores; score the pool first"):
        dvsel.read_scores(tmp_path / "emb")


def test_shards_that_were_left_out_are_named(pool: Path, target: Path, tmp_path: Path) -> None:
    bad = corpus.write(tmp_path / "pool" / "bad.jsonl.zst", b"\x28\xb5\x2f\xfd no zstd")
    shards = [pool / "0.jsonl", bad]
    with pytest.warns(dvsel.Notice, match="it is left out of the sample"):
        dvsel.score("dsir", shards, target=target, on_bad_file="skip", output=tmp_path / "out", **OPTIONS)
    with pytest.warns(dvsel.Notice, match=r"left out 1 files that cannot be read: .*bad.jsonl.zst"):
        found = dvsel.read_scores(tmp_path / "out")
    assert {name.rpartition("/")[2] for name in found.to_table()["shard"].to_pylist()} == {"0.jsonl"}
