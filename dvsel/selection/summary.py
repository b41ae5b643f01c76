"""The report on a selection: numbers of what its plan keeps."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dvsel.interface.registry import SELECTORS, name_of
from dvsel.interface.selector import SetSelector
from dvsel.options import to_mapping
from dvsel.pool.fields import sparse
from dvsel.runs.report import SelectReport, Share, unread_of
from dvsel.runs.requests import SelectRun
from dvsel.score_files.rows import Totals
from dvsel.selection.plan import Plan


def report_on(plan: Plan, run: SelectRun) -> SelectReport:
    """Return the report on a plan."""
    header = plan.pool.files[0].header
    totals = Totals()
    for file in plan.pool.files:
        totals.add(file.header.totals)
    domains = domains_of(plan)
    weighted = bool(plan.tally.log_weights)
    given = sum(plan.kept)
    strata, threshold_is = _with_thresholds(plan)
    return SelectReport(
        scorer=header.scorer,
        selector={"name": name_of(SELECTORS, type(plan.rule.selector)), **to_mapping(plan.rule.selector)},
        seed=run.sampling.seed,
        budget=_echo(plan),
        unit=plan.rule.unit,
        asked=plan.asked,
        pool={unit: plan.pool.total(unit) for unit in ("docs", "tokens", "bytes")},
        given={
            "docs": given,
            "tokens": sum(share.kept_tokens for share in domains.values()),
            "bytes": sum(int(row[4]) for row in plan.tally.domains.values()),
        },
        took_all=plan.budget is not None and run.quota is None and _took_all(plan),
        duplicates=plan.tally.duplicates,
        tokens=header.tokens.method,
        unscored=header.unscored,
        totals=dataclasses.replace(totals, named=[]),
        domains=domains,
        strata=strata,
        threshold_is=threshold_is,
        histogram=histogram_of(plan),
        effective_sample_size=plan.tally.effective_sample_size() if weighted else None,
        overlap=plan.tally.overlap / max(given, 1) if weighted else None,
        notes=[*plan.notes, *sparse(totals)],
        unread=unread_of(plan.pool.files),
        skipped=[(file.header.shard.url, *line) for file in plan.pool.files for line in file.header.totals.named],
        reading=dataclasses.asdict(header.reading),
    )


def _took_all(plan: Plan) -> bool:
    """True where the budget was more than enough. A rule that sees the set may have given few documents a key."""
    is_set = isinstance(plan.rule.selector, SetSelector)
    return plan.took_all and not (is_set and sum(plan.kept) < plan.pool.total("docs"))


def _with_thresholds(plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """Return the plan's strata, their thresholds as scores where keys allow it, and the name of what they are."""
    selector = plan.rule.selector
    if selector.score_of(0.0) is None:
        return plan.strata, "key with noise" if selector.noisy else "key"
    keys = [stratum["threshold"] for stratum in plan.strata]
    scores = [None if key is None else selector.score_of(key) for key in keys]
    return [stratum | {"threshold": score} for stratum, score in zip(plan.strata, scores, strict=True)], "score"


def _echo(plan: Plan) -> str:
    if plan.budget:
        return plan.budget.echo(plan.pool.total(plan.rule.unit))
    asked = [stratum["asked"] for stratum in plan.strata]
    return f"quotas of {sum(asked):,} {plan.rule.unit}" if None not in asked else "no budget"


def domains_of(plan: Plan) -> dict[str, Share]:
    """Return the documents and tokens of each domain, by name."""
    return {
        name: Share(docs, kept_docs, tokens, kept_tokens, unscored)
        for name, (docs, tokens, kept_docs, kept_tokens, _, unscored) in sorted(
            (name, row.tolist()) for name, row in plan.tally.domains.items()
        )
    }


def histogram_of(plan: Plan) -> dict[str, list[float]]:
    """Return the histogram of the score: edges of the bins, documents of the pool and kept in each, and outliers."""
    pool, kept = plan.tally.histogram.tolist()
    edges = np.linspace(plan.tally.low, plan.tally.high, len(pool) + 1).tolist()
    return {"edges": edges, "pool": pool, "kept": kept, "outliers": plan.tally.outliers.tolist()}
