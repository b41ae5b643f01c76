"""Folded models in the user's cache folder, so that a large model is folded once.

A file of the cache is as good as making it anew: one that is damaged or cannot be read is made again, and where
none can be written, none is.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from dvsel import __version__
from dvsel.shards.files import info, is_remote, local_path, open_read

Arrays = dict[str, npt.NDArray[Any]]

_FOLDING = ("folded.py", "kernels/*.py")  # what other code of ours folded is stale
_DIGEST = "digest"
_ENDS = 1 << 20


def key_of(url: str, *options: str) -> str:
    """What names a file's content and what is made of it: place, size, time and both ends of the file, the options,
    and the code that folds."""
    size, modified = info(url)
    place = url if is_remote(url) else str(local_path(url).resolve())
    hashed = xxhash.xxh3_128()
    for part in (place, str(size), modified, __version__, *options):
        hashed.update(f"{len(part)}:{part}".encode("utf-8", "surrogateescape"))
    for pattern in _FOLDING:
        for code in sorted(Path(__file__).parent.glob(pattern)):
            hashed.update(code.read_bytes())
    with open_read(url) as file:
        hashed.update(file.read(_ENDS))
        file.seek(max(size - _ENDS, 0))
        hashed.update(file.read(_ENDS))
    return hashed.hexdigest()


def folder() -> Path:
    """Where folded models are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dvsel" / "fasttext"


def read(key: str) -> Arrays | None:
    """What was written under the key; None where nothing is there, or nothing whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_path(key), framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            expected = (file.metadata() or {}).get(_DIGEST)
    except (OSError, SafetensorError):
        return None
    return arrays if expected == _digest(arrays) else None


def write(key: str, arrays: Arrays) -> None:
    """Keep the arrays, if the folder can be written to."""
    from safetensors.numpy import save

    path = _path(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(save(arrays, {_DIGEST: _digest(arrays)}))
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def _path(key: str) -> Path:
    return folder() / f"{key}.safetensors"


def _digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    hashed = xxhash.xxh3_128()
    for name in sorted(arrays):
        hashed.update(name.encode())
        hashed.update(np.ascontiguousarray(arrays[name]).data)
    return hashed.hexdigest()
