"""Embeddings and heads as layers that count, against autograd with the weights apart where they are tied."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gradient_truth import (
    LONG,
    TEXTS,
    assert_collected,
    assert_moments,
    close,
    copied,
    gradients,
    loss,
    random_directions,
)

from dvsel.errors import UserError
from dvsel.gradients import moments
from dvsel.gradients.compare import Scores, comparison
from dvsel.gradients.curvature import Kronecker
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import Layer, choose, is_head, named
from dvsel.gradients.low_rank import Cut
from dvsel.gradients.target_gradient import Curvature, find, mean_gradient
from dvsel.language import Documents, windows
from dvsel.language.models import Model

SOME = [*TEXTS[:3], LONG[:200], TEXTS[4]]
ENDS = {
    "llama": ("model.embed_tokens", "lm_head"),
    "llama, tied": ("model.embed_tokens", "lm_head"),
    "gpt2": ("transformer.wte", "lm_head"),
    "gpt_neox": ("gpt_neox.embed_in", "lm_head"),
    "gemma2": ("model.embed_tokens", "lm_head"),  # whose embedding is scaled
}
EAGER = 1e-5  # whose softmax transformers computes in float32


def truths(model: Model, names: list[str], window: int, stride: int) -> list[list[torch.Tensor]]:
    apart = copied(model)
    return [gradients(apart, named(apart, names), text, window, stride) for text in SOME]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", ENDS)
def test_gradients_of_embedding_and_head(name: str, packing: bool, model_of: Callable[..., Model]) -> None:
    """They are taken by name, also where one weight is both; beside a layer between them."""
    model = model_of(name)
    layers = choose(model, ",".join([*ENDS[name], "*.1.mlp.*"]))
    assert [layer.embeds for layer in layers] == [True, *[False] * (len(layers) - 1)] and is_head(model, layers[-1])
    meter = GradientMeter(model, layers, 32, 20, batch_tokens=100, packing=packing)
    expected = truths(model, [layer.name for layer in layers], 32, 20)
    assert_collected(meter, Documents(SOME), expected, tolerance=EAGER if name == "gemma2" else 1e-8)


@pytest.mark.parametrize("end", [0, 1])
def test_gradients_of_one_of_them(end: int, model_of: Callable[..., Model]) -> None:
    """The embedding alone runs without the head as a layer; the head alone keeps no graph below."""
    model = model_of("llama, tied")
    layers = choose(model, ENDS["llama, tied"][end])
    meter = GradientMeter(model, layers, 64)
    assert meter.objective.whole == bool(end)  # type: ignore[attr-defined]
    assert_collected(meter, Documents(SOME), truths(model, [layers[0].name], 64, 32))


def test_batches_are_smaller_where_all_logits_are_made_at_once(
    model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama")
    monkeypatch.setattr(windows, "_WHOLE", 100 * model.tokens)
    assert GradientMeter(model, choose(model, "lm_head")).batch_tokens == 50
    assert GradientMeter(model, choose(model, "lm_head"), batch_tokens=70).batch_tokens == 70
    assert GradientMeter(model, choose(model, "all")).batch_tokens > 1000


def test_patterns_match_them_where_they_are_apart(model_of: Callable[..., Model]) -> None:
    assert [layer.name for layer in choose(model_of("llama"), "*embed*,*head*")] == list(ENDS["llama"])
    with pytest.raises(UserError, match="matches no layer"):
        choose(model_of("llama, tied"), "*embed*")
    assert not any(layer.embeds or is_head(model_of("llama"), layer) for layer in choose(model_of("llama"), "all"))


def test_an_embedding_of_positions_is_refused(model_of: Callable[..., Model]) -> None:
    meter = GradientMeter(model_of("gpt2"), choose(model_of("gpt2"), "transformer.wpe"), 32)
    with pytest.raises(UserError, match=r"layer transformer\.wpe: does not see every token in its row"):
        meter.run(Documents(SOME), moments.GradientSum(meter.layers), "mean")


@pytest.mark.parametrize("widest", [moments.WIDEST, 100])
def test_factors_and_their_diagonals(
    widest: int, model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedding's inputs are counted by token; of the head's outputs, where they are too wide, the same."""
    monkeypatch.setattr(moments, "WIDEST", widest)
    model = model_of("llama, tied")
    meter = GradientMeter(model, choose(model, ",".join(ENDS["llama, tied"])), 64, batch_tokens=100)
    apart = copied(model)
    shapes = _moments_match(meter, apart)
    assert shapes == [(1, 2), (2, 1 if widest == 100 else 2)]


