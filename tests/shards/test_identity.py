"""Rows without an id are told apart by all that they hold."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column
from dvsel.documents.hashing import combine, hash_rows
from dvsel.shards.expand import expand
from dvsel.shards.identity import keys, row_hashes
from dvsel.shards.reader import DocumentReader


def keys_of(path: Path, *paths: str, id_field: str = "id") -> list[int]:
    found: list[int] = []
    with DocumentReader(expand([str(path)])[0], ["text", id_field, *paths]) as reader:
        reader.whole_where_without(id_field)
        for documents in reader:
            found += keys(documents, hash_rows(documents.fields["text"]), id_field).tolist()
    return found


SPACES = st.text(" \t\r", max_size=70).map(str.encode)


@settings(deadline=None)
@given(st.lists(st.tuples(SPACES, st.integers(0, 3).map(lambda n: b'{"text":"t","n":%d}' % n), SPACES), max_size=9))
def test_a_line_without_an_id_is_its_bytes_without_space_around_them(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[bytes, bytes, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(b"".join(b"".join(line) + b"\n" for line in lines))
    rests = np.array([xxhash.xxh64_intdigest(line) for _, line, _ in lines], np.uint64)
    assert keys_of(path) == combine(hash_rows(Column.of([b"t"] * len(lines))), rests).tolist()


def write(folder: Path, table: pa.Table, name: str) -> Path:
    if name.endswith(".parquet"):
        pq.write_table(table, folder / name)
    else:
        with pa.ipc.new_file(folder / name, table.schema) as writer:
            writer.write_table(table)
    return folder / name


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_only_rows_of_a_table_that_lack_the_id_are_known_by_all_of_it(tmp_path: Path, name: str) -> None:
    rows = {"text": ["t"] * 4, "id": ["a", None, None, "a"], "n": [1, 2, 3, 4]}
    found = keys_of(write(tmp_path, pa.table(rows), name))
    assert found[0] == found[3] and len(set(found)) == 3
    plain = keys_of(write(tmp_path, pa.table({"text": ["t"], "id": ["a"]}), name))
    assert found[0] == plain[0]
    assert len(set(keys_of(write(tmp_path, pa.table({"text": ["t"] * 3, "n": [1, 2, 1]}), name)))) == 2


@pytest.mark.parametrize(
    ("table", "whole"),
    [
        ({"text": ["t", "u"], "id": [1, 2], "n": [1, 2]}, False),
        ({"text": ["t", "u"], "id": [1, None], "n": [1, 2]}, True),
        ({"text": ["t", "u"], "n": [1, 2]}, True),
        ({"text": ["t", "u"], "id": [[1], [2]], "n": [1, 2]}, True),
    ],
)
def test_further_columns_are_read_only_where_an_id_may_be_missing(
    tmp_path: Path, table: dict[str, Any], whole: bool
) -> None:
    with DocumentReader(expand([str(write(tmp_path, pa.table(table), "a.parquet"))])[0], ["text", "id"]) as reader:
        reader.whole_where_without("id")
        (documents,) = reader
    assert (documents.table is not None) == whole


VALUES: dict[str, tuple[Any, Any, pa.DataType]] = {
    "text": ("a", "b", pa.string()),
    "large text": ("a", "b", pa.large_string()),
    "bytes": (b"\xff", b"\xfe", pa.binary()),
    "dictionary": ("a", "b", pa.dictionary(pa.int8(), pa.string())),
    "whole number": (1, 2, pa.int16()),
    "real number": (0.5, 0.25, pa.float64()),
    "truth": (True, False, pa.bool_()),
    "time": (datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 2), pa.timestamp("us")),
    "numbers": ([1.0, 2.0], [1.0], pa.list_(pa.float32())),
    "numbers and a null": ([1, None], [None, 1], pa.list_(pa.int32())),
    "vector": ([1.0, 2.0], [2.0, 1.0], pa.list_(pa.float16(), 2)),
    "many numbers": ([1], [1, 1], pa.large_list(pa.int64())),
    "texts": (["a", "bc"], ["ab", "c"], pa.list_(pa.string())),
    "object": ({"a": 1, "b": [2]}, {"a": 1, "b": [3]}, pa.struct({"a": pa.int8(), "b": pa.list_(pa.int8())})),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_column_of_every_type_tells_rows_apart(kind: str) -> None:
    first, second, type_ = VALUES[kind]
    array = pa.array([second, first, None, second, first], type_)
    a, b, null, c, d = row_hashes(pa.RecordBatch.from_arrays([array], ["x.y"])).tolist()
    assert a == c and b == d and len({a, b, null}) == 3
    sliced = row_hashes(pa.RecordBatch.from_arrays([array], ["x.y"]).slice(1, 3)).tolist()
    assert sliced == [b, null, c]


def test_neither_the_order_of_columns_nor_empty_ones_matter_but_names_do() -> None:
    def hashes(**columns: list[Any]) -> list[int]:
        return row_hashes(pa.RecordBatch.from_pydict(columns)).tolist()  # type: ignore[no-any-return]

    assert hashes(a=[1], b=["x"]) == hashes(b=["x"], a=[1]) == hashes(a=[1], b=["x"], c=[None])
    assert hashes(a=["x"], b=["y"]) != hashes(a=["y"], b=["x"])
    twice = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    assert row_hashes(twice).tolist() != hashes(a=[2])
