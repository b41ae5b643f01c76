"""DocumentBlock of all formats: json and pyarrow's own conversion are the truth."""

from __future__ import annotations

import datetime
import decimal
import gzip
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import xxhash
import zstandard

from arrow_arrays import store, values
from dvsel.documents.columns import Kind
from dvsel.errors import UserError
from dvsel.shards.expand import expand
from dvsel.shards.reader import DocumentBlock, DocumentReader
from dvsel.storage.places import Shard, atomic_writer, remove

ROWS: list[dict[str, Any]] = [
    {"text": "one", "id": 1, "ok": True, "score": 0.5, "meta": {"lang": "en", "deep": {"n": 1}}},
    {"text": "zwei ü€", "id": 2, "ok": False, "score": 1e-7, "meta": {"lang": None, "deep": None}},
    {"text": None, "id": None, "ok": None, "score": None, "meta": None},
    {"text": "", "id": -4, "ok": True, "score": 2.5, "meta": {"lang": "", "deep": {"n": None}}},
]
KIND_OF = {str: Kind.STRING, int: Kind.NUMBER, float: Kind.NUMBER, bool: Kind.BOOL, type(None): Kind.NULL}


def read(source: Shard, *paths: str) -> list[DocumentBlock]:
    with DocumentReader(source, paths) as reader:
        return list(reader)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "file.arrow"])
@pytest.mark.parametrize("remote", [False, True])
def test_fields_of_tables(tmp_path: Path, name: str, remote: bool) -> None:
    base = f"memory://{uuid4().hex}" if remote else str(tmp_path)
    source = store(base, pa.Table.from_pylist(ROWS), name)
    (found,) = read(source, "text", "id", "ok", "score", "meta.lang", "meta.deep.n")
    for name_ in ("text", "id", "ok", "score"):
        assert values(found.fields[name_]) == [row[name_] for row in ROWS]
        assert found.fields[name_].kind.tolist() == [KIND_OF[type(row[name_])] for row in ROWS]
    assert values(found.fields["meta.lang"]) == ["en", None, None, ""]
    assert values(found.fields["meta.deep.n"]) == [1, None, None, None]
    assert found.bad == {}
    assert found.lines is None
    remove(base)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_fields_that_do_not_exist_are_missing(tmp_path: Path, name: str) -> None:
    source = store(str(tmp_path), pa.Table.from_pylist(ROWS), name)
    for paths in (["nothing"], ["text.more", "meta.nothing", "meta.deep.n.more", "text"]):
        (found,) = read(source, *paths)
        for path in set(paths) - {"text"}:
            assert found.fields[path].kind.tolist() == [Kind.MISSING] * 4
            assert found.fields[path].offsets.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("array", "kind", "expected"),
    [
        (pa.array(["a", None, "b"], pa.large_string()), Kind.STRING, ["a", None, "b"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), Kind.STRING, ["a", None, "a"]),
        (pa.array([b"a", None, b"\xc3\xa9"]), Kind.STRING, ["a", None, "é"]),
        (pa.array([2**63, None, 0], pa.uint64()), Kind.NUMBER, [2**63, None, 0]),
        (pa.array([decimal.Decimal("1.50"), None]), Kind.NUMBER, [1.5, None]),
        (pa.array([[1, 2], None, []]), Kind.OTHER, [[1, 2], None, []]),
        (pa.array([{"a": "x"}, None]), Kind.OTHER, [{"a": "x"}, None]),
        (pa.array([datetime.date(2024, 1, 2), None]), Kind.STRING, ["2024-01-02", None]),
        (pa.nulls(2), Kind.STRING, [None, None]),
    ],
)
def test_arrow_types(tmp_path: Path, array: Any, kind: Kind, expected: list[Any]) -> None:
    source = store(str(tmp_path), pa.table({"x": array}), "a.arrow")
    (found,) = read(source, "x")
    assert values(found.fields["x"]) == expected
    assert found.fields["x"].kind.tolist() == [Kind.NULL if value is None else kind for value in expected]


