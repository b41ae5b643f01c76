"""Language models of transformers, causal ones, sequence classifiers and encoders: found, loaded and checked.

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
import gc
import importlib
import importlib.util
import json
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from dvsel import worker
from dvsel.errors import UserError, explained
from dvsel.progress import WAITS, waiting
from dvsel.shards import tokenizer as tokenizers

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
_CLASSIFIER = "ForSequenceClassification"
_IN_ADAPTER = "base_model.model."  # before the names of an adapter's weights
_POOLER = "pooler."  # in the names of weights that make one vector of a sequence, and that hidden states do without
_WANTED = {False: "a causal language model", True: "a sentence encoder or causal language model"}  # by `encoders`


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
        """How many hidden layers it states; 0 where it states none."""
        return int(getattr(_text_config(self.config), "num_hidden_layers", 0))

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

    def hidden(self, ids: Any, mask: Any = None, layer: int = -1) -> Any:
        """What a layer's tokens become, for token ids (rows, length): tensor (rows, length, width).

        mask: (rows, length), False for padding, which only an encoder needs. layer: 1 for the first; -1 for the last,
        with the norm that follows it. Layers after it are not computed. A `layer` that is there is in `blocks`.
        """
        network = self.network.base_model
        more = {} if self.card.encoder else {"use_cache": False}
        with self._precision():
            if layer in (-1, self.card.layers):
                return network(input_ids=ids, attention_mask=mask, **more).last_hidden_state
            hook = self.blocks[layer - 1].register_forward_hook(_stop)
            try:
                network(input_ids=ids, attention_mask=mask, **more)
            except _Stopped as stopped:
                return stopped.states
            finally:
                hook.remove()
        raise UserError(f"model {self.card.name}: layer {layer} is not computed; give another layer, or -1")

    @property
    def blocks(self) -> Sequence[Any]:
        """Its layers, each a module; none where they cannot be told apart."""
        import torch

        lists = (module for module in self.network.modules() if isinstance(module, torch.nn.ModuleList))
        return next((tuple(blocks) for blocks in lists if len(blocks) == self.card.layers), ())

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


class _Stopped(Exception):
    """Ends a pass after the layer whose states are wanted."""

    def __init__(self, states: Any) -> None:
        super().__init__()
        self.states = states


def _stop(_module: Any, _inputs: Any, output: Any) -> None:
    raise _Stopped(output[0] if isinstance(output, tuple) else output)


def describe(name: str, classifiers: bool = False, encoders: bool = False) -> Card:
    """Find a model and its tokenizer. Raises UserError where there is none that can be used.

    classifiers: whether a sequence classifier can be. encoders: whether any model that gives hidden states can be.
    """
    transformers = _libraries()
    source, adapter, task = _places(name)
    with _quiet(transformers), explained(f"model {name}", f"give a folder or hub name of {_WANTED[encoders]}"):
        place = adapter if (Path(adapter) / "config.json").is_file() else source
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
        _refuse_code(config)
        encoder = encoders and _is_encoder(name, config, task)
        classifier = not encoder and _is_classifier(name, config, task, classifiers)
        place = adapter if (Path(adapter) / "tokenizer_config.json").is_file() else source
        tokenizer = tokenizers.load(place, f"model {name}: no usable tokenizer", "save its tokenizer beside it")
        longest, tokenizer.model_max_length = tokenizer.model_max_length, tokenizers.ANY_LENGTH
        limit = _limit(config)
    start = next((token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None), None)
    if encoders or (classifier and limit is not None):
        limit = min(limit or longest, longest)  # RoBERTa's configuration counts two positions that no token has
    digest = _digest([source, adapter] if adapter else [source], config)
    return Card(name, source, adapter, classifier, config, tokenizer, limit, start, digest, encoder)


def load(
    name: str, precision: str = "auto", *, classifiers: bool = False, encoders: bool = False, spread: bool = False
) -> Model:
    """Load a model onto the GPU if there is one, and check it.

    precision: of `dvsel.language.PRECISIONS`; auto is bf16 on a GPU and fp32 on a CPU. classifiers: whether a sequence
    classifier can be. encoders: whether any model that gives hidden states can be. spread: over all GPUs, layer by
    layer, by accelerate. Of several processes, each takes a GPU of its own. Raises UserError for a model that cannot be
    loaded, lacks weights, or looks ahead though it is to predict text.
    """
    with waiting(WAITS[0]):
        return _loaded(describe(name, classifiers, encoders), precision, spread)


def _loaded(card: Card, precision: str, spread: bool) -> Model:
    """The model, with its weights."""
    import torch
    import transformers

    from dvsel.language.products import quicken

    release()
    _limit_threads()
    device = _device(spread)
    dtype = torch.bfloat16 if precision == "bf16" or (precision == "auto" and device == "cuda") else torch.float32
    with _quiet(transformers), explained(f"model {card.name}", "give another model"):
        network = _network(card, dtype if spread else None)
        _cast(network, dtype)
        with explained(f"model {card.name}", "give a smaller model, or --precision bf16"):
            if not spread:
                network.to(device)
        if device == "cpu":
            quicken(network)
        return _checked(card, network, device, precision == "autocast")


def release() -> None:
    """Free what this process holds of the GPU's memory and no longer uses, for other models and processes."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def gpus() -> int:
    """How many GPUs torch sees; this does not begin to use them. 0 without torch."""
    if importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return torch.cuda.device_count()


