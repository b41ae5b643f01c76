"""The truth of the JSON extractor: the same lines accepted, the same values found as by orjson, whatever the bytes.

`check` is the oracle: it walks the paths through what `orjson.loads` makes of each line.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from dvsel.documents.columns import PAD, Bytes, Kind
from dvsel.shards.extract import Extracted, extract

PATHS = ["text", "id", "meta", "meta.domain", "meta.x.y", "é"]
MISSING = object()
KINDS = {str: Kind.STRING, int: Kind.NUMBER, float: Kind.NUMBER, bool: Kind.BOOL, type(None): Kind.NULL}


def padded(content: bytes, rubbish: bytes = b'"}]0') -> Bytes:
    """A buffer whose spare bytes would go on with the JSON, for a kernel that looks too far."""
    return np.frombuffer(content + (rubbish * PAD)[:PAD], np.uint8).copy()


def extract_lines(
    lines: Sequence[bytes], paths: Sequence[str] = PATHS, padded: Callable[[bytes], Bytes] = padded
) -> tuple[Bytes, Extracted]:
    ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
    starts = np.concatenate(([0], ends))[:-1].astype(np.int64)
    data = padded(b"".join(lines))
    return data, extract(data, starts, ends, paths)


def follow(value: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return MISSING
        value = value[key]
    return value


def same(found: Any, expected: Any) -> bool:
    return repr(found) == repr(expected)  # tells 1 from 1.0 and True, and 0.0 from -0.0


def check(lines: Sequence[bytes], paths: Sequence[str] = PATHS, padded: Callable[[bytes], Bytes] = padded) -> Extracted:
    data, extracted = extract_lines(lines, paths, padded)
    for row, line in enumerate(lines):
        try:
            document = orjson.loads(line)
        except orjson.JSONDecodeError:
            document = None
        assert (row in extracted.bad) == (not isinstance(document, dict)), line
        for path in paths:
            check_field(data, extracted, row, path, follow(document, path))
    return extracted


def check_field(data: Bytes, extracted: Extracted, row: int, path: str, expected: Any) -> None:
    column, (starts, ends) = extracted.columns[path], extracted.spans[path]
    found, raw = column[row], data[starts[row] : ends[row]].tobytes()
    if expected is MISSING:
        assert (column.kind[row], found, starts[row], ends[row]) == (Kind.MISSING, b"", -1, -1)
        return
    assert column.kind[row] == KINDS.get(type(expected), Kind.OTHER)
    assert same(orjson.loads(raw), expected)
    assert raw.strip() == raw
    if isinstance(expected, str):
        assert found == expected.encode()
    else:
        assert found == (b"" if expected is None else raw)


SPLICES = (
    rb"""" \ { } [ ] , : 0 - . e E+ 1e9 1e999 00 true null nul \u \ud83d \ude00 \u00 \x "text": "meta":{""".split()
)
SPLICES += [
    b" ",
    b"\t",
    b"\n",
    b"\0",
    b"\x1f",
    b"\x7f",
    b"[[",
    b"]]",
    b"}{",
    b"'",
    b"//",
    b"NaN",
    b"\xc3",
    b"\xa9",
    b"\xff",
]
SPLICES += [b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf0\x9f", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xc0\xaf"]


def mutate(line: bytes, chance: random.Random) -> bytes:
    """The line with one to three changes of its bytes."""
    for _ in range(chance.randint(1, 3)):
        at, to = sorted(chance.choices(range(len(line) + 1), k=2))
        change = chance.randrange(6)
        if change == 0:
            line = line[:at] + bytes([chance.randrange(256)]) + line[at + 1 :]
        elif change == 1:
            line = line[:at] + chance.choice(SPLICES) + line[at:]
        elif change == 2:
            line = line[:at] + chance.choice(SPLICES) + line[at + 1 :]
        elif change == 3:
            line = line[:at] + line[at + 1 :]
        elif change == 4:
            line = line[:to] if chance.random() < 0.5 else line[at:]
        else:
            line = line[:to] + line[at:to][:100] + line[to:]
    return line
