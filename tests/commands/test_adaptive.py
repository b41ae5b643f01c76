"""`--adaptive`: a part of the pool is scored, and a bandit over clusters chooses which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import failure, ok
from dvsel.commands.adaptive import Arms
from dvsel.documents.columns import Status
from dvsel.runs.output_folder import REPORT
from dvsel.score_files.reader import ScoreFile
from embedded_pool import embed, unit, write_pool

pytestmark = pytest.mark.usefixtures("one_thread")

ARMS, COUNT = 8, 1600


def drawn(share: float, means: list[float], seed: int = 0) -> tuple[Arms, np.ndarray, np.ndarray]:
    """A bandit that ran over documents whose scores vary around their arm's mean: it, the scores, what it drew."""
    generator = np.random.default_rng(seed)
    arm = np.arange(COUNT) % len(means)
    score = (np.array(means)[arm] + generator.normal(size=COUNT)).astype(np.float32)
    number, seen = generator.uniform(size=COUNT), np.zeros(COUNT, bool)
    arms = Arms(np.bincount(arm), share)
    before = np.zeros(len(means))
    for _ in range(16):
        until = arms.draw()
        chosen = (number > before[arm]) & (number <= until[arm])
        arms.learn(arm[chosen], score[chosen])
        seen |= chosen
        before = until.copy()
    return arms, score, seen


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6, 1.0])
def test_the_share_is_spent_and_no_more(share: float) -> None:
    arms, _, seen = drawn(share, [0.0] * ARMS)
    assert float(arms.drawn @ arms.sizes) == pytest.approx(share * COUNT)
    assert seen.mean() == pytest.approx(share, abs=0.03)


