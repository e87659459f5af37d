"""Ops that move elements about: their gradients move them back."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import Any

import numpy
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from ..backend import xp
from ..tensor import Tensor, primitive
from .index import Axes, axis_or_dim, getitem, plain, put, select, take

# ---- another shape ----------------------------------------------------------------------------------------


@primitive(lambda g, y, x, shape: _reshape(g, x.shape), view=True)
def _reshape(x, shape):
    return x.reshape(shape)


def _sizes(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Accept both f(x, 2, 3) and f(x, (2, 3))."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """Return x in another shape of the same size, without a copy where the layout in memory allows.

    Parameters
    ----------
    x : Tensor
    *shape : int, or one tuple
        One length may be -1: what the others leave.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.arange(6).reshape(2, -1).tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    return _reshape(x, _sizes(shape))


def reshape_as(x: Tensor, other: Tensor) -> Tensor:
    """Return x in the shape of another Tensor."""
    return _reshape(x, other.shape)


@primitive(lambda g, y, x, shape: _reshape(g, x.shape), view=True)
def _view(x, shape):
    y = x.reshape(shape)
    if y.size and not xp.may_share_memory(x, y):
        raise ValueError(f"no view of shape {y.shape} fits the layout of these elements in memory; "
                         "use reshape, which copies them")
    return y


def view(x: Tensor, *shape: Any) -> Tensor:
    """Return x in another shape on the same memory, or raise where only a copy, `reshape`, has that shape."""
    return _view(x, _sizes(shape))


def view_as(x: Tensor, other: Tensor) -> Tensor:
    """Return x in the shape of another Tensor, on the same memory."""
    return _view(x, other.shape)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Return x with the axes from `start_dim` to `end_dim`, both included, made one.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.zeros(2, 3, 4).flatten(1).shape, tg.zeros(2, 3, 4).flatten(0, 1).shape
    ((2, 12), (6, 4))
    """
    shape = x.shape or (1,)
    first, last = normalize_axis_index(start_dim, len(shape)), normalize_axis_index(end_dim, len(shape))
    if first > last:
        raise ValueError(f"start_dim must not lie behind end_dim; got {start_dim} and {end_dim} "
                         f"of {len(shape)} axes")
    return _reshape(x, (*shape[:first], prod(shape[first:last + 1]), *shape[last + 1:]))


def ravel(x: Tensor) -> Tensor:
    """Return x with all its axes made one."""
    return _reshape(x, -1)


@axis_or_dim
def squeeze(x: Tensor, axis: Axes = None) -> Tensor:
    """Return x without its axes of length 1, or without the given ones, which must have that length.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.zeros(1, 3, 1).squeeze().shape, tg.zeros(1, 3, 1).squeeze(0).shape
    ((3,), (3, 1))
    """
    if axis is None:
        return _reshape(x, tuple(n for n in x.shape if n != 1))
    gone = normalize_axis_tuple(axis, x.ndim)
    for k in gone:
        if x.shape[k] != 1:
            raise ValueError(f"squeeze takes away axes of length 1; axis {k} of shape {x.shape} is longer")
    return _reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in gone))


@axis_or_dim
def unsqueeze(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """Return x with a new axis of length 1 at each of the given places of the result.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.zeros(2, 3).unsqueeze(0).shape, tg.zeros(2, 3).unsqueeze((0, -1)).shape
    ((1, 2, 3), (1, 2, 3, 1))
    """
    ndim = x.ndim + (len(axis) if isinstance(axis, tuple) else 1)
    new, old = normalize_axis_tuple(axis, ndim), iter(x.shape)
    return _reshape(x, tuple(1 if k in new else next(old) for k in range(ndim)))


def atleast_1d(x: Tensor) -> Tensor:
    """Return x, a number as a vector of one element."""
    return x if x.ndim else _reshape(x, 1)


def atleast_2d(x: Tensor) -> Tensor:
    """Return x, a vector as a matrix of one row."""
    return x if x.ndim > 1 else _reshape(x, (1, -1))


# ---- another order of the axes ----------------------------------------------------------------------------


@primitive(lambda g, y, x, axes: _permute(g, axes if axes is None else _inverse(axes)), view=True)
def _permute(x, axes):
    return x.transpose(axes)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    order = [k % len(axes) for k in axes]
    return tuple(order.index(k) for k in range(len(order)))


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """Return x with two axes swapped, given as two ints, or all of them reordered as in NumPy.

    Parameters
    ----------
    x : Tensor
    *axes : int, or one tuple
        Two ints are swapped, as in torch. Nothing reverses all axes; a tuple, or more than two ints, is
        their new order, as in NumPy.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.zeros(2, 3, 4)
    >>> x.transpose(0, 1).shape, x.transpose().shape, x.transpose((1, 2, 0)).shape
    ((3, 2, 4), (4, 3, 2), (3, 4, 2))
    """
    if len(axes) == 2:
        return swapaxes(x, *axes)
    return _permute(x, _sizes(axes) if axes else None)


def permute(x: Tensor, *axes: Any) -> Tensor:
    """Return x with its axes in the given order, ints or one tuple."""
    return _permute(x, _sizes(axes))


@axis_or_dim
def swapaxes(x: Tensor, axis0: int, axis1: int) -> Tensor:
    """Return x with two axes swapped."""
    order = list(range(x.ndim))
    a, b = normalize_axis_index(axis0, x.ndim), normalize_axis_index(axis1, x.ndim)
    order[a], order[b] = b, a
    return _permute(x, tuple(order))


swapdims = swapaxes


def movedim(x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """Return x with some axes moved to other places; the rest keep their order.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.zeros(2, 3, 4).movedim(0, -1).shape, tg.zeros(2, 3, 4).movedim((0, 1), (1, 0)).shape
    ((3, 4, 2), (3, 2, 4))
    """
    sources, places = normalize_axis_tuple(source, x.ndim), normalize_axis_tuple(destination, x.ndim)
    if len(sources) != len(places):
        raise ValueError(f"movedim needs as many sources as destinations; got {source} and {destination}")
    order = [k for k in range(x.ndim) if k not in sources]
    for place, axis in sorted(zip(places, sources)):
        order.insert(place, axis)
    return _permute(x, tuple(order))


# ---- repetition -------------------------------------------------------------------------------------------


@primitive(lambda g, y, x, shape: g, view=True)
def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return x repeated to a shape, without a copy; the engine sums the gradient back."""
    return xp.broadcast_to(x, shape)


