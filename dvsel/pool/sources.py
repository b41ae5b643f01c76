"""Shards, shards with their vectors, and documents that the words of a command name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from glob import has_magic

from dvsel.documents.columns import Batch
from dvsel.errors import UserError
from dvsel.pool.locate import Relocated, unchanged_shard
from dvsel.pool.read import TEXT_FLAG, PoolReader
from dvsel.runs.output_folder import RECIPE
from dvsel.runs.recipe import command_of
from dvsel.runs.requests import Reading
from dvsel.score_files.find import SUFFIXES, check_distinct, globbed, row_files
from dvsel.score_files.reader import ScoreFile
from dvsel.shards.expand import expand
from dvsel.storage.places import Shard, exists, join


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
    """Documents that are no pool, such as targets, as a scorer sees them. text_flag: see `PoolReader`."""
    for shard in expand_pool(patterns):
        with PoolReader(shard, reading, needs, text_flag=text_flag) as pool:
            for batch in pool:
                yield batch.batch(needs)


def is_embedded(pattern: str) -> bool:
    """True for a folder, or row files, of `dvsel embed`."""
    if pattern.endswith(SUFFIXES):
        found = globbed(pattern)
        return bool(found) and exists(found[0]) and ScoreFile(found[0]).header.embedding is not None
    place = join(pattern, RECIPE)
    return not has_magic(pattern) and exists(place) and command_of(place) == "embed"
