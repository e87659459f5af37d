"""Reading from and writing to parts of a Tensor: each is the other's gradient."""

from __future__ import annotations

from typing import Any

from .. import backend
from ..backend import xp
from ..tensor import Tensor, primitive


def plain(index: Any) -> Any:
    """Return an index with arrays in the place of Tensors and lists."""
    if isinstance(index, Tensor):
        return index._data
    if isinstance(index, tuple):
        return tuple(plain(k) for k in index)
    return xp.asarray(index) if isinstance(index, list) else index


@primitive(lambda g, y, x, index: _scatter(g, index=index, shape=x.shape), view=True)
def _getitem(x, index):
    return x[index]


def getitem(x: Tensor, index: Any) -> Tensor:
    """Return x[index], for every kind of index that NumPy knows."""
    return _getitem(x, index=plain(index))


@primitive(lambda g, y, x, index, shape: _getitem(g, index=index))
def _scatter(x, index, shape):
    """Return zeros of a shape with x added at the index: the transpose of reading there."""
    y = xp.zeros(shape, x.dtype)
    backend.add_at(y, index, x)
    return y
