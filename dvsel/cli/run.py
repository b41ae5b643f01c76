"""`dvsel run FILE`: the command that a recipe names, with the recipe's values as defaults."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from dvsel.cli.command_table import COMMANDS, REPLAYED
from dvsel.cli.errors import with_exit_codes
from dvsel.cli.flags import ANY_FLAGS, add, raising
from dvsel.errors import UserError
from dvsel.options import refuse_unread

_HELP = """Replay a run from its recipe; further flags beat what it says.

\b
  dvsel run recipes/dsir.yaml
  dvsel run selected/recipe.yaml --budget 10B -o smaller/
"""


@dataclass(frozen=True)
class Recipe:
    """A recipe to replay. values: the options that it states. words: what stands beside its file's name."""

    file: str
    values: Mapping[str, Any]
    words: Sequence[str]

    def part(self, name: str) -> dict[str, Any]:
        """Return the options of its scorer or its selector, with the name."""
        part = self.values.get(name, {})
        return dict(part) if isinstance(part, dict) else {"name": part}

    def scorer(self) -> tuple[str, dict[str, Any]]:
        """Return the scorer's name and options. Raises UserError for a recipe that names no scorer."""
        part = self.part("scorer")
        return part.pop("name", None) or self._fitted_name(), part

    def _fitted_name(self) -> str:
        from dvsel.interface.registry import SCORERS, name_of
        from dvsel.runs import fitted_files

        if not self.values.get("fitted"):
            raise UserError(f"{self.file}: names no scorer; add `scorer: NAME`, or `fitted: FILE`")
        return name_of(SCORERS, type(fitted_files.load(self.values["fitted"])[0].scorer))


def register(app: typer.Typer, rest: Sequence[str]) -> None:
    """Add `run` to the app, as the command of the recipe that `rest` names."""
    file = _file(rest)
    if file is None:
        app.command("run", help=_HELP)(_placeholder)
        return
    try:
        add(app, "run", _replayed(file, [word for word in rest if word != file]), help=_HELP)
    except UserError as error:
        app.command("run", help=_HELP, context_settings=ANY_FLAGS)(with_exit_codes(raising(error)))


def _file(rest: Sequence[str]) -> str | None:
    """Return the recipe's file: the first word that ends like one, since flags with values may come before it."""
    words = [word for word in rest if not word.startswith("-")]
    return next((word for word in words if word.endswith((".yaml", ".yml"))), words[0] if words else None)


def _placeholder(file: str = typer.Argument(..., metavar="FILE", help="a recipe")) -> None:
    """Stand in the help where no recipe is named."""


def _replayed(file: str, words: Sequence[str]) -> Any:
    from dvsel.runs.recipe import load, make

    name, values = load(file)
    if name not in REPLAYED:
        raise UserError(f"{file}: command is {name!r}; it is one of {', '.join(REPLAYED)}")
    try:
        refuse_unread(make(COMMANDS[name].run_class(), values, file))
    except UserError as error:
        raise UserError(str(error) if file in str(error) else f"{file}: {error}") from error
    return _without_file(COMMANDS[name].module().replay(Recipe(file, values, words)), file)


def _without_file(made: Any, file: str) -> Any:
    """Return `made`, for arguments of which the first is the recipe itself."""

    @functools.wraps(made)
    def run(**flags: Any) -> None:
        flags["arguments"] = [word for word in flags["arguments"] or [] if word != file]
        made(**flags)

    run.__signature__ = made.__signature__  # type: ignore[attr-defined]
    return run
