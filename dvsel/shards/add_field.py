"""Add a member to a document that is not parsed: a score or a weight, to a line or to a row of a table."""

from __future__ import annotations

import json
import re

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from dvsel.errors import UserError


def with_member(line: bytes, name: str, value: bytes, is_there: bool) -> bytes:
    """A JSON object, with this member as its last.

    value: JSON. is_there: whether it has a member of that name, which is then left out.
    """
    line = line.rstrip(b" \t\r\n")
    if is_there:
        line = _without_member(line, name)
    inner = line[:-1].rstrip(b" \t")
    comma = b"" if inner.endswith(b"{") else b","
    return line[:-1] + comma + orjson.dumps(name) + b":" + value + b"}"


def _without_member(line: bytes, name: str) -> bytes:
    """Return a JSON object without a member: byte for byte where dvsel put it at the end, else written again."""
    member = rb",\s*" + re.escape(orjson.dumps(name)) + rb"\s*:\s*(?:[-+.\w]+|\{[^{}]*\})\s*\}$"
    if found := re.search(member, line):
        return line[: found.start()] + b"}"
    # Not orjson, which turns integers of more than 64 bits into floats.
    return json.dumps({key: value for key, value in json.loads(line).items() if key != name}).encode()


def with_column(batch: pa.RecordBatch, name: str, values: npt.NDArray[np.float32], place: str) -> pa.RecordBatch:
    """The rows with a column of numbers, in the place of one of that name or as the last.

    place: the shard. Raises UserError where two columns have that name.
    """
    there = batch.schema.get_all_field_indices(name)
    if len(there) > 1:
        raise UserError(f"{place}: has {len(there)} columns {name!r}; rename all but one, which is then replaced")
    column, field, columns = pa.array(values), pa.field(name, pa.float32()), batch.columns
    if not there:
        return pa.RecordBatch.from_arrays([*columns, column], schema=batch.schema.append(field))
    columns[there[0]] = column
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema.set(there[0], field))


def as_json(value: np.float32) -> bytes:
    """Return the shortest JSON that reads back as the same float32; null for NaN and infinity."""
    return str(value).encode() if np.isfinite(value) else b"null"
