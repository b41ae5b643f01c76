"""Budgets: what is written comes out exactly, and anything else is refused in one line."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from dvsel.budget import Budget
from dvsel.errors import UserError
from fuzzing import fuzz

SCALES = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12, "": 1}
BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15, "kib": 2**10, "mib": 2**20, "gib": 2**30}
UNITS = {"token": "tokens", "tokens": "tokens", "doc": "docs", "documents": "docs", "bytes": "bytes", "byte": "bytes"}
ODD = "0123456789.,_%kmgtbpi KMGTBP-+eE٣½²\t\n\0\x1b'\"é漢\ud800"
LARGEST = 2**63 - 1


def number(chance: random.Random) -> tuple[str, Fraction]:
    """A decimal number as one may write it, and its value."""
    whole = chance.choice([0, 1, 7, 10, 12, 999, 1000, 10**9, chance.randrange(10**12)])
    decimals = chance.choice(["", "", ".5", ".25", ".000", ".123456789", f".{chance.randrange(10**9)}"])
    plain = f"{whole}{decimals}"
    written = chance.choice([plain, f"{whole:,}{decimals}", f"{whole:_}{decimals}"])
    return (
        (decimals, Fraction(f"0{decimals}"))
        if not whole and decimals and chance.random() < 0.3
        else (
            written,
            Fraction(plain),
        )
    )


def spaced(chance: random.Random, *parts: str) -> str:
    return "".join(part + chance.choice(["", "", " ", "  "]) for part in parts)


def cased(chance: random.Random, text: str) -> str:
    return "".join(chance.choice([letter, letter.upper()]) for letter in text)


def meant(chance: random.Random) -> tuple[str, str, Fraction, bool]:
    """A budget that means one thing: text, unit, amount or share, and whether it is a share."""
    digits, value = number(chance)
    kind = chance.randrange(3)
    if kind == 0:
        unit = chance.choice(["", *UNITS])
        return spaced(chance, digits, "%", cased(chance, unit)), UNITS.get(unit, "tokens"), value / 100, True
    if kind == 1:
        scale = chance.choice(list(BYTES))
        return spaced(chance, digits, cased(chance, scale)), "bytes", value * BYTES[scale], False
    scale = chance.choice(list(SCALES))
    unit = chance.choice([*UNITS, *([""] if scale else [])])
    return spaced(chance, digits, cased(chance, scale + " " * bool(unit) + unit)), UNITS.get(unit, "tokens"), (
        value * SCALES[scale]
    ), False  # fmt: skip


def exact(chance: random.Random) -> None:
    text, unit, value, is_share = meant(chance)
    possible = 0 < value <= 1 if is_share else 0 < value <= LARGEST and value.denominator == 1
    if not possible:
        assert refusal(text), f"{text!r} is taken"
        return
    budget = Budget.parse(text)
    assert (budget.unit, budget.share if is_share else budget.amount) == (unit, value), text
    assert Budget.parse(str(budget)) == budget
    total = chance.choice([0, 1, 99, 10**18, chance.randrange(2**62)])
    assert budget.resolve(total) == (value * total // 1 if is_share else value), text


def refusal(text: str) -> str:
    """What is said of the text; "" where it is a budget."""
    try:
        budget = Budget.parse(text)
    except UserError as error:
        assert "\n" not in str(error) and "; " in str(error) and len(str(error)) < 300, str(error)
        return str(error)
    assert Budget.parse(str(budget)) == budget
    return ""


def broken(chance: random.Random) -> None:
    text = list(meant(chance)[0]) if chance.random() < 0.7 else chance.choices(ODD, k=chance.randrange(20))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(text) + 1)
        text[at : at + chance.randrange(3)] = chance.choices(ODD, k=chance.choice([0, 1, 1, 2, 80]))
    refusal("".join(text))


def either(chance: random.Random) -> None:
    (exact if chance.random() < 0.5 else broken)(chance)


def test_budgets() -> None:
    fuzz(5_000, either)


@pytest.mark.slow
def test_many_budgets() -> None:
    fuzz(100_000, either)
