"""What is done to gradients between backward and the step: clipping, normalising, centralising, noise.

Every function works in place on the gradients it is given. They are read as they are stored, not through
`.grad`, whose reader may keep what it is handed: so the next backward writes into the same memory again.
Norms of parts are taken in float64: squares leave the range of float32 before the numbers do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from .backend import asarray, xp
from .random import Generator, default_generator
from .tensor import Tensor, float64

__all__ = ["clip_grad_norm_", "clip_grads_with_norm_", "get_total_norm", "clip_grad_value_",
           "clip_grad_agc_", "clip_grad_block_rms_", "normalize_grad_", "centralize_grad_", "add_grad_noise_",
           "add_weight_decay_", "guard_grad_"]


def clip_grad_norm_(parameters: Any, max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False) -> float:
    """Scale all gradients by one factor, in place, so that their common norm is at most max_norm.

    Other than in torch, gradients whose norm is not finite are left as they are, with a warning that names
    the first such parameter: scaled, they would all become NaN or 0.

    Parameters
    ----------
    parameters : Tensor, iterable of Tensors or of (name, Tensor) pairs, or mapping of names to Tensors
        Those without a gradient are passed over.
    max_norm : float
        Above 0; inf only measures.
    norm_type : float, default 2.0
        Which p-norm, above 0; inf for the largest absolute value.
    error_if_nonfinite : bool, default False
        Raise in place of the warning.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    ValueError
        When max_norm or norm_type is NaN or not above 0.
    RuntimeError
        When the norm is not finite and error_if_nonfinite is set; names the first parameter that is to blame.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> tg.nn.utils.clip_grad_norm_([w], max_norm=1)
    5.0
    >>> w.grad.tolist()
    [0.5999999046325684, 0.7999998331069946]
    """
    learned = _with_gradient(parameters)
    _above_zero("max_norm", max_norm)
    gradients = _arrays(learned)
    total = _total_norm(gradients, norm_type, error_if_nonfinite)
    if math.isfinite(total):
        _scale(learned, max_norm, total)
    else:
        warnings.warn(f"{_blame(gradients)}: nothing was clipped", RuntimeWarning, stacklevel=2)
    return total


def clip_grads_with_norm_(parameters: Any, max_norm: float, total_norm: float) -> None:
    """Scale all gradients, in place, by min(1, max_norm / (total_norm + 1e-6)), for a norm that is known.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    max_norm : float
        Above 0.
    total_norm : float
        The gradients' common norm, finite; from `get_total_norm`.
    """
    _above_zero("max_norm", max_norm)
    total_norm = float(total_norm)
    _finite("total_norm", total_norm, or_zero=True)
    _scale(_with_gradient(parameters), max_norm, total_norm)


def get_total_norm(tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> float:
    """Return the norm of all numbers in some Tensors, as if they were one vector.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.utils.get_total_norm([tg.tensor([3.0]), tg.tensor([[4.0]])])
    5.0
    """
    arrays = [(name, tensor._data) for name, tensor in _named(tensors)]
    return _total_norm(arrays, norm_type, error_if_nonfinite)


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Limit every number of every gradient to [-clip_value, clip_value], in place.

    Infinities are limited too and NaN stays NaN, with a warning that names the first such parameter.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    clip_value : float
        Above 0.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, -0.5], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> tg.nn.utils.clip_grad_value_(w, 2)
    >>> w.grad.tolist()
    [2.0, -1.0]
    """
    _above_zero("clip_value", clip_value)
    learned = _with_gradient(parameters)
    finite = [xp.isfinite(array) for _, array in _arrays(learned)]
    _warn_unless(finite, learned, "infinities are clipped, NaN stays")
    for _, parameter in learned:
        gradient = _writable(parameter)
        with numpy.errstate(over="ignore"):         # of a limit beyond float16, which is then none
            xp.clip(gradient, -clip_value, clip_value, out=gradient)


