"""Score a part of the pool with an expensive scorer, and let a bandit choose which part.

After Quad (Zhang et al. 2024, "Harnessing Diversity for Important Data Selection in Pretraining Large Language
Models"): the pool's embeddings are clustered, clusters are arms, and scoring goes round by round to those whose upper
confidence bound is highest. Quad's reward is a document's mean influence; here it is whether a document is among the
best, half as many as may be scored, since it is these that a selection wants. The bound is that of a Beta posterior:
its mean and `_OPTIMISM` standard deviations.

Within a cluster documents are drawn at random, so what is scored tells what the rest would be. From this comes the
estimate of how many of the best were found.

    arms             the cluster of each document, int32, in the order of files and rows
    rounds/00000/    the documents of a round, as shards, and beside them their scores

A round that is whole is not done again, and one that was interrupted goes on. All of it is removed at the end.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Status
from dvsel.documents.hashing import mix, uniform
from dvsel.embeddings.clusters import assign
from dvsel.embeddings.neighbours import unit
from dvsel.embeddings.partition import Members, cells_for, centres_of
from dvsel.errors import UserError
from dvsel.pool.annotate import Annotator, row_file, write_beside
from dvsel.pool.new_shards import json_lines, named_shards
from dvsel.pool.read import PoolReader
from dvsel.progress import step, stopped_in, tell
from dvsel.runs.output_folder import STEPS
from dvsel.runs.requests import ScoreRun
from dvsel.score_files.find import suffix_in
from dvsel.score_files.header import Header, ShardIdentity
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.selection.scored_pool import Pool
from dvsel.shards.expand import expand
from dvsel.storage.manifest import home, record
from dvsel.storage.places import Shard, exists, join, local_path, make_folder, remove, write_file
from dvsel.storage.scratch import mapped

ROUNDS = 16
UNSCORED = "not scored: --adaptive spent its share on others"

_AN_ARM = 256  # documents, where the user leaves the number of arms open
_FIRST = 0.25  # of what may be drawn: the first round, which takes all arms alike
_WANTED = 0.5  # of the share: the documents that are looked for
_FAVOURED = 8  # one arm in so many is drawn from in a round
_OPTIMISM = 1.0  # standard deviations
_PRIOR = 10.0  # draws that the prior counts as
_OTHER_DRAW = 2  # added to the seed: not the documents that the fit saw
_SHARD = 1 << 20  # bytes of a shard of a round

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Arms:
    """The bandit: how much of each arm is drawn, and what that was worth.

    sizes: int64 (k,), documents of each arm. share: of all documents that may be drawn. wanted: share of
    all documents that are looked for.
    """

    def __init__(self, sizes: Counts, share: float) -> None:
        self.sizes = sizes
        self.drawn = np.zeros(len(sizes))  # the part of each arm that is drawn, 0 to 1
        self._budget = share * float(sizes.sum())
        self.wanted = share * _WANTED
        self._left = ROUNDS
        self._scores: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32) for _ in sizes]

    def draw(self) -> Floats:
        """The parts of each arm to draw next, up to which, (k,): documents whose uniform number lies between."""
        spent = float(self.drawn @ self.sizes)
        if not spent:
            self.drawn = self._evenly(self._budget * _FIRST)
        else:
            self.drawn = self._by_bound(max(self._budget - spent, 0.0) / max(self._left, 1))
        self._left -= 1
        return self.drawn

    def _evenly(self, batch: float) -> Floats:
        return np.minimum(batch / len(self.sizes) / np.maximum(self.sizes, 1), 1.0)

    def _by_bound(self, batch: float) -> Floats:
        drawn = self.drawn.copy()
        cap = batch / max(len(self.sizes) // _FAVOURED, 1)
        for arm in np.argsort(-self.bounds(), kind="stable").tolist():
            take = min(cap, (1 - drawn[arm]) * self.sizes[arm], batch)
            drawn[arm] += take / max(self.sizes[arm], 1)
            batch -= take
            if batch <= 0:
                break
        return np.minimum(drawn, 1.0)

    def learn(self, arm: npt.NDArray[np.integer], score: npt.NDArray[np.float32]) -> None:
        """Take the scores of drawn documents into account; NaN is worth nothing."""
        if not len(arm):
            return
        score = np.where(np.isnan(score), -np.inf, score).astype(np.float32)
        order = np.argsort(arm, kind="stable")
        numbers, first = np.unique(arm[order], return_index=True)
        for number, part in zip(numbers.tolist(), np.split(score[order], first[1:]), strict=True):
            self._scores[number] = np.concatenate([self._scores[number], part])

    def bounds(self) -> Floats:
        """The upper confidence bound of each arm, (k,): of the share of its documents that are among the wanted."""
        _, draws, mean = self._posterior()
        return mean + _OPTIMISM * np.sqrt(mean * (1 - mean) / (draws + _PRIOR + 1))

    def _posterior(self) -> tuple[Floats, Floats, Floats]:
        """Per arm, (k,): wanted documents drawn, documents drawn, and the posterior mean of the wanted share."""
        least = self._least()
        hits = np.array([float((scores >= least).sum()) for scores in self._scores])
        draws = np.array([float(len(scores)) for scores in self._scores])
        return hits, draws, (hits + _PRIOR * self.wanted) / (draws + _PRIOR)

    def _least(self) -> float:
        """The score from which on a document is wanted: a quantile of the pool's, each draw standing for its like."""
        score = np.concatenate(self._scores)
        if not len(score):
            return math.inf
        stands_for = [size / max(len(scores), 1) for size, scores in zip(self.sizes, self._scores, strict=True)]
        weight = np.repeat(stands_for, [len(scores) for scores in self._scores])
        order = np.argsort(-score, kind="stable")
        reached = np.searchsorted(np.cumsum(weight[order]), self.wanted * weight.sum())
        return float(score[order[min(reached, len(order) - 1)]])

    def found(self) -> float:
        """An estimate of the share of the wanted documents that was drawn."""
        hits, draws, mean = self._posterior()
        missed = float(mean @ np.maximum(self.sizes - draws, 0))
        return float(hits.sum()) / max(float(hits.sum()) + missed, 1e-9)


