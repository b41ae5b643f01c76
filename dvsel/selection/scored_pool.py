"""Score files that are selected from as one pool of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dvsel.budgets.exact_cut import Chunk
from dvsel.errors import UserError
from dvsel.score_files.find import check_distinct
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import COLUMNS, Rows
from dvsel.selection.ranking import Rule


@dataclass(frozen=True)
class Pool:
    """Score files of one fit, in the order of their shards' names. first: where each one's rows begin in the pool."""

    files: list[ScoreFile]
    first: list[int]

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> Pool:
        """Open a pool of files. Raises UserError where they do not go together."""
        if not files:
            raise UserError("no score files; make them with `dvsel score`")
        for file in files[1:]:
            _check_together(files[0], file)
        check_distinct(files)
        files = sorted(files, key=lambda file: file.header.shard.name)
        return cls(files, [0, *np.cumsum([len(file) for file in files]).tolist()])

    def chunks(self, rules: Sequence[Rule], group: int) -> list[Iterator[Chunk]]:
        """Start a pass over all rows, a part for each file; each rule sees them as chunks of its own."""
        columns = rules[0].columns
        return [
            (rule.chunk(rows, at, group) for rows, at in self.rows(number, columns) for rule in rules)
            for number in range(len(self.files))
        ]

    def rows(self, number: int, columns: Sequence[str] = COLUMNS) -> Iterator[tuple[Rows, int]]:
        """Yield the rows of one file, with the position of the first of them in the pool."""
        at = self.first[number]
        for rows in self.files[number].rows(columns):
            yield rows, at
            at += len(rows)

    def total(self, unit: str) -> int:
        """Sum the tokens, docs or bytes of all documents that have a score."""
        return sum(int(getattr(file.header.totals, unit)) for file in self.files)


def _check_together(one: ScoreFile, other: ScoreFile) -> None:
    a, b = one.header, other.header
    if (a.embedding is None) != (b.embedding is None):
        raise UserError(
            f"of {one.url} and {other.url} one holds scores and one vectors; name the vectors with --embeddings"
        )
    if a.fingerprint != b.fingerprint:
        raise UserError(
            f"{one.url} and {other.url} hold scores of two different fits ({a.scorer} {a.fingerprint[:8]}, "
            f"{b.scorer} {b.fingerprint[:8]}); score all shards with one --fitted FILE"
        )
    if a.tokens != b.tokens:
        raise UserError(
            f"{one.url} and {other.url} count tokens in different ways; score all shards with the same options"
        )
