"""Private parts of libraries: each is there and does what is relied on; without it, the other way does."""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba.core.caching
import numba.core.cpu
import numba.core.event
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numba import njit

import fasttext_models
from commands import environment
from dvsel import private
from dvsel.engines import local


def printed(program: str, *words: object, **environ: str) -> list[str]:
    """The lines that another Python process prints."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], env=environment(**environ), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("\n")[:-1]


def test_nothing_is_imported_before_it_is_called() -> None:
    heavy = ("numba", "torch", "pyarrow", "fasttext")
    assert printed(f"import dvsel.private, sys; print([name for name in {heavy} if name in sys.modules])") == ["[]"]


# --- numba. ---


def total(numbers: Any) -> Any:
    found = 0.0
    for number in numbers:
        found += number
    return found


def kept(folder: Path) -> tuple[int, int]:
    """How often a function compiled for one sort of argument was loaded from the folder, and how often it was not."""
    compiled = njit(total)
    private.keep_compiled(compiled, folder)
    assert compiled(np.ones(3)) == 3
    return sum(compiled.stats.cache_hits.values()), sum(compiled.stats.cache_misses.values())


def test_what_numba_compiles_is_kept_in_the_folder_that_is_named(tmp_path: Path) -> None:
    before = numba.config.CACHE_DIR
    assert [kept(tmp_path), kept(tmp_path)] == [(0, 1), (1, 0)]
    assert list(tmp_path.rglob("*.nbi")) and before == numba.config.CACHE_DIR


def test_the_only_place_is_the_one_that_is_named() -> None:
    (locator,) = private._forgiving_cache()._impl_class._locator_classes
    assert locator.__name__.endswith("UserProvidedCacheLocator")


def test_without_numbas_caches_each_process_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private._forgiving_cache.cache_clear()
    compiled = njit(total)
    kinds = numba.core.caching.CompileResultCacheImpl.__mro__
    with monkeypatch.context() as patch:  # numba itself needs the part when it compiles
        patch.delattr(next(kind for kind in kinds if "_locator_classes" in vars(kind)), "_locator_classes")
        private.keep_compiled(compiled, tmp_path)
    assert compiled(np.ones(3)) == 3 and not list(tmp_path.iterdir())


def first_of_the_higher(one: Any, other: Any) -> Any:
    chosen = one if one[0] > other[0] else other
    return chosen[0]


def counts_references(**options: bool) -> bool:
    compiled = njit(**options)(first_of_the_higher)
    assert compiled(np.ones(3), np.zeros(3)) == 1
    (code,) = compiled.inspect_llvm().values()
    return "NRT_decref" in code


def test_numba_leaves_out_reference_counts() -> None:
    assert counts_references()
    assert not counts_references(**private.without_reference_counts())


def test_without_that_option_numba_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(numba.core.cpu, "CPUTargetOptions")
    assert private.without_reference_counts() == {}


def test_compilations_are_told() -> None:
    told: list[str] = []
    private.around_compilation(lambda: told.append("begin"), lambda: told.append("end"))
    compiled = njit(total)
    compiled(np.ones(3))
    assert told == ["begin", "end"]
    compiled(np.ones(4))
    assert told == ["begin", "end"]


def test_without_events_of_numba_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(numba.core.event, "Listener")
        private.around_compilation(lambda: pytest.fail("told"), lambda: pytest.fail("told"))
    assert njit(total)(np.ones(3)) == 3


# --- torch. ---


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.mark.parametrize("bias", [True, False])
def test_onednn_multiplies(bias: bool, torch: Any) -> None:
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        pytest.skip("torch was built without MKL or oneDNN")
    assert private.has_onednn_linear()
    rows, weight, shift = torch.randn(2, 3, 8), torch.randn(5, 8), torch.randn(5) if bias else None
    found = private.onednn_linear(rows, weight, shift)
    torch.testing.assert_close(found, torch.nn.functional.linear(rows, weight, shift))


def test_without_its_operator_torchs_product_stays(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert not private.has_onednn_linear()
    rows, weight = torch.randn(3, 8), torch.randn(5, 8)
    assert torch.equal(private.onednn_linear(rows, weight, None), rows @ weight.T)


def test_a_module_changes_its_class_in_its_place(torch: Any) -> None:
    class Doubled(torch.nn.Linear):  # type: ignore[misc]
        def forward(self, rows: Any) -> Any:
            return 2 * super().forward(rows)

    network = torch.nn.Sequential(torch.nn.Linear(4, 4))
    rows, seen = torch.randn(2, 4), []
    expected, held = network(rows), network[0]
    network[0].register_forward_hook(lambda *_: seen.append(1))
    private.change_class(network[0], Doubled)
    assert network[0] is held and torch.equal(network(rows), 2 * expected) and seen == [1]


def test_a_module_that_cannot_change_its_class_stays_as_it_is(torch: Any) -> None:
    class Wider(torch.nn.Linear):  # type: ignore[misc]
        __slots__ = ("more",)

    module = torch.nn.Linear(2, 2)
    private.change_class(module, Wider)
    assert type(module) is torch.nn.Linear


# --- Python. ---

forks = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork server")


@forks
def test_the_fork_server_runs_before_there_is_a_worker() -> None:
    program = """
