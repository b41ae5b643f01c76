"""Tables and histograms for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dvsel.inspect import Document
from dvsel.redact import printable
from dvsel.report import Share

_WIDTH = 50
_ROWS = 20


def plain_console() -> Console:
    """A console that takes text as it is: `[red]` and `:tada:` in the name of a domain are its name."""
    return Console(highlight=False, markup=False, emoji=False)


def histogram_lines(histogram: Mapping[str, Any]) -> list[str]:
    """A histogram as bars; what is kept is filled."""
    edges, pool, kept = histogram["edges"], histogram["pool"], histogram["kept"]
    step = len(pool) // _ROWS
    rows = [(edges[at], sum(pool[at : at + step]), sum(kept[at : at + step])) for at in range(0, len(pool), step)]
    most = max((count for _, count, _ in rows), default=0) or 1
    lines = ["", "score         documents (█ kept, ░ not)"]
    for edge, count, inside in rows:
        bar = round(_WIDTH * count / most)
        full = round(bar * inside / count) if count else 0
        lines.append(f"{edge:>12.5g}  {'█' * full}{'░' * (bar - full)} {count:,}")
    return [*lines, ""]


def domains_table(domains: Mapping[str, Share], title: str) -> Table:
    """Domains, those of which most is kept first."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("domain")
    for column in ("documents", "kept", "share kept", "tokens", "kept tokens"):
        table.add_column(column, justify="right")
    for name, share in sorted(domains.items(), key=lambda one: -one[1].kept_docs / max(one[1].pool_docs, 1)):
        table.add_row(
            printable(name) or "(none)",
            f"{share.pool_docs:,}",
            f"{share.kept_docs:,}",
            f"{share.kept_docs / max(share.pool_docs, 1):.1%}",
            f"{share.pool_tokens:,}",
            f"{share.kept_tokens:,}",
        )
    return table


def documents_table(title: str, documents: Sequence[Document]) -> Table:
    """Documents with the beginning of their text."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for one in documents:
        where = (f"{one.score:.5g}", printable(one.domain), printable(f"{one.shard}:{one.line}"))
        table.add_row(Text("\n".join(where), style="dim"), Text(printable(" ".join(one.text.split()))))
    return table
