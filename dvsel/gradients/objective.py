"""Objectives of models: a causal one predicts each next token, a classifier the sequence's label.

An objective reads documents into windows, runs the network forward, and gives the numbers of an output function
(`loss_outputs`) and their gradient by what the network gave.

Of a causal model, logits are made for scored positions, a slice at a time, with their own gradient by the last hidden
states; those of a whole batch never exist (but in models whose logits come whole, see `dvsel.language.models`, or
where the head is a layer that counts). Softmax in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dvsel.gradients.capture import wide
from dvsel.gradients.loss_outputs import Output
from dvsel.language import Documents
from dvsel.language.windows import Feeder, Tokens, Window

_SLICE = {"cpu": 1 << 22, "cuda": 1 << 26}  # logits at a time

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Read:
    """Documents as an objective feeds them.

    ids: token ids of each. windows: over all, the longest first. scored: int64 (n,), predictions of each. labels:
    int64 (n,), of a classifier; else empty.
    """

    ids: Sequence[Tokens]
    windows: list[Window]
    scored: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


class Objective(Protocol):
    """Objective of one model."""

    def read(self, documents: Documents) -> Read:
        """The documents' tokens and windows."""

    def forward(self, ids: torch.Tensor, real: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
        """Return what the network gives for ids (rows, length). places: in their documents, where rows hold several."""

    def padding(self) -> int:
        """The token that rows are filled up with."""

    def numbers(
        self, given: torch.Tensor, read: Read, windows: Sequence[tuple[int, int, Window]], weights: Floats
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The output function, summed over each window's predictions, float64 (windows,) or, with what it gives beside,
        (windows, columns); and the gradient, by what the network gave, of the sum over windows, each times its weight.

        windows: row, beginning in the row, and window. weights: (windows,).
        """


class Causal:
    """Prediction of each token from those before it. whole: whether the network is to make all logits by itself."""

    def __init__(self, feeder: Feeder, output: Output, whole: bool) -> None:
        self.feeder, self.output = feeder, output
        self.whole = whole or not feeder.model.has_head

    def read(self, documents: Documents) -> Read:
        ids, skips = self.feeder.tokens(documents.texts, documents.prompts)
        scored = np.array([max(len(one) - 1 - skip, 0) for one, skip in zip(ids, skips, strict=True)], np.int64)
        return Read(ids, self.feeder.windows(ids, skips), scored, np.zeros(0, np.int64))

    def forward(self, ids: torch.Tensor, real: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002
        more = {} if places is None else {"position_ids": places}
        model = self.feeder.model
        made: torch.Tensor = (model.whole_logits if self.whole else model.states)(ids, **more)
        return made

    def padding(self) -> int:
        return 0

    def numbers(
        self, given: torch.Tensor, read: Read, windows: Sequence[tuple[int, int, Window]], weights: Floats
    ) -> tuple[torch.Tensor, torch.Tensor]:
        arrays = _scored(read, windows, weights, given.shape[1])
        places, right, owners, shares = (torch.from_numpy(array).to(given.device) for array in arrays)
        states = given.detach().flatten(0, 1)
        slopes = torch.zeros_like(states)
        numbers = []
        model = self.feeder.model
        size = max(_SLICE[model.device] // model.tokens, 128)
        for begin in range(0, len(places), size):
            part = slice(begin, begin + size)
            found, by_states = self._slice(states[places[part]], right[part, None])
            slopes[places[part]] = by_states * shares[part].to(by_states.dtype)[:, None]
            numbers.append(found.double())
        return _sums(torch.cat(numbers), owners, len(windows)), slopes.view_as(given)

    def _slice(self, states: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The numbers at some positions, and the gradient of their sum by the states; without a backward pass, 0."""
        states.requires_grad_(True)
        logits = wide(states if self.whole else self.feeder.model.head(states))
        numbers, by_logits = self.output(logits.detach(), right.to(logits.device))
        if torch.is_inference_mode_enabled():  # the numbers are all that is wanted
            return numbers.to(states.device), torch.zeros_like(states)
        (slopes,) = torch.autograd.grad(logits, states, by_logits)
        return numbers.to(states.device), slopes


def _sums(numbers: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    """Return sums for each of `count` owners, and each column where there are several."""
    return numbers.new_zeros(count, *numbers.shape[1:]).index_add_(0, owners, numbers)


def _scored(
    read: Read, windows: Sequence[tuple[int, int, Window]], weights: Floats, length: int
) -> tuple[Tokens, Tokens, Tokens, Floats]:
    """Return the scored positions' places in rows * length, the tokens that follow, their windows and weights."""
    counts = [one.scored for *_, one in windows]
    places = [
        row * length + begin + np.arange(one.first - one.begin, one.end - one.begin) for row, begin, one in windows
    ]
    right = [read.ids[one.document][one.first + 1 : one.end + 1] for *_, one in windows]
    return (
        np.concatenate(places),
        np.concatenate(right),
        np.repeat(np.arange(len(counts)), counts),
        np.repeat(weights, counts),
    )


class Classifier:
    """The label of each sequence, by its name or number; the sequence is cut to the window, as its tokenizer cuts.

    No label, or one that the model does not know: no score. Names that are numbers are names.
    """

    def __init__(self, feeder: Feeder, output: Output) -> None:
        self.feeder, self.output = feeder, output
        config, tokenizer = feeder.model.network.config, feeder.model.card.tokenizer
        self.numbers_of = {str(name): number for name, number in (config.label2id or {}).items()}
        if not any(name.isdigit() for name in self.numbers_of):
            self.numbers_of |= {str(number): number for number in range(config.num_labels)}
        if config.pad_token_id is None:
            known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
            config.pad_token_id = next(token for token in known if token is not None)

    def read(self, documents: Documents) -> Read:
        texts = documents.texts
        made = [np.array(one, np.int64) for one in self.feeder.tokenise(texts, self.feeder.window)]
        self.feeder.check(made)
        labels = np.array([self.numbers_of.get(label, -1) for label in documents.labels or [""] * len(texts)], np.int64)
        usable = [bool(text) and len(ids) > 0 for text, ids in zip(texts, made, strict=True)]
        scored = ((labels >= 0) & np.array(usable, np.bool_)).astype(np.int64)
        found = [Window(row, 0, len(made[row]), len(made[row]) - 1) for row in np.flatnonzero(scored).tolist()]
        return Read(made, sorted(found, key=lambda one: -one.length), scored, labels)

    def forward(self, ids: torch.Tensor, real: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002
        logits: torch.Tensor = self.feeder.model.whole_logits(ids, attention_mask=real.long())
        return logits

    def padding(self) -> int:
        token: int = self.feeder.model.network.config.pad_token_id
        return token

    def numbers(
        self, given: torch.Tensor, read: Read, windows: Sequence[tuple[int, int, Window]], weights: Floats
    ) -> tuple[torch.Tensor, torch.Tensor]:
        right = torch.from_numpy(read.labels[[one.document for *_, one in windows]]).to(given.device)
        numbers, slopes = self.output(wide(given.detach()), right[:, None])
        shares = torch.from_numpy(weights).to(slopes)
        return numbers.double(), (slopes * shares[:, None]).to(given.dtype)


def objective(feeder: Feeder, output: Output, whole: bool) -> Objective:
    """The model's. whole: whether its head is a layer that counts."""
    return Classifier(feeder, output) if feeder.model.card.classifier else Causal(feeder, output, whole)
