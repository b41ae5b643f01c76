"""Documents with labels, as the methods of this package take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Batch, Column, Kind
from dvsel.documents.hashing import hash_rows
from dvsel.embeddings.neighbours import unit
from dvsel.embeddings.vector_source import VectorSource
from dvsel.schema import packed, unpacked

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]

UNKNOWN = -1
_NAMED = (Kind.STRING, Kind.NUMBER, Kind.BOOL)


@dataclass(frozen=True, slots=True)
class Labelled:
    """n documents that each have a vector and a label.

    vectors: float32 (n, d), of length 1. labels: int64 (n,), places in `names`. keys: int64 (n,), each document's
    own number. names: the labels that occur, sorted; UTF-8.
    """

    vectors: Floats
    labels: Codes
    keys: Keys
    names: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def counts(self) -> Codes:
        """Documents of each label, int64 (K,)."""
        return np.bincount(self.labels, minlength=len(self.names))

    def with_labels(self, wanted: Iterable[bytes]) -> Labelled:
        """Return the documents with one of these labels."""
        names = tuple(sorted(set(self.names) & set(wanted)))
        place = {name: code for code, name in enumerate(names)}
        labels = np.array([place.get(name, UNKNOWN) for name in self.names], np.int64)[self.labels]
        rows = np.flatnonzero(labels != UNKNOWN)
        return Labelled(self.vectors[rows], labels[rows], self.keys[rows], names)

    def take(self, rows: npt.NDArray[np.integer]) -> Labelled:
        """Return the documents of these rows, in this order; `names` stay."""
        return Labelled(self.vectors[rows], self.labels[rows], self.keys[rows], self.names)


@dataclass(frozen=True, slots=True)
class Gathered:
    """Results of `gather`. without_label, without_vector: documents that it left out, of those that it looked at."""

    documents: Labelled
    without_label: int
    without_vector: int


def gather(batches: Iterable[Batch], source: VectorSource, field: str, limit: int) -> Gathered:
    """The first documents with a label, `limit` at most, less those without a vector.

    They are embedded in one go, so that their vectors do not depend on the batches.
    """
    parts: list[Batch] = []
    found = without_label = 0
    for batch in batches:
        named = np.flatnonzero(_has_name(batch.columns[field]))[: limit - found]
        last = len(batch) if found + len(named) < limit else int(named[-1]) + 1
        without_label += last - len(named)
        found += len(named)
        parts.append(batch.take(named))
        if found == limit:
            break
    if not found:
        return Gathered(Labelled(np.empty((0, 0), np.float32), np.empty(0, np.int64), np.empty(0, np.int64), ()),
                        without_label, 0)  # fmt: skip
    return _labelled(Batch.join(parts), source, field, without_label)


def _labelled(batch: Batch, source: VectorSource, field: str, without_label: int) -> Gathered:
    vectors = unit(source.of(batch))
    rows = np.flatnonzero(~np.isnan(vectors).any(axis=1))
    found = [batch.columns[field][row] for row in rows.tolist()]
    names = tuple(sorted(set(found)))
    documents = Labelled(vectors[rows], codes(found, names), keys_of(batch)[rows], names)
    return Gathered(documents, without_label, len(batch) - len(rows))


def codes(labels: Sequence[bytes | None], names: Sequence[bytes]) -> Codes:
    """Return each label's place in `names`, int64 (n,); `UNKNOWN` for a label that is not there."""
    place: dict[bytes | None, int] = {name: code for code, name in enumerate(names)}
    return np.array([place.get(label, UNKNOWN) for label in labels], np.int64)


def labels_of(column: Column) -> list[bytes | None]:
    """Return each document's label: a string, or a number or boolean as JSON; None for anything else, and for ""."""
    return [column[row] if named else None for row, named in enumerate(_has_name(column).tolist())]


def keys_of(batch: Batch) -> Keys:
    """Return each document's own number, int64 (n,): the batch's, else its text's hash."""
    keys = hash_rows(batch.text) if batch.keys is None else batch.keys
    return keys.view(np.int64)


def to_array(names: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """Names as an array, uint8; `from_array` is its inverse."""
    return packed([name.decode("utf-8", "surrogateescape") for name in names])


def from_array(array: npt.NDArray[np.uint8]) -> tuple[bytes, ...]:
    """Return what `to_array` was given."""
    return tuple(name.encode("utf-8", "surrogateescape") for name in unpacked(array))


def _has_name(column: Column) -> npt.NDArray[np.bool_]:
    return np.isin(column.kind, _NAMED) & (column.sizes > 0)
