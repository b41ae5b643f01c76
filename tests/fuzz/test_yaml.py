"""Recipes, quotas and ladders, made up, mutated and random: a value, or a UserError of one line."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvsel.budgets.quota import Quota
from dvsel.commands.embed import EmbedRun
from dvsel.commands.losses import LossesRun
from dvsel.commands.strength import StrengthRun
from dvsel.commands.trace import TraceRun
from dvsel.errors import UserError
from dvsel.runs.ladder import Ladder
from dvsel.runs.recipe import dump, load, make
from dvsel.runs.requests import FitRun, ScoreRun, SelectRun
from fuzzing import fuzz

BASES: dict[str, type] = {
    "command: select\npool: [a]\nselector: {name: resample, temperature: 0.5}\nbudget: 10%\nseed: 7\n": SelectRun,
    "command: score\npool: [a]\nscorer: {name: dsir, buckets: 100, normalise: length}\ntarget: [t]\n": ScoreRun,
    "command: fit\npool: [a]\nscorer: {name: perplexity, model: m, min_k: 5}\noutput: out\n": FitRun,
    "command: embed\npool: [a]\nmodel: m\nlayer: 3\n": EmbedRun,
    "command: losses\npool: [a]\nladder: l.yaml\n": LossesRun,
    "command: strength\npool: [a]\nladder: l.yaml\n": StrengthRun,
    "command: trace\nscorer: {name: influence, model: m}\nquery: [q]\npool: [a]\ntop: 3\n": TraceRun,
    "news: 30%\ncode: 5B tokens\n'*': 50%\n": SelectRun,
    "models:\n- {model: a/b, score: 0.1}\n- {model: c/d, name: x, score: 0.2}\n- {model: e, score: 0.3}\n": SelectRun,
    "": SelectRun,
}
OTHER_KEYS = ["command", "name", "dvsel", "models", "scores", "temperature", '"*"', "no", "~", "1", "? [a]", "news"]
USUAL = ["5", "0", "-1", "0.5", "true", "x", "10%", "5B tokens", "[a, b]", "~", "topk", "dsir", "{name: resample}"]
ODD = ["", "1e999", ".nan", "-.inf", "2020-13-45", "'a\\0'", '"a\\0b"', '"\\ud800"', '"\\x1b[2J"', "9" * 30, "9" * 5000]
ODD += ["0x" + "f" * 5000, "[5]", "{a: b}", "*a", "&a x", "!!binary x", "!!python/name:os.system", "|\n  text"]
ODD += ["{name: dsir, buckets: 0}", "{name: 5}", "a/b/c", "~nobody/x", "https://me:pw@host/x", "é漢🙂", "x" * 9999]
SPLICES = [b"[" * 500, b"{a: " * 500, b"- " * 500, b"\xff\xfe", b"\0", b"\t", b": ", b"&a ", b"*a ", b"<<: *a\n"]
SPLICES += [
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


def value(chance: random.Random) -> str:
    return chance.choice(USUAL if chance.random() < 0.7 else ODD)


def made_up(chance: random.Random) -> tuple[bytes, type]:
    """Lines of one of the files, and the run whose recipe they could be."""
    base, cls = chance.choice(list(BASES.items()))
    keys = [*cls.__dataclass_fields__] * 5 + OTHER_KEYS  # type: ignore[attr-defined]
    lines = {chance.choice(keys): value(chance) for _ in range(chance.choice([0, 1, 1, 2, 3]))}
    kept = [line for line in base.splitlines() if line.partition(":")[0] not in lines]
    if chance.random() < 0.1:
        kept = [line.replace(chance.choice(line), value(chance), 1) for line in kept]
    return "\n".join([*kept, *(f"{key}: {value}" for key, value in lines.items())]).encode(), cls


def mutated(chance: random.Random) -> tuple[bytes, type]:
    made, cls = made_up(chance)
    content = bytearray(made)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(content) + 1)
        pieces = [*SPLICES, chance.randbytes(2), b"", *(value(chance).encode() for _ in range(3))]
        content[at : at + chance.randrange(6)] = chance.choice(pieces)
    return bytes(content), cls


def rubbish(chance: random.Random) -> tuple[bytes, type]:
    return chance.choice([chance.randbytes(chance.randrange(60)), b"".join(chance.choices(SPLICES, k=5))]), SelectRun


def recipe(file: Path, cls: type) -> None:
    _, values = load(str(file))
    run: Any = make(cls, values, str(file))
    assert dump("x", run) == dump("x", run)


def readers(cls: type) -> list[Callable[[Path], object]]:
    return [lambda file: recipe(file, cls), Quota.load, lambda file: Ladder.read(str(file))]


def reading(folder: Path) -> Callable[[random.Random], int]:
    file = folder / "f.yaml"

    def case(chance: random.Random) -> int:
        content, cls = chance.choices([made_up, mutated, rubbish], [6, 4, 1])[0](chance)
        file.write_bytes(content)
        for read in readers(cls):
            try:
                read(file)
            except UserError as error:
                message = str(error).replace(str(file), "f.yaml")
                assert "\n" not in message and len(message) < 5000, message
        return 3

    return case


@pytest.mark.filterwarnings("ignore::dvsel.errors.Notice")
def test_yaml(tmp_path: Path) -> None:
    fuzz(900, reading(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::dvsel.errors.Notice")
def test_much_yaml(tmp_path: Path) -> None:
    fuzz(100_000, reading(tmp_path))
