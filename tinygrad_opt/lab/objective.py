"""Objective: what a run minimises, a function of Tensors or a model with its data, evaluated and counted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import autograd
from ..nn import Module
from ..random import Generator
from ..tensor import Tensor, enable_grad
from .arguments import whole
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
        self._random = Generator(whole("seed", seed, 0)).numpy
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
        self._batches = _endless(data)

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
        if not named or not all(isinstance(name, str) for name in named):
            raise TypeError(f"start must be numbers, or name such as {{'a': 1.0, 'b': [2.0, 3.0]}}; got {start!r}")
        self._takes(named)
        self.parameters = {name: Tensor(_floating(value), requires_grad=True) for name, value in named.items()}
        if self.surface is not None:
            self.surface.check_point(next(iter(self.parameters.values())).shape)
        if not any(p.numel() for p in self.parameters.values()):
            raise ValueError(f"start holds no number, so nothing can move; got {start!r}")

    def _takes(self, named: Iterable[str]) -> None:
        """Raise TypeError where the function cannot be called with a Tensor for each name."""
        try:
            inspect.signature(self.function).bind(*named)
        except ValueError:                          # of a builtin, nothing is known
            return
        except TypeError as error:
            raise TypeError(f"{self.name} is called with a Tensor for each name in start, {', '.join(named)}, and does "
                            f"not take these: {error}") from None

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
        if not isinstance(loss, Tensor):
            raise TypeError(f"{self.name} must return a Tensor of one number, the loss, it returned "
                            f"{type(loss).__name__}; compute it from the Tensors that it is given, and return it as it "
                            "is")
        if loss.numel() != 1:
            raise TypeError(f"{self.name} must return a Tensor of one number, the loss, it returned a Tensor of shape "
                            f"{loss.shape}; reduce it, say with .mean()")
        if not loss.requires_grad and loss.grad_fn is None:
            raise TypeError(f"what {self.name} returned does not depend on its parameters by a graph; compute it from "
                            "the Tensors that the function is given")
        return loss


def _floating(value: Any) -> Any:
    """Return numbers as floating point: whole ones too are a place to start from."""
    value = value.detach().numpy() if isinstance(value, Tensor) else value
    try:
        dtype = np.asarray(value).dtype
    except ValueError:                              # rows of different lengths
        dtype = np.dtype(object)
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise TypeError(f"start must be numbers of at most double precision, such as [1.0, -2.0]; got {value!r}")
    return value if dtype.kind == "f" else np.asarray(value, dtype="float32")


def batches_of(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of an (x, y), which is one, or of an iterable of such.

    Raises
    ------
    TypeError, ValueError
        When it is neither, or has none.
    """
    if isinstance(data, tuple) and len(data) == 2 and all(hasattr(part, "shape") for part in data):
        yield data
        return
    if not isinstance(data, Iterable) or hasattr(data, "shape"):
        raise TypeError(f"data must be an (x, y) or an iterable of such batches, got {type(data).__name__}")
    none = True
    for batch in data:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(f"each batch of data must be an (x, y), got {type(batch).__name__}; a single batch is a "
                            "tuple of two arrays, data=(x, y)")
        none = False
        yield batch
    if none:
        raise ValueError("data has no batches; a generator can be gone through once, pass a list or a DataLoader")


def _endless(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield batches for ever."""
    while True:
        yield from batches_of(data)
