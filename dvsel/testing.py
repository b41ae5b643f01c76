"""Tests that every scorer and every selector must pass, dvsel's own and those of other packages.

def test_mine():
    check_scorer(MyScorer(), pool=texts, target=more_texts)
    check_selector(MySelector())
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel import schema
from dvsel.budget import Budget
from dvsel.documents.columns import Batch
from dvsel.interface.candidates import Part
from dvsel.interface.checked import unlike_scores
from dvsel.interface.registry import SCORERS, SELECTORS, name_of, selector_class
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.interface.selector import Selector, SetSelector
from dvsel.options import fields_of, from_mapping, to_mapping
from dvsel.runs import fitted_files as storage

_ODD_TEXTS = ("", " ", "\0", "a", "\n\n", "\U0001f642 caf\u00e9", "word " * 5000, "x" * 100_000)


Batched = Callable[[Sequence[str]], Batch]


def check_scorer(
    scorer: Scorer, pool: Sequence[str], target: Sequence[str] = (), batch_of: Batched = Batch.of
) -> Fitted:
    """Fit `scorer` and check what the flow relies on; returns the fitted scorer.

    batch_of: makes a batch of texts, for a scorer that needs more than these, such as labels.

    Options survive a recipe; arrays are as the fitted class's schema says, if it has one; the fit is the same twice and
    does not depend on batches; saving and loading keeps scores and bytes; a document's score depends on that document
    alone (up to the scorer's `tolerance`); unusual texts give a float or NaN.
    Raises AssertionError with what is wrong.
    """
    cls = type(scorer)
    _check_options(scorer, SCORERS)
    selector_class(cls.selector)
    fitted = _fit(scorer, pool, target, len(pool), batch_of)
    _check_arrays(fitted)
    assert abs(sum(fitted.shares) - 1) < 1e-6, "shares do not sum to 1"
    content = storage.to_bytes(fitted)
    again = _fit(scorer, pool, target, len(pool), batch_of)
    assert storage.to_bytes(again) == content, "two fits on the same data differ"
    again = _fit(scorer, pool, target, 3, batch_of)
    assert storage.to_bytes(again) == content, "the fit depends on how the sample is batched"
    loaded = storage.from_bytes(content, "saved")
    assert loaded.scorer == fitted.scorer, "options are lost in saving"
    assert (loaded.groups, loaded.shares, loaded.unscored) == (
        fitted.groups,
        fitted.shares,
        fitted.unscored,
    ), "groups, shares or unscored are lost in saving"
    texts = [*pool, *_ODD_TEXTS]
    scores = _score(fitted, batch_of(texts))
    assert np.isfinite(scores[: len(pool)]).any(), "no document of the pool has a score"
    _same(_score(loaded, batch_of(texts)), scores, "a saved and loaded scorer scores otherwise")
    close = scorer.tolerance
    _same(_score(fitted, batch_of(texts[::-1]))[::-1], scores, "scores depend on the order of documents", close)
    alone = np.concatenate([_score(fitted, batch_of([text])) for text in texts])
    _same(alone, scores, "scores depend on the other documents of the batch", close)
    assert _score(fitted, batch_of([])).shape == (0, len(fitted.groups)), "an empty batch gives no empty scores"
    return fitted


def _check_arrays(fitted: Fitted) -> None:
    wanted = fitted.schema(fitted.scorer)
    try:
        if wanted is not None:
            schema.check(fitted.arrays, wanted)
        fitted.check()
    except ValueError as error:
        raise AssertionError(f"the fit's arrays are not what its class says: {error}") from error


def check_selector(selector: Selector) -> None:
    """Check what the flow relies on: a key for each row from that row alone, NaN for NaN, noise where it is stated.

    For a `SetSelector`: the keys are the same twice, whatever the order of documents; a document that does not compete
    has none; weights are 1 or more.
    Raises AssertionError with what is wrong.
    """
    _check_options(selector, SELECTORS)
    if isinstance(selector, SetSelector):
        _check_set_selector(selector)
        return
    generator = np.random.default_rng(0)
    score = np.concatenate([generator.normal(size=1000), [np.nan, 0.0, -0.0]]).astype(np.float32)
    uniform = generator.uniform(1e-9, 1 - 1e-9, len(score))
    key = selector.key(score, uniform)
    assert key.shape == score.shape and key.dtype == np.float32, "key is not a float32 array of the scores' length"
    assert np.isnan(key[np.isnan(score)]).all(), "a document without a score has a key"
    _same(selector.key(score, uniform), key, "two calls differ")
    _same(selector.key(score[::-1], uniform[::-1])[::-1], key, "keys depend on the order of documents")
    _same(np.concatenate([selector.key(score[i : i + 1], uniform[i : i + 1]) for i in range(len(score))]), key,
          "keys depend on the other documents")  # fmt: skip
    _check_score_of(selector, key[~np.isnan(key)], uniform[~np.isnan(key)])
    changed = not np.array_equal(selector.key(score, uniform[::-1].copy()), key, equal_nan=True)
    assert changed == selector.noisy, "`noisy` does not say whether the noise is used"
    assert selector.budget is None or isinstance(selector.budget, Budget), "budget is not a Budget"


@dataclass
class _Made:
    """Made-up candidates with vectors: two groups of scores, some documents that do not compete."""

    part: Part
    scratch: Path
    limit: int | None = 60
    groups: tuple[str, ...] = ("a", "b")
    seed: int = 0

    def __post_init__(self) -> None:
        self.count = len(self.part)
        self.docs = int(self.part.eligible.sum())
        self.cost = int(self.part.cost[self.part.eligible].sum())
        self.keys = np.full(self.count, np.nan, np.float32)

    def parts(self, vectors: bool = False) -> Iterator[Part]:  # noqa: ARG002
        yield self.part

    def embedded(self, patterns: Sequence[str]) -> npt.NDArray[np.float32]:  # noqa: ARG002
        return np.eye(3, self.part.vectors.shape[1], dtype=np.float32)


def _candidates(order: npt.NDArray[np.int64], scratch: str) -> _Made:
    """Return the same documents in this order."""
    count, generator = len(order), np.random.default_rng(0)
    vectors = generator.normal(size=(count, 8)) + 3 * np.eye(8)[np.arange(count) % 4]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns: list[npt.NDArray[Any]] = [
        -generator.exponential(size=(count, 2)).astype(np.float32),
        generator.integers(1 << 63, size=count).astype(np.uint64),
        generator.uniform(0.01, 0.99, count),
        generator.integers(1, 5, count),
        generator.uniform(size=count) < 0.9,
        vectors.astype(np.float32),
    ]
    return _Made(Part(0, *(column[order] for column in columns)), Path(scratch))


def _check_set_selector(selector: SetSelector) -> None:
    order = np.arange(200)
    shuffled = np.random.default_rng(1).permutation(order)
    found = []
    for rows in (order, order, shuffled):
        with tempfile.TemporaryDirectory(prefix="dvsel-") as scratch:
            made = _candidates(rows, scratch)
            notes = selector.rank(made)
        assert all(isinstance(note, str) for note in notes), "`rank` returns lines for the summary"
        assert made.keys.dtype == np.float32 and len(made.keys) == len(rows), (
            "keys are not float32 of the pool's length"
        )
        assert np.isnan(made.keys[~made.part.eligible]).all(), "a document that does not compete has a key"
        assert np.isfinite(made.keys).any(), "no document has a key"
        back = np.empty_like(made.keys)
        back[rows] = made.keys
        found.append(back)
    _same(found[1], found[0], "two calls differ")
    _same(found[2], found[0], "keys depend on the order of documents", 1e-4)
    if selector.weight_field:
        there = np.isfinite(found[0])
        weights = selector.weight(found[0][there], np.full(int(there.sum()), 0.5), np.full(int(there.sum()), 1.0, "f4"))
        assert weights.dtype == np.float32 and (weights >= 1).all(), "a weight is under 1"


def _check_score_of(selector: Selector, key: npt.NDArray[np.float32], uniform: npt.NDArray[np.float64]) -> None:
    scores = [selector.score_of(one) for one in key.tolist()]
    if any(score is not None for score in scores):
        _same(selector.key(np.array(scores, np.float32), uniform), key, "`score_of` names a score that has another key")


def _check_options(instance: Scorer | Selector, group: str) -> None:
    cls = type(instance)
    params = getattr(cls, "__dataclass_params__", None)
    assert params is not None and params.frozen, f"{cls.__name__} is not a frozen dataclass"
    doc = (cls.__doc__ or "").strip()
    generated = doc.startswith(f"{cls.__name__}(")  # what a dataclass gets that has none
    assert doc and not generated, f"{cls.__name__} has no docstring, which is its help"
    for name, (field, _) in fields_of(cls).items():
        assert field.metadata.get("help"), f"option {name} has no help; declare it with option(default, help)"
    assert from_mapping(cls, to_mapping(instance), cls.__name__) == instance, "options do not survive a recipe"
    name_of(group, cls)


def _fit(scorer: Scorer, pool: Sequence[str], target: Sequence[str], size: int, batch_of: Batched) -> Fitted:
    def batches(texts: Sequence[str]) -> list[Batch]:
        return [batch_of(texts[first : first + size]) for first in range(0, len(texts), size)]

    targets = {"target": batches(target)} if type(scorer).takes_target else {}
    return scorer.fit(batches(pool) if scorer.takes_pool else [], targets)


def _score(fitted: Fitted, batch: Batch) -> npt.NDArray[np.float32]:
    scores = fitted.score(batch)
    why = unlike_scores(scores, len(batch), len(fitted.groups))
    assert not why, f"score gave {why}"
    return scores[:, None] if scores.ndim == 1 else scores


def _same(
    found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], complaint: str, tolerance: float = 0.0
) -> None:
    assert found.shape == expected.shape, complaint
    assert np.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True), complaint
