"""The pool as the flow sees it: what is a document, and where one that is none stands."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from dvsel.documents.columns import Batch, Status
from dvsel.errors import BadLine, UserError
from dvsel.pool.read import PoolBatch, PoolReader
from dvsel.runs.requests import Reading
from dvsel.scorers import Fitted, Scorer
from dvsel.shards.expand import expand

GOOD = b'{"text": "fine", "id": "a"}'
SKIP = Reading(on_bad_line="skip")

CAUSES = {
    b"{}": "no field 'text' (--text-field names another)",
    b'{"text": null}': "field 'text' is null",
    b'{"text": 5}': "field 'text' is a number, not a string or strings",
    b'{"text": true}': "field 'text' is true or false, not a string or strings",
    b'{"text": ["a", 1]}': "field 'text' is an array or an object, not a string or strings",
    b'{"text": {"a": 1}}': "field 'text' is an array or an object, not a string or strings",
    b"[1]": "",
    b'"text"': "",
    b'{"text": "half': "",
    b"": "",
    b'{"text": "\xff"}': "",
}


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def batches(
    path: Path, reading: Reading, begin: int = 0, end: int | None = None, tokens_field: str = ""
) -> list[PoolBatch]:
    shard = expand([str(path)])[0]
    with PoolReader(shard, reading, tokens_field=tokens_field, begin=begin, end=end) as pool:
        return list(pool)


def refusal(path: Path, reading: Reading, begin: int = 0, tokens_field: str = "") -> str:
    with pytest.raises(BadLine) as refused:
        batches(path, reading, begin, tokens_field=tokens_field)
    return str(refused.value).replace(str(path), path.name)


# --- What is a document. ---


def test_documents_are_read_with_their_status(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, b'{"text": ""}', '{"text": "café"}'.encode()])
    (batch,) = batches(path, Reading())
    assert [batch.text[row].decode() for row in range(3)] == ["fine", "", "café"]
    assert batch.status.tolist() == [Status.SCORED, Status.EMPTY_TEXT, Status.SCORED]
    assert not batch.bad and len(batch) == 3


def test_no_documents(tmp_path: Path) -> None:
    assert batches(write(tmp_path / "a.jsonl", []), Reading()) == []


def test_fields_may_lie_in_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [b'{"meta": {"body": "deep", "url": "u"}}'])
    (batch,) = batches(path, Reading(text_field="meta.body", id_field="meta.url"))
    assert batch.text[0] == b"deep"
    assert batch.documents.fields["meta.url"][0] == b"u"


def test_each_field_is_read_once_the_text_first() -> None:
    reading = Reading(text_field="body", id_field="name", domain_field="name")
    with PoolReader(io.BytesIO(b'{"body": "a"}\n'), reading, ("tokens", "body")) as pool:
        assert list(next(iter(pool)).documents.fields) == ["body", "name", "tokens"]


def test_keys_are_hashes_of_text_and_id_or_else_of_text_and_line(tmp_path: Path) -> None:
    lines = [
        b'{"text": "t", "id": "a"}',
        b'{"text": "t", "id": 7}',
        b' \t{"text": "t", "id": null} \r',
        b'{"text": "t"}',
    ]
    (batch,) = batches(write(tmp_path / "a.jsonl", lines), Reading())
    keys, text_hash = batch.key, batch.text_hash
    text = xxhash.xxh64_intdigest(b"t")
    rests = (b"a", b"7", lines[2].strip(), lines[3])
    pairs = [text.to_bytes(8, "little") + xxhash.xxh64_digest(one)[::-1] for one in rests]
    assert text_hash.tolist() == [text] * 4
    assert keys.tolist() == [xxhash.xxh64_intdigest(pair) for pair in pairs]


# --- Bad lines. ---


@pytest.mark.parametrize("line", CAUSES)
def test_a_bad_line_fails_with_its_place_and_cause(line: bytes, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.jsonl", [GOOD, GOOD, line, GOOD]), Reading())
    assert message.startswith(f"a.jsonl, line 3: {CAUSES[line].partition(' (')[0]}")
    assert message.endswith("; fix the line, or pass --on-bad-line skip")
    assert "\n" not in message


@pytest.mark.parametrize("line", CAUSES)
def test_a_bad_line_is_skipped_where_asked(line: bytes, tmp_path: Path) -> None:
    (batch,) = batches(write(tmp_path / "a.jsonl", [GOOD, line, b'{"text": "end"}']), SKIP)
    assert [batch.text[row] for row in range(3)] == [b"fine", b"", b"end"]
    assert batch.status.tolist() == [Status.SCORED, Status.BAD_LINE, Status.SCORED]
    assert list(batch.bad) == [1] and batch.bad[1].startswith(CAUSES[line])


def test_the_first_bad_line_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, b"{}", b"[", b'{"text": 1}'])
    assert refusal(path, Reading()).startswith("a.jsonl, line 2: no field 'text'")


def test_a_token_field_that_is_no_count_is_a_bad_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [b'{"text": "x", "n": 3}', b'{"text": "x"}', b'{"text": "x", "n": 0.5}'])
    message = refusal(path, Reading(), tokens_field="n")
    assert message.startswith("a.jsonl, line 3: token count is 0.5, not a whole number")
    (batch,) = batches(path, SKIP, tokens_field="n")
    assert batch.status.tolist() == [Status.SCORED, Status.SCORED, Status.BAD_LINE]
    assert batches(path, Reading())[0].bad == {}


@pytest.mark.parametrize("line", [b"", b"\r", b"[", b"{}", b'{"text":1}', b'{"text":"\xff"}'])
def test_millions_of_bad_lines_take_little_memory(line: bytes, tmp_path: Path) -> None:
    """A cause a row, as a string in a dict, takes a hundred times the file."""
    path = tmp_path / "a.jsonl"
    path.write_bytes((line + b"\n") * ((1 << 20) // (len(line) + 1)))
    shard, rows, bad = expand([str(path)])[0], 0, 0
    with PoolReader(shard, SKIP) as pool:
        tracemalloc.start()
        for batch in pool:
            rows, bad = rows + len(batch), bad + batch.bad.counts().total()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert rows == bad == (1 << 20) // (len(line) + 1)
    assert peak < 40 << 20


def test_a_bad_line_of_a_shard_that_changed_is_no_bad_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD] * 9)
    (shard,) = expand([str(path)])
    write(path, [b"[]"] * 9)
    with PoolReader(shard, Reading()) as pool, pytest.raises(UserError, match="changed while it was read"):
        list(pool)


def test_stdin_is_named() -> None:
    stream = io.BytesIO(GOOD + b"\n{}\n")
    with (
        PoolReader(stream, Reading()) as pool,
        pytest.raises(BadLine, match=r"^stdin, line 2: no field 'text'"),
    ):
        list(pool)


def test_a_row_of_parquet_is_named_by_its_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None, "c"]}), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet", Reading()).startswith("a.parquet, line 2: field 'text' is null")


LINES = [GOOD, b"", GOOD + b"\r", b'{"text": "caf\xc3\xa9"}', b"{}", GOOD, b"nonsense", b'{"text": 1}', GOOD]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_lines_keep_their_number_in_any_byte_range(bom: bytes, tmp_path: Path) -> None:
    """For every place where a range may begin: the first bad line that starts in it."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(bom + b"\n".join(LINES) + b"\n")
    starts = [0, *(at + 1 for at, byte in enumerate(path.read_bytes()) if byte == ord("\n"))]
    bad = [2, 5, 7, 8]
    for begin in range(path.stat().st_size):
        expected = next((line for line in bad if starts[line - 1] >= begin), None)
        if expected is None:
            batches(path, Reading(), begin)
        else:
            assert f"a.jsonl, line {expected}: " in refusal(path, Reading(), begin)


