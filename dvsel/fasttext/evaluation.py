"""Quality of a classifier of two classes: the usual numbers, and whether its probabilities mean what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.linalg.ranks import average_ranks

BINS = 10
FINDINGS = (
    *("documents", "positives", "unscored", "precision", "recall", "f1", "accuracy"),
    *("area", "log_loss", "calibration", "calibration_error"),
)
"""What `evaluate` finds, by name."""

_WIDTH = 36
_NONE = "n/a"

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def evaluate(logits: npt.NDArray[np.floating[Any]], is_positive: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Compare logits with the truth; a document counts as positive from probability 0.5 on.

    logits: float (n,), log-odds of being positive; NaN for no answer, which is counted and else left out.
    is_positive: bool (n,).
    Returns plain values for JSON, None for what the documents do not define: `documents` and `positives` (counts),
    `unscored`; `precision`, `recall`, `f1`, `accuracy`; `area` under the ROC curve (ties count half); `log_loss` in
    nats; `calibration`, for each of `BINS` equal bins of the probability `from`, `to`, `documents`,
    `mean_probability` and `share_positive`; `calibration_error`, the mean of their difference, weighted by documents.
    """
    answered = ~np.isnan(logits)
    scores, truth = logits[answered].astype(np.float64), is_positive[answered].astype(bool)
    return {
        "documents": len(scores),
        "positives": int(truth.sum()),
        "unscored": int((~answered).sum()),
        **_decisions(scores >= 0, truth),
        "area": _area(scores, truth),
        "log_loss": _mean(np.logaddexp(0, np.where(truth, -scores, scores))),
        **_calibration(scores, truth),
    }


def above_chance(report: Mapping[str, Any]) -> bool:
    """Return whether the area under the ROC curve lies 2 standard errors above that of an answer by chance."""
    positives, documents = report["positives"], report["documents"]
    negatives = documents - positives
    if not positives or not negatives:
        return False
    error = math.sqrt((documents + 1) / (12 * positives * negatives))  # of the rank-sum statistic, no ties
    return bool(report["area"] > 0.5 + 2 * error)


def lines(report: Mapping[str, Any]) -> list[str]:
    """The numbers in words, and the calibration as a picture, at most 80 columns wide."""
    found = [f"held out {report['documents']:,} documents, {report['positives']:,} of them positive"]
    if report["unscored"]:
        found.append(f"no score for {report['unscored']:,} more")
    if not report["documents"]:
        return found
    found.append(", ".join(f"{name} {_shown(report[name])}" for name in ("precision", "recall", "f1", "accuracy")))
    found.append(
        f"area under the ROC {_shown(report['area'])}, log loss {_shown(report['log_loss'])}, "
        f"calibration error {_shown(report['calibration_error'])}"
    )
    return found + _picture(report["calibration"])


def _decisions(predicted: Bools, truth: Bools) -> dict[str, float | None]:
    right = int((predicted & truth).sum())
    both = int(predicted.sum()) + int(truth.sum())
    return {
        "precision": _mean(truth[predicted]),
        "recall": _mean(predicted[truth]),
        "f1": 2 * right / both if both else None,
        "accuracy": _mean(predicted == truth),
    }


def _area(scores: Floats, truth: Bools) -> float | None:
    """The share of pairs of a positive and a negative document in which the positive scores higher."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    wins = average_ranks(scores)[truth].sum() - positives * (positives - 1) / 2
    return float(wins / (positives * negatives))


def _calibration(scores: Floats, truth: Bools) -> dict[str, Any]:
    probabilities = np.exp(-np.logaddexp(0, -scores))
    place = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, weights=probabilities - truth, minlength=BINS)
    return {
        "calibration": [_bin(number, probabilities[place == number], truth[place == number]) for number in range(BINS)],
        "calibration_error": float(np.abs(gaps).sum() / len(scores)) if len(scores) else None,
    }


def _bin(number: int, probabilities: Floats, truth: Bools) -> dict[str, Any]:
    return {
        "from": number / BINS,
        "to": (number + 1) / BINS,
        "documents": len(truth),
        "mean_probability": _mean(probabilities),
        "share_positive": _mean(truth),
    }


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None


def _shown(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _picture(bins: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each bin: the observed share of positives as a bar, the predicted one as a mark on it."""
    rows = ["", f"probability  {'observed █, predicted │':<{_WIDTH}}  observed  documents"]
    for one in bins:
        bar, share = " " * _WIDTH, _NONE
        if one["documents"]:
            full, mark = round(_WIDTH * one["share_positive"]), int(_WIDTH * one["mean_probability"])
            bar = ("█" * full).ljust(_WIDTH, "░")
            mark = min(mark, _WIDTH - 1)
            bar, share = f"{bar[:mark]}│{bar[mark + 1 :]}", f"{one['share_positive']:.1%}"
        rows.append(f"{one['from']:.1f} to {one['to']:.1f}   {bar}  {share:>8}  {one['documents']:>9,}")
    return [*rows, ""]