def clip_grad_agc_(parameters: Any, clip_factor: float = 0.01, eps: float = 1e-3) -> None:
    """Limit the norm of each unit's gradient to clip_factor times the norm of its weights, in place.

    A unit is what feeds one output: an index of the first axis. A tensor of fewer than two axes is one unit.
    The paper leaves the last layer out; pass the parameters of the others.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    clip_factor : float, default 0.01
        Finite and above 0.
    eps : float, default 1e-3
        The least norm that weights are taken to have, so that those that start at 0 can grow;
        finite and above 0.

    Notes
    -----
    Brock, De, Smith, Simonyan: High-Performance Large-Scale Image Recognition Without Normalization,
    arXiv 2102.06171, equation 3. A unit whose gradient is not finite is left as it is, with a warning.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([[3.0, 4.0], [0.0, 0.5]], requires_grad=True)
    >>> (w * tg.tensor([[60.0, 80.0], [0.0, 0.01]])).sum().backward()
    >>> tg.nn.utils.clip_grad_agc_(w, clip_factor=0.1)
    >>> [[round(number, 4) for number in unit] for unit in w.grad.tolist()]
    [[0.3, 0.4], [0.0, 0.01]]
    """
    _finite("clip_factor", clip_factor)
    _finite("eps", eps)

    def factor(norm: Any, parameter: Tensor) -> Any:
        limit = clip_factor * xp.maximum(_norms(parameter._data, units=True), eps)
        return limit / xp.maximum(norm, limit)
    _rescale(_with_gradient(parameters), factor, units=True)


def clip_grad_block_rms_(parameters: Any, threshold: float) -> None:
    """Limit the root mean square of each tensor's gradient to a threshold, in place.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    threshold : float
        Finite and above 0.

    Notes
    -----
    As clip_by_block_rms of optax. A tensor whose gradient is not finite is left as it is, with a warning.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0, 7.0], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> tg.nn.utils.clip_grad_block_rms_(w, threshold=2.5)
    >>> w.grad.tolist()
    [0.5, 3.5]
    """
    _finite("threshold", threshold)

    def factor(norm: Any, parameter: Tensor) -> Any:
        limit = threshold * math.sqrt(max(parameter.numel(), 1))
        return limit / xp.maximum(norm, limit)
    _rescale(_with_gradient(parameters), factor)


def normalize_grad_(parameters: Any, scope: str = "global") -> None:
    """Scale gradients to the norm 1, in place; where all are 0 they stay so.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    scope : {"global", "tensor"}, default "global"
        Whether all gradients together get the norm 1, or each by itself.

    Notes
    -----
    What has no finite norm is left as it is, with a warning.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> tg.nn.utils.normalize_grad_(w)
    >>> [round(number, 4) for number in w.grad.tolist()]
    [0.6, 0.8]
    """
    if scope not in ("global", "tensor"):
        raise ValueError(f"scope must be 'global' or 'tensor', got {scope!r}")
    learned = _with_gradient(parameters)
    total = None if scope == "tensor" else xp.asarray(_total_norm(_arrays(learned), 2.0, False))
    _rescale(learned, lambda norm, _: 1 / xp.where(norm > 0, norm, 1), norm=total)


