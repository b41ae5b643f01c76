"""Folded models in the user's cache folder, so that a large model is folded once.

A file of the cache only saves work: one that is damaged or cannot be read is made again, and where
none can be written, none is. What another user could have written is not read: the folder and its files are this
user's own, and for nobody else to write to.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import xxhash

from dvsel import __version__
from dvsel.kernels import cache
from dvsel.storage.places import info, is_remote, local_path, open_read
from dvsel.storage.tensors import Arrays, Malformed, digest, pack, unpack

_FOLDING = ("folded.py", "kernels/*.py")  # what other code of ours folded is stale
_DIGEST = "digest"
_ENDS = 1 << 20
_PRIVATE = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def key_of(url: str, *options: str) -> str:
    """Hash a file's content and what is made of it to a key: place, size, time and both ends of the file, the options,
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
    """Return the folder of folded models."""
    return cache.folder() / "fasttext"


def read(key: str) -> Arrays | None:
    """Read what was written under the key; None where nothing is there, nothing whole, or another user's."""
    try:
        with open(_opened(_path(key)), "rb") as file:
            arrays, metadata = unpack(bytearray(file.read()))
    except (OSError, Malformed):
        return None
    return arrays if metadata.get(_DIGEST) == digest(arrays) else None


def write(key: str, arrays: Arrays) -> None:
    """Keep the arrays, if the folder is the user's own and can be written to."""
    path = _path(key)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        _check_owner(path.parent.stat())
        path.parent.chmod(_PRIVATE)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(pack(arrays, {_DIGEST: digest(arrays)}))
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def _path(key: str) -> Path:
    return folder() / f"{key}.safetensors"


def _opened(path: Path) -> int:
    """A file of the user's own, that nobody else can write to; OSError for another."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        _check_owner(found)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS_WRITE:
            raise PermissionError(f"{path}: others can write to it")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_owner(found: os.stat_result) -> None:
    if found.st_uid != os.getuid():
        raise PermissionError("another user's")
