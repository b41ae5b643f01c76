"""Bad input and trouble: one line that names file, line, cause and remedy; nothing lost, nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

import corpus
from commands import dvsel, environment, failure, ok, one_line
from dvsel.runs.output_folder import REPORT

GOOD = corpus.pool()[:6]
GOOD_LINES = corpus.lines(GOOD).splitlines(keepends=True)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted scorer that scores every text with a word in it."""
    folder = tmp_path_factory.mktemp("fit")
    pool = corpus.write(folder / "pool.jsonl", corpus.pool()[::5])
    target = corpus.write(folder / "target.jsonl", corpus.target())
    ok("fit", "dsir", "--pool", pool, "--target", target, "--min-words", 1, "-o", folder / "dsir.fitted")
    return folder / "dsir.fitted"


def score(shard: Path, fitted: Path, *more: object) -> tuple[object, ...]:
    """The command that scores one shard into the folder `scores` beside the fitted scorer's test."""
    return ("score", "dsir", shard, "--fitted", fitted, "--workers", 1, *more)


def no_score_file(folder: Path) -> None:
    """Neither a score file nor a part of one is there, hidden or not."""
    left = corpus.tree(folder) if folder.exists() else {}
    assert {name for name in left if not name.startswith(".dvsel/")} <= {"recipe.yaml"}
    assert not any("parquet" in name for name in left)


# --- Lines. ---

