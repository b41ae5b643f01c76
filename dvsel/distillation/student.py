"""Teach a distilled scorer a teacher's scores of a sample, and measure how well it ranks.

The last fifth of the documents is held out: it tells how well. Of the rest, the last fifth chooses the penalty of the
ridge regression, and how much embeddings count beside n-grams; then it is fitted on all of the rest. Where embeddings
rank hardly better they are left out, since who has them not would have to run a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dvsel.distillation.ridge import Design, Joint, Line, Ridge, spread
from dvsel.documents.columns import Batch
from dvsel.documents.vectors import Maker
from dvsel.embeddings import EmbedderOptions
from dvsel.embeddings.regression import Standardised
from dvsel.embeddings.vector_source import VectorSource
from dvsel.errors import UserError
from dvsel.linalg.ranks import spearman
from dvsel.ngrams.shares import Shares
from dvsel.ngrams.spec import NgramSpec

FEWEST = 100  # documents with a score that are worth a fit, and a correlation
PENALTIES = tuple(10 ** (1 - step / 2) for step in range(9))  # 10 to 0.001
PARTS = (0.0, 0.1, 0.5, 1.0)  # what embeddings make up of a document's features, beside n-grams
WORTH = 0.01  # of rank correlation, for embeddings to be used

_PART = 5  # one in so many is held out
_EXTREMES = (0.01, 0.99)  # quantiles that the teacher's scores are brought to for the fit
_TOP = 10  # the best tenth is compared

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StudentInputs:
    """Inputs of the regression: n-grams, and vectors where the pool comes with some or a model is named.

    source: of the vectors. usable: bool (n,), the documents that have all features. designs: by the part of `PARTS`
    that vectors make up, both scaled by what their rows spread.
    """

    shares: Shares
    vectors: Standardised | None
    source: VectorSource
    usable: npt.NDArray[np.bool_]
    designs: dict[float, Joint]

    @classmethod
    def of(cls, documents: Batch, ngrams: NgramSpec, embedder: EmbedderOptions) -> StudentInputs:
        """Make those of a sample. Raises UserError where few have a vector, or vectors were not made alike."""
        shares, source = Shares.of(documents.text, ngrams), VectorSource(embedder)
        if documents.vectors is None and not embedder.model:
            return cls(shares, None, source, np.ones(len(documents), bool), {0.0: Joint((shares,), (1.0,))})
        values = source.of(documents)
        usable = np.asarray(np.isfinite(values).all(axis=1))
        if (count := int(usable.sum())) < FEWEST:
            raise UserError(
                f"distilled: {count:,} of the sample's {len(documents):,} documents have a vector, and distilling "
                f"takes {FEWEST} or more; check the embeddings, or give the pool's documents instead of them"
            )
        vectors = Standardised.of(np.where(usable[:, None], values, np.float32(0)), np.flatnonzero(usable))
        return cls(shares, vectors, source, usable, {part: _side_by_side(shares, vectors, part) for part in PARTS})

    @property
    def maker(self) -> Maker | None:
        """The maker of the vectors."""
        return self.source.maker


def _side_by_side(shares: Shares, vectors: Standardised, part: float) -> Joint:
    weighed: list[tuple[Design, float]] = [(shares, 1 - part), (vectors, part)]
    kept = [(design, weight) for design, weight in weighed if weight]
    factors = [(weight / (spread(design) or 1)) ** 0.5 for design, weight in kept]
    return Joint(tuple(design for design, _ in kept), tuple(factors))


@dataclass(frozen=True, slots=True)
class Learned:
    """Result for one group.

    ngrams, vectors: weights of the buckets, float64 (buckets,), and of the vectors' coordinates, float64 (width,); None
    where these are not looked at. embeddings: of `PARTS`. spearman, top_tenth: on the documents held out; see
    `FittedDistilled`.
    """

    ngrams: Floats | None
    vectors: Floats | None
    intercept: float
    embeddings: float
    penalty: float
    trained: int
    held_out: int
    spearman: float
    top_tenth: float


def learn(features: StudentInputs, numbers: Floats, place: str) -> Learned:
    """Learn numbers (n,), NaN for unknown. place: names the teacher in errors.

    Raises UserError where too few documents have a number, or all have the same.
    """
    known = np.isfinite(numbers) & features.usable
    if (count := int(known.sum())) < FEWEST:
        raise UserError(
            f"{place}: gives {count:,} of the sample's {len(numbers):,} documents a score, and distilling takes "
            f"{FEWEST} or more; give more --distil-documents"
        )
    rest, held_out = _split(np.flatnonzero(known))
    if np.ptp(numbers[rest]) == 0 or np.ptp(numbers[held_out]) == 0:
        raise UserError(f"{place}: gives all documents of the sample the same score; there is nothing to distil")
    part, penalty = _chosen(features, numbers, rest)
    design = features.designs[part]
    (line,) = Ridge(design.take(rest), _clipped(numbers[rest])).path([penalty])
    found, true = line.of(design.take(held_out)), numbers[held_out]
    return Learned(
        *_taken_apart(features, part, line),
        part,
        penalty,
        len(rest),
        len(held_out),
        spearman(found, true),
        _overlap(found, true),
    )


def _chosen(features: StudentInputs, numbers: Floats, rest: Numbers) -> tuple[float, float]:
    """The part of embeddings and the penalty that rank the last of the rest best, when fitted on the others."""
    inner, choosing = _split(rest)
    found = []
    for part, design in features.designs.items():
        lines = Ridge(design.take(inner), _clipped(numbers[inner])).path(PENALTIES)
        others, owed = design.take(choosing), WORTH if part else 0.0
        for penalty, line in zip(PENALTIES, lines, strict=True):
            found.append((spearman(line.of(others), numbers[choosing]) - owed, part, penalty))
    _, part, penalty = max(found, key=lambda one: one[0])
    return part, penalty


def _taken_apart(features: StudentInputs, part: float, line: Line) -> tuple[Floats | None, Floats | None, float]:
    """The line's weights of n-grams, of vectors as they were, and the intercept."""
    weights = features.designs[part].split(line.weights)
    ngrams = weights[0] if part < 1 else None
    if features.vectors is None or not part:
        return ngrams, None, line.intercept
    vectors, shift = features.vectors.plain(weights[-1])
    return ngrams, vectors, line.intercept + shift


def _split(rows: Numbers) -> tuple[Numbers, Numbers]:
    """Return all rows but the last of `_PART` parts, and that one; rows are in the order of draws."""
    last = len(rows) - len(rows) // _PART
    return rows[:last], rows[last:]


def _clipped(numbers: Floats) -> Floats:
    """A few extreme scores would rule a fit by squares."""
    low, high = np.quantile(numbers, _EXTREMES)
    return np.clip(numbers, low, high)


def _overlap(one: Floats, other: Floats) -> float:
    """The share of the best tenth by one that is in the best tenth by the other."""
    count = max(len(one) // _TOP, 1)
    best = [set(np.argsort(numbers, kind="stable")[-count:].tolist()) for numbers in (one, other)]
    return len(best[0] & best[1]) / count
