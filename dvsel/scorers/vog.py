"""VoG, variance of gradients: how much a model's view of a document changes while it trains.

The gradient of the right answer's logit by the input is taken under each checkpoint of a training run. The score is its
standard deviation over the checkpoints, at each element of the input, in its mean over elements (Agarwal et al. 2022,
"Estimating Example Difficulty using Variance of Gradients", eq. 1 to 3 and the authors' program). The input of a
language model is the vector that its embedding has for each token; the elements are positions and dimensions. A high
score is a document that the model has not made up its mind about: a hard one, or noise.

The paper then compares scores within a class, which needs all scores of a pool at once and is left to the reader of
scores. Of a causal model, the logits of all tokens that follow are summed: this gradient does not shrink with the
document's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dvsel.errors import UserError
from dvsel.gradients import REDUCTIONS, fitted_norms
from dvsel.gradients.options import CheckpointOptions
from dvsel.interface.scorer import Scorer
from dvsel.language import Documents
from dvsel.options import option

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.loss_outputs import Output


@dataclass(frozen=True)
class VoG(CheckpointOptions, Scorer):
    """Prefer documents whose gradient varies over checkpoints; a high score is a hard document, or noise.

    The score is the standard deviation over the checkpoints, in its mean over tokens and dimensions.
    """

    group: ClassVar[str] = "gradients"
    usage: ClassVar[tuple[str, ...]] = ("--checkpoints run/step1000 --checkpoints run/step2000",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    reduction: str = option("sum", "of the logits of a document's tokens; mean: over their number", choices=REDUCTIONS)

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedVoG:  # noqa: ARG002
        """Check that the checkpoints can be used, without their weights."""
        if len(self.models) < 2:
            raise UserError("vog: one model, which has no variance; name 2 or more checkpoints with --checkpoints")
        arrays, report = fitted_norms.fit(self)
        fitted = FittedVoG(self, arrays)
        fitted.report = report
        return fitted


class FittedVoG(fitted_norms.FittedCheckpoints):
    """A fitted VoG scorer."""

    def output(self) -> Output:
        """Return the output whose value is the right token's or label's logit."""
        from dvsel.gradients.loss_outputs import logit

        return logit

    def scored(self, documents: Documents) -> fitted_norms.Floats:
        """Return the score of each document, float64 (n,)."""
        meters = self.meters
        from dvsel.gradients.input_variance import spread

        found, scored = spread(meters, documents, self.options.reduction)
        return np.where(scored & np.isfinite(found), found, np.nan)


VoG.fitted = FittedVoG
