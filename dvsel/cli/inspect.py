"""`dvsel inspect SCORES`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer

from dvsel.cli.errors import guarded
from dvsel.redact import printable


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `inspect` to the app."""
    app.command("inspect")(guarded(show))


def show(
    scores: list[str] = typer.Argument(..., help="folders of scores or of a selection, or one fitted scorer"),
    budget: str = typer.Option("10%", help="show the share of each domain that topk keeps under this budget"),
    documents: int = typer.Option(3, help="how many of the best and of the worst documents to show"),
    pool: list[str] = typer.Option(None, help="where the pool's shards lie now, or in a store"),
    as_json: bool = typer.Option(False, "--json", help="as JSON"),
) -> None:
    """Show what scores say (distribution, domains, best and worst documents), or what a fitted scorer is.

    \b
      dvsel inspect scores/
      dvsel inspect scores/ --budget 30B --documents 10
      dvsel inspect dsir.fitted
    """
    if len(scores) == 1 and scores[0].endswith(".fitted"):
        _show_fitted(scores[0], as_json)
        return
    from dvsel.budget import Budget
    from dvsel.engines.local import available_workers
    from dvsel.inspect import inspect

    inspection = inspect(scores, Budget.parse(budget), documents, available_workers(), pool or ())
    if as_json:
        print(json.dumps(inspection.as_json()))
        return
    from dvsel.cli.tables import documents_table, domains_table, histogram_lines, plain_console

    console = plain_console()
    counts = f"{inspection.documents:,} documents, {inspection.tokens:,} tokens"
    console.print(printable(f"{counts}, scored with {inspection.scorer}"))
    console.print("\n".join(histogram_lines(inspection.histogram)))
    console.print(domains_table(inspection.domains, f"share of each domain that topk keeps of {inspection.budget}"))
    console.print(documents_table("best documents", inspection.best))
    console.print(documents_table("worst documents", inspection.worst))


def _show_fitted(url: str, as_json: bool) -> None:
    from dvsel import fitted as storage
    from dvsel.options import to_mapping
    from dvsel.plugins import SCORERS, name_of

    fitted, fingerprint = storage.load(url)
    name, options = name_of(SCORERS, type(fitted.scorer)), to_mapping(fitted.scorer)
    if as_json:
        print(json.dumps({"scorer": name, "options": options, "fingerprint": fingerprint, "report": fitted.report}))
        return
    size = sum(array.nbytes for array in fitted.arrays.values())
    described = (f"  {key} = {value}" for key, value in options.items())
    for line in (f"{url}: a fitted {name}, {size:,} bytes of arrays", *described, *fitted.lines()):
        print(printable(line))
