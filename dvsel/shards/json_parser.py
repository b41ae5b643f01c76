"""A strict parser of JSON lines, as kernels: it validates all of a line and copies the values of wanted fields.

It is unsure of some lines (a syntax error, invalid UTF-8, a wanted key given twice, deep nesting, very long numbers,
lone surrogates) and says so; it never takes a wrong one for right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import PAD, Bytes, Column, Kind, Offsets
from dvsel.kernels.jit import bare_kernel
from dvsel.kernels.simd import WIDTH, below, copy, equal, trailing_zeros

Kinds = npt.NDArray[np.uint8]

# Nodes of `Search`, and the columns of its table.
_NOTHING, _ROOT = 0, 1
_CHILD, _SIBLING, _COLUMN, _KEY, _KEY_SIZE = range(5)

_DEPTH = 64  # bits of `braces`; deeper lines are left to orjson
_DIGITS = 200  # with an exponent of two digits still far below the largest double, 1.8e308
_AT_VALUE, _AT_KEY, _AFTER_VALUE = range(3)
_FAILED = -1
READ, BLANK, ODD = range(3)
_MISSING, _NULL_KIND, _TEXT, _NUMBER, _BOOL, _OTHER = (int(kind) for kind in Kind)

_ONE = np.uint64(1)
_QUOTE, _BACKSLASH, _COMMA, _COLON = (np.uint8(byte) for byte in b'"\\,:')
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = (np.uint8(byte) for byte in b"{}[]")
_SPACE, _TAB, _NEWLINE, _RETURN = (np.uint8(byte) for byte in b" \t\n\r")
_ZERO, _NINE, _MINUS, _PLUS, _DOT = (np.uint8(byte) for byte in b"09-+.")
_SMALL_E, _CAPITAL_E, _SMALL_U = (np.uint8(byte) for byte in b"eEu")
_TRUE, _FALSE, _NULL = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))
_NON_ASCII = np.uint8(0x80)

_ESCAPES = np.zeros(256, np.uint8)
_ESCAPES[list(b'"\\/bfnrt')] = list(b'"\\/\b\f\n\r\t')
_NOT_HEX = 1 << 16
_HEX = np.full(256, _NOT_HEX, np.int64)
_HEX[list(b"0123456789abcdef")] = range(16)
_HEX[list(b"ABCDEF")] = range(10, 16)


class Search(NamedTuple):
    """The paths as a tree of keys, and where in it the parser is.

    nodes: int64 (nodes, 5), of columns `_CHILD` to `_KEY_SIZE`. Node `_NOTHING` has no child, key or column.
    keys: uint8, the keys' bytes. seen: int64 (nodes,), the row in which the node's key was last met.
    stack: int64 (_DEPTH, 2), for each open bracket the node that it is the value of, and its place.
    """

    nodes: Offsets
    keys: Bytes
    seen: Offsets
    stack: Offsets

    @classmethod
    def of(cls, paths: Sequence[str]) -> Search:
        """Make the tree of dotted paths."""
        nodes = [[_NOTHING, _NOTHING, -1, 0, 0] for _ in (_NOTHING, _ROOT)]
        numbers: dict[tuple[str, ...], int] = {(): _ROOT}
        keys = bytearray()
        for column, path in enumerate(paths):
            parts = tuple(path.split("."))
            for depth, part in enumerate(parts):
                branch = parts[: depth + 1]
                if branch not in numbers:
                    parent, key = nodes[numbers[parts[:depth]]], part.encode()
                    numbers[branch] = len(nodes)
                    nodes.append([_NOTHING, parent[_CHILD], -1, len(keys), len(key)])
                    parent[_CHILD] = numbers[branch]
                    keys += key
            nodes[numbers[parts]][_COLUMN] = column
        return cls(
            nodes=np.array(nodes, np.int64),
            keys=np.array(keys + bytes(PAD), np.uint8),
            seen=np.full(len(nodes), -1, np.int64),
            stack=np.zeros((_DEPTH, 2), np.int64),
        )


class Table(NamedTuple):
    """The columns while they are filled, row by row.

    values: uint8, one region for each column, long enough for all lines.
    cursor: int64 (columns,), where in `values` each column's next value goes.
    offsets: int64 (columns, n + 1). kinds: uint8 (columns, n). spans: int64 (columns, 2, n).
    verdicts: uint8 (n,): READ, BLANK, or ODD for a line that is left to orjson. Only the READ have values in the table.
    """

    values: Bytes
    cursor: Offsets
    offsets: Offsets
    kinds: Kinds
    spans: Offsets
    verdicts: Kinds

    @classmethod
    def empty(cls, columns: int, starts: Offsets, ends: Offsets) -> Table:
        """Make room for the lines from starts[i] to ends[i]."""
        # Keys and unwanted strings are unescaped at the first cursor too, so there is always one.
        regions, rows = max(columns, 1), len(starts)
        region = int((ends - starts).sum()) + PAD
        return cls(
            values=np.empty(regions * region, np.uint8),
            cursor=np.arange(regions, dtype=np.int64) * region,
            offsets=np.zeros((columns, rows + 1), np.int64),
            kinds=np.full((columns, rows), Kind.MISSING, np.uint8),
            spans=np.full((columns, 2, rows), -1, np.int64),
            verdicts=np.full(rows, READ, np.uint8),
        )

    def columns(self, names: Sequence[str]) -> dict[str, Column]:
        """Return the columns that were filled, by name."""
        regions = self.values.reshape(len(self.cursor), -1)
        return {name: Column(regions[at], self.offsets[at], self.kinds[at]) for at, name in enumerate(names)}


@bare_kernel
def find_newlines(data: Bytes, at: int, end: int, ends: Offsets) -> tuple[int, int]:
    """Fill `ends` with the places of LFs; return how many there are, and where to go on if it is full."""
    count = 0
    while at < end:
        mask = equal(data, at, _NEWLINE)
        while mask:
            newline = at + trailing_zeros(mask)
            if newline >= end:
                return count, end
            if count == len(ends):
                return count, newline
            ends[count] = newline
            count += 1
            mask &= mask - _ONE
        at += WIDTH
    return count, end


@bare_kernel
def _utf8(data: Bytes, at: int, stop: np.uint64) -> int:
    """Validate the UTF-8 from `at`, where a character begins, to the lowest bit of `stop`, or 64 bytes.

    Returns how many bytes of whole characters that is, or -1; a character cut by the 64th byte is left out.
    """
    below_c0 = below(data, at, np.uint8(0xC0))
    below_a0 = below(data, at, np.uint8(0xA0))
    below_90 = below(data, at, np.uint8(0x90))
    lead = ~below(data, at, np.uint8(0xC2))
    lead_3 = ~below(data, at, np.uint8(0xE0))
    lead_4 = ~below(data, at, np.uint8(0xF0))
    # A character that begins too near the 64th byte is left to the next block: `stop` moves to its first byte. Only
    # bytes before the old `stop` count, which the mask below selects.
    cut = lead & np.uint64(1 << 63) | lead_3 & np.uint64(1 << 62) | lead_4 & np.uint64(1 << 61)
    cut &= stop ^ (stop - _ONE)
    if cut:
        stop = cut

    # A lead byte at i sets bits i + 1 to i + 3 of `expected`: exactly there a continuation must stand. The masks after
    # it are of bytes that UTF-8 forbids although they have the right form (RFC 3629, section 4).
    continuation = below_c0 & ~below(data, at, _NON_ASCII)
    expected = (lead << _ONE) | (lead_3 << np.uint64(2)) | (lead_4 << np.uint64(3))
    never = ~(below_c0 | lead) | ~below(data, at, np.uint8(0xF5))
    overlong = (equal(data, at, np.uint8(0xE0)) << _ONE) & below_a0
    overlong |= (equal(data, at, np.uint8(0xF0)) << _ONE) & below_90
    surrogate = (equal(data, at, np.uint8(0xED)) << _ONE) & ~below_a0
    too_large = (equal(data, at, np.uint8(0xF4)) << _ONE) & ~below_90
    # The byte at `stop` itself is looked at too: it does not continue a character, so one that is cut off shows.
    wrong = (expected ^ continuation) | never | overlong | surrogate | too_large
    if wrong & (stop ^ (stop - _ONE)):
        return _FAILED
    return int(trailing_zeros(stop))


@bare_kernel
def _hex4(data: Bytes, at: int) -> int:
    """Return the number of 4 hexadecimal digits; `_NOT_HEX` or more for anything else."""
    high: int = (_HEX[data[at]] << 12) | (_HEX[data[at + 1]] << 8)
    low: int = (_HEX[data[at + 2]] << 4) | _HEX[data[at + 3]]
    return high | low


@bare_kernel
def _encode(code: int, out: Bytes, to: int) -> int:
    """Write a code point as UTF-8; return the index after it."""
    if code < 0x80:
        out[to] = code
        return to + 1
    if code < 0x800:
        out[to] = 0xC0 | (code >> 6)
        out[to + 1] = 0x80 | (code & 0x3F)
        return to + 2
    if code < 0x10000:
        out[to] = 0xE0 | (code >> 12)
        out[to + 1] = 0x80 | ((code >> 6) & 0x3F)
        out[to + 2] = 0x80 | (code & 0x3F)
        return to + 3
    out[to] = 0xF0 | (code >> 18)
    out[to + 1] = 0x80 | ((code >> 12) & 0x3F)
    out[to + 2] = 0x80 | ((code >> 6) & 0x3F)
    out[to + 3] = 0x80 | (code & 0x3F)
    return to + 4


@bare_kernel
def _unicode_escape(data: Bytes, at: int, out: Bytes, to: int) -> tuple[int, int]:
    """Unescape the \\uXXXX at `at`, or a pair of them; return where both go on, or -1."""
    code = _hex4(data, at + 2)
    if code >= _NOT_HEX:
        return _FAILED, to
    at += 6
    if 0xD800 <= code < 0xE000:
        low = _hex4(data, at + 2)
        paired = data[at] == _BACKSLASH and data[at + 1] == _SMALL_U and 0xDC00 <= low < 0xE000
        if code >= 0xDC00 or not paired:
            return _FAILED, to
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        at += 6
    return at, _encode(code, out, to)


@bare_kernel
def _escape(data: Bytes, at: int, out: Bytes, to: int) -> tuple[int, int]:
    """Unescape what the backslash at `at` begins; return where both go on, or -1."""
    plain = _ESCAPES[data[at + 1]]
    if plain:
        out[to] = plain
        return at + 2, to + 1
    if data[at + 1] == _SMALL_U:
        return _unicode_escape(data, at, out, to)
    return _FAILED, to


@bare_kernel
def unescape(data: Bytes, at: int, end: int, out: Bytes, to: int) -> tuple[int, int]:
    """Validate and unescape into out[to:] the string whose first byte is data[at].

    Returns the index after its closing quote, or -1, and the end of the copy; bytes after it are undefined.
    """
    # Whole vectors are copied before anything is known of them; what lies after the end of the string is overwritten by
    # the next one, or never read. That is faster than to copy exactly.
    while at < end:
        copy(out, to, data, at)
        stop = equal(data, at, _QUOTE) | equal(data, at, _BACKSLASH) | below(data, at, _SPACE)
        size = trailing_zeros(stop)
        if ~below(data, at, _NON_ASCII) & ((stop & (~stop + _ONE)) - _ONE):
            size = _utf8(data, at, stop)
            if size < 0:
                return _FAILED, to
        at += size
        to += size
        if size == WIDTH:
            continue
        if at >= end:
            return _FAILED, to
        if data[at] == _QUOTE:
            return at + 1, to
        if data[at] < _SPACE:
            return _FAILED, to
        while at < end and data[at] == _BACKSLASH:
            at, to = _escape(data, at, out, to)
            if at < 0:
                return _FAILED, to
    return _FAILED, to


@bare_kernel
def skip_space(data: Bytes, at: int, end: int) -> int:
    """Return the index of the first byte from `at` that is not white space."""
    while at < end:
        byte = data[at]
        if byte > _SPACE or (byte != _SPACE and byte != _TAB and byte != _RETURN and byte != _NEWLINE):
            break
        at += 1
    return at


@bare_kernel
def _digits(data: Bytes, at: int, end: int, most: int) -> int:
    """Return the index after 1 to `most` digits, or -1."""
    first = at
    while at < end and _ZERO <= data[at] <= _NINE:
        at += 1
        if at - first > most:
            return _FAILED
    return at if at > first else _FAILED


@bare_kernel
def _number(data: Bytes, at: int, end: int) -> int:
    """Return the index after the number at `at`; -1 without one, or if it may be out of a double's range."""
    if data[at] == _MINUS:
        at += 1
    after = _digits(data, at, end, _DIGITS)
    if after < 0 or (data[at] == _ZERO and after > at + 1):
        return _FAILED
    if after < end and data[after] == _DOT:
        after = _digits(data, after + 1, end, _DIGITS)
        if after < 0:
            return _FAILED
    if after < end and data[after] in (_SMALL_E, _CAPITAL_E):
        after += 1
        if data[after] in (_MINUS, _PLUS):
            after += 1
        after = _digits(data, after, end, 2)
    return after


