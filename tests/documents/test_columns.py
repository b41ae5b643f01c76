"""Columns against plain Python lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvsel.documents.columns import PAD, Batch, Column, Kind

rows_of_bytes = st.lists(st.none() | st.binary(max_size=80), max_size=20)


def plain(column: Column) -> list[bytes]:
    return [column[row] for row in range(len(column))]


def check_whole(column: Column) -> None:
    """Check what every kernel relies on."""
    assert column.data.dtype == np.uint8 and column.offsets.dtype == np.int64 and column.kind.dtype == np.uint8
    assert len(column.data) >= column.offsets[-1] + PAD
    assert column.offsets[0] == 0 and (np.diff(column.offsets) >= 0).all()
    assert len(column) == len(column.kind) == len(column.sizes)


@given(rows_of_bytes)
def test_a_column_holds_its_rows(rows: list[bytes | None]) -> None:
    column = Column.of(rows)
    check_whole(column)
    assert plain(column) == [row or b"" for row in rows]
    assert column.sizes.tolist() == [len(row or b"") for row in rows]
    assert column.kind.tolist() == [Kind.MISSING if row is None else Kind.STRING for row in rows]


def test_kinds_may_be_given() -> None:
    column = Column.of([None, b"5", b"x"], [Kind.NULL, Kind.NUMBER, Kind.STRING])
    assert column.kind.tolist() == [Kind.NULL, Kind.NUMBER, Kind.STRING]


@given(rows_of_bytes.filter(len), st.data())
def test_taking_rows_is_indexing(rows: list[bytes | None], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    taken = Column.of(rows).take(np.array(chosen, np.int64))
    check_whole(taken)
    assert plain(taken) == [rows[row] or b"" for row in chosen]
    assert taken.kind.tolist() == [Column.of(rows).kind[row] for row in chosen]


@given(st.lists(rows_of_bytes, min_size=1, max_size=5))
def test_joining_is_concatenation(parts: list[list[bytes | None]]) -> None:
    joined = Column.join([Column.of(part) for part in parts])
    check_whole(joined)
    whole = Column.of([row for part in parts for row in part])
    assert plain(joined) == plain(whole)
    assert joined.kind.tolist() == whole.kind.tolist()


def test_a_batch_of_strings_is_utf8() -> None:
    batch = Batch.of(["", "café", "\0", "🙂"])
    check_whole(batch.text)
    assert len(batch) == 4 and not batch.columns
    assert [row.decode() for row in plain(batch.text)] == ["", "café", "\0", "🙂"]
    assert len(Batch.of([])) == 0


def test_columns_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        Column.of([b"x"]).data = np.zeros(1, np.uint8)  # type: ignore[misc]


@given(st.lists(st.sampled_from([None, b"", b"a", b"longer"]), max_size=8), st.data())
def test_rows_are_emptied_and_filled(rows: list[bytes | None], data: st.DataObject) -> None:
    column = Column.of(rows)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1)))) if rows else []
    without = column.without(np.array(chosen, np.int64))
    expected = [b"" if row in chosen else value for row, value in enumerate(rows)]
    assert [without[row] for row in range(len(rows))] == [value or b"" for value in expected]
    assert without.kind.tolist() == Column.of(expected).kind.tolist()
    filled = without.put(np.array(chosen, np.int64), [b"%d" % row for row in chosen], [Kind.NUMBER] * len(chosen))
    assert [filled[row] for row in chosen] == [b"%d" % row for row in chosen]
    assert [filled[row] for row in range(len(rows)) if row not in chosen] == [
        value or b"" for row, value in enumerate(rows) if row not in chosen
    ]
    assert all(len(one.data) >= one.offsets[-1] + PAD for one in (without, filled))
