"""What the arrays of a fitted scorer must be: types, shapes and ranges, stated as a table that is checked on load.

    {"log_ratio": ArraySpec("float32", ("groups", 10_000)), "shares": ArraySpec("float64", ("groups",), low=0),
     "groups": Names()}

A length is a number, or a name: that is one length wherever it stands. `Names` gives its own name a length, that of the
list. A name in braces makes an entry for each number below that length: of `left.{layers}` there are left.0, left.1...,
and a length named `outputs.{layers}` is one for each of them. No further array may be there.
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

_AT_ONCE = 1 << 20  # numbers that are looked at together
_MOST_NAMES = 1 << 16
_NUMBERED = re.compile(r"\{(\w+)\}")


class Unfit(ValueError):
    """Arrays, or a report, that a fitted scorer cannot use; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """An array.

    dtype: numpy's name for its type. shape: its lengths, by axis. or_shape: another shape that it may have. low, high:
    the least and the greatest number, if there are such. finite: whether NaN and infinities are refused. optional:
    whether it may be missing. empty: whether a length may be 0.
    """

    dtype: str
    shape: Shape
    low: float | None = None
    high: float | None = None
    finite: bool = True
    optional: bool = False
    empty: bool = False
    or_shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """A list of different names, as JSON in uint8: what `packed` gives. least: how many there are at least."""

    least: int = 1


Schema = Mapping[str, ArraySpec | Names]

GROUPS: Schema = {"groups": Names(), "shares": ArraySpec("float64", ("groups",), low=0, high=1)}
"""The arrays that a fit with `groups=` and `shares=` has, to be a part of its class's schema."""


def packed(names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Names as an array."""
    return np.frombuffer(json.dumps(list(names)).encode(), np.uint8)


def unpacked(array: Array) -> list[str]:
    """Names out of what `packed` gives. Raises Malformed for what is no list of names."""
    names = parsed(array.tobytes())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Malformed("no list of names")
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
        raise Unfit(f"array {unknown[0]} is not one of those that belong there")


def _in_order(schema: Schema) -> list[tuple[str, ArraySpec | Names]]:
    """What gives lengths comes before what is numbered by them."""
    return sorted(schema.items(), key=lambda entry: ("{" in entry[0], isinstance(entry[1], ArraySpec)))


def _numbered(
    name: str, spec: ArraySpec | Names, lengths: Mapping[str, int]
) -> Iterator[tuple[str, ArraySpec | Names]]:
    """The entry for each number of what stands in braces; itself where nothing does."""
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
    """In pieces, so that a large array stays where it lies."""
    finite = spec.finite and array.dtype.kind == "f"
    if not finite and spec.low is None and spec.high is None:
        return
    flat = array.reshape(-1)
    for first in range(0, len(flat), _AT_ONCE):
        part = flat[first : first + _AT_ONCE]
        if finite and not np.isfinite(part).all():
            raise Unfit(f"array {name} holds what is no finite number")
        if not _within(part, spec.low, spec.high):
            bounds = [str(bound) if bound is not None else "any" for bound in (spec.low, spec.high)]
            raise Unfit(f"array {name} holds a number out of its range, {' to '.join(bounds)}")


def _within(part: Array, low: float | None, high: float | None) -> bool:
    """NaN lies in no range."""
    return bool((low is None or (part >= low).all()) and (high is None or (part <= high).all()))


def _count(name: str, spec: Names, array: Array) -> int:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise Unfit(f"array {name} is {array.dtype} of shape {array.shape}, not bytes")
    try:
        names = unpacked(array)
        for one in names:
            one.encode("utf-8", "surrogateescape")
    except ValueError as error:
        raise Unfit(f"array {name} is no list of names ({error})") from error
    if not spec.least <= len(names) <= _MOST_NAMES or len(set(names)) < len(names):
        raise Unfit(f"array {name} has {len(names)} names, too few or too many, or one of them twice")
    return len(names)
