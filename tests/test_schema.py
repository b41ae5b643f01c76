"""What arrays must be: the table that a fitted class states, and arrays that are not so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dvsel.schema import ArraySpec, Names, Schema, Unfit, check, packed, unpacked

SCHEMA: Schema = {
    "table": ArraySpec("float32", ("groups", 4)),
    "left.{groups}": ArraySpec("float32", ("rows.{groups}", "width"), finite=False),
    "right.{groups}": ArraySpec("float32", ("rows.{groups}",), or_shape=("rows.{groups}",) * 2, optional=True),
    "counts": ArraySpec("int64", ("groups",), minimum=1, maximum=9),
    "late": ArraySpec("uint8", ("any", 2), empty=True),
    "groups": Names(),
}
RIGHT: dict[str, Any] = {
    "table": np.ones((2, 4), "f4"),
    "left.0": np.full((3, 5), np.nan, "f4"),
    "left.1": np.ones((1, 5), "f4"),
    "right.1": np.ones((1, 1), "f4"),
    "counts": np.array([1, 9]),
    "late": np.zeros((0, 2), "u1"),
    "groups": packed(["a", "b"]),
}


def test_what_is_right_passes() -> None:
    check(RIGHT, SCHEMA)
    check(RIGHT | {"right.0": np.ones(3, "f4")}, SCHEMA)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("table", None, "array table is missing"),
        ("left.1", None, "array left.1 is missing"),
        ("left.2", np.ones((1, 5), "f4"), "array left.2 does not belong"),
        ("table", np.ones((2, 4)), r"is float64 of shape \(2, 4\), not float32 of \(groups 2, 4\)"),
        ("table", np.ones((3, 4), "f4"), r"shape \(3, 4\), not float32 of \(groups 2, 4\)"),
        ("table", np.ones((2, 5), "f4"), r"shape \(2, 5\)"),
        ("table", np.ones((2, 4, 1), "f4"), r"shape \(2, 4, 1\)"),
        ("table", np.full((2, 4), np.inf, "f4"), "holds NaN or an infinite number"),
        ("left.0", np.ones((3, 6), "f4"), "array left.1"),
        ("left.0", np.ones((0, 5), "f4"), "array left.0"),
        ("right.0", np.ones((4, 4), "f4"), r"array right.0 .* \(rows.0 3, rows.0 3\)"),
        ("counts", np.array([0, 1]), "out of its range, 1 to 9"),
        ("counts", np.array([1, 10]), "out of its range, 1 to 9"),
        ("late", np.zeros((0, 3), "u1"), "array late"),
        ("groups", np.array([1.0]), "not bytes"),
        ("groups", np.frombuffer(b'["a", "a"]', "u1"), "one of them twice"),
        ("groups", packed([]), "too few"),
        ("groups", packed([str(number) for number in range(70_000)]), "too many"),
        ("groups", np.frombuffer(b'["\\ud800", "b"]', "u1"), "not a list of names"),
        *[("groups", np.frombuffer(text, "u1"), "not a list of names") for text in (b"[", b"{}", b"[1]", b"[" * 10**6)],
    ],
)
def test_what_is_wrong_is_named(name: str, array: Any, complaint: str) -> None:
    arrays = {key: one for key, one in (RIGHT | {name: array}).items() if one is not None}
    with pytest.raises(Unfit, match=complaint) as refusal:
        check(arrays, SCHEMA)
    assert "\n" not in str(refusal.value)


def test_no_number_is_within_a_range() -> None:
    with pytest.raises(Unfit, match="out of its range, 0 to any"):
        check({"eps": np.array([np.nan])}, {"eps": ArraySpec("float64", (1,), minimum=0, finite=False)})


def test_a_number_out_of_range_is_found_wherever_it_lies() -> None:
    array = np.zeros(3_000_001, np.float32)
    check({"a": array}, {"a": ArraySpec("float32", ("n",), maximum=1)})
    array[-1] = 2
    with pytest.raises(Unfit, match="out of its range"):
        check({"a": array}, {"a": ArraySpec("float32", ("n",), maximum=1)})


def test_names_come_back() -> None:
    assert unpacked(packed(["", "café", "\udc80"])) == ["", "café", "\udc80"]
