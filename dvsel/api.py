"""The commands as functions: what `import dvsel` gives, and docs/python.md shows.

Scorers and selectors are named as on the command line, or are classes or instances. Options are keywords, with the
names and the checks that they have there: `--min-words 50` is `min_words=50`. Files may be strings or paths, and where
several are read, lists of these. A function gives what its command reports.

What the user can fix is a UserError, whose line calls options as the command line does; a keyword that is not an option
is a TypeError; what is odd but not an error is a Notice, a warning. Nothing is printed but the progress that is asked
for, and neither the environment nor the configuration file of the command line has a say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from dvsel.documents.columns import Batch, Column
from dvsel.errors import Notice, UserError, needing_packages, shown
from dvsel.interface import checked
from dvsel.interface.registry import SCORERS, name_of, scorer_class, selector_class
from dvsel.interface.scorer import Fitted, Scorer
from dvsel.interface.selector import Selector
from dvsel.kernels import cache
from dvsel.options import base_type, fields_of, from_mapping, nearest, refuse_unread
from dvsel.pool.counting import NO_SCORES
from dvsel.progress import Progress, showing, silent
from dvsel.runs import fitted_files as storage
from dvsel.runs import scopes
from dvsel.runs.output_folder import RECIPE
from dvsel.runs.report import ScoreReport, SelectReport, left_out, unread_of
from dvsel.runs.requests import Execution, FitRun, ScoreRun, SelectRun
from dvsel.score_files.find import row_files
from dvsel.score_files.reader import ScoreFile
from dvsel.selection.scored_pool import Pool
from dvsel.storage.places import exists, filesystem, is_remote, join, local_path

if TYPE_CHECKING:
    import pyarrow.dataset

    from dvsel.commands.embed import EmbedReport

Place = str | os.PathLike[str]
Places = Place | Sequence[Place] | Iterator[Place]
Method = TypeVar("Method", Scorer, Selector)
Run = TypeVar("Run")

_AT_ONCE = 1 << 20  # bytes of texts that a scorer sees as one batch
_BOUNDS = {"min_score", "quantile"}  # options that ask for the rule `threshold`, as on the command line
_SHARD = "shard"


# --- Fitted scorers. ---


@dataclass(frozen=True)
class FittedScorer:
    """A fitted scorer and its file, for which it stands wherever a file is named.

    path: of the file. fingerprint: 32 hex digits of all that its scores come from, as score files note them.
    """

    path: str
    fingerprint: str
    _fitted: Fitted = field(repr=False, compare=False)

    def __fspath__(self) -> str:
        return self.path

    @property
    def scorer(self) -> Scorer:
        """The scorer with the options that it was fitted with."""
        return self._fitted.scorer

    @property
    def selector(self) -> str:
        """The name of the selection rule for its scores."""
        return self._fitted.selector

    @property
    def report(self) -> Mapping[str, Any]:
        """The findings of the fit, as plain values."""
        return self._fitted.report

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the score's columns, one for most scorers."""
        return self._fitted.groups

    def score_texts(self, texts: Iterable[str]) -> npt.NDArray[np.float32]:
        """Score texts as documents with these are scored: higher = keep, NaN where there is no usable score.

        Returns float32 (n,), or (n, groups) where the scorer gives several scores. Raises UserError for a scorer that
        reads more than the text, and for what is not text.
        """
        if needs := self.scorer.needs:
            raise UserError(f"{self.path}: scores by {', '.join(needs)} beside the text; score shards with dvsel.score")
        if isinstance(texts, str):
            raise UserError(f"texts is {shown(texts)}; it takes a list of strings")
        scores = np.concatenate([self._scores(part) for part in _parts(map(_encoded, texts))])
        return scores[:, 0] if len(self.groups) == 1 else scores

    def _scores(self, texts: Sequence[bytes]) -> npt.NDArray[np.float32]:
        column = Column.of(texts)
        with needing_packages():
            scores = checked.scores(self._fitted, Batch(column))
        usable = np.isfinite(scores) & (column.sizes > 0)[:, None]
        return np.where(usable, scores, np.float32(np.nan))


def _encoded(text: str) -> bytes:
    if not isinstance(text, str):
        raise UserError(f"{shown(text)} is not text; give a list of strings")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{shown(text)}: has half of a surrogate pair; take it out") from error


