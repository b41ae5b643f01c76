"""Language models without their weights: found in a folder or on the hub, and known by their configuration.

A model is named by a folder (config.json, weights and tokenizer, as `save_pretrained` leaves them) or by its name on
the Hugging Face hub; so is a PEFT adapter, which names its base model. Code that comes with a model is never run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from dvsel.documents import tokenizer as tokenizers
from dvsel.errors import UserError, explained

LONGEST = 8192
_UNSTATED = 2048  # the window where the model states no limit
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_PARTS = (
    "config.json",
    "adapter_config.json",
    "*.safetensors",
    "adapter_model.bin",
    "pytorch_model*.bin",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
)
_IMPLEMENTATION = "_implementation"  # ends the names of settings that may name kernels, as attn_implementation
_END = 1 << 20  # bytes at each end of a file that its digest reads
CLASSIFIER = "ForSequenceClassification"
WANTED = {False: "a causal language model", True: "a sentence encoder or causal language model"}  # by `encoders`


@dataclass(frozen=True)
class Card:
    """A model without its weights.

    name: as the user gave it. source: the folder or hub name of the weights without an adapter; adapter: that of the
    adapter, or "". classifier: whether it gives a sequence one of some labels. config, tokenizer: transformers'
    objects. limit: positions that the model takes, None where it states no limit. start: the token that a document's
    first token is predicted from: the tokenizer's bos, else its eos (as GPT-2 and Qwen 2 have it), else None. digest:
    16 bytes that change with the model's files; of a large file its size and both ends are read. From the hub: of its
    commit. encoder: whether it gives hidden states alone; a model that is neither this nor a classifier is causal.
    """

    name: str
    source: str
    adapter: str
    classifier: bool
    config: Any
    tokenizer: Any
    limit: int | None
    start: int | None
    digest: bytes
    encoder: bool = False

    @property
    def layers(self) -> int:
        """The number of hidden layers that it states; 0 where it states none."""
        return int(getattr(_text_config(self.config), "num_hidden_layers", 0))

    def windows(self, window: int, stride: int) -> tuple[int, int]:
        """Return the window and stride to use, in tokens, where 0 stands for the default: all the model takes, but at
        most `LONGEST`, since the cost of attention grows with its square; and half a window. Raises UserError for a
        window that the model cannot have, and for a stride beyond it.
        """
        if self.limit is not None and window > self.limit:
            raise UserError(f"window {window}: model {self.name} takes {self.limit} tokens; give {self.limit} or fewer")
        window = window or min(self.limit or _UNSTATED, LONGEST)
        if stride > window:
            raise UserError(f"stride {stride}: beyond the window of {window} tokens; give {window} or fewer")
        return window, stride or max(window // 2, 1)


def describe(name: str, classifiers: bool = False, encoders: bool = False) -> Card:
    """Find a model and its tokenizer. Raises UserError for a model that cannot be used.

    classifiers: whether a sequence classifier can. encoders: whether any model that gives hidden states can.
    """
    transformers = _libraries()
    source, adapter, task = _places(name)
    with quiet(transformers), explained(f"model {name}", f"give a folder or hub name of {WANTED[encoders]}"):
        place = adapter if (Path(adapter) / "config.json").is_file() else source
        _refuse_code(transformers.PretrainedConfig.get_config_dict(place)[0])
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
        encoder = encoders and _is_encoder(name, config, task)
        classifier = not encoder and _is_classifier(name, config, task, classifiers)
        place = adapter if (Path(adapter) / "tokenizer_config.json").is_file() else source
        tokenizer = tokenizers.load(place, f"model {name}: no usable tokenizer", "save its tokenizer beside it")
        longest, tokenizer.model_max_length = tokenizer.model_max_length, tokenizers.ANY_LENGTH
        limit = _limit(config)
    start = next((token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None), None)
    if encoders or (classifier and limit is not None):
        limit = min(limit or longest, longest)  # RoBERTa's configuration counts two positions that no token has
    digest = _digest([source, adapter] if adapter else [source])
    return Card(name, source, adapter, classifier, config, tokenizer, limit, start, digest, encoder)


def _libraries() -> Any:
    """Import transformers. Raises UserError unless torch is there as well."""
    need("language models need", "torch", "transformers")
    return importlib.import_module("transformers")


def need(who: str, *packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{who} the package {name}; pip install 'dvsel[models]'")


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Silence the progress bars and the advice of transformers."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _places(name: str) -> tuple[str, str, str]:
    """Return the model's place, its adapter's place, and the adapter's task; "" twice without an adapter.

    Places are folders, as transformers is given them, or hub names. A base model's folder may be relative to this
    folder or to the adapter's.
    """
    place = _source(name)
    with explained(f"model {name}", "give a folder or hub name of a causal language model"):
        found = file_of(place, "adapter_config.json")
    if found is None:
        return place, "", ""
    need(f"model {name}: is an adapter, which needs", "peft")
    with explained(f"model {name}: no usable adapter_config.json", "give an adapter that PEFT saved"):
        settings = json.loads(found.read_text())
        base, task = settings.get("base_model_name_or_path"), settings.get("task_type") or ""
        if settings.get("megatron_config"):  # for which PEFT imports the module that `megatron_core` names
            raise ValueError("it is for Megatron")
    if not (base and isinstance(base, str)):
        raise UserError(f"model {name}: an adapter that names no base model in adapter_config.json; name it there")
    beside = Path(place) / base
    try:
        return str(beside) if beside.is_dir() else _source(base), place, task
    except UserError as error:
        raise UserError(
            f"model {name}: its base model {base} is not there; name its place in adapter_config.json"
        ) from error


def _source(name: str) -> str:
    """Return the model's folder, as transformers is given it, or its hub name."""
    folder = find(name)
    if folder is None:
        return name
    if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
        raise UserError(f"model {name}: the folder holds no config.json; give one that save_pretrained made")
    return str(folder)


