"""Counts of what a selection keeps: by score, by domain, and by weight."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Status
from dvsel.kernels.jit import kernel
from dvsel.runs.report import BINS
from dvsel.score_files.rows import Rows
from dvsel.selection.scored_pool import Pool

_FILES_FOR_RANGE = 16
_ROWS_FOR_RANGE = 1 << 16
_BAD_LINE = int(Status.BAD_LINE)
_NEGLIGIBLE = 50.0  # nats: rows so far below the heaviest change no digit of the sum, however many there are


@dataclass
class Tally:
    """Counts over the rows of a pool and those that a rule keeps.

    histogram: int64 (2, BINS), the first score's values in the pool and among the kept; those beyond low and high are
    in the first and the last bin. outliers: int64 (2,), the number of values below low and above high. domains: int64
    (6,) by name: documents, tokens of the pool; documents, tokens, bytes kept; documents without a score. log_weights:
    of each part that was weighed, the highest key, and the sums of weights and of their squares relative to exp of it.
    overlap: kept documents that topk would keep too. duplicates: rows dropped because their text stands elsewhere.
    """

    low: float
    high: float
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    outliers: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    domains: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    log_weights: list[tuple[float, float, float]] = field(default_factory=list)
    overlap: int = 0
    duplicates: int = 0

    def add(self, rows: Rows, kept: npt.NDArray[np.bool_]) -> None:
        """Count rows of which `kept` are kept."""
        counts = np.zeros((len(rows.domains), 6), np.int64)
        _tally(rows.score[:, 0], rows.status, kept, rows.domain, rows.tokens, rows.bytes, self.low, self.high,
               self.histogram, self.outliers, counts)  # fmt: skip
        for name, row in zip(rows.domains, counts, strict=True):
            self.domains[name] = self.domains.get(name, 0) + row

    def merge(self, other: Tally) -> None:
        """Add what was counted elsewhere."""
        self.histogram += other.histogram
        self.outliers += other.outliers
        for name, row in other.domains.items():
            self.domains[name] = self.domains.get(name, 0) + row
        self.log_weights += other.log_weights
        self.overlap += other.overlap
        self.duplicates += other.duplicates

    def weigh(self, key: npt.NDArray[np.float32]) -> None:
        """Add the weights exp(key) of rows to the effective sample size."""
        # Keys are log weights of hundreds of nats: exp of one overflows, of its distance to the highest it does not.
        top = float(np.fmax.reduce(key, initial=-np.inf))
        if np.isfinite(top):
            weight = np.exp(key[key > top - _NEGLIGIBLE].astype(np.float64) - top)
            self.log_weights.append((top, float(weight.sum()), float(np.square(weight).sum())))

    def effective_sample_size(self) -> float:
        """Return (sum w)^2 / sum w^2, a number of documents."""
        if not self.log_weights:
            return 0.0
        top, total, squares = np.array(self.log_weights).T
        scale = np.exp(top - top.max())
        return float((total * scale).sum() ** 2 / (squares * scale**2).sum())


@kernel
def _tally(
    score: npt.NDArray[np.float32],
    status: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.bool_],
    domain: npt.NDArray[np.int32],
    tokens: npt.NDArray[np.uint32],
    sizes: npt.NDArray[np.uint32],
    low: float,
    high: float,
    histogram: npt.NDArray[np.int64],
    outliers: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None:
    bins = histogram.shape[1]
    scale = bins / (high - low)
    for row in range(len(score)):
        if status[row] != 0:
            counts[domain[row], 5] += status[row] != _BAD_LINE
            continue
        if not np.isnan(score[row]):
            outliers[0] += score[row] < low
            outliers[1] += score[row] > high
            at = int(min(max((score[row] - low) * scale, 0.0), bins - 1.0))
            histogram[0, at] += 1
            histogram[1, at] += kept[row]
        counts[domain[row], 0] += 1
        counts[domain[row], 1] += tokens[row]
        if kept[row]:
            counts[domain[row], 2] += 1
            counts[domain[row], 3] += tokens[row]
            counts[domain[row], 4] += sizes[row]


def score_range(pool: Pool) -> tuple[float, float]:
    """Return where the histogram begins and ends: quantiles of the scores at the head of some files."""
    step = max(len(pool.files) // _FILES_FOR_RANGE, 1)
    heads = [next(file.rows(()), None) for file in pool.files[::step]]
    found = [rows.score[:_ROWS_FOR_RANGE, 0] for rows in heads if rows is not None]
    scores = np.concatenate(found).astype(np.float64) if found else np.zeros(0)
    scores = scores[np.isfinite(scores)]
    low, high = (float(value) for value in np.quantile(scores, (0.001, 0.999))) if len(scores) else (0.0, 1.0)
    return low, high if high > low else low + 1
