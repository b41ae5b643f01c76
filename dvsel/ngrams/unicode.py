"""Python's own view of every character, as tables for the kernels: made at each start, never stored.

So a kernel cuts and lower-cases text exactly as `re` and `str.lower` of the Python that runs it.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SPACE, WORD, PUNCTUATION = 0, 1, 2
PAGE_BITS = 8

_CODE_POINTS = sys.maxunicode + 1
_UTF32 = "utf-32-le"
_GROWS = 0x130  # capital I with a dot above: the only character whose lower case is two characters


class Tables(NamedTuple):
    """Tables of code points; a kernel looks c up as `entries[pages[c >> 8], c & 255]`.

    pages: uint16 (4352,). entries: int32 (pages, 256): distance to the lower-case character * 4 + class.
    """

    pages: npt.NDArray[np.uint16]
    entries: npt.NDArray[np.int32]


@cache
def tables(whitespace: bool, lower: bool) -> Tables:
    """Make the tables for one way of cutting words. whitespace: whether punctuation counts as part of words."""
    # One string of all characters, so that `re` and `str.lower` are asked once and not a million times.
    characters = _all_characters()
    entries = np.full(_CODE_POINTS, WORD if whitespace else PUNCTUATION, np.int32)
    for pattern, kind in ((r"\w+", WORD), (r"\s+", SPACE)):
        for run in re.finditer(pattern, characters):
            entries[run.start() : run.end()] = kind
    if lower:
        entries += np.subtract(_lowered(characters), np.arange(_CODE_POINTS, dtype=np.int32)) << 2
    return _in_pages(entries)


def _all_characters() -> str:
    code_points = np.arange(_CODE_POINTS, dtype="<u4")
    return code_points.tobytes().decode(_UTF32, "surrogatepass")


def _lowered(characters: str) -> npt.NDArray[np.int32]:
    # That character would shift all after it. What it becomes here is never used: such rows go through `str.lower`.
    lowered = characters.replace(chr(_GROWS), "i").lower()
    return np.frombuffer(lowered.encode(_UTF32, "surrogatepass"), "<i4")


def _in_pages(entries: npt.NDArray[np.int32]) -> Tables:
    rows = entries.reshape(-1, 1 << PAGE_BITS)
    # Most pages of 256 characters are equal (unassigned, or letters without case), and are stored once.
    keys = [row.tobytes() for row in rows]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    pages = np.array([numbers[key] for key in keys], np.uint16)
    return Tables(pages, np.stack([np.frombuffer(key, np.int32) for key in numbers]))
