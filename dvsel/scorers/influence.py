"""Influence: how much a step of training on a document would lower the loss on a target, to first order.

    score = <gradient of the document's loss, H^-1 gradient of the target's loss>,

summed over the linear layers of a causal language model (influence functions: Koh and Liang 2017, "Understanding
Black-box Predictions via Influence Functions"; with EK-FAC for language models: Grosse et al. 2023, "Studying Large
Language Model Generalization with Influence Functions"). H is the curvature, from a sample of the pool. The target's
side is computed once, at the fit, and cut to a low rank; a document then costs two thin products a token within its
forward and backward pass, and nothing is stored but its score.

With similarity dot, scores are scaled so that the mean over the target's own documents is 1. `dvsel.gradients` says
what exactly is computed. The fitted scorer holds the directions, the model's name and a digest of the model's files,
no weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dvsel.errors import UserError
from dvsel.gradients import PRECONDITIONERS, PROJECTIONS, fitted_directions
from dvsel.gradients.options import CurvatureOptions, DirectedOptions
from dvsel.interface.scorer import Scorer
from dvsel.options import option, under

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.gradients.target_gradient import Curvature

_HIGHEST = 64  # rank of fisher


@dataclass(frozen=True)
class Influence(CurvatureOptions, DirectedOptions, Scorer):
    """Prefer documents that lower the loss on the target when a model is trained on them.

    The score is the inner product of gradients, preconditioned; 1 is what the target's own documents have on average.
    """

    group: ClassVar[str] = "gradients"
    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --target target.jsonl --model models/pythia-160m",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    preconditioner: str = option(
        "kfac",
        "curvature, of a sample of the pool; fisher: that of projected gradients; adam: Adam's second moments; "
        "none: plain gradients, without a pool",
        choices=PRECONDITIONERS,
    )
    projection: str = option(
        "target",
        "what the rank is of: target: the target's gradient, by its own singular vectors (fisher takes pca for it); "
        "random, pca: all gradients, by bases that the layer's name or the pool's sample gives",
        choices=PROJECTIONS,
    )
    optimizer_state: str = option(
        "",
        "optimizer.pt of the model's checkpoint, for --preconditioner adam",
        files=True,
        when=under("preconditioner", "adam"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preconditioner == "adam" and self.projection != "target":
            raise UserError(f"projection {self.projection}: adam goes by single weights; drop --projection")
        if self.projects:
            self._check_rank()

    @property
    def projects(self) -> bool:
        """True where the curvature is that of projected gradients."""
        return self.projection != "target" or self.preconditioner == "fisher"

    def _check_rank(self) -> None:
        what = "fisher" if self.preconditioner == "fisher" else f"projection {self.projection}"
        if self.energy or not self.wanted_rank:
            raise UserError(f"{what}: is of one rank in all layers; give --rank 1 or more, without --energy")
        if self.preconditioner == "fisher" and self.wanted_rank > _HIGHEST:
            raise UserError(
                f"rank {self.wanted_rank}: fisher holds its square of numbers for each layer and document; "
                f"give {_HIGHEST} or less"
            )

    @property
    def takes_pool(self) -> bool:
        """True where the curvature, or the bases of pca, are taken from the pool."""
        return (self.preconditioner != "none" or self.projection == "pca") and not self.optimizer_state

    @property
    def curvature(self) -> Curvature:
        """The curvature that the options describe."""
        from dvsel.gradients.target_gradient import Curvature

        return Curvature(
            self.preconditioner,
            self.damping,
            projection=self.projection,
            rank=self.wanted_rank,
            reduction=self.reduction,
            optimizer_state=self.optimizer_state,
        )

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedInfluence:
        """Fit the directions of all layers: the target's mean gradient, preconditioned and cut."""
        self.check()
        sample = self.sample(pool, self.factor_documents)
        return FittedInfluence.fit(self, sample, targets, self.curvature)


class FittedInfluence(fitted_directions.FittedDirections):
    """A fitted influence scorer."""


Influence.fitted = FittedInfluence
