"""Arithmetic and the elementary functions, each with its gradient: one line forward, one line a VJP.

A VJP `(g, y, *args)` pulls the cotangent g of the result y back to one argument. It is written in ops, so
it can be differentiated again; the engine takes care of broadcasting.
"""

from __future__ import annotations

import math
from typing import Any

from .. import backend
from ..backend import xp
from ..tensor import Tensor, primitive

# ---- arithmetic -------------------------------------------------------------------------------------------


@primitive(lambda g, y, a, b: g, lambda g, y, a, b: g)
def add(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b."""
    return xp.add(a, b)


@primitive(lambda g, y, a, b: g, lambda g, y, a, b: -g)
def sub(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b."""
    return xp.subtract(a, b)


@primitive(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
def mul(a: Tensor, b: Tensor) -> Tensor:
    """Return a * b."""
    return xp.multiply(a, b)


@primitive(lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b)
def div(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b."""
    return xp.true_divide(a, b)


@primitive(lambda g, y, a, b: zeros_like(g), lambda g, y, a, b: zeros_like(g))
def floor_divide(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest integer not above a / b."""
    return xp.floor_divide(a, b)


@primitive(lambda g, y, a, b: g, lambda g, y, a, b: -g * floor_divide(a, b))
def remainder(a: Tensor, b: Tensor) -> Tensor:
    """Return a - b * floor(a / b), which has the sign of b."""
    return xp.remainder(a, b)


@primitive(lambda g, y, x: -g)
def neg(x: Tensor) -> Tensor:
    """Return -x."""
    return xp.negative(x)


@primitive(lambda g, y, a, b: g * b * _power_below(a, b), lambda g, y, a, b: g * y * log(where(a > 0, a, 1)))
def pow(a: Tensor, b: Tensor) -> Tensor:
    """Return a to the power b. The gradient in b is 0 where a is not positive."""
    return a ** b if hasattr(a, "dtype") else xp.power(a, b)


def _power_below(a, b):
    """Return a ** (b - 1), and 1 at a = b = 0: the slope of a ** 0 is 0 there too."""
    if isinstance(b, (int, float)):
        return a ** (b - 1) if b else 1
    return a ** where((a == 0) & (b == 0), 0, b - 1)


@primitive(lambda g, y, x: g * sign(x))
def abs(x: Tensor) -> Tensor:
    """Return the absolute value; its gradient at 0 is 0."""
    return xp.abs(x)


@primitive(lambda g, y, x: 2 * g * x)
def square(x: Tensor) -> Tensor:
    """Return x * x."""
    return xp.square(x)


@primitive(lambda g, y, x: -g * y * y)
def reciprocal(x: Tensor) -> Tensor:
    """Return 1 / x."""
    return xp.true_divide(1, x)


@primitive(lambda g, y, a, b, weight: g * (1 - weight), lambda g, y, a, b, weight: g * weight,
           lambda g, y, a, b, weight: g * (b - a))
def _lerp(a, b, weight):
    return a + weight * (b - a)


def lerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return a + weight * (b - a)."""
    return _lerp(a, b, weight)


def addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    """Return x + value * a * b."""
    return x + value * a * b


def addcdiv(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    """Return x + value * a / b."""
    return x + value * a / b


# ---- roots, exponentials, logarithms ----------------------------------------------------------------------


@primitive(lambda g, y, x: g / (2 * y))
def sqrt(x: Tensor) -> Tensor:
    """Return the square root."""
    return xp.sqrt(x)


@primitive(lambda g, y, x: -0.5 * g * y * y * y)
def rsqrt(x: Tensor) -> Tensor:
    """Return 1 / sqrt(x)."""
    return 1 / xp.sqrt(x)


@primitive(lambda g, y, x: g * y)
def exp(x: Tensor) -> Tensor:
    """Return e to the power x."""
    return xp.exp(x)


@primitive(lambda g, y, x: g * y * math.log(2))
def exp2(x: Tensor) -> Tensor:
    """Return 2 to the power x."""
    return xp.exp2(x)


@primitive(lambda g, y, x: g * (y + 1))
def expm1(x: Tensor) -> Tensor:
    """Return exp(x) - 1, accurate near 0."""
    return xp.expm1(x)


@primitive(lambda g, y, x: g / x)
def log(x: Tensor) -> Tensor:
    """Return the natural logarithm."""
    return xp.log(x)


@primitive(lambda g, y, x: g / (x + 1))
def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x), accurate near 0."""
    return xp.log1p(x)


@primitive(lambda g, y, x: g / (x * math.log(2)))
def log2(x: Tensor) -> Tensor:
    """Return the logarithm to base 2."""
    return xp.log2(x)


@primitive(lambda g, y, x: g / (x * math.log(10)))
def log10(x: Tensor) -> Tensor:
    """Return the logarithm to base 10."""
    return xp.log10(x)


@primitive(lambda g, y, a, b: g * exp(a - y), lambda g, y, a, b: g * exp(b - y))
def logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """Return log(exp(a) + exp(b)) without overflow."""
    return xp.logaddexp(a, b)


@primitive(lambda g, y, a, b: g * _ratio(a, y), lambda g, y, a, b: g * _ratio(b, y))
def hypot(a: Tensor, b: Tensor) -> Tensor:
    """Return sqrt(a * a + b * b) without overflow; its gradient at the origin is 0."""
    return xp.hypot(a, b)


def _ratio(a, y):
    return a / where(y == 0, 1, y)


@primitive(lambda g, y, x: g * exp(-x * x) * (2 / math.sqrt(math.pi)))
def erf(x: Tensor) -> Tensor:
    """Return the error function, the integral of the normal density scaled to lie between -1 and 1."""
    return backend.erf(x)


# ---- trigonometric and hyperbolic -------------------------------------------------------------------------


@primitive(lambda g, y, x: g * cos(x))
def sin(x: Tensor) -> Tensor:
    """Return the sine of x radians."""
    return xp.sin(x)


@primitive(lambda g, y, x: -g * sin(x))
def cos(x: Tensor) -> Tensor:
    """Return the cosine of x radians."""
    return xp.cos(x)


@primitive(lambda g, y, x: g * (1 + y * y))
def tan(x: Tensor) -> Tensor:
    """Return the tangent of x radians."""
    return xp.tan(x)


@primitive(lambda g, y, x: g / sqrt(1 - x * x))
def asin(x: Tensor) -> Tensor:
    """Return the angle in radians whose sine is x."""
    return xp.arcsin(x)


@primitive(lambda g, y, x: -g / sqrt(1 - x * x))
def acos(x: Tensor) -> Tensor:
    """Return the angle in radians whose cosine is x."""
    return xp.arccos(x)


@primitive(lambda g, y, x: g / (1 + x * x))
def atan(x: Tensor) -> Tensor:
    """Return the angle in radians whose tangent is x."""
    return xp.arctan(x)


@primitive(lambda g, y, a, b: g * b / (a * a + b * b), lambda g, y, a, b: -g * a / (a * a + b * b))
def atan2(a: Tensor, b: Tensor) -> Tensor:
    """Return the angle in radians of the point (b, a), in (-pi, pi]."""
    return xp.arctan2(a, b)


@primitive(lambda g, y, x: g * cosh(x))
def sinh(x: Tensor) -> Tensor:
    """Return the hyperbolic sine."""
    return xp.sinh(x)


@primitive(lambda g, y, x: g * sinh(x))
def cosh(x: Tensor) -> Tensor:
    """Return the hyperbolic cosine."""
    return xp.cosh(x)


@primitive(lambda g, y, x: g * (1 - y * y))
def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent."""
    return xp.tanh(x)


@primitive(lambda g, y, x: g / sqrt(x * x + 1))
def asinh(x: Tensor) -> Tensor:
    """Return the inverse of sinh."""
    return xp.arcsinh(x)


@primitive(lambda g, y, x: g / sqrt(x * x - 1))
def acosh(x: Tensor) -> Tensor:
    """Return the inverse of cosh."""
    return xp.arccosh(x)


@primitive(lambda g, y, x: g / (1 - x * x))
def atanh(x: Tensor) -> Tensor:
    """Return the inverse of tanh."""
    return xp.arctanh(x)


# ---- steps and choices: the gradient of a step is 0 -------------------------------------------------------


@primitive(lambda g, y, x: zeros_like(g))
def sign(x: Tensor) -> Tensor:
    """Return -1, 0 or 1."""
    return xp.sign(x)


@primitive(lambda g, y, x: zeros_like(g))
def floor(x: Tensor) -> Tensor:
    """Return the largest integer not above x."""
    return xp.floor(x)


@primitive(lambda g, y, x: zeros_like(g))
def ceil(x: Tensor) -> Tensor:
    """Return the smallest integer not below x."""
    return xp.ceil(x)


@primitive(lambda g, y, x, decimals=0: zeros_like(g))
def round(x: Tensor, decimals: int = 0) -> Tensor:
    """Return x rounded to `decimals` places, halves to even."""
    return xp.round(x, decimals)


@primitive(lambda g, y, a, b: where(a == b, g / 2, where(a > b, g, 0)),
           lambda g, y, a, b: where(a == b, g / 2, where(a > b, 0, g)))
def maximum(a: Tensor, b: Tensor) -> Tensor:
    """Return the larger of a and b; where they are equal, each gets half of the gradient."""
    return xp.maximum(a, b)


@primitive(lambda g, y, a, b: where(a == b, g / 2, where(a < b, g, 0)),
           lambda g, y, a, b: where(a == b, g / 2, where(a < b, 0, g)))
def minimum(a: Tensor, b: Tensor) -> Tensor:
    """Return the smaller of a and b; where they are equal, each gets half of the gradient."""
    return xp.minimum(a, b)


@primitive(None, lambda g, y, condition, a, b: where(condition, g, 0),
           lambda g, y, condition, a, b: where(condition, 0, g))
def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a where the condition holds and b elsewhere."""
    return xp.where(condition, a, b)


@primitive(lambda g, y, x, low, high: where((x >= low) & (x <= high), g, 0),
           lambda g, y, x, low, high: where(x < low, g, 0), lambda g, y, x, low, high: where(x > high, g, 0))
def _clamp(x, low, high):
    return xp.clip(x, low, high)


def clamp(x: Tensor, min: float | Tensor | None = None, max: float | Tensor | None = None) -> Tensor:
    """Return x limited to [min, max]; the gradient passes where x lies within.

    Parameters
    ----------
    x : Tensor or array
    min, max : number or Tensor, optional
        The limits; None for no limit on that side. At least one is needed.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.clamp(tg.tensor([-2.0, 0.5, 3.0]), -1, 1)
    tensor([-1.0000,  0.5000,  1.0000])
    """
    if min is None and max is None:
        raise ValueError("clamp needs min=, max= or both")
    if x.dtype.kind != "f":                         # infinite limits would turn integers into floats
        return maximum(x, min) if max is None else minimum(x, max) if min is None else _clamp(x, min, max)
    return _clamp(x, -math.inf if min is None else min, math.inf if max is None else max)


clip = clamp


# ---- questions: answered in booleans, without gradient ----------------------------------------------------


def _question(name: str, doc: str):
    """An op without gradient from one of the array namespace's own functions."""
    function = getattr(xp, name)

    def op(a, *others):
        return function(a, *others)
    op.__name__, op.__doc__ = name, doc
    return primitive()(op)


eq, ne = _question("equal", "Return a == b."), _question("not_equal", "Return a != b.")
lt, le = _question("less", "Return a < b."), _question("less_equal", "Return a <= b.")
gt, ge = _question("greater", "Return a > b."), _question("greater_equal", "Return a >= b.")
isnan = _question("isnan", "Return whether each element is NaN.")
isinf = _question("isinf", "Return whether each element is infinite.")
isfinite = _question("isfinite", "Return whether each element is neither NaN nor infinite.")
logical_and = _question("logical_and", "Return whether both are true.")
logical_or = _question("logical_or", "Return whether at least one is true.")
logical_xor = _question("logical_xor", "Return whether exactly one is true.")
logical_not = _question("logical_not", "Return whether x is false.")
bitwise_and = _question("bitwise_and", "Return a & b.")
bitwise_or = _question("bitwise_or", "Return a | b.")
bitwise_xor = _question("bitwise_xor", "Return a ^ b.")
bitwise_not = _question("invert", "Return ~x.")

# ---- types and copies -------------------------------------------------------------------------------------


def _astype(x, dtype):
    return x.astype(dtype)


_to_float, _to_other = primitive(lambda g, y, x, dtype: g)(_astype), primitive()(_astype)


def astype(x: Tensor, dtype: Any) -> Tensor:
    """Return a copy of x in another dtype; the gradient comes back in that of x, but not through integers."""
    return (_to_float if xp.dtype(dtype).kind == "f" else _to_other)(x, dtype)


@primitive(lambda g, y, x: g)
def clone(x: Tensor) -> Tensor:
    """Return a copy that the gradient passes through."""
    return xp.array(x)


def zeros_like(x: Tensor, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """Return zeros of the shape and dtype of x."""
    return full_like(x, 0, requires_grad, dtype)


def ones_like(x: Tensor, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """Return ones of the shape and dtype of x."""
    return full_like(x, 1, requires_grad, dtype)


def full_like(x: Tensor, fill_value: Any, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """Return the fill value in the shape and dtype of x: a Tensor for a Tensor, an array for an array."""
    if not isinstance(x, Tensor):
        return xp.full_like(x, fill_value, dtype=dtype)
    return Tensor._wrap(xp.full_like(x._data, fill_value, dtype=dtype)).requires_grad_(requires_grad)
