"""A terminal that knows ASCII alone, or a code page of Windows: everything is printed, and data stays UTF-8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import corpus
from commands import environment, ok, start

TEXT = "naïve café 中文 "


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of documents whose texts, domains and shard are spelled in all kinds of letters."""
    folder = tmp_path_factory.mktemp("späne")
    documents = corpus.pool()[:60]
    odd = [one | {"text": TEXT + str(one["text"]), "domain": "Späne"} for one in documents]
    corpus.write(folder / "pööl.jsonl", odd)
    corpus.write(folder / "target.jsonl", documents[:10])
    ok("score", "dsir", folder / "pööl.jsonl", "--target", folder / "target.jsonl", "-o", folder / "scores")
    return folder / "scores"


def printed(encoding: str, *words: object, code: int = 0) -> tuple[bytes, str]:
    """What a command writes to stdout and stderr, where both have this encoding."""
    with start(*words, env=environment(PYTHONIOENCODING=encoding)) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert b"Traceback" not in err
    return out, err.decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_inspect_has_stand_ins_for_bars_and_escapes_for_letters(encoding: str, scores: Path) -> None:
    lines = printed(encoding, "inspect", scores, "--documents", 1)[0].decode(encoding)
    assert "(# kept, . not)" in lines and "##" in lines
    assert r"\u4e2d" in lines
    assert ("Späne" if encoding == "cp1252" else r"Sp\xe4ne") in lines


@pytest.mark.parametrize("words", [("list",), ("--help",), ("score", "dsir", "--help")])
def test_listing_and_help_are_printed(words: tuple[str, ...]) -> None:
    out, _ = printed("ascii", *words)
    assert b"dsir" in out or b"Choose training data" in out


def test_an_error_names_the_file() -> None:
    _, err = printed("ascii", "inspect", "späne/nirgends", code=1)
    assert err.startswith(r"dvsel: sp\xe4ne/nirgends: ") and err.count("\n") == 1


def test_data_on_stdout_stay_utf_8(scores: Path) -> None:
    out, _ = printed("ascii", "select", scores, "--budget", "5 docs", "-o", "-")
    kept = [json.loads(line) for line in out.decode().splitlines()]
    assert len(kept) == 5 and all(one["text"].startswith(TEXT) for one in kept)
    assert TEXT.encode() in out
