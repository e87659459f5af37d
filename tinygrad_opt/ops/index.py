"""Reading from and writing to parts of a Tensor: each is the other's gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from inspect import unwrap
from math import prod
from typing import Any

import numpy
from numpy.lib.array_utils import normalize_axis_index

from .. import backend
from ..backend import asarray, xp
from ..tensor import Tensor, int64, mode, primitive
from .elementwise import where

# ---- axis and dim -----------------------------------------------------------------------------------------

Axes = int | tuple[int, ...] | None
SYNONYMS = {"dim": "axis", "dims": "axis", "keepdim": "keepdims",
            "dim0": "axis0", "dim1": "axis1", "dim2": "axis2"}


def axis_or_dim(op: Callable) -> Callable:
    """Let an op accept torch's `dim=` and `keepdim=` for its `axis=` and `keepdims=`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x.sum(dim=1, keepdim=True).tolist() == x.sum(axis=1, keepdims=True).tolist()
    True
    """
    def call(*args, **kwargs):
        if kwargs and not SYNONYMS.keys().isdisjoint(kwargs):
            renamed = {SYNONYMS.get(name, name): value for name, value in kwargs.items()}
            if len(renamed) < len(kwargs):
                raise TypeError(f"{call.__name__}() got two names of one argument, {', '.join(kwargs)}; "
                                "dim= is axis= and keepdim= is keepdims=: pass one of each")
            kwargs = renamed
        return op(*args, **kwargs)

    update_wrapper(call, op).__wrapped__ = unwrap(op)
    return call


# ---- x[index] ---------------------------------------------------------------------------------------------


def plain(index: Any, copy: bool = False) -> Any:
    """Return an index with arrays in the place of Tensors and lists; copies of them where it has to last."""
    if isinstance(index, tuple):
        return tuple(plain(k, copy) for k in index)
    if isinstance(index, (list, range)):
        array = Tensor(index)._data
        return array if array.size else array.astype(int64)
    if isinstance(index, Tensor):
        return index._data.copy() if copy else index._data
    if isinstance(index, (numpy.ndarray, xp.ndarray)):
        return xp.array(index) if copy else asarray(index)
    return index


@primitive(lambda g, y, x, index: _scatter(g, index=index, shape=x.shape), view=True)
def _getitem(x, index):
    return x[index]


def getitem(x: Tensor, index: Any) -> Tensor:
    """Return x[index], for every kind of index that NumPy knows.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x[0, -1], x[:, None, 1].shape, x[x > 1.5], x[tg.tensor([1, 1]), 0]
    (tensor(2.), (2, 1), tensor([2., 3., 4.]), tensor([3., 3.]))
    """
    recorded = isinstance(x, Tensor) and x._requires_grad and mode.recording
    return _getitem(x, index=plain(index, copy=recorded))


@primitive(lambda g, y, x, index, shape: _getitem(g, index=index))
def _scatter(x, index, shape):
    """Return zeros of a shape with x added at the index: the transpose of reading there."""
    y = xp.zeros(shape, x.dtype)
    if _repeats(index):
        _add_at(y, index, x)
    else:
        y[index] = x
    return y


def _repeats(index: Any) -> bool:
    """Return whether an index may name an element twice: only arrays of integers can."""
    return any(isinstance(k, xp.ndarray) and k.ndim > 0 and k.dtype.kind in "iu"
               for k in (index if isinstance(index, tuple) else (index,)))


def _add_at(y: Any, index: Any, x: Any) -> None:
    """Add x to a contiguous y at the index, in flat positions: NumPy is fast at this along one axis only."""
    shape, arrays = y.shape, index if isinstance(index, tuple) else (index,)
    if all(isinstance(k, xp.ndarray) and k.dtype.kind in "iu" for k in arrays):
        start = 0
        for k, n in zip(arrays, shape):
            start = start * n + k.astype(int64) % max(n, 1)
        width = prod(shape[len(arrays):])
        places = start[..., None] * width + xp.arange(width)
    else:
        places = xp.arange(y.size).reshape(shape)[index]
    backend.add_at(y.reshape(-1), places.reshape(-1), x.reshape(-1))


def put(x: Tensor, index: Any, value: Any) -> Tensor:
    """Return a copy of x with `value` written at an index.

    Where the index repeats, the last value stays, and its gradient; on a GPU, any one of them.

    Parameters
    ----------
    x : Tensor
    index : int, slice, None, Ellipsis, integer or boolean array, list, Tensor or tuple of them
    value : number or Tensor
        Broadcast to the shape of `x[index]`.

    Raises
    ------
    TypeError
        When the value is of a higher kind than x, say a float for an integer Tensor.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.put(tg.zeros(2, 3), (0, [0, 2]), tg.tensor([5.0, 6.0])).tolist()
    [[5.0, 0.0, 6.0], [0.0, 0.0, 0.0]]
    """
    return _put(x, value if isinstance(value, Tensor) else asarray(value), index=plain(index, copy=True))


def _written(g, y, x, value, index):
    """Return g at the elements that were written; of repeated ones, only where the value has stayed."""
    c = _getitem(g, index=index)
    if not _repeats(index):
        return c
    owner = xp.zeros(g.shape, int64)
    owner[index] = order = xp.arange(prod(c.shape)).reshape(c.shape)
    return where(owner[index] == order, c, 0)


@primitive(lambda g, y, x, value, index: _put(g, asarray(0), index=index), _written)
def _put(x, value, index):
    if not xp.can_cast(value.dtype, x.dtype, "same_kind"):
        raise TypeError(f"cannot write {value.dtype} into a Tensor of {x.dtype}; convert one with .astype()")
    y = xp.array(x)
    y[index] = value
    return y


@axis_or_dim
def select(x: Tensor, axis: int, index: Any) -> Tensor:
    """Return x at one index along an axis, which disappears, or at a slice of it, which stays.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.arange(6).reshape(2, 3)
    >>> tg.select(x, 1, 0), tg.select(x, 1, slice(0, 2)).tolist()
    (tensor([0, 3]), [[0, 1], [3, 4]])
    """
    return getitem(x, (slice(None),) * normalize_axis_index(axis, x.ndim) + (index,))


# ---- positions along one axis -----------------------------------------------------------------------------


def _checked(index: Any, low: int, high: int, axis: int) -> Any:
    """Return an index as an array or Tensor, refusing all but integers in [low, high)."""
    index = index if isinstance(index, Tensor) else asarray(plain(index))
    if index.dtype.kind not in "iu":
        raise TypeError(f"an index holds integers, got {index.dtype}; for booleans there is x[mask]")
    array = plain(index)
    if array.size and not (low <= array.min() and array.max() < high):
        outside = int(array[(array < low) | (array >= high)][0])
        raise IndexError(f"index {outside} is out of range for axis {axis} of length {high}: "
                         f"it must lie in [{low}, {high - 1}]")
    return index


def _take_vjp(g, y, x, indices, axis):
    return _scatter(g, index=(slice(None),) * axis + (plain(indices),), shape=x.shape)


def _take_raw(g, y, x, indices, axis, out=None):
    out = xp.empty(x.shape, g.dtype) if out is None else out
    out[...] = 0
    _add_at(out, (slice(None),) * axis + (indices,), g)
    return out


_take_vjp.raw = _take_raw


@primitive(_take_vjp)
def _take(x, indices, axis):
    return x.take(indices, axis)


@axis_or_dim
def take(x: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    """Return the slices of x at integer positions along an axis, or elements of the flattened x without one.

    Parameters
    ----------
    x : Tensor
    indices : Tensor or array_like of int, any shape
        Each in [-n, n - 1] where n is the length of the axis; negative ones count from the end.
    axis : int, optional

    Raises
    ------
    IndexError
        When an index is out of range; it names the index, the axis and its length.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([[1, 2, 3], [4, 5, 6]])
    >>> tg.take(x, [0, 5]), tg.take(x, [2, 0], axis=1).tolist()
    (tensor([1, 6]), [[3, 1], [6, 4]])
    """
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    return _take(x, _checked(indices, -n, n, axis), axis=axis)


@axis_or_dim
def index_select(x: Tensor, axis: int, index: Any) -> Tensor:
    """Return the slices of x at integer positions along an axis; torch's order of `take`'s arguments."""
    return take(x, index, axis)


def embedding(weight: Tensor, indices: Any) -> Tensor:
    """Return the row of a table for each index; the gradients of repeated indices add up.

    Parameters
    ----------
    weight : Tensor, shape (n, ...)
        One row an index.
    indices : Tensor or array_like of int, any shape
        Each in [0, n - 1].

    Returns
    -------
    Tensor, shape indices.shape + (...,)

    Raises
    ------
    IndexError
        When an index is out of range, negative ones included.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.embedding(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), [1, 0, 1]).tolist()
    [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]
    """
    return _take(weight, _checked(indices, 0, len(weight), 0), axis=0)


def one_hot(indices: Any, num_classes: int = -1) -> Tensor:
    """Return, for each index, a new last axis with a 1 at its place and 0 elsewhere, as integers.

    Parameters
    ----------
    indices : Tensor or array of int, any shape
    num_classes : int, optional
        The length of the new axis; by default one more than the largest index.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.one_hot(tg.tensor([0, 2])).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    array = plain(indices)
    classes = int(array.max()) + 1 if num_classes == -1 else num_classes
    return _one_hot(_checked(indices, 0, classes, array.ndim), classes)


