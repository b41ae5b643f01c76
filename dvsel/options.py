"""Options as fields of frozen dataclasses: one declaration serves the flags, the recipes and the record of a run.

A run is composed: options that several runs have are a class of their own, and a `part` of each. Flags, recipes and
keywords name options flat, whatever part they are in: `fields_of`, `flat` and `build` go from one form to the other.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from dvsel.errors import UserError, shown
from dvsel.redact import without_secrets

T = TypeVar("T")

Scope = Callable[[Any], str]
"""Tells whether an option is read: "" where it is, else cause and remedy, which end an error's line."""

LARGEST = 2**63 - 1
"""The largest whole number that an option takes: kernels and file formats hold 64 bits."""


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    documents: bool = False,
    files: bool = False,
    flag: str = "",
    env: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    when: Scope | None = None,
    scope: Scope | None = None,
) -> Any:
    """Declare a field of an options dataclass.

    help: one line for `--help`, to which the range is added. documents: the option, a tuple of strings, names shards,
    whose documents `Scorer.fit` gets. files: it names files or folders that are read, so that nothing is written over
    them, and nothing made from them is used again once they changed; of `documents` that is so anyway. flag: what the
    command line calls it, if not by the field's name. env: the environment variable that is its default there.

    choices: the strings that are allowed, beside the default. minimum, maximum: the least and the greatest number that
    is allowed; above, below: bounds that the number may not reach. In a tuple they hold for each value. Without them
    whole numbers are within `LARGEST`, others finite.

    when: whether it is read, by the options beside it (`under`); scope: by the whole run. An option that is given and
    not read is refused (`refuse_unread`).
    """
    metadata = {"help": help, "choices": choices, "documents": documents, "files": files or documents, "flag": flag,
                "env": env, "range": Range(minimum, maximum, above, below), "when": when, "scope": scope}  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


def part(cls: type[T]) -> T:
    """Declare a field that holds options of this class. No option of the whole may have the name of another."""
    made: T = dataclasses.field(default_factory=cls, metadata={"part": cls})
    return made


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that an option takes; None for a bound that is not set."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        most = LARGEST if isinstance(number, int) else sys.float_info.max
        least = -most if self.minimum is None else self.minimum
        within = least <= number <= (most if self.maximum is None else self.maximum)
        return within and (self.above is None or number > self.above) and (self.below is None or number < self.below)

    def __str__(self) -> str:
        """Return the range in words; "" where it leaves out no number."""
        ends = [one for one in dataclasses.astuple(self) if one is not None and math.isfinite(one)]
        if not ends:
            return ""
        if len(ends) == 1:
            return next(text for text in self._words("{} or more", "{} or less") if text)
        if self.above is None and self.below is None:
            return f"{self.minimum} to {self.maximum}"
        return " and ".join(text for text in self._words("at least {}", "at most {}") if text)

    def _words(self, minimum: str, maximum: str) -> Iterator[str]:
        """Return each bound in words, the lower first; "" for one that is not set."""
        words = ("above {}", self.above), (minimum, self.minimum), (maximum, self.maximum), ("below {}", self.below)
        return ("" if bound is None else text.format(bound) for text, bound in words)


