"""Calls to scorers and selectors, whose results are checked before they are used.

A wrong result is a UserError: one line that names the scorer or selector and its package, what it returned and what is
expected. So is an exception in one of another package; `--debug` shows where it was raised. An exception in one of
dvsel's own is a bug of dvsel, and keeps its traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError, shown
from dvsel.interface.registry import SCORERS, SELECTORS, registered
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.interface.selector import Selector, SetSelector

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.interface.candidates import Candidates

Floats = npt.NDArray[np.float32]
Targets = Mapping[str, "Iterable[Batch]"]

NO_NOISE = 0.5  # any constant: all keys move alike
_REMEDY = "fix it, or tell its authors"


def fit(scorer: Scorer, pool: Iterable[Batch], targets: Targets) -> Fitted:
    """Fit the scorer. Raises UserError unless that gives a fitted scorer with arrays."""
    with _named(scorer, "fit"):
        made = scorer.fit(pool, targets)
    if not isinstance(made, Fitted):
        raise _wrong(scorer, f"fit gave {_kind(made)}, not a Fitted")
    for name, array in made.arrays.items():
        if not isinstance(array, np.ndarray):
            raise _wrong(scorer, f"fit gave {_kind(array)} for {name!r}, not an array")
    return made


def scores(fitted: Fitted, batch: Batch) -> Floats:
    """Return the fitted scorer's scores of a batch, float32 (n, groups)."""
    with _named(fitted.scorer, "score"):
        given = fitted.score(batch)
    if why := unlike_scores(given, len(batch), len(fitted.groups)):
        raise _wrong(fitted.scorer, f"score gave {why}")
    return given[:, None] if given.ndim == 1 else given


def unlike_scores(given: Any, rows: int, groups: int) -> str:
    """Return in words what scores are and should be; "" for right ones."""
    return _unlike(given, (rows, groups), *([(rows,)] if groups == 1 else []))


def keys(selector: Selector, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
    """Return the selector's keys of documents, float32 (n,)."""
    with _named(selector, "key"):
        given = selector.key(score, uniform)
    if why := _unlike(given, score.shape):
        raise _wrong(selector, f"key gave {why}")
    if _is_guest(selector) and (np.isnan(score) & ~np.isnan(given)).any():
        raise _wrong(selector, "key gave a number, not NaN, for a document without a score")
    return given


def rank(selector: SetSelector, candidates: Candidates) -> list[str]:
    """Have the selector fill the candidates' keys; return what it says for the summary."""
    count = len(candidates.keys)
    with _named(selector, "rank"):
        notes = selector.rank(candidates)
    if why := _unlike(candidates.keys, (count,)):
        raise _wrong(selector, f"rank left keys that are {why}")
    if not (isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
        raise _wrong(selector, f"rank gave {shown(notes)}, not a list of lines")
    return notes


def weights(selector: SetSelector, key: Floats, uniform: npt.NDArray[np.float64], threshold: Floats) -> Floats:
    """Return the selector's weights of kept documents, float32 (n,)."""
    with _named(selector, "weight"):
        given = selector.weight(key, uniform, threshold)
    if why := _unlike(given, key.shape):
        raise _wrong(selector, f"weight gave {why}")
    return given


def _unlike(given: Any, *shapes: tuple[int, ...]) -> str:
    """Return in words what an array is that should be float32 of one of these shapes; "" where it is that."""
    if isinstance(given, np.ndarray) and given.dtype == np.float32 and given.shape in shapes:
        return ""
    what = f"{given.dtype} of shape {given.shape}" if isinstance(given, np.ndarray) else _kind(given)
    return f"{what}, not float32 of shape {shapes[-1]}"


def _kind(given: Any) -> str:
    return f"{type(given).__name__} {shown(given)}"


@contextlib.contextmanager
def _named(one: Scorer | Selector, what: str) -> Iterator[None]:
    """Turn an exception in a scorer or selector of another package into a UserError that names it."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if not _is_guest(one):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        raise UserError(f"{_title(one)}: {what} failed ({cause}); {_REMEDY} (--debug shows where)") from error


def _wrong(one: Scorer | Selector, what: str) -> UserError:
    return UserError(f"{_title(one)}: {what}; {_REMEDY}")


def _is_guest(one: Scorer | Selector) -> bool:
    return type(one).__module__.partition(".")[0] != "dvsel"


def _title(one: Scorer | Selector) -> str:
    """Return its name, and the package that it comes from."""
    group, place = SCORERS if isinstance(one, Scorer) else SELECTORS, f"{type(one).__module__}:{type(one).__qualname__}"
    what = group.removeprefix("dvsel.")[:-1]
    for name, point in registered(group).items():
        if point.value == place and point.dist:
            return f"{what} {name!r} of the package {point.dist.name} {point.dist.version}"
    return f"{what} {place}"


def follows_scores(selector: Selector) -> bool:
    """Return whether keys depend on scores: the keys of the scores 0 and 1 differ under the same noise."""
    return len(set(keys(selector, np.array([0, 1], np.float32), np.full(2, NO_NOISE)).tolist())) > 1
