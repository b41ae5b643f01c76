"""Language models of transformers, causal ones and sequence classifiers: found, loaded and checked.

A model is named by a folder (config.json, weights and tokenizer, as `save_pretrained` leaves them) or by its name on
the Hugging Face hub; so is a PEFT adapter, which names its base model. Code that comes with a model is never run.
`describe` reads what is cheap, `load` the weights too.

What a loaded causal model promises, tried out on a few tokens at load time:

- A token's logits depend on no later token. So rows of a batch may be padded at their right end, with no attention
  mask: nothing real sees the padding.
- Where `Model.has_head`, the head on the hidden states gives the model's own logits, bit for bit, so that logits can
  be had for chosen positions alone. Some models (Gemma 2, Cohere, Granite) do more after the head; they run whole.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from dvsel.errors import UserError

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
_END = 1 << 20  # bytes at each end of a file that its digest reads
_PROBE = 8  # tokens


@dataclass(frozen=True)
class Card:
    """A model without its weights.

    name: as the user gave it. source: the folder or hub name of the weights without an adapter; adapter: that of the
    adapter, or "". classifier: whether it gives a sequence one of some labels; else it is causal. config, tokenizer:
    transformers' objects. limit: positions that the model takes, None where it states no limit. start: the token that a
    document's first token is predicted from: the tokenizer's bos,
    else its eos (as GPT-2 and Qwen 2 have it), else None. digest: 16 bytes that change with the model's files; of
    a large file its size and both ends are read. From the hub: of its commit.
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

    def windows(self, window: int, stride: int) -> tuple[int, int]:
        """Window and stride to use, in tokens, where 0 stands for the default: all the model takes, but at most
        `LONGEST`, since the cost of attention grows with its square; and half a window. UserError for what cannot be.
        """
        if self.limit is not None and window > self.limit:
            raise UserError(f"window {window}: model {self.name} takes {self.limit} tokens; give {self.limit} or fewer")
        window = window or min(self.limit or _UNSTATED, LONGEST)
        if stride > window:
            raise UserError(f"stride {stride}: beyond the window of {window} tokens; give {window} or fewer")
        return window, stride or max(window // 2, 1)


@dataclass(frozen=True)
class Model:
    """A language model, ready to score.

    network: transformers' model, in evaluation mode, its floating parameters in one precision. device: of torch.
    has_head: whether logits can be had from hidden states. tokens: rows of the embedding. autocast: whether it
    computes in bfloat16, with weights in float32.
    """

    card: Card
    network: Any
    device: str
    has_head: bool
    tokens: int
    autocast: bool = False

    def states(self, ids: Any, **more: Any) -> Any:
        """What `logits` makes logits of, for token ids (rows, length): tensor (rows, length, width).

        more: of the network's arguments, such as position_ids.
        """
        if not self.has_head:
            return self.whole_logits(ids, **more)
        with self._precision():
            return self.network.base_model(input_ids=ids, use_cache=False, **more).last_hidden_state

    def whole_logits(self, ids: Any, **more: Any) -> Any:
        """Logits of all positions (rows, length, vocabulary); of a classifier (rows, labels)."""
        if not self.card.classifier:
            more["use_cache"] = False
        with self._precision():
            return self.network(input_ids=ids, **more).logits

    def head(self, states: Any) -> Any:
        """Logits of chosen states (n, width): tensor (n, vocabulary) in the network's precision."""
        if not self.has_head:
            return states
        with self._precision():
            return self.network.get_output_embeddings()(states)

    def logits(self, states: Any) -> Any:
        """What `head` gives, in float32."""
        return self.head(states).float()

    def _precision(self) -> Any:
        import torch

        return torch.autocast(self.device, torch.bfloat16, enabled=self.autocast, cache_enabled=False)


def describe(name: str, classifiers: bool = False) -> Card:
    """Find a model and its tokenizer. Raises UserError where there is none that can be used.

    classifiers: whether a sequence classifier can be.
    """
    transformers = _libraries()
    source, adapter = _places(name)
    with _quiet(transformers):
        with _explained(name, "give a folder or hub name of a causal language model"):
            config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        classifier = _is_classifier(name, config, classifiers)
        with _explained(name, "save its tokenizer beside it", "no usable tokenizer: "):
            place = adapter if (Path(adapter) / "tokenizer_config.json").is_file() else source
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            tokenizer.model_max_length = 1 << 60  # long documents are cut by us: no warning
            if not tokenizer("a", add_special_tokens=False)["input_ids"]:
                raise ValueError("it finds no token in a text")
    start = next((token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None), None)
    digest = _digest([source, adapter] if adapter else [source], config)
    return Card(name, source, adapter, classifier, config, tokenizer, _limit(config), start, digest)


def load(name: str, precision: str = "auto", *, classifiers: bool = False, spread: bool = False) -> Model:
    """Load a model onto the GPU if there is one, and check it.

    precision: of `dvsel.language.PRECISIONS`; auto is bf16 on a GPU and fp32 on a CPU. classifiers: whether a sequence
    classifier can be. spread: over all GPUs, layer by layer, by accelerate. Raises UserError for a model that cannot be
    loaded, lacks weights, or looks ahead.
    """
    card = describe(name, classifiers)
    import torch
    import transformers

    _limit_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" or (precision == "auto" and device == "cuda") else torch.float32
    with _quiet(transformers):
        network = _network(card, dtype if spread else None)
        _cast(network, dtype)
        with _explained(name, "give a smaller model, or --precision bf16"):
            if not spread:
                network.to(device)
        return _checked(card, network, device, precision == "autocast")


def _libraries() -> Any:
    """transformers, where both packages are there; torch, which takes seconds to import, is imported for weights."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"language models need the package {name}; pip install 'dvsel[models]'")
    return importlib.import_module("transformers")


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without progress bars and advice."""
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


@contextlib.contextmanager
def _explained(name: str, remedy: str, what: str = "") -> Iterator[None]:
    """Turns whatever goes wrong in transformers, and in what it calls, into one line."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        cause = lines[0].split(". ")[0].strip(" .:!")
        raise UserError(f"model {name}: {what}{cause}; {remedy}") from error


def _places(name: str) -> tuple[str, str]:
    """Where the model lies, and where its adapter does, or ""; folders as transformers shall see them, or hub names."""
    place = _source(name)
    with _explained(name, "give a folder or hub name of a causal language model"):
        found = importlib.import_module("transformers.utils.peft_utils").find_adapter_config_file(place)
    if found is None or (Path(place) / "config.json").is_file():
        return place, ""
    for package in ("peft", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"model {name}: is an adapter, which needs the package {package}; pip install 'dvsel[models]'"
            )
    base = json.loads(Path(found).read_text()).get("base_model_name_or_path")
    if not base:
        raise UserError(f"model {name}: an adapter that names no base model in adapter_config.json; name it there")
    beside = Path(place) / base
    return str(beside) if beside.is_dir() else _source(base), place


def _source(name: str) -> str:
    """The folder as transformers shall see it, or the hub name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise UserError(f"model {name}: the folder holds no config.json; give one that save_pretrained made")
        return str(folder)
    if folder.exists() or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"model {name}: no such folder; give a model's folder, or its name on the hub")
    return name


