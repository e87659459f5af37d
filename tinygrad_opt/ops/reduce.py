"""Ops that take many numbers to one, along some axes or all."""

from __future__ import annotations

from ..backend import xp
from ..tensor import primitive
from .shape import broadcast_to, reshape


@primitive(lambda g, y, x, axis=None, keepdims=False: spread(g, x.shape, axis, keepdims))
def sum(x, axis=None, keepdims=False):
    """Return the sum over the given axes, or over all."""
    return xp.sum(x, axis=axis, keepdims=keepdims)


def spread(g, shape, axis, keepdims):
    """Return a reduced g in the shape from before: every element gets the g of its group."""
    if axis is not None and not keepdims:
        axes = {a % len(shape) for a in (axis if isinstance(axis, tuple) else (axis,))}
        g = reshape(g, tuple(1 if k in axes else n for k, n in enumerate(shape)))
    return broadcast_to(g, shape)


def sum_to(x, shape):
    """Return x summed over the axes along which `shape` was broadcast: the transpose of `broadcast_to`."""
    extra = x.ndim - len(shape)
    axes = tuple(k for k, n in enumerate(x.shape) if k < extra or shape[k - extra] == 1 != n)
    return reshape(sum(x, axis=axes), tuple(shape)) if axes else x
