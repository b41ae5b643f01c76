"""Batches of documents: losses, windows, memory, and losses that are NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradient_truth import LONG, TEXTS, in_double

from dvsel.errors import Notice, UserError
from dvsel.gradients import objective
from dvsel.gradients.capture import Collector, RowLayout
from dvsel.gradients.compare import Scores, comparison
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.low_rank import Direction
from dvsel.gradients.moments import GradientSum
from dvsel.language import Documents
from dvsel.language.models import Model
from dvsel.language.token_losses import LossMeter
from dvsel.progress import showing


class Batches(Collector):
    """Notes the rows of each pass."""

    def __init__(self, whole: bool = False) -> None:
        self.whole_documents = whole
        self.seen: list[RowLayout] = []

    def begin(self, rows: RowLayout) -> None:
        self.seen.append(rows)
        super().begin(rows)

    def keep(self, layer: int, inputs: torch.Tensor) -> None:  # type: ignore[override]
        pass

    def take(self, layer: int, kept: None, slopes: torch.Tensor) -> None:
        pass

    def reset(self) -> None:
        self.seen.clear()


def scores_of(meter: GradientMeter, texts: list[str]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    comparisons = [
        comparison([Direction(*(torch.randn(n, 2, generator=generator, dtype=torch.float64) for n in shape))])  # type: ignore[arg-type]
        for shape in ((layer.outputs, layer.inputs) for layer in meter.layers)
    ]
    scores = Scores(comparisons, len(texts), 1, "cpu")
    meter.run(Documents(texts), scores, "mean")
    return scores.products[:, 0]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_losses_are_those_of_the_loss_meter(name: str, model_of: Callable[..., Model]) -> None:
    model = model_of(name, torch.float32)
    passed = GradientMeter(model, choose(model, "last"), 32, 20, 100).run(Documents(["", *TEXTS]), Batches(), "mean")
    expected = LossMeter(model, 32, 20).token_losses(["", *TEXTS])
    np.testing.assert_allclose(passed.losses, [one.sum(dtype=np.float64) for one in expected], rtol=1e-5)
    assert passed.tokens.tolist() == [len(one) for one in expected]
    assert passed.scored.tolist() == [False, *[True] * len(TEXTS)]


def test_documents_of_several_windows_come_by_themselves_where_wanted(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    meter = GradientMeter(model, choose(model, "last"), 32, 16, batch_tokens=100)
    texts = [LONG, "x", TEXTS[0], LONG + LONG]
    together, apart = Batches(), Batches(whole=True)
    for collector in (together, apart):
        meter.run(Documents(texts), collector, "mean")
    assert not any(rows.part or rows.ends for rows in together.seen)
    parts = [(set(rows.owners.tolist()), rows.ends) for rows in apart.seen if rows.part]
    for document in (0, 3):
        ends = [end for found, end in parts if found == {document}]
        assert ends == [False] * (len(ends) - 1) + [True]
    assert {number for rows in apart.seen if not rows.part for number in rows.owners.tolist()} == {1, 2}
    assert sum(rows.positions for rows in together.seen) == sum(rows.positions for rows in apart.seen)


def test_logits_are_made_a_slice_at_a_time(model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch) -> None:
    model = in_double(model_of("llama"))
    meter = GradientMeter(model, choose(model, "all"), 32)
    expected = scores_of(meter, TEXTS)
    made: list[int] = []
    model.network.lm_head.register_forward_hook(lambda *call: made.append(len(call[2])))
    monkeypatch.setattr(objective, "_SLICE", dict.fromkeys(("cpu", "cuda"), 130 * model.tokens))
    torch.testing.assert_close(scores_of(meter, TEXTS), expected, rtol=1e-10, atol=1e-12)
    assert max(made) == 130 and len(made) > 1


def test_a_batch_that_exceeds_the_memory_is_halved_and_nothing_counts_twice(
    model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama")
    layers = choose(model, "all")
    expected = GradientSum(layers)
    GradientMeter(model, layers, 32).run(Documents(TEXTS), expected, "mean")
    take = GradientSum.take

    def small_memory(self: GradientSum, layer: int, kept: Any, slopes: torch.Tensor) -> None:
        if layer == 0 and slopes.shape[:2].numel() > 200:  # late in the backward pass
            raise torch.cuda.OutOfMemoryError
        take(self, layer, kept, slopes)

    monkeypatch.setattr(GradientSum, "take", small_memory)
    found = GradientSum(layers)
    with pytest.warns(Notice, match="exceeds the GPU's memory; going on with --batch-tokens"):
        GradientMeter(model, layers, 32, batch_tokens=500).run(Documents(TEXTS), found, "mean")
    for one, other in zip(found.total, expected.total, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_a_window_that_exceeds_the_memory_is_refused(
    model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Model, "states", no_memory)
    model = model_of("llama")
    with pytest.raises(UserError, match=r"holds no window of \d+ tokens; lower --window"):
        GradientMeter(model, choose(model, "all"), batch_tokens=1).run(Documents(["x y z"]), Batches(), "mean")


@pytest.fixture
def broken(model_of: Callable[..., Model]) -> Model:
    """A model that gives no number where the text has a "~"."""
    model = in_double(model_of("llama"))
    (token,) = model.card.tokenizer("~", add_special_tokens=False)["input_ids"]
    model.network.get_input_embeddings().weight.data[token] = math.nan
    return model  # type: ignore[no-any-return]


def test_losses_that_are_no_numbers_spoil_no_other_document(broken: Model) -> None:
    layers = choose(broken, "all")
    meter = GradientMeter(broken, layers, 32)
    texts = [TEXTS[0], "a ~ b", LONG[:200] + "~" + LONG, TEXTS[1]]
    found = scores_of(meter, texts)
    torch.testing.assert_close(found[[0, 3]], scores_of(meter, [texts[0], texts[3]]), rtol=1e-9, atol=1e-12)
    assert found[[1, 2]].isnan().all()
    damaged, clean = GradientSum(layers), GradientSum(layers)
    passed = meter.run(Documents(texts[:2] + texts[3:]), damaged, "mean")
    meter.run(Documents([texts[0], texts[3]]), clean, "mean")
    assert passed.scored.tolist() == [True, False, True]
    for one, other in zip(damaged.total, clean.total, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_progress_is_shown_up_to_the_end(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    shown: list[tuple[str, int, int]] = []
    with showing(lambda stage, done, total: shown.append((stage, done.bytes, total))):
        meter = GradientMeter(model, choose(model, "last"), 32, batch_tokens=60)
        meter.run(Documents(TEXTS), Batches(), "mean", "curvature")
        meter.run(Documents(TEXTS), Batches(), "mean")
    assert {stage for stage, *_ in shown} == {"curvature"}
    done = [one for _, one, _ in shown]
    assert done == sorted(done) and done[-1] == shown[-1][2] and len(done) > 3


def test_batches_are_half_of_what_measuring_losses_takes(model_of: Callable[..., Model]) -> None:
    model = model_of("llama")
    assert 2 * GradientMeter(model, []).batch_tokens == LossMeter(model).batch_tokens
    assert GradientMeter(model, [], batch_tokens=77).batch_tokens == 77
