"""The mean of inverses in the place of the inverse of a mean: DataInf.

The order of the two is exchanged in (mean_i g_i g_i^T + lambda I)^-1, layer by layer (Kwon et al. 2024, "DataInf:
Efficiently Estimating Data Influence in LoRA-tuned LLMs and Diffusion Models", eq. 5), so that

    Q = (1 / lambda) (q - mean_i <g_i, q> / (lambda + |g_i|^2) g_i)

over the n documents i of a sample, where lambda = 0.1 mean_i |g_i|^2 / d and d is how many weights the layer has. The
paper bounds its error by a multiple of d^2, so it is meant for small layers, as those of LoRA adapters.

Two passes over the sample, and no document's gradient is held: the first takes <g_i, q> and |g_i|^2, the second sums
the g_i with the weights that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dvsel.gradients.capture import wide
from dvsel.gradients.curvature import Metric
from dvsel.gradients.layer_inputs import Inputs
from dvsel.gradients.layers import Layer
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.moments import ByDocument


class Products(ByDocument):
    """<g_i, q> and |g_i|^2 of each layer.

    queries: by layer, then by query, (outputs, inputs). products: float64 (layers, queries, documents). squares:
    float64 (layers, documents).
    """

    def __init__(self, queries: Sequence[Sequence[torch.Tensor]], documents: int) -> None:
        super().__init__()
        self.queries = [torch.stack([one.flatten() for one in layer]) for layer in queries]
        count, device = len(self.queries[0]), self.queries[0].device
        self.products = torch.zeros(len(queries), count, documents, dtype=torch.float64, device=device)
        self.squares = torch.zeros(len(queries), documents, dtype=torch.float64, device=device)

    def reset(self) -> None:
        super().reset()
        self.products.zero_()
        self.squares.zero_()

    def take(self, layer: int, kept: Inputs, slopes: torch.Tensor) -> None:
        for document, gradient in self.gradients(layer, kept, slopes):
            self.products[layer, :, document] = (self.queries[layer] @ gradient.flatten()).to(self.products)
            self.squares[layer, document] = gradient.square().sum().to(self.squares)


@dataclass(frozen=True)
class Weights:
    """dampings: lambda, float64 (layers,). shares: of each g_i in Q, float64 (layers, queries, documents)."""

    dampings: torch.Tensor
    shares: torch.Tensor


def weights(found: Products, layers: Sequence[Layer], counts: torch.Tensor, damping: float) -> Weights:
    """Lambda, and <g_i, q> / (lambda + |g_i|^2) / n; 0 for the documents that do not count.

    counts: bool (documents,). damping: what stands for 0.1.
    """
    counts = counts.to(found.squares.device)
    sizes = found.squares.new_tensor([layer.inputs * layer.outputs for layer in layers])
    squares = found.squares.where(counts, 0.0)
    number = counts.sum()
    dampings = damping * squares.sum(1) / (number * sizes)
    dampings = dampings.where(dampings > 0, 1.0)
    shares = found.products / (dampings[:, None, None] + squares[:, None]) / number
    return Weights(dampings, shares.where(counts, 0.0))


class WeightedSums(ByDocument):
    """Sums of documents' gradients, each with its weight.

    shares: as of `Weights`. total: by layer, (queries, outputs * inputs).
    """

    adds_rows = True

    def __init__(self, layers: Sequence[Layer], shares: torch.Tensor) -> None:
        super().__init__()
        self.total = [_zeros(layer, shares.shape[1], layer.outputs * layer.inputs) for layer in layers]
        self.shares = [mine.to(total) for mine, total in zip(shares, self.total, strict=True)]

    def reset(self) -> None:
        super().reset()
        for total in self.total:
            total.zero_()

    def take(self, layer: int, kept: Inputs, slopes: torch.Tensor) -> None:
        for document, gradient in self.gradients(layer, kept, slopes):
            self.total[layer].addr_(self.shares[layer][:, document], gradient.flatten())


def _zeros(layer: Layer, rows: int, columns: int) -> torch.Tensor:
    return wide(layer.module.weight[:0]).new_zeros(rows, columns)


@dataclass(frozen=True)
class DataInf(Metric):
    """DataInf's curvature of a layer. damping: lambda. sums: of the weighted gradients, (queries, outputs * inputs)."""

    damping: float
    sums: torch.Tensor

    def direction(self, gradient: torch.Tensor, query: int, cut: Cut) -> Direction:
        return cut.of((gradient.double() - self.sums[query].double().view(gradient.shape)) / self.damping)
