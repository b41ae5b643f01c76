"""TracIn: the effect of training on a document on the loss on a target, by the checkpoints that the training left.

    score = sum over checkpoints i of eta_i <gradient of the document's loss, gradient of the target's loss>,

both under checkpoint i, with its learning rate eta_i (Pruthi et al. 2020, "Estimating Training Data Influence by
Tracing Gradient Descent", eq. 1, TracInCP). `dvsel.gradients` says what exactly is computed, over which layers, and how
the target's gradient is cut; the fitted scorer holds the target's gradients, and names and digests of checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dvsel.errors import UserError
from dvsel.gradients import fitted_directions
from dvsel.gradients.fitted_norms import check_alike
from dvsel.gradients.options import CheckpointOptions, DirectedOptions
from dvsel.interface.scorer import Scorer
from dvsel.language import Documents
from dvsel.options import option, under

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.language.cards import Card


@dataclass(frozen=True)
class TracIn(CheckpointOptions, DirectedOptions, Scorer):
    """Prefer documents whose gradients agreed with the target's all along a training run (Pruthi et al. 2020).

    The score is the inner product of gradients, summed over checkpoints by learning rate; 1 is what the target's own
    documents have on average.
    """

    group: ClassVar[str] = "gradients"
    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = (
        "--target target.jsonl --checkpoints run/checkpoint-100 --checkpoints run/checkpoint-200",
    )
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    learning_rates: tuple[float, ...] = option(
        (), "of each checkpoint, in their order; equal unless given", above=0, when=under("checkpoints")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rates and len(self.learning_rates) != len(self.models):
            raise UserError(
                f"{len(self.learning_rates)} learning rates for {len(self.models)} checkpoints; "
                "give one for each, or none"
            )

    @property
    def weights(self) -> tuple[float, ...]:
        """The models' weights, summing to 1."""
        rates = self.learning_rates or (1.0,) * len(self.models)
        return tuple(rate / sum(rates) for rate in rates)

    def check(self) -> list[Card]:
        """Return the checkpoints without weights; UserError where none is named, or they are not of one model."""
        if not all(self.models):
            raise UserError("no checkpoints; name folders or hub names with --checkpoints, or one with --model")
        cards = super().check()
        check_alike(cards)
        return cards

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedTracIn:  # noqa: ARG002
        """Fit the target's mean gradient under each checkpoint, cut."""
        self.check()
        from dvsel.gradients.target_gradient import Curvature

        fitted = FittedTracIn.fit(self, Documents([]), targets, Curvature("none"), self.weights)
        del fitted.report["documents for the curvature"]
        return fitted


class FittedTracIn(fitted_directions.FittedDirections):
    """A fitted TracIn."""


TracIn.fitted = FittedTracIn
