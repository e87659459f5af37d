"""The CuPy backend: arrays on the GPU; a rule is one launch in which a block of threads takes a row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy

from ..rule import Rule
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


def compile(rule: Rule, dtype: numpy.dtype) -> Callable[[Table, Sequence[float]], int | None]:
    """Return the rule as a function that updates every row of a table in place."""
    kernel, cast, launches = cupy.RawKernel(cuda_source(rule, dtype), rule.name), dtype.type, itertools.count(1)

    def run(table: Table, constants: Sequence[float]) -> int | None:
        kernel((len(table.rows),), (THREADS,), (table.addresses, table.spoilt, *(cast(c) for c in constants)))
        if next(launches) % LOOK:
            return None
        row = int(table.spoilt[0])
        return row if row < len(table.rows) else None
    return run


def versions() -> dict[str, str]:
    """Return what this backend runs on, by name."""
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {**plain.versions(), "cupy": cupy.__version__, "gpu": properties["name"].decode(),
            "cuda": str(cupy.cuda.runtime.runtimeGetVersion())}
