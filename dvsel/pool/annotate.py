"""One row file beside each shard: the flow that scoring and embedding share.

A shard, or a byte range of a large plain one, is a task; an `Annotator` says what its rows hold. A finished file is its
own resume marker, and the files of a shard's ranges are joined into one when all are done.

A task that takes long leaves a piece of its file every `PIECE_SECONDS`, at the end of a batch. After a stop it reads
again what the pieces speak of, compares its digest, and goes on behind it: batches end where they did, so the files are
those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import posixpath
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Column, Status
from dvsel.documents.hashing import hash_rows
from dvsel.documents.tokens import BUILT_IN, TokenCounter, fit_estimate
from dvsel.engines import local
from dvsel.errors import BadFile, BadLine, UserError
from dvsel.pool.locate import changed, check_unchanged
from dvsel.pool.read import PoolBatch, PoolReader, why_unread
from dvsel.pool.sample import draw_sample
from dvsel.progress import Done
from dvsel.redact import kept
from dvsel.runs.requests import Counting, Execution, Reading, Sampling
from dvsel.score_files.find import SUFFIXES, suffix_in
from dvsel.score_files.header import NO_SHARD, Header, ShardIdentity
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows, Totals
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.shards.digest import digest_of_parts, ranges
from dvsel.shards.lines import BLOCK
from dvsel.storage.manifest import record, recorded
from dvsel.storage.places import HOME, Shard, exists, find, join, list_names, make_folder, remove

PARTS = f"{HOME}/parts"
"""The folder, inside that of the row files, of the files of ranges and of pieces."""
PIECE_SECONDS = 60.0
_SLOW_BLOCK = 1 << 20  # bytes in a batch of what takes long for it, so that a stop loses little
_TOKEN_SAMPLE = 32 << 20  # bytes of text, of which the first documents are counted


Tokens = npt.NDArray[np.uint32]


class Annotator(Protocol):
    """Says what rows hold. It goes to worker processes: frozen, small, and heavy things are loaded at first use."""

    @property
    def reading(self) -> Reading:
        """The options that say where a document's parts lie."""

    @property
    def counter(self) -> TokenCounter:
        """The token counter."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The fields that it needs beside text, id, domain and token count."""

    @property
    def is_slow(self) -> bool:
        """True if a batch takes so long that batches should be small."""

    def annotate(self, batch: PoolBatch, tokens: Tokens) -> Rows:
        """The rows of a batch; tokens: how many each document has."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Annotate bytes begin to end of a shard (None: to its end) into a file.

    pieces: what the names of its pieces begin with. seconds: after which a piece ends.
    """

    shard: Shard
    begin: int
    end: int | None
    url: str
    pieces: str
    seconds: float
    annotator: Annotator
    header: Header

    @property
    def size(self) -> int:
        """Stored bytes to read."""
        return (self.shard.size if self.end is None else self.end) - self.begin

    def piece(self, number: int) -> str:
        """The place of a piece, by its number from 0."""
        return f"{self.pieces}.{number:05}{suffix_in(self.pieces)}"

    def done(self) -> ScoreFile | None:
        """The file, if an earlier start left it, of the same shard and fit."""
        if not exists(self.url):
            return None
        there = ScoreFile(self.url)
        same_shard = dataclasses.replace(there.header.shard, digest="") == self.header.shard
        return there if same_shard and self.wrote(there) else None

    def wrote(self, file: ScoreFile) -> bool:
        """True if it was written by this version with these options, so that its rows can stand beside this task's."""
        return bool(_terms(file.header) == _terms(self.header))


def _terms(header: Header) -> Any:
    """The parts of a header that say how its rows were made, as plain values."""
    terms = kept(dataclasses.asdict(dataclasses.replace(header, shard=NO_SHARD, totals=Totals(), digests={})))
    for name in ("on_bad_line", "on_bad_file"):  # what was read to its end has nothing over which these decide
        terms["reading"].pop(name, "")
    return terms


def write_beside(
    shards: Sequence[Shard],
    annotator: Annotator,
    header: Header,
    folder: str,
    workers: int,
    stage: str,
) -> list[ScoreFile]:
    """Write a file into `folder` for each shard; existing ones of the same fit are kept.

    stage: what the progress is called that is told meanwhile; "" for none.
    """
    _record(shards, folder)
    whole: dict[str, Done] = {}
    for shard in shards:
        if file := _done(folder, shard, header.fingerprint):
            whole[shard.name] = _of_before(shard.size, file)
    missing: dict[str, int] = {}

    def tasks() -> Iterator[_Task]:
        local.skip(sum(whole.values(), Done()))
        for shard in shards:
            parts = [] if shard.name in whole else _tasks_of(shard, annotator, header, folder)
            waiting = []
            for task in parts:
                if file := task.done():
                    local.skip(_of_before(task.size, file))
                else:
                    waiting.append(task)
            missing[shard.name] = len(waiting)
            if parts and not waiting:  # a stop came between the last range and the merge
                _merge(shard, header, folder)
            yield from waiting

    try:
        for shard in local.run(_annotate, tasks(), workers, stage, sum(shard.size for shard in shards)):
            missing[shard.name] -= 1
            if not missing[shard.name]:
                _merge(shard, header, folder)
    except KeyboardInterrupt as stop:
        with contextlib.suppress(UserError):  # of a file that cannot be read
            if said := _kept(shards, folder):
                stop.add_note(said)
        raise
    remove(join(folder, PARTS))
    files = [ScoreFile(row_file(folder, shard)) for shard in shards]
    if files and all(file.header.unread for file in files):
        raise UserError(f"none of {len(files):,} shards can be read; the first is {files[0].header.unread}")
    return files