def _device(spread: bool) -> str:
    """The torch device; where it is a GPU, it becomes this process's own, unless the model is to be `spread`."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    torch.cuda.set_device(0 if spread else worker.number % gpus())
    return "cuda"


def _libraries() -> Any:
    """transformers, where both packages are there; torch, which takes seconds to import, is imported for weights."""
    _need("language models need", "torch", "transformers")
    return importlib.import_module("transformers")


def _need(who: str, *packages: str) -> None:
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{who} the package {name}; pip install 'dvsel[models]'")


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


def _places(name: str) -> tuple[str, str, str]:
    """Where the model lies, where its adapter does, and the adapter's task, or "" twice.

    Places are folders as transformers shall see them, or hub names. A base model's is as seen from here or from the
    adapter's folder.
    """
    place = _source(name)
    with explained(f"model {name}", "give a folder or hub name of a causal language model"):
        found = importlib.import_module("transformers.utils.peft_utils").find_adapter_config_file(place)
    if found is None:
        return place, "", ""
    _need(f"model {name}: is an adapter, which needs", "peft")
    with explained(f"model {name}: no usable adapter_config.json", "give an adapter that PEFT saved"):
        settings = json.loads(Path(found).read_text())
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
    """The folder as transformers shall see it, or the hub name."""
    folder = find(name)
    if folder is None:
        return name
    if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
        raise UserError(f"model {name}: the folder holds no config.json; give one that save_pretrained made")
    return str(folder)


def find(name: str) -> Path | None:
    """A model's folder; None for a name on the hub. Raises UserError for what can be neither."""
    folder = Path(os.path.expanduser(name))  # noqa: PTH111  (which fails for the home of nobody)
    if os.path.isdir(folder):  # noqa: PTH112  (which fails for long names)
        return folder
    if os.path.lexists(folder) or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"model {name}: no such folder; give a model's folder, or its name on the hub")
    return None


