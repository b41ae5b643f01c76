"""The losses of documents under a causal language model: of every token, in nats, each document by itself.

`dvsel.language.windows` says which tokens a document has, and which window each is scored in. A token's loss is minus
the natural log of its probability given all tokens before it, in float32.

Batches are windows of like length: at most `batch_tokens` positions, of which at most `windows.WASTE` are padding.
Logits are computed for scored positions alone, a slice at a time. A document's losses are the same in any batch, but
for the rounding of matrix products of another shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dvsel.errors import UserError
from dvsel.language.windows import Feeder, Tokens, Window, cut
from dvsel.progress import within

Losses = npt.NDArray[np.float32]

_SLICE = {"cpu": 1 << 22, "cuda": 1 << 27}  # logits at a time


class LossMeter(Feeder):
    """Measure losses with one model; the arguments are those of `Feeder`."""

    def token_losses(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> list[Losses]:
        """Return the losses of each text's tokens, in order, float32 (tokens,); empty for a text without any."""
        documents, skips = self.tokens(texts, prompts)
        losses = [np.empty(max(len(ids) - 1 - skip, 0), np.float32) for ids, skip in zip(documents, skips, strict=True)]
        waiting = self.windows(documents, skips)
        lengths = np.array([one.length for one in waiting], np.int64)
        first = 0
        while first < len(waiting):
            batch = waiting[first : cut(lengths, first, self.batch_tokens)]
            found = self._run_if_it_fits(batch, documents)
            if found is None:
                self.shrink(int(lengths[first]), len(batch))
                continue
            ends = np.cumsum([one.scored for one in batch])
            for one, scored in zip(batch, np.split(found, ends[:-1]), strict=True):
                begin = one.first - skips[one.document]
                losses[one.document][begin : begin + len(scored)] = scored
            first += len(batch)
            within(lengths[:first].sum() / lengths.sum())
        return losses

    def _run_if_it_fits(self, batch: Sequence[Window], documents: Sequence[Tokens]) -> Losses | None:
        """Return what `_run` does; None where the GPU's memory is too small, once the attempt has released its own."""
        try:
            return self._run(batch, documents)
        except torch.cuda.OutOfMemoryError:
            return None

    @torch.inference_mode()
    def _run(self, batch: Sequence[Window], documents: Sequence[Tokens]) -> Losses:
        """Return the losses of the windows' scored tokens, end to end."""
        length = max(one.length for one in batch)
        ids = np.zeros((len(batch), length), np.int64)
        for row, one in enumerate(batch):
            ids[row, : one.length] = documents[one.document][one.begin : one.end]
        places = np.concatenate(
            [row * length + np.arange(one.first - one.begin, one.end - one.begin) for row, one in enumerate(batch)]
        )
        next_ids = np.concatenate([documents[one.document][one.first + 1 : one.end + 1] for one in batch])
        states = self.model.states(self.moved(ids)).flatten(0, 1)[self.moved(places)]
        losses = self._losses(states, self.moved(next_ids)).cpu().numpy()
        if not np.isfinite(losses).all():
            name = self.model.card.name
            raise UserError(f"model {name}: gives losses that are NaN or infinite; try --precision fp32")
        return losses

    def _losses(self, states: torch.Tensor, next_ids: torch.Tensor) -> torch.Tensor:
        """Return cross entropies, made a slice at a time, so that few logits are held at once."""
        rows = max(_SLICE[self.model.device] // self.model.tokens, 128)
        return torch.cat(
            [
                torch.nn.functional.cross_entropy(self.model.logits(some), wanted, reduction="none")
                for some, wanted in zip(torch.split(states, rows), torch.split(next_ids, rows), strict=True)
            ]
        )


def measure(losses: Losses, name: str, characters: int, share: float) -> float:
    """Return one number for a document, the lower the more probable; NaN without losses.

    name: of `dvsel.language.MEASURES`. mean: nats a token. total: nats. bits-per-char: total / ln 2 / `characters`.
    min-k: mean loss of the `share` percent of tokens that are least likely, rounded down but one at least (Min-K%
    Prob, Shi et al. 2024, "Detecting Pretraining Data from Large Language Models"; their value is minus this one).
    """
    if not len(losses):
        return math.nan
    if name == "min-k":
        count = max(int(len(losses) * share / 100), 1)
        losses = np.partition(losses, len(losses) - count)[len(losses) - count :]
    total = float(losses.sum(dtype=np.float64))
    if name == "total":
        return total
    return total / math.log(2) / characters if name == "bits-per-char" else total / len(losses)
