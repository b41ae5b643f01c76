"""The commands as functions: the same options, checks, files and bytes as on the command line."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import corpus
import dvsel
import language_models
from commands import ROOT, environment, ok
from dvsel.documents.columns import Batch
from dvsel.progress import Done
from dvsel.scorers import Fitted
from dvsel.scorers.dsir import DSIR
from dvsel.scorers.perplexity import Perplexity
from dvsel.selectors.resample import Resample
from dvsel.selectors.topk import TopK
from python_pool import OPTIONS, rows, score_pool, write_pool

NAMES = ["EmbedReport", "FittedScorer", "Notice", "ScoreReport", "SelectReport", "UserError", "__version__",
         "embed", "fit", "load_fitted", "read_scores", "score", "select"]  # fmt: skip
FUNCTIONS = ("fit", "score", "select", "embed", "load_fitted", "read_scores")
FLAGS = ("--buckets", 1000, "--min-words", 20, "--normalise", "length")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def target(pool: Path) -> Path:
    return pool.parent / "target.jsonl"


@pytest.fixture(scope="module")
def scored(pool: Path) -> Path:
    return score_pool(pool)


def content(folder: Path) -> dict[str, bytes]:
    """The files of a run, but its recipe, which names the folder, and its lock."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in files.items() if name not in ("recipe.yaml", ".dvsel/lock")}


# --- Names. ---