def _of_before(size: int, file: ScoreFile) -> Done:
    """Progress that an earlier start made: so many bytes of a shard, whose rows a file holds."""
    return Done(size, len(file), file.header.totals.tokens, size)


def _kept(shards: Sequence[Shard], folder: str) -> str:
    """Words for what a stopped run leaves for the next start, "" for nothing."""
    there = set(list_names(folder))
    whole = sum(shard.name + suffix_in(folder) in there for shard in shards)
    documents = sum(len(ScoreFile(url)) for url in find(join(folder, PARTS), SUFFIXES))
    others = f" and {documents:,} documents of others" if documents else ""
    return f"kept: {whole:,} of {len(shards):,} shards{others}" if whole or documents else ""


def _record(shards: Sequence[Shard], folder: str) -> None:
    """Note which files the folder will hold, so that it is known when it is whole."""
    names = {shard.name + suffix_in(folder) for shard in shards}
    noted = {name for name in recorded(folder) if name.endswith(SUFFIXES)}
    if gone := sorted(name for name in noted - names if exists(join(folder, name))):
        raise UserError(
            f"{join(folder, gone[0])}: its shard is no longer in the pool; pass --overwrite to begin again, or choose "
            "another -o"
        )
    record(folder, sorted(names - noted))


def _tasks_of(shard: Shard, annotator: Annotator, header: Header, folder: str) -> list[_Task]:
    header = _header_for(shard, header)
    return [
        _Task(
            shard,
            begin,
            end,
            row_file(folder, shard, part),
            join(folder, f"{PARTS}/{shard.name}.{part:05}"),
            PIECE_SECONDS,
            annotator,
            header,
        )
        for part, (begin, end) in enumerate(ranges(shard))
    ]


def _header_for(shard: Shard, header: Header) -> Header:
    return dataclasses.replace(header, shard=ShardIdentity.of(shard))


def _done(folder: str, shard: Shard, fingerprint: str) -> ScoreFile | None:
    """The shard's file, if an earlier start left it."""
    place = row_file(folder, shard)
    if not exists(place):
        return None
    there = ScoreFile(place)
    if there.header.unread:
        return None  # it may be readable by now
    check_unchanged(shard, there)
    if there.header.fingerprint != fingerprint:
        raise UserError(f"{place} is of another fit; score into a new folder, or pass --overwrite to score all again")
    return there


def row_file(folder: str, shard: Shard, part: int | None = None) -> str:
    """The place of a shard's row file, or of one part's."""
    if part is None or len(ranges(shard)) == 1:
        return join(folder, shard.name + suffix_in(folder))
    return join(folder, f"{PARTS}/{shard.name}.{part:05}{suffix_in(folder)}")


def _merge(shard: Shard, header: Header, folder: str) -> None:
    """One file from those of a shard's byte ranges."""
    parts = len(ranges(shard))
    if parts == 1:
        return
    files = [ScoreFile(row_file(folder, shard, part)) for part in range(parts)]
    if unread := next((file.header.unread for file in files if file.header.unread), ""):
        _leave_out(row_file(folder, shard), _header_for(shard, header), unread)
        return
    digest = digest_of_parts([file.header.shard.digest for file in files])
    _join(files, row_file(folder, shard), _header_for(shard, header), digest)


def _join(files: Sequence[ScoreFile], url: str, header: Header, digest: str) -> None:
    """One file in place of several that speak of consecutive rows."""
    with ScoreFileWriter(url, header) as writer:
        for file in files:
            writer.absorb(file)
        writer.finish(digest)
    for file in reversed(files):  # so that what a stop leaves begins with the first
        remove(file.url)


def _annotate(task: _Task) -> Shard:
    """Write one file; returns the shard. Where it cannot be read, and may be left out, a file without rows says why."""
    try:
        _write(task)
    except (BadFile, BadLine) as error:
        _leave_out(task.url, task.header, why_unread(task.shard, task.annotator.reading, error))
        for piece in _pieces(task):
            remove(piece.url)
    return task.shard


def _leave_out(url: str, header: Header, why: str) -> None:
    with ScoreFileWriter(url, dataclasses.replace(header, unread=why)) as writer:
        writer.finish("")


def _write(task: _Task) -> None:
    pieces = _pieces(task)
    with _Reading(task) as reading:
        reading.pass_over(pieces)
        while not reading.ended:
            with ScoreFileWriter(task.url, task.header) as writer:
                reading.write(writer, time.monotonic() + task.seconds)
                is_all = reading.ended and not pieces
                place = task.url if is_all else task.piece(len(pieces))
                make_folder(posixpath.dirname(place))
                writer.finish(reading.whole_digest() if is_all else reading.digest, place)
            if not is_all:
                pieces.append(ScoreFile(place))
        if pieces:
            _join(pieces, task.url, task.header, reading.whole_digest())


