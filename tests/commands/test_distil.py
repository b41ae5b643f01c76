"""Distilling from the pool to the fitted scorer, against the closed form; no step is done twice, none is mixed up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import corpus
import language_models
from commands import dvsel, failure, ok
from dvsel.commands import distil
from dvsel.documents.columns import Batch
from dvsel.documents.vectors import Vectors
from dvsel.ngrams.spec import NgramSpec, buckets_of
from dvsel.runs import fitted_files as storage
from dvsel.score_files.find import SUFFIXES
from dvsel.score_files.reader import ScoreFile
from dvsel.scorers import Fitted
from embedded_pool import MAKER, embed, write_pool

POOL = corpus.pool()
COPIES = [document | {"id": f"copy of {document['id']}"} for document in POOL[:40]]
TEACHER = ("--normalise", "length", "--min-words", 30)
Floats = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool in which some texts stand twice, a target, and a run that distils DSIR."""
    folder = tmp_path_factory.mktemp("distil")
    corpus.write(folder / "pool" / "a.jsonl", POOL[:300])
    corpus.write(folder / "pool" / "b.jsonl.zst", [*POOL[300:], *COPIES])
    corpus.write(folder / "target.jsonl", corpus.target())
    ok(*scored(folder, folder / "scores"))
    return folder


def scored(folder: Path, out: Path, *more: object) -> tuple[object, ...]:
    words = ("score", "dsir", folder / "pool", "--target", folder / "target.jsonl", *TEACHER)
    return (*words, "--distil", "--distil-documents", 500, *more, "-w", 1, "-o", out)


def fit(folder: Path, out: Path, *more: object) -> tuple[object, ...]:
    words = ("fit", "dsir", "--pool", folder / "pool", "--target", folder / "target.jsonl", *TEACHER)
    return (*words, "--distil", "--distil-documents", 500, *more, "-o", out)


def load(place: Path) -> Fitted:
    return storage.load(str(place))[0]


def fingerprint(place: Path) -> str:
    return storage.load(str(place))[1]


def sample(steps: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in corpus.read_lines(*sorted((steps / "sample").glob("*.jsonl")))]


def texts(steps: Path) -> list[str]:
    return [document["text"] for document in sample(steps)]


def row_files(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.name.endswith(SUFFIXES)]


def scores(place: Path) -> Floats:
    """The scores in a folder, (n, groups)."""
    files = [ScoreFile(str(path)) for path in sorted(row_files(place))]
    return np.concatenate([rows.score for file in files for rows in file.rows(())]).astype(np.float64)


def header(place: Path) -> Any:
    return ScoreFile(str(min(row_files(place)))).header


def times(steps: Path) -> dict[str, int]:
    """When each of the teacher's score files was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(row_files(steps / "scores"))}


def ranks(numbers: Floats) -> Floats:
    """1 for the least; equal numbers share the mean of their ranks."""
    less = (numbers[None, :] < numbers[:, None]).sum(1)
    equal = (numbers[None, :] == numbers[:, None]).sum(1)
    return less + (equal + 1) / 2  # type: ignore[no-any-return]


def spearman(one: Floats, other: Floats) -> float:
    """Pearson's correlation of the ranks."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def last_line(*words: object) -> str:
    """The error of a command that warns first."""
    answer = dvsel(*words)
    assert answer.code == 1, answer.err
    return answer.err.splitlines()[-1]


# --- What is learned, against the definition. ---


def closed_form(documents: list[str], numbers: Floats, spec: NgramSpec, penalty: float) -> tuple[Floats, float]:
    """Ridge regression on shares of n-grams, the numbers brought to their first and last percent."""
    matrix = shares(documents, spec)
    numbers = np.clip(numbers, *np.quantile(numbers, (0.01, 0.99)))
    mean = matrix.mean(0)
    centred = matrix - mean
    unit = np.square(centred).sum(1).mean()
    gram = centred.T @ centred + penalty * unit * np.eye(spec.buckets)
    weights = np.linalg.solve(gram, centred.T @ (numbers - numbers.mean()))
    return weights, numbers.mean() - mean @ weights


