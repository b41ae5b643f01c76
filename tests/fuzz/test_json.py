"""The JSON extractor against orjson, on whole and broken lines, in memory that kills who reads or writes beyond it."""

from __future__ import annotations

import random

import numpy as np
import pytest

from dvsel.documents.columns import PAD, Bytes, Offsets
from dvsel.shards import extract as module
from dvsel.shards.json_parser import Table
from fuzzing import GuardedMemory, fuzz
from json_truth import SPLICES, check, mutate

KEYS = ["text", "id", "meta", "domain", "x", "y", "é", "", "tex", "textt", "t\\u0065xt", "\\u00e9", "a.b"]
PATHS = ["text", "id", "meta", "meta.domain", "meta.x.y", "é", "x", "x.y.x.y", "", "domain", "nothing"]
SCALARS = ["null", "true", "false", "0", "-0", "-0.0", "1e5", "1E-7", "0.1e+2", "9" * 19, "9" * 400, "1e400"]
SCALARS += ["nul", "01", "+1", "1.", "NaN"]
PIECES = ["a", "text", "é", "€", "😀", "\u2028", "\x7f", "x" * 63, "y" * 64, "long " * 40, "é" * 31]
PIECES += ["\\n", "\\/", '\\"', "\\\\", "\\u00e9", "\\uD83D\\uDE00", "\\ud800", "\\u0000"]
AT_ONCE = 50


def space(chance: random.Random) -> str:
    return chance.choice(["", "", "", " ", "\t", "\r", " \t \r", " " * 70])


def string(chance: random.Random) -> str:
    return '"' + "".join(chance.choices(PIECES, k=chance.choice([0, 1, 1, 2, 5]))) + '"'


def value(chance: random.Random, depth: int) -> str:
    """JSON, now and then nearly."""
    kind = chance.random()
    if depth and kind < 0.3:
        return obj(chance, depth - 1)
    if depth and kind < 0.45:
        body = ",".join(value(chance, depth - 1) for _ in range(chance.randrange(4)))
        return f"[{body or space(chance)}]"
    if kind < 0.47:
        levels = chance.choice([3, 61, 62, 63, 64, 65, 500])
        return "[" * levels + "]" * levels
    inner = string(chance) if kind < 0.8 else chance.choice(SCALARS)
    return space(chance) + inner + space(chance)


def obj(chance: random.Random, depth: int) -> str:
    def member() -> str:
        return f'{space(chance)}"{chance.choice(KEYS)}"{space(chance)}:{value(chance, depth)}'

    body = ",".join(member() for _ in range(chance.randrange(7)))
    return f"{space(chance)}{{{body or space(chance)}}}{space(chance)}"


def line(chance: random.Random) -> bytes:
    """A line: JSON, broken JSON, or rubbish."""
    kind = chance.random()
    if kind < 0.05:
        return b"".join(chance.choices(SPLICES, k=chance.randrange(9)))
    found = obj(chance, 4).encode()
    return found if kind < 0.5 else mutate(found, chance)


class GuardedTables:
    """Makes tables whose values end at a guard, so that a kernel that writes too much is caught as well."""

    def __init__(self) -> None:
        self._memory = GuardedMemory(4 << 20)
        self._empty = Table.empty

    def __call__(self, columns: int, starts: Offsets, ends: Offsets) -> Table:
        table = self._empty(columns, starts, ends)
        return table._replace(values=self._memory.at_end(len(table.values)))


def try_lines(cases: int, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, tables = GuardedMemory(1 << 20), GuardedTables()
    monkeypatch.setattr(module.Table, "empty", tables)  # type: ignore[attr-defined]

    def case(chance: random.Random) -> int:
        place = chance.choice([memory.at_end, memory.at_start])

        def guarded(content: bytes) -> Bytes:
            data = place(len(content) + PAD)
            data[: len(content)] = np.frombuffer(content, np.uint8)
            data[len(content) :] = chance.choice(list(b'"}]0\\ \xbf'))  # what would go on with the JSON
            return data

        lines = [line(chance) for _ in range(AT_ONCE)]
        check(lines, chance.sample(PATHS, chance.randrange(len(PATHS))), guarded)
        return len(lines)

    fuzz(cases, case)


def test_lines_are_what_orjson_says(monkeypatch: pytest.MonkeyPatch) -> None:
    try_lines(4_000, monkeypatch)


@pytest.mark.slow
def test_many_lines_are_what_orjson_says(monkeypatch: pytest.MonkeyPatch) -> None:
    try_lines(200_000, monkeypatch)
