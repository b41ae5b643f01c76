"""The output folder of a run: its recipe says whose it is, its list of files what dvsel wrote there.

The recipe is written first. The same command started again finds the same recipe and resumes; another command is
refused, unless told to overwrite, which removes what dvsel wrote there and nothing else. A folder that holds files of
others is refused. Two processes cannot work in one folder at the same time: the lock is a file that stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import yaml

from dvsel.errors import UserError
from dvsel.shards.expand import is_shard_name, split_name
from dvsel.storage import yaml_file
from dvsel.storage.manifest import foreign, home, record, recorded, remove_recorded, settle
from dvsel.storage.places import (
    HOME,
    atomic_writer,
    exists,
    is_remote,
    join,
    list_names,
    local_path,
    make_folder,
    open_read,
    remove,
)

RECIPE = "recipe.yaml"
REPORT = f"{HOME}/report.json"
STEPS = "steps"
_LENIENT = ("on_bad_line", "on_bad_file")


@contextlib.contextmanager
def working_in(folder: str, recipe: str, overwrite: bool, inputs: Sequence[str] = ()) -> Iterator[None]:
    """Claim `folder` for the run that `recipe` describes, creating it or resuming in it.

    overwrite: remove first what an earlier run wrote; to be asked for when everything else was checked.
    inputs: what the user named to be read, in which nothing must be written.
    """
    _check_name(folder)
    _check_apart(folder, inputs)
    _check_before_lock(folder, overwrite)
    with _alone(folder):
        _check_own(folder, overwrite)
        _claim(folder, recipe, overwrite)
        yield
        settle(folder)


def _check_name(folder: str) -> None:
    """Raise UserError for what reads like the name of one file, unless it is a folder."""
    name = folder.rstrip("/").rpartition("/")[2]
    if is_shard_name(name) and not folder.endswith("/") and not exists(join(folder, RECIPE)):
        raise UserError(
            f"{folder}: is the name of a file, and a run writes a folder; choose -o {split_name(folder)[0]}/, or -o - "
            "for the lines of a selection from scores on stdout"
        )


def _check_before_lock(folder: str, overwrite: bool) -> None:
    """Check as `_check_own` does, so that not even a lock is left in a folder of others.

    Nothing is believed where there is a lock: its holder may be changing the folder while it is looked at.
    """
    if _has_lock(folder):
        return
    try:
        _check_own(folder, overwrite)
    except UserError:
        if not _has_lock(folder):
            raise


def _check_own(folder: str, overwrite: bool) -> None:
    """Raise UserError where others' files lie in a folder that is to be begun, or cleared."""
    if (overwrite or not _is_begun(folder)) and (others := foreign(folder)):
        raise UserError(f"{folder} holds other files ({others[0]}); choose a new folder with -o")


def _is_begun(folder: str) -> bool:
    return RECIPE in recorded(folder) and exists(join(folder, RECIPE))


def _claim(folder: str, recipe: str, overwrite: bool) -> None:
    place = join(folder, RECIPE)
    if _is_begun(folder):
        there = _read(place)
        if overwrite:
            clear(folder)
        elif there == recipe:
            return
        else:
            _take_over(folder, there, recipe)
    record(folder, [RECIPE])  # before it is there: what is recorded and missing harms nobody, the reverse would
    with atomic_writer(place) as file:
        file.write(recipe.encode())


def _read(place: str) -> str:
    with open_read(place) as file:
        return file.read().decode(errors="replace")


def _take_over(folder: str, there: str, recipe: str) -> None:
    """Let the run have a folder whose run left nothing but its recipe, or was the same but stopped at what is bad.

    The steps of a fit that came to nothing stay: they have a recipe of their own, which says what they can be used for.
    """
    names = [name for name in list_names(folder) if HOME not in name.split("/")]
    if there.startswith("dvsel: ") and all(name.endswith(RECIPE) for name in names):
        for name in names:
            remove(join(folder, name))
    elif _as_lenient(there, recipe) != recipe:
        raise UserError(
            f"{folder} holds another run ({_difference(folder, recipe)}); "
            "choose another -o, or pass --overwrite to replace it"
        )


def _as_lenient(there: str, recipe: str) -> str:
    """A recipe that skips what the other one does."""
    for name in _LENIENT:
        skips = f"\n{name}: skip\n"
        there = there.replace(f"\n{name}: fail\n", skips) if skips in recipe else there
    return there


def _difference(folder: str, wanted: str) -> str:
    try:
        old, new = yaml_file.read(join(folder, RECIPE)), yaml.safe_load(wanted)
        name = next(name for name in [*new, *old] if old.get(name) != new.get(name))
    except (UserError, AttributeError, StopIteration, TypeError):
        return f"its {RECIPE} differs"
    return f"its {name} is {_shown(old.get(name))}, this one's {_shown(new.get(name))}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def clear(folder: str) -> None:
    """Remove what runs of dvsel wrote in a folder; last the recipe, without which the rest would be files of others."""
    for name in recorded(folder):
        if name.endswith("/") and exists(inner := join(folder, name.rstrip("/"))):
            with _alone(inner):
                clear(inner)
            _remove_home(inner)
    remove_recorded(folder, last=[RECIPE])
    for name in {name.split("/")[0] for name in list_names(home(folder))} - {_LOCK}:
        remove(join(home(folder), name))


def _remove_home(folder: str) -> None:
    """Remove the folder of a run inside another, whose lock guards it from here on."""
    remove(home(folder))
    if not is_remote(folder):
        with contextlib.suppress(OSError):  # something of others is in it
            local_path(folder).rmdir()


# --- One process at a time. ---

_LOCK = "lock"


def _has_lock(folder: str) -> bool:
    return not is_remote(folder) and exists(_lock_of(folder))


def _lock_of(folder: str) -> str:
    return join(home(folder), _LOCK)


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    make_folder(folder)
    if is_remote(folder):
        yield
        return
    from filelock import FileLock, Timeout

    make_folder(home(folder))
    lock = FileLock(local_path(_lock_of(folder)), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"another dvsel is writing to {folder}; wait for it") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder with -o") from error
    try:
        yield
    finally:
        lock.release()


# --- Inputs and outputs apart. ---


def _check_apart(folder: str, inputs: Sequence[str]) -> None:
    """Raise UserError where the folder is an input, holds one, or lies in one."""
    for pattern in inputs:
        for place in _places(pattern):
            if is_remote(place) != is_remote(folder):
                continue
            out, source = _parts(folder), _parts(place)
            if out == source[: len(out)]:
                how = "is" if out == source else "holds"
                raise UserError(f"{folder}: {how} an input of the run ({pattern}); choose another folder with -o")
            if source == out[: len(source)]:
                raise UserError(f"{folder}: lies in an input of the run ({pattern}); choose a folder beside it with -o")


def _places(pattern: str) -> list[str]:
    """Places that a pattern names: of a glob with `**` the files, since it names folders only to look into them."""
    if is_remote(pattern) or not has_magic(pattern):
        return [pattern]
    found = glob(str(local_path(pattern)), recursive=True)  # noqa: PTH207  (a pathlib glob cannot be absolute)
    return [name for name in found if "**" not in pattern or Path(name).is_file()]


def _parts(place: str) -> Sequence[str]:
    """The folders on the way to a place, links resolved."""
    return place.rstrip("/").split("/") if is_remote(place) else Path(os.path.realpath(local_path(place))).parts
