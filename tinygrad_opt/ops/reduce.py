"""Ops that take many numbers to one, along some axes or all, or set them in order along one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from ..backend import xp
from ..precision import in_float32
from ..tensor import Tensor, float64, primitive
from .elementwise import abs, astype, exp, isnan, maximum, minimum, sign, where
from .index import Axes, axis_or_dim, take_along_axis
from .shape import broadcast_to, flip, movedim, narrow, pad, ravel, reshape, squeeze, unsqueeze

# ---- sums -------------------------------------------------------------------------------------------------


def _restored(g, axis, keepdims):
    """Return a reduced g with its axes of length 1 back, so that it broadcasts against what was reduced."""
    return g if axis is None or keepdims else unsqueeze(g, axis)


def _spread(g, shape, axis, keepdims):
    """Return a reduced g in the shape from before: every element gets the g of its group."""
    return broadcast_to(_restored(g, axis, keepdims), shape)


def _count(shape: tuple[int, ...], axis: Axes) -> int:
    """Return how many elements are reduced to one."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[k] for k in axis) if isinstance(axis, tuple) else shape[axis]


@in_float32
@axis_or_dim
@primitive(lambda g, y, x, axis=None, keepdims=False: _spread(g, x.shape, axis, keepdims))
def sum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum over some axes, or over all.

    Parameters
    ----------
    x : Tensor
    axis : int or tuple of int, optional
        `dim=` is accepted too.
    keepdims : bool, default False
        Whether these axes stay, with length 1. `keepdim=` is accepted too.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x.sum(), x.sum(0), x.sum(dim=1, keepdim=True).shape
    (tensor(10.), tensor([4., 6.]), (2, 1))
    """
    return x.sum(axis, None, None, keepdims)


def sum_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return x summed over the axes along which `shape` was broadcast: the transpose of `broadcast_to`."""
    extra = x.ndim - len(shape)
    axes = tuple(k for k, n in enumerate(x.shape) if k < extra or shape[k - extra] == 1 != n)
    x = sum(x, axis=axes) if axes else x
    return reshape(x, shape) if axes or shape == (1,) * -extra + x.shape else x


@in_float32
@axis_or_dim
@primitive(lambda g, y, x, axis=None, keepdims=False:
           _spread(g / (_count(x.shape, axis) or 1), x.shape, axis, keepdims))
