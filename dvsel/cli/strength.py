"""`dvsel strength LOSSES`: how well each document's losses order the models of a ladder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from dvsel.cli.flags import add
from dvsel.cli.from_run import command_from_run

if TYPE_CHECKING:
    from dvsel.cli.run import Recipe
    from dvsel.commands.strength import StrengthRun
    from dvsel.runs.requests import Execution

_HELP = """Score every document by how well its losses order the models of a ladder: its predictive strength.

\b
  dvsel strength losses/ --ladder ladder.yaml -o strength/
  dvsel strength losses/ --ladder ladder.yaml --strength spearman -o strength/
"""


def _carry_out(run: StrengthRun, execution: Execution) -> Any:
    from dvsel.commands.strength import strength

    return strength(run, execution)


build = command_from_run(
    "strength",
    _carry_out,
    _HELP,
    "the folder that `dvsel losses` wrote",
    nothing="strengths come from one folder of losses; name the one that `dvsel losses` wrote",
    nowhere="score files need a folder; name one with -o strength/",
    skip=("workers", "dry_run"),
)


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `strength` to the app."""
    add(app, "strength", build())


def replay(recipe: Recipe) -> Any:
    """Build the command with a recipe's values as defaults."""
    return build(recipe.values)
