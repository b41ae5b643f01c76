"""What a run did, as a small JSON file beside its output and as the summary on the terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dvsel.redact import kept
from dvsel.shards.files import atomic_writer
from dvsel.shards.scorefile import ScoreFile, Totals
from dvsel.shards.tokens import TokenCounter

BINS = 40
_NAMED_FILES = 5


@dataclass(frozen=True)
class ScoreReport:
    """What `dvsel score` did.

    totals: summed over shards. skipped: shard, line and cause of the first skipped lines of each shard.
    """

    scorer: str
    shards: int
    totals: Totals
    unscored: str
    tokens: str
    empty_shards: list[str]
    skipped: list[tuple[str, int, str]]
    notes: list[str] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> ScoreReport:
        """The report on a pool's score files."""
        header = files[0].header
        totals = Totals()
        for file in files:
            totals.add(file.header.totals)
        return cls(
            header.scorer,
            len(files),
            dataclasses.replace(totals, named=[]),
            header.unscored,
            TokenCounter.of(header.tokens).method,
            [file.header.shard["url"] for file in files if not (len(file) or file.header.unread)],
            [(file.header.shard["url"], *line) for file in files for line in file.header.totals.named],
            unread=unread_of(files),
        )

    def lines(self) -> list[str]:
        """The summary."""
        totals = self.totals
        lines = [
            f"scored {totals.docs:,} of {totals.rows:,} documents in {self.shards:,} shards with {self.scorer}",
            f"tokens {totals.tokens:,}, {self.tokens}",
            *self.notes,
        ]
        return lines + losses(totals, self.unscored, self.skipped, self.empty_shards) + left_out(self.unread)


@dataclass
class Share:
    """Documents and tokens of one domain, in the pool (scored) and kept."""

    pool_docs: int
    kept_docs: int
    pool_tokens: int
    kept_tokens: int


@dataclass
class SelectReport:
    """What `dvsel select` did.

    asked: the budget as given, and resolved in its unit. threshold: by stratum, what the best row left out has (None:
    all was taken), which is its score, or its key where keys do not tell scores: threshold_is says which.
    effective_sample_size: of the weights exp(key without noise), a number of documents; overlap: share
    of the kept documents that topk under the same budget keeps; both for rules that use noise.
    """

    scorer: str
    selector: dict[str, Any]
    seed: int
    budget: str
    unit: str
    asked: int | None
    pool: dict[str, int]
    given: dict[str, int]
    took_all: bool
    duplicates: int
    tokens: str
    unscored: str
    totals: Totals
    domains: dict[str, Share]
    strata: list[dict[str, Any]]
    threshold_is: str
    histogram: dict[str, Any]
    effective_sample_size: float | None = None
    overlap: float | None = None
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, int, str]] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The summary."""
        given, pool, rule = self.given, self.pool, self.selector["name"]
        lines = [
            f"selected {given['docs']:,} of {pool['docs']:,} scored documents with {rule} on {self.scorer}",
            f"asked {self.budget}; given {given['tokens']:,} tokens, {given['bytes']:,} bytes of text",
            f"tokens {self.tokens}",
        ]
        if self.took_all:
            lines.append("the budget exceeds what there is: all of it is taken")
        for stratum in self.strata:
            if len(self.strata) > 1:
                lines.append(_stratum_line(stratum, self.unit))
            elif stratum["threshold"] is not None:
                lines.append(f"threshold {stratum['threshold']:.6g} ({self.threshold_is})")
        if self.effective_sample_size is not None:
            size = f"{self.effective_sample_size:,.1f}"
            lines.append(f"effective sample size {size}: the weights count as if spread over so many documents")
        if self.overlap is not None:
            lines.append(f"overlap with topk {self.overlap:.1%}" + self._degenerate())
        lines += self.notes
        if self.duplicates:
            lines.append(f"left out {self.duplicates:,} duplicates")
        return lines + losses(self.totals, self.unscored, self.skipped, []) + left_out(self.unread)

    def _degenerate(self) -> str:
        if self.overlap is None or self.overlap < 0.95 or self.took_all:
            return ""
        return ": nearly topk, as the scores spread far more than the noise; normalise them, then set --temperature"


def _stratum_line(stratum: Mapping[str, Any], unit: str) -> str:
    asked = "unlimited" if stratum["asked"] is None else f"{stratum['asked']:,}"
    short = " (all there is)" if stratum["took_all"] else ""
    return (
        f"  {stratum['name']}: asked {asked}, given {stratum['given']:,} {unit} in {stratum['docs']:,} documents{short}"
    )


def losses(
    totals: Totals,
    unscored: str,
    skipped: Sequence[tuple[str, int, str]],
    empty_shards: Sequence[str],
    what: str = "score",
) -> list[str]:
    """What has no score, or whatever it is that documents should have, and why."""
    lines = []
    for status, cause in (("empty_text", "empty text"), ("unscored", unscored)):
        if count := totals.status.get(status, 0):
            lines.append(f"no {what} for {count:,} documents: {cause}")
    if count := totals.status.get("bad_line", 0):
        causes = ", ".join(f"{number:,} {cause}" for cause, number in totals.bad_lines.items())
        lines.append(f"skipped {count:,} lines: {causes}")
        lines += [f"  {url}, line {line}: {cause}" for url, line, cause in skipped[:5]]
        if len(skipped) > 5:
            lines.append("  ... (more in .dvsel/report.json)")
    lines += [f"{url} is empty" for url in empty_shards]
    return lines


def unread_of(files: Sequence[ScoreFile]) -> list[tuple[str, str]]:
    """The shards that were left out as a whole: place and cause."""
    return [(file.header.shard["url"], file.header.unread) for file in files if file.header.unread]


def left_out(unread: Sequence[tuple[str, str]]) -> list[str]:
    """What the summary says of them."""
    if not unread:
        return []
    more = ["  ... (more in the report)"] if len(unread) > _NAMED_FILES else []
    return [
        f"left out {len(unread):,} files that cannot be read:",
        *(f"  {cause}" for _, cause in unread[:_NAMED_FILES]),
        *more,
    ]


def write_json(report: Any, url: str) -> None:
    """Write a report as JSON."""
    with atomic_writer(url) as file:
        text = json.dumps(kept(dataclasses.asdict(report)), indent=1, ensure_ascii=False)
        file.write(text.encode() + b"\n")
