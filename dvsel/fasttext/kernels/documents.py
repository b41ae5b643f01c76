"""Documents: through all passes, piece by piece, to the sums of their features' entries."""

from __future__ import annotations

import numpy as np

from dvsel.fasttext.kernels.layout import INT_0, INT_1, PIECE, Array, Int, Scratch, Tables, U
from dvsel.fasttext.kernels.lookup import find_words
from dvsel.fasttext.kernels.ngrams import add_char_ngrams, find_ngrams
from dvsel.fasttext.kernels.words import end_document, find_bounds, hash_words, is_label, load_words
from dvsel.kernels.jit import bare_kernel


@bare_kernel
def _add_entries(entries: Array, columns: Int, places: Array, first: Int, last: Int, sums: Array) -> None:
    """Add the entries at places[first:last], for each column in four sums that do not wait for each other."""
    whole = first + (max(last - first, 0) & ~3)
    for column in range(columns):
        sum0 = sum1 = sum2 = sum3 = 0.0
        for i in range(first, whole, 4):
            sum0 += entries[places[U(i)] + U(column)]
            sum1 += entries[places[U(i + 1)] + U(column)]
            sum2 += entries[places[U(i + 2)] + U(column)]
            sum3 += entries[places[U(i + 3)] + U(column)]
        for i in range(whole, last):
            sum0 += entries[places[U(i)] + U(column)]
        sums[column] += (sum0 + sum1) + (sum2 + sum3)


@bare_kernel
def _drop_labels(data: Array, documents: Int, known: Int, words: Int, n_unknown: Int, scratch: Scratch) -> Int:
    """Take labels, which do not count as words, out of hashes[known:known + words]; returns how many are left.

    They are found among the unknown words, which are left without them.
    """
    bounds, missed, labels = scratch.bounds, scratch.missed, scratch.open
    # A label is never in the vocabulary, so only unknown words need a look at their bytes.
    n_labels = INT_0
    for k in range(n_unknown):
        word = missed[k]
        if is_label(data, bounds[U(2 * word)], bounds[U(2 * word + 1)]):
            labels[U(n_labels)] = word
            n_labels += 1
    if n_labels > 0:
        _close_gaps(documents, known, words, n_labels, scratch)
    return words - n_labels


@bare_kernel
def _close_gaps(documents: Int, known: Int, words: Int, n_labels: Int, scratch: Scratch) -> None:
    """Take the first `n_labels` words of `open` out of the hashes, and move the documents' ends."""
    hashes, ends, labels = scratch.hashes, scratch.ends, scratch.open
    dropped = INT_0
    document = INT_0
    for i in range(words):
        if dropped < n_labels and labels[dropped] == i:
            dropped += 1
        else:
            hashes[known + i - dropped] = hashes[known + i]
        if document < documents and ends[document] == i + 1:
            ends[document] -= dropped
            document += 1


@bare_kernel
def _add_words(
    data: Array,
    row: Int,
    documents: Int,
    n_unknown: Int,
    tables: Tables,
    scratch: Scratch,
    sums: Array,
    features: Array,
) -> None:
    """Add the entries of the words, and of the character n-grams of unknown words, to their documents' sums."""
    first = INT_0
    unknown = INT_0
    for document in range(documents):
        last = scratch.ends[document]
        _add_entries(tables.words, tables.columns, scratch.places, first, last, sums[row + document])
        count = INT_0
        for i in range(first, last):
            count += scratch.weights[U(i)]
        while tables.max_chars > 0 and unknown < n_unknown and scratch.missed[unknown] < last:
            word = scratch.missed[unknown]
            start, end = scratch.bounds[2 * word], scratch.bounds[2 * word + 1]
            if end > start and not is_label(data, start, end):
                count += add_char_ngrams(tables, data, start, end, sums[row + document])
            unknown += 1
        features[row + document] += count
        first = last


@bare_kernel
def _add_ngrams(
    row: Int, documents: Int, known: Int, words: Int, tables: Tables, scratch: Scratch, sums: Array, features: Array
) -> None:
    """Add the entries of the n-grams that lie in one document to its sums, but those of `known` words alone."""
    for order in range(2, tables.word_ngrams + 1):
        find_ngrams(tables, order, known + words, scratch)
        first = max(known - order + 1, 0)
        for document in range(documents):
            end = known + scratch.ends[document]
            last = max(end - order + 1, first)
            _add_entries(tables.ngrams, tables.columns, scratch.places, first, last, sums[row + document])
            features[row + document] += last - first
            # The next document begins after this one's end: no n-gram crosses from one to the other.
            first = end


