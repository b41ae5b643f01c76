"""Texts as vectors, by a sentence encoder, any other encoder of transformers, or a causal language model.

A text is cut into tokens as the model's own tokenizer does it, special tokens included, and to `max_tokens`. The states
of its tokens after one layer are pooled in float32 into one vector:

- mean, weighted-mean (the i-th of n tokens counts i / (1 + ... + n): Muennighoff 2022, "SGPT: GPT Sentence Embeddings
  for Semantic Search", equation 2; RDS+ of Ivison et al. 2025, "Large-Scale Data Selection for Instruction Tuning"),
  cls (the first token), last.
- A model of sentence-transformers does what its modules say: `dvsel.embeddings.sentence`.

A text's vector is the same in any batch, but for the rounding of matrix products of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from dvsel.documents.vectors import Maker
from dvsel.embeddings import EmbedderOptions, sentence
from dvsel.errors import UserError
from dvsel.language.cards import LONGEST, Card
from dvsel.language.models import Model, load
from dvsel.language.windows import Feeder, Tokens, cut
from dvsel.progress import within

Embeddings = npt.NDArray[np.float32]

_BATCH = {"cpu": 2048, "cuda": 65536}  # positions; more on a CPU cost the time of new pages for every layer
_MODES = {"mean": "mean", "weighted-mean": "weightedmean", "cls": "cls", "last": "lasttoken"}  # by option
_CHARACTERS = 8  # of a text that are tokenised for each token that is read
_SPARE = 64  # tokens that must follow those that are read where a text was cut before it was tokenised


class Embedder(Feeder):
    """Embed with one model. Raises UserError for a model that cannot be used, and for options that do not suit it.

    maker: what makes the vectors, every option resolved. width: of a vector.
    """

    flag: ClassVar[str] = "--max-tokens"

    def __init__(self, options: EmbedderOptions) -> None:
        modules = sentence.read(options.model)
        source = options.model if modules is None else modules.source
        model = load(source, options.precision, encoders=True)
        super().__init__(model, batch_tokens=options.batch_tokens or _BATCH[model.device])
        if modules is not None and modules.lower_case:
            _lower_case(model.card)
        pooling, self._modes = _pooling(options.pooling, modules, model.card)
        self._prompt, self._steps = ("", ()) if modules is None else (modules.prompt, modules.steps)
        self._before, self._after = _special(self)
        self._nothing = self.tokenise([self._prompt])[0] if self._prompt else []
        self.maker = Maker(
            options.model,
            _digest(model.card, modules),
            pooling,
            _layer(options.layer, model),
            _max_tokens(options.max_tokens, modules, model.card, len(self._before) + len(self._after)),
        )
        self.width = self._run(self._tokens(["a"])).shape[1]

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """float32 (n, width); a row of NaN for a text without tokens of its own.

        Raises UserError for vectors that are NaN or infinite.
        """
        tokens = self._tokens(texts)
        lengths = np.array([len(ids) for ids in tokens], np.int64)
        rows = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        lengths = lengths[rows]
        vectors = np.full((len(texts), self.width), np.nan, np.float32)
        first = 0
        while first < len(rows):
            batch = rows[first : cut(lengths, first, self.batch_tokens)]
            made = self._run_if_it_fits([tokens[row] for row in batch])
            if made is None:
                self.shrink(int(lengths[first]), len(batch))
                continue
            vectors[batch] = made
            first += len(batch)
            within(lengths[:first].sum() / lengths.sum())
        return vectors

    def _tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Return each text's tokens, with the special ones; none for a text without tokens of its own."""
        room = self.maker.max_tokens - len(self._before) - len(self._after)
        whole = [self._prompt + text for text in texts]
        heads = [_head(text, room) for text in whole]
        made = self.tokenise(heads)
        short = [row for row, ids in enumerate(made) if len(ids) < room + _SPARE and len(heads[row]) < len(whole[row])]
        for row, ids in zip(short, self.tokenise([whole[row] for row in short]), strict=True):
            made[row] = ids
        tokens = [
            np.array([] if ids == self._nothing else self._before + ids[:room] + self._after, np.int64) for ids in made
        ]
        self.check(tokens)
        return tokens

    def _run_if_it_fits(self, batch: Sequence[Tokens]) -> Embeddings | None:
        """Return what `_run` does; None where the GPU's memory is too small, once the attempt has released its own."""
        try:
            return self._run(batch)
        except torch.cuda.OutOfMemoryError:
            return None

    @torch.inference_mode()
    def _run(self, batch: Sequence[Tokens]) -> Embeddings:
        """Return the vectors of rows of tokens, the longest first."""
        lengths = np.array([len(ids) for ids in batch], np.int64)
        padded = np.full((len(batch), lengths[0]), self.model.card.tokenizer.pad_token_id or 0, np.int64)
        for row, ids in enumerate(batch):
            padded[row, : len(ids)] = ids
        real = self.moved((np.arange(lengths[0]) < lengths[:, None]).astype(np.int64))
        needs_mask = self.model.card.encoder and lengths[-1] < lengths[0]
        states = self.model.hidden(self.moved(padded), real if needs_mask else None, self.maker.layer)
        vectors = torch.cat([_POOL[mode](states, real) for mode in self._modes], -1)
        for step in self._steps:
            vectors = step(vectors)
        made: Embeddings = vectors.cpu().numpy()
        if not np.isfinite(made).all():
            raise UserError(f"model {self.maker.model}: gives vectors that are NaN or infinite; try --precision fp32")
        return made