@dataclasses.dataclass(frozen=True)
class Options:
    """The base of all options, which checks each as its `option` declares it, wherever it comes from.

    Making one raises UserError for a number out of its range, for text that is none of the choices or cannot be
    written, and for an option that those beside it leave unread. Only what a declaration cannot say, as how options go
    together, is left to a `__post_init__` of a class, which begins with `super().__post_init__()`.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), field.name.rstrip("_")
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, int | float) and not isinstance(one, bool):
                    _check_range(name, one, field.metadata.get("range") or Range())
                elif isinstance(one, str):
                    _check_text(name, one)
                if one != field.default:
                    check_choice(name, one, field.metadata.get("choices"))
        for field in dataclasses.fields(self):
            when = field.metadata.get("when")
            if when and getattr(self, field.name) != field.default and (why := when(self)):
                raise UserError(f"--{flag_of(field)}: {why}")


def _check_text(name: str, text: str) -> None:
    """Raise UserError for NUL and lone surrogates, which YAML can write, and which no system call and no file takes.

    The name of a file, unlike that of a field, may have bytes that are not UTF-8: Python holds them as surrogates.
    """
    try:
        bad = b"\0" in text.encode("utf-8", "strict" if name.endswith("field") else "surrogateescape")
    except UnicodeEncodeError:
        bad = True
    if bad:
        raise UserError(f"{name} {shown(text)}: has a character that no name can have; take it out")


def _check_range(name: str, number: float, wanted: Range) -> None:
    if isinstance(number, float) and math.isnan(number):
        raise UserError(f"{name} {number}: out of range; give a number")
    if number not in wanted:
        words = str(wanted) or "a finite number of ordinary size"
        article = "a number " if words.startswith(("above", "below")) else ""
        raise UserError(f"{name} {shown(number)}: out of range; give {article}{words}")


def check_choice(place: str, value: Any, choices: tuple[str, ...] | None) -> None:
    """Raise UserError for a value that is none of the choices, where there are some. place: names the option."""
    if choices and value not in choices:
        raise UserError(f"{place} {shown(value)}: unknown; give one of {', '.join(choices)}")


def help_of(field: dataclasses.Field[Any]) -> str:
    """Return an option's line of help, with its range."""
    words, limits = field.metadata["help"], field.metadata["range"]
    if limits.maximum == LARGEST:  # of every whole number, and no help to a reader
        limits = dataclasses.replace(limits, maximum=None)
    return f"{words} ({limits})" if str(limits) else str(words)


def fields_of(cls: type) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return the options of a dataclass and of its parts: name -> (field, type)."""
    hints = typing.get_type_hints(cls)
    found: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for field in dataclasses.fields(cls):
        if inner := field.metadata.get("part"):
            found |= fields_of(inner)
        elif field.init:
            found[field.name] = field, hints[field.name]
    return found


def flat(options: Any) -> dict[str, Any]:
    """Return the values of the options and of their parts, by name."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.metadata.get("part"):
            found |= flat(value)
        elif field.init:
            found[field.name] = value
    return found


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return options of these values, which `flat` gives back. Those that are not named are at their defaults."""
    made = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if inner := field.metadata.get("part"):
            made[field.name] = build(inner, {name: values[name] for name in fields_of(inner) if name in values})
        elif field.name in values:
            made[field.name] = values[field.name]
    return cls(**made)


def flag_of(field: dataclasses.Field[Any]) -> str:
    """Return an option's name on the command line, without its dashes."""
    name: str = field.metadata.get("flag") or field.name
    return name.rstrip("_").replace("_", "-")


def under(name: str, *values: Any) -> Scope:
    """Return a scope: read where the option `name` beside it has one of these values, or where it is given."""
    flag = f"--{name.replace('_', '-')}"
    owner = " or ".join(f"{flag} {value}" for value in values) if values else flag

    def why(options: Any) -> str:
        value = getattr(options, name)
        read = value in values if values else value not in (None, "", (), 0)
        return "" if read else f"belongs to {owner}; add that, or drop it"

    return why


def unless(name: str) -> Scope:
    """Return a scope: read where the option `name` beside it is not given."""
    flag = name.replace("_", "-")
    return lambda options: f"is not read beside --{flag}; drop one of the two" if getattr(options, name) else ""


def provided(name: str, otherwise: str) -> Scope:
    """Return a scope: read where the property `name` of the options is true; `otherwise` says why not."""
    return lambda options: "" if getattr(options, name) else otherwise


def every(*scopes: Scope) -> Scope:
    """Return a scope: read where all of these say so."""
    return lambda options: next((why for scope in scopes if (why := scope(options))), "")


def changed(options: Any) -> set[str]:
    """Return the names of the options that are not at their defaults."""
    fields = fields_of(type(options))
    return {name for name, value in flat(options).items() if value != fields[name][0].default}


