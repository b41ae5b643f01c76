"""Sequence classifiers: the gradient of a label's loss, whatever is beside a sequence, against autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradient_truth import LONG, TEXTS, assert_collected, assert_moments, by_weights, close, in_precision

import language_models
from dvsel.documents.columns import Batch, Column, Kind
from dvsel.errors import UserError
from dvsel.gradients.gradient_pass import GradientMeter
from dvsel.gradients.layers import choose
from dvsel.gradients.moments import FactorSums, GradientSum
from dvsel.gradients.options import GradientOptions
from dvsel.language import Documents
from dvsel.language.models import Model, load
from dvsel.scorers.perplexity import Perplexity

NAMES = {0: "bad", 1: "fair", 2: "good"}
LABELS = ["good", "bad", "", "2", "fair", "unheard of"]
NUMBERS = [2, 0, None, 2, 1, None]
WINDOW = 48  # of which the fourth text has three times as much
EAGER = 1e-5  # whose softmax transformers computes in float32


@pytest.fixture(scope="module")
def classifier_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    built: dict[str, Model] = {}

    def build(family: str, **more: Any) -> Model:
        key = f"{family} {more}"
        if key not in built:
            folder = tmp_path_factory.mktemp("classifier")
            settings: dict[str, Any] = {
                "id2label": NAMES,
                "label2id": {name: number for number, name in NAMES.items()},
            } | more
            name = language_models.build(folder, family, task="SequenceClassification", **settings)
            built[key] = in_precision(load(name, "fp32", classifiers=True))
        return built[key]

    return build


def label_loss(model: Model, text: str, number: int, window: int = WINDOW) -> torch.Tensor:
    """The sequence by itself, without padding and without a mask."""
    ids = model.card.tokenizer(text, truncation=True, max_length=window, return_tensors="pt")["input_ids"]
    if model.network.config.pad_token_id is None:
        model.network.config.pad_token_id = model.card.tokenizer.eos_token_id
    return -model.network(input_ids=ids).logits[0].log_softmax(-1)[number]  # type: ignore[no-any-return]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "gpt2"])
def test_gradients_are_those_of_each_sequence(family: str, attention: str, classifier_of: Callable[..., Model]) -> None:
    model = classifier_of(family, pad_token_id=1) if family == "roberta" else classifier_of(family)
    model.network.set_attn_implementation(attention)
    meter = GradientMeter(model, choose(model, "all"), WINDOW, batch_tokens=150)
    expected = [
        None
        if number is None
        else by_weights(meter.layers, lambda text=text, number=number: label_loss(model, text, number))
        for text, number in zip(TEXTS, NUMBERS, strict=True)
    ]
    tolerance = 1e-8 if attention == "sdpa" else EAGER
    passed = assert_collected(meter, Documents(TEXTS, labels=LABELS), expected, tolerance=tolerance)
    assert passed.tokens.tolist() == [1, 1, 0, 1, 1, 0]
    losses = [0.0 if number is None else float(label_loss(model, text, number))
              for text, number in zip(TEXTS, NUMBERS, strict=True)]  # fmt: skip
    close(torch.from_numpy(passed.losses), torch.tensor(losses, dtype=torch.float64), tolerance)


@pytest.mark.parametrize(
    ("family", "ends"),
    [("bert", ["pooler.dense", "classifier"]), ("roberta", ["dense", "out_proj"]), ("llama", ["score"])],
)
def test_layers_after_the_blocks_count_too(family: str, ends: list[str], classifier_of: Callable[..., Model]) -> None:
    model = classifier_of(family, pad_token_id=1) if family == "roberta" else classifier_of(family)
    every, last = choose(model, "all"), choose(model, "last")
    for layers in (every, last):
        assert [any(layer.name.endswith(end) for end in ends) for layer in layers[-len(ends) :]] == [True] * len(ends)
    assert len(every) > len(last) > len(ends)
    assert not any(layer.embeds for layer in every)


def test_factors_of_layers_that_see_what_was_pooled(classifier_of: Callable[..., Model]) -> None:
    model = classifier_of("bert")
    model.network.set_attn_implementation("sdpa")
    meter = GradientMeter(model, choose(model, "all"), WINDOW, batch_tokens=150)
    scored = [(text, number) for text, number in zip(TEXTS, NUMBERS, strict=True) if number is not None]
    numbers = [lambda text=text, number=number: label_loss(model, text, number) for text, number in scored]
    found = assert_moments(meter, Documents(TEXTS, labels=LABELS), numbers)
    tokens = [one.tokens for one in found.factors]
    assert tokens[-2:] == [len(scored)] * 2 and set(tokens[:-2]) == {_positions(model, [text for text, _ in scored])}


def _positions(model: Model, texts: list[str]) -> int:
    return sum(min(len(model.card.tokenizer(text)["input_ids"]), WINDOW) for text in texts)


def test_a_sequence_is_cut_as_its_tokenizer_cuts(classifier_of: Callable[..., Model]) -> None:
    model = classifier_of("bert")
    meter = GradientMeter(model, choose(model, "last"), WINDOW)
    whole, cut = meter.run(Documents([TEXTS[3], TEXTS[3][:300]], labels=["good"] * 2), None, "mean").losses
    assert whole == pytest.approx(cut, rel=1e-12)
    model.card.tokenizer.truncation_side = "left"
    try:
        assert meter.run(Documents([TEXTS[3]], labels=["good"]), None, "mean").losses[0] != pytest.approx(
            whole, rel=1e-3
        )
    finally:
        model.card.tokenizer.truncation_side = "right"


def test_the_tokenizer_may_state_a_shorter_limit(tmp_path: Path) -> None:
    """RoBERTa's configuration counts two positions that no token has."""
    name = language_models.build(tmp_path, "roberta", task="SequenceClassification", pad_token_id=1)
    tokenizer = copy.deepcopy(language_models.tokenizer())
    tokenizer.model_max_length = 62
    tokenizer.save_pretrained(name)
    model = load(name, "fp32", classifiers=True)
    meter = GradientMeter(model, choose(model, "last"))
    assert (model.card.limit, meter.window) == (62, 62)
    assert meter.run(Documents([LONG], labels=["0"]), None, "mean").scored.all()


