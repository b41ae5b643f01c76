"""A fit: the mean gradient of each group of target documents, the curvature of a pool's sample, and directions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from dvsel.errors import Notice, UserError
from dvsel.gradients import adam, curvature, projection, rank_one
from dvsel.gradients.curvature import Kronecker, Metric
from dvsel.gradients.gradient_pass import GradientMeter, Passed
from dvsel.gradients.layers import Layer
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.moments import WIDEST, Factors, FactorSums, GradientSum, SquareSums
from dvsel.gradients.projection import Bases, Fisher, Projected, ProjectedGradients, pca_bases, random_bases
from dvsel.language import Documents

_FACTORS = 8 << 30
SAMPLE = "the pool's sample"


@dataclass(frozen=True)
class Query:
    """A group's mean gradient, one (outputs, inputs) a layer, over `documents` documents; loss: nats a token."""

    gradients: list[torch.Tensor]
    documents: int
    loss: float


def mean_gradient(meter: GradientMeter, documents: Documents, reduction: str, place: str) -> Query:
    """The mean of the documents' gradients, by the sum or the mean of their token losses.

    place: names the documents in complaints. Raises UserError where no document has a usable loss, or where the
    gradient is 0, NaN or infinite.
    """
    total = GradientSum(meter.layers)
    passed = meter.run(documents, total, reduction, "target's gradient")
    count = checked(passed, place)
    gradients = [one / count for one in total.total]
    norm = sum(float(one.double().square().sum()) for one in gradients)
    if not 0 < norm < math.inf:
        what = "0" if norm == 0 else "NaN or infinite"
        raise UserError(
            f"{place}: its gradient is {what} in every layer that counts; give other --layers, or --precision fp32"
        )
    scored = passed.scored
    return Query(gradients, count, float(passed.losses[scored].sum() / passed.tokens[scored].sum()))


def checked(passed: Passed, place: str) -> int:
    """Count the documents that count; tell of losses that are NaN or infinite. UserError where none counts."""
    non_finite = np.flatnonzero(~np.isfinite(passed.losses)) + 1
    if len(non_finite):
        warnings.warn(
            Notice(
                f"{place}, document {non_finite[0]}: its loss is NaN or infinite, so it is left out"
                f"{f', as are {len(non_finite) - 1} others' if len(non_finite) > 1 else ''}; try --precision fp32"
            ),
            stacklevel=2,
        )
    if not passed.scored.any():
        raise UserError(f"{place}: no document with a loss; give documents with text, or see --text-field")
    return int(passed.scored.sum())


class Preconditioner(Protocol):
    """Interface of what makes directions of gradients."""

    def directions(
        self, meter: GradientMeter, queries: Sequence[Query], sample: Documents, cut: Cut
    ) -> list[list[Direction]]:
        """Return directions by layer, then by query. sample: documents of the pool."""


