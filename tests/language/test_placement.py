"""Places of models: on a GPU of its process's own, spread over all, or on the CPU; and what it computes in."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import language_models
from dvsel.commands.score import score
from dvsel.engines import local
from dvsel.errors import UserError
from dvsel.gradients.options import GradientOptions
from dvsel.language import models
from dvsel.runs.requests import Execution, ScoreRun
from dvsel.scorers.dsir import DSIR
from dvsel.scorers.influence import Influence
from dvsel.scorers.perplexity import Perplexity
from dvsel.scorers.target import Target

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from dvsel.gradients.compare import Scores, comparison  # noqa: E402
from dvsel.gradients.gradient_pass import GradientMeter  # noqa: E402
from dvsel.gradients.layers import choose  # noqa: E402  (needs both)
from dvsel.gradients.low_rank import Direction  # noqa: E402
from dvsel.language import Documents  # noqa: E402
from dvsel.language.models import load  # noqa: E402
from dvsel.language.token_losses import LossMeter  # noqa: E402

GPUS = 3
TEXTS = [text[: 200 + 10 * number] for number, text in enumerate(language_models.TEXTS[:30])]


# --- A GPU for each process. ---


def with_gpus(monkeypatch: pytest.MonkeyPatch, count: int = GPUS) -> list[int]:
    """Make torch believe that there are GPUs; return those that are taken."""
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_each_of_several_processes_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tests/engines/test_worker_numbers.py` has that processes have numbers of their own."""
    taken = with_gpus(monkeypatch)
    for number in range(2 * GPUS):
        monkeypatch.setattr("dvsel.engines.worker.number", number)
        assert models._device(spread=False) == "cuda"
    assert taken == [*range(GPUS)] * 2


