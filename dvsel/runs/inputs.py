"""Inputs of a fit, by content: a fit is used again only for the same targets, models and pool.

The folder of a fit holds a list of the files that it was to read, written before it began:

    .dvsel/inputs.json    {"target.jsonl": {"size": 1024, "modified": "1764...", "digest": "9f..."}, ...}

A file is the same if its bytes are. Files up to `_SMALL` are read again each time. Of a larger one a new size is a
change, an old date none, and a new date has it read. Shards of the pool have no digest in the list: there a new date is
a change, since to read the pool again would cost what the fit did.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from glob import glob, has_magic
from typing import Any

import xxhash

from dvsel.errors import UserError
from dvsel.options import files_named
from dvsel.redact import kept
from dvsel.storage.manifest import home, is_litter
from dvsel.storage.places import Shard, atomic_writer, exists, find, info, is_remote, join, local_path, open_read

STALE = "remove that folder to begin again"
"""What to do about the steps of a fit whose inputs changed."""
_SMALL = 64 << 20  # bytes
_READ = 1 << 22

State = dict[str, Any]


def note_inputs(run: Any, pool: Sequence[Shard], folder: str) -> None:
    """Write down what a fit for `run` in a folder reads. pool: the shards that it samples, if it does."""
    states = {url: _state(url) for url in _files(files_named(run, skip=("pool",)))}
    with atomic_writer(_place(folder)) as file:
        file.write(json.dumps(kept(states | _pool_states(pool)), indent=1).encode())


def check_inputs(run: Any, pool: Sequence[Shard], folder: str, remedy: str) -> None:
    """Raise UserError unless what a fit for `run` would read is what the one in the folder read."""
    with open_read(_place(folder)) as file:
        was: dict[str, State] = json.loads(file.read())
    now = {kept(url): url for url in (*_files(files_named(run, skip=("pool",))), *_pool_states(pool))}
    for name in sorted(was.keys() ^ now.keys()):
        raise UserError(f"{name}: is {'new' if name in now else 'gone'} since the fit in {folder} was begun; {remedy}")
    for name, state in was.items():
        if not _is_same(now[name], state):
            raise UserError(f"{name}: changed since the fit in {folder} was begun; {remedy}")


def keep_inputs(run: Any, pool: Sequence[Shard], folder: str, remedy: str) -> None:
    """Check what the fit in the folder read, or write it down where none was begun."""
    if exists(_place(folder)):
        check_inputs(run, pool, folder, remedy)
    else:
        note_inputs(run, pool, folder)


def _place(folder: str) -> str:
    return join(home(folder), "inputs.json")


def _pool_states(pool: Sequence[Shard]) -> dict[str, State]:
    """States of shards as they were found, and of their vectors."""
    states = {shard.url: {"size": shard.size, "modified": shard.modified, "digest": ""} for shard in pool}
    for url in (shard.vectors for shard in pool if shard.vectors):
        size, modified = info(url)
        states[url] = {"size": size, "modified": modified, "digest": ""}
    return states


def _files(patterns: Iterable[str]) -> Iterator[str]:
    """The files that patterns name; a model's name on the hub names none."""
    for pattern in patterns:
        if is_remote(pattern):
            yield from find(pattern, "") or [pattern]
        elif has_magic(pattern) and not exists(pattern):
            yield from _files(sorted(glob(str(local_path(pattern)), recursive=True)))  # noqa: PTH207
        elif local_path(pattern).is_dir():
            yield from (url for url in find(str(local_path(pattern)), "") if not is_litter(url))
        elif exists(pattern):
            yield pattern


def _state(url: str) -> State:
    size, modified = info(url)
    return {"size": size, "modified": modified, "digest": _digest(url)}


def _is_same(url: str, was: State) -> bool:
    size, modified = info(url)
    if size != was["size"]:
        return False
    if modified == was["modified"] and (size > _SMALL or not was["digest"]):
        return True
    return bool(was["digest"]) and _digest(url) == was["digest"]


def _digest(url: str) -> str:
    hashed = xxhash.xxh3_128()
    with open_read(url) as file:
        while piece := file.read(_READ):
            hashed.update(piece)
    return hashed.hexdigest()
