"""`dvsel inspect SCORES`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from dvsel.cli.errors import with_exit_codes
from dvsel.errors import UserError
from dvsel.redact import printable

if TYPE_CHECKING:
    from dvsel.commands.inspect import Embedded, Selection

_NAMED = 4  # files of the pool or of the target that are shown


def register(app: typer.Typer, rest: Sequence[str]) -> None:  # noqa: ARG001
    """Add `inspect` to the app."""
    app.command("inspect")(with_exit_codes(show))


def show(
    sources: list[str] = typer.Argument(
        ..., metavar="FOLDER...", help="folders of scores or of embeddings, a selection, or one fitted scorer"
    ),
    budget: str = typer.Option(None, help="of scores: show what topk keeps under this budget (default: 10%)"),
    documents: int = typer.Option(3, min=0, help="how many of the best and of the worst documents to show"),
    pool: list[str] = typer.Option(None, help="of scores: where the pool's shards lie now, or in a store"),
    as_json: bool = typer.Option(False, "--json", help="as JSON"),
) -> None:
    """Show what scores say, what a selection keeps, what vectors there are, or what a fitted scorer is.

    \b
      dvsel inspect scores/
      dvsel inspect scores/ --budget 30B --documents 10
      dvsel inspect selected/
      dvsel inspect emb/
      dvsel inspect dsir.fitted
    """
    from dvsel.commands import inspect

    is_fitted = len(sources) == 1 and sources[0].endswith(".fitted")
    is_selection = not is_fitted and any(map(inspect.is_selection, sources))
    is_embedded = not (is_fitted or is_selection) and all(map(inspect.is_embedded, sources))
    if is_fitted or is_selection or is_embedded:
        for flag, value in (("--budget", budget), ("--pool", pool)):
            if value:
                raise UserError(
                    f"{flag}: is for scores, and {sources[0]} holds none; drop it, or name a folder of scores"
                )
    if is_selection and len(sources) > 1:
        raise UserError("selections are shown one by one; name one folder")
    if is_fitted:
        _show_fitted(sources[0], as_json)
    elif is_selection:
        _show_selection(inspect.inspect_selection(sources[0], documents), as_json)
    elif is_embedded:
        _show_embedded(inspect.inspect_embeddings(sources), as_json)
    else:
        _show_scores(sources, budget or "10%", documents, pool or (), as_json)


def _show_scores(sources: list[str], budget: str, documents: int, pool: Sequence[str], as_json: bool) -> None:
    from dvsel.budget import Budget
    from dvsel.commands.inspect import inspect
    from dvsel.engines.local import available_workers

    inspection = inspect(sources, Budget.parse(budget), documents, available_workers(), pool)
    if as_json:
        print(json.dumps(inspection.as_json()))
        return
    from dvsel.cli.tables import documents_table, domains_table, histogram_lines, plain_console

    console = plain_console()
    counts = f"{inspection.documents:,} documents, {inspection.tokens:,} tokens"
    for line in (f"{counts}, scored with {inspection.scorer}", *inspection.lost):
        console.print(printable(line), soft_wrap=True)
    console.print("\n".join(histogram_lines(inspection.histogram)))
    console.print(domains_table(inspection.domains, f"share of each domain that topk keeps of {inspection.budget}"))
    console.print(documents_table("best documents", inspection.best))
    console.print(documents_table("worst documents", inspection.worst))


def _show_selection(selection: Selection, as_json: bool) -> None:
    if as_json:
        print(json.dumps(selection.as_json()))
        return
    from dvsel.cli.tables import documents_table, plain_console, show_selection

    console = plain_console()
    for line in selection.report.lines():
        console.print(printable(line), soft_wrap=True)
    show_selection(console, selection.report)
    console.print(documents_table("documents that were kept, the first of some shards", selection.documents))


def _show_embedded(embedded: Embedded, as_json: bool) -> None:
    if as_json:
        print(json.dumps(embedded.as_json()))
        return
    from dvsel.cli.tables import domains_table, plain_console

    console = plain_console()
    for line in embedded.report.lines():
        console.print(printable(line), soft_wrap=True)
    console.print(domains_table(embedded.domains, "documents with a vector", of_selection=False))


def _show_fitted(url: str, as_json: bool) -> None:
    from dvsel.interface.registry import SCORERS, name_of
    from dvsel.options import to_mapping
    from dvsel.runs import fitted_files as storage

    fitted, fingerprint = storage.load(url)
    name, options, origin = name_of(SCORERS, type(fitted.scorer)), to_mapping(fitted.scorer), fitted.origin
    if as_json:
        values = {"scorer": name, "options": options, "fingerprint": fingerprint, "report": fitted.report}
        print(json.dumps(values | {"origin": origin}))
        return
    size = sum(array.nbytes for array in fitted.arrays.values())
    read = (f"  {option}: {_shortened(names)}" for option, names in origin.items())
    described = (f"  {key} = {value}" for key, value in options.items())
    for line in (f"{url}: a fitted {name}, {size:,} bytes of arrays{_date(url)}", *read, *described, *fitted.lines()):
        print(printable(line))


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _date(url: str) -> str:
    """Return the time of writing in words; "" for a store, as each states it in its own way."""
    from dvsel.storage.places import is_remote, local_path

    if is_remote(url):
        return ""
    written = datetime.fromtimestamp(local_path(url).stat().st_mtime, UTC)
    return f", written {written:%Y-%m-%d %H:%M} UTC"
