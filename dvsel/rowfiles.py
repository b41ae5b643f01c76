"""One row file beside each shard: the flow that scoring and embedding share.

A shard, or a byte range of a large plain one, is a task; an `Annotator` says what its rows hold. A finished file is its
own resume marker, and the files of a shard's ranges are joined into one when all are done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dvsel.engines import local
from dvsel.errors import UserError
from dvsel.origin import changed, check_unchanged, digest_of_parts, ranges
from dvsel.pool import PoolBatch, paths_to_read, read_pool
from dvsel.progress import Progress
from dvsel.runs import Counting, Execution, Reading, Sampling
from dvsel.sample import draw_sample
from dvsel.shards.columns import Column, Status
from dvsel.shards.documents import DocumentReader
from dvsel.shards.files import HOME, Shard, exists, join, remove
from dvsel.shards.hashing import hash_rows
from dvsel.shards.lines import BLOCK
from dvsel.shards.manifest import record, recorded
from dvsel.shards.scorefile import SUFFIX, Header, Rows, ScoreFile, ScoreFileWriter
from dvsel.shards.tokens import BUILT_IN, TokenCounter, fit_estimate

_SLOW_BLOCK = 1 << 20  # bytes in a batch of what takes long for it, so that progress shows
_PARTS = f"{HOME}/parts"
_TOKEN_SAMPLE = 32 << 20  # bytes of text, of which the first documents are counted


class Annotator(Protocol):
    """Says what rows hold. It goes to worker processes: frozen, small, and heavy things are loaded at first use."""

    @property
    def reading(self) -> Reading:
        """Where a document's parts lie."""

    @property
    def counter(self) -> TokenCounter:
        """What counts tokens."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields that it needs beside text, id, domain and token count."""

    @property
    def is_slow(self) -> bool:
        """Whether a batch takes so long that batches should be small."""

    def annotate(self, batch: PoolBatch) -> Rows:
        """The rows of a batch."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Annotate bytes begin to end of a shard (None: to its end) into a file."""

    shard: Shard
    begin: int
    end: int | None
    url: str
    annotator: Annotator
    header: Header

    @property
    def size(self) -> int:
        """Stored bytes to read."""
        return (self.shard.size if self.end is None else self.end) - self.begin

    @property
    def is_done(self) -> bool:
        """Whether an earlier start left this file, of the same shard and fit."""
        if not exists(self.url):
            return False
        there = ScoreFile(self.url).header
        same_shard = all(there.shard[name] == value for name, value in self.header.shard.items())
        return same_shard and there.fingerprint == self.header.fingerprint


def write_beside(
    shards: Sequence[Shard],
    annotator: Annotator,
    header: Header,
    folder: str,
    workers: int,
    progress: Progress,
    stage: str,
) -> list[ScoreFile]:
    """A file in `folder` for each shard; those that are there and of the same fit are kept."""
    _record(shards, folder)
    done = {shard.name for shard in shards if _is_done(folder, shard, header.fingerprint)}
    missing: dict[str, int] = {}
    total, skipped = sum(shard.size for shard in shards), 0

    def tasks() -> Iterator[_Task]:
        nonlocal skipped
        for shard in shards:
            parts = [] if shard.name in done else _tasks_of(shard, annotator, header, folder)
            waiting = [task for task in parts if not task.is_done]
            missing[shard.name] = len(waiting)
            skipped += shard.size - sum(task.size for task in waiting)
            if parts and not waiting:
                _merge(shard, header, folder)
            yield from waiting

    for shard in local.run(_annotate, tasks(), workers, lambda read: progress(stage, skipped + read, total)):
        missing[shard.name] -= 1
        if not missing[shard.name]:
            _merge(shard, header, folder)
    remove(join(folder, _PARTS))
    return [ScoreFile(row_file(folder, shard)) for shard in shards]


def _record(shards: Sequence[Shard], folder: str) -> None:
    """Note which files the folder will hold, so that it is known when it is whole."""
    names = {shard.name + SUFFIX for shard in shards}
    noted = {name for name in recorded(folder) if name.endswith(SUFFIX)}
    if gone := sorted(name for name in noted - names if exists(join(folder, name))):
        raise UserError(
            f"{join(folder, gone[0])}: its shard is no longer in the pool; pass --overwrite to begin again, or choose "
            "another -o"
        )
    record(folder, sorted(names - noted))


