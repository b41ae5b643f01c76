"""`dvsel losses POOL`: the losses of a ladder's models."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from dvsel.cli.flags import add
from dvsel.cli.plain import plain

_HELP = """Compute the loss of every document under each model of a ladder, in bits per character.

\b
  dvsel losses pool/*.jsonl.zst --ladder ladder.yaml -o losses/
  dvsel losses pool/ --ladder ladder.yaml --window 2048 --stride 512 -o losses/
"""

make = plain(
    "losses",
    _HELP,
    "shards, folders, globs, URLs",
    nothing="nothing to compute losses of; name shards or folders",
    nowhere="score files need a folder; name one with -o losses/",
)


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `losses` to the app."""
    add(app, "losses", make())
