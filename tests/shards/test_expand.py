"""Shards from words, local and remote: what is named is read, what is passed over is said."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dvsel.errors import Notice, UserError
from dvsel.shards.expand import expand, split_name
from dvsel.storage import places
from dvsel.storage.places import Shard, atomic_writer, join


def put(base: str, *names: str, content: bytes = b"{}\n") -> None:
    for name in names:
        with atomic_writer(join(base, name)) as file:
            file.write(content)


def names(shards: list[Shard]) -> list[str]:
    return [shard.name for shard in shards]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match="s3:// needs a package that is not installed; pip install s3fs"):
        expand(["s3://bucket/*.jsonl"])


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(UserError, match="nonsense"):
        expand(["nonsense://bucket/a.jsonl"])


@contextmanager
def passing_over(message: str) -> Iterator[None]:
    """Just one notice, which says so; `message`: a pattern, "" for no notice."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    assert [re.search(message, str(one.message)) is not None for one in told] == ([True] if message else [])
    assert all(issubclass(one.category, Notice) for one in told)


def test_a_folder_holds_shards_of_all_kinds_and_much_else(base: str) -> None:
    shards = ["a.jsonl", "b/c.ndjson.gz", "b/d.JSON.zst", "e.parquet", "z.jsonl.zstd"]
    others = ["x.dvsel.parquet", ".hidden.jsonl", "texts.csv", "recipe.yaml", "README.md"]
    put(base, *shards, *others, "p.parquet.gz")
    with passing_over("1 hidden .*2 of a kind"):
        found = expand([base])
    assert names(found) == shards
    assert [shard.format for shard in found] == ["jsonl", "jsonl", "jsonl", "parquet", "jsonl"]
    assert [shard.compression for shard in found] == ["", "gzip", "zstd", "", "zstd"]
    assert [shard.size for shard in found] == [3] * 5
    for shard in found:
        assert (shard.size, shard.modified) == places.info(shard.url)


def test_globs(base: str) -> None:
    put(base, "a/1.jsonl", "a/2.jsonl", "b/1.jsonl", "b/c/3.jsonl", "b/notes.txt")
    assert names(expand([join(base, "*/1.jsonl")])) == ["a/1.jsonl", "b/1.jsonl"]
    assert names(expand([join(base, "**/*.jsonl")])) == ["a/1.jsonl", "a/2.jsonl", "b/1.jsonl", "b/c/3.jsonl"]
    assert names(expand([join(base, "b/*")])) == ["1.jsonl", "c/3.jsonl"]


# --- What is named, and what is passed over. ---


def test_what_is_named_is_read_though_it_is_hidden(base: str) -> None:
    put(base, ".cache/a.jsonl", ".cache/en/b.jsonl", ".c.jsonl", "d/e.jsonl")
    with passing_over(""):
        assert names(expand([join(base, ".cache/a.jsonl")])) == ["a.jsonl"]
        assert names(expand([join(base, ".cache")])) == ["a.jsonl", "en/b.jsonl"]
        assert names(expand([join(base, ".c.jsonl"), join(base, "d")])) == [".c.jsonl", "d/e.jsonl"]
        assert names(expand([join(base, ".*/*.jsonl"), join(base, ".c.*")])) == [".cache/a.jsonl", ".c.jsonl"]
        assert names(expand([join(base, ".cache/**/*.jsonl")])) == ["a.jsonl", "en/b.jsonl"]
        assert names(expand([join(base, "**/.cache/*.jsonl")])) == ["a.jsonl"]


@pytest.mark.parametrize("word", ["", "*", "**", "**/*.*"])
def test_hidden_files_of_folders_and_globs_are_said(base: str, word: str) -> None:
    put(base, "a.jsonl", ".b.jsonl", ".c/d/e.parquet", ".c/.git/index", ".gitattributes", ".f.jsonl.tmp")
    with passing_over(
        r"passed over: 2 hidden \(.*\.b\.jsonl, .*\.c/d/e\.parquet\); name hidden ones to have them read"
    ):
        assert names(expand([join(base, word)])) == ["a.jsonl"]


