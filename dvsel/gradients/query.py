"""A fit: the mean gradient of each group of target documents, the curvature of a pool's sample, and directions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dvsel.errors import Notice, UserError
from dvsel.gradients import metric as metrics
from dvsel.gradients.direction import Cut, Direction
from dvsel.gradients.layers import Layer
from dvsel.gradients.meter import GradientMeter, Passed
from dvsel.gradients.metric import Kronecker, Metric, Spectrum
from dvsel.gradients.sums import WIDEST, FactorSums, GradientSum, SquareSums
from dvsel.language import Documents

_FACTORS = 8 << 30


@dataclass(frozen=True)
class Query:
    """A group's mean gradient, one (outputs, inputs) a layer, over `documents` documents; loss: nats a token."""

    gradients: list[torch.Tensor]
    documents: int
    loss: float


def mean_gradient(meter: GradientMeter, documents: Documents, reduction: str, place: str) -> Query:
    """The mean of the documents' gradients, by the sum or the mean of their token losses.

    place: names the documents in complaints. Raises UserError where no document has a usable loss, or where the
    gradient is 0 or no number.
    """
    total = GradientSum(meter.layers)
    passed = meter.run(documents, total, reduction, "target's gradient")
    count = checked(passed, place)
    gradients = [one / count for one in total.total]
    norm = float(sum(one.double().square().sum() for one in gradients))
    if not 0 < norm < math.inf:
        raise UserError(f"{place}: its gradient is {'0' if norm == 0 else 'no number'} in every layer that counts; "
                        "give other --layers, or --precision fp32")  # fmt: skip
    scored = passed.scored
    return Query(gradients, count, float(passed.losses[scored].sum() / passed.tokens[scored].sum()))


def checked(passed: Passed, place: str) -> int:
    """How many documents count; tells of those whose losses are no numbers. UserError where none counts."""
    spoilt = np.flatnonzero(~np.isfinite(passed.losses)) + 1
    if len(spoilt):
        warnings.warn(
            Notice(
                f"{place}, document {spoilt[0]}: its loss is no number, so it is left out"
                f"{f', as are {len(spoilt) - 1} others' if len(spoilt) > 1 else ''}; try --precision fp32"
            ),
            stacklevel=2,
        )
    if not passed.scored.any():
        raise UserError(f"{place}: no document with a loss; give documents with text, or see --text-field")
    return int(passed.scored.sum())


@dataclass(frozen=True)
class Curvature:
    """How H is estimated. preconditioner: of `dvsel.gradients.PRECONDITIONERS`. damping: a multiple of the mean."""

    preconditioner: str
    damping: float = 0.1

    def metrics(
        self,
        meter: GradientMeter,
        sample: Documents,
        gradients: Sequence[Sequence[torch.Tensor]],  # noqa: ARG002
    ) -> Sequence[Metric]:
        """The metric of each of the meter's layers. gradients: by layer, then by query, (outputs, inputs)."""
        if self.preconditioner == "none":
            return [Metric()] * len(meter.layers)
        sums = FactorSums(meter.layers)
        checked(meter.run(sample, sums, "sum", "curvature"), "the pool's sample")
        found = [metrics.kfac(factors, self.damping) for factors in sums.factors]
        metrics.warn(meter.layers, found, max(factors.tokens for factors in sums.factors))
        return found if self.preconditioner == "kfac" else self._corrected(meter, sample, found)

    def _corrected(self, meter: GradientMeter, sample: Documents, found: Sequence[Kronecker]) -> Sequence[Metric]:
        """K-FAC's with EK-FAC's eigenvalues."""
        squares = SquareSums(meter.layers, [(_held(one.outputs, meter), _held(one.inputs, meter)) for one in found])
        meter.run(sample, squares, "sum", "eigenvalues")
        return [
            metrics.ekfac(one, total, tokens, self.damping)
            for one, total, tokens in zip(found, squares.total, squares.tokens, strict=True)
        ]


def _held(spectrum: Spectrum, meter: GradientMeter) -> torch.Tensor | None:
    """Its basis, in the precision of sums."""
    dtype = torch.float64 if meter.layers[0].module.weight.dtype == torch.float64 else torch.float32
    return None if spectrum.basis is None else spectrum.basis.to(dtype)


@dataclass(frozen=True)
class Found:
    """What a fit found. directions: by layer, then by query."""

    layers: Sequence[Layer]
    queries: Sequence[Query]
    directions: Sequence[Sequence[Direction]]

    def own_scores(self) -> list[float]:
        """The mean score of each query's own documents."""
        return [
            sum(layer[number].times(one) for layer, one in zip(self.directions, query.gradients, strict=True))
            for number, query in enumerate(self.queries)
        ]


def find(meter: GradientMeter, queries: Sequence[Query], curvature: Curvature, sample: Documents, cut: Cut) -> Found:
    """The directions of all layers, with the curvature of some layers at a time, so that not all of it is held."""
    directions: list[list[Direction]] = []
    for part in portions(meter.layers):
        begin = len(directions)
        gradients = [[query.gradients[begin + number] for query in queries] for number in range(len(part))]
        for metric, mine in zip(curvature.metrics(meter.of(part), sample, gradients), gradients, strict=True):
            directions.append([metric.direction(one, number, cut) for number, one in enumerate(mine)])
    return Found(meter.layers, queries, directions)


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
