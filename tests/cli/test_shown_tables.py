"""Tables and histograms: what is kept is filled, names are shown as they are, and what is left out is said."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from dvsel.cli.tables import documents_table, domains_table, histogram_lines
from dvsel.commands.inspect import Document
from dvsel.runs.report import Share


def text_of(shown: RenderableType) -> str:
    page = io.StringIO()
    Console(file=page, width=100, markup=False, emoji=False, highlight=False).print(shown)
    return page.getvalue()


def test_a_histogram_fills_what_is_kept() -> None:
    edges = [float(edge) for edge in range(20)]
    pool, kept = [0] * 18 + [100, 50], [0] * 18 + [50, 50]

    lines = histogram_lines({"edges": edges, "pool": pool, "kept": kept, "outliers": (0, 0)})

    assert lines[-3] == f"{18:>12}  {'█' * 25}{'░' * 25} 100"
    assert lines[-2] == f"{19:>12}  {'█' * 25} 50"
    assert not any("first bar" in line for line in lines)


def test_a_histogram_counts_what_lies_outside() -> None:
    lines = histogram_lines({"edges": [0.0] * 20, "pool": [0] * 20, "kept": [0] * 20, "outliers": (3, 4)})

    assert lines[-2] == "the first bar also has 3 documents below it, the last 4 above it"


def test_domains_come_by_the_share_that_is_kept_and_are_named_as_they_are() -> None:
    shares = {"[red]": Share(10, 1, 100, 10), ":tada:": Share(10, 9, 100, 90), "": Share(10, 5, 100, 50)}

    page = text_of(domains_table(shares, "domains"))

    assert [line.split()[0] for line in page.splitlines()[2:5]] == [":tada:", "(none)", "[red]"]
    assert "90.0%" in page and "no score" not in page


def test_documents_without_a_score_have_a_column_where_there_are_some() -> None:
    assert "no score" in text_of(domains_table({"web": Share(1, 1, 1, 1, unscored_docs=2)}, "domains"))


def test_of_many_domains_the_first_are_shown_and_the_others_counted() -> None:
    page = text_of(domains_table({f"domain {one}": Share(100, one, 100, one) for one in range(35)}, "domains"))

    assert "domain 34" in page and "domain 4 " not in page
    assert "and 5 more domains; --json has all" in page


def test_documents_are_shown_with_place_and_text_and_no_control_characters() -> None:
    page = text_of(documents_table("highest", [Document(1.5, "a.jsonl", 7, "web", "two\n lines \x1b[31m")]))

    assert "1.5" in page and "a.jsonl:7" in page
    assert "two lines" in page and "\x1b" not in page
