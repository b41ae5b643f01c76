"""A quota against the domains of a pool: names that no document has, and domains that are not named."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dvsel.budget import Budget
from dvsel.budgets.quota import OTHERS, Quota
from dvsel.errors import UserError, shown
from dvsel.pool.fields import listed
from dvsel.selection.scored_pool import Pool

_LOOKED_AT = 1000  # names that a misspelt one is compared with; a pool may have millions


def check_domains(pool: Pool, quota: Quota) -> None:
    """Raise UserError for a domain that a quota gives something and that no document of the pool has."""
    amounts = {name: part.amount if isinstance(part, Budget) else part for name, part in quota.parts.items()}
    wanted = [name for name, amount in amounts.items() if amount and name != OTHERS]
    existing = {
        name for number in range(len(pool.files)) for rows, _ in pool.rows(number, ("domain",)) for name in rows.domains
    }
    if not (absent := [name for name in wanted if name not in existing]):
        return
    if not any(existing):
        field = pool.files[0].header.reading.domain_field
        raise UserError(
            f"--quota: no document has a domain, in the field {field!r}; score with --domain-field to name another"
        )
    raise UserError(
        f"--quota: no document has the domain {shown(absent[0])}; {_instead(absent[0], sorted(existing - {''}))}"
    )


def _instead(name: str, existing: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, existing[:_LOOKED_AT], n=1)
    remedy = f"did you mean {shown(close[0])}?" if close else "correct the quota, or take the domain out of it"
    return f"there are {listed(existing)}; {remedy}"


def without_budget(domains: Mapping[str, npt.NDArray[np.int64]], quota: Quota | None) -> list[str]:
    """Return the line of the summary on domains that a quota does not name.

    domains: by name, counts of which the first are documents and tokens.
    """
    if quota is None:
        return []
    names = list(domains)
    out = [name for name, stratum in zip(names, quota.stratum(names).tolist(), strict=True) if stratum < 0]
    docs, tokens = (sum(int(domains[name][column]) for name in out) for column in (0, 1))
    if not docs:
        return []
    largest = sorted(out, key=lambda name: (-int(domains[name][0]), name))
    return [
        f"left out {docs:,} documents, {tokens:,} tokens, of {len(out):,} domains that the quota does not name: "
        f"{listed([name or '(none)' for name in largest])}"
    ]
