"""The shard that a score file speaks of: found where the user says, and what it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import xxhash

import corpus
from commands import failure, ok

TEXTS = [f"{'word ' * 20}{number}" for number in range(100, 200)]


def table(path: Path, texts: list[str]) -> None:
    import pyarrow as pa

    columns = {"text": texts, "id": [f"id{row}" for row in range(len(texts))]}
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False, write_statistics=False)


def lines(texts: list[str]) -> bytes:
    return corpus.lines([{"id": str(row), "text": text} for row, text in enumerate(texts)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool of two formats, its scores, and a fitted scorer."""
    corpus.write(tmp_path / "pool" / "a.jsonl", lines(TEXTS))
    corpus.write(tmp_path / "pool" / "b.jsonl.zst", lines([text.upper() for text in TEXTS]))
    table(tmp_path / "pool" / "c.parquet", [text.title() for text in TEXTS])
    corpus.write(tmp_path / "target.jsonl", lines(TEXTS[:50]))
    words = ("--target", tmp_path / "target.jsonl", "--min-words", 1)
    ok("score", "dsir", tmp_path / "pool", *words, "-w", 1, "-o", tmp_path / "scores")
    return tmp_path


def select(folder: Path, *more: object) -> tuple[object, ...]:
    return ("select", folder / "scores", "--budget", "50%", "-w", 1, "-o", folder / "out", *more)


def replaced(path: Path, content: bytes) -> None:
    """Other content of the same size, written at the same time."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("ranges", [False, True])
def test_lines_replaced_with_equal_size_and_time(ranges: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if ranges:
        monkeypatch.setattr("dvsel.shards.digest.RANGE", 3000)
        ok("score", "dsir", folder / "pool", "--fitted", folder / "scores" / "dsir.fitted", "-o", folder / "scores2")
        (folder / "scores").rename(folder / "scores1")
        (folder / "scores2").rename(folder / "scores")
    replaced(folder / "pool" / "a.jsonl", lines(TEXTS[::-1]))
    assert "a.jsonl changed after it was scored" in failure(*select(folder))
    assert "a.jsonl changed after it was scored" in failure(*select(folder)[:-2], "-o", "-")
    assert not corpus.shards_of(folder / "out") or all("a-" not in str(one) for one in corpus.shards_of(folder / "out"))


def test_a_table_replaced_with_equal_size_time_and_footer(folder: Path) -> None:
    place = folder / "pool" / "c.parquet"
    content = place.read_bytes()
    replaced(place, content.replace(b"Word Word 1", b"Word Sword1")[: len(content)])
    assert "c.parquet changed after it was scored" in failure(*select(folder))


def test_unchanged_shards_are_selected_from(folder: Path) -> None:
    ok(*select(folder))
    assert len(corpus.shards_of(folder / "out")) == 3


def test_a_pool_that_moved_is_named(folder: Path) -> None:
    ok(*select(folder))
    (folder / "pool").rename(folder / "elsewhere")
    message = failure("select", folder / "scores", "--budget", "50%", "-o", folder / "out2")
    assert "say where the pool lies now with --pool" in message
    ok("select", folder / "scores", "--budget", "50%", "-w", 1, "-o", folder / "out2", "--pool", folder / "elsewhere")
    for one in corpus.shards_of(folder / "out"):
        assert one.read_bytes() == (folder / "out2" / one.relative_to(folder / "out")).read_bytes()


def test_a_moved_pool_of_other_content_is_refused(folder: Path) -> None:
    corpus.write(folder / "other" / "a.jsonl", lines(TEXTS[::-1]))
    for name in ("b.jsonl.zst", "c.parquet"):
        (folder / "pool" / name).rename(folder / "other" / name)
    assert "a.jsonl changed after it was scored" in failure(*select(folder), "--pool", folder / "other")


def forged(folder: Path, **shard: object) -> None:
    """Let the score file of a.jsonl speak of another shard, with everything else in order."""
    place = next((folder / "scores").glob("a.*.parquet"))
    content, metadata = pq.read_table(place), pq.read_metadata(place).metadata
    values = json.loads(metadata[b"dvsel"])
    values["shard"] |= shard
    header = json.dumps(values, sort_keys=True).encode()
    named = {b"dvsel": header, b"dvsel.digest": xxhash.xxh3_128_hexdigest(header).encode()}
    pq.write_table(content.replace_schema_metadata(named), place, compression="none", store_schema=True)


def test_a_forged_place_is_not_copied(folder: Path) -> None:
    corpus.write(folder / "private" / "a.jsonl", lines(["my secret " + text for text in TEXTS]))
    place = folder / "private" / "a.jsonl"
    forged(folder, url=str(place), size=place.stat().st_size, modified=str(place.stat().st_mtime_ns))
    assert "changed after it was scored" in failure(*select(folder))
    assert not (folder / "out" / "a-00000.jsonl").exists()


@pytest.mark.parametrize("url", ["/etc/passwd", "/dev/stdin", "http://127.0.0.1:9/a.jsonl", "s3://bucket/a.jsonl"])
def test_a_forged_place_is_not_opened(url: str, folder: Path) -> None:
    forged(folder, url=url)
    assert "--pool" in failure(*select(folder))


def test_a_name_that_leads_out_is_refused(folder: Path) -> None:
    forged(folder, name="../../x.jsonl")
    assert "names a shard outside every pool" in failure(*select(folder))
