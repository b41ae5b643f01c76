"""The command line from the outside: every command once, recipes, exit codes."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

import corpus
import dvsel as package
import language_models
from commands import ROOT, dvsel, failure, ok, run
from dvsel.fitted import load
from dvsel.folder import REPORT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/, target.jsonl and a model, as recipes name them, and scores/."""
    folder = tmp_path_factory.mktemp("data")
    documents = corpus.pool()
    corpus.write(folder / "pool" / "a.jsonl", documents[:200:2])
    corpus.write(folder / "pool" / "b.jsonl.zst", documents[200::2])
    corpus.write(folder / "target.jsonl", corpus.target())
    language_models.build(folder / "models" / "all-MiniLM-L6-v2", "bert", task="MaskedLM")
    ok("score", "dsir", folder / "pool", "--target", folder / "target.jsonl", "-w", 1, "-o", folder / "scores")
    return folder


@pytest.fixture
def here(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with pool/, target.jsonl, models/ and scores/."""
    for name in ("pool", "target.jsonl", "models", "scores"):
        (tmp_path / name).symlink_to(data / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


# --- list, inspect, demo. ---


def test_list() -> None:
    page = ok("list").out.decode()
    listing = json.loads(ok("list", "--json").out)
    assert {entry["name"] for entry in listing["scorers"]} >= {"dsir"}
    assert {entry["name"] for entry in listing["selectors"]} >= {"topk", "resample", "random", "threshold"}
    for entry in listing["scorers"] + listing["selectors"]:
        assert entry["name"] in page
        assert entry["summary"] and "cannot be loaded" not in entry["summary"]


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


# --- Recipes. ---


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_as_it_is(recipe: Path, here: Path) -> None:
    ok("run", recipe, "--workers", 1)
    out = here / yaml.safe_load(recipe.read_text())["output"]
    assert corpus.selected_ids(out)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_flags_beat_a_shipped_recipe(recipe: Path, here: Path) -> None:
    shutil.copy(here / "target.jsonl", here / "wiki.jsonl")
    targets = ["wiki.jsonl"] if "target" in yaml.safe_load(recipe.read_text()) else []
    ok(
        "run",
        recipe,
        "pool/a.jsonl",
        *(word for target in targets for word in ("--target", target)),
        "--budget",
        "10 docs",
        "--seed",
        5,
        "-w",
        1,
        "-o",
        "mine",
    )
    assert [path.name for path in corpus.shards_of(here / "mine")] == ["a-00000.jsonl"]
    assert len(corpus.selected_ids(here / "mine")) == 10
    written = yaml.safe_load((here / "mine" / "recipe.yaml").read_text())
    assert written["pool"] == ["pool/a.jsonl"] and written.get("target", []) == targets
    assert (written["budget"], written["seed"], written["output"]) == ("10 docs", 5, "mine")


RUNS: dict[str, tuple[object, ...]] = {
    "select with a scorer": (
        "select", "pool", "--with", "dsir", "--target", "target.jsonl", "--min-words", 50, "--no-lower",
        "--temperature", 30, "--budget", "100 docs", "--dedup", "--quota", "quota.yaml", "--seed", 3,
    ),
    "select": ("select", "scores", "--min-score=-300", "--shard-size", "20KB"),
    "score": ("score", "dsir", "pool", "--target", "target.jsonl", "--ngrams", 1, "--buckets", 500, "--sample", "head"),
    "score with two targets": (
        "score", "dsir", "pool", "--target", "target.jsonl", "--target", "pool/a.jsonl",
        "--target-proportions", "0.5,0.5", "--separate-targets",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS.keys())
def test_a_written_recipe_replays_to_the_same_bytes(words: tuple[object, ...], here: Path) -> None:
    (here / "quota.yaml").write_text("code: 30%\nreference: 60%\n")
    ok(*words, "-w", 1, "-o", "out")
    first = corpus.tree(here / "out")
    shutil.move(here / "out" / "recipe.yaml", here / "kept.yaml")
    shutil.rmtree(here / "out")
    ok("run", "kept.yaml", "-w", 1)
    assert corpus.tree(here / "out") == first


def test_a_finished_run_replayed_in_its_place_is_finished(here: Path) -> None:
    ok("select", "scores", "--budget", "20%", "-w", 1, "-o", "out")
    first = corpus.tree(here / "out")
    ok("run", "out/recipe.yaml", "-w", 1)
    assert corpus.tree(here / "out") == first


def test_the_recipe_may_come_after_flags(here: Path) -> None:
    ok("select", "scores", "--budget", "20%", "-w", 1, "-o", "out")
    ok("run", "--workers", 1, "--budget", "5 docs", "out/recipe.yaml", "-o", "few")
    assert len(corpus.selected_ids(here / "few")) == 5


def test_another_method_beats_the_recipe(here: Path) -> None:
    ok("select", "scores", "--budget", "10 docs", "--temperature", 3, "--method", "resample", "-w", 1, "-o", "out")
    ok("run", "out/recipe.yaml", "--method", "topk", "-w", 1, "-o", "best")
    ok("select", "scores", "--budget", "10 docs", "--method", "topk", "-w", 1, "-o", "expected")
    assert corpus.selected_ids(here / "best") == corpus.selected_ids(here / "expected")


BAD_RECIPES = {
    "no YAML": b"a: [",
    "a list": b"- a\n",
    "no command": b"budget: 10%\n",
    "another command": b"command: demo\n",
    "unknown option": b"command: select\npool: [scores]\nbugdet: 10%\n",
    "wrong type": b"command: select\npool: scores\nbudget: 10%\n",
    "wrong choice": b"command: select\npool: [scores]\non_bad_line: maybe\n",
    "unknown scorer": b"command: select\nscorer: {name: dsri}\n",
    "unknown option of the scorer": b"command: select\nscorer: {name: dsir, bukets: 5}\n",
    "bad option of the selector": b"command: select\nselector: {name: resample, temperature: -1}\n",
    "neither scorer nor fitted": b"command: score\npool: [pool]\noutput: x\n",
    "not UTF-8": b"command: select\npool: [\xe9]\n",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("content", BAD_RECIPES.values(), ids=BAD_RECIPES.keys())
def test_a_bad_recipe(content: bytes, here: Path) -> None:
    (here / "bad.yaml").write_bytes(content)
    assert "bad.yaml" in failure("run", "bad.yaml", "-w", 1, "-o", "out")
    assert not (here / "out").exists()


def test_an_option_that_is_misspelt_in_a_recipe_is_answered_with_the_nearest(here: Path) -> None:
    (here / "bad.yaml").write_bytes(BAD_RECIPES["unknown option"])
    assert "did you mean 'budget'?" in failure("run", "bad.yaml")


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
