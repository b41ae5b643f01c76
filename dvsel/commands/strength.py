"""Predictive strength: how well a document's losses order the models of a ladder (Shum et al. 2025, section 2.2).

pairs, the paper's: of all pairs of a weaker and a stronger model by benchmark score, the share in which the stronger
one has the lower loss,

    S = (number of pairs i < j with C_i > C_j) / Z,

C being bits per character and Z the number of pairs; S lies in [0, 1]. Models of equal benchmark score form no pair.
Equal losses are not in order.

spearman: the rank correlation of minus the loss with the benchmark score, in [-1, 1]; equal values share the mean of
their ranks. It is 0 where all losses are equal.

Losses are read from the score files of `dvsel losses`. Strengths go into score files of the same shards, so that
`dvsel select` and `dvsel inspect` take them. A document that some model gives no loss has no strength.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from dvsel import __version__
from dvsel.documents.columns import Status
from dvsel.errors import UserError
from dvsel.linalg.ranks import average_ranks, centred, cosine
from dvsel.options import files_named, option
from dvsel.progress import Done, tell
from dvsel.runs.ladder import Ladder
from dvsel.runs.output_folder import REPORT, working_in
from dvsel.runs.recipe import dump
from dvsel.runs.report import without_score, write_json
from dvsel.runs.requests import Execution
from dvsel.score_files.find import SUFFIXES
from dvsel.score_files.header import Header
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows, Totals
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.storage.manifest import record
from dvsel.storage.places import find, join

STRENGTHS = ("pairs", "spearman")
UNSCORED = "a model of the ladder gives them no loss"
_BINS = 20  # of correlations, and lines of the summary at most
_WIDTH = 40
_NO_ROWS = Rows(0, np.empty((0, 1), np.float32))

Scores = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class StrengthRun:
    """Say of every document how well its losses order the models of a ladder."""

    pool: tuple[str, ...] = option((), "the folder that `dvsel losses` wrote", files=True)
    ladder: str = option("", "YAML file of models and their benchmark scores", files=True)
    strength: str = option(
        "pairs",
        "pairs: share of the pairs of models that are in order, as the paper; spearman: rank correlation",
        choices=STRENGTHS,
    )
    output: str = option("", "folder to write score files to")


@dataclass(frozen=True)
class StrengthReport:
    """Report of `dvsel strength`.

    models: the weakest first. pairs: Z. values, documents: the distribution; each value that there can be, or for
    correlations where each bin begins, and how many documents have it. in_order: documents whose losses order all
    pairs. tied: documents with equal losses in some pair.
    """

    strength: str
    fingerprint: str
    models: list[str]
    pairs: int
    values: list[float]
    documents: list[int]
    in_order: int
    tied: int
    totals: Totals

    def lines(self) -> list[str]:
        """The summary."""
        total = self.totals.docs
        lines = [
            f"strength ({self.strength}) of {total:,} of {self.totals.rows:,} documents, "
            f"from {len(self.models)} models in {self.pairs} pairs",
            *self._bars(),
            f"all pairs in order: {self.in_order:,} documents{_share(self.in_order, total)}",
            f"equal losses in some pair: {self.tied:,} documents{_share(self.tied, total)}",
        ]
        return lines + without_score(self.totals, UNSCORED, [], [])

    def _bars(self) -> list[str]:
        step = -(-len(self.values) // (_BINS + 1))
        counts = [sum(self.documents[at : at + step]) for at in range(0, len(self.values), step)]
        most = max([*counts, 1])
        rows = zip(self.values[::step], counts, strict=True)
        return [f"{value:8.3f}  {'█' * round(_WIDTH * count / most)} {count:,}" for value, count in rows]


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""


def strength(run: StrengthRun, execution: Execution) -> StrengthReport:
    """Write the strengths into `run.output`; they are computed again each time, at the speed of reading losses."""
    if not run.ladder:
        raise UserError("no ladder; name the file of models and their scores with --ladder ladder.yaml")
    if len(run.pool) != 1:
        raise UserError("strengths come from one folder of losses; name the one that `dvsel losses` wrote")
    ladder = Ladder.read(run.ladder)
    shards = _shards(run.pool[0], ladder)
    with working_in(run.output, dump("strength", run), execution.overwrite, files_named(run)):
        record(run.output, shards)
        tally = _Tally(ladder, run.strength)
        fingerprint = fingerprint_of(run.pool[0], ladder, run.strength)
        done, total = Done(), sum(files[0].header.shard.size for files in shards.values())
        for name, files in shards.items():
            _write(files, join(run.output, name), run.strength, fingerprint, tally)
            header = files[0].header
            done += Done(header.shard.size, len(files[0]), header.totals.tokens)
            tell("strength", done, total)
        report = tally.report(fingerprint, [ScoreFile(join(run.output, name)) for name in shards])
        write_json(report, join(run.output, REPORT))
    return report


def fingerprint_of(folder: str, ladder: Ladder, kind: str) -> str:
    """Fingerprint of strengths: of the rule, the models in their order, and the fingerprints of their losses."""
    names = [rung.name for rung in ladder.rungs]
    fits = [sorted({file.header.fingerprint for file in _files(folder, name).values()}) for name in names]
    return xxhash.xxh3_128_hexdigest(json.dumps([kind, names, _benchmark_ranks(ladder).tolist(), fits]).encode())


# --- The strength of documents. ---


def in_order(scores: Scores, ladder: Ladder) -> npt.NDArray[np.int64]:
    """Count pairs that are in order, int64 (n,). scores: float32 (n, models), minus the losses, weakest model first."""
    counts = np.zeros(len(scores), np.int64)
    for weak, strong in ladder.pairs:
        counts += scores[:, strong] > scores[:, weak]
    return counts


def has_ties(scores: Scores, ladder: Ladder) -> Mask:
    """bool (n,): whether two models of different benchmark scores have equal losses."""
    tied = np.zeros(len(scores), np.bool_)
    for weak, strong in ladder.pairs:
        tied |= scores[:, strong] == scores[:, weak]
    return tied


def rank_correlation(scores: Scores, ladder: Ladder) -> Floats:
    """Spearman's rho of each row of scores, float32 (n, models), with the benchmark scores; float64 (n,)."""
    ranks = np.zeros(scores.shape)
    for one, other in itertools.combinations(range(scores.shape[1]), 2):
        higher = (scores[:, other] > scores[:, one]).astype(np.float64) - (scores[:, other] < scores[:, one])
        ranks[:, other] += higher / 2
        ranks[:, one] -= higher / 2
    return cosine(ranks, centred(_benchmark_ranks(ladder)))


