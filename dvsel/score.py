"""Score a pool: shards in, one score file beside each out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from dvsel import __version__
from dvsel import fitted as storage
from dvsel.engines import local
from dvsel.errors import UserError
from dvsel.fit import check_fit, fit_scorer
from dvsel.folder import REPORT, STEPS, working_in
from dvsel.forecast import Forecast, forecast
from dvsel.language import models
from dvsel.options import to_mapping
from dvsel.plugins import SCORERS, name_of
from dvsel.pool import PoolBatch, paths_to_read, read_pool
from dvsel.progress import Progress
from dvsel.recipe import dump
from dvsel.report import ScoreReport, write_json
from dvsel.runs import Execution, Reading, Sampling, ScoreRun
from dvsel.sample import draw_sample
from dvsel.scorers import Fitted
from dvsel.shards.columns import Column, Status
from dvsel.shards.documents import DocumentReader
from dvsel.shards.files import Shard, exists, expand, join, remove
from dvsel.shards.hashing import hash_rows
from dvsel.shards.lines import BLOCK, LineReader
from dvsel.shards.scorefile import SUFFIX, Header, Rows, ScoreFile, ScoreFileWriter
from dvsel.shards.tokens import BUILT_IN, TokenCounter, fit_estimate

RANGE = 256 << 20  # bytes of a plain file that one task reads
_SLOW_BLOCK = 1 << 20  # bytes in a batch of a scorer that takes long for it, so that progress shows
_PARTS = ".parts"
_TOKEN_SAMPLE = 32 << 20  # bytes of text, of which the first documents are counted


@dataclass(frozen=True, slots=True)
class _Task:
    """Score bytes begin to end of a shard (None: to its end) into a score file."""

    shard: Shard
    begin: int
    end: int | None
    url: str
    fitted: str
    header: Header

    @property
    def size(self) -> int:
        """Stored bytes to read."""
        return (self.shard.size if self.end is None else self.end) - self.begin

    @property
    def is_done(self) -> bool:
        """Whether an earlier start left this score file, of the same shard and fit."""
        if not exists(self.url):
            return False
        there = ScoreFile(self.url).header
        same_shard = all(there.shard[name] == value for name, value in self.header.shard.items())
        return same_shard and there.fingerprint == self.header.fingerprint


def score(run: ScoreRun, execution: Execution) -> ScoreReport | Forecast:
    """Score the pool into `run.output`, where finished shards of the same run are kept."""
    if not run.fitted:
        check_fit(run)
    elif run.distil:
        raise UserError(
            "--distil fits a scorer, and --fitted names one that is done; drop one of the two, or distil that one with "
            "`dvsel score distilled --teacher FILE`"
        )
    shards = expand(run.pool)
    if execution.dry_run:
        return forecast(shards, run, dump("score", run))
    with working_in(run.output, dump("score", run), execution.overwrite):
        place = _fitted_file(run, shards, execution)
        fitted, fingerprint = storage.load(place)
        header = _header(fitted, fingerprint, run, _token_counter(run, shards, execution))
        workers = execution.workers or fitted.scorer.processes or execution.processes(sum(one.size for one in shards))
        _score_shards(shards, place, header, run.output, workers, execution.progress)
        files = [ScoreFile(_score_file(run.output, shard)) for shard in shards]
        report = ScoreReport.of(files)
        write_json(report, join(run.output, REPORT))
        remove(join(run.output, _PARTS))
    return report


def _fitted_file(run: ScoreRun, shards: list[Shard], execution: Execution) -> str:
    """The fitted scorer to use: the one given, the one that an earlier start left, or a new one."""
    if run.fitted:
        return run.fitted
    place = join(run.output, storage.default_name(name_of(SCORERS, type(run.scorer))))
    if not exists(place):
        storage.save(fit_scorer(run, shards, execution, join(run.output, STEPS)), place)
        models.release()
    return place


def _token_counter(run: ScoreRun, shards: list[Shard], execution: Execution) -> TokenCounter:
    counter = BUILT_IN
    if run.tokenizer and run.token_sample:
        sampling = Sampling(sample=run.sample, seed=run.seed)
        sample = draw_sample(shards, run, sampling, _TOKEN_SAMPLE, workers=execution.processes())
        rows = range(min(run.token_sample, len(sample.text)))
        counter = fit_estimate([sample.text[row].decode(errors="replace") for row in rows], run.tokenizer)
    elif run.tokenizer:
        counter = TokenCounter(tokenizer=run.tokenizer)
    elif run.token_sample:
        raise UserError("--token-sample says how many documents a tokenizer counts; name it with --tokenizer")
    return dataclasses.replace(counter, field=run.tokens_field or "")


def _header(fitted: Fitted, fingerprint: str, run: ScoreRun, counter: TokenCounter) -> Header:
    return Header(
        version=__version__,
        shard={},
        scorer=storage.title_of(fitted),
        fingerprint=fingerprint,
        groups=fitted.groups,
        shares=fitted.shares,
        selector=fitted.selector,
        unscored=fitted.unscored,
        reading={name: getattr(run, name) for name in to_mapping(Reading())},
        tokens=dataclasses.asdict(counter),
    )


def _score_shards(
    shards: list[Shard], fitted: str, header: Header, folder: str, workers: int, progress: Progress
) -> None:
    done = {shard.name for shard in shards if _is_done(folder, shard, header.fingerprint)}
    missing: dict[str, int] = {}
    total, skipped = sum(shard.size for shard in shards), 0

    def tasks() -> Iterator[_Task]:
        nonlocal skipped
        for shard in shards:
            parts = [] if shard.name in done else _tasks_of(shard, fitted, header, folder)
            waiting = [task for task in parts if not task.is_done]
            missing[shard.name] = len(waiting)
            skipped += shard.size - sum(task.size for task in waiting)
            if parts and not waiting:
                _merge(shard, header, folder)
            yield from waiting

    for shard in local.run(_score_task, tasks(), workers, lambda read: progress("scoring", skipped + read, total)):
        missing[shard.name] -= 1
        if not missing[shard.name]:
            _merge(shard, header, folder)


def _tasks_of(shard: Shard, fitted: str, header: Header, folder: str) -> list[_Task]:
    header = _header_for(shard, header)
    return [
        _Task(shard, begin, end, _score_file(folder, shard, part), fitted, header)
        for part, (begin, end) in enumerate(_ranges(shard))
    ]


def _header_for(shard: Shard, header: Header) -> Header:
    return dataclasses.replace(header, shard=dataclasses.asdict(shard))


def _is_done(folder: str, shard: Shard, fingerprint: str) -> bool:
    place = _score_file(folder, shard)
    if not exists(place):
        return False
    scored = ScoreFile(place)
    check_unchanged(shard, scored)
    if scored.header.fingerprint != fingerprint:
        raise UserError(f"{place} is of another fit; score into a new folder, or pass --overwrite to score all again")
    return True


def _ranges(shard: Shard) -> list[tuple[int, int | None]]:
    """Byte ranges of a large plain file, the same whatever the workers; one open range for all others."""
    if shard.format != "jsonl" or shard.compression or "://" in shard.url or shard.size <= RANGE:
        return [(0, None)]
    return [(begin, min(begin + RANGE, shard.size)) for begin in range(0, shard.size, RANGE)]


def _score_file(folder: str, shard: Shard, part: int | None = None) -> str:
    if part is None or len(_ranges(shard)) == 1:
        return join(folder, shard.name + SUFFIX)
    return join(folder, f"{_PARTS}/{shard.name}.{part:05}{SUFFIX}")


def _merge(shard: Shard, header: Header, folder: str) -> None:
    """One score file from those of a shard's byte ranges."""
    parts = len(_ranges(shard))
    if parts == 1:
        return
    files = [ScoreFile(_score_file(folder, shard, part)) for part in range(parts)]
    with ScoreFileWriter(_score_file(folder, shard), _header_for(shard, header)) as writer:
        for file in files:
            writer.absorb(file)
        writer.finish(_digest_of_parts([file.header.shard["digest"] for file in files]))
    for file in files:
        remove(file.url)


