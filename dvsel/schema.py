"""Types, shapes and ranges of a fitted scorer's arrays, stated as a table that is checked when a file is read.

    {"log_ratio": ArraySpec("float32", ("groups", 10_000)), "shares": ArraySpec("float64", ("groups",), minimum=0),
     "groups": Names()}

A length is a number or a name; a name means the same length wherever it stands. `Names` gives its own name a length,
that of the list. A name in braces makes an entry for each number below that length: `left.{layers}` stands for left.0,
left.1, ..., and a length named `outputs.{layers}` may differ between them. Any further array is refused.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dvsel.storage.tensors import Malformed, parsed

Array = npt.NDArray[Any]
Shape = tuple[int | str, ...]

_AT_ONCE = 1 << 20  # numbers that are checked together
_MOST_NAMES = 1 << 16
_NUMBERED = re.compile(r"\{(\w+)\}")


class Unfit(ValueError):
    """Raised for arrays, or a report, that a fitted scorer cannot use; the message names them and says why."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Type, shape and range of an array.

    dtype: numpy's name for its type. shape: its lengths, by axis. or_shape: another shape that it may have. minimum,
    maximum: the least and the greatest number; None for no bound. finite: NaN and infinities are refused. optional: the
    array may be missing. empty: a length may be 0.
    """

    dtype: str
    shape: Shape
    minimum: float | None = None
    maximum: float | None = None
    finite: bool = True
    optional: bool = False
    empty: bool = False
    or_shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """A list of different names, as `packed` writes it. minimum: the least number of names."""

    minimum: int = 1


Schema = Mapping[str, ArraySpec | Names]

GROUPS: Schema = {"groups": Names(), "shares": ArraySpec("float64", ("groups",), minimum=0, maximum=1)}
"""The arrays that a fit with `groups=` and `shares=` has, to be a part of its class's schema."""


def packed(names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return names as an array: JSON in uint8."""
    return np.frombuffer(json.dumps(list(names)).encode(), np.uint8)


def unpacked(array: Array) -> list[str]:
    """Return the names that `packed` wrote. Raises Malformed for anything that is not a list of names."""
    names = parsed(array.tobytes())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Malformed("not a list of names")
    return names


def check(arrays: Mapping[str, Array], schema: Schema) -> None:
    """Raise Unfit for arrays that are not as the schema says."""
    lengths: dict[str, int] = {}
    known = set()
    for name, spec in _in_order(schema):
        for one, its in _numbered(name, spec, lengths):
            known.add(one)
            if one in arrays:
                _check(one, its, arrays[one], lengths)
            elif isinstance(its, Names) or not its.optional:
                raise Unfit(f"array {one} is missing")
    if unknown := sorted(set(arrays) - known):
        raise Unfit(f"array {unknown[0]} does not belong there")


def _in_order(schema: Schema) -> list[tuple[str, ArraySpec | Names]]:
    """Sort entries that give lengths before entries that are numbered by them."""
    return sorted(schema.items(), key=lambda entry: ("{" in entry[0], isinstance(entry[1], ArraySpec)))


def _numbered(
    name: str, spec: ArraySpec | Names, lengths: Mapping[str, int]
) -> Iterator[tuple[str, ArraySpec | Names]]:
    """Yield the entry for each number that names in braces stand for; the entry itself without braces."""
    by = list(dict.fromkeys(_NUMBERED.findall(name)))
    for numbers in itertools.product(*(range(lengths[one]) for one in by)):
        values = dict(zip(by, numbers, strict=True))
        if values and isinstance(spec, ArraySpec):
            yield (
                name.format_map(values),
                replace(
                    spec, shape=_filled(spec.shape, values), or_shape=spec.or_shape and _filled(spec.or_shape, values)
                ),
            )
        else:
            yield name, spec


def _filled(shape: Shape, values: Mapping[str, int]) -> Shape:
    return tuple(axis.format_map(values) if isinstance(axis, str) else axis for axis in shape)


def _check(name: str, spec: ArraySpec | Names, array: Array, lengths: dict[str, int]) -> None:
    if isinstance(spec, Names):
        lengths[name] = _count(name, spec, array)
        return
    shape = spec.or_shape if spec.or_shape and len(spec.or_shape) == array.ndim else spec.shape
    if array.dtype != spec.dtype or array.ndim != len(shape):
        raise _misshapen(name, array, spec.dtype, shape, lengths)
    for axis, length in zip(shape, array.shape, strict=True):
        wanted = lengths.setdefault(axis, length) if isinstance(axis, str) else axis
        if length != wanted or (length == 0 and not spec.empty):
            raise _misshapen(name, array, spec.dtype, shape, lengths)
    _check_numbers(name, spec, array)


def _misshapen(name: str, array: Array, dtype: str, shape: Shape, lengths: Mapping[Any, int]) -> Unfit:
    wanted = ", ".join(f"{axis} {lengths[axis]}" if axis in lengths else str(axis) for axis in shape)
    return Unfit(f"array {name} is {array.dtype} of shape {array.shape}, not {dtype} of ({wanted})")


def _check_numbers(name: str, spec: ArraySpec, array: Array) -> None:
    """Raise Unfit for numbers out of range. In pieces: a mapped file is then never in memory as a whole."""
    finite = spec.finite and array.dtype.kind == "f"
    if not finite and spec.minimum is None and spec.maximum is None:
        return
    flat = array.reshape(-1)
    for first in range(0, len(flat), _AT_ONCE):
        part = flat[first : first + _AT_ONCE]
        if finite and not np.isfinite(part).all():
            raise Unfit(f"array {name} holds NaN or an infinite number")
        if not _within(part, spec.minimum, spec.maximum):
            bounds = [str(bound) if bound is not None else "any" for bound in (spec.minimum, spec.maximum)]
            raise Unfit(f"array {name} holds a number out of its range, {' to '.join(bounds)}")


def _within(part: Array, minimum: float | None, maximum: float | None) -> bool:
    """Return whether all numbers are in the range; NaN is in no range."""
    return bool((minimum is None or (part >= minimum).all()) and (maximum is None or (part <= maximum).all()))


def _count(name: str, spec: Names, array: Array) -> int:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise Unfit(f"array {name} is {array.dtype} of shape {array.shape}, not bytes")
    try:
        names = unpacked(array)
        for one in names:
            one.encode("utf-8", "surrogateescape")
    except ValueError as error:
        raise Unfit(f"array {name} is not a list of names ({error})") from error
    if not spec.minimum <= len(names) <= _MOST_NAMES or len(set(names)) < len(names):
        raise Unfit(f"array {name} has {len(names)} names, too few or too many, or one of them twice")
    return len(names)
