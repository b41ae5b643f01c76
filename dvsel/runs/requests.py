"""The options of every run, as frozen dataclasses.

A run is what its result depends on; it is what a recipe holds. It is composed of what it shares with others: how
documents are read, sampled and counted, how a scorer is fitted. An execution is how a run is carried out, which changes
nothing in the result. Light to import, so that the command line can show all options at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dvsel.engines import local
from dvsel.errors import UserError, shown
from dvsel.interface.scorer import Scorer
from dvsel.interface.selector import Selector
from dvsel.options import LARGEST, Options, among, every, option, part, under
from dvsel.runs import scopes

_MOST_WORKERS = 1024
_A_PROCESS = 16 << 20  # bytes that are worth the start of a process


@dataclass(frozen=True)
class Execution(Options):
    """Options of how a run is carried out; nothing here changes its result."""

    workers: int = option(
        0,
        "processes; 0: one a core, or one a GPU for scorers that use a model",
        env="DVSEL_WORKERS",
        minimum=0,
        maximum=_MOST_WORKERS,
        scope=scopes.reads_pool,
    )
    overwrite: bool = option(False, "replace what another run left in the output folder", scope=scopes.writes_a_folder)
    dry_run: bool = option(False, "say what would be done, and write nothing", scope=scopes.on_shards)

    @property
    def of_a_step(self) -> Execution:
        """The execution of a step, which replaces nothing, since its run has done so."""
        return dataclasses.replace(self, overwrite=False)

    def processes(self, size: int | None = None) -> int:
        """Worker processes, resolved. Where the user left them open: fewer for little work. size: bytes to read."""
        enough = local.available_workers() if size is None else min(local.available_workers(), size // _A_PROCESS + 1)
        return self.workers or enough


@dataclass(frozen=True, kw_only=True)
class Reading(Options):
    """Options of reading: where a document's parts lie, and what to do with a bad line."""

    text_field: str = option(
        "text",
        "field that holds the text; dots descend into objects (meta.text); a,b: of several, joined by blank lines",
        scope=scopes.reads_texts,
    )
    id_field: str = option(
        "id", "field that names the document; with the text it seeds noise and ties", scope=scopes.identifies
    )
    domain_field: str = option(
        "domain", "field that names the domain, for quotas and reports", scope=scopes.counts_domains
    )
    on_bad_line: str = option(
        "fail",
        "a line that is no usable document: fail, or skip and count",
        choices=("fail", "skip"),
        scope=scopes.reads_documents,
    )
    on_bad_file: str = option(
        "fail",
        "a shard that cannot be read to its end: fail, or skip it as a whole and name it",
        choices=("fail", "skip"),
        scope=scopes.reads_shards,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _names("text_field", self.text_field)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The fields that the text is out of, each once."""
        return _names("text_field", self.text_field)


def _names(option: str, value: str) -> tuple[str, ...]:
    """The fields that commas divide, each once. Raises UserError where one has no name."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(","))) if "," in value else (value,)
    if not all(names):
        raise UserError(f"{option} {shown(value)}: lacks a name; write names with one comma between two")
    return names


@dataclass(frozen=True, kw_only=True)
class Targeting(Options):
    """Options of reading targets, and other documents that the pool's are compared with."""

    target_text_field: str | None = option(
        None,
        "field, or fields, with the text of targets and queries (default: as --text-field)",
        scope=scopes.reads_targets,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_text_field is not None:
            _names("target_text_field", self.target_text_field)

    def reading(self, pool: Reading) -> Reading:
        """Return how targets are read in a run that reads its pool so."""
        return dataclasses.replace(pool, text_field=self.target_text_field or pool.text_field)


@dataclass(frozen=True, kw_only=True)
class Sampling(Options):
    """Options of the sample of the pool that a fit sees."""

    sample: str = option(
        "uniform",
        "how the fit samples the pool: uniform (reads all of it), shards (a few at random), head (of each shard)",
        choices=("uniform", "shards", "head"),
        scope=scopes.samples_documents,
    )
    sample_size: str = option("64MB", "text that the fit sees of the pool, at most", scope=scopes.samples_pool)
    seed: int = option(0, "seed of the sample, of noise and of ties", minimum=0, maximum=LARGEST, scope=scopes.draws)


@dataclass(frozen=True, kw_only=True)
class Counting(Options):
    """Options of counting a document's tokens."""

    tokens_field: str | None = option(None, "field that holds the document's token count", scope=scopes.scores_shards)
    tokenizer: str | None = option(
        None,
        "count tokens with this tokenizer (folder or hub name); exact and slower",
        files=True,
        scope=scopes.scores_shards,
    )
    token_sample: int | None = option(
        None,
        "with --tokenizer: count this many documents, and estimate the others",
        minimum=1,
        scope=every(under("tokenizer"), scopes.scores_shards),
    )


@dataclass(frozen=True, kw_only=True)
class Fitting(Options):
    """Options of fitting: what a scorer learns from beside the pool, and whether a cheap one then learns from it."""

    target: tuple[str, ...] = option(
        (),
        "documents like those that the model should become good at; repeatable",
        files=True,
        scope=scopes.takes_target,
    )
    distil: bool = option(
        False,
        "let the scorer score a sample, and a cheap one that learns from this score the pool",
        scope=scopes.is_distilled,
    )
    distil_documents: int | None = option(
        None, "with --distil: documents of the sample (default: 10000)", scope=scopes.distils
    )
    distil_floor: float | None = option(
        None,
        "with --distil: refuse a rank correlation with the scorer that is lower (default: 0.3)",
        minimum=0,
        maximum=1,
        scope=scopes.distils,
    )


@dataclass(frozen=True, kw_only=True)
class Scoring(Options):
    """Options of scoring: a fitted scorer to use, and which documents it scores."""

    fitted: str | None = option(
        None, "score with this file of `dvsel fit` instead of fitting", files=True, scope=scopes.is_fitted
    )
    adaptive: bool = option(
        False,
        "score a part of a pool of embeddings, and let a bandit over clusters choose which",
        scope=scopes.scores_shards,
    )
    adaptive_share: float | None = option(
        None,
        "with --adaptive: share of the documents to score (default: 0.25)",
        above=0,
        maximum=1,
        scope=under("adaptive"),
    )
    adaptive_clusters: int | None = option(
        None, "with --adaptive: clusters (default: one for 256 documents)", minimum=2, scope=under("adaptive")
    )
    moved: tuple[str, ...] = option(
        (),
        "where the pool's shards lie, if not where they were scored or embedded, or in a store",
        files=True,
        flag="pool",
        scope=scopes.on_shards,
    )


@dataclass(frozen=True, kw_only=True)
class FitRun(Options):
    """Fit a scorer once, to score with it many times."""

    sampling: Sampling = part(Sampling)
    targeting: Targeting = part(Targeting)
    reading: Reading = part(Reading)
    scorer: Scorer | None = None
    pool: tuple[str, ...] = option(
        (), "shards, folders, globs or URLs to sample; more than one is fine", files=True, scope=scopes.is_sampled
    )
    fitting: Fitting = part(Fitting)
    output: str = option("", "file to write")


@dataclass(frozen=True, kw_only=True)
class ScoreRun(Options):
    """Score every document of a pool, into one score file a shard."""

    sampling: Sampling = part(Sampling)
    targeting: Targeting = part(Targeting)
    reading: Reading = part(Reading)
    scorer: Scorer | None = None
    pool: tuple[str, ...] = option((), "shards, folders, globs or URLs", files=True)
    fitting: Fitting = part(Fitting)
    output: str = option("", "folder to write score files to")
    counting: Counting = part(Counting)
    scoring: Scoring = part(Scoring)

    @property
    def fit_run(self) -> FitRun:
        """The fit of its scorer."""
        return among(FitRun, self)


@dataclass(frozen=True, kw_only=True)
class SelectRun(Options):
    """Keep the documents that a budget allows, and write them out as shards."""

    sampling: Sampling = part(Sampling)
    targeting: Targeting = part(Targeting)
    reading: Reading = part(Reading)
    scorer: Scorer | None = None
    pool: tuple[str, ...] = option((), "folders of scores, or shards to score first", files=True)
    fitting: Fitting = part(Fitting)
    output: str = option("", "folder to write shards to; - writes JSON Lines to stdout")
    counting: Counting = part(Counting)
    scoring: Scoring = part(Scoring)
    selector: Selector | None = None
    embeddings: tuple[str, ...] = option(
        (),
        "what `dvsel embed` made of the pool, for methods that look at vectors",
        files=True,
        scope=scopes.looks_at_vectors,
    )
    budget: str | None = option(
        None, "how much to keep: 30B (tokens), 10%, '500k docs', 20GB (of text)", scope=scopes.sees_all
    )
    quota: str | None = option(
        None,
        "shares or budgets of domains: 'news=30%,*=70%', or a YAML file of such lines (news: 30%)",
        files=True,
        scope=scopes.sees_all,
    )
    partial: bool = option(
        False,
        "go on without the score files that an unfinished run has not written",
        scope=scopes.takes_scores,
    )
    dedup: bool = option(False, "keep one document of those with the same text", scope=scopes.sees_all)
    shard_size: str = option(
        "1GB", "uncompressed size at which the next output shard begins", scope=scopes.writes_a_folder
    )

    @property
    def score_run(self) -> ScoreRun:
        """The scoring of its pool, with the same output."""
        return among(ScoreRun, self)


@dataclass(frozen=True)
class StreamOptions(Options):
    """Options of a stream."""

    score_field: str | None = option(
        None,
        "on a stream: the field of the score; by default dvsel_ and the scorer's name",
        scope=scopes.on_a_stream,
    )
