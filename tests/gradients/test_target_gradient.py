"""A whole fit: the target's gradient, its complaints, and the cut."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradient_truth import TEXTS, gradients, in_double, loss

from dvsel.errors import Notice, UserError
from dvsel.gradients import target_gradient
from dvsel.gradients.compare import Scores, comparison
from dvsel.gradients.gradient_pass import GradientMeter, Passed
from dvsel.gradients.layers import choose
from dvsel.gradients.low_rank import Cut
from dvsel.gradients.target_gradient import Curvature, checked, find, mean_gradient
from dvsel.language import Documents
from dvsel.language.models import Model

POOL = Documents([text[:80] for text in TEXTS] * 2)


@pytest.fixture
def meter(model_of: Callable[..., Model]) -> GradientMeter:
    model = model_of("llama")
    return GradientMeter(model, choose(model, "all"), 32, 16)


def test_the_query_is_the_mean_of_the_documents_gradients(meter: GradientMeter) -> None:
    found = mean_gradient(meter, Documents(["", *TEXTS]), "mean", "target")
    assert found.documents == len(TEXTS)
    documents = [gradients(meter.model, meter.layers, text, 32, 16) for text in TEXTS]
    for number, gradient in enumerate(found.gradients):
        torch.testing.assert_close(gradient, torch.stack([one[number] for one in documents]).mean(0))
    with torch.no_grad():
        totals = [float(loss(meter.model, text, 32, 16, "sum")) for text in TEXTS]
    tokens = sum(len(meter.model.card.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS)
    assert found.loss == pytest.approx(sum(totals) / tokens)


@pytest.mark.parametrize("preconditioner", ["kfac", "ekfac", "none"])
@pytest.mark.parametrize(("rank", "energy"), [(0, 0.0), (4, 0.0), (0, 0.9)])
def test_the_mean_score_of_the_targets_own_documents_is_known_beforehand(
    preconditioner: str, rank: int, energy: float, meter: GradientMeter
) -> None:
    targets = (TEXTS[:2], TEXTS[2:])
    queries = [mean_gradient(meter, Documents(texts), "mean", "target") for texts in targets]
    found = find(meter, queries, Curvature(preconditioner), POOL, Cut(rank, energy))
    comparisons = [comparison(layer) for layer in found.directions]
    for group, texts in enumerate(targets):
        scores = Scores(comparisons, len(texts), 2, "cpu")
        meter.run(Documents(texts), scores, "mean")
        assert float(scores.products[:, group].mean()) == pytest.approx(found.own_scores()[group])


def test_energy_gives_each_layer_and_group_its_rank(meter: GradientMeter) -> None:
    queries = [mean_gradient(meter, Documents(texts), "mean", "target") for texts in (TEXTS[:1], TEXTS)]
    found = find(meter, queries, Curvature("kfac"), POOL, Cut(3, 0.8))
    ranks = np.array([[one.rank for one in layer] for layer in found.directions])
    assert ranks.shape == (14, 2) and len(set(ranks.flatten().tolist())) > 2
    assert all(one.energy >= 0.8 for layer in found.directions for one in layer)


def test_targets_without_text_or_gradient_are_refused(meter: GradientMeter) -> None:
    with pytest.raises(UserError, match="target t: no document with a loss; give documents with text"):
        mean_gradient(meter, Documents(["", ""]), "mean", "target t")
    model = in_double(meter.model)
    for block in model.network.model.layers:
        block.self_attn.o_proj.weight.data.zero_()
    dead = GradientMeter(model, choose(model, "*.v_proj"))
    with pytest.raises(UserError, match="target t: its gradient is 0 in every layer that counts; give other --layers"):
        mean_gradient(dead, Documents(TEXTS), "mean", "target t")
    with pytest.raises(UserError, match="the pool's sample: no document with a loss"):
        Curvature("kfac").metrics(meter, Documents([]), [])


def test_documents_whose_losses_are_no_numbers_are_named() -> None:
    losses = np.array([1.0, math.nan, 0.0, math.inf, 2.0])
    complaint = "target t, document 2: its loss is NaN or infinite, so it is left out, as are 1 others"
    with pytest.warns(Notice, match=complaint):
        assert checked(Passed(losses, np.array([3, 3, 0, 3, 3])), "target t") == 2


def test_the_curvature_of_some_layers_at_a_time_is_the_same(
    meter: GradientMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [mean_gradient(meter, Documents(TEXTS), "mean", "target")]
    whole = find(meter, queries, Curvature("ekfac"), POOL, Cut(3))
    monkeypatch.setattr(target_gradient, "_FACTORS", 4 * 32**2 * 3)
    parts = target_gradient.portions(meter.layers)
    assert len(parts) > 3 and [layer for part in parts for layer in part] == list(meter.layers)
    for one, other in zip(
        find(meter, queries, Curvature("ekfac"), POOL, Cut(3)).directions, whole.directions, strict=True
    ):
        torch.testing.assert_close(one[0].left @ one[0].right.T, other[0].left @ other[0].right.T)
