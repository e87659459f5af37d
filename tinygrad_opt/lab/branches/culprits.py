"""Culprits: which operation of a graph made the first number that is not finite, and that operation once more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import autograd
from ...backend import asarray, to_numpy
from ...tensor import Node, Tensor, enable_grad, ndarray


@dataclass(frozen=True, eq=False)
class Culprit:
    """An operation that is given finite numbers and gives others.

    Attributes
    ----------
    forward : callable
        What it computes, on arrays.
    arguments, options : list, dict
        What it was given, arrays on the host.
    cotangent : array, optional
        The gradient of its result, where it is the backward that goes wrong.
    results : list of arrays
        What it gives: its value, or the gradients of its arguments.
    """

    forward: Callable
    arguments: list[Any]
    options: dict[str, Any]
    cotangent: np.ndarray | None
    results: list[np.ndarray]

    @property
    def name(self) -> str:
        """Of the operation."""
        return self.forward.__name__.strip("_")

    @property
    def place(self) -> str | None:
        """Under which name its module has the operation; None where it cannot be imported."""
        names = vars(sys.modules.get(self.forward.__module__, object))
        return next((name for name, value in names.items()
                     if getattr(getattr(value, "op", None), "forward", None) is self.forward), None)

    @property
    def function(self) -> Callable | None:
        """The operation on Tensors; None where it cannot be imported."""
        return getattr(sys.modules[self.forward.__module__], self.place) if self.place else None

    @property
    def overflows(self) -> bool:
        """Whether only the dtype is too small: with float64 the same operation gives finite numbers."""
        wide = [a.astype("float64") if is_floating(a) else a for a in self.arguments]
        if self.cotangent is None:
            return is_finite(_applied(self.forward, wide, self.options))
        return is_finite(_pulled(self.function, wide, self.options, self.cotangent.astype("float64")))

    def __str__(self) -> str:
        result = next(result for result in self.results if not is_finite(result))
        place = tuple(np.argwhere(~np.isfinite(result))[0])
        arrays = [np.asarray(a) for a in self.arguments if isinstance(a, (np.ndarray, float, int))]
        single = all(np.broadcast_shapes(a.shape, result.shape) == result.shape for a in arrays)
        if single and "axis" not in self.options:
            numbers = ", ".join(f"{np.broadcast_to(a, result.shape)[place]:.4g}" for a in arrays)
        else:
            numbers = ", ".join(f"{a.shape} numbers in [{a.min():.4g}, {a.max():.4g}]" for a in arrays if a.size)
        if self.cotangent is None:
            return f"{self.name}({numbers}) = {result[place]}"
        return f"the gradient of {self.name}({numbers}) is {result[place]}"


def is_floating(value: Any) -> bool:
    """Whether something is an array of floating-point numbers."""
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def is_finite(value: Any) -> bool:
    """Whether every number in something is finite; what is no number counts as finite."""
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, (list, tuple)):
        return all(map(is_finite, value))
    value = to_numpy(value) if isinstance(value, ndarray) else value
    return not (is_floating(value) or isinstance(value, (float, np.floating))) or bool(np.isfinite(value).all())


def find_in_forward(loss: Tensor) -> Culprit | None:
    """Return the first operation of a loss that gives a number that is not finite from finite ones.

    Parameters
    ----------
    loss : Tensor
        With its graph; its operations are computed once more, from the leaves on.
    """
    for node, arguments, value in _recomputed(loss):
        if not is_finite(value) and is_finite(arguments):
            return Culprit(node.op.forward, [_host(a) for a in arguments], dict(node.kwargs), None, [_host(value)])
    return None


def find_in_backward(loss: Tensor, parameters: list[Tensor]) -> Culprit | None:
    """Return the first operation, on the way back, that turns a finite gradient into one that is not.

    Parameters
    ----------
    loss : Tensor
        Finite, with its graph.
    parameters : list of Tensor
        What the gradients are taken for.
    """
    passed: dict[Node, np.ndarray] = {}
    calls = [(node, arguments) for node, arguments, _ in _recomputed(loss)]
    for node, _ in calls:
        node._hooks = [*(node._hooks or ()), _note(passed, node)]
    autograd.grad(loss, parameters, allow_unused=True)
    for node, arguments in reversed(calls):
        if node in passed and is_finite(passed[node]):
            given = [_host(a) for a in arguments]
            culprit = Culprit(node.op.forward, given, dict(node.kwargs), passed[node], [])
            slopes = _pulled(culprit.function, given, node.kwargs, passed[node])
            if not is_finite(slopes):
                return Culprit(node.op.forward, given, dict(node.kwargs), passed[node], slopes)
    return None


def _note(passed: dict[Node, np.ndarray], node: Node) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        passed[node] = gradient.numpy().copy()
    return hook


def _recomputed(loss: Tensor) -> list[tuple[Node, list[Any], Any]]:
    """Return the calls of a graph in their order, each with its arguments and its value, as arrays."""
    nodes: dict[Node, None] = {}
    waiting = [loss._node]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes[node] = None
            waiting += [parent for parent in node.parents if isinstance(parent, Node)]
    values: dict[Node, Any] = {}
    calls = []
    for node in sorted(nodes, key=lambda node: node.serial):
        # What no gradient formula mentions is not kept: there the call that it came from stands, or a leaf.
        arguments = [values[a] if isinstance(a, Node) else a._data if isinstance(a, Tensor) else a for a in node.raw]
        values[node] = node.op.forward(*arguments, **node.kwargs)
        calls.append((node, arguments, values[node]))
    return calls


def _applied(forward: Callable, arguments: list[Any], options: dict[str, Any]) -> list[np.ndarray]:
    """Return what an operation gives for arrays of the host."""
    with np.errstate(all="ignore"):
        return [_host(forward(*[asarray(a) if isinstance(a, np.ndarray) else a for a in arguments], **options))]


def _pulled(function: Callable | None, arguments: list[Any], options: dict[str, Any],
            cotangent: np.ndarray) -> list[np.ndarray]:
    """Return the gradients of an operation's floating-point arguments, of one that cannot be called none."""
    if function is None:
        return []
    tensors = [Tensor(a, requires_grad=True) if is_floating(a) else a for a in arguments]
    learned = [x for x in tensors if isinstance(x, Tensor)]
    with np.errstate(all="ignore"), enable_grad():
        result = function(*tensors, **options)
        slopes = autograd.grad(result, learned, Tensor(cotangent), allow_unused=True) if learned else ()
    return [slope.numpy() for slope in slopes if slope is not None]


def _host(value: Any) -> Any:
    """Return an array as one of the host."""
    return np.asarray(to_numpy(value)) if isinstance(value, (ndarray, np.generic)) else value