def score_part(
    run: ScoreRun,
    shards: Sequence[Shard],
    scoring: Annotator,
    header: Header,
    workers: int,
    share: float,
) -> tuple[list[ScoreFile], list[str]]:
    """Score files of the whole pool, in which what was not scored has NaN; and what the summary should say.

    share: of the documents that may be scored.
    """
    folder = join(home(run.output), f"{STEPS}/adaptive")
    make_folder(folder)
    shards = sorted(shards, key=lambda shard: shard.name)  # the order of a pool's files
    pool, done = Pool.of([ScoreFile(shard.vectors) for shard in shards]), local_path(folder) / "notes.json"
    _check_alike(pool, header)
    places = [row_file(run.output, shard) for shard in shards]
    if done.exists() and all(map(exists, places)):
        return [ScoreFile(place) for place in places], json.loads(done.read_text())
    record(run.output, [shard.name + suffix_in(run.output) for shard in shards])
    tell("finding clusters")
    arm = _arms(pool, run, local_path(folder) / "arms")
    sizes = np.bincount(arm[arm >= 0], minlength=int(arm.max(initial=0)) + 1)
    arms = Arms(sizes, share)
    scores = mapped(local_path(folder) / "scores", np.float32, (max(len(arm), 1), len(header.groups)), np.nan)
    before, drawn = np.zeros(len(sizes)), 0
    for number in range(ROUNDS):
        until = arms.draw()
        chosen = _between(pool, arm, before, until, run.sampling.seed)
        place, name = join(folder, f"rounds/{number:05}"), f"round {number + 1} of {ROUNDS}"
        with step(name), stopped_in(name):
            found = _score_round(pool, shards, chosen, run, scoring, header, workers, place)
        scores[chosen] = found
        arms.learn(arm[chosen], np.fmax.reduce(found, axis=1))
        before, drawn = until.copy(), drawn + len(chosen)
    files = [_write(pool, number, shards[number], scores, header, run.output) for number in range(len(shards))]
    notes = _notes(arms, drawn, int(sizes.sum()))
    done.write_text(json.dumps(notes))
    for name in ("arms", "rounds", "scores"):
        remove(join(folder, name))
    return files, notes


def _check_alike(pool: Pool, header: Header) -> None:
    """Raise UserError unless the embeddings were counted and read with the run's options."""
    for file in pool.files:
        there, fields = file.header, ("text_field", "id_field", "domain_field")
        counted = there.tokens == header.tokens
        if not counted or any(getattr(there.reading, name) != getattr(header.reading, name) for name in fields):
            raise UserError(
                f"{file.url}: tokens were counted, or fields named, otherwise; --adaptive takes them from the "
                "embeddings, so drop these options, or embed with them"
            )


def _notes(arms: Arms, drawn: int, count: int) -> list[str]:
    return [
        f"adaptive: scored {drawn:,} of {count:,} documents, {drawn / max(count, 1):.1%}, in {ROUNDS} rounds over "
        f"{len(arms.sizes):,} clusters, and saved the others' cost",
        f"of the best {arms.wanted:.1%} of the pool an estimated {arms.found():.1%} were scored; a random "
        f"draw would have scored {drawn / max(count, 1):.1%}",
    ]


