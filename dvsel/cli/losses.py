"""`dvsel losses POOL`: the losses of a ladder's models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from dvsel.cli.flags import add
from dvsel.cli.from_run import command_from_run

if TYPE_CHECKING:
    from dvsel.cli.run import Recipe
    from dvsel.commands.losses import LossesRun
    from dvsel.runs.requests import Execution

_HELP = """Compute the loss of every document under each model of a ladder, in bits per character.

\b
  dvsel losses pool/*.jsonl.zst --ladder ladder.yaml -o losses/
  dvsel losses pool/ --ladder ladder.yaml --window 2048 --stride 512 -o losses/
"""


def _carry_out(run: LossesRun, execution: Execution) -> Any:
    from dvsel.commands.losses import losses

    return losses(run, execution)


build = command_from_run(
    "losses",
    _carry_out,
    _HELP,
    "shards, folders, globs, URLs",
    nothing="nothing to compute losses of; name shards or folders",
    nowhere="score files need a folder; name one with -o losses/",
)


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `losses` to the app."""
    add(app, "losses", build())


def replay(recipe: Recipe) -> Any:
    """Build the command with a recipe's values as defaults."""
    return build(recipe.values)
