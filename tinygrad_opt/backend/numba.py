"""The Numba backend: NumPy arrays, with every rule and the hand-fused kernels compiled for the CPU.

Numba itself is imported at the first kernel. A printed kernel is written to a file in a cache folder
(`TINYGRAD_OPT_CACHE`, or the user's), named by its hash, so that the next process loads machine code.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy

from . import numpy as plain

if TYPE_CHECKING:
    from ..rule import Pass

name = "numba"
PARALLEL = 1 << 23                  # bytes from which waking other threads pays
VECTOR = 1 << 12                    # elements from which NumPy's exp, which uses vector instructions, pays

if importlib.util.find_spec("numba") is None:
    raise ImportError("the numba backend needs Numba: pip install 'numba>=0.62', or set TINYGRAD_OPT_BACKEND=numpy")

from .numpy import LANES, LOOK, ROW, add_at, asarray, to_numpy, xp  # noqa: E402, F401


class Table:
    """Addresses and length of each row, and the rows themselves, which keep the memory alive."""

    def __init__(self, rows: list[tuple[numpy.ndarray, ...]]) -> None:
        self.rows = rows
        self.addresses = numpy.array([[*(a.ctypes.data for a in row), row[0].size] for row in rows], dtype=numpy.int64)
        ends = numpy.cumsum(self.addresses[:, -1])
        threads = _threads() if ends[-1] * sum(a.itemsize for a in rows[0]) >= PARALLEL else 1
        cuts = [0, *(1 + int(numpy.searchsorted(ends, ends[-1] * k // threads)) for k in range(1, threads)), len(rows)]
        self.shares = [(a, b) for a, b in zip(cuts, cuts[1:]) if a < b]


table = Table


def compile(walk: Pass, dtype: numpy.dtype) -> Callable[[Table, Any], Any]:
    """Return a pass of a rule as a function of a table and constants, compiled once for good."""
    from .source import numba_source
    kernel = _load(walk.name, numba_source(walk, dtype)).kernel

    def update(table: Table, constants: Any) -> int | None:
        constants = numpy.array(constants, dtype=numpy.float64, ndmin=2)
        if len(table.shares) == 1:
            row = kernel(table.addresses, 0, len(table.rows), constants)
            return row if row < len(table.rows) else None
        ends = _share(kernel, table, constants)
        return min((row for row, end in ends if row < end), default=None)

    def add_up(table: Table, constants: Any) -> numpy.ndarray:
        sums = numpy.empty((len(table.rows), len(walk.terms), LANES))
        _share(kernel, table, numpy.array(constants, dtype=numpy.float64, ndmin=2), sums)
        return sums
    return add_up if walk.terms else update


def _share(kernel: Callable, table: Table, *arguments: numpy.ndarray) -> list[tuple[int, int]]:
    """Run a kernel over the shares of a table, one in each thread; return its results with their last rows."""
    (start, end), *others = table.shares
    done = SimpleQueue()
    for share in others:
        _jobs().put((done, kernel, (table.addresses, *share, *arguments)))
    return [(kernel(table.addresses, start, end, *arguments), end), *(done.get() for _ in others)]


def add_bias(y: numpy.ndarray, bias: numpy.ndarray, rectify: bool) -> numpy.ndarray:
    """Return y + bias, or the larger of that and 0; y may be overwritten."""
    if bias.dtype is not y.dtype or y.dtype.char not in "fd":
        return plain.add_bias(y, bias, rectify)
    _loops().add_bias(y, bias, rectify)
    return y


def rectified(g: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """Return g where y is positive, and 0 elsewhere."""
    if g.ndim != 2 or g.dtype is not y.dtype or y.dtype.char not in "fd":
        return plain.rectified(g, y)
    out = numpy.empty(g.shape, g.dtype)
    _loops().rectified(g, y, out)
    return out


def cross_entropy(z: numpy.ndarray, labels: numpy.ndarray,
                  share: float) -> tuple[numpy.ndarray, numpy.ndarray] | None:
    """Return the sum of `-share * log softmax(z)[i, labels[i]]` over the rows i of z, and its gradient in z.

    None where a label is not the number of a column.
    """
    if z.size > VECTOR or z.dtype.char not in "fd":
        return plain.cross_entropy(z, labels, share)
    loss, gradient = numpy.empty((), z.dtype), numpy.empty(z.shape, z.dtype)
    fits = _loops().cross_entropy(z, labels, share, loss, gradient)
    return (loss, gradient) if fits else None


def erf(x: numpy.ndarray) -> numpy.ndarray:
    """Return the error function of each element, by the C library."""
    x = numpy.asarray(x)
    if x.dtype not in (numpy.float32, numpy.float64):
        return plain.erf(x)
    y = numpy.empty(x.shape, x.dtype)
    _loops().erf(x.reshape(-1), y.reshape(-1))
    return y


def versions() -> dict[str, str]:
    """Return what this backend runs on, by name."""
    from importlib.metadata import version
    return {**plain.versions(), "numba": version("numba"), "threads": str(_threads())}


@cache
def _loops() -> ModuleType:
    from . import loops
    return loops


def _threads() -> int:
    """Return how many threads share a large table.

    They are our own: those of Numba's `parallel=True` spin, and so do OpenBLAS's, against each other.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(os.environ.get("NUMBA_NUM_THREADS") or here))


@cache
def _jobs() -> SimpleQueue:
    """Return the queue of the threads that share a large table with the caller."""
    import threading
    jobs: SimpleQueue = SimpleQueue()

    def work() -> None:
        while True:
            done, kernel, arguments = jobs.get()
            done.put((kernel(*arguments), arguments[2]))
    for _ in range(_threads() - 1):
        threading.Thread(target=work, name="tinygrad_opt", daemon=True).start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_jobs.cache_clear)     # threads do not survive a fork
    return jobs


@cache
def _load(name: str, source: str) -> ModuleType:
    """Import a printed kernel from the cache folder, writing it there first if it is new.

    Numba keeps machine code only for functions that live in a file.
    """
    import hashlib
    import tempfile

    from . import loops  # the printed kernels import it, and their hash
    with open(loops.__file__, "rb") as file:                      # must change with it
        digest = hashlib.sha256(source.encode() + file.read()).hexdigest()[:16]
    path = os.path.join(_folder(), f"{name}_{digest}.py")
    if not os.path.exists(path):
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        os.replace(temporary, path)
    spec = importlib.util.spec_from_file_location(f"tinygrad_opt_kernel_{digest}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def _folder() -> str:
    """Return the cache folder, or a temporary one where nothing can be written."""
    base = os.environ.get("TINYGRAD_OPT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "tinygrad_opt")
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        if os.access(base, os.W_OK):
            return base
    except OSError:
        pass
    import tempfile
    return tempfile.mkdtemp(prefix="tinygrad_opt_")
