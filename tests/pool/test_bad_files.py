"""`--on-bad-file skip`: a shard that cannot be read is left out as a whole, counted and named."""

from __future__ import annotations

import errno
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import corpus
from commands import failure, ok
from dvsel.errors import BadFile, UserError
from dvsel.pool.sample import draw_sample
from dvsel.runs.requests import Reading, Sampling
from dvsel.score_files.reader import ScoreFile
from dvsel.shards.expand import expand
from dvsel.storage.places import open_read

POOL = corpus.pool()[::3]
GOOD, OTHERS = POOL[:150], POOL[150:]
PLAIN = corpus.lines(OTHERS)
SKIP = ("--on-bad-file", "skip")


def parquet(folder: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(OTHERS), folder / "x")
    content = (folder / "x").read_bytes()
    (folder / "x").unlink()
    return content[: len(content) // 2]


def damaged_gzip(_: Path) -> bytes:
    """Data whose lines are broken before the checksum shows it."""
    stored = gzip.compress(PLAIN, compresslevel=0)
    return stored[:100] + b"\x01" + stored[101:]


BAD: dict[str, Any] = {
    "b.jsonl.zst": lambda _: zstandard.compress(PLAIN)[:-20],
    "b.jsonl.gz": damaged_gzip,
    "b.parquet": parquet,
    "b.jsonl": lambda _: PLAIN.decode().encode("utf-16"),
    "c.jsonl.zst": lambda _: PLAIN,
}
CAUSES = {
    "b.jsonl.zst": "truncated",
    "b.jsonl.gz": "corrupt",
    "b.parquet": "broken Parquet file",
    "b.jsonl": "is UTF-16",
    "c.jsonl.zst": "is not zstd data",
}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    corpus.write(folder / "a.jsonl", GOOD)
    corpus.write(folder / "target.jsonl", corpus.target())
    ok("fit", "dsir", "--pool", folder / "a.jsonl", "--target", folder / "target.jsonl", "-o", folder / "dsir.fitted")
    return folder / "dsir.fitted"


def pool(folder: Path, name: str) -> Path:
    """Two good shards and one of that name, which is bad."""
    corpus.write(folder / "pool" / "a.jsonl", GOOD[:70])
    corpus.write(folder / "pool" / "z.jsonl.gz", GOOD[70:])
    (folder / "pool" / name).write_bytes(BAD[name](folder))
    return folder / "pool"


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / ".dvsel" / "report.json").read_text())
    return found


def score(place: Path, fitted: Path, out: Path, *words: object) -> tuple[object, ...]:
    return ("score", "dsir", place, "--fitted", fitted, "-w", 1, "-o", out, *words)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_left_out_and_named_and_the_others_are_scored(name: str, fitted: Path, tmp_path: Path) -> None:
    place, out = pool(tmp_path, name), tmp_path / "scores"
    message = failure(*score(place, fitted, tmp_path / "fail"))
    err = ok(*score(place, fitted, out, *SKIP)).err
    assert "left out 1 files that cannot be read:\n" in err
    assert f"{place / name}: " in err and CAUSES[name] in err
    if name != "b.jsonl.gz":
        assert CAUSES[name] in message
    ((url, cause),) = report(out)["unread"]
    assert url == str(place / name) and CAUSES[name] in cause
    assert report(out)["totals"]["rows"] == len(GOOD) and report(out)["empty_shards"] == []
    (place / name).unlink()
    ok(*score(place, fitted, tmp_path / "without"))
    for row_file in (tmp_path / "without").rglob("*.jsonl*.parquet"):
        there = ScoreFile(str(out / row_file.relative_to(tmp_path / "without")))
        was = ScoreFile(str(row_file))
        assert there.header.digests == was.header.digests and len(there) == len(was) > 0


def test_select_knows_about_it(fitted: Path, tmp_path: Path) -> None:
    place = pool(tmp_path, "b.jsonl.zst")
    ok(*score(place, fitted, tmp_path / "scores", *SKIP))
    err = ok("select", tmp_path / "scores", "--budget", "20%", "-o", tmp_path / "selected").err
    assert "left out 1 files that cannot be read:" in err and "b.jsonl.zst: truncated" in err
    assert len(report(tmp_path / "selected")["unread"]) == 1
    (place / "b.jsonl.zst").unlink()
    ok(*score(place, fitted, tmp_path / "without"))
    ok("select", tmp_path / "without", "--budget", "20%", "-o", tmp_path / "expected")
    assert corpus.selected_ids(tmp_path / "selected") == corpus.selected_ids(tmp_path / "expected")


def test_all_in_one_and_at_random(fitted: Path, tmp_path: Path) -> None:
    place = pool(tmp_path, "b.jsonl.zst")
    words = ("select", place, "--budget", "20%", "-w", 2, *SKIP)
    assert "left out 1 files" in ok(*words, "--fitted", fitted, "-o", tmp_path / "selected").err
    assert "left out 1 files" in ok(*words, "--method", "random", "-o", tmp_path / "random").err