@pytest.mark.parametrize("type_", [pa.string(), pa.binary()])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_text_that_is_not_utf_8_makes_its_row_bad(tmp_path: Path, name: str, type_: pa.DataType) -> None:
    raw = pa.array([b"ok", b"caf\xe9", None, b"ok"], pa.binary())
    table = pa.table({"text": pa.Array.from_buffers(type_, 4, raw.buffers())})
    (found,) = read(store(str(tmp_path), table, name), "text")
    assert found.bad == {1: "field 'text' is not UTF-8 (byte 0xE9)"}
    assert values(found.fields["text"]) == ["ok", None, None, "ok"]


def test_nulls_over_hidden_bytes_are_empty(tmp_path: Path) -> None:
    valid = pa.py_buffer(bytes([0b101]))
    ends = pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes())
    array = pa.Array.from_buffers(pa.string(), 3, [valid, ends, pa.py_buffer(b"abc")])
    (found,) = read(store(str(tmp_path), pa.table({"text": array}), "a.arrow"), "text")
    assert [found.fields["text"][row] for row in range(3)] == [b"a", b"", b"c"]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_batches_are_of_bounded_size(tmp_path: Path, name: str) -> None:
    texts = [f"{number:0100}" for number in range(1000)] + ["same" * 25] * 1000
    source = store(str(tmp_path), pa.table({"text": texts}), name)
    told: list[int] = []
    with DocumentReader(source, ["text"], block=10_000, on_read=told.append) as reader:
        found = list(reader)
    assert [text for part in found for text in values(part.fields["text"])] == texts
    assert max(int(part.fields["text"].offsets[-1]) for part in found) < 20_000
    assert [part.first_row for part in found] == np.cumsum(
        [0, *(len(part.fields["text"]) for part in found[:-1])]
    ).tolist()
    assert sum(told) == source.size


def test_only_wanted_columns_are_read_unless_whole_rows_are(tmp_path: Path) -> None:
    source = store(str(tmp_path), pa.Table.from_pylist(ROWS), "a.parquet")
    (narrow,) = read(source, "text")
    assert narrow.table is None
    with DocumentReader(source, ["text"], whole_rows=True) as reader:
        (whole,) = reader
    assert whole.table is not None
    assert whole.table.to_pylist() == ROWS
    assert values(whole.fields["text"]) == values(narrow.fields["text"])


def test_an_empty_table_has_no_documents(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.arrow"):
        source = store(str(tmp_path), pa.Table.from_pylist(ROWS).slice(0, 0), name)
        assert sum(len(part.fields["text"]) for part in read(source, "text")) == 0


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "file.arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}\n" * 100, b"\x00" * 200])
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: broken .* file \(.*\); copy the file again") as caught:
        read(expand([str(tmp_path / name)])[0], "text")
    assert "\n" not in str(caught.value)


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    source = store(str(tmp_path), pa.Table.from_pylist(ROWS), "a.parquet")
    whole = Path(source.url).read_bytes()
    for size in range(0, len(whole), 50):
        Path(source.url).write_bytes(whole[:size])
        with pytest.raises(UserError, match="broken Parquet file"):
            read(expand([source.url])[0], "text")


def test_a_truncated_arrow_stream(tmp_path: Path) -> None:
    source = store(str(tmp_path), pa.Table.from_pylist(ROWS), "a.arrow")
    whole = Path(source.url).read_bytes()
    Path(source.url).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="broken Arrow file"):
        read(expand([source.url])[0], "text")


def test_digests_tell_files_apart(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    digests = set()
    for name in ("a.parquet", "a.arrow", "b.parquet"):
        source = store(str(tmp_path), table.slice(name.startswith("b")), name)
        with DocumentReader(source, ["text"]) as reader:
            list(reader)
            digests.add(reader.digest())
            if name == "a.arrow":
                assert reader.digest() == xxhash.xxh3_128_hexdigest(Path(source.url).read_bytes())
    assert len(digests) == 3


# --- Shards that change while they are read ---

CHANGES: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
    "replaced": lambda path: shutil.copy(path, f"{path}.new") and Path(f"{path}.new").rename(path),
}


