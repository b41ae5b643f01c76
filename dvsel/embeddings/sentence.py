"""Models of sentence-transformers, read without that library: modules.json, and the modules that it names.

A model is a Transformer, one Pooling, and then any of Dense and Normalize. Anything else (other modules, other inputs
than text, code of the model's own) is refused, never ignored. Vectors are the library's to about 2e-7.

The library would replace this module, but not the embedder, which other encoders and causal models need as well. It
embeds at less than half the speed, takes 1.8 s of CPU time and 140 MB more in each process, and its releases differ in
what they run: 5.0 imports code from a model's folder unasked. `benchmarks/embed.py` has the figures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import load as load_safetensors

from dvsel.errors import UserError, explained
from dvsel.language.cards import file_of, find

Step = Callable[[torch.Tensor], torch.Tensor]

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")

_OLD_MODES = {  # in the order in which several are joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_SETTINGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_REMEDY = "give another model, or a folder of its transformer alone"


@dataclass(frozen=True)
class Modules:
    """The modules of a model around its transformer.

    source: the transformer's folder, or hub name. prompt: put before every text. max_tokens: read of a text; None
    where it is not stated here. lower_case: whether texts are lower-cased first. pooling: of `MODES`; the vectors of
    several are joined. steps: applied in order to the pooled vectors, float32 (n, width). digest: 16 bytes that change
    with the modules' files.
    """

    source: str
    prompt: str
    max_tokens: int | None
    lower_case: bool
    pooling: tuple[str, ...]
    steps: tuple[Step, ...]
    digest: bytes


def read(name: str) -> Modules | None:
    """Read the modules of a model in a folder, or on the hub; None where it has no modules.json.

    Raises UserError for a model that is not made of the modules above.
    """
    place = _Place(name)
    listed = place.json("modules.json")
    if listed is None:
        return None
    with explained(f"model {name}: its modules are not as sentence-transformers saves them", _REMEDY):
        return _modules(place, [(str(one["type"]), str(one["path"])) for one in listed])


def _modules(place: _Place, modules: Sequence[tuple[str, str]]) -> Modules:
    kinds = [_kind(place.name, module) for module, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Normalize"}:
        raise UserError(
            f"model {place.name}: its modules are {', '.join(kinds) or 'none'}, and what is known is Transformer, "
            f"Pooling, and any of Dense and Normalize; {_REMEDY}"
        )
    paths = [path for _, path in modules]
    if outside := [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]:
        raise UserError(f"model {place.name}: its module {outside[0]} lies outside the model's folder; {_REMEDY}")
    general = place.json("config_sentence_transformers.json") or {}
    settings = _settings(place, paths[0])
    prompt = (general.get("prompts") or {}).get(general.get("default_prompt_name")) or ""
    pooling = _pooling(place, paths[1], prompt)
    steps = [_step(place, kind, path) for kind, path in zip(kinds[2:], paths[2:], strict=True)]
    longest, width = settings.get("max_seq_length"), general.get("truncate_dim")
    for number in (longest, width):
        if number is not None and not (isinstance(number, int) and number > 0):
            raise ValueError(f"{number!r} is not a length")
    if width:
        steps.append(lambda vectors: vectors[:, :width])
    return Modules(
        place.folder(paths[0]),
        str(prompt),
        longest,
        bool(settings.get("do_lower_case")),
        pooling,
        tuple(steps),
        place.digest(),
    )


class _Place:
    """A folder or a hub name; remembers what was read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._local = find(name)
        self._digest = xxhash.xxh3_128()

    def folder(self, path: str) -> str:
        """Return a folder in it, as transformers is given it."""
        if self._local is not None:
            return str(self._local / path)
        if path:
            raise UserError(f"model {self.name}: its transformer lies in {path}; download it, and give the folder")
        return self.name

    def content(self, file: str) -> bytes | None:
        """Return a file's content; None for a file that is not there."""
        with explained(f"model {self.name}", "give a folder or hub name"):
            found = file_of(self.name, file)
            content = found.read_bytes() if found else None
        if content is not None:
            self._digest.update(f"{file} {len(content)} ".encode() + content)
        return content

    def json(self, file: str) -> Any:
        """Return the value of a JSON file; None for a file that is not there."""
        content = self.content(file)
        with explained(f"model {self.name}: no usable {file}", "save the model again"):
            return None if content is None else json.loads(content)

    def digest(self) -> bytes:
        """Return a hash of all files that were read, 16 bytes."""
        return self._digest.digest()


