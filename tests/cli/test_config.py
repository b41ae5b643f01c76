"""Defaults of one's own, from the environment and from a file: taken where they apply, refused where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import corpus
from commands import dvsel, failure, ok


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with pool/ and target.jsonl, and a configuration file to be written."""
    corpus.write(tmp_path / "pool" / "a.jsonl", corpus.pool()[:60])
    corpus.write(tmp_path / "target.jsonl", corpus.target()[:20])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVSEL_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("")
    return tmp_path


SCORE = ("score", "dsir", "pool", "--target", "target.jsonl", "-o", "out")
PLENTY = ("--min-words", "5")  # of which no document has fewer, which would be told


def configure(text: str) -> None:
    Path("config.toml").write_text(text)


def recipe(folder: str = "out") -> dict[str, object]:
    values = yaml.safe_load(Path(folder, "recipe.yaml").read_text())
    assert isinstance(values, dict)
    return values


# --- The file. ---


def test_a_command_takes_its_defaults_from_the_file(here: Path) -> None:
    configure('[score]\non-bad-line = "skip"\nsample_size = "1MB"\n[score.dsir]\nmin-words = 7\nlower = false\n')
    ok(*SCORE)

    found = recipe()
    assert found["on_bad_line"] == "skip" and found["sample_size"] == "1MB"
    assert found["scorer"] == {**found["scorer"], "min_words": 7, "lower": False}  # type: ignore[dict-item]


def test_what_the_command_line_says_beats_the_file(here: Path) -> None:
    configure('[score.dsir]\nmin-words = 7\nnormalise = "length"\n')
    ok(*SCORE, "--min-words", 9)

    assert recipe()["scorer"]["min_words"] == 9 and recipe()["scorer"]["normalise"] == "length"  # type: ignore[index]


def test_a_recipe_beats_the_file(here: Path) -> None:
    ok(*SCORE, "--min-words", 9)
    configure("[score.dsir]\nmin-words = 7\n")
    ok("run", "out/recipe.yaml", "-o", "again")

    assert recipe("again")["scorer"]["min_words"] == 9  # type: ignore[index]


def test_the_file_may_name_the_method_of_a_selection(here: Path) -> None:
    ok(*SCORE)
    configure('[select]\nmethod = "resample"\nbudget = "10 docs"\n[select.resample]\ntemperature = 50.0\n')
    ok("select", "out", "-o", "selected")
    ok("select", "out", "--method", "topk", "-o", "best")

    assert recipe("selected")["selector"] == {"name": "resample", "temperature": 50.0}
    assert recipe("best")["selector"]["name"] == "topk"  # type: ignore[index]


def test_a_default_that_does_not_apply_is_left_aside(here: Path) -> None:
    ok("fit", "dsir", "--pool", "pool", "--target", "target.jsonl", "-o", "x.fitted")
    configure(
        '[score]\ntarget = ["target.jsonl"]\nsample = "head"\ndomain-field = "id"\nworkers = 2\noverwrite = true\n'
        '[select]\ntokens-field = "tokens"\ndomain-field = "id"\nbudget = "5 docs"\n'
    )
    line = corpus.lines(corpus.pool()[:1])
    assert b"dvsel_dsir" in ok("score", "dsir", "--fitted", "x.fitted", "-", stdin=line).out
    ok("score", "dsir", "pool", "--fitted", "x.fitted", "-w", 1, "-o", "out")
    assert "target" not in recipe() and recipe()["sample"] == "uniform"
    configure('[select]\ntokens-field = "tokens"\ndomain-field = "other"\nbudget = "5 docs"\n')
    ok("select", "out", "-o", "selected")
    assert "tokens_field" not in recipe("selected") and recipe("selected")["domain_field"] == "id"
    ok("run", "selected/recipe.yaml", "-o", "again")
    assert "--tokens-field: is for scoring" in failure("select", "out", "--tokens-field", "t", "-o", "refused")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[score]\nbukets = 5\n", "config.toml: [score]: no option 'bukets'"),
        ("[score.dsir]\nbukets = 5\n", "config.toml: [score.dsir]: no option 'bukets'; did you mean 'buckets'?"),
        ("[score]\nworkers = 'two'\n", "config.toml: [score] workers is 'two'; it takes int"),
        (
            "[score]\nsample = 'tail'\n",
            "[score] sample 'tail': unknown; give one of uniform, shards, head",
        ),
        ("[score]\ntarget = 'a.jsonl'\n", "config.toml: [score] target is 'a.jsonl'; it takes a list"),
        ("[score.dsri]\nbuckets = 5\n", "[score.dsri] is not a method of dvsel score; did you mean 'dsir'?"),
        ("[scroe]\nworkers = 2\n", "[scroe] is not a command with defaults; did you mean 'score'?"),
        ("workers = 2\n", "'workers' is in no table; put it under that of a command, such as [score]"),
        ("[score\n", "config.toml: not valid TOML: "),
        ("[score.dsir]\nmin-words = -5\n", "min_words -5: out of range"),
    ],
)
def test_a_file_that_cannot_be_is_refused_with_its_place(here: Path, text: str, says: str) -> None:
    configure(text)
    assert says in failure(*SCORE)
    assert not Path("out").exists()


