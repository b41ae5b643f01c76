"""The tables against Python's own answers, every code point asked once."""

from __future__ import annotations

import re
import sys

import numpy as np

from dvsel.ngrams.unicode import PUNCTUATION, SPACE, WORD, tables


def entries(whitespace: bool, lower: bool) -> np.ndarray:
    made = tables(whitespace, lower)
    return made.entries[made.pages].ravel()


def test_classes_are_those_of_re() -> None:
    classes = entries(False, True) & 3
    for code_point in range(sys.maxunicode + 1):
        character = chr(code_point)
        word, space = re.match(r"\w", character), re.match(r"\s", character)
        assert classes[code_point] == (WORD if word else SPACE if space else PUNCTUATION)


def test_whitespace_is_where_split_splits() -> None:
    spaces = (entries(True, True) & 3) == SPACE
    assert {chr(c) for c in np.flatnonzero(spaces)} == {chr(c) for c in range(sys.maxunicode + 1) if not chr(c).split()}


def test_lower_case_is_that_of_str() -> None:
    lowered = (entries(False, True) >> 2) + np.arange(sys.maxunicode + 1)
    differing = [c for c in range(sys.maxunicode + 1) if chr(c).lower() != chr(lowered[c])]
    assert differing == [0x130]  # two characters: `lookup` leaves it to `str.lower`


def test_lower_case_off_keeps_every_character() -> None:
    assert not (entries(False, False) >> 2).any()


def test_lower_casing_lengthens_utf8_by_half_at_most() -> None:
    for code_point in range(0x80, sys.maxunicode + 1):
        character = chr(code_point)
        if code_point != 0x130 and character.lower() != character:
            assert len(character.lower().encode()) <= len(character.encode()) * 1.5
