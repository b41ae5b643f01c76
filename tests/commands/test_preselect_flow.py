"""PreSelect from the pool to the fitted scorer, in steps of which none is done twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import corpus
import ladders
from commands import failure, ok
from dvsel.commands import preselect
from dvsel.documents.columns import Batch
from dvsel.documents.hashing import hash_rows, uniform
from dvsel.errors import UserError
from dvsel.fasttext.text import prepare
from dvsel.fasttext.training import HELD_OUT_SEED
from dvsel.linalg.ranks import spearman
from dvsel.runs import fitted_files as storage
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")

POOL = ladders.documents(400)
SMALL = ("--dim", 8, "--buckets", 1000, "--epochs", 5, "--learning-rate", 0.5, "--held-out", 0.2, "-w", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ladder, a pool in which some texts stand twice, and a fit of it."""
    folder = tmp_path_factory.mktemp("preselect")
    ladders.build(folder)
    corpus.write(folder / "pool" / "a.jsonl", POOL[:250])
    copies = [document | {"id": f"copy of {document['id']}"} for document in POOL[:30]]
    corpus.write(folder / "pool" / "b.jsonl.zst", [*POOL[250:], *copies])
    ok(*fit(folder, folder / "preselect.fitted"))
    return folder


def fit(folder: Path, out: Path, *more: object) -> tuple[object, ...]:
    ladder = folder / "ladder.yaml"
    return ("fit", "preselect", "--pool", folder / "pool", "--ladder", ladder, *SMALL, *more, "-o", out)


def texts(step: Path) -> list[str]:
    """The texts of a step's shards."""
    return [json.loads(line)["text"] for line in corpus.read_lines(*sorted(step.glob("*.jsonl")))]


def strengths(steps: Path) -> dict[str, float]:
    """Strength by text."""
    files = [ScoreFile(str(path)) for path in sorted((steps / "strength").glob("*.parquet"))]
    found = np.concatenate([rows.score[:, 0] for file in files for rows in file.rows(())])
    return dict(zip(texts(steps / "sample"), found.tolist(), strict=True))


def times(steps: Path) -> dict[str, int]:
    """When each file of the steps was written."""
    return {str(path.relative_to(steps)): path.stat().st_mtime_ns for path in steps.rglob("*") if path.is_file()}


def costly(written: Mapping[str, int]) -> dict[str, int]:
    return {name: time for name, time in written.items() if name.endswith(".parquet") and name.startswith("losses/")}


# --- The steps. ---


def test_the_sample_has_each_text_once(folder: Path) -> None:
    sample = folder / "preselect.fitted.steps" / "sample"
    assert sorted(texts(sample)) == sorted(document["text"] for document in POOL)
    assert json.loads((sample / REPORT).read_text()) == {"documents": 400, "copies_left_out": 30}
    domains = {document["text"]: document["domain"] for document in POOL}
    documents = [json.loads(line) for line in corpus.read_lines(*sorted(sample.glob("*.jsonl")))]
    assert all(document["domain"] == domains[document["text"]] for document in documents)
    assert len({document["id"] for document in documents}) == len(documents)


def test_positives_have_full_strength_and_negatives_the_least(folder: Path) -> None:
    steps = folder / "preselect.fitted.steps"
    strength = strengths(steps)
    positive, negative = texts(steps / "positive"), texts(steps / "negative")
    assert set(positive) == {text for text, value in strength.items() if value == 1}
    assert len(negative) == len(positive) == len(set(negative)) > 20
    least = sorted(strength.values())[: len(negative)]
    assert sorted(strength[text] for text in negative) == least


def test_the_report_says_what_it_was_made_from(folder: Path) -> None:
    report = storage.load(str(folder / "preselect.fitted"))[0].report
    steps = folder / "preselect.fitted.steps"
    strength = strengths(steps)
    assert [model["name"] for model in report["ladder"]] == ["low", "middle", "high"]
    assert [model["score"] for model in report["ladder"]] == [0.2, 0.3, 0.5]
    assert report["strength"]["documents"] == [list(strength.values()).count(np.float32(k / 3)) for k in range(4)]  # type: ignore[arg-type]
    count = len(texts(steps / "positive"))
    assert report["labelled"] == {"positive": count, "negative": count}
    assert sum(report["trained"].values()) + report["documents"] == 2 * count


def test_the_ranking_is_measured_on_documents_that_were_not_trained_on(folder: Path) -> None:
    fitted = storage.load(str(folder / "preselect.fitted"))[0]
    steps = folder / "preselect.fitted.steps"
    strength = strengths(steps)
    batch = Batch.of(list(strength))
    logits, values = fitted.score(batch), np.array(list(strength.values()))
    held_out = uniform(hash_rows(prepare(batch.text, "space")), HELD_OUT_SEED) < 0.2
    labelled = set(texts(steps / "positive")) | set(texts(steps / "negative"))
    unlabelled = np.array([text not in labelled for text in strength])
    assert sum(fitted.report["trained"].values()) == (~unlabelled & ~held_out).sum()
    for name, rows in (("held_out", held_out), ("unlabelled", unlabelled)):
        check_agreement(fitted.report["ranking"][name], logits[rows], values[rows])


