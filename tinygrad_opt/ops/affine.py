"""The linear layer, alone and with ReLU: one op each, because every step of training goes through them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .. import backend
from ..backend import xp
from ..precision import mode, narrow, product, through_float32, widen
from ..tensor import Tensor, float16, primitive
from .linalg import _flat, _matmul
from .reduce import sum


def _affine(name: str, rectify: bool) -> Callable:
    """Return the function x @ weight.T + bias of arrays, or the larger of that and 0, for the op of a name."""
    def affine(x, weight, bias=None):
        if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
            raise ValueError(_misfit(x, weight))
        if x.dtype is float16 is weight.dtype and (bias is None or bias.dtype is float16):
            return through_float32(affine, x, weight, bias)
        y = (x if x.ndim == 2 else _flat(x)).dot(weight.T)
        if bias is not None:
            if bias.shape != weight.shape[:1]:
                raise ValueError(f"linear: bias has shape {bias.shape}, it must be {weight.shape[:1]} (weight has "
                                 f"shape {weight.shape})")
            y = backend.add_bias(y, bias, rectify)
        elif rectify:
            y = xp.maximum(y, 0)
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], len(weight))

    affine.__name__ = name
    return affine


def _misfit(x: Any, weight: Any) -> str:
    if weight.ndim != 2:
        return f"linear: weight must have shape (out, in), got {weight.shape}"
    if not x.ndim:
        return "linear: x needs an axis of features, got a single number"
    return (f"linear: x has {x.shape[-1]} features in its last axis, weight takes {weight.shape[1]} "
            f"(weight has shape {weight.shape})")


def _input_vjp(g, y, x, weight, bias=None):
    return _matmul(g, weight) if g.ndim > 1 else _linear(g, weight.T)


def _weight_vjp(g, y, x, weight, bias=None):
    return _matmul(_flat(g).T, _flat(x))


def _bias_vjp(g, y, x, weight, bias=None):
    g = _flat(g)
    return sum(g, axis=0) if g.dtype is not float16 else narrow(sum(widen(g), axis=0))


# On arrays the same in fewer calls, and straight into the memory of the leaf's gradient where there is one.
def _input_raw(g, y, x, weight, bias=None):
    return g.dot(weight) if g.dtype is not float16 else _matmul(g, weight)


def _weight_raw(g, y, x, weight, bias=None, out=None):
    return _dot(g.T, x, out) if g.ndim == 2 else _dot(_flat(g).T, _flat(x), out)


def _bias_raw(g, y, x, weight, bias=None, out=None):
    g = g if g.ndim == 2 else _flat(g)
    return _dot(_ones(len(g), g.dtype), g, out)     # sums the rows faster than a sum does


def _dot(a, b, out):
    if a.dtype is not float16 and (out is None or a.dtype is b.dtype is out.dtype):
        return xp.dot(a, b, out)
    y = _matmul(a, b)
    if out is None:
        return y
    out[...] = y
    return out


@lru_cache(16)
def _ones(n: int, dtype: Any) -> Any:
    return xp.ones(n, dtype)


_input_vjp.raw, _weight_vjp.raw, _bias_vjp.raw = _input_raw, _weight_raw, _bias_raw


def _relu_vjp(g, y, x, weight, bias=None):
    return _rectified(g, y)


_relu_vjp.raw = lambda g, y, x, weight, bias=None: backend.rectified(g, y)
_linear = primitive(_input_vjp, _weight_vjp, _bias_vjp)(_affine("linear", False))
_linear_relu = primitive(_input_vjp, _weight_vjp, _bias_vjp, common=_relu_vjp)(_affine("linear_relu", True))


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return input @ weight.T + bias.

    Parameters
    ----------
    input : Tensor or array, shape (..., in)
    weight : Tensor or array, shape (out, in)
    bias : Tensor or array, shape (out,), optional

    Returns
    -------
    Tensor or array, shape (..., out)

    Raises
    ------
    ValueError
        When the shapes do not fit.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.linear(tg.tensor([[1.0, 2.0]]), tg.tensor([[1.0, 0.0], [3.0, 4.0]]), tg.tensor([0.0, 0.5]))
    tensor([[ 1.0000, 11.5000]])
    """
    if mode.rounding is not None:
        return product(_linear, input, weight, bias)
    return _linear(input, weight, bias)


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return relu(linear(input, weight, bias)) as one op: what Sequential makes of a Linear and the ReLU behind it.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.linear_relu(tg.tensor([[1.0, 2.0]]), tg.tensor([[1.0, 0.0], [3.0, -4.0]]), tg.tensor([0.0, 0.5]))
    tensor([[1., 0.]])
    """
    if mode.rounding is not None:
        return product(_linear_relu, input, weight, bias)
    return _linear_relu(input, weight, bias)


@primitive(lambda g, y, x, mask: _rectified(g, mask))
def _rectified(x, mask):
    """Return x where the mask is positive, and 0 elsewhere."""
    return backend.rectified(x, mask)