def shares(documents: list[str], spec: NgramSpec) -> Floats:
    counts = [np.bincount(buckets_of(text, spec), minlength=spec.buckets) for text in documents]
    return np.array([row / max(row.sum(), 1) for row in counts])


def test_weights_penalty_and_correlation_are_those_of_the_closed_form(folder: Path, tmp_path: Path) -> None:
    teacher, spec = folder / "scores" / ".dvsel" / "steps" / "teacher.fitted", NgramSpec(1, 200)
    words = ("--pool", folder / "pool", "--teacher", teacher, "--ngrams", 1, "--buckets", 200)
    ok("fit", "distilled", *words, "--distil-documents", 400, "-o", tmp_path / "d.fitted")
    fitted, steps = load(tmp_path / "d.fitted"), tmp_path / "d.fitted.steps"
    documents, true = np.array(texts(steps)), scores(steps / "scores")[:, 0]
    documents, true = documents[np.isfinite(true)], true[np.isfinite(true)]
    rest, inner = len(true) - len(true) // 5, 0
    inner = rest - rest // 5

    def learned(count: int, penalty: float) -> Floats:
        weights, intercept = closed_form(list(documents[:count]), true[:count], spec, penalty)
        return shares(list(documents), spec) @ weights + intercept

    penalties = [10.0, 10**0.5, 1.0, 10**-0.5, 0.1, 10**-1.5, 0.01, 10**-2.5, 0.001]
    agreements = [spearman(learned(inner, one)[inner:rest], true[inner:rest]) for one in penalties]
    (report,) = fitted.report["groups"]
    assert report["penalty"] == pytest.approx(penalties[int(np.argmax(agreements))])
    expected = learned(rest, report["penalty"])
    np.testing.assert_allclose(fitted.score(Batch.of(list(documents))), expected, atol=1e-3)
    assert (report["trained"], report["held_out"]) == (rest, len(true) - rest)
    assert report["spearman"] == pytest.approx(spearman(expected[rest:], true[rest:]), abs=2e-3)
    top = len(true[rest:]) // 10
    best = [set(np.argsort(numbers[rest:])[-top:]) for numbers in (expected, true)]
    assert report["top_tenth"] == pytest.approx(len(best[0] & best[1]) / top, abs=1.01 / top)


