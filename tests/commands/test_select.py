"""`dvsel select`: exactly what the budget allows, written as shards, byte for byte."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import arrow_arrays
import corpus
from arrow_arrays import store
from commands import dvsel, failure, ok, one_line
from dvsel.documents.columns import Status
from dvsel.runs.output_folder import REPORT

POOL = corpus.pool()[::2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/a.jsonl, pool/en/b.jsonl.zst, target.jsonl and the scores of the pool."""
    folder = tmp_path_factory.mktemp("select")
    corpus.write(folder / "pool" / "a.jsonl", POOL[:100])
    corpus.write(folder / "pool" / "en" / "b.jsonl.zst", POOL[100:])
    corpus.write(folder / "target.jsonl", corpus.target())
    ok("score", "dsir", folder / "pool", "--target", folder / "target.jsonl", "--normalise", "length",
       "--min-words", 20, "-w", 1, "-o", folder / "scores")  # fmt: skip
    return folder


@dataclass(frozen=True)
class Rows:
    """The columns of the score files, in the order of POOL."""

    score: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    status: np.ndarray


@pytest.fixture(scope="module")
def rows(folder: Path) -> Rows:
    names = ("a.jsonl", "en/b.jsonl.zst")
    tables = [pq.read_table(folder / "scores" / f"{name}.dvsel.parquet") for name in names]
    return Rows(*(np.concatenate([table[name].to_numpy() for table in tables])
                  for name in ("score", "tokens", "bytes", "status")))  # fmt: skip


def select(folder: Path, out: Path, *words: object) -> str:
    """Select from the folder's scores; returns the summary."""
    return ok("select", folder / "scores", "-w", 1, "-o", out, *words).err


def best(rows: Rows, amount: int, cost: np.ndarray) -> set[str]:
    """The ids that a sort by score keeps while the sum of costs is within the amount."""
    scored = np.flatnonzero(rows.status == Status.SCORED)
    order = scored[np.argsort(-rows.score[scored], kind="stable")]
    fits = np.cumsum(cost[order].astype(np.int64)) <= amount
    return {POOL[row]["id"] for row in order[fits]}


# --- Budgets. ---


@pytest.mark.parametrize(
    ("budget", "unit"),
    [("12k", "tokens"), ("12,345 tokens", "tokens"), ("10%", "tokens"), ("50 docs", "docs"), ("7% docs", "docs"),
     ("100KB", "bytes"), ("64 KiB", "bytes"), ("0.1MB", "bytes")],
)  # fmt: skip
def test_topk_keeps_what_a_sort_keeps(budget: str, unit: str, folder: Path, rows: Rows, tmp_path: Path) -> None:
    select(folder, tmp_path / "out", "--method", "topk", "--budget", budget)
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    cost = {"tokens": rows.tokens, "docs": np.ones(len(POOL)), "bytes": rows.bytes}[unit]
    found = corpus.selected_ids(tmp_path / "out")
    assert found == best(rows, report["asked"], cost)
    kept = [row for row, document in enumerate(POOL) if document["id"] in found]
    assert report["unit"] == unit
    assert report["given"] == {
        "docs": len(kept), "tokens": int(rows.tokens[kept].sum()), "bytes": int(rows.bytes[kept].sum()),
    }  # fmt: skip
    assert report["given"][unit] <= report["asked"]


@pytest.mark.parametrize("method", ["topk", "resample", "random"])
def test_a_budget_beyond_the_pool_takes_all_and_says_so(method: str, folder: Path, rows: Rows, tmp_path: Path) -> None:
    err = select(folder, tmp_path / "out", "--method", method, "--budget", "30B")
    assert "the budget exceeds what there is" in err
    assert len(corpus.selected_ids(tmp_path / "out")) == (rows.status == Status.SCORED).sum()


def test_a_budget_smaller_than_any_document_keeps_nothing(folder: Path, tmp_path: Path) -> None:
    assert "selected 0 of" in select(folder, tmp_path / "out", "--method", "topk", "--budget", "1 tokens")
    assert corpus.shards_of(tmp_path / "out") == []
    assert (tmp_path / "out" / REPORT).exists()


