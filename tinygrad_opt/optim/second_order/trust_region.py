"""Trust region: the quadratic model is minimized as far as it is trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from ...backend import xp
from ..ranges import NONNEGATIVE, POSITIVE, Range, Whole, check
from .base import SecondOrder, Slope

Array = Any


class TrustRegion(SecondOrder):
    """Trust region (Steihaug, SIAM J. Numer. Anal. 20, 1983; dogleg: Powell, Numerical Methods, 1970).

    A step minimizes the quadratic model of the loss within a radius. The radius grows where the model foretold the
    decrease well and shrinks where it did not; a step that does not lower the loss by enough is refused.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    initial_trust_radius : float, default 1.0
        The first radius, above 0. The radius of today is the option `trust_radius` of the groups.
    max_trust_radius : float, default 1000.0
        The largest, above the first.
    eta : float, default 0.15
        The share of the decrease foretold above which a step is accepted, in [0, 0.25).
    gtol : float, default 1e-4
        Stop where the norm of the gradient is smaller.
    subproblem : {"steihaug", "dogleg"}
        How the model is minimized: by conjugate gradients on Hessian products up to the radius; or with the whole
        Hessian, for few parameters, along the path from the steepest descent to Newton's point. Where the Hessian is
        not positive definite, which dogleg needs, that step is Steihaug's.
    max_iter : int, default 20
        Iterations a step, refused ones included.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: smooth losses of all the data with saddles and narrow valleys, where a line search along a bad direction
    wastes evaluations; "dogleg" up to some hundred parameters. The first radius is in units of the parameters.

    Elsewhere: SciPy's trust-ncg and dogleg make the same steps. They compute the products anew after a refused step,
    and dogleg stops at the first Hessian that is not positive definite.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([-1.2, 1.0], requires_grad=True, dtype=tg.float64)
    >>> optimizer = tg.optim.TrustRegion([w], gtol=1e-8, max_iter=100)
    >>> loss = optimizer.step(lambda: 100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2)
    >>> w.numpy().round(6).tolist()
    [1.0, 1.0]
    >>> optimizer.report.reason
    'the gradient is within gtol'
    """

    ranges = {"max_iter": Whole("[0, inf)"), "initial_trust_radius": POSITIVE, "max_trust_radius": POSITIVE,
              "eta": Range("[0, 0.25)"), "gtol": NONNEGATIVE}

    def __init__(self, params: Any, initial_trust_radius: float = 1.0, max_trust_radius: float = 1000.0,
                 eta: float = 0.15, gtol: float = 1e-4, subproblem: str = "steihaug", max_iter: int = 20, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(
            initial_trust_radius=initial_trust_radius, max_trust_radius=max_trust_radius, eta=eta, gtol=gtol,
            subproblem=subproblem, max_iter=max_iter, trust_radius=initial_trust_radius, maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        check("TrustRegion", "trust_radius", group["trust_radius"], POSITIVE)
        if group["subproblem"] not in SUBPROBLEMS:
            raise ValueError(f"TrustRegion: subproblem must be 'steihaug' or 'dogleg', got {group['subproblem']!r}")
        if group["max_trust_radius"] < group["initial_trust_radius"]:
            raise ValueError(f"TrustRegion: initial_trust_radius, {group['initial_trust_radius']}, must not exceed "
                             f"max_trust_radius, {group['max_trust_radius']}")

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        x, options, report = self._point(), self._shared(), self.report
        start = here = self._slope(closure, x, curvature=True)
        self._refuse_bad_start(start.value, start.gradient)
        model, radius, report.accepted = self._model(here), options["trust_radius"], False
        report.reason = "max_iter iterations are made" if options["max_iter"] else "max_iter is 0"
        for _ in range(options["max_iter"]):
            if model.size < options["gtol"] or not model.size:
                report.reason = "the gradient is within gtol"
                break
            step, foretold, at_radius = model.minimize(radius)
            if foretold <= model.rounding * abs(here.value) or not (x + step != x).any():
                report.reason = "the decrease foretold is within rounding"
                break
            self._move_to(x + step)
            loss = self._loss_tensor(closure)
            value = self._signed(loss.item())
            ratio = (here.value - value) / foretold if math.isfinite(value) else -math.inf
            there = self._slope_of(loss, curvature=True) if ratio > options["eta"] else here
            accepted = there is not here and there.finite
            if ratio < 0.25 or there is not here and not accepted:
                radius = 0.25 * radius
            elif ratio > 0.75 and at_radius:
                radius = min(2 * radius, options["max_trust_radius"])
            if accepted:
                x, here, report.accepted = x + step, there, True
                model = self._model(here)
            self._note(value, ratio, radius, accepted, model)
        for group in self.param_groups:
            group["trust_radius"] = radius
        self._move_to(x)
        return self._told(start)

    def _model(self, here: Slope) -> Steihaug:
        """Return the quadratic model at a point; it takes its products before the parameters leave it."""
        return SUBPROBLEMS[self.param_groups[0]["subproblem"]](here.gradient, lambda v: self._product(here, v))

    def _note(self, value: float, ratio: float, radius: float, accepted: bool, model: Steihaug) -> None:
        """Write an iteration into the report."""
        self.report.numbers.update(radius=radius, ratio=ratio, gradient=model.size)
        self.report.log.append(f"loss {self._signed(value):.6g}, {'accepted' if accepted else 'refused'} with "
                               f"{ratio:.3g} of the decrease foretold, radius {radius:.3g}")


class Steihaug:
    """A quadratic model g·p + p·Hp / 2, and its minimum within a radius by conjugate gradients.

    The path of the conjugate gradients does not depend on the radius, which only ends it: what is known of it is
    kept for the next, smaller radius.

    Parameters
    ----------
    g : array
        The gradient.
    product : callable
        The Hessian times a vector.
    """

    def __init__(self, g: Array, product: Callable[[Array], Array]) -> None:
        self.g, self.product, self.size = g, product, _norm(g)
        self.rounding = float(xp.finfo(g.dtype).eps)
        self.known: list[tuple[Array, float, float]] = []
        self.rest = self._conjugate()

    def minimize(self, radius: float) -> tuple[Array, float, bool]:
        """Return a step, the decrease that the model foretells, and whether the step ends at the radius."""
        z, decrease = xp.zeros_like(self.g), 0.0
        for d, square, curvature in self._path():
            def gain(t: float, square: float = square, curvature: float = curvature) -> float:
                return t * square - 0.5 * t ** 2 * curvature
            if not curvature > 0:
                t = max(_crossings(z, d, radius), key=gain)
                return z + t * d, decrease + gain(t), True
            t = square / curvature
            if _norm(z + t * d) >= radius:
                t = _crossings(z, d, radius)[1]
                return z + t * d, decrease + gain(t), True
            z, decrease = z + t * d, decrease + gain(t)
        return z, decrease, False

    def _path(self) -> Iterator[tuple[Array, float, float]]:
        yield from self.known
        for segment in self.rest:
            self.known.append(segment)
            yield segment

    def _conjugate(self) -> Iterator[tuple[Array, float, float]]:
        """Yield each direction, the slope of the model along it (as the square of the residual), and the curvature."""
        r, d = self.g, -self.g
        enough = min(0.5, math.sqrt(self.size)) * self.size
        for _ in range(20 * self.g.size):
            Hd = self.product(d)
            square, curvature = float(r @ r), float(d @ Hd)
            yield d, square, curvature if math.isfinite(curvature) else 0.0
            r = r + (square / curvature) * Hd
            if _norm(r) < enough:
                return
            d = (float(r @ r) / square) * d - r


class Dogleg(Steihaug):
    """The same model with the whole Hessian, minimized along the path from the steepest descent to Newton's point."""

    def minimize(self, radius: float) -> tuple[Array, float, bool]:
        """Return a step, the decrease that the model foretells, and whether the step ends at the radius."""
        newton = self._newton
        if newton is None:
            return super().minimize(radius)
        if _norm(newton) < radius:
            return newton, self._decrease(newton), False
        steepest = -(self.size ** 2 / float(self.g @ self.product(self.g))) * self.g
        if _norm(steepest) >= radius:
            step = -(radius / self.size) * self.g
        else:
            leg = newton - steepest
            step = steepest + _crossings(steepest, leg, radius)[1] * leg
        return step, self._decrease(step), True

    def _decrease(self, p: Array) -> float:
        return -float(self.g @ p) - 0.5 * float(p @ self.product(p))

    @cached_property
    def _newton(self) -> Array | None:
        """Newton's point; None where the Hessian is not positive definite. From here on its products are known."""
        H = xp.stack([self.product(e) for e in xp.eye(self.g.size, dtype=self.g.dtype)])
        H = 0.5 * (H + H.T)
        self.product = H.__matmul__
        if not bool(xp.isfinite(H).all()):
            return None
        w, V = xp.linalg.eigh(H)
        if not float(w[0]) > float(xp.finfo(w.dtype).eps) * float(w[-1]):
            return None
        return -V @ ((V.T @ self.g) / w)


SUBPROBLEMS = {"steihaug": Steihaug, "dogleg": Dogleg}


def _norm(v: Array) -> float:
    return math.sqrt(float(v @ v))


def _crossings(z: Array, d: Array, radius: float) -> tuple[float, float]:
    """Return the two t at which z + t d has the length of the radius, z lying inside, without cancellation."""
    a, b, c = float(d @ d), 2 * float(z @ d), float(z @ z) - radius ** 2
    larger = -0.5 * (b + math.copysign(math.sqrt(max(b * b - 4 * a * c, 0.0)), b))
    low, high = sorted((larger / a, c / larger))
    return low, high
