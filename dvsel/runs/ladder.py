"""A ladder: language models with the benchmark scores that order them, from a YAML file.

    models:
      - model: rungs/small             # a folder, relative to this file, or a hub name
        score: 0.31
      - model: EleutherAI/pythia-160m
        name: pythia                   # otherwise the last part of `model`
        scores: {arc: 0.24, lambada: 0.35}   # their mean counts; all models have the same benchmarks

Only the order of the scores counts. Two models of equal score say nothing about each other, so a ladder has at least
three distinct scores.
"""

from __future__ import annotations

import os
import re
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dvsel.errors import Notice, UserError, shown
from dvsel.options import nearest
from dvsel.storage import yaml_file
from dvsel.storage.places import is_remote, local_path

_LARGEST = 1e300  # so that sums are finite, too
_LONGEST = 4096  # characters of a path
_FEWEST = 3  # models, and distinct scores
_KEYS = ("model", "name", "score", "scores")
_NAME = re.compile(r"[^./\\][^/\\]*")  # names a folder, which is not hidden

Key = TypeVar("Key", str, float)


@dataclass(frozen=True)
class Rung:
    """One model of a ladder. name: of its folder of losses. model: an absolute path or a hub name."""

    name: str
    model: str
    score: float


@dataclass(frozen=True)
class Ladder:
    """Models, the weakest first; those of equal score by name."""

    rungs: tuple[Rung, ...]

    @classmethod
    def read(cls, url: str) -> Ladder:
        """The ladder in a file.

        Raises UserError for a file that does not hold a ladder, for fewer than 3 models or distinct scores, for two
        models of one name, for a score that is missing or no number, and for a folder that does not exist. A Notice
        tells of models with equal scores.
        """
        entries = _entries(url)
        if len(entries) < _FEWEST:
            raise UserError(f"{url}: a ladder of {len(entries)} models; it takes {_FEWEST} or more to order documents")
        rungs = [_rung(entry, f"{url}: model {number}", url) for number, entry in enumerate(entries, 1)]
        _check_benchmarks(entries, url)
        _check_names(rungs, url)
        _check_scores(rungs, url)
        return cls(tuple(sorted(rungs, key=lambda rung: (rung.score, rung.name))))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Places of a weaker and a stronger model, for each two models whose scores differ."""
        scores = [rung.score for rung in self.rungs]
        return [(i, j) for j in range(len(scores)) for i in range(j) if scores[i] < scores[j]]


def _entries(url: str) -> list[Mapping[str, Any]]:
    values = yaml_file.read(url)
    entries = values.get("models") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{url}: no ladder; its one key is `models`, a list of entries with `model` and `score`")
    for name in values:
        if name != "models":
            raise UserError(f"{url}: unknown key {shown(name)}; its one key is `models`")
    return entries


def _rung(entry: Mapping[str, Any], place: str, url: str) -> Rung:
    for key in entry:
        if key not in _KEYS:
            raise UserError(f"{place}: unknown key {shown(key)}; {nearest(key, _KEYS)}")
    model = entry.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= _LONGEST:
        raise UserError(f"{place}: no model; write `model: FOLDER`, or a name on the hub")
    name = entry.get("name", model.rstrip("/").rpartition("/")[2])
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"{place}: name {shown(name)} cannot name a folder; give one without slashes, such as `name: small`"
        )
    return Rung(name, _found(model, url, place), _score(entry, f"{place} ({name})"))


def _found(model: str, url: str, place: str) -> str:
    """An absolute path where the model is a folder, else its name on the hub."""
    if is_remote(url):
        return model
    base = local_path(url).parent
    path = base / os.path.expanduser(model)  # noqa: PTH111  (which fails for the home of nobody)
    if _is_folder(path):
        return str(path.absolute())
    first, *rest = model.split("/")
    if first in ("", ".", "..", "~") or len(rest) > 1 or (rest and _is_folder(base / first)):
        raise UserError(f"{place}: there is no folder {path}; check the name (a relative one begins beside {url})")
    return model


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (which fails for long names)


def _score(entry: Mapping[str, Any], place: str) -> float:
    if ("score" in entry) == ("scores" in entry):
        raise UserError(f"{place}: give it either `score: NUMBER` or `scores: {{benchmark: NUMBER}}`; one of the two")
    scores = entry["scores"] if "scores" in entry else {"": entry["score"]}
    if not isinstance(scores, dict) or not scores:
        raise UserError(f"{place}: scores is {shown(scores)}; write `scores: {{benchmark: NUMBER}}`")
    for name, value in scores.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            what = f"score of {name}" if name else "score"
            raise UserError(f"{place}: its {what} is {shown(value)}, no finite number; give the benchmark's result")
    return statistics.fmean(scores.values())


def _check_benchmarks(entries: Sequence[Mapping[str, Any]], url: str) -> None:
    """Means over different benchmarks do not compare."""
    first = set(entries[0].get("scores", ()))
    for number, entry in enumerate(entries, 1):
        if different := first ^ set(entry.get("scores", ())):
            names = ", ".join(sorted(map(str, different)))
            raise UserError(f"{url}: models 1 and {number} differ in their benchmarks ({names}); give all the same")


def _check_names(rungs: Sequence[Rung], url: str) -> None:
    for same in _grouped(rungs, lambda rung: rung.name.casefold()).values():
        if len(same) > 1:
            raise UserError(f"{url}: {len(same)} models are named {shown(same[0].name)}; give each a `name` of its own")


def _check_scores(rungs: Sequence[Rung], url: str) -> None:
    groups = _grouped(rungs, lambda rung: rung.score)
    if len(groups) < _FEWEST:
        raise UserError(
            f"{url}: {len(rungs)} models with {len(groups)} distinct scores; models that tie order no documents, "
            f"so give scores of which {_FEWEST} or more differ"
        )
    for score, tied in groups.items():
        if len(tied) > 1:
            names = ", ".join(rung.name for rung in tied)
            warnings.warn(Notice(f"{url}: {names} have the same score {score:g} and form no pairs"), stacklevel=2)


def _grouped(rungs: Sequence[Rung], key: Callable[[Rung], Key]) -> dict[Key, list[Rung]]:
    groups: dict[Key, list[Rung]] = {}
    for rung in rungs:
        groups.setdefault(key(rung), []).append(rung)
    return groups
