"""Adam's metric, from a sample and from optimizers' states."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from gradient_truth import TEXTS, gradients
from transformers import AutoModelForCausalLM, Trainer

import language_models
from dvsel.errors import UserError
from dvsel.gradients.adam import Diagonal, stored_moments
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.low_rank import Cut
from dvsel.gradients.target_gradient import Curvature, mean_gradient
from dvsel.language import Documents
from dvsel.language.models import Model, load


def test_both_sides_are_divided_by_the_damped_root() -> None:
    generator = torch.Generator().manual_seed(0)
    moments, gradient = torch.rand(4, 6, generator=generator).double(), torch.randn(4, 6, generator=generator).double()
    found = Diagonal(moments, 0.5).direction(gradient, 0, Cut(0))
    roots = moments.sqrt()
    torch.testing.assert_close(found.left @ found.right.T, gradient / (roots + 0.5 * roots.mean()) ** 2)
    best = torch.linalg.svd(gradient / (roots + 0.5 * roots.mean()) ** 2)
    cut = Diagonal(moments, 0.5).direction(gradient, 0, Cut(2))
    torch.testing.assert_close(cut.left @ cut.right.T, best[0][:, :2] * best[1][:2] @ best[2][:2])


def test_weights_that_never_moved_have_a_metric() -> None:
    found = Diagonal(torch.zeros(2, 3), 0.1).direction(torch.zeros(2, 3), 0, Cut(0))
    assert not (found.left @ found.right.T).any()


@pytest.mark.parametrize(("name", "reduction"), [("llama", "mean"), ("gpt2", "sum")])
def test_of_a_sample_they_are_the_mean_squares_of_its_documents(
    name: str, reduction: str, model_of: Callable[..., Model]
) -> None:
    model = model_of(name)
    meter = GradientMeter(model, choose(model, "last"), 32, 16, batch_tokens=150)
    query = mean_gradient(meter, Documents(TEXTS[:2]), "mean", "target")
    curvature = Curvature("adam", 0.1, reduction=reduction)
    found = curvature.directions(meter, [query], Documents(["", *TEXTS]), Cut(0))
    documents = [gradients(model, meter.layers, text, 32, 16, reduction) for text in TEXTS]
    for number, ((one,), gradient) in enumerate(zip(found, query.gradients, strict=True)):
        roots = torch.stack([mine[number] for mine in documents]).square().mean(0).sqrt()
        expected = gradient / (roots + 0.1 * roots.mean()) ** 2
        torch.testing.assert_close(one.left @ one.right.T, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))


# --- Optimizers' states. ---


def trainers(model: Model) -> list[dict[str, Any]]:
    """Groups as this version of transformers' Trainer makes them."""
    decayed = set(Trainer.get_decay_parameter_names(None, model.network))
    return grouped(model, lambda name, _: name in decayed)


def old_trainers(model: Model) -> list[dict[str, Any]]:
    """Groups as before 4.46: without decay are biases and torch's own layer norms."""
    norms = [
        id(weight)
        for module in model.network.modules()
        if isinstance(module, torch.nn.LayerNorm)
        for weight in module.parameters()
    ]
    return grouped(model, lambda name, weight: "bias" not in name and id(weight) not in norms)


def grouped(model: Model, decays: Callable[[str, torch.Tensor], bool]) -> list[dict[str, Any]]:
    named = list(model.network.named_parameters())
    return [
        {"params": [weight for name, weight in named if decays(name, weight) is wanted], "weight_decay": decay}
        for wanted, decay in ((True, 0.1), (False, 0.0))
    ]


def plain(model: Model) -> list[dict[str, Any]]:
    return [{"params": list(model.network.parameters())}]


def matrices_first(model: Model) -> list[dict[str, Any]]:
    return grouped(model, lambda _, weight: weight.ndim > 1)


def save(model: Model, groups: Sequence[dict[str, Any]], path: Path) -> torch.optim.Optimizer:
    """The state after two steps, with a learning rate of 0, on random gradients."""
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for _, weight in model.network.named_parameters():
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        optimizer.step()
    optimizer.zero_grad()
    torch.save(optimizer.state_dict(), path)
    return optimizer