def _benchmark_ranks(ladder: Ladder) -> Floats:
    return average_ranks(np.array([rung.score for rung in ladder.rungs]))


# --- Score files. ---


def _shards(folder: str, ladder: Ladder) -> dict[str, list[ScoreFile]]:
    """The score files of all models, weakest first, by the name of a score file."""
    found = [_files(folder, rung.name) for rung in ladder.rungs]
    for rung, files in zip(ladder.rungs, found, strict=True):
        if not files:
            raise UserError(f"{folder}: holds no losses of {rung.name}; run `dvsel losses` with this ladder")
        if files.keys() != found[0].keys():
            raise UserError(
                f"{folder}: {ladder.rungs[0].name} and {rung.name} have losses of different shards; "
                "run `dvsel losses` again, which computes what is missing"
            )
    return {name: [_same(found[0][name], files[name]) for files in found] for name in found[0]}


def _files(folder: str, model: str) -> dict[str, ScoreFile]:
    base = join(folder, model)
    return {url.removeprefix(base).lstrip("/"): ScoreFile(url) for url in find(base, SUFFIXES)}


def _same(first: ScoreFile, other: ScoreFile) -> ScoreFile:
    """`other`, which must speak of the shard that `first` speaks of, read in the same way."""
    a, b = first.header, other.header
    if a.shard.digest != b.shard.digest or len(first) != len(other) or a.reading != b.reading:
        raise UserError(
            f"{first.url} and {other.url} are not of the same documents (the shard changed between them, or was read "
            "with other options); compute the losses of all models again, into a new folder"
        )
    return other


