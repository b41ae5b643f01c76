"""Documents of a shard of any format, as columns of the fields that are wanted.

JSON Lines go through `extract`, Parquet and Arrow through `tables`, which is imported only for them: a filter on a
pipe has to start fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from dvsel.shards.causes import Causes
from dvsel.shards.columns import Column
from dvsel.shards.extract import extract
from dvsel.shards.files import Shard
from dvsel.shards.lines import BLOCK, LineReader, Lines

if TYPE_CHECKING:
    import pyarrow as pa

    from dvsel.shards.tables import TableReader


@dataclass(frozen=True, slots=True)
class Documents:
    """Consecutive documents; valid until the next ones are asked for.

    first_row: how many came before. fields: a column of n rows for each wanted path.
    bad: of each row that is no document, why. odd: how many rows of JSON only the slow parser could read.
    lines: the rows as they stand in a JSONL shard. table: the whole rows of another one, where asked for.
    """

    first_row: int
    fields: dict[str, Column]
    bad: Causes
    odd: int
    lines: Lines | None
    table: pa.RecordBatch | None


class DocumentReader(AbstractContextManager["DocumentReader"]):
    """Iterates, once, over the documents of a shard, or of a binary stream of JSON lines.

    paths: the fields that are wanted. begin, end: the byte range of a plain JSONL shard (see `LineReader`).
    whole_rows: whether `Documents.table` is wanted. block: about how many bytes a batch has.
    on_read: told how many stored bytes were read.
    Raises UserError for a shard that cannot be read.
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
        self._whole_rows = whole_rows
        self._source: LineReader | TableReader
        if isinstance(source, Shard) and source.format != "jsonl":
            assert begin == 0 and end is None, "only plain JSON Lines have byte ranges"
            from dvsel.shards.tables import TableReader

            self._source = TableReader(source, self._paths, whole_rows=whole_rows, block=block, on_read=on_read)
        else:
            self._source = LineReader(source, begin=begin, end=end, block=block, on_read=on_read)

    def __exit__(self, *_: object) -> None:
        self._source.__exit__()

    def digest(self) -> str:
        """XXH3-128 in hexadecimal, complete after the last batch.

        Of the stored bytes (of the range); of a Parquet file, which is not read whole, of its size and its
        footer, which states the place, the size and the extremes of every column chunk.
        """
        return self._source.digest()

    def __iter__(self) -> Iterator[Documents]:
        if isinstance(self._source, LineReader):
            yield from map(self._of_lines, self._source)
            return
        row = 0
        for batch in self._source:
            yield self._of_table(batch, row)
            row += len(batch)

    def _of_lines(self, lines: Lines) -> Documents:
        found = extract(lines.data, lines.starts, lines.ends, self._paths)
        return Documents(lines.first_row, found.columns, found.bad, found.odd, lines, None)

    def _of_table(self, batch: pa.RecordBatch, row: int) -> Documents:
        from dvsel.shards.arrow_columns import field

        bad: dict[int, str] = {}
        fields = {path: field(batch, path, bad) for path in self._paths}
        return Documents(row, fields, Causes.of(bad), 0, None, batch if self._whole_rows else None)