@pytest.mark.parametrize("sample", ["uniform", "head"])
def test_a_fit_samples_the_others(sample: str, fitted: Path, tmp_path: Path) -> None:
    place = pool(tmp_path, "c.jsonl.zst")
    words = ("fit", "dsir", "--pool", place, "--target", fitted.parent / "target.jsonl", "--sample", sample)
    assert "is not zstd data" in failure(*words, "-o", tmp_path / "a.fitted")
    err = ok(*words, *SKIP, "-o", tmp_path / "a.fitted").err
    assert "warning" in err and "c.jsonl.zst: is not zstd data" in err and "left out of the sample" in err
    if sample == "uniform":
        (place / "c.jsonl.zst").unlink()
        ok(*words, "-o", tmp_path / "b.fitted")
        assert (tmp_path / "a.fitted").read_bytes() == (tmp_path / "b.fitted").read_bytes()


def test_nothing_of_a_truncated_file_is_in_a_sample(tmp_path: Path) -> None:
    place = pool(tmp_path, "b.jsonl.zst")
    with pytest.warns(UserWarning, match="left out of the sample"):
        sample = draw_sample(expand([str(place)]), Reading(on_bad_file="skip"), Sampling(), 1 << 30)
    assert len(sample.text) == len(GOOD)


def test_a_run_that_failed_goes_on_with_skip_and_a_mended_file_is_scored(fitted: Path, tmp_path: Path) -> None:
    place, out = pool(tmp_path, "b.jsonl.zst"), tmp_path / "scores"
    failure(*score(place, fitted, out))
    assert "left out 1 files" in ok(*score(place, fitted, out, *SKIP)).err
    whole = {path: path.read_bytes() for path in out.rglob("*.parquet") if "b.jsonl" not in path.name}
    (place / "b.jsonl.zst").write_bytes(zstandard.compress(PLAIN))
    err = ok(*score(place, fitted, out, *SKIP)).err
    assert "left out" not in err and f"of {len(POOL):,} documents in 3 shards" in err
    assert all(path.read_bytes() == content for path, content in whole.items()) and len(whole) == 2


def test_a_pool_of_nothing_but_bad_files_is_an_error(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(PLAIN)
    (tmp_path / "b.jsonl.gz").write_bytes(PLAIN)
    message = failure(*score(tmp_path / "*.jsonl.*", fitted, tmp_path / "out", *SKIP))
    assert "none of 2 shards can be read; the first is" in message and "a.jsonl.zst: is not zstd data" in message


def test_a_shard_in_ranges_is_left_out_as_a_whole(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pool(tmp_path, "b.jsonl")
    documents = [*OTHERS[:40], {"text": "x" * 40_000}, *OTHERS[40:60]]
    (place / "b.jsonl").write_bytes(corpus.lines(documents))
    monkeypatch.setattr("dvsel.shards.digest.RANGE", 20_000)
    monkeypatch.setattr("dvsel.shards.lines._LONGEST_LINE", 30_000)
    monkeypatch.setattr("dvsel.pool.annotate.BLOCK", 10_000)
    err = ok(*score(place, fitted, tmp_path / "out", *SKIP)).err
    assert "b.jsonl: a line is longer than" in err
    assert report(tmp_path / "out")["totals"]["rows"] == len(GOOD)


def test_a_bad_target_is_an_error(fitted: Path, tmp_path: Path) -> None:
    place = pool(tmp_path, "b.jsonl.zst")
    words = ("score", "dsir", place / "a.jsonl", "--target", place / "b.jsonl.zst", *SKIP, "-o", tmp_path / "out")
    assert "b.jsonl.zst: truncated" in failure(*words)


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path: Path) -> None:
    place = pool(tmp_path, "b.jsonl.zst")
    shards = expand([str(place / "z.jsonl.gz")])
    (place / "z.jsonl.gz").write_bytes((place / "z.jsonl.gz").read_bytes()[:-30])
    with pytest.raises(UserError, match="changed while it was read"):
        draw_sample(shards, Reading(on_bad_file="skip"), Sampling(), 1 << 30)


@pytest.mark.parametrize(("number", "is_bad"), [(errno.EACCES, True), (errno.EMFILE, False), (errno.ENOENT, False)])
def test_a_passing_trouble_is_not_the_fault_of_a_file(
    number: int, is_bad: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError) as refused:
        open_read(str(tmp_path / "a.jsonl"))
    assert isinstance(refused.value, BadFile) == is_bad


def test_where_no_file_can_be_left_out_the_option_is_refused(fitted: Path, tmp_path: Path) -> None:
    words = ("score", "dsir", "--fitted", fitted, "--on-bad-file", "skip", "-")
    assert "--on-bad-file: is for shards, and lines from stdin are none" in failure(*words, stdin=b"")
    place = pool(tmp_path, "b.jsonl.zst")
    ok(*score(place / "a.jsonl", fitted, tmp_path / "scores"))
    selecting = ("select", tmp_path / "scores", "--budget", "20%", *SKIP, "-o", tmp_path / "out")
    assert "--on-bad-file: is for scoring" in failure(*selecting)


def test_a_dry_run_passes_over_it(fitted: Path, tmp_path: Path) -> None:
    place = pool(tmp_path, "c.jsonl.zst")
    assert "is not zstd data" in failure(*score(place, fitted, tmp_path / "out", "--dry-run"))
    assert "3 shards" in ok(*score(place, fitted, tmp_path / "out", "--dry-run", *SKIP)).err