def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the mean over some axes, or over all; that of integers is float64."""
    if x.dtype.itemsize < 4:                        # of half precision the sum may overflow, not the mean
        return xp.mean(x, axis, keepdims=keepdims)
    return x.sum(axis, None, None, keepdims) / _count(x.shape, axis)


def _deviation(g, x, axis, correction, keepdims):
    """Return g (x - mean) / (n - correction): half of what the variance pulls back."""
    g = _restored(g / (_count(x.shape, axis) - correction), axis, keepdims)
    return g * (x - mean(x, axis, keepdims=True))


@in_float32
@axis_or_dim
@primitive(lambda g, y, x, axis=None, correction=1, keepdims=False:
           _deviation(2 * g, x, axis, correction, keepdims))
def var(x: Tensor, axis: Axes = None, correction: float = 1, keepdims: bool = False) -> Tensor:
    """Return the variance over some axes, or over all: sum (x - mean)^2 / (n - correction).

    Parameters
    ----------
    x : Tensor
    axis : int or tuple of int, optional
    correction : float, default 1
        1 estimates the variance of what x is a sample of, as in torch; 0 is NumPy's default.
    keepdims : bool, default False

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([1.0, 2.0, 3.0])
    >>> x.var(), x.std(), x.var(correction=0)
    (tensor(1.), tensor(1.), tensor(0.6667))
    """
    return xp.var(x, axis, ddof=correction, keepdims=keepdims)


@in_float32
@axis_or_dim
@primitive(lambda g, y, x, axis=None, correction=1, keepdims=False:
           _deviation(g / _nonzero(y), x, axis, correction, keepdims))
def std(x: Tensor, axis: Axes = None, correction: float = 1, keepdims: bool = False) -> Tensor:
    """Return the standard deviation, the root of `var`; where it is 0, so is its gradient."""
    return xp.std(x, axis, ddof=correction, keepdims=keepdims)


def _nonzero(y):
    """Return y with 1 in place of 0, to divide by."""
    return where(y == 0, 1, y)


def _norm_vjp(g, y, x, p, axis, keepdims):
    slope = x if p == 2 else sign(x) * _nonzero(abs(x)) ** (p - 1)
    return _restored(g / _nonzero(y) ** (p - 1), axis, keepdims) * slope


@primitive(_norm_vjp)
def _norm(x, p, axis, keepdims):
    if p == 2:
        return xp.sqrt((x * x).sum(axis, None, None, keepdims))
    return (xp.abs(x) ** p).sum(axis, None, None, keepdims) ** (1 / p)


@in_float32
@axis_or_dim
def norm(x: Tensor, p: float | str = 2, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the p-norm, `(sum |x|^p)^(1/p)`, of all elements as one vector, or along some axes.

    Parameters
    ----------
    x : Tensor
    p : float, inf, -inf or 'fro', default 2
        'fro' is 2; inf is the largest absolute value, -inf the smallest; 0 counts what is not 0.
    axis : int or tuple of int, optional
    keepdims : bool, default False

    Returns
    -------
    Tensor
        Its gradient is 0 where the norm is 0.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([3.0, -4.0])
    >>> x.norm(), x.norm(1), x.norm(float("inf"))
    (tensor(5.), tensor(7.), tensor(4.))
    """
    p = 2 if p == "fro" else p
    if not isinstance(p, (int, float)) or p != p:
        raise ValueError(f"p must be a number, inf, -inf or 'fro'; got {p!r}")
    if x.dtype.kind != "f":
        x = astype(x, float64)
    if math.isinf(p):
        return (amax if p > 0 else amin)(abs(x), axis, keepdims)
    if p == 0:
        return astype(count_nonzero(x, axis, keepdims), x.dtype)
    return _norm(x, p=p, axis=axis, keepdims=keepdims)


def _logsumexp_vjp(g, y, x, axis=None, keepdims=False):
    y = _restored(y, axis, keepdims)
    return _restored(g, axis, keepdims) * exp(x - where(y == -math.inf, 0, y))