def test_the_report_is_of_what_scores(folder: Path) -> None:
    fitted, steps = load(folder / "scores" / "dsir.fitted"), folder / "scores" / ".dvsel" / "steps"
    true = scores(steps / "scores")[:, 0]
    found = fitted.score(Batch.of(texts(steps))).astype(np.float64)
    known = np.flatnonzero(np.isfinite(true))
    held_out = known[len(known) - len(known) // 5 :]
    (report,) = fitted.report["groups"]
    assert report["held_out"] == len(held_out) and report["trained"] == len(known) - len(held_out)
    assert report["spearman"] == pytest.approx(spearman(found[held_out], true[held_out]), abs=1e-3)
    assert report["spearman"] > 0.6
    teacher = fitted.report["teacher"]
    sizes = [len(text.encode()) for text, score in zip(texts(steps), true, strict=True) if np.isfinite(score)]
    assert (teacher["documents"], teacher["bytes"]) == (len(known), sum(sizes))
    assert teacher["unscored"] == 500 - len(known) > 0


def test_the_teacher_scores_as_it_does_without_distilling(folder: Path, tmp_path: Path) -> None:
    steps = folder / "scores" / ".dvsel" / "steps"
    ok("fit", "dsir", "--pool", folder / "pool", "--target", folder / "target.jsonl", *TEACHER, "-o", tmp_path / "t")
    assert fingerprint(steps / "teacher.fitted") == fingerprint(tmp_path / "t")
    expected = load(tmp_path / "t").score(Batch.of(texts(steps)))
    np.testing.assert_array_equal(scores(steps / "scores")[:, 0], expected)


def test_the_sample_has_each_text_once_with_its_domain(folder: Path) -> None:
    found = sample(folder / "scores" / ".dvsel" / "steps")
    domains = {document["text"]: document["domain"] for document in POOL}
    assert len(found) == 500 == len({document["text"] for document in found})
    assert all(document["domain"] == domains[document["text"]] for document in found)


def test_the_pool_is_scored_with_what_was_learned(folder: Path) -> None:
    fitted = load(folder / "scores" / "dsir.fitted")
    expected = fitted.score(Batch.of([document["text"] for document in [*POOL, *COPIES]]))
    np.testing.assert_array_equal(scores(folder / "scores")[:, 0], expected)


# --- It is as any run. ---


def test_a_recipe_replays_it_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    ok("run", folder / "scores" / "recipe.yaml", "-o", tmp_path / "again")
    for name in ("dsir.fitted", "a.jsonl.dvsel.parquet", "b.jsonl.zst.dvsel.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "scores" / name).read_bytes()


def test_shards_and_batches_change_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.write(tmp_path / "pool" / "all.jsonl", [*COPIES, *POOL[::-1]])
    corpus.write(tmp_path / "target.jsonl", corpus.target())
    monkeypatch.setattr(distil, "_SHARD", 30_000)
    ok(*fit(tmp_path, tmp_path / "d"))
    assert len(times(tmp_path / "d.steps")) > 5
    assert fingerprint(tmp_path / "d") == fingerprint(folder / "scores" / "dsir.fitted")


def test_the_seed_draws_another_sample(folder: Path, tmp_path: Path) -> None:
    ok(*fit(folder, tmp_path / "d", "--seed", 5))
    assert set(texts(tmp_path / "d.steps")) != set(texts(folder / "scores" / ".dvsel" / "steps"))


def test_scores_name_teacher_and_correlation_and_keep_its_rule(folder: Path) -> None:
    found = header(folder / "scores")
    correlation = load(folder / "scores" / "dsir.fitted").report["groups"][0]["spearman"]
    assert found.scorer == f"dsir normalise=length min_words=30, distilled (rank correlation {correlation:.2f})"
    assert (found.selector, found.unscored) == ("resample", "no words")


def test_groups_and_their_shares_carry_over(folder: Path, tmp_path: Path) -> None:
    other = corpus.write(tmp_path / "code.jsonl", [one for one in POOL if one["domain"] == "code"][:30])
    ok(*scored(folder, tmp_path / "s", "--target", other, "--separate-targets", "--distil-floor", 0))
    fitted, teacher = load(tmp_path / "s" / "dsir.fitted"), load(tmp_path / "s" / ".dvsel" / "steps" / "teacher.fitted")
    assert fitted.groups == teacher.groups == ("target.jsonl", "code.jsonl")
    assert fitted.shares == teacher.shares
    true = scores(tmp_path / "s" / ".dvsel" / "steps" / "scores")
    found = fitted.score(Batch.of(texts(tmp_path / "s" / ".dvsel" / "steps")))
    known = np.flatnonzero(np.isfinite(true[:, 0]))
    held_out = known[len(known) - len(known) // 5 :]
    for column, report in enumerate(fitted.report["groups"]):
        expected = spearman(found[held_out, column].astype(np.float64), true[held_out, column])
        assert report["spearman"] == pytest.approx(expected, abs=1e-3)
    assert scores(tmp_path / "s").shape == (len(POOL) + len(COPIES), 2)


def test_selecting_with_it(folder: Path, tmp_path: Path) -> None:
    words = ("--with", "dsir", "--target", folder / "target.jsonl", *TEACHER, "--distil", "--distil-documents", 500)
    told = ok("select", folder / "pool", *words, "--budget", "10%", "-w", 1, "-o", tmp_path / "kept").err
    assert "with resample on dsir normalise=length min_words=30, distilled (rank correlation 0." in told
    fitted = ("--with", "dsir", "--fitted", folder / "scores" / "dsir.fitted")
    ok("select", folder / "pool", *fitted, "--budget", "10%", "-w", 1, "-o", tmp_path / "again")
    assert corpus.selected_ids(tmp_path / "kept") == corpus.selected_ids(tmp_path / "again")


def test_what_was_fitted_scores_under_both_names_and_on_a_stream(folder: Path, tmp_path: Path) -> None:
    fitted = folder / "scores" / "dsir.fitted"
    for name in ("dsir", "distilled"):
        ok("score", name, folder / "pool", "--fitted", fitted, "-w", 1, "-o", tmp_path / name)
        np.testing.assert_array_equal(scores(tmp_path / name), scores(folder / "scores"))
    lines = ok("score", "dsir", "--fitted", fitted, "-", stdin=corpus.lines(POOL[:20])).out.splitlines()
    found = [json.loads(line)["dvsel_dsir"] for line in lines]
    np.testing.assert_array_equal(np.array(found, np.float32), scores(folder / "scores")[:20, 0])


def test_inspect_tells_teacher_correlation_and_cost(folder: Path) -> None:
    page = ok("inspect", folder / "scores" / "dsir.fitted").out.decode()
    assert "a fitted distilled" in page and "teacher: dsir normalise=length min_words=30\n" in page
    assert "bytes of text, and gave" in page and "of the teacher's best tenth are in its own best tenth" in page
    report = json.loads(ok("inspect", folder / "scores" / "dsir.fitted", "--json").out)["report"]
    assert report["teacher"]["options"]["min_words"] == 30


# --- No step is done twice. ---


def test_an_interrupted_fit_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil, "_SHARD", 30_000)
    with monkeypatch.context() as patch:
        patch.setattr(distil, "documents_of", lambda *_: interrupted())
        assert dvsel(*fit(folder, tmp_path / "d")).code == 130
    steps = tmp_path / "d.steps"
    before = times(steps)
    lost = sorted(before)[2]
    (steps / "scores" / lost).unlink()
    ok(*fit(folder, tmp_path / "d"))
    assert {name for name, time in times(steps).items() if time != before[name]} == {lost}
    assert (tmp_path / "d").read_bytes() == (folder / "scores" / "dsir.fitted").read_bytes()


def interrupted() -> None:
    raise KeyboardInterrupt


def test_more_documents_are_added_to_those_that_are_scored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "_SHARD", 30_000)
    steps = tmp_path / "d.steps"
    ok(*fit(folder, tmp_path / "d", "--distil-documents", 300))
    before = times(steps)
    ok(*fit(folder, tmp_path / "d"))
    whole = sorted(before)[:-1]  # the last was cut short
    assert all(times(steps)[name] == before[name] for name in whole) and len(times(steps)) > len(before)
    assert (tmp_path / "d").read_bytes() == (folder / "scores" / "dsir.fitted").read_bytes()
    ok(*fit(folder, tmp_path / "d", "--distil-documents", 300))
    assert len(texts(steps)) == 300 and len(scores(steps / "scores")) == 300


def test_a_refused_run_goes_on_with_a_lower_floor(folder: Path, tmp_path: Path) -> None:
    line = last_line(*scored(folder, tmp_path / "s", "--distil-floor", 0.999))
    correlation = load(folder / "scores" / "dsir.fitted").report["groups"][0]["spearman"]
    for part in (f"{correlation:.3f}", "floor of 0.999", "--distil-documents, now 500", "--distil-floor"):
        assert part in line
    before = times(tmp_path / "s" / ".dvsel" / "steps")
    assert before and not (tmp_path / "s" / "dsir.fitted").exists()
    ok(*scored(folder, tmp_path / "s"))
    assert times(tmp_path / "s" / ".dvsel" / "steps") == before
    assert (tmp_path / "s" / "dsir.fitted").read_bytes() == (folder / "scores" / "dsir.fitted").read_bytes()


def test_another_teacher_is_not_mixed_in(folder: Path, tmp_path: Path) -> None:
    ok(*fit(folder, tmp_path / "d"))
    assert "holds another run (its scorer is" in failure(*fit(folder, tmp_path / "d", "--buckets", 500))


# --- An expensive teacher. ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return language_models.build(tmp_path_factory.mktemp("model"), hidden=16, layers=1, window=128)


def test_a_language_model_teaches_with_all_the_fields_it_reads(model: str, tmp_path: Path) -> None:
    documents = [one | {"meta": {"prompt": one["id"]}} for one in POOL[:150]]
    documents[3]["meta"] = {"prompt": 7}
    corpus.write(tmp_path / "pool.jsonl", documents)
    words = ("perplexity", "--model", model, "--prompt-field", "meta.prompt")
    told = ok("fit", *words, "--pool", tmp_path / "pool.jsonl", "--distil", "--distil-floor", 0, "-o", tmp_path / "d")
    assert "the sample holds 150 documents, of 10,000 that were to be scored" in told.err
    assert "runs a model" not in told.err
    fitted = load(tmp_path / "d")
    assert fitted.report["teacher"]["documents"] == 149 and fitted.report["teacher"]["unscored"] == 1
    found = dict(zip(texts(tmp_path / "d.steps"), scores(tmp_path / "d.steps" / "scores")[:, 0], strict=True))
    ok("score", *words, tmp_path / "pool.jsonl", "-o", tmp_path / "s")
    expected = scores(tmp_path / "s")[:, 0]
    np.testing.assert_allclose([found[one["text"]] for one in documents], expected, atol=1e-3)


# --- Bad input. ---


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--distil-documents", 20), "--distil-documents 20: too few to learn from; give 100 or more"),
        (("--distil-floor", 2), "distil_floor 2.0: out of range; give 0 to 1"),
        (("--distil-floor", "nan"), "distil_floor nan: out of range; give a number"),
    ],
)
def test_options_out_of_range(folder: Path, tmp_path: Path, words: tuple[object, ...], complaint: str) -> None:
    assert complaint in failure(*scored(folder, tmp_path / "s", *words))


