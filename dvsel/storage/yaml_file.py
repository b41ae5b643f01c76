"""YAML files of users: small, flat, of plain values. What could take a parser's time, memory or stack is refused.

Aliases (`*name`), of which a few lines can stand for gigabytes, are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from dvsel.errors import UserError
from dvsel.storage.places import open_read

_LARGEST = 16 << 20  # bytes; a recipe may name as many shards as a shell passes
_DEEPEST = 32  # levels; recipes have three


def read(url: str, remedy: str = "fix it there") -> Any:
    """Read the values of a file: mappings, lists, strings, numbers, booleans, dates and None.

    Raises UserError, which ends with `remedy`, for a file that cannot be read, or is not YAML as the module says.
    """
    return _read(url, remedy, yaml.safe_load)


def read_nodes(url: str, remedy: str = "fix it there") -> yaml.Node | None:
    """Read the nodes of a file, for values as they are written and their lines; otherwise as `read`."""
    found: yaml.Node | None = _read(url, remedy, lambda text: yaml.compose(text, Loader=yaml.BaseLoader))
    return found


def _read(url: str, remedy: str, parse: Callable[[str], Any]) -> Any:
    with open_read(url) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise UserError(f"{url}: is larger than {_LARGEST >> 20} MB, as no file of dvsel is; check the name")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{url}: is not UTF-8 text; save it as UTF-8") from error
    try:
        _check(text, url)
        return parse(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2025-02-30
        raise UserError(f"{url}: is not valid YAML ({' '.join(str(error).split())}); {remedy}") from error


def _check(text: str, url: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{_place(url, event)}: an alias (`*name`); write out what it stands for")
        if depth > _DEEPEST:
            raise UserError(f"{_place(url, event)}: more than {_DEEPEST} levels deep, as no file of dvsel is; fix it")


def _place(url: str, event: yaml.Event) -> str:
    return f"{url}, line {event.start_mark.line + 1}" if event.start_mark else url