def _header(kind: str, fingerprint: str, first: Header) -> Header:
    return dataclasses.replace(
        first,
        version=__version__,
        scorer="strength" if kind == STRENGTHS[0] else f"strength {kind}",
        fingerprint=fingerprint,
        groups=("",),
        shares=(1.0,),
        selector="topk",
        unscored=UNSCORED,
        totals=Totals(),
    )


class _Tally:
    """Strengths of chunks of documents, counted."""

    def __init__(self, ladder: Ladder, kind: str) -> None:
        self._ladder, self._kind = ladder, kind
        self._pairs = len(ladder.pairs)
        self._counts = np.zeros(self._pairs + 1 if kind == STRENGTHS[0] else _BINS, np.int64)
        self._in_order = self._tied = 0

    def strengths(self, scores: Scores) -> Floats:
        """The strength of each row of scores, float32 (n, models), none of them NaN; float64 (n,)."""
        ordered = in_order(scores, self._ladder)
        self._in_order += int((ordered == self._pairs).sum())
        self._tied += int(has_ties(scores, self._ladder).sum())
        if self._kind == STRENGTHS[0]:
            self._counts += np.bincount(ordered, minlength=len(self._counts))
            return ordered / self._pairs
        found = rank_correlation(scores, self._ladder)
        self._counts += np.histogram(found, _BINS, (-1, 1))[0]
        return found

    def report(self, fingerprint: str, files: Sequence[ScoreFile]) -> StrengthReport:
        """Return the report. files: the score files that were written."""
        totals = Totals()
        for file in files:
            totals.add(file.header.totals)
        low, high, bins = (0, 1, self._pairs) if self._kind == STRENGTHS[0] else (-1, 1, _BINS)
        return StrengthReport(
            self._kind,
            fingerprint,
            [rung.name for rung in self._ladder.rungs],
            self._pairs,
            np.linspace(low, high, bins + 1)[: len(self._counts)].tolist(),
            self._counts.tolist(),
            self._in_order,
            self._tied,
            dataclasses.replace(totals, named=[]),
        )


def _write(files: Sequence[ScoreFile], url: str, kind: str, fingerprint: str, tally: _Tally) -> None:
    """Write the score file of one shard from those of all models."""
    causes = _causes(files[0].header.totals)
    with ScoreFileWriter(url, _header(kind, fingerprint, files[0].header)) as writer:
        for parts in zip(files[0].rows(), *(file.rows(("status",)) for file in files[1:]), strict=True):
            rows = parts[0]
            scored = np.all([part.status == Status.SCORED for part in parts], axis=0)
            found = np.full((len(rows), 1), np.nan, np.float32)
            found[scored, 0] = tally.strengths(np.concatenate([part.score[scored] for part in parts], axis=1))
            lost = (rows.status == Status.SCORED) & ~scored
            status = np.where(lost, Status.UNSCORED, rows.status).astype(np.uint8)
            bad = {int(row): next(causes) for row in np.flatnonzero(status == Status.BAD_LINE)}
            writer.append(dataclasses.replace(rows, score=found, status=status), bad)
        writer.count_absent(files[0].header.totals.absent)
        writer.finish(files[0].header.shard.digest)


def _causes(totals: Totals) -> Iterator[str]:
    """Causes of the shard's bad lines, in order as far as they are named; then the others, counted by cause."""
    named = [cause for _, cause in totals.named]
    unnamed = Counter(totals.bad_lines) - Counter(Totals.of(_NO_ROWS, dict(enumerate(named))).bad_lines)
    return itertools.chain(named, unnamed.elements())
