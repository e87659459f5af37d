"""Linear layers, and the layers that only change the shape."""

from __future__ import annotations

import math
from operator import index
from typing import Any

from ..creation import empty
from ..ops import flatten, linear
from ..random import Generator
from ..tensor import Tensor, float32
from . import init
from .module import Module
from .parameter import Parameter


def _positive(name: str, value: Any) -> int:
    """Return a number of features as an int, or say what is wrong with it."""
    try:
        value = index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


class Linear(Module):
    """The map x @ weight.T + bias.

    Weight and bias are drawn evenly from [-1 / sqrt(in_features), 1 / sqrt(in_features)), as in torch.

    Parameters
    ----------
    in_features, out_features : int
        At least 1.
    bias : bool, default True
    dtype : dtype, default float32
    generator : Generator, optional
        Where the initial values are drawn from; the default one when not given.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features)
    bias : Parameter, shape (out_features,), or None

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> layer = tg.nn.Linear(3, 2)
    >>> layer(tg.ones(5, 3)).shape
    (5, 2)
    >>> layer
    Linear(in_features=3, out_features=2, bias=True)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = float32,
                 generator: Generator | None = None) -> None:
        super().__init__()
        self.in_features = _positive("in_features", in_features)
        self.out_features = _positive("out_features", out_features)
        self.weight = Parameter(empty(self.out_features, self.in_features, dtype=dtype))
        self.bias = Parameter(empty(self.out_features, dtype=dtype)) if bias else None
        self.reset_parameters(generator)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new values."""
        bound = 1 / math.sqrt(self.in_features)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (..., in_features) to (..., out_features)."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}")


class Identity(Module):
    """Return the input; the arguments are for drop-in use and ignored.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.Identity()(tg.tensor([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class Flatten(Module):
    """Join the axes from start_dim to end_dim into one; by default all but the first.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.Flatten()(tg.zeros(5, 8, 8)).shape
    (5, 64)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the axes joined."""
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split an axis into several; one of their lengths may be -1.

    Parameters
    ----------
    dim : int
        The axis.
    unflattened_size : tuple of int
        The axes in its place.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.Unflatten(1, (8, -1))(tg.zeros(5, 64)).shape
    (5, 8, 8)
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the axis split."""
        if not -x.ndim <= self.dim < x.ndim:
            raise IndexError(f"Unflatten has dim={self.dim}, the input has only {x.ndim} axes")
        dim = self.dim % x.ndim
        sizes = self.unflattened_size
        if -1 not in sizes and math.prod(sizes) != x.shape[dim]:
            raise ValueError(f"axis {self.dim} has length {x.shape[dim]}, which {sizes} does not multiply to")
        return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1:])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
