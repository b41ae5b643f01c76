"""Documents through a model, forward and backward, for a collector of gradients.

Documents and windows are those of `dvsel.language.windows`: each token's loss counts once, in the first window that
holds it. Rows are padded at their right end, where nothing real sees the padding and no loss is; or a row holds several
windows, each with positions of its own and attention to itself alone. A document's number is the sum or the mean
of those of its predictions; a window's share of its gradient is that of the predictions that count in it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.checkpoint import checkpoint

from dvsel.errors import UserError
from dvsel.gradients.capture import Collector, Piece, RowLayout, attached
from dvsel.gradients.layers import Layer, blocks_of, is_head
from dvsel.gradients.loss_outputs import Output, cross_entropy
from dvsel.gradients.objective import Read, objective
from dvsel.language import Documents
from dvsel.language.models import Model
from dvsel.language.windows import Feeder, Window, cut
from dvsel.progress import show, within

_PROBE = 6  # tokens


@dataclass(frozen=True)
class Passed:
    """Results of a pass. losses: float64 (n,), of all predictions, in nats (or what the output function gives).
    tokens: int64 (n,), how many predictions; of a classifier 1. beside: float64 (n, columns), what the output function
    gives beside, summed likewise.
    """

    losses: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    beside: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(cls, numbers: npt.NDArray[np.float64], tokens: npt.NDArray[np.int64]) -> Passed:
        """Make it of numbers (n,), or (n, columns) with what stands beside."""
        return cls(numbers, tokens) if numbers.ndim == 1 else cls(numbers[:, 0], tokens, numbers[:, 1:])

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Documents with a prediction to score, all of whose losses are numbers."""
        return (self.tokens > 0) & np.isfinite(self.losses)

    def reduced(self, reduction: str) -> npt.NDArray[np.float64]:
        """Return the sum or the mean (of `REDUCTIONS`) of each document's numbers, float64 (n,); NaN without any."""
        found = self.losses / np.maximum(self.tokens, 1) if reduction == "mean" else self.losses
        return np.where(self.scored, found, np.nan)


@dataclass(frozen=True)
class _Batch:
    """Rows that go through the model together, each of one window or more; part, ends: as of `RowLayout`."""

    rows: Sequence[Sequence[Window]]
    part: bool = False
    ends: bool = False

    @property
    def length(self) -> int:
        """The longest row's."""
        return max(sum(one.length for one in row) for row in self.rows)

    @property
    def placed(self) -> list[tuple[int, int, Window]]:
        """Row, beginning in the row, and window."""
        found = []
        for number, row in enumerate(self.rows):
            begin = 0
            for one in row:
                found.append((number, begin, one))
                begin += one.length
        return found

    def without(self, left_out: npt.NDArray[np.bool_]) -> _Batch:
        """Return the batch without some of its windows, in the order of `placed`."""
        out = iter(left_out.tolist())
        rows = [[one for one in row if not next(out)] for row in self.rows]
        return dataclasses.replace(self, rows=[row for row in rows if row])


@dataclass(frozen=True)
class _Work:
    """Documents, what each prediction weighs in its document's number, and the collector for their gradients."""

    read: Read
    weights: npt.NDArray[np.float64]
    collector: Collector | None
    stage: str

    def show(self, share: float) -> None:
        """Tell how far it is, of a stage or of the batch at hand; documents are taken to be some bytes a token."""
        if not self.stage:
            within(share)
            return
        tokens, documents = sum(map(len, self.read.ids)), len(self.read.ids)
        show(self.stage, int(4 * tokens * share), 4 * tokens, int(documents * share), int(tokens * share))


