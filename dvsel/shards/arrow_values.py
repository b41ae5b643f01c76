"""Arrow arrays of every type as arrays of ordinary types, and how much memory their rows take.

Dictionaries, runs and views let a few stored bytes stand for many rows, and most functions of pyarrow know only some
of them, nested ones least. `ordinary` spells them out; `row_sizes` says beforehand what that takes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dvsel.shards import arrow_types

_MOST_VALUES = 1 << 27
_VIEW = 16  # bytes of a view; the first four are its size
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}

Sizes = npt.NDArray[np.float64]
_Leaf = Callable[[Any], Any]


class TooManyValues(pa.ArrowInvalid):  # type: ignore[misc]
    """More values than fit in memory, of which a file need not hold a single one."""


def ordinary(array: Any, keeps_text: bool = True) -> Any:
    """The array without runs, views and dictionaries; those of strings stay where `keeps_text`.

    Views of strings become large strings; lists and maps that held any of these become large lists.
    """
    return _rebuilt(array, _as_it_is, keeps_text) if arrow_types.is_encoded(array.type) else array


def written(array: Any) -> Any:
    """The array with values that JSON has: nulls, booleans, numbers, strings, structs and lists.

    docs/bad-input.md says what becomes of which type. Bytes become strings unchecked, so that turning a value into a
    Python object may raise UnicodeDecodeError.
    """
    return _rebuilt(array, _written_leaf)


def row_sizes(array: Any) -> Sizes:
    """Bytes that each row takes once it is spelled out, float64 (n,), at least one for a value.

    Raises TooManyValues where the rows have more than `_MOST_VALUES`; fewer rows may have fewer.
    """
    type_ = array.type
    if len(array) > _MOST_VALUES:
        raise TooManyValues(f"{len(array)} values")
    if arrow_types.is_extension(type_):
        return row_sizes(array.storage)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        values, numbers = _referred(array)
        sizes: Sizes = np.append(row_sizes(values), 0.0)[pc.fill_null(numbers, len(values)).to_numpy()]
        return sizes
    if arrow_types.is_struct(type_):
        sizes = np.ones(len(array))
        for child in array.flatten():
            sizes += row_sizes(child)
        return sizes
    if pa.types.is_map(type_):
        return _sizes_of_lists(_entries(array))
    return _sizes_of_lists(array) if arrow_types.is_list(type_) else _sizes_of_leaves(array)


def _sizes_of_leaves(array: Any) -> Sizes:
    type_ = array.type
    if str(type_) in arrow_types.VIEWS:
        stored = np.frombuffer(array.buffers()[1], np.int32, _VIEW // 4 * len(array), _VIEW * array.offset)
        return np.where(array.is_valid().to_numpy(zero_copy_only=False), stored[:: _VIEW // 4], 0.0)
    if arrow_types.is_text(type_) or pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0), np.float64)
    return np.full(len(array), 1.0 if pa.types.is_null(type_) else max(type_.bit_width / 8, 1.0))


def _sizes_of_lists(array: Any) -> Sizes:
    """Return the bytes of each row's lists, looking only at the values that these rows hold."""
    starts: npt.NDArray[np.int64]
    if pa.types.is_fixed_size_list(array.type):
        starts = (np.arange(len(array)) + array.offset) * array.type.list_size
        stops = starts + array.type.list_size
    elif arrow_types.is_list_view(array.type):
        starts = array.offsets.to_numpy().astype(np.int64)
        stops = starts + array.sizes.to_numpy()
    else:
        starts, stops = array.offsets.to_numpy()[:-1], array.offsets.to_numpy()[1:]
    first = int(starts.min()) if len(starts) else 0
    values = array.values.slice(first, int(stops.max(initial=first)) - first)
    ends = np.concatenate((np.zeros(1), np.cumsum(row_sizes(values))))
    sizes: Sizes = ends[stops - first] - ends[starts - first]
    return sizes


