"""Models from others: no code of theirs runs, however they are loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import language_models
from dvsel.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from dvsel.embeddings import EmbedderOptions  # noqa: E402  (needs them)
from dvsel.embeddings.encoder import Embedder  # noqa: E402
from dvsel.language.models import load  # noqa: E402

OWN = {name: f"mine.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, and an adapter of it."""
    folder = tmp_path_factory.mktemp("built")
    language_models.adapt(folder / "adapter", language_models.build(folder / "base"))
    return folder


@pytest.fixture
def models(built: Path, tmp_path: Path) -> Path:
    """Copies of both, to be damaged, in a folder of which `trace` is the trace."""
    for name in ("base", "adapter"):
        shutil.copytree(built / name, tmp_path / name)
        lines = [f"open({str(tmp_path / 'trace')!r}, 'w')", *(f"class {known}: pass" for known in OWN)]
        (tmp_path / name / "mine.py").write_text("\n".join(lines))
    configure(tmp_path / "adapter/adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
    return tmp_path


def configure(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


class Trace:
    """Leaves a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.file = str(folder / "trace")

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.file, "w")


def own_code(models: Path) -> None:
    configure(models / "base/config.json", model_type="mine", auto_map=OWN)


def hub_kernel(models: Path) -> None:
    configure(models / "base/config.json", attn_implementation="somebody/kernel")


def hub_kernel_of_a_part(models: Path) -> None:
    configure(models / "base/config.json", text_config={"attn_implementation": "somebody/kernel"})


def own_tokenizer(models: Path) -> None:
    own = {"AutoTokenizer": ["mine.AutoModel", None]}
    configure(models / "base/tokenizer_config.json", tokenizer_class="Mine", auto_map=own)


def pickled(models: Path) -> None:
    for name, file in (("base", "pytorch_model.bin"), ("adapter", "adapter_model.bin")):
        next((models / name).glob("*.safetensors")).unlink()
        torch.save({"weight": Trace(models)}, models / name / file)


def module_of_megatron(models: Path) -> None:
    configure(models / "adapter/adapter_config.json", megatron_config={"x": 1}, megatron_core="mine")


def embed(folder: Path) -> None:
    Embedder(EmbedderOptions(model=str(folder)))


def load_model(folder: Path) -> None:
    load(str(folder))


@pytest.mark.parametrize("loader", [load_model, embed])
@pytest.mark.parametrize("name", ["base", "adapter"])
@pytest.mark.parametrize("spoil", [own_code, own_tokenizer, hub_kernel, hub_kernel_of_a_part, pickled])
def test_no_code_of_a_model_runs(
    spoil: Callable[[Path], None],
    name: str,
    loader: Callable[[Path], None],
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to whoever asks
    spoil(models)
    with pytest.raises(UserError) as refused:
        loader(models / name)
    assert not (models / "trace").exists()
    assert "\n" not in str(refused.value) and "; " in str(refused.value)


def test_no_module_that_an_adapter_names_is_imported(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(models / "adapter")
    module_of_megatron(models)
    with pytest.raises(UserError, match=r"no usable adapter_config\.json: it is for Megatron; "):
        load(str(models / "adapter"))
    assert not (models / "trace").exists()


@pytest.mark.parametrize("path", ["../elsewhere", "/elsewhere"])
def test_a_sentence_encoder_stays_in_its_folder(path: str, sentence_encoder: str, tmp_path: Path) -> None:
    folder = shutil.copytree(sentence_encoder, tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=f"its module {path} lies outside the model's folder"):
        embed(folder)


DAMAGE = [
    ("modules.json", "[3]"),
    ("modules.json", "3"),
    ("config_sentence_transformers.json", "[1]"),
    ("config_sentence_transformers.json", '{"truncate_dim": "a"}'),
    ("sentence_bert_config.json", '{"max_seq_length": "a"}'),
    ("1_Pooling/config.json", '{"pooling_mode": 3}'),
    ("config.json", "null"),
    ("model.safetensors", "x" * 100),
]


@pytest.mark.parametrize(("file", "content"), DAMAGE)
def test_a_damaged_sentence_encoder_is_one_line(file: str, content: str, sentence_encoder: str, tmp_path: Path) -> None:
    folder = shutil.copytree(sentence_encoder, tmp_path / "model")
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=r"^model .*; ") as refused:
        embed(folder)
    assert "\n" not in str(refused.value)
