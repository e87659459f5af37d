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
    space |= {name: reduction.term for name, reduction in REDUCTIONS.items()}
    exec(walk.numpy(), space)
    body, cast = space[walk.name], dtype.type

    def lines(table: list, constants: Any) -> Any:
        constants = numpy.array(constants, dtype=numpy.float64, ndmin=2)
        return zip(table, numpy.broadcast_to(constants, (len(table), len(walk.constants))))

    def update(table: list[tuple[numpy.ndarray, ...]], constants: Any) -> int | None:
        spoilt = None
        with numpy.errstate(all="ignore"):          # a NaN or an overflow spoils its own entries, as in a compiled loop
            for k, (row, line) in enumerate(lines(table, constants)):
                p, *states = body(*row, *map(cast, line))
                row[0][...] = p
                for old, new in zip(row[2:], states):
                    old[...] = new
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


def erf(x: numpy.ndarray) -> numpy.ndarray:
    """Return the error function of each element, by the C library."""
    x = numpy.asarray(x)
    return numpy.asarray(_erf(x), dtype=numpy.result_type(x, numpy.float16) if x.dtype.kind != "f" else x.dtype)


def versions() -> dict[str, str]:
    """Return what this backend runs on, by name."""
    return {"python": sys.version.split()[0], "numpy": numpy.__version__}
