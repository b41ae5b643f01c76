"""Documents written as new shards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dvsel.documents.columns import Column, Kind
from dvsel.pool.new_shards import distinct_rows, json_lines, named_shards, row_ids


def test_fields_go_back_to_their_places() -> None:
    fields = {"text": Column.of(["a é".encode(), b"b"]), "id": row_ids(2), "meta.lang.code": Column.of([b"en", None])}
    documents = [json.loads(line) for line in json_lines(fields, np.array([1, 0]))]
    assert documents[1] == {"text": "a é", "id": "0", "meta": {"lang": {"code": "en"}}}
    assert documents[0]["text"] == "b" and documents[0]["id"] == "1"


def test_values_keep_their_types_and_missing_ones_are_left_out() -> None:
    column = Column.of([b"x", b"7.50", b"[1, 2]", b"", b"true"])
    kinds = np.array([Kind.STRING, Kind.NUMBER, Kind.OTHER, Kind.MISSING, Kind.BOOL], column.kind.dtype)
    lines = list(json_lines({"value": Column(column.data, column.offsets, kinds)}, np.arange(5)))
    assert lines == [b'{"value":"x"}\n', b'{"value":7.50}\n', b'{"value":[1, 2]}\n', b"{}\n", b'{"value":true}\n']


@pytest.mark.parametrize(("size", "ends"), [(1, [1, 2, 3, 4, 5]), (5, [2, 4, 5]), (100, [5])])
def test_a_shard_ends_with_the_line_that_fills_it(size: int, ends: list[int]) -> None:
    lines = [b"%d__\n" % number for number in range(5)]
    found = dict(named_shards(lines, size))
    begins = [0, *ends[:-1]]
    expected = [b"".join(lines[begin:end]) for begin, end in zip(begins, ends, strict=True)]
    assert list(found) == [f"{number:05}.jsonl" for number in range(len(ends))]
    assert list(found.values()) == expected


def test_no_lines_are_no_shards() -> None:
    assert list(named_shards([], 10)) == []


def test_of_equal_texts_the_first_stays() -> None:
    assert distinct_rows(Column.of([b"b", b"a", b"b", b"", b"a", b""])).tolist() == [0, 1, 3]
