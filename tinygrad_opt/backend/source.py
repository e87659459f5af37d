"""A rule as the source of a kernel: one fused loop over the rows of a table.

A row of a table is the addresses of `p`, `g` and each state, then their common length. One kernel call
so serves any number of parameters, wherever they lie in memory. It also tells the first row in which a
parameter has become NaN, which costs nothing beside the memory traffic.
"""

from __future__ import annotations

import re

import numpy

from ..rule import Rule

_NUMBA = '''"""{name}: {title}"""

import numpy
from numba import carray, njit

from tinygrad_opt.backend.loops import address

cbrt, exp, log, sqrt, tanh, isnan = numpy.cbrt, numpy.exp, numpy.log, numpy.sqrt, numpy.tanh, numpy.isnan
real = numpy.{dtype}


@njit(inline="always")
def square(x):
    return x * x


@njit(inline="always")
def sign(x):
    return real(1) if x > real(0) else real(-1) if x < real(0) else x


@njit(inline="always")
def maximum(a, b):
    return a if a > b or a != a else b


@njit(inline="always")
def minimum(a, b):
    return a if a < b or a != a else b


@njit("int64(int64[:,::1], int64, int64, float64[::1])", cache=True, nogil=True, error_model="numpy")
def kernel(_table, _first, _last, _constants):
    {constants}
    _spoilt = _last
    for _row in range(_first, _last):
        _length = _table[_row, {width}]
        {arrays}
        _nan = False
        for _i in range(_length):
            {load}
            {body}
            {store}
            _nan |= p != p
        if _nan and _spoilt == _last:
            _spoilt = _row
    return _spoilt
'''

_CUDA = '''// {name}: {title}
typedef {dtype} real;

__device__ inline real square(real x) {{ return x * x; }}
__device__ inline real sign(real x) {{ return x > 0 ? (real)1 : x < 0 ? (real)-1 : x == 0 ? (real)0 : x; }}
__device__ inline real maximum(real a, real b) {{ return a > b || a != a ? a : b; }}
__device__ inline real minimum(real a, real b) {{ return a < b || a != a ? a : b; }}

extern "C" __global__ void {name}(const long long* _table, int* _spoilt{constants}) {{
    const long long* _row = _table + (long long)blockIdx.x * {stride};
    {arrays}
    for (long long _i = threadIdx.x; _i < _row[{width}]; _i += blockDim.x) {{
        {load}
        {body}
        {store}
        if (p != p) atomicMin(_spoilt, (int)blockIdx.x);
    }}
}}
'''
_TITLE = "one fused loop over rows of memory, printed from a rule"


def numba_source(rule: Rule, dtype: numpy.dtype) -> str:
    """Return the Python module that Numba compiles for this rule and dtype."""
    return _NUMBA.format(
        name=rule.name, title=_TITLE, dtype=dtype.name, width=len(rule.arrays),
        constants=_join([f"{c} = real(_constants[{k}])" for k, c in enumerate(rule.constants)] or ["pass"], 4),
        arrays=_join([f"_{a} = carray(address(_table[_row, {k}]), _length, real)"
                      for k, a in enumerate(rule.arrays)], 8),
        load=_join([f"{a} = _{a}[_i]" for a in rule.arrays], 12),
        body=_join([f"{target} = {value}" for target, value in rule.lines("python")], 12),
        store=_join([f"_{a}[_i] = {a}" for a in rule.arrays if a != "g"], 12))


def cuda_source(rule: Rule, dtype: numpy.dtype) -> str:
    """Return the CUDA C kernel of this rule for this dtype: a block of threads takes a row of the table."""
    known, body = set(rule.arrays), []
    for target, value in rule.lines("c"):
        # A comparison is a bool; everything else has the parameter's type.
        declare = "" if target in known else "auto " if re.search(r" (<|>|<=|>=|==|!=) ", value) else "real "
        known.add(target)
        body.append(f"{declare}{target} = {value};")
    const = {a: "const " if a == "g" else "" for a in rule.arrays}
    return _CUDA.format(
        name=rule.name, title=_TITLE, dtype={"float32": "float", "float64": "double"}[dtype.name],
        width=len(rule.arrays), stride=len(rule.arrays) + 1,
        constants="".join(f", real {c}" for c in rule.constants),
        arrays=_join([f"{const[a]}real* _{a} = ({const[a]}real*)_row[{k}];" for k, a in enumerate(rule.arrays)], 4),
        load=_join([f"real {a} = _{a}[_i];" for a in rule.arrays], 8), body=_join(body, 8),
        store=_join([f"_{a}[_i] = {a};" for a in rule.arrays if a != "g"], 8))


def _join(lines: list[str], indent: int) -> str:
    return ("\n" + " " * indent).join(lines)
