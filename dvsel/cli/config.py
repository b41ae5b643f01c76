"""The user's own defaults: a TOML file with a table for each command.

    [score]
    on-bad-line = "skip"

    [score.dsir]              # of one method
    normalise = "length"

    [select]
    shard-size = "512MB"

It is `$DVSEL_CONFIG`, else `dvsel/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`. The command line, the
environment and a recipe take precedence. An unknown key or a value of the wrong type is refused with the file and the
key; a default that does not apply to what a command does is left aside.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvsel.cli.command_table import REPLAYED
from dvsel.errors import UserError, shown
from dvsel.interface.registry import SCORERS, SELECTORS, registered
from dvsel.options import check_choice, checked, nearest

VARIABLE = "DVSEL_CONFIG"


def place() -> Path:
    """Return the place of the file, which need not exist."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "dvsel" / "config.toml"


@dataclass
class Defaults:
    """Defaults of one command. values: by option (`on_bad_line`), the value and the table that it is from."""

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, command: str, methods: Sequence[str] = ()) -> Defaults:
        """Return the defaults of a command; those of the methods that it uses take precedence."""
        table = _tables(place()).get(command, {})
        defaults = cls()
        for name, part in (("", table), *((name, table.get(name, {})) for name in methods)):
            where = f"{place()}: [{'.'.join(filter(None, (command, name)))}]"
            for key, value in part.items():
                if not isinstance(value, Mapping):
                    defaults.values[key.replace("-", "_")] = value, where
        return defaults

    def take(self, flag: str, hint: Any, choices: tuple[str, ...] | None) -> Any:
        """Return the default of an option, checked; None where there is none."""
        self.taken.add(flag)
        if flag not in self.values:
            return None
        value, where = self.values[flag]
        named = f"{where} {flag.replace('_', '-')}"
        check_choice(named, value, choices)
        return checked(value, hint, named)

    def check_all_taken(self) -> None:
        """Raise UserError for a key that is not an option of the command."""
        for key, (_, where) in self.values.items():
            if key not in self.taken:
                known = [name.replace("_", "-") for name in self.taken]
                raise UserError(f"{where}: no option {shown(key.replace('_', '-'))}; {nearest(key, known)}")

    def word(self, flag: str) -> str | None:
        """Return a default that decides how the command is built: the name of a method."""
        name: str | None = self.take(flag, str, None)
        return name


def _tables(file: Path) -> Mapping[str, Any]:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        if os.environ.get(VARIABLE):
            raise UserError(f"{file}: no such file; {VARIABLE} names it, correct or unset that") from None
        return {}
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); check it, or name another in {VARIABLE}"
        ) from error
    return _parsed(file, content)


@functools.lru_cache(maxsize=1)
def _parsed(file: Path, content: bytes) -> Mapping[str, Any]:
    try:
        tables = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file}: not valid TOML: {error}; correct it, or name another in {VARIABLE}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(f"{file}: {shown(name)} is in no table; put it under that of a command, such as [score]")
        if name not in REPLAYED:
            raise UserError(f"{file}: [{name}] is not a command with defaults; {nearest(name, REPLAYED)}")
        for key, value in table.items():
            if isinstance(value, dict):
                _check_method(file, name, key)
    return tables


def _check_method(file: Path, command: str, method: str) -> None:
    groups = {"score": (SCORERS,), "fit": (SCORERS,), "select": (SCORERS, SELECTORS)}.get(command, ())
    known = [name for group in groups for name in registered(group)]
    if method not in known:
        raise UserError(f"{file}: [{command}.{method}] is not a method of dvsel {command}; {nearest(method, known)}")
