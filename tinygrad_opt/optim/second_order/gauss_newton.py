"""GaussNewton: nonlinear least squares by the Jacobian of the residuals, damped as Levenberg and Marquardt do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from ... import autograd
from ...backend import xp
from ...tensor import Tensor, enable_grad
from ..ranges import NONNEGATIVE, Whole
from .base import Array, SecondOrder

LIVE = {"radius", "mu", "scaled"}           # what a step leaves to the next, in the groups
DENSE = 256                                 # up to so many parameters or residuals `auto` forms the Jacobian
SHRINK, GROW, ENOUGH = 0.25, 0.75, 1e-4     # shares of the promised decrease: a worse step, a good one, one to take


class GaussNewton(SecondOrder):
    """Levenberg-Marquardt in a trust region (Moré, Lecture Notes in Mathematics 630, 1978), for least squares.

    The closure returns the residuals, a Tensor of shape (m,), not the loss, which is half the sum of their squares. A
    step linearizes them at the parameters and solves (JᵀJ + μD²)δ = −Jᵀr, with the least μ for which Dδ stays within
    a radius; the radius follows how well the last step kept its promise. One call of `step` repeats this until the fit
    is found or `max_iter` is reached; the next call continues.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors; float32 or float64.
    damping : float, default 0
        The least μ, at least 0; with `adaptive=False` μ itself.
    adaptive : bool, default True
        Choose μ by the radius. Otherwise μ is `damping`, D is the identity, and every finite step is taken.
    max_iter : int, default 1000
        Steps that a call of `step` tries at most; 0 evaluates the residuals and moves nothing.
    solver : {"auto", "dense", "cg"}, default "auto"
        dense: form the Jacobian, by as many products as there are parameters or residuals, whichever is less, and
        solve by QR of J over √μ·D, never by JᵀJ. cg: conjugate gradients on products with J and Jᵀ, with D the
        identity, cut off at the radius; for many parameters. auto: dense up to 256 parameters or residuals.
    tolerance_grad : float, default 1e-12
        Stop when no column of J makes an angle with the residuals whose cosine is larger.
    tolerance_change : float, default 1e-8
        Stop when a step changes every parameter by less than this share of its size.

    Raises
    ------
    TypeError
        When the closure returns anything but a Tensor of shape (m,).
    ValueError
        When the residuals or their Jacobian are not finite at the start. Nothing is changed then.

    Notes
    -----
    Use: fitting the parameters of a model to data, up to some thousands of both; far fewer evaluations than any
    gradient method. In float64 it finds all 54 fits of NIST's nonlinear regressions to 8 digits without an option.
    An end is a minimum nearby, as for every such method: start where the model makes sense.

    Elsewhere: MINPACK and SciPy measure Dδ by the largest norms that the columns of J have had; others take D as the
    identity. Each fails where the other succeeds. Here the norms come first; where they end at a point in which a
    parameter has lost its influence, or cannot go on although the slope is not zero, the step starts once more
    from its beginning with the identity, and the better end is kept. A damped step that is refused is tried once more,
    bent by the second derivative that its residuals reveal (geodesic acceleration: Transtrum & Sethna, arXiv
    1201.5885), at the price of one evaluation. `report` tells all of this, and what rank J has.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([0.0, 1.0, 2.0, 3.0], dtype="float64")
    >>> y = 2 * tg.exp(-0.5 * x)
    >>> a, b = (tg.tensor(1.0, dtype="float64", requires_grad=True) for _ in range(2))
    >>> optimizer = tg.optim.GaussNewton([a, b])
    >>> loss = optimizer.step(lambda: a * tg.exp(-b * x) - y)
    >>> round(a.item(), 8), round(b.item(), 8), optimizer.report.reason
    (2.0, 0.5, 'the step is small beside every parameter')
    """

    ranges = {"damping": NONNEGATIVE, "max_iter": Whole("[0, inf)"), "tolerance_grad": NONNEGATIVE,
              "tolerance_change": NONNEGATIVE, "radius": NONNEGATIVE, "mu": NONNEGATIVE}

    def __init__(self, params: Any, damping: float = 0.0, adaptive: bool = True, max_iter: int = 1000,
                 solver: str = "auto", *, tolerance_grad: float = 1e-12, tolerance_change: float = 1e-8) -> None:
        super().__init__(params, dict(damping=damping, adaptive=adaptive, max_iter=max_iter, solver=solver,
                                      tolerance_grad=tolerance_grad, tolerance_change=tolerance_change,
                                      radius=0.0, mu=0.0, scaled=True))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group["solver"] not in ("auto", "dense", "cg"):
            raise ValueError(f"GaussNewton: solver must be 'auto', 'dense' or 'cg', got {group['solver']!r}")
        if group["maximize"]:
            raise ValueError("GaussNewton: a sum of squares has no largest value; leave maximize at False")

    # ---- the step -----------------------------------------------------------------------------------------

    def _minimize(self, closure: Callable[[], Any]) -> Tensor:
        options, report = self._shared(*LIVE), self.report
        stay = self._point()
        with numpy.errstate(all="ignore"):          # what overflows is refused
            try:
                start = end = self._evaluate(closure, stay)
                self._refuse_bad_start(start.loss, start.r)
                if options["max_iter"]:
                    self._linearize(start, options["solver"])
                    self._refuse_bad_start(start.loss, start.model.sizes)
                    end = self._search(closure, start, options)
                    stay = end.x
                else:
                    report.reason = "max_iter is 0: nothing was tried"
            finally:                                # also when the closure raises
                self._move_to(stay)
        report.accepted = bool((end.x != start.x).any())
        report.numbers = {"loss": end.loss, **report.numbers}
        return Tensor._wrap(xp.asarray(start.loss))

    def _search(self, closure: Callable[[], Any], start: Point, options: dict[str, Any]) -> Point:
        """Descend from the start, and once more where the end is in doubt; return the better end."""
        scaled = options["scaled"] and options["adaptive"] and start.model.dense
        walks = [Walk(self, closure, start, options, scaled)]
        walks[0].run(options["max_iter"])
        if scaled and walks[0].doubt:
            self.report.log.append(f"{walks[0].doubt}: once more from the start, with the identity as the scaling")
            walks.append(Walk(self, closure, start, {**options, "radius": 0.0, "mu": 0.0}, scaled=False))
            walks[1].run(options["max_iter"] - walks[0].tried)
        best = min(walks, key=lambda walk: walk.here.loss)
        self.report.reason = best.reason
        if len(walks) > 1:
            self.report.reason += f" (the better end of two, reached with {best.scaling}: {walks[0].doubt})"
        model = best.here.model
        self.report.numbers = {"damping": best.mu, "radius": best.radius, **model.numbers}
        if model.dense and model.rank < len(start.x):
            self.report.reason += (f"; the Jacobian has rank {model.rank} of {len(start.x)} there, so that the "
                                   "parameters are not determined by the residuals")
        for group in self.param_groups:
            group.update(radius=best.radius, mu=best.mu, scaled=options["scaled"] and best is walks[0])
        return best.here

    # ---- evaluations --------------------------------------------------------------------------------------

    def _evaluate(self, closure: Callable[[], Any], x: Array) -> Point:
        """Return the residuals at x, with their graph; the parameters stay at x, as their dtype holds it."""
        self._move_to(x)
        self.report.functions += 1
        with enable_grad(), autograd.keep_graph():
            y = closure()
        for p in self._learned:
            p._grad = None
        if not isinstance(y, Tensor) or y.ndim != 1 or not y._data.size:
            what = f"shape {y.shape}" if isinstance(y, Tensor) else type(y).__name__
            raise TypeError("GaussNewton: the closure must return the residuals, a Tensor of shape (m,), and not the "
                            f"loss, which is half the sum of their squares; it returned {what}. Flatten residuals of "
                            "other shapes by .reshape(-1)")
        if not y._requires_grad:
            raise RuntimeError("GaussNewton: the residuals that the closure returned do not depend on the parameters "
                               "by a graph; return them as they were computed, not detached")
        return Point(xp.asarray(self._point(), "f8"), y, xp.asarray(y._data, "f8"))

    def _linearize(self, point: Point, solver: str) -> None:
        """Give a point the linear model of its residuals."""
        self.report.gradients += 1
        n, m = len(point.x), len(point.r)
        jacobian = Jacobian(self, point.y)
        dense = solver == "dense" or solver == "auto" and min(m, n) <= DENSE
        point.model = Dense(jacobian.array(m, n), point.r, self._eps) if dense else Products(jacobian, point.r)
        point.y = None                              # the graph may go

    @property
    def _eps(self) -> float:
        return float(max(numpy.finfo(p.dtype).eps for p in self._learned))


@dataclass
class Point:
    """Parameters, the residuals there, and once they are linearized their model."""

    x: Array
    y: Tensor | None
    r: Array
    model: Any = None

    @property
    def loss(self) -> float:
        """Half the sum of the squares."""
        return 0.5 * float(self.r @ self.r)


class Jacobian:
    """Products with the Jacobian of residuals at a point, from the graph of the residuals.

    The product with the transpose is linear in its vector w, so that its own transpose is the product with J: the
    graph of the one, recorded once at w = 0, gives any number of the other.
    """

    def __init__(self, owner: GaussNewton, y: Tensor) -> None:
        self.owner, self.y, self.w = owner, y, None

    def transposed(self, u: Array) -> Array:
        """Return Jᵀu."""
        found = autograd.grad(self.y, self.owner._learned, u, retain_graph=True, allow_unused=True)
        return xp.asarray(self.owner._join([None if c is None else c._data for c in found]), "f8")

    def times(self, v: Array) -> Array:
        """Return Jv."""
        if self.w is None:
            self.w = Tensor._wrap(xp.zeros_like(self.y._data)).requires_grad_()
            self.pulled = autograd.grad(self.y, self.owner._learned, self.w, create_graph=True, allow_unused=True)
        pairs = [(c, d) for c, d in zip(self.pulled, self.owner._split(v)) if c is not None and c._requires_grad]
        if not pairs:
            return xp.zeros(self.y.shape)
        along, = autograd.grad([c for c, _ in pairs], self.w, [d for _, d in pairs], retain_graph=True)
        return xp.asarray(along._data, "f8")

    def array(self, m: int, n: int) -> Array:
        """Return the matrix, by columns or by rows, whichever are fewer."""
        if n <= m:
            return xp.stack([self.times(e) for e in xp.eye(n)], 1)
        return xp.stack([self.transposed(e) for e in xp.eye(m)])


class Dense:
    """The residuals as a linear function of the step, by the Jacobian itself: QR, and the SVD of its triangle."""

    dense = True

    def __init__(self, J: Array, r: Array, eps: float) -> None:
        self.g = J.T @ r
        self.sizes = xp.sqrt((J * J).sum(0))
        if not bool(xp.isfinite(self.sizes).all()):
            return
        self.unit = xp.where(self.sizes > 0, self.sizes, 1.0)
        self.cosine = _cosine(float(xp.abs(self.g / self.unit).max()), r)
        self.Q, self.R = xp.linalg.qr(J)
        self.q = self.Q.T @ r
        U, values, V = xp.linalg.svd(self.R / self.unit, full_matrices=False)
        self.rank = int((values > values[0] * max(J.shape) * eps).sum())
        self.values, self.V = values[:self.rank], V[:self.rank]
        self.newton = -(self.V.T @ ((U[:, :self.rank].T @ self.q) / self.values)) / self.unit
        self.numbers = {"cosine": self.cosine, "rank": self.rank, "parameters": J.shape[1]}

    def promise(self, step: Array) -> float:
        """Return by how much the loss would fall if the residuals were linear."""
        image = self.R @ step
        return -float(self.g @ step) - 0.5 * float(image @ image)

    def damped(self, mu: float, D: Array, q: Array | None = None) -> tuple[Array, Array]:
        """Return the step that is damped by μ, for residuals Qq, and the triangle of J over √μ·D."""
        q = self.q if q is None else q
        Q, T = xp.linalg.qr(xp.concatenate([self.R, math.sqrt(mu) * xp.diag(D)]))
        return -xp.linalg.solve(T, Q[:len(q)].T @ q), T

    def plain(self, mu: float) -> Array:
        """Return the step that is damped by μ, with the identity as the scaling."""
        return self.damped(mu, xp.ones_like(self.g))[0] if mu else self.newton

    def bend(self, step: Array, change: Array, mu: float, D: Array) -> Array:
        """Return what to add to a step for what the change of the residuals along it misses of the linear one."""
        return self.damped(mu, D, self.Q.T @ change - self.R @ step)[0]

    def bounded(self, radius: float, mu: float, least: float, D: Array) -> tuple[Array, float, bool]:
        """Return the step of the least μ for which D·step stays within the radius, μ, and whether that is `least`.

        Else μ is found, to a tenth of the radius, by Newton's method on 1/radius − 1/|D·step|, from the last one.
        """
        step = self.damped(least, D)[0] if least else self.newton
        length = _norm(D * step)
        if length <= 1.1 * radius:
            return step, least, True
        low, high = least, _norm(self.g / D) / radius
        if not least:
            low = (length / radius - 1) / _norm((self.V @ (D * D * step / length / self.unit)) / self.values) ** 2
        mu = min(max(mu, low), high) or 1e-3 * high
        for _ in range(10):
            step, T = self.damped(mu, D)
            length = _norm(D * step)
            if abs(length - radius) <= 0.1 * radius:
                break
            low, high = (mu, high) if length > radius else (low, mu)
            slope = _norm(xp.linalg.solve(T.T, D * D * step / length)) ** 2
            mu = max(low, mu + (length / radius - 1) / slope)
        return step, mu, False


class Products:
    """The residuals as a linear function of the step, by products with the Jacobian alone."""

    dense = False

    def __init__(self, jacobian: Jacobian, r: Array) -> None:
        self.jacobian, self.r, self.report = jacobian, r, jacobian.owner.report
        self.g = self.sizes = jacobian.transposed(r)
        length = _norm(self._times(self.g))
        self.cosine = _cosine(float(self.g @ self.g) / length if length else 0.0, r)
        self.numbers = {"cosine": self.cosine, "parameters": len(self.g)}

    def _times(self, v: Array) -> Array:
        self.report.products += 1
        return self.jacobian.times(v)

    def _transposed(self, u: Array) -> Array:
        self.report.products += 1
        return self.jacobian.transposed(u)

    def promise(self, step: Array) -> float:
        """Return by how much the loss would fall if the residuals were linear."""
        image = self._times(step)
        return -float(self.g @ step) - 0.5 * float(image @ image)

    def plain(self, mu: float) -> Array:
        """Return the step that is damped by μ, with the identity as the scaling."""
        return self._solve(math.inf, mu, self.jacobian.owner._eps ** 0.75)

    def bounded(self, radius: float, mu: float, least: float, D: Array) -> tuple[Array, float, bool]:
        """Return the step, cut off where it leaves the radius (Steihaug 1983), μ, and whether it stayed inside."""
        step = self._solve(radius, least, min(0.1, self.cosine))
        return step, least, _norm(step) < (1 - 1e-6) * radius

    def _solve(self, radius: float, mu: float, tolerance: float) -> Array:
        """Run conjugate gradients on J over √μ, keeping residuals, not products JᵀJ, so as not to lose digits."""
        step, left = xp.zeros_like(self.g), -self.r
        slope = way = -self.g
        size = first = float(slope @ slope)
        for _ in range(2 * len(step)):
            if size <= tolerance ** 2 * first:
                break
            image = self._times(way)
            bend = float(image @ image) + mu * float(way @ way)
            if not bend:
                break
            ahead = step + size / bend * way
            if _norm(ahead) >= radius:
                return step + _to_boundary(step, way, radius) * way
            step, left = ahead, left - size / bend * image
            slope = self._transposed(left) - mu * step
            size, before = float(slope @ slope), size
            way = slope + size / before * way
        return step


class Walk:
    """One descent from a start with one scaling; `reason` says why it ended, `doubt` why that may be no minimum."""

    def __init__(self, owner: GaussNewton, closure: Callable[[], Any], start: Point, options: dict[str, Any],
                 scaled: bool) -> None:
        self.owner, self.closure, self.here, self.options, self.scaled = owner, closure, start, options, scaled
        self.radius, self.mu, self.eps = options["radius"], options["mu"], owner._eps
        self.tried, self.reason, self.doubt = 0, "", ""
        self.hidden = self.eps ** (2 / 3)           # share of the loss below which rounding may hide a difference
        self.most = xp.zeros_like(start.x)          # the largest norm that each column has had
        self._arrive(start)
        self.radius = self.radius or 100 * (_norm(self.D * start.x) or 1.0)

    @property
    def scaling(self) -> str:
        """D in words."""
        return "the norms of the columns" if self.scaled else "the identity"

    def run(self, max_iter: int) -> None:
        """Step until there is a reason to end."""
        while not self.reason:
            if self.tried == max_iter:
                self.reason = f"max_iter, {self.options['max_iter']}, is reached"
                return
            self.tried += 1
            self._step()
        lost = self.here.model.sizes < math.sqrt(self.eps) * self.most
        if self.scaled and bool(lost.any()):
            self.doubt = "a parameter has lost its influence on the residuals"

    def _arrive(self, point: Point) -> None:
        """Make a point with its model the one to go on from, and see whether it is the end."""
        self.here = point
        self.most = xp.maximum(self.most, xp.abs(point.model.sizes))
        self.D = xp.where(self.most > 0, self.most, 1.0) if self.scaled else xp.ones_like(self.most)
        if not point.loss:
            self.reason = "the residuals are zero"
        elif point.model.cosine <= max(self.options["tolerance_grad"], 8 * self.eps):
            self.reason = "the residuals are at right angles to every column of the Jacobian"

    def _step(self) -> None:
        """Try one step: take it, or shrink the radius."""
        here, least = self.here, self.options["damping"]
        if self.options["adaptive"]:
            step, self.mu, free = here.model.bounded(self.radius, self.mu, least, self.D)
        else:
            step, self.mu, free = here.model.plain(least), least, True
        promised = here.model.promise(step)
        there = straight = self._there(here.x + step)
        fall = _fall(here, there)
        if not free and not fall > ENOUGH * promised and here.model.dense:
            there, fall = self._bent(step, there, fall)
        hidden = max(abs(fall), abs(promised)) <= self.hidden * here.loss
        taken = self._taken(there, fall, promised, hidden)
        self.owner.report.log.append(
            f"{self.tried}: loss {here.loss:.6g}, damping {self.mu:.2g}, radius {self.radius:.2g}, promised "
            f"{promised:.3g}, got {fall:.3g}: {'bent and ' * (there is not straight)}{'taken' if taken else 'refused'}")
        if self.options["adaptive"]:
            self._resize(step, fall, promised, free)
        small = bool((xp.abs(step) <= max(self.options["tolerance_change"], 4 * self.eps) * xp.abs(there.x)).all())
        if taken:
            self._arrive(there)
        if self.reason:
            return
        if small and free:
            self.reason = "the step is small beside every parameter"
        elif hidden and not taken:
            self.reason = "what a step can gain is lost in rounding"
        elif not self.options["adaptive"] and not taken:
            self.reason = "the residuals, or their Jacobian, are not finite where the step leads; it was refused"
        elif bool((there.x == here.x).all()):
            self.reason = self.doubt = "no step lowers the residuals, although the slope is not zero"
        elif not taken and not here.model.dense:    # its graph does not outlive the evaluation elsewhere
            self.here = self._there(here.x)
            self.owner._linearize(self.here, self.options["solver"])

    def _there(self, x: Array) -> Point:
        there = self.owner._evaluate(self.closure, x)
        if len(there.r) != len(self.here.r):
            raise ValueError(f"GaussNewton: the closure returned {len(self.here.r)} residuals and then {len(there.r)}; "
                             "within a step it must be the same data each time")
        return there

    def _bent(self, step: Array, there: Point, fall: float) -> tuple[Point, float]:
        """Return where a refused step leads when it is bent as its residuals tell, unless that bends it too far.

        They miss the linear model by half of the second derivative along the step: geodesic acceleration (Transtrum
        & Sethna, arXiv 1201.5885, 2012), which follows the floor of a curved valley.
        """
        if fall == -math.inf:
            return there, fall
        bend = self.here.model.bend(step, there.r - self.here.r, self.mu, self.D)
        if _norm(self.D * bend) > 0.5 * _norm(self.D * step):
            return there, fall
        there = self._there(self.here.x + step + bend)
        return there, _fall(self.here, there)

    def _taken(self, there: Point, fall: float, promised: float, hidden: bool) -> bool:
        """Return whether a point is one to go on from; if so, it has its model."""
        good = fall > ENOUGH * promised > 0 or fall > -math.inf and not self.options["adaptive"]
        if not good and not hidden:
            return False
        self.owner._linearize(there, self.options["solver"])
        finite = bool(xp.isfinite(there.model.sizes).all())
        return finite and (good or there.model.cosine < self.here.model.cosine)

    def _resize(self, step: Array, fall: float, promised: float, free: bool) -> None:
        """Change the radius, and the damping to begin with, by how a step kept its promise (Moré 1978)."""
        length, ratio = _norm(self.D * step), fall / promised if promised > 0 else -math.inf
        if ratio <= SHRINK:
            slope = float(self.here.model.g @ step)
            share = 0.5 if fall >= 0 else 0.5 * slope / (slope + fall)  # to the minimum of a parabola
            share = min(max(share, 0.1), 0.5)
            self.radius, self.mu = share * min(self.radius, 10 * length), self.mu / share
        elif free or ratio >= GROW:
            self.radius, self.mu = 2 * length, max(self.mu / 2, self.options["damping"])


def _fall(here: Point, there: Point) -> float:
    """Return by how much the loss falls from here to there, -inf where it is not finite; no digits cancel."""
    fall = 0.5 * float((here.r - there.r) @ (here.r + there.r))
    return fall if math.isfinite(fall) else -math.inf


def _norm(v: Array) -> float:
    return math.sqrt(float(v @ v))


def _cosine(shadow: float, r: Array) -> float:
    """Return the cosine of the angle between residuals and a direction on which they have a shadow so long."""
    length = _norm(r)
    return shadow / length if length else 0.0


def _to_boundary(step: Array, way: Array, radius: float) -> float:
    """Return how far along `way` a step leaves the radius."""
    a, b, c = float(way @ way), float(step @ way), float(step @ step) - radius ** 2
    return -c / (b + math.sqrt(b * b - a * c)) if b > 0 else (math.sqrt(b * b - a * c) - b) / a
