"""`dvsel strength LOSSES`: how well each document's losses order the models of a ladder."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from dvsel.cli.flags import add
from dvsel.cli.plain import plain

_HELP = """Score every document by how well its losses order the models of a ladder: its predictive strength.

\b
  dvsel strength losses/ --ladder ladder.yaml -o strength/
  dvsel strength losses/ --ladder ladder.yaml --strength spearman -o strength/
"""

make = plain(
    "strength",
    _HELP,
    "the folder that `dvsel losses` wrote",
    nothing="strengths come from one folder of losses; name the one that `dvsel losses` wrote",
    nowhere="score files need a folder; name one with -o strength/",
    skip=("workers", "dry_run"),
)


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `strength` to the app."""
    add(app, "strength", make())
