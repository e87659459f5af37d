"""Normalization: numbers shifted and scaled to mean 0 and variance 1 over some axes."""

from __future__ import annotations

from math import prod
from typing import Any

from ..backend import xp
from ..precision import in_float32
from ..tensor import Tensor, primitive
from .elementwise import rsqrt, square
from .reduce import mean
from .shape import reshape


@primitive(lambda g, y, x, axis: _centre(g, axis=axis))
def _centre(x, axis):
    """Return x minus its mean: a projection, and so its own transpose."""
    return x - xp.mean(x, axis=axis, keepdims=True)


def _affine(x, weight, bias):
    y = x if weight is None else x * weight
    return y if bias is None else y + bias


def _last_axes(x, normalized_shape) -> tuple[int, ...]:
    sizes = (normalized_shape,) if hasattr(normalized_shape, "__index__") else tuple(normalized_shape)
    if not sizes or tuple(x.shape[-len(sizes):]) != sizes:
        raise ValueError(f"the input's shape must end in normalized_shape={sizes}, it is {tuple(x.shape)}")
    return tuple(range(-len(sizes), 0))


@in_float32
def layer_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Normalize over the last axes: (x - mean) / sqrt(variance + eps) * weight + bias.

    Ba, Kiros and Hinton, Layer normalization, 2016.

    Parameters
    ----------
    input : Tensor, shape (...) + normalized_shape
    normalized_shape : int or tuple of int
        The lengths of the last axes.
    weight, bias : Tensor, shape normalized_shape, optional
    eps : float, default 1e-5
        Keeps the division defined where all numbers are the same.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.functional.layer_norm(tg.tensor([[1.0, 3.0], [10.0, 50.0]]), 2).round(decimals=3).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """
    axis = _last_axes(input, normalized_shape)
    centred = _centre(input, axis=axis)
    return _affine(centred * rsqrt(mean(square(centred), axis, keepdims=True) + eps), weight, bias)


@in_float32
def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """Divide by the root of the mean square over the last axes: x / sqrt(mean(x * x) + eps) * weight.

    Zhang and Sennrich, Root mean square layer normalization, 2019. Parameters as for `layer_norm`; eps is by
    default the distance from 1 to the next number of the dtype.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.functional.rms_norm(tg.tensor([3.0, 4.0, 0.0, 0.0]), 4).round(decimals=3).tolist()
    [1.2000000476837158, 1.600000023841858, 0.0, 0.0]
    """
    axis = _last_axes(input, normalized_shape)
    eps = float(xp.finfo(input.dtype).eps) if eps is None else eps
    return _affine(input * rsqrt(mean(square(input), axis, keepdims=True) + eps), weight, None)


@in_float32
def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Normalize each channel over all other axes, by the batch in training and by running statistics in use.

    Ioffe and Szegedy, Batch normalization, 2015.

    Parameters
    ----------
    input : Tensor, shape (N, C) or (N, C, ...)
    running_mean, running_var : Tensor, shape (C,), or None
        In training they move by `momentum` towards the mean and the unbiased variance of the batch, in place;
        otherwise they take the place of the batch's own. Without them the batch's own are always used.
    weight, bias : Tensor, shape (C,), optional
    training : bool, default False
    momentum : float, default 0.1
    eps : float, default 1e-5

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x, mean, var = tg.tensor([[1.0], [3.0]]), tg.zeros(1), tg.ones(1)
    >>> tg.nn.functional.batch_norm(x, mean, var, training=True).round(decimals=3).tolist()
    [[-1.0], [1.0]]
    >>> round(mean.item(), 4), round(var.item(), 4)
    (0.2, 1.1)
    """
    if input.ndim < 2:
        raise ValueError(f"batch_norm needs the axes (N, C) or (N, C, ...), got the shape {input.shape}")
    channels = (1, input.shape[1], *(1 for _ in input.shape[2:]))
    weight, bias = (None if a is None else reshape(a, channels) for a in (weight, bias))
    if not training and running_mean is not None:
        scale = rsqrt(reshape(running_var, channels) + eps)
        return _affine((input - reshape(running_mean, channels)) * scale, weight, bias)
    axis = (0, *range(2, input.ndim))
    count = prod(input.shape[k] for k in axis)
    if count < 2:
        raise ValueError("batch_norm in training needs more than one number for each channel, got the shape "
                         f"{tuple(input.shape)}; use a larger batch (DataLoader: drop_last=True) or eval()")
    centred = _centre(input, axis=axis)
    variance = mean(square(centred), axis, keepdims=True)
    if training and running_mean is not None:
        _move(running_mean, xp.mean(input._data, axis=axis), momentum)
        _move(running_var, variance._data.reshape(-1) * (count / (count - 1)), momentum)
    return _affine(centred * rsqrt(variance + eps), weight, bias)


def _move(running: Tensor, towards: Any, momentum: float) -> None:
    running.data = running._data + momentum * (towards - running._data)
