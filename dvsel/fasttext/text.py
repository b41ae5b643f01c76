"""Prepare a text for fastText. The way is part of the model: another mode gives other scores.

The modes are `dvsel.fasttext.MODES`:

`space`      text.replace("\\n", " "), what PreSelect's authors train with
`dclm`       " ".join(text.strip().splitlines()), what DCLM's classifier is trained and run with
`datatrove`  text.strip().replace("\\n", ""), what datatrove's fastText filter does

All as Python's str does it, white space and line ends of all of Unicode included, but straight over UTF-8 bytes.
Bytes that are not UTF-8 stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import PAD, Column
from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import WIDTH, copy, equal, trailing_zeros, within

Array = npt.NDArray[Any]

_LF, _CR, _TAB, _SPACE = 0x0A, 0x0D, 0x09, 0x20
_FILE, _RECORD = 0x1C, 0x1E  # the first and the last of the separators that end a line
_LEAD_OF_2, _NEXT_LINE, _NO_BREAK = 0xC2, 0x85, 0xA0
_LEAD_OF_3 = 0xE2  # of the only line ends that long, U+2028 and U+2029


def prepare(column: Column, mode: str) -> Column:
    """The texts as the mode has them, in a column of its own."""
    data = np.empty(int(column.offsets[-1] - column.offsets[0]) + PAD, np.uint8)
    offsets = np.zeros(len(column) + 1, np.int64)
    _prepare(column.data, column.offsets, mode != "space", mode == "dclm", mode != "datatrove", data, offsets)
    return Column(data, offsets, column.kind)


@kernel
def _prepare(
    data: Array, offsets: Array, strip: bool, all_breaks: bool, keep: bool, out: Array, out_offsets: Array
) -> None:
    """strip: remove white space at the ends. all_breaks: not LF alone. keep: make a line's end a space, not nothing."""
    to = 0
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        if strip:
            begin, end = _stripped(data, begin, end)
        to = _join_lines(data, begin, end, all_breaks, keep, out, to)
        out_offsets[row + 1] = to


@kernel
def _join_lines(data: Array, at: int, end: int, all_breaks: bool, keep: bool, out: Array, to: int) -> int:
    """Copy data[at:end] to out[to:] without line ends; where the copy ends."""
    while at < end:
        copy(out, to, data, at)
        size = min(trailing_zeros(_perhaps_breaks(data, at, all_breaks)), WIDTH, end - at)
        at += size
        to += size
        if size == WIDTH or at == end:
            continue
        width = _break_at(data, at, end, all_breaks)
        if width == 0:
            out[to] = data[at]
            at += 1
            to += 1
            continue
        at += width
        if keep:
            out[to] = _SPACE
            to += 1
    return to


@kernel
def _perhaps_breaks(data: Array, at: int, all_breaks: bool) -> Any:
    """Return a mask of those of the next 64 bytes that may begin a line end, uint64."""
    if not all_breaks:
        return equal(data, at, np.uint8(_LF))
    ascii = within(data, at, np.uint8(_LF), np.uint8(_CR)) | within(data, at, np.uint8(_FILE), np.uint8(_RECORD))
    return ascii | equal(data, at, np.uint8(_LEAD_OF_2)) | equal(data, at, np.uint8(_LEAD_OF_3))


@kernel
def _break_at(data: Array, at: int, end: int, all_breaks: bool) -> int:
    """Bytes of the line end that begins at `at`, 0 for none."""
    byte = data[at]
    if byte == _CR and all_breaks and at + 1 < end and data[at + 1] == _LF:
        return 2
    if byte == _LF or (all_breaks and (_LF <= byte <= _CR or _FILE <= byte <= _RECORD)):
        return 1
    if byte == _LEAD_OF_2 and at + 2 <= end and data[at + 1] == _NEXT_LINE:
        return 2
    if byte == _LEAD_OF_3 and at + 3 <= end and data[at + 1] == 0x80 and 0xA8 <= data[at + 2] <= 0xA9:
        return 3
    return 0


@kernel
def _stripped(data: Array, begin: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends."""
    width = 1
    while width and begin < end:
        width = _space_at(data, begin, end)
        begin += width
    width = 1
    while width and begin < end:
        width = _space_before(data, begin, end)
        end -= width
    return begin, end


@kernel
def _space_at(data: Array, at: int, end: int) -> int:
    """Bytes of the white space character that begins at `at`, 0 for none."""
    if _is_space(data[at]):
        return 1
    if at + 2 <= end and _is_space_of_2(data[at], data[at + 1]):
        return 2
    if at + 3 <= end and _is_space_of_3(data[at], data[at + 1], data[at + 2]):
        return 3
    return 0


@kernel
def _space_before(data: Array, begin: int, end: int) -> int:
    """Bytes of the white space character that ends at `end`, 0 for none."""
    if _is_space(data[end - 1]):
        return 1
    if end - 2 >= begin and _is_space_of_2(data[end - 2], data[end - 1]):
        return 2
    if end - 3 >= begin and _is_space_of_3(data[end - 3], data[end - 2], data[end - 1]):
        return 3
    return 0


@kernel
def _is_space(byte: int) -> bool:
    return _TAB <= byte <= _CR or _FILE <= byte <= _SPACE


@kernel
def _is_space_of_2(first: int, second: int) -> bool:
    return first == _LEAD_OF_2 and second in (_NEXT_LINE, _NO_BREAK)


@kernel
def _is_space_of_3(first: int, second: int, third: int) -> bool:
    """U+1680, U+2000 to U+200A, U+2028, U+2029, U+202F, U+205F, U+3000."""
    if first == 0xE2 and second == 0x80:
        return 0x80 <= third <= 0x8A or third in (0xA8, 0xA9, 0xAF)
    code = first << 16 | second << 8 | third
    return code in (0xE19A80, 0xE2819F, 0xE38080)