def test_it_goes_where_the_best_are() -> None:
    """One arm in eight holds nearly all of the best eighth."""
    _, score, seen = drawn(0.25, [3.0] + [0.0] * 7)
    best = np.argsort(-score)[: COUNT // 8]
    assert seen[best].mean() > 0.8


def test_it_says_how_much_of_the_best_it_found() -> None:
    """The estimate is that of the truth, whether the arms differ or not."""
    for means in ([3.0] + [0.0] * 7, [0.0] * 8, [2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5]):
        for seed in range(3):
            arms, score, seen = drawn(0.3, means, seed)
            best = np.argsort(-score)[: int(COUNT * arms.wanted)]
            assert arms.found() == pytest.approx(seen[best].mean(), abs=0.13)


def test_a_round_may_draw_nothing() -> None:
    arms = Arms(np.array([3, 0, 2]), 0.2)
    arms.draw()
    arms.learn(np.empty(0, np.int64), np.empty(0, np.float32))
    assert arms.draw().tolist() and 0 <= arms.found() <= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with emb/ over 8 groups of documents, of which group 0 speaks of zebras, and target.jsonl of zebras."""
    folder = tmp_path_factory.mktemp("adaptive")
    generator = np.random.default_rng(0)
    words = ["zebra", *"abcdefg"]
    texts = [
        {"text": " ".join([words[row % ARMS], "grass", "of", "plains", str(row)] * 6), "domain": words[row % ARMS]}
        for row in range(400)
    ]
    write_pool(folder, texts)
    embed(folder, unit(np.eye(ARMS, 16)[np.arange(400) % ARMS] + generator.normal(0, 0.05, (400, 16))))
    (folder / "target.jsonl").write_text("".join(json.dumps({"text": texts[row]["text"]}) + "\n" for row in (0, 8)))
    return folder


def scores(out: Path) -> np.ndarray:
    files = [ScoreFile(str(path)) for path in sorted(out.glob("*.parquet"))]
    return np.concatenate([rows.score[:, 0] for file in files for rows in file.rows()])


def words_for(folder: Path, out: Path) -> tuple[object, ...]:
    return ("score", "dsir", folder / "emb", "--target", folder / "target.jsonl", "--min-words", 0, "--adaptive",
            "--adaptive-clusters", ARMS, "-o", out)  # fmt: skip


def test_what_is_scored_has_the_scores_of_a_whole_run(folder: Path, tmp_path: Path) -> None:
    ok(*words_for(folder, tmp_path / "part"))
    fitted = tmp_path / "part" / "dsir.fitted"
    ok("score", "dsir", folder / "pool", "--fitted", fitted, "-o", tmp_path / "whole")
    part, whole = scores(tmp_path / "part"), scores(tmp_path / "whole")
    there = np.isfinite(part)
    assert 0.15 < there.mean() < 0.35
    np.testing.assert_array_equal(part[there], whole[there])
    zebras = np.arange(400) % ARMS == 0
    assert there[zebras].mean() > 2 * there[~zebras].mean()


def test_unscored_documents_are_counted_and_never_selected(folder: Path, tmp_path: Path) -> None:
    answer = ok(*words_for(folder, tmp_path / "part"))
    assert "adaptive: scored" in answer.err and "of the best 12.5% of the pool an estimated" in answer.err
    report = json.loads((tmp_path / "part" / REPORT).read_text())
    (rows,) = ScoreFile(str(tmp_path / "part" / "0.jsonl.dvsel.parquet")).rows()
    assert set(rows.status.tolist()) == {Status.SCORED, Status.UNSCORED}
    assert report["totals"]["docs"] + report["totals"]["status"]["unscored"] == 400
    ok("select", tmp_path / "part", "--budget", "20 docs", "-o", tmp_path / "out")
    lines = [line for path in (tmp_path / "out").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 20 and all("zebra" in line for line in lines)


def test_a_finished_run_is_kept_and_its_steps_are_gone(folder: Path, tmp_path: Path) -> None:
    first = ok(*words_for(folder, tmp_path / "part")).err.splitlines()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").glob("*.parquet")}
    again = ok(*words_for(folder, tmp_path / "part")).err.splitlines()
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert [line for line in again if "adaptive" in line] == [line for line in first if "adaptive" in line]
    assert not (tmp_path / "part" / ".dvsel" / "steps" / "adaptive" / "rounds").exists()


def test_a_small_pool_and_a_small_share(folder: Path, tmp_path: Path) -> None:
    ok(*words_for(folder, tmp_path / "part"), "--adaptive-share", 0.02)
    assert 0 < np.isfinite(scores(tmp_path / "part")).sum() < 20


def test_a_score_file_that_is_gone_is_made_again(folder: Path, tmp_path: Path) -> None:
    ok(*words_for(folder, tmp_path / "part"))
    gone = tmp_path / "part" / "0.jsonl.dvsel.parquet"
    before = gone.read_bytes()
    gone.unlink()
    ok(*words_for(folder, tmp_path / "part"))
    assert gone.read_bytes() == before


def test_an_interrupted_run_goes_on_and_ends_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(*words_for(folder, tmp_path / "whole"))
    rounds = 0

    def stops_in_the_fifth(*arguments: Any) -> object:
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            raise KeyboardInterrupt
        return write_beside(*arguments)

    from dvsel.pool.annotate import write_beside

    monkeypatch.setattr("dvsel.commands.adaptive.write_beside", stops_in_the_fifth)
    assert failed(words_for(folder, tmp_path / "part")) == 130
    monkeypatch.undo()
    assert (tmp_path / "part" / ".dvsel" / "steps" / "adaptive" / "rounds" / "00003" / "scores").exists()
    ok(*words_for(folder, tmp_path / "part"))
    for path in (tmp_path / "whole").glob("*.parquet"):
        assert (tmp_path / "part" / path.name).read_bytes() == path.read_bytes()


def failed(words: tuple[object, ...]) -> int:
    from commands import dvsel

    return dvsel(*words).code


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        (("--adaptive",), "goes by clusters of embeddings"),
        (("--adaptive-share", "0.5"), "--adaptive-share: belongs to --adaptive; add that"),
    ],
)
def test_what_cannot_be_adaptive(folder: Path, tmp_path: Path, more: tuple[str, ...], cause: str) -> None:
    words = ("score", "dsir", folder / "pool", "--target", folder / "target.jsonl", "-o", tmp_path / "out")
    assert cause in failure(*words, *more)


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        (("--adaptive-share", "0"), "adaptive_share 0.0: out of range; give a number above 0 and at most 1"),
        (("--adaptive-clusters", "1"), "adaptive_clusters 1: out of range; give 2 or more"),
        (("--tokens-field", "id"), "--adaptive takes them from the embeddings"),
        (("--domain-field", "id"), "--adaptive takes them from the embeddings"),
        (("--distil", "--distil-documents", "100"), "choose one of the two"),
    ],
)
def test_options_out_of_range(folder: Path, tmp_path: Path, more: tuple[str, ...], cause: str) -> None:
    words = ("score", "dsir", folder / "emb", "--target", folder / "target.jsonl", "--adaptive", "-o", tmp_path / "out",
             "--min-words", 0)  # fmt: skip
    assert cause in failure(*words, *more)