def _parts(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The texts in batches, one at least."""
    part: list[bytes] = []
    size = 0
    for text in texts:
        if part and size + len(text) > _AT_ONCE:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    yield part


def load_fitted(path: Place) -> FittedScorer:
    """Read a fitted scorer, of `fit`, of `dvsel fit`, or of a run that fitted for itself (`scores/dsir.fitted`)."""
    place = os.fspath(path)
    fitted, fingerprint = storage.load(place)
    return FittedScorer(place, fingerprint, fitted)


# --- Commands. ---


def fit(
    scorer: str | type[Scorer] | Scorer,
    pool: Places = (),
    *,
    output: Place,
    target: Places = (),
    workers: int = 0,
    progress: bool | Progress = False,
    **options: Any,
) -> FittedScorer:
    """Fit a scorer once and write it to the file `output`, to score with it many times.

    scorer: its name, class, or an instance, which has its options. pool: shards to sample, where the fit needs some.
    target: documents like those that the model should become good at. workers: processes, 0 for one a core. progress:
    show it on stderr, or a function of stage, what is done (`dvsel.progress.Done`) and bytes in all, 0 where unknown.
    options: the scorer's, and those of `dvsel fit`, as keywords.
    """
    from dvsel.commands.fit import fit as flow

    cls = _class_of(scorer, scorer_class, Scorer)
    asked = options | _asked(pool=pool, output=output, target=target)
    given, own = _parted("fit", asked, FitRun, cls)
    run = _run("fit", FitRun, given, scorer=_build(scorer, cls, own))
    with _executing(run, progress, workers=workers) as execution:
        flow(run, execution)
    return load_fitted(run.output)


def score(
    scorer: str | type[Scorer] | Scorer | FittedScorer,
    pool: Places,
    *,
    output: Place,
    target: Places = (),
    workers: int = 0,
    overwrite: bool = False,
    progress: bool | Progress = False,
    **options: Any,
) -> ScoreReport:
    """Score every document of a pool, into one score file a shard in the folder `output`; a stopped run goes on.

    scorer: its name, class, or an instance, which has its options; or a fitted one. pool: shards, folders, globs, URLs.
    target, workers, progress: as for `fit`. overwrite: replace what another run left in the folder. options: the
    scorer's, and those of `dvsel score`, as keywords; `fitted=FILE` names one that is fitted.
    """
    from dvsel.commands.score import score as flow

    cls = _scorer_class(scorer)
    asked = options | _file_of(scorer, options) | _asked(pool=pool, output=output, target=target)
    given, own = _parted("score", asked, ScoreRun, cls)
    run = _run("score", ScoreRun, given, scorer=_unfitted(scorer, cls, own, given))
    with _executing(run, progress, workers=workers, overwrite=overwrite) as execution:
        report = flow(run, execution)
    assert isinstance(report, ScoreReport)
    return report


def select(
    pool: Places,
    *,
    output: Place,
    budget: str | None = None,
    method: str | type[Selector] | Selector | None = None,
    scorer: str | type[Scorer] | Scorer | FittedScorer | None = None,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool | Progress = False,
    **options: Any,
) -> SelectReport:
    """Keep the documents that a budget allows, and write them out as shards into the folder `output`.

    pool: folders of scores, or what is to be scored first with `scorer`. budget: "30B" (tokens), "10%", "500k docs",
    "20GB" (of text). method: the selector's name, class, or an instance, which has its options; None for the rule of
    the scorer's paper. scorer, workers, overwrite, progress: as for `score`. options: the selector's, the scorer's, and
    those of `dvsel select`, as keywords.
    """
    from dvsel.commands.select import select as flow

    asked = options | _file_of(scorer, options) | _asked(pool=_plural(pool), output=output, budget=budget)
    cls = None if scorer is None else _scorer_class(scorer)
    method = method or _rule_of(asked, scorer)
    rule = _class_of(method, selector_class, Selector) if method else None
    given, *parts = _parted("select", asked, SelectRun, *filter(None, (rule, cls)))
    selector = _build(method, rule, parts.pop(0)) if method and rule else None
    unfitted = _unfitted(scorer, cls, parts.pop(0), given) if scorer and cls else None
    run = _run("select", SelectRun, given, scorer=unfitted, selector=selector)
    with _executing(run, progress, workers=workers, overwrite=overwrite) as execution:
        report = flow(run, execution, given.keys())
    assert isinstance(report, SelectReport)
    return report


def embed(
    pool: Places,
    *,
    output: Place,
    model: Place,
    workers: int = 0,
    overwrite: bool = False,
    progress: bool | Progress = False,
    **options: Any,
) -> EmbedReport:
    """Make every document of a pool a vector, one file a shard, in the folder `output`, which then stands for the pool.

    model: a folder or a name on the hub. pool, workers, overwrite, progress: as for `score`. options: those of
    `dvsel embed`, as keywords.
    """
    from dvsel.commands.embed import EmbedReport, EmbedRun
    from dvsel.commands.embed import embed as flow

    (given,) = _parted("embed", options | _asked(pool=pool, output=output, model=model), EmbedRun)
    run = _run("embed", EmbedRun, given)
    with _executing(run, progress, workers=workers, overwrite=overwrite) as execution:
        report = flow(run, execution)
    assert isinstance(report, EmbedReport)
    return report


# --- Scores. ---


def read_scores(source: Places) -> pyarrow.dataset.Dataset:
    """Score files as one Arrow dataset, of which nothing is read before it is asked for.

    source: folders of scores or of a selection, globs, score files. The columns are `shard`, the name of the shard, and
    those of docs/concepts.md ("Score files"), the domain as a string; the rows of a shard are in its order. What is
    damaged ends a scan. Raises UserError for files that do not go together, and for a folder that is not complete.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    files = Pool.of([ScoreFile(url) for one in _plural(source) for url in row_files(one)]).files
    if files[0].header.embedding:
        raise UserError(f"{files[0].url}: holds vectors and no scores; score the pool first")
    if files[0].header.scorer == NO_SCORES:
        warnings.warn(Notice(f"{files[0].url}: was counted for a rule that needs no scores; all are 0"), stacklevel=2)
    if lines := left_out(unread_of(files)):
        warnings.warn(Notice(" ".join(lines)), stacklevel=2)
    scanning = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = ds.ParquetFileFormat(default_fragment_scan_options=scanning)
    fragments = [
        form.make_fragment(*_opened_by_arrow(file.url), pc.field(_SHARD) == file.header.shard.name) for file in files
    ]
    columns = fragments[0].physical_schema.remove_metadata()
    domain = pa.field("domain", pa.string())  # tables of several dictionaries are more than most programs can group by
    schema = columns.set(columns.get_field_index("domain"), domain).insert(0, pa.field(_SHARD, pa.string()))
    return ds.FileSystemDataset(fragments, schema, form, fragments[0].filesystem)


def _opened_by_arrow(url: str) -> tuple[str, Any]:
    """A place as Arrow takes it: the path, and the file system that it is in."""
    from pyarrow import fs

    if not is_remote(url):
        return str(local_path(url)), fs.LocalFileSystem()
    store, path = filesystem(url)
    return path, fs.PyFileSystem(fs.FSSpecHandler(store))


# --- Scorers and selectors. ---


def _class_of(
    part: str | type[Method] | Method, find: Callable[[str], type[Method]], base: type[Method]
) -> type[Method]:
    """The class of a scorer or a selector that is given by name, as a class, or made."""
    cls: Any = find(part) if isinstance(part, str) else part if isinstance(part, type) else type(part)
    if not issubclass(cls, base):
        raise TypeError(f"{shown(part)} is no {base.__name__.lower()}; give a name, a class or an instance")
    return cls  # type: ignore[no-any-return]


def _scorer_class(scorer: str | type[Scorer] | Scorer | FittedScorer) -> type[Scorer]:
    return _class_of(scorer.scorer if isinstance(scorer, FittedScorer) else scorer, scorer_class, Scorer)


def _file_of(scorer: Any, options: Mapping[str, Any]) -> dict[str, str]:
    """The option that a fitted scorer stands for."""
    if not isinstance(scorer, FittedScorer):
        return {}
    if "fitted" in options:
        raise TypeError(f"fitted: the scorer is that of {scorer.path} already; name one of the two")
    return {"fitted": scorer.path}


def _build(part: str | type[Method] | Method, cls: type[Method], options: Mapping[str, Any]) -> Method:
    """The scorer or selector with these options."""
    if isinstance(part, cls):
        if options:
            raise TypeError(f"{next(iter(options))}: {cls.__name__} is made already; give the option there")
        refuse_unread(part)
        return part
    made = from_mapping(cls, options, cls.__name__)
    refuse_unread(made, options)
    return made


def _unfitted(
    scorer: str | type[Scorer] | Scorer | FittedScorer,
    cls: type[Scorer],
    options: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Scorer | None:
    """The scorer to fit; None where the run names a file of one that is, which is then looked at."""
    if not given.get("fitted"):
        assert not isinstance(scorer, FittedScorer)
        return _build(scorer, cls, options)
    if options or isinstance(scorer, Scorer):
        what = next(iter(options), cls.__name__)
        raise UserError(f"{what}: is for a fit, and {given['fitted']} is one that is done; drop one of the two")
    storage.load_of(name_of(SCORERS, cls), given["fitted"])
    return None


def _rule_of(asked: Mapping[str, Any], scorer: Any) -> str | None:
    """The rule where none is named: that of a bound, else of the scorer, else of the first folder of scores."""
    if not _BOUNDS.isdisjoint(asked):
        return "threshold"
    if scorer is not None:
        return scorer.selector if isinstance(scorer, FittedScorer) else _scorer_class(scorer).selector
    places = asked.get("pool", ())
    for place in places if isinstance(places, tuple) else ():
        with contextlib.suppress(UserError):  # told when the run reads it
            if exists(join(place, RECIPE)):
                return ScoreFile(row_files(place)[0]).header.selector or None
    return None


# --- Options. ---


def _asked(**named: Any) -> dict[str, Any]:
    """The arguments that have a value."""
    return {name: value for name, value in named.items() if value is not None and not _is_nothing(value)}


def _is_nothing(value: Any) -> bool:
    return isinstance(value, tuple) and not value


def _parted(function: str, options: Mapping[str, Any], *classes: type) -> list[dict[str, Any]]:
    """The options of each class, as plain values. Raises TypeError for one that none of them has, or two."""
    fields = [{name: one for name, one in fields_of(cls).items() if "help" in one[0].metadata} for cls in classes]
    parts: list[dict[str, Any]] = [{} for _ in classes]
    for name, value in options.items():
        owners = [number for number, known in enumerate(fields) if name in known]
        if not owners:
            known = [name for one in fields for name in one]
            raise TypeError(f"dvsel.{function}() takes no keyword {name!r}; {nearest(name, known)}")
        if len(owners) > 1:
            names = " and ".join(classes[number].__name__ for number in owners)
            raise TypeError(f"{name!r} is an option of {names}; make the latter with it, and pass that")
        parts[owners[0]][name] = _plain(value, fields[owners[0]][name][1])
    return parts


def _plain(value: Any, hint: Any) -> Any:
    """A value as options have it: paths as strings, one where several may be as a list of one."""
    if typing.get_origin(base_type(hint)) is tuple:
        return _plural(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _plural(value: Any) -> Any:
    one = isinstance(value, str | os.PathLike)
    if not (one or isinstance(value, list | tuple | Iterator)):
        return value
    return tuple(_plain(part, str) for part in ((value,) if one else value))


def _run(function: str, cls: type[Run], given: Mapping[str, Any], **parts: Any) -> Run:
    """The run with these options, which it reads."""
    run: Any = dataclasses.replace(from_mapping(cls, given, f"dvsel.{function}"), **parts)  # type: ignore[type-var]
    if run.output in ("", scopes.STDOUT):
        raise UserError(f"output {run.output!r}: is not a place for files; name a file or a folder")
    if not (run.pool or cls is FitRun):
        raise UserError(f"nothing to {function}; name shards or folders")
    if scopes.STREAM in run.pool:
        raise UserError(f"pool {scopes.STREAM!r}: means stdin on the command line; name shards or folders")
    refuse_unread(run, given)
    return run  # type: ignore[no-any-return]


@contextlib.contextmanager
def _executing(run: Any, progress: bool | Progress, **options: Any) -> Iterator[Execution]:
    """Give the run's execution, and show progress until the block ends."""
    cache.check()
    execution = from_mapping(Execution, options, "dvsel")
    refuse_unread(execution, run=run)
    with needing_packages(), _shown(progress) as show, showing(show):
        yield execution


def _shown(progress: bool | Progress) -> contextlib.AbstractContextManager[Progress]:
    if callable(progress):
        return contextlib.nullcontext(progress)
    if not isinstance(progress, bool):
        raise TypeError(f"progress is {shown(progress)}; give True, False or a function")
    if not progress:
        return contextlib.nullcontext(silent)
    from dvsel import stages

    return stages.bars() if sys.stderr.isatty() else stages.lines()
