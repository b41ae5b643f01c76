"""`dvsel fit` and `dvsel score` over every kind of input: row-aligned score files that say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest
import yaml

import corpus
from commands import dvsel, failure, ok
from dvsel.documents.columns import Status
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows

POOL = corpus.pool()[::3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool.jsonl, target.jsonl, dsir.fitted, and the scores of the pool."""
    folder = tmp_path_factory.mktemp("score")
    corpus.write(folder / "pool.jsonl", POOL)
    corpus.write(folder / "target.jsonl", corpus.target())
    ok("fit", "dsir", "--pool", folder / "pool.jsonl", "--target", folder / "target.jsonl", "--min-words", 20,
       "-o", folder / "dsir.fitted")  # fmt: skip
    score(folder, folder / "pool.jsonl", folder / "scores")
    return folder


def score(folder: Path, pool: object, out: object, *more: object) -> str:
    """Score a pool with the fitted scorer of the folder; returns the summary."""
    return ok("score", "dsir", pool, "--fitted", folder / "dsir.fitted", "-w", 1, "-o", out, *more).err


def rows(place: object) -> Rows:
    (found,) = ScoreFile(str(place)).rows()
    return found


def same_scores(place: object, folder: Path) -> None:
    found, expected = rows(place), rows(folder / "scores" / "pool.jsonl.dvsel.parquet")
    np.testing.assert_array_equal(found.score, expected.score)
    np.testing.assert_array_equal(found.key, expected.key)


def test_a_score_file_has_a_row_for_each_line(folder: Path) -> None:
    file = ScoreFile(str(folder / "scores" / "pool.jsonl.dvsel.parquet"))
    found = rows(file.url)
    assert len(file) == len(POOL)
    np.testing.assert_array_equal(found.bytes, [len(document["text"].encode()) for document in POOL])
    assert [found.domains[number] for number in found.domain] == [document["domain"] for document in POOL]
    np.testing.assert_array_equal(np.isnan(found.score[:, 0]), found.status == Status.UNSCORED)
    of_domain = {name: np.nanmean(found.score[found.domain == at, 0]) for at, name in enumerate(found.domains)}
    assert of_domain["reference"] > of_domain["code"]
    assert file.header.shard.url == str(folder / "pool.jsonl")
    assert file.header.scorer.startswith("dsir")


def test_the_report_and_the_summary(folder: Path, tmp_path: Path) -> None:
    err = score(folder, folder / "pool.jsonl", tmp_path / "scores")
    found = rows(tmp_path / "scores" / "pool.jsonl.dvsel.parquet")
    scored = int((found.status == Status.SCORED).sum())
    assert f"scored {scored} of {len(POOL)} documents in 1 shards with dsir" in err
    assert "estimated" in err and "%" in err
    assert f"no score for {len(POOL) - scored} documents: fewer than 20 words" in err
    report = json.loads((tmp_path / "scores" / REPORT).read_text())
    assert report["totals"]["docs"] == scored
    assert report["totals"]["tokens"] == int(found.tokens[found.status == Status.SCORED].sum())


def test_the_summary_as_json_and_no_summary(folder: Path, tmp_path: Path) -> None:
    command = ("score", "dsir", folder / "pool.jsonl", "--fitted", folder / "dsir.fitted", "-w", 1, "-o")
    report = json.loads(ok(*command, tmp_path / "one", "--json").out)
    assert report["scorer"].startswith("dsir")
    assert report == json.loads((tmp_path / "one" / REPORT).read_text())
    answer = ok(*command, tmp_path / "two", "--quiet")
    assert (answer.out, answer.err) == (b"", "")


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    command = ("score", "dsir", folder / "pool.jsonl", "--target", folder / "target.jsonl", "--min-words", 7, "-w", 1)
    answer = ok(*command, "-o", tmp_path / "scores", "--dry-run")
    said = answer.out.decode() + answer.err
    assert "1 shards" in said and "documents" in said and "tokens" in said and "min_words: 7" in said
    assert not (tmp_path / "scores").exists()


def test_fitting_and_scoring_in_one_command_is_the_same(folder: Path, tmp_path: Path) -> None:
    ok("score", "dsir", folder / "pool.jsonl", "--target", folder / "target.jsonl", "--min-words", 20, "-w", 1,
       "-o", tmp_path / "scores")  # fmt: skip
    assert (tmp_path / "scores" / "dsir.fitted").read_bytes() == (folder / "dsir.fitted").read_bytes()
    same_scores(tmp_path / "scores" / "pool.jsonl.dvsel.parquet", folder)


# --- Places. ---


