"""Blocks of whole lines of a JSONL shard, a byte range of one, or a pipe.

A line ends at LF and nowhere else; a CR before it belongs to the line. A last line without LF counts. A UTF-8
byte order mark at the very start is not part of the first line. A byte range owns the lines that start in it,
so ranges that cover a file yield each line once.
"""

from __future__ import annotations

import io
import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import xxhash

from dvsel.documents.columns import PAD, Bytes, Column, Offsets
from dvsel.errors import BadFile
from dvsel.shards.decode import HEAD, Reader, check_text
from dvsel.shards.extract import find_lines
from dvsel.storage.places import Shard, changed_meanwhile, while_unchanged

BLOCK = 8 << 20
_BOM = b"\xef\xbb\xbf"
_LF = 10
_SPARE = PAD + 1  # the last line may lack its LF
_BEYOND = 64 << 10
_LONGEST_LINE = 1 << 30
_UNKNOWN = 0  # the size of a shard in a store that does not tell


@dataclass(frozen=True, slots=True)
class Lines:
    """Consecutive lines; valid until the next ones are asked for, since their buffer is used again.

    data: uint8, PAD bytes or more beyond the last line. starts, ends: int64 (n,); line i is
    data[starts[i]:ends[i]], without its LF. first_row: how many lines came before.
    """

    data: Bytes
    starts: Offsets
    ends: Offsets
    first_row: int

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> bytes:
        return self.data[self.starts[row] : self.ends[row]].tobytes()

    @classmethod
    def of(cls, lines: Sequence[bytes]) -> Lines:
        """Make lines of byte strings."""
        column = Column.of(lines)
        return cls(column.data, column.offsets[:-1], column.offsets[1:], 0)


class _Source(Protocol):
    """A source of bytes: a `decode.Reader` or a `_Stream`."""

    at_line_start: bool
    stored: int

    def readinto(self, target: memoryview, /) -> int: ...
    def digest(self) -> str: ...
    def close(self) -> None: ...