@primitive()
def _one_hot(indices, classes):
    return (indices[..., None] == xp.arange(classes)).astype(int64)


def _along(index: Any, axis: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return a full index: `index` along one axis and, along the others, each position of `shape` itself."""
    index, axis = plain(index), normalize_axis_index(axis, len(shape))
    if index.ndim != len(shape):
        raise ValueError(f"the index needs as many axes as the Tensor, {len(shape)}; it has {index.ndim}")
    return tuple(index if k == axis else xp.arange(n).reshape(-1, *(1,) * (len(shape) - 1 - k))
                 for k, n in enumerate(shape))


@axis_or_dim
def take_along_axis(x: Tensor, indices: Any, axis: int | None = -1) -> Tensor:
    """Return x at indices along an axis, each in the row that it stands in; with None, of the flattened x.

    Parameters
    ----------
    x : Tensor
    indices : Tensor or array of int
        Broadcasts with x except along the axis.
    axis : int or None, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([[3.0, 1.0, 2.0], [4.0, 6.0, 5.0]])
    >>> tg.take_along_axis(x, x.argsort(1), 1).tolist()
    [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    """
    if axis is None:
        x, indices, axis = x.reshape(-1), indices.reshape(-1), 0
    return getitem(x, _along(indices, axis, x.shape))


@axis_or_dim
def take_along_dim(x: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    """Return `take_along_axis`, of the flattened x by default: torch's name and default."""
    return take_along_axis(x, indices, axis)


def _gather_index(x: Any, index: Any, axis: int) -> tuple[Any, ...]:
    """Return the full index of `gather` and `scatter`, whose index may be smaller than x but not larger."""
    axis = normalize_axis_index(axis, x.ndim)
    n = x.shape[axis]
    index = _checked(index, -n, n, axis)
    if index.ndim != x.ndim or any(m > n for k, (m, n) in enumerate(zip(index.shape, x.shape)) if k != axis):
        raise ValueError(f"the index needs {x.ndim} axes, none longer than in {x.shape} except axis {axis}; "
                         f"its shape is {index.shape}")
    return _along(index, axis, index.shape)


@axis_or_dim
def gather(x: Tensor, axis: int, index: Any) -> Tensor:
    """Return x at the positions `index` along an axis; along the others each entry reads at its own place.

    Parameters
    ----------
    x : Tensor
    axis : int
    index : Tensor or array of int, as many axes as x
        Its shape is that of the result; not longer than x except along the axis. Each in [-n, n - 1].

    Raises
    ------
    IndexError
        When an index is out of range; it names the index, the axis and its length.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.gather(tg.tensor([[1, 2], [3, 4]]), 1, tg.tensor([[0, 0], [1, 0]])).tolist()
    [[1, 1], [4, 3]]
    """
    return getitem(x, _gather_index(x, index, axis))


def _source(src: Any, shape: tuple[int, ...]) -> Any:
    """Return the part of a source that an index of this shape uses."""
    if src.ndim != len(shape) or any(m < n for m, n in zip(src.shape, shape)):
        raise ValueError(f"src must be at least as large as the index, {shape}; its shape is {src.shape}")
    return getitem(src, tuple(slice(n) for n in shape))


@axis_or_dim
def scatter(x: Tensor, axis: int, index: Any, src: Any) -> Tensor:
    """Return a copy of x with `src` written where `gather` would read; see `put` for an index that repeats.

    Parameters
    ----------
    x : Tensor
    axis : int
    index : Tensor or array of int, as many axes as x
        Each in [-n, n - 1] where n is the length of the axis.
    src : Tensor or number
        At least as large as the index; the rest is not used.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.scatter(tg.zeros(2, 3), 1, tg.tensor([[2], [0]]), 7.0).tolist()
    [[0.0, 0.0, 7.0], [7.0, 0.0, 0.0]]
    """
    places = _gather_index(x, index, axis)
    return put(x, places, _source(src, places[axis].shape) if getattr(src, "ndim", 0) else src)


@primitive(lambda g, y, x, src, index: g, lambda g, y, x, src, index: _getitem(g, index=index))
def _scatter_add(x, src, index):
    y = xp.array(x, order="C")
    _add_at(y, index, src)
    return y


@axis_or_dim
def scatter_add(x: Tensor, axis: int, index: Any, src: Tensor) -> Tensor:
    """Return a copy of x with `src` added where `gather` would read; repeated indices add up.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.scatter_add(tg.zeros(3), 0, tg.tensor([0, 2, 2]), tg.tensor([1.0, 2.0, 3.0]))
    tensor([1., 0., 5.])
    """
    places = _gather_index(x, index, axis)
    return _scatter_add(x, _source(src, places[axis].shape), index=plain(places, copy=True))


# ---- masks ------------------------------------------------------------------------------------------------


def _mask(mask: Any) -> Any:
    if mask.dtype.kind != "b":
        raise TypeError(f"a mask holds booleans, got {mask.dtype}; compare, or convert with .bool()")
    return mask


def masked_fill(x: Tensor, mask: Any, value: Any) -> Tensor:
    """Return x with `value` wherever the boolean mask, which broadcasts, is true.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([1.0, -2.0, 3.0])
    >>> tg.masked_fill(x, x < 0, 0.0)
    tensor([1., 0., 3.])
    """
    return where(_mask(mask), value, x)


def masked_select(x: Tensor, mask: Any) -> Tensor:
    """Return the elements of x, in a row, where the boolean mask, which broadcasts to x, is true."""
    return getitem(x, xp.broadcast_to(plain(_mask(mask)), x.shape))


def nonzero(x: Tensor, as_tuple: bool = False) -> Any:
    """Return the position of each element that is not 0: one a row, or one array an axis.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nonzero(tg.tensor([[1, 0], [0, 2]])).tolist()
    [[0, 0], [1, 1]]
    """
    places = _nonzero(x)
    return tuple(places[:, k] for k in range(x.ndim)) if as_tuple else places


@primitive()
def _nonzero(x):
    return xp.argwhere(x)


# ---- triangles and diagonals ------------------------------------------------------------------------------


@primitive(lambda g, y, x, diagonal=0: tril(g, diagonal))
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """Return matrices with 0 above a diagonal: the main one is 0, those above it are 1, 2, ..."""
    return xp.tril(x, diagonal)


@primitive(lambda g, y, x, diagonal=0: triu(g, diagonal))
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """Return matrices with 0 below a diagonal: the main one is 0, those above it are 1, 2, ..."""
    return xp.triu(x, diagonal)


@axis_or_dim
@primitive(lambda g, y, x, offset=0, axis1=0, axis2=1:
           _on_diagonal(g, shape=x.shape, offset=offset, axis1=axis1, axis2=axis2), view=True)
def diagonal(x: Tensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return a diagonal of the matrices that lie in two axes, as a new last axis.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.diagonal(tg.arange(9).reshape(3, 3), offset=1)
    tensor([1, 5])
    """
    return x.diagonal(offset, axis1, axis2)


@primitive(lambda g, y, x, shape, offset, axis1, axis2: diagonal(g, offset, axis1, axis2))
def _on_diagonal(x, shape, offset=0, axis1=0, axis2=1):
    """Return zeros of a shape with x on a diagonal: the transpose of `diagonal`."""
    y, k = xp.zeros(shape, x.dtype), xp.arange(x.shape[-1])
    xp.moveaxis(y, (axis1, axis2), (0, 1))[k + max(-offset, 0), k + max(offset, 0)] = xp.moveaxis(x, -1, 0)
    return y


def diag(x: Tensor, diagonal: int = 0) -> Tensor:
    """Return a diagonal of a matrix, or the square matrix that has the vector x on a diagonal.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.diag(tg.tensor([1, 2])).tolist()
    [[1, 0], [0, 2]]
    """
    if x.ndim not in (1, 2):
        raise ValueError(f"diag takes a vector or a matrix, got shape {x.shape}; see diagonal for more axes")
    if x.ndim == 2:
        return x.diagonal(diagonal)
    n = x.shape[0] + abs(diagonal)
    return _on_diagonal(x, shape=(n, n), offset=diagonal, axis1=0, axis2=1)


def trace(x: Tensor) -> Tensor:
    """Return the sum of the main diagonal of the matrices in the first two axes."""
    return diagonal(x).sum(-1)
