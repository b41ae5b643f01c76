"""Reports on runs: a small JSON file beside the output, and the summary on the terminal."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dvsel.documents.columns import Status
from dvsel.errors import UserError
from dvsel.redact import kept
from dvsel.score_files.reader import ScoreFile
from dvsel.score_files.rows import Totals
from dvsel.storage.places import atomic_writer, open_read

BINS = 40
_UNSCORED = (Status.EMPTY_TEXT, Status.UNSCORED)
_MANY = 0.1  # share of documents without a score, from which the summary warns
_NAMED = 5  # lines, domains or files that the summary names
_NEARLY_ALL = 0.95  # overlap with topk, from which noise decided next to nothing
_FEW = 0.1  # share of the kept documents, below which an effective sample size is small


@dataclass
class Share:
    """Documents and tokens of one domain, in the pool (scored) and kept, and the documents without a score."""

    pool_docs: int
    kept_docs: int
    pool_tokens: int
    kept_tokens: int
    unscored_docs: int = 0


@dataclass(frozen=True)
class ScoreReport:
    """Report of `dvsel score`.

    totals: summed over shards. skipped: shard, line and cause of the first skipped lines of each shard.
    unscored_domains: documents without a score, by domain.
    """

    scorer: str
    shards: int
    totals: Totals
    unscored: str
    tokens: str
    empty_shards: list[str]
    skipped: list[tuple[str, int, str]]
    notes: list[str] = field(default_factory=list)
    unscored_domains: dict[str, int] = field(default_factory=dict)
    unread: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, files: Sequence[ScoreFile]) -> ScoreReport:
        """Return the report on a pool's score files."""
        header = files[0].header
        totals = Totals()
        for file in files:
            totals.add(file.header.totals)
        return cls(
            header.scorer,
            len(files),
            dataclasses.replace(totals, named=[]),
            header.unscored,
            header.tokens.method,
            [file.header.shard.url for file in files if not (len(file) or file.header.unread)],
            [(file.header.shard.url, *line) for file in files for line in file.header.totals.named],
            unscored_domains=_unscored_domains(files),
            unread=unread_of(files),
        )

    def lines(self) -> list[str]:
        """Return the summary, a string for each line."""
        totals = self.totals
        lines = [
            f"scored {totals.docs:,} of {totals.rows:,} documents in {self.shards:,} shards with {self.scorer}",
            f"tokens {totals.tokens:,}, {self.tokens}",
            *self.notes,
        ]
        return lines + self.lost()

    def lost(self) -> list[str]:
        """Return lines of the summary on documents without a score, and why they have none."""
        lost = without_score(self.totals, self.unscored, self.skipped, self.empty_shards, domains=self.unscored_domains)
        return lost + left_out(self.unread)


def _unscored_domains(files: Sequence[ScoreFile]) -> dict[str, int]:
    """Count the documents without a score by domain, from the files that have some."""
    counts: Counter[str] = Counter()
    for file in files:
        if _unscored(file.header.totals):
            for rows in file.rows(("status", "domain")):
                there = np.bincount(rows.domain[np.isin(rows.status, _UNSCORED)], minlength=len(rows.domains))
                counts.update({name: int(count) for name, count in zip(rows.domains, there, strict=True) if count})
    return dict(sorted(counts.items()))


def _unscored(totals: Totals) -> int:
    """Return the number of documents without a score, bad lines aside."""
    return sum(totals.status.get(Status(status).name.lower(), 0) for status in _UNSCORED)