def _tasks_of(shard: Shard, annotator: Annotator, header: Header, folder: str) -> list[_Task]:
    header = _header_for(shard, header)
    return [
        _Task(shard, begin, end, row_file(folder, shard, part), annotator, header)
        for part, (begin, end) in enumerate(ranges(shard))
    ]


def _header_for(shard: Shard, header: Header) -> Header:
    return dataclasses.replace(header, shard=shard.identity)


def _is_done(folder: str, shard: Shard, fingerprint: str) -> bool:
    place = row_file(folder, shard)
    if not exists(place):
        return False
    there = ScoreFile(place)
    check_unchanged(shard, there)
    if there.header.fingerprint != fingerprint:
        raise UserError(f"{place} is of another fit; score into a new folder, or pass --overwrite to score all again")
    return True


def row_file(folder: str, shard: Shard, part: int | None = None) -> str:
    """The place of a shard's row file, or of one part's."""
    if part is None or len(ranges(shard)) == 1:
        return join(folder, shard.name + SUFFIX)
    return join(folder, f"{_PARTS}/{shard.name}.{part:05}{SUFFIX}")


def _merge(shard: Shard, header: Header, folder: str) -> None:
    """One file from those of a shard's byte ranges."""
    parts = len(ranges(shard))
    if parts == 1:
        return
    files = [ScoreFile(row_file(folder, shard, part)) for part in range(parts)]
    with ScoreFileWriter(row_file(folder, shard), _header_for(shard, header)) as writer:
        for file in files:
            writer.absorb(file)
        writer.finish(digest_of_parts([file.header.shard["digest"] for file in files]))
    for file in files:
        remove(file.url)


def _annotate(task: _Task) -> Shard:
    """Write one file; returns the shard."""
    annotator, shard, reading = task.annotator, task.shard, task.annotator.reading
    tokens_field = annotator.counter.field
    paths = paths_to_read(reading, tokens_field, *annotator.paths)
    block = _SLOW_BLOCK if annotator.is_slow else BLOCK
    with (
        DocumentReader(shard, paths, begin=task.begin, end=task.end, block=block, on_read=local.advance) as reader,
        ScoreFileWriter(task.url, task.header) as writer,
    ):
        for batch in read_pool(reader, shard, reading, task.begin, tokens_field):
            writer.append(annotator.annotate(batch), batch.bad)
        writer.finish(_digest_read(shard, reader))
    return shard


def _digest_read(shard: Shard, reader: DocumentReader) -> str:
    """The digest of what was read, which must be that of the vectors that the shard comes with."""
    if not shard.vectors:
        return reader.digest()
    embedded = str(ScoreFile(shard.vectors).header.shard["digest"])
    is_one = len(ranges(dataclasses.replace(shard, vectors=""))) == 1
    if is_one and embedded != reader.digest():
        raise changed(shard)
    return embedded


def token_counter(
    counting: Counting, reading: Reading, sampling: Sampling, shards: Sequence[Shard], execution: Execution
) -> TokenCounter:
    """What counts tokens as the options say; where an estimate is to be fitted, it is on a sample of the pool."""
    counter = BUILT_IN
    if counting.tokenizer and counting.token_sample:
        sampling = Sampling(sample=sampling.sample, seed=sampling.seed)
        sample = draw_sample(shards, reading, sampling, _TOKEN_SAMPLE, workers=execution.processes())
        rows = range(min(counting.token_sample, len(sample.text)))
        counter = fit_estimate([sample.text[row].decode(errors="replace") for row in rows], counting.tokenizer)
    elif counting.tokenizer:
        counter = TokenCounter(tokenizer=counting.tokenizer)
    return dataclasses.replace(counter, field=counting.tokens_field or "")


def rows_of(
    batch: PoolBatch,
    scores: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
    reading: Reading,
    counter: TokenCounter,
) -> Rows:
    """A batch's rows, with their scores, float32 (n, groups)."""
    fields = batch.documents.fields
    tokens = counter.count(batch.text, fields[counter.field] if counter.field else None)
    tokens[status == Status.BAD_LINE] = 0
    domain, domains = _encoded(fields[reading.domain_field])
    sizes = batch.text.sizes.astype(np.uint32)
    return Rows(len(batch), scores, batch.key, batch.text_hash, tokens, sizes, status, domain, domains)


def _encoded(domain: Column) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Domains as numbers into a list of names."""
    _, rows, numbers = np.unique(hash_rows(domain), return_index=True, return_inverse=True)
    return numbers.astype(np.int32), [domain[row].decode(errors="replace") for row in rows]
