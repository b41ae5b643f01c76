"""Adam's step on each document, beside tasks: by hand, beside torch's optimizer, and beside autograd."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from gradient_truth import LONG, TEXTS, gradients, in_double

from dvsel.gradients.adam_updates import Moments, Updates
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.language import Documents
from dvsel.language.models import Model

WINDOW, STRIDE = 32, 16
OF_3_STEPS = (1 - 0.9**4, 1 - 0.999**4)


def test_a_step_by_hand() -> None:
    """m' = 1, v' = 4, after 3 steps, and a gradient of 2: m = 1.1, v = 4."""
    first, second, gradient = (torch.tensor([[number]], dtype=torch.float64) for number in (1.0, 4.0, 2.0))
    as_code = Moments(first, second, 3, corrected=False).update(gradient)
    assert as_code.item() == pytest.approx(1.1 / math.sqrt(4 + 1e-8), rel=1e-12)
    as_paper = Moments(first, second, 3, corrected=True).update(gradient)
    assert as_paper.item() == pytest.approx((1.1 / OF_3_STEPS[0]) / math.sqrt(4 / OF_3_STEPS[1] + 1e-8), rel=1e-12)


def test_the_corrected_step_is_that_of_torch() -> None:
    """Far from epsilon, which torch has outside the root."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))
    optimizer = torch.optim.Adam([weight], lr=1.0)
    for _ in range(4):
        weight.grad = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        optimizer.step()
    state = optimizer.state[weight]
    moments = Moments(state["exp_avg"].clone(), state["exp_avg_sq"].clone(), 4, corrected=True)
    before, gradient = weight.detach().clone(), torch.randn(3, 4, generator=generator, dtype=torch.float64)
    weight.grad = gradient
    optimizer.step()
    torch.testing.assert_close(moments.update(gradient), before - weight.detach(), rtol=1e-6, atol=1e-6)


def test_epsilon_stands_inside_the_root() -> None:
    gradient = torch.tensor([[1e-3]], dtype=torch.float64)
    nothing = torch.zeros_like(gradient)
    found = Moments(nothing, nothing, 0, corrected=False).update(gradient).item()
    assert found == pytest.approx(1e-4 / math.sqrt(1e-9 + 1e-8))


@pytest.mark.parametrize("corrected", [True, False])
def test_products_and_norms_are_those_of_autograd(corrected: bool, model_of: Callable[..., Model]) -> None:
    """One document at a time, in float64, with padding, windows and a document by itself."""
    model = in_double(model_of())
    layers = choose(model, "*.q_proj,*.down_proj")
    generator = torch.Generator().manual_seed(0)
    shapes = [(layer.outputs, layer.inputs) for layer in layers]
    moments = [
        Moments(
            1e-3 * torch.randn(shape, generator=generator, dtype=torch.float64),
            1e-5 * torch.rand(shape, generator=generator, dtype=torch.float64),
            7,
            corrected,
        )
        for shape in shapes
    ]
    tasks = [torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    texts = [*TEXTS, LONG + LONG]
    updates = Updates(moments, tasks, len(texts), "cpu")
    GradientMeter(model, layers, WINDOW, STRIDE, 150).run(Documents(texts), updates, "mean")
    cosines = updates.shares()
    for row, text in enumerate(texts):
        slopes = gradients(model, layers, text, WINDOW, STRIDE)
        step = torch.cat([one.update(slope).flatten() for one, slope in zip(moments, slopes, strict=True)])
        flat = torch.cat([one.flatten(1) for one in tasks], 1)
        torch.testing.assert_close(updates.squares[row], step @ step, rtol=1e-8, atol=0)
        torch.testing.assert_close(updates.products[row], flat @ step, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(cosines[row], flat @ step / step.norm(), rtol=1e-7, atol=1e-9)


def test_what_was_taken_can_be_forgotten(model_of: Callable[..., Model]) -> None:
    model = in_double(model_of())
    layers = choose(model, "last")
    shapes = [(layer.outputs, layer.inputs) for layer in layers]
    moments = [Moments(torch.zeros(shape), torch.ones(shape), 1, True) for shape in shapes]
    updates = Updates(moments, [torch.ones(1, *shape) for shape in shapes], 1, "cpu")
    updates.reset()
    assert not updates.products.any() and not updates.squares.any()