def test_a_file_that_is_named_and_not_there_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVSEL_CONFIG", "absent.toml")
    assert "absent.toml: no such file; DVSEL_CONFIG names it" in failure(*SCORE)


def test_where_the_file_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVSEL_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "x"))
    monkeypatch.setenv("HOME", str(here / "home"))
    for number, place in enumerate(("home/.config", "x")):
        Path(place, "dvsel").mkdir(parents=True)
        Path(place, "dvsel", "config.toml").write_text(f"[score.dsir]\nmin-words = {number}\n")
    ok(*SCORE)
    monkeypatch.delenv("XDG_CONFIG_HOME")
    ok(*SCORE[:-1], "other")
    assert [recipe(name)["scorer"]["min_words"] for name in ("out", "other")] == [1, 0]  # type: ignore[index]


def test_every_command_made_of_options_takes_them(here: Path) -> None:
    for command in ("score dsir", "select", "fit dsir", "embed", "losses", "strength", "trace"):
        configure(f"[{command.split()[0]}]\nzzz = 1\n")
        assert "no option 'zzz'" in failure(*command.split(), "x", "-o", "y")


# --- The environment. ---


def test_the_environment_says_workers_and_quiet(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVSEL_QUIET", "1")
    monkeypatch.setenv("DVSEL_WORKERS", "1")
    assert ok(*SCORE, *PLENTY).err == ""
    page = ok("score", "dsir", "--help-all").out.decode()
    assert "DVSEL_WORKERS" in page and "DVSEL_QUIET" in page


def test_the_environment_beats_the_file_and_is_left_aside_on_a_stream(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVSEL_WORKERS", "1")
    configure("[score]\nworkers = 5000\n[select]\nworkers = 3\n")
    ok(*SCORE)
    line = b'{"dvsel_dsir": 1}\n'
    assert ok("select", "--min-score", 0, "-", stdin=line).out == line
    assert "--workers: is for shards" in failure("select", "--min-score", 0, "-w", 1, "-", stdin=line)


def test_an_environment_that_cannot_be_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVSEL_WORKERS", "many")
    answer = dvsel(*SCORE)
    assert answer.code == 2 and "DVSEL_WORKERS" in answer.err
    monkeypatch.setenv("DVSEL_WORKERS", "-3")
    assert "workers -3: out of range" in failure(*SCORE)


def test_the_cache_lies_where_the_environment_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvsel.fasttext import cache
    from dvsel.kernels.jit import _candidates

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(here / "numba"))
    monkeypatch.setenv("DVSEL_CACHE", str(here / "mine"))
    assert cache.folder() == here / "mine" / "fasttext"
    assert next(_candidates()) == here / "mine" / "kernels"
    ok("list")
    assert (here / "mine").is_dir()


def test_a_cache_that_cannot_be_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVSEL_CACHE", str(here / "target.jsonl"))
    assert "DVSEL_CACHE" in failure(*SCORE)
    (here / "open").mkdir()
    (here / "open").chmod(0o777)
    monkeypatch.setenv("DVSEL_CACHE", str(here / "open"))
    assert "others can write there" in failure(*SCORE)


# --- Recipes. ---


def test_a_flag_that_leaves_a_recipe_s_options_without_use_is_not_refused(here: Path) -> None:
    ok(*SCORE, "--sample", "head")
    ok("fit", "dsir", "--pool", "pool", "--target", "target.jsonl", "-o", "x.fitted")
    ok("run", "out/recipe.yaml", "--fitted", "x.fitted", "-o", "again")
    assert "target" not in recipe("again")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("command: score\nscorer: dsir\npool: [pool]\ndistil_documents: 5\n", "r.yaml: --distil-documents: says how"),
        ("command: select\npool: [out]\nbudget: 10%\ntokenizer: x\n", "r.yaml: --tokenizer: is for scoring"),
        (
            "command: fit\nscorer: {name: target, preset: mean, fit_documents: 5}\n",
            "--fit-documents: belongs to --preset",
        ),
    ],
)
def test_a_recipe_with_an_option_that_nothing_reads_is_refused(here: Path, text: str, says: str) -> None:
    Path("r.yaml").write_text(text)
    assert says in failure("run", "r.yaml", "-o", "x")


def test_json_of_a_fit(here: Path) -> None:
    answer = ok(
        "fit", "dsir", "--pool", "pool", "--target", "target.jsonl", *PLENTY, "--json", "--quiet", "-o", "x.fitted"
    )
    found = json.loads(answer.out)
    assert found["scorer"] == "dsir" and found["output"] == "x.fitted" and answer.err == ""
