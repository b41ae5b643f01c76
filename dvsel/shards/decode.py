"""The bytes of a JSONL shard, decompressed as a stream, with nothing lost in silence.

Files of several zstd frames or gzip members are read to the end. A file that ends inside a frame, corrupt
data, a wrong checksum, other bytes after the last frame, and content that is not what the file's name says are
each a UserError. Memory is bounded by what one piece of `_PIECE` compressed bytes can hold: 8 MiB for gzip;
256 MiB for the worst zstd data there can be, tens of KiB for real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import xxhash
import zstandard
from isal import isal_zlib

from dvsel.errors import BadFile, UserError
from dvsel.storage.places import Shard, open_read

_PIECE = 8 << 10
_READ = 256 << 10
_LARGEST_WINDOW = 1 << 31
_SKIPPABLE = [bytes([low, 0x2A, 0x4D, 0x18]) for low in range(0x50, 0x60)]
_MAGIC = {
    "gzip": (b"\x1f\x8b",),
    "zstd": (b"\x28\xb5\x2f\xfd", *_SKIPPABLE),
    "Parquet": (b"PAR1",),
    "Arrow": (b"ARROW1",),
    "bzip2": (b"BZh",),
    "xz": (b"\xfd7zXZ\0",),
    "zip": (b"PK\x03\x04",),
}
_UNPACK = {"gzip": "gunzip", "zstd": "unzstd", "bzip2": "bunzip2", "xz": "unxz", "zip": "unzip"}
_SUFFIX = {"gzip": ".gz", "zstd": ".zst", "Parquet": ".parquet", "Arrow": ".arrow"}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
HEAD = 8
"""How many bytes of a file tell what it is."""


class Decoder(Protocol):
    """Decompresses one frame or member, like the objects of zlib.decompressobj."""

    @property
    def eof(self) -> bool:
        """True where the frame has ended."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Bytes after the frame's end."""
        ...

    def decompress(self, data: Any, /) -> bytes:
        """The bytes that `data` adds."""
        ...


def _zstd_decoder() -> Decoder:
    decoder: Decoder = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj()
    return decoder


def _gzip_decoder() -> Decoder:
    decoder: Decoder = isal_zlib.decompressobj(wbits=31)
    return decoder


_ERRORS = (zstandard.ZstdError, cast(type[Exception], isal_zlib.error))
_DECODERS: dict[str, Callable[[], Decoder]] = {"zstd": _zstd_decoder, "gzip": _gzip_decoder}


