"""The text of a document, out of one field or of several.

    text(document, "a,b") = "\\n\\n".join(part for part in (value(document, "a"), value(document, "b")) if part)

where the value of a list of strings is these joined by newlines, less what is null. Fields that are missing, null or
empty are left out; a field that is neither a string nor a list of strings makes the document a bad one, and so does it
where all of them are missing or null. A name with a comma in it is not reachable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from dvsel.documents.columns import PAD, Bytes, Column, Kind, Offsets
from dvsel.kernels.jit import bare_kernel, kernel
from dvsel.kernels.simd import WIDTH, copy
from dvsel.shards.json_parser import skip_space, unescape

_GAP = 2  # bytes of "\n\n"
_LF = np.uint8(10)
_OPEN, _CLOSE, _QUOTE = (np.uint8(byte) for byte in b'[]"')
_TEXT, _OTHER = int(Kind.STRING), int(Kind.OTHER)


def with_lists_joined(column: Column) -> Column:
    """The column with strings for its lists of strings."""
    if not len(_lists_in(column)):
        return column
    data, offsets, kind = np.empty_like(column.data), np.empty_like(column.offsets), column.kind.copy()
    _join_lists(column.data, column.offsets, kind, data, offsets)
    return _with_others_joined(Column(data, offsets, kind))


def _lists_in(column: Column) -> Offsets:
    """The rows that are lists."""
    rows = np.flatnonzero(column.kind == Kind.OTHER)
    lists: Offsets = rows[column.data[column.offsets[rows]] == _OPEN]
    return lists


def _with_others_joined(column: Column) -> Column:
    """The column with strings for those lists that hold nulls too."""
    rows = _lists_in(column)
    found = {row: text for row in rows.tolist() if (text := _joined_list(column[row])) is not None}
    if not found:
        return column
    rows = np.fromiter(found, np.int64)
    return column.without(rows).put(rows, list(found.values()), [Kind.STRING] * len(found))


def _joined_list(json: bytes) -> bytes | None:
    """Return the strings of a list, joined; None for a list of anything but strings and nulls."""
    strings = [one for one in orjson.loads(json) if one is not None]
    return "\n".join(strings).encode() if all(isinstance(one, str) for one in strings) else None


def joined(columns: Sequence[Column]) -> Column:
    """Return the texts of these parts. A row's kind is that of the first part that is not text, if there is one; else
    STRING where a part is; else NULL or MISSING."""
    if len(columns) == 1:
        return columns[0]
    kind = np.max([column.kind for column in columns], axis=0)  # the order of `Kind` is this one
    used = np.stack([(column.kind == Kind.STRING) & (column.sizes > 0) & (kind == Kind.STRING) for column in columns])
    sizes = sum((column.sizes * there for column, there in zip(columns, used, strict=True)), np.zeros(len(kind), int))
    offsets = np.zeros(len(kind) + 1, np.int64)
    np.cumsum(sizes + _GAP * np.maximum(used.sum(axis=0) - 1, 0), out=offsets[1:])
    data = np.empty(int(offsets[-1]) + PAD, np.uint8)
    at = offsets[:-1].copy()
    for column, there in zip(columns, used, strict=True):
        _append(column.data, column.offsets, there, data, offsets, at)
    return Column(data, offsets, kind)


@kernel
def _join_lists(source: Bytes, bounds: Offsets, kind: npt.NDArray[np.uint8], data: Bytes, offsets: Offsets) -> None:
    """Copy all rows, the JSON of a list of nothing but strings as these; what is joined is never the longer one."""
    to = 0
    for row in range(len(kind)):
        offsets[row] = to
        first, last = bounds[row], bounds[row + 1]
        end = -1
        if kind[row] == _OTHER and source[first] == _OPEN:
            end = _join_list(source, first + 1, last, data, to)
        if end >= 0:
            kind[row] = _TEXT
            to = end
        else:
            for place in range(0, last - first, WIDTH):
                copy(data, to + place, source, first + place)
            to += last - first
    offsets[len(kind)] = to


@bare_kernel
def _join_list(source: Bytes, at: int, end: int, data: Bytes, to: int) -> int:
    """Join a list of strings; return where it ends in `data`, -1 for other members. source[at:end]: JSON after `[`."""
    at = skip_space(source, at, end)
    if source[at] == _CLOSE:
        return to
    while source[at] == _QUOTE:
        at, to = unescape(source, at + 1, end, data, to)
        if at < 0:
            return -1
        at = skip_space(source, at, end)
        if source[at] == _CLOSE:
            return to
        at = skip_space(source, at + 1, end)  # behind the comma
        data[to] = _LF
        to += 1
    return -1


@kernel
def _append(
    source: Bytes, bounds: Offsets, used: npt.NDArray[np.bool_], data: Bytes, offsets: Offsets, at: Offsets
) -> None:
    """Copy the used rows to where each row of `data` goes on, after a blank line where it was begun."""
    for row in range(len(used)):
        if used[row]:
            to = at[row]
            if to > offsets[row]:
                data[to] = _LF
                data[to + 1] = _LF
                to += 2
            first, size = bounds[row], bounds[row + 1] - bounds[row]
            whole = size - size % WIDTH
            for place in range(0, whole, WIDTH):
                copy(data, to + place, source, first + place)
            for place in range(whole, size):  # a whole vector would reach into the next row
                data[to + place] = source[first + place]
            at[row] = to + size
