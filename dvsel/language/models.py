"""Language models of transformers with their weights (causal ones, sequence classifiers, encoders): loaded and checked.

`dvsel.language.cards` finds them. What a loaded causal model promises, tried out on a few tokens at load time:

- A token's logits depend on no later token. So rows of a batch may be padded at their right end, with no attention
  mask: nothing real sees the padding.
- Where `Model.has_head`, the head on the hidden states gives the model's own logits, bit for bit, so that logits can
  be had for chosen positions alone. Some models (Gemma 2, Cohere, Granite) do more after the head; they run whole.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import multiprocessing
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dvsel.engines import worker
from dvsel.errors import UserError, explained
from dvsel.language.cards import CLASSIFIER, WANTED, Card, describe, file_of, need, quiet
from dvsel.progress import WAITS, waiting

_PROBE = 8  # tokens
_IN_ADAPTER = "base_model.model."  # before the names of an adapter's weights
_POOLER = "pooler."  # in the names of weights that make one vector of a sequence, and that hidden states do without


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
        """Return the states that `logits` takes, for token ids (rows, length): tensor (rows, length, width).

        more: of the network's arguments, such as position_ids.
        """
        if not self.has_head:
            return self.whole_logits(ids, **more)
        with self._precision():
            return self.network.base_model(input_ids=ids, use_cache=False, **more).last_hidden_state

    def hidden(self, ids: Any, mask: Any = None, layer: int = -1) -> Any:
        """Return the states after a layer, for token ids (rows, length): tensor (rows, length, width).

        mask: (rows, length), False for padding, which only an encoder needs. layer: 1 for the first; -1 for the last,
        with the norm that follows it. Layers after it are not computed. Of layers that have numbers, see `blocks`.
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
        """Layers of the network, each a module; none where they cannot be told apart."""
        import torch

        lists = (module for module in self.network.modules() if isinstance(module, torch.nn.ModuleList))
        return next((tuple(blocks) for blocks in lists if len(blocks) == self.card.layers), ())

    def whole_logits(self, ids: Any, **more: Any) -> Any:
        """Return the logits of all positions (rows, length, vocabulary); of a classifier (rows, labels)."""
        if not self.card.classifier:
            more["use_cache"] = False
        with self._precision():
            return self.network(input_ids=ids, **more).logits

    def head(self, states: Any) -> Any:
        """Return the logits of chosen states (n, width): tensor (n, vocabulary) in the network's precision."""
        if not self.has_head:
            return states
        with self._precision():
            return self.network.get_output_embeddings()(states)

    def logits(self, states: Any) -> Any:
        """Return what `head` does, in float32."""
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
    """Load the weights of a model that was found."""
    import torch
    import transformers

    from dvsel.linalg.cpu_matmul import quicken

    release()
    _limit_threads()
    device = _device(spread)
    dtype = torch.bfloat16 if precision == "bf16" or (precision == "auto" and device == "cuda") else torch.float32
    with quiet(transformers), explained(f"model {card.name}", "give another model"):
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
    """Return how many GPUs torch sees, without using them; 0 without torch."""
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


def _limit_threads() -> None:
    """Set torch to one thread in a process of several: it would take every core in each."""
    import torch

    if multiprocessing.parent_process() is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _network(card: Card, spread_in: Any) -> Any:
    """Load the network with its adapter; spread_in: the precision to spread it over all GPUs in, or None."""
    import transformers

    if spread_in is not None:
        need(f"model {card.name}: to be spread over all GPUs needs", "accelerate")
    saved = _saved_by_adapter(card) if card.adapter else {}
    kind, said = _kind(card)
    if card.encoder:
        card.config.use_cache = False  # not all of them take it as an argument
    spread = {} if spread_in is None else {"device_map": "auto", "dtype": spread_in}
    with explained(f"model {card.name}", f"give a folder or hub name of {WANTED[card.encoder]}"):
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
    """Return the class of transformers that loads it, and what that class is for."""
    if card.encoder:
        return "AutoModelForTextEncoding" if card.config.is_encoder_decoder else "AutoModel", "an encoder"
    if card.classifier:
        return "AutoModelForSequenceClassification", "a sequence classifier"
    return "AutoModelForCausalLM", "a causal language model"


def _saved_by_adapter(card: Card) -> Mapping[str, Any]:
    """Read the adapter's weights. The height of its last layer is the number of labels, which no file states."""
    import torch
    from safetensors.torch import load_file

    with explained(f"model {card.name}", "give an adapter that PEFT saved"):
        if file := file_of(card.adapter, "adapter_model.safetensors"):
            saved: dict[str, Any] = load_file(file)
        elif file := file_of(card.adapter, "adapter_model.bin"):
            saved = torch.load(file, map_location="cpu", weights_only=True)
        else:
            raise ValueError("it holds no adapter_model.safetensors")
    heights = [len(weight) for name, weight in saved.items() if weight.ndim == 2 and "lora_" not in name]
    (architecture,) = (card.config.architectures or [""])[:1]
    if card.classifier and heights and not architecture.endswith(CLASSIFIER):
        card.config.num_labels = min(heights)
    return saved


def _adapted(card: Card, network: Any, saved: Mapping[str, Any]) -> Any:
    """Return the network with its adapter's layers in it."""
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
    """Cast the parameters alone: buffers, such as rotary frequencies, are meant to stay exact."""
    for parameter in network.parameters():
        parameter.requires_grad_(False)
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _checked(card: Card, network: Any, device: str, autocast: bool) -> Model:
    """Return the model, after it was tried out on a few tokens."""
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
    """Return whether the head on the base model's last states gives `logits`, to the bit."""
    import torch

    head = network.get_output_embeddings()
    if head is None or network.base_model is network:
        return False
    with torch.inference_mode():
        states = network.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states.shape[-1] == head.weight.shape[-1] and bool(torch.equal(head(states).float(), logits))
