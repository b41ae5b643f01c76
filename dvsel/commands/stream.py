"""Scoring and thresholding as filters: JSON Lines in on stdin, JSON Lines out on stdout, in order, nothing else.

What can be decided a line at a time works on a stream; budgets, quotas and quantiles need score files.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import orjson

from dvsel.commands.fit import fit_scorer
from dvsel.documents.causes import Causes
from dvsel.documents.columns import Column, Kind, Status
from dvsel.errors import BadLine, UserError
from dvsel.interface import checked
from dvsel.interface.scorer import Fitted
from dvsel.options import refuse_unread
from dvsel.pool.fields import instead, names_in
from dvsel.pool.read import PoolBatch, PoolReader
from dvsel.runs import fitted_files as storage
from dvsel.runs.requests import Execution, ScoreRun, SelectRun, StreamOptions
from dvsel.shards.add_field import as_json, with_member
from dvsel.shards.extract import extract
from dvsel.shards.lines import LineReader, Lines

PREFIX = "dvsel_"
STDIN = "stdin"
_NAMED = 5


def score_field(name: str) -> str:
    """The field of a scorer's scores, an identifier, as tools such as jq want it: "dvsel_label_noise"."""
    return PREFIX + name.replace("-", "_")


def score_stream(
    name: str, run: ScoreRun, options: StreamOptions, source: BinaryIO, sink: BinaryIO, quiet: bool = False
) -> None:
    """Copy documents from source to sink, each with its score as one more field (null where it has none).

    quiet: leave out the summary on stderr.
    """
    refuse_unread(run)
    fitted = storage.load_of(name, run.scoring.fitted) if run.scoring.fitted else _fitted_without_pool(name, run)
    field, needs = options.score_field or score_field(name), fitted.scorer.needs
    if "." in field:
        raise UserError(f"--score-field {field}: a dot means a field inside an object; name one of the line itself")
    skipped, written, unscored = _Skipped(), 0, 0
    with PoolReader(source, run.reading, (field, *needs)) as pool:
        for batch in pool:
            scores, _ = batch.score(fitted)
            rows = np.flatnonzero(batch.status != Status.BAD_LINE)
            sink.write(b"".join(_with_scores(batch, rows, field, _as_json(scores[rows], fitted.groups))))
            sink.flush()
            skipped.add(batch.bad, batch.documents.first_row)
            written, unscored = written + len(rows), unscored + int(np.isnan(scores[rows]).all(axis=1).sum())
    cause = f"; {unscored:,} without a score: {fitted.unscored}" if unscored else ""
    if not quiet:
        _tell(f"wrote {written:,} lines{cause}")
        skipped.tell()


def _fitted_without_pool(name: str, run: ScoreRun) -> Fitted:
    assert run.scorer is not None
    if run.scorer.takes_pool or run.fitting.distil:
        raise UserError(
            f"stdin can be read only once; fit first: dvsel fit {name} ... -o FILE, then pass --fitted FILE"
        )
    return fit_scorer(run.fit_run, [], Execution(), "")


def _with_scores(batch: PoolBatch, rows: npt.NDArray[np.integer], field: str, values: list[bytes]) -> Iterator[bytes]:
    """The lines of these rows, each with its value and an LF."""
    lines = batch.documents.lines
    assert lines is not None
    there = batch.documents.fields[field].kind != Kind.MISSING
    for row, value in zip(rows.tolist(), values, strict=True):
        yield with_member(lines[row], field, value, bool(there[row])) + b"\n"


def _as_json(scores: npt.NDArray[np.float32], groups: tuple[str, ...]) -> list[bytes]:
    """A number a row, or an object of one a group; the shortest that reads back as the same float32."""
    if len(groups) == 1:
        return [as_json(score) for score in scores[:, 0]]
    names = [orjson.dumps(group) for group in groups]
    return [
        b"{" + b",".join(name + b":" + as_json(score) for name, score in zip(names, row, strict=True)) + b"}"
        for row in scores
    ]


