"""The output folder: whose it is, and who is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from dvsel.errors import UserError
from dvsel.runs.output_folder import RECIPE, working_in
from dvsel.storage.manifest import record, recorded
from dvsel.storage.places import HOME, atomic_writer, join, list_names

MINE = "command: select\nbudget: 10%\n"
OTHER = "command: select\nbudget: 20%\n"

posix_only = pytest.mark.skipif(os.name != "posix", reason="locks are those of POSIX")


def enter(folder: Path, recipe: str = MINE, overwrite: bool = False) -> None:
    with working_in(str(folder), recipe, overwrite):
        pass


def refusal(folder: Path, recipe: str = MINE, overwrite: bool = False) -> str:
    with pytest.raises(UserError) as refused:
        enter(folder, recipe, overwrite)
    return str(refused.value).replace(str(folder), "OUT")


@contextmanager
def another_process_in(folder: Path) -> Iterator[None]:
    program = (
        "import sys; from dvsel.runs.output_folder import working_in\n"
        "with working_in(sys.argv[1], sys.argv[2], False): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder), MINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        try:
            yield
        finally:
            process.communicate()


def test_a_new_folder_is_made_and_holds_the_recipe(tmp_path: Path) -> None:
    with working_in(str(tmp_path / "a" / "b"), MINE, False):
        assert (tmp_path / "a" / "b" / RECIPE).read_text() == MINE


def test_the_same_run_resumes(tmp_path: Path) -> None:
    enter(tmp_path)
    (tmp_path / "done.jsonl").write_text("{}\n")
    enter(tmp_path)
    assert (tmp_path / "done.jsonl").exists()


def test_another_run_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    enter(tmp_path)
    (tmp_path / "done.jsonl").write_text("{}\n")
    assert refusal(tmp_path, OTHER) == (
        "OUT holds another run (its budget is 10%, this one's 20%); "
        "choose another -o, or pass --overwrite to replace it"
    )
    assert (tmp_path / RECIPE).read_text() == MINE
    assert (tmp_path / "done.jsonl").exists()


@pytest.mark.parametrize(
    ("there", "says"),
    [
        (MINE + "seed: 4\n", "its seed is 4, this one's None"),
        ("command: select\n", "its budget is None, this one's 10%"),
        ("- a list\n", "its recipe.yaml differs"),
        ("{broken", "its recipe.yaml differs"),
        ("", "its recipe.yaml differs"),
        ("budget: 10%\ncommand: select\n", "its recipe.yaml differs"),
        (f"command: select\nbudget: {'9' * 200}\n", "its budget is " + "9" * 77 + "..., this one's 10%"),
    ],
)
def test_the_refusal_says_what_differs(there: str, says: str, tmp_path: Path) -> None:
    enter(tmp_path, there)
    assert refusal(tmp_path) == (
        f"OUT holds another run ({says}); choose another -o, or pass --overwrite to replace it"
    )


START = "dvsel: 0.1.0\ncommand: score\non_bad_line: fail\n"


def test_a_run_that_left_nothing_but_its_recipe_gives_way(tmp_path: Path) -> None:
    enter(tmp_path, START)
    enter(tmp_path, START + "seed: 5\n")
    assert (tmp_path / RECIPE).read_text() == START + "seed: 5\n"


def test_a_run_that_stopped_at_a_bad_line_may_go_on_and_skip_it(tmp_path: Path) -> None:
    enter(tmp_path, START)
    written(tmp_path, "done.parquet")
    skipping = START.replace("fail", "skip")
    enter(tmp_path, skipping)
    assert (tmp_path / RECIPE).read_text() == skipping
    assert (tmp_path / "done.parquet").exists()
    assert "its on_bad_line is skip, this one's fail" in refusal(tmp_path, START)


def written(folder: Path, *names: str) -> None:
    """Files of a run, as its writers write them."""
    record(str(folder), names)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")


def files_of(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if HOME not in name.split("/"))


def test_overwriting_starts_afresh(tmp_path: Path) -> None:
    enter(tmp_path)
    written(tmp_path, "sub/old.jsonl", ".sub2/old.jsonl")
    (tmp_path / "sub" / ".old2.jsonl.tmp").write_text("left by a killed run")
    record(str(tmp_path), ["sub/old2.jsonl"])
    with working_in(str(tmp_path), OTHER, True):
        assert (tmp_path / RECIPE).read_text() == OTHER
        assert files_of(tmp_path) == [RECIPE]
        assert not (tmp_path / "sub").exists()


def test_overwriting_starts_runs_inside_afresh_too(tmp_path: Path) -> None:
    with working_in(str(tmp_path), MINE, False):
        record(str(tmp_path), ["scores/"])
        with working_in(str(tmp_path / "scores"), MINE, False):
            written(tmp_path / "scores", "a.parquet")
    enter(tmp_path, OTHER, overwrite=True)
    assert files_of(tmp_path) == [RECIPE]
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("name", ["notes.txt", "sub/notes.txt", ".git/config", "scores/mine.jsonl", "a.tmp"])
def test_overwriting_is_refused_where_files_of_others_lie(name: str, tmp_path: Path) -> None:
    with working_in(str(tmp_path), MINE, False):
        written(tmp_path, "sub/a.jsonl")
        record(str(tmp_path), ["scores/"])
        enter(tmp_path / "scores")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    before = files_of(tmp_path)
    assert refusal(tmp_path, OTHER, overwrite=True) == f"OUT holds other files ({name}); choose a new folder with -o"
    assert files_of(tmp_path) == before


def test_a_project_of_another_tool_that_has_a_recipe_is_not_ours(tmp_path: Path) -> None:
    for name in ("recipe.yaml", "sources/main.c", ".git/HEAD"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("command: select\n")
    before = files_of(tmp_path)
    for overwrite in (False, True):
        assert refusal(tmp_path, overwrite=overwrite).startswith("OUT holds other files (.git/HEAD)")
    assert files_of(tmp_path) == before and not (tmp_path / HOME).exists()


@pytest.mark.parametrize("name", [".scratch/mine", ".parts/mine", ".git/HEAD", ".hidden"])
def test_a_folder_of_hidden_files_is_not_empty(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    assert refusal(tmp_path) == f"OUT holds other files ({name}); choose a new folder with -o"
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_of_others_is_not_replaced(tmp_path: Path) -> None:
    with working_in(str(tmp_path), MINE, False):
        (tmp_path / "a.jsonl").write_text("mine")
        with pytest.raises(UserError, match="is there, and this run did not write it"):
            record(str(tmp_path), ["a.jsonl"])


@pytest.mark.parametrize(
    ("output", "how"),
    [
        ("pool", "is an input"),
        (".", "holds an input"),
        ("pool/out", "lies in an input"),
        ("link/o", "lies in an input"),
    ],
)
def test_an_output_apart_from_the_inputs(output: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jsonl").write_text("{}\n")
    (tmp_path / "link").symlink_to(tmp_path / "pool")
    inputs = [str(tmp_path / "pool"), str(tmp_path / "pool" / "*.jsonl")]
    with pytest.raises(UserError, match=how), working_in(str(tmp_path / output), MINE, True, inputs):
        pass
    assert files_of(tmp_path) == ["pool/a.jsonl"]


def test_a_folder_beside_the_files_of_a_glob_is_apart(tmp_path: Path) -> None:
    for name in ("a.jsonl", "sub/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    with working_in(str(tmp_path / "out"), MINE, False, [str(tmp_path / "*.jsonl"), str(tmp_path / "**" / "*.jsonl")]):
        pass


def test_the_list_of_files_is_in_order_in_the_end(tmp_path: Path) -> None:
    with working_in(str(tmp_path), MINE, False):
        written(tmp_path, "b.jsonl", "a.jsonl")
        record(str(tmp_path), ["never-written.jsonl"])
    assert (tmp_path / HOME / "written" / "names.txt").read_text().split() == [
        '"a.jsonl"',
        '"b.jsonl"',
        '"recipe.yaml"',
    ]


def test_a_note_that_a_kill_cut_short_is_no_name(tmp_path: Path) -> None:
    with working_in(str(tmp_path), MINE, False):
        with (tmp_path / HOME / "written" / "names.txt").open("a") as file:
            file.write('"cut')
        record(str(tmp_path), ["a.jsonl"])
        assert recorded(str(tmp_path)) == {"a.jsonl", "recipe.yaml"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_files_of_others_is_never_touched(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert refusal(tmp_path, overwrite=overwrite) == ("OUT holds other files (thesis.txt); choose a new folder with -o")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_file_managers_leave_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("")
    enter(tmp_path)
    assert (tmp_path / RECIPE).exists()


@posix_only
def test_two_processes_cannot_work_in_one_folder(tmp_path: Path) -> None:
    with another_process_in(tmp_path):
        assert refusal(tmp_path) == "another dvsel is writing to OUT; wait for it"
    enter(tmp_path)


@posix_only
def test_overwriting_waits_for_the_other_process_too(tmp_path: Path) -> None:
    with another_process_in(tmp_path):
        written(tmp_path, "half.jsonl")
        assert refusal(tmp_path, overwrite=True) == "another dvsel is writing to OUT; wait for it"
        assert (tmp_path / "half.jsonl").exists()


@posix_only
def test_the_lock_goes_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), working_in(str(tmp_path), MINE, False):
        _ = 1 / 0
    enter(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file: cannot be made" in str(refusal(tmp_path / "file")).replace("OUT", "file")


def test_a_remote_folder() -> None:
    fsspec = pytest.importorskip("fsspec")
    enter_at = "memory://folder-test/out"
    with working_in(enter_at, MINE, False):
        assert fsspec.filesystem("memory").cat_file("/folder-test/out/recipe.yaml").decode() == MINE
    with pytest.raises(UserError, match="holds another run"), working_in(enter_at, OTHER, False):
        pass


def test_overwriting_a_remote_folder_spares_files_of_others() -> None:
    folder = f"memory://{uuid4().hex}/out"
    with working_in(folder, MINE, False):
        record(folder, ["sub/a.jsonl"])
        with atomic_writer(join(folder, "sub/a.jsonl")) as file:
            file.write(b"{}")
    with working_in(folder, OTHER, True):
        assert [name for name in list_names(folder) if not name.startswith(HOME)] == [RECIPE]
    with atomic_writer(join(folder, "mine.txt")) as file:
        file.write(b"years of work")
    with pytest.raises(UserError, match="holds other files"), working_in(folder, MINE, True):
        pass
    assert "mine.txt" in list_names(folder)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "some/out.jsonl.zst", "out.ndjson.gz"])
def test_the_name_of_a_file_is_no_folder(name: str, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"is the name of a file, and a run writes a folder; choose -o .*out/,"),
        working_in(str(tmp_path / name), RECIPE, overwrite=False),
    ):
        raise AssertionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.jsonl/", "out.v2", "jsonl"])
def test_other_names_are_folders(name: str, tmp_path: Path) -> None:
    place = f"{tmp_path}/{name}"
    for _ in range(2):
        with working_in(place, RECIPE, overwrite=False):
            pass
    with working_in(place.rstrip("/"), RECIPE, overwrite=False):
        pass
