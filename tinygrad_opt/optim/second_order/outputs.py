"""Curvature through the outputs of a model: what natural gradient, K-FAC and Hessian-free share.

A loss is a function of outputs, and outputs are a function of parameters. Leaving out how the second curves gives
the Gauss-Newton matrix J' H J, never indefinite where H, the Hessian of the loss for the outputs, is not. Where the
loss is minus a log-likelihood that is the Fisher information, and a likelihood says how to draw from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ... import autograd
from ...autograd.likelihood import Bernoulli, Categorical, Normal
from ...backend import xp
from ...nn import Module
from ...random import Generator, default_generator
from ...tensor import Tensor
from ..ranges import POSITIVE
from .base import Array, SecondOrder

FISHERS = ("exact", "mc", "empirical")
LIKELIHOODS = {"softmax": Categorical, "squared": Normal, "bernoulli": Bernoulli}


class Point:
    """The loss where the parameters are, its outputs, and how it curves for them.

    Attributes
    ----------
    loss : Tensor
    outputs : Tensor
        What the model returned, of shape (..., outputs): each row is an example.
    calls : dict
        Linear layer: its input and its output, where layers were watched.
    """

    def __init__(self, owner: str, loss: Tensor, outputs: Tensor, calls: dict[Module, tuple[Tensor, Tensor]]) -> None:
        self.owner, self.loss, self.outputs, self.calls = owner, loss, outputs, calls
        slope, = autograd.grad(loss, outputs, create_graph=True, allow_unused=True)
        if slope is None or not slope._requires_grad:
            raise ValueError(f"{owner}: the loss does not curve with the outputs of the model; it must be computed "
                             "from them, and be a likelihood's, as cross-entropy and squared errors are")
        self._slope, self._rows = slope, outputs._data.reshape(-1, outputs.shape[-1])
        self._scales: dict[str, float] = {}

    @property
    def slope(self) -> Array:
        """The gradient of the loss for the outputs."""
        return self._slope._data

    def hessian(self, v: Array) -> Array:
        """Return the Hessian of the loss for the outputs, times v."""
        return autograd.grad(self._slope, self.outputs, v, retain_graph=True)[0]._data

    def scale(self, likelihood: str) -> float:
        """Return what a unit of the likelihood counts in this loss: 1 / batch for the mean of cross-entropies.

        Raises
        ------
        ValueError
            When the loss does not curve as this likelihood does.
        """
        if likelihood in self._scales:
            return self._scales[likelihood]
        z = self._rows
        v = xp.broadcast_to((-1.0) ** xp.arange(z.shape[1]), z.shape).astype(z.dtype)
        own, unit = self.hessian(v.reshape(self.outputs.shape)).reshape(z.shape), LIKELIHOODS[likelihood].expected(z, v)
        size = float((unit * unit).sum())
        c = float((own * unit).sum()) / size if size else 0.0
        if float(xp.abs(own - c * unit).max()) > 1e-3 * float(xp.abs(own).max()):
            raise ValueError(f"{self.owner}: likelihood={likelihood!r} does not fit the loss, whose second derivative "
                             "for the outputs of the model is another; 'softmax' stands for cross-entropy of logits, "
                             "'squared' for squared errors, 'bernoulli' for binary cross-entropy of logits")
        if c < 0:
            raise ValueError(f"{self.owner}: the loss curves down with the outputs; return what is to be minimized")
        self._scales[likelihood] = c
        return c

    def cotangents(self, fisher: str, likelihood: str, generator: Generator) -> Iterator[Array]:
        """Yield cotangents of the outputs whose products u u' of each row sum up, in the mean, to its Fisher."""
        if fisher == "empirical":
            yield self.slope * (self.slope.size // self.slope.shape[-1]) ** 0.5
            return
        root, kind = self.scale(likelihood) ** 0.5, LIKELIHOODS[likelihood]
        for u in kind.roots(self._rows) if fisher == "exact" else [kind.drawn(self._rows, generator.numpy)]:
            yield (root * u).astype(self._rows.dtype, copy=False).reshape(self.outputs.shape)


class Linearized:
    """Outputs as a linear function of what they were computed from, close to where that is.

    Parameters
    ----------
    outputs : Tensor
        With their graph.
    inputs : list of Tensor
        What is moved: parameters, or results between.
    u : array, optional
        A cotangent; `pulled` is its product with the transposed Jacobian.
    """

    def __init__(self, outputs: Tensor, inputs: list[Tensor], u: Array | None = None) -> None:
        self.outputs, self.inputs = outputs, inputs
        self._u = Tensor._wrap(xp.zeros_like(outputs._data) if u is None else u).requires_grad_()
        self._pulled = autograd.grad(outputs, inputs, self._u, create_graph=True, allow_unused=True)

    @property
    def pulled(self) -> list[Array | None]:
        """The transposed Jacobian times u, one array an input; None where the outputs do not depend on it."""
        return [None if g is None else g._data for g in self._pulled]

    def push(self, directions: list[Array]) -> Array:
        """Return the Jacobian times a direction of each input, of the shape of the outputs."""
        pairs = [(g, d) for g, d in zip(self._pulled, directions) if g is not None]
        along = autograd.grad([g for g, _ in pairs], self._u, [d for _, d in pairs], retain_graph=True)
        return along[0]._data

    def pull(self, u: Array) -> list[Array | None]:
        """Return the transposed Jacobian times a cotangent of the outputs."""
        found = autograd.grad(self.outputs, self.inputs, u, retain_graph=True, allow_unused=True)
        return [None if g is None else g._data for g in found]


class OfOutputs(SecondOrder):
    """Base of the methods that see the loss as a function of the outputs of a model.

    Parameters
    ----------
    model : Module or iterable
        The model, all of whose parameters are learned; its outputs are what its one call in the closure returns. Or
        parameters: then the closure returns the outputs beside the loss, `return loss, outputs`.
    defaults : dict
    likelihood : str
    generator : Generator, optional
    """

    ranges = {"damping": POSITIVE}

    def __init__(self, model: Any, defaults: dict[str, Any], likelihood: str,
                 generator: Generator | None = None) -> None:
        self.likelihood = one_of(type(self).__name__, "likelihood", likelihood, LIKELIHOODS)
        self.model = model if isinstance(model, Module) else None
        self.generator = generator
        params = model if self.model is None else [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        super().__init__(params, defaults)

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group["maximize"]:
            raise ValueError(f"{type(self).__name__}: takes no maximize, its curvature is that of a loss that is "
                             "minimized; return the negative from the closure")

    @property
    def _draws(self) -> Generator:
        return self.generator or default_generator()

    def _loss_tensor(self, closure: Callable[[], Any], found: list[Tensor] | None = None) -> Tensor:
        """Evaluate the closure and return its loss; without a model, add the outputs beside it to `found`."""
        def loss_of() -> Any:
            result = closure()
            if self.model is not None or not isinstance(result, tuple) or len(result) != 2:
                return result
            if found is not None:
                found.append(result[1])
            return result[0]

        return super()._loss_tensor(loss_of)

    def _point_of(self, closure: Callable[[], Any], layers: list[Module] = ()) -> Point:
        """Evaluate the closure, and keep what the model and the layers were called with."""
        owner, found, calls = type(self).__name__, [], {}

        def watch(layer: Module, args: tuple, result: Tensor) -> None:
            if layer in calls:
                raise ValueError(f"{owner}: {layer} is called twice in one evaluation of the loss; each call would "
                                 "need factors of its own")
            calls[layer] = args[0], result

        handles = [layer.register_forward_hook(watch) for layer in layers]
        if self.model is not None:
            handles.append(self.model.register_forward_hook(lambda model, args, result: found.append(result)))
        try:
            loss = self._loss_tensor(closure, found)
        finally:
            for handle in handles:
                handle.remove()
        if len(found) != 1 or not isinstance(found[0], Tensor):
            wanted = ("given parameters and no model, it takes a closure that returns (loss, outputs)"
                      if self.model is None else
                      f"the closure calls the model once, which returns a Tensor; it was called {len(found)} times")
            raise ValueError(f"{owner}: needs the outputs that the loss was computed from; {wanted}")
        return Point(owner, loss, found[0], calls)

    def _gradient(self, loss: Tensor) -> list[Array | None]:
        """Return the gradient of the loss, one array a parameter; its graph stays."""
        self.report.gradients += 1
        slopes = autograd.grad(loss, self._learned, retain_graph=True, allow_unused=True)
        return [None if g is None else g._data for g in slopes]

    def _move_along(self, direction: list[Array], **told: float) -> None:
        """Hand the rule a direction in place of the gradient."""
        for p, d in zip(self._learned, direction):
            p._grad = Tensor._wrap(d)
        self._advance(None, told)
        for p in self._learned:
            p._grad = None


def one_of(owner: str, name: str, value: Any, allowed: Any) -> Any:
    """Return an argument that is one of the allowed words; raise ValueError when it is not."""
    if value not in allowed:
        raise ValueError(f"{owner}: {name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")
    return value
