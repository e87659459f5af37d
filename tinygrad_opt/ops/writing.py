"""Writing into a Tensor: where no gradient is recorded into its memory, else into a new one, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from ..backend import asarray, xp
from ..tensor import Tensor, mode
from . import index


def recorded(*values: Any) -> bool:
    """Return whether a call with these arguments goes on the tape."""
    return mode.recording and any(isinstance(v, Tensor) and v._requires_grad for v in values)


def refuse_leaf(x: Tensor) -> None:
    """Raise where writing would change what gradients are asked for."""
    if x._requires_grad and x._node is None and mode.recording:
        raise RuntimeError("a leaf that requires a gradient cannot be written to while calls are recorded; "
                           "do it inside `with tg.no_grad():`, or write to its .data")


def write(x: Tensor, place: Any, value: Any) -> Tensor:
    """Write into the memory of x and count it, so that a backward that needs the old values can refuse."""
    if isinstance(value, (bool, int, float)):
        dtype = xp.result_type(x.dtype, value)
    else:
        value = value._data if isinstance(value, Tensor) else asarray(value)
        dtype = value.dtype
    if not xp.can_cast(dtype, x.dtype, "same_kind"):
        raise TypeError(f"cannot write {dtype} into a Tensor of {x.dtype}; convert one of them with .astype()")
    x._data[place] = value
    x._version[0] += 1
    return x


def in_place(op: Callable, rebind: bool) -> Callable:
    """Return the op that writes its result into its first argument.

    While gradients are recorded there is nothing to write into: `x += y` then means `x = x + y`, and the method
    with an underscore refuses.
    """
    def method(x, *args, **kwargs):
        refuse_leaf(x)
        if recorded(x, *args, *kwargs.values()):
            if not rebind:
                raise RuntimeError(f"{op.__name__}_ cannot write in place where gradients are recorded; "
                                   f"use x = x.{op.__name__}(...)")
            return op(x, *args)
        y = op(x, *args, **kwargs)
        if y.shape != x.shape:
            raise ValueError(f"cannot write a result of shape {y.shape} into a Tensor of shape {x.shape}")
        return write(x, ..., y)
    method.__name__, method.__doc__ = op.__name__ + "_", f"Like `{op.__name__}`, written into the Tensor itself."
    return method


def setitem(x: Tensor, place: Any, value: Any) -> None:
    """Write into a part of x. Where gradients are recorded, x continues in new memory and its older views stay."""
    refuse_leaf(x)
    if not recorded(x, value):
        write(x, index.plain(place), value)
        return
    if x._node is not None and x._node.op is index._getitem.op and x._data.base is not None:
        raise RuntimeError("this is a part of a Tensor that the tape records, and writing here would not reach the "
                           "whole; write with one index, x[i, j] = value, or into a .clone()")
    before = Tensor._wrap(x._data)
    before._node, before._requires_grad, before._version = x._node, x._requires_grad, x._version
    after = index.put(before, place, value)
    x._data, x._node, x._requires_grad, x._version = after._data, after._node, after._requires_grad, after._version


def zero_(x: Tensor) -> Tensor:
    """Set every element to 0 and return the Tensor."""
    return fill_(x, 0)


def fill_(x: Tensor, value: float) -> Tensor:
    """Set every element to a value and return the Tensor."""
    setitem(x, ..., value)
    return x


def copy_(x: Tensor, source: Any) -> Tensor:
    """Take over the elements of another Tensor or array of the same shape and return the Tensor."""
    shape = source.shape if hasattr(source, "shape") else numpy.shape(source)
    if tuple(shape) != x.shape:
        raise ValueError(f"copy_ needs the shape {x.shape}, got {tuple(shape)}")
    setitem(x, ..., source)
    return x
