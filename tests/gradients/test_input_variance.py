"""Standard deviations of gradients by inputs against autograd, one document and one model at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradient_truth import LONG, TEXTS, copied

from dvsel.gradients import input_variance
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.input_variance import spread
from dvsel.gradients.loss_outputs import logit
from dvsel.language import Documents
from dvsel.language.models import Model

WINDOW, STRIDE = 32, 16


@pytest.fixture
def checkpoints(model_of: Callable[..., Model]) -> list[Model]:
    """Make checkpoints of a run in which weights drifted."""
    torch.manual_seed(0)
    found = [copied(model_of("llama")) for _ in range(3)]
    for number, model in enumerate(found):
        for weight in model.network.parameters():
            weight.data += 0.05 * number * torch.randn_like(weight)
    return found


def by_inputs(model: Model, text: str, prompt: str = "") -> torch.Tensor:
    """The gradient of the sum of the scored tokens' logits by the vector of each token that is fed."""
    parts = [model.card.tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt, text)]
    document = [model.card.start, *parts[0], *parts[1]]
    vectors = model.network.get_input_embeddings()(torch.tensor(document[:-1])).detach().requires_grad_(True)
    total, done = torch.zeros((), dtype=torch.float64), 1 + len(parts[0])
    for begin in range(0, len(document) - 1, STRIDE):
        end = min(begin + WINDOW, len(document) - 1)
        if end >= done:
            logits = model.network(inputs_embeds=vectors[None, begin:end]).logits[0]
            total = total + sum(logits[at - begin - 1, document[at]] for at in range(done, end + 1))
            done = end + 1
    return torch.autograd.grad(total, vectors)[0]  # type: ignore[no-any-return]


def meters(checkpoints: list[Model], batch_tokens: int = 70, packing: bool = False) -> list[GradientMeter]:
    return [
        GradientMeter(model, [], WINDOW, STRIDE, batch_tokens, output=logit, packing=packing) for model in checkpoints
    ]


@pytest.mark.parametrize("packing", [False, True])
def test_the_mean_over_elements_of_the_deviation_over_checkpoints(checkpoints: list[Model], packing: bool) -> None:
    expected = [
        float(torch.stack([by_inputs(model, text) for model in checkpoints]).std(0, correction=0).mean())
        for text in TEXTS
    ]
    found, scored = spread(meters(checkpoints, packing=packing), Documents(TEXTS), "sum")
    assert scored.all()
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_mean_of_logits_is_their_sum_over_their_number(checkpoints: list[Model]) -> None:
    total, mean = (spread(meters(checkpoints), Documents(TEXTS), reduction)[0] for reduction in ("sum", "mean"))
    tokens = [len(checkpoints[0].card.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    np.testing.assert_allclose(mean * tokens, total, rtol=1e-10)


def test_tokens_that_no_window_is_fed_do_not_count(checkpoints: list[Model]) -> None:
    """Those at the beginning of a prompt that is longer than the window."""
    gradients = torch.stack([by_inputs(model, "a short answer", prompt=LONG) for model in checkpoints])
    fed = gradients.abs().sum((0, 2)) > 0
    assert 0 < fed.sum() < len(fed)
    found, _ = spread(meters(checkpoints), Documents(["a short answer"], [LONG]), "sum")
    deviations = gradients.std(0, correction=0).mean(1)
    # Tokens behind the window's begin whose gradient is 0 all the same would count; there are none but the unfed.
    np.testing.assert_allclose(found, float(deviations[fed].mean()), rtol=1e-8)


def test_few_documents_at_a_time_give_the_same(checkpoints: list[Model], monkeypatch: pytest.MonkeyPatch) -> None:
    together, _ = spread(meters(checkpoints), Documents(TEXTS), "sum")
    monkeypatch.setattr(input_variance, "_HELD", 50 * 4 * 4 * 32)  # 50 tokens, which one of the documents exceeds
    apart, _ = spread(meters(checkpoints), Documents(TEXTS), "sum")
    np.testing.assert_allclose(apart, together, rtol=1e-10)


def test_equal_checkpoints_have_no_variance(model_of: Callable[..., Model]) -> None:
    found, _ = spread(meters([model_of("llama")] * 2), Documents(TEXTS), "sum")
    assert (found == 0).all()


def test_documents_without_tokens_have_none(checkpoints: list[Model]) -> None:
    found, scored = spread(meters(checkpoints), Documents(["", "x", ""]), "sum")
    assert scored.tolist() == [False, True, False]
    assert found[1] > 0
