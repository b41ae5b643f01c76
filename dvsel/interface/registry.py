"""Scorers and selectors by name, dvsel's own and those of other packages, found through entry points.

Listing names imports nothing; only the one that is used is loaded.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from dvsel.errors import UserError, shown
from dvsel.options import nearest

if TYPE_CHECKING:
    from dvsel.interface.scorer import Scorer
    from dvsel.interface.selector import Selector

SCORERS = "dvsel.scorers"
SELECTORS = "dvsel.selectors"


def registered(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, sorted. Raises UserError where two packages claim one name."""
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        other = points.setdefault(point.name, point)
        if other.value != point.value:
            raise UserError(
                f"two packages provide {group.removeprefix('dvsel.')[:-1]} {point.name!r} "
                f"({other.value} and {point.value}); uninstall one"
            )
    return points


def scorer_class(name: str, place: str = "") -> type[Scorer]:
    """Return the scorer of that name; `place` begins an error's line."""
    from dvsel.interface.scorer import Scorer

    cls: type[Scorer] = _load(SCORERS, name, Scorer, place)
    return cls


def selector_class(name: str) -> type[Selector]:
    """Return the selector of that name."""
    from dvsel.interface.selector import Selector

    cls: type[Selector] = _load(SELECTORS, name, Selector)
    return cls


def name_of(group: str, cls: type) -> str:
    """Return the name under which a class is registered."""
    for name, point in registered(group).items():
        if point.value == f"{cls.__module__}:{cls.__qualname__}":
            return name
    raise UserError(
        f"{cls.__qualname__} is not registered in the entry points of {group!r}; see dvsel/interface/scorer.py"
    )


def _load(group: str, name: str, base: type, place: str = "") -> Any:
    points = registered(group)
    what = group.removeprefix("dvsel.")[:-1]
    if name not in points:
        raise UserError(f"{place}no {what} is named {shown(name)}; {nearest(name, points)} (`dvsel list` shows all)")
    try:
        cls = points[name].load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what} {name!r} ({points[name].value}) cannot be loaded: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UserError(f"{what} {name!r} ({points[name].value}) is not a {base.__name__} class")
    return cls
