"""DataInf: influence with a curvature in closed form, for adapters (Kwon et al. 2024, "DataInf: Efficiently Estimating
Data Influence in LoRA-tuned LLMs and Diffusion Models").

    score = <g, Q>,  Q = (1 / lambda) (q - mean_i <g_i, q> / (lambda + |g_i|^2) g_i)

in each layer, with q the target's mean gradient and g_i those of documents of a sample of the pool (eq. 5; the paper's
sign is the opposite). lambda is `damping` times the mean |g_i|^2 over the number of the layer's weights. Nothing is cut
unless options ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dvsel.gradients import EFFORTS, fitted_directions
from dvsel.gradients.options import DirectedOptions, SampleOptions
from dvsel.interface.scorer import Scorer
from dvsel.options import option

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch


@dataclass(frozen=True)
class DataInf(SampleOptions, DirectedOptions, Scorer):
    """Prefer documents that lower the loss on the target when an adapter is trained on them (Kwon et al. 2024).

    The score is the inner product of gradients, preconditioned; 1 is what the target's own documents have on average.
    """

    group: ClassVar[str] = "gradients"
    takes_target: ClassVar[bool] = True
    usage: ClassVar[tuple[str, ...]] = ("--pool pool/ --target target.jsonl --model runs/my-adapter",)
    uses_all_cores: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-2

    effort: str = option(
        "full",
        "layers and rank, unless given: low: last, 16; medium: upper-half, 16; high: all, 32; full: all, not cut",
        choices=tuple(EFFORTS),
    )

    @property
    def takes_pool(self) -> bool:
        """True: the curvature is the pool's."""
        return True

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> FittedDataInf:
        """Fit the directions of all layers, in two passes over the sample."""
        self.check()
        from dvsel.gradients.target_gradient import Curvature

        sample = self.sample(pool, self.factor_documents)
        curvature = Curvature("datainf", self.damping, reduction=self.reduction)
        return FittedDataInf.fit(self, sample, targets, curvature)


class FittedDataInf(fitted_directions.FittedDirections):
    """A fitted DataInf."""


DataInf.fitted = FittedDataInf
