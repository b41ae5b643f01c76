"""The warm-up: its schedule, its steps beside those of torch and plain autograd, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from gradient_truth import LONG, TEXTS, gradients, in_double
from transformers import get_linear_schedule_with_warmup

from dvsel.errors import Notice, UserError
from dvsel.gradients import lora
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import named
from dvsel.gradients.lora import ATTENTION, LoRA
from dvsel.gradients.warmup import Checkpoint, Course, rates, train
from dvsel.language import Documents
from dvsel.language.models import Model
from dvsel.progress import showing

pytest.importorskip("peft")

WINDOW, STRIDE = 32, 16
COURSE = Course(epochs=3, learning_rate=1e-2, batch_documents=4, seed=0)


def adapted(model: Model, dropout: float = 0.0) -> GradientMeter:
    names = lora.attach(model, LoRA(ATTENTION, 4, 8.0, dropout, 0))
    return GradientMeter(model, named(model, names), WINDOW, STRIDE, 100)


def trained(
    meter: GradientMeter, texts: Sequence[str], course: Course = COURSE, dropout_seed: int = 0
) -> list[Checkpoint]:
    with lora.training(meter.model, dropout_seed):
        return train(meter, Documents(list(texts)), "mean", course)


@pytest.mark.parametrize("steps", [1, 2, 30, 100, 423])
def test_rates_are_those_of_transformers_without_its_first(steps: int) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=2e-5)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.03 * steps), steps + 1)
    expected = []
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        expected.append(schedule.get_last_lr()[0])
    np.testing.assert_allclose(rates(steps, 2e-5), expected)


def test_mean_rates_of_epochs_are_those_that_less_published() -> None:
    means = np.array(rates(4 * 105, 2e-5)).reshape(4, -1).mean(1)
    np.testing.assert_allclose(means, [1.6877e-05, 1.2859e-05, 7.7030e-06, 2.5616e-06], rtol=0.02)


def test_steps_are_those_of_adamw_on_mean_gradients(model_of: Callable[..., Model]) -> None:
    """Each document's gradient by autograd, in float64, and torch's own optimizer, clipping and schedule."""
    meter, other = adapted(in_double(model_of())), adapted(in_double(model_of()))
    found = trained(meter, TEXTS)
    weights = [layer.module.weight for layer in other.layers]
    optimizer = torch.optim.AdamW(weights, lr=COURSE.learning_rate, weight_decay=0.0)
    orders, learning_rates = np.random.default_rng(COURSE.seed), iter(rates(6, COURSE.learning_rate))
    for checkpoint in found:
        order = orders.permutation(len(TEXTS))
        for batch in (order[:4], order[4:]):
            each = [gradients(other.model, other.layers, TEXTS[row], WINDOW, STRIDE) for row in batch]
            for weight, *slopes in zip(weights, *each, strict=True):
                weight.grad = torch.stack(slopes).mean(0)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.param_groups[0]["lr"] = next(learning_rates)
            optimizer.step()
        states = [optimizer.state[weight] for weight in weights]
        for mine, theirs in (
            (checkpoint.weights, weights),
            (checkpoint.first, [state["exp_avg"] for state in states]),
            (checkpoint.second, [state["exp_avg_sq"] for state in states]),
        ):
            for one, expected in zip(mine, theirs, strict=True):
                torch.testing.assert_close(one, expected.detach(), rtol=1e-6, atol=1e-12)
    assert [one.steps for one in found] == [2, 4, 6]
    expected_rates = np.array(rates(6, COURSE.learning_rate)).reshape(3, 2).mean(1)
    np.testing.assert_allclose([one.rate for one in found], expected_rates)


def test_the_loss_falls(model_of: Callable[..., Model]) -> None:
    found = trained(adapted(in_double(model_of()), dropout=0.1), TEXTS, Course(6, 2e-2, 3, 0))
    assert found[-1].loss < found[0].loss - 0.1
    assert 0 < found[-1].loss < 20


def test_the_same_seed_gives_the_same_weights(model_of: Callable[..., Model]) -> None:
    def weights(course: Course, dropout_seed: int = 0) -> list[torch.Tensor]:
        return list(trained(adapted(in_double(model_of()), 0.2), TEXTS, course, dropout_seed)[-1].weights)

    def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
        return all(torch.equal(*pair) for pair in zip(one, other, strict=True))

    first = weights(COURSE)
    assert same(first, weights(COURSE))
    assert not same(first, weights(Course(3, 1e-2, 4, seed=1)))
    assert not same(first, weights(COURSE, dropout_seed=1))


def test_progress_is_shown_up_to_the_end(model_of: Callable[..., Model]) -> None:
    shown: list[tuple[str, int, int]] = []
    with showing(lambda stage, done, total: shown.append((stage, done.bytes, total))):
        trained(adapted(in_double(model_of())), TEXTS)
    assert {stage for stage, *_ in shown} == {"warm-up"} and len(shown) == 6
    assert shown[-1][1] == shown[-1][2] > 0


def test_losses_that_are_no_numbers_are_told(model_of: Callable[..., Model]) -> None:
    model = in_double(model_of())
    (token,) = model.card.tokenizer("~", add_special_tokens=False)["input_ids"]
    model.network.get_input_embeddings().weight.data[token] = math.nan
    meter = adapted(model)
    with pytest.warns(Notice, match=r"the warm-up: left out the document 'a ~ b'\.\.\., whose loss is NaN or infinite"):
        found = trained(meter, [*TEXTS[:2], "a ~ b"])
    assert all(torch.isfinite(weight).all() for weight in found[-1].weights)
    with pytest.raises(UserError, match="losses are NaN or infinite at step 1 of 3; lower --learning-rate"):
        trained(meter, ["~ 1", "~ 2"])


def test_a_warm_up_without_text_is_refused(model_of: Callable[..., Model]) -> None:
    with pytest.raises(UserError, match="no document of the pool's sample has a loss"):
        trained(adapted(in_double(model_of())), ["", ""])
    with pytest.raises(UserError, match="no document of the pool's sample has a loss"):
        trained(adapted(in_double(model_of())), [])


def test_documents_longer_than_the_window_count_whole(model_of: Callable[..., Model]) -> None:
    meter = adapted(in_double(model_of()))
    before = [layer.module.weight.clone() for layer in meter.layers]
    (checkpoint,) = trained(meter, [LONG], Course(1, 1e-2, 1, 0))
    lora.put(meter.layers, before)
    slopes = gradients(meter.model, meter.layers, LONG, WINDOW, STRIDE)
    norm = torch.stack([one.norm() for one in slopes]).norm().clamp(min=1.0)
    for first, slope in zip(checkpoint.first, slopes, strict=True):
        torch.testing.assert_close(first, 0.1 * slope / norm, rtol=1e-5, atol=1e-12)
