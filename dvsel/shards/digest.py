"""The ranges of a shard that tasks read, and the digest of its content, which is made of theirs.

The ranges depend on the shard alone and never on the number of workers: score files state the digest.
"""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from dvsel.shards.lines import LineReader
from dvsel.shards.reader import DocumentReader
from dvsel.storage.places import Shard

RANGE = 256 << 20  # bytes of a plain file that one task reads


def ranges(shard: Shard) -> list[tuple[int, int | None]]:
    """Return the byte ranges of a large plain file; one open range for all others.

    Nobody knows which row of its vectors a range begins with, so a shard that comes with vectors is one range.
    """
    is_whole = shard.format != "jsonl" or shard.compression or "://" in shard.url or shard.vectors
    if is_whole or shard.size <= RANGE:
        return [(0, None)]
    return [(begin, min(begin + RANGE, shard.size)) for begin in range(0, shard.size, RANGE)]


def shard_digest(shard: Shard) -> str:
    """Read a shard and return the digest of its content, as its score file states it."""
    digests = []
    for begin, end in ranges(shard):
        reader = LineReader(shard, begin=begin, end=end) if shard.format == "jsonl" else DocumentReader(shard, [])
        with reader:
            for _ in reader:
                pass
            digests.append(reader.digest())
    return digest_of_parts(digests)


def digest_of_parts(digests: Sequence[str]) -> str:
    """Return the digest of a shard, from those of its ranges."""
    return digests[0] if len(digests) == 1 else xxhash.xxh3_128_hexdigest("".join(digests).encode())