def python(code: str) -> str:
    """What a Python of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names_are_these() -> None:
    assert dvsel.__all__ == NAMES
    assert set(NAMES) <= set(dir(dvsel))
    assert all(getattr(dvsel, name).__doc__ for name in NAMES)
    with pytest.raises(AttributeError, match="'dvsel' has no attribute 'scores'"):
        dvsel.scores  # noqa: B018


def test_type_checkers_see_each_name_where_it_is_loaded_from() -> None:
    source = ast.parse((ROOT / "dvsel" / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = (one for one in source.body if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING")
    seen = {name.name: one.module for one in checked.body if isinstance(one, ast.ImportFrom) for name in one.names}
    assert seen == {name: getattr(dvsel, name).__module__ for name in NAMES if name != "__version__"}


def test_importing_loads_nothing_heavy() -> None:
    assert python("import sys, dvsel; print([name for name in sys.modules if name.startswith('dvsel.')])") == "[]"
    light = "import sys, dvsel; dvsel.UserError; print({'numpy', 'pyarrow', 'yaml', 'typer'} & sys.modules.keys())"
    assert python(light) == "set()"


def test_a_function_stays_one_when_the_module_of_its_name_is_imported() -> None:
    code = "import dvsel, dvsel.commands.score, dvsel.commands.embed; from dvsel.commands.score import check; "
    assert python(code + "print([callable(getattr(dvsel, name)) for name in dvsel.__all__[7:]])") == str([True] * 6)


def test_all_can_be_imported_at_once() -> None:
    assert python("from dvsel import *; print(callable(score), UserError.__name__)") == "True UserError"


# --- As on the command line. ---


def test_scores_are_those_of_the_command(pool: Path, target: Path, scored: Path, tmp_path: Path) -> None:
    ok("score", "dsir", pool, "--target", target, *FLAGS, "-o", tmp_path / "there")

    assert content(scored) == content(tmp_path / "there")


def test_a_run_of_the_command_line_goes_on_in_python(pool: Path, target: Path, tmp_path: Path) -> None:
    ok("score", "dsir", pool, "--target", target, *FLAGS, "-o", tmp_path / "out")
    there, gone = content(tmp_path / "out"), next((tmp_path / "out").glob("*.dvsel.parquet"))
    gone.unlink()

    dvsel.score("dsir", str(pool), target=target, output=tmp_path / "out", **OPTIONS)

    assert content(tmp_path / "out") == there


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"budget": "20%"}, ("--budget", "20%")),
        ({"budget": "20%", "temperature": 0.1}, ("--budget", "20%", "--temperature", 0.1)),
        ({"budget": "20%", "method": Resample(temperature=0.1)}, ("--budget", "20%", "--temperature", 0.1)),
        ({"budget": "9 docs", "method": "topk"}, ("--budget", "9 docs", "--method", "topk")),
        ({"budget": "9 docs", "method": TopK, "lowest": True}, ("--budget", "9 docs", "-m", "topk", "--lowest")),
        ({"min_score": -2}, ("--min-score", -2)),
        ({"budget": "5%", "quota": "code=1%,*=99%"}, ("--budget", "5%", "--quota", "code=1%,*=99%")),
    ],
)  # fmt: skip
def test_selections_are_those_of_the_command(
    options: dict[str, Any], flags: tuple[Any, ...], scored: Path, tmp_path: Path
) -> None:
    report = dvsel.select(scored, output=tmp_path / "here", **options)
    ok("select", scored, *flags, "-o", tmp_path / "there")

    assert content(tmp_path / "here") == content(tmp_path / "there")
    assert report == dvsel.SelectReport.load(str(tmp_path / "there" / ".dvsel" / "report.json"))
    assert report.given["docs"] > 0


def test_selecting_from_a_pool_scores_it_first(pool: Path, target: Path, tmp_path: Path) -> None:
    dvsel.select(pool, scorer="dsir", target=[target], budget="10%", output=tmp_path / "here", **OPTIONS)
    flags = ("--with", "dsir", "--target", target, *FLAGS, "--budget", "10%")
    ok("select", pool, *flags, "-o", tmp_path / "there")

    here, there = content(tmp_path / "here"), content(tmp_path / "there")
    assert {name: here[name] for name in here if "recipe" not in name} == {
        name: there[name] for name in there if "recipe" not in name
    }


@pytest.mark.parametrize("scorer", [DSIR, DSIR(**OPTIONS)], ids=["class", "instance"])
def test_a_scorer_is_a_name_a_class_or_an_instance(
    scorer: Any, pool: Path, target: Path, scored: Path, tmp_path: Path
) -> None:
    options = {} if isinstance(scorer, DSIR) else OPTIONS
    shards: Iterator[Path] = (file for file in sorted(pool.iterdir()))

    dvsel.score(scorer, list(shards), target=target, output=tmp_path / "out", **options)

    scores = {name: file for name, file in content(tmp_path / "out").items() if name.endswith(".parquet")}
    assert {name: content(scored)[name] for name in scores} == scores and len(scores) == 4


def test_vectors_are_those_of_the_command(pool: Path, sentence_encoder: str, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "some.jsonl", corpus.pool()[:8])
    report = dvsel.embed(shard, model=sentence_encoder, dtype="float32", output=tmp_path / "here")
    ok("embed", shard, "--model", sentence_encoder, "--dtype", "float32", "-o", tmp_path / "there")

    assert content(tmp_path / "here") == content(tmp_path / "there")
    assert (report.totals.docs, report.dtype) == (8, "float32")
    kept = dvsel.select(tmp_path / "here", method="semdedup", budget="50% docs", output=tmp_path / "kept")
    assert kept.given["docs"] == 4


# --- Fitted scorers. ---


@pytest.fixture(scope="module")
def fitted(pool: Path, target: Path) -> dvsel.FittedScorer:
    return dvsel.fit("dsir", pool, target=target, output=pool.parent / "dsir.fitted", **OPTIONS)


def test_a_fit_is_that_of_the_command(fitted: dvsel.FittedScorer, pool: Path, target: Path, tmp_path: Path) -> None:
    ok("fit", "dsir", "--pool", pool, "--target", target, *FLAGS, "-o", tmp_path / "dsir.fitted")

    assert Path(fitted).read_bytes() == (tmp_path / "dsir.fitted").read_bytes()
    assert dvsel.load_fitted(Path(fitted)) == fitted
    assert fitted.scorer == DSIR(**OPTIONS)


def test_texts_have_the_scores_of_documents(pool: Path, scored: Path, fitted: dvsel.FittedScorer) -> None:
    """The empty one, and the one that is too short, too."""
    documents = [json.loads(line) for line in corpus.read_lines(pool / "0.jsonl", pool / "3.jsonl")]
    there = [pq.read_table(scored / f"{number}.jsonl.dvsel.parquet")["score"].to_numpy() for number in (0, 3)]

    scores = fitted.score_texts([one["text"] for one in documents])

    assert scores.dtype == np.float32 and scores.shape == (len(documents),)
    assert np.array_equal(scores, np.concatenate(there), equal_nan=True)
    assert np.isfinite(scores[:-2]).any() and np.isnan(scores[-2:]).all()


class Logarithms(Fitted):
    """Scores by log2(size - 1), and empty texts too."""

    def score(self, batch: Batch) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log2(np.abs(batch.text.sizes - 1)).astype(np.float32)


def test_empty_texts_and_infinite_scores_are_none_whatever_the_scorer_says() -> None:
    """As `dvsel.pool.read.PoolBatch.score` has it."""
    made = dvsel.FittedScorer("logarithms.fitted", "", Logarithms(DSIR(), {}))
    assert made.score_texts(["", "a", "abc"]).tolist() == pytest.approx([np.nan, np.nan, 1], nan_ok=True)


def test_scores_of_texts_do_not_depend_on_batches(fitted: dvsel.FittedScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [one["text"] for one in corpus.pool()[:50]]
    scores = fitted.score_texts(texts)
    monkeypatch.setattr("dvsel.api._AT_ONCE", 1000)
    assert np.array_equal(fitted.score_texts(iter(texts)), scores, equal_nan=True)
    assert fitted.score_texts([]).shape == (0,)


def test_a_language_model_scores_texts_as_it_scores_documents(pool: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = language_models.build(tmp_path / "model")
    options: dict[str, Any] = {"model": model, "output": tmp_path / "f"}
    documents = corpus.pool()[:20]
    shard = corpus.write(tmp_path / "some.jsonl", [*documents, {"text": ""}])
    made = dvsel.fit("perplexity", **options)
    dvsel.score(made, shard, output=tmp_path / "scores")
    there = dvsel.read_scores(tmp_path / "scores").to_table()["score"].to_numpy()

    scores = made.score_texts([*(one["text"] for one in documents), ""])

    assert np.allclose(scores, there, atol=1e-5, equal_nan=True) and np.isfinite(scores).sum() == 20
    prompted = dvsel.fit("perplexity", prompt_field="question", **options)
    with pytest.raises(dvsel.UserError, match="scores by question beside the text; score shards"):
        prompted.score_texts(["a"])


def test_several_scores_are_several_columns(pool: Path, target: Path, tmp_path: Path) -> None:
    other = corpus.write(tmp_path / "other.jsonl", corpus.pool()[-20:])
    made = dvsel.fit("dsir", pool, target=[target, other], separate_targets=True, output=tmp_path / "f", **OPTIONS)
    scores = made.score_texts([one["text"] for one in corpus.pool()[:3]])
    assert scores.shape == (3, 2) and made.groups == ("target.jsonl", "other.jsonl")


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ("one text", "texts is 'one text'; it takes a list of strings"),
        (["a", None], "None is not text; give a list of strings"),
        (["half \ud800"], "has half of a surrogate pair; take it out"),
    ],
)
def test_what_is_no_text_is_refused(texts: Any, error: str, fitted: dvsel.FittedScorer) -> None:
    with pytest.raises(dvsel.UserError, match=error):
        fitted.score_texts(texts)


def test_a_fitted_scorer_stands_in_place_of_one(
    fitted: dvsel.FittedScorer, pool: Path, scored: Path, tmp_path: Path
) -> None:
    dvsel.score(fitted, pool, output=tmp_path / "object")
    dvsel.score("dsir", pool, fitted=fitted.path, output=tmp_path / "file")
    dvsel.select(pool, scorer=fitted, budget="5 docs", temperature=0.1, output=tmp_path / "kept")

    for place in ("object", "file", "kept"):
        assert rows(dvsel.read_scores(tmp_path / place)) == rows(dvsel.read_scores(scored))
    with pytest.raises(dvsel.UserError, match=r"buckets: is for a fit, and .*dsir.fitted is one that is done"):
        dvsel.score(fitted, pool, buckets=5, output=tmp_path / "none")
    with pytest.raises(TypeError, match=r"fitted: the scorer is that of .*dsir.fitted already; name one of the two"):
        dvsel.score(fitted, pool, fitted="other", output=tmp_path / "none")
    with pytest.raises(dvsel.UserError, match="is a fitted dsir, not fasttext"):
        dvsel.score("fasttext", pool, fitted=fitted, output=tmp_path / "none")


# --- What is wrong. ---


def test_an_unknown_keyword_is_a_type_error_with_the_nearest(pool: Path, target: Path) -> None:
    with pytest.raises(TypeError, match=r"dvsel.score\(\) takes no keyword 'normalize'; did you mean 'normalise'\?"):
        dvsel.score("dsir", pool, target=target, normalize="length", output="none")
    with pytest.raises(TypeError, match="buckets: DSIR is made already; give the option there"):
        dvsel.score(DSIR(), pool, target=target, buckets=5, output="none")
    with pytest.raises(TypeError, match="5 is no scorer; give a name, a class or an instance"):
        dvsel.score(5, pool, target=target, output="none")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress is 3; give True, False or a function"):
        dvsel.score("dsir", pool, target=target, progress=3, output="none")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is no selector"):
        dvsel.select(pool, method=DSIR, output="none")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"buckets": "many"}, "DSIR: option 'buckets' is 'many'; it takes int"),
        ({"normalise": "no"}, "DSIR: normalise 'no': unknown; give one of"),
        ({"on_bad_line": 3}, "dvsel.score: option 'on_bad_line' is 3; it takes str"),
        ({"workers": -1}, "workers -1: out of range; give 0 to 1024"),
        ({"token_sample": 5}, "--token-sample: belongs to --tokenizer; add that, or drop it"),
        ({"distil_floor": 0.5}, "--distil-floor: says how to distil; add --distil, or drop it"),
        ({"output": "-"}, "output '-': is not a place for files; name a file or a folder"),
        ({"output": None}, "output '': is not a place for files; name a file or a folder"),
        ({"output": 5}, "option 'output' is 5; it takes str"),
        ({"pool": []}, "nothing to score; name shards or folders"),
        ({"pool": "-"}, "pool '-': means stdin on the command line; name shards or folders"),
        ({"target": ()}, "dsir needs a target; name one with --target FILE"),
        ({"scorer": "dsri"}, "no scorer is named 'dsri'; did you mean 'dsir'"),
        ({"id_field": "nowhere"}, "documents has a field 'nowhere' (--id-field)"),
    ],
)
def test_options_are_checked_as_on_the_command_line(
    options: dict[str, Any], error: str, pool: Path, target: Path, tmp_path: Path
) -> None:
    named: dict[str, Any] = {"scorer": "dsir", "pool": pool, "target": target, "output": tmp_path / "out"} | options
    with pytest.raises(dvsel.UserError, match=re.escape(error)):
        dvsel.score(**named)
    assert not (tmp_path / "out").exists()


def test_what_a_run_does_not_read_is_refused(pool: Path, target: Path, scored: Path, tmp_path: Path) -> None:
    with pytest.raises(dvsel.UserError, match="--tokenizer: is for scoring, and this run takes scores as they are"):
        dvsel.select(scored, budget="10%", tokenizer="gpt2", output=tmp_path / "out")
    with pytest.raises(dvsel.UserError, match="--workers: "):
        dvsel.fit(Perplexity(model="none"), workers=2, output=tmp_path / "out")
    with pytest.raises(dvsel.UserError, match=r"--sample: .*drop it"):
        dvsel.fit("perplexity", model="none", sample="uniform", output=tmp_path / "out")


def test_a_package_that_is_not_there_is_named_with_its_extra(pool: Path, tmp_path: Path) -> None:
    calls = (
        f"dvsel.embed({str(pool)!r}, model='m', output={str(tmp_path / 'out')!r})",
        f"dvsel.fit('perplexity', model='m', output={str(tmp_path / 'f')!r}).score_texts(['a'])",
    )
    for call in calls:
        code = f"import sys, dvsel\nsys.modules['torch'] = None\ntry: {call}\nexcept dvsel.UserError as e: print(e)"
        assert python(code).endswith("the package torch; pip install 'dvsel[models]'")


def test_what_two_have_an_option_for_is_asked_back() -> None:
    """None of dvsel's own methods have one; those of others may."""
    from dvsel.api import _parted
    from dvsel.runs.requests import ScoreRun

    with pytest.raises(TypeError, match="'window' is an option of Perplexity and Perplexity; make the latter with it"):
        _parted("score", {"window": 5}, ScoreRun, Perplexity, Perplexity)


