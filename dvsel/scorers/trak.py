"""TRAK: influence in a model made linear, by projected gradients of margins, over checkpoints (Park et al. 2023, "TRAK:
Attributing Model Behavior at Scale").

    score = mean_m [phi_m(z)^T (Phi_m^T Phi_m)^-1 phi_m(target)] * mean_m [1 - p_m(z)]

over the checkpoints m, with phi the projected gradient of the margin log(p / (1 - p)), Phi those of a sample of the
pool, and p the probability that the model gives. A document's margin is the mean or the sum of its tokens', and 1 - p,
by how much the loss moves with the margin, the mean over its tokens. What the kernel makes of the target is known
before the pool is read, so a document costs two thin products a token within one pass.

The first factor is scaled so that its mean over the target's own documents is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from dvsel.gradients import fitted_directions
from dvsel.gradients.fitted_norms import check_alike
from dvsel.gradients.options import CheckpointOptions, GroupOptions, SampleOptions
from dvsel.interface.scorer import Scorer
from dvsel.language import Documents
from dvsel.options import option

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.gradient_pass import GradientMeter, Passed
    from dvsel.gradients.loss_outputs import Output
    from dvsel.language.cards import Card
    from dvsel.language.models import Model

_ODDS = "log odds against the target"  # minus the margin, a token


@dataclass(frozen=True)
class Trak(CheckpointOptions, SampleOptions, GroupOptions, Scorer):
    """Prefer documents that raise the target's probability, as a linear model of the margins has it (Park et al. 2023).

    The score is a kernel of projected gradients, over checkpoints, times how unsure the model is of the document.
    """

    group: ClassVar[str] = "gradients"
    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = (
        "--pool pool/ --target target.jsonl --model models/pythia-160m",
        "--pool pool/ --target target.jsonl --checkpoints runs/a --checkpoints runs/b",
    )
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    projection_dim: int = option(8192, "features of a document, spread over layers as squares of one size", minimum=1)
    damping: float = option(1.0, "added to the kernel's eigenvalues, as a multiple of their mean", above=0)
    factor_documents: int = option(
        2000, "documents of the pool's sample that the kernel is taken from, at most", minimum=1
    )

    @property
    def takes_pool(self) -> bool:
        """True: the kernel is the pool's."""
        return True

    def check(self) -> list[Card]:
        """Return the checkpoints without weights; UserError where none is named, or they are not of one model."""
        cards = super().check()
        check_alike(cards)
        return cards

    def meter(self, model: Model, names: Iterable[str] = (), output: Output | None = None) -> GradientMeter:
        """Return the meter that documents go through. output: the margin, with 1 - p beside it, if None."""
        from dvsel.gradients.loss_outputs import margin_and_doubt

        return super().meter(model, names, output or margin_and_doubt)

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedTrak:
        """Fit the directions of all layers under each checkpoint."""
        self.check()
        from dvsel.gradients.low_rank import Cut
        from dvsel.gradients.trak_kernel import TrakKernel

        sample = self.sample(pool, self.factor_documents)
        kernel = TrakKernel(self.projection_dim, self.damping, self.reduction)
        weights = [1 / len(self.models)] * len(self.models)
        fitted = FittedTrak.fit_cut(self, sample, targets, kernel, Cut(0), weights, scale=True)
        fitted.report = {_ODDS if name == "target loss" else name: value for name, value in fitted.report.items()}
        return fitted


class FittedTrak(fitted_directions.FittedDirections):
    """A fitted TRAK."""

    def _scored(self, documents: Documents) -> npt.NDArray[np.float64]:
        kernels, doubts = [], []
        for number in range(len(self.meters)):
            kernel, passed = self.compared(number, documents)
            kernels.append(kernel)
            doubts.append(_doubt(passed))
        found: npt.NDArray[np.float64] = np.mean(kernels, 0) * np.mean(doubts, 0)[:, None]
        return found


def _doubt(passed: Passed) -> npt.NDArray[np.float64]:
    """Return the mean of 1 - p over each document's tokens, float64 (n,)."""
    total = np.zeros(len(passed.tokens)) if passed.beside is None else passed.beside[:, 0]
    return total / np.maximum(passed.tokens, 1)


Trak.fitted = FittedTrak
