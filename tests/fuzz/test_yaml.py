"""Recipes, quotas and ladders, made up, mutated and random: a value, or a UserError of one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dvsel.embed import EmbedRun
from dvsel.errors import UserError
from dvsel.ladder import Ladder
from dvsel.losses import LossesRun
from dvsel.recipe import dump, load, make
from dvsel.runs import FitRun, ScoreRun, SelectRun
from dvsel.selectors.quota import Quota
from dvsel.strength import StrengthRun
from dvsel.trace import TraceRun
from fuzzing import fuzz

RUNS = (FitRun, ScoreRun, SelectRun, EmbedRun, LossesRun, StrengthRun, TraceRun)
KEYS = [
    *SelectRun.__dataclass_fields__,
    "command",
    "name",
    "dvsel",
    "model",
    "models",
    "score",
    "scores",
    "temperature",
    "buckets",
    "min_score",
    "dtype",
    "layer",
    "ladder",
    "top",
    "news",
    '"*"',
    "no",
    "~",
    "1",
    "? [a]",
]
VALUES = [
    "",
    "x",
    "5",
    "-1",
    "0.5",
    "1e999",
    ".nan",
    "-.inf",
    "true",
    "~",
    "2020-13-45",
    "10%",
    "5B tokens",
    "'a\\0'",
    '"a\\0b"',
    '"\\ud800"',
    '"\\x1b[2J"',
    "9" * 30,
    "9" * 5000,
    "0x" + "f" * 5000,
    "[a, b]",
    "[5]",
    "{a: b}",
    "*a",
    "&a x",
    "!!binary x",
    "!!python/name:os.system",
    "|\n  text",
    "topk",
    "dsir",
    "{name: resample}",
    "{name: dsir, buckets: 0}",
    "{name: 5}",
    "a/b/c",
    "~nobody/x",
    "https://me:pw@host/x",
    "é漢🙂",
]
BASES = [
    "command: select\npool: [a]\nselector: {name: resample, temperature: 0.5}\nbudget: 10%\nseed: 7\noutput: out\n",
    "command: score\npool: [a]\nscorer: {name: dsir, buckets: 100, normalise: length}\ntarget: [t]\noutput: out\n",
    "command: embed\npool: [a]\nmodel: m\nlayer: 3\noutput: out\n",
    "command: trace\nscorer: {name: influence, model: m}\nquery: [q]\npool: [a]\ntop: 3\noutput: out\n",
    "news: 30%\ncode: 5B tokens\n'*': 50%\n",
    "models:\n- {model: a/b, score: 0.1}\n- {model: c/d, name: x, score: 0.2}\n- {model: e, score: 0.3}\n",
]
SPLICES = [
    b"[" * 500,
    b"{a: " * 500,
    b"- " * 500,
    b"\xff\xfe",
    b"\0",
    b"\t",
    b": ",
    b"&a ",
    b"*a ",
    b"<<: *a\n",
    b"'",
    b'"',
    b"\xe2\x80\xa8",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"# ",
    b"? ",
    b"| ",
    b"\r",
    b"\xef\xbb\xbf",
]


def made_up(chance: random.Random) -> bytes:
    """Lines that could be of one of the files."""
    lines = [f"{chance.choice(KEYS)}: {chance.choice(VALUES)}" for _ in range(chance.randrange(6))]
    base = chance.choice([*BASES, ""]).splitlines()
    chance.shuffle(lines)
    return "\n".join([*base, *lines]).encode()


def mutated(chance: random.Random) -> bytes:
    content = bytearray(made_up(chance))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(content) + 1)
        piece = chance.choice([*SPLICES, chance.randbytes(2), b"", chance.choice(VALUES).encode()])
        content[at : at + chance.randrange(6)] = piece
    return bytes(content)


def rubbish(chance: random.Random) -> bytes:
    return chance.choice([chance.randbytes(chance.randrange(60)), b"".join(chance.choices(SPLICES, k=5))])


def recipe(file: Path, cls: type) -> None:
    _, values = load(str(file))
    run = make(cls, values, str(file))
    assert dump("x", run) == dump("x", run)


def readers(chance: random.Random) -> list[Callable[[Path], object]]:
    cls = chance.choice(RUNS)
    return [lambda file: recipe(file, cls), Quota.load, lambda file: Ladder.read(str(file))]


def reading(folder: Path) -> Callable[[random.Random], int]:
    file = folder / "f.yaml"

    def case(chance: random.Random) -> int:
        file.write_bytes(chance.choices([made_up, mutated, rubbish], [4, 4, 1])[0](chance))
        for read in readers(chance):
            try:
                read(file)
            except UserError as error:
                message = str(error).replace(str(file), "f.yaml")
                assert "\n" not in message and len(message) < 800, message
        return 3

    return case


@pytest.mark.filterwarnings("ignore::dvsel.errors.Notice")
def test_yaml(tmp_path: Path) -> None:
    fuzz(1_500, reading(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dvsel.errors.Notice")
def test_much_yaml(tmp_path: Path) -> None:
    fuzz(100_000, reading(tmp_path))
