"""Activation functions, with torch's formulas, defaults and behaviour at the kinks."""

from __future__ import annotations

import math

from ..backend import asarray, xp
from ..precision import in_float32
from ..random import Generator, default_generator
from ..tensor import Tensor, primitive
from .elementwise import abs, clamp, erf, exp, square, tanh, where
from .index import axis_or_dim
from .reduce import norm, sum
from .shape import chunk, reshape

# ---- sigmoid and its relatives: exp is only taken of what is not positive, so that nothing overflows ------


@primitive(lambda g, y, x: g * y * (1 - y))
def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1, e) / (1 + e)


@primitive(lambda g, y, x: g * sigmoid(-x))
def logsigmoid(x: Tensor) -> Tensor:
    """Return log(sigmoid(x)), accurate on both sides."""
    return xp.minimum(x, 0) - xp.log1p(xp.exp(-xp.abs(x)))


@primitive(lambda g, y, x, beta=1, threshold=20: where(x * beta > threshold, g, g * sigmoid(x * beta)))
def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """Return log(1 + exp(beta * x)) / beta, a smooth relu; x itself where beta * x exceeds the threshold.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.softplus(tg.tensor([-1.0, 0.0, 1000.0]))
    tensor([3.1326e-01, 6.9315e-01, 1.0000e+03])
    """
    return xp.where(x * beta > threshold, x, -logsigmoid(-beta * x) / beta)


@primitive(lambda g, y, x: g * _silu_slope(x, sigmoid(x)))
def silu(x: Tensor) -> Tensor:
    """Return x * sigmoid(x), also called swish."""
    return x * sigmoid(x)


def _silu_slope(x, s):
    return s * (1 + x * (1 - s))


def mish(x: Tensor) -> Tensor:
    """Return x * tanh(softplus(x))."""
    return x * tanh(softplus(x))


@primitive(lambda g, y, x: g / square(1 + abs(x)))
def softsign(x: Tensor) -> Tensor:
    """Return x / (1 + abs(x))."""
    return x / (1 + xp.abs(x))


def tanhshrink(x: Tensor) -> Tensor:
    """Return x - tanh(x)."""
    return x - tanh(x)


# ---- rectifiers -------------------------------------------------------------------------------------------


@primitive(lambda g, y, x: g * (y > 0))
def relu(x: Tensor) -> Tensor:
    """Return max(x, 0); its gradient at 0 is 0."""
    return xp.maximum(x, 0)


@primitive(lambda g, y, x, negative_slope=0.01: where(x > 0, g, g * negative_slope))
def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """Return x where it is positive and negative_slope * x elsewhere."""
    return xp.where(x > 0, x, x * negative_slope)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """Return x where it is positive and weight * x elsewhere.

    Parameters
    ----------
    x : Tensor or array, shape (N, C, ...) or any
    weight : Tensor or array
        One number, or C of them: one for each channel, along axis 1.

    Raises
    ------
    ValueError
        When the weight has neither one element nor one a channel.
    """
    channels = x.shape[1] if x.ndim > 1 else 1
    count = math.prod(weight.shape)
    if count not in (1, channels):
        raise ValueError(f"prelu: weight has {count} elements; it needs 1, or {channels} for the channels "
                         f"along axis 1 of x, which has shape {x.shape}")
    weight = reshape(weight, () if count == 1 else (channels, *[1] * (x.ndim - 2)))
    return where(x > 0, x, x * weight)


@primitive(lambda g, y, x, alpha, scale, inner: where(x > 0, g * scale, g * inner * (y + alpha * scale)))
def _elu(x, alpha, scale, inner):
    return xp.where(x > 0, scale * x, alpha * scale * xp.expm1(xp.minimum(x * inner, 0)))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x where it is positive and alpha * (exp(x) - 1) elsewhere."""
    return _elu(x, alpha=alpha, scale=1, inner=1)


def selu(x: Tensor) -> Tensor:
    """Return the elu so scaled that layers keep mean 0, variance 1 (Klambauer et al., arXiv:1706.02515)."""
    return _elu(x, alpha=1.6732632423543772, scale=1.0507009873554805, inner=1)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """Return x where it is positive and alpha * (exp(x / alpha) - 1) elsewhere, smooth at 0."""
    return _elu(x, alpha=alpha, scale=1, inner=1 / alpha)


@primitive(lambda g, y, x: g * (_normal_cdf(x) + x * exp(x * x / -2) / math.sqrt(2 * math.pi)))
def _gelu(x):
    return x * _normal_cdf(x)


def _normal_cdf(x):
    return 0.5 + 0.5 * erf(x * math.sqrt(0.5))


@primitive(lambda g, y, x: g * _tanh_gelu_slope(x, tanh(_tanh_gelu_inner(x))))
def _tanh_gelu(x):
    return 0.5 * x * (1 + tanh(_tanh_gelu_inner(x)))


def _tanh_gelu_inner(x):
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _tanh_gelu_slope(x, t):
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Return x times the normal distribution function of x (Hendrycks and Gimpel, arXiv:1606.08415).

    Parameters
    ----------
    x : Tensor or array
    approximate : {"none", "tanh"}
        "tanh" for the faster formula with a tanh in the place of the error function.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.gelu(tg.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.0000,  0.8413])
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return _gelu(x) if approximate == "none" else _tanh_gelu(x)


# ---- in straight pieces -----------------------------------------------------------------------------------


@primitive(lambda g, y, x, min_val=-1.0, max_val=1.0: g * ((y > min_val) & (y < max_val)))
def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """Return x limited to [min_val, max_val]; unlike clamp, without gradient at the limits."""
    return xp.clip(x, min_val, max_val)


def relu6(x: Tensor) -> Tensor:
    """Return x limited to [0, 6]."""
    return hardtanh(x, 0, 6)


def hardsigmoid(x: Tensor) -> Tensor:
    """Return relu6(x + 3) / 6."""
    return relu6(x + 3) / 6


def hardswish(x: Tensor) -> Tensor:
    """Return x * relu6(x + 3) / 6."""
    return x * relu6(x + 3) / 6


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Return x, but 0 in [-lambd, lambd]."""
    return where((x >= -lambd) & (x <= lambd), 0, x)


