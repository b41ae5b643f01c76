"""Places and shards: local paths, file:// and memory:// URLs give the same answers."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from dvsel.errors import UserError
from dvsel.storage import places
from dvsel.storage.places import atomic_writer, find, join, open_read


def put(base: str, *names: str, content: bytes = b"{}\n") -> None:
    for name in names:
        with atomic_writer(join(base, name)) as file:
            file.write(content)


def test_a_file_written_is_there_to_read(base: str) -> None:
    place = join(base, "deep/er/a.bin")
    assert not places.exists(place)
    with atomic_writer(place) as file:
        file.write(b"hello")
        assert not places.exists(place)
    with open_read(place) as file:
        assert file.read() == b"hello"
    size, modified = places.info(place)
    assert size == 5
    assert modified
    assert places.list_names(base) == ["deep/er/a.bin"]


def test_an_exception_leaves_the_old_file_and_no_other(base: str) -> None:
    put(base, "a.txt", content=b"old")
    with pytest.raises(KeyboardInterrupt), atomic_writer(join(base, "a.txt")) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    with open_read(join(base, "a.txt")) as file:
        assert file.read() == b"old"
    assert places.list_names(base) == ["a.txt"]


def test_what_a_killed_run_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.tmp").write_bytes(b"much longer than the new content")
    put(str(tmp_path), "a.txt", content=b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def test_remove_takes_files_and_folders_and_minds_nothing_missing(base: str) -> None:
    put(base, "a", "b/c", "b/d")
    places.remove(join(base, "b"))
    places.remove(join(base, "nothing"))
    assert places.list_names(base) == ["a"]
    places.remove(join(base, "a"))
    assert places.list_names(base) == []


def test_find_by_suffix_and_depth(base: str) -> None:
    put(base, "a.x", "b.y", "c/d.x")
    assert find(base, ".x") == [join(base, "a.x"), join(base, "c/d.x")]
    assert find(base, ".x", depth=1) == [join(base, "a.x")]


def test_find_sees_hidden_files_but_not_those_of_a_run(base: str) -> None:
    put(base, ".hidden.x", ".cache/a.x", ".dvsel/parts/a.x", "b/.dvsel/c.x")
    assert find(base, ".x") == [join(base, ".cache/a.x"), join(base, ".hidden.x")]
    assert find(join(base, ".dvsel"), ".x") == [join(base, ".dvsel/parts/a.x")]


def test_a_name_that_is_not_utf_8_is_refused_by_find(tmp_path: Path) -> None:
    (Path(os.fsdecode(b"%s/caf\xe9.x" % os.fsencode(tmp_path)))).touch()
    assert find(str(tmp_path), ".y") == []
    with pytest.raises(UserError, match=r"caf\\xe9\.x: this name is not UTF-8; rename it"):
        find(str(tmp_path), ".x")


def test_make_folder_twice(base: str) -> None:
    places.make_folder(join(base, "x/y"))
    places.make_folder(join(base, "x/y"))
    assert places.exists(join(base, "x/y"))


def test_a_full_disk_names_the_target_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with (
            pytest.raises(UserError, match=r"big\.bin: cannot be written \(File too large\); make room"),
            atomic_writer(str(tmp_path / "big.bin")) as file,
        ):
            for _ in range(4):
                file.write(bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a file")
    with pytest.raises(UserError, match="cannot be written"), atomic_writer(str(tmp_path / "a" / "b")):
        pass
    with pytest.raises(UserError, match="cannot be made"):
        places.make_folder(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("ask", [open_read, places.info])
def test_a_missing_file_is_named(base: str, ask: Callable[[str], object]) -> None:
    with pytest.raises(UserError, match=r"nothing\.jsonl: cannot be read .*; check the name"):
        ask(join(base, "nothing.jsonl"))


def test_failures_of_a_store_are_user_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class StoreError(Exception):
        """An error as clients of stores raise it, often not an OSError."""

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("403\nforbidden")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", refuse)
    with pytest.raises(UserError, match=r"cannot be read .*403 forbidden.*credentials"):
        open_read("memory://bucket/a.jsonl")
