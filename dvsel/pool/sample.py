"""A sample of the pool for `fit`, the same for the same documents however they are sharded.

uniform: every shard is read; the documents with the lowest draws are kept, as many as fit into the size. A draw is a
hash of the document and the seed, so the sample does not depend on order, sharding, compression or workers.
shards: the same within a random choice of shards, for pools too large to read twice; about four times the sample's
size is read.
head: the first documents of each shard, as the reference implementation of DSIR does; biased where shards are sorted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from dvsel.budget import Budget
from dvsel.documents.columns import Batch, Column, Status
from dvsel.documents.hashing import uniform
from dvsel.documents.vectors import Vectors
from dvsel.engines import local
from dvsel.errors import BadFile, BadLine, Notice, UserError
from dvsel.pool.read import PoolReader, why_unread
from dvsel.runs.requests import Execution, Reading, Sampling
from dvsel.storage.places import Shard

_SHARDS_MODE_FACTOR = 4
_BATCH = 8 << 20
_COPIES = 4  # a thinner joins what it holds after it has grown by this share of its size


@dataclass(frozen=True, slots=True)
class Sample:
    """Documents of a sample, in the order of their draws.

    draw: float64 (n,) in (0, 1), a hash of document and seed. columns: field by path, the text first. keys: uint64
    (n,), the documents' own numbers. vectors: where the pool comes with some.
    """

    draw: npt.NDArray[np.float64]
    columns: dict[str, Column]
    keys: npt.NDArray[np.uint64]
    vectors: Vectors | None = None

    @property
    def text(self) -> Column:
        """The documents' texts."""
        return next(iter(self.columns.values()))

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each document's text and vector, int64 (n,)."""
        return self.text.sizes + (0 if self.vectors is None else self.vectors.row)

    def batches(self) -> Iterator[Batch]:
        """The sample in batches of bounded size."""
        first = 0
        while first < len(self.text):
            limit = self.text.offsets[first] + _BATCH
            last = max(int(np.searchsorted(self.text.offsets, limit, "right")) - 1, first + 1)
            rows = np.arange(first, last)
            cut = {path: column.take(rows) for path, column in self.columns.items()}
            vectors = self.vectors.take(rows) if self.vectors is not None else None
            yield Batch(cut[next(iter(cut))], cut, self.keys[first:last], vectors)
            first = last


@dataclass(frozen=True, slots=True)
class _Task:
    shard: Shard
    reading: Reading
    paths: tuple[str, ...]
    seed: int
    size: int
    below: float
    head: bool


