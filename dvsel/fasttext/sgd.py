"""fastText's supervised training in one thread, the same bytes for the same documents and seed.

The algorithm is that of fastText 0.9.3 (src/fasttext.cc, model.cc, loss.cc) for softmax over two labels. Vectors of
features start uniform in -1/dim..1/dim, those of labels at 0. A document's hidden vector h is the mean of the
vectors x_1..x_n of its features; with p the softmax of the labels' vectors times h, a the learning rate and y the
one-hot label, one step is

    x_i += 1/n * sum over labels k of a (y_k - p_k) w_k        w_k += a (y_k - p_k) h

The learning rate falls from the option's value to 0 in proportion to the tokens seen.

The two labels' vectors are each other's negative from the start on, since their steps are; so one, w, is kept, and
the softmax is the logistic function of 2 w.h.

Where it differs from the library: one thread and not many that race; each vector is initialised; documents are
shuffled each epoch by a hash of their texts; the rate falls with every document.

All arithmetic is additions, multiplications and divisions of IEEE 754 in a stated order, sums over a vector's
elements in float64 one after the other: no machine's own exponential, no fused or reordered sums. So the bytes do not
depend on the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.documents.hashing import uniform
from dvsel.errors import UserError
from dvsel.fasttext.examples import LABELS, Examples, Training
from dvsel.fasttext.model import FastTextModel
from dvsel.fasttext.vocabulary import FeatureNumbers, feature_numbers, read, vocabulary
from dvsel.kernels.jit import kernel
from dvsel.kernels.simd import prefetch
from dvsel.progress import show

_BLOCK = 1 << 20  # elements
_FEATURES_BETWEEN_SHOWS = 1 << 22  # some tenths of a second
_AHEAD = 8  # features
_LINE = 16  # float32 numbers in a line of the cache

Array = npt.NDArray[Any]
Int = Any  # int64 once compiled; mypy cannot type it


def train(examples: Examples, training: Training) -> FastTextModel:
    """Train on these documents.

    Raises UserError where no word occurs `min_count` times.
    """
    corpus = read(examples.text, examples.rows)
    words, ids = vocabulary(corpus, training.min_count)
    if not len(words):
        raise UserError(f"min_count {training.min_count}: no word occurs so often; lower it")
    buckets = training.used_buckets
    found = feature_numbers(corpus, ids, training.word_ngrams, (training.min_chars, training.max_chars), buckets)
    tokens = np.diff(corpus.ends)
    del corpus
    vectors = first_vectors(len(words) + buckets, training.dim, training.training_seed)
    label = np.zeros(training.dim, np.float32)
    for epoch in range(training.epochs):
        order = examples.order(training.training_seed, epoch)
        rates = learning_rates(tokens[order], epoch, training)
        _descend(found, order, examples, rates, vectors, label, (epoch, training.epochs))
    return FastTextModel(
        words=words,
        labels=LABELS,
        input=vectors,
        output=np.stack([label, -label]),
        loss="softmax",
        word_ngrams=training.word_ngrams,
        buckets=buckets,
        min_chars=training.min_chars,
        max_chars=training.max_chars,
    )


def first_vectors(rows: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Draw vectors uniform in -1/dim..1/dim, none of them 0, float32 (rows, dim)."""
    vectors = np.empty((rows, dim), np.float32)
    flat = vectors.reshape(-1)
    for first in range(0, len(flat), _BLOCK):
        last = min(first + _BLOCK, len(flat))
        flat[first:last] = (2 * uniform(np.arange(first, last, dtype=np.uint64), seed) - 1) / dim
    return vectors


def learning_rates(tokens: npt.NDArray[np.int64], epoch: int, training: Training) -> npt.NDArray[np.float64]:
    """Return the learning rate for each document of an epoch, float64 (n,).

    tokens: int64 (n,), of the documents in the order in which they are seen.
    """
    seen = np.cumsum(tokens) - tokens
    rates: npt.NDArray[np.float64] = 1 - (epoch + seen / tokens.sum()) / training.epochs
    return training.learning_rate * rates


def _descend(
    found: FeatureNumbers,
    order: Array,
    examples: Examples,
    rates: Array,
    vectors: Array,
    label: Array,
    part: tuple[int, int],
) -> None:
    """Take an epoch's steps. part: the epoch's number, and how many there are."""
    epoch, epochs = part
    sizes = np.diff(examples.text.offsets)[examples.rows][order]
    bytes_seen, total = np.cumsum(sizes), int(sizes.sum())
    done = np.cumsum(np.diff(found.ends)[order])
    stops = np.searchsorted(done, np.arange(_FEATURES_BETWEEN_SHOWS, done[-1], _FEATURES_BETWEEN_SHOWS))
    begin = 0
    for stop in [*stops.tolist(), len(order)]:
        if stop > begin:
            _steps(found.ids, found.ends, order[begin:stop], examples.positive, rates[begin:stop], vectors, label)
            show("training", epoch * total + int(bytes_seen[stop - 1]), epochs * total)
        begin = stop


@kernel
def _logistic(x: float) -> float:
    """Return 1 / (1 + exp(-x)), within 1e-11 of its size, by additions, multiplications and divisions."""
    # exp(-size) as the 1024th power of exp(-size / 1024), by eight terms of its series and ten squarings. `math.exp`
    # differs in the last bit from one C library to the next, and so would the model.
    size = min(abs(x), 60.0)
    step = -size / 1024
    power = 1.0
    for i in range(8, 0, -1):
        power = 1.0 + step / i * power
    for _ in range(10):
        power *= power
    return 1 / (1 + power) if x >= 0 else power / (1 + power)


@kernel
def _mean(ids: Array, begin: Int, end: Int, vectors: Array, mean: Array) -> None:
    flat = vectors.ravel()
    dim = len(mean)
    for j in range(dim):
        mean[j] = np.float32(0)
    for at in range(begin, end):
        if at + _AHEAD < end:  # the table is larger than any cache, and read at random
            first = np.int64(ids[at + _AHEAD]) * dim
            for j in range(0, dim, _LINE):
                prefetch(flat, first + j)
        vector = vectors[np.uint64(ids[at])]
        for j in range(dim):
            mean[j] += vector[j]
    share = np.float32(1) / np.float32(end - begin)
    for j in range(dim):
        mean[j] *= share


@kernel
def _steps(ids: Array, ends: Array, order: Array, positive: Array, rates: Array, vectors: Array, label: Array) -> None:
    """Take a step for each document of `order`.

    label: float32 (dim,), the vector of the positive label, moved on. vectors: float32 (features, dim), moved on.
    """
    dim = len(label)
    hidden = np.empty(dim, np.float32)
    change = np.empty(dim, np.float32)
    for i in range(len(order)):
        begin, end = ends[order[i]], ends[order[i] + 1]
        if begin == end:
            continue
        _mean(ids, begin, end, vectors, hidden)
        product = 0.0
        for j in range(dim):
            product += np.float64(label[j]) * np.float64(hidden[j])
        target = 1.0 if positive[order[i]] else 0.0
        pull = np.float32(rates[i] * (target - _logistic(2 * product)))
        share = np.float32(2) * pull / np.float32(end - begin)
        for j in range(dim):
            change[j] = share * label[j]
            label[j] += pull * hidden[j]
        for at in range(begin, end):
            vector = vectors[np.uint64(ids[at])]
            for j in range(dim):
                vector[j] += change[j]
