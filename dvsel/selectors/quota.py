"""Quotas: a budget for each domain, from a YAML file.

    news: 30%             # of the main budget; 0.3 is the same
    code: 5B tokens       # or an amount, in the unit of the main budget
    "*": 50%              # all other domains together

A domain that is not named is left out, unless there is `*`. What a domain does not use is not given to
others. Without a main budget, amounts alone are allowed, and sum up to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from dvsel import yamlfile
from dvsel.budget import LONGEST, Budget, Unit
from dvsel.errors import UserError, shown

OTHERS = "*"
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%|(\d*\.\d+|0)", re.ASCII)
_EXAMPLES = "write lines like `news: 30%` or `code: 5B tokens`"


@dataclass(frozen=True)
class Quota:
    """What each domain may use.

    path: where it was read from, for messages.
    parts: by domain, in the order of the file, a share of the main budget (0 to 1) or an amount.
    """

    path: Path
    parts: Mapping[str, Fraction | Budget]

    @classmethod
    def load(cls, path: Path) -> Quota:
        """Raises UserError, naming file and line, for whatever is not a quota."""
        parts: dict[str, Fraction | Budget] = {}
        for domain, text, line in _entries(path):
            place = f"{path}, line {line}, {shown(domain)}"
            if domain in parts:
                raise UserError(f"{place}: named twice; keep one of the lines")
            parts[domain] = _part(text, place)
        quota = cls(path, parts)
        quota._check()
        return quota

    @property
    def unit(self) -> Unit | None:
        """The unit of the amounts; None where there are shares alone."""
        return next((part.unit for part in self.parts.values() if isinstance(part, Budget)), None)

    def budgets(self, total: int | None, unit: Unit | None) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The domains and their amounts, int64. total, unit: the main budget, None without one."""
        if unit is not None and self.unit not in (None, unit):
            raise UserError(
                f"{self.path}: amounts are in {self.unit}, but --budget is in {unit}; use one unit for both"
            )
        if total is None and any(isinstance(part, Fraction) for part in self.parts.values()):
            raise UserError(f"{self.path}: a share needs a main budget; give --budget, or amounts alone")
        amounts = [_amount(part, total or 0) for part in self.parts.values()]
        if total is not None and sum(amounts) > total:
            raise UserError(
                f"{self.path}: the domains sum up to {sum(amounts):,}, but --budget is {total:,} {unit}; "
                "lower them, or raise the budget"
            )
        return list(self.parts), np.array(amounts, np.int64)

    def stratum(self, domains: Sequence[str]) -> npt.NDArray[np.int32]:
        """int32 (len(domains),): for each domain the index of its budget, -1 for none."""
        names = {name: index for index, name in enumerate(self.parts)}
        others = names.pop(OTHERS, -1)
        return np.array([names.get(domain, others) for domain in domains], np.int32)

    def _check(self) -> None:
        shares = sum((part for part in self.parts.values() if isinstance(part, Fraction)), Fraction(0))
        if shares > 1:
            raise UserError(f"{self.path}: the shares sum up to {float(shares * 100):g}%; lower them to 100% or less")
        units = sorted({part.unit for part in self.parts.values() if isinstance(part, Budget)})
        if len(units) > 1:
            raise UserError(f"{self.path}: amounts are in {' and '.join(units)}; use one unit")


def _entries(path: Path) -> Iterator[tuple[str, str, int]]:
    """Domain, value and line of each entry, as written: YAML would read a domain `no` as false."""
    root = yamlfile.read_nodes(str(path), _EXAMPLES)
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
