"""Splits of a dataset, of which the user has to choose: nobody wants to train on what a test split holds unasked.

A folder that `DatasetDict.save_to_disk` wrote lists its splits in `dataset_dict.json`. A dataset of the hub names its
files by them: `data/train-00000-of-00003.parquet`, `test.jsonl`, `validation/part.jsonl`.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Callable, Sequence

from dvsel.errors import UserError, shown
from dvsel.redact import printable
from dvsel.storage.places import join

_DICT = "dataset_dict.json"
_PIECE = re.compile(r"(?:^|/)([^/]+?)-\d{5}-of-\d{5}[^/]*$")
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_WORD = {
    split: re.compile(rf"(?:^|[-._ 0-9/])(?:{'|'.join(words)})(?:[-._ 0-9/]|$)", re.IGNORECASE)
    for split, words in _WORDS.items()
}
_NAMED = 8


def check_saved(base: str, names: Sequence[str], read: Callable[[str], bytes]) -> None:
    """Raise UserError where a folder holds a saved `DatasetDict` of several splits.

    names: of all files of the folder, relative. read: the content of one.
    """
    for name in names:
        if posixpath.basename(name) == _DICT:
            folder = posixpath.dirname(name)
            above = name.removesuffix(_DICT)
            tops = {one.removeprefix(above).split("/")[0] for one in names if one.startswith(above)}
            there = [split for split in _listed(read(name)) if split in tops]
            _check_one(join(base, folder).rstrip("/"), {split: split for split in there})


def check_hub(base: str, names: Sequence[str]) -> None:
    """Raise UserError where the shards of a dataset of the hub are of several splits. names: relative to it."""
    files: dict[str, list[str]] = {}
    for name in names:
        if split := _split_of(name):
            files.setdefault(split, []).append(name)
    _check_one(base, {split: _pattern(found) for split, found in files.items()})


def _check_one(folder: str, patterns: dict[str, str]) -> None:
    """patterns: what names each split, below the folder."""
    if len(patterns) > 1:
        splits = ", ".join(printable(shown(split)) for split in list(patterns)[:_NAMED])
        more = f" and {len(patterns) - _NAMED:,} more" if len(patterns) > _NAMED else ""
        raise UserError(
            f"{folder}: holds several splits ({splits}{more}); name those that you want, such as "
            f"{join(folder, next(iter(patterns.values())))}"
        )


def _listed(content: bytes) -> list[str]:
    """The splits that a `dataset_dict.json` lists; none if it is some other JSON file."""
    try:
        splits = json.loads(content)["splits"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [split for split in splits if isinstance(split, str) and split] if isinstance(splits, list) else []


def _split_of(name: str) -> str:
    if piece := _PIECE.search(name):
        return piece[1]
    return next((split for split, word in _WORD.items() if word.search(posixpath.splitext(name)[0])), "")


def _pattern(names: Sequence[str]) -> str:
    """Return the pattern of files of one split."""
    shared = os.path.commonprefix(names)  # noqa: RUF071  (of characters, as a glob is)
    return names[0] if len(names) == 1 else shared.rstrip("0123456789") + "*"