def unread(options: Any, run: Any = None, names: Collection[str] | None = None) -> dict[str, str]:
    """Return the options, of these names or all, that nothing reads in a run, each with cause and remedy.

    run: passed to the scopes, made or a draft; None for the options themselves.
    """
    options = flattened(options)
    run = options if run is None else flattened(run)
    found = {}
    for name, (field, _) in fields_of(type(options)).items():
        if names is None or name in names:
            when, scope = field.metadata.get("when"), field.metadata.get("scope")
            found[name] = (when and when(options)) or (scope and scope(run)) or ""
    return {name: why for name, why in found.items() if why}


def refuse_unread(options: Any, given: Collection[str] | None = None, run: Any = None) -> None:
    """Raise UserError for an option that was given and that nothing reads.

    given: names of options; None for those that are not at their defaults.
    """
    for name, why in unread(options, run, changed(options) if given is None else given).items():
        raise UserError(f"--{flag_of(fields_of(type(options))[name][0])}: {why}")


def draft(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return options without parts and without a check, so that their scopes can be asked before they are made."""
    made = object.__new__(cls)  # past `__init__`, whose checks would refuse what is to be asked about
    for name, (field, _) in fields_of(cls).items():
        object.__setattr__(made, name, values.get(name, field.default))
    return made


def flattened(options: Any) -> Any:
    """Return the options with those of their parts beside them, as scopes ask for them."""
    if not dataclasses.is_dataclass(options) or isinstance(options, type):
        return options
    parts = [field.name for field in dataclasses.fields(options) if field.metadata.get("part")]
    is_made = all(hasattr(options, name) for name in parts)
    return draft(type(options), flat(options)) if parts and is_made else options


def to_mapping(options: Any) -> dict[str, Any]:
    """Return the options as plain values, ready for YAML."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat(options).items()}


def files_named(options: Any, skip: Collection[str] = ()) -> list[str]:
    """Return the files and folders that the options name, those of a run's scorer and selector included."""
    named: list[str] = []
    fields = fields_of(type(options))
    for name, value in flat(options).items():
        if dataclasses.is_dataclass(value):
            named += files_named(value, skip)
        elif fields[name][0].metadata.get("files") and name not in skip:
            named += [value] if isinstance(value, str) else value or []
    return [one for one in named if one]


def among(cls: type[T], options: Any) -> T:
    """Return options of `cls` with the values that `options`, which has more, gives them."""
    values = flat(options)
    return build(cls, {name: values[name] for name in fields_of(cls)})


def chosen(options: Any) -> list[str]:
    """Return the options that are not at their defaults, as `name=value`, without secrets."""
    away = changed(options)
    return [without_secrets(f"{name}={value}") for name, value in to_mapping(options).items() if name in away]


def from_mapping(cls: type[T], values: Mapping[str, Any], place: str) -> T:
    """Return options from plain values. Raises UserError, which names `place`, for unknown keys and unusable values."""
    fields = fields_of(cls)
    for name in values:
        if name not in fields:
            raise UserError(f"{place}: unknown option {shown(name)}; {nearest(name, fields)}")
    values = {name: checked(value, fields[name][1], f"{place}: option {name!r}") for name, value in values.items()}
    try:
        return build(cls, values)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of an error for an unknown name: a near name if there is one, else all known names."""
    known = list(known)
    close = difflib.get_close_matches(str(name)[:80], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def base_type(hint: Any) -> Any:
    """Return `X` of `X | None`, else the hint itself."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def checked(value: Any, hint: Any, place: str) -> Any:
    """Return a plain value as the type that `hint` names; UserError, which `place` begins, for one of another type."""
    wanted = base_type(hint)
    if value is None and wanted is not hint:
        return None
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{place} is {shown(value)}; it takes a list")
        element = typing.get_args(wanted)[0]
        return tuple(checked(part, element, place) for part in value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise UserError(f"{place} is {shown(value)}; it takes {wanted.__name__}")
    return value
