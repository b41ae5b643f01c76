"""A short training run, for what it leaves behind: checkpoints, and the moments of their gradients in AdamW.

As LESS's published program trains, with transformers: AdamW without weight decay, gradients clipped to a norm of 1, a
learning rate that rises linearly over the first 3% of steps and then falls linearly to 0, each epoch in a new order. A
batch's gradient is the mean of its documents'. The same bytes for the same seed on the same machine.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dvsel.errors import Notice, UserError
from dvsel.gradients.gradient_pass import GradientMeter, Passed
from dvsel.gradients.moments import GradientSum
from dvsel.language import Documents
from dvsel.progress import show

BETAS = (0.9, 0.999)
_RISING = 0.03  # of the steps
_CLIP = 1.0


@dataclass(frozen=True)
class Course:
    """Course of a training. learning_rate: the highest. batch_documents: of a step; an epoch's last may have fewer."""

    epochs: int
    learning_rate: float
    batch_documents: int
    seed: int


@dataclass(frozen=True)
class Checkpoint:
    """Result of an epoch, in tensors of the trained layers' shapes.

    weights: copies. first, second: AdamW's moments, not corrected for their bias. steps: so far. rate: the epoch's mean
    learning rate. loss: the epoch's mean, nats a prediction.
    """

    weights: Sequence[torch.Tensor]
    first: Sequence[torch.Tensor]
    second: Sequence[torch.Tensor]
    steps: int
    rate: float
    loss: float


def rates(steps: int, highest: float) -> list[float]:
    """The learning rate of each step: what transformers has after as many steps, whose own first step has 0."""
    rising = math.ceil(_RISING * steps)
    return [highest * min((step + 1) / rising, (steps - step) / (steps + 1 - rising)) for step in range(steps)]


def train(meter: GradientMeter, documents: Documents, reduction: str, course: Course) -> list[Checkpoint]:
    """Train the meter's layers, torch's `Linear` in float32 or float64, and leave them so; a checkpoint an epoch.

    Raises UserError where losses become NaN or infinite, or where nothing has a loss.
    """
    return _Run(meter, documents, reduction, course).checkpoints()


class _Run:
    """State of a training run."""

    def __init__(self, meter: GradientMeter, documents: Documents, reduction: str, course: Course) -> None:
        self.meter, self.documents, self.reduction, self.course = meter, documents, reduction, course
        self.weights = [layer.module.weight for layer in meter.layers]
        self.optimizer = torch.optim.AdamW(self.weights, betas=BETAS, weight_decay=0.0)
        self.total = GradientSum(meter.layers)
        self.an_epoch = math.ceil(len(documents) / course.batch_documents)
        self.rates = rates(course.epochs * self.an_epoch, course.learning_rate)
        self.steps = 0

    def checkpoints(self) -> list[Checkpoint]:
        """The state after each epoch."""
        generator = np.random.default_rng(self.course.seed)
        return [self._epoch(generator.permutation(len(self.documents))) for _ in range(self.course.epochs)]

    def _epoch(self, order: npt.NDArray[np.int64]) -> Checkpoint:
        losses, tokens, size = 0.0, 0, self.course.batch_documents
        for begin in range(0, len(order), size):
            passed = self._step(self.documents.take(order[begin : begin + size]))
            losses += float(passed.losses[passed.scored].sum())
            tokens += int(passed.tokens[passed.scored].sum())
        if not tokens:
            raise UserError("the warm-up: no document of the pool's sample has a loss; give documents with text")
        rate = float(np.mean(self.rates[self.steps - self.an_epoch : self.steps]))
        states = [self.optimizer.state[weight] for weight in self.weights]
        return Checkpoint(
            [weight.detach().clone() for weight in self.weights],
            [state["exp_avg"].clone() for state in states],
            [state["exp_avg_sq"].clone() for state in states],
            self.steps,
            rate,
            losses / tokens,
        )

    def _step(self, batch: Documents) -> Passed:
        self.total.reset()
        passed = self.meter.run(batch, self.total, self.reduction)
        self._check(passed, batch)
        for weight, gradient in zip(self.weights, self.total.total, strict=True):
            weight.grad = gradient / max(int(passed.scored.sum()), 1)
        torch.nn.utils.clip_grad_norm_(self.weights, _CLIP)
        self.optimizer.param_groups[0]["lr"] = self.rates[self.steps]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        show("warm-up", self.steps * self._step_size, len(self.rates) * self._step_size)
        return passed

    @property
    def _step_size(self) -> int:
        """Bytes of a step, on average."""
        return sum(map(len, self.documents.texts)) // self.an_epoch

    def _check(self, passed: Passed, batch: Documents) -> None:
        non_finite = np.flatnonzero(~np.isfinite(passed.losses))
        if len(non_finite) and not passed.scored.any():
            raise UserError(
                f"the warm-up: losses are NaN or infinite at step {self.steps + 1} of {len(self.rates)}; "
                "lower --learning-rate, or pass --precision fp32"
            )
        if len(non_finite):
            text = batch.texts[non_finite[0]][:40]
            warnings.warn(
                Notice(f"the warm-up: left out the document {text!r}..., whose loss is NaN or infinite"), stacklevel=2
            )