# --- Rules. ---


def test_the_default_rule_is_the_one_of_the_paper(folder: Path, tmp_path: Path) -> None:
    err = select(folder, tmp_path / "one", "--budget", "20%")
    assert "with resample on dsir" in err
    assert "effective sample size" in err and "overlap with topk" in err
    select(folder, tmp_path / "two", "--budget", "20%", "--method", "resample", "--temperature", "1")
    assert corpus.selected_ids(tmp_path / "one") == corpus.selected_ids(tmp_path / "two")


def test_flags_may_come_before_the_scores_also_the_second_time(folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        ok("select", "-o", tmp_path / "out", "--temperature", 2, "--budget", "20%", "-w", 1, folder / "scores")


def test_temperature_leads_from_topk_to_random(folder: Path, tmp_path: Path) -> None:
    overlaps = []
    for temperature in (0.001, 0.1, 100):
        out = tmp_path / str(temperature)
        select(folder, out, "--budget", "20%", "--method", "resample", "--temperature", temperature)
        overlaps.append(json.loads((out / REPORT).read_text())["overlap"])
    assert overlaps[0] > 0.95 > overlaps[1] > overlaps[2]
    assert overlaps[2] < 0.4


def test_thresholds(folder: Path, rows: Rows, tmp_path: Path) -> None:
    scores = rows.score[rows.status == Status.SCORED]
    bound = float(np.sort(scores)[-40])
    select(folder, tmp_path / "score", f"--min-score={bound}")
    expected = {document["id"] for document, score in zip(POOL, rows.score, strict=True) if score >= bound}
    assert corpus.selected_ids(tmp_path / "score") == expected
    select(folder, tmp_path / "quantile", "--quantile", "0.75")
    assert corpus.selected_ids(tmp_path / "quantile") == best(rows, len(scores) // 4, np.ones(len(POOL)))
    message = failure("select", folder / "scores", "--quantile", "0.5", "--min-score", "1", "-o", tmp_path / "both")
    assert "quantile" in message
    assert "--budget" in failure(
        "select", folder / "scores", "--quantile", "0.5", "--budget", "5%", "-o", tmp_path / "b"
    )


def test_quotas(folder: Path, rows: Rows, tmp_path: Path) -> None:
    quota = tmp_path / "quota.yaml"
    quota.write_text("code: 75%\nreference: 10%\n")
    err = select(folder, tmp_path / "out", "--budget", "60 docs", "--method", "topk", "--quota", quota)
    found = corpus.selected_ids(tmp_path / "out")
    assert Counter(name.split("/")[0] for name in found) == {"code": 45, "reference": 6}
    code = [row for row, one in enumerate(POOL) if one["domain"] == "code" and rows.status[row] == Status.SCORED]
    order = sorted(code, key=lambda row: -rows.score[row])[:45]
    assert {POOL[row]["id"] for row in order} == {name for name in found if name.startswith("code")}
    assert "code: asked 45, given 45 docs" in err
    quota.write_text("code: 10 docs\n")
    select(folder, tmp_path / "alone", "--method", "random", "--quota", quota)
    assert len(corpus.selected_ids(tmp_path / "alone")) == 10


def test_deduplication_keeps_one_of_each_text(tmp_path: Path) -> None:
    copies = [document | {"id": f"{document['id']} {copy}"} for document in POOL[:40] for copy in range(3)]
    corpus.write(tmp_path / "pool" / "a.jsonl", copies[::2])
    corpus.write(tmp_path / "pool" / "b.jsonl.gz", copies[1::2])
    target = corpus.write(tmp_path / "target.jsonl", corpus.target())
    ok("score", "dsir", tmp_path / "pool", "--target", target, "--min-words", 1, "-w", 1, "-o", tmp_path / "scores")
    err = select(tmp_path, tmp_path / "out", "--budget", "100%", "--dedup")
    assert "left out 80 duplicates" in err
    found = corpus.selected_ids(tmp_path / "out")
    assert sorted(name.rsplit(" ", 1)[0] for name in found) == sorted(document["id"] for document in POOL[:40])


# --- Output. ---


def test_output_shards_mirror_the_input(folder: Path, tmp_path: Path) -> None:
    select(folder, tmp_path / "out", "--budget", "90%")
    names = [str(path.relative_to(tmp_path / "out")) for path in corpus.shards_of(tmp_path / "out")]
    assert names == ["a-00000.jsonl", "en/b-00000.jsonl.zst"]
    for shard, name in zip(("a.jsonl", "en/b.jsonl.zst"), names, strict=True):
        lines, kept = corpus.read_lines(folder / "pool" / shard), corpus.read_lines(tmp_path / "out" / name)
        chosen = set(kept)
        assert kept == [line for line in lines if line in chosen], "order or bytes differ"


def test_lines_come_out_byte_for_byte(tmp_path: Path) -> None:
    text = json.dumps(POOL[3]["text"]).encode()
    lines = [
        b'{"text":' + text + b',"id":1}',
        b'{ "id" : 2 ,\t"text" : ' + text + b' , "x":1.50 }  ',
        b'{"z": [ 1,2 ],"text": ' + text + rb', "e": "\u00e9\/\ud83d\ude00", "n": 123456789012345678901234567890}',
        b'{"id": 3, "text": ' + text + b"}\r",
        b'{"id": "caf\xc3\xa9 \xe2\x80\xa8", "text": ' + text + b', "id": "again"}',
    ]
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        corpus.write(tmp_path / "pool" / name, b"\n".join(lines))
    target = corpus.write(tmp_path / "target.jsonl", corpus.target())
    select_all = ("select", tmp_path / "pool", "--with", "dsir", "--target", target, "--budget", "100%", "-w", 1)
    ok(*select_all, "-o", tmp_path / "out")
    for path in corpus.shards_of(tmp_path / "out"):
        assert corpus.content(path) == b"\n".join(lines) + b"\n"


def test_parquet_comes_out_as_parquet_with_all_columns(tmp_path: Path) -> None:
    documents = [one | {"number": n, "nested": {"list": [n, None]}} for n, one in enumerate(POOL)]
    shard = corpus.write(tmp_path / "pool" / "a.parquet", documents)
    target = corpus.write(tmp_path / "target.jsonl", corpus.target())
    ok("select", shard, "--with", "dsir", "--target", target, "--budget", "30%", "-w", 1, "-o", tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / "a-00000.parquet")
    whole = pq.read_table(shard)
    assert found.schema.equals(whole.schema)
    by_id = {row["id"]: row for row in whole.to_pylist()}
    assert 0 < len(found) < len(whole)
    assert found.to_pylist() == [by_id[name] for name in found["id"].to_pylist()]
    lines = ok("select", tmp_path / "out", "--budget", "30%", "-w", 1, "-o", "-").out.splitlines()
    assert [json.loads(line) for line in lines] == found.to_pylist()


def test_columns_of_every_type_are_passed_through(folder: Path, tmp_path: Path) -> None:
    arrays = arrow_arrays.all_of(arrow_arrays.simple())
    texts = pa.array([document["text"] for document in POOL[:3]], pa.string_view())
    store(str(tmp_path), pa.table({"text": texts, "id": arrays["uuid"], **arrays}), "a.arrow")
    scores = tmp_path / "scores"
    ok("score", "dsir", tmp_path / "a.arrow", "--fitted", folder / "scores" / "dsir.fitted", "-w", 1, "-o", scores,
       "--domain-field", "dictionary of lists")  # fmt: skip
    assert pq.read_table(scores / "a.arrow.dvsel.parquet")["domain"].to_pylist() == ['["a"]', '["b"]', '["a"]']
    ok("select", scores, "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    found = pq.read_table(tmp_path / "out" / "a-00000.parquet")
    assert found.schema.names == ["text", "id", *arrays]
    assert found["decimal256"].to_pylist() == arrays["decimal256"].to_pylist()
    lines = ok("select", scores, "--budget", "100%", "-w", 1, "-o", "-").out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == texts.to_pylist()
    assert [json.loads(line)["runs"] for line in lines] == ["a", "a", None]


def test_nothing_is_printed_of_tables_that_are_no_json(folder: Path, tmp_path: Path) -> None:
    texts = pa.array([document["text"] for document in POOL[:3]])
    store(str(tmp_path / "pool"), pa.table({"text": texts}), "a.arrow")
    store(str(tmp_path / "pool"), pa.table([texts, texts, texts], ["text", "n", "n"]), "b.arrow")
    scores = tmp_path / "scores"
    ok("score", "dsir", tmp_path / "pool", "--fitted", folder / "scores" / "dsir.fitted", "-w", 1, "-o", scores)
    answer = dvsel("select", scores, "--budget", "100%", "-w", 1, "-o", "-")
    assert (answer.code, answer.out) == (1, b"")
    assert "b.arrow: has two columns 'n'" in one_line(answer.err)
    ok("select", scores, "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    assert pq.read_schema(tmp_path / "out" / "b-00000.parquet").names == ["text", "n", "n"]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_output_shards_are_capped_in_size(suffix: str, folder: Path, tmp_path: Path) -> None:
    shard = corpus.write(tmp_path / f"a.{suffix}", POOL)
    fitted = folder / "scores" / "dsir.fitted"
    command = ("select", shard, "--with", "dsir", "--fitted", fitted, "--budget", "100%", "-w", 1)
    ok(*command, "--shard-size", "50KB", "-o", tmp_path / "out")
    pieces = [corpus.content(path) for path in corpus.shards_of(tmp_path / "out")]
    assert len(pieces) >= 8
    assert max(map(len, pieces)) <= 50_000
    chosen = set(b"".join(pieces).splitlines())
    assert b"".join(pieces).splitlines() == [line for line in corpus.lines(POOL).splitlines() if line in chosen]


def test_several_zstd_frames_are_all_read(folder: Path, tmp_path: Path) -> None:
    lines = corpus.lines(POOL)
    frames = zstandard.compress(lines[:12_345]) + zstandard.compress(b"") + zstandard.compress(lines[12_345:])
    shard = tmp_path / "a.jsonl.zst"
    shard.write_bytes(frames)
    command = ("select", shard, "--with", "dsir", "--fitted", folder / "scores" / "dsir.fitted", "-w", 1)
    ok(*command, "--budget", "100%", "-o", tmp_path / "out")
    assert len(corpus.selected_ids(tmp_path / "out")) > 0.9 * len(POOL)


# --- Scores that are there. ---


def test_all_in_one_keeps_its_scores_for_the_next_time(folder: Path, tmp_path: Path) -> None:
    scoring = ("--with", "dsir", "--target", folder / "target.jsonl", "--normalise", "length", "--min-words", 20)
    ok("select", folder / "pool", *scoring, "--budget", "20%", "-w", 1, "-o", tmp_path / "one")
    select(folder, tmp_path / "two", "--budget", "20%")
    assert corpus.selected_ids(tmp_path / "one") == corpus.selected_ids(tmp_path / "two")
    ok("select", tmp_path / "one", "--budget", "40%", "-w", 1, "-o", tmp_path / "three")
    assert corpus.selected_ids(tmp_path / "three") > corpus.selected_ids(tmp_path / "one")


def test_score_files_of_several_folders_and_single_ones(folder: Path, tmp_path: Path) -> None:
    extra = corpus.write(tmp_path / "c.jsonl", corpus.pool()[1:50:2])
    ok("score", "dsir", extra, "--fitted", folder / "scores" / "dsir.fitted", "-w", 1, "-o", tmp_path / "more")
    ok("select", folder / "scores", tmp_path / "more", "--budget", "100%", "-w", 1, "-o", tmp_path / "out")
    names = {path.name for path in corpus.shards_of(tmp_path / "out")}
    assert names == {"a-00000.jsonl", "b-00000.jsonl.zst", "c-00000.jsonl"}
    one = tmp_path / "more" / "c.jsonl.dvsel.parquet"
    ok("select", one, "--budget", "100%", "-w", 1, "-o", tmp_path / "single")
    assert [path.name for path in corpus.shards_of(tmp_path / "single")] == ["c-00000.jsonl"]
    message = failure("select", one, one, "--budget", "5%", "-o", tmp_path / "twice")
    assert "the same shard" in message


def test_shards_of_one_name_from_two_pools_are_not_written_over_each_other(folder: Path, tmp_path: Path) -> None:
    fitted = folder / "scores" / "dsir.fitted"
    for number in (1, 2):
        shard = corpus.write(tmp_path / f"pool{number}" / "a.jsonl", POOL[number::2])
        ok("score", "dsir", shard, "--fitted", fitted, "-w", 1, "-o", tmp_path / f"scores{number}")
    command = (
        "select",
        tmp_path / "scores1",
        tmp_path / "scores2",
        "--budget",
        "100%",
        "-w",
        1,
        "-o",
        tmp_path / "out",
    )
    assert "a.jsonl" in failure(*command)


def test_the_summary_says_what_was_done(folder: Path, tmp_path: Path) -> None:
    err = select(folder, tmp_path / "out", "--budget", "20%", "--method", "topk")
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert f"asked 20% tokens = {report['asked']:,}; given {report['given']['tokens']:,} tokens" in err
    assert f"selected {report['given']['docs']:,} of {report['pool']['docs']:,} scored documents with topk" in err
    assert "threshold" in err and "estimated" in err
    assert set(report["domains"]) == {"code", "reference"}
    assert sum(share["kept_docs"] for share in report["domains"].values()) == report["given"]["docs"]
    assert sum(report["histogram"]["kept"]) == report["given"]["docs"]
    assert report["domains"]["reference"]["kept_docs"] > report["domains"]["code"]["kept_docs"]


@pytest.mark.parametrize("flags", [(), ("--lowest",)])
def test_the_threshold_is_the_best_score_left_out(
    flags: tuple[str, ...], folder: Path, rows: Rows, tmp_path: Path
) -> None:
    err = select(folder, tmp_path / "out", "--budget", "20 docs", "--method", "topk", *flags)
    scores = np.sort(rows.score[rows.status == Status.SCORED])
    expected = float(scores[20] if flags else scores[-21])
    assert f"threshold {expected:.6g} (score)\n" in err
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert (report["strata"][0]["threshold"], report["threshold_is"]) == (expected, "score")


def test_the_threshold_of_a_rule_with_noise_is_a_key(folder: Path, tmp_path: Path) -> None:
    assert "(key with noise)\n" in select(folder, tmp_path / "out", "--budget", "20 docs", "--method", "resample")


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    answer = ok("select", folder / "scores", "--budget", "20%", "-w", 1, "-o", tmp_path / "out", "--dry-run")
    assert "asked 20% tokens" in answer.err + answer.out.decode()
    command = ("select", folder / "pool", "--with", "dsir", "--target", folder / "target.jsonl", "-w", 1)
    answer = ok(*command, "--budget", "20%", "-o", tmp_path / "out", "--dry-run")
    assert "2 shards" in answer.err + answer.out.decode()
    assert not (tmp_path / "out").exists()


# --- Options that a scored pool cannot honour. ---


@pytest.mark.parametrize(
    "words",
    [
        ("--target", "t.jsonl"), ("--sample", "head"), ("--sample-size", "1MB"), ("--tokens-field", "n"),
        ("--tokenizer", "gpt2"), ("--distil",), ("--adaptive",), ("--domain-field", "source"), ("--text-field", "body"),
        ("--id-field", "name"), ("--embeddings", "emb"), ("--score-field", "q"),
    ],
)  # fmt: skip
def test_options_of_scoring_are_refused_where_scores_are_named(words: tuple[str, ...], tmp_path: Path) -> None:
    corpus.write(tmp_path / "pool.jsonl", corpus.pool()[:100])
    corpus.write(tmp_path / "t.jsonl", corpus.target())
    ok("score", "dsir", tmp_path / "pool.jsonl", "--target", tmp_path / "t.jsonl", "-w", 1, "-o", tmp_path / "scores")
    message = failure("select", tmp_path / "scores", "--budget", "50%", *words, "-w", 1, "-o", tmp_path / "out")
    assert words[0] in message and "drop it" in message
    assert not (tmp_path / "out").exists()
