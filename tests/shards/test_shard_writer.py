"""Output shards: the kept lines byte for byte, as other tools read them."""

from __future__ import annotations

import gc
import gzip
import io
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import PAD
from dvsel.errors import UserError
from dvsel.shards import writer as write
from dvsel.shards.lines import Lines
from dvsel.shards.writer import ShardWriter, first_piece, gather
from dvsel.storage.places import Shard, exists, join, list_names, open_read, remove

SUFFIX = {"": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}
LARGE = 1 << 30


def lines_of(rows: list[bytes]) -> Lines:
    joined = b"\n".join(rows)
    data = np.frombuffer(bytearray(joined + bytes(PAD)), np.uint8)
    sizes = np.array([len(row) for row in rows], np.int64)
    ends = np.cumsum(sizes + 1) - 1
    return Lines(data, ends - sizes, ends, 0)


def shard(name: str, format: str = "jsonl", compression: str = "") -> Shard:
    return Shard(f"/pool/{name}", name, format, compression, 0, "")


def unpack(content: bytes, compression: str) -> bytes:
    if compression == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return gzip.decompress(content) if compression else content


def names_in(folder: str) -> list[str]:
    return [name for name in list_names(folder) if not name.startswith(".dvsel/")]


def read(place: str) -> bytes:
    with open_read(place) as file:
        return file.read()


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200).map(lambda row: row.replace(b"\n", b"")), st.booleans())))
def test_gather_is_join(rows: list[tuple[bytes, bool]]) -> None:
    keep = np.flatnonzero([kept for _, kept in rows])
    expected = b"".join(row + b"\n" for row, kept in rows if kept)
    assert bytes(gather(lines_of([row for row, _ in rows]), keep)) == expected


@pytest.mark.parametrize("compression", SUFFIX)
@pytest.mark.parametrize("remote", [False, True])
def test_kept_lines_come_out_byte_for_byte(tmp_path: Path, compression: str, remote: bool) -> None:
    folder = f"memory://{uuid4().hex}" if remote else str(tmp_path)
    source = shard("en/a" + SUFFIX[compression], compression=compression)
    first = lines_of([b'{"a": 1}\r', b'{"a":2}  ', b"", b"\xff"])
    with ShardWriter(folder, source, LARGE) as writer:
        writer.write_lines(first, np.array([True, False, True, True]))
        writer.write_lines(lines_of([b"no"]), np.array([False]))
        writer.write_lines(lines_of([b"yes"]), np.array([True]))
        assert not exists(first_piece(folder, source))
    assert names_in(folder) == ["en/a-00000" + SUFFIX[compression]]
    content = read(first_piece(folder, source))
    assert unpack(content, compression) == b'{"a": 1}\r\n\n\xff\nyes\n'
    remove(folder)


@pytest.mark.parametrize("compression", SUFFIX)
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, compression: str) -> None:
    rows = [b'{"n": %d}' % number for number in range(10_000)]
    source = shard("a" + SUFFIX[compression], compression=compression)
    for folder in "xy":
        with ShardWriter(str(tmp_path / folder), source, 50_000) as writer:
            writer.write_lines(lines_of(rows), np.arange(len(rows)) % 3 > 0)
    names = names_in(str(tmp_path / "x"))
    assert len(names) > 1
    assert [read(join(str(tmp_path / "x"), name)) for name in names] == [
        read(join(str(tmp_path / "y"), name)) for name in names
    ]


@settings(deadline=None)
@given(
    rows=st.lists(st.integers(0, 30).map(lambda size: b"x" * size), min_size=1),
    cap=st.integers(1, 60),
    block=st.integers(1, 10),
)
def test_pieces_are_full_but_not_over_the_cap(rows: list[bytes], cap: int, block: int) -> None:
    folder, source = f"memory://{uuid4().hex}", shard("a.jsonl")
    with ShardWriter(folder, source, cap) as writer:
        for at in range(0, len(rows), block):
            part = rows[at : at + block]
            writer.write_lines(lines_of(part), np.ones(len(part), np.bool_))
    pieces = [read(join(folder, name)) for name in names_in(folder)]
    assert names_in(folder) == [f"a-{number:05}.jsonl" for number in range(len(pieces))]
    assert b"".join(pieces) == b"".join(row + b"\n" for row in rows)
    for number, piece in enumerate(pieces):
        assert len(piece) <= cap or piece.count(b"\n") == 1
        if number:
            next_line = piece.index(b"\n") + 1
            assert len(pieces[number - 1]) + next_line > cap
    remove(folder)


def test_the_first_piece_appears_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    commit = write.Pending.commit  # type: ignore[attr-defined]

    def recorded(pending: write.Pending) -> None:  # type: ignore[name-defined]
        order.append(Path(pending.url).name)
        commit(pending)

    monkeypatch.setattr(write.Pending, "commit", recorded)  # type: ignore[attr-defined]
    with ShardWriter(str(tmp_path), shard("a.jsonl"), 1) as writer:
        writer.write_lines(lines_of([b"1", b"2", b"3"]), np.ones(3, np.bool_))
    assert order == ["a-00002.jsonl", "a-00001.jsonl", "a-00000.jsonl"]


def test_nothing_kept_is_no_file(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), shard("a.jsonl"), 10) as writer:
        writer.write_lines(lines_of([b"1"]), np.zeros(1, np.bool_))
        writer.write_table(pa.record_batch({"text": ["a"]}), np.zeros(1, np.bool_))
    assert names_in(str(tmp_path)) == []


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), ShardWriter(str(tmp_path), shard("a.jsonl"), 1) as writer:
        writer.write_lines(lines_of([b"1", b"2"]), np.ones(2, np.bool_))
        raise error
    assert names_in(str(tmp_path)) == []


