"""Columns of the fields that are wanted, from Arrow record batches.

Strings become a `Column` without a Python object a row. A dotted path descends structs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dvsel.documents.columns import PAD, Bytes, Column, Kind, Offsets
from dvsel.shards import arrow_types
from dvsel.shards.arrow_values import ordinary, written
from dvsel.shards.texts import with_lists_joined


def refusal(schema: pa.Schema, path: str) -> str:
    """Return the cause for which the field at a dotted path cannot be read from rows of this schema, or ""."""
    type_ = pa.struct(list(schema))
    for depth, key in enumerate(path.split(".")):
        type_ = arrow_types.value_type(type_)
        names = [field.name for field in type_] if arrow_types.is_struct(type_) else []
        if names.count(key) > 1:
            return f"is there twice ({key!r}); rename one"
        if key not in names:
            return ""
        type_ = type_[names.index(key)].type
        if not depth and (why := arrow_types.refusal(type_)):  # a column is read whole
            return f"is {why}, which dvsel does not read; write it as another type"
    twice = arrow_types.repeated_name(type_)
    return "" if twice is None else f"holds two fields {twice!r}; rename one"


def field(batch: pa.RecordBatch, path: str, bad: dict[int, str]) -> Column:
    """The column that a dotted path names, MISSING where there is none; `refusal` must have nothing against it.

    Its rows that are not UTF-8 become NULL, with a cause in `bad`.
    """
    array = _found(batch, path)
    return _missing(len(batch)) if array is None else _column(array, path, bad)


def _found(batch: pa.RecordBatch, path: str) -> Any:
    """The array that a dotted path names, None where there is none."""
    first, *keys = path.split(".")
    at = batch.schema.get_field_index(first)
    array = ordinary(batch.column(at)) if at >= 0 else None
    for key in keys:
        array = _member(array, key)
    return array


def text(batch: pa.RecordBatch, path: str, bad: dict[int, str]) -> Column:
    """Return what `field` does, with strings for lists of strings (see `texts`)."""
    array = _found(batch, path)
    strings = written(array) if array is not None and arrow_types.is_list(arrow_types.value_type(array.type)) else None
    if strings is None or not arrow_types.is_text(strings.type.value_type) or strings.flatten().null_count:
        return with_lists_joined(field(batch, path, bad))
    return _column(pc.binary_join(strings, pa.scalar("\n", strings.type.value_type)), path, bad)


def _member(array: Any, key: str) -> Any:
    """A field of an array of structs; None where there is none."""
    array = array.storage if array is not None and arrow_types.is_extension(array.type) else array
    if array is None or not arrow_types.is_struct(array.type) or array.type.get_field_index(key) < 0:
        return None
    return pc.struct_field(array, [array.type.get_field_index(key)])


def _missing(rows: int) -> Column:
    return Column(np.zeros(PAD, np.uint8), np.zeros(rows + 1, np.int64), np.zeros(rows, np.uint8))


def _column(array: Any, path: str, bad: dict[int, str]) -> Column:
    kind = _kind(arrow_types.value_type(array.type))
    array = _json(array, path, bad) if kind == Kind.OTHER else pc.cast(written(array), pa.large_string())
    array = _valid(array.view(pa.large_binary()), path, bad)
    kinds = np.full(len(array), kind, np.uint8)
    if array.null_count:
        kinds[array.is_null().to_numpy(zero_copy_only=False)] = Kind.NULL
        array = pc.fill_null(array, b"")
    data, offsets = _bytes_of(array)
    return Column(data, offsets, kinds)


def _kind(type_: pa.DataType) -> Kind:
    is_ = pa.types
    if is_.is_boolean(type_):
        return Kind.BOOL
    if is_.is_integer(type_) or is_.is_floating(type_) or is_.is_decimal(type_):
        return Kind.NUMBER
    return Kind.OTHER if is_.is_nested(type_) else Kind.STRING


def _json(array: Any, path: str, bad: dict[int, str]) -> Any:
    """The JSON text of each row, nulls left."""
    texts: list[bytes | None] = []
    for row, value in enumerate(written(array)):
        try:
            texts.append(orjson.dumps(value.as_py()) if value.is_valid else None)
        except UnicodeDecodeError as error:
            bad.setdefault(row, _not_utf_8(path, error))
            texts.append(None)
    return pa.array(texts, pa.large_binary())


def _not_utf_8(path: str, error: UnicodeDecodeError) -> str:
    return f"field {path!r} is not UTF-8 (byte 0x{error.object[error.start]:02X})"


def _valid(array: Any, path: str, bad: dict[int, str]) -> Any:
    """The large binary array with null for what is not UTF-8."""
    try:
        array.view(pa.large_string()).validate(full=True)
    except pa.ArrowInvalid:
        wrong = np.zeros(len(array), np.bool_)
        for row, value in enumerate(array.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError as error:
                wrong[row] = True
                bad.setdefault(row, _not_utf_8(path, error))
        return pc.if_else(pa.array(wrong), pa.scalar(None, array.type), array)
    return array


def _bytes_of(array: Any) -> tuple[Bytes, Offsets]:
    """Data and offsets of a large binary array without nulls, copied: Arrow's buffers have no spare bytes."""
    _, ends, values = array.buffers()
    offsets = np.frombuffer(ends, np.int64)[array.offset :][: len(array) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    data = np.empty(last - first + PAD, np.uint8)
    if last > first:
        data[: last - first] = np.frombuffer(values, np.uint8)[first:last]
    return data, offsets - first