def check_agreement(found: Mapping[str, Any], logits: npt.NDArray[np.float32], values: npt.NDArray[np.float64]) -> None:
    top = np.sort(logits)[-(len(logits) // 10)]
    assert found["documents"] == len(values) > 20
    assert found["spearman"] == pytest.approx(spearman(logits, values))
    assert found["mean_strength"] == pytest.approx(values.mean())
    assert found["mean_strength_of_top_tenth"] == pytest.approx(values[logits >= top].mean())


def test_shares_say_how_many_are_labelled(folder: Path, tmp_path: Path) -> None:
    ok(*fit(folder, tmp_path / "f", "--positive-share", "10%", "--negative-share", "7.5%"))
    steps = tmp_path / "f.steps"
    positive, negative = texts(steps / "positive"), texts(steps / "negative")
    assert (len(positive), len(negative)) == (40, 30) and not set(positive) & set(negative)


def test_the_shards_of_the_sample_change_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preselect, "_SHARD", 9000)
    ok(*fit(folder, tmp_path / "f"))
    steps = tmp_path / "f.steps"
    assert len(list((steps / "sample").glob("*.jsonl"))) > 5
    whole = strengths(folder / "preselect.fitted.steps")
    same = [np.isclose(value, whole[text]) for text, value in strengths(steps).items()]
    assert len(same) == len(whole) and np.mean(same) > 0.98  # losses that nearly tie are rounded by the batch
    fitted = storage.load(str(tmp_path / "f"))[0]
    batch, values = Batch.of(list(whole)), np.array([strengths(steps)[text] for text in whole])
    rows = uniform(hash_rows(prepare(batch.text, "space")), HELD_OUT_SEED) < 0.2
    check_agreement(fitted.report["ranking"]["held_out"], fitted.score(batch)[rows], values[rows])


def test_the_score_may_be_a_probability(folder: Path, tmp_path: Path) -> None:
    ok(*fit(folder, tmp_path / "f", "--probability"))
    logit, probability = (storage.load(str(path))[0] for path in (folder / "preselect.fitted", tmp_path / "f"))
    batch = Batch.of([document["text"] for document in POOL[:50]])
    np.testing.assert_allclose(probability.score(batch), 1 / (1 + np.exp(-logit.score(batch))) + 1e-5, atol=1e-6)
    assert probability.report == logit.report


# --- Resuming. ---


@pytest.mark.parametrize("step", ["losses", "strength", "select_from_scores", "learn"])
def test_a_fit_that_broke_goes_on(step: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(preselect, step)

    def broken(*arguments: Any) -> Any:
        if step == "select_from_scores":
            original(*arguments)  # the positives are there, the negatives are not
        raise RuntimeError("killed")

    monkeypatch.setattr(preselect, step, broken)
    with pytest.raises(RuntimeError, match="killed"):
        ok(*fit(folder, tmp_path / "f"))
    assert not (tmp_path / "f").exists()
    before = times(tmp_path / "f.steps")
    monkeypatch.setattr(preselect, step, original)
    ok(*fit(folder, tmp_path / "f"))
    after = times(tmp_path / "f.steps")
    kept = [name for name in before if name.endswith((".parquet", ".jsonl"))]
    assert kept and {name: after[name] for name in kept} == {name: before[name] for name in kept}
    same_fit(tmp_path / "f", folder / "preselect.fitted")


def same_fit(one: Path, other: Path) -> None:
    a, b = (storage.load(str(path))[0] for path in (one, other))
    assert a.arrays.keys() == b.arrays.keys()
    assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
    assert a.report == b.report


@pytest.mark.parametrize(
    "lost",
    [
        f"sample/{REPORT}",
        "losses/middle/00000.jsonl.dvsel.parquet",
        f"strength/{REPORT}",
        "negative/recipe.yaml",
    ],
)
def test_what_is_lost_is_made_again(lost: str, folder: Path) -> None:
    steps = folder / "preselect.fitted.steps"
    before = times(steps)
    content = (folder / "preselect.fitted").read_bytes()
    (steps / lost).unlink()
    if lost.startswith("negative"):
        shutil.rmtree(steps / "negative")
    ok(*fit(folder, folder / "preselect.fitted"))
    after = times(steps)
    assert after.keys() == before.keys()
    again = {name for name in costly(before) if after[name] != before[name]}
    assert again == ({lost} if lost.startswith("losses") else set())
    assert (folder / "preselect.fitted").read_bytes() == content


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A fit of one's own, to be done again with other options."""
    for name in ("rungs", "pool"):
        (tmp_path / name).symlink_to(folder / name)
    ladders.write(tmp_path / "ladder.yaml", ladders.SCORES)
    ok(*fit(tmp_path, tmp_path / "f"))
    return tmp_path


def test_losses_outlive_other_scores_rules_and_training(own: Path) -> None:
    steps = own / "f.steps"
    before, first = times(steps), strengths(steps)
    ok(*fit(own, own / "f", "--dim", 4))
    assert {name: time for name, time in times(steps).items() if name.endswith(".parquet")} == {
        name: time for name, time in before.items() if name.endswith(".parquet")
    }
    ok(*fit(own, own / "f", "--positive-share", "10%"))
    assert len(texts(steps / "positive")) == len(texts(steps / "negative")) == 40
    ok(*fit(own, own / "f", "--strength", "spearman"))
    assert min(strengths(steps).values()) == -1
    ladders.write(own / "ladder.yaml", {"low": 0.9, "middle": 0.5, "high": 0.1})
    ok(*fit(own, own / "f"))
    assert {text: round(1 - value, 5) for text, value in strengths(steps).items()} == {
        text: round(value, 5) for text, value in first.items()
    }
    assert costly(times(steps)) == costly(before)


def test_another_sample_or_other_losses_are_refused(own: Path) -> None:
    assert "its seed is 0, this one's 1" in failure(*fit(own, own / "f", "--seed", 1))
    assert "its scorer is" in failure(*fit(own, own / "f", "--window", 32))


# --- What cannot be. ---


def test_too_few_of_full_strength(folder: Path, tmp_path: Path) -> None:
    corpus.write(tmp_path / "pool.jsonl", POOL[:40])
    command = ("fit", "preselect", "--pool", tmp_path / "pool.jsonl", "--ladder", folder / "ladder.yaml", *SMALL)
    message = failure(*command, "-o", tmp_path / "f")
    assert "of the sample's 40 documents have all pairs of models in order" in message
    assert "--positive-share 10%" in message


def test_labels_of_equal_strength(folder: Path, tmp_path: Path) -> None:
    message = failure(*fit(folder, tmp_path / "f", "--positive-share", "60%", "--negative-share", "40%"))
    assert "the positives begin at strength" in message and "smaller shares" in message


def test_a_bad_ladder_is_told_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    ladder = ladders.write(tmp_path / "ladder.yaml", {"none": 1, "nil": 2})
    command = ("fit", "preselect", "--pool", folder / "pool", "--ladder", ladder, "-o", tmp_path / "f")
    assert "a ladder of 2 models" in failure(*command)
    assert not (tmp_path / "f.steps").exists()


# --- The commands. ---


def test_fit_score_and_select(folder: Path, tmp_path: Path) -> None:
    fitted = folder / "preselect.fitted"
    ok("score", "preselect", folder / "pool", "--fitted", fitted, "-w", 1, "-o", tmp_path / "scores")
    ok("select", tmp_path / "scores", "--budget", "10% docs", "-w", 1, "-o", tmp_path / "kept")
    kept = corpus.selected_ids(tmp_path / "kept")
    scores = storage.load(str(fitted))[0].score(Batch.of([document["text"] for document in POOL]))
    assert len(kept) == 43
    best = {POOL[row]["id"] for row in np.argsort(scores)[-20:]}
    assert best <= kept


@pytest.mark.parametrize("name", ["score", "select"])
def test_all_in_one_command(name: str, folder: Path, tmp_path: Path) -> None:
    more = ("--ladder", folder / "ladder.yaml", *SMALL, "-o", tmp_path / "out")
    if name == "score":
        ok("score", "preselect", folder / "pool", *more)
        ok("select", tmp_path / "out", "--budget", "10% docs", "-w", 1, "-o", tmp_path / "kept")
        kept = tmp_path / "kept"
    else:
        ok("select", folder / "pool", "--with", "preselect", "--budget", "10% docs", *more)
        kept = tmp_path / "out"
    ok("score", "preselect", folder / "pool", "--fitted", folder / "preselect.fitted", "-w", 1, "-o", tmp_path / "s")
    ok("select", tmp_path / "s", "--budget", "10% docs", "-w", 1, "-o", tmp_path / "same")
    assert corpus.selected_ids(kept) == corpus.selected_ids(tmp_path / "same")


def test_apart_is_told_of_equal_strengths() -> None:
    values = np.array([0, 0.5, 0.5, 1, np.nan], np.float32)
    preselect._check_apart(values, 1, 3)
    with pytest.raises(UserError, match=r"begin at strength 0\.5 and the negatives end at 0\.5"):
        preselect._check_apart(values, 2, 2)
