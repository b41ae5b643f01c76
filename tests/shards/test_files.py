"""Places and shards: local paths, file:// and memory:// URLs give the same answers."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from dvsel.errors import UserError
from dvsel.shards import files
from dvsel.shards.files import Shard, atomic_writer, expand, find, join, open_read, split_name


@pytest.fixture(params=["local", "file", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder of each sort of place."""
    if request.param == "memory":
        url = f"memory://{uuid4().hex}"
        yield url
        files.remove(url)
    else:
        yield str(tmp_path) if request.param == "local" else f"file://{tmp_path}"


def put(base: str, *names: str, content: bytes = b"{}\n") -> None:
    for name in names:
        with atomic_writer(join(base, name)) as file:
            file.write(content)


def names(shards: list[Shard]) -> list[str]:
    return [shard.name for shard in shards]


def test_a_file_written_is_there_to_read(base: str) -> None:
    place = join(base, "deep/er/a.bin")
    assert not files.exists(place)
    with atomic_writer(place) as file:
        file.write(b"hello")
        assert not files.exists(place)
    with open_read(place) as file:
        assert file.read() == b"hello"
    size, modified = files.info(place)
    assert size == 5
    assert modified
    assert files.list_names(base) == ["deep/er/a.bin"]


def test_an_exception_leaves_the_old_file_and_no_other(base: str) -> None:
    put(base, "a.txt", content=b"old")
    with pytest.raises(KeyboardInterrupt), atomic_writer(join(base, "a.txt")) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    with open_read(join(base, "a.txt")) as file:
        assert file.read() == b"old"
    assert files.list_names(base) == ["a.txt"]


