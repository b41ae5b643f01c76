"""Documents fed to a language model: as tokens, in windows.

A document is [start token] + prompt + text, cut into tokens by the model's tokenizer, prompt and text apart. The
prompt's tokens are context only. A tokenizer without bos and eos has no start token: a document's first token is then
context only too.

Long documents: windows of `window` positions that begin every `stride` positions; each token is scored once, in the
first window that holds it, so after more than window - stride tokens, or all there are (the sliding windows of
transformers' guide to perplexity; but the last token of a window is fed to no one, so a window scores one more).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from dvsel.documents import tokenizer
from dvsel.errors import Notice, UserError
from dvsel.language.models import Model

Tokens = npt.NDArray[np.int64]

WASTE = 0.1
_BATCH = {"cpu": 8192, "cuda": 32768}  # positions
_WHOLE = 1 << 28  # logits at a time where a model gives them only for all positions


@dataclass(frozen=True, slots=True)
class Window:
    """Positions begin to end of a document are fed; from `first` on, each one's next token is scored."""

    document: int
    begin: int
    end: int
    first: int

    @property
    def length(self) -> int:
        return self.end - self.begin

    @property
    def scored(self) -> int:
        """The number of scored positions."""
        return self.end - self.first


def windows(document: int, length: int, skip: int, window: int, stride: int) -> list[Window]:
    """Return the windows over a document of `length` positions of which the first `skip` are not scored."""
    found, first = [], skip
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        if end > first:
            found.append(Window(document, begin, end, first))
            first = end
    return found


def cut(lengths: npt.NDArray[np.int64], first: int, budget: int) -> int:
    """Return the end of the batch that begins at `first`; it has one row at least.

    lengths: of rows, falling. A batch has at most `budget` positions, padding included, and at most `WASTE` padding.
    """
    longest, held = lengths[first], 0
    for last in range(first, len(lengths)):
        size = (last - first + 1) * longest
        held += lengths[last]
        if last > first and (size > budget or size - held > WASTE * size):
            return last
    return len(lengths)


class Feeder:
    """Cuts documents for one model.

    window, stride: in positions; 0 stands for the model's window, at most `cards.LONGEST`, and for half a window.
    batch_tokens: positions in a batch, 0 for what suits the device. On a GPU whose memory it exceeds, it is halved.
    whole: whether logits of all positions are made at once, as is done anyway for a model that gives them only so.
    Raises UserError for a window or stride that the model cannot have.
    """

    flag: ClassVar[str] = "--window"  # what makes the longest row shorter

    def __init__(
        self, model: Model, window: int = 0, stride: int = 0, batch_tokens: int = 0, whole: bool = False
    ) -> None:
        self.model = model
        self.window, self.stride = model.card.windows(window, stride)
        self.batch_tokens = batch_tokens or _BATCH[model.device]
        if not batch_tokens and (whole or not model.has_head):
            self.batch_tokens = min(self.batch_tokens, max(_WHOLE // model.tokens, 1))

    def tokens(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> tuple[list[Tokens], list[int]]:
        """Return each document's tokens, and how many of its positions come before the first that is scored."""
        start = [] if self.model.card.start is None else [self.model.card.start]
        pieces = self.tokenise(texts)
        contexts = self.tokenise(prompts) if prompts is not None else [[]] * len(texts)
        documents = [
            np.array(start + context + piece, np.int64) for context, piece in zip(contexts, pieces, strict=True)
        ]
        self.check(documents)
        return documents, [max(len(start) + len(context) - 1, 0) for context in contexts]

    def tokenise(self, texts: Sequence[str], longest: int | None = None) -> list[list[int]]:
        """Return the tokens of each text; longest: with those that the tokenizer adds, cut to so many in all."""
        card = self.model.card
        return tokenizer.cut(card.tokenizer, texts, f"model {card.name}: its tokenizer", longest)

    def check(self, documents: Sequence[Tokens]) -> None:
        """Raise UserError for tokens that the model does not know."""
        highest = max((int(document.max()) for document in documents if len(document)), default=0)
        if highest >= self.model.tokens:
            raise UserError(
                f"model {self.model.card.name}: its tokenizer gives token {highest}, and the model knows "
                f"{self.model.tokens}; give the model its own tokenizer"
            )

    def windows(self, documents: Sequence[Tokens], skips: Sequence[int]) -> list[Window]:
        """Return the windows over all documents, the longest first."""
        found = [
            one
            for row, (ids, skip) in enumerate(zip(documents, skips, strict=True))
            for one in windows(row, len(ids) - 1, skip, self.window, self.stride)
        ]
        return sorted(found, key=lambda one: -one.length)

    def moved(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        """Return a tensor on the model's device."""
        return torch.from_numpy(array).to(self.model.device)

    def shrink(self, length: int, rows: int) -> None:
        """Halve the batches, after one that the GPU could not hold."""
        torch.cuda.empty_cache()
        if rows == 1:
            raise UserError(
                f"model {self.model.card.name}: the GPU's memory holds no window of {length} tokens; "
                f"lower {self.flag}, or pass --precision bf16"
            )
        self.batch_tokens = rows // 2 * length
        warnings.warn(
            Notice(
                f"model {self.model.card.name}: a batch of {rows * length} tokens exceeds the GPU's memory; "
                f"going on with --batch-tokens {self.batch_tokens}"
            ),
            stacklevel=2,
        )
