"""Places of compiled kernels: never where somebody else can put a file, for loading one runs its code."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import environment
from dvsel.kernels import jit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes of POSIX")

# Compiles a small kernel, prints where it is kept, and whether it came from there.
COMPILE = """
import numpy as np
from dvsel.documents.hashing import _mix
_mix(np.zeros(1, np.uint64), np.uint64(1), np.zeros(1, np.uint64))
print(_mix._cache.cache_path or "", sum(_mix.stats.cache_hits.values()), sep="\\n")
"""
NOBODY = 65534


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of this user's own."""
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    return folder


def compiled(**environ: str) -> tuple[str, bool]:
    """Return where another process keeps a kernel ("" for nowhere), and whether it found it there."""
    ended = subprocess.run([sys.executable, "-c", COMPILE], env=environment(**environ), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    place, hits = ended.stdout.split("\n")[:2]
    return place, hits == "1"


def test_kernels_are_kept_in_a_folder_made_for_this_user_alone(own: Path) -> None:
    assert jit._own(own / "new" / "kernels") == own / "new" / "kernels"
    assert (own / "new" / "kernels").stat().st_mode & 0o777 == 0o700


def test_a_folder_behind_links_is_taken_as_what_it_is(own: Path) -> None:
    (own / "real").mkdir(mode=0o700)
    (own / "link").symlink_to(own / "real")
    assert jit._own(own / "link" / "kernels") == own / "real" / "kernels"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
def test_what_others_can_write_to_is_refused(own: Path, mode: int) -> None:
    own.chmod(mode)
    assert jit._own(own) is None


@pytest.mark.parametrize(("mode", "taken"), [(0o777, False), (0o770, False), (0o1777, True), (0o755, True)])
def test_so_is_what_others_can_move_away(own: Path, mode: int, taken: bool) -> None:
    own.chmod(mode)
    assert (jit._own(own / "kernels") == own / "kernels") == taken


def test_a_link_is_refused(own: Path) -> None:
    (own / "real").mkdir(mode=0o700)
    (own / "link").symlink_to(own / "real")
    assert jit._own(own / "link") is None


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="gives a folder away")
@pytest.mark.parametrize("given_away", ["kernels", "."])
def test_a_folder_of_another_user_is_refused(own: Path, given_away: str) -> None:
    (own / "kernels").mkdir(mode=0o700)
    os.chown(own / given_away, NOBODY, NOBODY)
    assert jit._own(own / "kernels") is None


def test_a_file_is_refused(own: Path) -> None:
    (own / "file").write_text("")
    assert jit._own(own / "file") is None
    assert jit._own(own / "file" / "kernels") is None


class Trace:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.file),)


def test_nothing_is_loaded_from_a_folder_that_others_can_write_to(own: Path) -> None:
    kernels, elsewhere = own / "kernels", {"XDG_CACHE_HOME": str(own / "cache")}
    place, found = compiled(NUMBA_CACHE_DIR=str(kernels), **elsewhere)
    assert place.startswith(str(kernels)) and not found
    assert compiled(NUMBA_CACHE_DIR=str(kernels), **elsewhere) == (place, True)
    for index in Path(place).glob("*.nbi"):
        index.write_bytes(pickle.dumps(Trace(own / "trace")))
    kernels.chmod(0o777)
    place, found = compiled(NUMBA_CACHE_DIR=str(kernels), **elsewhere)
    assert place.startswith(str(own / "cache" / "dvsel" / "kernels")) and not found
    assert not (own / "trace").exists()


def test_without_a_safe_place_each_process_compiles_kernels(own: Path) -> None:
    own.chmod(0o777)
    nowhere = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": str(own), "TMPDIR": str(own)}
    assert compiled(**nowhere) == ("", False)


@pytest.mark.parametrize(("pattern", "content"), [("*.nbi", b""), ("*.nbc", b"no pickle")])
def test_a_damaged_kernel_is_compiled_and_kept_again(own: Path, pattern: str, content: bytes) -> None:
    place, _ = compiled(NUMBA_CACHE_DIR=str(own))
    for file in Path(place).glob(pattern):
        file.write_bytes(content)
    assert compiled(NUMBA_CACHE_DIR=str(own)) == (place, False)
    assert compiled(NUMBA_CACHE_DIR=str(own)) == (place, True)


def test_a_full_disk_is_no_error(own: Path) -> None:
    compile = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n{COMPILE}"
    environ = environment(NUMBA_CACHE_DIR=str(own), PYTHONDONTWRITEBYTECODE="1")
    ended = subprocess.run([sys.executable, "-c", compile], env=environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert not [file for file in own.rglob("*") if file.is_file()]
