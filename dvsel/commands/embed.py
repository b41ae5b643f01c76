"""Embed a pool: shards in, one file of vectors beside each out, row by row.

The files are row files like those of scores, with vectors in place of scores: finished shards are kept, and what
selection needs beside scores (tokens, domains, keys) is there too.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xxhash

from dvsel import __version__
from dvsel.documents.columns import Status
from dvsel.documents.tokens import BUILT_IN, TokenCounter
from dvsel.documents.vectors import Maker, Vectors
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.vector_source import embedder_of, forget_embedder
from dvsel.errors import UserError
from dvsel.language import strings
from dvsel.options import Options, among, files_named, option, part, refuse_unread
from dvsel.pool.annotate import Tokens, row_file, rows_of, token_counter, write_beside
from dvsel.pool.dry_run import Forecast, forecast
from dvsel.pool.fields import check_fields, named_fields, sparse
from dvsel.pool.read import PoolBatch
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import left_out, unread_of, without_score, write_json
from dvsel.runs.requests import Counting, Execution, Reading, Sampling
from dvsel.score_files.header import DTYPES, Embedding, Header, ReadingRecord
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows, Totals
from dvsel.shards.expand import expand
from dvsel.storage.places import Shard, exists, join

_UNSCORED = "no tokens to embed"


@dataclass(frozen=True, kw_only=True)
class EmbedRun(Options):
    """Make every document of a pool a vector."""

    embedder: EmbedderOptions = part(EmbedderOptions)
    counting: Counting = part(Counting)
    reading: Reading = part(Reading)
    pool: tuple[str, ...] = option((), "shards, folders, globs or URLs", files=True)
    dtype: str = option("float16", "numbers of a vector: 2 bytes each, or 4", choices=DTYPES)
    output: str = option("", "folder to write files of vectors to")


@dataclass(frozen=True)
class EmbedReport:
    """Report of `dvsel embed`."""

    shards: int
    totals: Totals
    embedder: Maker
    width: int
    dtype: str
    tokens: str
    skipped: list[tuple[str, int, str]]
    notes: list[str] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> EmbedReport:
        """The report on a pool's vectors."""
        header, totals = files[0].header, Totals()
        for file in files:
            totals.add(file.header.totals)
        embedding = header.embedding
        assert embedding is not None
        return cls(
            len(files),
            dataclasses.replace(totals, named=[]),
            embedding.maker,
            embedding.width,
            embedding.dtype,
            header.tokens.method,
            [(file.header.shard.url, *line) for file in files for line in file.header.totals.named],
            sparse(totals),
            unread_of(files),
        )

    def lines(self) -> list[str]:
        """The summary."""
        maker, totals = self.embedder, self.totals
        return [
            f"embedded {totals.docs:,} of {totals.rows:,} documents in {self.shards:,} shards with {maker.model}",
            f"vectors of {self.width:,} numbers ({self.dtype}): {maker.pooling} over layer {maker.layer}, "
            f"{maker.max_tokens:,} tokens of a text at most",
            f"tokens {totals.tokens:,}, {self.tokens}",
            *self.notes,
            *without_score(totals, _UNSCORED, self.skipped, [], "vector"),
            *left_out(self.unread),
        ]


