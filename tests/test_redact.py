"""What is taken out of text that is kept or shown, and what stays."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import corpus
from commands import failure, ok
from dvsel.commands.inspect import Document
from dvsel.documents.tokens import BUILT_IN
from dvsel.errors import UserError
from dvsel.options import among
from dvsel.redact import lacks_secrets, printable, without_secrets
from dvsel.runs import fitted_files as storage
from dvsel.runs.recipe import dump, load, make
from dvsel.runs.report import ScoreReport, Share, write_json
from dvsel.runs.requests import Reading, SelectRun
from dvsel.score_files.header import Header, ReadingRecord, ShardIdentity
from dvsel.score_files.rows import Totals
from dvsel.score_files.writer import ScoreFileWriter
from dvsel.scorers import Fitted
from dvsel.scorers.fasttext import FastText
from dvsel.scorers.perplexity import Perplexity
from dvsel.storage.places import Shard, open_read

SECRETS = [
    ("https://me:pa55@host/x.jsonl", "https://me:***@host/x.jsonl"),
    ("https://me:p@55@host:8080/x", "https://me:***@host:8080/x"),
    ("https://:pa55@host", "https://:***@host"),
    ("https://t0ken@host/x", "https://***@host/x"),
    ("s3://AKIA:ab/cd+e@bucket/k", "s3://AKIA:***@bucket/k"),
    ("simplecache::ftp://me:pa55@host/x", "simplecache::ftp://me:***@host/x"),
    ("zip://*.jsonl::https://me:pa55@host/x.zip", "zip://*.jsonl::https://me:***@host/x.zip"),
    ("https://host/x?token=t0ken&page=1", "https://host/x?token=***&page=1"),
    ("https://host/x?a=1&X-Amz-Signature=ff0&X-Amz-Date=1", "https://host/x?a=1&X-Amz-Signature=***&X-Amz-Date=1"),
    ("https://host/x?sv=1&sig=ab%2F&se=2", "https://host/x?sv=1&sig=***&se=2"),
    ("cannot open 'https://host/?access_token=t0ken': 403", "cannot open 'https://host/?access_token=***': 403"),
]
NO_SECRETS = [
    "https://host:8080/p@x",
    "s3://bucket/a@b",
    "sftp://me@host:22/x",
    "abfs://container@account.dfs.core.windows.net/x",
    "hf://datasets/user/name@main/x.parquet",
    "github://user:repository@branch/x",
    "https://host/x?author=me&sort_key=1&design=2",
    "/home/me/a:b@c/x.jsonl",
    "30% of the tokens: me@host",
]


@pytest.mark.parametrize(("text", "expected"), SECRETS)
def test_secrets_are_taken_out(text: str, expected: str) -> None:
    assert without_secrets(text) == expected
    assert lacks_secrets(expected) and not lacks_secrets(text)


@pytest.mark.parametrize("text", NO_SECRETS)
def test_the_rest_stays(text: str) -> None:
    assert without_secrets(text) == text
    assert not lacks_secrets(text)


@given(st.text(st.sampled_from("ab1:/@?&=*# '") | st.characters(), max_size=60).map(lambda text: f"s3://{text}"))
def test_twice_is_as_once(text: str) -> None:
    once = without_secrets(text)
    assert without_secrets(once) == once


def test_what_a_terminal_obeys_is_escaped() -> None:
    assert printable("\x1b[31mred\x07\x9b2J\r\u202eabc\u2028 \udcff é 漢 🙂") == (
        r"\x1b[31mred\x07\x9b2J\r\u202eabc\u2028 \udcff é 漢 🙂"
    )


# --- Where text is kept and shown. ---


def test_recipes_hold_no_secret_and_the_options_of_a_title_neither() -> None:
    model = FastText(model="https://me:pa55@host/q.bin")
    run = SelectRun(scorer=model, pool=("s3://key:pa55@bucket/*.jsonl", "pool/"), output="https://host/o?token=pa55")
    recipe = dump("select", run)
    assert "pa55" not in recipe
    values = yaml.safe_load(recipe)
    assert values["pool"] == ["s3://key:***@bucket/*.jsonl", "pool/"]
    assert values["scorer"]["model"] == "https://me:***@host/q.bin"


def test_a_recipe_that_lacks_a_password_says_so_when_it_is_replayed(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump("select", SelectRun(pool=("https://me:pa55@host/a.jsonl",), budget="10%", output="out")))
    assert make(SelectRun, load(str(recipe))[1], "recipe").pool == ("https://me:***@host/a.jsonl",)
    message = failure("run", recipe, "-o", tmp_path / "out")
    assert "https://me:***@host/a.jsonl" in message
    assert "its password was not written down; name it again, or take *** out" in message
    with pytest.raises(UserError, match="credentials by the environment or fsspec's configuration"):
        open_read("https://host/a.jsonl?token=***")


def test_messages_hold_no_secret(tmp_path: Path) -> None:
    url, out = "nosuch://me:pa55@host/a.jsonl", tmp_path / "out"
    message = failure("select", url, "--with", "dsir", "--budget", "5%", "-o", out)
    assert "nosuch://me:***@host/a.jsonl" in message and "pa55" not in message


def test_names_in_messages_are_escaped(tmp_path: Path) -> None:
    assert r"\x1b[2J.jsonl" in failure("score", "dsir", tmp_path / "\x1b[2J.jsonl", "-o", tmp_path / "out")


def test_names_in_tables_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    from dvsel.cli.tables import documents_table, domains_table, plain_console

    name = "[red]x[/red] [/] :tada: \x1b[2J"
    console = plain_console()
    console.print(domains_table({name: Share(1, 2, 3, 4)}, "domains"))
    console.print(documents_table("documents", [Document(1.0, shard=name, line=1, domain=name, text=name)]))
    shown = capsys.readouterr().out
    assert shown.count(r"[red]x[/red] [/] :tada: \x1b[2J") == 4


def test_inspect_shows_names_as_they_are(tmp_path: Path) -> None:
    documents = [document | {"domain": "[red]x[/red] \x1b[2J"} for document in corpus.pool()[:50]]
    corpus.write(tmp_path / "[b]a.jsonl", documents)
    corpus.write(tmp_path / "target.jsonl", corpus.target())
    ok("score", "dsir", tmp_path / "[[]b]a.jsonl", "--target", tmp_path / "target.jsonl", "-w", 1, "-o", tmp_path / "s")
    page = ok("inspect", tmp_path / "s").out.decode()
    assert r"[red]x[/red] \x1b[2J" in page and "[b]a.jsonl" in page and "\x1b" not in page
    assert json.loads(ok("inspect", tmp_path / "s", "--json").out)["domains"]


URL = "s3://key:secret@bucket/pool/a.jsonl"


def test_no_file_that_is_kept_holds_a_secret(tmp_path: Path) -> None:
    shard = Shard(URL, "a.jsonl", "jsonl", "", 1, "1")
    header = Header(
        version="0",
        shard=ShardIdentity.of(shard),
        scorer=f"fasttext model={URL}",
        fingerprint="",
        groups=("",),
        shares=(1.0,),
        selector="topk",
        unscored="",
        reading=among(ReadingRecord, Reading()),
        tokens=dataclasses.replace(BUILT_IN, tokenizer=URL),
    )
    with ScoreFileWriter(str(tmp_path / "scores"), header) as writer:
        writer.finish("")
    report = ScoreReport("dsir", 1, Totals(), "", "", [URL], [(URL, 1, "cause")])
    write_json(report, str(tmp_path / "report.json"))
    (tmp_path / "fitted").write_bytes(storage.to_bytes(Fitted(Perplexity(model=URL), {})))
    for path in tmp_path.iterdir():
        assert b"***@bucket" in path.read_bytes() and b"secret" not in path.read_bytes(), path.name
