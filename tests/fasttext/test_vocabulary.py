"""Words, vocabulary and features: as the library has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corpus as texts_of
from dvsel.documents.columns import Column
from dvsel.fasttext import vocabulary

SPACES = b" \t\n\v\f\r\0"


@pytest.fixture(scope="module")
def real_texts(shared_data: Path) -> list[bytes]:
    """Return some thousand lines of several scripts."""
    rows: list[bytes] = []
    for source, count in (("pool/reuters21578", 1000), ("pool/xquad", 600), ("pool/udhr", 60)):
        content = texts_of.content(shared_data / f"{source}.jsonl.zst").splitlines()[:count]
        rows += [json.loads(line)["text"].replace("\n", " ").encode() for line in content]
    return rows


def read(texts: Sequence[bytes]) -> vocabulary.Corpus:
    return vocabulary.read(Column.of(texts), np.arange(len(texts)))


def words_of(text: bytes) -> list[bytes]:
    """Return a document's words, found in another way."""
    for space in SPACES:
        text = text.replace(bytes([space]), b" ")
    words = [word for word in text.split(b" ") if word]
    if b"</s>" in words:
        words = words[: words.index(b"</s>")]
    return [word for word in words if not word.startswith(b"__label__")] + [b"</s>"]


pieces = st.sampled_from(
    [
        b"a",
        b"b",
        b"ab",
        b"</s>",
        b"</s",
        b"__label__",
        b"__label__x",
        b"__labe",
        b"\xff",
        b"longer-than-8-bytes",
        b"0" * 8,
    ]
    + [bytes([space]) for space in SPACES]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(pieces, max_size=12).map(b"".join), min_size=1, max_size=6))
def test_documents_are_runs_of_words(texts: list[bytes]) -> None:
    found = read(texts)

    documents = [found.tokens[begin:end] for begin, end in zip(found.ends, found.ends[1:], strict=False)]
    assert [[found.words[word] for word in document] for document in documents] == [words_of(text) for text in texts]
    assert found.counts.tolist() == [sum(words_of(text).count(word) for text in texts) for word in list_of(found.words)]


def list_of(column: Column) -> list[bytes]:
    return [column[row] for row in range(len(column))]


def test_many_words_are_all_kept_apart() -> None:
    words = [b"%d" % number for number in range(50_000)]
    found = read([b" ".join(words), b" ".join(words[::-1])])

    assert list_of(found.words) == [b"</s>", *words]
    assert (found.counts == 2).all()


@pytest.mark.parametrize("min_count", [1, 5])
def test_vocabulary_is_the_library_s(real_texts: list[bytes], tmp_path: Path, min_count: int) -> None:
    model = library_model(real_texts, tmp_path, minCount=min_count)
    words, counts = model.f.getVocab("surrogateescape")

    found = read(real_texts)
    kept, ids = vocabulary.vocabulary(found, min_count)

    assert set(list_of(kept)) == {word.encode("utf-8", "surrogateescape") for word in words}
    by_word = {word.encode("utf-8", "surrogateescape"): count for word, count in zip(words, counts, strict=True)}
    ordered = [by_word[word] for word in list_of(kept)]
    assert ordered == sorted(ordered, reverse=True)
    assert [kept[ids[word]] for word in range(200) if ids[word] >= 0] == [
        found.words[word] for word in range(200) if ids[word] >= 0
    ]
    assert (ids >= 0).sum() == len(kept)


def test_vocabulary_does_not_depend_on_the_order_of_documents(real_texts: list[bytes]) -> None:
    kept, _ = vocabulary.vocabulary(read(real_texts), 2)
    again, _ = vocabulary.vocabulary(read(real_texts[::-1]), 2)

    assert list_of(again) == list_of(kept)


@pytest.mark.parametrize(("word_ngrams", "chars"), [(1, (0, 0)), (2, (0, 0)), (3, (2, 3)), (5, (1, 6)), (1, (0, 2))])
def test_features_are_the_library_s(
    real_texts: list[bytes], tmp_path: Path, word_ngrams: int, chars: tuple[int, int]
) -> None:
    """The mean of the library's vectors over our features is the library's vector of the document."""
    texts = [*real_texts[::12], b"", b"caf\xc3\xa9 na\xc3\xafve \xff\xfe x", b"a", b"\0a\0 b", b"one-word-only"]
    model = library_model(
        real_texts, tmp_path, minCount=3, wordNgrams=word_ngrams, minn=chars[0], maxn=chars[1], bucket=5000
    )
    vectors = np.array(model.f.getInputMatrix())
    words = [word.encode("utf-8", "surrogateescape") for word in model.get_words(on_unicode_error="surrogateescape")]
    place = {word: number for number, word in enumerate(words)}

    found = read(texts)
    ids = np.array([place.get(word, -1) for word in list_of(found.words)], np.int32)
    ids_and_last = np.append(ids, np.int32(len(words) - 1))  # so that all words are known to be there
    features = vocabulary.feature_numbers(found, ids_and_last, word_ngrams, chars, len(vectors) - len(words))

    for row, text in enumerate(texts):
        own = features.ids[features.ends[row] : features.ends[row + 1]]
        expected = sentence_vector(model, text)
        assert np.allclose(vectors[own].mean(axis=0), expected, atol=1e-5), text


def sentence_vector(model: Any, text: bytes) -> np.ndarray[Any, Any]:
    import fasttext_pybind

    vector = fasttext_pybind.Vector(model.get_dimension())
    model.f.getSentenceVector(vector, text + b"\n")
    return np.array(vector)


def library_model(texts: Sequence[bytes], folder: Path, **options: Any) -> Any:
    import fasttext

    path = folder / "texts"
    path.write_bytes(b"".join(b"__label__%d %b\n" % (row % 2, text) for row, text in enumerate(texts)))
    defaults = {"dim": 4, "epoch": 1, "thread": 12, "bucket": 100, "verbose": 0, "loss": "softmax"}
    return fasttext.train_supervised(str(path), **(defaults | options))


def test_runs_of_words_are_hashed_as_in_the_library_s_source() -> None:
    """FNV-1a over bytes with a sign, then h * 116049371 + next, of which 64 bits count (src/dictionary.cc)."""

    def word_hash(word: bytes) -> int:
        state = 2166136261
        for byte in word:
            state = (state ^ (byte - 256 if byte > 127 else byte) % 2**32) * 16777619 % 2**32
        return state - 2**32 if state >= 2**31 else state

    words = ["été".encode(), b"sun", b"</s>"]
    runs = []
    for first in range(3):
        state = word_hash(words[first]) % 2**64
        for last in range(first + 1, 3):
            state = (state * 116049371 + word_hash(words[last])) % 2**64
            runs.append(3 + state % 1000)
    found = read([b"\xc3\xa9t\xc3\xa9 sun"])
    kept, ids = vocabulary.vocabulary(found, 1)

    features = vocabulary.feature_numbers(found, ids, 3, (0, 0), 1000)

    assert features.ids.tolist() == [*(list_of(kept).index(word) for word in words), *runs]