def _rebuilt(array: Any, leaf: _Leaf, keeps_text: bool = False) -> Any:
    """The array spelled out, with `leaf` applied to what holds no other arrays.

    keeps_text: whether dictionaries of strings stay, but for nulls among their values, which pyarrow cannot write.
    """
    is_, type_ = pa.types, array.type
    if keeps_text and arrow_types.is_text_dictionary(type_):
        has_nulls = array.dictionary.null_count
        return pc.cast(array.dictionary_decode().dictionary_encode(), type_) if has_nulls else array
    if is_.is_dictionary(type_) or is_.is_run_end_encoded(type_):
        values, numbers = _referred(array)
        return _rebuilt(values, leaf, keeps_text).take(numbers)
    if arrow_types.is_extension(type_):
        return _rebuilt(array.storage, leaf, keeps_text) if arrow_types.is_encoded(type_) else leaf(array)
    if arrow_types.is_struct(type_) and len(type_):
        children = [_rebuilt(child, leaf, keeps_text) for child in array.flatten()]
        fields = [pa.field(field.name, child.type) for field, child in zip(type_, children, strict=True)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())
    if is_.is_map(type_):
        return _rebuilt(_entries(array), leaf, keeps_text)
    if arrow_types.is_list(type_):
        sizes = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)))
        values = _rebuilt(array.flatten(), leaf, keeps_text)
        return pa.LargeListArray.from_arrays(_numbers(ends), values, mask=array.is_null())
    return leaf(pc.cast(array, arrow_types.VIEWS[str(type_)]) if str(type_) in arrow_types.VIEWS else array)


def _entries(array: Any) -> Any:
    """A map as lists of structs. Not by a cast: pyarrow's forgets where runs among the values begin."""
    entries = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"])
    return pa.Array.from_buffers(pa.list_(entries.type), len(array), array.buffers()[:2], -1, array.offset, [entries])


def _as_it_is(array: Any) -> Any:
    return array


def _written_leaf(array: Any) -> Any:
    is_, type_ = pa.types, array.type
    if arrow_types.is_extension(type_):
        is_uuid = type_.extension_name == "arrow.uuid"
        return _uuids(array.storage) if is_uuid else _rebuilt(array.storage, _written_leaf)
    if any(check(type_) for check in (arrow_types.is_struct, is_.is_null, is_.is_boolean, is_.is_integer)):
        return array
    if is_.is_floating(type_):
        return _finite(array)
    if is_.is_timestamp(type_):
        return _timestamps(array)
    if is_.is_duration(type_):
        return _durations(array)
    if is_.is_binary(type_) or is_.is_large_binary(type_) or is_.is_fixed_size_binary(type_):
        return pc.cast(array, pa.large_binary()).view(pa.large_string())
    return pc.cast(array, pa.large_string())


def _finite(array: Any) -> Any:
    """Doubles with the shortest digits that the numbers have in their own type; null for NaN and infinity."""
    array = array if pa.types.is_float64(array.type) else pc.cast(pc.cast(array, pa.string()), pa.float64())
    return pc.if_else(pc.is_finite(array), array, pa.scalar(None, pa.float64()))


def _timestamps(array: Any) -> Any:
    """Write times as ISO 8601 has them; those of a time zone in UTC, as they are stored."""
    plain = pc.cast(array.view(pa.timestamp(array.type.unit)), pa.large_string())
    iso = pc.replace_substring_regex(plain, r"^(-?\d+-\d\d-\d\d) ", r"\1T")
    end = pa.scalar("Z" if array.type.tz else "", pa.large_string())
    return pc.binary_join_element_wise(iso, end, pa.scalar("", pa.large_string()))


def _durations(array: Any) -> Any:
    """Write durations as seconds in the form of ISO 8601."""
    digits = _DIGITS[array.type.unit]
    counts = array.view(pa.int64()).to_pylist()
    texts = [None if count is None else f"PT{Decimal(count).scaleb(-digits):f}S" for count in counts]
    return pa.array(texts, pa.large_string())


def _uuids(array: Any) -> Any:
    texts = [None if value is None else str(uuid.UUID(bytes=value)) for value in array.to_pylist()]
    return pa.array(texts, pa.large_string())


def _referred(array: Any) -> tuple[Any, Any]:
    """The part of the values of a dictionary, or of runs, that the rows refer to; and each row's number in it."""
    if pa.types.is_dictionary(array.type):
        values, numbers = array.dictionary, pc.cast(array.indices, pa.int64())
    else:
        rows = np.arange(array.offset, array.offset + len(array))
        values, numbers = array.values, _numbers(np.searchsorted(array.run_ends.to_numpy(), rows, "right"))
    bounds = pc.min_max(numbers).as_py()
    if bounds["min"] is None:
        return values.slice(0, 0), numbers
    return values.slice(bounds["min"], bounds["max"] - bounds["min"] + 1), pc.subtract(numbers, bounds["min"])


def _numbers(column: npt.NDArray[np.int64]) -> Any:
    # Not pa.array: at its first call it imports pandas wherever that is installed.
    return pa.Array.from_buffers(pa.int64(), len(column), [None, pa.py_buffer(column)])