def test_files_folders_and_globs(folder: Path, tmp_path: Path) -> None:
    corpus.write(tmp_path / "pool" / "a.jsonl", POOL[:50])
    corpus.write(tmp_path / "pool" / "deep" / "b.jsonl.gz", POOL[50:100])
    corpus.write(tmp_path / "pool" / "deep" / "c.jsonl.zst", POOL[100:])
    corpus.write(tmp_path / "pool" / "notes.txt", b"no shard")
    names = {"a.jsonl", "deep/b.jsonl.gz", "deep/c.jsonl.zst"}
    for number, pool in enumerate(
        [tmp_path / "pool", tmp_path / "pool" / "**" / "*.jsonl*", f"file://{tmp_path}/pool"]
    ):
        out = tmp_path / str(number)
        score(folder, pool, out)
        found = {str(path.relative_to(out)) for path in out.rglob("*.parquet")}
        assert found == {f"{name}.dvsel.parquet" for name in names}


def test_urls_of_fsspec_for_pool_target_fit_scores_and_output(folder: Path) -> None:
    base = f"memory://{uuid4().hex}"
    memory = fsspec.filesystem("memory")
    for name in ("pool.jsonl", "target.jsonl"):
        memory.pipe(f"{base}/{name}", (folder / name).read_bytes())
    ok("fit", "dsir", "--pool", f"{base}/pool.jsonl", "--target", f"{base}/target.jsonl", "--min-words", 20, "-w", 1,
       "-o", f"{base}/dsir.fitted")  # fmt: skip
    ok("score", "dsir", f"{base}/pool.jsonl", "--fitted", f"{base}/dsir.fitted", "-w", 1, "-o", f"{base}/scores")
    same_scores(f"{base}/scores/pool.jsonl.dvsel.parquet", folder)
    ok("select", f"{base}/scores", "--budget", "100%", "-w", 1, "-o", f"{base}/out")
    lines = memory.cat(f"{base}/out/pool-00000.jsonl").splitlines()
    scored = rows(folder / "scores" / "pool.jsonl.dvsel.parquet").status == Status.SCORED
    expected = corpus.lines(document for document, kept in zip(POOL, scored, strict=True) if kept)
    assert lines == expected.splitlines()


def test_a_folder_that_datasets_saved(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(POOL).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    assert f"of {len(POOL)} documents in 2 shards" in score(folder, tmp_path / "saved", tmp_path / "scores")
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    expected = rows(folder / "scores" / "pool.jsonl.dvsel.parquet").status == Status.SCORED
    assert corpus.selected_ids(tmp_path / "out") == {
        document["id"] for document, kept in zip(POOL, expected, strict=True) if kept
    }


def test_a_hub_that_cannot_be_reached_or_used_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    url = "hf://datasets/nobody/nothing"
    assert url in failure("score", "dsir", url, "--fitted", folder / "dsir.fitted", "-o", tmp_path / "scores")
    assert "nosuch://" in failure("score", "dsir", "nosuch://a/b.jsonl", "--fitted", folder / "dsir.fitted", "-o", "x")


# --- Fields. ---


def test_fields_of_other_names_and_inside_objects(folder: Path, tmp_path: Path) -> None:
    nested = [{"meta": {"text": one["text"], "name": one["id"], "source": {"kind": one["domain"]}}} for one in POOL]
    more = ("--text-field", "meta.text", "--id-field", "meta.name", "--domain-field", "meta.source.kind")
    for name in ("pool.jsonl", "pool.parquet"):
        shard = corpus.write(tmp_path / name / name, nested)
        score(folder, shard, tmp_path / f"{name} scores", *more)
        place = tmp_path / f"{name} scores" / f"{name}.dvsel.parquet"
        same_scores(place, folder)
        found = rows(place)
        assert [found.domains[number] for number in found.domain] == [document["domain"] for document in POOL]


def test_tokens_of_a_field_are_taken_as_they_are(folder: Path, tmp_path: Path) -> None:
    documents = [document | {"meta": {"n": number}} for number, document in enumerate(POOL)]
    shard = corpus.write(tmp_path / "a.jsonl", documents)
    err = score(folder, shard, tmp_path / "scores", "--tokens-field", "meta.n")
    found = rows(tmp_path / "scores" / "a.jsonl.dvsel.parquet")
    assert found.tokens.tolist() == list(range(len(POOL)))
    assert "meta.n" in err
    bad = corpus.write(tmp_path / "b.jsonl", [documents[0], documents[1] | {"meta": {"n": -1}}])
    words = ("score", "dsir", bad, "--fitted", folder / "dsir.fitted", "--tokens-field", "meta.n", "-w", 1)
    assert f"{bad}, line 2: " in failure(*words, "-o", tmp_path / "bad")


def test_tokens_counted_by_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]").save_pretrained(tmp_path / "words")
    err = score(folder, folder / "pool.jsonl", tmp_path / "exact", "--tokenizer", tmp_path / "words")
    found = rows(tmp_path / "exact" / "pool.jsonl.dvsel.parquet")
    assert found.tokens.tolist() == [len(document["text"].split()) for document in POOL]
    assert "estimated" not in err
    err = score(folder, folder / "pool.jsonl", tmp_path / "guess", "--tokenizer", tmp_path / "words",
                "--token-sample", 100)  # fmt: skip
    assert "estimated" in err and "%" in err
    guessed = rows(tmp_path / "guess" / "pool.jsonl.dvsel.parquet").tokens.sum()
    assert abs(guessed / found.tokens.sum() - 1) < 0.1