def _is_classifier(name: str, config: Any, classifiers: bool) -> bool:
    """Whether it is one, which it may be if `classifiers`; UserError where it is nothing that can be used."""
    (architecture,) = (getattr(config, "architectures", None) or [""])[:1]
    if architecture.endswith("ForSequenceClassification"):
        if not classifiers:
            raise UserError(f"model {name}: is a sequence classifier; give a model that predicts text")
        return True
    kinds = importlib.import_module("transformers.models.auto.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if config.model_type not in kinds or architecture.endswith("ForMaskedLM"):
        raise UserError(f"model {name}: {config.model_type} is no causal language model; give one that predicts text")
    return False


def _limit(config: Any) -> int | None:
    """The positions that a model takes, under whichever name its configuration states them."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    stated = (getattr(text, limit, None) for limit in _LIMITS)
    return next((limit for limit in stated if isinstance(limit, int) and limit > 0), None)


def _digest(sources: Sequence[str], config: Any) -> bytes:
    digest = xxhash.xxh3_128()
    for source in sources:
        if not Path(source).is_dir():
            digest.update(f"{source} {getattr(config, '_commit_hash', None)}".encode())
    parts = (path for source in sources for part in _PARTS for path in Path(source).glob(part) if path.is_file())
    for path in sorted(set(parts)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END))
            file.seek(max(size - _END, 0))
            digest.update(file.read(_END))
    return digest.digest()


def _limit_threads() -> None:
    """One thread in a process of several, where torch would take every core for each."""
    import torch

    if multiprocessing.parent_process() is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _network(card: Card, spread_in: Any) -> Any:
    """The network with its adapter; spread_in: the precision to spread it over all GPUs in, or None."""
    import transformers

    kind = "SequenceClassification" if card.classifier else "CausalLM"
    spread = {} if spread_in is None else {"device_map": "auto", "dtype": spread_in}
    with _explained(card.name, "give a folder or hub name of a causal language model"):
        network, found = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
            card.source, config=card.config, trust_remote_code=False, output_loading_info=True, **spread
        )
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"model {card.name}: holds no weights for {missing[0]} ({len(missing)} missing); "
            f"give a model that was saved as a {'sequence classifier' if card.classifier else 'causal language model'}"
        )
    if card.adapter:
        with _explained(card.name, "give an adapter that fits its base model"):
            network = importlib.import_module("peft").PeftModel.from_pretrained(network, card.adapter).get_base_model()
    return network.eval()


def _cast(network: Any, dtype: Any) -> None:
    """Parameters alone: what models keep as buffers, such as rotary frequencies, is meant to stay exact."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _checked(card: Card, network: Any, device: str, autocast: bool) -> Model:
    """The model, after it was tried out on a few tokens."""
    import torch

    tokens = network.get_input_embeddings().weight.shape[0]
    if card.classifier:
        return Model(card, network, device, False, tokens, autocast)
    length = min(_PROBE, card.limit or _PROBE)
    ids = (torch.arange(length, device=device) % tokens)[None]
    with torch.inference_mode(), _explained(card.name, "give another model"):
        whole = network(input_ids=ids, use_cache=False).logits.float()
        part = network(input_ids=ids[:, : length // 2], use_cache=False).logits.float()
        ahead = (whole[:, : length // 2] - part).norm() > 0.05 * part.norm()  # rounding is far below
    if ahead:
        raise UserError(f"model {card.name}: looks ahead, so its losses mean nothing; give a causal one")
    return Model(card, network, device, _has_head(network, ids, whole), tokens, autocast)


def _has_head(network: Any, ids: Any, logits: Any) -> bool:
    """Whether the head on the base model's last states gives `logits`, to the bit."""
    import torch

    head = network.get_output_embeddings()
    if head is None or network.base_model is network:
        return False
    with torch.inference_mode():
        states = network.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states.shape[-1] == head.weight.shape[-1] and bool(torch.equal(head(states).float(), logits))
