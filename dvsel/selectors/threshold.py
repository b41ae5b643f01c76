"""Keep scores from a bound on: a given score, or a quantile of the pool's scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dvsel.budget import Budget
from dvsel.errors import UserError
from dvsel.interface.selector import Selector
from dvsel.options import option


@dataclass(frozen=True)
class Threshold(Selector):
    """Keep every document whose score reaches a bound; with a budget as well, the best of these.

    A quantile q keeps the highest 1 - q of the documents that have a score, rounded down: equal scores at the
    bound are not all kept.
    """

    min_score: float | None = option(None, "lowest score that is kept", minimum=-math.inf, maximum=math.inf)
    quantile: float | None = option(
        None, "share of the scored documents that falls below the bound", minimum=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.min_score is None) == (self.quantile is None):
            raise UserError("threshold: needs one bound; give either min-score or quantile")

    def key(
        self,
        score: npt.NDArray[np.float32],
        uniform: npt.NDArray[np.float64],  # noqa: ARG002
    ) -> npt.NDArray[np.float32]:
        if self.min_score is None:
            return score
        with np.errstate(over="ignore"):  # a bound beyond float32 is infinite
            bound = np.float32(self.min_score)  # so that a score reaches itself as it is printed
        return np.where(score >= bound, score, np.float32(np.nan))

    def score_of(self, key: float) -> float:
        return key

    @property
    def budget(self) -> Budget | None:
        if self.quantile is None:
            return None
        return Budget("docs", share=1 - Fraction(repr(self.quantile)))

    @property
    def needs_budget(self) -> bool:
        return False
