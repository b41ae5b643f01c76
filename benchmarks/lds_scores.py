"""What `lds.py` and `planted.py` compare: scores of candidates for queries, and what they cost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

MARK = "\nTopic:"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What a method is asked.

    groups: of queries, each one target of several documents. answer: how many tokens at the end of all documents and
    queries count; 0: all. Where it is not 0, that is what follows the last `MARK`.
    """

    model: str
    candidates: Sequence[str]
    queries: Sequence[str]
    groups: Sequence[Sequence[int]]
    folder: Path  # for files that are dropped
    answer: int = 0


@dataclass(frozen=True)
class Scored:
    """A method's answer: higher scores for candidates that lower the loss on the query.

    queries: (candidates, queries). groups: (candidates, groups). fit, score: CPU seconds, of what is done once and
    of what is done for each candidate; `costs` says for how many queries at once. step: CPU seconds of a training step
    over the candidates, forward and backward, measured just before.
    """

    queries: Floats
    groups: Floats
    fit: float
    score: float
    costs: str
    step: float = float("nan")

    @classmethod
    def of(cls, question: Question, queries: npt.ArrayLike, fit: float, score: float) -> Scored:
        """Of a method that scores for queries alone: a group's score is its queries' mean."""
        scores = np.asarray(queries, np.float64)
        if scores.shape != (len(question.candidates), len(question.queries)):
            raise ValueError(f"scores of the shape {scores.shape}")
        means = np.stack([scores[:, list(group)].mean(1) for group in question.groups], 1)
        return cls(scores, means, fit, score, f"{len(question.queries)} queries")

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Scored:
        with np.load(path) as held:
            return cls(
                held["queries"],
                held["groups"],
                float(held["fit"]),
                float(held["score"]),
                str(held["costs"]),
                float(held["step"]),
            )


Method = Callable[[Question], Scored]


class Missing(Exception):
    """A method that cannot run here; the text says why."""


class Clock:
    """CPU seconds of this process and of children that have ended, from lap to lap."""

    def __init__(self) -> None:
        self._last = _cpu()

    def lap(self) -> float:
        last, self._last = self._last, _cpu()
        return self._last - last


def _cpu() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system
