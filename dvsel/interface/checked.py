"""Scorers and selectors at work: what they give is checked before it is used, and what those of others raise is told.

What is wrong is a UserError, one line that names the scorer or selector and its package, what it gave and what is
wanted. `--debug` shows where it raised. What dvsel's own raise is a bug of dvsel, and keeps its traceback.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dvsel.errors import UserError, shown
from dvsel.interface.registry import SCORERS, SELECTORS, found
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.interface.selector import Selector, SetSelector

if TYPE_CHECKING:
    from dvsel.documents.columns import Batch
    from dvsel.interface.candidates import Candidates

Floats = npt.NDArray[np.float32]
Targets = Mapping[str, "Iterable[Batch]"]

NO_NOISE = 0.5  # any constant: it shifts all keys alike
_REMEDY = "mend it, or tell its authors"


def fit(scorer: Scorer, pool: Iterable[Batch], targets: Targets) -> Fitted:
    """What the scorer fits; UserError for what is no fitted scorer with arrays."""
    with _named(scorer, "fit"):
        made = scorer.fit(pool, targets)
    if not isinstance(made, Fitted):
        raise _wrong(scorer, f"fit gave {_kind(made)}, and a Fitted is wanted")
    for name, array in made.arrays.items():
        if not isinstance(array, np.ndarray):
            raise _wrong(scorer, f"fit gave {_kind(array)} for {name!r}, and an array is wanted")
    return made


def scores(fitted: Fitted, batch: Batch) -> Floats:
    """What the fitted scorer gives a batch, float32 (n, groups)."""
    with _named(fitted.scorer, "score"):
        given = fitted.score(batch)
    if why := unlike_scores(given, len(batch), len(fitted.groups)):
        raise _wrong(fitted.scorer, f"score gave {why}")
    return given[:, None] if given.ndim == 1 else given


def unlike_scores(given: Any, rows: int, groups: int) -> str:
    """What scores are, and should be; "" for right ones."""
    return _unlike(given, (rows, groups), *([(rows,)] if groups == 1 else []))


def keys(selector: Selector, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
    """What the selector gives documents, float32 (n,)."""
    with _named(selector, "key"):
        given = selector.key(score, uniform)
    if why := _unlike(given, score.shape):
        raise _wrong(selector, f"key gave {why}")
    if _is_guest(selector) and (np.isnan(score) & ~np.isnan(given)).any():
        raise _wrong(selector, "key gave a number for a document without a score, and NaN is wanted")
    return given


def rank(selector: SetSelector, candidates: Candidates) -> list[str]:
    """Have the selector fill the candidates' keys; what it says of it."""
    count = len(candidates.keys)
    with _named(selector, "rank"):
        notes = selector.rank(candidates)
    if why := _unlike(candidates.keys, (count,)):
        raise _wrong(selector, f"rank left keys that are {why}")
    if not (isinstance(notes, list) and all(isinstance(note, str) for note in notes)):
        raise _wrong(selector, f"rank gave {shown(notes)}, and a list of lines is wanted")
    return notes


def weights(selector: SetSelector, key: Floats, uniform: npt.NDArray[np.float64], threshold: Floats) -> Floats:
    """What the selector weighs kept documents with, float32 (n,)."""
    with _named(selector, "weight"):
        given = selector.weight(key, uniform, threshold)
    if why := _unlike(given, key.shape):
        raise _wrong(selector, f"weight gave {why}")
    return given


def _unlike(given: Any, *shapes: tuple[int, ...]) -> str:
    """What it is that should be float32 of one of these shapes, and that; "" where it is."""
    if isinstance(given, np.ndarray) and given.dtype == np.float32 and given.shape in shapes:
        return ""
    what = f"{given.dtype} of shape {given.shape}" if isinstance(given, np.ndarray) else _kind(given)
    return f"{what}, and float32 of shape {shapes[-1]} is wanted"


def _kind(given: Any) -> str:
    return f"{type(given).__name__} {shown(given)}"


@contextlib.contextmanager
def _named(one: Scorer | Selector, what: str) -> Iterator[None]:
    """Turns what a scorer or selector of another package raises into a UserError that names it."""
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
    """What it is called, and where it comes from."""
    group, place = SCORERS if isinstance(one, Scorer) else SELECTORS, f"{type(one).__module__}:{type(one).__qualname__}"
    what = group.removeprefix("dvsel.")[:-1]
    for name, point in found(group).items():
        if point.value == place and point.dist:
            return f"{what} {name!r} of the package {point.dist.name} {point.dist.version}"
    return f"{what} {place}"


def follows_scores(selector: Selector) -> bool:
    """Whether keys depend on scores: those of 0 and 1 differ under the same noise."""
    return len(set(keys(selector, np.array([0, 1], np.float32), np.full(2, NO_NOISE)).tolist())) > 1
