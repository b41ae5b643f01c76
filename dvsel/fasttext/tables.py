"""Check that the arrays of a folded model suit the kernels, which trust them. Light to import.

`dvsel.fasttext.folded` says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.fasttext import MOST_CHARS, MOST_WORD_NGRAMS
from dvsel.schema import ArraySpec, Unfit

LONGEST_RUN = 4096
"""Taken slots beside each other, at most: what a search may go through. With 2 words to 3 slots some 200 are usual."""

_MOST_SLOTS = 2**32  # what the upper half of a key tells apart
_LARGEST_SEED = 2**63 - 1

SCHEMA: Mapping[str, ArraySpec] = {
    "spec": ArraySpec("int64", (4,)),
    "words": ArraySpec("uint32", ("slots", "entry")),
    "ngrams": ArraySpec("float32", ("buckets", "width"), finite=False, empty=True),
    "directions": ArraySpec("float32", ("columns", "dim"), finite=False, empty=True),
}


def check(arrays: Mapping[str, npt.NDArray[Any]], columns: int) -> None:
    """Raise Unfit for arrays that are as the schema says and that no model of so many columns folds to."""
    seed, word_ngrams, _, max_chars = arrays["spec"].tolist()
    words, (buckets, width), (late, dim) = arrays["words"], arrays["ngrams"].shape, arrays["directions"].shape
    if not 0 <= seed <= _LARGEST_SEED or word_ngrams > MOST_WORD_NGRAMS or max_chars > MOST_CHARS:
        raise Unfit("array spec is out of range")
    if not buckets and (word_ngrams > 1 or max_chars > 0):
        raise Unfit("array ngrams is empty, and runs are hashed into it")
    if not 0 < width == words.shape[1] - 1 - (max_chars > 0):
        raise Unfit("arrays words and ngrams are not of one width")
    if (late, dim) != (columns, width) if late else width != columns:
        raise Unfit(f"arrays ngrams and directions do not give {columns} columns")
    if len(words) > _MOST_SLOTS or longest_run(words[:, 0]) > LONGEST_RUN:
        raise Unfit("array words is so full that searches would not end")


def longest_run(tags: npt.NDArray[np.uint32]) -> int:
    """The most slots beside each other, around the end too, that are taken; all of them where none is free."""
    free = np.flatnonzero(tags == 0)
    if not len(free):
        return max(len(tags), LONGEST_RUN + 1)
    return int(np.diff(free, append=free[0] + len(tags)).max()) - 1
