"""Documents written as new shards: of chosen fields, each text once, cut to a size.

A sample that further steps read has its rows for ids, so that what they find of a document leads back to its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from dvsel.documents.columns import Column, Kind
from dvsel.documents.hashing import hash_rows


def distinct_rows(text: Column) -> npt.NDArray[np.int64]:
    """Return the first row of each text, int64 (k,), ascending."""
    _, first = np.unique(hash_rows(text), return_index=True)
    return np.sort(first)


def row_ids(count: int) -> Column:
    """Return the rows' own numbers, from 0, as ids."""
    return Column.of([b"%d" % row for row in range(count)])


def shard_name(number: int) -> str:
    """Return the name of a shard, by its number from 0."""
    return f"{number:05}.jsonl"


def named_shards(lines: Iterable[bytes], size: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each shard, which ends with the line that brings it to `size` bytes or more."""
    number, content = 0, bytearray()
    for line in lines:
        content += line
        if len(content) >= size:
            yield shard_name(number), bytes(content)
            number, content = number + 1, bytearray()
    if content:
        yield shard_name(number), bytes(content)


def json_lines(fields: Mapping[str, Column], rows: npt.NDArray[np.integer]) -> Iterator[bytes]:
    """Yield the documents of these rows as lines of JSON. fields: their columns, by path."""
    inner_first = sorted(fields.items(), key=lambda one: -one[0].count("."))  # an object has its fields
    for row in rows.tolist():
        document: dict[str, Any] = {}
        for path, column in inner_first:
            if column.kind[row] != Kind.MISSING:
                _place(document, path, _value(column, row))
        yield orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _place(document: dict[str, Any], path: str, value: object) -> None:
    *above, name = path.split(".")
    for one in above:
        document = document.setdefault(one, {})
    document[name] = value


def _value(column: Column, row: int) -> object:
    if column.kind[row] == Kind.STRING:
        return column[row].decode(errors="replace")
    return None if column.kind[row] == Kind.NULL else orjson.Fragment(column[row])
