"""The backend: chosen once, when the package is imported.

`TINYGRAD_OPT_BACKEND` is `auto` (the default), `numpy`, `numba` or `cupy`. `auto` takes CuPy where a GPU
answers, else Numba, else NumPy. Every backend is one file with the same names:

==================  ================================================================================
`name`, `xp`        its name, and its array namespace (NumPy's or CuPy's)
`asarray(a)`        an array, a number or a list as an array of the backend
`to_numpy(a)`       an array of the backend as a NumPy array, without a copy where possible
`table(rows)`       rows of equally long flat arrays, `(p, g, *states)`, ready for a compiled rule
`compile(walk, d)`  a pass of a rule for dtype `d`, called with a table and constants: numbers for all rows, or
                    an array with a line for each. The pass that writes updates in place and returns the first
                    row in which a parameter has become NaN, or None; one that sums returns an array (row, term,
                    parts of the sum)
`ROW`               the length at which a row is cut: one unit of work
`LOOK`              how many steps lie between two looks at whether a parameter has become NaN
`cross_entropy`     a hand-fused kernel: the loss of logits and labels, and its gradient
`erf(x)`            the error function, which NumPy lacks
`add_at(a, i, b)`   `a[i] += b` in which repeated indices add up
`versions()`        what `tinygrad-opt info` prints
==================  ================================================================================

No other file asks which backend it is. Adding a backend is adding a file and its name to `CHOICES`.
"""

import os
from importlib import import_module
from importlib.util import find_spec

CHOICES = ("cupy", "numba", "numpy")


def _choose(wanted: str):
    """Import the wanted backend, or say in one line why it cannot work and what mends it."""
    if wanted in CHOICES:
        return import_module(f"{__name__}.{wanted}")
    if wanted != "auto":
        raise ImportError(f"TINYGRAD_OPT_BACKEND must be auto, {', '.join(CHOICES)}; got {wanted!r}")
    for choice in CHOICES:
        if choice == "numpy" or find_spec(choice) is not None:
            try:
                return import_module(f"{__name__}.{choice}")
            except ImportError:                     # installed but unusable: the next one can do everything it could
                continue
    raise AssertionError("the numpy backend always works")


_backend = _choose(os.environ.get("TINYGRAD_OPT_BACKEND", "auto").strip().lower() or "auto")

name, xp, ROW, LOOK = _backend.name, _backend.xp, _backend.ROW, _backend.LOOK
asarray, to_numpy = _backend.asarray, _backend.to_numpy
table, compile = _backend.table, _backend.compile
add_bias, rectified, cross_entropy = _backend.add_bias, _backend.rectified, _backend.cross_entropy
erf, add_at, versions = _backend.erf, _backend.add_at, _backend.versions
