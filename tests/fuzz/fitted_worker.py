"""Changes fitted files at random and scores with what can be read of them: FOLDER SEED COUNT [FORM...].

Whatever was changed, a file gives float32 scores of the right shape, or one UserError of one line.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_cases
import numpy as np
import xxhash

import fitted_files
from dvsel.errors import UserError
from dvsel.runs import fitted_files as storage

NUMBERS = [0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 0.0, -1.0, 0.5, 1e308, 1e-308]
WORDS = ["", "x", "topk", "dclm", "cosine", "lava", "knn", "margin", "all", "*", "label", "hs", "ova", "mean", "\ud800"]
VALUES: list[Any] = [*NUMBERS, *WORDS, None, True, [], {}, [[]], float("nan"), float("inf"), "é" * 1000, [1, "a"]]
DTYPES = ["BOOL", "U8", "I8", "U16", "I32", "U32", "I64", "U64", "F16", "F32", "F64", "BF16", "X", 3, None]


@dataclass
class Parts:
    """A fitted file, taken apart: what its header says, but for what dvsel keeps there, and that; and the arrays."""

    tensors: dict[str, dict[str, Any]]
    kept: Any
    content: bytearray

    @classmethod
    def of(cls, file: bytes) -> Parts:
        end = 8 + int.from_bytes(file[:8], "little")
        tensors = json.loads(file[8:end])
        return cls(tensors, json.loads(tensors.pop("__metadata__")["dvsel"]), bytearray(file[end:]))

    def bytes(self) -> bytearray:
        """The file, with a digest that is right."""
        if isinstance(self.kept, dict) and "content" in self.kept:
            self.kept["content"] = self._digest()
        header = json.dumps({**self.tensors, "__metadata__": {"dvsel": json.dumps(self.kept)}}).encode()
        header += b" " * (-len(header) % 8)
        return bytearray(len(header).to_bytes(8, "little") + header + self.content)

    def _digest(self) -> str:
        hashed = xxhash.xxh3_128()
        for name in sorted(self.tensors):
            hashed.update(name.encode("utf-8", "replace"))
            try:
                begin, end = self.tensors[name]["data_offsets"]
                hashed.update(self.content[begin:end])
            except (TypeError, ValueError, KeyError):
                continue
        return hashed.hexdigest()

    def lay(self, name: str, dtype: str, shape: list[int], data: bytes) -> None:  # type: ignore[valid-type]
        """Give an array other bytes, and move those behind it. Large types come first, as safetensors has it."""
        held = {key: self.content[slice(*one["data_offsets"])] for key, one in self.tensors.items()}
        held[name] = bytearray(data)
        self.tensors[name] = {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
        sizes = {key: SIZES.get(one["dtype"], 1) for key, one in self.tensors.items()}
        self.content = bytearray()
        for key in sorted(held, key=lambda key: (-sizes[key], key)):
            begin = len(self.content)
            self.content += held[key]
            self.tensors[key]["data_offsets"] = [begin, len(self.content)]


SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "F16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that a JSON value holds."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, one in inside for found in leaves(one, (*path, key))]


def change_value(draw: random.Random, value: Any) -> None:
    """Change, or drop, something inside a JSON value."""
    paths = leaves(value)
    if not paths:
        return
    *way, last = draw.choice(paths)
    for key in way:
        value = value[key]
    if draw.random() < 0.2:
        del value[last]
    else:
        old = value[last]
        value[last] = draw.choice(VALUES) if draw.random() < 0.7 or type(old) not in (int, float) else near(draw, old)


def near(draw: random.Random, number: float) -> float:
    return draw.choice(
        [number + 1, number - 1, number * 2, -number, number // 2 if isinstance(number, int) else number]
    )


def change_options(draw: random.Random, parts: Parts) -> None:
    change_value(draw, parts.kept["options"])


def change_kept(draw: random.Random, parts: Parts) -> None:
    change_value(draw, parts.kept)


def change_header(draw: random.Random, parts: Parts) -> None:
    change_value(draw, parts.tensors)


def change_bytes(draw: random.Random, parts: Parts) -> None:
    """Bytes of an array, here and there or all."""
    begin, end = draw.choice(list(parts.tensors.values()))["data_offsets"]
    if end <= begin:
        return
    if draw.random() < 0.3:
        parts.content[begin:end] = draw.choice([b"\0", b"\xff", b"\x7f", draw.randbytes(1)]) * (end - begin)
        return
    for _ in range(draw.randrange(1, 6)):
        size = draw.choice([1, 1, 4, 8])
        at = draw.randrange(begin, end) // size * size
        odd = draw.choice([b"\xff" * size, b"\0" * size, draw.randbytes(size), (2**31).to_bytes(8, "little")[:size]])
        parts.content[at : min(at + size, end)] = odd[: max(min(size, end - at), 0)]


def change_json(draw: random.Random, parts: Parts) -> None:
    """What an array says as JSON."""
    names = [name for name in parts.tensors if name in ("groups", "layers", "names", "about")]
    if names:
        name = draw.choice(names)
        value = [json.loads(parts.content[slice(*parts.tensors[name]["data_offsets"])])]
        change_value(draw, value)
        text = draw.choice([json.dumps(value[0] if value else None).encode(), b"[" * draw.choice([1, 100_000]), b'"'])
        parts.lay(name, "U8", [len(text)], text)


def change_shape(draw: random.Random, parts: Parts) -> None:
    """An array of another shape or type, whose bytes are as many as that says."""
    name = draw.choice(list(parts.tensors))
    dtype, shape = parts.tensors[name]["dtype"], list(parts.tensors[name]["shape"])
    data = bytes(parts.content[slice(*parts.tensors[name]["data_offsets"])])
    if draw.random() < 0.2:
        dtype = draw.choice(list(SIZES))
    if shape and draw.random() < 0.8:
        shape[draw.randrange(len(shape))] = draw.choice([0, 1, 2, 3, 5, shape[0] + 1, max(shape[0] - 1, 0), 1000])
    else:
        shape = draw.choice([shape[::-1], [*shape, 1], shape[1:], [int(np.prod(shape))]])
    size = int(np.prod(shape, dtype=object)) * SIZES[dtype] if shape else SIZES[dtype]
    if size < 1 << 20:
        parts.lay(name, dtype, shape, (data + draw.randbytes(64) + bytes(size))[:size])


def change_names(draw: random.Random, parts: Parts) -> None:
    """Drop, add or rename an array."""
    name = draw.choice(list(parts.tensors))
    match draw.randrange(3):
        case 0:
            parts.lay(name, "U8", [0], b"")
            del parts.tensors[name]
        case 1:
            parts.lay(draw.choice(["more", "left.0.9", "model", "weights", "é"]), "F32", [2, 2], draw.randbytes(16))
        case 2:
            parts.tensors[draw.choice([*parts.tensors, "other"])] = parts.tensors.pop(name)


CHANGES = [change_options, change_kept, change_header, change_bytes, change_json, change_shape, change_names]
WEIGHTS = [4, 2, 2, 4, 2, 3, 1]


def change_file(draw: random.Random, file: bytearray) -> bytearray:
    """Without regard to what it is: cut, flipped, spliced."""
    at, end = draw.randrange(len(file)), draw.randrange(len(file) + 1)
    match draw.randrange(5):
        case 0:
            del file[at:]
        case 1:
            file[at] ^= 1 << draw.randrange(8)
        case 2:
            file[at:at] = draw.randbytes(draw.randrange(1, 20))
        case 3:
            file[at:end] = file[: draw.randrange(len(file))]
        case 4:
            file[:8] = draw.choice([0, 2, len(file), len(file) - 8, 2**63, 2**64 - 1, 10**8]).to_bytes(8, "little")
    return file


def changed(draw: random.Random, file: bytes) -> bytearray:
    """A file with one to three changes."""
    if draw.random() < 0.1:
        return change_file(draw, bytearray(file))
    parts = Parts.of(file)
    for change in draw.choices(CHANGES, WEIGHTS, k=draw.choice([1, 1, 1, 2, 3])):
        try:
            change(draw, parts)
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
            break  # an earlier change left nothing for this one
    try:
        return parts.bytes()
    except (TypeError, ValueError):
        return bytearray(file)


def outcome(content: bytearray) -> str:
    """Read and score; AssertionError where that is neither scores nor one line."""
    try:
        fitted = storage.from_bytes(content, "file")
        texts = fitted_files.ODD_TEXTS
        scores = fitted.score(fitted_files.batch(texts, fitted.scorer.needs))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, f"no line: {str(error)[:500]!r}"
        return "refused"
    shapes = [(len(texts),), (len(texts), 1)] if len(fitted.groups) == 1 else [(len(texts), len(fitted.groups))]
    assert scores.dtype == np.float32 and scores.shape in shapes, (scores.dtype, scores.shape)
    return "scored"


if __name__ == "__main__":
    np.seterr(all="ignore")
    FILES = {path.stem: path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.fitted"))}
    FORMS = sys.argv[4:] or list(FILES)
    for form in FORMS:  # compile and import what is needed before the limit
        assert outcome(bytearray(FILES[form])) == "scored", form
    fuzz_cases.run(lambda draw: outcome(changed(draw, FILES[draw.choice(FORMS)])))
