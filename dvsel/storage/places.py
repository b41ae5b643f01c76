"""Places of bytes: local paths through the operating system, everything else through fsspec.

A place is a string: a local path, a `file://` URL (the same thing), or any URL that fsspec knows. Whatever goes wrong
on the way to the bytes is a UserError that names the place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

from dvsel.errors import BadFile, UserError
from dvsel.redact import HIDDEN, lacks_secrets

Batch = TypeVar("Batch")

HOME = ".dvsel"
"""The hidden folder in which a run keeps files of its own, which are nobody's input."""
_PATIENCE = 5.0  # seconds
_VERSION_KEYS = (
    "ETag",
    "etag",
    "blob_id",
    "md5Hash",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)


@dataclass(frozen=True)
class Shard:
    """A file of documents.

    url: absolute. name: relative, with slashes, unique within the run. format: "jsonl", "parquet" or "arrow".
    compression: "", "gzip" or "zstd". size: bytes as stored.
    modified: changes when the file does; mtime in ns for a local file, else what the store offers, or "".
    vectors: the place of its documents' embeddings, or "".
    """

    url: str
    name: str
    format: str
    compression: str
    size: int
    modified: str
    vectors: str = ""


# --- Places. ---


def is_remote(url: str) -> bool:
    """Return whether the place is reached through fsspec."""
    return "://" in url and not url.startswith("file://")


def join(base: str, name: str) -> str:
    """Return the place of `name` (with slashes) below `base`."""
    return posixpath.join(base, name) if name else base


def exists(url: str) -> bool:
    """Return whether a file or a folder is there."""
    with explained(url):
        if is_remote(url):
            fs, path = filesystem(url)
            return bool(fs.exists(path))
        return local_path(url).exists()


def info(url: str) -> tuple[int, str]:
    """Return a file's size in bytes, and a mark that changes when it does (see `Shard.modified`)."""
    with explained(url):
        if is_remote(url):
            fs, path = filesystem(url)
            return _described(fs.info(path))
        status = local_path(url).stat()
        return status.st_size, str(status.st_mtime_ns)


