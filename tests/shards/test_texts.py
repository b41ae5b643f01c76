"""The text out of one field or several: the same as its definition says, whatever the format."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrow_arrays import store
from dvsel.documents.columns import Column, Kind, Status
from dvsel.pool.read import PoolReader
from dvsel.runs.requests import Reading
from dvsel.shards.texts import joined

BAD = object()
_REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def value(part: Any) -> Any:
    """A part of the text: a string, None for none, BAD for what is not text."""
    if isinstance(part, list):
        strings = [one for one in part if one is not None]
        return "\n".join(strings) if all(isinstance(one, str) for one in strings) else BAD
    return part if part is None or isinstance(part, str) else BAD


def definition(document: dict[str, Any], fields: list[str]) -> Any:
    """The text of a document, or BAD."""
    values = [value(document.get(name)) for name in fields]
    if BAD in values or all(one is None for one in values):
        return BAD
    return "\n\n".join(one for one in values if one)


def texts(source: Any, text_field: str) -> list[Any]:
    reading, found = Reading(text_field=text_field, on_bad_line="skip"), []
    with PoolReader(source, reading) as pool:
        for batch in pool:
            bad = (batch.status == Status.BAD_LINE).tolist()
            found += [BAD if no else batch.text[row].decode() for row, no in enumerate(bad)]
    return found


def of_stream(documents: list[dict[str, Any]], text_field: str) -> list[Any]:
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    return texts(io.BytesIO(lines.encode()), text_field)


def of_table(path: Path, documents: list[dict[str, Any]], text_field: str, types: dict[str, pa.DataType]) -> list[Any]:
    columns = {name: pa.array([one.get(name) for one in documents], type_) for name, type_ in types.items()}
    shard = store(str(path.parent), pa.table(columns), path.name)
    return texts(shard, text_field)


strings = st.text(st.characters(codec="utf-8"), max_size=90)
lists = st.lists(st.none() | strings, max_size=4)
anything = st.none() | strings | lists | st.integers() | st.booleans() | st.just({"x": "y"}) | st.lists(st.integers())
documents = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "c"]), anything | strings, max_size=3), min_size=1, max_size=30
)


@_REUSED
@given(documents=documents, fields=st.permutations(["a", "b", "c"]), count=st.integers(1, 3))
def test_lines_are_read_as_defined(documents: list[dict[str, Any]], fields: list[str], count: int) -> None:
    expected = [definition(document, fields[:count]) for document in documents]
    assert of_stream(documents, ",".join(fields[:count])) == expected


tables = st.lists(
    st.fixed_dictionaries({}, optional={"a": st.none() | strings, "b": st.none() | lists, "c": st.none() | lists}),
    min_size=1,
    max_size=30,
)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@_REUSED
@given(documents=tables, fields=st.permutations(["a", "b", "c"]), count=st.integers(1, 3))
def test_tables_are_read_as_lines_are(
    suffix: str, documents: list[dict[str, Any]], fields: list[str], count: int, tmp_path: Path
) -> None:
    types = {"a": pa.string(), "b": pa.list_(pa.string()), "c": pa.large_list(pa.large_string())}
    text_field = ",".join(fields[:count])
    found = of_table(tmp_path / f"a{suffix}", documents, text_field, types)
    assert found == [definition(document, fields[:count]) for document in documents]


@pytest.mark.parametrize(
    "type_",
    [
        pa.list_(pa.string(), 2),
        pa.list_(pa.binary()),
        pa.list_(pa.dictionary(pa.int32(), pa.string())),
        pa.list_(pa.string_view()),
    ],
)
def test_lists_of_strings_of_any_type(type_: pa.DataType, tmp_path: Path) -> None:
    documents = [{"a": ["é", "b"]}, {"a": ["", None]}, {"a": None}, {"a": ["c", "d"]}]
    rows = [{"a": [one if one is None else one.encode() for one in row["a"]]} if row["a"] else row for row in documents]  # type: ignore[index]
    is_bytes = pa.types.is_binary(type_.value_type)
    assert of_table(tmp_path / "a.arrow", rows if is_bytes else documents, "a", {"a": type_}) == [  # type: ignore[arg-type]
        "é\nb",
        "",
        BAD,
        "c\nd",
    ]


def test_a_part_that_is_not_utf_8_makes_a_bad_row(tmp_path: Path) -> None:
    types = {"a": pa.list_(pa.binary()), "b": pa.string()}
    found = of_table(tmp_path / "a.parquet", [{"a": [b"\xff"], "b": "x"}, {"a": [b"y"]}], "a,b", types)
    assert found == [BAD, "y"]


def test_one_column_is_not_copied() -> None:
    column = Column.of([b"a"])
    assert joined([column]) is column


def test_the_kind_of_a_text_is_that_of_its_worst_part() -> None:
    one, other = Column.of([b"a", None, b"", b"1"]), Column.of([None, None, b"", b"b"])
    one.kind[:] = [Kind.STRING, Kind.NULL, Kind.STRING, Kind.NUMBER]
    text = joined([one, other])
    assert text.kind.tolist() == [Kind.STRING, Kind.NULL, Kind.STRING, Kind.NUMBER]
    assert [text[row] for row in range(3)] == [b"a", b"", b""]
    assert len(text.data) - int(text.offsets[-1]) >= 64 and text.offsets.dtype == np.int64
