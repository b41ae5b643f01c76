"""Documents with an instruction: the gradient of the response alone, against labels of -100, as a trainer masks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gradient_truth import LONG, TEXTS, assert_collected, by_weights, loss

from dvsel.documents.columns import Batch, Column, Kind
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.options import GradientOptions
from dvsel.language import Documents
from dvsel.language.models import Model
from dvsel.scorers.influence import Influence

PROMPTS = ["Say it.", "", TEXTS[5][:60], TEXTS[0], "Why?", "?"]


def masked_loss(model: Model, prompt: str, text: str) -> torch.Tensor:
    """The mean over what follows the prompt, as transformers computes it from labels."""
    tokenizer = model.card.tokenizer
    context, words = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt, text))
    ids = torch.tensor([[model.card.start, *context, *words]])
    labels = torch.tensor([[-100] * (1 + len(context)) + words])
    logits = model.network(input_ids=ids).logits
    return torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=-100)


def documents_of(texts: list[str], prompts: list[str]) -> Documents:
    """Read documents as a scorer does from a pool."""
    options = GradientOptions(model="any", prompt_field="prompt")
    column = Column.of([prompt.encode() for prompt in prompts])
    return options.documents([Batch(Column.of([text.encode() for text in texts]), {"prompt": column})])


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradients_are_of_the_response_alone(name: str, packing: bool, model_of: Callable[..., Model]) -> None:
    model = model_of(name)
    texts = [*TEXTS[:3], TEXTS[5][:40], TEXTS[4], "yes"]
    meter = GradientMeter(model, choose(model, "all"), 64, batch_tokens=150, packing=packing)
    expected = [
        by_weights(meter.layers, lambda text=text, prompt=prompt: masked_loss(model, f"{prompt}\n", text))
        for text, prompt in zip(texts, PROMPTS, strict=True)
    ]
    passed = assert_collected(meter, documents_of(texts, PROMPTS), expected)
    counts = [len(model.card.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert passed.tokens.tolist() == counts


@pytest.mark.parametrize("packing", [False, True])
def test_prompts_and_responses_of_several_windows(packing: bool, model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    texts, prompts = [LONG, "yes", LONG[:90], TEXTS[0]], ["Say it.", LONG, LONG[90:250], ""]
    meter = GradientMeter(model, choose(model, "last"), 32, 20, batch_tokens=150, packing=packing)
    expected = [
        by_weights(meter.layers, lambda text=text, prompt=prompt: loss(model, text, 32, 20, prompt=f"{prompt}\n"))
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    assert_collected(meter, documents_of(texts, prompts), expected)


def test_documents_whose_prompt_is_no_string_have_no_score(model_of: Callable[..., Model]) -> None:
    column = Column.of([b"Why?", None, b"3"], [Kind.STRING, Kind.MISSING, Kind.NUMBER])
    batch = Batch(Column.of([b"Because."] * 3), {"prompt": column})
    documents = Influence(model="any", prompt_field="prompt", prompt_separator=": ").documents([batch])
    assert documents.prompts is not None and documents.prompts[0] == "Why?: "
    model = model_of("llama")
    passed = GradientMeter(model, choose(model, "last")).run(documents, None, "mean")
    assert passed.scored.tolist() == [True, False, False]
