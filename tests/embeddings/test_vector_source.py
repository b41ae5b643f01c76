"""Vectors come from the pool, or from the texts; never from both in two ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dvsel.documents.columns import Batch
from dvsel.documents.vectors import Maker, Vectors
from dvsel.embeddings import EmbedderOptions, vector_source
from dvsel.embeddings.vector_source import VectorSource
from dvsel.errors import UserError

MAKER = Maker("models/small", "ab12", "mean", 6, 256)
VALUES = np.array([[1, 2], [3, 4.5], [np.nan, np.nan]])


class Lengths:
    """Embeds a text as its length, twice."""

    def __init__(self, options: EmbedderOptions) -> None:
        resolved: dict[str, Any] = {"pooling": "mean", "layer": 6, "max_tokens": options.max_tokens or 256}
        self.maker = dataclasses.replace(MAKER, model=options.model, **resolved)

    def embed(self, texts: Sequence[str]) -> Any:
        return np.array([[len(text)] * 2 for text in texts], np.float32)


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[EmbedderOptions]:
    """The options of embedders that are asked for, which are `Lengths`."""
    asked: list[EmbedderOptions] = []
    monkeypatch.setattr(vector_source, "embedder_of", lambda options: asked.append(options) or Lengths(options))  # type: ignore[func-returns-value]
    return asked


def embedded(dtype: Any = np.float16, maker: Maker = MAKER) -> Batch:
    return dataclasses.replace(Batch.of(["a", "b", "c"]), vectors=Vectors(VALUES.astype(dtype), maker))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_pool_of_embeddings_needs_no_model(dtype: Any, loaded: list[EmbedderOptions]) -> None:
    vectors = VectorSource(EmbedderOptions())
    found = vectors.of(embedded(dtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUES)
    assert (vectors.maker, loaded) == (MAKER, [])


def test_a_pool_of_text_is_embedded(loaded: list[EmbedderOptions]) -> None:
    vectors = VectorSource(EmbedderOptions(model="models/small", max_tokens=100))
    np.testing.assert_array_equal(vectors.of(Batch.of(["a", "four"])), [[1, 1], [4, 4]])
    assert vectors.maker == dataclasses.replace(MAKER, max_tokens=100)
    assert loaded == [EmbedderOptions(model="models/small", max_tokens=100)]


def test_a_target_of_text_is_embedded_as_the_pool_was(loaded: list[EmbedderOptions]) -> None:
    vectors = VectorSource(EmbedderOptions(batch_tokens=7, precision="bf16"))
    vectors.of(embedded())
    np.testing.assert_array_equal(vectors.of(Batch.of(["four"])), [[4, 4]])
    (options,) = loaded
    assert options == EmbedderOptions("models/small", "mean", 6, 256, 7, "bf16")
    assert vectors.options(EmbedderOptions()) == EmbedderOptions("models/small", "mean", 6, 256)


@pytest.mark.parametrize(("count", "rows"), [(None, 5), (4, 4), (1, 1)])
def test_the_first_documents_of_all_batches(count: int | None, rows: int) -> None:
    vectors = VectorSource(EmbedderOptions(model="models/small"))
    found = vectors.all_of([Batch.of(["a", "bb"]), Batch.of(["ccc", "dddd", "eeeee"])], count)
    np.testing.assert_array_equal(found, [[length] * 2 for length in range(1, rows + 1)])


def test_texts_without_a_model() -> None:
    with pytest.raises(UserError, match="no model to embed texts with; name one with --model"):
        VectorSource(EmbedderOptions()).of(Batch.of(["a"]))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"digest": "cd34"}, "the model's files differ"), ({"layer": 2}, "layer 6 and 2"), ({"pooling": "cls"}, "mean")],
)
def test_vectors_that_were_made_in_another_way(changes: dict[str, Any], complaint: str) -> None:
    other = embedded(maker=dataclasses.replace(MAKER, **changes))
    with pytest.raises(UserError, match=complaint):
        VectorSource(EmbedderOptions(), MAKER).of(other)
    with pytest.raises(UserError, match=complaint):
        VectorSource(EmbedderOptions(model="models/small")).of(other)


@pytest.mark.parametrize("batch", [embedded(), Batch.of(["a text"])])
def test_vectors_of_another_width_than_the_fits(batch: Batch) -> None:
    with pytest.raises(UserError, match="vectors of 2 numbers, those of the fit 3; fit again"):
        VectorSource(EmbedderOptions(), MAKER, width=3).of(batch)


def test_the_same_model_in_another_folder_is_the_same() -> None:
    moved = embedded(maker=dataclasses.replace(MAKER, model="elsewhere"))
    np.testing.assert_array_equal(VectorSource(EmbedderOptions(), MAKER).of(moved), VALUES)
