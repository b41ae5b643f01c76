"""The checks for scorers and selectors: what is right passes, each thing that is wrong is found."""

# ruff: noqa: ARG002  (the interfaces have arguments that these wrong examples do not use)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from dvsel.budget import Budget
from dvsel.documents.columns import Batch
from dvsel.interface import registry
from dvsel.interface.candidates import Candidates
from dvsel.options import option
from dvsel.schema import ArraySpec, Schema
from dvsel.scorers import Fitted, Scorer
from dvsel.scorers.dsir import DSIR
from dvsel.selectors import Selector, SetSelector
from dvsel.selectors.coverage import Coverage
from dvsel.selectors.random import Random
from dvsel.selectors.resample import Resample
from dvsel.selectors.round_robin import RoundRobin
from dvsel.selectors.semdedup import SemDedup
from dvsel.selectors.sensitivity import Sensitivity
from dvsel.selectors.threshold import Threshold
from dvsel.selectors.topk import TopK
from dvsel.testing import check_scorer, check_selector

POOL = [f"{subject} {verb} number {at}" for at, subject in enumerate("abcdefgh") for verb in ("sees", "takes")]
TARGET = POOL[:4]

Floats = npt.NDArray[np.float32]


class FittedLength(Fitted):
    def score(self, batch: Batch) -> Floats:
        return batch.text.sizes.astype(np.float32)


