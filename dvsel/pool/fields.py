"""The fields that a run names: whether the pool has them, and what to write where it has not.

A field that the heads of up to `_HEADS` shards, spread over the pool, do not have once is an error, told before any
work is done. One that fewer than half of the documents have is told at the end, with the exact numbers, which the
totals of row files hold. Nothing is said of `id` and `domain` where nobody named them: they may well be absent.
"""

from __future__ import annotations

import difflib
import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from dvsel.documents.columns import Kind
from dvsel.errors import UserError, shown
from dvsel.options import fields_of
from dvsel.redact import printable
from dvsel.runs.requests import Reading
from dvsel.score_files.rows import Totals
from dvsel.shards.reader import DocumentBlock, DocumentReader
from dvsel.storage.places import Shard

if TYPE_CHECKING:
    import pyarrow as pa

_HEADS = 256
_HEAD = 1 << 20  # bytes
_LINES = 64  # of a head whose fields are listed
_NAMED = 8
_LOOKED_AT = 1000  # names, and of each so many characters: a stranger's document may have millions
_LONGEST = 80
_DEEPEST = 3
_DEFAULTS = {name: fields_of(Reading)[name][0].default for name in ("id_field", "domain_field")}


def named_fields(reading: Reading, tokens_field: str | None = None, scorer: Any = None) -> dict[str, str]:
    """The fields that the user names and a run cannot do without: the flag by path.

    A single text's is not among them where a bad line ends the run: the first one tells more.
    """
    found = {getattr(reading, name): name for name, default in _DEFAULTS.items() if getattr(reading, name) != default}
    if reading.on_bad_line == "skip" or len(reading.text_fields) > 1:
        found |= dict.fromkeys(reading.text_fields, "text_field")
    if tokens_field:
        found[tokens_field] = "tokens_field"
    options = fields_of(type(scorer)) if scorer is not None else {}
    for name, (field, _) in options.items():
        value = getattr(scorer, name)
        if name.endswith("_field") and value in scorer.needs and value != field.default:
            found[value] = name
    return {path: f"--{name.replace('_', '-')}" for path, name in found.items()}


def check_fields(shards: Sequence[Shard], wanted: Mapping[str, str]) -> None:
    """Raise UserError for a field that the heads of shards, spread over the pool, do not have once.

    wanted: the flag by path. What cannot be read is passed over here, as reading says what is wrong.
    """
    missing, seen, names = dict(wanted), 0, dict[str, None]()
    step = max(len(shards) // _HEADS, 1)
    for shard in shards[::step][:_HEADS]:
        if not missing:
            return
        for documents in _head(shard, list(missing)):
            seen += len(documents.fields[next(iter(missing))]) - len(documents.bad)
            missing = {path: flag for path, flag in missing.items() if not _is_there(documents, path)}
            names |= dict.fromkeys(_names_in(documents, shard))
    for path, flag in missing.items() if seen else ():
        raise UserError(
            f"none of the first {seen:,} documents has a field {path!r} ({flag}); {instead(path, list(names), flag)}"
        )


def _head(shard: Shard, paths: Sequence[str]) -> Iterator[DocumentBlock]:
    """The first documents of a shard, if they can be read."""
    try:
        with DocumentReader(shard, paths, block=_HEAD) as reader:
            if (documents := next(iter(reader), None)) is not None:
                yield documents
    except UserError:
        return


def _is_there(documents: DocumentBlock, path: str) -> bool:
    return bool((documents.fields[path].kind != Kind.MISSING).any())


def _names_in(documents: DocumentBlock, shard: Shard) -> list[str]:
    if documents.lines is None:
        return names_of(documents, 0, shard)
    rows = [row for row in range(min(len(documents.lines), _LINES)) if row not in documents.bad]
    return list(dict.fromkeys(name for row in rows for name in names_of(documents, row, shard)))


def names_of(documents: DocumentBlock, row: int, shard: Shard | None) -> list[str]:
    """The dotted names of the fields of a document, in its order; of a row of a table those of all columns."""
    if documents.lines is not None:
        return names_in(documents.lines[row])
    from dvsel.shards.tables import TableReader

    assert shard is not None
    with TableReader(shard, ()) as reader:
        return list(itertools.islice(_of_columns(reader.schema()), _LOOKED_AT))


def names_in(line: bytes) -> list[str]:
    """The dotted names of the fields of a line that holds a JSON object."""
    return list(itertools.islice(_of_object(orjson.loads(line)), _LOOKED_AT))


def _of_object(value: Mapping[str, Any], above: str = "", depth: int = 1) -> Iterator[str]:
    for key, part in value.items():
        if isinstance(part, dict) and part and depth < _DEEPEST:
            yield from _of_object(part, f"{above}{key}.", depth + 1)
        else:
            yield above + key


def _of_columns(columns: pa.Schema | pa.StructType, above: str = "", depth: int = 1) -> Iterator[str]:
    from dvsel.shards.arrow_types import is_struct

    for column in columns:
        if is_struct(column.type) and len(column.type) and depth < _DEEPEST:
            yield from _of_columns(column.type, f"{above}{column.name}.", depth + 1)
        else:
            yield above + column.name


def instead(path: str, names: Sequence[str], flag: str) -> str:
    """The end of an error for a missing field: the fields there are, and what to write. names: untrusted."""
    names = [name[:_LONGEST] for name in names[:_LOOKED_AT]]
    if not names:
        return "there are no fields"
    known = {name.rpartition(".")[2]: name for name in names} | {name: name for name in names}
    close = difflib.get_close_matches(path, known, n=1)
    remedy = f"did you mean {flag} {printable(shlex.quote(known[close[0]]))}?" if close else f"name another with {flag}"
    return f"there are {listed(names)}; {remedy}"


def listed(names: Sequence[str], most: int = _NAMED) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(printable(shown(name)) for name in names[:most])
    return f"{first} and {len(names) - most:,} more" if len(names) > most else first


def sparse(totals: Totals) -> list[str]:
    """Lines for the summary on named fields that fewer than half of the documents have."""
    documents = totals.rows - totals.status.get("bad_line", 0)
    return [
        f"only {documents - absent:,} of {documents:,} documents have a field {path!r}"
        for path, absent in totals.absent.items()
        if absent * 2 > documents and path not in _DEFAULTS.values()
    ]