BAD_LINES = {
    "malformed JSON": b'{"text": "cut off',
    "malformed JSON, not a number": b'{"text": "a", "x": NaN}',
    "no object": b'["text"]',
    "text missing": b'{"id": 1}',
    "text null": b'{"text": null}',
    "text a number": b'{"text": 5}',
    "text true": b'{"text": true}',
    "text an object": b'{"text": {"a": "b"}}',
    "invalid UTF-8": b'{"text": "caf\xe9"}',
    "invalid UTF-8 in another field": b'{"text": "a", "name": "caf\xe9"}',
    "NUL byte": b'{"text": "a\0b"}',
    "NUL bytes alone": b"\0" * 100,
    "BOM inside": b'\xef\xbb\xbf{"text": "a"}',
    "blank line": b"",
    "spaces": b"  ",
    "two documents": b'{"text": "a"}{"text": "b"}',
    "lone surrogate": rb'{"text": "\ud800"}',
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_ends_the_run_with_its_place(line: bytes, fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "a.jsonl", b"".join([*GOOD_LINES[:3], line + b"\n", *GOOD_LINES[3:]]))
    message = failure(*score(shard, fitted, "-o", tmp_path / "scores"))
    assert f"{shard}, line 4: " in message
    assert "--on-bad-line skip" in message
    no_score_file(tmp_path / "scores")


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_skipped_line_is_counted_and_named_and_never_selected(line: bytes, fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "a.jsonl", b"".join([*GOOD_LINES[:3], line + b"\n", *GOOD_LINES[3:]]))
    scored = ok(*score(shard, fitted, "-o", tmp_path / "scores", "--on-bad-line", "skip"))
    selected = ok("select", tmp_path / "scores", "--budget", "100%", "--workers", 1, "-o", tmp_path / "out")
    for answer in (scored, selected):
        assert "skipped 1 lines: 1 " in answer.err
        assert f"{shard}, line 4: " in answer.err
    assert corpus.content(tmp_path / "out" / "a-00000.jsonl") == b"".join(GOOD_LINES)
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["totals"]["status"]["bad_line"] == 1
    assert report["skipped"][0][:2] == [str(shard), 4]


def test_a_bad_line_of_a_large_file_is_named_by_its_number_in_the_file(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsel.shards.digest.RANGE", 10_000)
    lines = corpus.lines(corpus.pool()[:60]).splitlines(keepends=True)
    shard = corpus.write(tmp_path / "a.jsonl", b"".join([*lines, b"[]\n", *lines]))
    assert f"{shard}, line 61: " in failure(*score(shard, fitted, "-o", tmp_path / "scores"))


def test_a_bad_line_of_a_target_is_named(tmp_path: Path) -> None:
    pool = corpus.write(tmp_path / "pool.jsonl", GOOD)
    target = corpus.write(tmp_path / "target.jsonl", b'{"txt": "a"}\n')
    message = failure("fit", "dsir", "--pool", pool, "--target", target, "-o", tmp_path / "f", "-w", 1)
    assert f"{target}, line 1: no field 'text'" in message
    assert not (tmp_path / "f").exists()


def test_windows_line_ends_and_a_byte_order_mark_at_the_start_are_fine(fitted: Path, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + b"".join(GOOD_LINES).replace(b"\n", b"\r\n")
    shard = corpus.write(tmp_path / "a.jsonl", content)
    assert "scored 6 of 6" in ok(*score(shard, fitted, "-o", tmp_path / "scores")).err
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    assert corpus.content(tmp_path / "out" / "a-00000.jsonl") == content.removeprefix(b"\xef\xbb\xbf")


def test_documents_without_a_usable_score_are_counted_and_never_selected(tmp_path: Path) -> None:
    documents = [*GOOD, {"id": "empty", "text": ""}, {"id": "short", "text": "three words only"}]
    shard = corpus.write(tmp_path / "a.jsonl", documents)
    target = corpus.write(tmp_path / "target.jsonl", corpus.target())
    select = ("select", shard, "--with", "dsir", "--target", target, "--min-words", 5, "-w", 1)
    err = ok(*select, "--budget", "100%", "-o", tmp_path / "out").err
    assert "no score for 1 documents: empty text" in err
    assert "no score for 1 documents: fewer than 5 words" in err
    assert corpus.selected_ids(tmp_path / "out") == {document["id"] for document in GOOD}


# --- Files. ---


def zstd_with_checksum(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


PLAIN = corpus.lines(corpus.pool()[:100])
GZIP, ZSTD = gzip.compress(PLAIN), zstd_with_checksum(PLAIN)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


BAD_FILES = {
    "truncated gzip": ("a.jsonl.gz", GZIP[: len(GZIP) // 2], "truncated"),
    "gzip without its trailer": ("a.jsonl.gz", GZIP[:-8], "truncated"),
    "gzip with a wrong checksum": ("a.jsonl.gz", flipped(GZIP, -6), "checksum"),
    "truncated second gzip member": ("a.jsonl.gz", GZIP + GZIP[:-20], "truncated"),
    "rubbish after gzip": ("a.jsonl.gz", GZIP + b"rubbish" * 20, "other bytes"),
    "truncated zstd": ("a.jsonl.zst", ZSTD[: len(ZSTD) // 2], "truncated"),
    "zstd without its last byte": ("a.jsonl.zst", ZSTD[:-1], "truncated"),
    "zstd with a wrong checksum": ("a.jsonl.zst", flipped(ZSTD, -2), "checksum"),
    "truncated second zstd frame": ("a.jsonl.zst", ZSTD + ZSTD[:-20], "truncated"),
    "zstd header alone": ("a.jsonl.zst", ZSTD[:6], "truncated"),
    "gzip called zstd": ("a.jsonl.zst", GZIP, "holds gzip data"),
    "zstd called gzip": ("a.jsonl.gz", ZSTD, "holds zstd data"),
    "gzip called plain": ("a.jsonl", GZIP, "holds gzip data"),
    "plain called gzip": ("a.jsonl.gz", PLAIN, "is not gzip data"),
    "plain called zstd": ("a.jsonl.zst", PLAIN, "is not zstd data"),
    "plain called Parquet": ("a.parquet", PLAIN, "Parquet"),
    "UTF-16": ("a.jsonl", PLAIN.decode().encode("utf-16"), "is UTF-16"),
    "UTF-16 in gzip": ("a.jsonl.gz", gzip.compress(PLAIN.decode().encode("utf-16")), "is UTF-16"),
}


@pytest.mark.parametrize("mode", ["fail", "skip"])
@pytest.mark.parametrize(("name", "content", "cause"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_ends_the_run(
    name: str, content: bytes, cause: str, mode: str, fitted: Path, tmp_path: Path
) -> None:
    shard = tmp_path / name
    shard.write_bytes(content)
    message = failure(*score(shard, fitted, "--on-bad-line", mode, "-o", tmp_path / "scores"))
    assert f"{shard}: " in message
    assert cause in message
    no_score_file(tmp_path / "scores")


EMPTY_FILES = {
    "plain": ("a.jsonl", b""),
    "gzip": ("a.jsonl.gz", gzip.compress(b"")),
    "zstd": ("a.jsonl.zst", zstandard.compress(b"")),
    "zero bytes called gzip": ("a.jsonl.gz", b""),
    "zero bytes called zstd": ("a.jsonl.zst", b""),
    "BOM alone": ("a.jsonl", b"\xef\xbb\xbf"),
}


@pytest.mark.parametrize(("name", "content"), EMPTY_FILES.values(), ids=EMPTY_FILES.keys())
def test_an_empty_shard_is_said_and_harms_nothing(name: str, content: bytes, fitted: Path, tmp_path: Path) -> None:
    shard = tmp_path / "pool" / name
    corpus.write(tmp_path / "pool" / "good.jsonl", GOOD)
    shard.write_bytes(content)
    assert f"{shard} is empty" in ok(*score(tmp_path / "pool", fitted, "-o", tmp_path / "scores")).err
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    assert corpus.selected_ids(tmp_path / "out") == {document["id"] for document in GOOD}


def test_a_pool_of_nothing_but_empty_shards(fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "a.jsonl", b"")
    ok(*score(shard, fitted, "-o", tmp_path / "scores"))
    answer = ok("select", tmp_path / "scores", "--budget", "10%", "-w", 1, "-o", tmp_path / "out")
    assert "selected 0 of 0" in answer.err
    assert corpus.shards_of(tmp_path / "out") == []


def test_a_document_of_50_megabytes(fitted: Path, tmp_path: Path) -> None:
    text = "".join(document["text"] for document in corpus.pool())
    large = {"id": "large", "text": text * (50_000_000 // len(text) + 1)}
    lines = b"".join(GOOD_LINES[:3]) + corpus.lines([large]) + b"".join(GOOD_LINES[3:])
    shard = corpus.write(tmp_path / "a.jsonl.zst", lines)
    assert "scored 7 of 7" in ok(*score(shard, fitted, "-o", tmp_path / "scores")).err
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    assert corpus.content(tmp_path / "out" / "a-00000.jsonl.zst") == lines


# --- The collection of dirty files beside the checkout. ---

BROKEN = {
    "bad_checksum.jsonl.zst": "checksum",
    "bad_crc.jsonl.gz": "checksum",
    "corrupt_middle.jsonl.gz": "corrupt",
    "corrupt_middle.jsonl.zst": "corrupt",
    "gzip_named.jsonl": "holds gzip data",
    "gzip_named.jsonl.zst": "holds gzip data",
    "header_only.jsonl.zst": "truncated",
    "plain_named.jsonl.gz": "is not gzip data",
    "trailing_garbage.jsonl.gz": "other bytes",
    "truncated.jsonl.gz": "truncated",
    "truncated.jsonl.zst": "truncated",
    "truncated_last8.jsonl.gz": "truncated",
    "utf16le_bom.jsonl": "is UTF-16",
    "zstd_named.jsonl.gz": "holds zstd data",
}


def decompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz" and content:
        return gzip.decompress(content)
    if path.suffix == ".zst" and content:
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        with decompressor.stream_reader(content, read_across_frames=True) as reader:
            return reader.read()
    return content


def is_document(line: bytes) -> bool:
    """Whether orjson sees a document: a JSON object whose text is a string, or a list of strings."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    text = value.get("text") if isinstance(value, dict) else None
    return isinstance(text, str) or (isinstance(text, list) and all(isinstance(one, str) for one in text))


def test_every_dirty_file(shared_data: Path, fitted: Path, tmp_path: Path) -> None:
    for path in sorted((shared_data / "dirty").glob("*.json*")):
        if path.name == "MANIFEST.json":
            continue
        out = tmp_path / path.name
        if path.name in BROKEN:
            for mode in ("fail", "skip"):
                message = failure(*score(path, fitted, "--on-bad-line", mode, "-o", out / mode))
                assert f"{path}: " in message and BROKEN[path.name] in message
                no_score_file(out / mode)
            continue
        lines = decompressed(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
        lines = lines[:-1] if not lines[-1] else lines
        bad = [number for number, line in enumerate(lines, 1) if not is_document(line)]
        if bad:
            message = failure(*score(path, fitted, "-o", out / "fail"))
            assert f"{path}, line {bad[0]}: " in message
            no_score_file(out / "fail")
        skipping = score(path, fitted, "--on-bad-line", "skip", "-o", out / "skip")
        if path.name.endswith(".expected.jsonl"):  # a list of what is in another file
            assert "has a field 'text' (--text-field); there are 'line', " in failure(*skipping)
            continue
        ok(*skipping)
        report = json.loads((out / "skip" / REPORT).read_text())
        assert report["totals"]["rows"] == len(lines), path.name
        assert report["totals"]["status"].get("bad_line", 0) == len(bad), path.name
        assert [line for _, line, _ in report["skipped"]] == bad[:100], path.name
        assert sum(report["totals"]["bad_lines"].values()) == len(bad)


def test_dirty_lines_are_never_selected(shared_data: Path, fitted: Path, tmp_path: Path) -> None:
    pool = [path for path in sorted((shared_data / "dirty").glob("*.jsonl*")) if path.name not in BROKEN]
    command = ("score", "dsir", *pool, "--fitted", fitted, "--on-bad-line", "skip", "-w", 1)
    ok(*command, "-o", tmp_path / "scores")
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    expected: Counter[bytes] = Counter()
    for path in pool:
        lines = decompressed(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
        expected.update(
            line for line in lines if is_document(line) and re.search(r"\w|\S", "".join(orjson.loads(line)["text"]))
        )
    found = Counter(corpus.read_lines(*corpus.shards_of(tmp_path / "out")))
    assert found == expected


# --- Shards that changed after they were scored. ---


@pytest.fixture
def scored(fitted: Path, tmp_path: Path) -> Path:
    """A shard of which `scores` beside it holds the scores."""
    shard = corpus.write(tmp_path / "pool" / "a.jsonl", GOOD)
    ok(*score(shard, fitted, "-o", tmp_path / "scores"))
    return shard


def later(shard: Path) -> None:
    """Let the file look written an hour later."""
    status = shard.stat()
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns + 3_600_000_000_000))


def test_a_shard_that_only_looks_newer_is_accepted(scored: Path, tmp_path: Path) -> None:
    later(scored)
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    assert len(corpus.selected_ids(tmp_path / "out")) == len(GOOD)


def test_scoring_again_accepts_a_shard_that_only_looks_newer(scored: Path, fitted: Path, tmp_path: Path) -> None:
    before = corpus.tree(tmp_path / "scores")
    later(scored)
    ok(*score(scored, fitted, "-o", tmp_path / "scores"))
    assert corpus.tree(tmp_path / "scores") == before


CHANGES = {
    "content of the same size": lambda lines: [line.replace(b"the", b"teh") for line in lines],
    "a line less": lambda lines: lines[:-1],
    "a line more": lambda lines: [*lines, lines[0]],
    "other order": lambda lines: lines[::-1],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_shard_that_changed_is_refused(change: Any, scored: Path, fitted: Path, tmp_path: Path) -> None:
    scored.write_bytes(b"".join(change(GOOD_LINES)))
    later(scored)
    message = failure("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    assert f"{scored} changed after it was scored" in message
    assert corpus.shards_of(tmp_path / "out") == []
    message = failure(*score(scored, fitted, "-o", tmp_path / "scores"))
    assert f"{scored} changed after it was scored" in message
    ok(*score(scored, fitted, "-o", tmp_path / "scores", "--overwrite"))
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")


def test_a_shard_that_is_gone(scored: Path, tmp_path: Path) -> None:
    scored.unlink()
    assert str(scored) in failure("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")


def test_scores_of_two_fits_are_not_mixed(scored: Path, tmp_path: Path) -> None:
    other = corpus.write(tmp_path / "pool" / "b.jsonl", corpus.pool()[50:60])
    target = corpus.write(tmp_path / "target.jsonl", corpus.target()[:5])
    ok("score", "dsir", other, "--target", target, "-w", 1, "-o", tmp_path / "more")
    message = failure("select", tmp_path / "scores", tmp_path / "more", "--budget", "10%", "-o", tmp_path / "out")
    assert "two different fits" in message
    assert "a.jsonl.dvsel.parquet" in message and "b.jsonl.dvsel.parquet" in message


def test_a_broken_score_file_is_named(scored: Path, tmp_path: Path) -> None:
    place = tmp_path / "scores" / "a.jsonl.dvsel.parquet"
    place.write_bytes(place.read_bytes()[:-100])
    assert f"{place}: " in failure("select", tmp_path / "scores", "--budget", "10%", "-w", 1, "-o", tmp_path / "out")


def test_a_broken_fitted_scorer_is_named(fitted: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.fitted"
    broken.write_bytes(fitted.read_bytes()[:-100])
    shard = corpus.write(tmp_path / "a.jsonl", GOOD)
    assert f"{broken}: " in failure(*score(shard, broken, "-o", tmp_path / "scores"))


def test_the_remedy_for_a_bad_line_works(fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "a.jsonl", b"[]\n" + b"".join(GOOD_LINES))
    assert "pass --on-bad-line skip" in failure(*score(shard, fitted, "-o", tmp_path / "scores"))
    ok(*score(shard, fitted, "-o", tmp_path / "scores", "--on-bad-line", "skip"))
    assert "on_bad_line: skip" in (tmp_path / "scores" / "recipe.yaml").read_text()


def test_the_remedy_for_a_bad_line_keeps_finished_shards(fitted: Path, tmp_path: Path) -> None:
    corpus.write(tmp_path / "pool" / "a.jsonl", GOOD)
    corpus.write(tmp_path / "pool" / "b.jsonl", b"[]\n" + b"".join(GOOD_LINES))
    failure(*score(tmp_path / "pool", fitted, "-o", tmp_path / "scores"))
    done = (tmp_path / "scores" / "a.jsonl.dvsel.parquet").stat()
    ok(*score(tmp_path / "pool", fitted, "-o", tmp_path / "scores", "--on-bad-line", "skip"))
    assert (tmp_path / "scores" / "a.jsonl.dvsel.parquet").stat().st_mtime_ns == done.st_mtime_ns
    assert (tmp_path / "scores" / "b.jsonl.dvsel.parquet").exists()
    message = failure(*score(tmp_path / "pool", fitted, "-o", tmp_path / "scores", "--on-bad-line", "fail"))
    assert "holds another run (its on_bad_line is skip" in message


# --- Budgets and other options. ---


@pytest.mark.parametrize(
    "budget", ["", "lots", "30", "0 tokens", "-5%", "101%", "30X", "30G", "1.5 docs", "10 % of it", "20GB docs", "1e9"]
)
def test_a_budget_that_is_none(budget: str, scored: Path, tmp_path: Path) -> None:
    message = failure("select", scored.parents[1] / "scores", "--budget", budget, "-w", 1, "-o", tmp_path / "out")
    assert "--budget" in message
    assert not (tmp_path / "out").exists() or corpus.shards_of(tmp_path / "out") == []


def test_no_budget_at_all(scored: Path, tmp_path: Path) -> None:
    assert "--budget" in failure("select", tmp_path / "scores", "-w", 1, "-o", tmp_path / "out")


def test_what_a_failed_run_leaves_does_not_block_the_right_one(fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "a.jsonl", GOOD)
    target = corpus.write(tmp_path / "target.jsonl", corpus.target())
    failure(
        "select", shard, "--with", "dsir", "--target", "taget.jsonl", "--budget", "50%", "-w", 1, "-o", tmp_path / "out"
    )
    ok("select", shard, "--with", "dsir", "--target", target, "--budget", "50%", "-w", 1, "-o", tmp_path / "out")
    failure(*score(shard, tmp_path / "none.fitted", "-o", tmp_path / "scores"))
    ok(*score(shard, fitted, "-o", tmp_path / "scores"))


def test_what_a_failed_select_leaves_does_not_block_the_right_one(scored: Path, tmp_path: Path) -> None:
    failure("select", tmp_path / "scores", "--budget", "30G", "-w", 1, "-o", tmp_path / "out")
    ok("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")


QUOTAS = {
    "no YAML": b"a: [",
    "no mapping": b"- a\n",
    "no share": b"code: much\n",
    "more than all": b"code: 80%\nreference: 40%\n",
    "not UTF-8": b"code: 1\xe9%\n",
    "empty": b"",
}


@pytest.mark.parametrize("content", QUOTAS.values(), ids=QUOTAS.keys())
def test_a_bad_quota(content: bytes, scored: Path, tmp_path: Path) -> None:
    quota = tmp_path / "quota.yaml"
    quota.write_bytes(content)
    select = ("select", tmp_path / "scores", "--budget", "50%", "--quota", quota, "-w", 1, "-o", tmp_path / "out")
    assert str(quota) in failure(*select)
    assert corpus.shards_of(tmp_path / "out") == []


def test_a_missing_quota(scored: Path, tmp_path: Path) -> None:
    select = ("select", tmp_path / "scores", "--budget", "50%", "--quota", tmp_path / "none.yaml", "-w", 1)
    assert "none.yaml" in failure(*select, "-o", tmp_path / "out")


def test_files_that_are_not_there(fitted: Path, tmp_path: Path) -> None:
    there = corpus.write(tmp_path / "a.jsonl", GOOD)
    out = tmp_path / "out"
    for command in [
        score(tmp_path / "none.jsonl", fitted, "-o", out),
        score(tmp_path / "none" / "*.jsonl", fitted, "-o", out),
        score(there, tmp_path / "none.fitted", "-o", out),
        ("score", "dsir", there, "--target", tmp_path / "none.jsonl", "-o", out, "-w", 1),
        ("select", tmp_path / "none", "--budget", "10%", "-o", out),
        ("inspect", tmp_path / "none"),
        ("run", tmp_path / "none.yaml"),
    ]:
        assert str(tmp_path / "none") in failure(*command)


def test_a_folder_without_shards_or_scores(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in failure(*score(tmp_path / "empty", fitted, "-o", tmp_path / "out"))
    message = failure("select", tmp_path / "empty", "--budget", "10%", "-o", tmp_path / "out")
    assert "holds no score files" in message and "dvsel score" in message


def test_a_pool_named_twice(fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "pool" / "a.jsonl", GOOD)
    message = failure("score", "dsir", shard, tmp_path / "pool", "--fitted", fitted, "-o", tmp_path / "out")
    assert f"{shard}: given twice" in message


# --- Output folders. ---


def test_a_folder_that_holds_another_run(scored: Path, tmp_path: Path) -> None:
    select = ("select", tmp_path / "scores", "-w", 1, "-o", tmp_path / "out")
    ok(*select, "--budget", "50%")
    before = corpus.tree(tmp_path / "out")
    message = failure(*select, "--budget", "100%")
    assert f"{tmp_path / 'out'} holds another run" in message and "--overwrite" in message
    assert "budget" in message and "50%" in message and "100%" in message
    assert corpus.tree(tmp_path / "out") == before
    ok(*select, "--budget", "100%", "--overwrite")
    assert len(corpus.selected_ids(tmp_path / "out")) == len(GOOD)


def test_a_folder_that_holds_other_files(scored: Path, tmp_path: Path) -> None:
    mine = corpus.write(tmp_path / "out" / "thesis.txt", b"years of work")
    select = ("select", tmp_path / "scores", "--budget", "50%", "-w", 1, "-o", tmp_path / "out")
    for more in ((), ("--overwrite",)):
        message = failure(*select, *more)
        assert "other files (thesis.txt)" in message
        assert corpus.tree(tmp_path / "out") == {"thesis.txt": mine.read_bytes()}


def test_overwrite_removes_shards_that_the_new_run_does_not_write(fitted: Path, tmp_path: Path) -> None:
    for number, document in enumerate(GOOD):
        corpus.write(tmp_path / "pool" / f"{number}.jsonl", [document])
    ok(*score(tmp_path / "pool", fitted, "-o", tmp_path / "scores"))
    select = ("select", tmp_path / "scores", "-w", 1, "-o", tmp_path / "out")
    ok(*select, "--budget", "100%")
    ok(*select, "--budget", "1 docs", "--method", "topk", "--overwrite")
    assert len(corpus.shards_of(tmp_path / "out")) == 1


def test_an_output_folder_inside_the_pool_is_refused(fitted: Path, tmp_path: Path) -> None:
    corpus.write(tmp_path / "pool" / "a.jsonl", GOOD)
    message = failure(*score(tmp_path / "pool", fitted, "-o", tmp_path / "pool" / "scores"))
    assert "lies in an input of the run" in message
    assert not (tmp_path / "pool" / "scores").exists()


def test_scores_that_are_to_be_read_are_not_overwritten(scored: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    before = corpus.tree(scores)
    for output in (scores, scores / "sub", tmp_path):
        message = failure("select", scores, "--budget", "50%", "-w", 1, "-o", output, "--overwrite")
        assert "an input of the run" in message
        assert corpus.tree(scores) == before


@pytest.mark.parametrize(
    "wrong", ["--budget=5 parsecs", "--quota=nowhere.yaml", "--method=coverage", "--pool=nowhere", "--shard-size=5"]
)
def test_nothing_is_removed_before_all_else_was_checked(wrong: str, scored: Path, tmp_path: Path) -> None:
    words = ("select", tmp_path / "scores", "-w", 1, "-o", tmp_path / "out", "--budget", "50%")
    ok(*words)
    before = corpus.tree(tmp_path / "out")
    failure(*words, "--seed", 5, wrong, "--overwrite")
    assert corpus.tree(tmp_path / "out") == before


def test_a_file_in_the_place_of_the_output_folder(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    message = failure("select", tmp_path / "scores", "--budget", "50%", "-w", 1, "-o", tmp_path / "out")
    assert str(tmp_path / "out") in message
    assert (tmp_path / "out").read_text() == "a file"


# --- The machine. ---


def run_with_small_files(limit: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command to which every file of more than `limit` bytes is a full disk."""

    def refuse() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "dvsel", *map(str, words)]
    environ = environment(PYTHONDONTWRITEBYTECODE="1", NUMBA_CACHE_DIR=os.environ.get("NUMBA_CACHE_DIR", ""))
    return subprocess.run(command, env=environ, preexec_fn=refuse, capture_output=True, text=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_while_scoring(workers: int, fitted: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        corpus.write(tmp_path / "pool" / f"{name}.jsonl", corpus.pool() * 3)
    out = tmp_path / "scores"
    words = ("score", "dsir", tmp_path / "pool", "--fitted", fitted, "-w", workers, "-o", out)
    result = run_with_small_files(20_000, *words)
    assert result.returncode == 1, result.stderr
    assert ".dvsel.parquet" in one_line(result.stderr)
    assert "cannot be written" in result.stderr
    assert not list(out.glob("*.parquet"))
    ok(*words)
    assert {path.name for path in out.rglob(".*")} == {".dvsel"}


def test_a_full_disk_while_selecting(fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "a.jsonl", corpus.pool())
    ok(*score(shard, fitted, "-o", tmp_path / "scores"))
    words = ("select", tmp_path / "scores", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    result = run_with_small_files(100_000, *words)
    assert result.returncode == 1, result.stderr
    assert "a-00000.jsonl" in one_line(result.stderr)
    assert corpus.shards_of(tmp_path / "out") == []
    ok(*words)
    assert corpus.content(tmp_path / "out" / "a-00000.jsonl") == shard.read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_folders_without_permission(fitted: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / "closed" / "a.jsonl", GOOD)
    (tmp_path / "closed").chmod(0)
    try:
        assert str(tmp_path / "closed") in failure(*score(tmp_path / "closed", fitted, "-o", tmp_path / "out"))
        assert str(shard) in failure(*score(shard, fitted, "-o", tmp_path / "out"))
        message = failure(*score(fitted.parent / "pool.jsonl", fitted, "-o", tmp_path / "closed" / "out"))
        assert str(tmp_path / "closed") in message
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_a_traceback_only_with_debug(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dvsel"]
    words = ["inspect", str(tmp_path / "none")]
    plain = subprocess.run([*command, *words], env=environment(), capture_output=True, text=True)
    assert plain.returncode == 1
    one_line(plain.stderr)
    debug = subprocess.run([*command, "--debug", *words], env=environment(), capture_output=True, text=True)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr and "UserError" in debug.stderr


def test_usage_errors_exit_with_2() -> None:
    for words in (["nonsense"], ["score", "nonsense"], ["select", "--nonsense"], ["list", "--workers"]):
        assert dvsel(*words).code == 2
