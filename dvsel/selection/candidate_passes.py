"""Passes over a pool for a rule that sees the whole set: score files, their embeddings, and the keys that it fills."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dvsel.documents.hashing import mix, uniform
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.neighbours import unit
from dvsel.embeddings.vector_source import VectorSource
from dvsel.errors import UserError
from dvsel.interface.candidates import Part
from dvsel.pool.read import TARGET_FLAG
from dvsel.pool.sources import documents_in
from dvsel.runs.requests import Reading
from dvsel.score_files.find import row_files
from dvsel.score_files.header import Embedding
from dvsel.score_files.reader import ScoreFile, VectorReader
from dvsel.score_files.rows import Rows
from dvsel.selection.ranking import Rule
from dvsel.selection.scored_pool import Pool
from dvsel.storage.scratch import mapped

_AT_ONCE = 1 << 12  # rows, so that their vectors are few


def matching_vector_files(pool: Pool, sources: Sequence[str]) -> list[ScoreFile]:
    """Return the file of embeddings of each of the pool's files, in their order.

    sources: folders that `dvsel embed` wrote; empty where the pool's own files hold vectors. Raises UserError where a
    shard's vectors are missing, are of other content, or were made in different ways.
    """
    files = pool.files if not sources else [ScoreFile(url) for source in sources for url in row_files(source)]
    if without := [file for file in files if file.header.embedding is None]:
        raise UserError(
            f"{without[0].url} holds no vectors, which this method looks at; make them with "
            "`dvsel embed POOL --model MODEL -o emb/`, and name them with --embeddings emb/"
        )
    by_shard: dict[str, ScoreFile] = {}
    for file in files:
        if (other := by_shard.setdefault(file.header.shard.url, file)) is not file:
            raise UserError(f"{other.url} and {file.url} hold vectors of the same shard; name one of them")
    matching = [_of(file, by_shard.get(file.header.shard.url)) for file in pool.files]
    first = matching[0]
    for other in matching[1:]:
        _embedding(first).maker.check_same(_embedding(other).maker, first.url, other.url)
    return matching


def _of(file: ScoreFile, vectors: ScoreFile | None) -> ScoreFile:
    if vectors is None:
        raise UserError(f"{file.header.shard.url}: has scores and no vectors in --embeddings; embed it too")
    if vectors.header.shard.digest != file.header.shard.digest or len(vectors) != len(file):
        raise UserError(f"{file.header.shard.url}: changed between scoring and embedding; do both again")
    return vectors


def _embedding(file: ScoreFile) -> Embedding:
    assert file.header.embedding is not None
    return file.header.embedding


class Survey:
    """The `dvsel.interface.candidates.Candidates` of a pool of score files.

    rule: decides which rows compete, at what cost. limit: the budget in the rule's unit, None for none. embeddings:
    the files with vectors beside the pool's, or none. reading: of other documents that the rule names.
    """

    def __init__(
        self,
        pool: Pool,
        rule: Rule,
        limit: int | None,
        embeddings: Sequence[ScoreFile],
        scratch: Path,
        reading: Reading,
    ) -> None:
        self.count = pool.first[-1]
        self.docs, self.cost = pool.total("docs"), pool.total(rule.unit)
        self.limit = limit
        self.groups = pool.files[0].header.groups
        self.seed = rule.seed
        self.scratch = scratch
        self.keys: npt.NDArray[np.float32] = mapped(scratch / "keys", np.float32, (max(self.count, 1),), np.nan)
        self._pool, self._rule, self._embeddings, self._reading = pool, rule, embeddings, reading

    def parts(self, vectors: bool = False) -> Iterator[Part]:
        """Start a pass over all documents, in order."""
        columns = tuple(dict.fromkeys((*self._rule.columns, "status")))
        for number in range(len(self._pool.files)):
            reader = VectorReader(self._embeddings[number].url) if vectors else None
            for rows, first in self._pool.rows(number, columns):
                for begin in range(0, len(rows), _AT_ONCE):
                    yield self._part(rows.part(begin, begin + _AT_ONCE), first + begin, reader)

    def _part(self, rows: Rows, first: int, reader: VectorReader | None) -> Part:
        count = len(rows)
        vectors = np.empty((count, 0), np.float32)
        if reader is not None:
            taken = reader.take(count)
            assert taken is not None
            vectors = unit(taken.values)
        return Part(
            first,
            rows.score,
            mix(rows.key, self.seed),
            uniform(rows.key, self.seed),
            self._rule.cost(rows),
            self._rule.competes(rows, first),
            vectors,
        )

    def embedded(self, patterns: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed other documents as the pool was: float32 (m, width) of unit length."""
        if not self._embeddings:
            raise UserError(f"{patterns[0]}: no embeddings to compare it with; name some with --embeddings emb/")
        source = VectorSource(EmbedderOptions(), _embedding(self._embeddings[0]).maker)
        vectors = unit(source.all_of(documents_in(patterns, self._reading, text_flag=TARGET_FLAG)))
        vectors = vectors[np.isfinite(vectors).all(axis=1)]
        if not len(vectors):
            raise UserError(f"{patterns[0]}: holds no document with a vector; check the file")
        return vectors
