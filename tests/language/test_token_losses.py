"""Token losses against transformers in float64, one document and one window at a time."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import language_models
from dvsel.errors import Notice, UserError
from language_models import FAMILIES, TEXTS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from dvsel.language import token_losses  # noqa: E402
from dvsel.language import windows as feeding  # noqa: E402  (needs both)
from dvsel.language.models import Model, load  # noqa: E402
from dvsel.language.token_losses import LossMeter, measure  # noqa: E402
from dvsel.language.windows import WASTE, cut, windows  # noqa: E402

SHORT = [text[:120] for text in TEXTS[:6]]
LONG = [TEXTS[7][:900], "x", TEXTS[8][:40], TEXTS[9][:500], "🙂 naïve Größe 漢字", " ", "\0", TEXTS[10][:300]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The folder of a model of that family, built once."""
    built: dict[str, str] = {}

    def build(family: str, **options: Any) -> str:
        key = f"{family} {options}"
        if key not in built:
            built[key] = language_models.build(tmp_path_factory.mktemp(family), family, **options)
        return built[key]

    return build


@pytest.fixture(scope="session")
def model_of(folder_of: Callable[..., str]) -> Callable[..., Model]:
    """A model of that family, in fp32."""
    return lambda family="llama", **options: load(folder_of(family, **options), "fp32")


@pytest.fixture(scope="session")
def llama(model_of: Callable[..., Model]) -> Model:
    return model_of("llama")


class Truth:
    """transformers in float64, whatever it costs."""

    def __init__(self, folder: str) -> None:
        self.network = transformers.AutoModelForCausalLM.from_pretrained(folder).double().eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def start(self) -> list[int]:
        name = self.tokenizer.bos_token or self.tokenizer.eos_token
        return [self.tokenizer.convert_tokens_to_ids(name)] if name else []

    def mean(self, text: str) -> float:
        """Return what the model itself says of the whole document."""
        ids = torch.tensor([self.start() + self.ids(text)])
        with torch.no_grad():
            return float(self.network(input_ids=ids, labels=ids).loss)

    def losses(self, text: str, prompt: str = "", window: int = 64, stride: int = 32) -> list[float]:
        """Return the loss of each token of the text, in the first window that predicts it."""
        before = self.start() + self.ids(prompt)
        document = before + self.ids(text)
        found: list[float] = []
        for at in range(max(len(before), 1), len(document)):
            begin = next(begin for begin in range(0, at, stride) if at <= begin + window)
            found.append(-float(self.logs(tuple(document[begin : begin + window]))[at - begin - 1, document[at]]))
        return found

    @functools.cache  # noqa: B019  (one window serves many tokens)
    def logs(self, ids: tuple[int, ...]) -> Any:
        """Log-probabilities after each token."""
        with torch.no_grad():
            return self.network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


# --- Truth. ---


@pytest.mark.parametrize("family", FAMILIES)
def test_means_are_those_of_transformers(family: str, folder_of: Callable[..., str]) -> None:
    truth = Truth(folder_of(family))
    found = LossMeter(load(folder_of(family), "fp32")).token_losses(SHORT)
    assert [one.mean(dtype=np.float64) for one in found] == pytest.approx(list(map(truth.mean, SHORT)), rel=1e-5)
    assert {one.dtype for one in found} == {np.dtype(np.float32)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("window", "stride"), [(0, 0), (16, 5), (16, 16), (33, 1)])
def test_sliding_windows_are_a_loop_over_tokens(
    family: str, window: int, stride: int, folder_of: Callable[..., str]
) -> None:
    truth, meter = Truth(folder_of(family)), LossMeter(load(folder_of(family), "fp32"), window, stride)
    assert (meter.window, meter.stride) == (window or 64, stride or 32)
    texts = [text[:150] for text in LONG]
    for text, found in zip(texts, meter.token_losses(texts), strict=True):
        np.testing.assert_allclose(found, truth.losses(text, "", meter.window, meter.stride), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("prompt", ["", "What is it?\n", TEXTS[3][:400]])
def test_the_prompt_is_context_only(prompt: str, folder_of: Callable[..., str], llama: Model) -> None:
    truth = Truth(folder_of("llama"))
    found = LossMeter(llama).token_losses(LONG, [prompt] * len(LONG))
    for text, one in zip(LONG, found, strict=True):
        np.testing.assert_allclose(one, truth.losses(text, prompt), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("special", [("eos",), ()])
def test_the_first_token_is_context_only_without_a_start_token(
    special: tuple[str, ...], folder_of: Callable[..., str], model_of: Callable[..., Model]
) -> None:
    truth, model = Truth(folder_of("gpt2", special=special)), model_of("gpt2", special=special)
    for text, found in zip(LONG, LossMeter(model).token_losses(LONG), strict=True):
        assert len(found) == len(truth.ids(text)) - (not special)
        np.testing.assert_allclose(found, truth.losses(text), rtol=2e-5, atol=2e-5)
    (after_prompt,) = LossMeter(model).token_losses(["x"], ["a prompt"])
    np.testing.assert_allclose(after_prompt, truth.losses("x", "a prompt"), rtol=2e-5)


def test_documents_without_tokens_have_no_losses(llama: Model) -> None:
    meter = LossMeter(llama)
    assert [len(one) for one in meter.token_losses(["", "x", ""])] == [0, 1, 0]
    assert [len(one) for one in meter.token_losses(["", "x"], ["prompt", ""])] == [0, 1]
    assert meter.token_losses([]) == []


# --- Batches. ---


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(LONG + SHORT) | st.text(max_size=60), max_size=12), st.sampled_from([1, 70, 200, 0]))
def test_losses_do_not_depend_on_the_batch(llama: Model, texts: list[str], batch_tokens: int) -> None:
    together = LossMeter(llama, batch_tokens=batch_tokens).token_losses(texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = LossMeter(llama).token_losses([text])
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)