@bare_kernel
def _add_piece(
    data: Array,
    row: Int,
    documents: Int,
    known: Int,
    words: Int,
    n_open: Int,
    tables: Tables,
    scratch: Scratch,
    sums: Array,
    features: Array,
) -> Int:
    """Take the loaded words of some documents, the first of which is `row`, through all passes.

    known: how many hashes of its earlier words there are. Returns how many hashes there are with the new ones.
    """
    hash_words(data, words, n_open, tables.seed, scratch)
    # fastText keeps a word's hash as int32 and widens it with its sign: half of all hashes get 32 ones.
    for i in range(words):
        scratch.hashes[U(known + i)] = U(np.int64(np.int32(scratch.fnv[i])))
    n_unknown = find_words(tables, words, scratch)
    _add_words(data, row, documents, n_unknown, tables, scratch, sums, features)
    words = _drop_labels(data, documents, known, words, n_unknown, scratch)
    _add_ngrams(row, documents, known, words, tables, scratch, sums, features)
    return known + words


@bare_kernel
def _load_documents(data: Array, offsets: Array, row: Int, scratch: Scratch) -> tuple[Int, Int, Int]:
    """Load as many whole documents from `row` on as go into a piece: none, if the first is too long.

    Returns how many documents, words and open words they are.
    """
    documents = INT_0
    words = INT_0
    n_open = INT_0
    while row + documents < len(offsets) - 1 and words < PIECE:
        begin, stop = offsets[row + documents], offsets[row + documents + 1]
        at, stop, found = find_bounds(data, begin, stop, scratch.bounds, 2 * words)
        if at < stop:
            break
        n_open = load_words(data, words, found >> 1, n_open, scratch)
        words, n_open, _ = end_document(words, found >> 1, n_open, at >= stop, scratch)
        scratch.ends[documents] = words
        documents += 1
    return documents, words, n_open


@bare_kernel
def _add_long_document(
    data: Array, at: Int, stop: Int, row: Int, tables: Tables, scratch: Scratch, sums: Array, features: Array
) -> None:
    """Add up data[at:stop] piece by piece."""
    bounds, hashes = scratch.bounds, scratch.hashes
    known: Int = INT_0
    found: Int = INT_0
    ended = False
    while not ended:
        at, stop, found = find_bounds(data, at, stop, bounds, found)
        n_open = load_words(data, INT_0, found >> 1, INT_0, scratch)
        words, n_open, ended = end_document(INT_0, found >> 1, n_open, at >= stop, scratch)
        scratch.ends[0] = words
        open_start = bounds[U(max(found - 1, 0))]
        words = _add_piece(data, row, INT_1, known, words, n_open, tables, scratch, sums, features)
        known = min(words, tables.word_ngrams - 1)
        for i in range(known):
            hashes[i] = hashes[words - known + i]
        bounds[0] = open_start
        found &= 1


@bare_kernel
def add_documents(data: Array, offsets: Array, tables: Tables, scratch: Scratch, sums: Array, features: Array) -> None:
    """Add each row's entries to sums, float64 (n, columns), and their number to features, int64 (n,)."""
    row = INT_0
    while row < len(features):
        documents, words, n_open = _load_documents(data, offsets, row, scratch)
        if documents > 0:
            _add_piece(data, row, documents, INT_0, words, n_open, tables, scratch, sums, features)
        else:
            _add_long_document(data, offsets[row], offsets[row + 1], row, tables, scratch, sums, features)
        row += max(documents, INT_1)


@bare_kernel
def multiply(vectors: Array, directions: Array, products: Array) -> None:
    """Write vectors @ directions.T to products, a number at a time: a row's do not depend on the rows beside it."""
    for row in range(products.shape[0]):
        for column in range(products.shape[1]):
            total = 0.0
            for i in range(vectors.shape[1]):
                total += vectors[row, i] * directions[column, i]
            products[row, column] = total