def _kind(name: str, module: str) -> str:
    """Return the class name of a module of sentence-transformers; its package there moved between releases."""
    package, _, kind = module.rpartition(".")
    if not f"{package}.".startswith("sentence_transformers."):
        raise UserError(f"model {name}: the module {module} is code of its own, which is never run; {_REMEDY}")
    return kind


def _settings(place: _Place, path: str) -> Mapping[str, Any]:
    """Return the settings of the transformer in this folder."""
    files = (f"sentence_{kind}_config.json" for kind in _SETTINGS)
    found = (place.json(str(Path(path, file))) for file in files)
    settings: Mapping[str, Any] = next(filter(None, found), {})
    inputs = settings.get("modality_config") or {"text": _TEXT}
    task = settings.get("transformer_task", "feature-extraction")
    if inputs.get("text") != _TEXT or "message" in inputs or task != "feature-extraction":
        raise UserError(f"model {place.name}: its transformer does not make states of a plain text; {_REMEDY}")
    return settings


def _pooling(place: _Place, path: str, prompt: str) -> tuple[str, ...]:
    settings = place.json(f"{path}/config.json") or {}
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for old, mode in _OLD_MODES.items() if settings.get(old)] or ["mean"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise UserError(f"model {place.name}: pooling {unknown[0]!r} is not known; name one with --pooling")
    if prompt and not settings.get("include_prompt", True):
        raise UserError(f"model {place.name}: its pooling leaves out its prompt, which is not known; {_REMEDY}")
    return modes


def _step(place: _Place, kind: str, path: str) -> Step:
    settings = place.json(f"{path}/config.json") or {}
    names = {settings.get("module_input_name"), settings.get("module_output_name")}
    if not names <= {None, "sentence_embedding"} or settings.get("use_residual"):
        raise UserError(f"model {place.name}: the {kind} in {path} does more than is known; {_REMEDY}")
    return _normalised if kind == "Normalize" else _dense(place, path, settings)


def _normalised(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _dense(place: _Place, path: str, settings: Mapping[str, Any]) -> Step:
    activation = _activation(place.name, settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    weights = _weights(place, path)
    weight, bias = weights.get("linear.weight"), weights.get("linear.bias")
    if weight is None or weight.ndim != 2 or not (bias is None or bias.shape == weight.shape[:1]):
        raise UserError(f"model {place.name}: no weights of the Dense in {path}; save the model again")

    def step(vectors: torch.Tensor) -> torch.Tensor:
        if vectors.shape[1] != weight.shape[1]:
            raise UserError(
                f"model {place.name}: its Dense takes vectors of {weight.shape[1]} numbers, and pooling gives "
                f"{vectors.shape[1]}; leave --pooling at auto"
            )
        shift = None if bias is None else bias.to(vectors)
        made: torch.Tensor = activation(torch.nn.functional.linear(vectors, weight.to(vectors), shift))
        return made

    return step


def _activation(name: str, path: str) -> torch.nn.Module:
    """Make an activation of torch.nn; any other name could be one of code to run."""
    kind = getattr(torch.nn, path.rpartition(".")[2], None) if path.startswith("torch.nn.") else None
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        raise UserError(f"model {name}: the activation {path} is not one of torch.nn; {_REMEDY}")
    with explained(f"model {name}: the activation {path} cannot be made", _REMEDY):
        return kind()


def _weights(place: _Place, path: str) -> Mapping[str, torch.Tensor]:
    with explained(f"model {place.name}: no usable weights in {path}", "save the model again"):
        content = place.content(f"{path}/model.safetensors")
        if content is not None:
            return load_safetensors(content)
        content = place.content(f"{path}/pytorch_model.bin")
        return {} if content is None else torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