def test_the_same_batch_gives_the_same_bytes(llama: Model) -> None:
    first, second = (LossMeter(llama).token_losses(LONG) for _ in range(2))
    assert [one.tobytes() for one in first] == [one.tobytes() for one in second]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 100), st.data())
def test_windows_score_each_position_once_after_enough_context(
    length: int, skip: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    found = windows(0, length, skip, window, stride)
    assert [at for one in found for at in range(one.first, one.end)] == list(range(skip, length))
    for one in found:
        assert 0 <= one.begin <= one.first < one.end <= one.begin + window
        assert one.first - one.begin + 1 > window - stride or one.begin == 0
        assert one.begin % stride == 0


@given(st.lists(st.integers(1, 200), min_size=1), st.integers(1, 2000))
def test_batches_hold_to_the_budget_and_waste_little(lengths: list[int], budget: int) -> None:
    falling = np.sort(np.array(lengths))[::-1]
    first = 0
    while first < len(falling):
        last = cut(falling, first, budget)
        rows = falling[first:last]
        size = len(rows) * rows[0]
        assert len(rows) == 1 or (size <= budget and size - rows.sum() <= WASTE * size)
        more = falling[first : last + 1]
        over = len(more) * more[0]
        assert last == len(falling) or over > budget or over - more.sum() > WASTE * over, "the batch ends early"
        first = last


def test_logits_are_made_for_scored_positions_only_and_in_slices(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_losses, "_SLICE", dict.fromkeys(("cpu", "cuda"), 130 * llama.tokens))
    logits, made = Model.logits, []
    monkeypatch.setattr(Model, "logits", lambda self, states: made.append(len(states)) or logits(self, states))  # type: ignore[func-returns-value]
    found = LossMeter(llama, 32, 8).token_losses(LONG)
    assert sum(made) == sum(map(len, found))
    assert max(made) == 130


def test_a_model_whose_logits_come_whole_gets_smaller_batches(
    model_of: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("gemma2")
    monkeypatch.setattr(feeding, "_WHOLE", 100 * model.tokens)
    assert LossMeter(model).batch_tokens == 100
    assert LossMeter(model, batch_tokens=500).batch_tokens == 500


def test_a_batch_that_exceeds_the_memory_is_halved(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = LossMeter(llama).token_losses(LONG)
    states = Model.states

    def small_memory(self: Model, ids: Any) -> Any:
        if ids.numel() > 200:
            raise torch.cuda.OutOfMemoryError
        return states(self, ids)

    monkeypatch.setattr(Model, "states", small_memory)
    meter = LossMeter(llama, batch_tokens=700)
    with pytest.warns(Notice, match="exceeds the GPU's memory; going on with --batch-tokens"):
        found = meter.token_losses(LONG)
    assert meter.batch_tokens <= 200
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(Model, "states", lambda *_: small_memory(llama, torch.zeros(201)))
    with pytest.raises(UserError, match="holds no window of 64 tokens; lower --window"):
        LossMeter(llama, batch_tokens=1).token_losses(LONG)


# --- What cannot be. ---


@pytest.mark.parametrize(
    ("window", "stride", "complaint"),
    [(65, 0, "window 65: model .* takes 64 tokens; give 64 or fewer"), (0, 65, "stride 65"), (8, 9, "stride 9")],
)
def test_windows_that_cannot_be_are_refused(llama: Model, window: int, stride: int, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        LossMeter(llama, window, stride)


@pytest.mark.parametrize(("limit", "expected"), [(None, 2048), (1 << 17, 8192), (100, 100)])
def test_the_default_window_is_the_models_within_bounds(llama: Model, limit: int | None, expected: int) -> None:
    card = dataclasses.replace(llama.card, limit=limit)
    assert card.windows(0, 0) == (expected, expected // 2)


def test_a_tokenizer_of_another_model_is_refused(llama: Model) -> None:
    fewer = dataclasses.replace(llama, tokens=100)
    with pytest.raises(UserError, match=r"gives token \d+, and the model knows 100; give the model its own tokenizer"):
        LossMeter(fewer).token_losses(SHORT)


def test_weights_that_are_no_numbers_are_told(folder_of: Callable[..., str]) -> None:
    broken = load(folder_of("llama"), "fp32")
    broken.network.get_output_embeddings().weight.data[5] = math.nan
    with pytest.raises(UserError, match="NaN or infinite; try --precision fp32"):
        LossMeter(broken).token_losses(SHORT)


# --- Measures. ---

some_losses = st.lists(st.floats(0, 50, width=32), min_size=1, max_size=200)


@given(some_losses, st.floats(0.1, 100))
def test_min_k_is_the_mean_of_the_greatest_losses(losses: list[float], share: float) -> None:
    count = max(int(len(losses) * share / 100), 1)
    expected = sum(sorted(losses)[-count:]) / count
    assert measure(np.array(losses, np.float32), "min-k", 1, share) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(some_losses, st.integers(1, 1000))
def test_mean_total_and_bits_per_character(losses: list[float], characters: int) -> None:
    array, total = np.array(losses, np.float32), math.fsum(losses)
    assert measure(array, "total", characters, 20) == pytest.approx(total)
    assert measure(array, "mean", characters, 20) == pytest.approx(total / len(losses))
    assert measure(array, "bits-per-char", characters, 20) == pytest.approx(total / math.log(2) / characters)


@pytest.mark.parametrize("name", ["mean", "total", "bits-per-char", "min-k"])
def test_nothing_measures_nothing(name: str) -> None:
    assert math.isnan(measure(np.empty(0, np.float32), name, 0, 20))
