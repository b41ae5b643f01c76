"""The extractor against orjson: the same lines accepted, the same values found, whatever the bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.shards.extract import LINES_AT_ONCE, extract, find_lines
from json_truth import PATHS, SPLICES, check, extract_lines, mutate, padded

# --- What it takes ---


def test_values_of_every_kind() -> None:
    lines = [
        b'{"text": "a\\nb", "id": 7, "meta": {"domain": "web", "x": {"y": [1, 2]}}}',
        b'{"text": null, "id": true, "meta": [{"domain": 1}]}',
        b"{}",
        b' \t{ "id" : -1.5e+3 , "text":"" }\r',
        '{"text": "naïve 😀", "é": false}'.encode(),
    ]
    extracted = check(lines)
    text, identity = extracted.columns["text"], extracted.columns["id"]
    assert [text[row] for row in range(5)] == [b"a\nb", b"", b"", b"", "naïve 😀".encode()]
    assert [identity[row] for row in range(5)] == [b"7", b"true", b"", b"-1.5e+3", b""]
    assert extracted.columns["meta"][0] == b'{"domain": "web", "x": {"y": [1, 2]}}'
    assert extracted.columns["meta.x.y"][0] == b"[1, 2]"
    assert extracted.odd == 0


def test_spans_are_places_in_the_data() -> None:
    data, extracted = extract_lines([b'{"id": "a"}', b'{"id": "b\\u0063"}'], ["id"])
    starts, ends = extracted.spans["id"]
    assert [data[a:b].tobytes() for a, b in zip(starts, ends, strict=True)] == [b'"a"', b'"b\\u0063"']


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": 1, "text": "second"}',
        b'{"text": "first", "text": null}',
        b'{"meta": {"domain": "a"}, "meta": {"x": 1}}',
        b'{"meta": {"domain": "a"}, "meta": 3}',
        b'{"m\\u0065ta": {"domain": "a"}, "meta": {"domain": "b"}}',
        b'{"meta": {"domain": "a"}, "m\\u0065ta": {"domain": "b"}, "text": "\\ud83d\\ude00"}',
    ],
)
def test_of_a_key_given_twice_the_last_counts(line: bytes) -> None:
    assert check([line, b'{"text": "next"}']).odd == 1


def test_odd_but_valid_lines_are_left_to_orjson() -> None:
    deep = b'{"text": "x", "meta": ' + b"[" * 400 + b"]" * 400 + b', "id": [{"a": "]}"}, "\\""]}'
    long_numbers = b'{"meta": 1.' + b"3" * 500 + b', "id": ' + b"9" * 300 + b', "text": 1e-400}'
    assert check([deep, long_numbers]).odd == 2


def test_lone_and_paired_surrogates() -> None:
    pairs = [
        b"\\ud83d\\ude00",
        b"\\ud800",
        b"\\udc00",
        b"\\ud800\\ud800",
        b"\\ud800x",
        b"\\ud800\\n",
        b"\\udbff\\udfff",
    ]
    check([b'{"text": "' + pair + b'"}' for pair in pairs])


@pytest.mark.parametrize("prefix", [b"", b"a" * 59, b"a" * 60, b"a" * 61, b"a" * 62, b"a" * 63, b"a" * 64])
def test_utf8_at_every_place_of_a_vector(prefix: bytes) -> None:
    firsts = [
        b"\x7f",
        b"\x80",
        b"\xbf",
        b"\xc0",
        b"\xc1",
        b"\xc2",
        b"\xdf",
        b"\xe0",
        b"\xe1",
        b"\xec",
        b"\xed",
    ]
    firsts += [b"\xee", b"\xef", b"\xf0", b"\xf1", b"\xf3", b"\xf4", b"\xf5", b"\xf8", b"\xff"]
    seconds = [b"", b"a", b"\x80", b"\x8f", b"\x90", b"\x9f", b"\xa0", b"\xbf", b"\xc2"]
    rests = [b"", b"\x80", b"\xbf\x80", b"\x80\x80\x80", b"\x80a"]
    runs = [first + second + rest for first in firsts for second in seconds for rest in rests]
    check([b'{"text": "' + prefix + run + tail + b'"}' for run in runs for tail in (b"", b"b" * 70)], ["text"])


def test_a_line_cut_anywhere_is_not_completed_by_what_follows_it() -> None:
    line = '{"text": "é\\u00e9\\n", "id": [-12.5e-3, true, null, {"a": false}]}'.encode()
    check([line[:size] for size in range(len(line) + 1)])


@pytest.mark.parametrize("rubbish", [b"\\", b"9", b" ", b"a", b"\xc3\xa9", b"\xbf", b"ue"])
def test_what_follows_the_last_line_is_not_read(rubbish: bytes) -> None:
    for line in (b'{"text": "a', b'{"text": "a\\', b'{"id": 1', b"{", b'{"id": tr', b'{"text": "\xc3'):
        data = padded(line, rubbish)
        extracted = extract(data, np.array([0], np.int64), np.array([len(line)], np.int64), PATHS)
        assert set(extracted.bad) == {0}


def test_no_lines_and_no_paths() -> None:
    nothing = np.empty(0, np.int64)
    assert len(extract(padded(b""), nothing, nothing, ["text"]).columns["text"]) == 0
    _, extracted = extract_lines([b'{"a": "b"}', b'{"a": "b'], [])
    assert extracted.columns == {} and set(extracted.bad) == {1}


def test_a_path_given_twice_is_one_column() -> None:
    check([b'{"text": "a"}'], ["text", "text"])


# --- What it refuses, and why ---


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"", "blank line"),
        (b" \t\r", "blank line"),
        (b"\0\0\0", "NUL bytes"),
        (b'{"text": "a\0b"}', "NUL bytes"),
        (b'\xef\xbb\xbf{"text": "a"}', "byte order mark inside the file (files joined with cat?)"),
        (b'{"text": "caf\xe9"}', "not UTF-8 (byte 0xE9 at column 14)"),
        (b'["text"]', "not a JSON object but an array"),
        (b'"text"', "not a JSON object but a string"),
        (b"-1.5", "not a JSON object but a number"),
        (b"true", "not a JSON object but a boolean"),
        (b"null", "not a JSON object but null"),
        (b'{"text": "a"} {"text": "b"}', "JSON of several objects on one line"),
        (b'{"text": "a"}{"text": "b"}', "JSON of several objects on one line"),
        (b'{"text": "a\\ud800"}', "unpaired surrogate escape"),
        (b'{"text": "a\\udc00"}', "unpaired surrogate escape"),
    ],
)
def test_the_cause_is_named(line: bytes, cause: str) -> None:
    assert check([line, b'{"text": "next"}']).bad == {0: cause}


@pytest.mark.parametrize("line", [b"{'text': 1}", b'{"text": "a"', b'{"text": NaN}', b'{"text": 1} x', b"{" * 2000])
def test_other_malformed_lines_get_the_words_of_orjson(line: bytes) -> None:
    cause = check([line]).bad[0]
    assert cause.startswith("malformed JSON: ") and " at column " in cause and "\n" not in cause


def test_rows_around_bad_ones_are_whole() -> None:
    lines = [
        b'{"text": "%d", "id": %d}' % (row, row) if row % 3 else b'{"text": "%d", "id": [' % row for row in range(30)
    ]
    assert list(check(lines).bad) == list(range(0, 30, 3))


def test_odd_lines_among_ordinary_blank_and_bad_ones() -> None:
    ordinary = b'{"text": "caf\xc3\xa9", "id": 1, "meta": {"domain": "x"}}'
    odd = b'{"text": "a", "text": "last", "id": null, "meta": {"domain": "y", "x": {"y": 2}}}'
    lines = [odd, b"", ordinary, odd, odd, b" \t\r", ordinary, b"[", odd]
    extracted = check(lines)
    assert extracted.odd == 5
    assert extracted.bad.first(2) == [(1, "blank line"), (5, "blank line")] and list(extracted.bad) == [1, 5, 7]


# --- Fuzzing ---

scalars = st.one_of(
    st.text(max_size=80),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
keys = st.one_of(st.sampled_from(["text", "id", "meta", "domain", "x", "y", "é", ""]), st.text(max_size=4))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4))
documents = st.dictionaries(keys, values, max_size=6)
chances = st.integers(0, 2**32).map(random.Random)


def dump(document: Any, chance: random.Random) -> bytes:
    """JSON of the document with white space, escapes and repeated keys thrown in."""

    def space() -> str:
        return "".join(chance.choices(" \t\r", k=chance.choice([0, 0, 1, 2])))

    def string(text: str) -> str:
        written = json.dumps(text, ensure_ascii=chance.random() < 0.5)
        if text and chance.random() < 0.2:
            units = text.encode("utf-16-be", "surrogatepass").hex()
            written = '"' + "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4)) + '"'
        return written.replace("/", chance.choice(["/", "\\/"]))

    def render(value: Any) -> str:
        if isinstance(value, dict):
            items = list(value.items())
            items += chance.choices(items, k=int(chance.random() < 0.1)) if items else []
            parts = [f"{space()}{string(key)}{space()}:{render(inner)}" for key, inner in items]
            body = "{" + (",".join(parts) or space()) + "}"
        elif isinstance(value, list):
            body = "[" + (",".join(map(render, value)) or space()) + "]"
        else:
            body = string(value) if isinstance(value, str) else json.dumps(value)
        return space() + body + space()

    return render(document).encode("utf-8", "surrogatepass")


@settings(deadline=None, max_examples=150)
@given(st.lists(documents, min_size=1, max_size=8), chances)
def test_generated_documents(rows: list[dict[str, Any]], chance: random.Random) -> None:
    check([dump(document, chance) for document in rows])


@settings(deadline=None, max_examples=150)
@given(st.lists(documents, min_size=1, max_size=4), chances)
def test_generated_documents_with_changed_bytes(rows: list[dict[str, Any]], chance: random.Random) -> None:
    check([mutate(dump(document, chance), chance) for document in rows for _ in range(8)])


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(SPLICES), max_size=12).map(b"".join), max_size=20))
def test_rubbish(lines: list[bytes]) -> None:
    check(lines)
    check([b'{"text": "' + line + b'"}' for line in lines])
    check([b'{"text": ' + line + b"}" for line in lines])


@settings(deadline=None)
@given(st.lists(st.text("0123456789+-.eE", min_size=1, max_size=12), max_size=30))
def test_numbers(numbers: list[str]) -> None:
    check([b'{"id": %s}' % number.encode() for number in numbers], ["id"])


def test_real_lines_with_changed_bytes(shared_data: Path) -> None:
    chance = random.Random(2)
    lines = [
        line
        for name in ("odd_unicode", "nested_metadata", "escaped_surrogates", "malformed")
        for line in (shared_data / "dirty" / f"{name}.jsonl").read_bytes().split(b"\n")
        if 0 < len(line) < 2000
    ]
    check(
        [mutate(chance.choice(lines), chance) for _ in range(8000)],
        ["text", "id", "metadata", "metadata.domain"],
    )


# --- Real files ---

ORJSON_REFUSES = ("big_int", "deep_nest")  # legal JSON, beyond a double and beyond 1,024 levels


def dirty_files(shared_data: Path) -> Iterable[Path]:
    return sorted((shared_data / "dirty").glob("*.jsonl"))


def test_dirty_files_line_by_line(shared_data: Path) -> None:
    for file in dirty_files(shared_data):
        check(file.read_bytes().split(b"\n"), ["text", "id", "metadata", "metadata.domain"])


def test_malformed_lines_are_those_of_the_key(shared_data: Path) -> None:
    lines = (shared_data / "dirty" / "malformed.jsonl").read_bytes().split(b"\n")
    keys = [
        orjson.loads(line) for line in (shared_data / "dirty" / "malformed.expected.jsonl").read_bytes().splitlines()
    ]
    bad = check(lines).bad
    for key in keys:
        if key["lines"] == 1 and key["kind"] not in ORJSON_REFUSES:
            assert (key["line"] - 1 not in bad) == key["strict_json_object"], key


# --- Lines ---


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100)), st.binary(max_size=10), st.integers(0, 70))
def test_lines_are_those_of_split(lines: list[bytes], rest: bytes, begin: int) -> None:
    content = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines) + rest.replace(b"\n", b"")
    data = padded(b"\n" * begin + content, b"\n")
    starts, ends, consumed = find_lines(data, begin, begin + len(content))
    found = [data[a:b].tobytes() for a, b in zip(starts, ends, strict=True)]
    assert found == content.split(b"\n")[:-1]
    assert consumed - begin == content.rfind(b"\n") + 1
    assert starts.dtype == ends.dtype == np.int64


@pytest.mark.parametrize("count", [LINES_AT_ONCE - 1, LINES_AT_ONCE, LINES_AT_ONCE + 1])
def test_many_short_lines_are_found_in_parts(count: int) -> None:
    starts, ends, consumed = find_lines(padded(b"\n" * count), 0, count)
    assert np.array_equal(starts, np.arange(min(count, LINES_AT_ONCE))) and np.array_equal(ends, starts)
    assert consumed == len(starts)