def test_what_a_killed_run_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".a.txt.tmp").write_bytes(b"much longer than the new content")
    put(str(tmp_path), "a.txt", content=b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def test_remove_takes_files_and_folders_and_minds_nothing_missing(base: str) -> None:
    put(base, "a", "b/c", "b/d")
    files.remove(join(base, "b"))
    files.remove(join(base, "nothing"))
    assert files.list_names(base) == ["a"]
    files.remove(join(base, "a"))
    assert files.list_names(base) == []


def test_find_by_suffix_and_depth(base: str) -> None:
    put(base, "a.x", "b.y", "c/d.x", ".hidden.x")
    assert find(base, ".x") == [join(base, "a.x"), join(base, "c/d.x")]
    assert find(base, ".x", depth=1) == [join(base, "a.x")]


def test_make_folder_twice(base: str) -> None:
    files.make_folder(join(base, "x/y"))
    files.make_folder(join(base, "x/y"))
    assert files.exists(join(base, "x/y"))


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
        files.make_folder(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("ask", [open_read, files.info])
def test_a_missing_file_is_named(base: str, ask: Callable[[str], object]) -> None:
    with pytest.raises(UserError, match=r"nothing\.jsonl: cannot be read .*; check the name"):
        ask(join(base, "nothing.jsonl"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match="s3:// needs a package that is not installed; pip install s3fs"):
        expand(["s3://bucket/*.jsonl"])


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(UserError, match="nonsense"):
        expand(["nonsense://bucket/a.jsonl"])


# --- expand ---


def test_a_folder_holds_shards_of_all_kinds_and_much_else(base: str) -> None:
    shards = ["a.jsonl", "b/c.ndjson.gz", "b/d.JSON.zst", "e.parquet", "z.jsonl.zstd"]
    others = ["x.dvsel.parquet", ".hidden.jsonl", ".git/x.jsonl", "recipe.yaml", "report.json", "README.md"]
    put(base, *shards, *others, "p.parquet.gz")
    found = expand([base])
    assert names(found) == shards
    assert [shard.format for shard in found] == ["jsonl", "jsonl", "jsonl", "parquet", "jsonl"]
    assert [shard.compression for shard in found] == ["", "gzip", "zstd", "", "zstd"]
    assert [shard.size for shard in found] == [3] * 5
    for shard in found:
        assert (shard.size, shard.modified) == files.info(shard.url)


def test_globs(base: str) -> None:
    put(base, "a/1.jsonl", "a/2.jsonl", "b/1.jsonl", "b/c/3.jsonl", "b/notes.txt")
    assert names(expand([join(base, "*/1.jsonl")])) == ["a/1.jsonl", "b/1.jsonl"]
    assert names(expand([join(base, "**/*.jsonl")])) == ["a/1.jsonl", "a/2.jsonl", "b/1.jsonl", "b/c/3.jsonl"]
    assert names(expand([join(base, "b/*")])) == ["1.jsonl", "c/3.jsonl"]


def test_names_are_relative_to_the_common_folder(base: str) -> None:
    put(base, "pool/en/1.jsonl", "pool/de/1.jsonl")
    assert names(expand([join(base, "pool/en"), join(base, "pool/de/1.jsonl")])) == ["en/1.jsonl", "de/1.jsonl"]
    assert names(expand([join(base, "pool/en/1.jsonl")])) == ["1.jsonl"]


def test_names_of_different_stores_stay_apart(tmp_path: Path) -> None:
    remote = f"memory://{uuid4().hex}"
    put(remote, "a.jsonl")
    put(str(tmp_path), "a.jsonl")
    found = names(expand([str(tmp_path), remote]))
    assert len(set(found)) == 2
    assert all(not name.startswith("/") and "://" not in name for name in found)
    files.remove(remote)


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(str(tmp_path), "pool/a.jsonl")
    monkeypatch.chdir(tmp_path)
    (shard,) = expand(["./pool/../pool/a.jsonl"])
    assert shard.url == str(tmp_path / "pool" / "a.jsonl")


def test_a_saved_dataset_is_the_files_that_its_state_lists(base: str) -> None:
    for split in ("train", "test"):
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        put(base, f"{split}/state.json", content=json.dumps(state).encode())
        put(base, f"{split}/data-00000-of-00001.arrow", f"{split}/cache-1.arrow", f"{split}/dataset_info.json")
    put(base, "dataset_dict.json")
    both = ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]
    assert names(expand([base])) == both
    assert names(expand([join(base, "train")])) == ["data-00000-of-00001.arrow"]


def test_another_file_called_state_json_is_no_dataset(base: str) -> None:
    put(base, "state.json", "a.jsonl")
    assert "a.jsonl" in names(expand([base]))


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["nothing"], "nothing: there is no such file or folder; check the name"),
        (["*.parquet"], "matches no shards"),
        (["empty"], "holds no shards .*dvsel reads .jsonl"),
        (["notes.txt"], "notes.txt: of an unknown kind; dvsel reads .jsonl"),
        (["x.dvsel.parquet"], "a score file, not a shard"),
        (["a.jsonl", "a.jsonl"], "a.jsonl: given twice"),
        (["", "sub"], "given twice, by .* and by .*sub; name it once"),
        (["same"], "would be written to the same file as .*same/x.arrow; rename one"),
    ],
)
def test_what_cannot_be_expanded_says_why(base: str, patterns: list[str], message: str) -> None:
    put(base, "a.jsonl", "notes.txt", "x.dvsel.parquet", "sub/b.jsonl", "empty/notes.txt")
    if patterns == ["same"]:
        put(base, "same/x.arrow", "same/x.parquet")
    with pytest.raises(UserError, match=message) as caught:
        expand([join(base, pattern) for pattern in patterns])
    assert "\n" not in str(caught.value)


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    put(str(tmp_path), "elsewhere/a.jsonl")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "en").symlink_to(tmp_path / "elsewhere")
    assert names(expand([str(tmp_path / "pool")])) == ["a.jsonl"]
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "pool")
    with pytest.raises(UserError, match="leads back to a folder above it"):
        expand([str(tmp_path / "pool")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    put(str(tmp_path), "pool/a.jsonl")
    (tmp_path / "pool").chmod(0)
    try:
        with pytest.raises(UserError, match="check its permissions"):
            expand([str(tmp_path / "pool")])
    finally:
        (tmp_path / "pool").chmod(0o700)


def test_failures_of_a_store_are_user_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class StoreError(Exception):
        """What clients raise is often no OSError."""

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("403\nforbidden")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", refuse)
    with pytest.raises(UserError, match=r"cannot be read .*403 forbidden.*credentials"):
        open_read("memory://bucket/a.jsonl")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("en/a.jsonl.zst", ("en/a", ".jsonl.zst")),
        ("a.b.jsonl", ("a.b", ".jsonl")),
        ("a.parquet", ("a", ".parquet")),
        ("v1.2/a.json.gz", ("v1.2/a", ".json.gz")),
    ],
)
def test_split_name(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts
