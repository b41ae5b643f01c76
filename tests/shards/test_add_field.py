"""Add a member to a line or a row: at the end, or in the place of one of that name, all else as it was."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvsel.errors import UserError
from dvsel.shards.add_field import as_json, with_column, with_member

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(document=st.dictionaries(st.text(), VALUES, max_size=5), name=st.text(min_size=1), spaced=st.booleans())
def test_the_line_has_the_member_last_and_all_others(document: dict[str, object], name: str, spaced: bool) -> None:
    line = json.dumps(document, separators=None if spaced else (",", ":"), ensure_ascii=False)
    made = with_member(line.encode("utf-8", "surrogatepass"), _plain(name), b"1.5", _plain(name) in document)
    found = json.loads(made.decode("utf-8", "surrogatepass"))
    assert list(found)[-1] == _plain(name)
    assert found == {**document, _plain(name): 1.5}


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a": 1}', b'{"a": 1,"w":2}'),
        (b"{}", b'{"w":2}'),
        (b"{ }\r", b'{ "w":2}'),
        (b'{"a": 1} \n', b'{"a": 1,"w":2}'),
    ],
)
def test_bytes_stay(line: bytes, expected: bytes) -> None:
    assert with_member(line, "w", b"2", is_there=False) == expected


def test_a_member_that_dvsel_wrote_is_replaced_byte_for_byte() -> None:
    line = b'{"a":  [1, 2],"w":0.25}'
    assert with_member(line, "w", b"2", is_there=True) == b'{"a":  [1, 2],"w":2}'


@pytest.mark.parametrize("names", [["a"], ["w", "a"], ["a", "w"]])
def test_a_column_is_added_or_replaced_in_its_place(names: list[str]) -> None:
    batch = pa.RecordBatch.from_pydict({name: [1, 2] for name in names})
    made = with_column(batch, "w", np.array([0.5, 3], np.float32), "a.parquet")
    assert made.schema.names == (names if "w" in names else [*names, "w"])
    assert made.column("w").to_pylist() == [0.5, 3] and made.column("a").to_pylist() == [1, 2]


def test_two_columns_of_the_name_are_refused() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], ["w", "w"])
    with pytest.raises(UserError, match=r"a\.parquet: has 2 columns 'w'; rename"):
        with_column(batch, "w", np.zeros(1, np.float32), "a.parquet")


def test_no_rows_stay_no_rows() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1, 2]}).slice(0, 0)
    made = with_column(batch, "w", np.empty(0, np.float32), "a.parquet")
    assert made.schema.names == ["a", "w"] and len(made) == 0


def test_numbers_read_back_as_the_same_float32() -> None:
    for value in np.array([0.1, 1e-30, 12345678.0, -3.0], np.float32):
        assert np.float32(json.loads(as_json(value))) == value
    assert as_json(np.float32(np.nan)) == b"null"
