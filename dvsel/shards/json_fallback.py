"""Fields of a JSON line when orjson has to decide: slower than `json_parser`, and never unsure."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

import orjson

from dvsel.documents.columns import Kind

Span = tuple[int, int]

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_SCALAR = re.compile(rb"[^\s,\]}]+")
_SPACE_OR_COMMA = re.compile(rb"[\s,:]*")
_STRING_OR_BRACKET = re.compile(_STRING.pattern + rb"|[\[\]{}]")
_BOM = b"\xef\xbb\xbf"
_SHORT = 64  # bytes of a line that may come often: a bracket, a field of an object that was spread over lines


def cause(line: bytes) -> str | None:
    """Return why the line is not one JSON object; None if it is."""
    return _cause_of_short(line) if len(line) <= _SHORT else _cause(line)


def _cause(line: bytes) -> str | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _refusal(line, error)
    return None if isinstance(value, dict) else f"not a JSON object but {_describe(value)}"


_cause_of_short = functools.lru_cache(1 << 12)(_cause)


def _describe(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _refusal(line: bytes, error: orjson.JSONDecodeError) -> str:
    if not line.strip(b" \t\r\n"):
        return "blank line"
    if b"\0" in line:
        return "NUL bytes"
    if line.startswith(_BOM):
        return "byte order mark inside the file (files joined with cat?)"
    try:
        text = line.decode()
    except UnicodeDecodeError as bad:
        return f"not UTF-8 (byte 0x{line[bad.start]:02X} at column {bad.start + 1})"
    if _starts_another(text, error.pos):
        return "JSON of several objects on one line"
    if "surrogate" in error.msg:
        return "unpaired surrogate escape"
    return f"malformed JSON: {error.msg} at column {error.colno}"


def _starts_another(text: str, at: int) -> bool:
    """Return whether text[:at] is a whole JSON object and another value's bracket follows it."""
    return text[at : at + 1] == "{" and text[:at].rstrip()[-1:] == "}" and cause(text[:at].encode()) is None


def locate(line: bytes, paths: Sequence[str]) -> list[Span | None]:
    """Find the places of the paths' values in a line that is a JSON object."""
    whole = line.index(b"{"), len(line)
    objects: dict[Span, dict[str, Span]] = {}

    def found(path: str) -> Span | None:
        span = whole
        for key in path.split("."):
            if line[span[0] : span[0] + 1] != b"{":
                return None
            if span not in objects:
                objects[span] = dict(_members(line, span[0]))
            if key not in objects[span]:
                return None
            span = objects[span][key]
        return span

    return list(map(found, paths))


def _members(line: bytes, at: int) -> Iterator[tuple[str, Span]]:
    """The keys of the object that begins at `at`, and where their values lie."""
    at = _skip(line, at + 1)
    while line[at : at + 1] != b"}":
        key = _STRING.match(line, at)
        assert key is not None
        start = _skip(line, key.end())
        at = _end_of_value(line, start)
        yield orjson.loads(key.group()), (start, at)
        at = _skip(line, at)


def _skip(line: bytes, at: int) -> int:
    space = _SPACE_OR_COMMA.match(line, at)
    assert space is not None
    return space.end()


def _end_of_value(line: bytes, at: int) -> int:
    if line[at : at + 1] not in (b"{", b"["):
        scalar = (_STRING if line[at : at + 1] == b'"' else _SCALAR).match(line, at)
        assert scalar is not None
        return scalar.end()
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(line, at):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token.group(), 0)
        if depth == 0:
            return token.end()
    raise AssertionError("brackets of valid JSON are balanced")


def value(raw: bytes) -> tuple[bytes, Kind]:
    """A field's bytes and kind from its JSON text."""
    match raw[:1]:
        case b'"':
            return orjson.loads(raw).encode(), Kind.STRING
        case b"n":
            return b"", Kind.NULL
        case b"t" | b"f":
            return raw, Kind.BOOL
        case b"{" | b"[":
            return raw, Kind.OTHER
    return raw, Kind.NUMBER
