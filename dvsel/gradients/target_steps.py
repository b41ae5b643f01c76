"""Steps on a target: weights that move along directions, how far, and back again.

A step takes each layer's weights from W to W - size * Q, with Q of low rank, so that a few steps are kept as two thin
matrices a layer. A size that is not given is the largest, among those that fall by halves from the one at which the
target's loss would fall by a wanted share, at which the loss falls by what first order says, or a fifth more or less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from dvsel.errors import UserError
from dvsel.gradients.capture import wide
from dvsel.gradients.curvature import Metric
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.target_gradient import Curvature, Query, find, mean_gradient
from dvsel.language import Documents

_STRAIGHT = 0.2  # of the fall that first order says
_HALVINGS = 20


@contextlib.contextmanager
def moved(layers: Sequence[Layer], moves: Sequence[Direction]) -> Iterator[None]:
    """W - Q in place of W in each layer, within the context; then the very same W again.

    W - Q is computed in float32, or float64 where W is, and then rounded to W's precision. A weight that two modules
    share moves in the layer alone.
    """
    kept = [layer.module.weight for layer in layers]
    try:
        for layer, weight, move in zip(layers, kept, moves, strict=True):
            layer.module.weight = torch.nn.Parameter(_less(layer, weight, move), requires_grad=False)
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.module.weight = weight


@torch.no_grad()
def _less(layer: Layer, weight: torch.Tensor, move: Direction) -> torch.Tensor:
    left, right = (side.to(wide(weight[:0])) for side in (move.left, move.right))
    first, second = (right, left) if layer.transposed else (left, right)
    return torch.addmm(wide(weight), first, second.T, alpha=-1).to(weight.dtype)


@dataclass(frozen=True)
class KeptCurvature(Curvature):
    """The curvature of the first documents that it sees under each layer, from then on; all of it is held."""

    kept: dict[tuple[str, ...], Sequence[Metric]] = field(default_factory=dict)

    def metrics(
        self, meter: GradientMeter, sample: Documents, gradients: Sequence[Sequence[torch.Tensor]]
    ) -> Sequence[Metric]:
        names = tuple(layer.name for layer in meter.layers)
        if names not in self.kept:
            self.kept[names] = super().metrics(meter, sample, gradients)
        return self.kept[names]


@dataclass
class Walk:
    """Steps on the documents of one group.

    place: names them in complaints. fall: the share of the loss by which one step is to lower it; size: of a step, or 0
    for one that is found. moves: of each layer, all steps so far. sizes: of the steps. losses: the documents' mean, by
    `reduction`, before the first step and after each. count: documents with a loss.
    """

    meter: GradientMeter
    documents: Documents
    reduction: str
    place: str
    fall: float
    size: float = 0.0
    moves: list[Direction] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    count: int = 0

    def gradient(self) -> Query:
        """The documents' mean gradient where the walk stands."""
        with self._here(self.moves):
            query = mean_gradient(self.meter, self.documents, self.reduction, self.place)
        self.count = query.documents
        return query

    def walk(self, steps: int, curvature: Curvature, sample: Documents, cut: Cut) -> None:
        """Take further steps."""
        for _ in range(steps):
            query = self.gradient()
            found = find(self.meter, [query], curvature, sample, cut)
            self.step([directions[0] for directions in found.directions], found.own_scores()[0])

    def step(self, directions: Sequence[Direction], slope: float) -> None:
        """Take one step along the directions, one a layer. slope: what size 1 takes from the loss, to first order."""
        if not self.losses:
            self.losses.append(self._loss([]))
        if not slope > 0:
            raise UserError(
                f"{self.place}: what the cut leaves of the direction does not lower its loss; raise --rank or --energy"
            )
        size = self.size or self.fall * self.losses[-1] / slope
        for _ in range(_HALVINGS):
            moves = self._further(directions, size)
            loss = self._loss(moves)
            # Small enough is a step along which the loss falls by nearly what its slope says.
            if self.size or abs(self.losses[-1] - loss - size * slope) <= _STRAIGHT * size * slope:
                self.moves = moves
                self.sizes.append(size)
                self.losses.append(loss)
                return
            size /= 2
        raise UserError(
            f"{self.place}: its loss does not fall along a step as its gradient says; give --precision fp32, or --step"
        )

    def rounding(self) -> float:
        """Return the distance of the moved weights from where they were to go, over the length of the way."""
        missed, way = 0.0, 0.0
        kept = [layer.module.weight for layer in self.meter.layers]
        with self._here(self.moves):
            for layer, weight, move in zip(self.meter.layers, kept, self.moves, strict=True):
                taken = torch.bfloat16 if self.meter.model.autocast else weight.dtype
                wanted = (move.left @ move.right.T).double()
                went = weight.to(taken).double() - layer.module.weight.to(taken).double()
                missed += float(((went.T if layer.transposed else went) - wanted).square().sum())
                way += float(wanted.square().sum())
        return float((missed / way) ** 0.5)

    def _further(self, directions: Sequence[Direction], size: float) -> list[Direction]:
        """The moves so far, and a step."""
        steps = [one.scaled(size) for one in directions]
        if not self.moves:
            return steps
        return [
            Direction(torch.cat([old.left, new.left], 1), torch.cat([old.right, new.right], 1))
            for old, new in zip(self.moves, steps, strict=True)
        ]

    def _loss(self, moves: Sequence[Direction]) -> float:
        """Return the mean loss of the documents that had one at first; NaN where one has none any more."""
        with self._here(moves):
            numbers = self.meter.run(self.documents, None, self.reduction).reduced(self.reduction)
        if not self.losses:
            self._counting = np.isfinite(numbers)
        return float(numbers[self._counting].mean())

    def _here(self, moves: Sequence[Direction]) -> contextlib.AbstractContextManager[None]:
        return moved(self.meter.layers, moves) if moves else contextlib.nullcontext()
