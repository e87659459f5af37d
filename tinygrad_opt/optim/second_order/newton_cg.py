"""Newton-CG: Newton's direction by conjugate gradients on Hessian products, and a line search along it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...backend import xp
from ..ranges import NONNEGATIVE, UNIT, Range, Whole
from .base import SecondOrder, Slope
from .line_search import Trial, strong_wolfe

Array = Any


class NewtonCG(SecondOrder):
    """Newton's method by conjugate gradients (Nocedal & Wright, Numerical Optimization, 2006, algorithm 7.1).

    The Hessian is never formed: the equation for the direction is solved by products with it, the more exactly the
    smaller the gradient. Where the curvature is negative the direction found so far is taken, at first the gradient.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        The first step along the direction that the line search tries, at least 0; Newton's own is 1.
    max_iter : int, default 20
        Iterations a step.
    xtol : float, default 1e-5
        Stop where the parameters change by less than this on average.
    c1, c2 : float, default 1e-4 and 0.9
        How much lower, and how much flatter, the line search wants it: 0 < c1 < c2 < 1.
    forcing : float, default 0.5
        The equation for the direction is solved until the residual is below this share of the gradient, in [0, 1), or
        below the root of its 1-norm, whichever is less; 0 solves it to rounding, which is Newton's method proper.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: smooth losses of all the data, up to many parameters, when products with the Hessian are affordable: near the
    minimum it doubles the correct digits in each iteration. Leave lr at 1.

    Elsewhere: SciPy's Newton-CG runs until it stops. A step here ends after max_iter iterations and the next goes on;
    its line search begins at lr, SciPy's at a guess from the last decrease.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([-1.2, 1.0], requires_grad=True, dtype=tg.float64)
    >>> optimizer = tg.optim.NewtonCG([w], max_iter=100, xtol=1e-8)
    >>> loss = optimizer.step(lambda: 100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2)
    >>> w.numpy().round(6).tolist()
    [1.0, 1.0]
    >>> optimizer.report.reason
    'the step is within xtol'
    """

    ranges = {"max_iter": Whole("[0, inf)"), "xtol": NONNEGATIVE, "c1": Range("(0, 1)"), "c2": Range("(0, 1)"),
              "forcing": UNIT}

    def __init__(self, params: Any, lr: float = 1.0, max_iter: int = 20, xtol: float = 1e-5, c1: float = 1e-4,
                 c2: float = 0.9, forcing: float = 0.5, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, max_iter=max_iter, xtol=xtol, c1=c1, c2=c2, forcing=forcing,
                                      maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if not group["c1"] < group["c2"]:
            raise ValueError(f"NewtonCG: c1 must be below c2, got c1 = {group['c1']} and c2 = {group['c2']}")

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        options, report = self._shared(), self.report
        x = begin = self._point()
        start = here = self._slope(closure, x, curvature=True)
        self._refuse_bad_start(start.value, start.gradient)
        report.reason = "max_iter iterations are made" if options["max_iter"] else "max_iter is 0"
        for _ in range(options["max_iter"]):
            if not options["lr"] or not here.gradient.any():
                report.reason = "the gradient is zero" if options["lr"] else "lr is 0"
                break
            d = self._direction(here)
            found = self._search(closure, x, here, d)
            if found.t == 0:
                report.reason = "no point along the direction lowers the loss"
                break
            step = found.t * d
            x, here = x + step, found.at
            report.numbers.update(t=found.t, gradient=float(abs(here.gradient).max()))
            report.log.append(f"loss {self._signed(here.value):.6g}, t {found.t:.3g}, "
                              f"curvature {report.numbers['curvature']:.3g}, products {report.products}")
            if float(abs(step).sum()) <= step.size * options["xtol"]:
                report.reason = "the step is within xtol"
                break
        report.accepted = x is not begin
        self._move_to(x)
        return self._told(start)

    def _direction(self, here: Slope) -> Array:
        """Solve for Newton's direction by conjugate gradients, as far as it pays and the curvature is positive."""
        g = here.gradient
        d, r, q = xp.zeros_like(g), g, -g
        size, eps = float(abs(g).sum()), float(xp.finfo(g.dtype).eps)
        enough = max(min(self.param_groups[0]["forcing"], math.sqrt(size)), eps) * size
        for k in range(20 * g.size):
            Hq = self._product(here, q)
            curvature, square = float(q @ Hq), float(r @ r)
            self.report.numbers["curvature"] = curvature / float(q @ q)
            if not curvature > 3 * eps * math.sqrt(float(q @ q) * float(Hq @ Hq)):
                if k:
                    return d
                return q * (square / -curvature) if curvature < 0 else q
            d = d + (square / curvature) * q
            r = r + (square / curvature) * Hq
            if float(abs(r).sum()) <= enough:
                return d
            q = (float(r @ r) / square) * q - r
        return d

    def _search(self, closure: Callable[[], Any], x: Array, here: Slope, d: Array) -> Trial:
        """Search along the direction; the graph of what is found is that of where the parameters are then."""
        def evaluate(t: float) -> Trial:
            there = self._slope(closure, x + t * d, curvature=True)
            trials.append(Trial(t, there.value, float(there.gradient @ d), there))
            return trials[-1]

        options, trials = self.param_groups[0], []
        start = Trial(0.0, here.value, float(here.gradient @ d), here)
        found = strong_wolfe(evaluate, start, options["lr"], options["c1"], options["c2"])
        return found if found is start or found is trials[-1] else evaluate(found.t)
