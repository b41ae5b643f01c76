"""Documents of a shard of any format, as columns of the fields that are wanted.

JSON Lines go through `extract`, Parquet and Arrow through `tables`, which is imported only for them: a filter on a
pipe has to start fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from dvsel.documents.causes import Causes
from dvsel.documents.columns import Column
from dvsel.shards.extract import extract
from dvsel.shards.lines import BLOCK, LineReader, Lines
from dvsel.shards.texts import with_lists_joined
from dvsel.storage.places import Shard, open_read, while_unchanged

if TYPE_CHECKING:
    import pyarrow as pa

    from dvsel.shards.tables import TableReader


@dataclass(frozen=True, slots=True)
class DocumentBlock:
    """Consecutive documents; valid until the next ones are asked for.

    first_row: how many came before. fields: a column of n rows for each wanted path.
    bad: the causes of rows that are not documents. odd: how many rows of JSON only the slow parser could read.
    lines: the rows as they stand in a JSONL shard. table: the whole rows of another one, where asked for.
    """

    first_row: int
    fields: dict[str, Column]
    bad: Causes
    odd: int
    lines: Lines | None
    table: pa.RecordBatch | None


class DocumentReader(AbstractContextManager["DocumentReader"]):
    """Iterate, once, over the documents of a shard, or of a binary stream of JSON lines.

    paths: the fields that are wanted. begin, end: the byte range of a plain JSONL shard (see `LineReader`).
    whole_rows: whether `DocumentBlock.table` is wanted. block: about how many bytes a batch has.
    on_read: told how many stored bytes were read.
    Raises UserError for a shard that cannot be read, or that changed since it was named.
    """

    def __init__(
        self,
        source: Shard | BinaryIO,
        paths: Sequence[str],
        *,
        begin: int = 0,
        end: int | None = None,
        whole_rows: bool = False,
        block: int = BLOCK,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self._paths = list(dict.fromkeys(paths))
        self._texts: tuple[str, ...] = ()
        self._whole_rows = whole_rows
        self._block, self._on_read = block, on_read
        self._table: Shard | None = None
        self._source: LineReader | TableReader | None = None
        if isinstance(source, Shard) and source.format != "jsonl":
            assert begin == 0 and end is None, "only plain JSON Lines have byte ranges"
            self._table = source
        else:
            self._source = LineReader(source, begin=begin, end=end, block=block, on_read=on_read)

    def __exit__(self, *_: object) -> None:
        if self._source is not None:
            self._source.__exit__()

    def whole_where_without(self, path: str) -> None:
        """Give `DocumentBlock.table` unless every row of a table has a value at `path`; to be called before reading."""
        if self._table is not None and not self._whole_rows:
            self._whole_rows = not _has_all(self._table, path)

    def join_lists(self, paths: Sequence[str]) -> None:
        """Give strings for the lists of strings at these of the paths (see `texts`); to be called before reading."""
        self._texts = tuple(paths)

    def digest(self) -> str:
        """Return XXH3-128 in hexadecimal, complete after the last batch.

        It is of the stored bytes (of the range); of a Parquet file, which is not read whole, of its size and its
        footer, which states the place, the size and the extremes of every column chunk.
        """
        assert self._source is not None, "the digest is complete after the last batch"
        return self._source.digest()

    def __iter__(self) -> Iterator[DocumentBlock]:
        if isinstance(self._source, LineReader):
            return map(self._of_lines, self._source)
        assert self._table is not None
        return while_unchanged(self._table, self._of_tables(self._table))

    def _of_lines(self, lines: Lines) -> DocumentBlock:
        found = extract(lines.data, lines.starts, lines.ends, self._paths)
        columns = found.columns | {path: with_lists_joined(found.columns[path]) for path in self._texts}
        return DocumentBlock(lines.first_row, columns, found.bad, found.odd, lines, None)

    def _of_tables(self, shard: Shard) -> Iterator[DocumentBlock]:
        from dvsel.shards.arrow_columns import field, text
        from dvsel.shards.tables import TableReader

        row = 0
        self._source = TableReader(
            shard, self._paths, whole_rows=self._whole_rows, block=self._block, on_read=self._on_read
        )
        for batch in self._source:
            bad: dict[int, str] = {}
            fields = {path: (text if path in self._texts else field)(batch, path, bad) for path in self._paths}
            yield DocumentBlock(row, fields, Causes.of(bad), 0, None, batch if self._whole_rows else None)
            row += len(batch)


def _has_all(shard: Shard, path: str) -> bool:
    """Return whether a Parquet shard's footer says that every row has a value at a path; Arrow files do not say."""
    if shard.format != "parquet":
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_read(shard.url) as file:
            metadata = pq.read_metadata(file)
        columns = [at for at in range(metadata.num_columns) if metadata.schema.column(at).path == path]
        if len(columns) != 1:
            return False
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        counts = [group.column(columns[0]).statistics for group in groups]
    except (pa.ArrowException, OSError):
        return False  # reading says what is wrong
    return all(count is not None and count.has_null_count and not count.null_count for count in counts)
