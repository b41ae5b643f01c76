"""Parquet and Arrow shards of every type, damaged, cut off while they are read, and small files that say much."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

import arrow_arrays
from arrow_arrays import store, values
from commands import environment
from dvsel.documents.columns import Kind
from dvsel.errors import UserError
from dvsel.shards import tables
from dvsel.shards.expand import expand
from dvsel.shards.reader import DocumentBlock, DocumentReader
from dvsel.storage.places import Shard, open_read, remove

READ = arrow_arrays.all_of(arrow_arrays.simple())
REFUSED = arrow_arrays.all_of(arrow_arrays.refused())
NO_VALUE = ("None", "nan", "inf")
FORMATS = ("a.parquet", "a.arrow", "file.arrow")


def read(shard: Shard, *paths: str, whole_rows: bool = False, block: int = 1 << 20) -> list[DocumentBlock]:
    with DocumentReader(shard, paths, whole_rows=whole_rows, block=block) as reader:
        return list(reader)


# --- Types. ---


@pytest.mark.parametrize("name", ["a.arrow", "file.arrow"])
def test_every_type_can_be_a_field_and_part_of_a_row(name: str, tmp_path: Path) -> None:
    source = store(str(tmp_path), pa.table(READ), name)
    (found,) = read(source, *READ)
    (whole,) = read(source, whole_rows=True)
    assert found.bad == {} and whole.table is not None
    assert whole.table.schema.names == list(READ)
    for column, array in READ.items():
        there = array.to_pylist()
        assert (found.fields[column].kind == Kind.NULL).tolist() == [str(value) in NO_VALUE for value in there], column
        assert [value is None for value in values(found.fields[column])] == [str(value) in NO_VALUE for value in there]
        assert [value is None for value in whole.table.column(column).to_pylist()] == [value is None for value in there]


@pytest.mark.parametrize("name", REFUSED)
def test_a_type_that_cannot_be_read_is_refused_by_name(name: str, tmp_path: Path) -> None:
    source = store(str(tmp_path), pa.table({"text": ["a"] * 3, "odd": REFUSED[name]}), "a.arrow")
    (found,) = read(source, "text")
    assert values(found.fields["text"]) == ["a"] * 3
    with pytest.raises(UserError, match=r"a\.arrow: field 'odd\.x' is of Arrow's type .*; write it as another type"):
        read(source, "odd.x")
    with pytest.raises(UserError, match=r"a\.arrow: column 'odd' is of Arrow's type .*; write the file without it"):
        read(source, whole_rows=True)


@pytest.mark.parametrize("name", FORMATS)
def test_two_fields_of_the_wanted_name_are_refused(name: str, tmp_path: Path) -> None:
    numbers = pa.array([1, 2])
    twice = pa.StructArray.from_arrays([numbers, numbers], ["n", "n"])
    columns = {"text": pa.array(["a", "b"]), "id": numbers, "meta": twice}
    table = pa.Table.from_arrays([*columns.values(), numbers], [*columns, "id"])
    source = store(str(tmp_path), table, name)
    (found,) = read(source, "text")
    assert values(found.fields["text"]) == ["a", "b"]
    for path, message in {
        "id": "field 'id' is there twice ('id'); rename one",
        "id.more": "field 'id.more' is there twice ('id'); rename one",
        "meta.n": "field 'meta.n' is there twice ('n'); rename one",
        "meta": "field 'meta' holds two fields 'n'; rename one",
    }.items():
        with pytest.raises(UserError) as caught:
            read(source, path)
        assert str(caught.value) == f"{source.url}: {message}"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("a.parquet", b"meta"), ("a.parquet", b"lang"), ("a.arrow", b"meta"), ("file.arrow", b"lang"),
     ("a.arrow", b"Europe/Berlin")],
)  # fmt: skip
def test_a_name_that_is_not_utf_8_breaks_the_file(name: str, wrong: bytes, tmp_path: Path) -> None:
    when = pa.array([1], pa.timestamp("ms", "Europe/Berlin"))
    meta = pa.StructArray.from_arrays([pa.array(["en"]), when], ["lang", "when"])
    source = store(str(tmp_path), pa.table({"text": ["a"], "meta": meta}), name)
    Path(source.url).write_bytes(Path(source.url).read_bytes().replace(wrong, b"\xff" + wrong[1:]))
    for whole_rows in (False, True):
        with pytest.raises(UserError, match=rf"{name}: broken .* file .*can't decode"):
            read(expand([source.url])[0], "meta", whole_rows=whole_rows)


@pytest.mark.parametrize("name", FORMATS)
def test_dictionaries_stay_in_whole_rows(name: str, tmp_path: Path) -> None:
    table = pa.table({"lang": pa.array(["en", None, "de"] * 300).dictionary_encode()})
    found = read(store(str(tmp_path), table, name), whole_rows=True)
    assert pa.Table.from_batches([part.table for part in found]).cast(table.schema).equals(table)
    assert {part.table.schema.field("lang").type for part in found if part.table} == {table.schema.field("lang").type}


def test_bytes_inside_an_array_that_are_not_utf_8_make_its_row_bad(tmp_path: Path) -> None:
    source = store(str(tmp_path), pa.table({"tags": [[b"a"], [b"caf\xe9"], None]}), "a.arrow")
    (found,) = read(source, "tags")
    assert found.bad == {1: "field 'tags' is not UTF-8 (byte 0xE9)"}
    assert values(found.fields["tags"]) == [["a"], None, None]


# --- Damage. ---


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "change", [lambda path: os.truncate(path, 4096), lambda path: path.write_bytes(bytes(1 << 21))]
)
def test_a_file_that_is_damaged_while_it_is_read(name: str, change: Callable[[Path], None], tmp_path: Path) -> None:
    texts = [random.Random(row).randbytes(500).hex() for row in range(4000)]
    place = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), place, row_group_size=1000)
    else:
        new = pa.ipc.new_file if name == "file.arrow" else pa.ipc.new_stream
        with new(place, pa.schema({"text": pa.string()})) as writer:
            writer.write_table(pa.table({"text": texts}), max_chunksize=1000)
    with DocumentReader(expand([str(place)])[0], ["text"], block=1 << 19) as reader:
        parts = iter(reader)
        assert values(next(parts).fields["text"])[0] == texts[0]
        change(place)
        with pytest.raises(UserError, match=rf"{name}: (broken .* file \(.*\); copy|changed while it was read)"):
            list(parts)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_no_flipped_bit_of_a_page_with_a_checksum_passes(compression: str, version: str, tmp_path: Path) -> None:
    place = tmp_path / "a.parquet"
    table = pa.table({"text": ["a text", "another text", None] * 20, "id": range(60)})
    pq.write_table(table, place, compression=compression, data_page_version=version, write_page_checksum=True,
                   write_statistics=False)  # fmt: skip
    column, content, passed = pq.read_metadata(place).row_group(0).column(1), place.read_bytes(), 0
    end = column.dictionary_page_offset + column.total_compressed_size
    for at in range(4, end):
        place.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        try:
            found = read(expand([str(place)])[0], "text", "id")
        except UserError:
            continue
        passed += 1
        assert [text for part in found for text in values(part.fields["text"])] == table["text"].to_pylist()
        assert [name for part in found for name in values(part.fields["id"])] == table["id"].to_pylist()
    assert passed < end / 4, "more than what page headers repeat"


_AT = 1111
# Arrays in which the number _AT leads somewhere; and a number that leads outside, or backwards.
INCONSISTENT: dict[str, tuple[Any, int]] = {
    "index": (pa.DictionaryArray.from_arrays(pa.array([0, _AT], pa.int32()), pa.array(["a"] * 2000)), 3000),
    "negative index": (pa.DictionaryArray.from_arrays(pa.array([0, _AT], pa.int32()), pa.array(["a"] * 2000)), -1),
    "offset": (pa.array(["a" * _AT, "b"]), 1 << 30),
    "negative offset": (pa.array(["a" * _AT, "b"]), -5),
    "offset of a list": (pa.array([[True] * _AT, [False]]), 1 << 30),
    "offset of a map": (pa.array([[("a", True)] * _AT, []], pa.map_(pa.string(), pa.bool_())), 1 << 30),
    "size of a view": (pa.array(["a" * _AT, "b"], pa.string_view()), 1 << 30),
    "size of a list view": (pa.array([[True] * _AT, [False]], pa.list_view(pa.bool_())), 1 << 30),
    "end of a run": (pa.RunEndEncodedArray.from_arrays(pa.array([_AT, 2222], pa.int32()), pa.array(["a", "b"])), 3000),
}


def test_lengths_that_differ_inside_runs_are_no_crash(tmp_path: Path) -> None:
    inner = pa.RunEndEncodedArray.from_arrays(pa.array([2, _AT], pa.int32()), pa.array(["a", "b"]))
    runs = pa.RunEndEncodedArray.from_arrays(pa.array(np.arange(1, _AT + 1, dtype=np.int32)), inner)
    source = store(str(tmp_path), pa.table({"x": runs}), "a.arrow")
    content, length = Path(source.url).read_bytes(), struct.pack("<q", _AT)
    stated = [found.start() for found in re.finditer(re.escape(length), content)][:4]
    for at in stated:
        Path(source.url).write_bytes(content[:at] + struct.pack("<q", _AT + 5) + content[at + 8 :])
        with pytest.raises(UserError, match="broken Arrow file"):
            read(expand([source.url])[0], "x")


@pytest.mark.parametrize("name", INCONSISTENT)
@pytest.mark.parametrize("whole_rows", [False, True])
def test_an_inconsistent_arrow_file_is_broken(name: str, whole_rows: bool, tmp_path: Path) -> None:
    array, wrong = INCONSISTENT[name]
    for column in (array, pa.StructArray.from_arrays([array], ["x"])):
        source = store(str(tmp_path), pa.table({"x": column}), "a.arrow")
        content = Path(source.url).read_bytes()
        at = content.rindex(struct.pack("<i", _AT))
        Path(source.url).write_bytes(content[:at] + struct.pack("<i", wrong) + content[at + 4 :])
        with pytest.raises(UserError, match="broken Arrow file"):
            read(expand([source.url])[0], "x", whole_rows=whole_rows)


# --- Size. ---

MEASURE = """
import resource, sys
from dvsel.shards.reader import DocumentReader
from dvsel.shards.expand import expand

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

