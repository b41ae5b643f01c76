"""GraNd: the norm of the gradient of a document's loss.

    score = mean over checkpoints of |gradient of the document's loss|

(Paul et al. 2021, "Deep Learning on a Data Diet: Finding Important Examples Early in Training", definition 1; there
the mean is over initialisations of the weights, a few epochs into training). A high score is a document that
training is still moved by: a hard one, or noise. The weights are those of linear layers, as `dvsel.gradients` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from dvsel.gradients import fitted_directions, fitted_norms
from dvsel.gradients.options import CheckpointOptions
from dvsel.interface.scorer import Scorer
from dvsel.language import Documents
from dvsel.options import option

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter


@dataclass(frozen=True)
class GraNd(CheckpointOptions, Scorer):
    """Prefer documents with a gradient of large norm; a high score is a hard document, or noise.

    The score is the mean norm over the checkpoints.
    """

    group: ClassVar[str] = "gradients"
    usage: ClassVar[tuple[str, ...]] = ("--model models/pythia-160m",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    layers: str = option("all", "all, upper-half or last of the model's blocks, or names, as *.mlp.*,*.o_proj")

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedGraNd:  # noqa: ARG002
        """Check that the models can be used, and find the layers in the first."""
        self.check()
        from dvsel.gradients.layers import choose

        arrays, report = fitted_norms.fit(self, choose(self.load(self.models[0]), self.layers))
        fitted = FittedGraNd(self, arrays)
        fitted.report = report
        return fitted


class FittedGraNd(fitted_norms.FittedCheckpoints):
    """A fitted GraNd scorer."""

    def values(self, meter: GradientMeter, documents: Documents) -> fitted_norms.Floats:
        """Return the norms, float64 (n,)."""
        from dvsel.gradients.norms import Squares, Whitening

        squares = Squares([Whitening()] * len(meter.layers), len(documents), meter.model.device)
        passed = meter.run(documents, squares, self.options.reduction)
        fitted_directions.warn_non_finite(passed, documents)
        return np.where(passed.scored, squares.total.sqrt().cpu().numpy(), np.nan)


GraNd.fitted = FittedGraNd
