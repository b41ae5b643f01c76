"""Causes of bad rows: a dict is the truth."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dvsel.documents.causes import Causes

DICTS = st.dictionaries(
    st.integers(0, 30), st.sampled_from(["blank line", "malformed: x", "malformed: y", "not UTF-8 (z)"])
)


@given(first=DICTS, second=DICTS, most=st.integers(0, 5))
def test_causes_are_what_a_dict_would_be(first: dict[int, str], second: dict[int, str], most: int) -> None:
    causes = Causes.of(first)
    assert causes == first and list(causes) == sorted(first) and bool(causes) == bool(first)
    assert all((row in causes) == (row in first) for row in range(31))
    assert causes.or_else(Causes.of(second)) == second | first
    assert causes.first(most) == sorted(first.items())[:most]


def test_counts_are_by_cause_without_its_details() -> None:
    causes = Causes.of({3: "malformed: x", 1: "blank line", 2: "malformed: y", 9: "not UTF-8 (z)"})
    assert causes.counts() == Counter({"malformed": 2, "blank line": 1, "not UTF-8": 1})


def test_a_mapping_of_causes_is_not_copied() -> None:
    causes = Causes.of({1: "a"})
    assert Causes.of(causes) is causes