def _is_classifier(name: str, config: Any, task: str, classifiers: bool) -> bool:
    """Whether it is one, which it may be if `classifiers`; UserError where it is nothing that can be used."""
    (architecture,) = (getattr(config, "architectures", None) or [""])[:1]
    if task == "SEQ_CLS" or architecture.endswith(_CLASSIFIER):
        if not classifiers:
            raise UserError(f"model {name}: is a sequence classifier; give a model that predicts text")
        if config.num_labels < 2 or config.problem_type in ("regression", "multi_label_classification"):
            raise UserError(
                f"model {name}: does not choose one of several labels; give a sequence classifier that does"
            )
        return True
    kinds = importlib.import_module("transformers.models.auto.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if config.model_type not in kinds or architecture.endswith("ForMaskedLM"):
        raise UserError(f"model {name}: {config.model_type} is no causal language model; give one that predicts text")
    return False


def _is_encoder(name: str, config: Any, task: str) -> bool:
    """Whether it is used for its hidden states alone; UserError where it gives none for a text."""
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    (architecture,) = (getattr(config, "architectures", None) or [""])[:1]
    if task == "CAUSAL_LM" or (not task and architecture in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        return False
    known = auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES if config.is_encoder_decoder else auto.MODEL_MAPPING_NAMES
    if config.model_type not in known:
        raise UserError(f"model {name}: {config.model_type} is no encoder of text; give {_WANTED[True]}")
    return True


def _refuse_code(config: Any) -> None:
    """A configuration may have transformers load kernels, which are code, from the hub."""
    for name in ("_attn_implementation", "_experts_implementation"):
        if "/" in str(getattr(config, name, None)):
            raise ValueError(f"its config.json asks for code, {getattr(config, name)}, which is never run")


def _text_config(config: Any) -> Any:
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _limit(config: Any) -> int | None:
    """The positions that a model takes, under whichever name its configuration states them."""
    stated = (getattr(_text_config(config), limit, None) for limit in _LIMITS)
    return next((limit for limit in stated if isinstance(limit, int) and limit > 0), None)


def _digest(sources: Sequence[str], config: Any) -> bytes:
    digest = xxhash.xxh3_128()
    for source in sources:
        if not Path(source).is_dir():
            digest.update(f"{source} {getattr(config, '_commit_hash', None)}".encode())
    parts = [{path for part in _PARTS for path in Path(source).glob(part) if path.is_file()} for source in sources]
    for path in (path for source in parts for path in sorted(source)):
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

    if spread_in is not None:
        _need(f"model {card.name}: to be spread over all GPUs needs", "accelerate")
    saved = _saved_by_adapter(card) if card.adapter else {}
    kind, said = _kind(card)
    if card.encoder:
        card.config.use_cache = False  # not all of them take it as an argument
    spread = {} if spread_in is None else {"device_map": "auto", "dtype": spread_in}
    with explained(f"model {card.name}", f"give a folder or hub name of {_WANTED[card.encoder]}"):
        network, found = getattr(transformers, kind).from_pretrained(
            card.source, config=card.config, trust_remote_code=False, output_loading_info=True, **spread
        )
    missing = sorted(key for key in found["missing_keys"] if _IN_ADAPTER + key not in saved)
    if card.encoder:
        missing = [key for key in missing if _POOLER not in key]
    if missing:
        raise UserError(
            f"model {card.name}: holds no weights for {missing[0]} ({len(missing)} missing); "
            f"give a model that was saved as {said}"
        )
    if any(parameter.is_meta for parameter in network.parameters()):
        raise UserError(f"model {card.name}: all GPUs together cannot hold it; give a smaller model")
    return (_adapted(card, network, saved) if card.adapter else network).eval()


def _kind(card: Card) -> tuple[str, str]:
    """The class of transformers that loads it, and what that class is for."""
    if card.encoder:
        return "AutoModelForTextEncoding" if card.config.is_encoder_decoder else "AutoModel", "an encoder"
    if card.classifier:
        return "AutoModelForSequenceClassification", "a sequence classifier"
    return "AutoModelForCausalLM", "a causal language model"


def _saved_by_adapter(card: Card) -> Mapping[str, Any]:
    """The adapter's weights. The number of labels, which its configuration lacks, is the height of its last layer."""
    with explained(f"model {card.name}", "give an adapter that PEFT saved"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved: dict[str, Any] = importlib.import_module("peft.utils").load_peft_weights(card.adapter, device="cpu")
    heights = [len(weight) for name, weight in saved.items() if weight.ndim == 2 and "lora_" not in name]
    (architecture,) = (card.config.architectures or [""])[:1]
    if card.classifier and heights and not architecture.endswith(_CLASSIFIER):
        card.config.num_labels = min(heights)
    return saved


def _adapted(card: Card, network: Any, saved: Mapping[str, Any]) -> Any:
    """The network with its adapter's layers in it."""
    peft = importlib.import_module("peft")
    with explained(f"model {card.name}", "give an adapter that fits its base model"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(network, card.adapter)
    if adapted.active_peft_config.is_prompt_learning:
        raise UserError(f"model {card.name}: an adapter of prompts and not of weights; give one of weights, as LoRA")
    wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if missing := sorted(set(wanted) - set(saved)):
        raise UserError(
            f"model {card.name}: the adapter holds no weights for {missing[0].removeprefix(_IN_ADAPTER)} "
            f"({len(missing)} missing); give an adapter that fits its base model"
        )
    return adapted.get_base_model()


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
    if card.encoder:
        model = Model(card, network, device, False, tokens, autocast)
        with torch.inference_mode(), explained(f"model {card.name}", "give another model"):
            model.hidden(ids)
        return model
    with torch.inference_mode(), explained(f"model {card.name}", "give another model"):
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