@in_float32
@axis_or_dim
@primitive(_logsumexp_vjp)
def logsumexp(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return log(sum(exp(x))) over some axes, or over all, without overflow.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.logsumexp(tg.tensor([1000.0, 1000.0]))
    tensor(1000.6932)
    """
    top = xp.amax(x, axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0)
    with numpy.errstate(divide="ignore"):           # log(0) is right: all of x is -inf
        y = xp.log(xp.exp(x - top).sum(axis, None, None, keepdims))
    return y + (top if keepdims else top.reshape(y.shape))


# ---- products ---------------------------------------------------------------------------------------------


def _previous(y):
    """Return y moved on by one place along the last axis, with 1 in front."""
    return pad(y, (1, -1), value=1)


def _prod_vjp(g, y, x, axis):
    # The product of all other elements is that of those before times that of those behind: no division by x.
    x = movedim(x, axis, -1)
    before, behind = _previous(cumprod(x, -1)), flip(_previous(cumprod(flip(x, -1), -1)), -1)
    return g * movedim(before * behind, -1, axis)


@primitive(_prod_vjp)
def _prod(x, axis):
    return xp.prod(x, axis, keepdims=True)


@in_float32
@axis_or_dim
def prod(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the product over some axes, or over all. Its gradients are exact where elements are 0, too.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([2.0, 0.0, 5.0], requires_grad=True)
    >>> x.prod().backward()
    >>> x.grad
    tensor([ 0., 10.,  0.])
    """
    if axis is None:
        y = _prod(ravel(x), axis=0)
        return reshape(y, (1,) * x.ndim if keepdims else ())
    y = x
    for k in axis if isinstance(axis, tuple) else (axis,):
        y = _prod(y, axis=k)
    return y if keepdims else squeeze(y, axis)


@in_float32
@axis_or_dim
@primitive(lambda g, y, x, axis=None: reshape(flip(cumsum(flip(g, axis), axis), axis), x.shape))
def cumsum(x: Tensor, axis: int | None = None) -> Tensor:
    """Return the sum of the elements so far along an axis, or of the flattened x.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.cumsum(tg.tensor([1, 2, 3]), 0)
    tensor([1, 3, 6])
    """
    return xp.cumsum(x, axis)


def _cumprod_vjp(g, y, x, axis):
    # The gradient at i is the product before i times s_i = sum over k >= i of g_k x_{i+1} ... x_k. The
    # recurrence s_i = g_i + x_{i+1} s_{i+1} is solved by doubling its reach: nothing is divided by x.
    s, factor, before = movedim(g, axis, -1), _later(movedim(x, axis, -1), 1), _previous(movedim(y, axis, -1))
    reach = 1
    while reach < x.shape[axis]:
        s = s + factor * _later(s, reach)
        factor = factor * _later(factor, reach)
        reach *= 2
    return movedim(before * s, -1, axis)


def _later(x, k):
    """Return x moved back by k places along the last axis, with 0 behind."""
    return pad(x, (-k, k))


@primitive(_cumprod_vjp)
def _cumprod(x, axis):
    return xp.cumprod(x, axis)


@in_float32
@axis_or_dim
def cumprod(x: Tensor, axis: int | None = None) -> Tensor:
    """Return the product of the elements so far along an axis, or of the flattened x.

    Like those of `prod`, its gradients are exact where elements are 0, too.
    """
    return _cumprod(ravel(x), axis=0) if axis is None else _cumprod(x, axis=axis)


# ---- questions: answered without gradient -----------------------------------------------------------------


@axis_or_dim
@primitive()
def all(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return whether all elements are true, or not 0."""
    return xp.all(x, axis, keepdims=keepdims)


@axis_or_dim
@primitive()
def any(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return whether at least one element is true, or not 0."""
    return xp.any(x, axis, keepdims=keepdims)


@axis_or_dim
@primitive()
def count_nonzero(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return how many elements are true, or not 0."""
    return (x != 0).sum(axis, None, None, keepdims)


@axis_or_dim
@primitive()
def argmax(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the index of the first largest element along an axis, or in the flattened x. A NaN is it."""
    return xp.argmax(x, axis, keepdims=keepdims)


@axis_or_dim
@primitive()
def argmin(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the index of the first smallest element along an axis, or in the flattened x. A NaN is it."""
    return xp.argmin(x, axis, keepdims=keepdims)


@axis_or_dim
@primitive()
def argsort(x: Tensor, axis: int = -1, descending: bool = False) -> Tensor:
    """Return the indices that put x in order along an axis. Equal elements keep theirs; NaN is largest."""
    if not descending:
        return xp.argsort(x, axis, kind="stable")
    return x.shape[axis] - 1 - xp.flip(xp.argsort(xp.flip(x, axis), axis, kind="stable"), axis)


# ---- extremes and order -----------------------------------------------------------------------------------


class Selection(NamedTuple):
    """Elements along an axis, and where they came from."""

    values: Any
    indices: Any


def _selection(x: Tensor, indices: Any, axis: int, keepdims: bool) -> Selection:
    """Return x at one index along an axis, and the index."""
    found = take_along_axis(x, indices, axis), indices
    return Selection(*found if keepdims else (squeeze(y, axis) for y in found))


def _share(g, y, x, axis=None, keepdims=False):
    """Pull back to the elements that are y, equally: also where these are NaN."""
    y, g = _restored(y, axis, keepdims), _restored(g, axis, keepdims)
    chosen = astype((x == y) | isnan(x), g.dtype)
    return g / sum(chosen, axis, keepdims=True) * chosen


@axis_or_dim
@primitive(_share)
def amax(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over some axes, or over all; equal ones share its gradient."""
    return xp.amax(x, axis, keepdims=keepdims)


@axis_or_dim
@primitive(_share)
def amin(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element over some axes, or over all; equal ones share its gradient."""
    return xp.amin(x, axis, keepdims=keepdims)


def _extreme(x: Any, axis: Any, keepdims: bool, value: Callable, pairwise: Callable, place: Callable) -> Any:
    if axis is None:
        return value(x, keepdims=keepdims)
    if isinstance(axis, (Tensor, xp.ndarray)):
        return pairwise(x, axis)
    if isinstance(axis, tuple):
        raise TypeError(f"along several axes, {axis}, an element has no single index; use amax or amin")
    return _selection(x, place(x, axis, keepdims=True), axis, keepdims)


@axis_or_dim
def max(x: Tensor, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the largest element; along an axis, with its index; with a second Tensor, the larger of both.

    Parameters
    ----------
    x : Tensor
    axis : int or Tensor, optional
        An axis, or the Tensor to compare with, as in torch.
    keepdims : bool, default False

    Returns
    -------
    Tensor, or along an axis a named tuple (values, indices)
        The index is that of the first of equal elements, and the gradient goes there; without an axis equal
        elements share it.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([[1.0, 5.0], [7.0, 7.0]])
    >>> x.max()
    tensor(7.)
    >>> x.max(dim=1)
    Selection(values=tensor([5., 7.]), indices=tensor([1, 0]))
    """
    return _extreme(x, axis, keepdims, amax, maximum, argmax)


@axis_or_dim
def min(x: Tensor, axis: Any = None, keepdims: bool = False) -> Any:
    """Return the smallest element; along an axis, with its index; with a second Tensor, the smaller."""
    return _extreme(x, axis, keepdims, amin, minimum, argmin)


@primitive()
def _middle(x, axis):
    """Return the index of the lower median along an axis, which stays; that of a NaN if there is one."""
    n = x.shape[axis]
    if n == 0:
        raise ValueError(f"median needs at least one element; axis {axis} of shape {x.shape} has none")
    index = xp.take(xp.argsort(x, axis, kind="stable"), xp.asarray([(n - 1) // 2]), axis)
    nan = xp.isnan(x)
    return xp.where(nan.any(axis, keepdims=True), xp.argmax(nan, axis, keepdims=True), index)


@primitive(_share)
def _median(x):
    x = x.reshape(-1)
    return x[_middle(x, 0)].reshape(())


@axis_or_dim
def median(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the middle element, the lower of two as in torch; along an axis, with its index.

    As with `max`, the gradient goes to the index; without an axis equal elements share it. The median of
    what holds a NaN is NaN.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.tensor([4.0, 1.0, 3.0, 2.0]).median()
    tensor(2.)
    """
    if axis is None:
        return reshape(_median(x), (1,) * x.ndim if keepdims else ())
    return _selection(x, _middle(x, axis), axis, keepdims)


@axis_or_dim
def sort(x: Tensor, axis: int = -1, descending: bool = False) -> Selection:
    """Return x in order along an axis, and where each element came from; equal elements keep their order.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.sort(tg.tensor([3.0, 1.0, 2.0]))
    Selection(values=tensor([1., 2., 3.]), indices=tensor([1, 2, 0]))
    """
    return _selection(x, argsort(x, axis, descending), axis, keepdims=True)


@axis_or_dim
def topk(x: Tensor, k: int, axis: int = -1, largest: bool = True) -> Selection:
    """Return the k largest, or smallest, elements along an axis in order, and their indices.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.topk(tg.tensor([3.0, 1.0, 2.0]), 2)
    Selection(values=tensor([3., 2.]), indices=tensor([0, 2]))
    """
    n = x.shape[axis]
    if not 0 <= k <= n:
        raise ValueError(f"k must lie in [0, {n}], the length of axis {axis}; got {k}")
    return _selection(x, narrow(argsort(x, axis, descending=largest), axis, 0, k), axis, keepdims=True)
