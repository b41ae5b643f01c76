"""Capture layers' inputs and their outputs' gradients, out of one forward and one backward pass.

All weights are frozen. The graph begins at the outputs of the lowest captured layers: what lies below them is run
without a graph, and the backward pass ends there. A layer's inputs are shown to the collector as they come, and it
keeps what it needs until the gradients come; so a collector that keeps projections saves the memory of the inputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dvsel.errors import UserError
from dvsel.gradients.layer_inputs import Inputs, OneHot
from dvsel.gradients.layers import Layer


@dataclass(frozen=True)
class Piece:
    """Positions begin to end of a row, which a window over a document fills; it begins at the document's `at`."""

    document: int
    row: int
    begin: int
    end: int
    at: int = 0


@dataclass(frozen=True)
class RowLayout:
    """Layout of a batch's rows.

    pieces: of the rows, in order. owners: int64 (pieces,), each one's document. real: bool (rows, length), False where
    there is padding; there the gradients of outputs are 0. piece: int64 (rows, length), each position's piece (of
    padding: any), or None where each row is one. part: all rows are of one document that has further rows in other
    batches, or several in this one. ends: no later batch has rows of it.
    """

    pieces: Sequence[Piece]
    owners: torch.Tensor
    real: torch.Tensor
    piece: torch.Tensor | None = None
    part: bool = False
    ends: bool = False

    @property
    def positions(self) -> int:
        """The number of real positions."""
        return sum(one.end - one.begin for one in self.pieces)

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return sums over the positions of each piece, (pieces, width), of values (rows, length, width)."""
        if self.piece is None:
            return values.sum(1)
        total = values.new_zeros(len(self.pieces), values.shape[2])
        return total.index_add_(0, self.piece.flatten().to(values.device), values.flatten(0, 1))

    def split(self, inputs: Inputs, slopes: torch.Tensor) -> Iterator[tuple[int, Inputs, torch.Tensor]]:
        """Yield document, inputs and gradients of each piece, (positions, width)."""
        for one in self.pieces:
            where = one.row, slice(one.begin, one.end)
            yield one.document, inputs[where], slopes[where]


class Collector:
    """Base of what a pass shows gradients to. Tensors are (rows, length, width), in the model's precision.

    What a classifier's layers see after pooling is (rows, 1, width).

    whole_documents: whether rows of a document that has several must come by themselves, as `RowLayout.part` says.
    adds_rows: whether a row whose loss is NaN or infinite would make the whole result so; such rows are left out.
    """

    whole_documents: bool = False
    adds_rows: bool = False
    rows: RowLayout
    backward: bool = False

    def begin(self, rows: RowLayout) -> None:
        """Begin a new pass, over these rows."""
        self.rows = rows
        self.backward = False

    def turn(self) -> None:
        """Note that the forward pass is over; what runs again now, with gradient checkpointing, was shown already."""
        self.backward = True

    def keep(self, layer: int, inputs: Inputs) -> Any:  # noqa: ARG002
        """Return what is needed of a layer's inputs until its outputs' gradients come, here all; must hold no graph."""
        return inputs

    def take(self, layer: int, kept: Any, slopes: torch.Tensor) -> None:
        """Take the gradient of the summed losses by a layer's outputs, and what was kept of its inputs."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all that was taken."""
        raise NotImplementedError


@contextlib.contextmanager
def attached(layers: Sequence[Layer], collector: Collector) -> Iterator[None]:
    """Show every pass to the collector; layer numbers are places in `layers`."""
    handles = [
        layer.module.register_forward_hook(_hook(number, layer, collector)) for number, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(number: int, layer: Layer, collector: Collector) -> Callable[..., None]:
    """Make the forward hook of a layer."""
    last: list[RowLayout] = []

    def see(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:  # noqa: ARG001
        # With all weights frozen no graph would begin: it begins here, at the lowest captured layer.
        if not output.requires_grad:
            output.requires_grad_(True)
        if collector.backward:
            return
        rows = collector.rows
        if last and last[0] is rows:
            raise UserError(f"layer {layer.name}: runs twice in a pass, which gradients cannot tell apart; "
                            "leave it out with --layers")  # fmt: skip
        last[:] = [rows]
        # The hook on the output runs in the backward pass, when the inputs are gone: what is needed is kept now.
        kept = collector.keep(number, _inputs(inputs[0].detach().to(output.device), rows, layer))
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda slopes: collector.take(number, kept, _slopes(slopes.detach(), rows, layer))
        )

    return see


def _slopes(tensor: torch.Tensor, rows: RowLayout, layer: Layer) -> torch.Tensor:
    """Return the gradient by W x."""
    return _in_rows(tensor if layer.scale == 1 else tensor * layer.scale, rows, layer)


def _inputs(tensor: torch.Tensor, rows: RowLayout, layer: Layer) -> Inputs:
    if layer.embeds:
        return OneHot(_in_rows(tensor[..., None], rows, layer)[..., 0], layer.inputs)
    return _in_rows(tensor, rows, layer)


def _in_rows(tensor: torch.Tensor, rows: RowLayout, layer: Layer) -> torch.Tensor:
    """Return a tensor as (rows, length, width), also where a model has laid positions end to end, or pooled them."""
    count, length = rows.real.shape
    if tensor.shape[:-1] == (count, length):
        return tensor
    if tensor.shape[:-1] == (count,) and layer.pools:
        return tensor[:, None]
    if tensor.shape[:-1].numel() != count * length or tensor.shape[0] not in (1, count * length):
        raise UserError(f"layer {layer.name}: does not see every token in its row, as an expert or an embedding of "
                        "positions; leave it out with --layers")  # fmt: skip
    return tensor.reshape(count, length, -1)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32, or float64 where it is that: the precision of sums."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