def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Return x moved towards 0 by lambd, and 0 where that would pass it."""
    if not lambd >= 0:
        raise ValueError(f"softshrink: lambd must be at least 0, got {lambd}")
    return x - clamp(x, -lambd, lambd)


def threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    """Return x where it exceeds the threshold, the value elsewhere."""
    return where(x <= threshold, value, x)


# ---- along an axis ----------------------------------------------------------------------------------------


def _softmax_vjp(g, y, x, axis=-1):
    """Pull g back through y = softmax(x)."""
    gy = g * y
    return gy - y * sum(gy, axis=axis, keepdims=True)


def _shifted(x, axis):
    """Return x minus its maximum along an axis, so that exp cannot overflow."""
    return x - xp.max(x, axis=axis, keepdims=True) if x.size else x


@in_float32
@axis_or_dim
@primitive(_softmax_vjp)
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return exp(x) divided by its sum along an axis: positive numbers that add up to 1.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.softmax(tg.tensor([[1000.0, 1000.0], [0.0, 1000.0]]))
    tensor([[0.5000, 0.5000],
            [0.0000, 1.0000]])
    """
    e = xp.exp(_shifted(x, axis))
    return e / xp.sum(e, axis=axis, keepdims=True)


@in_float32
@axis_or_dim
@primitive(lambda g, y, x, axis=-1: g - exp(y) * sum(g, axis=axis, keepdims=True))
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return the logarithm of softmax, accurate where that is close to 0."""
    z = _shifted(x, axis)
    return z - xp.log(xp.sum(xp.exp(z), axis=axis, keepdims=True))


@in_float32
@axis_or_dim
def softmin(x: Tensor, axis: int = -1) -> Tensor:
    """Return softmax(-x)."""
    return softmax(-x, axis)


@axis_or_dim
def glu(x: Tensor, axis: int = -1) -> Tensor:
    """Return a * sigmoid(b), a and b being the halves of x along an axis."""
    if x.shape[axis] % 2:
        raise ValueError(f"glu: axis {axis} must have an even length; x has shape {x.shape}")
    a, b = chunk(x, 2, axis)
    return a * sigmoid(b)


@in_float32
@axis_or_dim
def normalize(x: Tensor, p: float = 2.0, axis: int = 1, eps: float = 1e-12) -> Tensor:
    """Return x divided by its p-norm along an axis, or by eps where that is larger.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.normalize(tg.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return x / clamp(norm(x, p, axis, keepdims=True), min=eps)


@in_float32
@axis_or_dim
def cosine_similarity(x1: Tensor, x2: Tensor, axis: int = 1, eps: float = 1e-8) -> Tensor:
    """Return the cosine of the angle between x1 and x2 along an axis; a norm below eps counts as eps."""
    norms = clamp(norm(x1, 2, axis), min=eps) * clamp(norm(x2, 2, axis), min=eps)
    return sum(x1 * x2, axis=axis) / norms


# ---- at random --------------------------------------------------------------------------------------------


def dropout(x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Return x with each element set to 0 with probability p, the others divided by 1 - p; x if not training.

    Parameters
    ----------
    x : Tensor or array
    p : float, default 0.5
        Between 0 and 1.
    training : bool, default True
    generator : Generator, optional
        Where the random numbers come from.

    Raises
    ------
    ValueError
        When p is not a probability.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> sorted(set(tg.dropout(tg.ones(100), 0.75, generator=tg.Generator(0)).tolist()))
    [0.0, 4.0]
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability between 0 and 1, got {p}")
    if not training or p == 0:
        return x
    generator = default_generator() if generator is None else generator
    kept = asarray(generator.numpy.random(x.shape, dtype="float32") >= p)
    return x * (kept.astype(x.dtype) * (1 / (1 - p) if p < 1 else 0))
