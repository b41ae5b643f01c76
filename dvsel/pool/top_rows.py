"""Rows of score files with the highest or the lowest scores, and their documents.

Equal scores rank by the documents' keys: the same documents are found however the pool is cut into shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from dvsel.pool.locate import Relocated, reading_of, unchanged_shard
from dvsel.pool.read import TEXT_FLAG, PoolBatch, PoolReader
from dvsel.runs.requests import Reading
from dvsel.score_files.reader import ScoreFile
from dvsel.storage.places import Shard

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TopRows:
    """Rows of some score files in the order of their rank.

    score: float32 (k,). key: uint64 (k,). file: int64 (k,), the number of the file. row: int64 (k,), its row there.
    """

    score: npt.NDArray[np.float32]
    key: npt.NDArray[np.uint64]
    file: Positions
    row: Positions

    @classmethod
    def none(cls) -> TopRows:
        """Return no rows."""
        return cls(np.zeros(0, np.float32), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))

    def with_more(self, more: TopRows, count: int, sign: int) -> TopRows:
        """Return the first `count` rows of both. sign: 1 where the highest rank first, -1 where the lowest do."""
        both = [np.concatenate([getattr(self, one.name), getattr(more, one.name)]) for one in fields(self)]
        order = np.lexsort((both[1], -sign * both[0]))[:count]
        return TopRows(*(column[order] for column in both))


def top_rows(
    files: Sequence[ScoreFile], count: int, groups: Sequence[int] = (0,), lowest: bool = False
) -> list[TopRows]:
    """Find the rows of each group with the highest scores, or the lowest: `count`, or as many as have one."""
    tops, sign = [TopRows.none() for _ in groups], -1 if lowest else 1
    for number, file in enumerate(files):
        first = 0
        for rows in file.rows(("key",)):
            for place, group in enumerate(groups):
                score, top = rows.score[:, group], tops[place]
                # Few rows of a large pool reach the lowest score that is still in: only these are sorted.
                bar = sign * top.score[-1] if 0 < count <= len(top.score) else -np.inf
                at = np.flatnonzero(np.isfinite(score) & (sign * score >= bar))
                found = TopRows(score[at], rows.key[at], np.full(len(at), number), first + at)
                tops[place] = top.with_more(found, count, sign)
            first += len(rows)
    return tops


def documents_of(
    files: Sequence[ScoreFile], tops: Sequence[TopRows], places: Relocated | None = None, needs: Sequence[str] = ()
) -> Iterator[tuple[int, int, PoolBatch, int]]:
    """Yield the documents of these rows, each once: file, row, and the batch that holds it with its row there.

    places: where shards lie that are not where they were scored. needs: fields that batches have beside the reading's.
    Raises UserError for a shard that is not what was scored.
    """
    for number, file in enumerate(files):
        wanted = np.unique(np.concatenate([top.row[top.file == number] for top in tops]))
        if len(wanted):
            shard, reading = unchanged_shard(file, places), reading_of(file)
            for row, batch, at in read_rows(shard, reading, wanted, needs):
                yield number, row, batch, at


def read_rows(
    shard: Shard, reading: Reading, wanted: Positions | None, needs: Sequence[str] = (), flag: str = TEXT_FLAG
) -> Iterator[tuple[int, PoolBatch, int]]:
    """Yield rows of a shard with the batch that holds each and its row there.

    wanted: the rows, ascending; None for all. flag: the option that names the field of the text, for errors.
    """
    with PoolReader(shard, reading, needs, text_flag=flag) as pool:
        for batch in pool:
            begin = batch.documents.first_row
            rows = np.arange(begin, begin + len(batch))
            if wanted is not None:
                rows = wanted[(wanted >= begin) & (wanted < begin + len(batch))]
            yield from ((row, batch, row - begin) for row in rows.tolist())
            if wanted is not None and begin + len(batch) > wanted[-1]:
                return
