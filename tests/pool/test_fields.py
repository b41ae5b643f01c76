"""Fields that a run names and that the pool, or most of it, does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import corpus
from commands import failure, ok
from dvsel.errors import UserError
from dvsel.pool.fields import check_fields, instead, listed, sparse
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Totals
from dvsel.shards.expand import expand

POOL = corpus.pool()[::6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/a.jsonl and pool/b.jsonl.zst, and a scorer that was fitted on them."""
    folder = tmp_path_factory.mktemp("fields")
    corpus.write(folder / "pool" / "a.jsonl", POOL[:50])
    corpus.write(folder / "pool" / "b.jsonl.zst", POOL[50:])
    corpus.write(folder / "target.jsonl", corpus.target())
    ok("fit", "dsir", "--pool", folder / "pool", "--target", folder / "target.jsonl", "-o", folder / "dsir.fitted")
    return folder


def lines(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def check(place: Path, *paths: str) -> None:
    check_fields(expand([str(place)]), dict.fromkeys(paths, "--domain-field"))


# --- No text. ---


def no_text(folder: Path, pool: Path, tmp_path: Path, *words: object) -> str:
    return failure("score", "dsir", pool, "--fitted", folder / "dsir.fitted", "-o", tmp_path / "out", *words)


def test_a_line_without_text_says_which_fields_it_has(folder: Path, tmp_path: Path) -> None:
    pool = lines(tmp_path / "a.jsonl", [{"id": "1", "txt": "a text"}])
    assert (
        "a.jsonl, line 1: no field 'text' (there are 'id', 'txt'; did you mean --text-field txt?); fix the line, or "
        "pass --on-bad-line skip"
    ) in no_text(folder, pool, tmp_path)


def test_a_table_without_text_says_which_columns_it_has(folder: Path, tmp_path: Path) -> None:
    table = pa.table({"id": ["1"], "meta": [{"texts": "a text", "n": 1}]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert (
        "a.parquet, line 1: no field 'text' (there are 'id', 'meta.n', 'meta.texts'; did you mean --text-field "
        "meta.texts?)"
    ) in no_text(folder, tmp_path / "a.parquet", tmp_path).replace("'meta.texts', 'meta.n'", "'meta.n', 'meta.texts'")


def test_a_stream_without_text_says_which_fields_it_has(folder: Path) -> None:
    err = failure("score", "dsir", "--fitted", folder / "dsir.fitted", "-", stdin=b'{"content": "x"}\n')
    assert "stdin, line 1: no field 'text' (there are 'content'; name another with --text-field);" in err


def test_a_stream_without_the_score_says_which_fields_it_has() -> None:
    err = failure("select", "--min-score", "0", "--score-field", "scor", "-", stdin=b'{"text": "x", "score": 1}\n')
    assert "no field 'scor' (there are 'text', 'score'; did you mean --score-field score?)" in err


def test_the_names_of_strangers_are_cut_and_escaped() -> None:
    said = instead(
        "text", ["t\x1b[31mext", *(f"field{number}" for number in range(5000)), "x" * 10_000], "--text-field"
    )
    assert len(said) < 500 and "\x1b" not in said and "and 992 more" in said
    assert instead("text", ["the text"], "--text-field").endswith("did you mean --text-field 'the text'?")
    assert listed(["a", "b", "c"], most=2) == "'a', 'b' and 1 more"


# --- A field that no document has. ---


@pytest.mark.parametrize("flag", ["--domain-field", "--id-field", "--tokens-field"])
def test_a_named_field_that_no_document_has_is_an_error_before_any_work(
    flag: str, folder: Path, tmp_path: Path
) -> None:
    target, out = folder / "target.jsonl", tmp_path / "out"
    err = failure("score", "dsir", folder / "pool", "--target", target, flag, "domian", "-o", out)
    assert f"has a field 'domian' ({flag}); there are 'id', " in err
    assert err.endswith(f"did you mean {flag} domain?\n")
    assert not out.exists()


def test_a_text_that_no_document_has_is_an_error_where_bad_lines_are_skipped(folder: Path, tmp_path: Path) -> None:
    err = no_text(folder, folder / "pool", tmp_path, "--text-field", "txt", "--on-bad-line", "skip")
    assert "has a field 'txt' (--text-field)" in err and "did you mean --text-field text?" in err


def test_the_field_of_a_scorer_is_one_of_them(folder: Path, tmp_path: Path) -> None:
    words = ("label-noise", folder / "pool", "--model", "none", "--label-field", "domin", "-o", tmp_path / "out")
    assert failure("score", *words).endswith("did you mean --label-field domain?\n")


def test_other_commands_look_for_fields_too(folder: Path, tmp_path: Path) -> None:
    pool, target = folder / "pool", folder / "target.jsonl"
    words = ("--domain-field", "domian", "-o", tmp_path / "out")
    labels = ("--label-field", "lable", "--model", "none", "-o", tmp_path / "x.fitted")
    assert "--label-field" in failure("fit", "label-noise", "--pool", pool, *labels)
    assert "did you mean" in failure("embed", pool, "--model", "none", *words)
    (tmp_path / "ladder.yaml").write_text(
        "models:\n- {model: m, score: 1}\n- {model: n, score: 2}\n- {model: o, score: 3}\n"
    )
    assert "did you mean" in failure("losses", pool, "--ladder", tmp_path / "ladder.yaml", *words)
    assert "did you mean" in failure("trace", target, pool, "--model", "none", *words)


def test_fields_that_nobody_named_may_be_absent(folder: Path, tmp_path: Path) -> None:
    pool = lines(tmp_path / "a.jsonl", [{"text": document["text"]} for document in POOL])
    err = ok("score", "dsir", pool, "--fitted", folder / "dsir.fitted", "-w", 1, "-o", tmp_path / "out").err
    assert "field" not in err


def test_one_shard_of_many_that_has_the_field_is_enough(tmp_path: Path) -> None:
    for number in range(40):
        lines(tmp_path / f"{number:02}.jsonl", [{"text": "a", **({"source": "b"} if number == 33 else {})}])
    check(tmp_path, "source")
    with pytest.raises(UserError, match=r"none of the first 40 documents has a field 'sorce'.*--domain-field source"):
        check(tmp_path, "source", "sorce")


def test_a_field_inside_objects_is_found_and_proposed(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [{"text": "a", "meta": {"source": "b"}}])
    check(tmp_path, "meta.source")
    with pytest.raises(UserError, match=r"did you mean --domain-field meta\.source\?"):
        check(tmp_path, "meta.sorce")


def test_what_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no table")
    (tmp_path / "b.jsonl").write_bytes(b"")
    check(tmp_path, "source")


# --- A field that few documents have. ---


def test_a_named_field_that_few_documents_have_is_said_with_the_numbers(folder: Path, tmp_path: Path) -> None:
    documents = [document | ({"source": "web"} if row % 4 == 0 else {}) for row, document in enumerate(POOL)]
    lines(tmp_path / "pool" / "a.jsonl", documents[:50])
    lines(tmp_path / "pool" / "b.jsonl", documents[50:])
    words = (tmp_path / "pool", "--fitted", folder / "dsir.fitted", "--domain-field", "source", "-o", tmp_path / "out")
    says = f"only {len(documents[::4])} of {len(documents)} documents have a field 'source'\n"
    assert says in ok("score", "dsir", *words).err
    header = ScoreFile(str(tmp_path / "out" / "a.jsonl.dvsel.parquet")).header
    assert header.totals.absent == {"source": 50 - len(documents[:50:4])}
    assert says in ok("select", tmp_path / "out", "--budget", "10%", "-o", tmp_path / "selected").err
    assert says.strip() in json.loads((tmp_path / "selected" / ".dvsel/report.json").read_text())["notes"]


def test_half_is_not_few_and_defaults_are_not_said() -> None:
    assert sparse(Totals(rows=10, absent={"source": 5, "id": 10, "domain": 9})) == []
    assert sparse(Totals(rows=10, absent={"source": 6})) == ["only 4 of 10 documents have a field 'source'"]
    bad = Totals(rows=10, status={"bad_line": 4}, absent={"source": 4})
    assert sparse(bad) == ["only 2 of 6 documents have a field 'source'"]


# --- Domains and quotas. ---


@pytest.fixture(scope="module")
def scored(folder: Path) -> Path:
    ok("score", "dsir", folder / "pool", "--fitted", folder / "dsir.fitted", "-w", 1, "-o", folder / "scores")
    return folder / "scores"


def quota(tmp_path: Path, text: str) -> Path:
    (tmp_path / "quota.yaml").write_text(text)
    return tmp_path / "quota.yaml"


def test_a_quota_for_a_domain_that_is_not_there(scored: Path, tmp_path: Path) -> None:
    words = ("--budget", "10%", "--quota", quota(tmp_path, "referense: 20%\ncode: 10%\n"), "-o", tmp_path / "out")
    err = failure("select", scored, *words)
    assert "no document has the domain 'referense'; there are 'code', " in err
    assert err.endswith("; did you mean 'reference'?\n")
    words = ("--budget", "10%", "--quota", quota(tmp_path, "poems: 20%\n"), "-o", tmp_path / "out")
    assert failure("select", scored, *words).endswith("; correct the quota, or take the domain out of it\n")


def test_a_quota_of_nothing_is_for_any_domain(scored: Path, tmp_path: Path) -> None:
    words = ("--budget", "10%", "--quota", quota(tmp_path, "spam: 0\n'*': 100%\n"), "-o", tmp_path / "out")
    assert "left out" not in ok("select", scored, *words).err


def test_domains_that_a_quota_leaves_out_are_counted(scored: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ok("select", scored, "--budget", "10%", "--quota", quota(tmp_path, "code: 20%\n"), "-o", out)
    report = json.loads((out / ".dvsel/report.json").read_text())
    others = {name: share for name, share in report["domains"].items() if name != "code"}
    docs, tokens = (sum(share[key] for share in others.values()) for key in ("pool_docs", "pool_tokens"))
    (note,) = report["notes"]
    assert note.startswith(
        f"left out {docs:,} documents, {tokens:,} tokens, of {len(others)} domains that the quota does not name: "
    )
    assert all(repr(name) in note for name in others)


def test_a_quota_for_documents_without_domains(folder: Path, tmp_path: Path) -> None:
    pool = lines(tmp_path / "a.jsonl", [{"text": document["text"], "domains": "code"} for document in POOL])
    asked = ("--budget", "10%", "--quota", quota(tmp_path, "code: 20%\n"))
    fitted = ("--fitted", folder / "dsir.fitted")
    err = failure("select", pool, *fitted, *asked, "-o", tmp_path / "selected")
    assert "has a field 'domain' (--domain-field)" in err and "did you mean --domain-field domains?" in err
    ok("score", "dsir", pool, *fitted, "-w", 1, "-o", tmp_path / "scores")
    err = failure("select", tmp_path / "scores", *asked, "-o", tmp_path / "selected")
    assert "no document has a domain, in the field 'domain'; score with --domain-field to name another" in err
