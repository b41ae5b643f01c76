"""Sample without replacement, in proportion to exp(score / temperature).

The highest sums of log weight and Gumbel noise are such a sample (the Gumbel top-k of Kool et al. 2019, which
DSIR uses on its log importance weights). A temperature below 1 comes closer to the highest scores, one above
1 closer to a uniform sample. The noise has a standard deviation of 1.28: where that of scores / temperature is far
larger, the sample is top-k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.interface.selector import Selector
from dvsel.options import option


@dataclass(frozen=True)
class Resample(Selector):
    """Sample without replacement in proportion to exp(score / temperature), as DSIR does."""

    noisy: ClassVar[bool] = True

    temperature: float = option(1.0, "divides the scores: below 1 nearer to topk, above 1 nearer to random", above=0)

    def key(self, score: npt.NDArray[np.float32], uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        # In one buffer: fresh memory for each step would take longer than the logarithms.
        noise = np.log(uniform)
        np.log(np.negative(noise, out=noise), out=noise)
        with np.errstate(over="ignore"):  # a key beyond float32 is infinite: first, or last
            return np.subtract(score / np.float64(self.temperature), noise, out=noise).astype(np.float32)
