"""Choose the layers of a model whose gradients are taken: linear ones, also GPT-2's transposed ones, and embeddings.

Taken are weights alone, not biases. Of a causal model the head and the embeddings count only where a pattern matches
them; a layer whose weight another module uses too, only where it is named in full, and as a weight of its own. Of a
classifier what comes after the blocks counts too. Of a model with an adapter, the adapter's layers are what counts.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Conv1D

from dvsel.errors import UserError
from dvsel.language.models import Model

_TRAINED_ALONG = ("modules_to_save",)  # where PEFT keeps whole layers that it trains
_PARTS: Mapping[str, Callable[[Sequence[Any]], Sequence[Any]]] = {
    "all": lambda blocks: blocks,
    "upper-half": lambda blocks: blocks[len(blocks) // 2 :],
    "last": lambda blocks: blocks[-1:],
}


@dataclass(frozen=True)
class Layer:
    """A layer y = scale W x with W of (outputs, inputs), however the module stores it.

    name: its path in the model. embeds: it takes token numbers, x is 1 at the token and 0 elsewhere. pools: it may see
    one vector for a sequence. scale: 1 but in embeddings such as Gemma's.
    """

    name: str
    module: Any
    inputs: int
    outputs: int
    embeds: bool = False
    pools: bool = False
    scale: float = 1.0

    @property
    def transposed(self) -> bool:
        """True where the module stores W as (inputs, outputs)."""
        return _is_transposed(self.module)


def choose(model: Model, wanted: str) -> list[Layer]:
    """The layers that are `wanted`, in the model's order.

    wanted: all, upper-half or last, of the model's blocks, or of its adapter in them; else patterns of names, with
    commas between them, in which * and ? stand for any characters (`*.mlp.*`). Raises UserError for patterns that match
    no layer.
    """
    if wanted in _PARTS:
        found = _in_blocks(model, _PARTS[wanted](blocks_of(model.network)))
    else:
        patterns = [pattern.strip() for pattern in wanted.split(",")]
        found = set().union(*(_matching(model, pattern) for pattern in patterns))
    chosen = [layer for layer in _supported(model) if layer.name in found]
    if not chosen:
        raise UserError(
            f"model {model.card.name}: no linear layer that counts in its blocks; name layers with --layers, "
            "or give another model"
        )
    return chosen


def named(model: Model, names: Iterable[str]) -> list[Layer]:
    """Return the layers of these names. UserError for a name that no layer has."""
    layers, names = {layer.name: layer for layer in _supported(model)}, list(names)
    for name in names:
        if name not in layers:
            raise UserError(f"model {model.card.name}: has no layer {name!r}; fit again")
    return [layers[name] for name in names]


def input_embedding(model: Model) -> Layer:
    """The layer that makes vectors of tokens. Raises UserError for a model whose tokens have none."""
    module = model.network.get_input_embeddings()
    for layer in _supported(model):
        if layer.module is module:
            return layer
    raise UserError(f"model {model.card.name}: its input embedding is not a table of vectors; give another model")


def is_head(model: Model, layer: Layer) -> bool:
    """True where it makes a causal model's logits, or takes part in that."""
    head = model.network.get_output_embeddings()
    return head is not None and any(module is layer.module for module in head.modules())


def trained(model: Model) -> list[tuple[str, Any]]:
    """Names and parameters that training the model changes, in its order; of a model with an adapter, the adapter's."""
    weights = list(model.network.named_parameters())
    if not model.card.adapter:
        return weights
    added = _adapters(model.network)
    mine = {id(one) for module in model.network.modules() if id(module) in added for one in module.parameters()}
    return [(name, weight) for name, weight in weights if id(weight) in mine]


def _supported(model: Model) -> list[Layer]:
    """Yield all layers that can count."""
    return [
        Layer(
            name,
            module,
            *_shape(module),
            embeds=isinstance(module, torch.nn.Embedding),
            pools=model.card.classifier,
            scale=float(getattr(module, "embed_scale", 1.0)),
        )
        for name, module in model.network.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D | torch.nn.Embedding)
    ]


def _shape(module: Any) -> tuple[int, int]:
    first, last = module.weight.shape
    return (first, last) if _is_transposed(module) else (last, first)


def _is_transposed(module: Any) -> bool:
    return isinstance(module, Conv1D | torch.nn.Embedding)


def _in_blocks(model: Model, blocks: Sequence[Any]) -> set[str]:
    """The names of the layers that count in these blocks."""
    modules = {id(module) for block in blocks for module in block.modules()}
    if model.card.classifier:
        modules |= _after_blocks(model.network)
    if model.card.adapter:
        modules &= _adapters(model.network)
    shared = _shared_weights(model.network)
    return {
        layer.name
        for layer in _supported(model)
        if id(layer.module) in modules and id(layer.module.weight) not in shared and not layer.embeds
    }


def _after_blocks(network: Any) -> set[int]:
    """The modules that follow the last block, a classifier's pooler and head."""
    modules, last = list(network.modules()), blocks_of(network)[-1:]
    ends = {id(module) for block in last for module in block.modules()}
    end = max((number for number, module in enumerate(modules) if id(module) in ends), default=-1)
    return {id(module) for module in modules[end + 1 :]}


def _adapters(network: Any) -> set[int]:
    """The modules that an adapter added, and those that it trained along."""
    added = [
        getattr(module, name)
        for module in network.modules()
        for name in (*getattr(module, "adapter_layer_names", ()), *_TRAINED_ALONG)
        if isinstance(getattr(module, name, None), torch.nn.Module)
    ]
    return {id(module) for one in added for module in one.modules()}


def blocks_of(network: Any) -> list[Any]:
    """A network's blocks: the longest list of modules that lies in no other list."""
    lists = [(name, module) for name, module in network.named_modules() if isinstance(module, torch.nn.ModuleList)]
    outer = [list(one) for name, one in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    return max(outer, key=len, default=[])


def _shared_weights(network: Any) -> set[int]:
    """The weights of several modules; PEFT's wrappers show those of what they wrap, and have none of their own."""
    weights = Counter(
        id(weight)
        for module in network.modules()
        for name, weight in module.named_parameters(recurse=False)
        if name == "weight"
    )
    return {weight for weight, modules in weights.items() if modules > 1}


def _matching(model: Model, pattern: str) -> set[str]:
    """The names of layers that a pattern matches; a weight that two modules share only by its full name."""
    layers, shared = _supported(model), _shared_weights(model.network)
    found = {
        layer.name
        for layer in layers
        if layer.name == pattern or (fnmatch.fnmatchcase(layer.name, pattern) and id(layer.module.weight) not in shared)
    }
    if not found:
        modules = [name for name, _ in model.network.named_modules() if name]
        why = "is neither a linear layer nor an embedding" if pattern in modules else "matches no layer"
        remedy = _remedy(pattern, [layer.name for layer in layers])
        raise UserError(f"layers {pattern!r}: {why} in model {model.card.name}; {remedy}")
    return found


def _remedy(pattern: str, names: list[str]) -> str:
    meant = difflib.get_close_matches(pattern, [*_PARTS, *names], n=1)
    return f"did you mean {meant[0]!r}?" if meant else f"give {', '.join(_PARTS)}, or names such as {names[-1]}"
