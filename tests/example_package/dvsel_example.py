"""A scorer and a selector of one's own, as another package adds them to dvsel."""

from dataclasses import dataclass

import numpy as np

from dvsel.options import option
from dvsel.scorers import Fitted, Scorer
from dvsel.selectors import Selector


class FittedLength(Fitted):
    def score(self, batch):
        return -np.abs(batch.text.sizes - self.scorer.best).astype(np.float32)


@dataclass(frozen=True)
class Length(Scorer):
    """Prefer documents near a length."""

    fitted = FittedLength

    best: int = option(1000, "length that scores highest, in bytes", minimum=1)

    def fit(self, pool, targets):
        return FittedLength(self, {})


@dataclass(frozen=True)
class Middle(Selector):
    """Keep the scores nearest to a value."""

    centre: float = option(0.0, "score that is kept first")

    def key(self, score, uniform):
        return -np.abs(score - np.float32(self.centre))
