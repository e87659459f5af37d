"""Tensors from nothing: filled, counted and random ones."""

from __future__ import annotations

from typing import Any

from .backend import asarray, xp
from .random import Generator, default_generator
from .tensor import Tensor, float32, int64, real

__all__ = ["zeros", "ones", "full", "empty", "arange", "linspace", "eye", "rand", "randn", "randint", "randperm",
           "rand_like", "randn_like", "empty_like", "from_numpy", "from_dlpack"]


def _made(array: Any, requires_grad: bool) -> Tensor:
    return Tensor._wrap(array).requires_grad_(requires_grad)


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    """Accept both f(2, 3) and f((2, 3))."""
    shape = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
    for n in shape:
        if not hasattr(n, "__index__") or n < 0:
            raise ValueError(f"a shape has whole numbers of at least 0, got {shape}")
    return shape


def zeros(*size: int, requires_grad: bool = False, dtype: Any = float32) -> Tensor:
    """Return zeros of a shape.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.zeros(2, 3).shape, tg.zeros((2, 3)).shape
    ((2, 3), (2, 3))
    """
    return _made(xp.zeros(_shape(size), dtype), requires_grad)


def ones(*size: int, requires_grad: bool = False, dtype: Any = float32) -> Tensor:
    """Return ones of a shape."""
    return _made(xp.ones(_shape(size), dtype), requires_grad)


def empty(*size: int, requires_grad: bool = False, dtype: Any = float32) -> Tensor:
    """Return a Tensor whose numbers are whatever was in memory."""
    return _made(xp.empty(_shape(size), dtype), requires_grad)


def full(size: Any, fill_value: Any, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """Return a shape filled with one value; its type decides the dtype unless one is given."""
    value = Tensor(fill_value, dtype=dtype)
    return _made(xp.full(_shape((size,) if hasattr(size, "__index__") else tuple(size)), value._data, value.dtype),
                 requires_grad)


def arange(start: Any, end: Any = None, step: Any = 1, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """Return the numbers from start (0) to before end; int64 from whole numbers, else float32."""
    start, end = (0, start) if end is None else (start, end)
    if dtype is None:
        dtype = int64 if all(isinstance(x, int) or hasattr(x, "__index__") for x in (start, end, step)) else float32
    return _made(xp.arange(start, end, step, dtype=dtype), requires_grad)


def linspace(start: float, end: float, steps: int, requires_grad: bool = False, dtype: Any = float32) -> Tensor:
    """Return `steps` evenly spaced numbers from start to end, both included."""
    return _made(xp.linspace(start, end, steps, dtype=dtype), requires_grad)


def eye(n: int, m: int | None = None, requires_grad: bool = False, dtype: Any = float32) -> Tensor:
    """Return the n by m matrix with ones on its diagonal."""
    return _made(xp.eye(n, m, dtype=dtype), requires_grad)


def _drawn(generator: Generator | None):
    return (default_generator() if generator is None else generator).numpy


def rand(*size: int, generator: Generator | None = None, requires_grad: bool = False, dtype: Any = float32) -> Tensor:
    """Return numbers drawn evenly from [0, 1)."""
    return _made(asarray(_drawn(generator).random(_shape(size), dtype=dtype)), requires_grad)


def randn(*size: int, generator: Generator | None = None, requires_grad: bool = False, dtype: Any = float32) -> Tensor:
    """Return numbers drawn from the normal distribution of mean 0 and variance 1."""
    return _made(asarray(_drawn(generator).standard_normal(_shape(size), dtype=dtype)), requires_grad)


def randint(low: int, high: Any = None, size: Any = (), generator: Generator | None = None,
            dtype: Any = int64) -> Tensor:
    """Return whole numbers drawn evenly from low (0) to before high.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.randint(0, 10, (2, 3)).shape, tg.randint(10, (2, 3)).shape
    ((2, 3), (2, 3))
    """
    if isinstance(high, (tuple, list)):
        high, size = None, high
    low, high = (0, low) if high is None else (low, high)
    return _made(asarray(_drawn(generator).integers(low, high, size=_shape((size,)), dtype=dtype)), False)


def randperm(n: int, generator: Generator | None = None) -> Tensor:
    """Return 0 to n - 1 in random order."""
    return _made(asarray(_drawn(generator).permutation(n)), False)


def rand_like(x: Tensor, generator: Generator | None = None, requires_grad: bool = False) -> Tensor:
    """Return numbers drawn evenly from [0, 1) in the shape and dtype of x."""
    return rand(x.shape, generator=generator, requires_grad=requires_grad, dtype=x.dtype)


def randn_like(x: Tensor, generator: Generator | None = None, requires_grad: bool = False) -> Tensor:
    """Return normally distributed numbers in the shape and dtype of x."""
    return randn(x.shape, generator=generator, requires_grad=requires_grad, dtype=x.dtype)


def empty_like(x: Tensor, requires_grad: bool = False) -> Tensor:
    """Return a Tensor of the shape and dtype of x with whatever was in memory."""
    return _made(xp.empty_like(x._data), requires_grad)


def from_numpy(array: Any) -> Tensor:
    """Return a Tensor on the memory of an array, where the backend can share it: writing into one changes both."""
    return Tensor._wrap(real(asarray(array), array))


def from_dlpack(array: Any) -> Tensor:
    """Return a Tensor on the memory of an array of another library, by the DLPack protocol."""
    return Tensor._wrap(real(xp.from_dlpack(array), array))