def _arms(pool: Pool, run: ScoreRun, place: Path) -> npt.NDArray[np.int32]:
    """The cluster of each document, int32 (n,), -1 for one without a vector."""
    count = pool.first[-1]
    if place.exists() and place.stat().st_size == 4 * count:
        return np.fromfile(place, np.int32)
    arm = np.full(count, -1, np.int32)
    wanted = run.scoring.adaptive_clusters or max(cells_for(count, _AN_ARM), 2)
    centres = centres_of(lambda: _members(pool, run.sampling.seed), count, wanted, run.sampling.seed)
    for members in _members(pool, run.sampling.seed):
        arm[members.position] = assign(members.vectors, centres)[0]
    write_file(str(place), arm.tobytes())
    return arm


def _rows(pool: Pool, columns: tuple[str, ...]) -> Iterator[tuple[Rows, int]]:
    """All rows, with the position of the first of them."""
    return itertools.chain.from_iterable(pool.rows(number, columns) for number in range(len(pool.files)))


def _members(pool: Pool, seed: int) -> Iterator[Members]:
    """The rows that have a vector."""
    for rows, first in _rows(pool, ("key", "status", "vector")):
        there = np.flatnonzero(rows.status == Status.SCORED)
        tie, ones = mix(rows.key[there], seed), np.ones(len(there), np.int64)
        yield Members(first + there, tie, ones, rows.score[there, 0], unit(rows.vectors[there]))


def _between(pool: Pool, arm: npt.NDArray[np.int32], low: Floats, high: Floats, seed: int) -> Counts:
    """The positions of the documents whose number lies above `low` of their arm, and no higher than `high`."""
    found = []
    for rows, first in _rows(pool, ("key",)):
        own = arm[first : first + len(rows)]
        number = uniform(rows.key, seed + _OTHER_DRAW)
        found.append(first + np.flatnonzero((own >= 0) & (number > low[own]) & (number <= high[own])))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _score_round(
    pool: Pool,
    shards: Sequence[Shard],
    chosen: Counts,
    run: ScoreRun,
    scoring: Annotator,
    header: Header,
    workers: int,
    place: str,
) -> npt.NDArray[np.float32]:
    """The scores of the chosen documents, float32 (n, groups)."""
    documents, mark = join(place, "documents"), join(place, "whole")
    if not len(chosen):
        return np.empty((0, len(header.groups)), np.float32)
    if not exists(mark):
        remove(documents)
        for name, content in named_shards(_lines(pool, shards, chosen, run, scoring.paths), _SHARD):
            write_file(join(documents, name), content)
        write_file(mark, b"")
    files = write_beside(expand([documents]), scoring, header, join(place, "scores"), workers, "scoring")
    return np.concatenate([rows.score for file in files for rows in file.rows(())])


def _lines(
    pool: Pool, shards: Sequence[Shard], chosen: Counts, run: ScoreRun, needs: tuple[str, ...]
) -> Iterator[bytes]:
    """The chosen documents, with the fields that the scorer needs."""
    paths = tuple(dict.fromkeys((*run.reading.text_fields, run.reading.id_field, *needs)))
    for number, shard in enumerate(shards):
        mine = chosen[(chosen >= pool.first[number]) & (chosen < pool.first[number + 1])] - pool.first[number]
        if not len(mine):
            continue
        plain = dataclasses.replace(shard, vectors="")
        with PoolReader(plain, run.reading, paths) as documents:
            for batch in documents:
                begin = batch.documents.first_row
                rows = mine[(mine >= begin) & (mine < begin + len(batch))] - begin
                fields = {path: batch.documents.fields[path] for path in paths}
                whole = batch.documents.lines  # by which a document without an id is known
                yield from json_lines(fields, rows) if whole is None else (whole[row] + b"\n" for row in rows)


def _write(
    pool: Pool, number: int, shard: Shard, scores: npt.NDArray[np.float32], header: Header, folder: str
) -> ScoreFile:
    """The score file of one shard: what its embeddings say of its rows, and the scores."""
    there, place = pool.files[number].header, row_file(folder, shard)
    header = dataclasses.replace(
        header, shard=ShardIdentity.of(shard), tokens=there.tokens, unscored=UNSCORED, unread=there.unread
    )
    with ScoreFileWriter(place, header) as writer:
        for rows, first in pool.rows(number):
            mine = np.asarray(scores[first : first + len(rows)])
            lacks = (rows.status == Status.SCORED) & np.isnan(mine).all(axis=1)
            status = np.where(lacks, Status.UNSCORED, rows.status).astype(np.uint8)
            bad = _named(there, first - pool.first[number], status)
            writer.append(dataclasses.replace(rows, score=mine, status=status), bad)
        writer.count_absent(there.totals.absent)
        writer.finish(there.shard.digest)
    return ScoreFile(place)


def _named(header: Header, first: int, status: npt.NDArray[np.uint8]) -> dict[int, str]:
    """The cause of each bad line, by row: those that the embeddings' file still names, the others without one."""
    known = {line - 1 - first: cause for line, cause in header.totals.named}
    rows = np.flatnonzero(status == Status.BAD_LINE).tolist()
    return {row: known.get(row, "skipped when it was embedded") for row in rows}