@dataclass(frozen=True)
class Curvature:
    """Estimate of H.

    preconditioner: of `dvsel.gradients.PRECONDITIONERS`, or datainf. damping: a multiple of the mean. projection: of
    `dvsel.gradients.PROJECTIONS`; but for target, H is that of gradients as bases of `rank` columns show them, and
    fisher takes the bases of pca for it. reduction: of the sample's documents, for fisher, adam and datainf; K-FAC and
    EK-FAC take sums. optimizer_state: the file that has Adam's second moments; else they are the sample's.
    """

    preconditioner: str
    damping: float = 0.1
    projection: str = "target"
    rank: int = 0
    reduction: str = "mean"
    optimizer_state: str = ""

    def directions(
        self, meter: GradientMeter, queries: Sequence[Query], sample: Documents, cut: Cut
    ) -> list[list[Direction]]:
        """Return directions by layer, then by query; only some layers' curvature is held at a time."""
        found: list[list[Direction]] = []
        for part in portions(meter.layers):
            begin = len(found)
            gradients = [[query.gradients[begin + number] for query in queries] for number in range(len(part))]
            for metric, mine in zip(self.metrics(meter.of(part), sample, gradients), gradients, strict=True):
                found.append([metric.direction(one, number, cut) for number, one in enumerate(mine)])
        return found

    def metrics(
        self, meter: GradientMeter, sample: Documents, gradients: Sequence[Sequence[torch.Tensor]]
    ) -> Sequence[Metric]:
        """The metric of each of the meter's layers. gradients: by layer, then by query, (outputs, inputs)."""
        if self.preconditioner == "adam":
            return self._adam(meter, sample)
        if self.preconditioner == "datainf":
            return self._datainf(meter, sample, gradients)
        kind = "pca" if (self.preconditioner, self.projection) == ("fisher", "target") else self.projection
        factors = None
        if kind == "pca" or self.preconditioner in ("kfac", "ekfac"):
            factors = self._factors(meter, sample)
        if kind == "target":
            return [Metric()] * len(meter.layers) if factors is None else self._kronecker(meter, sample, factors)
        bases = self._bases(meter.layers, factors)
        inner = self._projected(meter, sample, factors, bases)
        return [Projected(*pair) for pair in zip(bases, inner, strict=True)]

    def _bases(self, layers: Sequence[Layer], factors: Sequence[Factors] | None) -> list[Bases]:
        if self.projection == "random":
            return [random_bases(layer, self.rank) for layer in layers]
        assert factors is not None
        return [pca_bases(one, self.rank) for one in factors]

    def _projected(
        self, meter: GradientMeter, sample: Documents, factors: Sequence[Factors] | None, bases: Sequence[Bases]
    ) -> Sequence[Metric]:
        """Metrics of what is seen through bases."""
        if self.preconditioner == "fisher":
            return self._fisher(meter, sample, bases)
        if self.preconditioner == "none" or factors is None:
            return [Metric()] * len(bases)
        return self._kronecker(
            meter, sample, [basis.factors(one) for basis, one in zip(bases, factors, strict=True)], bases
        )

    def _factors(self, meter: GradientMeter, sample: Documents) -> list[Factors]:
        sums = FactorSums(meter.layers)
        checked(meter.run(sample, sums, "sum", "curvature"), SAMPLE)
        return sums.factors

    def _kronecker(
        self, meter: GradientMeter, sample: Documents, factors: Sequence[Factors], bases: Sequence[Bases] | None = None
    ) -> Sequence[Metric]:
        """K-FAC's or EK-FAC's; bases: through which the factors were seen."""
        found = [curvature.kfac(one, self.damping) for one in factors]
        curvature.warn(meter.layers, found, max(one.tokens for one in factors))
        return found if self.preconditioner == "kfac" else self._corrected(meter, sample, found, bases)

    def _corrected(
        self, meter: GradientMeter, sample: Documents, found: Sequence[Kronecker], bases: Sequence[Bases] | None
    ) -> Sequence[Metric]:
        """K-FAC's with EK-FAC's eigenvalues."""
        sides = [(one.outputs.basis, one.inputs.basis) for one in found]
        if bases is not None:
            sides = [
                (_through(basis.left, left), _through(basis.right, right))
                for basis, (left, right) in zip(bases, sides, strict=True)
            ]
        squares = SquareSums(meter.layers, [(_held(left, meter), _held(right, meter)) for left, right in sides])
        meter.run(sample, squares, "sum", "eigenvalues")
        return [
            curvature.ekfac(one, total, tokens, self.damping)
            for one, total, tokens in zip(found, squares.total, squares.tokens, strict=True)
        ]

    def _fisher(self, meter: GradientMeter, sample: Documents, bases: Sequence[Bases]) -> Sequence[Metric]:
        features = ProjectedGradients(meter.layers, bases, len(sample))
        passed = meter.run(sample, features, self.reduction, "curvature")
        projection.warn(checked(passed, SAMPLE), max(basis.size for basis in bases))
        counts = torch.from_numpy(passed.scored)
        return [Fisher(block[counts.to(block.device)], self.damping) for block in features.blocks]

    def _adam(self, meter: GradientMeter, sample: Documents) -> Sequence[Metric]:
        if self.optimizer_state:
            moments = adam.stored_moments(self.optimizer_state, meter.model, meter.layers)
            return [adam.Diagonal(one, self.damping) for one in moments]
        squares = SquareSums(meter.layers, [(None, None)] * len(meter.layers))
        count = checked(meter.run(sample, squares, self.reduction, "second moments"), SAMPLE)
        return [adam.Diagonal(total / count, self.damping) for total in squares.total]

    def _datainf(
        self, meter: GradientMeter, sample: Documents, gradients: Sequence[Sequence[torch.Tensor]]
    ) -> Sequence[Metric]:
        found = rank_one.Products(gradients, len(sample))
        passed = meter.run(sample, found, self.reduction, "curvature")
        checked(passed, SAMPLE)
        weights = rank_one.weights(found, meter.layers, torch.from_numpy(passed.scored), self.damping)
        sums = rank_one.WeightedSums(meter.layers, weights.shares)
        meter.run(sample, sums, self.reduction, "curvature, again")
        return [
            rank_one.DataInf(damping, total)
            for damping, total in zip(weights.dampings.tolist(), sums.total, strict=True)
        ]


def _through(basis: torch.Tensor, vectors: torch.Tensor | None) -> torch.Tensor:
    """Vectors in a basis, in columns, as they are outside of it."""
    return basis if vectors is None else basis @ vectors


def _held(basis: torch.Tensor | None, meter: GradientMeter) -> torch.Tensor | None:
    """Return a gradient in the precision of sums."""
    dtype = torch.float64 if meter.layers[0].module.weight.dtype == torch.float64 else torch.float32
    return None if basis is None else basis.to(dtype)


@dataclass(frozen=True)
class Found:
    """Result of a fit. directions: by layer, then by query."""

    layers: Sequence[Layer]
    queries: Sequence[Query]
    directions: Sequence[Sequence[Direction]]

    def own_scores(self) -> list[float]:
        """The mean score of each query's own documents."""
        return [
            sum(layer[number].times(one) for layer, one in zip(self.directions, query.gradients, strict=True))
            for number, query in enumerate(self.queries)
        ]


def find(
    meter: GradientMeter, queries: Sequence[Query], curvature: Preconditioner, sample: Documents, cut: Cut
) -> Found:
    """The directions of all layers."""
    return Found(meter.layers, queries, curvature.directions(meter, queries, sample, cut))


def portions(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Layers, in order, in portions whose second moments take at most `_FACTORS` bytes in float32."""
    found: list[list[Layer]] = [[]]
    held = 0
    for layer in layers:
        size = 4 * sum(width**2 for width in (layer.inputs, layer.outputs) if width <= WIDEST)
        if found[-1] and held + size > _FACTORS:
            found.append([])
            held = 0
        found[-1].append(layer)
        held += size
    return found