def expand(x: Tensor, *sizes: Any) -> Tensor:
    """Return x with its axes of length 1 repeated to the given sizes, without a copy; -1 keeps a length.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.tensor([[1], [2]]).expand(-1, 3).tolist()
    [[1, 1, 1], [2, 2, 2]]
    """
    sizes = _sizes(sizes)
    extra = len(sizes) - x.ndim
    if extra < 0:
        raise ValueError(f"expand needs a size for each of the {x.ndim} axes of shape {x.shape}; got {sizes}")
    kept = sizes[:extra] + x.shape
    return broadcast_to(x, tuple(old if new == -1 else new for old, new in zip(kept, sizes)))


def expand_as(x: Tensor, other: Tensor) -> Tensor:
    """Return x repeated to the shape of another Tensor, without a copy."""
    return broadcast_to(x, other.shape)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the Tensors repeated to the one shape that they have in arithmetic with each other."""
    shape = numpy.broadcast_shapes(*(x.shape for x in tensors))
    return tuple(broadcast_to(x, shape) for x in tensors)


def _untile(g, y, x, reps):
    shape = (1,) * (len(reps) - x.ndim) + x.shape
    g = _reshape(g, tuple(n for pair in zip(reps, shape) for n in pair))
    return g.sum(tuple(range(0, 2 * len(reps), 2)))


@primitive(_untile)
def _tile(x, reps):
    return xp.tile(x, reps)


def tile(x: Tensor, *dims: Any) -> Tensor:
    """Return x laid side by side with itself, so many times along each of the last axes.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.tensor([1, 2]).tile(2).tolist(), tg.tensor([1, 2]).tile(2, 1).tolist()
    ([1, 2, 1, 2], [[1, 2], [1, 2]])
    """
    reps = _sizes(dims)
    return _tile(x, reps=(1,) * (x.ndim - len(reps)) + reps)


def repeat(x: Tensor, *sizes: Any) -> Tensor:
    """Return `tile` with a count for every axis: torch's meaning. NumPy's is `repeat_interleave`."""
    if len(_sizes(sizes)) < x.ndim:
        raise ValueError(f"repeat needs a count for each of the {x.ndim} axes of {x.shape}; got {sizes}")
    return tile(x, *sizes)


def _rejoin(g, y, x, repeats, axis):
    return _reshape(g, (*x.shape[:axis + 1], repeats, *x.shape[axis + 1:])).sum(axis + 1)


@primitive(_rejoin)
def _repeat(x, repeats, axis):
    return xp.repeat(x, repeats, axis)


@axis_or_dim
def repeat_interleave(x: Tensor, repeats: Any, axis: int | None = None) -> Tensor:
    """Return x with each of its slices along an axis repeated: all equally often, or each with its own count.

    Parameters
    ----------
    x : Tensor
    repeats : int, or sequence or Tensor of int
        One count for all, or one for each slice.
    axis : int, optional
        Without it, x is flattened first.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.tensor([1, 2]).repeat_interleave(2), tg.tensor([1, 2]).repeat_interleave([1, 3])
    (tensor([1, 1, 2, 2]), tensor([1, 2, 2, 2]))
    """
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, x.ndim)
    if isinstance(repeats, (int, numpy.integer)):
        return _repeat(x, repeats=int(repeats), axis=axis)
    n = x.shape[axis]
    counts = list(repeats) if isinstance(repeats, (list, tuple)) else plain(repeats).tolist()
    if len(counts) != n:
        raise ValueError(f"repeats needs one count for each of the {n} slices along axis {axis}; "
                         f"got {len(counts)}")
    return take(x, xp.repeat(xp.arange(n), counts), axis)


# ---- another order of the elements ------------------------------------------------------------------------


@axis_or_dim
@primitive(lambda g, y, x, axis=None: flip(g, axis), view=True)
def flip(x: Tensor, axis: Axes = None) -> Tensor:
    """Return x in reverse order along some axes, or all."""
    return xp.flip(x, axis)


@axis_or_dim
@primitive(lambda g, y, x, shifts, axis=None: roll(g, _opposite(shifts), axis))
def roll(x: Tensor, shifts: int | tuple[int, ...], axis: Axes = None) -> Tensor:
    """Return x shifted along some axes, or as if flat; what leaves at the end comes in at the start.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.arange(4).roll(1)
    tensor([3, 0, 1, 2])
    """
    return xp.roll(x, shifts, axis)


def _opposite(shifts: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return tuple(-k for k in shifts) if isinstance(shifts, (tuple, list)) else -shifts


_BEYOND = {                                         # where to read when k lies beyond an axis of length n
    "replicate": lambda k, n: k.clip(0, n - 1),
    "reflect": lambda k, n: n - 1 - abs(n - 1 - k % max(2 * n - 2, 1)),
    "circular": lambda k, n: k % n,
}


def pad(x: Tensor, pad: tuple[int, ...], mode: str = "constant", value: float = 0) -> Tensor:
    """Return x with elements added, or with a negative count taken away, at both ends of its last axes.

    Parameters
    ----------
    x : Tensor
    pad : tuple of int
        The counts before and after, for the last axis first: `(left, right, top, bottom, ...)`.
    mode : {'constant', 'reflect', 'replicate', 'circular'}
        What to add: the value, the elements mirrored at the outermost one, that one again, or those from
        the other end.
    value : float, default 0
        For 'constant'.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([1, 2, 3])
    >>> tg.pad(x, (1, 2)), tg.pad(x, (2, 0), "reflect"), tg.pad(x, (0, -1))
    (tensor([0, 1, 2, 3, 0, 0]), tensor([3, 2, 1, 2, 3]), tensor([1, 2]))
    """
    if not isinstance(pad, (tuple, list)) or len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad holds two counts an axis, for at most {x.ndim} axes of {x.shape}; got {pad!r}")
    if mode != "constant" and mode not in _BEYOND:
        raise ValueError(f"mode must be 'constant', {', '.join(map(repr, _BEYOND))}; got {mode!r}")
    ends = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2]))[::-1]
    if any(n + before + after < 0 for n, (before, after) in zip(x.shape, ends)):
        raise ValueError(f"pad takes away more than there is of shape {x.shape}: {pad}")
    if mode == "constant":
        return _framed(x, ends, value)
    if 0 in x.shape:
        raise ValueError(f"mode={mode!r} repeats elements, and shape {x.shape} has none; use 'constant'")
    for axis, (before, after) in enumerate(ends):
        if before or after:
            n = x.shape[axis]
            x = take(x, _BEYOND[mode](xp.arange(-before, n + after), n), axis)
    return x


def _framed(x: Any, ends: list[tuple[int, int]], value: float) -> Any:
    """Return x with a frame of one value; what a negative width reaches is cut off."""
    sides = [(n, before, after) for n, (before, after) in zip(x.shape, ends)]
    inner = tuple(slice(max(-before, 0), max(n + min(after, 0), 0)) for n, before, after in sides)
    place = tuple(slice(max(before, 0), max(n + before + min(after, 0), 0)) for n, before, after in sides)
    frame = xp.zeros([n + before + after for n, before, after in sides], x.dtype)
    return put(put(frame, ..., value) if value else frame, place, getitem(x, inner))


# ---- joining ----------------------------------------------------------------------------------------------


@primitive(each=lambda k, g, y, *args, axis, ends: select(g, axis, slice(ends[k], ends[k + 1])))
def _cat(*arrays, axis, ends):
    return xp.concatenate(arrays, axis)


@axis_or_dim
def cat(tensors: Any, axis: int = 0) -> Tensor:
    """Return Tensors laid end to end along an axis.

    Parameters
    ----------
    tensors : sequence of Tensors
        Of equal shape except along the axis.
    axis : int, default 0

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.cat([tg.zeros(2, 1), tg.ones(2, 2)], axis=1).tolist()
    [[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """
    tensors = tuple(tensors)
    if not tensors or any(x.ndim != tensors[0].ndim for x in tensors):
        raise ValueError(f"cat needs at least one Tensor, all with equally many axes; got shapes "
                         f"{[x.shape for x in tensors]}")
    axis = normalize_axis_index(axis, tensors[0].ndim)
    return _cat(*tensors, axis=axis, ends=(0, *accumulate(x.shape[axis] for x in tensors)))


concatenate = concat = cat


@primitive(each=lambda k, g, y, *args, axis: select(g, axis, k))
def _stack(*arrays, axis):
    return xp.stack(arrays, axis)


@axis_or_dim
def stack(tensors: Any, axis: int = 0) -> Tensor:
    """Return Tensors of one shape side by side along a new axis.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.stack([tg.tensor([1, 2]), tg.tensor([3, 4])], axis=1).tolist()
    [[1, 3], [2, 4]]
    """
    return _stack(*tensors, axis=axis)


def hstack(tensors: Any) -> Tensor:
    """Return Tensors side by side: vectors end to end, everything else along axis 1."""
    tensors = [atleast_1d(x) for x in tensors]
    return cat(tensors, 0 if tensors and tensors[0].ndim == 1 else 1)


def vstack(tensors: Any) -> Tensor:
    """Return Tensors above each other, along axis 0; vectors are rows."""
    return cat([atleast_2d(x) for x in tensors], 0)


def dstack(tensors: Any) -> Tensor:
    """Return Tensors behind each other, along axis 2; vectors are rows, matrices are one deep."""
    return cat([x if x.ndim > 2 else unsqueeze(atleast_2d(x), -1) for x in tensors], 2)


def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Return the coordinates of every point of the grid that vectors span, one Tensor a vector.

    Parameters
    ----------
    *tensors : Tensor
        Vectors.
    indexing : {'ij', 'xy'}
        'ij': axis k belongs to vector k. 'xy': the first two axes swapped, as in pictures.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> rows, columns = tg.meshgrid(tg.arange(2), tg.arange(3))
    >>> rows.tolist(), columns.tolist()
    ([[0, 0, 0], [1, 1, 1]], [[0, 1, 2], [0, 1, 2]])
    """
    if indexing not in ("ij", "xy"):
        raise ValueError(f"indexing must be 'ij' or 'xy', got {indexing!r}")
    behind = range(len(tensors) - 1, -1, -1)
    grid = broadcast_tensors(*(_reshape(x, (-1, *(1,) * n)) for x, n in zip(tensors, behind)))
    return tuple(swapaxes(x, 0, 1) for x in grid) if indexing == "xy" and len(grid) > 1 else grid


# ---- taking apart: every part is a view -------------------------------------------------------------------


@axis_or_dim
def narrow(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """Return `length` slices of x along an axis, from `start` on; a negative start counts from the end.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.arange(5).narrow(0, 1, 3)
    tensor([1, 2, 3])
    """
    n = x.shape[normalize_axis_index(axis, x.ndim)]
    first = start + n if start < 0 else start
    if not 0 <= first <= first + length <= n:
        raise ValueError(f"start={start} and length={length} do not lie within axis {axis} of length {n}")
    return select(x, axis, slice(first, first + length))


@axis_or_dim
def split(x: Tensor, split_size_or_sections: int | list[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Return x cut along an axis into parts of one size, the last perhaps smaller, or of the given sizes.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.arange(5).split(2), tg.arange(5).split([1, 4])
    ((tensor([0, 1]), tensor([2, 3]), tensor([4])), (tensor([0]), tensor([1, 2, 3, 4])))
    """
    n, sizes = x.shape[normalize_axis_index(axis, x.ndim)], split_size_or_sections
    if isinstance(sizes, (int, numpy.integer)):
        if sizes < 1:
            raise ValueError(f"the size of a part must be at least 1, got {sizes}")
        return tensor_split(x, list(range(sizes, n, sizes)), axis)
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ValueError(f"the sizes of the parts must add up to {n}, the length of axis {axis}; got {sizes}")
    return tensor_split(x, list(accumulate(sizes))[:-1], axis)


@axis_or_dim
def tensor_split(x: Tensor, indices_or_sections: int | list[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Return x cut along an axis into so many parts, as equal as possible, or before the given indices.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.arange(5).tensor_split(2), tg.arange(5).tensor_split([1, 3])
    ((tensor([0, 1, 2]), tensor([3, 4])), (tensor([0]), tensor([1, 2]), tensor([3, 4])))
    """
    n, cuts = x.shape[normalize_axis_index(axis, x.ndim)], indices_or_sections
    if isinstance(cuts, (int, numpy.integer)):
        if cuts < 1:
            raise ValueError(f"the number of parts must be at least 1, got {cuts}")
        cuts = list(accumulate(n // cuts + (k < n % cuts) for k in range(cuts)))[:-1]
    return tuple(select(x, axis, slice(a, b)) for a, b in zip([0, *cuts], [*cuts, n]))


@axis_or_dim
def chunk(x: Tensor, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """Return x cut along an axis into at most so many parts of one size, the last one perhaps smaller."""
    if chunks < 1:
        raise ValueError(f"chunks must be at least 1, got {chunks}")
    return split(x, max(1, -(-x.shape[normalize_axis_index(axis, x.ndim)] // chunks)), axis)


@axis_or_dim
def unbind(x: Tensor, axis: int = 0) -> tuple[Tensor, ...]:
    """Return the slices of x along an axis, which disappears."""
    return tuple(select(x, axis, k) for k in range(x.shape[normalize_axis_index(axis, x.ndim)]))