def check_unchanged(shard: Shard, scored: ScoreFile) -> None:
    """Raise UserError unless the shard is what its score file speaks of; a new date alone is no change."""
    was = scored.header.shard
    if (shard.size, shard.modified) == (was["size"], was["modified"]):
        return
    if shard.size != was["size"] or digest(shard) != was["digest"]:
        raise changed(shard)


def changed(shard: Shard) -> UserError:
    """The error for a shard that is not what was scored."""
    return UserError(f"{shard.url} changed after it was scored; score it again, into a new folder or with --overwrite")


def digest(shard: Shard) -> str:
    """What a score file says of its shard's content."""
    digests = []
    for begin, end in _ranges(shard):
        reader = LineReader(shard, begin=begin, end=end) if shard.format == "jsonl" else DocumentReader(shard, [])
        with reader:
            for _ in reader:
                pass
            digests.append(reader.digest())
    return _digest_of_parts(digests)


def _digest_of_parts(digests: list[str]) -> str:
    return digests[0] if len(digests) == 1 else xxhash.xxh3_128_hexdigest("".join(digests).encode())


@functools.lru_cache(maxsize=1)
def _load_fitted(place: str, fingerprint: str) -> Fitted:
    fitted, found = storage.load(place)
    if found != fingerprint:
        raise UserError(f"{place} changed while it was in use; start again")
    return fitted


def _score_task(task: _Task) -> Shard:
    """Write one score file; returns the shard."""
    fitted = _load_fitted(task.fitted, task.header.fingerprint)
    reading, counter = Reading(**task.header.reading), TokenCounter.of(task.header.tokens)
    paths = paths_to_read(reading, counter.field, *fitted.scorer.needs)
    block = _SLOW_BLOCK if fitted.scorer.parallel else BLOCK
    with (
        DocumentReader(task.shard, paths, begin=task.begin, end=task.end, block=block, on_read=local.advance) as reader,
        ScoreFileWriter(task.url, task.header) as writer,
    ):
        for batch in read_pool(reader, task.shard, reading, task.begin, counter.field):
            writer.append(_rows(batch, fitted, reading, counter), batch.bad)
        writer.finish(reader.digest())
    return task.shard


def _rows(batch: PoolBatch, fitted: Fitted, reading: Reading, counter: TokenCounter) -> Rows:
    scores, status = batch.score(fitted)
    key, text_hash = batch.keys(reading)
    fields = batch.documents.fields
    tokens = counter.count(batch.text, fields[counter.field] if counter.field else None)
    tokens[status == Status.BAD_LINE] = 0
    domain, domains = _encoded(fields[reading.domain_field])
    return Rows(len(batch), scores, key, text_hash, tokens, batch.text.sizes.astype(np.uint32), status, domain, domains)


def _encoded(domain: Column) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Domains as numbers into a list of names."""
    _, rows, numbers = np.unique(hash_rows(domain), return_index=True, return_inverse=True)
    return numbers.astype(np.int32), [domain[row].decode(errors="replace") for row in rows]
