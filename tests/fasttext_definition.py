"""fastText's definition of a document's features, spelled out in plain Python, and models to try it on."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dvsel.documents.columns import Column
from dvsel.fasttext.model import MAGIC, FastTextModel

Array = np.ndarray[Any, Any]

END = b"</s>"
WORDS = [END, b"good", b"bad", b"a", b"<", b"__label__known", "naïve".encode(), "中文".encode(), b"\xff\x80", b"w" * 70]
BITS = 2**64 - 1


def tokens(text: bytes) -> list[bytes]:
    """The words up to the end of the document, with the newline that the library is given."""
    found = []
    for character in text.translate(bytes.maketrans(b"\r\t\v\f\0", b"     ")).replace(b"\n", b" </s> ").split(b" "):
        if character:
            found.append(character)
        if character == END:
            return found
    return [*found, END]


def fnv(data: bytes) -> int:
    state = 2166136261
    for byte in data:
        signed = byte if byte < 128 else byte | 0xFFFFFF00
        state = (state ^ signed) * 16777619 & 0xFFFFFFFF
    return state


def char_ngrams(word: bytes, model: FastTextModel) -> list[bytes]:
    characters: list[bytes] = []
    for byte in b"<" + word + b">":
        if byte & 0xC0 == 0x80:
            characters[-1] += bytes([byte])
        else:
            characters.append(bytes([byte]))
    last = len(characters)
    return [
        b"".join(characters[first : first + size])
        for first in range(last)
        for size in range(max(model.min_chars, 1), min(model.max_chars, last - first) + 1)
        if not (size == 1 and first in (0, last - 1))
    ]


def features(text: bytes, model: FastTextModel) -> list[int]:
    """The rows of the input that a text is the mean of."""
    ids = {model.words[row]: row for row in range(len(model.words))}
    found, hashes = [], []
    for word in tokens(text):
        if word not in ids and word.startswith(b"__label__"):
            continue
        found += [ids[word]] if word in ids else []
        if word != END:
            found += [len(ids) + fnv(ngram) % model.buckets for ngram in char_ngrams(word, model)]
        hashes.append(fnv(word) - (fnv(word) >> 31 << 32))
    for first in range(len(hashes)):
        state = hashes[first]
        for following in hashes[first + 1 : first + max(model.word_ngrams, 1)]:
            state = (state * 116049371 + following) & BITS
            found.append(len(ids) + state % model.buckets)
    return found


def expected(texts: Sequence[bytes], model: FastTextModel, directions: Array) -> Array:
    entries = np.asarray(model.input, np.float64) @ np.asarray(directions, np.float64).T
    empty = np.full(len(directions), np.nan)
    rows = [features(text, model) for text in texts]
    return np.array([entries[found].mean(axis=0) if found else empty for found in rows]).reshape(
        len(texts), len(directions)
    )


@dataclass(frozen=True)
class Shape:
    word_ngrams: int = 2
    buckets: int = 1009
    min_chars: int = 0
    max_chars: int = 0


SHAPES = [
    Shape(1, 0),
    Shape(1, 1, 2, 3),
    Shape(2, 2_000_000),
    Shape(3, 4096),
    Shape(5, 7, 2, 5),
    Shape(2, 100_003, 1, 1),
    Shape(2, 1009, 0, 6),
    Shape(1, 99, 5, 2),
    Shape(0, 99, 2, 4),
    Shape(-3, 99, 1, 2),
]


def made(shape: Shape, dim: int = 1, words: Sequence[bytes] = WORDS) -> FastTextModel:
    """A model with entries that are whole numbers, small enough for sums to be exact in float32."""
    rows = len(words) + shape.buckets
    numbers = np.random.default_rng(0).integers(-2000, 2000, (rows, dim)).astype(np.float32)
    return FastTextModel(
        words=Column.of(list(words)),
        labels=("a", "b"),
        input=numbers,
        output=np.ones((2, dim), np.float32),
        loss="softmax",
        **vars(shape),
    )


def file_of(model: FastTextModel) -> bytes:
    """The model's file, as fastText 0.9 writes it."""
    dim, words = model.input.shape[1], [model.words[row] for row in range(len(model.words))]
    loss = {"hs": 1, "ns": 2, "softmax": 3, "ova": 4}[model.loss]
    numbers = (5, 1, 1, 5, model.word_ngrams, loss, 3, model.buckets, model.min_chars, model.max_chars, 100)
    header = struct.pack("<3i11id", MAGIC, 12, dim, *numbers, 1e-4)
    header += struct.pack("<3i2q", len(words) + len(model.labels), len(words), len(model.labels), 100, -1)
    entries = [word + b"\0" + struct.pack("<qb", 9, 0) for word in words]
    entries += [f"__label__{label}\0".encode() + struct.pack("<qb", 9, 1) for label in model.labels]
    matrices = [struct.pack("<b2q", 0, *one.shape) + one.tobytes() for one in (model.input, model.output)]
    return header + b"".join(entries) + b"".join(matrices)