@pytest.mark.parametrize("word", ["", "*", "**/*"])
def test_files_that_cannot_be_read_are_said_if_they_may_be_data(base: str, word: str) -> None:
    data = ["b.jsonl.bz2", "c.jsonl.xz", "d.csv.gz", "e.parquet.zst", "f.TXT"]
    put(base, "a.jsonl", *data, "README.txt", "LICENSE", "dataset_info.json", "x.dvsel.parquet", "run.py", "model.bin")
    message = (
        r"passed over: 5 of a kind that dvsel does not read \(.*b\.jsonl\.bz2, .*c\.jsonl\.xz, .*, \.\.\.\); unpack"
    )
    with passing_over(message):
        assert names(expand([join(base, word)])) == ["a.jsonl"]


def test_files_of_a_run_are_neither_read_nor_said(base: str) -> None:
    put(base, "a.jsonl", ".dvsel/steps/b.jsonl", "c/.dvsel/d.jsonl.bz2")
    with passing_over(""):
        for word in ("", "*", "**/*"):
            assert names(expand([join(base, word)])) == ["a.jsonl"]
        assert names(expand([join(base, ".dvsel/steps")])) == ["b.jsonl"]


def test_what_all_words_pass_over_is_one_notice(base: str) -> None:
    put(base, "a/1.jsonl", "a/2.csv", "b/1.jsonl", "b/.2.jsonl")
    with passing_over("1 hidden .*b/.2.jsonl.* and 1 of a kind .*a/2.csv.*; name hidden ones .*, unpack"):
        expand([join(base, "a"), join(base, "b")])


@pytest.mark.parametrize("word", ["pool", "pool/*"])
def test_a_refusal_names_what_was_passed_over(base: str, word: str) -> None:
    put(base, "pool/a.jsonl.bz2", "pool/.b/c.jsonl")
    with pytest.raises(UserError, match=r"s no shards \(.*, not .*pool/\.b/c\.jsonl, .*a\.jsonl\.bz2\); check"):
        expand([join(base, word)])


def test_a_glob_may_match_folders_without_shards(base: str) -> None:
    put(base, "pool/notes/a.md", "pool/b.jsonl")
    assert names(expand([join(base, "pool/*")])) == ["b.jsonl"]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.fsdecode(b"%s/d\xe9" % os.fsencode(tmp_path)))
    folder.mkdir()
    (folder / "a.jsonl").touch()
    for word in (folder, folder / "a.jsonl", tmp_path, tmp_path / "*"):
        with pytest.raises(UserError, match=r"d\\xe9.*: this name is not UTF-8; rename it"):
            expand([str(word)])
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"d\\xe9/a\.jsonl: this name is not UTF-8"):
        expand(["a.jsonl"])


# --- Names, data sets, refusals. ---


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
    places.remove(remote)


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


def test_a_saved_dataset_that_lacks_a_file_is_refused(base: str) -> None:
    state = {"_data_files": [{"filename": f"data-{part}.arrow"} for part in (0, 1)]}
    put(base, "ds/state.json", content=json.dumps(state).encode())
    put(base, "ds/data-0.arrow", "a.jsonl")
    for word in ("", "ds"):
        with pytest.raises(UserError, match=r"ds/state\.json: lists 'data-1\.arrow', which is not there; copy"):
            expand([join(base, word)])


@pytest.mark.parametrize("file", ["../a.jsonl", "/etc/passwd", "x/../../a.jsonl", "..", "", "./a.jsonl"])
def test_a_saved_dataset_holds_files_of_its_folder_alone(base: str, file: str) -> None:
    put(base, "ds/state.json", content=json.dumps({"_data_files": [{"filename": file}]}).encode())
    put(base, "ds/data-0.arrow", "a.jsonl")
    with pytest.raises(UserError, match=r"ds/state\.json: lists .*, which is not a file of its folder"):
        expand([join(base, "ds")])


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
