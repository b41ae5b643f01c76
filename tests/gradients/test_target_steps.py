"""Steps on a target against the same steps by hand, in float64, on a copy of the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradient_truth import TEXTS, copied, gradients, loss, random_directions

from dvsel.errors import Notice, UserError
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.low_rank import Cut, Direction
from dvsel.gradients.target_gradient import Curvature, find
from dvsel.gradients.target_steps import KeptCurvature, Walk, moved
from dvsel.language import Documents
from dvsel.language.models import Model

TARGET, SAMPLE = TEXTS[:2], TEXTS[2:]
LAYERS = {"llama": "*.o_proj,*.1.mlp.*", "gpt2": "*.attn.c_proj,*.1.mlp.*"}


def mean_loss(model: Model, texts: list[str]) -> float:
    return float(np.mean([float(loss(model, text, 32, 16)) for text in texts]))


def step_by_hand(model: Model, names: str, curvature: Curvature, size: float, metrics: list) -> list:  # type: ignore[type-arg]
    """W less size * H^-1 of the target's mean gradient, in the model itself; returns the metrics it used."""
    layers = choose(model, names)
    metrics = metrics or list(curvature.metrics(GradientMeter(model, layers, 32), Documents(SAMPLE), []))
    found = [gradients(model, layers, text, 32, 16) for text in TARGET]
    for number, (layer, metric) in enumerate(zip(layers, metrics, strict=True)):
        whole = metric.direction(torch.stack([one[number] for one in found]).mean(0), 0, Cut(0))
        change = size * whole.left @ whole.right.T
        layer.module.weight.data -= change.T if layer.transposed else change
    return metrics


def a_walk(model: Model, fall: float = 0.01, size: float = 0.0) -> Walk:
    meter = GradientMeter(model, choose(model, LAYERS[model.card.config.model_type]), 32, batch_tokens=70)
    return Walk(meter, Documents(TARGET), "mean", "target t", fall, size)


@pytest.fixture(autouse=True)
def few_tokens_are_known() -> None:
    warnings.filterwarnings("ignore", "curvature.*tokens of the pool", Notice)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(("name", "preconditioner"), [("llama", "kfac"), ("gpt2", "none"), ("llama", "ekfac")])
