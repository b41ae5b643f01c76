"""Copy the kept rows of shards into output shards, or to stdout.

Each shard is read once more, and compared with what was scored: of lines and Arrow files the digest of
the bytes, of Parquet files that of the footer, and each row's own number.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from dvsel.documents.columns import Kind
from dvsel.engines import local
from dvsel.errors import UserError
from dvsel.interface.selector import SetSelector
from dvsel.pool.locate import Relocated, changed, reading_of, unchanged_shard
from dvsel.pool.read import PoolReader
from dvsel.runs.requests import Execution
from dvsel.score_files.reader import ScoreFile
from dvsel.selection.dedup import unpacked
from dvsel.selection.plan import Plan, mask_file, weights_file
from dvsel.shards.add_field import as_json, with_column, with_member
from dvsel.shards.digest import digest_of_parts, ranges
from dvsel.shards.extract import extract
from dvsel.shards.json_rows import check_columns, json_lines
from dvsel.shards.lines import LineReader, Lines
from dvsel.shards.writer import ShardWriter, first_piece
from dvsel.storage.places import HOME, Shard, atomic_writer, exists, join, open_read

STDOUT = "-"
_SUBSET = f"{HOME}/subset"


@dataclass(frozen=True, slots=True)
class _Task:
    shard: Shard
    ranges: list[tuple[int, int | None]]
    scores: str
    rows: int
    mask: str
    folder: str
    cap: int
    weights: str = ""
    weight_field: str = ""


def write_subset(plan: Plan, folder: str, cap: int, execution: Execution, pool: Relocated | None) -> None:
    """Copy what a plan keeps into shards below a folder, or to stdout.

    cap: uncompressed bytes of an output shard. pool: where shards lie that are not where they were scored. Finished
    output shards are kept. Raises UserError for a shard that is not what was scored, whose output is dropped then.
    """
    selector = plan.rule.selector
    field = selector.weight_field if isinstance(selector, SetSelector) else ""
    tasks = [
        _Task(
            shard := unchanged_shard(file, pool),
            ranges(shard),
            file.url,
            len(file),
            str(mask_file(plan.masks, number)),
            folder,
            cap,
            str(weights_file(plan.masks, number)) if field else "",
            field,
        )
        for number, file in enumerate(plan.pool.files)
        if plan.kept[number]
    ]
    if folder == STDOUT:
        for task in tasks:
            check_columns(task.shard)  # of all shards, before anything is written
        for task in tasks:
            _print_shard(task)
        return
    _check_same_subset(plan, folder)
    tasks = [task for task in tasks if not exists(first_piece(folder, task.shard))]
    total = sum(task.shard.size for task in tasks)
    for _ in local.run(_write_shard, tasks, execution.processes(total), "writing the subset", total):
        pass


def _check_same_subset(plan: Plan, folder: str) -> None:
    """Raise UserError where scores or the quota changed since the folder was begun: it holds shards of one subset."""
    hashed = xxhash.xxh3_128()
    for number in np.flatnonzero(plan.kept).tolist():
        hashed.update(f"{plan.pool.files[number].header.shard.name}\n".encode())
        hashed.update(mask_file(plan.masks, number).read_bytes())
        if (weights := weights_file(plan.masks, number)).exists():
            hashed.update(weights.read_bytes())
    place = join(folder, _SUBSET)
    if not exists(place):
        with atomic_writer(place) as file:
            file.write(hashed.hexdigest().encode())
        return
    with open_read(place) as there:
        if there.read() != hashed.hexdigest().encode():
            raise UserError(
                f"{folder} holds another subset (the scores or the quota changed since); "
                "choose another -o, or pass --overwrite to replace it"
            )


class _Mask:
    """Kept rows of one shard, taken in order."""

    def __init__(self, task: _Task) -> None:
        self._task = task
        self._bits = np.fromfile(task.mask, np.uint8)
        self._weights = np.fromfile(task.weights, np.float32) if task.weights else np.empty(0, np.float32)
        self._at = 0

    def take(self, rows: Lines | pa.RecordBatch) -> tuple[Lines | pa.RecordBatch, npt.NDArray[np.bool_]]:
        """Take the next rows, and return them with flags, bool (n,), of the kept.

        Where there are weights, only the kept rows are returned, each with its weight.
        """
        first, self._at = self._at, self._at + len(rows)
        if self._at > self._task.rows:
            raise changed(self._task.shard)
        kept = unpacked(self._bits, first, self._at)
        if not self._task.weights:
            return rows, kept
        count = int(kept.sum())
        weights, self._weights = self._weights[:count], self._weights[count:]
        return _weighted(rows, kept, self._task, weights), np.ones(count, np.bool_)

    def finish(self) -> None:
        """Check that the shard had all the rows that were scored."""
        if self._at != self._task.rows:
            raise changed(self._task.shard)


def _weighted(
    rows: Lines | pa.RecordBatch, kept: npt.NDArray[np.bool_], task: _Task, weights: npt.NDArray[np.float32]
) -> Lines | pa.RecordBatch:
    """Return the kept rows, each with its weight."""
    field = task.weight_field
    if not isinstance(rows, Lines):
        return with_column(rows.filter(pa.array(kept)), field, weights, task.shard.url)
    present = extract(rows.data, rows.starts, rows.ends, [field]).columns[field].kind != Kind.MISSING
    numbered = zip(np.flatnonzero(kept).tolist(), weights, strict=True)
    return Lines.of([with_member(rows[row], field, as_json(weight), bool(present[row])) for row, weight in numbered])


def _write_shard(task: _Task) -> None:
    """Copy the kept rows of one shard into its output shards."""
    mask = _Mask(task)
    with ShardWriter(task.folder, task.shard, task.cap) as writer:
        for rows in _rows_of(task):
            local.advance(0, len(rows))
            taken, kept = mask.take(rows)
            if isinstance(taken, Lines):
                writer.write_lines(taken, kept)
            else:
                writer.write_table(taken, kept)
        mask.finish()


def _print_shard(task: _Task) -> None:
    """Copy the kept rows of one shard to stdout, as JSON Lines."""
    mask = _Mask(task)
    for rows in _rows_of(task):
        taken, flags = mask.take(rows)
        if isinstance(taken, Lines):
            lines: Iterable[bytes] = (taken[row] + b"\n" for row in np.flatnonzero(flags).tolist())
        else:
            lines = json_lines(taken.filter(pa.array(flags)), task.shard.url)
        sys.stdout.buffer.write(b"".join(lines))
    mask.finish()


def _rows_of(task: _Task) -> Iterator[Lines | pa.RecordBatch]:
    """Yield the rows of a shard as they stand in it. Raises UserError at its end where it is not what was scored."""
    was = ScoreFile(task.scores)
    digests = []
    if task.shard.format == "jsonl":
        for begin, end in task.ranges:
            with LineReader(task.shard, begin=begin, end=end, on_read=local.advance) as reader:
                yield from reader
                digests.append(reader.digest())
    else:
        # The digest of a Parquet file is that of its footer, so each row's own number is compared too.
        reading = dataclasses.replace(reading_of(was), on_bad_line="skip")
        tokens_field = was.header.tokens.field
        numbers = _Keys(was)
        with PoolReader(task.shard, reading, tokens_field=tokens_field, whole_rows=True, on_read=local.advance) as pool:
            for batch in pool:
                if not numbers.follow(batch.key):
                    raise changed(task.shard)
                assert batch.documents.table is not None
                yield batch.documents.table
            digests.append(pool.digest())
    if digest_of_parts(digests) != was.header.shard.digest:
        raise changed(task.shard)


class _Keys:
    """Keys of documents as a score file states them.

    The first versions computed keys in another way; those of their files are not compared.
    """

    def __init__(self, file: ScoreFile) -> None:
        self._parts = file.rows(("key",)) if file.header.digests else None
        self._left = np.empty(0, np.uint64)

    def follow(self, key: npt.NDArray[np.uint64]) -> bool:
        """Return whether the next rows have these keys."""
        if self._parts is None:
            return True
        while len(self._left) < len(key) and (rows := next(self._parts, None)) is not None:
            self._left = np.concatenate([self._left, rows.key])
        now, self._left = self._left[: len(key)], self._left[len(key) :]
        return np.array_equal(now, key)
