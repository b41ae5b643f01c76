"""`dvsel list`: what can be chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer

from dvsel.cli.errors import with_exit_codes
from dvsel.interface.registry import SCORERS, SELECTORS, registered
from dvsel.redact import printable


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `list` to the app."""
    app.command("list")(with_exit_codes(show))


def show(as_json: bool = typer.Option(False, "--json", help="as JSON")) -> None:
    """List scorers and selectors, those of other packages too.

    \b
      dvsel list
      dvsel list --json
    """
    listing = {kind: [_entry(name, point) for name, point in registered(group).items()]
               for kind, group in (("scorers", SCORERS), ("selectors", SELECTORS))}  # fmt: skip
    if as_json:
        print(json.dumps(listing, indent=1))
        return
    from rich.table import Table

    from dvsel.cli.tables import plain_console

    for kind, entries in listing.items():
        table = Table(title=kind, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("name", "what it does", "package"):
            table.add_column(column)
        for entry in entries:
            table.add_row(*(printable(entry[part]) for part in ("name", "summary", "package")))
        plain_console().print(table)


def _entry(name: str, point: object) -> dict[str, str]:
    distribution = getattr(point, "dist", None)
    try:
        summary = (getattr(point, "load")().__doc__ or "").strip().splitlines()[0]  # noqa: B009
    except Exception as error:  # a broken package must not hide the others
        summary = f"cannot be loaded: {error}"
    return {"name": name, "summary": summary, "package": distribution.name if distribution else ""}
