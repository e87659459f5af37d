"""K-FAC: the Fisher information of each linear layer as the Kronecker product of two small factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...backend import xp
from ...nn import Linear, Module
from ...random import Generator
from ...rule import Rule
from ...tensor import Tensor
from ..ranges import POSITIVE, UNIT, Range, Whole
from .base import Array
from .outputs import FISHERS, LIKELIHOODS, Linearized, OfOutputs, Point, one_of

LEAST, MOST = 1e-10, 1e10           # between which the damping stays


class KFAC(OfOutputs):
    """Kronecker-factored approximate curvature (Martens & Grosse, ICML 2015, arXiv 1503.05671).

    The Fisher information of a linear layer is taken as the product of A, the mean of a a' over its inputs a (with a 1
    for the bias), and G, the mean of g g' over the gradients g for its outputs; the gradient V of the weights then
    becomes (G + ...)^-1 V (A + ...)^-1. What to do with that direction and with the last step is decided by the exact
    quadratic model of the loss, at the cost of two products.

    Parameters
    ----------
    model : Module
        Every parameter that is learned belongs to a Linear layer, which one evaluation calls once, with inputs of
        shape (batch, features).
    lr : float, default 1.0
        What the direction is multiplied by, at least 0; with `rescale`, beside the best multiple.
    momentum : float, default 0.9
        How much of the last step is kept, in [0, 1); with `rescale` the best multiple is, unless this is 0.
    damping : float, default 0.1
        lambda, above 0: what is added to the Fisher information. It adapts, and stands in the group.
    curvature_ema : float, default 0.95
        How much is kept of the factors, in [0, 1); at step t at most 1 - 1 / t.
    inverse_every : int, default 5
        The factors are inverted at every so many steps, and at each of as many first steps.
    adapt_damping_every : int, default 5
        At every so many steps, and at each of as many first steps, the loss is evaluated again. A step that has
        raised it is taken back, with four times the lambda. 0 is never.
    damping_decay : float, default 0.85
        Where the quadratic model foretold the new loss well, lambda is multiplied by this to the power of
        adapt_damping_every, where badly, divided; in (0, 1). The paper has 19/20, for long runs on changing batches.
    rescale : bool, default True
        Choose the multiples of the direction and of the last step by the quadratic model (section 6.4 of the paper).
    fisher : {"mc", "exact", "empirical"}, default "mc"
        Where g comes from: labels drawn from the model; all labels, each as often as the model expects it, at the
        cost of a gradient a class; or the labels that are there, which is no Fisher information, but often does.
    likelihood : {"softmax", "squared", "bernoulli"}, default "softmax"
        What the loss is minus the logarithm of: cross-entropy of logits, squared errors, or binary cross-entropy of
        logits; times any factor.
    generator : Generator, optional
        Where labels are drawn from.

    Attributes
    ----------
    report : Report
        Of the last step: the loss, both multiples, lambda, and the ratio of true to foretold progress.

    Raises
    ------
    ValueError
        When a parameter belongs to no Linear layer, or the loss is not of the likelihood.

    Notes
    -----
    Use: networks of Linear layers of up to a few thousand features, with large batches: autoencoders and other deep
    narrow ones gain most. Leave lr at 1 and begin with damping 0.1, with less where the loss curves little.
    The closure returns the loss of the same batch each time that one step calls it.

    Elsewhere: the paper looks for the damping of the factors apart from lambda; here, as in kfac-jax, it is its root.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> _ = tg.manual_seed(0)
    >>> images, labels = tg.data.digits()[0].tensors
    >>> model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.Tanh(), tg.nn.Linear(32, 10))
    >>> optimizer = tg.optim.KFAC(model)
    >>> for _ in range(15):
    ...     loss = optimizer.step(lambda: tg.cross_entropy(model(images), labels))
    >>> loss.item() < 0.1
    True
    """

    state_names = {"b": "momentum_buffer"}
    ranges = {"damping": POSITIVE, "momentum": UNIT, "curvature_ema": UNIT, "inverse_every": Whole("[1, inf)"),
              "adapt_damping_every": Whole("[0, inf)"), "damping_decay": Range("(0, 1)")}

    def __init__(self, model: Module, lr: float = 1.0, momentum: float = 0.9, damping: float = 0.1,
                 curvature_ema: float = 0.95, inverse_every: int = 5, adapt_damping_every: int = 5,
                 damping_decay: float = 0.85, rescale: bool = True, *, fisher: str = "mc", likelihood: str = "softmax",
                 generator: Generator | None = None) -> None:
        self.fisher = one_of("KFAC", "fisher", fisher, FISHERS)
        self.layers = _linear_layers(model)
        super().__init__(model, dict(lr=lr, momentum=momentum, damping=damping, curvature_ema=curvature_ema,
                                     inverse_every=inverse_every, adapt_damping_every=adapt_damping_every,
                                     damping_decay=damping_decay, rescale=rescale), likelihood, generator)

    def rule(p, g, b, rate, mu):
        b = mu * b + rate * g
        p = p - b
        return p, b

    def _begin(self, rule: Rule, group: dict[str, Any], p: Tensor) -> None:
        super()._begin(rule, group, p)
        layer = next((layer for layer in self.layers if layer.weight._data is p._data), None)
        if layer is not None:
            for name, size in ("A", layer.in_features + (layer.bias is not None)), ("G", layer.out_features):
                for key in name, f"{name}_inverse":
                    self.state[p].setdefault(key, Tensor._wrap(xp.zeros((size, size), p.dtype)))

    # ---- the step -----------------------------------------------------------------------------------------

    def _minimize(self, closure: Callable[[], Any]) -> Tensor:
        group = self.param_groups[0]
        point = self._point_of(closure, self.layers)
        value, gradient = point.loss.item(), self._gradient(point.loss)
        self._refuse_bad_start(value, self._join(gradient))
        for p in self._learned:
            self._begin(self._rule(0), group, p)
        inputs = [self._input(layer, point) for layer in self.layers]
        linear = self._measure(point, inputs)
        if self._due(group["inverse_every"], self.step_count):
            self._invert(math.sqrt(group["damping"]))
        V = self._matrices(gradient)
        D = [self.state[layer.weight]["G_inverse"]._data @ v @ self.state[layer.weight]["A_inverse"]._data
             for layer, v in zip(self.layers, V)]
        B = self._matrices([self.state[p]["momentum_buffer"]._data for p in self._learned])
        looks = self._due(group["adapt_damping_every"], self.step_count + 1)
        steps, model = (group["lr"], group["momentum"]), None
        if group["rescale"] or looks:
            model = self._model(point, linear, inputs, V, [D, B])
        if group["rescale"]:
            rate, mu = model.lowest(bool(group["momentum"]))
            steps = group["lr"] * rate, mu
        self.report.numbers = {"loss": value, "damping": group["damping"], "rate": steps[0], "mu": steps[1]}
        self._try(closure, self._arrays(D), steps, value, model if looks else None)
        return point.loss

    def _try(self, closure: Callable[[], Any], direction: list[Array], steps: tuple[float, float], value: float,
             model: Quadratic | None) -> None:
        """Move; where there is a model, look how well it foretold the loss, and move back from a higher one."""
        group, before = self.param_groups[0], self._point()
        if not all(math.isfinite(step) for step in steps) or not bool(xp.isfinite(self._join(direction)).all()):
            self._take_back(before, "the direction is not finite, the factors being nearly singular")
            return
        self._move_along(direction, rate=steps[0], mu=steps[1])
        self.report.accepted, self.report.reason = True, "moved along the preconditioned gradient"
        if model is None:
            return
        new, foretold = self._loss_tensor(closure).item(), model.progress(steps)
        if not new <= value:
            self._take_back(before, f"the loss rose from {value:.6g} to {new:.6g}")
        elif foretold > 0:
            ratio = self.report.numbers["ratio"] = (value - new) / foretold
            omega = group["damping_decay"] ** group["adapt_damping_every"]
            factor = omega if ratio > 0.75 else 1 / omega if ratio < 0.25 else 1
            group["damping"] = min(max(group["damping"] * factor, LEAST), MOST)

    def _take_back(self, before: Array, reason: str) -> None:
        group = self.param_groups[0]
        self._move_to(before)
        for p in self._learned:
            self.state[p]["momentum_buffer"]._data[...] = 0
        group["damping"] = min(4 * group["damping"], MOST)
        self._invert(math.sqrt(group["damping"]))
        self.report.accepted, self.report.reason = False, reason

    @staticmethod
    def _due(every: int, t: int) -> bool:
        return bool(every) and (t <= every or t % every == 0)

    # ---- curvature ----------------------------------------------------------------------------------------

    def _measure(self, point: Point, inputs: list[Array]) -> Linearized:
        """Take this batch into the factors; return the outputs as linear in those of the layers."""
        keep = min(1 - 1 / (self.step_count + 1), self.param_groups[0]["curvature_ema"])
        outputs, sums = [point.calls[layer][1] for layer in self.layers], [0.0] * len(self.layers)
        for u in point.cotangents(self.fisher, self.likelihood, self._draws):
            self.report.gradients += 1
            linear = Linearized(point.outputs, outputs, u)
            sums = [G + g.T @ g for G, g in zip(sums, linear.pulled)]
        for layer, a, G in zip(self.layers, inputs, sums):
            state = self.state[layer.weight]
            for name, new in ("A", a.T @ a / len(a)), ("G", G):
                state[name]._data[...] = keep * state[name]._data + (1 - keep) * new
        return linear

    def _invert(self, gamma: float) -> None:
        """Invert the factors, damped so that their product is by about gamma squared (section 6.3 of the paper)."""
        for layer in self.layers:
            state = self.state[layer.weight]
            A, G = (state[name]._data.astype("float64") for name in "AG")
            traces = float(xp.trace(A)) / len(A), float(xp.trace(G)) / len(G)
            pi = math.sqrt(traces[0] / traces[1]) if min(traces) > 0 else 1.0
            for name, M, share in ("A", A, pi * gamma), ("G", G, gamma / pi):
                state[f"{name}_inverse"]._data[...] = xp.linalg.inv(M + share * xp.eye(len(M)))

    def _model(self, point: Point, linear: Linearized, inputs: list[Array], V: list[Array],
               directions: list[list[Array]]) -> Quadratic:
        """Return the loss to second order along directions, by products with the exact Gauss-Newton matrix."""
        self.report.products += len(directions)
        pushed = [linear.push([a @ d.T for a, d in zip(inputs, D)]) for D in directions]
        scale, expected = point.scale(self.likelihood), LIKELIHOODS[self.likelihood].expected
        bent = [scale * expected(point.outputs._data, v) for v in pushed]
        damping = self.param_groups[0]["damping"]
        return Quadratic([[dot([v], [h]) + damping * dot(D, E) for h, E in zip(bent, directions)]
                          for v, D in zip(pushed, directions)], [dot(V, D) for D in directions])

    # ---- weight and bias as one matrix ------------------------------------------------------------------------

    def _input(self, layer: Linear, point: Point) -> Array:
        """Return what a layer was called with, beside a column of ones for its bias."""
        if layer not in point.calls:
            raise ValueError(f"KFAC: the closure did not call {layer}; every layer that learns has a part in the loss")
        a = point.calls[layer][0]._data
        if a.ndim != 2:
            raise ValueError(f"KFAC: {layer} was called with shape {a.shape}; it takes (batch, features)")
        return a if layer.bias is None else xp.concatenate([a, xp.ones((len(a), 1), a.dtype)], 1)

    def _matrices(self, arrays: list[Array | None]) -> list[Array]:
        """Return arrays of the parameters as a matrix for each layer, the bias its last column."""
        of = {p: xp.zeros(p.shape, p.dtype) if a is None else a for p, a in zip(self._learned, arrays)}
        return [of[layer.weight] if layer.bias is None else
                xp.concatenate([of[layer.weight], of[layer.bias][:, None]], 1) for layer in self.layers]

    def _arrays(self, matrices: list[Array]) -> list[Array]:
        """Return a matrix for each layer as arrays of the parameters."""
        of = {}
        for layer, D in zip(self.layers, matrices):
            of[layer.weight], of[layer.bias] = D[:, :layer.in_features], D[:, -1]
        return [xp.ascontiguousarray(of[p]) for p in self._learned]


class Quadratic:
    """How far the loss falls, to second order, when the parameters move by minus multiples of two directions.

    Parameters
    ----------
    curvature : list of list of float
        The products of the directions with the curvature between.
    slopes : list of float
        Their products with the gradient.
    """

    def __init__(self, curvature: list[list[float]], slopes: list[float]) -> None:
        self.curvature, self.slopes = curvature, slopes

    def lowest(self, both: bool) -> tuple[float, float]:
        """Return the multiples that lead furthest down; the second is 0 unless `both`, or where the two are one."""
        (q, c), (_, s) = self.curvature
        x, y = self.slopes
        det = q * s - c * c
        if both and det > 1e-6 * q * s and s * x > c * y:       # the first leads down, and shall
            return (s * x - c * y) / det, (q * y - c * x) / det
        return (x / q if q else 0.0), 0.0

    def progress(self, steps: tuple[float, float]) -> float:
        """Return by how much the loss falls."""
        bend = sum(x * y * self.curvature[i][j] for i, x in enumerate(steps) for j, y in enumerate(steps))
        return sum(x * slope for x, slope in zip(steps, self.slopes)) - bend / 2


def dot(A: list[Array], B: list[Array]) -> float:
    """Return the inner product of two lists of arrays."""
    return sum(float((a * b).sum()) for a, b in zip(A, B))


def _linear_layers(model: Any) -> list[Linear]:
    """Return the layers that are learned; refuse a model that has other parameters."""
    if not isinstance(model, Module):
        raise TypeError(f"KFAC: takes the model itself, whose layers it watches, got {type(model).__name__}")
    layers = [m for m in model.modules() if isinstance(m, Linear) and any(p.requires_grad for p in m.parameters())]
    owned = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    names = [name for name, p in model.named_parameters() if p.requires_grad and all(p is not q for q in owned)]
    if names or not layers:
        what = f"{', '.join(names)} belong to none" if names else "there is none that is learned"
        raise ValueError(f"KFAC: knows the curvature of Linear layers, and {what}; freeze such parameters with "
                         "requires_grad_(False), or take another optimizer")
    if len({id(p) for p in owned}) < len(owned) or len(owned) < sum(len(list(m.parameters())) for m in layers):
        raise ValueError("KFAC: a layer shares its weights with another, or is frozen in part; each must have a weight "
                         "and a bias of its own, both learned")
    return layers