class Reader(AbstractContextManager["Reader"]):
    """A shard's decompressed bytes, and the digest of its stored ones.

    begin, end: bytes of a plain file; it is read from `begin` on, without a limit, and its digest is of the
    bytes in this range. on_read: told how many stored bytes of the range were read, after each reading.
    at_line_start: whether `begin` is the start of the file or of a line. stored: bytes of the file read so far.
    """

    def __init__(
        self,
        shard: Shard,
        begin: int = 0,
        end: int | None = None,
        on_read: Callable[[int], None] | None = None,
    ) -> None:
        assert not (begin and shard.compression), "only a plain file is read from its middle"
        self._place = shard.url
        self._left = None if end is None else end - begin
        self.stored = 0
        self._hash = xxhash.xxh3_128()
        self._on_read = on_read
        self._file = open_read(shard.url)
        try:
            head = self._read_head(shard.compression)
            self.at_line_start = begin == 0 or self._byte(begin - 1) == b"\n"
            self._file.seek(begin)
            self._decoded = self._decode(shard.compression) if shard.compression and head else None
        except BaseException:
            self._file.close()
            raise
        self._ready = memoryview(b"")

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def digest(self) -> str:
        """XXH3-128 of the stored bytes read so far, of those before `end`, in hexadecimal."""
        return self._hash.hexdigest()

    def readinto(self, target: memoryview) -> int:
        """Fill `target`; how many bytes, fewer than there is room for only at the end."""
        filled = 0
        while filled < len(target) and (count := self._read_some(target[filled:])):
            filled += count
        return filled

    def _read_some(self, target: memoryview) -> int:
        if self._decoded is None:
            return self._read_file(target)
        if not self._ready:
            self._ready = memoryview(next(self._decoded, b""))
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _byte(self, at: int) -> bytes:
        self._file.seek(at)
        return self._file.read(1)

    def _read_head(self, compression: str) -> bytes:
        head = bytearray(HEAD)
        head = head[: self._read_raw(memoryview(head))]
        check_name(self._place, bytes(head), compression)
        return bytes(head)

    def _read_raw(self, target: memoryview) -> int:
        try:
            return self._file.readinto(target) or 0  # type: ignore[attr-defined]
        except Exception as error:
            raise UserError(f"{self._place}: reading failed ({error}); check the disk or the connection") from error

    def _read_file(self, target: memoryview) -> int:
        count = self._read_raw(target)
        self.stored += count
        hashed = count if self._left is None else min(count, self._left)
        self._hash.update(target[:hashed])
        if self._left is not None:
            self._left -= hashed
        if self._on_read:
            self._on_read(hashed)
        return count

    def _pieces(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(_READ))
        while count := self._read_file(buffer):
            for at in range(0, count, _PIECE):
                yield buffer[at : min(at + _PIECE, count)]

    def _decode(self, compression: str) -> Iterator[bytes]:
        """The decompressed bytes, in parts that are not empty."""
        decoder, begun, first = _DECODERS[compression](), False, True
        for piece in self._pieces():
            left: Any = piece
            while left:
                data = self._decompress(decoder, left, compression, first)
                left, begun = b"", True
                if decoder.eof:
                    left, begun, first = decoder.unused_data, False, False
                    decoder = _DECODERS[compression]()
                if data:
                    yield data
        if begun:
            unit = "zstd frame" if compression == "zstd" else "gzip member"
            raise BadFile(f"{self._place}: truncated: the last {unit} does not end; copy the file again")

    def _decompress(self, decoder: Decoder, data: Any, compression: str, first: bool) -> bytes:
        try:
            return decoder.decompress(data)
        except _ERRORS as error:
            raise BadFile(f"{self._place}: {_cause(compression, str(error), first)}; copy the file again") from error


def _cause(compression: str, message: str, first: bool) -> str:
    lower = message.lower()
    if "checksum" in lower:
        return f"corrupt: the checksum of the {compression} data is wrong"
    if not first and ("unknown frame" in lower or "wrapper" in lower):
        return f"has other bytes after the end of its {compression} data"
    return f"corrupt {compression} data ({message.removeprefix('zstd decompressor error: ')})"


def check_name(place: str, head: bytes, compression: str) -> None:
    """Raise UserError where a file's first `HEAD` bytes are not what its name says.

    compression: "", "gzip" or "zstd", as the name says.
    """
    found = _kind(head)
    if compression and (found == compression or _may_begin(head, compression)):
        return
    if found in _SUFFIX:
        raise BadFile(f"{place}: holds {found} data, not what its name says; end its name in {_SUFFIX[found]}")
    if compression:
        suffix = _SUFFIX[compression]
        raise BadFile(f"{place}: is not {compression} data; if it is plain text, take {suffix} off its name")
    check_text(place, head)


def check_text(place: str, head: bytes) -> None:
    """Raise UserError where the first `HEAD` bytes of what should be lines of UTF-8 show that it is not."""
    if head.startswith(_UTF_16):
        raise BadFile(f"{place}: is UTF-16; convert with: iconv -f UTF-16 -t UTF-8")
    found = _kind(head)
    if found in _UNPACK:
        raise BadFile(f"{place}: holds {found} data instead of lines of JSON; unpack it with {_UNPACK[found]}")
    if found:
        raise BadFile(f"{place}: holds {found} data instead of lines of JSON; give the file itself")


def _kind(head: bytes) -> str:
    return next((kind for kind, magics in _MAGIC.items() if head.startswith(magics)), "")


def _may_begin(head: bytes, compression: str) -> bool:
    """Return whether a very short file could be the beginning of one of this compression."""
    return any(magic.startswith(head) for magic in _MAGIC[compression])
