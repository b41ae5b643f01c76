"""Folded models against fastText's own definition, spelled out in plain Python, and against the library.

Where features have to be the same ones, entries are whole numbers, so that sums are exact.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column
from dvsel.errors import UserError
from dvsel.fasttext.folded import Folded, fold
from dvsel.fasttext.kernels.layout import PIECE, Scratch
from dvsel.fasttext.kernels.lookup import place_words
from dvsel.fasttext.model import FastTextModel, read_model
from dvsel.fasttext.tables import LONGEST_RUN
from fasttext_definition import END, SHAPES, WORDS, Shape, expected, made
from fasttext_models import ODD_TEXTS, outputs, real_texts, train

Array = np.ndarray[Any, Any]

# --- Any text and any options. ---


def check(texts: Sequence[bytes], model: FastTextModel) -> None:
    """All entries are whole numbers, so no rounding hides a feature too many or too few."""
    directions = np.eye(model.input.shape[1], dtype=np.float32)
    found = Folded(fold(model, directions)).sums(Column.of(list(texts)))
    assert np.array_equal(found, expected(texts, model, directions), equal_nan=True)


TOKENS = st.sampled_from(
    [*WORDS, b"unknown", b"__label__", b"__label__x", b"__label", b"</s", b"</s>x", b"\xe4\xb8", b"x" * 8, b"y" * 17]
)
SPACES = st.text(" \t\r\v\f\0", min_size=1, max_size=3).map(str.encode)
SOUP = st.lists(st.tuples(TOKENS, SPACES), max_size=30).map(lambda pairs: b"".join(a + b for a, b in pairs))
MODELS = {shape: made(shape) for shape in SHAPES}


@settings(deadline=None, max_examples=150)
@given(st.lists(SOUP | st.binary(max_size=150), max_size=4), st.sampled_from(SHAPES))
def test_any_bytes(texts: list[bytes], shape: Shape) -> None:
    check(texts, MODELS[shape])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_odd_texts(shape: Shape) -> None:
    check([*ODD_TEXTS, b"\n", b"good\nbad", b"\ngood", b"good\r\nbad", b"a" * 64, b"a" * 63 + b" "], MODELS[shape])


@pytest.mark.parametrize("shape", [Shape(2), Shape(5, 1009, 2, 4), Shape(0, 1009, 2, 4)], ids=str)
def test_words_and_ngrams_that_cross_pieces(shape: Shape) -> None:
    around = [b"a " * (PIECE - shift) + b"good " * 9 + b"w" * 70 + b" bad" for shift in range(7)]
    labels = [b"__label__x good " * PIECE, b"good __label__x " * PIECE, b"__label__x " * PIECE * 3]
    ends = [b"a " * (PIECE - 1) + b"</s> bad", b"a " * PIECE + b"\nbad", b" " * 10_000 + b"good", b"a " * 5000]
    long = [b"x" * size + b" good" for size in (4095, 4096, 4097, 30_000)]
    check([*around, *labels, *ends, *long], made(shape))


def test_random_words_of_every_length_at_every_place() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcé中🙂", k=draw.randrange(1, 20))).encode() for _ in range(300)]
    known = made(Shape(3, 1009, 3, 4), words=[END, *dict.fromkeys(words[:150])])
    check([b" ".join(draw.choices(words, k=draw.randrange(1500))) for _ in range(12)], known)


@pytest.mark.parametrize("shape", [Shape(1, 0), Shape(4, 1009, 2, 4)], ids=str)
def test_many_short_documents_in_a_piece(shape: Shape) -> None:
    draw = random.Random(1)
    some = [b"good", b"bad", b"what", b"__label__x", b"__label__known", b"</s>", b"\n", b"and longer words", b"\0"]
    check([b" ".join(draw.choices(some, k=draw.randrange(6))) for _ in range(3 * PIECE)], made(shape))


@pytest.mark.parametrize("columns", [1, 2, 3, 7])
def test_columns_fewer_and_more_than_dimensions(columns: int) -> None:
    model = made(Shape(2, 1009, 2, 3), dim=3)
    directions = np.random.default_rng(1).integers(-9, 9, (columns, 3)).astype(np.float32)
    arrays = fold(model, directions)
    assert arrays["ngrams"].shape == (1009, min(columns, 3))
    found = Folded(arrays).sums(Column.of(ODD_TEXTS))
    np.testing.assert_allclose(found, expected(ODD_TEXTS, model, directions), rtol=1e-12)


def test_without_end_in_the_vocabulary_an_empty_text_has_no_score() -> None:
    model = made(Shape(2, 1009, 2, 3), words=[b"good"])
    check([b"", b" ", b"good", b"x"], model)
    assert np.isnan(Folded(fold(model, np.ones((1, 1), np.float32))).sums(Column.of([b""]))).all()


def test_no_rows_and_no_words() -> None:
    folded = Folded(fold(made(Shape(), words=[]), np.ones((3, 1), np.float32)))
    assert folded.sums(Column.of([])).shape == (0, 3)
    check([b"good bad"], made(Shape(), words=[]))


@pytest.mark.parametrize("columns", [1, 3, 9])
def test_rows_do_not_depend_on_their_batch(columns: int) -> None:
    draw = np.random.default_rng(2)
    model = replace(made(Shape(2, 1009, 2, 3), dim=4), input=draw.normal(size=(1009 + len(WORDS), 4)).astype("f4"))
    folded = Folded(fold(model, draw.normal(size=(columns, 4)).astype(np.float32)))
    sizes = [0, 1, 5, 600, 2000, PIECE - 1, PIECE, PIECE + 1, *draw.integers(0, 60, 100)]
    texts = ODD_TEXTS + [b" ".join(draw.choice([b"good", b"bad", b"what"], size)) for size in sizes]
    together = folded.sums(Column.of(texts))
    assert np.array_equal(together, folded.sums(Column.of(texts[::-1]))[::-1])
    assert np.array_equal(together, np.concatenate([folded.sums(Column.of([text])) for text in texts]))


def test_a_repeated_word_keeps_its_precision() -> None:
    model = replace(made(Shape(1, 0)), input=np.full((len(WORDS), 1), 0.1, np.float32))
    sums = Folded(fold(model, np.ones((1, 1), np.float32))).sums(Column.of([b"good " * 100_000]))
    assert abs(sums[0, 0] - np.float64(np.float32(0.1))) < 1e-12


def test_unaligned_matrices_are_read() -> None:
    model = made(Shape())
    content = b"x" + model.input.tobytes()
    shifted = replace(model, input=np.frombuffer(content, np.uint8)[1:].view(np.float32).reshape(-1, 1))
    check(ODD_TEXTS, shifted)


def test_words_are_not_mistaken() -> None:
    known = [b"%06x" % number for number in range(100_000)]
    model = made(Shape(1, 0), words=known)
    folded = Folded(fold(model, np.ones((1, 1), np.float32)))
    others = [b"%06x" % number for number in range(100_000, 200_000)] + [b"%d-%d" % (n, n) for n in range(100_000)]
    assert np.isnan(folded.sums(Column.of(others))).all()
    found = folded.sums(Column.of(known))
    assert np.array_equal(found, model.input)


def test_a_word_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="twice"):
        fold(made(Shape(), words=[b"good", b"bad", b"good"]), np.ones((1, 1), np.float32))


def test_words_that_were_chosen_to_collide_are_refused() -> None:
    """Their keys begin alike for a seed, so that all searches would begin at one slot; they are not tried for long."""
    model = made(Shape(1, 0), words=[b"w%d" % number for number in range(3 * LONGEST_RUN)])
    arrays = fold(model, np.ones((1, 1), np.float32))
    arrays["words"][:] = 0
    tables = Folded(arrays).tables._replace(slots=np.uint64(len(arrays["words"])))
    full = tables._replace(slots=np.uint64(len(model.words) + 1))
    scratch, slots = Scratch.empty(1), np.zeros(len(model.words), np.int64)
    data, offsets = model.words.data, model.words.offsets
    assert place_words(data, offsets, tables, scratch, LONGEST_RUN, slots) == len(model.words)
    arrays["words"][:] = 0
    assert place_words(data, offsets, full, scratch, 3, slots) < len(model.words)


def test_two_million_words_and_buckets_stay_below_50_megabytes() -> None:
    words = [str(number).encode() for number in range(100_000)]
    arrays = fold(made(Shape(2, 100_000), words=words), np.ones((1, 1), np.float32))
    assert sum(array.nbytes for array in arrays.values()) * 20 < 35e6


# --- The library. ---


def samples(folder: Path) -> dict[str, list[str]]:
    """Pieces of real text of many kinds and scripts, by source."""
    texts = real_texts(folder / "pool", 6)
    return {source: [text[:3000] for text in some] for source, some in texts.items()}


@pytest.fixture(scope="module")
def sources(shared_data: Path) -> dict[str, list[str]]:
    return samples(shared_data)


OPTIONS: dict[str, dict[str, Any]] = {
    "bigrams": {"wordNgrams": 2, "bucket": 20_000},
    "words": {"wordNgrams": 1},
    "chars": {"wordNgrams": 3, "bucket": 5_003, "minn": 2, "maxn": 5, "minCount": 2},
    "ova": {"wordNgrams": 2, "bucket": 20_000, "loss": "ova"},
    "many": {"wordNgrams": 2, "bucket": 20_000, "dim": 30},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_as_the_library(name: str, sources: dict[str, list[str]], tmp_path: Path) -> None:
    names = list(sources) if name in ("ova", "many") else ["bbc_news", "udhr"]
    path = train(tmp_path / "model.bin", {name: sources[name] for name in names}, epoch=2, **OPTIONS[name])
    model = read_model(str(path))
    folded = Folded(fold(model, model.output))
    texts = ODD_TEXTS + [text.replace("\n", " ").encode() for some in sources.values() for text in some]
    found = folded.sums(Column.of(texts))
    theirs = outputs(path, texts)
    for at, label in enumerate(model.labels):
        np.testing.assert_allclose(found[:, at], theirs[label], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[:60], expected(texts[:60], model, model.output), rtol=0, atol=1e-5)