@pytest.mark.parametrize("name", ["llama", "llama, tied", "gpt2", "gpt_neox", "qwen2"])
@pytest.mark.parametrize("groups", [trainers, old_trainers, plain, matrices_first])
def test_weights_are_found_in_a_state_that_numbers_them(
    name: str, groups: Callable[[Model], list[dict[str, Any]]], model_of: Callable[..., Model], tmp_path: Path
) -> None:
    model = model_of(name, torch.float32)
    layers = choose(model, "all")
    optimizer = save(model, groups(model), tmp_path / "optimizer.pt")
    found = stored_moments(str(tmp_path / "optimizer.pt"), model, layers)
    for layer, one in zip(layers, found, strict=True):
        expected = optimizer.state[layer.module.weight]["exp_avg_sq"]
        torch.testing.assert_close(one, expected.T if layer.transposed else expected, rtol=0, atol=0)


def test_the_state_takes_the_place_of_the_sample(model_of: Callable[..., Model], tmp_path: Path) -> None:
    model = model_of("llama", torch.float32)
    meter = GradientMeter(model, choose(model, "last"))
    save(model, trainers(model), tmp_path / "optimizer.pt")
    (metric, *_) = Curvature("adam", optimizer_state=str(tmp_path / "optimizer.pt")).metrics(meter, Documents([]), [])
    assert isinstance(metric, Diagonal)
    expected = stored_moments(str(tmp_path / "optimizer.pt"), model, meter.layers)[0]
    torch.testing.assert_close(metric.moments, expected)


def test_of_an_adapter_the_adapters_weights_are_numbered(tmp_path: Path) -> None:
    """The numbers are those of PEFT's own model, as it is trained."""
    peft = pytest.importorskip("peft")
    base = language_models.build(tmp_path / "base")
    folder = language_models.adapt(tmp_path / "adapter", base, modules_to_save=["lm_head"])
    network = AutoModelForCausalLM.from_pretrained(base)
    trained_by_peft = peft.PeftModel.from_pretrained(network, folder, is_trainable=True)
    weights = [weight for weight in trained_by_peft.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights)
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    model = load(folder, "fp32")
    layers = choose(model, "all")
    found = stored_moments(str(tmp_path / "optimizer.pt"), model, layers)
    modules = dict(network.named_modules())
    for layer, one in zip(layers, found, strict=True):
        torch.testing.assert_close(one, optimizer.state[modules[layer.name].weight]["exp_avg_sq"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"no state", r"cannot be read \(.*; give a checkpoint's optimizer.pt"),
        (
            {"state": {0: {"momentum_buffer": torch.ones(3)}}},
            "has no exp_avg_sq of each weight; give one of torch's Adam",
        ),
        ({"state": {}}, "has no exp_avg_sq"),
        (torch.ones(3), "has no exp_avg_sq"),
        ({"state": {0: {"exp_avg_sq": torch.ones(3)}}}, "its 1 tensors are not those of the weights of model .*; give"),
    ],
)
def test_what_is_no_state_of_the_model_is_refused(
    content: Any, complaint: str, model_of: Callable[..., Model], tmp_path: Path
) -> None:
    model = model_of("llama", torch.float32)
    path = tmp_path / "optimizer.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=f"optimizer state .*optimizer.pt: {complaint}"):
        stored_moments(str(path), model, choose(model, "last"))


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


def test_no_code_of_a_state_is_run(
    model_of: Callable[..., Model], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = model_of("llama", torch.float32), tmp_path / "optimizer.pt"
    torch.save(Harm(), path)
    for content in (path.read_bytes(), pickle.dumps(Harm())):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            stored_moments(str(path), model, choose(model, "last"))
    with pytest.raises(UserError, match="cannot be read"):
        stored_moments(str(tmp_path / "absent.pt"), model, choose(model, "last"))
    assert "harm" not in capsys.readouterr().out