def draw_sample(
    shards: Sequence[Shard],
    reading: Reading,
    sampling: Sampling,
    size: int,
    needs: tuple[str, ...] = (),
    workers: int = 1,
    stage: str = "",
) -> Sample:
    """Sample `size` bytes of text and vectors at most (a single larger document is taken all the same).

    stage: what the progress is called that is told meanwhile; "" for none.
    """
    paths = tuple(dict.fromkeys((reading.text_field, *needs)))
    if sampling.sample == "shards":
        shards = _choose_shards(shards, size * _SHARDS_MODE_FACTOR, sampling.seed)
    head = sampling.sample == "head"
    limit = max(size // max(len(shards), 1), 1) if head else size
    kept = _Thinned(paths, sys.maxsize if head else size, 1.0)
    # A generator, so that each task is made late and knows the lowest draw for which there is no room by then.
    tasks = (_Task(shard, reading, paths, sampling.seed, limit, kept.below, head) for shard in shards)
    for found, below, unread in local.run(_sample_shard, tasks, workers, stage, sum(shard.size for shard in shards)):
        kept.add(found, below)
        if unread:
            warnings.warn(Notice(f"{unread}; it is left out of the sample"), stacklevel=1)
    sample = kept.result()
    if not len(sample.text):
        raise UserError("the pool holds no document with text to fit on; check the files and --text-field")
    return sample


def pool_sample(
    shards: Sequence[Shard], reading: Reading, sampling: Sampling, needs: tuple[str, ...], execution: Execution
) -> Sample:
    """Sample what the options ask for, with these further fields. Raises UserError for a size that is not in bytes."""
    size = Budget.parse(sampling.sample_size, "--sample-size")
    if size.unit != "bytes" or size.amount is None:
        raise UserError(f"--sample-size is {sampling.sample_size}; give a size in bytes, such as 100MB")
    return draw_sample(
        shards,
        reading,
        sampling,
        size.amount,
        needs,
        execution.processes(sum(shard.size for shard in shards)),
        "sampling the pool",
    )


def _choose_shards(shards: Sequence[Shard], size: int, seed: int) -> list[Shard]:
    # By a hash of the names, so that the choice does not depend on the order in which shards are named.
    order = sorted(shards, key=lambda shard: xxhash.xxh64_intdigest(shard.name.encode(), seed))
    ends = np.cumsum([shard.size for shard in order])
    return order[: int(np.searchsorted(ends, size)) + 1]


def _sample_shard(task: _Task) -> tuple[Sample, float, str]:
    """The kept documents of a shard, its `below`, and the cause for which it cannot be read, "" if it can."""
    try:
        return *(_head_of_shard if task.head else _thin_shard)(task), ""
    except (BadFile, BadLine) as error:
        return _empty(task.paths), 1.0, why_unread(task.shard, task.reading, error)


def _head_of_shard(task: _Task) -> tuple[Sample, float]:
    found: list[Sample] = [_empty(task.paths)]
    room = task.size
    for documents in _documents(task):
        fits = int(np.searchsorted(np.cumsum(documents.sizes), room, "right"))
        if room == task.size:
            fits = max(fits, min(1, len(documents.text)))
        found.append(_take(documents, np.arange(fits)))
        room -= int(found[-1].sizes.sum())
        if fits < len(documents.text):
            break
    return _joined(found), 1.0


def _thin_shard(task: _Task) -> tuple[Sample, float]:
    kept = _Thinned(task.paths, task.size, task.below)
    for documents in _documents(task):
        kept.add(documents, 1.0)
    return kept.result(), kept.below


def _documents(task: _Task) -> Iterator[Sample]:
    with PoolReader(task.shard, task.reading, task.paths[1:], on_read=local.advance) as pool:
        for batch in pool:
            local.advance(0, len(batch))
            draw = uniform(batch.key, task.seed)
            rows = np.flatnonzero((batch.status == Status.SCORED) & (draw < task.below))
            found = batch.documents.fields | {task.reading.text_field: batch.text}
            fields = {path: found[path].take(rows) for path in task.paths}
            vectors = batch.vectors.take(rows) if batch.vectors is not None else None
            yield Sample(draw[rows], fields, batch.key[rows], vectors)


class _Thinned:
    """Keeps, of the documents added, those with the lowest draws whose text and vectors fit into a size; one at least.

    below: the lowest draw for which there was no room. Who adds what was thinned before adds its `below` too: then
    the outcome depends neither on the order of adding nor on the parts.
    """

    def __init__(self, paths: Sequence[str], size: int, below: float) -> None:
        self.below = below
        self._size = size
        self._parts = [_empty(paths)]
        self._bytes = 0
        self._thinned_bytes = 0

    def add(self, found: Sample, below: float) -> None:
        """Take documents into account; below: the lowest draw of those that they were chosen from and are not."""
        self.below = min(self.below, below)
        found = _take(found, np.flatnonzero(found.draw <= self.below))
        self._parts.append(found)
        self._bytes += int(found.sizes.sum())
        if self._bytes > self._thinned_bytes + self._size // _COPIES:
            self._thin()

    def result(self) -> Sample:
        """The kept documents, in the order of draws."""
        self._thin()
        return self._parts[0]

    def _thin(self) -> None:
        sample = _joined(self._parts)
        self._parts = []  # what was joined is needed no more, and may be large
        order = np.argsort(sample.draw, kind="stable")
        draw, ends = sample.draw[order], np.cumsum(sample.sizes[order])
        if len(order) and ends[-1] > self._size:
            self.below = min(self.below, float(draw[np.searchsorted(ends, self._size, "right")]))
        fits = max(int(np.searchsorted(draw, self.below)), 1)
        self._parts = [_take(sample, order[:fits])]
        self._bytes = self._thinned_bytes = int(self._parts[0].sizes.sum())


def _take(sample: Sample, rows: npt.NDArray[np.int64]) -> Sample:
    columns = {path: column.take(rows) for path, column in sample.columns.items()}
    vectors = sample.vectors.take(rows) if sample.vectors is not None else None
    return Sample(sample.draw[rows], columns, sample.keys[rows], vectors)


def _empty(paths: Sequence[str]) -> Sample:
    return Sample(np.zeros(0), {path: Column.of([]) for path in paths}, np.zeros(0, np.uint64))


def _joined(samples: Sequence[Sample]) -> Sample:
    return Sample(
        np.concatenate([sample.draw for sample in samples]),
        {path: Column.join([sample.columns[path] for sample in samples]) for path in samples[0].columns},
        np.concatenate([sample.keys for sample in samples]),
        Vectors.join(vectors) if (vectors := [one.vectors for one in samples if one.vectors is not None]) else None,
    )
