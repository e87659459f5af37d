"""What is done to all gradients, or all parameters, at once: clipping, and one long vector."""

from __future__ import annotations

from collections.abc import Iterable

from .. import gradients
from ..gradients import *  # noqa: F403
from ..ops import cat, flatten
from ..spelling import CLIPPING
from ..tensor import Tensor

globals().update({other: getattr(gradients, name) for other, name in CLIPPING.items()})

__all__ = [*gradients.__all__, *CLIPPING, "parameters_to_vector", "vector_to_parameters"]


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
