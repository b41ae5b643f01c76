"""What the words of a command name: shards, shards with their vectors, and row files."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from glob import glob, has_magic

from dvsel.errors import Notice, UserError
from dvsel.folder import RECIPE
from dvsel.origin import Relocated, unchanged_shard
from dvsel.pool import TEXT_FLAG, paths_to_read, read_pool
from dvsel.recipe import command_of
from dvsel.runs import Reading
from dvsel.shards.columns import Batch
from dvsel.shards.documents import DocumentReader
from dvsel.shards.expand import expand
from dvsel.shards.files import HOME, Shard, check_utf8, exists, find, is_remote, join, local_path
from dvsel.shards.manifest import missing
from dvsel.shards.scorefile import SUFFIXES, ScoreFile

SCORES = f"{HOME}/scores"


def expand_pool(patterns: Sequence[str], moved: Sequence[str] = ()) -> list[Shard]:
    """The shards that the user's words name: as `expand`, or, of folders that `dvsel embed` wrote, with their vectors.

    moved: where the shards of embeddings lie now, if not where they were embedded. Raises UserError for what `expand`
    refuses, for a shard that changed after it was embedded, and where some of the pool has vectors and some has none.
    """
    embedded = [pattern for pattern in patterns if is_embedded(pattern)]
    if not embedded:
        if moved:
            raise UserError(
                f"--pool {moved[0]}: says where the shards of embeddings lie, and no embeddings are named; drop it"
            )
        return expand(patterns)
    if plain := [pattern for pattern in patterns if pattern not in embedded]:
        raise UserError(
            f"{embedded[0]} holds embeddings, and {plain[0]} documents; embed these too, or name the shards"
        )
    files = [ScoreFile(url) for pattern in embedded for url in row_files(pattern)]
    check_distinct(files)
    pool = Relocated(moved) if moved else None
    return [dataclasses.replace(unchanged_shard(file, pool), vectors=file.url) for file in files]


def documents_in(
    patterns: Sequence[str], reading: Reading, needs: tuple[str, ...] = (), text_flag: str = TEXT_FLAG
) -> Iterator[Batch]:
    """Documents that are no pool, such as targets, as a scorer sees them. text_flag: see `read_pool`."""
    for shard in expand_pool(patterns):
        with DocumentReader(shard, paths_to_read(reading, *needs)) as reader:
            for batch in read_pool(reader, shard, reading, text_flag=text_flag):
                yield batch.batch(needs)


def is_embedded(pattern: str) -> bool:
    """Whether it names what `dvsel embed` wrote."""
    if pattern.endswith(SUFFIXES):
        found = _globbed(pattern)
        return bool(found) and exists(found[0]) and ScoreFile(found[0]).header.embedding is not None
    place = join(pattern, RECIPE)
    return not has_magic(pattern) and exists(place) and command_of(place) == "embed"


def _globbed(pattern: str) -> list[str]:
    """The row files that a local glob matches; anything else as it is."""
    if is_remote(pattern) or not has_magic(pattern):
        return [pattern]
    found = sorted(glob(str(local_path(pattern)), recursive=True))  # noqa: PTH207  (a pathlib glob cannot be absolute)
    for place in found:
        check_utf8(place)
    return found


def row_files(source: str, partial: bool = False) -> list[str]:
    """The row files that a folder holds, or a glob matches, or the one that is named.

    Raises UserError for a folder that lacks some of those that its run was to write, unless `partial`.
    """
    if source.endswith(SUFFIXES) and (found := _globbed(source)):
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
    """Whether it names row files, or a folder that holds some."""
    if source.endswith(SUFFIXES):
        return True
    return exists(source) and bool(find(source, SUFFIXES) or find(join(source, SCORES), SUFFIXES))


def check_distinct(files: Sequence[ScoreFile]) -> None:
    """Raise UserError where two files speak of the same shard, or of shards of the same name."""
    urls: dict[str, ScoreFile] = {}
    names: dict[str, ScoreFile] = {}
    for file in files:
        shard = file.header.shard
        if (other := urls.setdefault(shard["url"], file)) is not file:
            raise UserError(f"{other.url} and {file.url} speak of the same shard; name one of them")
        if (other := names.setdefault(shard["name"], file)) is not file:
            raise UserError(
                f"{other.url} and {file.url} speak of shards of the same name, {shard['name']}, which would be written "
                "to one file; name the shards in one run"
            )