@dataclass(frozen=True, slots=True)
class _Embedding:
    """Annotates documents with vectors."""

    options: EmbedderOptions
    dtype: str
    reading: Reading
    counter: TokenCounter
    paths: tuple[str, ...] = ()
    is_slow: bool = True

    def annotate(self, batch: PoolBatch, tokens: Tokens) -> Rows:
        """The rows of a batch; NaN where a document is empty, or has no tokens."""
        vectors = embedder_of(self.options).embed(strings(batch.text))
        return _rows_with(self._narrowed(vectors), batch, tokens, self.reading)

    def _narrowed(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        if np.fmax.reduce(np.abs(vectors), axis=None, initial=0) > np.finfo(self.dtype).max:
            raise UserError(f"model {self.options.model}: its vectors exceed {self.dtype}; pass --dtype float32")
        return vectors.astype(self.dtype)


def embed(run: EmbedRun, execution: Execution) -> EmbedReport | Forecast:
    """Embed the pool into `run.output`, where finished shards of the same run are kept."""
    refuse_unread(run)
    if not run.embedder.model:
        raise UserError("no model; name a sentence encoder or a causal language model with --model")
    shards = expand(run.pool)
    check_fields(shards, named_fields(run.reading, run.counting.tokens_field))
    if execution.dry_run:
        return forecast(shards, run.reading, dump("embed", run))
    options, reading = run.embedder, run.reading
    embedding = None if execution.overwrite else _existing(run.output, shards)
    embedding = embedding or _described(options, run.dtype)
    with working_in(run.output, dump("embed", run), execution.overwrite, files_named(run)):
        counter = token_counter(run.counting, reading, Sampling(), shards, execution)
        workers = execution.workers or options.processes_for(embedded=False)
        if workers > 1:
            forget_embedder()
        task = _Embedding(options, run.dtype, reading, counter)
        header = _header(embedding, reading, counter)
        files = write_beside(shards, task, header, run.output, workers, "embedding")
        report = EmbedReport.of(files)
        write_json(report, join(run.output, REPORT))
    return report


@dataclass(frozen=True, slots=True)
class _Given:
    """Annotates documents, whose ids are rows of the vectors, with these."""

    vectors: Vectors
    reading: Reading
    counter: TokenCounter = BUILT_IN
    paths: tuple[str, ...] = ()
    is_slow: bool = False

    def annotate(self, batch: PoolBatch, tokens: Tokens) -> Rows:
        """The rows of a batch."""
        ids = batch.documents.fields[self.reading.id_field]
        values = self.vectors.values[[int(ids[row]) for row in range(len(batch))]]
        return _rows_with(values, batch, tokens, self.reading)


def keep(vectors: Vectors, pool: str, reading: Reading, folder: str) -> None:
    """Write vectors that are known already as `embed` writes those that it makes.

    pool: a folder of shards, whose documents' ids are rows of the vectors.
    """
    embedding = Embedding(vectors.values.shape[1], str(vectors.values.dtype), vectors.maker)
    embedder = vectors.maker.chosen_in(EmbedderOptions())
    run = EmbedRun(embedder=embedder, pool=(pool,), dtype=embedding.dtype, output=folder, reading=reading)
    with working_in(folder, dump("embed", run), overwrite=False):
        header = _header(embedding, reading, BUILT_IN)
        write_beside(expand([pool]), _Given(vectors, reading), header, folder, 1, "")


def _rows_with(values: npt.NDArray[np.floating], batch: PoolBatch, tokens: Tokens, reading: Reading) -> Rows:
    """The rows of a batch with their vectors, NaN for none."""
    lacks = (batch.status == Status.SCORED) & np.isnan(values).any(axis=1)
    status = np.where(lacks, Status.UNSCORED, batch.status).astype(np.uint8)
    rows = rows_of(batch, tokens, np.empty((len(batch), 0), np.float32), status, reading)
    return dataclasses.replace(rows, vectors=values)


def _existing(folder: str, shards: Sequence[Shard]) -> Embedding | None:
    """The embedding of an earlier start's files if all of them are there: then no model is loaded."""
    places = [row_file(folder, shard) for shard in shards]
    return ScoreFile(places[0]).header.embedding if places and all(map(exists, places)) else None


def _described(options: EmbedderOptions, dtype: str) -> Embedding:
    """The embedding that the files will hold. Loads the model and tries it out."""
    embedder = embedder_of(options)
    return Embedding(embedder.width, dtype, embedder.maker)


def _header(embedding: Embedding, reading: Reading, counter: TokenCounter) -> Header:
    made = {name: value for name, value in dataclasses.asdict(embedding.maker).items() if name != "model"}
    content = json.dumps([made, embedding.dtype], sort_keys=True)
    return Header(
        version=__version__,
        scorer=f"embed {embedding.maker.model}",
        fingerprint=xxhash.xxh3_128_hexdigest(content.encode()),
        groups=("",),
        shares=(1.0,),
        selector="",
        unscored=_UNSCORED,
        reading=among(ReadingRecord, reading),
        tokens=counter,
        embedding=embedding,
    )
