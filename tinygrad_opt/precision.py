"""Mixed precision: `autocast`, and the rounding of numbers to half precision.

Inside `autocast` products of matrices take float32 rounded to a half precision, and reductions and losses
take half precision as float32. What is rounded, and where, is on the tape, so gradients of any order are those
of the rounded computation, and come back in float32.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import update_wrapper
from inspect import unwrap
from typing import Any

import numpy

from .backend import xp
from .tensor import Tensor, float16, float32, primitive

uint32 = xp.dtype("uint32")


@primitive(lambda g, y, x: widen(g))
def narrow(x: Any) -> Any:
    """Return x in float16; what is too large becomes infinite, and that is no surprise to who asked for it."""
    with numpy.errstate(over="ignore"):
        return x.astype(float16)


@primitive(lambda g, y, x: narrow(g))
def widen(x: Any) -> Any:
    """Return x, of float16, in float32."""
    return x.astype(float32)


@primitive(lambda g, y, x: shorten(g))
def shorten(x: Any) -> Any:
    """Return x, of float32, rounded to 8 significant bits, to even where two are equally near: to a bfloat16.

    A bfloat16 is the upper half of a float32.
    """
    bits = x.view(uint32)
    with numpy.errstate(over="ignore"):             # of the bits of a NaN, which is kept as it is
        bits = bits + (0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return xp.where(x == x, bits.view(float32), x)


def to_float16(x: Any) -> Any:
    """Return x, of float32 or float16, in float16."""
    return x if x.dtype == float16 else narrow(x)


def to_bfloat16(x: Any) -> Any:
    """Return x, of float32 or float16, rounded to a bfloat16, in float32."""
    return shorten(widen(x) if x.dtype == float16 else x)


ROUNDING = {"float16": to_float16, "bfloat16": to_bfloat16}


def through_float32(op: Callable, *args: Any) -> Any:
    """Return op of float16 arrays, computed in float32 and rounded at the end: how a GPU sums products.

    Scaled gradients may overflow, and a `GradScaler` will find what did: no warning tells of it here.
    """
    with numpy.errstate(over="ignore", invalid="ignore"):
        return op(*(x if x is None else x.astype(float32) for x in args)).astype(float16)


class _Mode(threading.local):
    """How products round, or None outside of `autocast`: that of the class is where a thread starts."""

    rounding: Callable | None = None


mode = _Mode()


def _rounding(dtype: Any) -> Callable:
    name = "float16" if dtype is None else getattr(dtype, "__name__", str(dtype))
    if name not in ROUNDING:
        raise ValueError(f"autocast: dtype must be {' or '.join(map(repr, ROUNDING))}, got {dtype!r}; for float32 "
                         "leave autocast out, or pass enabled=False")
    return ROUNDING[name]


@contextmanager
def _rounded(rounding: Callable | None) -> Iterator[None]:
    own, before = vars(mode), dict(vars(mode))      # empty where the thread follows the switch of the process
    mode.rounding = rounding
    try:
        yield
    finally:
        own.clear()
        own.update(before)


def autocast(dtype: Any = None, enabled: bool = True) -> AbstractContextManager:
    """Compute in mixed precision inside: a context manager, and a decorator; for this thread alone.

    Matrix products and linear layers round their float32 arguments to `dtype`, sum in float32 and return `dtype`.
    Reductions, softmax, normalizations and losses take float16 as float32. Parameters, and their gradients, stay
    float32. float64 is left alone. Run the backward pass outside; with float16, scale the loss by a
    `GradScaler`, for small gradients round to 0. Micikevicius et al., Mixed precision training, arXiv:1710.03740.

    Parameters
    ----------
    dtype : {"float16", "bfloat16"} or dtype, optional
        float16 (the default) is a dtype of the results. bfloat16, which NumPy does not have, is emulated on
        every backend: float32 rounded to 8 significant bits.
    enabled : bool, default True
        False switches an outer `autocast` off.

    Raises
    ------
    ValueError
        When dtype is neither of the two.

    Notes
    -----
    It shows what half precision does to a training run, and saves no time: every backend sums products in float32
    and rounds the result.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.precision import autocast
    >>> x = tg.tensor([[1.0, 2.0 ** -12]])
    >>> with autocast():
    ...     x @ tg.tensor([[1.0], [1.0]])
    tensor([[1.]], dtype=float16)
    >>> with autocast("bfloat16"):
    ...     x @ tg.tensor([[1.0], [256.0]])
    tensor([[1.0625]])
    """
    return _rounded(_rounding(dtype) if enabled else None)


def set_autocast_enabled(enabled: bool, dtype: Any = None) -> None:
    """Switch autocasting on or off for the whole process: wherever a thread is not inside `autocast`."""
    _Mode.rounding = staticmethod(_rounding(dtype)) if enabled else None


def is_autocast_enabled() -> bool:
    """Return whether products round here and now."""
    return mode.rounding is not None


def _may_round(x: Any) -> bool:
    return x.dtype == float32 or x.dtype == float16


def product(op: Callable, *args: Any) -> Any:
    """Return op(*args) inside `autocast`: of rounded arguments, rounded. With float64 among them it is as ever."""
    if not all(x is None or _may_round(x) for x in args):
        return op(*args)
    rounding = mode.rounding
    return rounding(op(*(x if x is None else rounding(x) for x in args)))


def in_float32(op: Callable) -> Callable:
    """Let an op take its float16 arguments as float32 inside `autocast`."""
    def call(*args, **kwargs):
        if mode.rounding is not None:
            args = [_widened(x) for x in args]
            kwargs = {name: _widened(x) for name, x in kwargs.items()}
        return op(*args, **kwargs)

    update_wrapper(call, op).__wrapped__ = unwrap(op)
    return call


def _widened(x: Any) -> Any:
    return widen(x) if getattr(x, "dtype", None) == float16 and isinstance(x, (Tensor, xp.ndarray)) else x