before, rows, size = peak(), 0, 0
with DocumentReader(expand([sys.argv[1]])[0], sys.argv[2:3], whole_rows=len(sys.argv) > 3) as reader:
    for found in reader:
        column = found.fields[sys.argv[2]]
        rows, size = rows + len(column), size + int(column.offsets[-1])
print(rows, size, peak() - before)
"""
LONG = "x" * 72_000
OFTEN = 1 << 14


def repeated() -> dict[str, tuple[str, Any]]:
    """Small columns of `OFTEN` rows that come to 1.2 GB: the path to the texts, and an array."""
    often = pa.DictionaryArray.from_arrays(pa.array(np.zeros(OFTEN, np.int32)), pa.array([LONG]))
    late = pa.DictionaryArray.from_arrays(pa.array([0] * OFTEN + [1] * OFTEN, pa.int32()), pa.array(["a", LONG]))
    single = pa.LargeListArray.from_arrays(np.arange(OFTEN + 1), often)
    view = pa.array([LONG], pa.string_view()).buffers()
    views = [None, pa.py_buffer(view[1].to_pybytes() * OFTEN), *view[2:]]
    return {
        "dictionary": ("text", often),
        "dictionary, small values first": ("text", late),
        "lists of a struct": ("text.list", pa.StructArray.from_arrays([single], ["list"])),
        "runs": ("text", pa.RunEndEncodedArray.from_arrays(pa.array([OFTEN], pa.int32()), pa.array([LONG]))),
        "views": ("text", pa.Array.from_buffers(pa.string_view(), OFTEN, views)),
    }


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("dictionary", "a.parquet"),
        ("dictionary, small values first", "a.parquet"),
        ("dictionary", "a.arrow"),
        *(
            pytest.param(column, name, marks=pytest.mark.slow)
            for column, name in [
                ("lists of a struct", "a.parquet"),
                ("lists of a struct", "a.arrow"),
                ("runs", "a.arrow"),
                ("views", "file.arrow"),
            ]
        ),
    ],
)
@pytest.mark.parametrize("whole_rows", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_small_file_that_says_much_takes_little_memory(
    column: str, name: str, whole_rows: bool, tmp_path: Path
) -> None:
    path, array = repeated()[column]
    place = tmp_path / name
    if name == "a.parquet":
        pq.write_table(pa.table({"text": array}), place, store_schema=False)
    else:
        store(str(tmp_path), pa.table({"text": array}), name)
    assert place.stat().st_size < 2 << 20
    words = [sys.executable, "-c", MEASURE, str(place), path, *["whole"] * whole_rows]
    answer = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    rows, size, more = map(int, answer.stdout.split())
    assert rows == len(array) and size >= OFTEN * len(LONG)
    assert more < 250, f"{more} MB"


def test_rows_above_a_gigabyte_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_LARGEST_ROW", 1000)
    table = pa.table({"text": pa.array(["x" * 2000, "a"]).dictionary_encode()})
    with pytest.raises(UserError, match=r"a\.arrow: a row is larger than .*; leave it out"):
        read(store(str(tmp_path), table, "a.arrow"), "text")


WITHOUT_BYTES = {
    "nulls": pa.nulls(MANY := 1 << 30),
    "empty structs": pa.StructArray.from_buffers(pa.struct([]), MANY, [None]),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([MANY], pa.int32()), ["a"]),
}


@pytest.mark.parametrize("name", WITHOUT_BYTES)
def test_a_number_of_values_that_no_bytes_stand_for(name: str, tmp_path: Path) -> None:
    """Rows come in parts; a single row of so many is refused."""
    array = WITHOUT_BYTES[name]
    with DocumentReader(store(str(tmp_path), pa.table({"x": array}), "a.arrow"), ["x"], whole_rows=True) as reader:
        assert len(next(iter(reader)).fields["x"]) <= 1 << 16
    single = store(str(tmp_path), pa.table({"x": pa.LargeListArray.from_arrays([0, MANY], array)}), "b.arrow")
    for whole_rows in (False, True):
        with pytest.raises(UserError, match=f"{MANY} values"):
            read(single, "x", whole_rows=whole_rows)


@pytest.mark.parametrize("name", ["a.arrow", "file.arrow"])
@pytest.mark.parametrize("whole_rows", [False, True])
def test_a_large_batch_is_read_from_a_copy(
    name: str, whole_rows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes written over the file afterwards do not show."""
    monkeypatch.setattr(tables, "_HELD", 1000)
    texts = [f"{row:01000}" for row in range(100)]
    source = store(str(tmp_path), pa.table({"text": texts, "id": range(100)}), name)
    with DocumentReader(source, ["text"], whole_rows=whole_rows, block=5000) as reader:
        parts = iter(reader)
        found = values(next(parts).fields["text"])
        Path(source.url).write_bytes(bytes(source.size))
        with pytest.raises(UserError, match="changed while it was read"):
            for part in parts:
                found += values(part.fields["text"])
    assert found == texts


def test_the_digest_of_a_remote_arrow_file_is_of_all_its_bytes() -> None:
    base = f"memory://{uuid4().hex}"
    source = store(base, pa.table({"text": ["a", "b"]}), "a.arrow")
    with open_read(source.url) as file:
        expected = xxhash.xxh3_128_hexdigest(file.read())
    with DocumentReader(source, ["text"]) as reader:
        list(reader)
        assert reader.digest() == expected
    remove(base)