NAMES = ["a.jsonl", "range.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow"]


@pytest.mark.parametrize(("name", "change"), list(itertools.product(NAMES, CHANGES)))
def test_a_shard_that_changes_between_two_batches(tmp_path: Path, name: str, change: str) -> None:
    table = pa.table({"text": [f"{number} {number * 7919 % 65537}" for number in range(50_000)]})
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in table.to_pylist())
    if ".jsonl" in name:
        pack: Callable[[bytes], bytes] = {"gz": gzip.compress, "zst": zstandard.compress}.get(  # type: ignore[assignment]
            name.rpartition(".")[2], bytes
        )
        (tmp_path / name).write_bytes(pack(lines))
    source = expand([str(tmp_path / name)])[0] if ".jsonl" in name else store(str(tmp_path), table, name)
    end = len(lines) // 3 * 2 if name.startswith("range") else None
    with (
        pytest.raises(UserError, match=r": changed while it was read; start again when nothing writes to it$"),
        DocumentReader(source, ["text"], end=end, block=100_000) as reader,
    ):
        batches = iter(reader)
        next(batches)
        os.utime(source.url, ns=(0, 0))  # a file system may keep times of whole seconds
        CHANGES[change](Path(source.url))
        for _ in batches:
            pass


def test_a_shard_that_changed_before_it_was_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    (source,) = expand([str(tmp_path / "a.jsonl")])
    (tmp_path / "a.jsonl").write_bytes(b"{}\n{}\n")
    with pytest.raises(UserError, match="changed while it was read"):
        read(source, "text")


def test_a_reader_that_stops_early_does_not_ask(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "long enough for a batch of its own"}\n' * 9)
    (source,) = expand([str(tmp_path / "a.jsonl")])
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "changed"}\n' * 9)
    with DocumentReader(source, ["text"], block=50) as reader:
        assert values(next(iter(reader)).fields["text"])[0] == "changed"


def test_a_store_that_tells_neither_sizes_nor_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid4().hex}/a.jsonl"
    with atomic_writer(url) as file:
        file.write(b"{}\n{}\n")
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "info", lambda *_, **__: {"size": None, "type": "file"})
    (source,) = expand([url])
    assert (source.size, source.modified) == (0, "")
    assert len(read(source, "text")[0].fields["text"]) == 2


# --- JSON Lines ---


def test_lines_and_fields_go_together(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "no json\n")
    (found,) = read(expand([str(path)])[0], "text", "meta.lang", "absent")
    assert found.lines is not None
    assert len(found.lines) == 5
    assert found.lines[4] == b"no json"
    assert list(found.bad) == [4]
    assert values(found.fields["text"].take(np.arange(4))) == [row["text"] for row in ROWS]
    assert found.fields["text"].kind[4] == Kind.MISSING
    assert found.fields["absent"].kind.tolist() == [Kind.MISSING] * 5


def test_a_stream_of_lines() -> None:
    with DocumentReader(io.BytesIO(b'{"text": "a"}\n{"text": "b"}'), ["text"]) as reader:
        assert [text for found in reader for text in values(found.fields["text"])] == ["a", "b"]


