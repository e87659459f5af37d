"""The plain NumPy backend: the reference that the others are held to, and what runs in a browser."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy

if TYPE_CHECKING:
    from ..rule import Rule

name = "numpy"
xp = numpy
ROW = 1 << 15                       # elements in a row: the temporaries of a rule then stay in the cache

asarray = numpy.asarray
to_numpy = numpy.asarray
table = list
add_at = numpy.add.at
_erf = numpy.frompyfunc(math.erf, 1, 1)


def compile(rule: Rule, dtype: numpy.dtype) -> Callable[[list, Sequence[float]], int | None]:
    """Return the rule as a function that updates every row of a table in place."""
    from ..language import FUNCTIONS
    space = {name: function.array for name, function in FUNCTIONS.items()}
    exec(rule.numpy(), space)
    body, cast = space[rule.name], dtype.type

    def run(table: list[tuple[numpy.ndarray, ...]], constants: Sequence[float]) -> int | None:
        constants, spoilt = [cast(c) for c in constants], None
        with numpy.errstate(all="ignore"):          # a NaN or an overflow spoils its own entries, as in a compiled loop
            for k, row in enumerate(table):
                p, *states = body(*row, *constants)
                row[0][...] = p
                for old, new in zip(row[2:], states):
                    old[...] = new
                if spoilt is None and numpy.isnan(row[0]).any():
                    spoilt = k
        return spoilt
    return run


def add_bias(y: numpy.ndarray, bias: numpy.ndarray, rectify: bool) -> numpy.ndarray:
    """Return y + bias, or the larger of that and 0; y may be overwritten."""
    y = numpy.add(y, bias, out=y if bias.dtype == y.dtype else None)
    return numpy.maximum(y, 0, out=y) if rectify else y


def rectified(g: numpy.ndarray, y: numpy.ndarray) -> numpy.ndarray:
    """Return g where y is positive, and 0 elsewhere."""
    return g * (y > 0)


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
