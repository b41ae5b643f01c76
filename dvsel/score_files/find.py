"""Names of row files, and the row files that a word of a command names: one, those of a glob, or those of a folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from glob import glob, has_magic

from dvsel.errors import Notice, UserError
from dvsel.score_files.reader import ScoreFile
from dvsel.storage.manifest import missing
from dvsel.storage.places import HOME, check_utf8, exists, find, is_own, is_remote, join, local_path

SUFFIX = ".dvsel.parquet"
SUFFIXES = (SUFFIX, ".dvsel.rows")
"""The second is for files in a run's own folder, where `**/*.parquet` of other programs must not find them."""
SCORES = f"{HOME}/scores"


def suffix_in(folder: str) -> str:
    """Return how the names of row files end in a folder."""
    return SUFFIXES[1] if is_own(folder) else SUFFIX


def row_files(source: str, partial: bool = False) -> list[str]:
    """Return the row files that a folder holds, or a glob matches, or the one that is named.

    Raises UserError for a folder that lacks some of those that its run was to write, unless `partial`.
    """
    if source.endswith(SUFFIXES) and (found := globbed(source)):
        return found
    if exists(join(source, SCORES)) and not find(source, SUFFIXES, depth=1):
        source = join(source, SCORES)
    found = find(source, SUFFIXES)
    if not found:
        raise UserError(f"{source}: holds no score files; make them with `dvsel score NAME {source} -o scores/`")
    if absent := missing(source, SUFFIXES):
        what = f"{source}: is not complete: {len(absent):,} of its files are missing, {absent[0]} first"
        if not partial:
            raise UserError(f"{what}; end the run that writes it, or pass --partial to `select` to go on without them")
        warnings.warn(Notice(f"{what}; the shards of these are left out"), stacklevel=2)
    return found


def holds_rows(source: str) -> bool:
    """Return whether the word names row files, or a folder that holds some."""
    if source.endswith(SUFFIXES):
        return True
    return exists(source) and bool(find(source, SUFFIXES) or find(join(source, SCORES), SUFFIXES))


def check_distinct(files: Sequence[ScoreFile]) -> None:
    """Raise UserError where two files speak of the same shard, or of shards of the same name."""
    urls: dict[str, ScoreFile] = {}
    names: dict[str, ScoreFile] = {}
    for file in files:
        shard = file.header.shard
        if (other := urls.setdefault(shard.url, file)) is not file:
            raise UserError(f"{other.url} and {file.url} speak of the same shard; name one of them")
        if (other := names.setdefault(shard.name, file)) is not file:
            raise UserError(
                f"{other.url} and {file.url} speak of shards of the same name, {shard.name}, which would be written "
                "to one file; name the shards in one run"
            )


def globbed(pattern: str) -> list[str]:
    """Return the row files that a local glob matches; any other word as it is."""
    if is_remote(pattern) or not has_magic(pattern):
        return [pattern]
    found = sorted(glob(str(local_path(pattern)), recursive=True))  # noqa: PTH207  (a pathlib glob cannot be absolute)
    for place in found:
        check_utf8(place)
    return found
