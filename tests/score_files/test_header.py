"""Headers of row files: the same bytes as ever, and nothing in them that is not of its type."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dvsel.documents.columns import Status
from dvsel.documents.tokens import BUILT_IN
from dvsel.documents.vectors import Maker
from dvsel.errors import UserError
from dvsel.options import among
from dvsel.runs.requests import Reading
from dvsel.score_files.columns import DIGEST_KEY, HEADER_KEY, header_digest
from dvsel.score_files.header import Embedding, Header, ReadingRecord, ShardIdentity
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Rows
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.storage.places import Shard

WRITTEN_BEFORE = Path(__file__).parent / "written_before"
"""Files of the same content, written on 2026-11-21 when headers were plain dictionaries."""
SHARD = Shard(
    "https://me:secret@host/pool/a.jsonl.zst", "sub/a.jsonl.zst", "jsonl", "zstd", 1234, "1700000000000000000"
)
SCORES = Header(
    version="0.1.0",
    shard=ShardIdentity.of(SHARD),
    scorer="dsir normalise=length",
    fingerprint="0123456789abcdef" * 2,
    groups=("code", "prose"),
    shares=(0.25, 0.75),
    selector="resample",
    unscored="fewer than 100 words",
    reading=among(ReadingRecord, Reading(text_field="text,title", domain_field="meta.domain", on_bad_line="skip")),
    tokens=dataclasses.replace(BUILT_IN, field="count"),
)
MAKER = Maker("models/all-MiniLM-L6-v2", "ab" * 16, "mean", 6, 256)
VECTORS = dataclasses.replace(
    SCORES,
    scorer="embed models/all-MiniLM-L6-v2",
    groups=("",),
    shares=(1.0,),
    selector="",
    embedding=Embedding(3, "float16", MAKER),
)


def rows() -> Rows:
    nan = np.nan
    status = [Status.SCORED, Status.SCORED, Status.BAD_LINE, Status.EMPTY_TEXT, Status.SCORED]
    return Rows(
        5,
        np.array([[1.5, -2], [0, 3.25], [nan, nan], [nan, nan], [-0.5, 8]], np.float32),
        np.arange(5, dtype=np.uint64) << np.uint64(60),
        np.arange(5, dtype=np.uint64) + np.uint64(7),
        np.array([10, 20, 0, 0, 50], np.uint32),
        np.array([40, 80, 0, 0, 200], np.uint32),
        np.array(status, np.uint8),
        np.array([0, 1, 2, 2, 0], np.int32),
        ["news", "wiki é", ""],
        np.array([[0, 1, 2], [3, 4, 5], [nan] * 3, [nan] * 3, [12, 13, 14]], np.float16),
    )


def write(place: Path, header: Header) -> None:
    with ScoreFileWriter(str(place), header) as writer:
        writer.append(rows(), {2: "not JSON: at 5"})
        writer.count_absent({"meta.domain": 2})
        writer.finish("fedcba9876543210" * 2)


@pytest.mark.parametrize(("name", "header"), [("scores", SCORES), ("vectors", VECTORS)])
def test_the_header_has_the_bytes_that_it_always_had(name: str, header: Header, tmp_path: Path) -> None:
    write(tmp_path / "now", header)
    now, before = (pq.read_metadata(place) for place in (tmp_path / "now", WRITTEN_BEFORE / f"{name}.dvsel.parquet"))
    for key in (HEADER_KEY, DIGEST_KEY):
        assert now.metadata[key] == before.metadata[key]
    assert now.schema.to_arrow_schema().equals(before.schema.to_arrow_schema())


@pytest.mark.parametrize(("name", "header"), [("scores", SCORES), ("vectors", VECTORS)])
def test_files_written_before_are_read(name: str, header: Header) -> None:
    file = ScoreFile(str(WRITTEN_BEFORE / f"{name}.dvsel.parquet"))
    found, (read,) = file.header, file.rows(("key", "domain", *(["vector"] if header.embedding else [])))
    shard = dataclasses.replace(header.shard, digest="fedcba9876543210" * 2)
    assert dataclasses.replace(found, totals=header.totals, digests={}) == dataclasses.replace(header, shard=shard)
    assert (found.totals.rows, found.totals.docs, found.totals.named) == (5, 3, [(3, "not JSON: at 5")])
    np.testing.assert_array_equal(read.key, rows().key)
    assert [read.domains[at] for at in read.domain] == ["news", "wiki é", "", "", "news"]
    expected = rows().vectors if header.embedding else rows().score
    np.testing.assert_array_equal(read.vectors if header.embedding else read.score, expected)


def test_a_template_becomes_the_header_of_a_shard_without_its_secret() -> None:
    identity = ShardIdentity.of(SHARD)
    assert identity.url == "https://me:***@host/pool/a.jsonl.zst" and identity.digest == ""
    assert identity.shard == dataclasses.replace(SHARD, url=identity.url)


def test_what_was_read_is_all_that_reading_can_be_told() -> None:
    assert {field.name for field in dataclasses.fields(ReadingRecord)} == {
        field.name for field in dataclasses.fields(Reading)
    }


def rewritten(tmp_path: Path, change: dict[str, Any]) -> Path:
    """A file whose header says something else, with the digest of that."""
    write(tmp_path / "a", SCORES)
    values = json.loads(pq.read_metadata(tmp_path / "a").metadata[HEADER_KEY])
    for name, value in change.items():
        *above, last = name.split(".")
        part = values
        for step in above:
            part = part[step]
        part.pop(last, None) if value is ... else part.update({last: value})
    content = json.dumps(values).encode()
    metadata = {HEADER_KEY: content, DIGEST_KEY: header_digest(content)}
    pq.write_table(pq.read_table(tmp_path / "a").replace_schema_metadata(metadata), tmp_path / "b", row_group_size=5)
    return tmp_path / "b"


@pytest.mark.parametrize(
    "change",
    [
        {"shard": []}, {"shard.size": "1"}, {"shard.size": True}, {"shard.digest": ...}, {"shard.owner": "me"},
        {"reading": None}, {"reading.text_field": 1}, {"reading.text_field": ...}, {"reading.colour": "red"},
        {"tokens.weights": "1"}, {"tokens.weights": [1, "2"]}, {"tokens.field": 3}, {"tokens": []},
        {"totals.docs": "3"}, {"totals.named": [[1, 2]]}, {"totals.named": [1]}, {"totals.status": {"scored": "3"}},
        {"totals.status": []}, {"totals.rows": 5.0}, {"totals.tokens": -1}, {"totals.of": 3},
        {"groups": []}, {"groups": "ab"}, {"shares": [1.0]}, {"shares": ["1", "2"]}, {"version": 1},
        {"digests": []}, {"digests": {"key": 5}}, {"digests": {"key": [5]}}, {"unread": None}, {"colour": "red"},
        {"embedding": {"width": 3, "dtype": "object", "maker": dataclasses.asdict(MAKER)}},
        {"embedding": {"width": 0, "dtype": "float16", "maker": dataclasses.asdict(MAKER)}},
        {"embedding": {"width": 3, "dtype": "float16", "maker": {}}},
        {"embedding": []},
    ],
)  # fmt: skip
def test_a_header_that_no_version_wrote_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    place = rewritten(tmp_path, change)
    with pytest.raises(UserError) as refused:
        ScoreFile(str(place))
    assert str(refused.value).startswith(f"{place}: not a dvsel score file, or one of a newer version; ")


def test_the_same_rewriting_without_a_change_is_read(tmp_path: Path) -> None:
    assert len(list(ScoreFile(str(rewritten(tmp_path, {}))).rows())) == 1


def test_files_of_versions_that_could_not_skip_bad_files_are_read(tmp_path: Path) -> None:
    file = ScoreFile(str(rewritten(tmp_path, {"reading.on_bad_file": ...})))
    assert file.header.reading == SCORES.reading


def test_a_header_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    content = b'{"shard":' * 100_000
    table = pa.table({"score": pa.array([], pa.float32())}).replace_schema_metadata({HEADER_KEY: content})
    pq.write_table(table, tmp_path / "deep")
    with pytest.raises(UserError, match="deep: not a dvsel score file"):
        ScoreFile(str(tmp_path / "deep"))