@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_an_error_among_rows_says_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    said: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    with pytest.raises(error), ShardWriter(str(tmp_path), shard("a.parquet", "parquet"), LARGE) as writer:
        writer.write_table(pa.record_batch({"text": ["a"]}), np.ones(1, np.bool_))
        raise error
    del writer
    gc.collect()
    assert said == [] and names_in(str(tmp_path)) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "en").write_bytes(b"a file where a folder must be")
    with (
        pytest.raises(UserError, match=r"a-00000\.jsonl: cannot be written"),
        ShardWriter(str(tmp_path), shard("en/a.jsonl"), 1) as writer,
    ):
        writer.write_lines(lines_of([b"1"]), np.ones(1, np.bool_))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_rows_keep_schema_and_metadata(tmp_path: Path, name: str) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", None, "c", "d"], pa.large_string()),
            "lang": pa.array(["en", "de", "en", "en"]).dictionary_encode(),
            "meta": [{"n": 1, "tags": ["x"]}, {"n": 2, "tags": []}, None, {"n": 4, "tags": None}],
        }
    ).replace_schema_metadata({"huggingface": '{"info": {}}', "pandas": "{}"})
    keep = np.array([True, False, True, True])
    source = shard(name, name.partition(".")[2])
    with ShardWriter(str(tmp_path), source, LARGE) as writer:
        writer.write_table(table.to_batches()[0], keep)
    assert names_in(str(tmp_path)) == ["a-00000.parquet"]
    found = pq.read_table(io.BytesIO(read(first_piece(str(tmp_path), source))))
    assert found.schema.equals(table.schema)
    assert found.schema.metadata == table.schema.metadata
    assert found.to_pylist() == table.filter(pa.array(keep)).to_pylist()


def test_small_batches_share_a_row_group_and_dictionaries_may_differ(tmp_path: Path) -> None:
    schema = pa.schema({"text": pa.dictionary(pa.int32(), pa.string())})
    with ShardWriter(str(tmp_path), shard("a.parquet", "parquet"), LARGE) as writer:
        for value in "abc":
            batch = pa.record_batch([pa.array([value]).dictionary_encode()], schema)
            writer.write_table(batch, np.ones(1, np.bool_))
    file = pq.ParquetFile(tmp_path / "a-00000.parquet")
    assert file.metadata.num_row_groups == 1
    assert file.read()["text"].to_pylist() == ["a", "b", "c"]


def test_tables_are_cut_into_pieces_too(tmp_path: Path) -> None:
    batch = pa.record_batch({"text": ["x" * 1000] * 10})
    with ShardWriter(str(tmp_path), shard("a.parquet", "parquet"), 25_000) as writer:
        for _ in range(5):
            writer.write_table(batch, np.ones(10, np.bool_))
    rows = [pq.read_metadata(tmp_path / name).num_rows for name in names_in(str(tmp_path))]
    assert rows == [20, 20, 10]


def test_pages_carry_checksums(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), shard("a.parquet", "parquet"), LARGE) as writer:
        writer.write_table(
            pa.record_batch({"text": [f"text {number}" for number in range(100)]}), np.ones(100, np.bool_)
        )
    place = tmp_path / "a-00000.parquet"
    content = bytearray(place.read_bytes())
    column = pq.read_metadata(place).row_group(0).column(0)
    content[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    place.write_bytes(content)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.ParquetFile(place, page_checksum_verification=True).read()


@pytest.mark.parametrize(
    "column",
    [pa.array([{}, {}], pa.struct([])), pa.array([b"", b""], pa.binary(0)), pa.array([2**62, 1], pa.timestamp("s"))],
    ids=["no fields", "no bytes", "late"],
)
def test_a_column_that_parquet_cannot_hold_is_named(tmp_path: Path, column: pa.Array) -> None:
    batch = pa.record_batch({"text": ["a", "b"], "odd": column})
    message = r"^/pool/a\.arrow: Parquet cannot hold 'odd' \(.*\); write the shard without it$"
    with (
        pytest.raises(UserError, match=message),
        ShardWriter(str(tmp_path), shard("a.arrow", "arrow"), LARGE) as writer,
    ):
        writer.write_table(batch, np.ones(2, np.bool_))
    assert names_in(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("source", "piece"),
    [
        (shard("en/a.jsonl.zst"), "out/en/a-00000.jsonl.zst"),
        (shard("a.json"), "out/a-00000.json"),
        (shard("a.parquet", "parquet"), "out/a-00000.parquet"),
        (shard("data-00000-of-00002.arrow", "arrow"), "out/data-00000-of-00002-00000.parquet"),
    ],
)
def test_names_of_first_pieces(source: Shard, piece: str) -> None:
    assert first_piece("out", source) == piece


def test_gzip_names_no_time_and_no_file(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), shard("a.jsonl.gz", compression="gzip"), LARGE) as writer:
        writer.write_lines(lines_of([b"1"]), np.ones(1, np.bool_))
    header = (tmp_path / "a-00000.jsonl.gz").read_bytes()[:10]
    assert header[3:8] == bytes(5)


def test_zstd_carries_a_checksum(tmp_path: Path) -> None:
    with ShardWriter(str(tmp_path), shard("a.jsonl.zst", compression="zstd"), LARGE) as writer:
        writer.write_lines(lines_of([b"1"]), np.ones(1, np.bool_))
    assert zstandard.get_frame_parameters((tmp_path / "a-00000.jsonl.zst").read_bytes()).has_checksum
