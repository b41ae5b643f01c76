"""How the rows of a pool's score files compete: their keys, their costs, and whose budget each draws on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dvsel.budgets.exact_cut import Chunk, Cut
from dvsel.budgets.quota import Quota
from dvsel.documents.columns import Status
from dvsel.documents.hashing import mix, uniform
from dvsel.errors import UserError
from dvsel.interface import checked
from dvsel.interface.checked import NO_NOISE
from dvsel.interface.selector import Selector, SetSelector
from dvsel.score_files.find import check_distinct
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import COLUMNS, Rows
from dvsel.selection.dedup import Drops


@dataclass(frozen=True)
class Rule:
    """How rows compete: the selector's keys, the budget's unit, and whose budget a row draws on.

    cuts: those found so far, one a group; a row that an earlier group keeps is out of the later ones' reach.
    keys: of all rows of the pool, float32, where the selector sees the whole set.
    offset: number of the rule's first stratum, where the cuts of several rules are found together.
    """

    selector: Selector
    seed: int
    unit: str
    quota: Quota | None
    drops: Drops | None = None
    cuts: tuple[Cut, ...] = ()
    keys: npt.NDArray[np.float32] | None = None
    offset: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of score files that decide."""
        cost = () if self.unit == "docs" else (self.unit,)
        return ("key", *cost, *(("domain",) if self.quota else ()))

    def chunk(self, rows: Rows, first: int, group: int) -> Chunk:
        """The rows as competitors for the group's budgets; first: the position of the first in the whole pool."""
        stratum = self._stratum(rows, first)
        for earlier in range(group):
            stratum[self.cuts[earlier].keep(self._compete(rows, first, earlier, stratum))] = -1
        return self._compete(rows, first, group, stratum)

    def keep(self, rows: Rows, first: int) -> npt.NDArray[np.bool_]:
        """bool (n,): which rows any group keeps."""
        stratum = self._stratum(rows, first)
        kept = self.cuts[0].keep(self._compete(rows, first, 0, stratum))
        for group, found in enumerate(self.cuts[1:], 1):
            stratum[kept] = -1
            kept |= found.keep(self._compete(rows, first, group, stratum))
        return kept

    def _compete(self, rows: Rows, first: int, group: int, stratum: npt.NDArray[np.int32]) -> Chunk:
        return Chunk(first, self._key(rows, first, group), mix(rows.key, self.seed), self.cost(rows), stratum)

    def _key(self, rows: Rows, first: int, group: int) -> npt.NDArray[np.float32]:
        if self.keys is not None:
            return self.keys[first : first + len(rows)]
        noise = np.broadcast_to(NO_NOISE, len(rows))
        if self.selector.noisy:
            noise = uniform(rows.key, self.seed + group)
        return checked.keys(self.selector, rows.score[:, group], noise)

    def competes(self, rows: Rows, first: int) -> npt.NDArray[np.bool_]:
        """bool (n,): which rows have a score, and a budget to draw on."""
        scored: npt.NDArray[np.bool_] = rows.status == Status.SCORED
        return scored & (self._stratum(rows, first) >= 0)

    def weights(self, rows: Rows, first: int, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """The weights of the rows that are kept."""
        selector = self.selector
        assert isinstance(selector, SetSelector)
        stratum = self._stratum(rows, first)[kept] - self.offset
        threshold = self.cuts[0].threshold[stratum]
        return checked.weights(selector, self._key(rows, first, 0)[kept], uniform(rows.key, self.seed)[kept], threshold)

    def cost(self, rows: Rows) -> npt.NDArray[np.int64]:
        """int64 (n,): what each row costs, in the unit."""
        if self.unit == "docs":
            return np.ones(len(rows), np.int64)
        return (rows.tokens if self.unit == "tokens" else rows.bytes).astype(np.int64)

    def _stratum(self, rows: Rows, first: int) -> npt.NDArray[np.int32]:
        stratum = np.full(len(rows), self.offset, np.int32)
        if self.quota:
            of_domain = self.quota.stratum(rows.domains)
            stratum = np.where(of_domain < 0, -1, of_domain + self.offset).astype(np.int32)[rows.domain]
        if self.drops is not None:
            stratum[self.drops[first : first + len(rows)]] = -1
        return stratum


@dataclass(frozen=True)
class Pool:
    """Score files of one fit, in the order of their shards' names, and where each one's rows begin."""

    files: list[ScoreFile]
    first: list[int]

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> Pool:
        """Check that the files go together."""
        if not files:
            raise UserError("no score files; make them with `dvsel score`")
        for file in files[1:]:
            _check_together(files[0], file)
        check_distinct(files)
        files = sorted(files, key=lambda file: file.header.shard.name)
        return cls(files, [0, *np.cumsum([len(file) for file in files]).tolist()])

    def chunks(self, rules: Sequence[Rule], group: int) -> list[Iterator[Chunk]]:
        """A pass over all rows, a part for each file; each rule sees them as chunks of its own."""
        columns = rules[0].columns
        return [
            (rule.chunk(rows, at, group) for rows, at in self.rows(number, columns) for rule in rules)
            for number in range(len(self.files))
        ]

    def rows(self, number: int, columns: Sequence[str] = COLUMNS) -> Iterator[tuple[Rows, int]]:
        """The rows of one file, with the position of the first of them."""
        at = self.first[number]
        for rows in self.files[number].rows(columns):
            yield rows, at
            at += len(rows)

    def total(self, unit: str) -> int:
        """Tokens, docs or bytes of all documents that have a score."""
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
