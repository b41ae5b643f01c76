"""`dvsel embed POOL`: a vector of every document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from dvsel.cli.flags import Group, command, run_of
from dvsel.errors import UserError

_HELP = """Make every document of a pool a vector, once for all methods that use some.

The folder then stands for the pool wherever vectors help: `dvsel score target emb/`, `dvsel select emb/`.

\b
  dvsel embed pool/*.jsonl.zst --model models/all-MiniLM-L6-v2 -o emb/
  dvsel embed pool/ --model models/pythia-160m --layer 8 --dtype float32 -o emb/
"""


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `embed` to the app."""
    app.command("embed")(make())


def make(defaults: Mapping[str, Any] | None = None) -> Any:
    """The command. defaults: other defaults for the run."""
    from dvsel.cli.show import Terminal
    from dvsel.embed import EmbedRun

    defaults = defaults or {}

    def body(pool: list[str], values: dict[str, dict[str, Any]]) -> None:
        from dvsel.cli.show import executing, print_report
        from dvsel.embed import embed

        run = run_of(EmbedRun, values["Run"], pool or list(defaults.get("pool", ())))
        if not run.pool:
            raise UserError("nothing to embed; name shards or folders")
        if not (run.output or values["Execution"]["dry_run"]):
            raise UserError("vectors need a folder; name one with -o emb/")
        with executing(values["Execution"]) as execution:
            report = embed(run, execution)
        print_report(report, values["Execution"])

    groups = [Group("Run", EmbedRun, defaults), Group("Execution", Terminal, prefix="run")]
    return command(body, groups, _HELP, "shards, folders, globs, URLs")
