"""LoRA adapters: where they are attached, and that they change nothing until they are trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gradient_truth import TEXTS, in_double

from dvsel.errors import UserError
from dvsel.gradients import lora
from dvsel.gradients.layers import named
from dvsel.gradients.lora import ATTENTION, LoRA
from dvsel.language.models import Model

pytest.importorskip("peft")

SMALL = LoRA(ATTENTION, 4, 8.0, 0.5, 0)


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return model.whole_logits(torch.tensor([model.card.tokenizer(TEXTS[0])["input_ids"]]))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("llama", ["q_proj", "k_proj", "v_proj", "o_proj"]),  # those of the paper
        ("gpt2", ["c_attn", "c_proj"]),
        ("gpt_neox", ["query_key_value", "dense"]),
    ],
)
def test_attention_is_adapted_unless_told_otherwise(
    family: str, modules: list[str], model_of: Callable[..., Model]
) -> None:
    names = lora.attach(in_double(model_of(family)), SMALL)
    assert [name.split(".")[-3] for name in names[::2]] == modules * 2
    assert all("attn" in name or "attention" in name for name in names)
    assert [name.split(".")[-2] for name in names[:2]] == ["lora_A", "lora_B"]


def test_other_layers_can_be_named(model_of: Callable[..., Model]) -> None:
    names = lora.attach(in_double(model_of()), LoRA("*.1.mlp.*,*.0.*.q_proj", 4, 8.0, 0.0, 0))
    assert [name.split(".lora_A")[0].removeprefix("model.layers.") for name in names[::2]] == [
        "0.self_attn.q_proj",
        "1.mlp.gate_proj",
        "1.mlp.up_proj",
        "1.mlp.down_proj",
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_untrained_adapter_changes_nothing_and_a_trained_one_is_scaled(
    family: str, model_of: Callable[..., Model]
) -> None:
    model = in_double(model_of(family))
    before = logits(model)
    layers = named(model, lora.attach(model, SMALL))
    assert torch.equal(logits(model), before)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    first = layers[:2]
    weights = [0.3 * torch.randn(layer.module.weight.shape, dtype=torch.float64) for layer in first]
    lora.put(first, weights)
    after = logits(model)
    base = model.network.get_submodule(first[0].name.split(".lora_A")[0]).base_layer
    change = 8.0 / 4 * weights[1] @ weights[0]
    base.weight.data += change.T if family == "gpt2" else change
    lora.put(first, [torch.zeros_like(weight) for weight in weights])
    torch.testing.assert_close(logits(model), after)
    assert not torch.allclose(after, before)


def test_weights_are_those_of_the_seed_and_of_no_one_else(model_of: Callable[..., Model]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    made = []
    for seed in (0, 0, 1):
        model = in_double(model_of())
        first = named(model, lora.attach(model, LoRA(ATTENTION, 4, 8.0, 0.5, seed)))[0]
        made.append(first.module.weight)
        assert made[-1].dtype == torch.float64
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert torch.rand(1) == expected


def test_dropout_is_for_training_alone(model_of: Callable[..., Model]) -> None:
    model = in_double(model_of())
    for layer in named(model, lora.attach(model, SMALL)):
        layer.module.weight.data.fill_(0.1)
    before = logits(model)
    with lora.training(model, 0):
        in_training = [logits(model), logits(model)]
    with lora.training(model, 0):
        again = logits(model)
    assert not torch.equal(in_training[0], before) and not torch.equal(*in_training)
    assert torch.equal(again, in_training[0]) and torch.equal(logits(model), before)


def test_what_cannot_be_adapted_is_told(model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = in_double(model_of())
    with pytest.raises(UserError, match=r"model\.embed_tokens is an embedding, which has no LoRA here; leave it out"):
        lora.attach(model, LoRA("*.embed_tokens", 4, 8.0, 0.0, 0))
    with pytest.raises(UserError, match="matches no layer"):
        lora.attach(model, LoRA("*.nothing", 4, 8.0, 0.0, 0))
    monkeypatch.setattr(lora, "_NAMES", ("mixer",))
    with pytest.raises(UserError, match="no layer's name tells that it is of attention; name layers with --layers"):
        lora.attach(model, SMALL)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"LoRA needs the package peft; pip install 'dvsel\[models\]'"):
        lora.check()