def test_a_tokenizer_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    words = ("score", "dsir", folder / "pool.jsonl", "--fitted", folder / "dsir.fitted", "-w", 1, "-o", tmp_path / "s")
    assert str(tmp_path / "none") in failure(*words, "--tokenizer", tmp_path / "none")


# --- Fits. ---


def test_several_targets_with_proportions(folder: Path, tmp_path: Path) -> None:
    code = corpus.write(tmp_path / "code.jsonl", [one for one in corpus.pool() if one["domain"] == "code"][:30])
    fit = ("score", "dsir", folder / "pool.jsonl", "--target", folder / "target.jsonl", "--target", code, "-w", 1)
    ok(*fit, "--target-proportions", "0.9,0.1", "-o", tmp_path / "joined")
    ok(*fit, "--separate-targets", "--target-proportions", "0.25,0.75", "-o", tmp_path / "separate")
    header = ScoreFile(str(tmp_path / "separate" / "pool.jsonl.dvsel.parquet")).header
    assert header.groups == ("target.jsonl", "code.jsonl")
    assert header.shares == (0.25, 0.75)
    ok("select", tmp_path / "separate", "--budget", "40%", "-w", 1, "-o", tmp_path / "out")
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    asked = [stratum["asked"] for stratum in report["strata"]]
    assert asked[0] == report["asked"] // 4 and sum(asked) == report["asked"]
    message = failure(*fit, "--target-proportions", "1,2,3", "-o", tmp_path / "wrong")
    assert "3 numbers for 2 targets" in message


@pytest.mark.parametrize("sample", ["uniform", "shards", "head"])
def test_every_way_to_sample_the_pool(sample: str, folder: Path, tmp_path: Path) -> None:
    for part in range(4):
        corpus.write(tmp_path / "pool" / f"{part}.jsonl", POOL[part::4])
    command = ("score", "dsir", tmp_path / "pool", "--target", folder / "target.jsonl", "-w", 1)
    ok(*command, "--sample", sample, "--sample-size", "40KB", "-o", tmp_path / "scores")
    recipe = yaml.safe_load((tmp_path / "scores" / "recipe.yaml").read_text())
    assert (recipe["sample"], recipe["sample_size"]) == (sample, "40KB")


def test_what_a_fit_lacks_is_said(folder: Path, tmp_path: Path) -> None:
    pool, target = folder / "pool.jsonl", folder / "target.jsonl"
    assert "--target" in failure("score", "dsir", pool, "-w", 1, "-o", tmp_path / "a")
    assert "pool" in failure("fit", "dsir", "--target", target, "-o", tmp_path / "f")
    assert "-o" in failure("fit", "dsir", "--pool", pool, "--target", target)
    assert "-o" in failure("score", "dsir", pool, "--target", target)
    assert "--sample-size" in failure("fit", "dsir", "--pool", pool, "--target", target, "--sample-size", "10 docs",
                                      "-o", tmp_path / "f")  # fmt: skip
    assert "buckets" in failure("fit", "dsir", "--pool", pool, "--target", target, "--buckets", 0, "-o", tmp_path / "f")


def test_options_that_a_fitted_scorer_makes_void_are_refused(folder: Path, tmp_path: Path) -> None:
    command = (
        "score",
        "dsir",
        folder / "pool.jsonl",
        "--fitted",
        folder / "dsir.fitted",
        "-w",
        1,
        "-o",
        tmp_path / "s",
    )
    for more in (("--min-words", 5), ("--target", folder / "target.jsonl")):
        for with_ in (command, ("select", *command[2:], "--with", "dsir", "--budget", "10%")):
            message = failure(*with_, *more)
            assert str(more[0]) in message and "--fitted" in message


def test_a_new_fit_in_the_place_of_an_old_one_is_what_scores(folder: Path, tmp_path: Path) -> None:
    command = ("score", "dsir", folder / "pool.jsonl", "--target", folder / "target.jsonl", "-w", 1, "--overwrite")
    scores = []
    for buckets in (100, 200, 200):
        ok(*command, "--buckets", buckets, "-o", tmp_path / "scores")
        scores.append(rows(tmp_path / "scores" / "pool.jsonl.dvsel.parquet").score)
    assert not np.array_equal(scores[0], scores[1], equal_nan=True)
    np.testing.assert_array_equal(scores[1], scores[2])


def test_a_choice_that_there_is_not_is_a_usage_error(folder: Path) -> None:
    answer = dvsel("fit", "dsir", "--pool", folder / "pool.jsonl", "--normalise", "square", "-o", "f")
    assert answer.code == 2
    assert "square" in answer.err
