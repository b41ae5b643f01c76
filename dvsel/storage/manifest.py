"""The list of the files that dvsel wrote in an output folder, and the other files there.

A run's folder has a hidden folder `.dvsel` of its own, with a lock, scratch files, steps, and `written/`: the names of
the files that the run writes, each noted before the file appears, so that no moment of a kill leaves a file that is not
known. What is not noted there is not dvsel's, and is neither removed nor replaced.

    .dvsel/written/names.txt    a JSON string a line; one that ends in "/" is the folder of a run inside this one
    .dvsel/written/*.txt        the same, one file a note, where a store cannot append

Workers note names side by side: a note is one short write to the end of the file.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterable, Sequence

import xxhash

from dvsel.errors import UserError
from dvsel.storage.places import (
    HOME,
    atomic_writer,
    exists,
    find,
    is_remote,
    join,
    list_names,
    local_path,
    make_folder,
    open_read,
    remove,
    temporary_name,
)

_WRITTEN = f"{HOME}/written"
_NAMES = f"{_WRITTEN}/names.txt"
_LITTER = frozenset({".DS_Store", ".directory", ".gitignore", ".gitkeep", "Thumbs.db", "desktop.ini"})
_LITTER_BEGINS = ("._", ".nfs")
_ONE_BY_ONE = 32  # names that are asked for one by one; of more, the folder is listed


def home(folder: str) -> str:
    """Return the hidden folder of a run's own files."""
    return join(folder, HOME)


def record(folder: str, names: Iterable[str]) -> None:
    """Note files that will be written, before they are. names: relative, with slashes; "x/" for the folder of a run.

    Raises UserError where a file of such a name is there that was not noted: it is somebody else's.
    """
    names = list(names)
    if not names:
        return
    files = [name for name in names if not name.endswith("/")]
    if len(files) > _ONE_BY_ONE:
        there = sorted(set(files).intersection(list_names(folder)))
    else:
        there = [name for name in files if exists(join(folder, name))]
    if there and (others := set(there) - recorded(folder)):
        raise UserError(
            f"{join(folder, min(others))}: is there, and this run did not write it; move it, or choose another -o"
        )
    lines = "".join(f"{json.dumps(name)}\n" for name in names).encode()
    make_folder(join(folder, _WRITTEN))
    if is_remote(folder):
        with atomic_writer(join(folder, f"{_WRITTEN}/{xxhash.xxh3_64_hexdigest(lines)}.txt")) as file:
            file.write(lines)
        return
    with local_path(join(folder, _NAMES)).open("ab", buffering=0) as file:
        file.write(b"\n" + lines)  # whatever a kill may have left of the last line
        os.fsync(file.fileno())


def recorded(folder: str) -> set[str]:
    """Return the names that were noted."""
    names: set[str] = set()
    for url in find(join(folder, _WRITTEN), ".txt"):
        with open_read(url) as file:
            for line in file.read().split(b"\n"):
                if line.startswith(b'"') and line.endswith(b'"'):
                    names.add(json.loads(line))
    return names


def settle(folder: str) -> None:
    """Sort the list of a finished run, less what is not there."""
    if is_remote(folder):
        return
    names = [name for name in sorted(recorded(folder)) if exists(join(folder, name))]
    with atomic_writer(join(folder, _NAMES)) as file:
        file.write("".join(f"{json.dumps(name)}\n" for name in names).encode())


def foreign(folder: str) -> list[str]:
    """Return the files below a folder that dvsel did not write there, in order."""
    mine = recorded(folder)
    runs = tuple(name for name in mine if name.endswith("/"))
    found = [
        name
        for name in list_names(folder)
        if not (name.startswith((f"{HOME}/", *runs)) or is_litter(name) or _final(name) in mine)
    ]
    return sorted([*found, *(f"{run}{name}" for run in runs for name in foreign(join(folder, run)))])


def missing(folder: str, suffix: str | tuple[str, ...]) -> list[str]:
    """Return noted files of these suffixes that are missing, of this folder's run and of those below it, in order."""
    there = set(list_names(folder))
    runs = [name.removesuffix(_NAMES) for name in there if name.endswith(_NAMES)]
    noted = {f"{run}{name}" for run in runs for name in recorded(join(folder, run)) if name.endswith(suffix)}
    return sorted(noted - there)


def remove_recorded(folder: str, last: Sequence[str] = ()) -> None:
    """Remove the files that were noted, and folders that this empties. last: those to remove after all others."""
    names = [name for name in recorded(folder) if not name.endswith("/") and name not in last]
    for name in [*sorted(names), *last]:
        for place in (join(folder, name), join(folder, temporary_name(name))):
            if is_remote(place) or local_path(place).is_file():
                remove(place)
        _remove_empty(folder, posixpath.dirname(name))


def _remove_empty(folder: str, name: str) -> None:
    while name and not is_remote(folder):
        try:
            local_path(join(folder, name)).rmdir()
        except OSError:
            return
        name = posixpath.dirname(name)


def _final(name: str) -> str:
    """Return the name that a file has in the end, also while it is being written."""
    above, file = posixpath.split(name)
    return join(above, file[1:-4]) if file == temporary_name(file[1:-4]) else name


def is_litter(name: str) -> bool:
    """Return whether file managers and file systems leave such files anywhere."""
    file = posixpath.basename(name)
    return file in _LITTER or file.startswith(_LITTER_BEGINS)
