"""Adapters are found with their base models, loaded and checked; whatever cannot be used is one line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import language_models
from dvsel.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from dvsel.language.cards import describe  # noqa: E402
from dvsel.language.models import load  # noqa: E402
from dvsel.language.token_losses import LossMeter  # noqa: E402  (needs both)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of PEFT

TEXT = language_models.TEXTS[0][:60]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, adapter (causal), bert (a masked language model, with a pooler), labels (its classifier)."""
    folder = tmp_path_factory.mktemp("built")
    language_models.adapt(folder / "adapter", language_models.build(folder / "base"))
    bert = language_models.build(folder / "bert", "bert", task="SequenceClassification")
    _without(folder / "bert", "classifier")
    language_models.adapt(folder / "labels", bert, task="SEQ_CLS", num_labels=5, target_modules=["query"])
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """Copies of all, to be damaged; adapters name the copies."""
    for part in built.iterdir():
        shutil.copytree(part, tmp_path / part.name)
    configure(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))
    configure(tmp_path / "labels", base_model_name_or_path=str(tmp_path / "bert"))
    return tmp_path


def configure(folder: Path, name: str = "adapter_config.json", **settings: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def _without(folder: Path, part: str, file: str = "model.safetensors") -> None:
    """Make it a model that lacks some weights, as one that was saved for another task does."""
    from safetensors.torch import load_file, save_file

    kept = {name: weight for name, weight in load_file(folder / file).items() if part not in name}
    save_file(kept, folder / file, {"format": "pt"})
    if file == "model.safetensors":
        configure(folder, "config.json", architectures=["BertForMaskedLM"])


@pytest.fixture
def torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are torch's, to the bit."""
    monkeypatch.setattr("dvsel.linalg.cpu_matmul.available", lambda: False)


def logits(network: Any, tokenizer: Any) -> Any:
    with torch.inference_mode():
        return network(**tokenizer(TEXT, return_tensors="pt", return_token_type_ids=False)).logits


def test_a_causal_adapter_is_what_peft_makes_of_it(built: Path, torchs_own: None) -> None:
    model = load(str(built / "adapter"), "fp32")
    base = transformers.AutoModelForCausalLM.from_pretrained(built / "base")
    plain = logits(base, model.card.tokenizer)
    expected = logits(peft.PeftModel.from_pretrained(base, built / "adapter").eval(), model.card.tokenizer)
    assert torch.equal(logits(model.network, model.card.tokenizer), expected) and not torch.allclose(plain, expected)
    assert model.has_head and not model.card.classifier and not model.network.training
    assert (model.card.source, model.card.adapter) == (str(built / "base"), str(built / "adapter"))
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_losses_are_those_of_the_adapted_model(built: Path) -> None:
    adapted, base = (load(str(built / name), "fp32") for name in ("adapter", "base"))
    ours, others = (LossMeter(model).token_losses([TEXT])[0] for model in (adapted, base))
    ids = torch.tensor([[0, *adapted.card.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]])
    with torch.inference_mode():
        found = adapted.network(input_ids=ids, labels=ids).loss
    assert ours.mean() == pytest.approx(float(found), rel=1e-5) and ours.mean() != pytest.approx(
        others.mean(), rel=1e-3
    )


def test_a_classifier_takes_its_number_of_labels_from_the_adapter(built: Path, torchs_own: None) -> None:
    model = load(str(built / "labels"), "fp32", classifiers=True)
    assert model.card.classifier and model.network.config.num_labels == 5
    base = transformers.AutoModelForSequenceClassification.from_pretrained(built / "bert", num_labels=5)
    expected = logits(peft.PeftModel.from_pretrained(base, built / "labels").eval(), model.card.tokenizer)
    assert expected.shape == (1, 5)
    assert torch.equal(logits(model.network, model.card.tokenizer), expected)
    with pytest.raises(UserError, match="is a sequence classifier; give a model that predicts text"):
        load(str(built / "labels"), "fp32")


def test_names_of_labels_come_from_a_configuration_beside_the_adapter(copy: Path) -> None:
    shutil.copy(copy / "bert" / "config.json", copy / "labels")
    names = dict(enumerate("abcde"))
    configure(copy / "labels", "config.json", id2label=names, label2id={name: n for n, name in names.items()})
    assert load(str(copy / "labels"), "fp32", classifiers=True).network.config.label2id["e"] == 4


@pytest.mark.parametrize("base", ["../base", "base"])
def test_the_base_model_is_found_beside_the_adapter(base: str, copy: Path) -> None:
    if base == "base":
        shutil.copytree(copy / "base", copy / "adapter" / "base")
    configure(copy / "adapter", base_model_name_or_path=base)
    assert load(str(copy / "adapter"), "fp32").card.adapter == str(copy / "adapter")


def test_the_tokenizer_of_the_adapter_comes_first(copy: Path) -> None:
    assert describe(str(copy / "adapter")).tokenizer.eos_token == "</s>"
    language_models.tokenizer(("bos",)).save_pretrained(copy / "adapter")
    assert describe(str(copy / "adapter")).tokenizer.eos_token is None


def test_the_digest_is_of_adapter_and_base(copy: Path, tmp_path: Path) -> None:
    before = describe(str(copy / "adapter")).digest
    assert before != describe(str(copy / "base")).digest
    moved = tmp_path / "a" / "moved"
    shutil.copytree(copy / "adapter", moved)
    assert describe(str(moved)).digest == before
    for part in (moved / "adapter_model.safetensors", copy / "base" / "model.safetensors"):
        last = describe(str(moved)).digest
        part.write_bytes(part.read_bytes()[:-1] + b"\1")
        assert describe(str(moved)).digest != last


def test_a_base_model_that_is_not_there(copy: Path) -> None:
    configure(copy / "adapter", base_model_name_or_path=str(copy / "gone"))
    with pytest.raises(UserError, match=r"its base model .*gone is not there; name its place in adapter_config\.json"):
        describe(str(copy / "adapter"))
    configure(copy / "adapter", base_model_name_or_path=None)
    with pytest.raises(UserError, match=r"names no base model in adapter_config\.json"):
        describe(str(copy / "adapter"))


def test_without_peft(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(UserError, match=r"is an adapter, which needs the package peft; pip install 'dvsel\[models\]'"):
        describe(str(copy / "adapter"))
    assert not describe(str(copy / "base")).adapter


def test_damaged_adapters(copy: Path) -> None:
    name, weights = str(copy / "adapter"), copy / "adapter" / "adapter_model.safetensors"
    _without(copy / "adapter", "layers.1", weights.name)
    with pytest.raises(UserError, match=r"holds no weights for model\.layers\.1\..* \(14 missing\); give an adapter"):
        load(name)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=f"^model {name}: .*; give an adapter that PEFT saved"):
        load(name)
    weights.unlink()
    with pytest.raises(UserError, match=f"^model {name}: .*; give an adapter that PEFT saved"):
        load(name)
    (copy / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"no usable adapter_config\.json"):
        load(name)


def test_a_classifier_that_neither_base_nor_adapter_holds(copy: Path) -> None:
    _without(copy / "bert", "pooler")
    with pytest.raises(UserError, match=r"holds no weights for bert\.pooler\.dense\.bias \(2 missing\)"):
        load(str(copy / "labels"), classifiers=True)


def test_an_adapter_of_another_model(copy: Path) -> None:
    language_models.build(copy / "wide", hidden=64)
    configure(copy / "adapter", base_model_name_or_path=str(copy / "wide"))
    with pytest.raises(UserError, match="give an adapter that fits its base model"):
        load(str(copy / "adapter"))


def test_an_adapter_of_prompts_is_refused(copy: Path) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(copy / "base")
    prompts = peft.get_peft_model(base, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    prompts.save_pretrained(copy / "prompts")
    with pytest.raises(UserError, match="an adapter of prompts and not of weights; give one of weights, as LoRA"):
        load(str(copy / "prompts"))
