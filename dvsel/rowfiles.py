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
import xxhash

from dvsel.engines import local
from dvsel.errors import UserError
from dvsel.pool import PoolBatch, paths_to_read, read_pool
from dvsel.progress import Progress
from dvsel.runs import Counting, Execution, Reading, Sampling
from dvsel.sample import draw_sample
from dvsel.shards.columns import Column, Status
from dvsel.shards.documents import DocumentReader
from dvsel.shards.files import HOME, Shard, exists, info, join, remove
from dvsel.shards.hashing import hash_rows
from dvsel.shards.lines import BLOCK, LineReader
from dvsel.shards.scorefile import SUFFIX, Header, Rows, ScoreFile, ScoreFileWriter
from dvsel.shards.tokens import BUILT_IN, TokenCounter, fit_estimate

RANGE = 256 << 20  # bytes of a plain file that one task reads
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


def _tasks_of(shard: Shard, annotator: Annotator, header: Header, folder: str) -> list[_Task]:
    header = _header_for(shard, header)
    return [
        _Task(shard, begin, end, row_file(folder, shard, part), annotator, header)
        for part, (begin, end) in enumerate(_ranges(shard))
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


def _ranges(shard: Shard) -> list[tuple[int, int | None]]:
    """Byte ranges of a large plain file, the same whatever the workers; one open range for all others.

    Nobody knows which row of its vectors a range begins with, so a shard that comes with vectors is one range.
    """
    is_whole = shard.format != "jsonl" or shard.compression or "://" in shard.url or shard.vectors
    if is_whole or shard.size <= RANGE:
        return [(0, None)]
    return [(begin, min(begin + RANGE, shard.size)) for begin in range(0, shard.size, RANGE)]


def row_file(folder: str, shard: Shard, part: int | None = None) -> str:
    """The place of a shard's row file, or of one part's."""
    if part is None or len(_ranges(shard)) == 1:
        return join(folder, shard.name + SUFFIX)
    return join(folder, f"{_PARTS}/{shard.name}.{part:05}{SUFFIX}")


def _merge(shard: Shard, header: Header, folder: str) -> None:
    """One file from those of a shard's byte ranges."""
    parts = len(_ranges(shard))
    if parts == 1:
        return
    files = [ScoreFile(row_file(folder, shard, part)) for part in range(parts)]
    with ScoreFileWriter(row_file(folder, shard), _header_for(shard, header)) as writer:
        for file in files:
            writer.absorb(file)
        writer.finish(_digest_of_parts([file.header.shard["digest"] for file in files]))
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
        writer.finish(ScoreFile(shard.vectors).header.shard["digest"] if shard.vectors else reader.digest())
    return shard


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
    elif counting.token_sample:
        raise UserError("--token-sample says how many documents a tokenizer counts; name it with --tokenizer")
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


# --- Is the shard still what its row file speaks of? ---


def check_unchanged(shard: Shard, there: ScoreFile) -> None:
    """Raise UserError unless the shard is what its row file speaks of; a new date alone is no change."""
    was = there.header.shard
    if (shard.size, shard.modified) == (was["size"], was["modified"]):
        return
    if shard.size != was["size"] or digest(dataclasses.replace(shard, vectors="")) != was["digest"]:
        raise changed(shard)


def changed(shard: Shard) -> UserError:
    """The error for a shard that is not what its row file speaks of."""
    return UserError(
        f"{shard.url} changed after it was scored or embedded; do it again, into a new folder or with --overwrite"
    )


def unchanged_shard(file: ScoreFile) -> Shard:
    """The shard of a row file, which must be as it was when that was written."""
    was = Shard(**{name: value for name, value in file.header.shard.items() if name != "digest"})
    size, modified = info(was.url)
    now = dataclasses.replace(was, size=size, modified=modified)
    check_unchanged(now, file)
    return now


def digest(shard: Shard) -> str:
    """What a row file says of its shard's content."""
    digests = []
    for begin, end in _ranges(shard):
        reader = LineReader(shard, begin=begin, end=end) if shard.format == "jsonl" else DocumentReader(shard, [])
        with reader:
            for _ in reader:
                pass
            digests.append(reader.digest())
    return _digest_of_parts(digests)


def _digest_of_parts(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else xxhash.xxh3_128_hexdigest("".join(digests).encode())
