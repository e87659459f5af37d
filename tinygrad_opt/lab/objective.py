"""Objective: what a run minimises, a function of Tensors or a model with its data, evaluated and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from .. import autograd
from ..nn import Module
from ..random import Generator
from ..tensor import Tensor, enable_grad
from .surfaces import Surface, surface


class Objective:
    """A function of parameters, from where it starts.

    Parameters
    ----------
    function : Surface, str, callable or Module
        A surface or its name; a function from Tensors to a scalar Tensor; or a model, with `data` and `loss`.
    start : array_like or mapping, optional
        Where the parameters begin: numbers for one Tensor, called `w`; or names and numbers for several, handed to the
        function in this order. A surface has a start of its own, a model has parameters.
    data : (x, y) or iterable of (x, y), optional
        For a model: one batch for all steps, or batches, such as a DataLoader, gone through again and again.
    loss : callable, optional
        For a model: from its outputs and y to a scalar.
    seed : int, default 0
        For a surface whose steps see samples.

    Attributes
    ----------
    parameters : dict of str to Tensor
    name : str
    evaluations : int
        Gradients that were taken so far.
    """

    def __init__(self, function: Any, start: Any = None, data: Any = None, loss: Callable | None = None,
                 seed: int = 0) -> None:
        self.evaluations, self.function = 0, surface(function) if isinstance(function, str) else function
        self.surface = self.function if isinstance(self.function, Surface) else None
        self._random = Generator(seed).numpy
        self._batches: Iterator[tuple[Any, Any]] | None = None
        if isinstance(self.function, Module):
            self._of_model(start, data, loss)
        elif callable(self.function):
            self._of_function(start, data, loss)
        else:
            raise TypeError("function must be a surface or its name, a function of Tensors, or a model; got "
                            f"{type(function).__name__}")
        self._now: Callable[[], Any] | None = None

    def _of_model(self, start: Any, data: Any, loss: Any) -> None:
        model = self.function
        if start is not None:
            raise TypeError("a model starts from its own parameters; start is for functions")
        if data is None or not callable(loss):
            raise TypeError("a model needs data=, an (x, y) or batches of such, and loss=, a function such as "
                            "tg.cross_entropy")
        self.name, self.data, self.loss = type(model).__name__, data, loss
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError(f"{self.name} has no parameter that requires a gradient; nothing is learned")
        self._batches = _batches(data)

    def _of_function(self, start: Any, data: Any, loss: Any) -> None:
        function = self.function
        if data is not None or loss is not None:
            raise TypeError("data and loss are for models; a function of parameters holds its own")
        if start is None and self.surface is not None:
            start = self.surface.start
        if start is None:
            raise TypeError("a function needs start=, the numbers where its parameters begin")
        self.name = getattr(function, "name", getattr(function, "__name__", type(function).__name__))
        named = start if isinstance(start, Mapping) else {"w": start}
        self.parameters = {name: Tensor(_floating(value), requires_grad=True) for name, value in named.items()}

    def begin(self, t: int) -> None:
        """Make ready for step t, from 0: draw the batch or the samples that all its evaluations see."""
        self._now = self._function(t)

    def _function(self, t: int) -> Callable[[], Any]:
        if self._batches is not None:
            x, y = next(self._batches)
            return lambda: self.loss(self.function(x), y)
        function = self.function
        if self.surface is not None and self.surface.sample is not None:
            function = self.surface.sample(t, self._random)
        return lambda: function(*self.parameters.values())

    def __call__(self) -> Tensor:
        """Return the loss at the parameters as they are, with its graph."""
        if self._now is None:
            self.begin(0)
        with np.errstate(all="ignore"), enable_grad():
            return self._checked(self._now())

    def whole(self) -> float:
        """Return the loss over all samples of a function at the parameters as they are; NaN for a model."""
        if self._batches is not None:
            return float("nan")
        with np.errstate(all="ignore"):
            return self._checked(self.function(*self.parameters.values())).item()

    def backward(self) -> Tensor:
        """Set the gradients afresh and return the loss: what a step is given as its closure."""
        self.evaluations += 1
        for p in self.parameters.values():
            p.grad = None
        loss = self()
        with np.errstate(all="ignore"):
            loss.backward()
        return loss

    def gradients(self) -> dict[str, np.ndarray]:
        """Return the gradients at the parameters as they are, without counting and leaving every `.grad` alone."""
        with np.errstate(all="ignore"):
            slopes = autograd.grad(self(), list(self.parameters.values()), allow_unused=True)
        return {name: np.zeros(p.shape, p.dtype) if g is None else g.numpy()
                for (name, p), g in zip(self.parameters.items(), slopes)}

    def confine(self) -> None:
        """Put a point that has left a walled surface back on the edge of its box."""
        if self.surface is not None and self.surface.walled:
            for w in self.parameters.values():
                w.data = np.clip(w.numpy(), *np.transpose(self.surface.box))

    def _checked(self, loss: Any) -> Tensor:
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"a Tensor of shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"{self.name} must return a Tensor of one number, the loss, it returned {what}; reduce it, "
                            "say with .mean()")
        if not loss.requires_grad and loss.grad_fn is None:
            raise TypeError(f"what {self.name} returned does not depend on its parameters by a graph; compute it from "
                            "the Tensors that the function is given")
        return loss


def _floating(value: Any) -> Any:
    """Return numbers as floating point: whole ones too are a place to start from."""
    value = value.detach().numpy() if isinstance(value, Tensor) else value
    return value if np.asarray(value).dtype.kind == "f" else np.asarray(value, dtype="float32")


def _batches(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield batches for ever."""
    if isinstance(data, tuple) and len(data) == 2 and all(hasattr(part, "shape") for part in data):
        while True:
            yield data
    if not isinstance(data, Iterable):
        raise TypeError(f"data must be an (x, y) or an iterable of such batches, got {type(data).__name__}")
    while True:
        first = next(iterator := iter(data), None)
        if first is None:
            raise ValueError("data has no batches; a generator can be gone through once, pass a list or a DataLoader")
        yield from chain([first], iterator)
