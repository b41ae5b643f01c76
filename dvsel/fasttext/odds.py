"""Make scores of a classifier's outputs: log-odds of the chosen labels, and the probability that fastText reports.

fastText's softmax gives label i the probability exp(x_i) / sum exp(x_j). With one-vs-all each label has its own
odds, exp(x_i), and labels do not exclude each other. Several chosen labels count as one: that any of them holds,
which under one-vs-all takes them as independent. NaN outputs give NaN scores.

The library adds 1e-5 to each probability that it reports, and takes one-vs-all's from a table: 512 steps of 1/32 over
[-8, 8], 0 below, 1 above.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

EXTRA = 1e-5
"""What the library adds to each probability that it reports."""

_STEPS = 512
_REACH = 8
_STEP = 2 * _REACH / _STEPS
_FLOOR = 1e-11  # what the library's float32 probabilities resolve beside EXTRA

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def softmax_logit(outputs: Floats, chosen: Flags) -> Floats:
    """log(sum of exp over the chosen columns) - log(sum over the others), float64 (n,)."""
    return np.asarray(_logsumexp(outputs[:, chosen]) - _logsumexp(outputs[:, ~chosen]))


def any_logit(outputs: Floats) -> Floats:
    """The log-odds that at least one of independent labels holds, float64 (n,).

    outputs: float64 (n, labels), each label's own logit. None of them holds with probability exp(-t),
    t = sum of log(1 + exp(x)), so the odds are exp(t) - 1.
    """
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    total = _softplus(outputs).sum(axis=1)
    tiny = total < 1e-9  # where log(exp(t) - 1) is log(t), and t is the sum of exp(x)
    logit = total + np.log(-np.expm1(-np.maximum(total, 1e-9)))
    return np.where(tiny, _logsumexp(outputs), logit)


def softmax_probability(logit: Floats) -> Floats:
    """The library's number for the chosen labels together, float64 (n,)."""
    return np.asarray(np.exp(-_softplus(-logit)) + EXTRA)


def any_probability(outputs: Floats) -> Floats:
    """The library's number under one-vs-all: of one label from its table, of several 1 - prod(1 - p) over that."""
    return np.asarray(1 - np.prod(1 - _table_sigmoid(outputs), axis=1) + EXTRA)


def reported_logit(reported: Floats, chosen: Flags, loss: str) -> Floats:
    """Return the logit as nearly as the library's numbers allow, float64 (n,).

    reported: float64 (n, labels), the probabilities of all labels as the library gives them, float32 numbers. Under
    softmax they tell logits apart to 1e-3 up to +-18, and the result is bounded by about +-25; under one-vs-all they
    come in the table's steps, and the result is within +-(8 + 1/32) for each label. Hierarchical softmax adds the
    1e-5 at each of its decisions, which with more than two labels cannot be undone.
    """
    bare = _bare(reported, loss)
    if loss in ("softmax", "hs"):
        sums = [np.maximum(bare[:, columns], _FLOOR).sum(axis=1) for columns in (chosen, ~chosen)]
        return np.asarray(np.log(sums[0]) - np.log(sums[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        outputs = np.log(np.maximum(bare[:, chosen], 0) / np.maximum(1 - bare[:, chosen], 0))
    return any_logit(np.clip(np.round(outputs / _STEP) * _STEP, -_REACH - _STEP, _REACH + _STEP))


def reported_probability(reported: Floats, chosen: Flags, loss: str) -> Floats:
    """The library's number for the chosen labels, from those of all: the one label's own, or as if they were one."""
    if chosen.sum() == 1:
        return reported[:, chosen][:, 0]
    bare = _bare(reported, loss)[:, chosen]
    together = bare.sum(axis=1) if loss in ("softmax", "hs") else 1 - np.prod(1 - bare, axis=1)
    return np.asarray(together + EXTRA)


def _bare(reported: Floats, loss: str) -> Floats:
    return reported if loss == "hs" and reported.shape[1] > 2 else reported - EXTRA


def _table_sigmoid(outputs: Floats) -> Floats:
    """The library's sigmoid: in float32 as there, for the same step.

    An output nearer to a step's edge than its own rounding error may fall on the other side.
    """
    single = np.nan_to_num(outputs.astype(np.float32), nan=0.0)
    clipped = np.clip(single, np.float32(-_REACH), np.float32(_REACH))
    places = ((clipped + np.float32(_REACH)) * np.float32(_STEPS) / np.float32(2 * _REACH)).astype(np.int64)
    values = np.where(single > _REACH, 1.0, np.where(single < -_REACH, 0.0, _table()[places]))
    return np.asarray(np.where(np.isnan(outputs), np.nan, values))


@functools.cache
def _table() -> Floats:
    places = np.arange(_STEPS + 1, dtype=np.float32) * np.float32(_STEP) - np.float32(_REACH)
    return np.asarray((1.0 / (1.0 + np.exp(-places).astype(np.float64))).astype(np.float32), np.float64)


def _softplus(values: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.logaddexp(0, values))


def _logsumexp(values: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.logaddexp.reduce(values, axis=1))
