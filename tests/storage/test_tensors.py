"""Arrays out of bytes that anyone may have written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvsel.storage.tensors import Malformed, digest, pack, parsed, unpack

ARRAYS = {
    name: np.arange(6).reshape(2, 3).astype(name)
    for name in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32")
} | {"bool": np.array([True, False]), "empty": np.zeros((0, 3), np.float64), "turned": np.ones((3, 2), order="F")}


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: Any = 0, end: Any = 8, shape: Any = (2,), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


def test_arrays_and_metadata_come_back() -> None:
    found, metadata = unpack(pack(ARRAYS, {"key": "value"}))
    assert metadata == {"key": "value"} and found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
        assert found[name].flags.aligned
    assert digest(found) == digest(ARRAYS)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "header"),
        ((2**63).to_bytes(8, "little") + bytes(100), "header is longer"),
        (file(b"[" * 200_000), "not valid JSON"),
        (file(b'{"a": 1, "a": 2}'), "given twice"),
        (file([]), "stands where names and values belong"),
        (file({"__metadata__": {"dvsel": 3}}), "not of strings"),
        (file({"a": 3}), "stands where names and values belong"),
        (file({"a": entry(dtype="F33")}, bytes(8)), "unknown type"),
        (file({"a": entry(dtype=["F32"])}, bytes(8)), "unknown type"),
        (file({"a": entry(more=1)}, bytes(8)), "not described"),
        (file({"a": entry(shape=(3,))}, bytes(8)), "more or fewer bytes"),
        (file({"a": entry(shape=(2**62, 2**62))}, bytes(8)), "more or fewer bytes"),
        (file({"a": entry(shape=(-2, -1))}, bytes(8)), "lengths belong"),
        (file({"a": entry(shape=(2.0,))}, bytes(8)), "lengths belong"),
        (file({"a": entry(shape=(True, 2))}, bytes(8)), "lengths belong"),
        (file({"a": entry(shape=[1] * 100 + [2])}, bytes(8)), "too many axes"),
        (file({"a": entry(8, 0, (0,))}, bytes(8)), "more or fewer bytes"),
        (file({"a": entry(8, 16)}, bytes(16)), "does not begin where"),
        (file({"a": entry(), "b": entry(4, 12)}, bytes(12)), "does not begin where"),
        (file({"a": entry(0, 1, (1,), "U8"), "b": entry(1, 9)}, bytes(9)), "does not begin where"),
        (file({"a": entry()}, bytes(4)), "as long as the file"),
        (file({"a": entry()}, bytes(12)), "as long as the file"),
        (file({"a": entry(0, 2, dtype="BOOL")}, b"\1\2"), "true and false"),
    ],
)
def test_what_is_malformed(content: bytes, complaint: str) -> None:
    with pytest.raises(Malformed, match=complaint) as refusal:
        unpack(content)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for content in (data, file(data), file({"a": entry()}, data)):
        try:
            unpack(content)
        except Malformed:
            continue


@pytest.mark.parametrize("text", [b"\xff", b"{", b"[" * 10**6, "1" * 10_000, b'{"a": {"b": 1, "b": 1}}'])
def test_json_that_cannot_be_read(text: bytes | str) -> None:
    with pytest.raises(Malformed, match="not valid JSON"):
        parsed(text)
