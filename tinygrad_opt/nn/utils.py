"""What is done to all gradients, or all parameters, at once: clipping, and one long vector.

Gradients are read as they are stored, not through `.grad`, whose reader may keep what it is handed: so the
next backward writes into the same memory again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy

from ..backend import xp
from ..ops import cat, flatten
from ..tensor import Tensor


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
    gradients = [(name, parameter._grad._data) for name, parameter in learned]
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
    if not 0 <= total_norm < math.inf:
        raise ValueError(f"total_norm must be finite and at least 0, got {total_norm}")
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
    """Limit every number of every gradient to [-clip_value, clip_value], in place; NaN stays NaN.

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
    for _, parameter in _with_gradient(parameters):
        gradient = _writable(parameter)
        xp.clip(gradient, -clip_value, clip_value, out=gradient)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Return all parameters joined into one vector; gradients flow back to each.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.utils.parameters_to_vector(tg.nn.Linear(3, 2).parameters()).shape
    (8,)
    """
    return cat([flatten(parameter) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the parts of a vector into the parameters: the inverse of `parameters_to_vector`.

    Raises
    ------
    ValueError
        When the vector has not exactly as many numbers as the parameters together; nothing is changed then.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> layer = tg.nn.Linear(1, 2)
    >>> tg.nn.utils.vector_to_parameters(tg.arange(4.0), layer.parameters())
    >>> layer.weight.tolist(), layer.bias.tolist()
    ([[0.0], [1.0]], [2.0, 3.0])
    """
    parameters = list(parameters)
    size = sum(parameter.numel() for parameter in parameters)
    if vec.shape != (size,):
        raise ValueError(f"the parameters need a vector of the shape ({size},), got {vec.shape}")
    start = 0
    for parameter in parameters:
        part = vec._data[start:start + parameter.numel()]
        parameter.data = part.reshape(parameter.shape).astype(parameter.dtype)
        start += parameter.numel()


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