@bare_kernel
def _literal(data: Bytes, at: int, end: int, word: Bytes) -> int:
    """Return the index after `word`, or -1 where something else is at `at`."""
    if at + len(word) > end:
        return _FAILED
    for place in range(len(word)):
        if data[at + place] != word[place]:
            return _FAILED
    return at + len(word)


@bare_kernel
def _scalar(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return the index after the number or literal at `at`, or -1, and its kind."""
    byte = data[at]
    if byte == _TRUE[0]:
        return _literal(data, at, end, _TRUE), _BOOL
    if byte == _FALSE[0]:
        return _literal(data, at, end, _FALSE), _BOOL
    if byte == _NULL[0]:
        return _literal(data, at, end, _NULL), _NULL_KIND
    return _number(data, at, end), _NUMBER


@bare_kernel
def _find_child(search: Search, parent: int, text: Bytes, begin: int, end: int) -> int:
    """Return the child of `parent` whose key is text[begin:end], or `_NOTHING`."""
    size = end - begin
    child: int = search.nodes[parent, _CHILD]
    while child != _NOTHING:
        if search.nodes[child, _KEY_SIZE] == size:
            key = search.nodes[child, _KEY]
            place = 0
            while place < size and search.keys[key + place] == text[begin + place]:
                place += 1
            if place == size:
                break
        child = search.nodes[child, _SIBLING]
    return child


@bare_kernel
def _key(data: Bytes, at: int, end: int, search: Search, parent: int, out: Bytes, to: int) -> tuple[int, int]:
    """Return the index after the key at `at` and its colon, or -1, and the key's node."""
    if data[at] != _QUOTE:
        return _FAILED, _NOTHING
    at, key_end = unescape(data, at + 1, end, out, to)
    if at < 0:
        return _FAILED, _NOTHING
    at = skip_space(data, at, end)
    if at >= end or data[at] != _COLON:
        return _FAILED, _NOTHING
    return at + 1, _find_child(search, parent, out, to, key_end)


@bare_kernel
def _record(table: Table, column: int, row: int, kind: int, begin: int, end: int) -> None:
    table.kinds[column, row] = kind
    table.spans[column, 0, row] = begin
    table.spans[column, 1, row] = end


@bare_kernel
def _record_raw(table: Table, column: int, row: int, kind: int, data: Bytes, begin: int, end: int) -> None:
    """Append the JSON text data[begin:end] to the column, nothing for a null."""
    _record(table, column, row, kind, begin, end)
    if kind != _NULL_KIND:
        to = table.cursor[column]
        for place in range(0, end - begin, WIDTH):
            copy(table.values, to + place, data, begin + place)
        table.cursor[column] = to + end - begin


@bare_kernel
def _parse(data: Bytes, at: int, end: int, row: int, search: Search, table: Table) -> bool:
    """Parse one line and append its wanted values; False if unsure, with some of them left in the table.

    The bits of `braces`, the innermost lowest, say which of the open brackets are braces.
    """
    at = skip_space(data, at, end)
    if at >= end or data[at] != _OPEN_OBJECT:
        return False
    node, state = _ROOT, _AT_VALUE
    depth, braces = 0, np.uint64(0)
    while True:
        at = skip_space(data, at, end)
        if at >= end:
            return False
        byte = data[at]
        begin = at
        if state == _AT_KEY:
            at, node = _key(data, at, end, search, search.stack[depth - 1, 0], table.values, table.cursor[0])
            if at < 0:
                return False
            if node != _NOTHING:
                # Of a key given twice the last counts, and values cannot be taken back: the line is left to orjson.
                if search.seen[node] == row:
                    return False
                search.seen[node] = row
            state = _AT_VALUE
        elif state == _AFTER_VALUE:
            at += 1
            in_object = braces & _ONE
            if byte == _COMMA:
                node = _NOTHING
                state = _AT_KEY if in_object else _AT_VALUE
            elif byte == (_CLOSE_OBJECT if in_object else _CLOSE_ARRAY):
                depth -= 1
                braces >>= _ONE
                column = search.nodes[search.stack[depth, 0], _COLUMN]
                if column >= 0:
                    _record_raw(table, column, row, _OTHER, data, search.stack[depth, 1], at)
                if depth == 0:
                    return skip_space(data, at, end) == end
            else:
                return False
        elif byte == _QUOTE:
            column = search.nodes[node, _COLUMN]
            # An unwanted string is validated by the same copy, into the free room of the first column.
            slot = max(column, 0)
            at, to = unescape(data, at + 1, end, table.values, table.cursor[slot])
            if at < 0:
                return False
            if column >= 0:
                _record(table, column, row, _TEXT, begin, at)
                table.cursor[column] = to
            state = _AFTER_VALUE
        elif byte in (_OPEN_OBJECT, _OPEN_ARRAY):
            if depth == _DEPTH:
                return False
            search.stack[depth, 0] = node
            search.stack[depth, 1] = at
            depth += 1
            is_object = byte == _OPEN_OBJECT
            braces = (braces << _ONE) | np.uint64(is_object)
            at = skip_space(data, at + 1, end)
            if data[at] == (_CLOSE_OBJECT if is_object else _CLOSE_ARRAY):
                state = _AFTER_VALUE
            else:
                node = _NOTHING
                state = _AT_KEY if is_object else _AT_VALUE
        else:
            at, kind = _scalar(data, at, end)
            if at < 0:
                return False
            column = search.nodes[node, _COLUMN]
            if column >= 0:
                _record_raw(table, column, row, kind, data, begin, at)
            state = _AFTER_VALUE


@bare_kernel
def parse_rows(data: Bytes, starts: Offsets, ends: Offsets, search: Search, table: Table) -> None:
    """Parse the lines into the table."""
    columns = len(table.offsets)
    region = len(table.values) // len(table.cursor)
    for row in range(len(starts)):
        if skip_space(data, starts[row], ends[row]) == ends[row]:
            table.verdicts[row] = BLANK
        elif not _parse(data, starts[row], ends[row], row, search, table):
            # What the line has put into the table so far is taken back.
            table.verdicts[row] = ODD
            for column in range(columns):
                table.cursor[column] = column * region + table.offsets[column, row]
                _record(table, column, row, _MISSING, -1, -1)
        for column in range(columns):
            table.offsets[column, row + 1] = table.cursor[column] - column * region