def find(name: str) -> Path | None:
    """Return a model's folder; None for a name on the hub. Raises UserError for what can be neither."""
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  (which fails for the home of nobody)
    if os.path.isdir(folder):  # noqa: PTH112  (which fails for long names)
        return folder
    if os.path.lexists(folder) or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"model {name}: no such folder; give a model's folder, or its name on the hub")
    return None


def file_of(name: str, file: str) -> Path | None:
    """Return the path of a file of a model, downloaded from the hub where need be; None where the model has no such
    file, or the hub cannot be reached and the file was not downloaded before."""
    if (folder := find(name)) is not None:
        return folder / file if (folder / file).is_file() else None
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(name, file))
    except EntryNotFoundError:
        return None


def _is_classifier(name: str, config: Any, task: str, classifiers: bool) -> bool:
    """Return whether it is a sequence classifier; UserError where it is one and may not be, or is of no use here."""
    (architecture,) = (getattr(config, "architectures", None) or [""])[:1]
    if task == "SEQ_CLS" or architecture.endswith(CLASSIFIER):
        if not classifiers:
            raise UserError(f"model {name}: is a sequence classifier; give a model that predicts text")
        if config.num_labels < 2 or config.problem_type in ("regression", "multi_label_classification"):
            raise UserError(
                f"model {name}: does not choose one of several labels; give a sequence classifier that does"
            )
        return True
    import transformers

    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING or architecture.endswith("ForMaskedLM"):
        kind = config.model_type
        raise UserError(f"model {name}: {kind} is not a causal language model; give one that predicts text")
    return False


def _is_encoder(name: str, config: Any, task: str) -> bool:
    """Return whether it is used for its hidden states alone; UserError where it gives none for a text."""
    import transformers

    (architecture,) = (getattr(config, "architectures", None) or [""])[:1]
    causal = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if task == "CAUSAL_LM" or (not task and architecture == getattr(causal, "__name__", None)):
        return False
    if config.is_encoder_decoder:
        known = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    else:
        known = type(config) in transformers.MODEL_MAPPING
    if not known:
        raise UserError(f"model {name}: {config.model_type} is not an encoder of text; give {WANTED[True]}")
    return True


def _refuse_code(settings: Mapping[str, Any]) -> None:
    """Refuse a configuration that has transformers load kernels, which are code, from the hub."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _refuse_code(value)
        if name.endswith(_IMPLEMENTATION) and "/" in str(value):
            raise ValueError(f"its config.json asks for code, {value}, which is never run")


def _text_config(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _limit(config: Any) -> int | None:
    """Return the number of positions that a model takes, under whichever name its configuration states it."""
    stated = (getattr(_text_config(config), limit, None) for limit in _LIMITS)
    return next((limit for limit in stated if isinstance(limit, int) and limit > 0), None)


def _commit(name: str) -> str | None:
    """Return the commit of a model of the hub, which names the folder that the hub's client downloads it to."""
    file = file_of(name, "config.json") or file_of(name, "adapter_config.json")
    return file.parent.name if file else None


def _digest(sources: Sequence[str]) -> bytes:
    digest = xxhash.xxh3_128()
    for source in sources:
        if not Path(source).is_dir():
            digest.update(f"{source} {_commit(source)}".encode())
    parts = [{path for part in _PARTS for path in Path(source).glob(part) if path.is_file()} for source in sources]
    for path in (path for source in parts for path in sorted(source)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END))
            file.seek(max(size - _END, 0))
            digest.update(file.read(_END))
    return digest.digest()
