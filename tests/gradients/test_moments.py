"""Sums of gradients against autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gradient_truth import MODELS, TEXTS, gradients

from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.moments import FactorSums, GradientSum, SquareSums
from dvsel.language import Documents
from dvsel.language.models import Model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_sum_of_gradients(name: str, reduction: str, model_of: Callable[..., Model]) -> None:
    model = model_of(name)
    layers = choose(model, "all")
    found = GradientSum(layers)
    GradientMeter(model, layers, 32, 16, batch_tokens=150).run(Documents(TEXTS), found, reduction)
    documents = [gradients(model, layers, text, 32, 16, reduction) for text in TEXTS]
    for number, total in enumerate(found.total):
        expected = torch.stack([mine[number] for mine in documents]).sum(0)
        torch.testing.assert_close(total, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))


def test_sums_in_double_of_a_model_in_single(model_of: Callable[..., Model]) -> None:
    model = model_of("llama", torch.float32)
    layers = choose(model, "last")
    meter = GradientMeter(model, layers)
    single, double = GradientSum(layers), GradientSum(layers, torch.float64)
    for found in (single, double):
        meter.run(Documents(TEXTS), found, "mean")
    assert {one.dtype for one in double.total} == {torch.float64}
    for one, other in zip(single.total, double.total, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_layers_that_take_the_same_tensor_share_its_moments(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "all")
    found = FactorSums(layers)
    GradientMeter(model, layers, 32, batch_tokens=100).run(Documents(TEXTS), found, "sum")
    by_name = {layer.name.split(".", 2)[2]: one for layer, one in zip(layers, found.factors, strict=True)}
    q, k, o = (by_name[f"0.self_attn.{name}_proj"].inputs for name in "qko")
    gate, up = (by_name[f"1.mlp.{name}_proj"].inputs for name in ("gate", "up"))
    assert q is k and gate is up and q is not o and q is not gate
    alone = FactorSums(choose(model, "*.0.*.k_proj"))
    GradientMeter(model, alone.layers, 32).run(Documents(TEXTS), alone, "sum")
    torch.testing.assert_close(alone.factors[0].inputs, k)
    torch.testing.assert_close(alone.factors[0].outputs, by_name["0.self_attn.k_proj"].outputs)


def test_what_was_taken_is_forgotten(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    layers = choose(model, "last")
    bases = [tuple(torch.eye(n, dtype=torch.float64) for n in (one.outputs, one.inputs)) for one in layers]
    meter = GradientMeter(model, layers, 32)
    squares, factors, fresh = SquareSums(layers, bases), FactorSums(layers), FactorSums(layers)  # type: ignore[arg-type]
    for one in (squares, factors):
        meter.run(Documents(TEXTS), one, "sum")
        one.reset()
    assert not any(one.any() for one in squares.total) and set(squares.tokens) == {0}
    for one in (factors, fresh):
        meter.run(Documents(TEXTS[:2]), one, "sum")
    for again, first in zip(factors.factors, fresh.factors, strict=True):
        assert again.tokens == first.tokens
        torch.testing.assert_close(again.inputs, first.inputs)
