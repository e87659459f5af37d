"""Matrix products and linear algebra."""

from __future__ import annotations

from ..backend import xp
from ..tensor import primitive
from .reduce import sum
from .shape import reshape, transpose


@primitive(lambda g, y, a, b: matmul(g, transpose(b)), lambda g, y, a, b: matmul(transpose(a), g))
def matmul(a, b):
    """Return the matrix product."""
    return xp.matmul(a, b)


def _flat(x):
    return x if x.ndim == 2 else reshape(x, (-1, x.shape[-1]))


def _weight_vjp(g, y, x, weight, bias=None):
    return matmul(transpose(_flat(g)), _flat(x))


def _bias_vjp(g, y, x, weight, bias=None):
    return sum(_flat(g), axis=0)


# The same two, written straight into the memory of the leaf's gradient.
_weight_vjp.into = lambda out, g, y, x, weight, bias=None: xp.dot(_flat(g).T, _flat(x), out)
_bias_vjp.into = lambda out, g, y, x, weight, bias=None: xp.add.reduce(_flat(g), 0, None, out)


@primitive(lambda g, y, x, weight, bias=None: matmul(g, weight), _weight_vjp, _bias_vjp)
def linear(x, weight, bias=None):
    """Return x @ weight.T + bias."""
    y = xp.matmul(x, weight.T)
    if bias is not None:
        y += bias
    return y
