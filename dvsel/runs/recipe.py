"""Recipes: a whole run as a YAML file, written by every run and replayed by `dvsel run`.

The keys are the options of the command, flat; `scorer` and `selector` hold a name and the options of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import yaml

from dvsel import __version__
from dvsel.errors import UserError
from dvsel.interface.registry import SCORERS, SELECTORS, name_of, scorer_class, selector_class
from dvsel.options import changed, fields_of, from_mapping, to_mapping
from dvsel.redact import kept
from dvsel.storage import yaml_file

Run = TypeVar("Run")

_PARTS: dict[str, tuple[str, Callable[[str], type]]] = {
    "scorer": (SCORERS, scorer_class),
    "selector": (SELECTORS, selector_class),
}


def dump(command: str, run: Any) -> str:
    """The recipe that replays `run`."""
    values: dict[str, Any] = {"dvsel": __version__, "command": command}
    for name, value in _non_default(run).items():
        if name in _PARTS:
            value = {"name": name_of(_PARTS[name][0], type(value)), **_non_default(value)}
        values[name] = value
    return yaml.safe_dump(kept(values), sort_keys=False, allow_unicode=True, width=110)


def _non_default(options: Any) -> dict[str, Any]:
    """The options as plain values, less those that are empty unless something is said."""
    away = changed(options)
    return {name: value for name, value in to_mapping(options).items() if value not in (None, "", []) or name in away}


def command_of(url: str) -> str:
    """The command of the run that wrote this recipe; "" for a file that is none."""
    with contextlib.suppress(UserError):
        return load(url)[0]
    return ""


def load(url: str) -> tuple[str, dict[str, Any]]:
    """The command and the options of a recipe, not yet checked against the command."""
    values = yaml_file.read(url)
    if not isinstance(values, dict) or not isinstance(values.get("command"), str):
        raise UserError(f"{url}: no recipe of dvsel; its first key is `command: fit`, `score` or `select`")
    values.pop("dvsel", None)
    return values.pop("command"), values


def parts_of(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The scorer and the selector that a recipe names, made."""
    made: dict[str, Any] = {}
    for name, (_, find) in _PARTS.items():
        if name in values:
            part = dict(values[name]) if isinstance(values[name], dict) else {"name": values[name]}
            if not isinstance(part.get("name"), str):
                raise UserError(f"{place}: {name} has no name; write `{name}: NAME`, or a mapping with `name: NAME`")
            try:
                made[name] = from_mapping(find(part.pop("name")), part, name)
            except UserError as error:
                raise UserError(f"{place}: {error}") from error
    return made


def make(cls: type[Run], values: Mapping[str, Any], place: str) -> Run:
    """The run that a recipe describes."""
    plain = {name: value for name, value in values.items() if name not in _PARTS}
    if unknown := [name for name in _PARTS if name in values and name not in fields_of(cls)]:
        raise UserError(f"{place}: this command takes no {unknown[0]}")
    return dataclasses.replace(from_mapping(cls, plain, place), **parts_of(values, place))  # type: ignore[type-var]