@dataclass
class SelectReport:
    """Report of `dvsel select`.

    budget, asked: the budget as given, and resolved in its unit. strata: each with its threshold, the score of the best
    row left out, or its key where keys do not determine scores (threshold_is names which); None where all was taken.
    effective_sample_size: of the weights exp(key without noise), a number of documents. overlap: share of the kept
    documents that topk under the same budget keeps. Both are for rules that use noise. reading: the options of reading
    that the documents were scored with.
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
    reading: dict[str, Any] = field(default_factory=dict)
    unread: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def load(cls, url: str) -> SelectReport:
        """Read the report that a run left. Raises UserError where it is damaged."""
        try:
            with open_read(url) as file:
                values = json.loads(file.read())
            domains = {name: Share(**share) for name, share in values["domains"].items()}
            listed = {name: [tuple(one) for one in values[name]] for name in ("skipped", "unread")}
            return cls(**values | listed | {"totals": Totals(**values["totals"]), "domains": domains})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{url}: not a report of a selection; select again with --overwrite") from error

    def lines(self) -> list[str]:
        """Return the summary, a string for each line."""
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
        lines += self._noise()
        lines += self._nothing_kept()
        lines += self.notes
        if self.duplicates:
            lines.append(f"left out {self.duplicates:,} duplicates")
        lost = without_score(self.totals, self.unscored, self.skipped, [], domains=self._unscored_domains)
        return lines + lost + left_out(self.unread)

    @property
    def _unscored_domains(self) -> dict[str, int]:
        return {name: share.unscored_docs for name, share in self.domains.items() if share.unscored_docs}

    def _noise(self) -> list[str]:
        """Return lines on how much noise decided, and what that means."""
        if self.effective_sample_size is None or self.overlap is None:
            return []
        size, kept = self.effective_sample_size, self.given["docs"]
        spread = "the weights count as if spread over so many documents"
        if size < _FEW * kept and not self.took_all:
            spread = f"few of the {kept:,} kept documents outweigh the others by far"
        lines = [f"effective sample size {size:,.1f}: {spread}", f"overlap with topk {self.overlap:.1%}"]
        if self.overlap >= _NEARLY_ALL and not self.took_all:
            lines[1] += (
                ": this is top-k, as scores spread far more than noise; normalise them (dsir: --normalise length), or "
                "give a higher --temperature"
            )
        return lines

    def _nothing_kept(self) -> list[str]:
        if self.given["docs"]:
            return []
        if not self.pool["docs"]:
            return ["warning: nothing is kept: no document has a score"]
        if len(self.strata) > 1:
            return ["warning: nothing is kept"]
        if self.asked:
            return [f"warning: nothing is kept: the first document in line has more {self.unit} than the budget"]
        cause = "no score reaches the bound" if self.asked is None else "the budget comes to 0"
        return [f"warning: nothing is kept: {cause}"]


def _stratum_line(stratum: Mapping[str, Any], unit: str) -> str:
    asked = "unlimited" if stratum["asked"] is None else f"{stratum['asked']:,}"
    short = " (all there is)" if stratum["took_all"] else ""
    if not stratum["docs"] and stratum["asked"] != 0:
        short = " (no document of it has a score)" if stratum["took_all"] else " (its first document is larger)"
    return (
        f"  {stratum['name']}: asked {asked}, given {stratum['given']:,} {unit} in {stratum['docs']:,} documents{short}"
    )


def without_score(
    totals: Totals,
    unscored: str,
    skipped: Sequence[tuple[str, int, str]],
    empty_shards: Sequence[str],
    what: str = "score",
    domains: Mapping[str, int] | None = None,
) -> list[str]:
    """Return lines on documents without a score (or a vector), and why. domains: their number by domain."""
    lines = []
    if (count := _unscored(totals)) > _MANY * totals.rows:
        lines.append(f"warning: {count / totals.rows:.1%} of the documents have no {what}, and cannot be kept")
    for status, cause in (("empty_text", "empty text"), ("unscored", unscored)):
        if count := totals.status.get(status, 0):
            lines.append(f"no {what} for {count:,} documents: {cause}")
    if domains and any(domains):
        lines.append(f"  by domain: {_counts(domains)}")
    if count := totals.status.get("bad_line", 0):
        causes = ", ".join(f"{number:,} {cause}" for cause, number in totals.bad_lines.items())
        lines.append(f"skipped {count:,} lines: {causes}")
        lines += [f"  {url}, line {line}: {cause}" for url, line, cause in skipped[:_NAMED]]
        if len(skipped) > _NAMED:
            lines.append("  ... (more in .dvsel/report.json)")
    lines += [f"{url} is empty" for url in empty_shards]
    return lines


def _counts(domains: Mapping[str, int]) -> str:
    """Return the counts of the largest domains, in words."""
    largest = sorted(domains.items(), key=lambda one: (-one[1], one[0]))
    named = ", ".join(f"{name or '(none)'} {count:,}" for name, count in largest[:_NAMED])
    return named + (f", and {len(largest) - _NAMED:,} more" if len(largest) > _NAMED else "")


def unread_of(files: Sequence[ScoreFile]) -> list[tuple[str, str]]:
    """Return the shards that were left out as a whole: place and cause."""
    return [(file.header.shard.url, file.header.unread) for file in files if file.header.unread]


def left_out(unread: Sequence[tuple[str, str]]) -> list[str]:
    """Return lines of the summary on shards that were left out."""
    if not unread:
        return []
    more = ["  ... (more in the report)"] if len(unread) > _NAMED else []
    return [
        f"left out {len(unread):,} files that cannot be read:",
        *(f"  {cause}" for _, cause in unread[:_NAMED]),
        *more,
    ]


def write_json(report: Any, url: str) -> None:
    """Write a report as JSON."""
    with atomic_writer(url) as file:
        text = json.dumps(kept(dataclasses.asdict(report)), indent=1, ensure_ascii=False)
        file.write(text.encode() + b"\n")
