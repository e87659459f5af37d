"""The plain NumPy backend: the reference that the others are held to, and what runs in a browser."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from ..rule import Pass

name = "numpy"
xp = numpy
ROW = 1 << 15                       # elements in a row: the temporaries of a rule then stay in the cache
LANES = 64                          # parts of a sum, each of every 64th element: what a compiled loop does at once
LOOK = 1

asarray = numpy.asarray
to_numpy = numpy.asarray
table = list
add_at = numpy.add.at
_erf = numpy.frompyfunc(math.erf, 1, 1)


def compile(walk: Pass, dtype: numpy.dtype) -> Callable[[list, Any], Any]:
    """Return a pass of a rule as a function of a table and constants."""
    from ..language import FUNCTIONS, REDUCTIONS
    space = {name: function.array for name, function in FUNCTIONS.items()}
    space |= {name: reduction.term for name, reduction in REDUCTIONS.items()} | {"cbrt": cbrt}
    exec(walk.numpy(), space)
    body, cast = space[walk.name], dtype.type
    written = [walk.arrays.index(name) for name in walk.written]

    def lines(table: list, constants: Any) -> Any:
        constants = numpy.array(constants, dtype=numpy.float64, ndmin=2)
        return zip(table, numpy.broadcast_to(constants, (len(table), len(walk.constants))))

    def update(table: list[tuple[numpy.ndarray, ...]], constants: Any) -> int | None:
        spoilt = None
        with numpy.errstate(all="ignore"):          # a NaN or an overflow spoils its own entries, as in a compiled loop
            for k, (row, line) in enumerate(lines(table, constants)):
                new = body(*row, *map(cast, line))
                # What is kept as it was (`old = p`) must be read before it is written.
                new = [a.copy() if any(a is old for old in row) else a for a in new]
                for place, a in zip(written, new):
                    row[place][...] = a
                if spoilt is None and numpy.isnan(row[0]).any():
                    spoilt = k
        return spoilt

    def add_up(table: list[tuple[numpy.ndarray, ...]], constants: Any) -> numpy.ndarray:
        sums = numpy.empty((len(table), len(walk.terms), LANES))
        with numpy.errstate(all="ignore"):
            for k, (row, line) in enumerate(lines(table, constants)):
                for place, term in enumerate(body(*row, *map(cast, line))):
                    padded = numpy.zeros((-(-term.size // LANES), LANES))
                    padded.reshape(-1)[:term.size] = term
                    sums[k, place] = padded.sum(axis=0)
        return sums
    return add_up if walk.terms else update


def add_bias(y: numpy.ndarray, bias: numpy.ndarray, rectify: bool) -> numpy.ndarray:
    """Return y + bias, or the larger of that and 0; y may be overwritten."""
    y = numpy.add(y, bias, out=y if bias.dtype == y.dtype else None)
    return numpy.maximum(y, 0, out=y) if rectify else y


def rectified(g: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """Return g where y is positive, and 0 elsewhere."""
    return numpy.where(y > 0, g, g.dtype.type(0))


def cross_entropy(z: numpy.ndarray, labels: numpy.ndarray,
                  share: float) -> tuple[numpy.ndarray, numpy.ndarray] | None:
    """Return the sum of `-share * log softmax(z)[i, labels[i]]` over the rows i of z, and its gradient in z.

    None where a label is not the number of a column.
    """
    if not ((labels >= 0) & (labels < z.shape[1])).all():
        return None
    rows = numpy.arange(len(z), like=z)
    gradient = z - z.max(axis=1, keepdims=True)
    chosen = gradient[rows, labels]
    numpy.exp(gradient, out=gradient)
    total = gradient.sum(axis=1, keepdims=True)
    gradient *= share / total
    gradient[rows, labels] -= share
    return share * (numpy.log(total[:, 0]) - chosen).sum(), gradient


def cbrt(x: numpy.ndarray) -> numpy.ndarray:
    """Return the cube root of each element, to two units in the last place.

    Halley's steps from a guess, a third of the exponent: plain arithmetic, of which a compiled loop makes the same
    bits, eight at a time. That of the C library takes ten times as long.
    """
    a, real = numpy.abs(x), x.dtype.type
    small = a < numpy.finfo(x.dtype).tiny
    a = numpy.multiply(a, real(2.0 ** (24 if x.dtype == numpy.float32 else 54)), out=a, where=small)
    if x.dtype == numpy.float32:
        bits = a.view(numpy.int32).astype(numpy.int64)
        y, steps, back = ((bits * 1431655766 >> 32) + 709958130).astype(numpy.int32).view(real), 2, real(2.0 ** -8)
    else:
        bits = a.view(numpy.int64) >> 32
        y, steps, back = ((bits * 1431655766 >> 32) + 715094163 << 32).view(real), 3, real(2.0 ** -18)
    with numpy.errstate(all="ignore"):
        for _ in range(steps):
            t = y / a * y * y
            y = y * ((t + real(2)) / (real(2) * t + real(1)))
    y = numpy.where(small, y * back, y)
    return numpy.where((a > 0) & (a < numpy.inf), numpy.where(x > 0, y, -y), x)


def erf(x: numpy.ndarray) -> numpy.ndarray:
    """Return the error function of each element, by the C library."""
    x = numpy.asarray(x)
    return numpy.asarray(_erf(x), dtype=numpy.result_type(x, numpy.float16) if x.dtype.kind != "f" else x.dtype)


def versions() -> dict[str, str]:
    """Return what this backend runs on, by name."""
    return {"python": sys.version.split()[0], "numpy": numpy.__version__}
