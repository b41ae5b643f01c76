"""What scores say, against the scores themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import failure, ok
from dvsel.budget import Budget
from dvsel.commands.inspect import Inspection, inspect, inspect_selection, is_selection
from dvsel.commands.score import score
from dvsel.commands.select import select
from dvsel.errors import UserError
from dvsel.runs.requests import Execution, Fitting, ScoreRun, SelectRun
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers.dsir import DSIR
from dvsel.selectors.topk import TopK

WORDS = {
    "code": ["def", "return", "class", "self", "import", "lambda", "yield", "while"],
    "news": ["minister", "election", "weather", "court", "market", "coach"],
}


def documents(domain: str, count: int, seed: int) -> list[dict[str, str]]:
    random = np.random.default_rng(seed)
    return [
        {"id": f"{domain}{at}", "domain": domain, "text": " ".join(random.choice(WORDS[domain], 5 + at % 7))}
        for at in range(count)
    ]


def write(path: Path, found: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(document) + "\n" for document in found))
    return path


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pool/` and `scores/`."""
    folder = tmp_path_factory.mktemp("inspect")
    write(folder / "pool" / "a.jsonl", documents("code", 40, 1) + documents("news", 20, 2))
    mixed = [{"id": "none", "text": ""}, *documents("news", 50, 3), {"id": "x", "text": "def " * 300}]
    write(folder / "pool" / "b.jsonl", mixed)
    run = ScoreRun(
        scorer=DSIR(min_words=1, buckets=1000),
        pool=(str(folder / "pool"),),
        fitting=Fitting(target=(str(write(folder / "target.jsonl", documents("code", 30, 4))),)),
        output=str(folder / "scores"),
    )
    score(run, Execution(workers=1))
    return folder


@pytest.fixture(scope="module")
def inspection(scored: Path) -> Inspection:
    return inspect([str(scored / "scores")], Budget.parse("20% docs"), 5, 2)


def all_scores(scored: Path) -> list[tuple[float, str, int]]:
    """(score, shard, line) of every document that has one, the lowest first."""
    found = []
    for name in ("a.jsonl", "b.jsonl"):
        rows = [rows.score[:, 0] for rows in ScoreFile(str(scored / "scores" / (name + SUFFIX))).rows()]
        found += [(float(value), name, at + 1) for at, value in enumerate(np.concatenate(rows)) if np.isfinite(value)]
    return sorted(found)


def test_totals(inspection: Inspection, scored: Path) -> None:
    assert inspection.scorer.startswith("dsir")
    assert inspection.documents == 111 == len(all_scores(scored))
    assert inspection.budget == "20% docs = 22"
    assert sum(inspection.histogram["pool"]) == 111 and sum(inspection.histogram["kept"]) == 22


def test_the_best_and_the_worst_are_those_of_a_sort(inspection: Inspection, scored: Path) -> None:
    ranked = all_scores(scored)
    assert [(one.score, one.shard, one.line) for one in inspection.best] == ranked[::-1][:5]
    assert [(one.score, one.shard, one.line) for one in inspection.worst] == ranked[:5]


def test_documents_are_shown_with_the_beginning_of_their_text(inspection: Inspection, scored: Path) -> None:
    for one in [*inspection.best, *inspection.worst]:
        document = json.loads((scored / "pool" / one.shard).read_text().splitlines()[one.line - 1])
        assert one.text == document["text"][:400]
        assert one.domain == document.get("domain", "")


def test_shares_of_domains_are_those_of_the_best(inspection: Inspection, scored: Path) -> None:
    domains = {}
    for name in ("a.jsonl", "b.jsonl"):
        for line, content in enumerate((scored / "pool" / name).read_text().splitlines(), 1):
            domains[name, line] = json.loads(content).get("domain", "")
    ranked = [domains[name, line] for _, name, line in all_scores(scored)[::-1]]
    for domain in ("code", "news", ""):
        share = inspection.domains[domain]
        assert (share.pool_docs, share.kept_docs) == (ranked.count(domain), ranked[:22].count(domain))


def test_fewer_documents_than_asked_for(scored: Path) -> None:
    many = inspect([str(scored / "scores")], Budget.parse("20% docs"), 500, 1)
    assert len(many.best) == len(many.worst) == 111
    none = inspect([str(scored / "scores")], Budget.parse("20% docs"), 0, 1)
    assert none.best == none.worst == []


def test_what_has_no_score_is_told(inspection: Inspection, scored: Path) -> None:
    assert inspection.lost == ["no score for 1 documents: empty text"]
    assert "no score for 1 documents: empty text" in ok("inspect", scored / "scores").out.decode()


def test_it_is_json(inspection: Inspection) -> None:
    values = json.loads(json.dumps(inspection.as_json()))
    assert values["best"][0]["text"] == inspection.best[0].text
    assert values["domains"]["code"]["pool_docs"] == 40


@pytest.fixture(scope="module")
def selected(scored: Path) -> Path:
    """A selection from these scores, of which no score is left beside it."""
    run = SelectRun(pool=(str(scored / "scores"),), selector=TopK(), budget="10 docs", output=str(scored / "selected"))
    select(run, Execution(workers=1))
    return scored / "selected"


def test_a_selection_is_shown_as_it_was_made(selected: Path) -> None:
    assert is_selection(str(selected)) and not is_selection(str(selected.parent / "scores"))
    seen = inspect_selection(str(selected), 5)
    assert seen.report.given["docs"] == 10 and seen.report.selector["name"] == "topk"
    assert {name: share.kept_docs for name, share in seen.report.domains.items() if share.kept_docs} == {"code": 10}
    (first,) = seen.documents
    document = json.loads((selected / first.shard).read_text().splitlines()[0])
    assert (first.line, first.domain, first.text) == (1, document["domain"], document["text"])
    assert json.loads(json.dumps(seen.as_json()))["report"]["given"]["docs"] == 10
    assert inspect_selection(str(selected), 0).documents == []


def test_a_selection_that_is_not_complete_is_refused(selected: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes((selected / "recipe.yaml").read_bytes())
    with pytest.raises(UserError, match="is not complete; the command that began it goes on from there"):
        inspect_selection(str(tmp_path), 3)


def test_the_command_tells_what_it_shows_apart(selected: Path, scored: Path) -> None:
    told = ok("inspect", selected).out.decode()
    assert told.startswith("selected 10 of 111 scored documents with topk on dsir") and "share kept" in told
    assert "111 documents" in ok("inspect", scored / "scores").out.decode()
    assert "--budget: is for scores" in failure("inspect", selected, "--budget", "5%")
    assert "one by one" in failure("inspect", selected, selected)


def test_a_folder_without_scores_is_refused(scored: Path) -> None:
    with pytest.raises(UserError, match="holds no score files"):
        inspect([str(scored / "pool")], Budget.parse("10%"), 3, 1)


def test_a_shard_that_changed_is_refused(scored: Path) -> None:
    path = scored / "pool" / "b.jsonl"
    before = path.read_bytes()
    try:
        path.write_bytes(before.replace(b"minister", b"minster"))
        with pytest.raises(UserError, match=r"b\.jsonl changed after it was scored or embedded; do it again"):
            inspect([str(scored / "scores")], Budget.parse("10%"), 500, 1)
    finally:
        path.write_bytes(before)
