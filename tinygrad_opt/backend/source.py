"""A pass of a rule as the source of a kernel: one fused loop over the rows of a table.

A row of a table is the addresses of `p`, `g` and each state, then their common length. One kernel call
so serves any number of parameters, wherever they lie in memory. It also tells the first row in which a
parameter has become NaN, which costs nothing beside the memory traffic. A pass that sums writes the parts
of its sums, one for every 64th element or for every thread, so that the order of adding is always the same.
"""

from __future__ import annotations

import re

import numpy

from ..rule import Pass
from .numpy import LANES

_NUMBA = '''"""{name}: {title}"""

import numpy
from numba import carray, njit

from tinygrad_opt.backend.loops import address
from tinygrad_opt.backend.loops import cbrt_{dtype} as cbrt

exp, log, sqrt, tanh, isnan = numpy.exp, numpy.log, numpy.sqrt, numpy.tanh, numpy.isnan
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


@njit(inline="always")
def product(a, b):
    return numpy.float64(a) * numpy.float64(b)


@njit(inline="always")
def norm(x):
    return product(x, x)


total, global_norm, global_dot, global_total = numpy.float64, norm, product, numpy.float64


'''
_UPDATE = '''
@njit("int64(int64[:,::1], int64, int64, float64[:,::1])", cache=True, nogil=True, error_model="numpy")
def kernel(_table, _first, _last, _constants):
    _spoilt = _last
    for _row in range(_first, _last):
        _length, _line = _table[_row, {width}], _row if _constants.shape[0] > 1 else 0
        {constants}
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
_ADD_UP = '''
@njit("int64(int64[:,::1], int64, int64, float64[:,::1], float64[:,:,::1])", cache=True, nogil=True,
      error_model="numpy")
def kernel(_table, _first, _last, _constants, _sums):
    # Sums in memory of their own, in loops whose length the compiler knows, become vector instructions.
    {parts}
    for _row in range(_first, _last):
        _length, _line = _table[_row, {width}], _row if _constants.shape[0] > 1 else 0
        _whole = _length - _length % {lanes}
        {constants}
        {arrays}
        {clear}
        for _start in range(0, _whole, {lanes}):
            for _lane in range({lanes}):
                _i = _start + _lane
                {load}
                {body}
                {store}
        for _start in range(_whole, _length, {lanes}):
            for _lane in range(_length - _start):
                _i = _start + _lane
                {load}
                {body}
                {store}
        {keep}
    return _last
'''

_CUDA = '''// {name}: {title}
typedef {dtype} real;

__device__ inline real square(real x) {{ return x * x; }}
__device__ inline real sign(real x) {{ return x > 0 ? (real)1 : x < 0 ? (real)-1 : x == 0 ? (real)0 : x; }}
__device__ inline real maximum(real a, real b) {{ return a > b || a != a ? a : b; }}
__device__ inline real minimum(real a, real b) {{ return a < b || a != a ? a : b; }}
__device__ inline double total(double x) {{ return x; }}
__device__ inline double norm(double x) {{ return x * x; }}
__device__ inline double global_total(double x) {{ return x; }}
__device__ inline double global_norm(double x) {{ return x * x; }}
__device__ inline double global_dot(double a, double b) {{ return a * b; }}

extern "C" __global__ void {name}(const long long* _table, {out}{parameters}) {{
    const long long* _row = _table + (long long)blockIdx.x * {stride};
    {constants}
    {arrays}
    for (long long _i = threadIdx.x; _i < _row[{width}]; _i += blockDim.x) {{
        {load}
        {body}
        {store}
    }}
    {end}
}}
'''
_TITLE = "one fused loop over rows of memory, printed from a rule"


def numba_source(walk: Pass, dtype: numpy.dtype) -> str:
    """Return the Python module that Numba compiles for this pass and dtype."""
    inner = 16 if walk.terms else 12
    return (_NUMBA + (_ADD_UP if walk.terms else _UPDATE)).format(
        name=walk.name, title=_TITLE, dtype=dtype.name, width=len(walk.arrays), lanes=LANES,
        constants=_join([f"{c} = real(_constants[_line, {k}])" for k, c in enumerate(walk.constants)] or ["pass"], 8),
        arrays=_join([f"_{a} = carray(address(_table[_row, {k}]), _length, real)"
                      for k, a in enumerate(walk.arrays)], 8),
        load=_join([f"{a} = _{a}[_i]" for a in walk.arrays], inner),
        body=_join([f"{target} = {value}" for target, value in walk.lines("python")], inner),
        store=_join([f"_{term}[_lane] += {term}" for term in walk.terms]
                    or [f"_{a}[_i] = {a}" for a in walk.written], inner),
        parts=_join([f"_{term} = numpy.empty({LANES})" for term in walk.terms], 4),
        clear=_join([f"_{term}[:] = 0" for term in walk.terms], 8),
        keep=_join([f"_sums[_row, {k}] = _{term}" for k, term in enumerate(walk.terms)], 8))


def cuda_source(walk: Pass, dtype: numpy.dtype) -> str:
    """Return the CUDA C kernel of this pass for this dtype: a block of threads takes a row of the table."""
    known, body = set(walk.arrays), []
    for target, value in walk.lines("c"):
        # A comparison is a bool, a term of a sum is double; everything else has the parameter's type.
        kind = "double" if target in walk.terms else "auto" if re.search(r" (<|>|<=|>=|==|!=) ", value) else "real"
        body.append(f"{'' if target in known else kind + ' '}{target} = {value};")
        known.add(target)
    const = {a: "" if a in walk.written else "const " for a in walk.arrays}
    each, count = walk.rule.each, len(walk.constants)
    sums = [f"_sums[((long long)blockIdx.x * {len(walk.terms)} + {k}) * blockDim.x + threadIdx.x]"
            for k in range(len(walk.terms))]
    return _CUDA.format(
        name=walk.name, title=_TITLE, dtype={"float32": "float", "float64": "double"}[dtype.name],
        width=len(walk.arrays), stride=len(walk.arrays) + 1, out="double* _sums" if walk.terms else "int* _spoilt",
        parameters=", const double* _constants" if each else "".join(f", real {c}" for c in walk.constants),
        constants=_join([f"const real {c} = _constants[(long long)blockIdx.x * {count} + {k}];"
                         for k, c in enumerate(walk.constants) if each]
                        + [f"double _{term} = 0;" for term in walk.terms], 4),
        arrays=_join([f"{const[a]}real* _{a} = ({const[a]}real*)_row[{k}];" for k, a in enumerate(walk.arrays)], 4),
        load=_join([f"real {a} = _{a}[_i];" for a in walk.arrays], 8), body=_join(body, 8),
        store=_join([f"_{term} += {term};" for term in walk.terms]
                    or [*(f"_{a}[_i] = {a};" for a in walk.written),
                        "if (p != p) atomicMin(_spoilt, (int)blockIdx.x);"], 8),
        end=_join([f"{place} = _{term};" for place, term in zip(sums, walk.terms)], 4))


def _join(lines: list[str], indent: int) -> str:
    return ("\n" + " " * indent).join(lines)
