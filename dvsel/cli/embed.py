"""`dvsel embed POOL`: a vector of every document."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from dvsel.cli.flags import add
from dvsel.cli.plain import plain

_HELP = """Make every document of a pool a vector, once for all methods that use some.

The folder then stands for the pool wherever vectors help: `dvsel score target emb/`, `dvsel select emb/`.

\b
  dvsel embed pool/*.jsonl.zst --model models/all-MiniLM-L6-v2 -o emb/
  dvsel embed pool/ --model models/pythia-160m --layer 8 --dtype float32 -o emb/
"""

make = plain(
    "embed",
    _HELP,
    "shards, folders, globs, URLs",
    nothing="nothing to embed; name shards or folders",
    nowhere="vectors need a folder; name one with -o emb/",
)


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `embed` to the app."""
    add(app, "embed", make())
