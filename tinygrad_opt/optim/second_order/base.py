"""What methods that use curvature share: parameters as one vector, counted evaluations, and a report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ... import autograd
from ...backend import xp
from ...tensor import Tensor, enable_grad
from ..optimizer import Optimizer

Array = Any


@dataclass
class Report:
    """What the last step did.

    Attributes
    ----------
    functions, gradients, products : int
        How often the loss, its gradient, and a product with curvature were evaluated in this step.
    accepted : bool or None
        Whether the parameters moved; None before the first step.
    reason : str
        Why the step ended, in words.
    numbers : dict
        What the method goes by: damping, radius, step length, curvature met, ...
    log : list of str
        A line for each iteration inside the step.
    """

    functions: int = 0
    gradients: int = 0
    products: int = 0
    accepted: bool | None = None
    reason: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        moved = {None: "no step yet", True: "step accepted", False: "nothing moved"}[self.accepted]
        counts = f"{self.functions} functions, {self.gradients} gradients, {self.products} products"
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.numbers.items())
        head = f"{moved}: {self.reason}" if self.reason else moved
        return "\n".join(filter(None, [head, counts, numbers, *self.log]))


class SecondOrder(Optimizer):
    """Base of the methods that use curvature; a subclass writes `_minimize(closure)`.

    All parameters of all groups that require a gradient are one vector, in the order of the groups.

    Attributes
    ----------
    report : Report
        Of the last step.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.report = Report()

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        """Take one step and return the loss at its beginning."""
        raise NotImplementedError

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        if not callable(closure):
            raise TypeError(f"{type(self).__name__}: evaluates the loss as often as it needs; call step(closure) with "
                            f"a function that returns it, got {type(closure).__name__}")
        if self.grad_transforms:
            raise ValueError(f"{type(self).__name__}: takes gradients at several points in a step, so that "
                             "grad_transforms have no single place here; leave them out")
        if not self._learned:
            raise ValueError(f"{type(self).__name__}: none of its parameters requires a gradient")
        self.report, before = Report(), self._point()
        try:
            return self._minimize(closure)
        except BaseException:                       # of the closure, or an interrupt, at a point that was only tried
            self._move_to(before)
            raise

    def _shared(self, *own: str) -> dict[str, Any]:
        """Return the options, which all groups share but for `own`: their parameters are one vector."""
        first, *others = self.param_groups
        for name, group in itertools.product([name for name in self.defaults if name not in own], others):
            if group[name] != first[name]:
                raise ValueError(f"{type(self).__name__}: {name} is {first[name]!r} in the first group and "
                                 f"{group[name]!r} in another; the groups take one step together and share their "
                                 f"options{', but for ' * bool(own)}{', '.join(own)}")
        return first

    def _told(self, start: Slope) -> Tensor:
        """Return the loss of a point as the closure gave it, without its graph."""
        return Tensor._wrap(xp.asarray(self._signed(start.value), start.gradient.dtype))

    # ---- parameters as one vector -------------------------------------------------------------------------

    @property
    def _learned(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _join(self, arrays: list[Any]) -> Array:
        """Return arrays of the parameters' shapes as one vector; None is zeros."""
        return xp.concatenate([(xp.zeros(p.shape, p.dtype) if a is None else a).reshape(-1)
                               for p, a in zip(self._learned, arrays)])

    def _split(self, x: Array) -> list[Array]:
        """Return a vector as arrays of the parameters' shapes."""
        parts, start = [], 0
        for p in self._learned:
            size = p._data.size
            parts.append(x[start:start + size].reshape(p.shape))
            start += size
        return parts

    def _point(self) -> Array:
        """Return a copy of all parameters as one vector."""
        return self._join([p._data for p in self._learned])

    def _move_to(self, x: Array) -> None:
        """Write a vector into the parameters."""
        for p, part in zip(self._learned, self._split(x)):
            p._data[...] = part
            p._version[0] += 1

    # ---- counted evaluations ------------------------------------------------------------------------------

    def _loss_tensor(self, closure: Callable[[], Any]) -> Tensor:
        """Evaluate the closure and return its loss, with its graph; the gradients it may have written are forgotten."""
        self.report.functions += 1
        for p in self._learned:
            p._grad = None
        with enable_grad(), autograd.keep_graph():
            loss = closure()
        for p in self._learned:
            p._grad = None
        if not isinstance(loss, Tensor) or loss._data.size != 1:
            what = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"{type(self).__name__}: the closure must return the loss, a Tensor of one number with its "
                            f"graph; it returned {what}")
        if not loss._requires_grad:
            raise RuntimeError(f"{type(self).__name__}: the loss that the closure returned does not depend on the "
                               "parameters by a graph; return it as it was computed, not detached and not as a float")
        return loss

    def _value(self, closure: Callable[[], Any], x: Array) -> float:
        """Return the loss at x alone, as a number; the parameters are left at x."""
        self._move_to(x)
        return self._signed(self._loss_tensor(closure).item())

    def _slope(self, closure: Callable[[], Any], x: Array, curvature: bool = False) -> Slope:
        """Return loss and gradient at x, and with `curvature` what Hessian products need; the parameters stay at x."""
        self._move_to(x)
        return self._slope_of(self._loss_tensor(closure), curvature)

    def _slope_of(self, loss: Tensor, curvature: bool = False) -> Slope:
        """Return loss and gradient where the loss was evaluated last; for those who look at the loss first."""
        self.report.gradients += 1
        sign = -1.0 if self._maximizing else 1.0
        slopes = autograd.grad(loss, self._learned, create_graph=curvature, allow_unused=True)
        g = self._join([None if s is None else sign * s._data for s in slopes])
        return Slope(self._signed(loss.item()), g, list(slopes) if curvature else None)

    def _product(self, slope: Slope, v: Array) -> Array:
        """Return the Hessian at a point, where `_slope` was taken with curvature, times a vector."""
        self.report.products += 1
        sign = -1.0 if self._maximizing else 1.0
        pairs = [(s, d) for s, d in zip(slope.graph, self._split(v)) if s is not None and s._requires_grad]
        if not pairs:
            return xp.zeros_like(v)
        products = autograd.grad([s for s, _ in pairs], self._learned, [d for _, d in pairs], retain_graph=True,
                                 allow_unused=True)
        return self._join([None if h is None else sign * h._data for h in products])

    @property
    def _maximizing(self) -> bool:
        return bool(self.param_groups[0]["maximize"])

    def _signed(self, loss: float) -> float:
        return -loss if self._maximizing else loss

    def _refuse_bad_start(self, value: float, g: Array) -> None:
        """Raise before anything moves where the loss or its gradient is not finite to begin with."""
        if not (math.isfinite(value) and bool(xp.isfinite(g).all())):
            what = "loss" if not math.isfinite(value) else "gradient of the loss"
            raise ValueError(f"{type(self).__name__}: the {what} is not finite at the parameters as they are; nothing "
                             "was changed. Look for a logarithm or a quotient of zero, or start elsewhere")


@dataclass
class Slope:
    """The loss at a point, its gradient as one vector, and the graph of the gradient for products."""

    value: float
    gradient: Array
    graph: list[Any] | None = None

    @property
    def finite(self) -> bool:
        """Whether the loss and every entry of its gradient are."""
        return math.isfinite(self.value) and bool(xp.isfinite(self.gradient).all())