class LineReader(AbstractContextManager["LineReader"]):
    """Iterate, once, over the lines of a shard, or of a binary stream such as stdin, `LINES_AT_ONCE` at most.

    begin, end: the byte range, of a plain file only. block: bytes read at once; a longer line is still whole.
    on_read: told how many stored bytes of the range were read, after each reading.
    A stream's lines come out as soon as they are there, in whole blocks or not.
    Raises UserError for content that cannot be lines of UTF-8 text, for a shard that changed since it was named, and
    what `decode.Reader` raises.
    """

    def __init__(
        self,
        source: Shard | BinaryIO,
        *,
        begin: int = 0,
        end: int | None = None,
        block: int = BLOCK,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        self._begin = begin
        self._length = None if end is None else end - begin
        self._block = block
        self._shard = source if isinstance(source, Shard) else None
        self._place, self._source = _open(source, begin, end, on_read)

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def digest(self) -> str:
        """Return XXH3-128 of the stored bytes (of the range), in hexadecimal; complete after the last block."""
        return self._source.digest()

    def __iter__(self) -> Iterator[Lines]:
        if self._shard is None:
            return self._lines()
        return while_unchanged(self._shard, self._lines())

    def _lines(self) -> Iterator[Lines]:
        row = 0
        for data, offset, size in self._whole_lines():
            at = 0 if offset else self._first_line(data)
            while at < size:
                is_first = self._begin + offset + at == 0
                starts, ends, at = find_lines(data, at, size)
                # A line belongs to the range that its first byte lies in; the one before may end in this range.
                if self._length is not None:
                    owned = int(np.searchsorted(starts, self._length - offset))
                    starts, ends = starts[:owned], ends[:owned]
                if is_first:
                    starts[:1] += _size_of_mark(data)
                if len(starts):
                    yield Lines(data, starts, ends, row)
                row += len(starts)
            if self._length is not None and offset + size >= self._length:
                return
        if self._shard and self._shard.size not in (self._begin + self._source.stored, _UNKNOWN):
            raise changed_meanwhile(self._shard)

    def _first_line(self, data: Bytes) -> int:
        """Return where in the first block the first line begins."""
        if self._begin == 0:
            check_text(self._place, data[:HEAD].tobytes())
        return 0 if self._source.at_line_start else int(np.argmax(data == _LF)) + 1

    def _whole_lines(self) -> Iterator[tuple[Bytes, int, int]]:
        """Yield blocks of lines, each line with an LF: a buffer, the place in the source of its first byte, and how
        many of its bytes are whole lines."""
        buffer = bytearray(self._block + _SPARE)
        offset = filled = 0
        while True:
            if filled == len(buffer) - _SPARE:
                buffer = self._grown(buffer)
            count = self._source.readinto(self._room(buffer, offset, filled))
            whole = buffer.rfind(b"\n", filled, filled + count) + 1
            filled += count
            if filled and not count and not self._is_only_a_mark(buffer, offset, filled):
                # The last line of a file may lack its LF; kernels look for one.
                buffer[filled] = _LF
                whole = filled = filled + 1
            if whole:
                yield np.frombuffer(buffer, np.uint8), offset, whole
                buffer, offset, filled = self._moved(buffer, whole, filled), offset + whole, filled - whole
            if not count:
                return

    def _is_only_a_mark(self, buffer: bytearray, offset: int, filled: int) -> bool:
        return self._begin + offset == 0 and filled == len(_BOM) and buffer.startswith(_BOM)

    def _room(self, buffer: bytearray, offset: int, filled: int) -> memoryview:
        """Return the free part of the buffer; after a range's end only what finishing its last line may need."""
        room = len(buffer) - _SPARE - filled
        if self._length is not None:
            room = min(room, max(self._length - offset - filled, _BEYOND))
        return memoryview(buffer)[filled : filled + room]

    def _grown(self, buffer: bytearray) -> bytearray:
        size = 2 * (len(buffer) - _SPARE)
        if size > _LONGEST_LINE:
            raise BadFile(f"{self._place}: a line is longer than {_LONGEST_LINE >> 30} GiB; is it JSON Lines?")
        return buffer + bytes(size + _SPARE - len(buffer))

    def _moved(self, buffer: bytearray, begin: int, end: int) -> bytearray:
        """A buffer that starts with buffer[begin:end]; of the usual size again, if that is enough."""
        rest = buffer[begin:end]
        if len(rest) < self._block < len(buffer) - _SPARE:
            buffer = bytearray(self._block + _SPARE)
        buffer[: len(rest)] = rest
        return buffer


def _size_of_mark(data: Bytes) -> int:
    return len(_BOM) if data[: len(_BOM)].tobytes() == _BOM else 0


def _open(
    source: Shard | BinaryIO, begin: int, end: int | None, on_read: Callable[[int], None] | None
) -> tuple[str, _Source]:
    if isinstance(source, Shard):
        return source.url, Reader(source, begin, end, on_read)
    assert begin == 0 and end is None, "a stream has no byte ranges"
    return "stdin", _Stream(source, on_read)


class _Stream:
    """A binary stream, read as far as it is ready. Nothing of it must have been read before."""

    at_line_start = True
    stored = 0

    def __init__(self, stream: BinaryIO, on_read: Callable[[int], None] | None) -> None:
        self._raw: Any = getattr(stream, "raw", stream)
        self._on_read = on_read
        self._hash = xxhash.xxh3_128()
        self._ended = False

    def readinto(self, target: memoryview, /) -> int:
        """Wait for the first bytes, then take what is there; 0 only at the end."""
        filled = 0
        while filled < len(target) and not self._ended and (not filled or self._is_ready()):
            count = self._raw.readinto(target[filled:]) or 0
            self._ended = not count
            filled += count
        self._hash.update(target[:filled])
        if self._on_read:
            self._on_read(filled)
        return filled

    def _is_ready(self) -> bool:
        try:
            return bool(select.select([self._raw], [], [], 0)[0])
        except io.UnsupportedOperation:
            return True

    def digest(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        """Leave the stream to its owner."""
