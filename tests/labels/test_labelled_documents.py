"""Documents with labels: which values are labels, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from dvsel.documents.columns import Batch, Column, Kind
from dvsel.documents.vectors import Maker, Vectors
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.vector_source import VectorSource
from dvsel.labels.documents import UNKNOWN, Gathered, codes, from_array, gather, keys_of, labels_of, to_array

MAKER = Maker("some-encoder", "00ff", "mean", 6, 128)


def batch(labels: list[bytes | None], first: int = 0) -> Batch:
    """Documents numbered from `first`; the vector of number n is (1, n), and of number 3 NaN."""
    numbers = np.arange(first, first + len(labels))
    vectors = np.stack([np.ones(len(labels)), numbers], axis=1).astype(np.float32)
    vectors[numbers == 3] = np.nan
    text = Batch.of([f"text {number}" for number in numbers]).text
    return Batch(text, {"label": Column.of(labels)}, numbers.astype(np.uint64), Vectors(vectors, MAKER))


def gathered(*batches: Batch, limit: int = 100) -> Gathered:
    return gather(batches, VectorSource(EmbedderOptions()), "label", limit)


def test_strings_numbers_and_booleans_are_labels() -> None:
    rows = [b"spam", b"", b"1", b"1", b"true", None, None, b"[1]"]
    kinds = [Kind.STRING, Kind.STRING, Kind.STRING, Kind.NUMBER, Kind.BOOL, Kind.NULL, Kind.MISSING, Kind.OTHER]

    assert labels_of(Column.of(rows, kinds)) == [b"spam", None, b"1", b"1", b"true", None, None, None]


def test_what_lacks_a_label_or_a_vector_is_left_out_and_counted() -> None:
    found = gathered(batch([b"b", None, b"a"]), batch([b"a", b"c", b"a"], first=3))

    assert (found.without_label, found.without_vector) == (1, 1)
    assert found.documents.names == (b"a", b"b", b"c")
    assert found.documents.labels.tolist() == [1, 0, 2, 0]
    assert found.documents.keys.tolist() == [0, 2, 4, 5]
    assert found.documents.counts.tolist() == [2, 1, 1]
    assert np.linalg.norm(found.documents.vectors, axis=1) == pytest.approx(1)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 100])
def test_the_first_documents_with_a_label_are_taken_however_they_are_batched(limit: int) -> None:
    labels = [None, b"a", b"b", b"a", None, None, b"c", b"b", None]
    whole = gathered(batch(labels), limit=limit)
    parts = gathered(*(batch(labels[row : row + 2], row) for row in range(0, len(labels), 2)), limit=limit)

    assert whole.documents.keys.tolist() == [number for number in [1, 2, 3, 6, 7][:limit] if number != 3]
    assert (parts.without_label, parts.without_vector) == (whole.without_label, whole.without_vector)
    for one, other in (
        (parts.documents.vectors, whole.documents.vectors),
        (parts.documents.keys, whole.documents.keys),
    ):
        np.testing.assert_array_equal(one, other)


def test_no_labels_is_no_documents() -> None:
    found = gathered(batch([None, None]))

    assert len(found.documents) == 0 and found.without_label == 2


def test_a_label_can_be_left_out() -> None:
    documents = gathered(batch([b"b", b"a", b"c", b"c", b"a"])).documents.with_labels([b"c", b"a", b"unheard of"])

    assert documents.names == (b"a",) or documents.names == (b"a", b"c")
    assert [documents.names[label] for label in documents.labels] == [b"a", b"c", b"a"]
    assert documents.keys.tolist() == [1, 2, 4]


def test_a_document_without_a_number_is_known_by_its_text() -> None:
    first, second, again = keys_of(Batch.of(["a", "b", "a"]))

    assert first == again != second


@given(st.lists(st.binary(min_size=1), unique=True))
def test_names_survive_saving(names: list[bytes]) -> None:
    assert list(from_array(to_array(names))) == names


def test_unknown_labels_have_no_place() -> None:
    assert codes([b"b", None, b"x", b"a"], [b"a", b"b"]).tolist() == [1, UNKNOWN, UNKNOWN, 0]
