"""Find the shards that the words of a command name.

What is named is read: a file, a folder, whatever hidden folder either lies in, and what a glob spells with its dot. Of
what a folder or a glob holds, the shards are read. The rest is passed over, and one notice says so of what may be data:
hidden files, and files that are compressed in a way, or of a kind, that dvsel does not read. Nothing is said of what is
no data (descriptions, reports, score files), nor of a folder `places.HOME`, where a run keeps its own files.
"""

from __future__ import annotations

import glob
import json
import os
import posixpath
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile, zip_longest
from pathlib import Path

from dvsel.errors import Notice, UserError
from dvsel.shards.splits import check_hub, check_saved
from dvsel.storage.places import (
    HOME,
    Shard,
    check_utf8,
    explained,
    filesystem,
    info,
    is_own,
    is_remote,
    join,
    local_path,
    relative,
    spelled,
)

_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".arrow": "arrow"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_KNOWN = ".jsonl, .ndjson and .json (also with .gz or .zst), .parquet, .arrow"
_PACKED = {
    ".7z",
    ".br",
    ".bz2",
    ".lz4",
    ".lzma",
    ".rar",
    ".snappy",
    ".sz",
    ".tar",
    ".tbz2",
    ".tgz",
    ".txz",
    ".xz",
    ".z",
}
_TABLES = {".avro", ".csv", ".feather", ".h5", ".hdf5", ".ipc", ".npy", ".npz", ".orc", ".tsv"}
_TEXTS = {".mds", ".msgpack", ".tfrecord", ".tfrecords", ".txt", ".warc", ".wat", ".wet", ".xml", ".zip"}
_NOT_READ = _PACKED | _TABLES | _TEXTS | set(_COMPRESSIONS)
_DESCRIPTIONS = {
    "authors",
    "changelog",
    "citation",
    "copying",
    "licence",
    "license",
    "notice",
    "readme",
    "requirements",
}
_NO_SHARDS = frozenset({"dataset_dict.json", "dataset_info.json", "dataset_infos.json"})
_SCORE_FILES = (".dvsel.parquet", ".dvsel.rows")
_DATASET = "state.json"
_HUB = "hf://datasets/"
_NAMED = 3


def split_name(name: str) -> tuple[str, str]:
    """Return a shard's name without its suffix, and the suffix: "en/a", ".jsonl.zst". Both in the case they have."""
    stem, compression = posixpath.splitext(name)
    if compression.lower() not in _COMPRESSIONS:
        stem, compression = name, ""
    stem, kind = posixpath.splitext(stem)
    return stem, kind + compression


def is_shard_name(name: str) -> bool:
    """Return whether a file of this name is one that dvsel reads."""
    return _kind(name) is not None


def expand(patterns: Sequence[str]) -> list[Shard]:
    """Return the shards that the user's words name, in their order; a folder's or a glob's sorted by name.

    A pattern is a file, a folder (searched recursively), a glob (`*`, `**`), a URL of fsspec or a glob of
    them, a folder that `datasets` saved, or `hf://datasets/owner/name[/path or glob]`.
    Raises UserError where a pattern names nothing, a file of an unknown kind, one already named, or one whose name is
    not UTF-8, and where a folder that `datasets` saved lacks a file, or a dataset has several splits. Warns of what was
    passed over.
    """
    sources: dict[str, str] = {}
    passed = _PassedOver()
    for pattern in patterns:
        check_utf8(pattern)
        for url in _matches(pattern, passed):
            place = _absolute(url)
            check_utf8(place)
            if place in sources:
                raise UserError(f"{url}: given twice, by {sources[place]} and by {pattern}; name it once")
            sources[place] = pattern
    passed.tell()
    names = _names(list(sources))
    shards = [_shard(url, name) for url, name in zip(sources, names, strict=True)]
    _check_outputs(shards)
    return shards


