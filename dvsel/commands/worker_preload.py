"""Imports and loads the kernels that workers need, in the process that they are forked from."""

from __future__ import annotations

import sys
from types import TracebackType

import numpy as np

import dvsel.commands.score
import dvsel.commands.select  # noqa: F401
from dvsel.documents.columns import PAD
from dvsel.documents.hashing import combine, hash_rows
from dvsel.documents.tokens import count_features
from dvsel.shards.extract import extract, find_lines


def _quiet_without_job(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A worker that is forked just as its job is interrupted finds its locks or task gone, and nobody waits for it."""
    if not issubclass(kind, EOFError | OSError):
        sys.__excepthook__(kind, error, trace)


def _load_kernels() -> None:
    line = b'{"text":"a"}\n'
    data = np.zeros(len(line) + PAD, np.uint8)
    data[: len(line)] = np.frombuffer(line, np.uint8)
    starts, ends, _ = find_lines(data, 0, len(line))
    text = extract(data, starts, ends, ["text"]).columns["text"]
    count_features(text)
    combine(hash_rows(text), hash_rows(text))


sys.excepthook = _quiet_without_job
_load_kernels()
