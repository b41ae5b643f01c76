"""Arrow's types: which of them can be read, and what they are made of."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

VIEWS = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}
_BYTES = {"string": "binary", "large_string": "large_binary", "string_view": "binary_view"}
_LISTS = {"list": "list_", "fixed_size_list": "list_"}
_DEEPEST = 64  # levels of nesting: orjson writes 254, and Python's own stack ends soon after
_SIMPLE = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_timestamp,
    pa.types.is_duration,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_string,
    pa.types.is_large_string,
)


def refusal(type_: pa.DataType, depth: int = 0) -> str:
    """Cause for which values of a type cannot be read, or "": unions, intervals and types that pyarrow has no name for.

    Raises UnicodeDecodeError where the name of a field or of a time zone is not UTF-8.
    """
    if depth > _DEEPEST:
        return f"nested more than {_DEEPEST} levels deep"
    if not (is_struct(type_) or _parts(type_) or str(type_) in VIEWS or any(check(type_) for check in _SIMPLE)):
        return f"of Arrow's type {str(type_).partition('<')[0]}"
    _names(type_)
    _ = pa.types.is_timestamp(type_) and type_.tz
    return next(filter(None, (refusal(part, depth + 1) for part in _parts(type_))), "")


def repeated_name(type_: pa.DataType) -> str | None:
    """A name, which may be empty, that two fields of one struct have, at any level."""
    found = (repeated(_names(type_)), *map(repeated_name, _parts(type_)))
    return next((name for name in found if name is not None), None)


def repeated(names: list[str]) -> str | None:
    """The first name, which may be empty, that is there more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def is_struct(type_: pa.DataType) -> bool:
    """Return whether its values have named fields."""
    return bool(pa.types.is_struct(type_))


def is_extension(type_: pa.DataType) -> bool:
    """Return whether it is another type with a name of its own."""
    return isinstance(type_, pa.BaseExtensionType)


def is_list(type_: pa.DataType) -> bool:
    """Return whether it is a list of any kind; a map is not."""
    is_ = pa.types
    return is_.is_list(type_) or is_.is_large_list(type_) or is_.is_fixed_size_list(type_) or is_list_view(type_)


def is_list_view(type_: pa.DataType) -> bool:
    """Return whether it is a list whose rows may share their values."""
    return str(type_).startswith(("list_view<", "large_list_view<"))


def is_encoded(type_: pa.DataType) -> bool:
    """Return whether a few stored bytes may stand for many rows, at any level."""
    is_ = pa.types
    own = is_.is_dictionary(type_) or is_.is_run_end_encoded(type_) or is_list_view(type_) or str(type_) in VIEWS
    return own or any(map(is_encoded, _parts(type_)))


def is_weightless(type_: Any) -> bool:
    """Return whether values may take no stored bytes at all, at any level."""
    is_, own = pa.types, False
    if is_.is_fixed_size_binary(type_):
        own = type_.byte_width == 0
    elif is_.is_fixed_size_list(type_):
        own = type_.list_size == 0
    own = own or is_.is_null(type_) or (is_struct(type_) and not len(type_))
    return own or any(map(is_weightless, _parts(type_)))


def has_runs(type_: pa.DataType) -> bool:
    """Return whether it is run-end encoded, at any level."""
    return pa.types.is_run_end_encoded(type_) or any(map(has_runs, _parts(type_)))


def is_text(type_: pa.DataType) -> bool:
    """Return whether its values are strings, laid end to end."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def is_text_dictionary(type_: Any) -> bool:
    """Return whether its values are numbers of strings in a dictionary."""
    return pa.types.is_dictionary(type_) and is_text(type_.value_type)


def value_type(type_: Any) -> pa.DataType:
    """Return the type of the values without dictionaries, runs, views and extensions."""
    if is_extension(type_) or pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return value_type(_parts(type_)[0])
    return VIEWS.get(str(type_), type_)


def as_bytes(type_: Any) -> pa.DataType:
    """The type of the same layout with binary for strings, at any level but inside runs."""
    is_, name = pa.types, str(type_).partition("<")[0]
    if name in _BYTES:
        return getattr(pa, _BYTES[name])()
    if is_extension(type_):
        return as_bytes(type_.storage_type)
    if is_struct(type_):
        return pa.struct([field.with_type(as_bytes(field.type)) for field in type_])
    if is_.is_map(type_):
        return pa.map_(as_bytes(type_.key_type), type_.item_field.with_type(as_bytes(type_.item_type)))
    if is_.is_dictionary(type_):
        return pa.dictionary(type_.index_type, as_bytes(type_.value_type), type_.ordered)
    if is_list(type_):
        item = type_.value_field.with_type(as_bytes(type_.value_type))
        sizes = (type_.list_size,) if is_.is_fixed_size_list(type_) else ()
        return getattr(pa, _LISTS.get(name, name))(item, *sizes)
    return type_


def _names(type_: Any) -> list[str]:
    """The names of a struct's fields."""
    return [field.name for field in type_] if is_struct(type_) else []


def _parts(type_: Any) -> list[pa.DataType]:
    """The types that a type is made of."""
    is_ = pa.types
    if is_extension(type_):
        return [type_.storage_type]
    if is_struct(type_):
        return [field.type for field in type_]
    if is_.is_map(type_):
        return [type_.key_type, type_.item_type]
    if is_list(type_) or is_.is_dictionary(type_) or is_.is_run_end_encoded(type_):
        return [type_.value_type]
    return []
