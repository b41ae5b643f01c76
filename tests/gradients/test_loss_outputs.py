"""The output functions and their gradients, against their formulas by autograd, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dvsel.gradients.loss_outputs import Output, cross_entropy, error, logit, margin


def plain_error(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (logits.softmax(1) - torch.nn.functional.one_hot(right[:, 0], logits.shape[1])).norm(dim=1)  # type: ignore[no-any-return]


def plain_margin(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    share = logits.softmax(1).gather(1, right)[:, 0]
    return -(share / (1 - share)).log()


FORMULAS: dict[Output, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    cross_entropy: lambda logits, right: torch.nn.functional.cross_entropy(logits, right[:, 0], reduction="none"),
    margin: plain_margin,
    error: plain_error,
    logit: lambda logits, right: -logits.gather(1, right)[:, 0],
}


@pytest.mark.parametrize("output", FORMULAS, ids=lambda output: output.__name__)
@pytest.mark.parametrize("classes", [2, 7, 300])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_numbers_and_gradients(output: Output, classes: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = scale * torch.randn(20, classes, generator=generator, dtype=torch.float64)
    right = torch.randint(0, classes, (20, 1), generator=generator)
    free = logits.clone().requires_grad_(True)
    expected = FORMULAS[output](free, right)
    (slopes,) = torch.autograd.grad(expected.sum(), free)
    found = output(logits.clone(), right)
    torch.testing.assert_close(found[0], expected.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[1], slopes, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("output", FORMULAS, ids=lambda output: output.__name__)
def test_numbers_and_gradients_where_the_model_is_sure(output: Output) -> None:
    """Right beyond what float32 tells from 1, and wrong as much."""
    logits = torch.tensor([[60.0, 0.0, -60.0], [200.0, 0.0, 0.0]])
    for token in (0, 2):
        numbers, slopes = output(logits.clone(), torch.full((2, 1), token))
        assert bool(numbers.isfinite().all()) and bool(slopes.isfinite().all())
        assert float(numbers.max()) < 1e-6 or token == 2


def test_what_is_no_number_stays_so() -> None:
    logits = torch.tensor([[float("nan"), 0.0, 1.0]])
    for output in (cross_entropy, margin, error):
        assert not bool(output(logits.clone(), torch.tensor([[1]]))[0].isfinite().any())
