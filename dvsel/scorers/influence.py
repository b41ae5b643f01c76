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

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dvsel.errors import UserError
from dvsel.gradients import PRECONDITIONERS, directed
from dvsel.gradients.options import DirectedOptions
from dvsel.options import option
from dvsel.scorers import Scorer

if TYPE_CHECKING:
    from dvsel.shards.columns import Batch


@dataclass(frozen=True)
class Influence(DirectedOptions, Scorer):
    """Prefer documents that lower the loss on the target when a model is trained on them.

    The score is the inner product of gradients, preconditioned; 1 is what the target's own documents have on average.
    """

    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --target target.jsonl --model models/pythia-160m",)
    parallel: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    preconditioner: str = option(
        "kfac", "curvature, of a sample of the pool; none: plain gradients, without a pool", choices=PRECONDITIONERS
    )
    damping: float = option(0.1, "added to the curvature's eigenvalues, as a multiple of their mean")
    factor_documents: int = option(400, "documents of the pool's sample that the curvature is taken from, at most")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preconditioner not in PRECONDITIONERS:
            raise UserError(
                f"preconditioner {self.preconditioner!r}: unknown; give one of {', '.join(PRECONDITIONERS)}"
            )
        if not 0 < self.damping < math.inf:
            raise UserError(f"damping {self.damping}: out of range; give a number above 0, such as 0.1")
        if self.factor_documents < 1:
            raise UserError(f"factor_documents {self.factor_documents}: out of range; give 1 or more")

    @property
    def takes_pool(self) -> bool:
        """The curvature is that of the pool."""
        return self.preconditioner != "none"

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedInfluence:
        """The directions of all layers: the target's mean gradient, preconditioned and cut."""
        self.check()
        from dvsel.gradients.query import Curvature

        sample = self.sample(pool, self.factor_documents)
        arrays, report = directed.fit(self, sample, targets, Curvature(self.preconditioner, self.damping))
        fitted = FittedInfluence(self, arrays)
        fitted.report = report
        return fitted


class FittedInfluence(directed.FittedDirections):
    """A fitted influence scorer."""


Influence.fitted = FittedInfluence
