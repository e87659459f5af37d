"""Initial values: each function fills a Tensor in place, outside the tape, and returns it.

Random numbers are drawn in float64 and rounded, so that a seed means the same weights in every dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from ..backend import asarray
from ..random import Generator, default_generator
from ..tensor import Tensor

# What keeps the variance of activations from layer to layer; torch's table.
GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which a nonlinearity wants its weights larger.

    Parameters
    ----------
    nonlinearity : {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
    param : float, optional
        The negative slope of leaky_relu, 0.01 by default.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> round(tg.nn.init.calculate_gain("leaky_relu", 0.2), 4)
    1.3868
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        raise ValueError(f"nonlinearity must be one of leaky_relu, {', '.join(GAINS)}; got {nonlinearity!r}")
    return GAINS[nonlinearity]


def _fill(tensor: Tensor, values: Any) -> Tensor:
    tensor.data = asarray(numpy.broadcast_to(numpy.asarray(values, tensor.dtype), tensor.shape))
    return tensor


def _random(generator: Generator | None) -> numpy.random.Generator:
    return (default_generator() if generator is None else generator).numpy


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with numbers drawn evenly from [a, b).

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.nn.init.uniform_(tg.empty(100), -2, -1)
    >>> bool((w >= -2).all() and (w <= -1).all())
    True
    """
    if not a <= b:
        raise ValueError(f"uniform_ needs a <= b, got a={a} and b={b}")
    return _fill(tensor, _random(generator).uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0,
            generator: Generator | None = None) -> Tensor:
    """Fill with numbers drawn from the normal distribution."""
    if not (0 <= std < math.inf and math.isfinite(mean)):
        raise ValueError(f"normal_ needs a finite mean and a finite std of at least 0, got {mean} and {std}")
    return _fill(tensor, _random(generator).normal(mean, std, tensor.shape))


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Generator | None = None) -> Tensor:
    """Fill with numbers drawn from the part of a normal distribution that lies in [a, b].

    An evenly drawn probability goes through the inverse of the distribution function. The limits are absolute
    numbers, not multiples of std, as in torch.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.nn.init.trunc_normal_(tg.empty(1000), std=0.02, a=-0.04, b=0.04)
    >>> float(w.abs().max()) <= 0.04
    True
    """
    from statistics import NormalDist  # not with the package: it loads decimal and fractions
    if not (0 < std < math.inf and math.isfinite(mean) and a < b):
        raise ValueError("trunc_normal_ needs a finite mean, a finite std above 0 and a < b, got "
                         f"mean={mean}, std={std}, a={a} and b={b}")
    sign = 1 if a + b <= 2 * mean else -1           # mirrored: the lower tail has more digits
    low, high = sorted((sign * (a - mean) / std, sign * (b - mean) / std))
    normal = NormalDist()
    low, high = normal.cdf(low), normal.cdf(high)
    if not low < high:
        raise ValueError(f"the normal distribution of mean {mean} and std {std} has nothing between a={a} "
                         f"and b={b}; move the limits or widen std")
    probability = _random(generator).uniform(max(low, 1e-300), high, tensor.shape)
    values = numpy.asarray(numpy.frompyfunc(normal.inv_cdf, 1, 1)(probability), float)
    return _fill(tensor, numpy.clip(mean + sign * std * values, a, b))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    return _fill(tensor, val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return _fill(tensor, 1)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return _fill(tensor, 0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with ones on the diagonal and zeros elsewhere, which keeps a Linear's inputs.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.init.eye_(tg.empty(2, 3)).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    if tensor.ndim != 2:
        raise ValueError(f"eye_ fills a matrix, got the shape {tensor.shape}")
    return _fill(tensor, numpy.eye(*tensor.shape))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Return how many inputs an output of a weight (out, in, ...) has, and how many outputs an input."""
    if tensor.ndim < 2:
        raise ValueError("the fan of a weight needs at least 2 axes, (out, in, ...); got the shape "
                         f"{tensor.shape}. For a bias use zeros_, uniform_ or normal_")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _evenly(tensor: Tensor, std: float, generator: Generator | None) -> Tensor:
    bound = math.sqrt(3) * std                      # U(-bound, bound) has this standard deviation
    return uniform_(tensor, -bound, bound, generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill evenly with the standard deviation gain * sqrt(2 / (fan_in + fan_out)).

    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, 2010.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.nn.init.xavier_uniform_(tg.empty(3, 5))
    >>> float(w.abs().max()) <= (6 / (3 + 5)) ** 0.5
    True
    """
    return _evenly(tensor, gain * math.sqrt(2 / max(1, sum(_fans(tensor)))), generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill from the normal distribution of standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(tensor, 0, gain * math.sqrt(2 / max(1, sum(_fans(tensor)))), generator)


def _kaiming(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fans = dict(zip(("fan_in", "fan_out"), _fans(tensor)))
    if mode not in fans:
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fans[mode]))


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Generator | None = None) -> Tensor:
    """Fill evenly with the standard deviation gain / sqrt(fan).

    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015.

    Parameters
    ----------
    tensor : Tensor, shape (out, in, ...)
    a : float, default 0
        The negative slope of the leaky_relu that follows.
    mode : {"fan_in", "fan_out"}
        Whether the variance is kept in the forward or in the backward pass.
    nonlinearity : str, default "leaky_relu"
        As for `calculate_gain`.
    generator : Generator, optional

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.nn.init.kaiming_uniform_(tg.empty(3, 6), nonlinearity="relu")
    >>> float(w.abs().max()) <= 1.0
    True
    """
    return _evenly(tensor, _kaiming(tensor, a, mode, nonlinearity), generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Generator | None = None) -> Tensor:
    """Fill from the normal distribution of standard deviation gain / sqrt(fan), as for `kaiming_uniform_`."""
    return normal_(tensor, 0, _kaiming(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Fill with gain times a random matrix of orthonormal rows, or columns where there are fewer of these.

    The Q of a QR decomposition of normal numbers, its signs fixed by R, so that all such matrices are equally
    likely. Axes after the first are taken as one. Saxe, McClelland and Ganguli, Exact solutions to the
    nonlinear dynamics of learning in deep linear neural networks, 2013.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> q = tg.nn.init.orthogonal_(tg.empty(2, 4, dtype="float64"))
    >>> (q @ q.T).abs().round(decimals=6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_ needs at least 2 axes, got the shape {tensor.shape}")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    q, r = numpy.linalg.qr(_random(generator).standard_normal((max(rows, columns), min(rows, columns))))
    q = q * numpy.where(numpy.diag(r) < 0, -1, 1)
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Fill a matrix from the normal distribution, with the share `sparsity` of each column at 0.

    Martens, Deep learning via Hessian-free optimization, 2010.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.nn.init.sparse_(tg.empty(10, 3), 0.3)
    >>> (w == 0).sum(axis=0).tolist()
    [3, 3, 3]
    """
    if tensor.ndim != 2 or not 0 <= sparsity <= 1:
        raise ValueError("sparse_ fills a matrix and needs sparsity in [0, 1], got the shape "
                         f"{tensor.shape} and {sparsity}")
    random, (rows, columns) = _random(generator), tensor.shape
    values = random.normal(0, std, tensor.shape)
    for column in range(columns):
        values[random.permutation(rows)[:math.ceil(sparsity * rows)], column] = 0
    return _fill(tensor, values)
