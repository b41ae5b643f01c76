"""The choice of layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gradient_truth import in_double

from dvsel.errors import UserError
from dvsel.gradients.layers import choose, named
from dvsel.language.models import Model

LLAMA = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]  # fmt: skip
GPT2 = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
NEOX = ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]


@pytest.mark.parametrize(
    ("name", "blocks", "linear"),
    [
        ("llama", "model.layers", LLAMA),
        ("llama, tied", "model.layers", LLAMA),
        ("gemma2", "model.layers", LLAMA),
        ("qwen2", "model.layers", LLAMA),
        ("gpt2", "transformer.h", GPT2),
        ("gpt_neox", "gpt_neox.layers", NEOX),
    ],
)
def test_all_are_the_linear_layers_of_the_blocks(
    name: str, blocks: str, linear: list[str], model_of: Callable[..., Model]
) -> None:
    model = model_of(name)
    first, second = ([f"{blocks}.{block}.{one}" for one in linear] for block in (0, 1))
    assert [layer.name for layer in choose(model, "all")] == first + second
    assert [layer.name for layer in choose(model, "upper-half")] == second
    assert [layer.name for layer in choose(model, "last")] == second


def test_shapes_are_outputs_by_inputs_however_stored(model_of: Callable[..., Model]) -> None:
    for name, layer in (("gpt2", "transformer.h.0.mlp.c_fc"), ("gpt_neox", "gpt_neox.layers.0.mlp.dense_h_to_4h")):
        (found,) = choose(model_of(name), layer)
        assert (found.inputs, found.outputs) == (32, 128 if name == "gpt2" else 64)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("*.down_proj", ["model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"]),
        ("*.1.*.q_proj, *.0.*.o_proj", ["model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.q_proj"]),
        ("model.layers.1.mlp.?p_proj", ["model.layers.1.mlp.up_proj"]),
    ],
)
def test_patterns_match_names_in_the_models_order(
    patterns: str, expected: list[str], model_of: Callable[..., Model]
) -> None:
    model = model_of("llama")
    assert [layer.name for layer in choose(model, patterns)] == expected
    assert [layer.name for layer in named(model, expected[::-1])] == expected[::-1]


def test_a_pattern_for_everything_takes_the_embedding_and_the_head(model_of: Callable[..., Model]) -> None:
    names = [[layer.name for layer in choose(model_of("llama"), wanted)] for wanted in ("*", "all")]
    assert names[0] == ["model.embed_tokens", *names[1], "lm_head"]
    assert choose(model_of("llama, tied"), "*") == choose(model_of("llama, tied"), "all")


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("*.gone", r"layers '\*.gone': matches no layer in model"),
        ("*.mlp.*, ", "layers '': matches no layer in model"),
        ("model.layers.0.mlp.up_prj", "did you mean 'model.layers.0.mlp.up_proj'?"),
        ("upper_half", "did you mean 'upper-half'?"),
        ("model.norm", "layers 'model.norm': is neither a linear layer nor an embedding"),
    ],
)
def test_patterns_that_match_nothing_are_refused(pattern: str, complaint: str, model_of: Callable[..., Model]) -> None:
    with pytest.raises(UserError, match=complaint):
        choose(model_of("llama"), pattern)


def test_a_shared_weight_counts_only_by_its_name(model_of: Callable[..., Model]) -> None:
    model = in_double(model_of("llama"))
    first, second = (block.mlp for block in model.network.model.layers)
    second.up_proj.weight = first.up_proj.weight
    for wanted in ("all", "*"):
        assert len([layer for layer in choose(model, wanted) if ".layers." in layer.name]) == 12
    assert [layer.name for layer in choose(model, "model.layers.1.mlp.up_proj")] == ["model.layers.1.mlp.up_proj"]


def test_a_model_without_linear_layers_is_refused(model_of: Callable[..., Model]) -> None:
    model = in_double(model_of("llama"))
    model.network.model.layers = torch.nn.ModuleList()
    with pytest.raises(UserError, match="no linear layer that counts in its blocks; name layers with --layers"):
        choose(model, "all")