@dataclass
class _PassedOver:
    """The files that may be data and are not read, of all patterns."""

    hidden: list[str] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)

    def takes(self, place: str, hidden: bool) -> bool:
        """Return whether a file that was found is a shard to read; note it where it may be data."""
        file = posixpath.basename(place)
        if file in _NO_SHARDS or file.endswith(_SCORE_FILES):
            return False
        is_shard = _kind(file) is not None
        if is_shard and not hidden:
            return True
        stem, suffix = file.lower().split(".")[0], posixpath.splitext(file)[1].lower()
        if is_shard or (suffix in _NOT_READ and stem not in _DESCRIPTIONS):
            (self.hidden if hidden else self.not_read).append(place)
        return False

    def tell(self) -> None:
        """Warn of the files that were passed over."""
        whats, remedies = [], []
        if self.hidden:
            whats.append(f"{len(self.hidden):,} hidden ({_first(self.hidden)})")
            remedies.append("name hidden ones to have them read")
        if self.not_read:
            whats.append(f"{len(self.not_read):,} of a kind that dvsel does not read ({_first(self.not_read)})")
            remedies.append("unpack or convert these")
        if whats:
            message = f"files that may be data are passed over: {' and '.join(whats)}; {', '.join(remedies)}"
            # One place in the source, so that a run which expands the same words twice says it once.
            warnings.warn(Notice(message), stacklevel=1)

    def refusal(self, pattern: str, what: str) -> UserError:
        """The error for a pattern without a shard; what: "holds", "matches"."""
        known = f"dvsel reads {_KNOWN}"
        if found := [*self.hidden, *self.not_read]:
            known += f", not {_first(found)}"
        return UserError(f"{pattern}: {what} no shards ({known}); check the name")


def _first(places: Sequence[str]) -> str:
    return ", ".join([*map(spelled, places[:_NAMED]), *(["..."] if len(places) > _NAMED else [])])


def _absolute(url: str) -> str:
    return url if is_remote(url) else os.path.abspath(local_path(url))  # noqa: PTH100  (resolve() follows links)


def _matches(pattern: str, passed: _PassedOver) -> list[str]:
    with explained(pattern):
        return _remote_matches(pattern, passed) if is_remote(pattern) else _local_matches(pattern, passed)


def _local_matches(pattern: str, passed: _PassedOver) -> list[str]:
    path = local_path(pattern)
    if path.is_dir():
        return _in_local_folder(str(path), False, passed) or _nothing(pattern, "holds", passed)
    if path.exists():
        return [str(path)]
    if not glob.has_magic(str(path)):
        raise UserError(f"{pattern}: there is no such file or folder; check the name")
    found = glob.glob(str(path), recursive=True, include_hidden=True)  # noqa: PTH207  (pathlib's cannot be absolute)
    shards: list[str] = []
    for place, hidden in _globbed(found, str(path)):
        if not Path(place).is_dir():
            shards += [place] if passed.takes(place, hidden) else []
        elif "**" not in pattern:
            shards += _in_local_folder(place, hidden, passed)
    return shards or _nothing(pattern, "matches", passed)


def _remote_matches(pattern: str, passed: _PassedOver) -> list[str]:
    fs, path = filesystem(pattern)
    if not glob.has_magic(path):
        if fs.isdir(path):
            return _in_remote_folder(pattern, False, passed) or _nothing(pattern, "holds", passed)
        if not fs.exists(path):
            raise UserError(f"{pattern}: there is no such file or folder; check the name")
        return [pattern]
    shards: list[str] = []
    for place, hidden in _globbed(fs.glob(path), path):
        url = str(fs.unstrip_protocol(place))
        if not fs.isdir(place):
            shards += [url] if passed.takes(url, hidden) else []
        elif "**" not in pattern:
            shards += _in_remote_folder(url, hidden, passed)
    return shards or _nothing(pattern, "matches", passed)


def _nothing(pattern: str, what: str, passed: _PassedOver) -> list[str]:
    raise passed.refusal(pattern, what)


def _globbed(found: Sequence[str], pattern: str) -> list[tuple[str, bool]]:
    """Return what a glob found, sorted, less a run's own files, and whether a part of the name is hidden for which the
    glob has no dot."""
    wanted, places = pattern.split("/"), []
    for place in sorted(found):
        parts, spelt = place.split("/"), wanted
        if "**" in wanted:
            first, rest = wanted.index("**"), wanted[::-1].index("**")
            spelt = [*wanted[:first], *["**"] * (len(parts) - first - rest), *wanted[len(wanted) - rest :]]
        unspelt = [part for part, spelling in zip_longest(parts, spelt, fillvalue="") if not spelling.startswith(".")]
        if HOME not in unspelt:
            places.append((place, any(part.startswith(".") for part in unspelt)))
    return places


def _in_local_folder(folder: str, hidden: bool, passed: _PassedOver) -> list[str]:
    path = Path(folder)
    return _in_folder(folder, _walk(path, ()), lambda name: (path / name).read_bytes(), hidden, passed)


