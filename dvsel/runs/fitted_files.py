"""Fitted scorers on disk: a safetensors file with the arrays, and the scorer's name and options in its header.

Small, self-describing, free of code (no pickle), and the same bytes for the same command. A fit's fingerprint goes into
every score file, so that scores of two fits are never mixed. The file also names what was read, which is no part of it.

A file may come from anyone. What `load` gives was checked to the end: the file's form (`dvsel.storage.tensors`), the
options as a recipe's are, the arrays by the class's schema (`dvsel.schema`), what they and the report say together by
its `check`, and that the report can be shown. What does not pass is one UserError.
"""

from __future__ import annotations

import json
import math
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from dvsel import __version__, schema
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, name_of, scorer_class
from dvsel.options import chosen, from_mapping, to_mapping
from dvsel.redact import kept
from dvsel.storage.places import atomic_writer, info, is_remote, open_read
from dvsel.storage.tensors import Arrays, Buffer, Malformed, digest, pack, parsed, unpack

if TYPE_CHECKING:
    from dvsel.interface.scorer import Fitted, Scorer

_KEY = "dvsel"
_HEAD = 1 << 16  # bytes in which a fitted scorer says that it is one
_ROUNDING = 1e-6  # of shares


def to_bytes(fitted: Fitted) -> bytes:
    """The file's content."""
    header = {
        "scorer": name_of(SCORERS, type(fitted.scorer)),
        "options": kept(to_mapping(fitted.scorer)),
        "report": fitted.report,
        "version": __version__,
        "content": digest(fitted.arrays),
        "origin": kept(fitted.origin),
    }
    return pack(fitted.arrays, {_KEY: json.dumps(header, sort_keys=True)})


def save(fitted: Fitted, url: str) -> None:
    """Write a fitted scorer, whole or not at all."""
    with atomic_writer(url) as file:
        file.write(to_bytes(fitted))


def load(url: str) -> tuple[Fitted, str]:
    """A fitted scorer and its fingerprint, 32 hex digits of all that scores come from."""
    content = _content(url)
    return from_bytes(content, url), _fingerprint(content)


def _content(url: str) -> Buffer:
    """The file's bytes; of a local file, pages that all processes share and that a process may write to for itself."""
    with open_read(url) as file:
        if is_remote(url) or not info(url)[0]:
            return bytearray(file.read())
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def title_of(fitted: Fitted) -> str:
    """Name of a fitted scorer in score files and reports."""
    return fitted.title or " ".join([name_of(SCORERS, type(fitted.scorer)), *chosen(fitted.scorer)])


def is_fitted(url: str) -> bool:
    """True if a file calls itself a fitted scorer."""
    with open_read(url) as file:
        head = file.read(_HEAD)
    return head[8:9] == b"{" and f'"{_KEY}"'.encode() in head


def load_of(name: str, url: str) -> Fitted:
    """A fitted scorer, which must be of that name, or stand for the scorer of that name."""
    fitted, _ = load(url)
    other = name_of(SCORERS, type(fitted.scorer))
    if name not in (other, fitted.teacher_name):
        raise UserError(f"{url} is a fitted {other}, not {name}; use `dvsel score {other}`")
    return fitted


def _fingerprint(content: Buffer) -> str:
    """Fingerprint of a fit, for score files: a hash of all of its file but the names of what it read."""
    arrays, metadata = unpack(content)
    header = parsed(metadata[_KEY])
    del header["origin"]
    header["arrays"] = {name: [array.dtype.str, *array.shape] for name, array in arrays.items()}
    return xxhash.xxh3_128_hexdigest(json.dumps(header, sort_keys=True).encode())


def from_bytes(content: Buffer, place: str) -> Fitted:
    """Read a fitted scorer's content, over which its arrays lie; `place` names it in errors."""
    try:
        arrays, metadata = unpack(content)
        header = parsed(metadata[_KEY])
        name, options, report = header["scorer"], _restored(header["options"]), header["report"]
        origin = _names(header["origin"])
        if header["content"] != digest(arrays):
            raise UserError(f"{place}: damaged (its arrays are not what was saved); copy it again, or fit again")
        cls = scorer_class(name, f"{place}: ")
        scorer = from_mapping(cls, options, place)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place}: no fitted scorer of dvsel; make one with `dvsel fit NAME -o FILE`") from error
    fitted = _checked(scorer, arrays, report, place)
    fitted.origin = origin
    return fitted


def _names(origin: Any) -> dict[str, list[str]]:
    """The names of what was read, by option. Raises ValueError for what is none."""
    if not isinstance(origin, dict) or not all(isinstance(names, list) for names in origin.values()):
        raise Malformed("its origin is not a list of names")
    if not all(isinstance(name, str) for names in origin.values() for name in names):
        raise Malformed("its origin is not a list of names")
    return origin


def _checked(scorer: Scorer, arrays: Arrays, report: Any, place: str) -> Fitted:
    """The fitted scorer of these parts, which it can use and a person can be shown."""
    try:
        wanted = scorer.fitted.schema(scorer)
        if wanted is not None:
            schema.check(arrays, wanted)
        fitted = scorer.fitted(scorer, arrays)
        if not isinstance(report, dict):
            raise schema.Unfit("its report is none")
        fitted.report = report
        fitted.check()
        _check_shares(fitted)
        _ = title_of(fitted), fitted.selector, fitted.teacher_name, "\n".join(fitted.lines())
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except (ArithmeticError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        line = " ".join(cause.split())
        raise UserError(f"{place}: no fit that can be used ({line}); copy the file again, or fit again") from error
    return fitted


def _check_shares(fitted: Fitted) -> None:
    if len(fitted.shares) != len(fitted.groups) or not all(0 <= share <= 1 + _ROUNDING for share in fitted.shares):
        raise schema.Unfit("its shares are not one for each group")
    if abs(math.fsum(fitted.shares) - 1) > _ROUNDING:
        raise schema.Unfit("its shares do not sum to 1")


def _restored(options: dict[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def default_name(scorer: str) -> str:
    """Name of the file, in a run's output folder, of the scorer that it fitted."""
    return f"{Path(scorer).name}.fitted"
