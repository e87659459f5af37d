"""Normalization layers."""

from __future__ import annotations

from typing import Any

from ..creation import ones, zeros
from ..ops.normalization import batch_norm, layer_norm, rms_norm
from ..tensor import Tensor, float32
from . import init
from .linear import _positive
from .module import Module
from .parameter import Parameter


class _Affine(Module):
    """A layer that ends in y * weight + bias, which begin at 1 and 0 or are None."""

    def _make(self, shape: tuple[int, ...], weight: bool, bias: bool, dtype: Any) -> None:
        self.weight = Parameter(ones(shape, dtype=dtype)) if weight else None
        self.bias = Parameter(zeros(shape, dtype=dtype)) if weight and bias else None

    def reset_parameters(self) -> None:
        """Start again from 1 and 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)


def _shape(normalized_shape: Any) -> tuple[int, ...]:
    sizes = (normalized_shape,) if hasattr(normalized_shape, "__index__") else tuple(normalized_shape)
    return tuple(_positive("normalized_shape", n) for n in sizes)


class LayerNorm(_Affine):
    """Normalize over the last axes: (x - mean) / sqrt(variance + eps) * weight + bias.

    Ba, Kiros and Hinton, Layer normalization, 2016.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The lengths of the last axes.
    eps : float, default 1e-5
    elementwise_affine : bool, default True
        Whether there are a weight and a bias, of shape normalized_shape.
    bias : bool, default True
        Whether there is a bias beside the weight.
    dtype : dtype, default float32

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> norm = tg.nn.LayerNorm(2)
    >>> norm(tg.tensor([[1.0, 3.0], [10.0, 50.0]])).detach().round(decimals=3).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, *, dtype: Any = float32) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._make(self.normalized_shape, elementwise_affine, bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalized, in its shape."""
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class RMSNorm(_Affine):
    """Divide by the root of the mean square over the last axes: x / sqrt(mean(x * x) + eps) * weight.

    Zhang and Sennrich, Root mean square layer normalization, 2019.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        The lengths of the last axes.
    eps : float, optional
        By default the distance from 1 to the next number of the input's dtype.
    elementwise_affine : bool, default True
        Whether there is a weight, of shape normalized_shape.
    dtype : dtype, default float32

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.RMSNorm(2)(tg.tensor([[3.0, 3.0]])).detach().round(decimals=3).tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, *,
                 dtype: Any = float32) -> None:
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._make(self.normalized_shape, elementwise_affine, False, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalized, in its shape."""
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class BatchNorm1d(_Affine):
    """Normalize each feature over the batch in training, and by running statistics after `eval()`.

    Ioffe and Szegedy, Batch normalization, 2015.

    Parameters
    ----------
    num_features : int
        C in the input's shape (N, C) or (N, C, L).
    eps : float, default 1e-5
    momentum : float or None, default 0.1
        How far the running statistics move towards those of a batch; None for the mean over all batches.
    affine : bool, default True
        Whether there are a weight and a bias, of shape (C,).
    track_running_stats : bool, default True
        Whether statistics are kept; without, those of the batch always serve.
    bias : bool, default True
        Whether there is a bias beside the weight.
    dtype : dtype, default float32

    Attributes
    ----------
    running_mean, running_var, num_batches_tracked : Tensor
        Buffers; the variance is the unbiased one.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> norm = tg.nn.BatchNorm1d(1)
    >>> norm(tg.tensor([[1.0], [3.0]])).detach().round(decimals=3).tolist()
    [[-1.0], [1.0]]
    >>> round(norm.running_mean.item(), 4), norm.num_batches_tracked.item()
    (0.2, 1)
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, bias: bool = True, *,
                 dtype: Any = float32) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = _positive("num_features", num_features), eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._make((self.num_features,), affine, bias, dtype)
        statistics = (zeros(self.num_features, dtype=dtype), ones(self.num_features, dtype=dtype), Tensor(0))
        for name, value in zip(("running_mean", "running_var", "num_batches_tracked"), statistics):
            self.register_buffer(name, value if track_running_stats else None)

    def reset_running_stats(self) -> None:
        """Forget the batches seen so far."""
        if self.track_running_stats:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Start again from 1 and 0, and forget the batches seen so far."""
        super().reset_parameters()
        self.reset_running_stats()

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalized, in its shape (N, C) or (N, C, L)."""
        if x.ndim not in (2, 3) or x.shape[1] != self.num_features:
            raise ValueError(f"BatchNorm1d({self.num_features}) needs the shape (N, {self.num_features}) or "
                             f"(N, {self.num_features}, L), got {x.shape}")
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.data = self.num_batches_tracked._data + 1
            momentum = 1 / self.num_batches_tracked.item() if momentum is None else momentum
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training,
                          momentum, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")
