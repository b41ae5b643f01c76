"""Rows of tables as JSON Lines; docs/bad-input.md says what becomes of which type.

What JSON cannot hold is refused by the column's name: two members of one name, bytes that are not UTF-8, and types that
`arrow_types` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pyarrow as pa

from dvsel.errors import UserError
from dvsel.shards import arrow_types
from dvsel.shards.arrow_values import written
from dvsel.shards.tables import TableReader
from dvsel.storage.places import Shard

_REMEDY = "write to a folder (-o FOLDER), which keeps the format"


def check_columns(shard: Shard) -> None:
    """Raise UserError for a shard whose rows cannot be JSON objects, before one is written."""
    if shard.format == "jsonl":
        return
    with TableReader(shard, (), whole_rows=True) as reader:
        schema, place = reader.schema(), shard.url
    if (twice := arrow_types.repeated(schema.names)) is not None:
        raise UserError(f"{place}: has two columns {twice!r}, and a JSON object has one member of a name; {_REMEDY}")
    for field in schema:
        if (twice := arrow_types.repeated_name(field.type)) is not None:
            raise UserError(
                f"{place}: column {field.name!r} holds two fields {twice!r}, and a JSON object has one member of a "
                f"name; {_REMEDY}"
            )


def json_lines(batch: pa.RecordBatch, place: str) -> Iterator[bytes]:
    """Write each row as a line, with its LF. place: the shard, for the error."""
    names = batch.schema.names
    values = [_values(column, name, place) for name, column in zip(names, batch.columns, strict=True)]
    for row in zip(*values, strict=True):
        yield orjson.dumps(dict(zip(names, row, strict=True))) + b"\n"


def _values(column: pa.Array, name: str, place: str) -> list[object]:
    try:
        return written(column).to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: column {name!r} holds bytes that are not UTF-8, which JSON cannot hold; {_REMEDY}"
        ) from error
