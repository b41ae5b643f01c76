"""Keep a uniform sample: the baseline that every selection must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.interface.selector import Selector


@dataclass(frozen=True)
class Random(Selector):
    """Keep a uniform random sample of the documents that have a score, whatever their scores."""

    noisy: ClassVar[bool] = True

    def key(self, score: npt.NDArray[np.float32], uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        return np.where(np.isnan(score), np.float32(np.nan), uniform.astype(np.float32))