def _in_remote_folder(url: str, hidden: bool, passed: _PassedOver) -> list[str]:
    fs, path = filesystem(url)
    names = [name for found in sorted(fs.find(path)) if not is_own(name := relative(found, path))]
    found = _in_folder(url, names, lambda name: bytes(fs.cat_file(f"{path}/{name}")), hidden, passed)
    if url.startswith(_HUB):
        check_hub(url, [relative(place, url) for place in found])
    return found


def _walk(folder: Path, above: tuple[Path, ...]) -> list[str]:
    """The names of all files below a folder, links to folders followed, less a run's own."""
    real = folder.resolve()
    if real in above:
        raise UserError(f"{folder}: this link leads back to a folder above it; remove it or name folders singly")
    names = []
    for entry in folder.iterdir():
        if entry.name == HOME:
            continue
        if entry.is_dir():
            names += [f"{entry.name}/{name}" for name in _walk(entry, (*above, real))]
        else:
            names.append(entry.name)
    return sorted(names)


def _in_folder(
    base: str, names: Sequence[str], read: Callable[[str], bytes], hidden: bool, passed: _PassedOver
) -> list[str]:
    """The places of a folder's shards.

    names: of all its files, relative, sorted. read: the content of one. hidden: whether the folder is.
    """
    check_saved(base, names, read)
    saved: set[str] = set()
    listed: set[str] = set()
    for name in names:
        folder, file = posixpath.split(name)
        if (
            file == _DATASET
            and not (hidden or _is_hidden(name))
            and (files := _files_of_dataset(read(name))) is not None
        ):
            saved.add(folder)
            listed |= _checked(join(base, name), folder, files, names)
    shards = []
    for name in names:
        if name in listed or posixpath.dirname(name) not in saved:
            place = join(base, name)
            shards += [place] if passed.takes(place, hidden or _is_hidden(name)) else []
    return shards


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _files_of_dataset(state: bytes) -> list[str] | None:
    """Return the data files that a `state.json` of `datasets` lists; None if it is some other JSON file."""
    try:
        content = json.loads(state)
        files = [entry["filename"] for entry in content["_data_files"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return files if all(isinstance(file, str) for file in files) else None


def _checked(state: str, folder: str, files: Sequence[str], names: Sequence[str]) -> set[str]:
    """The names of the files that a `state.json` lists, all of which must be there, in its folder."""
    there, listed = set(names), set()
    for file in files:
        if posixpath.normpath(file) != file or file.startswith(("/", "..")):
            raise UserError(f"{state}: lists {file!r}, which is not a file of its folder; save the dataset again")
        if join(folder, file) not in there:
            raise UserError(f"{state}: lists {file!r}, which is not there; copy the folder again, or save it again")
        listed.add(join(folder, file))
    return listed


def _kind(name: str) -> tuple[str, str] | None:
    """The format and the compression that a name states, if it states any."""
    suffix = split_name(name)[1].lower()
    kind, dot, packed = suffix[1:].partition(".")
    format_, compression = _FORMATS.get(f".{kind}"), _COMPRESSIONS.get(dot + packed, "")
    return None if format_ is None or (compression and format_ != "jsonl") else (format_, compression)


def _names(urls: list[str]) -> list[str]:
    """Names relative to the folder that all the places share."""
    parts = [url.replace("://", "/").strip("/").split("/") for url in urls]
    folders = [part[:-1] for part in parts]
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))
    return ["/".join(part[shared:]) for part in parts]


def _shard(url: str, name: str) -> Shard:
    kind = _kind(name)
    if kind is None or name.endswith(_SCORE_FILES):
        what = "a score file, not a shard" if name.endswith(_SCORE_FILES) else "of an unknown kind"
        raise UserError(f"{url}: {what}; dvsel reads {_KNOWN}")
    return Shard(url, name, *kind, *info(url))


def _check_outputs(shards: Sequence[Shard]) -> None:
    """Arrow data come out as Parquet, so a.arrow and a.parquet would be written to one file."""
    taken: dict[str, Shard] = {}
    for shard in shards:
        output = split_name(shard.name)[0] + (".parquet" if shard.format == "arrow" else split_name(shard.name)[1])
        if output in taken:
            raise UserError(f"{shard.url}: would be written to the same file as {taken[output].url}; rename one")
        taken[output] = shard
