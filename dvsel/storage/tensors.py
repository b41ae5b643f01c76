"""Arrays by name in the bytes of a safetensors file, which may come from anyone.

The format: the header's size (uint64, little-endian); the header, JSON that gives each array's type, shape and place,
and strings under `__metadata__`; the arrays' bytes, one after the other. Nothing in it is trusted: a header is
no longer than the file, names are given once, types are known, an array has as many bytes as its shape says, and the
arrays fill the rest of the file without gaps or overlaps. Anything else raises `Malformed`, a ValueError.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Buffer = bytes | bytearray | mmap.mmap

_METADATA = "__metadata__"
_START = 8
_LONGEST_HEADER = 1 << 24
_MOST_AXES = 8
_DTYPES = {
    **{"BOOL": "?", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"},
    **{"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"},
}


class Malformed(ValueError):
    """Raised for bytes that are not such a file."""


def pack(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes."""
    from safetensors.numpy import save

    # safetensors writes an array's memory as it lies, whatever its strides say.
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata)))


def unpack(content: Buffer) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays, laid over the content without a copy, and the strings. Raises Malformed."""
    size = int.from_bytes(content[:_START], "little")
    base = _START + size
    if size > _LONGEST_HEADER or base > len(content):
        raise Malformed("its header is longer than the file, or than a header is")
    header = _mapping(parsed(bytes(content[_START:base])))
    metadata = _mapping(header.pop(_METADATA, {}))
    if not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed("its metadata is not of strings")
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for name in sorted(places, key=lambda name: places[name][2:]):
        dtype, _, begin, stop = places[name]
        if begin != end or (base + begin) % dtype.itemsize:
            raise Malformed(f"array {name!r} does not begin where the one before it ends")
        end = stop
    if base + end != len(content):
        raise Malformed("its arrays are not as long as the file")
    return {name: _laid(content, name, base, *place) for name, place in places.items()}, metadata


def parsed(text: bytes | str) -> Any:
    """Parse JSON. Raises Malformed for anything else, for deep nesting, and for a name given twice in an object."""
    try:
        return json.loads(text, object_pairs_hook=_given_once)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not valid JSON ({error})") from error


def digest(arrays: Mapping[str, Array]) -> str:
    """Hash the arrays' names and content to 32 hex digits."""
    hashed = xxhash.xxh3_128()
    for name in sorted(arrays):
        hashed.update(name.encode())
        hashed.update(np.ascontiguousarray(arrays[name]).data)
    return hashed.hexdigest()


def _given_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Malformed("a name is given twice")
    return found


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{str(value)[:40]!r} stands where names and values belong")
    return value


def _place(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Return an array's type and shape, and where its bytes begin and end, as the header has them."""
    if _mapping(entry).keys() != {"dtype", "shape", "data_offsets"}:
        raise Malformed(f"array {name!r} is not described by type, shape and place")
    shape, offsets = (_lengths(entry[key]) for key in ("shape", "data_offsets"))
    if str(entry["dtype"]) not in _DTYPES or len(shape) > _MOST_AXES or len(offsets) != 2:
        raise Malformed(f"array {name!r} is of an unknown type, or has too many axes")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
        raise Malformed(f"array {name!r} has more or fewer bytes than its shape needs")
    return dtype, shape, offsets[0], offsets[1]


def _lengths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise Malformed(f"{str(values)[:40]!r} stands where lengths belong")
    return tuple(values)


def _laid(
    content: Buffer, name: str, base: int, dtype: np.dtype[Any], shape: tuple[int, ...], begin: int, end: int
) -> Array:
    count = (end - begin) // dtype.itemsize
    flat = np.frombuffer(content, dtype, count, base + begin) if count else np.empty(0, dtype)
    if dtype == np.bool_ and (flat.view(np.uint8) > 1).any():
        raise Malformed(f"array {name!r} holds other values than true and false")
    return flat.reshape(shape)