def test_losses_are_those_after_training_by_those_steps(
    name: str, preconditioner: str, steps: int, model_of: Callable[..., Model]
) -> None:
    model, size = model_of(name), 1e-3
    walk = a_walk(model, size=size)
    walk.walk(steps, KeptCurvature(preconditioner), Documents(SAMPLE), Cut(0))
    assert walk.sizes == [size] * steps
    trained = copied(model)
    metrics: list[Any] = []
    for taken in range(steps):
        assert walk.losses[taken] == pytest.approx(mean_loss(trained, TARGET), rel=1e-9)
        metrics = step_by_hand(trained, LAYERS[name], Curvature(preconditioner), size, metrics)
    assert walk.losses[-1] == pytest.approx(mean_loss(trained, TARGET), rel=1e-9)
    before = walk.meter.run(Documents(TEXTS), None, "mean").reduced("mean")
    with moved(walk.meter.layers, walk.moves):
        after = walk.meter.run(Documents(TEXTS), None, "mean").reduced("mean")
    expected = [float(loss(model, text, 32, 16) - loss(trained, text, 32, 16)) for text in TEXTS]
    np.testing.assert_allclose(before - after, expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_small_step_does_what_influence_says(rank: int, model_of: Callable[..., Model]) -> None:
    """To first order: the difference of losses over the size is the inner product with the same direction."""
    model, sample, cut = model_of("llama"), Documents(SAMPLE), Cut(rank)
    walk = a_walk(model, size=1e-6)
    query = walk.gradient()
    found = find(walk.meter, [query], Curvature("kfac"), sample, cut)
    walk.step([one[0] for one in found.directions], found.own_scores()[0])
    layers = walk.meter.layers
    influence = [
        sum(layer[0].times(one) for layer, one in zip(found.directions, mine, strict=True))
        for mine in (gradients(model, layers, text, 32, 16) for text in TEXTS)
    ]
    before = walk.meter.run(Documents(TEXTS), None, "mean").reduced("mean")
    with moved(layers, walk.moves):
        after = walk.meter.run(Documents(TEXTS), None, "mean").reduced("mean")
    np.testing.assert_allclose((before - after) / 1e-6, influence, rtol=1e-3, atol=1e-4 * max(influence))


def test_the_size_that_is_found_takes_the_wanted_share(model_of: Callable[..., Model]) -> None:
    for fall in (1e-4, 1e-2):
        walk = a_walk(model_of("llama"), fall=fall)
        walk.walk(1, Curvature("kfac"), Documents(SAMPLE), Cut(0))
        assert (walk.losses[0] - walk.losses[1]) / walk.losses[0] == pytest.approx(fall, rel=0.21)
    assert walk.count == 2


def test_a_step_that_is_too_long_is_halved(model_of: Callable[..., Model]) -> None:
    """Half of the loss is more than a straight line has to give."""
    walk = a_walk(model_of("llama"), fall=0.9)
    query = walk.gradient()
    found = find(walk.meter, [query], Curvature("none"), Documents([]), Cut(0))
    slope = found.own_scores()[0]
    walk.step([one[0] for one in found.directions], slope)
    halvings = np.log2(0.9 * walk.losses[0] / slope / walk.sizes[0])
    assert halvings == pytest.approx(round(halvings)) and halvings >= 1
    assert walk.losses[0] - walk.losses[1] == pytest.approx(walk.sizes[0] * slope, rel=0.2)


def test_what_cannot_be_walked_is_told(model_of: Callable[..., Model]) -> None:
    walk = a_walk(model_of("llama"))
    uphill = [Direction(-one[0].left, one[0].right) for one in random_directions(walk.meter.layers, [2])]
    with pytest.raises(UserError, match=r"target t: what the cut leaves .* raise --rank or --energy"):
        walk.step(uphill, -1.0)
    with pytest.raises(UserError, match="target t: its loss does not fall along a step as its gradient says"):
        walk.step(uphill, 1e30)  # far more than the gradient has


@pytest.mark.parametrize("name", ["llama, tied", "gpt2, tied"])
def test_weights_move_in_their_layer_alone_and_come_back(name: str, model_of: Callable[..., Model]) -> None:
    """So does a head that shares its weight with the embeddings, whatever happens meanwhile."""
    model = model_of(name)
    layers = choose(model, f"lm_head,{LAYERS[model.card.config.model_type]}")
    moves = [one[0] for one in random_directions(layers, [3])]
    kept = [layer.module.weight for layer in layers]
    copies = [weight.clone() for weight in kept]
    embeddings = model.network.get_input_embeddings().weight
    with pytest.raises(RuntimeError, match="meanwhile"), moved(layers, moves):
        for layer, move, old in zip(layers, moves, copies, strict=True):
            change = move.left @ move.right.T
            torch.testing.assert_close(layer.module.weight.data, old - (change.T if layer.transposed else change))
        assert model.network.get_input_embeddings().weight is embeddings
        raise RuntimeError("meanwhile")
    for layer, weight, old in zip(layers, kept, copies, strict=True):
        assert layer.module.weight is weight and torch.equal(weight, old)


def test_rounding_is_that_of_the_weights(model_of: Callable[..., Model]) -> None:
    exact = a_walk(model_of("llama"))
    exact.walk(1, Curvature("kfac"), Documents(SAMPLE), Cut(0))
    assert exact.rounding() < 1e-10
    coarse = copied(model_of("llama", torch.float32))
    for layer in choose(coarse, LAYERS["llama"]):
        layer.module.weight.data = layer.module.weight.data.bfloat16()
    walk = a_walk(coarse)
    walk.moves = [Direction(one.left.float(), one.right.float()) for one in exact.moves]
    assert walk.rounding() > 0.1