def _first(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return states[:, 0].float()


def _last(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(states), device=states.device)
    return states[rows, real.sum(1) - 1].float()


def _highest(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return states.float().masked_fill(real[:, :, None] == 0, -torch.inf).amax(1)


def _mean(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return _sum(states, real / real.sum(1, keepdim=True))


def _root_mean(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    return _sum(states, real / real.sum(1, keepdim=True).sqrt())


def _weighted_mean(states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    weights = real.cumsum(1) * real
    return _sum(states, weights / weights.sum(1, keepdim=True))


def _sum(states: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum of each row's states, in float32."""
    return torch.bmm(weights.float()[:, None], states.float())[:, 0]


_POOL: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "max": _highest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _root_mean,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


def _head(text: str, tokens: int) -> str:
    """Return the beginning of a long text, to the end of a word; it nearly always has more than so many tokens."""
    end = (tokens + _SPARE) * _CHARACTERS
    space = text.rfind(" ", 0, end) if len(text) > end else -1
    return text if space < 0 else text[:space].rstrip()


def _special(feeder: Feeder) -> tuple[list[int], list[int]]:
    """Return the tokens that the tokenizer adds before and after those of a text."""
    (plain,), (whole,) = feeder.tokenise(["a"]), feeder.tokenise(["a"], LONGEST)
    for begin in range(len(whole) - len(plain) + 1):
        if whole[begin : begin + len(plain)] == plain:
            return whole[:begin], whole[begin + len(plain) :]
    raise UserError(
        f"model {feeder.model.card.name}: its tokenizer does more than add special tokens; give another one"
    )


def _lower_case(card: Card) -> None:
    """Make the tokenizer lower-case first, as sentence-transformers does."""
    from tokenizers import normalizers

    backend = card.tokenizer.backend_tokenizer
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def _pooling(wanted: str, modules: sentence.Modules | None, card: Card) -> tuple[str, tuple[str, ...]]:
    """Return the option that stands for what is done, and the modes; auto where only the model's modules say it."""
    if wanted == "auto" and modules is not None:
        option = next((name for name, mode in _MODES.items() if modules.pooling == (mode,)), "auto")
        return option, modules.pooling
    if wanted == "auto":
        wanted = "mean" if card.encoder else "weighted-mean"
    return wanted, (_MODES[wanted],)


def _layer(wanted: int, model: Model) -> int:
    name, count = model.card.name, model.card.layers
    layer = wanted if wanted > 0 else count + 1 + wanted
    if not 1 <= layer <= count:
        raise UserError(f"layer {wanted}: model {name} has {count} layers; give 1 to {count}, or -1")
    if layer < count and not model.blocks:
        raise UserError(f"layer {wanted}: the layers of model {name} cannot be told apart; leave it at -1")
    return layer


def _max_tokens(wanted: int, modules: sentence.Modules | None, card: Card, special: int) -> int:
    limit = card.windows(0, 0)[0]
    stated = limit if modules is None or modules.max_tokens is None else min(modules.max_tokens, limit)
    if card.limit is not None and wanted > card.limit:
        raise UserError(f"max_tokens {wanted}: model {card.name} takes {card.limit} tokens; give {card.limit} or fewer")
    if (found := wanted or stated) <= special:
        raise UserError(f"max_tokens {found}: no room beside {special} special tokens; give {special + 1} or more")
    return found


def _digest(card: Card, modules: sentence.Modules | None) -> str:
    return (card.digest if modules is None else xxhash.xxh3_128(card.digest + modules.digest).digest()).hex()