# --- How it is carried out. ---


def test_nothing_is_printed(pool: Path, target: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dvsel.score("dsir", pool, target=target, output=tmp_path / "scores", workers=2, **OPTIONS)
    dvsel.select(tmp_path / "scores", budget="10%", output=tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_progress_is_told_to_a_function(pool: Path, target: Path, tmp_path: Path) -> None:
    told: list[tuple[str, Done, int]] = []

    dvsel.score("dsir", pool, target=target, output=tmp_path / "out", progress=lambda *one: told.append(one), **OPTIONS)

    assert {"sampling the pool", "fitting dsir", "scoring"} <= {stage for stage, _, _ in told}
    stage, done, total = told[-1]
    assert (stage, done.bytes, done.documents) == ("scoring", total, len(corpus.pool()) + 2)


def test_progress_is_shown_where_it_is_asked_for(
    pool: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dvsel.stages._FIRST_LINE", 0.01)
    monkeypatch.setattr("dvsel.stages._NEXT_LINES", 0.01)
    dvsel.score("dsir", pool, target=target, output=tmp_path / "out", progress=True, **OPTIONS)
    out, err = capfd.readouterr()
    assert out == "" and "dsir: " in err


def test_another_run_is_replaced_when_asked(pool: Path, target: Path, tmp_path: Path) -> None:
    dvsel.score("dsir", pool, target=target, output=tmp_path / "out", **OPTIONS)
    other = OPTIONS | {"buckets": 99}
    with pytest.raises(dvsel.UserError, match="holds another run"):
        dvsel.score("dsir", pool, target=target, output=tmp_path / "out", **other)
    dvsel.score("dsir", pool, target=target, output=tmp_path / "out", overwrite=True, **other)
    assert dvsel.load_fitted(tmp_path / "out" / "dsir.fitted").scorer == DSIR(**other)


def test_shards_may_come_one_by_one(pool: Path, scored: Path, tmp_path: Path) -> None:
    dvsel.select(iter([scored]), budget="9 docs", temperature=0.1, output=tmp_path / "out")
    dvsel.select(scored, budget="9 docs", temperature=0.1, output=tmp_path / "same")
    assert content(tmp_path / "out") == content(tmp_path / "same")
    with pytest.raises(dvsel.UserError, match="it takes a list"):
        dvsel.score("dsir", np.array([str(pool)]), output=tmp_path / "none")  # type: ignore[arg-type]
    with pytest.raises(dvsel.UserError, match="option 'pool' is 5; it takes a list"):
        dvsel.select(5, budget="9 docs", output=tmp_path / "none")  # type: ignore[arg-type]


def test_what_is_odd_is_a_warning(pool: Path, tmp_path: Path) -> None:
    short = corpus.write(tmp_path / "short.jsonl", [{"text": "a b c d"}, *corpus.target()])
    with pytest.warns(dvsel.Notice, match="the bound is"):
        dvsel.fit("dsir", pool, target=short, output=tmp_path / "f", buckets=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", category=dvsel.Notice)
        with pytest.raises(dvsel.Notice):
            dvsel.fit("dsir", pool, target=short, output=tmp_path / "f", buckets=1000)


def test_a_script_needs_no_guard_for_workers(pool: Path, target: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, dvsel\nprint('once')\n"
        "report = dvsel.score('dsir', sys.argv[1], target=sys.argv[2], output=sys.argv[3], workers=2)\n"
        "print(report.totals.rows, sys.modules['__main__'].report is report)\n"
    )
    words = [sys.executable, str(script), str(pool), str(target), str(tmp_path / "out")]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["once", f"{len(corpus.pool()) + 2} True"], done.stderr