def test_a_teacher_that_scores_few_documents(folder: Path, tmp_path: Path) -> None:
    line = last_line(*scored(folder, tmp_path / "s", "--min-words", 350))
    assert "dsir: gives " in line and "of the sample's 500 documents a score, and distilling takes 100 or more" in line


def test_a_teacher_to_which_all_documents_are_the_same(folder: Path, tmp_path: Path) -> None:
    words = ("score", "dsir", folder / "pool", "--target", folder / "pool", "--ngrams", 1, "--buckets", 1)
    line = last_line(*words, "--min-words", 0, "--distil", "-w", 1, "-o", tmp_path / "s")
    assert "dsir: gives all documents of the sample the same score; there is nothing to distil" in line


def test_a_small_pool(folder: Path, tmp_path: Path) -> None:
    corpus.write(tmp_path / "pool" / "a.jsonl", POOL[:60])
    corpus.write(tmp_path / "target.jsonl", corpus.target())
    line = last_line(*fit(tmp_path, tmp_path / "d"))
    assert "the sample holds 60 documents, and distilling takes 100 or more; give a larger --sample-size" in line


def test_a_cheap_teacher_is_told_of(folder: Path, tmp_path: Path) -> None:
    assert "dsir: distilling is for scorers that run a model" in ok(*fit(folder, tmp_path / "d")).err