def select_stream(
    run: SelectRun, options: StreamOptions, source: BinaryIO, sink: BinaryIO, quiet: bool = False
) -> None:
    """Copy the lines whose score reaches the bound from source to sink, byte for byte.

    quiet: leave out the summary on stderr.
    """
    selector = run.selector
    if selector is None or selector.needs_budget or selector.budget or run.budget or run.quota or run.dedup:
        raise UserError(
            "a stream can only be cut at a bound (--min-score); budgets, quantiles, quotas and deduplication need "
            "score files: dvsel score ... -o scores/"
        )
    refuse_unread(run)
    skipped, read, written, unscored = _Skipped(), 0, 0, 0
    field = options.score_field
    with LineReader(source) as reader:
        for lines in reader:
            field = field or _guess_field(lines)
            if not field:
                raise UserError(f"{STDIN}: no line has a field {PREFIX}...; name the score's with --score-field")
            found = extract(lines.data, lines.starts, lines.ends, [field])
            score, causes = _scores_of(found.columns[field], field)
            bad = found.bad.or_else(causes)
            if bad and run.reading.on_bad_line == "fail":
                ((row, cause),) = bad.first(1)
                if row not in found.bad and found.columns[field].kind[row] == Kind.MISSING:
                    cause += f" ({instead(field, names_in(lines[row]), '--score-field')})"
                raise BadLine(STDIN, lines.first_row + row + 1, cause)
            kept = ~np.isnan(checked.keys(selector, score, np.full(len(score), 0.5)))
            sink.write(b"".join(lines[row] + b"\n" for row in np.flatnonzero(kept).tolist()))
            sink.flush()
            skipped.add(bad, lines.first_row)
            written, unscored, read = written + int(kept.sum()), unscored + int(np.isnan(score).sum()), read + len(kept)
    left = read - written - unscored
    if not quiet:
        _tell(
            f"kept {written:,} of {read:,} lines; {left:,} beyond the bound, "
            f"{unscored - skipped.total:,} without a score"
        )
        skipped.tell()


def _guess_field(lines: Lines) -> str | None:
    """The one field of the first lines that a scorer of dvsel added."""
    for row in range(len(lines)):
        try:
            value = orjson.loads(lines[row])
        except orjson.JSONDecodeError:
            continue
        names = [name for name in value if name.startswith(PREFIX)] if isinstance(value, dict) else []
        if len(names) > 1:
            raise UserError(f"{STDIN}: lines have {' and '.join(names)}; choose with --score-field")
        if names:
            return str(names[0])
    return None


def _scores_of(column: Column, field: str) -> tuple[npt.NDArray[np.float32], Causes]:
    """Scores, float32 (n,) with NaN for null, and what is not a score."""
    score = np.full(len(column), np.nan, np.float32)
    for row in np.flatnonzero(column.kind == Kind.NUMBER).tolist():
        score[row] = float(column[row])
    rows = np.flatnonzero((column.kind != Kind.NUMBER) & (column.kind != Kind.NULL))
    codes = (column.kind[rows] != Kind.MISSING).astype(np.int64)
    return score, Causes(rows, codes, [f"no field {field!r}", f"field {field!r} is not a number"])


@dataclass
class _Skipped:
    """The lines that were skipped: how many by cause, and the numbers of the first."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    lines: list[int] = dataclasses.field(default_factory=list)

    def add(self, bad: Causes, first_row: int) -> None:
        """Count the bad lines of a batch that begins with row `first_row`."""
        self.counts += bad.counts()
        self.lines += [first_row + row + 1 for row, _ in bad.first(_NAMED - len(self.lines))]

    @property
    def total(self) -> int:
        """Number of lines."""
        return self.counts.total()

    def tell(self) -> None:
        """Say it in one line on stderr."""
        if not self.counts:
            return
        causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(self.counts.items()))
        lines = ", ".join([*map(str, self.lines), *(["..."] if self.total > len(self.lines) else [])])
        _tell(f"skipped {self.total:,} lines ({lines}): {causes}")


def _tell(what: str) -> None:
    print(f"dvsel: {what}", file=sys.stderr)