def test_ranges_together_are_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINES)
    size = path.stat().st_size
    (whole,) = batches(path, SKIP)
    for middle in range(1, size):
        parts = batches(path, SKIP, 0, middle) + batches(path, SKIP, middle, size)
        assert [part.text[row] for part in parts for row in range(len(part))] == [
            whole.text[row] for row in range(len(whole))
        ]
        assert np.concatenate([part.status for part in parts]).tolist() == whole.status.tolist()


# --- Scores. ---


class _Lengths(Fitted):
    """Bytes of the text; infinite for 3, none for 4."""

    def score(self, batch: Batch) -> np.ndarray:
        size = batch.text.sizes.astype(np.float32)
        return np.select([size == 3, size == 4], [np.inf, np.nan], size).astype(np.float32)


class _Two(_Lengths):
    groups = ("a", "b")
    shares = (0.5, 0.5)

    def score(self, batch: Batch) -> np.ndarray:
        size = super().score(batch)
        return np.stack([size, np.where(size == 5, np.nan, 1)], axis=1).astype(np.float32)


def test_only_documents_with_a_finite_score_compete(tmp_path: Path) -> None:
    texts = ["a", "", "abc", "abcd", "abcde"]
    lines = [json.dumps({"text": text}).encode() for text in texts] + [b"{}"]
    (batch,) = batches(write(tmp_path / "a.jsonl", lines), SKIP)
    score, status = batch.score(_Lengths(Scorer(), {}))
    nan = np.nan
    assert np.array_equal(score, np.array([[1, nan, nan, nan, 5, nan]], np.float32).T, equal_nan=True)
    assert status.tolist() == [
        Status.SCORED, Status.EMPTY_TEXT, Status.UNSCORED, Status.UNSCORED, Status.SCORED, Status.BAD_LINE,
    ]  # fmt: skip


def test_one_score_of_several_is_enough(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}).encode() for text in ("abc", "abcde", "")]
    (batch,) = batches(write(tmp_path / "a.jsonl", lines), SKIP)
    score, status = batch.score(_Two(Scorer(), {}))
    nan = np.nan
    assert np.array_equal(score, np.array([[nan, 1], [5, nan], [nan, nan]], np.float32), equal_nan=True)
    assert status.tolist() == [Status.SCORED, Status.SCORED, Status.EMPTY_TEXT]
