"""Quotas: a budget for each domain, from a YAML file, or in a line: `news=30%,code=5B tokens,*=50%`.

    news: 30%             # of the main budget; 0.3 is the same
    code: 5B tokens       # or an amount, in the unit of the main budget
    "*": 50%              # all other domains together

A text that is the name of an existing file means that file. In a line a domain's name has no comma.
A domain that is not named is left out, unless there is `*`. A part that a domain does not use up is not given to
others. Without a main budget, amounts alone are allowed, and sum up to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from dvsel.budget import LONGEST, Budget, Unit
from dvsel.errors import UserError, shown
from dvsel.storage import yaml_file

OTHERS = "*"
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%|(\d*\.\d+|0)", re.ASCII)
_EXAMPLES = "write lines like `news: 30%` or `code: 5B tokens`"


@dataclass(frozen=True)
class Quota:
    """The part of a budget that each domain may use.

    place: where it was read, for messages.
    parts: by domain, in the order of the file, a share of the main budget (0 to 1) or an amount.
    """

    place: str
    parts: Mapping[str, Fraction | Budget]

    @classmethod
    def load(cls, path: Path) -> Quota:
        """Read a file. Raises UserError, naming file and line, for whatever is not a quota."""
        return cls._of(str(path), ((domain, text, f", line {line}") for domain, text, line in _entries(path)))

    @classmethod
    def parse(cls, text: str) -> Quota:
        """Parse a quota in a line, or read the file that the text names. Raises UserError where it is not a quota."""
        if not is_inline(text):
            return cls.load(Path(text))
        return cls._of(f"--quota {shown(text)}", ((*_pair(part, text), "") for part in text.split(",")))

    @classmethod
    def _of(cls, place: str, entries: Iterable[tuple[str, str, str]]) -> Quota:
        parts: dict[str, Fraction | Budget] = {}
        for domain, text, line in entries:
            here = f"{place}{line}, {shown(domain)}"
            if domain in parts:
                raise UserError(f"{here}: named twice; keep one of them")
            parts[domain] = _part(text, here)
        quota = cls(place, parts)
        quota._check()
        return quota

    @property
    def unit(self) -> Unit | None:
        """The unit of the amounts; None where there are shares alone."""
        return next((part.unit for part in self.parts.values() if isinstance(part, Budget)), None)

    def budgets(self, total: int | None, unit: Unit | None) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Return the domains and their amounts, int64. total, unit: of the main budget, None without one."""
        if unit is not None and self.unit not in (None, unit):
            raise UserError(
                f"{self.place}: amounts are in {self.unit}, but --budget is in {unit}; use one unit for both"
            )
        if total is None and any(isinstance(part, Fraction) for part in self.parts.values()):
            raise UserError(f"{self.place}: a share needs a main budget; give --budget, or amounts alone")
        amounts = [_amount(part, total or 0) for part in self.parts.values()]
        if total is not None and sum(amounts) > total:
            raise UserError(
                f"{self.place}: the domains sum up to {sum(amounts):,}, but --budget is {total:,} {unit}; "
                "lower them, or raise the budget"
            )
        return list(self.parts), np.array(amounts, np.int64)

    def stratum(self, domains: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the index of each domain's budget, int32 (len(domains),), -1 for none."""
        names = {name: index for index, name in enumerate(self.parts)}
        others = names.pop(OTHERS, -1)
        return np.array([names.get(domain, others) for domain in domains], np.int32)

    def _check(self) -> None:
        shares = sum((part for part in self.parts.values() if isinstance(part, Fraction)), Fraction(0))
        if shares > 1:
            raise UserError(f"{self.place}: the shares sum up to {float(shares * 100):g}%; lower them to 100% or less")
        units = sorted({part.unit for part in self.parts.values() if isinstance(part, Budget)})
        if len(units) > 1:
            raise UserError(f"{self.place}: amounts are in {' and '.join(units)}; use one unit")


def is_inline(text: str) -> bool:
    """True for a quota itself, and not the name of a file."""
    return "=" in text and not _is_file(text)


def _is_file(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # longer than a name can be
        return False


def _pair(part: str, text: str) -> tuple[str, str]:
    domain, sign, value = part.rpartition("=")
    if not sign:
        raise UserError(f"--quota {shown(text)}: {shown(part)} is not a domain with its part; write news=30%,*=70%")
    return domain.strip(), value.strip()


def _entries(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield domain, value and line of each entry, as written: YAML would read a domain `no` as false."""
    root = yaml_file.read_nodes(str(path), _EXAMPLES)
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise UserError(f"{path}: names no domains; {_EXAMPLES}")
    for domain, value in root.value:
        line = domain.start_mark.line + 1
        if not (isinstance(domain, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            raise UserError(f"{path}, line {line}: is not a domain with one value; {_EXAMPLES}")
        yield domain.value, value.value, line


def _part(text: str, place: str) -> Fraction | Budget:
    match = _SHARE.fullmatch(text.strip())
    if match is None or len(text) > LONGEST:
        budget = Budget.parse(text, place)
        if budget.share is not None:
            raise UserError(f"{place}: {text!r} names a unit; a share is of the main budget, write it like 30%")
        return budget
    share = Fraction(match[1]) / 100 if match[1] else Fraction(match[2])
    if share > 1:
        raise UserError(f"{place}: {text!r} is more than the whole; give at most 100%")
    return share


def _amount(part: Fraction | Budget, total: int) -> int:
    return part.resolve(total) if isinstance(part, Budget) else int(part * total)
