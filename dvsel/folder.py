"""The output folder of a run: its recipe says whose it is.

The recipe is written first. The same command started again finds the same recipe and resumes; another command is
refused, unless told to overwrite. Two processes cannot work in one folder at the same time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from dvsel.errors import UserError
from dvsel.shards.files import (
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
REPORT = "report.json"
STEPS = ".steps"
_STOPS, _SKIPS = "\non_bad_line: fail\n", "\non_bad_line: skip\n"


@contextlib.contextmanager
def working_in(folder: str, recipe: str, overwrite: bool) -> Iterator[None]:
    """Claim `folder` for the run that `recipe` describes, creating it or resuming in it."""
    make_folder(folder)
    place = join(folder, RECIPE)
    if overwrite and exists(place):
        with _alone(place):
            _clear(folder, list_names(folder))
    if not exists(place):
        _check_empty(folder)
        _write(place, recipe)
    elif (there := _read(place)) != recipe:
        _take_over(folder, there, recipe)
    with _alone(place):
        yield


def _read(place: str) -> str:
    with open_read(place) as file:
        return file.read().decode(errors="replace")


def _write(place: str, recipe: str) -> None:
    with atomic_writer(place) as file:
        file.write(recipe.encode())


def _take_over(folder: str, there: str, recipe: str) -> None:
    """Let the run have a folder whose run left nothing but its recipe, or was the same but stopped at bad lines.

    The steps of a fit that came to nothing stay: they have a recipe of their own, which says what they can be used for.
    """
    place = join(folder, RECIPE)
    with _alone(place):
        names = [name for name in list_names(folder) if not _is_step(name)]
        if there.startswith("dvsel: ") and all(name.endswith(RECIPE) for name in names):
            _clear(folder, names)
        elif there.replace(_STOPS, _SKIPS) != recipe:
            raise UserError(
                f"{folder} holds another run ({_difference(there, recipe)}); "
                "choose another -o, or pass --overwrite to replace it"
            )
        _write(place, recipe)


def _difference(there: str, wanted: str) -> str:
    try:
        old, new = yaml.safe_load(there), yaml.safe_load(wanted)
        name = next(name for name in [*new, *old] if old.get(name) != new.get(name))
    except (yaml.YAMLError, AttributeError, StopIteration, TypeError):
        return f"its {RECIPE} differs"
    return f"its {name} is {_shown(old.get(name))}, this one's {_shown(new.get(name))}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_empty(folder: str) -> None:
    names = [name for name in list_names(folder) if not name.startswith(".")]
    if names:
        raise UserError(f"{folder} holds other files ({names[0]}); choose a new folder with -o")


def _is_step(name: str) -> bool:
    return STEPS in name.split("/")[:-1]


def _clear(folder: str, names: Sequence[str]) -> None:
    """Remove what a run of dvsel left; last its recipe, without which the rest would be files of others."""
    for name in names:
        if name != RECIPE:
            remove(join(folder, name))
    remove(join(folder, RECIPE))


@contextlib.contextmanager
def _alone(place: str) -> Iterator[None]:
    if is_remote(place) or os.name != "posix":
        yield
        return
    import fcntl

    with local_path(place).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another dvsel is writing to {os.path.dirname(place)}; wait for it") from error  # noqa: PTH120
        yield
