"""Predictive strength against the definition pair by pair, and as score files."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import corpus
from commands import dvsel, failure, ok
from dvsel.commands.strength import has_ties, in_order, rank_correlation
from dvsel.documents.columns import Status
from dvsel.linalg.ranks import average_ranks, spearman
from dvsel.runs.ladder import Ladder, Rung
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows
from dvsel.score_files.writer import ScoreFileWriter

MODELS = ("a", "b", "c", "d")
BENCHMARK = {"a": 0.3, "b": 0.1, "c": 0.2, "d": 0.2}  # b, then c and d alike, then a
DOCUMENTS = corpus.documents()[:300]


def ladder_of(scores: Sequence[float]) -> Ladder:
    """A ladder in any order of scores, sorted as a ladder is."""
    return Ladder(tuple(Rung(f"{number}", f"{number}", score) for number, score in enumerate(sorted(scores))))


# --- The definition. ---


def counted(losses: Sequence[float], benchmark: Sequence[float]) -> int:
    """Pairs in order, counted as the paper's authors do: over all models i < j, whatever their order."""
    count = 0
    for i in range(len(losses)):
        for j in range(i + 1, len(losses)):
            if benchmark[i] > benchmark[j]:
                count += losses[i] < losses[j]
            elif benchmark[i] < benchmark[j]:
                count += losses[i] > losses[j]
    return count


def ranks_of(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    ordered = sorted(values)
    return [float(np.mean([place for place, other in enumerate(ordered, 1) if other == value])) for value in values]


def rho(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's correlation of the ranks."""
    a, b = (np.array(ranks_of(values)) - (len(values) + 1) / 2 for values in (one, other))
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else 0.0


few_values = st.sampled_from([0.5, 1.0, 1.5, 2.0]) | st.floats(0.0078125, 20, width=32)
benchmarks = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]) | st.floats(0, 100), min_size=3, max_size=7).filter(
    lambda scores: len(set(scores)) >= 3
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[float], npt.NDArray[np.float32]]:
    """Benchmark scores of a ladder, and losses of some documents, float32 (n, models)."""
    scores = sorted(draw(benchmarks))
    rows = draw(st.integers(0, 6))
    return scores, draw(arrays(np.float32, (rows, len(scores)), elements=few_values))


@given(cases())
@settings(deadline=None)
def test_pairs_are_those_of_the_authors(case: tuple[list[float], npt.NDArray[np.float32]]) -> None:
    scores, losses = case
    ladder = ladder_of(scores)
    assert len(ladder.pairs) == sum(a != b for a, b in itertools.combinations(scores, 2))
    assert in_order(-losses, ladder).tolist() == [counted(row, scores) for row in losses.tolist()]
    tied = [
        any(row[i] == row[j] and scores[i] != scores[j] for i, j in itertools.combinations(range(len(row)), 2))
        for row in losses.tolist()
    ]
    assert has_ties(-losses, ladder).tolist() == tied


@given(cases())
@settings(deadline=None)
def test_rank_correlation_is_that_of_the_ranks(case: tuple[list[float], npt.NDArray[np.float32]]) -> None:
    scores, losses = case
    found = rank_correlation(-losses, ladder_of(scores))
    np.testing.assert_allclose(found, [rho([-loss for loss in row], scores) for row in losses.tolist()], atol=1e-12)


@given(st.permutations(range(6)))
def test_rank_correlation_without_ties_has_a_closed_form(order: list[int]) -> None:
    found = rank_correlation(np.array([order], np.float32), ladder_of(range(6)))
    squares = sum((rank - place) ** 2 for place, rank in enumerate(order))
    assert found[0] == pytest.approx(1 - 6 * squares / (6 * 35))


def test_full_order_is_one_and_the_reverse_is_the_least() -> None:
    ladder = ladder_of([0.1, 0.2, 0.3, 0.5, 0.9])
    losses = np.array([[5, 4, 3, 2, 1], [1, 2, 3, 4, 5], [2, 2, 2, 2, 2]], np.float32)
    assert in_order(-losses, ladder).tolist() == [10, 0, 0]
    assert rank_correlation(-losses, ladder).tolist() == [1.0, -1.0, 0.0]


@given(st.lists(few_values, min_size=1, max_size=30), st.data())
def test_ranks_and_correlation_of_arrays(values: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(few_values, min_size=len(values), max_size=len(values)))
    assert (average_ranks(np.array(values)) + 1).tolist() == ranks_of(values)
    assert spearman(np.array(values), np.array(others)) == pytest.approx(rho(values, others), abs=1e-12)


# --- The command. ---