# What each file of the dirty data comes to: its lines and how many of them hold no JSON object, or the error.
DIRTY: dict[str, tuple[int, int] | str] = {
    "all_identical_500.jsonl": (500, 0),
    "bad_checksum.jsonl.zst": "corrupt: the checksum of the zstd data is wrong; copy the file again",
    "bad_crc.jsonl.gz": "corrupt: the checksum of the gzip data is wrong; copy the file again",
    "bad_labels.jsonl": (65, 0),
    "bom.jsonl": (20, 0),
    "bom_concatenated.jsonl": (20, 1),
    "corrupt_middle.jsonl.gz": "corrupt",
    "corrupt_middle.jsonl.zst": "corrupt",
    "cr_only.jsonl": (1, 1),
    "crlf.jsonl": (30, 0),
    "csv_named.jsonl": (21, 21),
    "deep_nested_400.jsonl": (1, 0),
    "duplicate_ids.jsonl": (116, 0),
    "duplicate_ids_b.jsonl": (30, 0),
    "empty_0bytes.jsonl": (0, 0),
    "empty_0bytes.jsonl.gz": (0, 0),
    "empty_0bytes.jsonl.zst": (0, 0),
    "empty_null_text.jsonl": (84, 0),
    "empty_stream.jsonl.gz": (0, 0),
    "empty_stream.jsonl.zst": (0, 0),
    "escaped_surrogates.jsonl": (40, 20),
    "frame_split_in_line.jsonl.zst": (400, 0),
    "gzip_named.jsonl": "holds gzip data, not what its name says; end its name in .gz",
    "gzip_named.jsonl.zst": "holds gzip data, not what its name says; end its name in .gz",
    "header_only.jsonl.zst": "truncated: the last zstd frame does not end; copy the file again",
    "invalid_utf8.expected.jsonl": (70, 0),
    "invalid_utf8.jsonl": (140, 65),
    "json_array_named.jsonl": (1, 1),
    "json_array_not_jsonl.json": (312, 312),
    "long_doc_11MB.jsonl.zst": (11, 0),
    "long_doc_nospace_4MB.jsonl.zst": (2, 0),
    "long_doc_repeated_line_12MB.jsonl.zst": (1, 0),
    "long_window30.jsonl.zst": (400, 0),
    "malformed.expected.jsonl": (302, 0),
    "malformed.jsonl": (318, 109),
    "mixed_newlines.jsonl": (44, 14),
    "multi_frame.jsonl.zst": (20, 0),
    "multi_member.jsonl.gz": (20, 0),
    "near_duplicates.jsonl": (240, 0),
    "nested_metadata.jsonl": (130, 0),
    "no_content_size.jsonl.zst": (400, 0),
    "no_final_newline.jsonl": (30, 0),
    "nul_bytes.jsonl": (60, 30),
    "nul_padded_tail.jsonl": (21, 1),
    "odd_unicode.jsonl": (60, 0),
    "only_newlines.jsonl": (3, 3),
    "plain_named.jsonl.gz": "is not gzip data; if it is plain text, take .gz off its name",
    "single_row.jsonl": (1, 0),
    "skippable_frame.jsonl.zst": (10, 0),
    "sparse_hole_middle.jsonl": (21, 1),
    "trailing_garbage.jsonl.gz": "has other bytes after the end of its gzip data; copy the file again",
    "truncated.jsonl.gz": "truncated: the last gzip member does not end; copy the file again",
    "truncated.jsonl.zst": "truncated: the last zstd frame does not end; copy the file again",
    "truncated_last8.jsonl.gz": "truncated: the last gzip member does not end; copy the file again",
    "unicode_line_separators.jsonl": (42, 0),
    "utf16le_bom.jsonl": "is UTF-16; convert with: iconv -f UTF-16 -t UTF-8",
    "whole_file_latin1.jsonl": (30, 30),
    "wide_10000_keys.jsonl": (1, 0),
    "zstd_named.jsonl.gz": "holds zstd data, not what its name says; end its name in .zst",
}


@pytest.mark.parametrize("name", DIRTY)
def test_dirty_files(shared_data: Path, name: str) -> None:
    source = expand([str(shared_data / "dirty" / name)])[0]
    expected = DIRTY[name]
    rows = bad = 0
    try:
        with DocumentReader(source, ["text"]) as reader:
            for part in reader:
                rows, bad = rows + len(part.fields["text"]), bad + len(part.bad)
    except UserError as error:
        assert str(error).startswith(f"{source.url}: {expected}")
    else:
        assert (rows, bad) == expected


def test_the_table_of_dirty_files_is_complete(shared_data: Path) -> None:
    assert set(DIRTY) == {path.name for path in (shared_data / "dirty").iterdir()} - {"MANIFEST.json"}
