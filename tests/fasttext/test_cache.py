"""The cache of folded models: what names a file's content, and files that are there, damaged or refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dvsel.fasttext import cache

ARRAYS: dict[str, npt.NDArray[Any]] = {
    "a": np.arange(5, dtype=np.float32),
    "b": np.zeros((0, 3), np.uint32),
    "c": np.frombuffer(b"text", np.uint8),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_was_written_is_read() -> None:
    assert cache.read("key") is None
    cache.write("key", ARRAYS)
    found = cache.read("key")
    assert found is not None and found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
        assert found[name].flags.writeable or name == "c"
    assert cache.read("other") is None
    assert [path.name for path in cache.folder().iterdir()] == ["key.safetensors"]


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_none(size: int) -> None:
    cache.write("key", ARRAYS)
    file = cache.folder() / "key.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert cache.read("key") is None


def test_changed_numbers_are_noticed() -> None:
    cache.write("key", ARRAYS)
    file = cache.folder() / "key.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert cache.read("key") is None


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    cache.write("key", ARRAYS)
    assert cache.read("key") is None


def test_the_folder_is_the_users_own() -> None:
    cache.folder().mkdir(parents=True, mode=0o755)
    cache.write("key", ARRAYS)
    assert cache.folder().stat().st_mode & 0o777 == 0o700
    assert (cache.folder() / "key.safetensors").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_to_is_none(mode: int) -> None:
    cache.write("key", ARRAYS)
    (cache.folder() / "key.safetensors").chmod(mode)
    assert cache.read("key") is None


def test_what_another_user_left_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("key", ARRAYS)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert cache.read("key") is None
    cache.write("other", ARRAYS)
    assert [path.name for path in cache.folder().iterdir()] == ["key.safetensors"]


def test_what_is_no_file_is_none(tmp_path: Path) -> None:
    cache.write("key", ARRAYS)
    place = cache.folder() / "key.safetensors"
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    assert cache.read("key") is None
    place.unlink()
    os.mkfifo(place)
    assert cache.read("key") is None


def test_the_key_names_the_files_content_and_the_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bin"

    def key(content: bytes, *options: str, modified: int = 1) -> str:
        path.write_bytes(content)
        os.utime(path, ns=(modified, modified))
        return cache.key_of(str(path), *options)

    large = bytes(3 << 20)
    first = key(large, "hq")
    assert key(large, "hq") == first
    monkeypatch.chdir(tmp_path)
    assert cache.key_of("model.bin", "hq") == first
    others = [
        key(large, "cc"),
        key(large, "h", "q"),
        key(large, "hq", modified=2),
        key(large + b"\0", "hq"),
        key(b"\1" + large[1:], "hq"),
        key(large[1:] + b"\1", "hq"),
    ]
    assert len({first, *others}) == 7
