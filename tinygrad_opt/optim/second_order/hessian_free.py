"""Hessian-free optimization: conjugate gradients on the Gauss-Newton matrix, and the precautions around them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...tensor import Tensor
from ..ranges import POSITIVE, UNIT, Whole
from .base import Array
from .conjugate_gradient import conjugate_gradient
from .outputs import Linearized, OfOutputs

LEAST, MOST = 1e-10, 1e10           # between which the damping stays
SUFFICIENT = 1e-2                   # of the fall that the slope promises, from which a step is taken
HALVINGS = 30                       # of a step, until there is none


class HessianFree(OfOutputs):
    """Hessian-free optimization (Martens, ICML 2010), a composition of four parts.

    Conjugate gradients on damped Gauss-Newton products, started from where they ended last time; a walk back over
    their iterates to the one of the lowest loss; a line search that halves the step; and Levenberg and Marquardt's rule
    for the damping, by the ratio of true to foretold progress.

    Parameters
    ----------
    model : Module or iterable
        The model, which the closure calls once; or parameters, and the closure returns (loss, outputs).
    lr : float, default 1.0
        The first step that the line search tries, at least 0.
    damping : float, default 1.0
        lambda, above 0: what is added to the Gauss-Newton matrix. It adapts, and stands in the group.
    max_iter : int, default 250
        The most products a step, at least 1.
    tolerance : float, default 5e-4
        Conjugate gradients stop where the quadratic model falls by less than this of itself an iteration; above 0.
    decay : float, default 0.95
        How much of the last solution the next starts from, in [0, 1).

    Notes
    -----
    Use: deep networks and whole batches, a few dozen steps of a hundred products each. Leave lr at 1, and begin with
    damping 1; less where it does not move. The loss is any that curves upwards with the outputs. The closure returns
    the loss of the same batch each time that one step calls it.

    Elsewhere: no preconditioner; the damping is lambda times the identity.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> _ = tg.manual_seed(0)
    >>> images, labels = tg.data.digits()[0].tensors
    >>> model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.Tanh(), tg.nn.Linear(32, 10))
    >>> optimizer = tg.optim.HessianFree(model, damping=0.03)
    >>> for _ in range(8):
    ...     loss = optimizer.step(lambda: tg.cross_entropy(model(images), labels))
    >>> loss.item() < 0.2
    True
    """

    state_names = {"d": "solution"}
    ranges = {"damping": POSITIVE, "max_iter": Whole("[1, inf)"), "tolerance": POSITIVE, "decay": UNIT}

    def __init__(self, model: Any, lr: float = 1.0, damping: float = 1.0, max_iter: int = 250,
                 tolerance: float = 5e-4, decay: float = 0.95) -> None:
        super().__init__(model, dict(lr=lr, damping=damping, max_iter=max_iter, tolerance=tolerance, decay=decay),
                         "squared")

    def rule(p, g, d, rate):
        p = p - rate * g
        return p, d

    def _minimize(self, closure: Callable[[], Any]) -> Tensor:
        group = self.param_groups[0]
        point = self._point_of(closure)
        value, g = point.loss.item(), self._join(self._gradient(point.loss))
        self._refuse_bad_start(value, g)
        for p in self._learned:
            self._begin(self._rule(0), group, p)
        last = [self.state[p]["solution"] for p in self._learned]
        linear = Linearized(point.outputs, self._learned)

        def product(v: Array) -> Array:
            self.report.products += 1
            bent = point.hessian(linear.push(self._split(v)))
            return self._join(linear.pull(bent)) + group["damping"] * v

        found = conjugate_gradient(product, g, group["max_iter"], 1e-10,
                                   group["decay"] * self._join([s._data for s in last]), group["tolerance"], keep=1.3)
        for s, part in zip(last, self._split(found.x)):
            s._data[...] = part
        x = self._point()
        x, lr = self._point(), group["lr"]
        (d, height), new = self._walk_back(closure, x, found.iterates, lr)
        slope = float(g @ d)
        foretold = lr * slope - lr ** 2 * (height + slope)
        ratio = (value - new) / foretold if foretold > 0 else -math.inf
        factor = 2 / 3 if ratio > 0.75 else 1 if ratio >= 0.25 else 1.5
        group["damping"] = min(max(group["damping"] * factor, LEAST), MOST)
        rate = self._line_search(closure, x, d, slope, value, new, lr)
        self._move_to(x)
        self.report.accepted = rate > 0
        self.report.reason = found.reason if rate else f"{found.reason}; no step along it lowers the loss"
        self.report.numbers = {"loss": value, "damping": group["damping"], "ratio": ratio, "rate": rate}
        if rate:
            self._move_along(self._split(d), rate=rate)
        return point.loss

    def _walk_back(self, closure: Callable[[], Any], x: Array, iterates: list[tuple[Array, float]],
                   lr: float) -> tuple[tuple[Array, float], float]:
        """Go back from the last iterate while the loss there falls; return where that ends, and the loss."""
        best, lowest = iterates[-1], self._finite(closure, x - lr * iterates[-1][0])
        for iterate in reversed(iterates[:-1]):
            new = self._finite(closure, x - lr * iterate[0])
            if new >= lowest and lowest < math.inf:
                break
            best, lowest = iterate, new
        return best, lowest

    def _line_search(self, closure: Callable[[], Any], x: Array, d: Array, slope: float, value: float, new: float,
                     rate: float) -> float:
        """Halve the step until the loss falls by a part of what the slope promises; 0 where it never does."""
        for _ in range(HALVINGS):
            if slope > 0 and value - new >= SUFFICIENT * rate * slope:
                return rate
            rate /= 2
            new = self._finite(closure, x - rate * d)
        return 0.0

    def _finite(self, closure: Callable[[], Any], x: Array) -> float:
        """Return the loss at x, and infinity where it is no number."""
        value = self._value(closure, x)
        return value if math.isfinite(value) else math.inf
