"""The shard that a row file speaks of: where it lies, and whether it still is what was read.

Row files come from other machines, and from other people. Their shards are found under `--pool`, where the user names
it; otherwise at the place that the file states, if it is a file of this machine, or lies in the store that the row file
itself was read from. No other connection is opened for them. What a shard held is told by its digest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dvsel.errors import UserError
from dvsel.options import from_mapping
from dvsel.runs.requests import Reading
from dvsel.score_files.reader import ScoreFile
from dvsel.shards.digest import shard_digest
from dvsel.shards.expand import expand
from dvsel.storage.places import Shard, info, is_remote, local_path


class Relocated:
    """A pool's shards, by which those of row files that were made elsewhere are found.

    patterns: the pool, in the words of the user.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._shards = {shard.name: shard for shard in expand(patterns)}

    def of(self, file: ScoreFile) -> Shard:
        """The shard of a row file: of its name, or the only one whose place ends in this name."""
        name = file.header.shard.name
        if name in self._shards:
            return self._shards[name]
        found = [shard for shard in self._shards.values() if _ends_in(shard.url, name)]
        if len(found) != 1:
            several = "is the name of several shards" if found else "is no shard"
            raise UserError(f"{file.url}: its shard {name} {several} of {' '.join(self._patterns)}; check --pool")
        return found[0]


def _ends_in(url: str, name: str) -> bool:
    return ("/" + url.replace("://", "/").strip("/")).endswith(f"/{name}")


def unchanged_shard(file: ScoreFile, pool: Relocated | None = None) -> Shard:
    """The shard of a row file. Raises UserError unless it is as it was when that was written."""
    shard = pool.of(file) if pool else _at_its_place(file)
    if not pool:
        check_unchanged(shard, file)
    elif shard.size != file.header.shard.size:  # score and select compare its content as they read it
        raise changed(shard)
    return shard


def _at_its_place(file: ScoreFile) -> Shard:
    was = file.header.shard.shard
    if is_remote(was.url) and _store(was.url) != _store(file.url):
        raise UserError(
            f"{file.url}: its shard lies in another store ({was.url}); name the pool with --pool to have it read there"
        )
    if not _ends_in(was.url, was.name) or not (is_remote(was.url) or local_path(was.url).is_file()):
        raise UserError(f"{file.url}: its shard {was.url} is not there; say where the pool lies now with --pool")
    size, modified = info(was.url)
    return dataclasses.replace(was, size=size, modified=modified)


def _store(url: str) -> tuple[str, ...]:
    return tuple(url.split("/")[:3]) if is_remote(url) else ()


def reading_of(file: ScoreFile) -> Reading:
    """Return the options of reading that a row file was made with."""
    return from_mapping(Reading, dataclasses.asdict(file.header.reading), file.url)


def check_unchanged(shard: Shard, there: ScoreFile) -> None:
    """Raise UserError unless the shard is what its row file speaks of; a new date alone is not a change."""
    was = there.header.shard
    if (shard.size, shard.modified) == (was.size, was.modified):
        return
    if shard.size != was.size or shard_digest(dataclasses.replace(shard, vectors="")) != was.digest:
        raise changed(shard)


def changed(shard: Shard) -> UserError:
    """The error for a shard that is not what its row file speaks of."""
    return UserError(
        f"{shard.url} changed after it was scored or embedded; do it again, into a new folder or with --overwrite"
    )
