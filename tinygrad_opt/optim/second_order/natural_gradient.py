"""The natural gradient: the gradient divided by the Fisher information, by products alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...backend import xp
from ...random import Generator
from ..ranges import NONNEGATIVE, POSITIVE, Whole
from .base import Array
from .conjugate_gradient import conjugate_gradient
from .outputs import FISHERS, Linearized, OfOutputs, Point, one_of


class NaturalGradient(OfOutputs):
    """Natural gradient (Amari, Neural Computation 10, 1998), by conjugate gradients on products with the Fisher matrix.

    A step solves (F + damping) d = g and moves by -lr d. For normal errors and a linear model it is a Gauss-Newton
    step, and for cross-entropy the exact Fisher information is the Gauss-Newton matrix.

    Parameters
    ----------
    model : Module or iterable
        The model, which the closure calls once. Or parameters, as every optimizer takes them: then the closure returns
        the outputs of the model, of shape (batch, outputs), beside the loss: `return loss, outputs`.
    lr : float, default 0.1
        The share of the way, at least 0.
    damping : float, default 1e-3
        What is added to the Fisher information, at least 0; with 0 a singular one is inverted where the gradient lies.
    fisher : {"exact", "mc", "empirical"}, default "exact"
        The Hessian of the loss for the outputs, between their Jacobians; or from the squares of gradients for one label
        an example, drawn from the model, or as it is: the last is no Fisher information, and shows what that costs.
    shape : {"full", "diag"}, default "full"
        The whole matrix, or its diagonal alone.
    max_iter : int, default 250
        The most products a step, at least 1; as many as parameters are enough but for rounding.
    tolerance : float, default 1e-10
        When conjugate gradients stop: the residual, relative to the gradient; above 0.
    likelihood : {"softmax", "squared", "bernoulli"}, default "softmax"
        What "mc" draws labels by, and "diag" weighs them by; see KFAC.
    generator : Generator, optional
        Where labels are drawn from.

    Notes
    -----
    Use: small models, to learn what curvature does. Begin with lr 0.1 and damping 1e-3; lr 1 is for models that are
    nearly linear, or with more damping. A step costs three gradients for each product. For networks take KFAC.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x, y = tg.tensor([[1.0], [2.0], [3.0]]), tg.tensor([[3.0], [5.0], [7.0]])
    >>> model = tg.nn.Linear(1, 1)
    >>> optimizer = tg.optim.NaturalGradient(model, lr=1, damping=1e-9, likelihood="squared")
    >>> loss = optimizer.step(lambda: tg.mse_loss(model(x), y))
    >>> round(model.weight.item(), 4), round(model.bias.item(), 4)
    (2.0, 1.0)
    """

    ranges = {"damping": NONNEGATIVE, "max_iter": Whole("[1, inf)"), "tolerance": POSITIVE}

    def __init__(self, model: Any, lr: float = 0.1, damping: float = 1e-3, fisher: str = "exact", shape: str = "full",
                 max_iter: int = 250, tolerance: float = 1e-10, *, likelihood: str = "softmax",
                 generator: Generator | None = None) -> None:
        self.fisher = one_of("NaturalGradient", "fisher", fisher, FISHERS)
        self.shape = one_of("NaturalGradient", "shape", shape, ("full", "diag"))
        super().__init__(model, dict(lr=lr, damping=damping, max_iter=max_iter, tolerance=tolerance), likelihood,
                         generator)

    def rule(p, g, lr):
        p = p - lr * g
        return p

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        point = self._point_of(closure)
        value, gradient = point.loss.item(), self._gradient(point.loss)
        g = self._join(gradient)
        self._refuse_bad_start(value, g)
        solve = self._by_diagonal if self.shape == "diag" else self._by_products
        d, self.report.reason = solve(point, g, group)
        self.report.numbers = {"loss": value, "damping": group["damping"]}
        self.report.accepted = bool(xp.isfinite(d).all()) and bool(d.any())
        if self.report.accepted:
            self._move_along(self._split(d))
        return point.loss

    def _by_products(self, point: Point, g: Array, group: dict[str, Any]) -> tuple[Array, str]:
        linear = Linearized(point.outputs, self._learned)
        between = self._between(point)

        def product(v: Array) -> Array:
            self.report.products += 1
            return self._join(linear.pull(between(linear.push(self._split(v))))) + group["damping"] * v

        found = conjugate_gradient(product, g, group["max_iter"], group["tolerance"])
        return found.x, found.reason

    def _between(self, point: Point) -> Callable[[Array], Array]:
        """Return the product with what stands between the Jacobians: the Hessian for the outputs, or u u' a row."""
        if self.fisher == "exact":
            return point.hessian
        u, = point.cotangents(self.fisher, self.likelihood, self._draws)
        return lambda v: u * (u * v).sum(-1, keepdims=True)

    def _by_diagonal(self, point: Point, g: Array, group: dict[str, Any]) -> tuple[Array, str]:
        """Divide by the diagonal, summed over the examples one after the other."""
        linear, diagonal = Linearized(point.outputs, self._learned), xp.zeros_like(g)
        for u in point.cotangents(self.fisher, self.likelihood, self._draws):
            for row in range(u.size // u.shape[-1]):
                self.report.gradients += 1
                alone = xp.zeros_like(u)
                alone.reshape(-1, u.shape[-1])[row] = u.reshape(-1, u.shape[-1])[row]
                diagonal += self._join(linear.pull(alone)) ** 2
        divisor = diagonal + group["damping"]
        return xp.where(divisor > 0, g / xp.where(divisor > 0, divisor, 1), 0), "divided by the diagonal"
