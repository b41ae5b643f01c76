"""Arrow arrays of every type: pyarrow's own conversion to Python objects is the truth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import arrow_arrays
from dvsel.shards import arrow_types
from dvsel.shards.arrow_values import ordinary, row_sizes, written

READ = arrow_arrays.all_of(arrow_arrays.simple())
REFUSED = arrow_arrays.all_of(arrow_arrays.refused())
# What JSON makes of the simple types: the first and the last of three rows. The second is null.
JSON: dict[str, tuple[Any, Any]] = {
    "null": (None, None),
    "bool": (True, False),
    "float16": (0.5, 2.0),
    "float32": (0.1, None),
    "float64": (0.1, None),
    "fixed_size_binary": ("abc", "def"),
    "date32": ("2024-01-02", "0001-01-01"),
    "date64": ("2024-01-02", "0001-01-01"),
    "fixed_size_list": ([1, 2], [3, 4]),
    "struct": ({"n": 1}, {"n": None}),
    "map": ([{"key": "k", "value": 1}], []),
    "uuid": ("30303030-3030-3030-3030-303030303030", "00000000-0000-0000-0000-000000000000"),
    "json": ("{}", "1"),
    "bool8": (0, 1),
    "tensor": ([1, 2], [3, 4]),
    "decimal128": ("1.50", "-2.25"),
    "time32 s": ("00:00:01", "00:00:03"),
    "time64 ns": ("00:00:00.000000001", "00:00:00.000000003"),
    "timestamp s": ("1970-01-01T00:00:01", "1970-01-01T00:00:03"),
    "timestamp ns": ("1970-01-01T00:00:00.000000001", "1970-01-01T00:00:00.000000003"),
    "timestamp ms, Berlin": ("1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.003Z"),
    "duration s": ("PT1S", "PT-3S"),
    "duration us": ("PT0.000001S", "PT-0.000003S"),
}


@pytest.mark.parametrize("name", READ)
def test_an_ordinary_array_has_the_same_values(name: str) -> None:
    array = READ[name]
    made = ordinary(array)
    made.validate(full=True)
    for word in ("view", "run_end"):
        assert word not in str(made.type)
    for rows in (slice(0, 3), slice(1, 3)):
        part = ordinary(array[rows])
        part.validate(full=True)
        assert _plain(part.to_pylist()) == _plain(array.to_pylist()[rows])


def _plain(value: Any) -> Any:
    """A Python object in a form that can be compared: entries of maps as dictionaries, no types of extensions."""
    if isinstance(value, tuple):
        value = {"key": value[0], "value": value[1]}
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(member) for member in value]
    value = getattr(value, "bytes", value)
    return "nan" if value != value else value


@pytest.mark.parametrize("name", READ)
def test_every_type_has_a_form_in_json(name: str) -> None:
    made = written(READ[name])
    made.validate(full=True)
    json.dumps(made.to_pylist())


@pytest.mark.parametrize("name", JSON)
def test_the_form_in_json(name: str) -> None:
    first, last = JSON[name]
    assert repr(written(READ[name]).to_pylist()) == repr([first, None, last])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named(name: str) -> None:
    kind = next(kind for kind in arrow_arrays.refused() if kind in name)
    assert arrow_types.refusal(REFUSED[name].type) == f"of Arrow's type {kind}"
    assert not any(map(arrow_types.refusal, (array.type for array in READ.values())))


def test_types_without_an_end_are_refused() -> None:
    type_ = pa.int8()
    for _ in range(100):
        type_ = pa.list_(type_)
    assert arrow_types.refusal(type_) == "nested more than 64 levels deep"


@pytest.mark.parametrize("name", READ)
def test_sizes_of_rows(name: str) -> None:
    array = READ[name]
    sizes = row_sizes(array)
    assert sizes.dtype == np.float64 and sizes.shape == (3,)
    np.testing.assert_array_equal(row_sizes(array[1:]), sizes[1:])


def test_sizes_count_what_is_said_often_as_often() -> None:
    long = pa.array(["x" * 1000, "y"])
    thrice = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), long)
    assert row_sizes(thrice).tolist() == [1000, 1, 1000]
    assert row_sizes(pa.ListArray.from_arrays([0, 2, 3], thrice)).tolist() == [1001, 1000]
    assert row_sizes(pa.ListViewArray.from_arrays([0, 0], [3, 2], thrice)).tolist() == [2001, 1001]
    assert row_sizes(pa.RunEndEncodedArray.from_arrays([3, 4], long)).tolist() == [1000] * 3 + [1]
    assert row_sizes(pa.array(["x" * 1000, None], pa.string_view())).tolist() == [1000, 0]


def test_strings_that_are_not_utf_8_can_be_looked_at_as_bytes() -> None:
    for name, array in READ.items():
        storage = array.storage if arrow_types.is_extension(array.type) else array
        plain = arrow_types.as_bytes(array.type)
        assert "runs" in name or "string" not in str(plain)
        storage.view(plain).validate(full=True)