def test_how_to_distil_without_distilling(folder: Path, tmp_path: Path) -> None:
    words = ("fit", "dsir", "--pool", folder / "pool", "--target", folder / "target.jsonl", "-o", tmp_path / "d")
    assert "--distil-floor: says how to distil; add --distil, or drop it" in failure(*words, "--distil-floor", 0.5)


def test_what_is_distilled_is_not_distilled_again(folder: Path, tmp_path: Path) -> None:
    words = ("fit", "distilled", "--pool", folder / "pool", "--teacher", folder / "scores" / "dsir.fitted")
    assert "is distilled itself; give dsir fitted without --distil" in failure(*words, "-o", tmp_path / "d")
    assert "drop --distil" in failure(*words, "--distil", "-o", tmp_path / "d")
    assert "no teacher; name a fitted scorer with --teacher" in failure("fit", "distilled", "-o", tmp_path / "d")


def test_it_needs_a_pool_that_can_be_read_twice(folder: Path, tmp_path: Path) -> None:
    target = ("--target", folder / "target.jsonl")
    assert "name the pool's shards" in failure("fit", "dsir", *target, "--distil", "-o", tmp_path / "d")
    line = failure("score", "dsir", *target, "--distil", "-", stdin=corpus.lines(POOL[:5]))
    assert "stdin can be read only once; fit first" in line