import multiprocessing, signal
from multiprocessing import forkserver
from dvsel import private
context = multiprocessing.get_context("forkserver")
private.start_fork_server(context, ["json"])
print(forkserver._forkserver._forkserver_pid is not None, signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    assert printed(program) == ["True False"]


@forks
def test_without_it_the_first_worker_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import forkserver

    monkeypatch.delattr(forkserver, "ensure_running")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    private.start_fork_server(multiprocessing.get_context("forkserver"), ["dvsel.commands.worker_preload"])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_do_not_import_the_script(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import contextlib, multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from dvsel import private
print("here")
with ProcessPoolExecutor(1, multiprocessing.get_context({method!r})) as pool:
    with private.without_script():
        done = pool.submit(os.getpid)
    assert done.result() != os.getpid()
print("done")
""")
    assert printed("import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')", script) == ["here", "done"]
    ended = subprocess.run([sys.executable, script], env=environment(), capture_output=True, text=True)
    assert ended.stdout == "here\ndone\n", ended.stderr


def test_a_pools_workers_are_its_processes() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert private.workers_of(pool) == []
        with private.without_script():
            pid = pool.submit(os.getpid).result()
        assert [worker.pid for worker in private.workers_of(pool)] == [pid]
    assert private.workers_of(pool) == []


def wait_a_little(number: int) -> int:
    time.sleep(0.2)
    return number


def test_workers_that_cannot_be_ended_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert private.workers_of(SimpleNamespace()) == []  # type: ignore[arg-type]
    monkeypatch.setattr(private, "workers_of", lambda _: [])
    results = local.run(wait_a_little, range(20), 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


# --- pyarrow. ---


class FullDisk(io.BytesIO):
    """Takes nothing more once it is full."""

    full = False

    def write(self, data: Any) -> int:
        if self.full:
            raise OSError("no space left")
        return super().write(data)


def written(file: io.BytesIO) -> pq.ParquetWriter:
    table = pa.table({"a": [1, 2, 3]})
    writer = pq.ParquetWriter(file, table.schema)
    writer.write_table(table)
    return writer


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_abandoned_writer_writes_nothing_more() -> None:
    file = FullDisk()
    writer, before = written(file), file.getvalue()
    assert writer.is_open
    file.full = True
    private.abandon(writer)
    del writer
    gc.collect()
    assert file.getvalue() == before


def test_a_writer_that_cannot_be_abandoned_is_closed() -> None:
    class Writer:
        closed = False

        def close(self) -> None:
            self.closed = True
            raise OSError("no space left")

    writer = Writer()
    private.abandon(writer)
    assert writer.closed


# --- fasttext. ---


@pytest.fixture(scope="module")
def fasttext_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    fasttext = pytest.importorskip("fasttext")
    texts = {"one": ["a word слово"] * 20, "two": ["other words"] * 20}
    return fasttext.load_model(str(fasttext_models.train(tmp_path_factory.mktemp("fasttext") / "model.bin", texts)))


def test_fasttext_predicts_from_bytes(fasttext_model: Any) -> None:
    found = private.fasttext_predict(fasttext_model, "a word слово".encode(), 2, -1.0)
    assert found[0][1] == "__label__one" and sum(share for share, _ in found) == pytest.approx(1, abs=1e-4)
    assert len(private.fasttext_predict(fasttext_model, b"a word \xff\xfe", 2, -1.0)) == 2
    assert private.fasttext_predict(fasttext_model, b"", 2, -1.0) != found


@pytest.mark.parametrize("text", ["a word слово", "other", ""])
def test_the_public_way_of_fasttext_gives_the_same(text: str, fasttext_model: Any) -> None:
    public = SimpleNamespace(predict=fasttext_model.predict)
    found = private.fasttext_predict(public, text.encode(), 2, -1.0)
    expected = private.fasttext_predict(fasttext_model, text.encode(), 2, -1.0)
    assert [label for _, label in found] == [label for _, label in expected]
    assert [share for share, _ in found] == pytest.approx([share for share, _ in expected], rel=1e-6)
    assert len(private.fasttext_predict(public, b"a word \xff", 2, -1.0)) == 2
