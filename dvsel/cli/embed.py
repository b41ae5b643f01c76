"""`dvsel embed POOL`: a vector of every document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from dvsel.cli.flags import add
from dvsel.cli.from_run import command_from_run

if TYPE_CHECKING:
    from dvsel.cli.run import Recipe
    from dvsel.commands.embed import EmbedRun
    from dvsel.runs.requests import Execution

_HELP = """Make every document of a pool a vector, once for all methods that use some.

The folder then stands for the pool wherever vectors help: `dvsel score target emb/`, `dvsel select emb/`.

\b
  dvsel embed pool/*.jsonl.zst --model models/all-MiniLM-L6-v2 -o emb/
  dvsel embed pool/ --model models/pythia-160m --layer 8 --dtype float32 -o emb/
"""


def _carry_out(run: EmbedRun, execution: Execution) -> Any:
    from dvsel.commands.embed import embed

    return embed(run, execution)


build = command_from_run(
    "embed",
    _carry_out,
    _HELP,
    "shards, folders, globs, URLs",
    nothing="nothing to embed; name shards or folders",
    nowhere="vectors need a folder; name one with -o emb/",
)


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `embed` to the app."""
    add(app, "embed", build())


def replay(recipe: Recipe) -> Any:
    """Build the command with a recipe's values as defaults."""
    return build(recipe.values)
