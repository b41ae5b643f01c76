"""Reads row files, which may be damaged or come from others: each error names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dvsel.documents.columns import Status
from dvsel.documents.vectors import Vectors
from dvsel.errors import UserError
from dvsel.score_files.columns import DIGEST_KEY, HEADER_KEY, column_digest, header_digest, schema_of
from dvsel.score_files.header import Embedding, Header
from dvsel.score_files.rows import COLUMNS, ROWS_AT_ONCE, VECTOR, Rows
from dvsel.storage.places import is_remote, open_read


class ScoreFile:
    """An existing row file. Raises UserError for one that is damaged, or that dvsel did not write."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._open() as file, self._explained():
            self._count = int(file.metadata.num_rows)
            metadata = file.metadata.metadata or {}
            try:
                content = metadata[HEADER_KEY]
                self.header = Header.from_json(content)
            except (KeyError, ValueError) as error:
                raise self._foreign() from error
            if self.header.digests and metadata.get(DIGEST_KEY, b"").decode() != header_digest(content):
                raise self._damaged("its header is not what was written")
            if self._count != self.header.totals.rows or not file.schema_arrow.equals(schema_of(self.header)):
                raise self._damaged("its columns are not what its header says")
        name = self.header.shard.name
        if not _is_inside(name):
            raise UserError(f"{url}: names a shard outside every pool ({name!r}); do not use it")

    def __len__(self) -> int:
        return self._count

    def rows(self, columns: Sequence[str] = COLUMNS) -> Iterator[Rows]:
        """Yield all rows in order, `ROWS_AT_ONCE` at a time, with the scores and the columns named ("vector" too).

        The file is open only meanwhile, because a pool may have more files than a process may open.
        """
        wanted = [*self.header.score_columns, *columns]
        if self.header.embedding and "status" not in columns:
            wanted.append("status")
        with self._open() as file:
            for group in range(file.num_row_groups):
                with self._explained():
                    table = file.read_row_group(group, columns=wanted, use_threads=False)
                    self._check(table, group)
                    rows = self._rows(table)
                for first in range(0, len(rows), ROWS_AT_ONCE):
                    yield rows.part(first, first + ROWS_AT_ONCE)

    def _check(self, table: pa.Table, group: int) -> None:
        """Raise UserError unless the columns of a row group are what was written."""
        for name in table.column_names if self.header.digests else ():
            if column_digest(table.column(name).chunk(0)) != self.header.digests[name][group]:
                raise self._damaged(f"column {name!r} is not what was written")

    def _open(self) -> pq.ParquetFile:
        with self._explained():
            source = open_read(self.url) if is_remote(self.url) else self.url
            return pq.ParquetFile(source, memory_map=False, pre_buffer=is_remote(self.url))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn Arrow's errors about a broken file into a UserError."""
        try:
            yield
        except UserError:
            raise
        except pa.ArrowInvalid as error:
            raise self._foreign() from error
        except OSError as error:
            if error.errno:
                raise UserError(f"{self.url}: cannot be read ({os.strerror(error.errno)}); check the file") from error
            raise self._damaged(" ".join(str(error).split())) from error
        except (pa.ArrowException, KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
            raise self._damaged(" ".join(str(error).split()) or type(error).__name__) from error

    def _foreign(self) -> UserError:
        return UserError(
            f"{self.url}: not a dvsel score file, or one of a newer version; make one with this version's `dvsel score`"
        )

    def _damaged(self, cause: str) -> UserError:
        return UserError(f"{self.url}: damaged ({cause}); copy it again, or score its shard again")

    def _rows(self, table: pa.Table) -> Rows:
        names = [name for name in table.column_names if name not in ("domain", VECTOR)]
        columns = {name: table.column(name).chunk(0).to_numpy() for name in names}
        scores = [columns.pop(name) for name in self.header.score_columns]
        if self.header.embedding:
            scores = [np.where(columns["status"] == Status.SCORED, np.float32(0), np.float32(np.nan))]
            if VECTOR in table.column_names:
                columns["vectors"] = _vectors(table.column(VECTOR).chunk(0), self.header.embedding)
        if "domain" in table.column_names:
            domain = table.column("domain").chunk(0)
            columns |= {"domain": domain.indices.to_numpy(), "domains": domain.dictionary.to_pylist()}
        return Rows(len(table), np.stack(scores, axis=1) if len(scores) > 1 else scores[0][:, None], **columns)


def _is_inside(name: str) -> bool:
    """Return whether a shard's name stays below the folder that it is put in."""
    parts = name.split("/")
    return bool(name) and not any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts)


def _vectors(column: pa.Array, embedding: Embedding) -> npt.NDArray[Any]:
    """Return the column's memory, as numbers."""
    numbers, offset = len(column) * embedding.width, column.offset * embedding.row
    return np.frombuffer(column.buffers()[1], embedding.dtype, numbers, offset).reshape(-1, embedding.width)


class VectorReader:
    """Reads a file of embeddings beside its shard, any number of rows at a time."""

    def __init__(self, url: str) -> None:
        self._file = ScoreFile(url)
        assert self._file.header.embedding is not None
        self._maker = self._file.header.embedding.maker
        self._rows = self._file.rows((VECTOR,))
        self._left = np.empty((0, self._file.header.embedding.width), self._file.header.embedding.dtype)

    def take(self, count: int) -> Vectors | None:
        """Return the next `count` rows; None where fewer are left."""
        parts, missing = [self._left], count - len(self._left)
        while missing > 0 and (rows := next(self._rows, None)) is not None:
            parts.append(rows.vectors)
            missing -= len(rows)
        values = np.concatenate(parts) if len(parts) > 1 else parts[0]
        self._left = values[count:]
        return Vectors(values[:count], self._maker) if len(values) >= count else None