@dataclass(frozen=True)
class Length(Scorer):
    """Prefer long documents."""

    fitted: ClassVar[type[Fitted]] = FittedLength
    takes_pool = True

    power: float = option(1.0, "not used")

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> Fitted:
        rows = sum(len(batch) for batch in pool)
        return type(self).fitted(self, {"rows": np.array([rows], np.int64)})


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every class of this file is registered, under its name."""
    real = registry.entry_points  # type: ignore[attr-defined]

    def points(group: str) -> list[EntryPoint]:
        own = [
            EntryPoint(name, f"{cls.__module__}:{cls.__qualname__}", group)
            for name, cls in globals().items()
            if isinstance(cls, type) and cls.__module__ == __name__ and issubclass(cls, Scorer | Selector)
        ]
        return [*real(group=group), *own]

    monkeypatch.setattr(registry, "entry_points", points)


# --- Scorers. ---


@pytest.mark.parametrize(
    "scorer",
    [Length(), DSIR(buckets=97, min_words=2), DSIR(min_words=0, normalise="length", separate_targets=True)],
    ids=repr,
)
def test_a_right_scorer_passes(scorer: Scorer) -> None:
    fitted = check_scorer(scorer, POOL, TARGET)
    assert fitted.scorer == scorer


class _BatchMean(FittedLength):
    def score(self, batch: Batch) -> Floats:
        return super().score(batch) - np.float32(batch.text.sizes.mean() if len(batch) else 0)


class _Position(FittedLength):
    def score(self, batch: Batch) -> Floats:
        return np.arange(len(batch), dtype=np.float32)


class _Double(FittedLength):
    def score(self, batch: Batch) -> Floats:
        return super().score(batch).astype(np.float64)


class _Nothing(FittedLength):
    def score(self, batch: Batch) -> Floats:
        return np.full(len(batch), np.nan, np.float32)


class _State(FittedLength):
    calls = 0

    def score(self, batch: Batch) -> Floats:
        self.calls += 1
        return super().score(batch) + np.float32(self.calls)


class _Crooked(FittedLength):
    groups = ("a", "b")
    shares = (0.5, 0.6)

    def score(self, batch: Batch) -> Floats:
        return np.stack([super().score(batch)] * 2, axis=1)


class _Misstated(FittedLength):
    @classmethod
    def schema(cls, scorer: Scorer) -> Schema:  # noqa: ARG003
        return {"rows": ArraySpec("int64", (1,), maximum=3)}


class _Unsaved(FittedLength):
    def __init__(self, scorer: Scorer, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super().__init__(scorer, arrays)
        self.bonus = np.float32(0)

    def score(self, batch: Batch) -> Floats:
        return super().score(batch) + self.bonus


@dataclass(frozen=True)
class Mean(Length):
    """Wrong: the mean of the batch."""

    fitted: ClassVar[type[Fitted]] = _BatchMean


@dataclass(frozen=True)
class Position(Length):
    """Wrong: the place in the batch."""

    fitted: ClassVar[type[Fitted]] = _Position


@dataclass(frozen=True)
class Double(Length):
    """Wrong: another type."""

    fitted: ClassVar[type[Fitted]] = _Double


@dataclass(frozen=True)
class Nothing(Length):
    """Wrong: no scores."""

    fitted: ClassVar[type[Fitted]] = _Nothing


@dataclass(frozen=True)
class State(Length):
    """Wrong: keeps count."""

    fitted: ClassVar[type[Fitted]] = _State


@dataclass(frozen=True)
class Crooked(Length):
    """Wrong: shares of 110%."""

    fitted: ClassVar[type[Fitted]] = _Crooked


@dataclass(frozen=True)
class Misstated(Length):
    """Wrong: an array beyond its own range."""

    fitted: ClassVar[type[Fitted]] = _Misstated


@dataclass(frozen=True)
class Unsaved(Length):
    """Wrong: learns what it does not save."""

    fitted: ClassVar[type[Fitted]] = _Unsaved

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> Fitted:
        made = super().fit(pool, targets)
        assert isinstance(made, _Unsaved)
        made.bonus = np.float32(5)
        return made


@dataclass(frozen=True)
class Batches(Length):
    """Wrong: counts batches."""

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> Fitted:
        return FittedLength(self, {"batches": np.array([len(list(pool))])})


@dataclass(frozen=True)
class Lucky(Length):
    """Wrong: another fit each time."""

    def fit(self, pool: Iterable[Batch], targets: Mapping[str, Iterable[Batch]]) -> Fitted:
        return FittedLength(self, {"luck": np.random.default_rng().normal(size=3)})


@dataclass(frozen=True)
class Helpless(Length):
    """Wrong: an option without help."""

    depth: int = 3


@dataclass(frozen=True)
class Mute(Length):
    weight: float = option(1.0, "not used")


@pytest.mark.parametrize(
    ("scorer", "says"),
    [
        (Mean(), "scores depend on the other documents of the batch"),
        (Position(), "scores depend on the order of documents"),
        (Double(), "score gave float64 of shape .*, not float32 of shape"),
        (Nothing(), "no document of the pool has a score"),
        (State(), "a saved and loaded scorer scores otherwise|scores depend"),
        (Misstated(), "the fit's arrays are not what its class says: array rows holds a number out of its range"),
        (Crooked(), "shares do not sum to 1"),
        (Unsaved(), "a saved and loaded scorer scores otherwise"),
        (Batches(), "the fit depends on how the sample is batched"),
        (Lucky(), "two fits on the same data differ"),
        (Helpless(), "option depth has no help"),
        (Mute(), "Mute has no docstring, which is its help"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_scorer_is_found(scorer: Scorer, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_scorer(scorer, POOL)


# --- Selectors. ---


@pytest.mark.parametrize(
    "selector",
    [
        *(TopK(), Random(), Resample(), Resample(0.5), Threshold(0.1), Threshold(quantile=0.5)),
        *(Coverage(), Coverage(sampling="gain"), RoundRobin(), RoundRobin(("queries",)), SemDedup(0.8), Sensitivity()),
    ],
    ids=repr,
)
def test_a_right_selector_passes(selector: Selector) -> None:
    check_selector(selector)


@dataclass(frozen=True)
class Rank(Selector):
    """Wrong: the rank in the batch."""

    def key(self, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
        return np.where(np.isnan(score), np.nan, np.argsort(np.argsort(score))).astype(np.float32)


@dataclass(frozen=True)
class Row(Selector):
    """Wrong: the place in the batch."""

    def key(self, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
        return np.where(np.isnan(score), np.nan, np.arange(len(score))).astype(np.float32)


@dataclass(frozen=True)
class Generous(Selector):
    """Wrong: keeps what has no score."""

    def key(self, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
        return np.nan_to_num(score)


@dataclass(frozen=True)
class Secret(Selector):
    """Wrong: does not say that it uses noise."""

    def key(self, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
        return (score + uniform).astype(np.float32)


@dataclass(frozen=True)
class Loud(Selector):
    """Wrong: says that it uses noise."""

    noisy: ClassVar[bool] = True

    def key(self, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
        return score


@dataclass(frozen=True)
class Wide(Selector):
    """Wrong: another type."""

    def key(self, score: Floats, uniform: npt.NDArray[np.float64]) -> Floats:
        return score.astype(np.float64)


@dataclass(frozen=True)
class Words(TopK):
    """Wrong: a budget in words."""

    @property
    def budget(self) -> Budget | None:
        return "10%"  # type: ignore[return-value]


@dataclass(frozen=True)
class Backwards(TopK):
    """Wrong: finds the score of another key."""

    def score_of(self, key: float) -> float:
        return -key


@dataclass(frozen=True)
class InOrder(SetSelector):
    """Wrong: the first documents first."""

    def rank(self, candidates: Candidates) -> list[str]:
        for part in candidates.parts():
            candidates.keys[part.eligible] = -np.flatnonzero(part.eligible)
        return []


@dataclass(frozen=True)
class Loose(SetSelector):
    """Wrong: takes all."""

    def rank(self, candidates: Candidates) -> list[str]:
        candidates.keys[:] = 1
        return []


@pytest.mark.parametrize(
    ("selector", "says"),
    [
        (Rank(), "keys depend on the other documents"),
        (Row(), "keys depend on the order of documents"),
        (Generous(), "a document without a score has a key"),
        (Secret(), "`noisy` does not say whether the noise is used"),
        (Loud(), "`noisy` does not say whether the noise is used"),
        (Wide(), "key is not a float32 array"),
        (Words(), "budget is not a Budget"),
        (InOrder(), "keys depend on the order of documents"),
        (Loose(), "a document that does not compete has a key"),
        (Backwards(), "`score_of` names a score that has another key"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_selector_is_found(selector: Selector, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_selector(selector)
