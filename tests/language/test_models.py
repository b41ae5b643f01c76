"""Models are found, loaded and checked; whatever cannot be used is one line."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import language_models
from dvsel.errors import UserError
from language_models import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from dvsel.language.cards import describe  # noqa: E402
from dvsel.language.models import load  # noqa: E402  (needs both)

CPU = not torch.cuda.is_available()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(language_models.build(tmp_path_factory.mktemp("llama")))


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A copy of the model's folder, to be damaged."""
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def configure(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


# --- Models that can be used. ---


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_model(family: str, tmp_path: Path) -> None:
    model = load(language_models.build(tmp_path, family), "fp32")
    ids = torch.randint(0, 500, (3, 20), generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.inference_mode():
        found = model.logits(model.states(ids))
        expected = model.network(input_ids=ids).logits
    assert torch.equal(found, expected)
    assert model.has_head == (family != "gemma2")  # which squashes its logits after the head
    assert (model.card.limit, model.tokens) == (64, 603)
    assert not model.network.training


@pytest.mark.parametrize("name", ["logit_scale", "logits_scaling"])
def test_a_model_that_scales_its_logits_runs_whole(name: str, tmp_path: Path) -> None:
    family = {"logit_scale": "cohere", "logits_scaling": "granite"}[name]
    scales: dict[str, Any] = {name: 0.5}
    assert not load(language_models.build(tmp_path, family, **scales)).has_head


@pytest.mark.parametrize(("special", "start"), [(("bos", "eos"), "<s>"), (("eos",), "</s>"), ((), None)])
def test_the_start_token_is_bos_else_eos_else_none(special: tuple[str, ...], start: str | None, tmp_path: Path) -> None:
    card = describe(language_models.build(tmp_path, special=special))
    assert card.start == (None if start is None else card.tokenizer.convert_tokens_to_ids(start))


def test_bf16_is_for_parameters_and_leaves_buffers_exact(llama: Path) -> None:
    exact, rounded = load(str(llama), "fp32").network, load(str(llama), "bf16").network
    assert {parameter.dtype for parameter in exact.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16}
    before, after = dict(exact.named_buffers()), dict(rounded.named_buffers())
    assert before and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.skipif(not CPU, reason="on a GPU auto is bf16")
def test_auto_is_fp32_on_a_cpu(llama: Path) -> None:
    model = load(str(llama))
    assert (model.device, model.network.dtype) == ("cpu", torch.float32)


def test_loading_says_nothing_and_leaves_transformers_as_it_was(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = transformers.utils.logging
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    load(str(llama))
    assert capfd.readouterr() == ("", "")
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before


def test_a_process_of_several_takes_one_thread(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    load(str(llama))
    assert taken == []
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    load(str(llama))
    assert taken == [1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    load(str(llama))
    assert taken == [1]


def test_the_digest_is_of_all_that_makes_the_model(llama: Path, copy: Path) -> None:
    digest = describe(str(llama)).digest
    (copy / "README.md").write_text("no part of the model")
    assert describe(str(copy)).digest == digest
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert describe(str(copy)).digest != digest


def test_a_model_that_states_no_limit_has_none(tmp_path: Path) -> None:
    made = language_models.tokenizer()
    config = transformers.BloomConfig(vocab_size=len(made), hidden_size=16, n_layer=1, n_head=2)
    config.save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    assert describe(str(tmp_path)).limit is None


# --- What cannot be used. ---


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def half_the_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def no_head(folder: Path) -> None:
    """A checkpoint of the base model: transformers would make up a random head."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def translator(folder: Path) -> None:
    configure(folder, model_type="t5")


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_kind(folder: Path) -> None:
    configure(folder, model_type="no-such-architecture")


def code_of_its_own(folder: Path) -> None:
    configure(folder, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"})
    (folder / "mine.py").write_text("raise SystemExit('code of the model was run')")


def other_shapes(folder: Path) -> None:
    configure(folder, hidden_size=64)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (no_config, "the folder holds no config.json; "),
        (no_tokenizer, "no usable tokenizer: .*; save its tokenizer beside it"),
        (no_weights, "no file named "),
        (half_the_weights, "; give a folder"),
        (no_head, r"holds no weights for lm_head.weight \(1 missing\); "),
        (translator, "t5 is not a causal language model; "),
        (broken_config, "not a valid JSON file; "),
        (unknown_kind, "no-such-architecture.*; "),
        (code_of_its_own, "execute.*; |custom code.*; "),
        (other_shapes, "; give a folder"),
    ],
)
def test_a_folder_that_holds_no_model_is_one_line(copy: Path, spoil: Callable[[Path], None], complaint: str) -> None:
    spoil(copy)
    with pytest.raises(UserError, match=complaint) as refused:
        load(str(copy))
    assert str(refused.value).startswith(f"model {copy}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["./gone", "/gone", "~/gone", "a/b/gone"])
def test_a_folder_that_is_not_there_is_no_hub_name(name: str) -> None:
    with pytest.raises(UserError, match="no such folder; give a model's folder, or its name on the hub"):
        describe(name)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UserError, match=r"give a .*folder"):
        describe("é" * 1000)


def test_a_file_is_no_model(copy: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        describe(str(copy / "config.json"))


def test_a_hub_that_is_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # at once, without the hub's retries
    with pytest.raises(UserError, match=r"^model nobody/nothing: .*; give a folder or hub name") as refused:
        describe("nobody/nothing")
    assert "\n" not in str(refused.value)


def test_a_model_that_looks_ahead_is_refused(llama: Path, tmp_path: Path) -> None:
    """BERT is listed among the causal models, and is one only where its configuration says so."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=603, initializer_range=0.3, **shape)
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    for file in llama.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(UserError, match="looks ahead"):
        load(str(tmp_path))


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_is_named(package: str, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for use in (describe, load):
        with pytest.raises(UserError, match=rf"need the package {package}; pip install 'dvsel\[models\]'"):
            use(str(llama))
