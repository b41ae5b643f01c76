"""The n-grams of a text, spelled out in plain Python. The kernels compute exactly this, faster.

1. Lower-case the text with `str.lower`, unless told not to.
2. Cut it into words. `wordpunct`: runs of word characters, and runs of characters that are neither that nor
   white space, as Python's `re` sees them: the `WordPunctTokenizer` of NLTK up to 3.9. (NLTK 3.10 took another
   engine, to which combining marks, such as the vowel signs of Hindi, are word characters and "²" is not one.)
   `whitespace`: `str.split`.
3. Hash each word's UTF-8 bytes to 64 bits (`hash_word`), and the words of each run of 1 to n words to one
   hash (`hash_ngram`).
4. The top 32 bits of a hash, scaled, are its bucket.

Bytes that are not UTF-8 are punctuation characters of one byte each (Python's `surrogateescape`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dvsel.options import Options, option

MAX_NGRAMS = 8
MAX_BUCKETS = 2**31 - 1
WORDS = ("wordpunct", "whitespace")

MULTIPLIER = 0x9E3779B97F4A7C15
LENGTH = 0xD6E8FEB86659FD93
SEED = 0x243F6A8885A308D3
TURN = 29
STRIDE = 16

_BITS = 2**64 - 1
_WORDPUNCT = re.compile(r"\w+|[^\w\s]+")


@dataclass(frozen=True)
class NgramSpec(Options):
    """The n-grams of a text, and how many buckets they are hashed into. Raises UserError for what is out of range."""

    ngrams: int = option(2, "longest n-gram in words; shorter ones are taken too", minimum=1, maximum=MAX_NGRAMS)
    buckets: int = option(10_000, "buckets that n-grams are hashed into", minimum=1, maximum=MAX_BUCKETS)
    words: str = option("wordpunct", "what a word is: wordpunct as NLTK's, or split at whitespace", choices=WORDS)
    lower: bool = option(True, "lower-case the text first")


def words_of(text: str, spec: NgramSpec) -> list[str]:
    """Return the words of a text, in order."""
    if spec.lower:
        text = text.lower()
    return text.split() if spec.words == "whitespace" else _WORDPUNCT.findall(text)


def buckets_of(text: str, spec: NgramSpec) -> list[int]:
    """Return the bucket of each n-gram of a text: all single words in order, then all pairs, and so on."""
    words = words_of(text, spec)
    return [bucket_of(ngram, spec.buckets) for ngram in _runs(words, spec.ngrams)]


def bucket_of(ngram: Sequence[str], buckets: int) -> int:
    """Return the bucket of one n-gram, given as its words."""
    return (hash_ngram(ngram) >> 32) * buckets >> 32


def hash_ngram(words: Sequence[str]) -> int:
    """Hash a run of words, in order, to 64 bits; the hash of one word alone is that word's."""
    state = hash_word(words[0])
    for word in words[1:]:
        state = _absorb(_turn(state), hash_word(word))
    return state


def hash_word(word: str) -> int:
    """Hash a word to 64 bits: its UTF-8 bytes, with zeros up to whole blocks of 16, in little-endian halves.

    The last half takes in the number of bytes as well, so that zeros at the end count.
    """
    data = word.encode("utf-8", "surrogateescape")
    blocks = data.ljust(-(-len(data) // STRIDE) * STRIDE, b"\0")
    halves = [int.from_bytes(blocks[at : at + 8], "little") for at in range(0, len(blocks), 8)]
    halves[-1] ^= len(data) * LENGTH & _BITS
    state = SEED
    for half in halves:
        state = _absorb(state, half)
    return state


def _absorb(state: int, value: int) -> int:
    state = (state ^ value) * MULTIPLIER & _BITS
    return state ^ state >> 32


def _turn(state: int) -> int:
    return (state << TURN | state >> 64 - TURN) & _BITS


def _runs(words: Sequence[str], longest: int) -> Iterator[Sequence[str]]:
    for length in range(1, longest + 1):
        for first in range(len(words) - length + 1):
            yield words[first : first + length]
