"""The kernels against the definition in `spec`, on any text, and on the corners that they could trip over."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Column
from dvsel.ngrams.kernels import PIECE
from dvsel.ngrams.lookup import count, score
from dvsel.ngrams.spec import WORDS, NgramSpec, buckets_of, words_of

BUCKETS = 997
SPECS = [NgramSpec(n, BUCKETS, words, lower) for n in (1, 2, 8) for words in WORDS for lower in (True, False)]

# Characters at which classes, lengths and cases change, and plain ones to come between.
TRICKY = st.text(
    st.sampled_from("aZ_09 .,\t\n\0\x1c\x7f\x85\u00a0éÉßİıΣσςȺⱥK\u2028\u3000中\ud7ff\ue000🙂𐐀\u0301\u200d")
)
SPEC = st.builds(NgramSpec, st.integers(1, 8), st.just(BUCKETS), st.sampled_from(WORDS), st.booleans())


def check(texts: list[bytes], spec: NgramSpec) -> None:
    column = Column.of(texts)
    table = np.random.default_rng(0).normal(size=(2, spec.buckets)).astype(np.float32)
    decoded = [text.decode("utf-8", "surrogateescape") for text in texts]
    expected = [np.array(buckets_of(text, spec), np.int64) for text in decoded]
    counts = count(column, spec).buckets
    scores = score(column, table, spec)
    assert np.array_equal(counts, np.bincount(np.concatenate(expected), minlength=spec.buckets))
    assert scores.words.tolist() == [len(words_of(text, spec)) for text in decoded]
    assert scores.ngrams.tolist() == [len(buckets) for buckets in expected]
    for sums, buckets in zip(scores.sums, expected, strict=True):
        np.testing.assert_allclose(sums, table[:, buckets].sum(axis=1, dtype=np.float64), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=120)
@given(st.lists(st.one_of(TRICKY, st.text()), min_size=1, max_size=4), SPEC)
def test_any_text(texts: list[str], spec: NgramSpec) -> None:
    check([text.encode() for text in texts], spec)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), SPEC)
def test_any_bytes(texts: list[bytes], spec: NgramSpec) -> None:
    check(texts, spec)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            sorted(
                {
                    b"\xc3",
                    b"\xa9",
                    b"\xe2\x80",
                    b"\x99",
                    b"\xf0\x9f\x99",
                    b"\x82",
                    b"a ",
                    b"\xed\xa0\x80",
                    b"\xf4\x90\x80\x80",
                    b"\xe0\x80\x80",
                    b"B" * 61,
                }
            )
        ),
        max_size=40,
    ),
    SPEC,
)
def test_cut_and_forbidden_sequences(parts: list[bytes], spec: NgramSpec) -> None:
    check([b"".join(parts), b"".join(parts[::-1])], spec)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_corners(spec: NgramSpec) -> None:
    check([b"", b" ", b"a", b".", b"\0", b"a\0b", b"\n\n\n", b"word", b"two words", "Ⱥ".encode() * 9], spec)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_words_that_cross_pieces(spec: NgramSpec) -> None:
    around = [b"ab " * (PIECE // 3) + b"c" * size + b" d" for size in (1, 16, 17, 40)]
    long = [b"x" * size for size in (PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7)]
    many = [
        b"a." * (PIECE // 2 + 9),
        "Ⱥ".encode() * PIECE,
        "é ".encode() * (PIECE // 2),
        b"A" * PIECE + "é".encode() * 40,
    ]
    check(around + long + many, spec)


def test_random_words_of_every_length_at_every_place() -> None:
    draw = random.Random(0)
    alphabet = "abcXYZ019_ .,;- éßΩ中"
    texts = ["".join(draw.choices(alphabet, k=draw.randrange(3 * PIECE))).encode() for _ in range(20)]
    check(texts, NgramSpec(3, BUCKETS))


def test_every_code_point() -> None:
    points = [c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    runs = ["".join(map(chr, points[first : first + 16])) for first in range(0, len(points), 16)]
    check([" ".join(runs).encode()], NgramSpec(1, BUCKETS))


def test_one_word_of_4_megabytes_and_a_document_of_many() -> None:
    check([b"x" * 4_000_000, b"So it goes. " * 20_000], NgramSpec(2, BUCKETS))


@pytest.mark.parametrize("source", ["xquad", "udhr", "tldr_multi", "masakhanews", "product_reviews"])
def test_real_text_of_many_scripts(shared_data: Path, source: str) -> None:
    with zstandard.open(shared_data / "pool" / f"{source}.jsonl.zst") as file:
        texts = [json.loads(line)["text"].encode() for line in io.TextIOWrapper(file, "utf-8")][::20]
    check(texts, NgramSpec(2, 10_000))


def test_rows_do_not_depend_on_their_batch() -> None:
    draw = random.Random(1)
    texts = ["".join(draw.choices("ab .é", k=draw.randrange(2 * PIECE))).encode() for _ in range(20)]
    table = np.random.default_rng(1).normal(size=(1, 10_000)).astype(np.float32)
    together = score(Column.of(texts), table, NgramSpec()).sums
    alone = [score(Column.of([text]), table, NgramSpec()).sums[0] for text in texts]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("buckets", [1, 2, 3_000_017])
def test_any_number_of_buckets(buckets: int) -> None:
    check([b"the quick brown fox", b""], NgramSpec(3, buckets))


def test_no_rows() -> None:
    scores = score(Column.of([]), np.zeros((3, 10), np.float32), NgramSpec(2, 10))
    assert scores.sums.shape == (0, 3) and len(scores.words) == len(scores.ngrams) == 0