def _moments_match(meter: GradientMeter, apart: Model) -> list[tuple[int, int]]:
    """Compare the factors of each layer; return their dimensions."""
    numbers = [lambda text=text: loss(apart, text, 64, 32, "sum") for text in SOME]
    known = GradientMeter(apart, named(apart, [layer.name for layer in meter.layers]), 64, batch_tokens=100)
    assert_moments(known, Documents(SOME), numbers)
    found, expected = moments.FactorSums(meter.layers), moments.FactorSums(known.layers)
    meter.run(Documents(SOME), found, "sum")
    known.run(Documents(SOME), expected, "sum")
    for one, other in zip(found.factors, expected.factors, strict=True):
        close(one.inputs, other.inputs)
        close(one.outputs, other.outputs)
    return [(one.inputs.ndim, one.outputs.ndim) for one in found.factors]


@pytest.mark.filterwarnings("ignore::dvsel.errors.Notice")  # of the small sample
@pytest.mark.parametrize("preconditioner", ["kfac", "ekfac"])
@pytest.mark.parametrize("widest", [moments.WIDEST, 100])
def test_curvature_by_brute_force(
    preconditioner: str, widest: int, model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """H as a whole matrix over the weights of each layer, inverted."""
    monkeypatch.setattr(moments, "WIDEST", widest)
    model = model_of("llama")
    meter = GradientMeter(model, choose(model, ",".join(ENDS["llama"])), 64, batch_tokens=100)
    target = mean_gradient(meter, Documents(SOME[:2]), "mean", "target")
    found = find(meter, [target], Curvature(preconditioner), Documents(SOME), Cut(0)).directions
    metrics = Curvature(preconditioner).metrics(meter, Documents(SOME), [])
    factors = moments.FactorSums(meter.layers)
    meter.run(Documents(SOME), factors, "sum")
    own = [gradients(model, meter.layers, text, 64, 32, "sum") for text in SOME]
    for number, (layer, one) in enumerate(zip(meter.layers, factors.factors, strict=True)):
        damped = _damped(one, [mine[number] for mine in own], preconditioner)
        for made, metric in zip(damped, [metrics[number]], strict=False):
            assert isinstance(metric, Kronecker) and made is not None
        expected = _divided(target.gradients[number], one, damped)
        close(found[number][0].left @ found[number][0].right.T, expected, 1e-6)
        assert expected.shape == (layer.outputs, layer.inputs)


def _eigen(moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linalg.eigh(moments if moments.ndim == 2 else moments.diag())  # type: ignore[no-any-return]


def _damped(factors: moments.Factors, own: list[torch.Tensor], preconditioner: str) -> torch.Tensor:
    """H's damped eigenvalues (outputs, inputs), in the eigenbasis of both factors."""
    (right, basis_right), (left, basis_left) = (
        _eigen(one / factors.tokens) for one in (factors.inputs, factors.outputs)
    )
    if preconditioner == "kfac":
        return (left + 0.1 * left.mean())[:, None] * (right + 0.1 * right.mean())
    values = torch.stack([(basis_left.T @ one @ basis_right).square() for one in own]).sum(0) / factors.tokens
    return values + 0.1 * values.mean()


def _divided(gradient: torch.Tensor, factors: moments.Factors, damped: torch.Tensor) -> torch.Tensor:
    """H^-1 times the gradient."""
    right, left = (_eigen(one)[1] for one in (factors.inputs, factors.outputs))
    return left @ ((left.T @ gradient @ right) / damped) @ right.T


def test_scores_of_thin_directions_of_an_embedding_in_single(model_of: Callable[..., Model]) -> None:
    model = model_of("llama", torch.float32)
    layers: list[Layer] = choose(model, ",".join(ENDS["llama"]))
    directions = random_directions(layers, [2])
    scores = Scores([comparison(one) for one in directions], len(SOME), 1, "cpu", norms=True)
    GradientMeter(model, layers, 64).run(Documents(SOME), scores, "mean")
    own = truths(copied(model), [layer.name for layer in layers], 64, 32)
    expected = [
        sum((one * (d.left @ d.right.T)).sum() for one, (d,) in zip(mine, directions, strict=True)) for mine in own
    ]
    assert scores.squares is not None
    reach = scores.squares.sqrt() * sum(float((d.left @ d.right.T).square().sum()) for (d,) in directions) ** 0.5
    assert float(((scores.products[:, 0] - torch.tensor(expected)).abs() / reach).max()) < 1e-5