def test_a_fitted_scorer_is_distilled_by_name(folder: Path, tmp_path: Path) -> None:
    fitted = folder / "scores" / ".dvsel" / "steps" / "teacher.fitted"
    line = failure("score", "dsir", folder / "pool", "--fitted", fitted, "--distil", "-o", tmp_path / "s")
    assert "`dvsel score distilled --teacher FILE`" in line
    words = ("--teacher", fitted, "--distil-documents", 500)
    ok("score", "distilled", folder / "pool", *words, "-w", 1, "-o", tmp_path / "s")
    np.testing.assert_array_equal(scores(tmp_path / "s"), scores(folder / "scores"))


# --- Pools of embeddings. ---

WIDTH = 6
WORDS = ("--ngrams", 1, "--buckets", 200)


@pytest.fixture(scope="module")
def embedded(folder: Path) -> Path:
    """The pool of `folder` with vectors, which tell the teacher's scores better than n-grams do; two have none."""
    place = folder / "embedded"
    write_pool(place, [{name: one[name] for name in ("text", "domain")} for one in POOL])
    teacher = load(folder / "scores" / ".dvsel" / "steps" / "teacher.fitted")
    true = teacher.score(Batch.of([document["text"] for document in POOL])).astype(np.float64)
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(len(POOL), WIDTH)) * [1, 1, 1, 1, 50, 1]
    direction = np.array([1, 1, -1, 0, 0.02, 0])
    level = np.nan_to_num((true - np.nanmean(true)) / np.nanstd(true)) + draw.normal(size=len(POOL)) * 0.1
    vectors += np.outer(level - vectors @ direction, direction) / (direction @ direction)
    vectors[[7, 300]] = np.nan
    embed(place, vectors.astype(np.float32))
    return place


def fit_embedded(folder: Path, pool: Path, out: Path, *more: object) -> tuple[object, ...]:
    teacher = folder / "scores" / ".dvsel" / "steps" / "teacher.fitted"
    return ("fit", "distilled", "--pool", pool, "--teacher", teacher, *WORDS, "--distil-documents", 400, *more,
            "-o", out)  # fmt: skip


def vectors_of(place: Path) -> Floats:
    """The vectors in a folder, (n, width)."""
    files = [ScoreFile(str(path)) for path in sorted(row_files(place))]
    return np.concatenate([rows.vectors for file in files for rows in file.rows(("vector",))])


def side_by_side(documents: list[str], vectors: Floats, part: float) -> Floats:
    """Shares of n-grams and standardised vectors; embeddings make up `part` of the mean squared length."""
    left, right = shares(documents, NgramSpec(1, 200)), (vectors - vectors.mean(0)) / vectors.std(0)
    weighed = [(left, 1 - part), (right, part)]
    return np.hstack([one * np.sqrt(weight / one.var(0).sum()) for one, weight in weighed])


