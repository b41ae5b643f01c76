"""The highest and the lowest rows of score files, and their documents."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dvsel.documents.columns import Status
from dvsel.documents.tokens import BUILT_IN
from dvsel.errors import UserError
from dvsel.options import among
from dvsel.pool.top_rows import documents_of, top_rows
from dvsel.runs.requests import Reading
from dvsel.score_files.header import Header, ReadingRecord, ShardIdentity
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import ROWS_AT_ONCE, Rows
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.shards.expand import expand


def score_file(place: Path, scores: np.ndarray, keys: np.ndarray) -> ScoreFile:
    """A score file of these scores, float32 (n, groups), for a shard beside it."""
    place.write_text("".join(json.dumps({"text": f"{place.stem} {row}"}) + "\n" for row in range(len(scores))))
    header = Header(
        version="1",
        shard=ShardIdentity.of(expand([str(place)])[0]),
        scorer="dsir",
        fingerprint="",
        groups=tuple("ab"[: scores.shape[1]]),
        shares=(0.5,) * scores.shape[1],
        selector="topk",
        unscored="",
        reading=among(ReadingRecord, Reading()),
        tokens=BUILT_IN,
    )
    status = np.where(np.isnan(scores[:, 0]), Status.UNSCORED, Status.SCORED).astype(np.uint8)
    numbers, domain = np.zeros(len(scores), np.uint32), np.zeros(len(scores), np.int32)
    rows = Rows(len(scores), scores, keys, keys, numbers, numbers, status, domain, [""])
    with ScoreFileWriter(f"{place}.dvsel.parquet", header) as writer:
        writer.append(rows, {})
        writer.finish("digest")
    return ScoreFile(f"{place}.dvsel.parquet")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ScoreFile], np.ndarray, np.ndarray]:
    """Two files of two groups, with many equal scores and some of NaN; all scores, and all keys."""
    folder, random = tmp_path_factory.mktemp("top"), np.random.default_rng(0)
    counts = (ROWS_AT_ONCE + 100, 300)  # rows that are read at once, and more
    scores = random.integers(-1000, 1000, (sum(counts), 2)).astype(np.float32)
    scores[random.random(len(scores)) < 0.1] = np.nan
    keys = random.permutation(len(scores)).astype(np.uint64)
    found = [
        score_file(folder / "x.jsonl", scores[: counts[0]], keys[: counts[0]]),
        score_file(folder / "y.jsonl", scores[counts[0] :], keys[counts[0] :]),
    ]
    return found, scores, keys


@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("count", [0, 1, 50, 10**6])
def test_they_are_the_first_of_a_sort(
    files: tuple[list[ScoreFile], np.ndarray, np.ndarray], count: int, lowest: bool
) -> None:
    parts, scores, keys = files
    found = top_rows(parts, count, (0, 1), lowest)
    for group in (0, 1):
        order = np.lexsort((keys, scores[:, group] if lowest else -scores[:, group]))
        order = order[np.isfinite(scores[order, group])][:count]
        first = np.array([0, len(parts[0])])
        np.testing.assert_array_equal(first[found[group].file] + found[group].row, order)
        np.testing.assert_array_equal(found[group].score, scores[order, group])


def test_their_documents_are_read_once_each(files: tuple[list[ScoreFile], np.ndarray, np.ndarray]) -> None:
    parts, _, _ = files
    tops = [*top_rows(parts, 40, (0, 1)), *top_rows(parts, 40, lowest=True)]
    texts = {(file, row): batch.text[at].decode() for file, row, batch, at in documents_of(parts, tops)}
    wanted = {(int(file), int(row)) for top in tops for file, row in zip(top.file, top.row, strict=True)}
    assert texts == {(file, row): f"{'xy'[file]} {row}" for file, row in wanted}


def test_a_shard_that_changed_is_refused(tmp_path: Path) -> None:
    file = score_file(tmp_path / "a.jsonl", np.ones((2, 1), np.float32), np.arange(2, dtype=np.uint64))
    (tmp_path / "a.jsonl").write_text('{"text": "other"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl changed after it was scored"):
        list(documents_of([file], top_rows([file], 1)))
