"""Rows of tables as JSON Lines: nothing lost in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import arrow_arrays
from arrow_arrays import store
from dvsel.errors import UserError
from dvsel.shards.json_rows import check_columns, json_lines

VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.list_(pa.string()): st.lists(st.none() | st.text()),
    pa.struct({"a": pa.int64(), "b": pa.list_(pa.bool_())}): st.fixed_dictionaries(
        {"a": st.none() | st.integers(0, 9), "b": st.none() | st.lists(st.booleans())}
    ),
}


@given(st.data())
def test_lines_read_back_as_the_rows(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 5))
    columns = {
        f"column {number}": pa.array(data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), type_)
        for number, (type_, values) in enumerate(VALUES.items())
    }
    batch = pa.RecordBatch.from_pydict(columns)
    assert [orjson.loads(line) for line in json_lines(batch, "a.parquet")] == batch.to_pylist()


def test_rows_of_every_type_are_lines() -> None:
    arrays = arrow_arrays.all_of(arrow_arrays.simple())
    first, second, _ = [json.loads(line) for line in json_lines(pa.RecordBatch.from_pydict(arrays), "a.arrow")]
    assert list(first) == list(arrays)
    assert first["timestamp us, Berlin"] == "1970-01-01T00:00:00.000001Z"
    assert first["map of decimal128"] == [{"key": "a", "value": "1.50"}]
    assert set(map(str, second.values())) >= {"None", "[]", "{'x': None}"}


@pytest.mark.parametrize(
    "column", [pa.array([b"ok", b"\xff"]), pa.array([[b"ok"], [b"\xff"]]), pa.array([b"\xff", None])]
)
def test_bytes_that_are_not_utf_8_are_refused_by_name(column: Any) -> None:
    batch = pa.RecordBatch.from_pydict({"id": [1, 2], "image": column})
    with pytest.raises(
        UserError, match=r"^a\.parquet: column 'image' holds bytes that are not UTF-8.*; write to a folder"
    ):
        list(json_lines(batch, "a.parquet"))


@pytest.mark.parametrize("member", ["n", ""])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "file.arrow"])
def test_names_that_are_there_twice_are_refused(name: str, member: str, tmp_path: Path) -> None:
    numbers = pa.array([1, 2])
    twice = pa.table([numbers, numbers], [member, member])
    nested = pa.table({"meta": pa.StructArray.from_arrays([numbers, numbers], [member, member])})
    union = arrow_arrays.refused()["sparse_union"]
    check_columns(store(str(tmp_path), pa.table({"n": numbers}), name))
    for table, message in [(twice, f"two columns '{member}'"), (nested, f"column 'meta' holds two fields '{member}'")]:
        with pytest.raises(UserError, match=rf"{name}: .*{message}.*; write to a folder"):
            check_columns(store(str(tmp_path), table, name))
    if name != "a.parquet":
        with pytest.raises(UserError, match=rf"{name}: column 'odd' is of Arrow's type sparse_union"):
            check_columns(store(str(tmp_path), pa.table({"odd": union}), name))
