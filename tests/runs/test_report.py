"""What a run says of itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dvsel.errors import UserError
from dvsel.runs.output_folder import REPORT
from dvsel.runs.report import ScoreReport, SelectReport, Share, without_score, write_json
from dvsel.score_files.rows import Totals

TOTALS = Totals(
    rows=1200,
    docs=1000,
    tokens=1_234_567,
    bytes=5_000_000,
    status={"bad_line": 7, "empty_text": 3, "scored": 1000, "unscored": 190},
    bad_lines={"field 'text' is null": 5, "no JSON": 2},
)
SKIPPED = [("/pool/a.jsonl", line, "field 'text' is null") for line in range(1, 8)]


def score_report(**values: Any) -> ScoreReport:
    plain = ScoreReport("dsir", 12, TOTALS, "fewer than 100 words", "counted by gpt2", ["/pool/b.jsonl"], SKIPPED)
    return dataclasses.replace(plain, **values)


def select_report(**values: Any) -> SelectReport:
    plain = SelectReport(
        scorer="dsir",
        selector={"name": "topk"},
        seed=0,
        budget="10% tokens = 123,456",
        unit="tokens",
        asked=123_456,
        pool={"docs": 1000, "tokens": 1_234_567, "bytes": 5_000_000},
        given={"docs": 90, "tokens": 123_400, "bytes": 500_000},
        took_all=False,
        duplicates=0,
        tokens="counted by gpt2",
        unscored="fewer than 100 words",
        totals=Totals(),
        domains={"news": Share(600, 80, 1_000_000, 100_000)},
        strata=[{"name": "", "asked": 123_456, "given": 123_400, "docs": 90, "took_all": False, "threshold": 0.25}],
        threshold_is="score",
        histogram={"edges": [0.0, 1.0], "pool": [1000], "kept": [90]},
    )
    return dataclasses.replace(plain, **values)


def test_scoring_says_what_was_scored_and_what_was_not() -> None:
    assert score_report().lines() == [
        "scored 1,000 of 1,200 documents in 12 shards with dsir",
        "tokens 1,234,567, counted by gpt2",
        "warning: 16.1% of the documents have no score, and cannot be kept",
        "no score for 3 documents: empty text",
        "no score for 190 documents: fewer than 100 words",
        "skipped 7 lines: 5 field 'text' is null, 2 no JSON",
        *(f"  /pool/a.jsonl, line {line}: field 'text' is null" for line in range(1, 6)),
        "  ... (more in .dvsel/report.json)",
        "/pool/b.jsonl is empty",
    ]


def test_what_has_no_score_is_told_by_domain() -> None:
    domains = {f"d{number}": number for number in range(1, 8)} | {"": 9}
    lines = score_report(unscored_domains=domains).lines()
    assert "  by domain: (none) 9, d7 7, d6 6, d5 5, d4 4, and 3 more" in lines
    shares = {"news": Share(0, 0, 0, 0, 190), "code": Share(600, 80, 1_000_000, 100_000, 0)}
    assert "  by domain: news 190" in select_report(domains=shares, totals=TOTALS).lines()


def test_few_documents_without_a_score_are_no_warning() -> None:
    few = dataclasses.replace(TOTALS, status={"scored": 1100, "unscored": 97, "empty_text": 3})
    assert not any("warning" in line for line in score_report(totals=few).lines())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "warning: nothing is kept: the first document in line has more tokens than the budget"),
        ({"asked": 0}, "warning: nothing is kept: the budget comes to 0"),
        ({"asked": None}, "warning: nothing is kept: no score reaches the bound"),
        ({"pool": {"docs": 0, "tokens": 0, "bytes": 0}}, "warning: nothing is kept: no document has a score"),
    ],
)
def test_an_empty_selection_is_said(values: dict[str, Any], said: str) -> None:
    nothing = {"docs": 0, "tokens": 0, "bytes": 0}
    assert said in select_report(**{"given": nothing} | values).lines()


def test_a_domain_that_gives_nothing_says_why() -> None:
    strata = [
        {"name": "news", "asked": 10, "given": 0, "docs": 0, "took_all": False, "threshold": 0.5},
        {"name": "code", "asked": 10, "given": 0, "docs": 0, "took_all": True, "threshold": None},
    ]
    assert select_report(strata=strata).lines()[3:] == [
        "  news: asked 10, given 0 tokens in 0 documents (its first document is larger)",
        "  code: asked 10, given 0 tokens in 0 documents (no document of it has a score)",
    ]


def test_few_documents_that_outweigh_the_others_are_said() -> None:
    (line,) = [line for line in select_report(effective_sample_size=3.0, overlap=0.5).lines() if "effective" in line]
    assert line == "effective sample size 3.0: few of the 90 kept documents outweigh the others by far"


def test_a_report_is_read_back(tmp_path: Path) -> None:
    report = select_report(totals=TOTALS, skipped=SKIPPED)
    write_json(report, str(tmp_path / "report.json"))
    assert SelectReport.load(str(tmp_path / "report.json")) == report
    (tmp_path / "report.json").write_text('{"budget": 1}')
    with pytest.raises(UserError, match="not a report of a selection"):
        SelectReport.load(str(tmp_path / "report.json"))


def test_nothing_lost_is_not_mentioned() -> None:
    assert without_score(Totals(rows=5, docs=5, status={"scored": 5}), "too short", [], []) == []
    few = without_score(TOTALS, "too short", SKIPPED[:5], [])
    assert few[-1] == "  /pool/a.jsonl, line 5: field 'text' is null"


def test_selecting_says_asked_and_given() -> None:
    assert select_report().lines() == [
        "selected 90 of 1,000 scored documents with topk on dsir",
        "asked 10% tokens = 123,456; given 123,400 tokens, 500,000 bytes of text",
        "tokens counted by gpt2",
        "threshold 0.25 (score)",
    ]


def test_a_budget_beyond_the_pool_is_mentioned() -> None:
    all_taken = {"name": "", "asked": 5, "given": 4, "docs": 2, "took_all": True, "threshold": None}
    lines = select_report(took_all=True, strata=[all_taken]).lines()
    assert lines[3:] == ["the budget exceeds what there is: all of it is taken"]


def test_each_domain_s_budget_is_a_line() -> None:
    strata = [
        {"name": "news", "asked": 1000, "given": 990, "docs": 10, "took_all": False, "threshold": 0.5},
        {"name": "code", "asked": None, "given": 7, "docs": 1, "took_all": True, "threshold": None},
    ]
    assert select_report(strata=strata).lines()[3:] == [
        "  news: asked 1,000, given 990 tokens in 10 documents",
        "  code: asked unlimited, given 7 tokens in 1 documents (all there is)",
    ]


def test_a_resample_says_how_far_it_is_from_topk() -> None:
    report = select_report(threshold_is="key with noise", effective_sample_size=234.5, overlap=0.42, duplicates=3)
    assert report.lines()[3:] == [
        "threshold 0.25 (key with noise)",
        "effective sample size 234.5: the weights count as if spread over so many documents",
        "overlap with topk 42.0%",
        "left out 3 duplicates",
    ]


@pytest.mark.parametrize(
    ("overlap", "took_all", "warned"), [(0.94, False, False), (0.96, False, True), (1.0, True, False)]
)
def test_a_resample_that_is_topk_is_warned_of(overlap: float, took_all: bool, warned: bool) -> None:
    lines = select_report(effective_sample_size=1.0, overlap=overlap, took_all=took_all).lines()
    assert any("this is top-k" in line for line in lines) is warned


@pytest.mark.parametrize("report", [score_report(), select_report(domains={"näïve": Share(1, 1, 1, 1)})])
def test_a_report_is_json(report: Any, tmp_path: Path) -> None:
    write_json(report, str(tmp_path / "new" / REPORT))
    content = (tmp_path / "new" / REPORT).read_text(encoding="utf-8")
    assert json.loads(content) == json.loads(json.dumps(dataclasses.asdict(report)))
    assert content.endswith("}\n") and "\\u" not in content
