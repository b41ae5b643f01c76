"""Distance to a target: scores against the formula, and what is said about odd pools and targets."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

pytest.importorskip("torch")

from dvsel.documents.columns import Batch
from dvsel.documents.vectors import Maker, Vectors
from dvsel.errors import Notice, UserError
from dvsel.runs import fitted_files as storage
from dvsel.scorers.target import FittedTarget, Target
from dvsel.testing import check_scorer
from language_models import TEXTS

Array = npt.NDArray[np.float64]

MAKER = Maker("some-encoder", "00ff", "mean", 6, 128)

pytestmark = pytest.mark.usefixtures("one_thread")


def embedded(vectors: Array, maker: Maker = MAKER, first: int = 0) -> Batch:
    """Documents that come with these vectors."""
    texts = [f"document {first + number}" for number in range(len(vectors))]
    return Batch(Batch.of(texts).text, vectors=Vectors(vectors.astype(np.float32), maker))


@pytest.fixture(scope="module")
def pool() -> Array:
    """Two crowds, the first four times as large."""
    draws = np.random.default_rng(0)
    centres = np.array([[4, 0, 0, 0, 0, 0]] * 240 + [[0, 4, 0, 0, 0, 0]] * 60)
    found: Array = draws.permutation(draws.normal(size=(300, 6)) + centres)
    return found


@pytest.fixture(scope="module")
def target() -> Array:
    """Half of one crowd, half of the other."""
    draws = np.random.default_rng(1)
    return draws.normal(size=(40, 6)) + np.array([[4, 0, 0, 0, 0, 0]] * 20 + [[0, 4, 0, 0, 0, 0]] * 20)  # type: ignore[no-any-return]


def fit(scorer: Target, pool: Array, **targets: Array) -> FittedTarget:
    return scorer.fit([embedded(pool)], {name: [embedded(vectors)] for name, vectors in targets.items()})


def arrays(fitted: FittedTarget) -> tuple[Array, Array, Array, float]:
    vectors, masses, prices = (fitted.arrays[f"{name}.0"] for name in ("vectors", "masses", "prices"))
    return vectors, masses, prices, float(fitted.arrays["eps"][0])


@pytest.mark.parametrize("cost", ["cosine", "squared"])
@pytest.mark.parametrize("preset", ["got-d", "unbalanced"])
def test_the_score_is_minus_the_potential_at_the_prices(preset: str, cost: str, pool: Array, target: Array) -> None:
    fitted = fit(Target(preset=preset, cost=cost), pool, target=target)
    y, b, g, eps = arrays(fitted)
    net = (cdist(pool, y, "cosine") if cost == "cosine" else cdist(pool, y, "sqeuclidean") / 2) - g

    assert np.allclose(fitted.score(embedded(pool)), eps * logsumexp(-net / eps, 1, b), rtol=1e-4, atol=1e-4)


def test_prices_send_the_pool_to_all_of_the_target(pool: Array, target: Array) -> None:
    """The plan that the prices make is a transport plan, and what few documents are near is dear."""
    fitted = fit(Target(marginal_error=1e-4), pool, target=target)
    y, b, g, eps = arrays(fitted)
    net = (g - cdist(pool, y, "cosine")) / eps + np.log(b)

    received = np.exp(net - logsumexp(net, 1)[:, None]).mean(0)

    assert np.abs(received - b).sum() < 1.1e-4
    assert g[y[:, 1] > y[:, 0]].mean() > g[y[:, 0] > y[:, 1]].mean() + eps / 2


def test_unbalanced_prices_lie_between_those_of_transport_and_none(pool: Array, target: Array) -> None:
    low, high, balanced = (
        arrays(fit(scorer, pool, target=target))[2].std()
        for scorer in (Target(preset="unbalanced", rho=0.1), Target(preset="unbalanced", rho=5), Target())
    )

    assert 0 < low < high / 2 < high < balanced


def test_rds_max_is_the_highest_similarity_and_mean_the_mean_one(pool: Array, target: Array) -> None:
    similarity = 1 - cdist(pool, target, "cosine")

    highest = fit(Target(preset="rds-max"), pool, target=target)
    mean = fit(Target(preset="mean"), pool, target=target)

    assert not highest.scorer.takes_pool
    assert np.allclose(1 + highest.score(embedded(pool)), similarity.max(1), atol=1e-5)
    assert np.allclose(1 + mean.score(embedded(pool)), similarity.mean(1), atol=1e-5)


def test_eps_is_in_standard_deviations_of_the_cost(pool: Array, target: Array) -> None:
    fitted = fit(Target(eps=0.25), pool, target=target)

    deviation = cdist(pool, target, "cosine").std()

    assert fitted.arrays["eps"][0] == pytest.approx(deviation / 4, rel=1e-4)
    assert fitted.report["targets"]["target"]["eps in cost"] == pytest.approx(deviation / 4, abs=1e-6)


def test_the_report_says_with_how_many_documents_one_is_compared(pool: Array, target: Array) -> None:
    numbers = [
        fit(Target(eps=eps), pool, target=target).report["targets"]["target"]["compared with"]
        for eps in (0.02, 0.5, 1000)
    ]

    assert 1 < numbers[0] < 4 < numbers[1] < 39 < numbers[2] <= 40


def test_each_target_has_its_column_and_its_share(pool: Array, target: Array) -> None:
    both = fit(Target(), pool, first=target[:10], second=target[10:])
    second = fit(Target(), pool, second=target[10:])

    scores = both.score(embedded(pool))

    assert both.groups == ("first", "second")
    assert both.shares == (0.25, 0.75)
    assert scores.shape == (300, 2)
    assert np.array_equal(scores[:, 1], second.score(embedded(pool)))
    assert len(both.lines()) == 3


def test_identical_documents_of_a_target_are_one_of_their_mass(pool: Array, target: Array) -> None:
    copies = np.arange(40) % 3 + 1

    fitted = fit(Target(), pool, target=target.repeat(copies, 0))

    vectors, masses, _, _ = arrays(fitted)
    order = np.lexsort(target.astype(np.float32).T[::-1])
    assert np.array_equal(vectors, target[order].astype(np.float32))
    assert np.allclose(masses, copies[order] / copies.sum())


def test_the_fit_sees_the_first_documents_of_the_sample_however_they_are_batched(pool: Array, target: Array) -> None:
    scorer = Target(fit_documents=100)
    parts = [embedded(pool[first : first + 70], first=first) for first in range(0, 300, 70)]

    batched = scorer.fit(parts, {"target": [embedded(target)]})

    assert storage.to_bytes(batched) == storage.to_bytes(fit(scorer, pool[:100], target=target))


def test_of_a_large_target_some_documents_are_chosen_whatever_their_order(pool: Array, target: Array) -> None:
    scorer = Target(target_documents=15)
    batch = embedded(target)
    rows = np.random.default_rng(0).permutation(40)
    assert batch.vectors is not None
    shuffled = Batch(batch.text.take(rows), vectors=batch.vectors.take(rows))

    with pytest.warns(Notice, match="target big: 15 of its 40 documents are used"):
        fitted = scorer.fit([embedded(pool)], {"big": [batch]})
    with pytest.warns(Notice):
        again = scorer.fit([embedded(pool)], {"big": [shuffled.take(np.arange(33)), Batch(*rest(shuffled, 33))]})

    assert len(fitted.arrays["vectors.0"]) == 15
    assert storage.to_bytes(fitted) == storage.to_bytes(again)


def rest(batch: Batch, first: int) -> tuple[Any, ...]:
    rows = np.arange(first, len(batch))
    assert batch.vectors is not None
    return batch.text.take(rows), {}, None, batch.vectors.take(rows)


def test_documents_have_numbers_of_their_own_to_choose_by(pool: Array, target: Array) -> None:
    keys = np.arange(40, dtype=np.uint64)[::-1].copy()
    batch = dataclasses.replace(embedded(target), keys=keys)

    with pytest.warns(Notice):
        fitted = Target(target_documents=3, preset="rds-max").fit([], {"big": [batch]})

    chosen = target[-3:].astype(np.float32)
    assert np.array_equal(fitted.arrays["vectors.0"], chosen[np.lexsort(chosen.T[::-1])])


def test_a_target_of_one_document_ranks_by_its_cost_and_says_so(pool: Array, target: Array) -> None:
    with pytest.warns(Notice, match="target one: is one document"):
        fitted = fit(Target(), pool, one=target[:1])

    expected = -cdist(pool, target[:1], "cosine")[:, 0]
    assert np.allclose(fitted.score(embedded(pool)), expected, atol=1e-5)


def test_documents_without_a_usable_vector_have_no_score(pool: Array, target: Array) -> None:
    damaged = pool.copy()
    damaged[2, 3], damaged[5] = np.nan, 0
    clean = np.delete(pool, [2, 5], 0)

    fitted = fit(Target(), damaged, target=target)

    assert np.flatnonzero(np.isnan(fitted.score(embedded(damaged)))).tolist() == [2, 5]
    assert np.array_equal(fitted.arrays["prices.0"], fit(Target(), clean, target=target).arrays["prices.0"])


def test_documents_of_a_target_without_a_vector_are_left_out_and_counted(pool: Array, target: Array) -> None:
    damaged = np.concatenate([target, np.full((3, 6), np.nan)])

    fitted = fit(Target(), pool, target=damaged)

    assert fitted.report["targets"]["target"]["without a vector"] == 3
    assert np.array_equal(fitted.score(embedded(pool)), fit(Target(), pool, target=target).score(embedded(pool)))


def test_prices_that_are_not_settled_are_said_to_be_so(pool: Array, target: Array) -> None:
    with pytest.warns(Notice, match=r"not settled after \d+ passes, at a marginal error of .* instead of 1e-06"):
        fit(Target(marginal_error=1e-6, max_steps=3), pool, target=target)


@pytest.mark.parametrize(
    ("work", "complaint"),
    [
        (lambda pool, _: fit(Target(), pool), "no target"),
        (lambda pool, target: fit(Target(), pool, empty=target[:0]), "target empty: holds no document"),
        (lambda pool, target: fit(Target(), pool, bad=target * np.nan), "target bad: no document has a vector"),
        (lambda pool, target: fit(Target(), pool * 0, target=target), "the pool's sample: no document has a vector"),
        (lambda pool, target: fit(Target(), pool[:1].repeat(9, 0), t=target[:1]), "equally far from all"),
    ],
)
def test_pools_and_targets_that_cannot_be_used_are_refused(
    work: Callable[[Array, Array], FittedTarget], complaint: str, pool: Array, target: Array
) -> None:
    with pytest.raises(UserError, match=complaint), warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        work(pool, target)


def test_vectors_of_another_model_are_refused(pool: Array, target: Array) -> None:
    other = dataclasses.replace(MAKER, digest="1234", model="other-encoder")
    fitted = fit(Target(), pool, target=target)

    with pytest.raises(UserError, match="other-encoder"):
        fitted.score(embedded(pool, other))
    with pytest.raises(UserError, match="other-encoder"):
        Target().fit([embedded(pool)], {"target": [embedded(target, other)]})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"preset": "rds-max", "eps": 0.5}, "--eps: belongs to --preset got-d or --preset unbalanced"),
        ({"preset": "mean", "eps": 0.5}, "--eps: belongs to --preset"),
        ({"rho": 1.0}, "--rho: belongs to --preset unbalanced"),
        ({"preset": "lava"}, "unknown"),
        ({"cost": "l1"}, "unknown"),
        ({"eps": -1.0}, "out of range"),
        ({"eps": math.inf}, "out of range"),
        ({"rho": math.nan, "preset": "unbalanced"}, "out of range"),
        ({"fit_documents": 0}, "out of range"),
        ({"target_documents": 0}, "out of range"),
        ({"max_steps": 0}, "out of range"),
        ({"marginal_error": 0.0}, "out of range"),
        ({"max_tokens": -1}, "out of range"),
    ],
)
def test_options_that_contradict_or_are_out_of_range_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        Target(**options)


@pytest.mark.parametrize("preset", ["got-d", "unbalanced", "rds-max", "mean"])
def test_it_is_a_scorer(preset: str, model: str) -> None:
    texts = [text[:200] for text in TEXTS[:24]]

    fitted = check_scorer(Target(preset=preset, model=model), pool=texts, target=_other(texts))

    assert math.isfinite(float(fitted.score(Batch.of(["a text"]))[0]))


def _other(texts: Sequence[str]) -> list[str]:
    return [text[50:150] for text in texts[:9]]
