"""Rules that see the whole set, as a user runs them: `dvsel select emb/ --method NAME`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from commands import failure, ok
from dvsel.embeddings.facility import greedy, value
from dvsel.embeddings.partition import LARGEST
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile
from embedded_pool import documents, embed, kept, unit, write_pool

pytestmark = pytest.mark.usefixtures("one_thread")

GROUPS = 6


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """360 documents around 6 centres; document i is of group i % 6."""
    generator = np.random.default_rng(0)
    centres = np.eye(GROUPS, 24)
    return unit(np.tile(centres, (60, 1)) + generator.normal(0, 0.15, (360, 24)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Path:
    """A folder with pool/, emb/ and scores/ (of the loss 1 + i % 6, so of the group)."""
    folder = tmp_path_factory.mktemp("sets")
    texts = [{"text": "word " * (3 + row % 7), "domain": f"group {row % GROUPS}"} for row in range(len(vectors))]
    write_pool(folder, texts)
    embed(folder, vectors)
    return folder


def selected(folder: Path, out: Path, *words: object) -> list[int]:
    ok("select", folder / "emb", "-o", out, "-w", 1, *words)
    return kept(out)


def report(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / REPORT).read_text())
    return found


# --- Coverage. ---


def test_coverage_is_greedy_facility_location(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    rows = selected(folder, tmp_path / "out", "--method", "coverage", "--budget", "12 docs")
    expected = greedy(vectors, np.ones(len(vectors), np.int64), 12, 0, exact=True).order
    assert rows == sorted(expected.tolist())
    assert {row % GROUPS for row in rows} == set(range(GROUPS))


def test_coverage_keeps_to_a_budget_of_tokens_and_covers_more_than_chance(
    folder: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    rows = selected(folder, tmp_path / "out", "--method", "coverage", "--budget", "100 tokens")
    given = report(tmp_path / "out")["given"]["tokens"]  # type: ignore[index]
    assert 90 < given <= 100
    chance = np.random.default_rng(1)
    drawn = [value(vectors, chance.choice(len(vectors), len(rows), replace=False)) for _ in range(20)]
    assert value(vectors, np.array(rows)) > max(drawn)


def test_coverage_sampled_by_gain_depends_on_the_seed(folder: Path, tmp_path: Path) -> None:
    words = ("--method", "coverage", "--sampling", "gain", "--budget", "40 docs")
    one, again, other = (
        selected(folder, tmp_path / name, *words, "--seed", seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == again != other
    assert len(one) == 40


def test_a_cell_that_ran_out_is_told(tmp_path: Path) -> None:
    """Many copies of one document, and as many different ones: the even share of the copies is far too much."""
    generator = np.random.default_rng(0)
    near, count = unit(1 + generator.normal(0, 0.001, (LARGEST, 32))), LARGEST + LARGEST // 4
    vectors = np.concatenate([near, unit(generator.normal(size=(count - LARGEST, 32)) - 2)])
    write_pool(tmp_path, [{"text": f"text {row}"} for row in range(count)], shards=1)
    embed(tmp_path, vectors)
    rows = selected(tmp_path, tmp_path / "out", "--method", "coverage", "--budget", "100 docs")
    assert sum(row >= LARGEST for row in rows) > 75
    assert "used up to 4 times their share" in " ".join(report(tmp_path / "out")["notes"])  # type: ignore[arg-type]


# --- Semantic deduplication. ---


def test_semdedup_keeps_one_of_each_group_and_all_that_are_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    alone = unit(generator.normal(size=(20, 40)))
    vectors = np.concatenate([np.repeat(alone[:5], 4, axis=0), alone[5:]])
    write_pool(tmp_path, [{"text": f"text {row}"} for row in range(len(vectors))])
    embed(tmp_path, vectors)
    rows = selected(tmp_path, tmp_path / "out", "--method", "semdedup")
    assert len(rows) == 20
    assert sorted(row // 4 for row in rows if row < 20) == list(range(5))
    assert "dropped 15 of 35 documents" in " ".join(report(tmp_path / "out")["notes"])  # type: ignore[arg-type]


def test_semdedup_prefers_high_scores_and_cuts_to_a_budget(folder: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    ok("score", "dsir", folder / "pool", "--target", folder / "pool" / "0.jsonl", "--min-words", 0, "-o", scores)
    out = tmp_path / "out"
    words = ("--embeddings", folder / "emb", "--method", "semdedup", "--threshold", 0.6)
    ok("select", scores, *words, "-o", out, "-w", 1)
    everything = kept(out)
    ok("select", scores, *words, "--budget", "3 docs", "-o", tmp_path / "few", "-w", 1)
    files = [ScoreFile(str(path)) for path in sorted(scores.glob("*.parquet"))]
    score = np.concatenate([rows.score[:, 0] for file in files for rows in file.rows(())])
    few, rest = kept(tmp_path / "few"), sorted(set(everything) - set(kept(tmp_path / "few")))
    assert len(few) == 3 and set(few) < set(everything)
    assert score[few].min() >= score[rest].max()


def test_documents_without_a_vector_are_counted_and_not_kept(tmp_path: Path, vectors: np.ndarray) -> None:
    holed = vectors.copy()
    holed[7] = np.nan
    write_pool(tmp_path, [{"text": f"text {row}"} for row in range(len(holed))])
    embed(tmp_path, holed)
    answer = ok("select", tmp_path / "emb", "--method", "coverage", "--budget", "359 docs", "-o", tmp_path / "out")
    assert 7 not in kept(tmp_path / "out")
    assert "no score for 1 documents: no tokens to embed" in answer.err


# --- Round-robin. ---


def test_queries_take_turns(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    """Against the rule itself: each query takes the nearest document that nobody has."""
    queries = tmp_path / "queries"
    wanted = unit(np.eye(GROUPS, 24)[[2, 4]] + 0.01)
    write_pool(queries, [{"text": "two"}, {"text": "four"}], shards=1)
    embed(queries, wanted)
    words = ("--method", "round-robin", "--queries", queries / "emb", "--budget", "30 docs")
    similarity = vectors @ wanted[np.random.default_rng(0).permutation(2)].T
    assert selected(folder, tmp_path / "out", *words) == sorted(turns_of(similarity, 30))


def turns_of(columns: np.ndarray, picks: int) -> list[int]:
    """The rows that two columns take in turns, each its highest of those left; no two are equal."""
    free, taken = np.ones(len(columns), bool), []
    for turn in range(picks):
        best = int(np.where(free, columns[:, turn % 2], -np.inf).argmax())
        free[best] = False
        taken.append(best)
    return taken


def test_queries_that_the_budget_does_not_reach_are_counted(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    queries = tmp_path / "queries"
    write_pool(queries, [{"text": str(row)} for row in range(30)], shards=1)
    embed(queries, vectors[:30])
    words = ("--method", "round-robin", "--queries", queries / "emb", "--budget", "20 docs")
    rows = selected(folder, tmp_path / "out", *words)
    assert "of 30 columns 10 picked nothing" in " ".join(report(tmp_path / "out")["notes"])  # type: ignore[arg-type]
    assert not set(rows) <= set(range(20))
    assert rows != selected(folder, tmp_path / "other", *words, "--seed", 1)


def test_columns_of_scores_take_turns(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    """Against the rule itself, over the two columns of the score files."""
    scores, targets = tmp_path / "scores", []
    for row in (3, 8):
        write_pool(tmp_path / f"target{row}", [{"text": "a target"}], shards=1)
        targets += ["--target", embed(tmp_path / f"target{row}", vectors[[row]] + np.float32(0.01), name=f"emb{row}")]
    ok("score", "target", folder / "emb", "--preset", "rds-max", *targets, "-o", scores)
    ok("select", scores, "--method", "round-robin", "--budget", "20 docs", "-o", tmp_path / "out", "-w", 1)
    files = [ScoreFile(str(path)) for path in sorted(scores.glob("*.parquet"))]
    columns = np.concatenate([rows.score for file in files for rows in file.rows(())])
    assert kept(tmp_path / "out") == sorted(turns_of(columns, 20))


def test_a_heap_that_runs_out_is_told(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    queries = tmp_path / "queries"
    write_pool(queries, [{"text": "a"}, {"text": "b"}], shards=1)
    embed(queries, vectors[:2])
    words = ("--method", "round-robin", "--queries", queries / "emb", "--budget", "40 docs")
    selected(folder, tmp_path / "out", *words, "--heap", 5)
    assert "2 columns used up their heaps of 5" in " ".join(report(tmp_path / "out")["notes"])  # type: ignore[arg-type]


# --- Sensitivity. ---


def test_weights_make_up_for_the_probabilities(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    """The weights of a sample sum to the pool's size on average, and those of one group to the group's."""
    totals, groups = [], []
    for seed in range(30):
        out = tmp_path / str(seed)
        selected(folder, out, "--method", "sensitivity", "--budget", "60 docs", "--seed", seed, "--clusters", 6)
        found = documents(out)
        assert len(found) == 60
        weights = np.array([document["weight"] for document in found])
        own = np.array([int(document["id"]) % GROUPS for document in found])
        assert weights.min() >= 1
        totals.append(weights.sum())
        groups.append(weights[own == 0].sum())
    assert np.mean(totals) == pytest.approx(360, rel=0.05)
    assert np.mean(groups) == pytest.approx(60, rel=0.15)


def test_sensitivity_is_the_loss_of_the_cluster_and_the_distance(folder: Path, vectors: np.ndarray) -> None:
    from dvsel.selectors.sensitivity import Sensitivity

    threshold = np.full(3, 4.0, np.float32)
    key, uniform = np.array([8.0, 40.0, 4.5], np.float32), np.array([0.25, 0.5, 0.5])
    assert Sensitivity().weight(key, uniform, threshold).tolist() == pytest.approx([4 / 2, 1, 4 / 2.25])


def test_a_weight_replaces_one_that_is_there(tmp_path: Path, vectors: np.ndarray) -> None:
    write_pool(tmp_path, [{"text": f"text {row}", "weight": 7, "last": 1} for row in range(len(vectors))])
    embed(tmp_path, vectors)
    selected(tmp_path, tmp_path / "out", "--method", "sensitivity", "--budget", "20 docs")
    for document in documents(tmp_path / "out"):
        assert list(document) == ["id", "text", "last", "weight"]
        assert document["weight"] != 7


def test_scores_that_are_no_losses_are_refused(vectors: np.ndarray, tmp_path: Path) -> None:
    """The log ratios of DSIR are above 0 in the cluster that is like the target."""
    texts = [{"text": ("zebra " if row % GROUPS == 0 else "word ") * 20} for row in range(len(vectors))]
    write_pool(tmp_path, texts)
    emb = embed(tmp_path, vectors)
    (tmp_path / "target.jsonl").write_text(json.dumps(texts[0]) + "\n")
    words = ("--target", tmp_path / "target.jsonl", "--min-words", 0, "-o", tmp_path / "scores")
    ok("score", "dsir", tmp_path / "pool", *words)
    words = ("--embeddings", emb, "--method", "sensitivity", "--clusters", 6)  # type: ignore[assignment]
    words = (*words, "--budget", "9 docs", "-o", tmp_path / "out")  # type: ignore[assignment]
    assert "takes losses" in failure("select", tmp_path / "scores", *words)


# --- What all of them need. ---


@pytest.mark.parametrize("method", ["coverage", "semdedup", "sensitivity"])
def test_the_subset_does_not_depend_on_shards(tmp_path: Path, vectors: np.ndarray, method: str) -> None:
    found = []
    for shards in (1, 3):
        place = tmp_path / str(shards)
        write_pool(place, [{"text": f"text {row}"} for row in range(len(vectors))], shards)
        embed(place, vectors)
        found.append(selected(place, place / "out", "--method", method, "--budget", "50 docs"))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ((), "holds vectors and no scores"),
        (("--method", "topk"), "holds vectors and no scores"),
        (("--method", "round-robin"), "one column has no turns to take"),
        (("--method", "coverage", "--quota", "quota.yaml"), "divides the budget itself"),
    ],
)
def test_what_cannot_be_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], cause: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quota.yaml").write_text("group 1: 50%\n")
    assert cause in failure("select", folder / "emb", *words, "--budget", "10 docs", "-o", "out")


def test_a_pool_that_is_scored_first_keeps_its_vectors(folder: Path, tmp_path: Path) -> None:
    words = ("--with", "target", "--preset", "rds-max", "--target", folder / "emb" / "0.jsonl.dvsel.parquet")
    rule = ("--method", "semdedup", "--threshold", 0.8, "--budget", "20 docs")
    assert len(selected(folder, tmp_path / "out", *words, *rule)) == 20


def test_queries_are_read_as_the_options_say(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.jsonl").write_text('{"body": "text"}\n')
    words = (
        "--method",
        "round-robin",
        "--queries",
        tmp_path / "queries.jsonl",
        "--budget",
        "9 docs",
        "-o",
        tmp_path / "out",
    )
    assert "no field 'text'" in failure("select", folder / "emb", *words)
    assert "no such folder" in failure("select", folder / "emb", *words, "--text-field", "body")  # of the made-up model


def test_a_dry_run_of_scoring_vectors_first(folder: Path, tmp_path: Path) -> None:
    words = ("--with", "target", "--target", folder / "emb", "--budget", "9 docs", "-o", tmp_path / "out")
    assert "nothing was written" in ok("select", folder / "emb", *words, "--dry-run").err


def test_vectors_of_one_shard_twice_are_refused(folder: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    ok("score", "dsir", folder / "pool", "--target", folder / "pool" / "0.jsonl", "--min-words", 0,
       "-o", tmp_path / "scores")  # fmt: skip
    embed(folder, vectors, name="again")
    words = ("--embeddings", folder / "emb", "--embeddings", folder / "again", "--method", "coverage")
    assert "vectors of the same shard" in failure(
        "select", tmp_path / "scores", *words, "--budget", "9 docs", "-o", tmp_path / "out"
    )
    assert "one holds scores and one vectors" in failure(
        "select", tmp_path / "scores", folder / "emb", "--method", "coverage", "--budget", "9 docs",
        "-o", tmp_path / "out",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["coverage", "semdedup", "sensitivity"])
def test_a_pool_without_a_row(tmp_path: Path, method: str) -> None:
    write_pool(tmp_path, [], shards=1)
    emb = embed(tmp_path, np.empty((0, 4), np.float32))
    words = ("select", emb, "--method", method, "--budget", "9 docs", "-o", tmp_path / "out")
    if method == "sensitivity":
        assert "no document that competes" in failure(*words)
    else:
        ok(*words)


def test_scores_without_vectors_are_refused(folder: Path, tmp_path: Path) -> None:
    ok("score", "dsir", folder / "pool", "--target", folder / "pool" / "0.jsonl", "-o", tmp_path / "scores")
    words = ("--method", "coverage", "--budget", "9 docs", "-o", tmp_path / "out")
    assert "dvsel embed POOL" in failure("select", tmp_path / "scores", *words)
    write_pool(tmp_path / "other", [{"text": "another"}], shards=1)
    embed(tmp_path / "other", np.ones((1, 4), np.float32))
    assert "has scores and no vectors" in failure(
        "select", tmp_path / "scores", "--embeddings", tmp_path / "other" / "emb", *words
    )


def test_a_large_cell_is_cut_again(tmp_path: Path) -> None:
    """Cells hold all rows once, whatever the cut."""
    from dvsel.embeddings.partition import Members, cells

    generator = np.random.default_rng(0)
    count = LARGEST * 3
    vectors = unit(np.concatenate([np.ones((count - 100, 8)), generator.normal(size=(100, 8))]))
    rows = Members(
        np.arange(count), generator.integers(0, 2**63, count).astype(np.uint64), np.ones(count, np.int64),
        np.zeros(count, np.float32), vectors,
    )  # fmt: skip
    found = list(
        cells(lambda: iter([rows.take(np.arange(0, 9000)), rows.take(np.arange(9000, count))]), count, 0, tmp_path)
    )
    assert max(map(len, found)) <= LARGEST
    assert sorted(np.concatenate([cell.position for cell in found]).tolist()) == list(range(count))
    assert not list(tmp_path.iterdir())
