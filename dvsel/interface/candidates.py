"""The pool as a rule sees it that looks at the whole set: all documents, in passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Part:
    """n consecutive documents.

    first: position of the first in the whole pool. score: float32 (n, groups), NaN for none. tie: uint64 (n,), the
    highest goes first among equals. uniform: float64 (n,) in (0, 1), drawn from the seed and the document. cost:
    int64 (n,), in the budget's unit. eligible: bool (n,), whether it competes. vectors: float32 (n, width) of unit
    length, NaN for a document without one; (n, 0) where none were asked for.
    """

    first: int
    score: npt.NDArray[np.float32]
    tie: npt.NDArray[np.uint64]
    uniform: npt.NDArray[np.float64]
    cost: npt.NDArray[np.int64]
    eligible: npt.NDArray[np.bool_]
    vectors: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.tie)


class Candidates(Protocol):
    """The documents of a pool, and the keys that a rule gives them.

    count: documents, including those that do not compete. docs: documents that have a score. cost: of all of these,
    in the budget's unit. limit: the budget in its unit, None for none. groups: names of the score's columns. scratch: a
    folder for temporary files. keys: float32 (count,), all NaN, for the rule to fill: the highest are kept first, NaN
    never.
    """

    count: int
    docs: int
    cost: int
    limit: int | None
    groups: tuple[str, ...]
    seed: int
    scratch: Path
    keys: npt.NDArray[np.float32]

    def parts(self, vectors: bool = False) -> Iterator[Part]:
        """Pass over all documents, in order."""

    def embedded(self, patterns: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return vectors of other documents, made as the pool's were: float32 (m, width) of unit length."""
