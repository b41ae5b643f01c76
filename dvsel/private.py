"""Private parts of libraries, which may change without notice: all that dvsel relies on stand here, one function each.

A function says which part it uses, why there is no public way, and what happens where the part is gone: the slower or
plainer way, never a crash. `tests/test_private.py` fails when a library changes, and tries each other way. Libraries
are imported when a function is called. Tried with Python 3.11, numba 0.61 and 0.68, torch 2.13, pyarrow 15
and 26, fasttext 0.9.3.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# --- numba. ---


def keep_compiled(compiled: Any, folder: Path) -> None:
    """Have numba keep what it compiles of a jitted function in `folder`, and ignore damaged files and full disks.

    Uses `numba.core.caching` and the dispatcher's `_cache`. The public way, `njit(cache=True)`, has one place for the
    functions of all packages, or one beside the source, whoever can write there; and a damaged file ends the program.
    Without the part each process compiles for itself.
    """
    from numba import config

    before = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(folder)  # read once, when the cache is made
        compiled._cache = _forgiving_cache()(compiled.py_func)
    except (ImportError, AttributeError, RuntimeError):  # RuntimeError: the folder cannot be written to after all
        pass
    finally:
        config.CACHE_DIR = before


@functools.cache
def _forgiving_cache() -> Any:
    """Make the class of caches that look in `config.CACHE_DIR` alone and raise nothing."""
    from numba.core.caching import CompileResultCacheImpl, FunctionCache

    class InGivenFolder(CompileResultCacheImpl):  # type: ignore[misc]  # numba has no types
        _locator_classes = CompileResultCacheImpl._locator_classes[:1]

    class ForgivingCache(FunctionCache):  # type: ignore[misc]
        _impl_class = InGivenFolder

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # whatever unpickling makes of a damaged file
                with contextlib.suppress(OSError):
                    self.flush()
                return None

        def save_overload(self, sig: Any, data: Any) -> None:
            with contextlib.suppress(OSError):
                super().save_overload(sig, data)

    return ForgivingCache


def without_reference_counts() -> Mapping[str, bool]:
    """Return the options of `njit` that leave out reference counts on arrays, for functions that allocate nothing.

    Uses the option `_nrt`. The counts are atomic, and cost more than the work of a small function; no public option
    turns them off. Without the part the function counts, and gives the same.
    """
    from numba.core import cpu

    return {"_nrt": False} if hasattr(getattr(cpu, "CPUTargetOptions", None), "_nrt") else {}


def around_compilation(begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Call `begin` before and `end` after each compilation of a function, which takes seconds.

    Uses `numba.core.event`, which numba's manual describes for its developers. Nothing public tells the time at which a
    function is compiled. Without the part nothing is called.
    """
    try:
        from numba.core import event

        class Listener(event.Listener):  # type: ignore[misc]
            def on_start(self, _: Any) -> None:
                begin()

            def on_end(self, _: Any) -> None:
                end()

        event.register("numba:compile", Listener())
    except (ImportError, AttributeError):
        pass


# --- torch. ---


def has_onednn_linear() -> bool:
    """Return whether torch has the operator that `onednn_linear` calls; builds without oneDNN and MKL lack it."""
    import torch

    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return rows @ weight.T + bias by oneDNN. rows: float32 (..., inputs), contiguous. weight: (outputs, inputs).

    Uses `torch.ops.mkldnn._linear_pointwise`, which torch has for compiled models. The public product goes to MKL for
    float32, and nothing public chooses oneDNN. Without the part, see `has_onednn_linear`, it is the public product.
    """
    import torch

    if not has_onednn_linear():
        return torch.nn.functional.linear(rows, weight, bias)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def change_class(module: torch.nn.Module, kind: type[torch.nn.Module]) -> None:
    """Make a module, in its place, one of a subclass of its class.

    Uses that a module's state lies in its `__dict__` alone. A new module in its place, the public way, would lose its
    hooks, and whoever else holds the old one (a tied head) would keep that. Where Python refuses, it stays as it is.
    """
    with contextlib.suppress(TypeError):
        module.__class__ = kind


# --- Python. ---


def start_fork_server(context: Any, preload: Sequence[str]) -> None:
    """Start the server that a "forkserver" context forks workers from, and return at once.

    preload: modules that it imports, meanwhile. Uses `ensure_running` of `multiprocessing.forkserver` and of its
    resource tracker. The public way starts the server with the first worker, which then waits for the imports. Without
    the part it is that way.
    """
    from multiprocessing import forkserver, resource_tracker

    context.set_forkserver_preload(list(preload))
    # The server inherits the mask: Ctrl-C goes to all processes of a terminal, and is this one's to handle.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        resource_tracker.ensure_running()  # unblocks SIGINT when it starts, so it comes first
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
    except AttributeError:
        pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """Keep workers that are started meanwhile from importing the caller's script, as Python has them do.

    Uses `sys.modules["__main__"]`, where multiprocessing looks for the script. dvsel's tasks need nothing of it, and a
    script of a few lines, without `if __name__ == "__main__":`, would run once more; nothing public turns this off.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def workers_of(pool: ProcessPoolExecutor) -> list[BaseProcess]:
    """Return the processes of a pool; none where none was started.

    Uses `_processes`. A pool is shut down by waiting for the tasks at hand, and only Python 3.14 has a public way to
    end them. Without the part there are none to end, and a caller that shuts down waits.
    """
    return list((getattr(pool, "_processes", None) or {}).values())


# --- pyarrow. ---


def abandon(writer: Any) -> None:
    """Give up a `pyarrow.parquet.ParquetWriter` whose file is about to go.

    Uses `is_open`, which `__del__` asks before it closes the file. The public way, `close`, writes what the file ends
    with; where that fails, as the rows before it did, `__del__` tries again, and Python reports it on stderr. Without
    the part it is that way.
    """
    if hasattr(writer, "is_open"):
        writer.is_open = False
    else:
        with contextlib.suppress(Exception):  # whatever the file's own `write` raises
            writer.close()


# --- fasttext. ---


def fasttext_predict(model: Any, text: bytes, labels: int, threshold: float) -> list[tuple[float, str]]:
    """Return the probability and the name of each label that a model of the `fasttext` package finds in a line.

    text: without its line feed. labels: at most so many. Uses `model.f`, the compiled object, which takes bytes as they
    are. The public `predict` takes UTF-8 alone, and one text at a time only before numpy 2. Without the part it is
    that one, with a list of one text in which "\ufffd" stands for what is not UTF-8.
    """
    compiled = getattr(model, "f", None)
    if compiled is not None:
        found: list[tuple[float, str]] = compiled.predict(text + b"\n", labels, threshold, "backslashreplace")
        return found
    (names,), (probabilities,) = model.predict([text.decode(errors="replace")], labels, threshold, "backslashreplace")
    return list(zip(map(float, probabilities), names, strict=True))