@dataclasses.dataclass(frozen=True)
class Losses:
    """A folder of losses of four models, made by hand over two shards, and its ladder."""

    folder: Path
    values: npt.NDArray[np.float32]

    @property
    def ladder(self) -> Path:
        return self.folder / "ladder.yaml"

    def strength(self, out: Path, *more: object) -> str:
        return ok("strength", self.folder / "losses", "--ladder", self.ladder, "-o", out, *more).err


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of two shards with a bad line and an empty text, scored by some scorer."""
    folder = tmp_path_factory.mktemp("pool")
    corpus.write(folder / "pool" / "a.jsonl", corpus.lines(DOCUMENTS[:100]) + b'{"text": ""}\n{"no": 1}\n[]\n')
    corpus.write(folder / "pool" / "sub" / "b.jsonl.zst", list(DOCUMENTS[100:]))
    ok("score", "dsir", folder / "pool", "--target", folder / "pool", "--min-words", 1, "--on-bad-line", "skip",
       "-w", 1, "-o", folder / "scores")  # fmt: skip
    return folder


@pytest.fixture
def losses(source: Path, tmp_path: Path) -> Losses:
    """As `dvsel losses` would leave them; document 7 has no loss under d."""
    generator = np.random.default_rng(0)
    values = generator.integers(1, 30, (len(DOCUMENTS), len(MODELS))).astype(np.float32) / np.float32(8)
    values[:5] = [1, 4, 3, 2]  # as the benchmark has it
    values[7, 3] = np.nan
    for number, name in enumerate(MODELS):
        for file, rows in (("a.jsonl", slice(0, 100)), ("sub/b.jsonl.zst", slice(100, None))):
            place = f"{file}.dvsel.parquet"
            rewrite(source / "scores" / place, tmp_path / "losses" / name / place, -values[rows, number])
    write_ladder(tmp_path / "ladder.yaml", **BENCHMARK)
    return Losses(tmp_path, values)


def write_ladder(place: Path, **scores: float) -> None:
    models = [{"model": f"owner/{name}", "score": score} for name, score in scores.items()]
    place.write_text(yaml.safe_dump({"models": models}))


def rewrite(old: Path, new: Path, scores: npt.NDArray[np.float32], **header: object) -> None:
    """A score file with other scores for its documents; NaN is no score."""
    file = ScoreFile(str(old))
    (rows,) = file.rows()
    score = np.full((len(rows), 1), np.nan, np.float32)
    score[: len(scores), 0] = scores
    lost = np.isnan(score[:, 0]) & (rows.status == Status.SCORED)
    status = np.where(lost, Status.UNSCORED, rows.status).astype(np.uint8)
    named = {line - 1: cause for line, cause in file.header.totals.named}
    with ScoreFileWriter(str(new), dataclasses.replace(file.header, **header)) as writer:  # type: ignore[arg-type]
        writer.append(dataclasses.replace(rows, score=score, status=status), named)
        writer.finish(file.header.shard.digest)


def strengths(folder: Path) -> npt.NDArray[np.float32]:
    """Of the documents, in their order."""
    return np.concatenate([read(folder, "a.jsonl").score[:100, 0], read(folder, "sub/b.jsonl.zst").score[:, 0]])


def read(folder: Path, shard: str) -> Rows:
    (rows,) = ScoreFile(str(folder / f"{shard}.dvsel.parquet")).rows()
    return rows


def test_strengths_are_score_files_of_the_same_documents(losses: Losses, source: Path, tmp_path: Path) -> None:
    losses.strength(tmp_path / "out")
    benchmark = [BENCHMARK[name] for name in MODELS]
    expected = [counted(row, benchmark) / 5 for row in losses.values.tolist()]  # c and d are no pair
    expected[7] = math.nan
    np.testing.assert_allclose(strengths(tmp_path / "out"), expected, rtol=1e-6)
    for shard in ("a.jsonl", "sub/b.jsonl.zst"):
        found, old = read(tmp_path / "out", shard), read(source / "scores", shard)
        for name in ("key", "text_hash", "tokens", "bytes", "domain"):
            np.testing.assert_array_equal(getattr(found, name), getattr(old, name))
        assert found.domains == old.domains
    first = read(tmp_path / "out", "a.jsonl")
    assert Status(first.status[7]) == Status.UNSCORED and np.isnan(first.score[7])
    assert [Status(value) for value in first.status[100:]] == [Status.EMPTY_TEXT, Status.BAD_LINE, Status.BAD_LINE]
    (before, after) = (ScoreFile(str(folder / "a.jsonl.dvsel.parquet")).header for folder in
                  (source / "scores", tmp_path / "out"))  # fmt: skip
    assert after.shard == before.shard and after.reading == before.reading and after.tokens == before.tokens
    assert (after.totals.named, after.totals.bad_lines) == (before.totals.named, before.totals.bad_lines)
    assert after.scorer == "strength" and after.fingerprint != before.fingerprint


def test_the_report_counts_values_and_ties(losses: Losses, tmp_path: Path) -> None:
    err = losses.strength(tmp_path / "out")
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    found = strengths(tmp_path / "out")
    assert report["models"] == ["b", "c", "d", "a"] and report["pairs"] == 5
    assert report["values"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert report["documents"] == [int(np.isclose(found, value).sum()) for value in report["values"]]
    assert report["in_order"] == int((found == 1).sum()) >= 5
    rows = np.delete(losses.values, 7, axis=0)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]
    assert report["tied"] == int(np.any([rows[:, i] == rows[:, j] for i, j in pairs], axis=0).sum())
    assert report["totals"]["docs"] == 299 and report["totals"]["rows"] == 303
    assert f"all pairs in order: {report['in_order']} documents" in err
    assert f"equal losses in some pair: {report['tied']} documents" in err
    assert "strength (pairs) of 299 of 303 documents, from 4 models in 5 pairs" in err
    assert "no score for 1 documents: a model of the ladder gives them no loss" in err


def test_rank_correlation_instead(losses: Losses, tmp_path: Path) -> None:
    losses.strength(tmp_path / "out", "--strength", "spearman")
    benchmark = [BENCHMARK[name] for name in MODELS]
    expected = [rho([-loss for loss in row], benchmark) for row in losses.values.tolist()]
    expected[7] = math.nan
    np.testing.assert_allclose(strengths(tmp_path / "out"), expected, atol=1e-6)
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert len(report["values"]) == len(report["documents"]) == 20 and sum(report["documents"]) == 299
    assert ScoreFile(str(tmp_path / "out" / "a.jsonl.dvsel.parquet")).header.scorer == "strength spearman"


def test_select_and_inspect_take_strengths(losses: Losses, tmp_path: Path) -> None:
    losses.strength(tmp_path / "out")
    found = strengths(tmp_path / "out")
    ok("select", tmp_path / "out", "--min-score", 1, "-w", 1, "-o", tmp_path / "full")
    full = {DOCUMENTS[row]["id"] for row in np.flatnonzero(found == 1)}
    assert corpus.selected_ids(tmp_path / "full") == full
    ok("select", tmp_path / "out", "--budget", "9 docs", "--lowest", "-w", 1, "-o", tmp_path / "least")
    least = corpus.selected_ids(tmp_path / "least")
    cut = np.sort(found)[8]
    assert len(least) == 9
    assert {DOCUMENTS[row]["id"] for row in np.flatnonzero(found < cut)} <= least
    assert b"scored with strength" in ok("inspect", tmp_path / "out").out


def test_the_recipe_replays_it(losses: Losses, tmp_path: Path) -> None:
    losses.strength(tmp_path / "out", "--strength", "spearman")
    ok("run", tmp_path / "out" / "recipe.yaml", "-o", tmp_path / "again")
    np.testing.assert_array_equal(strengths(tmp_path / "again"), strengths(tmp_path / "out"))


def test_another_rule_or_ladder_is_another_fit(losses: Losses, tmp_path: Path) -> None:
    def fingerprint(*more: object) -> str:
        losses.strength(tmp_path / "out", "--overwrite", *more)
        return ScoreFile(str(tmp_path / "out" / "a.jsonl.dvsel.parquet")).header.fingerprint

    first = fingerprint()
    assert fingerprint("--strength", "spearman") != first
    write_ladder(losses.ladder, **BENCHMARK | {"a": 0.4})
    assert fingerprint() == first, "only the order of the scores counts"
    write_ladder(losses.ladder, **BENCHMARK | {"a": 0.0})
    assert fingerprint() != first


def test_the_folder_of_another_run_is_refused(losses: Losses, tmp_path: Path) -> None:
    losses.strength(tmp_path / "out")
    command = ("strength", losses.folder / "losses", "--ladder", losses.ladder, "--strength", "spearman")
    assert "its strength is pairs, this one's spearman" in failure(*command, "-o", tmp_path / "out")


def test_losses_that_do_not_fit_together_are_refused(losses: Losses, tmp_path: Path) -> None:
    write_ladder(losses.ladder, a=0.4, b=0.3, c=0.2, d=0.1)
    command = ("strength", losses.folder / "losses", "--ladder", losses.ladder, "-o", tmp_path / "out")
    place = losses.folder / "losses" / "c" / "a.jsonl.dvsel.parquet"
    content = place.read_bytes()
    values = np.zeros(100, np.float32)
    rewrite(place, place, values, reading=dataclasses.replace(ScoreFile(str(place)).header.reading, text_field="body"))
    assert "are not of the same documents" in failure(*command)
    other = losses.folder / "losses" / "c" / "sub" / "b.jsonl.zst.dvsel.parquet"
    place.write_bytes(other.read_bytes())
    assert "are not of the same documents" in failure(*command)
    place.unlink()
    assert "losses of different shards" in failure(*command)
    other.unlink()
    assert "holds no losses of c" in failure(*command)
    place.write_bytes(content)
    assert not (tmp_path / "out").exists()


def test_what_a_run_lacks_is_said(losses: Losses, tmp_path: Path) -> None:
    folder = losses.folder / "losses"
    assert "--ladder" in failure("strength", folder, "-o", tmp_path / "out")
    assert "-o" in failure("strength", folder, "--ladder", losses.ladder)
    assert "one folder of losses" in failure("strength", "--ladder", losses.ladder, "-o", tmp_path / "out")
    assert "one folder of losses" in failure("strength", folder, folder, "--ladder", losses.ladder, "-o", "out")
    assert dvsel("strength", folder, "--ladder", losses.ladder, "--strength", "kendall", "-o", "out").code == 2
