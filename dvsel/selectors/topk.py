"""Keep the highest scores, or the lowest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dvsel.interface.selector import Selector
from dvsel.options import option


@dataclass(frozen=True)
class TopK(Selector):
    """Keep the documents with the highest scores."""

    lowest: bool = option(False, "keep the lowest scores instead")

    def key(
        self,
        score: npt.NDArray[np.float32],
        uniform: npt.NDArray[np.float64],  # noqa: ARG002
    ) -> npt.NDArray[np.float32]:
        return -score if self.lowest else score

    def score_of(self, key: float) -> float:
        return -key if self.lowest else key