def test_embeddings_are_learned_from_beside_ngrams(folder: Path, embedded: Path, tmp_path: Path) -> None:
    ok(*fit_embedded(folder, embedded / "emb", tmp_path / "d"))
    fitted, steps = load(tmp_path / "d"), tmp_path / "d.steps"
    documents, true, vectors = np.array(texts(steps)), scores(steps / "scores")[:, 0], vectors_of(steps / "embeddings")
    usable = np.isfinite(vectors).all(1)
    documents, true, vectors = documents[usable], true[usable], vectors[usable]
    designs = {part: side_by_side(list(documents), vectors, part) for part in (0.0, 0.1, 0.5, 1.0)}
    known = np.flatnonzero(np.isfinite(true))
    rest, held_out = np.split(known, [len(known) - len(known) // 5])
    inner, choosing = np.split(rest, [len(rest) - len(rest) // 5])

    def learned(part: float, rows: npt.NDArray[np.int64], penalty: float) -> Floats:
        matrix, numbers = designs[part], np.clip(true[rows], *np.quantile(true[rows], (0.01, 0.99)))
        mean = matrix[rows].mean(0)
        centred = matrix[rows] - mean
        gram = centred.T @ centred + penalty * np.square(centred).sum(1).mean() * np.eye(len(mean))
        return (matrix - mean) @ np.linalg.solve(gram, centred.T @ (numbers - numbers.mean())) + numbers.mean()  # type: ignore[no-any-return]

    (report,) = fitted.report["groups"]
    best = {
        part: max(spearman(learned(part, inner, 10 ** (1 - step / 2))[choosing], true[choosing]) for step in range(9))
        for part in designs
    }
    assert report["embeddings"] == max(designs, key=lambda part: best[part] - 0.01 * bool(part)) > 0
    expected = learned(report["embeddings"], rest, report["penalty"])
    batch = dataclasses.replace(Batch.of(list(documents)), vectors=Vectors(vectors, MAKER))
    np.testing.assert_allclose(fitted.score(batch), expected, atol=1e-3)
    assert report["spearman"] == pytest.approx(spearman(expected[held_out], true[held_out]), abs=2e-3)
    assert report["spearman"] > 0.9 and (report["trained"], report["held_out"]) == (len(rest), len(held_out))
    assert fitted.scorer.model == MAKER.model and fitted.report["embedder"] == dataclasses.asdict(MAKER)  # type: ignore[attr-defined]


def test_the_sample_keeps_the_pools_vectors(folder: Path, embedded: Path, tmp_path: Path) -> None:
    ok(*fit_embedded(folder, embedded / "emb", tmp_path / "d"))
    there: dict[str, list[bytes]] = {}  # a few texts stand twice, and each time with another vector
    for document, vector in zip(POOL, vectors_of(embedded / "emb"), strict=True):
        there.setdefault(document["text"], []).append(vector.tobytes())
    found = vectors_of(tmp_path / "d.steps" / "embeddings")
    for text, vector in zip(texts(tmp_path / "d.steps"), found, strict=True):
        assert vector.tobytes() in there[text]


def test_scores_are_of_the_pools_vectors(folder: Path, embedded: Path, tmp_path: Path) -> None:
    ok(*fit_embedded(folder, embedded / "emb", tmp_path / "d"))
    told = ok("score", "dsir", embedded / "emb", "--fitted", tmp_path / "d", "-w", 2, "-o", tmp_path / "s").err
    fitted, found = load(tmp_path / "d"), scores(tmp_path / "s")[:, 0]
    batch = Batch.of([document["text"] for document in POOL])
    expected = fitted.score(dataclasses.replace(batch, vectors=Vectors(vectors_of(embedded / "emb"), MAKER)))
    np.testing.assert_array_equal(found, expected)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7, 300] and "no text to embed" in told
    other = dataclasses.replace(MAKER, digest="11")
    embed(embedded, vectors_of(embedded / "emb"), other, "other")
    line = failure("score", "dsir", embedded / "other", "--fitted", tmp_path / "d", "-w", 1, "-o", tmp_path / "t")
    assert "the model's files differ" in line


def test_embeddings_that_say_nothing_are_left_out(folder: Path, embedded: Path, tmp_path: Path) -> None:
    embed(embedded, np.random.default_rng(1).normal(size=(len(POOL), WIDTH)).astype(np.float16), name="noise")
    ok(*fit_embedded(folder, embedded / "noise", tmp_path / "d", "--distil-floor", 0))
    ok(*fit_embedded(folder, embedded / "pool", tmp_path / "plain", "--distil-floor", 0))
    fitted, plain = load(tmp_path / "d"), load(tmp_path / "plain")
    assert "vectors" not in fitted.arrays and fitted.scorer == plain.scorer
    batch = Batch.of(texts(tmp_path / "plain.steps"))
    np.testing.assert_allclose(fitted.score(batch), plain.score(batch), atol=1e-4)
    assert any(line.startswith("not used, as n-grams alone rank") for line in fitted.lines())


def test_embeddings_alone_are_enough(folder: Path, embedded: Path, tmp_path: Path) -> None:
    ok(*fit_embedded(folder, embedded / "emb", tmp_path / "d", "--buckets", 1))
    fitted = load(tmp_path / "d")
    assert "vectors" in fitted.arrays and fitted.report["groups"][0]["spearman"] > 0.9


def test_a_fit_on_embeddings_goes_on(
    folder: Path, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "_SHARD", 30_000)
    words = fit_embedded(folder, embedded / "emb", tmp_path / "d", "--distil-documents", 300)
    with monkeypatch.context() as patch:
        patch.setattr(distil, "documents_of", lambda *_: interrupted())
        assert dvsel(*words).code == 130
    before = times(tmp_path / "d.steps")
    ok(*words)
    assert times(tmp_path / "d.steps") == before
    ok(*fit_embedded(folder, embedded / "emb", tmp_path / "d"))
    after = times(tmp_path / "d.steps")
    assert all(after[name] == before[name] for name in sorted(before)[:-1]) and len(after) > len(before)
    ok(*fit_embedded(folder, embedded / "emb", tmp_path / "whole"))
    assert (tmp_path / "d").read_bytes() == (tmp_path / "whole").read_bytes()


def test_few_vectors(folder: Path, embedded: Path, tmp_path: Path) -> None:
    vectors = vectors_of(embedded / "emb").copy()
    vectors[: len(POOL) - 50] = np.nan
    embed(embedded, vectors, name="few")
    line = last_line(*fit_embedded(folder, embedded / "few", tmp_path / "d"))
    assert "of the sample's 400 documents have a vector, and distilling takes 100 or more" in line


def test_a_teacher_over_embeddings_finds_those_of_the_sample(embedded: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    emb = embedded / "emb"
    target = min(emb.glob("*.parquet"))
    words = ("target", "--preset", "mean", "--pool", emb, "--target", target, "--distil", "--distil-documents", 300)
    ok("fit", *words, "-o", tmp_path / "d")
    teacher, fitted = load(tmp_path / "d.steps" / "teacher.fitted"), load(tmp_path / "d")
    vectors = Vectors(vectors_of(tmp_path / "d.steps" / "embeddings"), MAKER)
    expected = teacher.score(dataclasses.replace(Batch.of([""] * len(vectors)), vectors=vectors))
    np.testing.assert_allclose(scores(tmp_path / "d.steps" / "scores")[:, 0], expected, atol=1e-4)
    assert fitted.report["groups"][0]["embeddings"] > 0 and fitted.teacher_name == "target"


def test_texts_are_embedded_where_a_model_is_named(model: str, folder: Path, tmp_path: Path) -> None:
    corpus.write(tmp_path / "pool.jsonl", POOL[:150])
    ok("fit", "perplexity", "--model", model, "-o", tmp_path / "teacher")
    ok("embed", tmp_path / "pool.jsonl", "--model", model, "--dtype", "float32", "-o", tmp_path / "emb")
    words = ("--teacher", tmp_path / "teacher", "--buckets", 1, "--distil-documents", 150, "--distil-floor", 0)
    ok("fit", "distilled", "--pool", tmp_path / "pool.jsonl", *words, "--model", model, "-o", tmp_path / "d")
    ok("fit", "distilled", "--pool", tmp_path / "emb", *words, "-o", tmp_path / "e")
    found, expected = load(tmp_path / "d"), load(tmp_path / "e")
    assert found.scorer == expected.scorer and "vectors" in found.arrays
    for fitted, pool in ((found, "pool.jsonl"), (expected, "emb")):
        ok("score", "distilled", tmp_path / pool, "--fitted", tmp_path / ("d" if fitted is found else "e"),
           "-o", tmp_path / f"of-{pool.removesuffix('.jsonl')}")  # fmt: skip
    np.testing.assert_allclose(scores(tmp_path / "of-pool"), scores(tmp_path / "of-emb"), atol=1e-2)
