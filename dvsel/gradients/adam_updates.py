"""The step that Adam would take on a document, beside targets' gradients.

Gamma(G) = m / sqrt(v + epsilon), elementwise, with m = b1 m' + (1 - b1) G and v = b2 v' + (1 - b2) G^2, where m' and v'
are the moments that training left, after t steps; corrected for their bias, m is over 1 - b1^(t+1) and v over
1 - b2^(t+1) (Xia et al. 2024, "LESS: Selecting Influential Data for Targeted Instruction Tuning", section 3.1, with
epsilon inside the root). Of a cosine the correction changes nothing but how much epsilon counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dvsel.gradients.layer_inputs import Inputs
from dvsel.gradients.moments import ByDocument
from dvsel.gradients.warmup import BETAS

EPSILON = 1e-8


@dataclass(frozen=True)
class Moments:
    """Adam's of one layer.

    first, second: (outputs, inputs), as they are kept. steps: that made them. corrected: whether Gamma corrects for
    their bias.
    """

    first: torch.Tensor
    second: torch.Tensor
    steps: int
    corrected: bool

    def update(self, gradient: torch.Tensor) -> torch.Tensor:
        """Gamma of a document's gradient (outputs, inputs)."""
        shares = [1 - beta ** (self.steps + 1) if self.corrected else 1.0 for beta in BETAS]
        first = torch.lerp(gradient, self.first, BETAS[0]) / shares[0]
        second = torch.lerp(gradient.square(), self.second, BETAS[1]) / shares[1]
        # Inside the root, as the paper and the authors' code have it; Adam adds it outside.
        return first * (second + EPSILON).rsqrt()


class Updates(ByDocument):
    """Gamma of `documents` documents, over all layers, beside the vectors of some tasks.

    moments: one a layer. tasks: one (tasks, outputs, inputs) a layer. products: float64 (documents, tasks),
    <Gamma, task>. squares: float64 (documents,), |Gamma|^2.
    """

    def __init__(self, moments: Sequence[Moments], tasks: Sequence[torch.Tensor], documents: int, device: str) -> None:
        super().__init__()
        self.moments, self.tasks = moments, [one.flatten(1) for one in tasks]
        self.products = torch.zeros(documents, len(tasks[0]), dtype=torch.float64, device=device)
        self.squares = torch.zeros(documents, dtype=torch.float64, device=device)

    def reset(self) -> None:
        super().reset()
        self.products.zero_()
        self.squares.zero_()

    def take(self, layer: int, kept: Inputs, slopes: torch.Tensor) -> None:
        for document, gradient in self.gradients(layer, kept, slopes):
            update = self.moments[layer].update(gradient).flatten()
            self.products[document] += (self.tasks[layer] @ update).to(self.products)
            self.squares[document] += (update @ update).to(self.squares)

    def shares(self) -> torch.Tensor:
        """Return <Gamma, task> / |Gamma|, float64 (documents, tasks)."""
        return self.products / self.squares.sqrt()[:, None]
