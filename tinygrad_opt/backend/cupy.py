"""The CuPy backend: arrays on the GPU; a rule is one launch in which a block of threads takes a row."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy

from ..rule import Pass
from . import numpy as plain
from .source import cuda_source

try:
    import cupy
    import cupyx
    import cupyx.scipy.special
    cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    cupy.zeros(1).sum().item()                      # a driver may answer and still be too old to run anything
except Exception as error:
    raise ImportError(f"the cupy backend needs CuPy and a usable NVIDIA GPU ({type(error).__name__}: {error}): "
                      "pip install 'tinygrad-opt[cuda12]' or [cuda13], or set TINYGRAD_OPT_BACKEND=numba") from None

cupyx.seterr(linalg="raise")        # a singular matrix is an error, as in NumPy

name = "cupy"
xp = cupy
ROW = 1 << 14                       # elements in a row: enough blocks to fill the GPU from a million elements on
THREADS = 512
LOOK = 61                           # launches between two looks at whether a parameter has become NaN: a look waits

asarray = cupy.asarray
to_numpy = cupy.asnumpy
erf = cupyx.scipy.special.erf
add_bias, rectified = plain.add_bias, plain.rectified
cross_entropy = plain.cross_entropy             # NumPy's functions hand CuPy arrays over to CuPy


def add_at(a: cupy.ndarray, index: object, b: cupy.ndarray) -> None:
    """`a[index] += b` in which repeated indices add up."""
    if a.dtype.kind == "i" and a.itemsize == 8:     # the GPU adds 64-bit integers without sign: the bits are the same
        a, b = a.view(numpy.uint64), cupy.ascontiguousarray(b, a.dtype).view(numpy.uint64)
    cupyx.scatter_add(a, index, b)


class Table:
    """Addresses and length of each row, in the GPU's memory, and the rows themselves, which keep theirs alive."""

    def __init__(self, rows: list[tuple[cupy.ndarray, ...]]) -> None:
        self.rows = rows
        self.addresses = cupy.asarray(
            numpy.array([[*(a.data.ptr for a in row), row[0].size] for row in rows], dtype=numpy.int64))
        self.spoilt = cupy.full(1, len(rows), dtype=numpy.int32)


table = Table


def compile(walk: Pass, dtype: numpy.dtype) -> Callable[[Table, Any], Any]:
    """Return a pass of a rule as a function of a table and constants."""
    kernel, cast, launches = cupy.RawKernel(cuda_source(walk, dtype), walk.name), dtype.type, itertools.count(1)

    def launch(table: Table, out: cupy.ndarray, constants: Any) -> None:
        rows = len(table.rows)
        if walk.rule.each:
            lines = numpy.array(constants, dtype=numpy.float64, ndmin=2)
            given = [cupy.asarray(numpy.ascontiguousarray(numpy.broadcast_to(lines, (rows, len(walk.constants)))))]
        else:
            given = map(cast, constants)
        kernel((rows,), (THREADS,), (table.addresses, out, *given))

    def update(table: Table, constants: Any) -> int | None:
        launch(table, table.spoilt, constants)
        if next(launches) % LOOK:
            return None
        row = int(table.spoilt[0])
        return row if row < len(table.rows) else None

    def add_up(table: Table, constants: Any) -> cupy.ndarray:
        sums = cupy.empty((len(table.rows), len(walk.terms), THREADS))
        launch(table, sums, constants)
        return sums
    return add_up if walk.terms else update


def versions() -> dict[str, str]:
    """Return what this backend runs on, by name."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {**plain.versions(), "cupy": cupy.__version__, "gpu": properties["name"].decode(),
            "cuda": str(cupy.cuda.runtime.runtimeGetVersion())}
