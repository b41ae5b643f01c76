"""Variance over checkpoints of gradients by a model's input, the vectors of the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from dvsel.gradients.capture import Collector, wide
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layer_inputs import Inputs
from dvsel.gradients.layers import input_embedding
from dvsel.language import Documents
from dvsel.progress import parts

_HELD = 1 << 30  # bytes of gradients
_COPIES = 4  # the newest, their mean, the squares, and what is made in between

Floats = npt.NDArray[np.float64]


class InputSlopes(Collector):
    """The gradient of each document's number by the vector of each of its tokens.

    lengths: int64 (documents,), in tokens. total: (tokens of all documents, width), one document after the other;
    summed over the windows that a token is in, as each of them has its own part in the number. fed: bool (tokens,),
    the tokens that were in any.
    """

    def __init__(self, lengths: npt.NDArray[np.int64], like: torch.Tensor) -> None:
        ends = np.cumsum(lengths)
        self._begins = (ends - lengths).tolist()
        self.total = wide(like.new_zeros(int(lengths.sum()), like.shape[1]))
        self.fed = torch.zeros(len(self.total), dtype=torch.bool, device=like.device)

    def reset(self) -> None:
        self.total.zero_()
        self.fed.zero_()

    def keep(self, layer: int, inputs: Inputs) -> None:
        """Return nothing: the inputs are not needed."""

    def take(self, layer: int, kept: None, slopes: torch.Tensor) -> None:  # noqa: ARG002
        for one in self.rows.pieces:
            begin = self._begins[one.document] + one.at
            where = slice(begin, begin + one.end - one.begin)
            self.total[where] += wide(slopes[one.row, one.begin : one.end])
            self.fed[where] = True


def spread(
    meters: Sequence[GradientMeter], documents: Documents, reduction: str
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The standard deviation of gradients by inputs over the meters' models, which are checkpoints of one, in its mean
    over tokens and dimensions: float64 (n,). And which documents have one: bool (n,).

    Documents are taken some at a time, so that no more than about 1 GB of gradients is held.
    """
    meters = [meter.of([input_embedding(meter.model)]) for meter in meters]
    lengths = np.array([len(ids) for ids in meters[0].objective.read(documents).ids], np.int64)
    width = meters[0].layers[0].outputs
    found, scored = np.zeros(len(documents)), np.zeros(len(documents), np.bool_)
    for part in parts(list(_parts(lengths, _HELD // (4 * _COPIES * width)))):
        found[part], scored[part] = _spread(meters, documents[part], lengths[part], reduction)
    return found, scored


def _parts(lengths: npt.NDArray[np.int64], limit: int) -> Iterator[slice]:
    """Runs of documents that together have at most `limit` tokens, or of one."""
    first, held = 0, 0
    for number, length in enumerate(lengths.tolist()):
        if number > first and held + length > limit:
            yield slice(first, number)
            first, held = number, 0
        held += length
    yield slice(first, len(lengths))


def _spread(
    meters: Sequence[GradientMeter], documents: Documents, lengths: npt.NDArray[np.int64], reduction: str
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return what `spread` does, by Welford's running variance."""
    slopes = InputSlopes(lengths, meters[0].layers[0].module.weight)
    mean, squares = torch.zeros_like(slopes.total), torch.zeros_like(slopes.total)
    scored = np.ones(len(documents), np.bool_)
    for number, meter in enumerate(parts(meters), 1):
        slopes.reset()
        scored &= meter.run(documents, slopes, reduction).scored
        away = slopes.total - mean
        mean += away / number
        squares += away * (slopes.total - mean)
    deviations = (squares / len(meters)).sqrt_().mean(1).double().cpu()
    owners = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))[slopes.fed.cpu()]
    sums = torch.zeros(len(lengths), dtype=torch.float64).index_add_(0, owners, deviations[slopes.fed.cpu()])
    counts = torch.bincount(owners, minlength=len(lengths)).clamp(min=1)
    return (sums / counts).numpy(), scored