def _pieces(task: _Task) -> list[ScoreFile]:
    """Pieces that an earlier start left, in order. From the first with other options on, they are removed.

    Raises UserError where the shard is no longer that of the pieces.
    """
    places = itertools.takewhile(exists, map(task.piece, itertools.count()))
    found = [ScoreFile(place) for place in places]
    usable = list(itertools.takewhile(task.wrote, found))
    for stale in reversed(found[len(usable) :]):
        remove(stale.url)
    if any(file.header.shard.size != task.shard.size for file in usable):
        raise changed(task.shard)
    return usable


class _Reading(AbstractContextManager["_Reading"]):
    """Reads what a task is about, and annotates it.

    digest: of what was read when the last batch was done. ended: whether that was all.
    """

    def __init__(self, task: _Task) -> None:
        annotator, tokens_field = task.annotator, task.annotator.counter.field
        self._task, self._annotator = task, annotator
        self._reader = PoolReader(
            task.shard,
            annotator.reading,
            annotator.paths,
            tokens_field=tokens_field,
            begin=task.begin,
            end=task.end,
            block=_SLOW_BLOCK if annotator.is_slow else BLOCK,
            on_read=self._on_read,
        )
        self._batches = iter(self._reader)
        self._read = 0
        self.digest, self.ended = "", False

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def pass_over(self, pieces: Sequence[ScoreFile]) -> None:
        """Read what the pieces speak of. Raises UserError where it is not what it was."""
        row = until = 0
        for piece in pieces:
            until += len(piece)
            while row < until and (batch := next(self._batches, None)) is not None:
                row += len(batch)
            if row != until or self._reader.digest() != piece.header.shard.digest:
                raise changed(self._task.shard)
            read = self._taken()
            local.advance(read, len(piece), piece.header.totals.tokens, before=read)
        self.digest = self._reader.digest() if pieces else ""

    def write(self, writer: ScoreFileWriter, until: float) -> None:
        """Annotate batches up to that time, or to the end."""
        while (batch := next(self._batches, None)) is not None:
            tokens = self._tokens(batch)
            with local.working_on(self._taken(), len(batch), int(tokens.sum(dtype=np.int64))):
                writer.append(self._annotator.annotate(batch, tokens), batch.bad)
                writer.count_absent(batch.absent)
            self.digest = self._reader.digest()
            if time.monotonic() >= until:
                return
        local.advance(self._taken())
        self.ended = True

    def whole_digest(self) -> str:
        """The digest of what was read, which must be that of the vectors that the shard comes with."""
        shard, digest = self._task.shard, self._reader.digest()
        if not shard.vectors:
            return digest
        embedded = ScoreFile(shard.vectors).header.shard.digest
        if len(ranges(dataclasses.replace(shard, vectors=""))) == 1 and embedded != digest:
            raise changed(shard)
        return embedded

    def _tokens(self, batch: PoolBatch) -> Tokens:
        counter = self._annotator.counter
        tokens = counter.count(batch.text, batch.documents.fields[counter.field] if counter.field else None)
        tokens[batch.status == Status.BAD_LINE] = 0
        return tokens

    def _on_read(self, count: int) -> None:
        self._read += count

    def _taken(self) -> int:
        """The bytes that were read since the last call."""
        taken, self._read = self._read, 0
        return taken


def token_counter(
    counting: Counting, reading: Reading, sampling: Sampling, shards: Sequence[Shard], execution: Execution
) -> TokenCounter:
    """Return the token counter that the options ask for; an estimate is fitted on a sample of the pool."""
    counter = BUILT_IN
    if counting.tokenizer and counting.token_sample:
        sample = draw_sample(shards, reading, sampling, _TOKEN_SAMPLE, workers=execution.processes())
        rows = range(min(counting.token_sample, len(sample.text)))
        counter = fit_estimate([sample.text[row].decode(errors="replace") for row in rows], counting.tokenizer)
    elif counting.tokenizer:
        counter = TokenCounter(tokenizer=counting.tokenizer)
    return dataclasses.replace(counter, field=counting.tokens_field or "")


def rows_of(
    batch: PoolBatch,
    tokens: Tokens,
    scores: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
    reading: Reading,
) -> Rows:
    """A batch's rows, with their token counts, and scores, float32 (n, groups)."""
    domain, domains = _encoded(batch.documents.fields[reading.domain_field])
    sizes = batch.text.sizes.astype(np.uint32)
    return Rows(len(batch), scores, batch.key, batch.text_hash, tokens, sizes, status, domain, domains)


def _encoded(domain: Column) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Domains as numbers into a list of names."""
    _, rows, numbers = np.unique(hash_rows(domain), return_index=True, return_inverse=True)
    return numbers.astype(np.int32), [domain[row].decode(errors="replace") for row in rows]