def test_a_process_alone_takes_the_first_and_a_spread_model_begins_there(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = with_gpus(monkeypatch)
    models._device(spread=False)
    monkeypatch.setattr("dvsel.engines.worker.number", 1)
    models._device(spread=True)
    assert taken == [0, 0]


def test_a_model_that_is_no_longer_used_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that a meter held, which its own objective refers to."""
    model = load(language_models.build(tmp_path))
    network = weakref.ref(model.network)
    meter = GradientMeter(model, choose(model, "last"))
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(network() is None))
    models.release()
    del model, meter
    models.release()
    assert emptied == [False, True]


def test_processes_are_as_many_as_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in ((0, 1), (1, 1), (4, 4)):
        with_gpus(monkeypatch, count)
        for embedded in (False, True):
            assert Perplexity().processes_for(embedded) == Influence().processes_for(embedded) == expected
            assert Influence(spread=True).processes_for(embedded) == 1
            assert DSIR().processes_for(embedded) == 0
        assert Target().processes_for(embedded=False) == expected
        assert Target().processes_for(embedded=True) == 0


def test_gpus_are_counted_for_models_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        raise AssertionError

    monkeypatch.setattr(models, "gpus", count)
    assert DSIR().processes_for(embedded=False) == 0
    assert Target().processes_for(embedded=True) == 0
    with pytest.raises(AssertionError):
        assert Perplexity().processes_for(embedded=False)


@pytest.mark.parametrize(("asked", "expected"), [(0, GPUS), (2, 2)])
def test_a_pool_is_scored_by_as_many_processes(
    asked: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = language_models.build(tmp_path / "model")
    for number in range(4):
        (tmp_path / f"{number}.jsonl").write_text('{"text": "a b c"}\n')
    seen: list[int] = []
    run = local.run

    def watched(function: Callable[..., Any], tasks: Any, workers: int, *more: Any) -> Any:
        seen.append(workers)
        return run(function, tasks, 1, *more)

    monkeypatch.setattr(models, "gpus", lambda: GPUS)
    monkeypatch.setattr(local, "run", watched)
    scored = ScoreRun(scorer=Perplexity(model=name), pool=(str(tmp_path / "*.jsonl"),), output=str(tmp_path / "out"))
    score(scored, Execution(workers=asked))
    assert seen[-1] == expected


# --- One model over all GPUs; here over a CPU. ---


def scores(name: str, layers: str = "all", **loading: Any) -> Any:
    """float64 (documents,), by random directions."""
    model = load(name, loading.pop("precision", "fp32"), **loading)
    chosen = choose(model, layers)
    generator = torch.Generator().manual_seed(0)
    directions = [
        [Direction(*(torch.randn(width, 4, generator=generator) for width in (layer.outputs, layer.inputs)))]
        for layer in chosen
    ]
    found = Scores([comparison(one) for one in directions], len(TEXTS), 1, model.device, norms=True)
    passed = GradientMeter(model, chosen, 64).run(Documents(TEXTS), found, "mean")
    assert passed.scored.all() and found.squares is not None and found.products.dtype == torch.float64
    return found.products[:, 0], found.squares


def test_a_spread_model_gives_the_same_scores(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    name = language_models.build(tmp_path / "model")
    for one, other in zip(scores(name, "all", spread=True), scores(name, "all"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    model = GradientOptions(model=name, spread=True, precision="bf16").load(name)
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.bfloat16}
    plain = load(name, "bf16").network
    for spread, own in zip(model.network.buffers(), plain.buffers(), strict=True):
        assert torch.equal(spread, own) and spread.dtype == own.dtype


def test_a_model_that_all_gpus_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    name = language_models.build(tmp_path / "model")
    empty = torch.nn.Parameter(torch.empty(0, device="meta"))
    network = torch.nn.Module()
    network.register_parameter("weight", empty)
    kind = type("Kind", (), {"from_pretrained": lambda *_, **__: (network, {"missing_keys": []})})
    monkeypatch.setattr("transformers.AutoModelForCausalLM", kind)
    with pytest.raises(UserError, match="all GPUs together cannot hold it; give a smaller model"):
        load(name, spread=True)


def test_spreading_needs_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    name = language_models.build(tmp_path / "model")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == "accelerate" else find(one))
    with pytest.raises(UserError, match=r"to be spread over all GPUs needs the package accelerate; pip install"):
        load(name, spread=True)


# --- Products in bfloat16. ---


def test_autocast_scores_as_float32_does(tmp_path: Path) -> None:
    name = language_models.build(tmp_path, initializer_range=0.1)
    exact, squares = scores(name)
    found, rounded = scores(name, precision="autocast")
    assert float(torch.corrcoef(torch.stack([exact, found]))[0, 1]) > 0.999
    torch.testing.assert_close(rounded, squares, rtol=0.05, atol=0)
    assert not torch.equal(exact, found)
    weights = load(name, "autocast").network.parameters()
    assert {weight.dtype for weight in weights} == {torch.float32}


def test_losses_under_autocast_are_near(tmp_path: Path) -> None:
    name = language_models.build(tmp_path, initializer_range=0.1)
    exact, rounded = (LossMeter(load(name, precision)).token_losses(TEXTS) for precision in ("fp32", "autocast"))
    for one, other in zip(exact, rounded, strict=True):
        assert one == pytest.approx(other, abs=0.05) and one.dtype == other.dtype and (one != other).any()


def test_layers_may_lie_on_other_devices_than_the_batch(tmp_path: Path) -> None:
    """The rows' tensors are moved to where they are used; shown here by a device that holds nothing."""
    from dvsel.gradients.capture import Piece, RowLayout

    owners, real = torch.zeros(2, dtype=torch.int64), torch.ones(1, 4, dtype=torch.bool)
    rows = RowLayout([Piece(0, 0, 0, 2), Piece(1, 0, 2, 4)], owners, real, torch.tensor([[0, 0, 1, 1]]))
    assert rows.sums(torch.empty(1, 4, 3, device="meta")).device.type == "meta"
    assert dataclasses.replace(rows, piece=None).sums(torch.empty(1, 4, 3, device="meta")).device.type == "meta"
