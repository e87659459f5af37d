"""Ops that move elements about: their gradients move them back."""

from __future__ import annotations

from ..backend import xp
from ..tensor import primitive


@primitive(lambda g, y, x, shape: reshape(g, x.shape), view=True)
def reshape(x, shape):
    """Return x in another shape of the same size."""
    return xp.reshape(x, shape)


@primitive(lambda g, y, x, shape: g, view=True)
def broadcast_to(x, shape):
    """Return x repeated to a shape; the engine sums the gradient back."""
    return xp.broadcast_to(x, shape)


@primitive(lambda g, y, x, axes=None: transpose(g, axes if axes is None else tuple(int(k) for k in xp.argsort(axes))),
           view=True)
def transpose(x, axes=None):
    """Return x with its axes reversed, or in the given order."""
    return xp.transpose(x, axes)
