"""TRAK's kernel (Park et al. 2023, "TRAK: Attributing Model Behavior at Scale", section 3).

With the features phi of a document, the projected gradient of its margin in all layers together, and Phi those of a
pool's sample, one a row, what is compared with a document's phi is

    (Phi^T Phi / n + damping * mean eigenvalue * I)^-1 phi_T.

The paper projects all weights at once by a dense random matrix. Here each layer's gradient is projected by random bases
of its outputs and inputs (see `projection`), which never needs the gradient; layer by layer the result is a direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dvsel.gradients import projection
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.projection import Bases, ProjectedGradients, random_bases, solved
from dvsel.gradients.target_gradient import SAMPLE, Query, checked
from dvsel.language import Documents


@dataclass(frozen=True)
class TrakKernel:
    """TRAK's kernel over all layers at once: a `target_gradient.Preconditioner`.

    features: of a document. damping: a multiple of the mean. reduction: as documents are scored.
    """

    features: int
    damping: float = 0.1
    reduction: str = "mean"

    def directions(
        self,
        meter: GradientMeter,
        queries: Sequence[Query],
        sample: Documents,
        cut: Cut,  # noqa: ARG002
    ) -> list[list[Direction]]:
        """Return directions by layer, then by query, not cut."""
        bases = [random_bases(layer, side(self.features, len(meter.layers))) for layer in meter.layers]
        features = self._features(meter, bases, sample)
        found = [self._of_query(features, bases, query) for query in queries]
        return [list(layer) for layer in zip(*found, strict=True)]

    def _features(self, meter: GradientMeter, bases: Sequence[Bases], sample: Documents) -> torch.Tensor:
        """Phi: (documents that count, features)."""
        features = ProjectedGradients(meter.layers, bases, len(sample))
        passed = meter.run(sample, features, self.reduction, "kernel")
        projection.warn(checked(passed, SAMPLE), sum(basis.size for basis in bases), "--projection-dim")
        rows = _side_by_side(features.blocks, 1)
        return rows[torch.from_numpy(passed.scored).to(rows.device)]

    def _of_query(self, features: torch.Tensor, bases: Sequence[Bases], query: Query) -> list[Direction]:
        """Return a direction for each layer."""
        pairs = list(zip(bases, query.gradients, strict=True))
        long = _side_by_side([basis.seen(gradient).flatten() for basis, gradient in pairs], 0)
        parts = torch.split(solved(features, long, self.damping), [basis.size for basis in bases])
        return [
            basis.direction(part.to(basis.left.device), gradient)
            for (basis, gradient), part in zip(pairs, parts, strict=True)
        ]


def _side_by_side(parts: Sequence[torch.Tensor], dimension: int) -> torch.Tensor:
    """Join tensors on the first one's device, where layers lie on several."""
    return torch.cat([part.to(parts[0].device) for part in parts], dimension)


def side(features: int, layers: int) -> int:
    """The rank of bases that spreads so many features over layers as squares, at least one to each."""
    return max(math.isqrt(features // layers), 1)
