"""Gradients by an adapter's weights, against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gradient_truth import (
    LONG,
    TEXTS,
    assert_collected,
    assert_moments,
    by_weights,
    copied,
    gradients,
    in_precision,
    loss,
)

import language_models
from dvsel.errors import UserError
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose, named
from dvsel.language import Documents
from dvsel.language.models import Model, load

pytest.importorskip("peft")

SOME = [*TEXTS[:3], LONG[:200], TEXTS[4]]
LABELS = ["0", "2", "1", "", "2"]
CONV = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """A model with a LoRA adapter, in float64."""
    built: dict[str, Model] = {}

    def build(family: str, task: str = "CAUSAL_LM", **settings: Any) -> Model:
        key = f"{family} {task} {settings}"
        if key not in built:
            folder = tmp_path_factory.mktemp("adapted")
            kind = "SequenceClassification" if task == "SEQ_CLS" else "CausalLM"
            base = language_models.build(folder / "base", family, task=kind, pad_token_id=1, num_labels=3)
            name = language_models.adapt(folder / "adapter", base, task=task, **settings)
            built[key] = in_precision(load(name, "fp32", classifiers=True))
        return built[key]

    return build


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_gradients_are_by_the_adapters_weights(family: str, packing: bool, adapted: Callable[..., Model]) -> None:
    model = adapted(family, **(CONV if family == "gpt2" else {}))
    layers = choose(model, "all")
    assert all("lora_" in layer.name for layer in layers) and len(layers) % 4 == 0
    meter = GradientMeter(model, layers, 32, 20, batch_tokens=100, packing=packing)
    assert_collected(meter, Documents(SOME), [gradients(model, layers, text, 32, 20) for text in SOME])
    assert_moments(meter, Documents(SOME), [lambda text=text: loss(model, text, 32, 20, "sum") for text in SOME])


def test_parts_of_the_blocks_and_patterns(adapted: Callable[..., Model]) -> None:
    model = adapted("llama")
    names = {
        part: [layer.name for layer in choose(model, part)] for part in ("all", "upper-half", "last", "*.q_proj.*")
    }
    assert len(names["all"]) == 2 * len(names["last"]) and names["last"] == names["upper-half"]
    assert all(".layers.1." in name and "lora_" in name for name in names["last"])
    assert sorted(name.split("q_proj.")[1] for name in names["*.q_proj.*"]) == sorted(
        ["base_layer", "lora_A.default", "lora_B.default"] * 2
    )


def test_with_checkpointing(adapted: Callable[..., Model]) -> None:
    model = copied(adapted("llama"))
    meter = GradientMeter(model, choose(model, "all"), 32, 20, batch_tokens=100, checkpointing=True)
    plain = adapted("llama")
    assert_collected(meter, Documents(SOME), [gradients(plain, choose(plain, "all"), text, 32, 20) for text in SOME])


def test_an_adapter_of_the_head(adapted: Callable[..., Model]) -> None:
    """The head then runs in one piece, and its adapter's layers see rows as all layers do."""
    model = adapted("llama", target_modules=["lm_head", "q_proj"])
    layers = choose(model, "lm_head.lora_*,*.q_proj.lora_*")
    meter = GradientMeter(model, layers, 32, 20, batch_tokens=100)
    assert len(layers) == 6
    assert_collected(meter, Documents(SOME), [gradients(model, layers, text, 32, 20) for text in SOME])


def test_layers_that_were_trained_along(adapted: Callable[..., Model]) -> None:
    model = adapted("llama", target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    assert all("q_proj.lora_" in layer.name for layer in choose(model, "all"))
    names = ["model.embed_tokens.modules_to_save.default", "lm_head.modules_to_save.default"]
    layers = choose(model, ",".join(names))
    meter = GradientMeter(model, layers, 64, batch_tokens=100)
    assert_collected(meter, Documents(SOME), [gradients(model, layers, text, 64, 32) for text in SOME])


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_classifiers_with_a_head_of_their_own(family: str, adapted: Callable[..., Model]) -> None:
    model = adapted(family, "SEQ_CLS", target_modules=["query", "value"] if family == "bert" else ["q_proj"])
    layers = choose(model, "all")
    head = "classifier" if family == "bert" else "score"
    assert layers[-1].name == f"{head}.modules_to_save.default"
    assert all("lora_" in layer.name for layer in layers[:-1]) and len(layers) == (9 if family == "bert" else 5)
    expected = [
        by_weights(layers, lambda text=text, number=int(label): _label_loss(model, text, number)) if label else None
        for text, label in zip(SOME, LABELS, strict=True)
    ]
    meter = GradientMeter(model, layers, 64, batch_tokens=100)
    assert_collected(meter, Documents(SOME, labels=LABELS), expected)


def _label_loss(model: Model, text: str, number: int) -> Any:
    ids = model.card.tokenizer(text, truncation=True, max_length=64, return_tensors="pt")["input_ids"]
    return -model.network(input_ids=ids).logits[0].log_softmax(-1)[number]


def test_an_adapter_without_linear_layers_is_told(adapted: Callable[..., Model]) -> None:
    model = adapted("llama", target_modules=["embed_tokens"])
    with pytest.raises(UserError, match="no linear layer that counts"):
        choose(model, "all")
    assert named(model, ["lm_head"])