class GradientMeter(Feeder):
    """Run documents through one model, and show `layers` to collectors.

    window, stride, batch_tokens: as of Feeder, but by default batches are half as large, since a backward pass
    follows. Where a batch exceeds a GPU's memory, it is halved, the collector forgets, and all begins again. output:
    what gradients are taken of. packing: several documents in a row. checkpointing: from now on, the model's blocks
    compute their activations again in the backward pass, so that few are held. Raises UserError for a model in which
    packed documents see each other.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[Layer],
        window: int = 0,
        stride: int = 0,
        batch_tokens: int = 0,
        *,
        output: Output = cross_entropy,
        packing: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, window, stride, batch_tokens, any(is_head(model, layer) for layer in layers))
        if not batch_tokens:
            self.batch_tokens = max(self.batch_tokens // 2, 1)
        self.output, self.packing = output, packing
        self._show(layers)
        model.network.requires_grad_(False)
        if packing:
            self._check_packing()
        if checkpointing:
            _checkpoint(model.network)

    def of(self, layers: Sequence[Layer]) -> GradientMeter:
        """Return the same meter for other layers."""
        other = copy.copy(self)
        other._show(layers)
        return other

    def _show(self, layers: Sequence[Layer]) -> None:
        self.layers = layers
        self.objective = objective(self, self.output, any(is_head(self.model, layer) for layer in layers))

    def run(self, documents: Documents, collector: Collector | None, reduction: str, stage: str = "") -> Passed:
        """Show the gradients of all documents' numbers to the collector; None: only the numbers, without gradients.

        reduction: of `dvsel.gradients.REDUCTIONS`. stage: what to call this in the progress that is shown, if any.
        """
        read = self.objective.read(documents)
        weights = 1 / np.maximum(read.scored, 1) if reduction == "mean" else np.ones(len(read.scored))
        work = _Work(read, weights, collector, stage)
        if collector is None:
            with torch.inference_mode():
                while (losses := self._run_all(work)) is None:
                    pass
            return Passed.of(losses, read.scored)
        with attached(self.layers, collector):
            while (losses := self._run_all(work)) is None:
                # Sums already hold a part of the documents, so after a batch that was too large all begins again.
                collector.reset()
        return Passed.of(losses, read.scored)

    def _run_all(self, work: _Work) -> npt.NDArray[np.float64] | None:
        """The documents' numbers; None where a batch was too large for the memory, after which batches are smaller."""
        waiting = work.read.windows
        losses: npt.NDArray[np.float64] | None = None
        done, total = 0, sum(one.length for one in waiting)
        for batch in self._batches(waiting, work.collector is not None and work.collector.whole_documents):
            found = self._pass_if_it_fits(batch, work)
            if found is None:
                self.shrink(batch.length, len(batch.rows))
                return None
            placed = batch.placed
            if losses is None:
                losses = np.zeros((len(work.read.ids), *found.shape[1:]))
            np.add.at(losses, [one.document for *_, one in placed], found)
            done += sum(one.length for *_, one in placed)
            work.show(done / total)
        return np.zeros(len(work.read.ids)) if losses is None else losses

    def _batches(self, waiting: list[Window], whole: bool) -> Iterator[_Batch]:
        """Windows in batches; where documents are to come whole, those of several windows one after the other."""
        several = {row for row, count in Counter(one.document for one in waiting).items() if whole and count > 1}
        for rows in self._cut([one for one in waiting if one.document not in several], self.packing):
            yield _Batch(rows)
        for row in sorted(several):
            parts = list(self._cut([one for one in waiting if one.document == row], False))
            for number, rows in enumerate(parts, 1):
                yield _Batch(rows, part=True, ends=number == len(parts))

    def _cut(self, waiting: list[Window], packing: bool) -> Iterator[list[list[Window]]]:
        rows = packed(waiting) if packing else [[one] for one in waiting]
        lengths, first = np.array([sum(one.length for one in row) for row in rows], np.int64), 0
        while first < len(rows):
            last = cut(lengths, first, self.batch_tokens)
            yield rows[first:last]
            first = last

    def _pass_if_it_fits(self, batch: _Batch, work: _Work) -> npt.NDArray[np.float64] | None:
        """Return what `_pass` does; None where the GPU's memory is too small, once the attempt has released its own."""
        try:
            return self._pass(batch, work)
        except torch.cuda.OutOfMemoryError:
            return None

    def _pass(self, batch: _Batch, work: _Work) -> npt.NDArray[np.float64]:
        """Forward and backward; the numbers of the windows, float64."""
        collector, placed = work.collector, batch.placed
        ids, places, rows = self._rows(batch, work.read)
        if collector is not None:
            collector.begin(rows)
        with torch.set_grad_enabled(collector is not None):
            given = self.objective.forward(ids, rows.real, places)
        weights = work.weights[[one.document for *_, one in placed]]
        with torch.enable_grad():
            numbers, slopes = self.objective.numbers(given, work.read, placed, weights)
        found: npt.NDArray[np.float64] = numbers.cpu().numpy()
        if collector is None:
            return found
        non_finite = ~np.isfinite(found if found.ndim == 1 else found.sum(1))
        if collector.adds_rows and non_finite.any():
            # A loss of NaN would make every sum NaN: the graph is freed, and the batch runs again without its windows.
            del given, slopes
            rest = batch.without(non_finite)
            if rest.rows:
                self._pass(rest, work)
            return found
        collector.turn()
        # The losses' slopes were found slice by slice, so no graph of float32 logits is held.
        given.backward(slopes)  # type: ignore[no-untyped-call]
        return found

    def _rows(self, batch: _Batch, read: Read) -> tuple[torch.Tensor, torch.Tensor | None, RowLayout]:
        """Token ids (rows, length), positions in their documents where they are packed, and what the rows are."""
        shape, placed = (len(batch.rows), batch.length), batch.placed
        ids, real = np.full(shape, self.objective.padding(), np.int64), np.zeros(shape, np.bool_)
        places, piece = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for number, (row, begin, one) in enumerate(placed):
            end = begin + one.length
            ids[row, begin:end] = read.ids[one.document][one.begin : one.end]
            real[row, begin:end] = True
            places[row, begin:end] = np.arange(one.length)
            places[row, end:] = np.arange(shape[1] - end)  # padding is a document of its own
            piece[row, begin:end] = number
        pieces = [Piece(one.document, row, begin, begin + one.length, one.begin) for row, begin, one in placed]
        owners = self.moved(np.array([one.document for one in pieces], np.int64))
        several = len(pieces) > shape[0]
        rows = RowLayout(
            pieces, owners, self.moved(real), self.moved(piece) if several else None, part=batch.part, ends=batch.ends
        )
        return self.moved(ids), self.moved(places) if several else None, rows

    @torch.inference_mode()
    def _check_packing(self) -> None:
        """Raise UserError where a document in a row with others does not give what it gives alone."""
        if self.model.card.classifier:
            raise UserError(f"model {self.model.card.name}: a classifier sees a row as one document; drop --packing")
        ids = torch.arange(1, 2 * _PROBE + 1, device=self.model.device)[None] % self.model.tokens
        places = torch.arange(2 * _PROBE, device=self.model.device)[None] % _PROBE
        try:
            together = self.model.states(ids, position_ids=places)[:, _PROBE:].float()
        except TypeError:  # the model takes no positions
            together = None
        alone = self.model.states(ids[:, _PROBE:]).float()
        exact = self.model.network.dtype in (torch.float32, torch.float64) and not self.model.autocast
        if together is None or (together - alone).norm() > (1e-3 if exact else 0.05) * alone.norm():
            raise UserError(
                f"model {self.model.card.name}: documents in one row see each other, so packing would mix their "
                "gradients; drop --packing"
            )


def packed(waiting: Sequence[Window]) -> list[list[Window]]:
    """Pack windows, the longest first, into rows no longer than the first: each where it leaves the least room."""
    if not waiting:
        return []
    capacity = waiting[0].length
    rows: list[list[Window]] = []
    with_room: dict[int, list[int]] = {}  # rows by the room left in them, so that a search sees lengths, not rows
    for one in waiting:
        room = min((left for left in with_room if left >= one.length and with_room[left]), default=None)
        if room is None:
            rows.append([])
            number, room = len(rows) - 1, capacity
        else:
            number = with_room[room].pop()
        rows[number].append(one)
        with_room.setdefault(room - one.length, []).append(number)
    return sorted(rows, key=lambda row: -sum(one.length for one in row))


def _checkpoint(network: Any) -> None:
    """Make the blocks compute their activations again in the backward pass.

    transformers does so only in training mode, in which some blocks (OPT's) drop out.
    """
    for block in blocks_of(network):
        if getattr(block.forward, "func", None) is not checkpoint:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
