"""Kernels of n-grams and of fastText, with random options and texts, between guarded pages: FOLDER SEED COUNT.

What they find is compared with the plain definitions: `dvsel.ngrams.spec`, and `fasttext_definition`.
"""

from __future__ import annotations

import random
from typing import Any

import fuzz_cases
import numpy as np

from dvsel.documents.columns import PAD, Column
from dvsel.fasttext.folded import Folded, fold
from dvsel.fasttext.kernels.documents import add_documents
from dvsel.fasttext.kernels.layout import Scratch
from dvsel.fasttext.text import prepare
from dvsel.ngrams.lookup import count, score
from dvsel.ngrams.spec import NgramSpec, buckets_of
from fasttext_definition import END, WORDS, Shape, expected, made
from guarded import guarded

Array = np.ndarray[Any, Any]

PIECES = [*WORDS, b"x" * 8, b"y" * 17, b"</s", b"__label__x", b"__label", "İΣσς".encode(), "\u2028\u3000".encode(),
          b"\xe4\xb8", b"\xc3", b"\xff", b"\x80", b"A.b-C", "É中🙂".encode(), b"w" * 64, b"z" * 300]  # fmt: skip
SPACES = [b" ", b"\n", b"\t", b"\0", b"\r\n", b"  ", b"", b"\x1c", b"\xc2\xa0", b"\xc2\x85"]


def text_of(draw: random.Random) -> bytes:
    size = draw.choice([0, 1, 3, 10, 30, 100]) if draw.random() < 0.97 else draw.choice([511, 512, 513, 1500, 4100])
    if draw.random() < 0.1:
        return draw.randbytes(size)
    some = draw.sample(PIECES, draw.randrange(1, len(PIECES)))
    text = b"".join(draw.choice(some) + draw.choice(SPACES) for _ in range(size))
    return text[draw.randrange(3) :] if draw.random() < 0.2 else text


def column_of(draw: random.Random) -> Column:
    """Some texts, with nothing but the spare bytes after them, and odd ones at that."""
    column = Column.of([text_of(draw) for _ in range(draw.choice([0, 1, 1, 2, 3, 20]))])
    data = np.concatenate([column.data[: column.offsets[-1]], np.frombuffer(draw.randbytes(PAD), np.uint8)])
    return Column(guarded(data), guarded(column.offsets), column.kind)


def ngrams(draw: random.Random) -> str:
    words = draw.choice(["wordpunct", "whitespace"])
    spec = NgramSpec(draw.randint(1, 8), draw.choice([1, 2, 50, 10_000]), words, draw.random() < 0.5)
    column, groups = column_of(draw), draw.choice([1, 1, 3])
    table = np.random.default_rng(draw.randrange(100)).integers(-999, 999, (groups, spec.buckets)).astype(np.float32)
    found = [buckets_of(column[row].decode("utf-8", "surrogateescape"), spec) for row in range(len(column))]
    counts = np.bincount([one for row in found for one in row], minlength=spec.buckets)
    assert np.array_equal(count(column, spec).buckets, counts)
    sums = score(column, guarded(table, draw.random() < 0.5), spec)
    assert np.array_equal(sums.sums, [table[:, row].sum(1, dtype=np.float64) for row in found] or np.zeros((0, groups)))
    assert sums.ngrams.tolist() == [len(row) for row in found]
    return "n-grams"


def fasttext(draw: random.Random) -> str:
    shape = Shape(draw.randint(-1, 7), draw.choice([1, 7, 99, 1009]), draw.randint(0, 5), draw.randint(0, 6))
    words = draw.sample(WORDS, draw.randrange(len(WORDS) + 1))
    if draw.random() < 0.2:
        words = list(dict.fromkeys([*words, *(b"%x" % draw.randrange(10**6) for _ in range(draw.randrange(400)))]))
    model = made(shape, draw.choice([1, 1, 2, 3]), words)
    directions = np.eye(model.input.shape[1], dtype=np.float32)
    column = prepare(column_of(draw), draw.choice(["space", "dclm", "datatrove"]))
    at_end = draw.random() < 0.5
    arrays = {name: guarded(array, at_end) for name, array in fold(model, directions).items()}
    tables = Folded(arrays).tables
    scratch = Scratch(*(guarded(array, at_end) for array in Scratch.empty(tables.word_ngrams)))
    sums, features = np.zeros((len(column), tables.columns)), np.zeros(len(column), np.int64)
    sums, features = guarded(sums, at_end), guarded(features, at_end)
    data = guarded(column.data[: column.offsets[-1] + PAD])
    add_documents(data, guarded(column.offsets), tables, scratch, sums, features)
    with np.errstate(invalid="ignore"):
        found = sums / features[:, None]
    texts = [column[row] for row in range(len(column))]
    assert np.array_equal(found, expected(texts, model, directions), equal_nan=True)
    return "fastText"


def case(draw: random.Random) -> str:
    return (ngrams if draw.random() < 0.5 else fasttext)(draw)


if __name__ == "__main__":
    assert END in WORDS
    for number in range(8):  # compile before the limit
        case(random.Random(number))
    fuzz_cases.run(case)