def centralize_grad_(parameters: Any) -> None:
    """Subtract from the gradient of each unit its mean, in place, where a tensor has two axes or more.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
        A unit is an index of the first axis; the mean is taken over all others.

    Notes
    -----
    Yong, Huang, Hua, Zhang: Gradient Centralization, arXiv 2004.01461. A unit whose gradient is not finite is
    left as it is, with a warning.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([[1.0, 3.0], [5.0, 5.0]], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> tg.nn.utils.centralize_grad_(w)
    >>> w.grad.tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    matrices = [(name, p) for name, p in _with_gradient(parameters) if p.ndim > 1 and p.numel()]
    finite = []
    for _, parameter in matrices:
        gradient = _writable(parameter)
        with numpy.errstate(over="ignore", invalid="ignore"):
            mean = gradient.mean(axis=tuple(range(1, gradient.ndim)), dtype=float64, keepdims=True)
        finite.append(xp.isfinite(mean))
        gradient -= xp.where(finite[-1], mean, 0)
    _warn_unless(finite, matrices, "such units are left as they are")


def add_grad_noise_(parameters: Any, t: int, eta: float = 0.3, gamma: float = 0.55,
                    generator: Generator | None = None) -> None:
    """Add Gaussian noise of variance eta / (1 + t)**gamma to all gradients, in place.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    t : int
        How many steps have been taken, from 0.
    eta : float, default 0.3
        The variance at t = 0; finite and above 0. The paper uses 0.01, 0.3 and 1.
    gamma : float, default 0.55
        How fast it falls; finite, at least 0.
    generator : Generator, optional
        The source of the noise; by default the one that `tg.manual_seed` seeds.

    Notes
    -----
    Neelakantan et al.: Adding Gradient Noise Improves Learning for Very Deep Networks, arXiv 1511.06807.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.zeros(10_000, requires_grad=True)
    >>> w.sum().backward()
    >>> tg.nn.utils.add_grad_noise_(w, t=0, eta=0.25, generator=tg.Generator(0))
    >>> round(w.grad.mean().item(), 1), round(w.grad.std().item(), 1)
    (1.0, 0.5)
    """
    _finite("t", t, or_zero=True)
    _finite("eta", eta)
    _finite("gamma", gamma, or_zero=True)
    learned = _with_gradient(parameters)
    _warn_unless([xp.isfinite(array) for _, array in _arrays(learned)], learned, "noise does not mend it")
    source = (default_generator() if generator is None else generator).numpy
    deviation = math.sqrt(eta / (1 + t) ** gamma)
    for _, parameter in learned:
        gradient = _writable(parameter)
        gradient += asarray(source.normal(0.0, deviation, parameter.shape))


def add_weight_decay_(parameters: Any, weight_decay: float) -> None:
    """Add weight_decay times the parameter to each gradient, in place: the gradient of an L2 penalty.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    weight_decay : float
        Finite, at least 0.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -4.0], requires_grad=True)
    >>> w.sum().backward()
    >>> tg.nn.utils.add_weight_decay_(w, 0.5)
    >>> w.grad.tolist()
    [2.0, -1.0]
    """
    _finite("weight_decay", weight_decay, or_zero=True)
    for _, parameter in _with_gradient(parameters):
        gradient = _writable(parameter)
        gradient += weight_decay * parameter._data


def guard_grad_(parameters: Any, limit: float = 1e6, quiet: bool = False) -> list[Any]:
    """Limit every finite number of every gradient to [-limit, limit], in place; infinities and NaN stay.

    They stay because they say that something is wrong, which a loss scaler, or you, must be able to see.

    Parameters
    ----------
    parameters : as for `clip_grad_norm_`
    limit : float, default 1e6
        Above 0.
    quiet : bool, default False
        Whether to do so without a warning. By default Python shows it once for each line that calls this.

    Returns
    -------
    list
        The names of the parameters whose gradients were limited, or their positions where they have no names.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, -5e7, float("inf")], requires_grad=True)
    >>> (w * w / 2).sum().backward()
    >>> tg.nn.utils.guard_grad_({"weight": w}, quiet=True)
    ['weight']
    >>> w.grad.tolist()
    [3.0, -1000000.0, inf]
    """
    _above_zero("limit", limit)
    learned = _with_gradient(parameters)
    with numpy.errstate(over="ignore"):             # of a limit beyond float16, which is then none
        beyond = [xp.isfinite(array) & (xp.abs(array) > limit) for _, array in _arrays(learned)]
    acted = xp.stack([mask.any() for mask in beyond]).tolist() if beyond else []
    for (_, parameter), mask, acts in zip(learned, beyond, acted):
        if acts:
            gradient = _writable(parameter)
            gradient[...] = xp.where(mask, xp.clip(gradient, -limit, limit), gradient)
    limited = [name for (name, _), acts in zip(learned, acted) if acts]
    if limited and not quiet:
        warnings.warn(f"the gradient of parameter {limited[0]!r} has entries beyond {limit:g}: they were set "
                      "to it, with their sign. Is lr too high, or the loss a sum over too much?", RuntimeWarning,
                      stacklevel=2)
    return limited


def _named(tensors: Any) -> list[tuple[Any, Tensor]]:
    """Return Tensors with their names, or their positions where they have none."""
    if isinstance(tensors, Tensor):
        tensors = [tensors]
    items = list(tensors.items() if isinstance(tensors, Mapping) else tensors)
    if not items and not hasattr(tensors, "__len__"):
        warnings.warn("an empty iterator of parameters: was it used up before? Pass list(model.parameters())",
                      UserWarning, stacklevel=4)
    named = [item if isinstance(item, tuple) else (k, item) for k, item in enumerate(items)]
    for name, tensor in named:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"parameter {name!r} must be a Tensor, got {type(tensor).__name__}")
    return named


def _with_gradient(parameters: Any) -> list[tuple[Any, Tensor]]:
    return [(name, parameter) for name, parameter in _named(parameters) if parameter._grad is not None]


def _writable(parameter: Tensor) -> Any:
    """Return the array of a gradient, after a copy where somebody else may hold it: a reader, the tape."""
    if parameter._grad is not parameter._buffer:
        parameter._grad = parameter._buffer = Tensor._wrap(xp.array(parameter._grad._data))
    return parameter._grad._data


def _arrays(learned: list[tuple[Any, Tensor]]) -> list[tuple[Any, Any]]:
    return [(name, parameter._grad._data) for name, parameter in learned]


def _norms(array: Any, units: bool = False) -> Any:
    """Return the norm of an array, or of each index of its first axis, in float64, ready to be broadcast."""
    axes = tuple(range(1, array.ndim)) if units and array.ndim > 1 else None
    with numpy.errstate(over="ignore"):
        return xp.sqrt(xp.square(array, dtype=float64).sum(axis=axes, keepdims=True))


def _rescale(learned: list[tuple[Any, Tensor]], factor: Callable[[Any, Tensor], Any], units: bool = False,
             norm: Any = None) -> None:
    """Multiply each gradient by `factor(norm, parameter)`, where the norm, by default its own, is finite."""
    finite = []
    for _, parameter in learned:
        gradient = _writable(parameter)
        size = _norms(gradient, units) if norm is None else norm
        finite.append(xp.isfinite(size))
        gradient *= xp.where(finite[-1], factor(size, parameter), 1)
    _warn_unless(finite, learned, "what has no finite norm is left as it is", stacklevel=4)


def _warn_unless(finite: list[Any], learned: list[tuple[Any, Tensor]], consequence: str,
                 stacklevel: int = 3) -> None:
    """Warn, with the name of the first parameter that is to blame, unless all is finite."""
    if finite and not xp.stack([array.all() for array in finite]).all():
        warnings.warn(f"{_blame(_arrays(learned))}: {consequence}", RuntimeWarning, stacklevel=stacklevel)


def _total_norm(arrays: list[tuple[Any, Any]], norm_type: float, error_if_nonfinite: bool) -> float:
    _above_zero("norm_type", norm_type)
    if not arrays:
        return 0.0
    total = _norm([array for _, array in arrays], norm_type)
    if not 0 < total < math.inf:                    # squares leave the range of float32 before the numbers do
        total = _norm([array.astype(xp.float64) for _, array in arrays], norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"{_blame(arrays)}; set error_if_nonfinite=False for a warning instead")
    return total


def _norm(arrays: list[Any], norm_type: float) -> float:
    """Return the norm of the arrays' norms, with one transfer from the GPU."""
    with numpy.errstate(over="ignore", invalid="ignore"):
        norms = [xp.linalg.norm(a.reshape(-1), norm_type) if a.size else a.sum() for a in arrays]
        return float(xp.linalg.norm(xp.stack(norms).astype(xp.float64), norm_type))


def _blame(arrays: list[tuple[Any, Any]]) -> str:
    for name, array in arrays:
        if not xp.isfinite(array).all():
            return f"the gradient of parameter {name!r} has NaN or infinite entries"
    return "the norm of the gradients is beyond the range of float64"


def _scale(learned: list[tuple[Any, Tensor]], max_norm: float, total_norm: float) -> None:
    factor = max_norm / (total_norm + 1e-6)         # torch's formula
    if factor < 1:
        for _, parameter in learned:
            gradient = _writable(parameter)
            gradient *= factor


def _above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")


def _finite(name: str, value: float, or_zero: bool = False) -> None:
    if not (0 <= value if or_zero else 0 < value) or value == math.inf:
        raise ValueError(f"{name} must be finite and {'at least' if or_zero else 'above'} 0, got {value}")
