"""Score files: what goes in comes out, and how it came does not show."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvsel.documents.columns import Status
from dvsel.documents.tokens import TokenCounter
from dvsel.errors import UserError
from dvsel.options import among
from dvsel.runs.requests import Reading
from dvsel.score_files import header as header_module
from dvsel.score_files.find import SUFFIX
from dvsel.score_files.header import Header, ReadingRecord, ShardIdentity
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import NAMED_BAD_LINES, Rows, Totals
from dvsel.score_files.writer import ScoreFileWriter

PLAIN = ("score", "key", "text_hash", "tokens", "bytes", "status")
DOMAINS = ["", "code", "news", "wiki é"]


def header(groups: tuple[str, ...] = ("",)) -> Header:
    return Header(
        version="1",
        shard=ShardIdentity("/pool/a.jsonl", "a.jsonl", "jsonl", "", 10, "5", ""),
        scorer="dsir",
        fingerprint="f" * 32,
        groups=groups,
        shares=tuple(1 / len(groups) for _ in groups),
        selector="resample",
        unscored="fewer than 100 words",
        reading=among(ReadingRecord, Reading()),
        tokens=TokenCounter(weights=(1.0, 2.0), error_total=0.1),
    )


def random_rows(count: int, groups: int = 1, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    status = random.integers(0, 4, count).astype(np.uint8)
    score = random.normal(size=(count, groups)).astype(np.float32)
    score[status != Status.SCORED] = np.nan
    return Rows(
        count,
        score,
        random.integers(0, 2**64, count, np.uint64),
        random.integers(0, 2**64, count, np.uint64),
        random.integers(0, 2**32, count, np.uint32),
        random.integers(0, 2**32, count, np.uint32),
        status,
        random.integers(0, len(DOMAINS), count).astype(np.int32),
        DOMAINS,
    )


def piece(rows: Rows, first: int, last: int, rotate: int = 0) -> Rows:
    """Some of the rows, with the domains numbered in another order."""
    order = np.roll(np.arange(len(rows.domains)), rotate)
    number = np.argsort(order).astype(np.int32)
    columns = [getattr(rows, field)[first:last] for field in PLAIN]
    return Rows(last - first, *columns, number[rows.domain[first:last]], [rows.domains[at] for at in order])  # type: ignore[call-arg]


def bad_lines(rows: Rows) -> dict[int, str]:
    return {
        int(row): f"cause {rows.key[row] % 3}: of {rows.key[row]}"
        for row in np.flatnonzero(rows.status == Status.BAD_LINE)
    }


def write(path: Path, pieces: list[Rows], groups: tuple[str, ...] = ("",)) -> ScoreFile:
    with ScoreFileWriter(str(path), header(groups)) as writer:
        for rows in pieces:
            writer.append(rows, bad_lines(rows))
        writer.finish("digest")
    return ScoreFile(str(path))


def joined(file: ScoreFile) -> dict[str, list[object]]:
    """All rows as plain values, the domain by its name."""
    columns: dict[str, list[object]] = {}
    for rows in file.rows():
        for name in ("score", "key", "text_hash", "tokens", "bytes", "status"):
            columns.setdefault(name, []).extend(getattr(rows, name).tolist())
        columns.setdefault("domain", []).extend(rows.domains[at] for at in rows.domain)
    return columns


def same_columns(file: ScoreFile, rows: Rows) -> bool:
    found = joined(file)
    return (
        np.array_equal(np.array(found["score"], np.float32), rows.score, equal_nan=True)
        and all(found[name] == getattr(rows, name).tolist() for name in ("key", "text_hash", "tokens", "bytes"))
        and found["status"] == rows.status.tolist()
        and found["domain"] == [rows.domains[at] for at in rows.domain]
    )


@pytest.mark.parametrize("groups", [("",), ("code", "news", "the rest")])
def test_what_goes_in_comes_out(groups: tuple[str, ...], tmp_path: Path) -> None:
    rows = random_rows(1000, len(groups))
    file = write(tmp_path / "new" / f"a{SUFFIX}", [rows], groups)
    assert len(file) == 1000 and same_columns(file, rows)
    expected = dataclasses.replace(header(groups), shard=dataclasses.replace(header().shard, digest="digest"))
    assert dataclasses.replace(file.header, totals=Totals(), digests={}) == expected


def test_the_columns_have_the_types_that_they_state(tmp_path: Path) -> None:
    rows = next(write(tmp_path / "a", [random_rows(10, 2)], ("a", "b")).rows())
    types = [getattr(rows, field).dtype for field in (*PLAIN, "domain")]
    assert types == [np.float32, np.uint64, np.uint64, np.uint32, np.uint32, np.uint8, np.int32]
    assert rows.score.shape == (10, 2) and len(rows) == 10


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    rows = random_rows(50, 2)
    write(tmp_path / "a.parquet", [rows], ("", "news"))
    table = pq.read_table(tmp_path / "a.parquet")
    names = ["score", "score.news", "key", "text_hash", "tokens", "bytes", "status", "domain"]
    assert table.column_names == names
    assert table["domain"].to_pylist() == [DOMAINS[at] for at in rows.domain]
    assert table["score"].null_count == 0
    assert json.loads(pq.read_metadata(tmp_path / "a.parquet").metadata[b"dvsel"])["scorer"] == "dsir"


def test_totals_are_sums(tmp_path: Path) -> None:
    rows = random_rows(2000)
    totals = write(tmp_path / "a", [piece(rows, 0, 700), piece(rows, 700, 2000)]).header.totals
    scored = rows.status == Status.SCORED
    bad = np.flatnonzero(rows.status == Status.BAD_LINE)
    assert (totals.rows, totals.docs) == (2000, scored.sum())
    assert totals.tokens == sum(rows.tokens[scored].tolist())
    assert totals.bytes == sum(rows.bytes[scored].tolist())
    assert totals.status == {one.name.lower(): (rows.status == one).sum() for one in Status}
    assert sum(totals.bad_lines.values()) == len(bad)
    assert set(totals.bad_lines) == {"cause 0", "cause 1", "cause 2"}
    assert [line for line, _ in totals.named] == (bad[:NAMED_BAD_LINES] + 1).tolist()


def test_causes_are_counted_without_their_particulars() -> None:
    rows = dataclasses.replace(random_rows(3), status=np.ones(3, np.uint8))
    bad = {0: "no JSON: at 5", 1: "no JSON: at 7", 2: "field 'a' is not UTF-8 (byte 0xFF)"}
    assert Totals.of(rows, bad).bad_lines == {"no JSON": 2, "field 'a' is not UTF-8": 1}


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(header_module, "ROWS_A_GROUP", 16)
    return 16


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 100), max_size=6), rotate=st.integers(0, 3), total=st.integers(0, 100))
def test_how_rows_arrive_does_not_show(
    cuts: list[int], rotate: int, total: int, small_groups: int, tmp_path: Path
) -> None:
    rows = random_rows(total, 2)
    ends = sorted(min(at, total) for at in [0, *cuts, total])
    pieces = [piece(rows, *ends[at : at + 2], at * rotate) for at in range(len(ends) - 1)]  # type: ignore[call-arg]
    write(tmp_path / "whole", [rows], ("a", "b"))
    file = write(tmp_path / "pieces", pieces, ("a", "b"))
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert [len(group) for group in file.rows()] == [
        min(small_groups, total - at) for at in range(0, total, small_groups)
    ]
    assert total == 0 or same_columns(file, rows)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_groups")
@given(cuts=st.lists(st.integers(0, 100), max_size=4))
def test_parts_absorbed_are_the_file_written_at_once(cuts: list[int], tmp_path: Path) -> None:
    rows = random_rows(100)
    ends = sorted([0, *cuts, 100])
    write(tmp_path / "whole", [rows])
    parts = [write(tmp_path / f"{at}", [piece(rows, *ends[at : at + 2])]) for at in range(len(ends) - 1)]
    with ScoreFileWriter(str(tmp_path / "absorbed"), header()) as writer:
        for part in parts:
            writer.absorb(part)
        writer.finish("digest")
    assert (tmp_path / "absorbed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_no_rows(tmp_path: Path) -> None:
    file = write(tmp_path / "a", [])
    assert len(file) == 0 and list(file.rows()) == []
    assert file.header.totals == Totals()


def test_it_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ScoreFileWriter(str(tmp_path / "a"), header()) as writer:
        writer.append(random_rows(100), {})
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    with ScoreFileWriter(str(tmp_path / "a"), header()) as writer:
        writer.append(random_rows(100), {})
        assert not (tmp_path / "a").exists()
        writer.finish("digest")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 1000, b"{}\n"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=r"a: not a dvsel score file, or one of a newer version; make one with"):
        ScoreFile(str(tmp_path / "a"))


def test_other_parquet_files_and_halves_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "a")
    with pytest.raises(UserError, match="not a dvsel score file"):
        ScoreFile(str(tmp_path / "a"))
    write(tmp_path / "b", [random_rows(100)])
    content = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a dvsel score file"):
        ScoreFile(str(tmp_path / "b"))


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", [random_rows(5)])
    table = pq.read_table(tmp_path / "a")
    values = json.loads(pq.read_metadata(tmp_path / "a").metadata[b"dvsel"]) | {"colour": "red"}
    pq.write_table(table.replace_schema_metadata({b"dvsel": json.dumps(values)}), tmp_path / "b")
    with pytest.raises(UserError, match="b: "):
        ScoreFile(str(tmp_path / "b"))


def refusal(path: Path, truth: Rows) -> str:
    """Why a file is refused; "" for one that holds these rows."""
    try:
        assert same_columns(ScoreFile(str(path)), truth)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", [0, 1])
def test_damage_never_changes_a_row(seed: int, tmp_path: Path) -> None:
    """Flips of one bit anywhere: the file is refused, or says what it said."""
    path = tmp_path / f"a{SUFFIX}"
    truth = random_rows(60, seed=seed)
    write(path, [truth])
    content, random = path.read_bytes(), np.random.default_rng(seed)
    refused = 0
    for place in random.choice(len(content) * 8, 300, replace=False).tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        found = refusal(path, truth)
        refused += bool(found)
        assert found.startswith(str(path)) or not found, place
    assert refused > 200


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    rows = write(path, [random_rows(300_000)]).rows()
    next(rows)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="damaged"):
        list(rows)


def test_a_file_of_the_first_versions_is_read(tmp_path: Path) -> None:
    rows = random_rows(50)
    write(tmp_path / "a", [rows])
    table, metadata = pq.read_table(tmp_path / "a"), pq.read_metadata(tmp_path / "a").metadata
    values = json.loads(metadata[b"dvsel"])
    del values["digests"]
    pq.write_table(table.replace_schema_metadata({b"dvsel": json.dumps(values)}), tmp_path / "b")
    assert same_columns(ScoreFile(str(tmp_path / "b")), rows)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../x", "", "a//b", "a/./b", "a\\b", "a\0b"])
def test_a_name_that_leads_out_of_the_output_is_refused(name: str, tmp_path: Path) -> None:
    hostile = dataclasses.replace(header(), shard=dataclasses.replace(header().shard, name=name))
    with ScoreFileWriter(str(tmp_path / "a"), hostile) as writer:
        writer.append(random_rows(3), {})
        writer.finish("digest")
    with pytest.raises(UserError, match="names a shard outside"):
        ScoreFile(str(tmp_path / "a"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: cannot be read \(No such file"):
        ScoreFile(str(tmp_path / "gone"))


@contextmanager
def open_files_limited_to(count: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_pool_may_have_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    rows = random_rows(3)
    write(tmp_path / "a", [rows])
    room = max(int(open_file.name) for open_file in Path("/dev/fd").iterdir()) + 10
    with open_files_limited_to(room):
        files = [ScoreFile(str(tmp_path / "a")) for _ in range(room + 10)]
        assert all(same_columns(file, rows) for file in files)


def test_a_remote_score_file() -> None:
    pytest.importorskip("fsspec")
    rows = random_rows(20)
    with ScoreFileWriter("memory://scorefile-test/a", header()) as writer:
        writer.append(rows, bad_lines(rows))
        writer.finish("digest")
    assert same_columns(ScoreFile("memory://scorefile-test/a"), rows)
