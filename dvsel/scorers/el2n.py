"""EL2N: the distance of a model's predictions from the true tokens or label.

    score = mean over checkpoints of |p - y|,

p being the predicted probabilities, and y 1 for the true token and 0 for all others (Paul et al. 2021, "Deep Learning
on a Data Diet: Finding Important Examples Early in Training", definition 4; there the mean is over initialisations of
the weights, a few epochs into training). For a causal language model it is the mean over a document's tokens. A high
score is a document that is not learned yet: a hard one, or noise. It takes forward passes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dvsel.gradients import fitted_directions, fitted_norms
from dvsel.gradients.options import CheckpointOptions
from dvsel.interface.scorer import Scorer
from dvsel.language import Documents

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter
    from dvsel.gradients.loss_outputs import Output


@dataclass(frozen=True)
class EL2N(CheckpointOptions, Scorer):
    """Prefer documents that a model predicts wrongly; a high score is a hard document, or noise.

    The score is the length of the error, between 0 and 1.41, in its mean over tokens and checkpoints.
    """

    group: ClassVar[str] = "language model"
    takes_gradients: ClassVar[bool] = False
    usage: ClassVar[tuple[str, ...]] = ("--model models/pythia-160m",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-3

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedEL2N:  # noqa: ARG002
        """Check that the models can be used, without their weights."""
        arrays, report = fitted_norms.fit(self)
        fitted = FittedEL2N(self, arrays)
        fitted.report = report
        return fitted


class FittedEL2N(fitted_norms.FittedCheckpoints):
    """A fitted EL2N scorer."""

    def output(self) -> Output:
        """Return the output whose value is the length of the error."""
        from dvsel.gradients.loss_outputs import error

        return error

    def values(self, meter: GradientMeter, documents: Documents) -> fitted_norms.Floats:
        """Return the lengths, float64 (n,)."""
        passed = meter.run(documents, None, self.options.reduction)
        fitted_directions.warn_non_finite(passed, documents)
        return passed.reduced(self.options.reduction)


EL2N.fitted = FittedEL2N
