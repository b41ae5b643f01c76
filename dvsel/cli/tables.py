"""Tables and histograms for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dvsel.commands.inspect import Document
from dvsel.redact import printable
from dvsel.runs.report import SelectReport, Share

_WIDTH = 50
_ROWS = 20
_DOMAINS = 30  # domains that are shown

Column = tuple[str, Callable[[Share], str]]


def plain_console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is: `[red]` and `:tada:` in the name of a domain are its name."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def show_selection(console: Console, report: SelectReport) -> None:
    """Print the documents and tokens that a selection keeps, by score and by domain."""
    console.print("\n".join(histogram_lines(report.histogram)))
    console.print(domains_table(report.domains, "share of each domain that was kept"))


def histogram_lines(histogram: Mapping[str, Any]) -> list[str]:
    """Return a histogram as bars; the kept part is filled."""
    edges, pool, kept = histogram["edges"], histogram["pool"], histogram["kept"]
    step = len(pool) // _ROWS
    rows = [(edges[at], sum(pool[at : at + step]), sum(kept[at : at + step])) for at in range(0, len(pool), step)]
    most = max((count for _, count, _ in rows), default=0) or 1
    lines = ["", "score         documents (█ kept, ░ not)"]
    for edge, count, inside in rows:
        bar = round(_WIDTH * count / most)
        full = round(bar * inside / count) if count else 0
        lines.append(f"{edge:>12.5g}  {'█' * full}{'░' * (bar - full)} {count:,}")
    below, above = histogram["outliers"]
    if below or above:
        lines.append(f"the first bar also has {below:,} documents below it, the last {above:,} above it")
    return [*lines, ""]


def domains_table(domains: Mapping[str, Share], title: str, of_selection: bool = True) -> Group:
    """Return a table of domains, first those with the largest share kept. of_selection: show what is kept."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    kept: list[Column] = [
        ("kept", lambda share: f"{share.kept_docs:,}"),
        ("share kept", lambda share: f"{_share_kept(share):.1%}"),
    ]
    columns: list[Column] = [
        ("documents", lambda share: f"{share.pool_docs:,}"),
        *(kept if of_selection else []),
        ("tokens", lambda share: f"{share.pool_tokens:,}"),
        *([("kept tokens", lambda share: f"{share.kept_tokens:,}")] if of_selection else []),
        *([("no score", lambda share: f"{share.unscored_docs:,}")] if _any_unscored(domains) else []),
    ]
    table.add_column("domain", overflow="fold")
    for column, _ in columns:
        table.add_column(column, justify="right", no_wrap=True)
    ranked = sorted(domains.items(), key=lambda one: (-_share_kept(one[1]), -one[1].pool_docs))
    for name, share in ranked[:_DOMAINS]:
        table.add_row(printable(name) or "(none)", *(shown(share) for _, shown in columns))
    more = [f"and {len(ranked) - _DOMAINS:,} more domains; --json has all"] if len(ranked) > _DOMAINS else []
    return Group(title, table, *more, "")


def _any_unscored(domains: Mapping[str, Share]) -> bool:
    return any(share.unscored_docs for share in domains.values())


def _share_kept(share: Share) -> float:
    return share.kept_docs / max(share.pool_docs, 1)


def documents_table(title: str, documents: Sequence[Document]) -> Group:
    """Return a table of documents with the beginning of their texts."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for one in documents:
        score = [] if math.isnan(one.score) else [f"{one.score:.5g}"]
        where = [*score, printable(one.domain), printable(f"{one.shard}:{one.line}")]
        table.add_row(Text("\n".join(where), style="dim"), Text(printable(" ".join(one.text.split()))))
    return Group(title, table)
