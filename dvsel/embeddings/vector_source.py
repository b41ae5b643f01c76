"""Sources of a scorer's vectors: the pool's own embeddings, or an embedder that reads the texts."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Batch
from dvsel.documents.vectors import Maker, Options, Vectors
from dvsel.embeddings import EmbedderOptions
from dvsel.errors import UserError
from dvsel.language import models, strings
from dvsel.options import among

if TYPE_CHECKING:
    from dvsel.embeddings.encoder import Embedder


class VectorSource:
    """Gives each batch its vectors, all made alike.

    options: the embedder's; without a model the first batch with vectors says what made them, and that model embeds
    the texts of batches without. maker: what a fit's vectors were made by, where there is one; width: how many numbers
    each of them has.
    """

    def __init__(self, options: EmbedderOptions, maker: Maker | None = None, width: int | None = None) -> None:
        self._options = options
        self.maker = maker
        self._width = width

    def of(self, batch: Batch) -> npt.NDArray[np.float32]:
        """float32 (n, width); a row of NaN for a document without a vector.

        Raises UserError where the vectors were not made alike, or there is nothing to make them with.
        """
        found = self._embedded(batch) if batch.vectors is None else self._given(batch.vectors)
        if self._width not in (None, found.shape[1]):
            raise UserError(
                f"these documents have vectors of {found.shape[1]} numbers, those of the fit {self._width}; fit again"
            )
        return found

    def _given(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        if self.maker is None:
            self.maker = self._maker_for(vectors.maker)
        self.maker.check_same(vectors.maker, "those before", "these documents")
        return vectors.values.astype(np.float32)

    def all_of(self, batches: Iterable[Batch], count: int | None = None) -> npt.NDArray[np.float32]:
        """Return those of the first `count` documents of all batches, float32 (n, width), however they are batched."""
        return self.of(Batch.join(batches, count))

    def options(self, options: Options) -> Options:
        """The options with those of the maker, so that they make the same vectors again."""
        assert self.maker is not None
        return self.maker.chosen_in(options)

    def _maker_for(self, found: Maker) -> Maker:
        """Return the options' maker; the model is not loaded where they name what made the vectors that are there."""
        asked = bool(self._options.model) and found.chosen_in(self._options) != self._options
        return self._embedder().maker if asked else found

    def _embedded(self, batch: Batch) -> npt.NDArray[np.float32]:
        embedder = self._embedder()
        if self.maker is None:
            self.maker = embedder.maker
        self.maker.check_same(embedder.maker, "those before", "these documents")
        return embedder.embed(strings(batch.text))

    def _embedder(self) -> Embedder:
        options = self._options
        if self.maker is not None:
            options = self.options(EmbedderOptions(batch_tokens=options.batch_tokens, precision=options.precision))
        elif not options.model:
            raise UserError("no model to embed texts with; name one with --model, or give a pool of `dvsel embed`")
        return embedder_of(among(EmbedderOptions, options))


@functools.lru_cache(maxsize=1)
def embedder_of(options: EmbedderOptions) -> Embedder:
    """The embedder with these options, loaded once."""
    from dvsel.embeddings.encoder import Embedder

    return Embedder(options)


def forget_embedder() -> None:
    """Free what the one that is loaded holds of the memory, for other processes."""
    embedder_of.cache_clear()
    models.release()