def test_names_that_are_numbers_are_names(classifier_of: Callable[..., Model]) -> None:
    stars = classifier_of("bert", id2label={0: "1", 1: "2", 2: "3"}, label2id={"1": 0, "2": 1, "3": 2})
    meter = GradientMeter(stars, choose(stars, "last"), WINDOW)
    passed = meter.run(Documents([TEXTS[0]] * 5, labels=["0", "1", "2", "3", "1.0"]), None, "mean")
    assert passed.tokens.tolist() == [0, 1, 1, 1, 0]
    expected = [float(label_loss(stars, TEXTS[0], number)) for number in range(3)]
    assert passed.losses[1:4].tolist() == pytest.approx(expected, rel=1e-8)


def test_labels_come_from_a_field(classifier_of: Callable[..., Model]) -> None:
    options = GradientOptions(model="any", label_field="label")
    kinds = [Kind.STRING, Kind.NUMBER, Kind.MISSING, Kind.NULL]
    batch = Batch(
        Column.of([text.encode() for text in TEXTS[:4]]), {"label": Column.of([b"good", b"1", None, None], kinds)}
    )
    documents = options.documents([batch])
    assert list(documents.labels or []) == ["good", "1", "", ""] and options.needs == ("label",)
    model = classifier_of("bert")
    passed = GradientMeter(model, choose(model, "last"), WINDOW).run(documents, None, "mean")
    assert passed.tokens.tolist() == [1, 1, 0, 0]


def test_empty_sequences_and_no_sequences(classifier_of: Callable[..., Model]) -> None:
    model = classifier_of("bert")
    meter = GradientMeter(model, choose(model, "last"), WINDOW)
    for texts in ([], ["", ""]):
        total = GradientSum(meter.layers)
        passed = meter.run(Documents(texts, labels=["good"] * len(texts)), total, "mean")
        assert not passed.scored.any() and not any(one.any() for one in total.total)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_half_precision_gives_numbers(family: str, tmp_path: Path) -> None:
    model = load(language_models.build(tmp_path, family, task="SequenceClassification"), "bf16", classifiers=True)
    factors = FactorSums(choose(model, "all"))
    documents = Documents(TEXTS, labels=["LABEL_0", "LABEL_1"] * 3)
    passed = GradientMeter(model, factors.layers, batch_tokens=150).run(documents, factors, "sum")
    assert passed.scored.all() and np.isfinite(passed.losses).all()
    assert all(bool(one.inputs.isfinite().all() and one.outputs.isfinite().all()) for one in factors.factors)


def test_packing_is_refused(classifier_of: Callable[..., Model]) -> None:
    model = classifier_of("bert")
    with pytest.raises(UserError, match="a classifier sees a row as one document; drop --packing"):
        GradientMeter(model, choose(model, "last"), packing=True)


@pytest.mark.parametrize("settings", [{"num_labels": 1}, {"problem_type": "multi_label_classification"}])
def test_other_tasks_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    name = language_models.build(tmp_path, "bert", task="SequenceClassification", **settings)
    with pytest.raises(UserError, match="does not choose one of several labels"):
        load(name, "fp32", classifiers=True)


def test_losses_of_text_want_another_model(tmp_path: Path) -> None:
    name = language_models.build(tmp_path, "bert", task="SequenceClassification")
    with pytest.raises(UserError, match="is a sequence classifier; give a model that predicts text"):
        Perplexity(model=name).fit([], {})


def test_options_and_model_must_go_together(tmp_path: Path) -> None:
    classifier = language_models.build(tmp_path / "bert", "bert", task="SequenceClassification")
    causal = language_models.build(tmp_path / "llama")
    for options, complaint in [
        (GradientOptions(model=classifier), "name the field of labels with --label-field"),
        (GradientOptions(model=causal, label_field="label"), "is not a sequence classifier; drop --label-field"),
        (GradientOptions(model=classifier, label_field="label", prompt_field="prompt"), "drop --prompt-field"),
    ]:
        with pytest.raises(UserError, match=complaint):
            options.load(options.model)