def while_unchanged(shard: Shard, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches that are read of a shard, to the end.

    Raises UserError where the shard changed since it was named: after the last batch, and instead of the error that its
    new content led to.
    """
    try:
        yield from batches
    except UserError:
        check_unchanged(shard)
        raise
    check_unchanged(shard)


def check_unchanged(shard: Shard) -> None:
    """Raise UserError where a shard changed since it was named, by its size and its time."""
    if info(shard.url) != (shard.size, shard.modified):
        raise changed_meanwhile(shard)


def changed_meanwhile(shard: Shard) -> UserError:
    """Return the error for a shard that something wrote to while dvsel read it."""
    return UserError(f"{shard.url}: changed while it was read; start again when nothing writes to it")


def check_utf8(place: str) -> None:
    """Raise UserError for a name that is not UTF-8, and so cannot stand in a score file, a recipe or a report."""
    try:
        place.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{spelled(place)}: this name is not UTF-8; rename it (convmv does whole folders)") from error


def spelled(place: str) -> str:
    r"""Return the place as text that can be encoded, with \xHH for each byte that is not UTF-8."""
    return place.encode(errors="backslashreplace").decode().replace(r"\udc", r"\x")


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def list_names(base: str) -> list[str]:
    """Return the names of all files below a folder, relative to it, sorted; none where there is no folder."""
    with explained(base):
        if is_remote(base):
            fs, path = filesystem(base)
            return sorted(relative(found, path) for found in fs.find(path) if relative(found, path))
        folder = local_path(base)
        return sorted(
            Path(at, name).relative_to(folder).as_posix()
            for at, _, names in os.walk(folder, onerror=_raise_unless_gone)
            for name in names
        )


def find(base: str, suffix: str | tuple[str, ...], depth: int | None = None) -> list[str]:
    """Return the places of the files below a folder that end in `suffix`, or one of them, sorted by name.

    depth: 1 for those in the folder itself. Hidden ones count, as a shard may have a hidden name; those below a folder
    `HOME` do not. Raises UserError for a name that is not UTF-8.
    """
    names = [name for name in list_names(base) if name.endswith(suffix) and not is_own(name)]
    found = [join(base, name) for name in names if depth is None or name.count("/") < depth]
    for place in found:
        check_utf8(place)
    return found


def remove(url: str) -> None:
    """Remove a file, or a folder with all that it holds; nothing happens where there is none."""
    if not exists(url):
        return
    with explained(url):
        if is_remote(url):
            fs, name = filesystem(url)
            fs.rm(name, recursive=True)
        elif (path := local_path(url)).is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def make_folder(url: str) -> None:
    """Make a folder and those above it, unless they are there."""
    with explained(url, "be made"):
        if is_remote(url):
            fs, path = filesystem(url)
            fs.makedirs(path, exist_ok=True)
        else:
            local_path(url).mkdir(parents=True, exist_ok=True)


def open_read(url: str) -> BinaryIO:
    """Open a file for reading, seekable."""
    with explained(url):
        if is_remote(url):
            fs, path = filesystem(url)
            return cast(BinaryIO, fs.open(path, "rb"))
        return local_path(url).open("rb")


def local_path(url: str) -> Path:
    """Return the path of a place that is not remote."""
    return Path(url.removeprefix("file://"))


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it."""
    if lacks_secrets(url):
        raise UserError(
            f"{url}: its password was not written down; name it again, or take {HIDDEN} out and give credentials by "
            "the environment or fsspec's configuration"
        )
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or protocol
        raise UserError(f"{url}: {protocol}:// needs a package that is not installed; pip install {package}") from error
    except ValueError as error:
        raise UserError(f"{url}: {error}; give a local path or a URL that fsspec knows") from error
    return fs, path


@contextlib.contextmanager
def explained(url: str, what: str = "be read") -> Iterator[None]:
    """Turn failures on the way to `url` into a UserError; clients of stores raise exceptions of all kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not is_remote(url):
            raise
        is_bad = isinstance(error, PermissionError) or (getattr(error, "errno", 0) == errno.EIO and not is_remote(url))
        raise (BadFile if is_bad else UserError)(_failure(url, what, error)) from error


def _failure(url: str, what: str, error: Exception) -> str:
    cause = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    match error:
        case FileNotFoundError():
            remedy = "check the name"
        case PermissionError():
            remedy = "check its permissions"
        case IsADirectoryError():
            remedy = "name a file"
        case _:
            remedy = "check the connection and your credentials" if is_remote(url) else "check the disk"
    return f"{url}: cannot {what} ({cause}); {remedy}"


def _described(found: dict[str, Any]) -> tuple[int, str]:
    version = next((found[key] for key in _VERSION_KEYS if found.get(key) is not None), "")
    return int(found.get("size") or 0), str(version)


def relative(path: str, base: str) -> str:
    """Return the name of a path below a folder, "" for one that is not below it."""
    return path[len(base) :].strip("/") if path.startswith(base) else ""


def is_own(name: str) -> bool:
    """Return whether a relative name leads into a folder `HOME`."""
    return HOME in name.split("/")


# --- Writing. ---


def temporary_name(name: str) -> str:
    """Return the name of a file while it is written: hidden, in the folder of its place."""
    above, file = posixpath.split(name)
    return posixpath.join(above, f".{file}.tmp")


class _Target(FileIO):
    """A file being written whose failures name the place that the user knows."""

    def __init__(self, handle: int, place: str) -> None:
        self._place = place
        super().__init__(handle, "w")

    def write(self, data: Any, /) -> int:
        try:
            return cast(int, super().write(data))
        except OSError as error:
            raise _unwritable(self._place, error) from error


def _opened_alone(path: str, place: str) -> int:
    """Open an empty file at `path`, new or left by a killed process, which nobody else writes to meanwhile.

    Raises UserError where somebody goes on writing for `_PATIENCE`: the workers of a killed run need a moment to end.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        # The name is known beforehand: a link that somebody puts there must not lead the bytes elsewhere.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if _lock(handle) and _is_at(handle, path):
                os.ftruncate(handle, 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if time.monotonic() > end:
            raise UserError(f"{place}: another process is writing it; wait for it, or choose another place")
        time.sleep(_PATIENCE / 100)


def _lock(handle: int) -> bool:
    """Try to lock the file until the descriptor is closed; return whether it is ours, as always without such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return True
    except OSError as error:
        return error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
    return True


def _is_at(handle: int, path: str) -> bool:
    """Return whether the open file still has the name: the other process may have given it its final one."""
    try:
        return os.path.samestat(os.fstat(handle), Path(path).lstat())
    except FileNotFoundError:
        return False


def _unwritable(place: str, error: Exception) -> UserError:
    cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(f"{place}: cannot be written ({cause}); make room or choose another place, then start again")


class Pending:
    """A file that nobody sees until `commit`.

    A local one grows under a hidden name in its folder, always the same one, which a run after a killed one takes over;
    it is on the disk before it gets its name, so that no loss of power leaves a name without its content. A remote one
    grows in this machine's folder of temporary files and is sent at the end.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._temporary, self._handle = self._begin()
            # A descriptor of its own: the lock must outlast the buffered file, until the name is given.
            self.file: IO[bytes] = BufferedWriter(_Target(os.dup(self._handle), url), 1 << 20)
        except OSError as error:
            raise _unwritable(url, error) from error

    def _begin(self) -> tuple[str, int]:
        if is_remote(self.url):
            handle, name = tempfile.mkstemp(prefix="dvsel-")
            return name, handle
        final = local_path(self.url)
        final.parent.mkdir(parents=True, exist_ok=True)
        path = str(final.with_name(temporary_name(final.name)))
        return path, _opened_alone(path, self.url)

    def close(self) -> None:
        """End the writing before `commit`: the file is hidden still, but no longer kept from other processes."""
        self._flush()
        self._release()

    def commit(self, url: str = "") -> None:
        """Give the file its name, replacing what was there.

        url: another place than the one that it was begun for, on the same disk or in the same store.
        """
        self.url = url or self.url
        self._flush()
        try:
            if is_remote(self.url):
                fs, path = filesystem(self.url)
                fs.makedirs(posixpath.dirname(path), exist_ok=True)
                fs.put_file(self._temporary, path)
                Path(self._temporary).unlink()
            else:
                Path(self._temporary).replace(local_path(self.url))
                _sync_folder(local_path(self.url).parent)
        except UserError:
            raise
        except Exception as error:
            raise _unwritable(self.url, error) from error
        self._release()
        self._temporary = ""

    def discard(self) -> None:
        """Drop what was written; nothing happens after `commit`."""
        with contextlib.suppress(OSError, UserError):
            self.file.close()
        if self._temporary:
            with contextlib.suppress(OSError):
                Path(self._temporary).unlink()
        self._release()

    def _flush(self) -> None:
        if self._handle < 0:
            return
        self.file.close()
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise _unwritable(self.url, error) from error

    def _release(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system offers it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_writer(url: str) -> Iterator[BinaryIO]:
    """Open a file to write to, which appears at `url` only if the block ends well; folders above it are made.

    A full disk or a missing permission is a UserError that names `url`.
    """
    pending = Pending(url)
    try:
        yield cast(BinaryIO, pending.file)
        pending.commit()
    except BaseException:
        pending.discard()
        raise


def write_file(url: str, content: bytes) -> None:
    """Write a file, which is at `url` whole or not at all."""
    with atomic_writer(url) as file:
        file.write(content)


def read_file(url: str) -> bytes:
    """Return all bytes of a file, to be used where it is known to be small."""
    with open_read(url) as file:
        return file.read()
