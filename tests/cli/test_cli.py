"""The command line from the outside: every command once, exit codes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

import corpus
import dvsel as package
from commands import dvsel, failure, ok, run
from dvsel.runs.fitted_files import load
from dvsel.runs.output_folder import REPORT

# --- From shards to a subset, in processes of their own. ---


def test_the_whole_way_in_one_command_and_in_three(here: Path) -> None:
    target = ("--target", "target.jsonl", "--min-words", "60")
    budget = ("--budget", "20%", "--seed", "7")
    assert run("select", "pool", "--with", "dsir", *target, *budget, "-w", "1", "-o", "selected").code == 0
    assert run("fit", "dsir", "--pool", "pool", *target, "--seed", "7", "-w", "1", "-o", "dsir.fitted").code == 0
    assert run("score", "dsir", "pool", "--fitted", "dsir.fitted", "-o", "my-scores").code == 0
    assert run("select", "my-scores", *budget, "-o", "again").code == 0
    one, three = corpus.selected_ids(here / "selected"), corpus.selected_ids(here / "again")
    assert one and one == three
    assert sum(name.startswith("reference") for name in one) / len(one) > 0.6


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--version",), 0),
        (("list",), 0),
        (("inspect", "none"), 1),
        (("select", "none", "--budget", "5 apples", "-o", "x"), 1),
        (("score", "dsri", "pool"), 2),
        (("select", "--seed", "one"), 2),
        (("nothing",), 2),
    ],
)
def test_exit_codes(words: tuple[str, ...], code: int) -> None:
    answer = run(*words)
    assert answer.code == code, answer.err
    assert "Traceback" not in answer.err
    assert (answer.out == b"") == (code != 0)


def test_no_arguments_show_help() -> None:
    answer = run()
    assert b"dvsel demo" in answer.out + answer.err.encode()


# --- Names. ---


def test_version() -> None:
    assert ok("--version").out.decode() == f"dvsel {package.__version__}\n"


def test_an_unknown_name_is_answered_with_the_nearest(here: Path) -> None:
    assert "did you mean 'resample'?" in failure(
        "select", "scores", "--method", "resampel", "--budget", "5%", "-o", "x"
    )
    assert "did you mean 'dsir'?" in failure("select", "pool", "--with", "dsri", "--budget", "5%", "-o", "x")
    answer = dvsel("score", "dsri", "pool")
    assert answer.code == 2 and "dsir" in answer.err


# --- inspect, demo. ---


def test_inspect(here: Path) -> None:
    page = ok("inspect", "scores").out.decode()
    assert "scored with dsir" in page and "best documents" in page and "worst documents" in page
    assert "reference" in page and "code" in page and "█" in page
    found = json.loads(ok("inspect", "scores", "--json", "--documents", 5, "--budget", "20 docs").out)
    texts = {document["text"] for document in corpus.pool()}
    scores = [document["score"] for document in found["best"]]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert scores[-1] > max(document["score"] for document in found["worst"])
    for document in found["best"] + found["worst"]:
        assert any(text.startswith(document["text"]) for text in texts)
        line = corpus.read_lines(here / "pool" / document["shard"])[document["line"] - 1]
        assert json.loads(line)["text"].startswith(document["text"])
    assert sum(share["kept_docs"] for share in found["domains"].values()) == 20


def test_inspect_reads_a_selection_too(here: Path) -> None:
    ok("select", "pool", "--with", "dsir", "--target", "target.jsonl", "--budget", "20%", "-w", 1, "-o", "selected")
    told = ok("inspect", "selected").out.decode()
    assert told.startswith("selected ") and "with resample on dsir" in told and "share kept" in told
    assert "scored with dsir" in ok("inspect", "selected/.dvsel/scores").out.decode()


def test_demo_as_json_and_without_a_word(tmp_path: Path) -> None:
    answer = ok("demo", "--json", "-o", tmp_path / "demo")
    assert json.loads(answer.out)["selector"]["name"] == "resample"
    assert all(line.startswith("dvsel: warning: ") for line in answer.err.splitlines())
    assert ok("demo", "--quiet", "-o", tmp_path / "demo").out == b""


def test_demo(tmp_path: Path) -> None:
    page = ok("demo", "-o", tmp_path / "demo").out.decode()
    assert "selected" in page and "documentation" in page and "█" in page
    report = json.loads((tmp_path / "demo" / "selected" / REPORT).read_text())
    share = {name: domain["kept_docs"] / domain["pool_docs"] for name, domain in report["domains"].items()}
    assert max(share, key=lambda name: share[name]) == "documentation"


def test_a_repeatable_flag_of_fit_takes_what_a_shell_makes_of_a_glob(here: Path) -> None:
    ok("fit", "dsir", "--pool", "pool/*", "--target", "target.jsonl", "-o", "quoted.fitted")
    ok("fit", "dsir", "--pool", "pool/a.jsonl", "pool/b.jsonl.zst", "--target", "target.jsonl", "-o", "spread.fitted")

    assert load("quoted.fitted")[1] == load("spread.fitted")[1]
    assert load("spread.fitted")[0].origin["pool"] == ["pool/a.jsonl", "pool/b.jsonl.zst"]


def test_the_pool_of_a_fit_may_stand_without_its_flag(here: Path) -> None:
    ok("fit", "dsir", "pool/a.jsonl", "pool/b.jsonl.zst", "--target", "target.jsonl", "-o", "plain.fitted")
    ok("fit", "dsir", "pool/b.jsonl.zst", "--pool", "pool/a.jsonl", "--target", "target.jsonl", "-o", "mixed.fitted")

    assert load("plain.fitted")[0].origin == load("mixed.fitted")[0].origin
    assert load("plain.fitted")[1] == load("mixed.fitted")[1]


def test_a_fitted_scorer_can_be_looked_at(here: Path) -> None:
    ok("fit", "dsir", "--pool", "pool", "--target", "target.jsonl", "--ngrams", 1, "-o", "x.fitted")

    shown = ok("inspect", "x.fitted").out.decode()
    values = json.loads(ok("inspect", "x.fitted", "--json").out)

    assert "x.fitted: a fitted dsir" in shown and "ngrams = 1" in shown
    assert "  pool: pool\n  target: target.jsonl\n" in shown and f", written {datetime.now(UTC):%Y-%m-%d}" in shown
    assert values["origin"] == {"target": ["target.jsonl"], "pool": ["pool"]}
    assert values["scorer"] == "dsir" and values["options"]["ngrams"] == 1
