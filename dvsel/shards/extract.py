"""Fields of JSON lines, straight from the bytes.

A kernel parses each line once and copies the values of the wanted fields into columns. It leaves whatever it is not
sure of to orjson, which decides between a value and a cause. So the result is that of orjson on every line, at several
times its speed on ordinary ones; `Extracted.odd` says how many were not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dvsel.documents.causes import Causes
from dvsel.documents.columns import Bytes, Column, Kind, Offsets
from dvsel.shards.json_fallback import Span, cause, locate, value
from dvsel.shards.json_parser import BLANK, ODD, Search, Table, find_newlines, parse_rows

LINES_AT_ONCE = 1 << 16
_BLANK_LINE = "blank line"


@dataclass(frozen=True, slots=True)
class Extracted:
    """The wanted fields of n lines.

    columns: by path, n rows each. A string as its unescaped UTF-8, any other value as its source's JSON text.
    spans: by path, where the value's JSON text lies in the data, quotes included: starts and ends, int64
    (n,), -1 where the field is missing.
    bad: the cause for each row that holds no JSON object; its fields are MISSING.
    odd: how many rows orjson had to decide on.
    """

    columns: dict[str, Column]
    spans: dict[str, tuple[Offsets, Offsets]]
    bad: Causes
    odd: int


def find_lines(data: Bytes, begin: int, end: int) -> tuple[Offsets, Offsets, int]:
    """Find the first lines of data[begin:end] that end in LF, `LINES_AT_ONCE` at most: their starts and ends, int64,
    without the LF, and the index just after the last LF, where a further line begins, be it unfinished.

    data: uint8, PAD bytes or more beyond `end`.
    """
    ends = np.empty(LINES_AT_ONCE, np.int64)
    count, _ = find_newlines(data, begin, end, ends)
    bounds = np.empty(count + 1, np.int64)
    bounds[0] = begin
    np.add(ends[:count], 1, out=bounds[1:])
    return bounds[:-1], ends[:count], int(bounds[-1])


def extract(data: Bytes, starts: Offsets, ends: Offsets, paths: Sequence[str]) -> Extracted:
    """Take the fields that the dotted `paths` name, of the JSON objects in data[starts[i]:ends[i]].

    data: uint8, PAD bytes or more beyond the last end; writable, as numba compiles once more for read-only ones.
    A path descends objects; a key that itself holds a dot is not reachable. Of a key given twice the last
    counts. Bad content never raises: its cause is in `Extracted.bad`.
    """
    names = list(dict.fromkeys(paths))
    search, table = Search.of(names), Table.empty(len(names), starts, ends)
    parse_rows(data, starts, ends, search, table)
    columns = table.columns(names)
    blank, odd = (np.flatnonzero(table.verdicts == verdict) for verdict in (BLANK, ODD))
    bad = Causes(blank, np.zeros(len(blank), np.int64), [_BLANK_LINE])
    if len(odd):  # what the kernel leaves to a slow and complete parser
        lines = [data[at:end].tobytes() for at, end in zip(starts[odd].tolist(), ends[odd].tolist(), strict=True)]
        causes = [cause(line) for line in lines]
        bad = bad.or_else(Causes.pairs((row, why) for row, why in zip(odd.tolist(), causes, strict=True) if why))
        read = [at for at, why in enumerate(causes) if not why]
        _put(columns, table, odd[read], starts, [lines[at] for at in read])
    spans = {name: (table.spans[at, 0], table.spans[at, 1]) for at, name in enumerate(names)}
    return Extracted(columns, spans, bad, len(odd))


def _put(columns: dict[str, Column], table: Table, rows: Offsets, starts: Offsets, lines: Sequence[bytes]) -> None:
    """Add the fields of rows that are JSON objects and that the kernel left out."""
    names = list(columns)
    located = [locate(line, names) for line in lines]
    for at, name in enumerate(names if lines else ()):
        spans = [places[at] for places in located]
        found = [_value(line, span) for line, span in zip(lines, spans, strict=True)]
        columns[name] = columns[name].put(rows, *zip(*found, strict=True))
        for row, span in zip(rows.tolist(), spans, strict=True):
            if span:
                table.spans[at, :, row] = starts[row] + np.array(span)


def _value(line: bytes, span: Span | None) -> tuple[bytes, Kind]:
    return value(line[slice(*span)]) if span else (b"", Kind.MISSING)
