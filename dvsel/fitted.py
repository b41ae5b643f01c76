"""Fitted scorers on disk: a safetensors file with the arrays, and the scorer's name and options in its header.

Small, self-describing, free of code (no pickle), and the same bytes for the same fit. The file's fingerprint goes
into every score file, so that scores of two fits are never mixed.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from dvsel import __version__
from dvsel.errors import UserError
from dvsel.options import chosen, from_mapping, to_mapping
from dvsel.plugins import SCORERS, name_of, scorer_class
from dvsel.shards.files import atomic_writer, info, is_remote, open_read

if TYPE_CHECKING:
    from dvsel.scorers import Fitted

_KEY = "dvsel"
_HEAD = 1 << 16  # bytes in which a fitted scorer says that it is one

_DTYPES = {"U8": "u1", "I32": "<i4", "I64": "<i8", "U32": "<u4", "U64": "<u8", "F32": "<f4", "F64": "<f8"}

Buffer = bytes | bytearray | mmap.mmap


def to_bytes(fitted: Fitted) -> bytes:
    """The file's content."""
    from safetensors.numpy import save

    # safetensors writes an array's memory as it lies, whatever its strides say.
    arrays = {name: np.ascontiguousarray(array) for name, array in fitted.arrays.items()}
    header = {
        "scorer": name_of(SCORERS, type(fitted.scorer)),
        "options": to_mapping(fitted.scorer),
        "report": fitted.report,
        "version": __version__,
        "content": _digest(arrays),
    }
    return bytes(save(arrays, {_KEY: json.dumps(header, sort_keys=True)}))


def save(fitted: Fitted, url: str) -> None:
    """Write a fitted scorer, whole or not at all."""
    with atomic_writer(url) as file:
        file.write(to_bytes(fitted))


def load(url: str) -> tuple[Fitted, str]:
    """A fitted scorer and its fingerprint, 32 hex digits of the file's content."""
    content = _content(url)
    return from_bytes(content, url), fingerprint(content)


def _content(url: str) -> Buffer:
    """The file's bytes; of a local file, pages that all processes share and that a process may write to for itself."""
    with open_read(url) as file:
        if is_remote(url) or not info(url)[0]:
            return bytearray(file.read())
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def title_of(fitted: Fitted) -> str:
    """What score files and reports call a fitted scorer."""
    return fitted.title or " ".join([name_of(SCORERS, type(fitted.scorer)), *chosen(fitted.scorer)])


def is_fitted(url: str) -> bool:
    """Whether a file calls itself a fitted scorer."""
    with open_read(url) as file:
        head = file.read(_HEAD)
    return head[8:9] == b"{" and f'"{_KEY}"'.encode() in head


def load_of(name: str, url: str) -> Fitted:
    """A fitted scorer, which must be of that name, or stand for the scorer of that name."""
    fitted, _ = load(url)
    other = name_of(SCORERS, type(fitted.scorer))
    if name not in (other, fitted.stands_for):
        raise UserError(f"{url} is a fitted {other}, not {name}; use `dvsel score {other}`")
    return fitted


def fingerprint(content: Buffer) -> str:
    """What names a fit in score files."""
    return xxhash.xxh3_128_hexdigest(content)


def from_bytes(content: Buffer, place: str) -> Fitted:
    """Read a fitted scorer's content, over which its arrays lie; `place` names it in errors."""
    try:
        size = int.from_bytes(content[:8], "little")
        tensors = json.loads(bytes(content[8 : 8 + size]))
        header = json.loads(tensors.pop("__metadata__")[_KEY])
        name, options, arrays = header["scorer"], _restored(header["options"]), _arrays(content, 8 + size, tensors)
        if header["content"] != _digest(arrays):
            raise UserError(f"{place}: damaged (its arrays are not what was saved); copy it again, or fit again")
        cls = scorer_class(name, f"{place}: ")
        fitted = cls.fitted(from_mapping(cls, options, place), arrays)
        fitted.report = header["report"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place}: no fitted scorer of dvsel; make one with `dvsel fit NAME -o FILE`") from error
    return fitted


def _arrays(content: Buffer, base: int, tensors: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """What safetensors.numpy.load would copy, laid over the content."""
    return {
        name: np.frombuffer(
            content, _DTYPES[tensor["dtype"]], math.prod(tensor["shape"]), base + tensor["data_offsets"][0]
        ).reshape(tensor["shape"])
        for name, tensor in tensors.items()
    }


def _restored(options: dict[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    hashed = xxhash.xxh3_128()
    for name in sorted(arrays):
        hashed.update(name.encode())
        hashed.update(np.ascontiguousarray(arrays[name]).tobytes())
    return hashed.hexdigest()


def default_name(scorer: str) -> str:
    """Where a run keeps the scorer that it fitted, inside its output folder."""
    return f"{Path(scorer).name}.fitted"
