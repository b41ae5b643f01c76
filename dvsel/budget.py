"""Budgets: how much of a pool to keep, in tokens, documents or bytes of text.

`Budget.parse` turns what a user writes into an exact amount or share, and refuses text that could mean two things;
`Budget.resolve` turns it into an integer. All arithmetic is on integers and fractions, never on floats, so that a
budget is met to the document.

    30B, 30B tokens     30,000,000,000 tokens: K, M, B, T are powers of 1000
    10%, 10% docs       a share of the pool's tokens, of its documents
    500k docs           500,000 documents
    20GB, 20GiB         bytes of text, powers of 1000 and of 1024
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NoReturn, cast

from dvsel.errors import UserError, shown

Unit = Literal["tokens", "docs", "bytes"]

_EXAMPLES = "write it like 30B tokens, 10%, 500k docs or 20GB"
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_UNITS: dict[str, Unit] = {
    "": "tokens",
    "token": "tokens",
    "tokens": "tokens",
    "doc": "docs",
    "docs": "docs",
    "document": "docs",
    "documents": "docs",
    "byte": "bytes",
    "bytes": "bytes",
}
LONGEST = 64
"""Characters that an amount may have: more digits than any pool needs."""
_LARGEST = 2**63 - 1
_BUDGET = re.compile(
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)(?:\.\d+)?|\.\d+)\s*"
    r"(?P<scale>%|[kmgtp]i?b|[kmgbt]?)\s*"
    r"(?P<unit>(?:tokens?|docs?|documents?|bytes?)?)",
    re.ASCII,
)


@dataclass(frozen=True)
class Budget:
    """An amount, or a share of the pool. Exactly one of the two is set.

    amount: 1 or more. share: more than 0, at most 1, a finite decimal.
    str() gives a canonical form, which parses to an equal budget.
    """

    unit: Unit
    amount: int | None = None
    share: Fraction | None = None

    def __post_init__(self) -> None:
        if (self.amount is None) == (self.share is None):
            raise ValueError("a budget has either an amount or a share")
        if self.amount is not None and self.amount < 1:
            raise ValueError("a budget's amount is 1 or more")
        if self.share is not None and not (0 < self.share <= 1 and _decimals(self.share) is not None):
            raise ValueError("a budget's share is a finite decimal, more than 0 and at most 1")

    @classmethod
    def parse(cls, text: str, place: str = "--budget") -> Budget:
        """Return the budget that `text` means. Raises UserError, naming `place`, where it means none or several."""
        return _parse(text, place)

    def resolve(self, total: int) -> int:
        """Return the amount in `unit`, where the pool holds `total` of it.

        A share is rounded down; an amount may be more than the pool holds.
        """
        if self.share is None:
            return cast(int, self.amount)
        return int(self.share * total)

    def echo(self, total: int) -> str:
        """Return the budget as it is shown to the user: `30B tokens = 30,000,000,000`."""
        return f"{self} = {self.resolve(total):,}"

    def __str__(self) -> str:
        if self.share is not None:
            return f"{_decimal(self.share * 100)}% {self.unit}"
        amount = cast(int, self.amount)
        if self.unit == "bytes":
            number, scale = _scaled(amount, {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12})
            return f"{number}{scale or ' bytes'}"
        number, scale = _scaled(amount, _SCALES)
        return f"{number}{scale.upper()} {self.unit}"


def _parse(text: str, place: str) -> Budget:
    match = _BUDGET.fullmatch(text.strip().lower())
    if match is None or len(text) > LONGEST:
        _refuse(place, text, "is not a budget", _EXAMPLES)
    number = Fraction(re.sub("[,_]", "", match["number"]))
    if match["scale"] == "%":
        return _share(number, _UNITS[match["unit"]], place, text)
    scale, unit = _scale_and_unit(match, place, text)
    amount = number * scale
    if amount.denominator != 1:
        _refuse(place, text, f"is not a whole number of {unit}", _EXAMPLES)
    if not 0 < amount <= _LARGEST:
        _refuse(place, text, "keeps nothing" if not amount else "is more than any pool holds", _EXAMPLES)
    return Budget(unit, amount=int(amount))


def _share(number: Fraction, unit: Unit, place: str, text: str) -> Budget:
    if not 0 < number <= 100:
        _refuse(place, text, "is not a share of the pool", "give more than 0% and at most 100%")
    return Budget(unit, share=number / 100)


def _scale_and_unit(match: re.Match[str], place: str, text: str) -> tuple[int, Unit]:
    number, scale, unit = match["number"], match["scale"], match["unit"]
    if scale == "g":
        _refuse(place, text, "could be bytes or tokens", f"write {number}GB (of text) or {number}B tokens")
    if not scale and not unit:
        _refuse(place, text, "has no unit", f"write {number} tokens, {number} docs or {number}%")
    if scale in _SCALES:
        return _SCALES[scale], _UNITS[unit]
    if unit and _UNITS[unit] != "bytes":
        _refuse(place, text, f"names both bytes and {unit}", _EXAMPLES)
    base = 1024 if "i" in scale else 1000
    return base ** ("kmgtp".index(scale[0]) + 1), "bytes"


def _refuse(place: str, text: str, cause: str, remedy: str) -> NoReturn:
    raise UserError(f"{place}: {shown(text)} {cause}; {remedy}")


def _scaled(amount: int, scales: dict[str, int]) -> tuple[str, str]:
    """Return the shortest exact form: a number with at most two decimals, and the largest scale that allows it."""
    for name, scale in sorted(scales.items(), key=lambda item: -item[1]):
        if amount >= scale and amount * 100 % scale == 0:
            return (f"{amount:,}" if scale == 1 else _decimal(Fraction(amount, scale))), name
    raise AssertionError("1 divides every amount")


def _decimal(value: Fraction) -> str:
    digits = _decimals(value)
    assert digits is not None
    whole, rest = divmod(int(value * 10**digits), 10**digits)
    return f"{whole:,}.{rest:0{digits}}" if digits else f"{whole:,}"


def _decimals(value: Fraction) -> int | None:
    """Count the decimals of `value`; None for an infinite number of them."""
    most = value.denominator.bit_length()
    return next((digits for digits in range(most) if 10**digits % value.denominator == 0), None)
