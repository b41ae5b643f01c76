"""The definition itself: what it is measured against is NLTK, and chance."""

from __future__ import annotations

import pydoc_data.topics
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dvsel.errors import UserError
from dvsel.ngrams.spec import MAX_BUCKETS, NgramSpec, bucket_of, buckets_of, hash_ngram, hash_word, words_of

nltk_tokenize = pytest.importorskip("nltk.tokenize", reason="nltk is not installed")


def nltk_words(text: str) -> list[str]:
    return nltk_tokenize.WordPunctTokenizer().tokenize(text)  # type: ignore[no-any-return]


def same_class_in_nltk(character: str) -> bool:
    """NLTK from 3.10 on has another engine, which differs from `re` on marks and some numbers."""
    return nltk_words(f"a{character}a") == re.findall(r"\w+|[^\w\s]+", f"a{character}a")


@settings(deadline=None)
@given(st.text(st.characters().filter(lambda character: same_class_in_nltk(character.lower()))))
def test_words_are_those_of_nltk(text: str) -> None:
    assert words_of(text, NgramSpec()) == nltk_words(text.lower())


def test_whitespace_words_keep_their_punctuation_and_case() -> None:
    assert words_of("Don't  stop.\n", NgramSpec(words="whitespace", lower=False)) == ["Don't", "stop."]


def test_single_words_come_first_then_pairs() -> None:
    ngrams = [["a"], ["b"], ["c"], ["a", "b"], ["b", "c"]]
    assert buckets_of("a b c", NgramSpec(2, 1000)) == [bucket_of(ngram, 1000) for ngram in ngrams]


def test_hashes_tell_order_length_and_trailing_zeros_apart() -> None:
    ngrams = [("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), ("a", "a"), ("a", "b", "a"), ("a\0",), ("a" * 16,)]
    assert len({hash_ngram(ngram) for ngram in ngrams}) == len(ngrams)


def test_buckets_span_their_range() -> None:
    buckets = [bucket_of([str(number)], MAX_BUCKETS) for number in range(1000)]
    assert 0 <= min(buckets) < MAX_BUCKETS * 0.01 and MAX_BUCKETS * 0.99 < max(buckets) < MAX_BUCKETS
    assert {bucket_of([str(number)], 1) for number in range(100)} == {0}


@pytest.mark.parametrize("length", [1, 2])
def test_real_ngrams_fill_buckets_as_chance_would(length: int) -> None:
    words = words_of(" ".join(pydoc_data.topics.topics.values()), NgramSpec())
    distinct = set(zip(*(words[skip:] for skip in range(length)), strict=False))
    found = Counter(bucket_of(ngram, 10_000) for ngram in distinct)
    expected = len(distinct) / 10_000
    chi_square = sum((found[bucket] - expected) ** 2 / expected for bucket in range(10_000))
    assert abs(chi_square - 9_999) < 5 * (2 * 9_999) ** 0.5


def test_numbered_words_fill_buckets_as_chance_would() -> None:
    found = Counter(bucket_of([f"{number:06d}"], 1000) for number in range(100_000))
    chi_square = sum((found[bucket] - 100) ** 2 / 100 for bucket in range(1000))
    assert abs(chi_square - 999) < 5 * (2 * 999) ** 0.5


def test_hash_is_fixed_across_versions() -> None:
    assert hash_word("selection") == 0x265C50BE3F03102E
    assert hash_ngram(["data", "selection"]) == 0x6E72A1EDFC7E0507


@pytest.mark.parametrize(
    "options", [{"ngrams": 0}, {"ngrams": 9}, {"buckets": 0}, {"buckets": 2**31}, {"words": "characters"}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="give"):
        NgramSpec(**options)
