"""Dialects: what different frameworks mean by the same name, as rules that differ by a visible line.

The lines and defaults are those of PyTorch 2.13, optax 0.2.8, Keras 3 (`keras/src/optimizers`) and MLX
(`mlx/optimizers/optimizers.py`) as their sources stood in 2026, and of the papers. Names of options are those of this
package. Weight decay is left out where its default is 0; a default momentum of 0 is taken as 0.9; and where a
framework has no default lr, PyTorch's stands.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...optim.adam import adam, adamw, amsgrad, moments
from ...optim.adan import Adan
from ...optim.nadam import nadam
from ...optim.optimizer import Optimizer
from ...optim.own import from_rule
from ...optim.plan import read_rule
from ...optim.registry import find
from ...optim.schedule import multistep
from ...rule import abs, maximum, sqrt, where
from ..style import figure, looks, styled
from ..surfaces import Surface
from ..surfaces import surface as find_surface
from ..traces import Trace, record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Dialect:
    """One meaning of a name.

    Attributes
    ----------
    rule : callable
        The update rule.
    defaults : dict
        Of its options, as that framework has them.
    starts : dict
        What the rule's state begins with, where that is not 0.
    words : str
        What is to be known besides.
    """

    rule: Callable
    defaults: dict[str, Any]
    starts: dict[str, float] = field(default_factory=dict)
    words: str = ""

    @property
    def formula(self) -> list[str]:
        """The lines of the rule."""
        return read_rule(self.rule, False).text().splitlines()

    @property
    def first(self) -> dict[str, float]:
        """What each array of the rule's state begins with."""
        return {name: self.starts.get(name, 0.0) for name in read_rule(self.rule, False).states}

    def optimizer(self) -> type[Optimizer]:
        """Return the rule as an optimizer with these defaults."""
        made = from_rule(**self.defaults)(self.rule)
        made.initial = lambda own, name, group, p: self.starts.get(name, 0.0)
        made.ranges = Adan.ranges if len(self.defaults.get("betas", ())) == 3 else made.ranges
        return made


# ---- rules that are not this package's own --------------------------------------------------------------------


# Keras has lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps), which is this in terms of m_hat and v_hat.
def adam_epsilon_hat(p, g, m, v, t, lr, beta1, beta2, eps):
    """Keras: eps was added to the root before the correction."""
    m, v = moments(g, m, v, beta1, beta2)
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps / sqrt(1 - beta2 ** t))
    return p, m, v


def adam_uncorrected(p, g, m, v, lr, beta1, beta2, eps):
    """MLX: no bias is corrected."""
    m, v = moments(g, m, v, beta1, beta2)
    m_hat = m
    v_hat = v
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p, m, v


def amsgrad_corrected(p, g, m, v, v_max, t, lr, beta1, beta2, eps):
    """optax: the maximum is that of the corrected mean square."""
    m, v = moments(g, m, v, beta1, beta2)
    v_max = maximum(v_max, v / (1 - beta2 ** t))
    m_hat = m / (1 - beta1 ** t)
    v_hat = v_max
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p, m, v, v_max


def amsgrad_epsilon_hat(p, g, m, v, v_max, t, lr, beta1, beta2, eps):
    """Keras: as PyTorch, with Keras's eps."""
    m, v = moments(g, m, v, beta1, beta2)
    v_max = maximum(v_max, v)
    m_hat = m / (1 - beta1 ** t)
    v_hat = v_max / (1 - beta2 ** t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps / sqrt(1 - beta2 ** t))
    return p, m, v, v_max


def adamw_together(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    """optax: step and decay in one line."""
    m, v = moments(g, m, v, beta1, beta2)
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p)
    return p, m, v


def adamw_paper(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    """The paper: lr does not multiply the decay."""
    p = p * (1 - weight_decay)
    return adam(p, g, m, v, t, lr, beta1, beta2, eps)


def adamw_epsilon_hat(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    """Keras: as PyTorch, with Keras's eps."""
    p = p * (1 - lr * weight_decay)
    return adam_epsilon_hat(p, g, m, v, t, lr, beta1, beta2, eps)


def adamw_uncorrected(p, g, m, v, lr, beta1, beta2, eps, weight_decay):
    """MLX: no bias is corrected."""
    p = p * (1 - lr * weight_decay)
    return adam_uncorrected(p, g, m, v, lr, beta1, beta2, eps)


def momentum_outside(p, g, b, lr, momentum):
    """PyTorch, optax, MLX: lr outside of the momentum."""
    b = momentum * b + g
    p = p - lr * b
    return p, b


def momentum_inside(p, g, b, lr, momentum):
    """Keras, Chainer: lr inside of the momentum."""
    b = momentum * b + lr * g
    p = p - b
    return p, b


def nesterov_outside(p, g, b, lr, momentum):
    """PyTorch, optax, MLX: lr outside of the momentum."""
    b = momentum * b + g
    p = p - lr * (g + momentum * b)
    return p, b


def nesterov_inside(p, g, b, lr, momentum):
    """Keras: lr inside of the momentum."""
    b = momentum * b + lr * g
    p = p - (lr * g + momentum * b)
    return p, b


def rmsprop(p, g, v, lr, alpha, eps):
    """PyTorch, MLX: eps outside of the root."""
    v = alpha * v + (1 - alpha) * g ** 2
    p = p - lr * g / (sqrt(v) + eps)
    return p, v


def rmsprop_inside(p, g, v, lr, alpha, eps):
    """optax, Keras: eps inside of the root."""
    v = alpha * v + (1 - alpha) * g ** 2
    p = p - lr * g / sqrt(v + eps)
    return p, v


def adagrad(p, g, s, lr, eps):
    """PyTorch, MLX: eps outside of the root."""
    s = s + g ** 2
    p = p - lr * g / (sqrt(s) + eps)
    return p, s


def adagrad_inside(p, g, s, lr, eps):
    """optax, Keras: eps inside of the root."""
    s = s + g ** 2
    p = p - lr * g / sqrt(s + eps)
    return p, s


def nadam_constant(p, g, m, v, t, lr, beta1, beta2, eps):
    """optax: the momentum does not rise."""
    m, v = moments(g, m, v, beta1, beta2)
    d = sqrt(v / (1 - beta2 ** t)) + eps
    p = p - lr * (1 - beta1) / (1 - beta1 ** t) * g / d
    p = p - lr * beta1 / (1 - beta1 ** (t + 1)) * m / d
    return p, m, v


def nadam_quick(p, g, m, v, mu_product, t, lr, beta1, beta2, eps):
    """Keras: the momentum rises at once."""
    mu = beta1 * (1 - 0.5 * 0.96 ** t)
    mu_next = beta1 * (1 - 0.5 * 0.96 ** (t + 1))
    mu_product = mu_product * mu
    m, v = moments(g, m, v, beta1, beta2)
    d = sqrt(v / (1 - beta2 ** t)) + eps
    p = p - lr * (1 - mu) / (1 - mu_product) * g / d
    p = p - lr * mu_next / (1 - mu_product * mu_next) * m / d
    return p, m, v, mu_product


def adamax(p, g, m, u, t, lr, beta1, beta2, eps):
    """PyTorch, optax: eps inside of the maximum."""
    m = beta1 * m + (1 - beta1) * g
    u = maximum(beta2 * u, abs(g) + eps)
    p = p - lr / (1 - beta1 ** t) * m / u
    return p, m, u


def adamax_outside(p, g, m, u, t, lr, beta1, beta2, eps):
    """Keras: eps outside of the maximum."""
    m = beta1 * m + (1 - beta1) * g
    u = maximum(beta2 * u, abs(g))
    p = p - lr / (1 - beta1 ** t) * m / (u + eps)
    return p, m, u


def adamax_uncorrected(p, g, m, u, lr, beta1, beta2, eps):
    """MLX: no bias is corrected."""
    m = beta1 * m + (1 - beta1) * g
    u = maximum(beta2 * u, abs(g))
    p = p - lr * m / (u + eps)
    return p, m, u


def adan(p, g, m, d, n, prev, t, lr, beta1, beta2, beta3, eps):
    """The paper: the change of the gradient enters the square times beta2."""
    delta = where(t > 1, g - prev, 0)
    m = beta1 * m + (1 - beta1) * g
    d = beta2 * d + (1 - beta2) * delta
    n = beta3 * n + (1 - beta3) * (g + beta2 * delta) ** 2
    n_hat = n / (1 - beta3 ** t)
    p = p - lr * (m / (1 - beta1 ** t) + beta2 * d / (1 - beta2 ** t)) / (sqrt(n_hat) + eps)
    prev = g
    return p, m, d, n, prev


def adan_optax(p, g, m, d, n, prev, t, lr, beta1, beta2, beta3, eps):
    """optax: it enters times 1 - beta2."""
    delta = where(t > 1, g - prev, 0)
    m = beta1 * m + (1 - beta1) * g
    d = beta2 * d + (1 - beta2) * delta
    n = beta3 * n + (1 - beta3) * (g + (1 - beta2) * delta) ** 2
    n_hat = n / (1 - beta3 ** t)
    p = p - lr * (m / (1 - beta1 ** t) + beta2 * d / (1 - beta2 ** t)) / (sqrt(n_hat) + eps)
    prev = g
    return p, m, d, n, prev


# ---- who means what -------------------------------------------------------------------------------------------

NO_RATE = "has no default lr"
ADAM = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
KERAS = {**ADAM, "eps": 1e-7}
WHILE = "goes where torch's goes while lr stays"
MOMENTUM = dict(lr=1e-3, momentum=0.9)

# The first of each is the one that the others are held against.
DIALECTS: dict[str, dict[str, Dialect]] = {
    "Adam": {
        "torch": Dialect(adam, ADAM), "paper": Dialect(adam, ADAM), "optax": Dialect(adam, ADAM, words=NO_RATE),
        "Keras": Dialect(adam_epsilon_hat, KERAS, words="the paper's other form, in its section 2"),
        "MLX": Dialect(adam_uncorrected, ADAM, words=f"{NO_RATE}; corrects the bias only if asked to"),
    },
    "AMSGrad": {
        "torch": Dialect(amsgrad, ADAM), "optax": Dialect(amsgrad_corrected, ADAM, words=NO_RATE),
        "Keras": Dialect(amsgrad_epsilon_hat, KERAS),
    },
    "AdamW": {
        "torch": Dialect(adamw, {**ADAM, "weight_decay": 1e-2}),
        "optax": Dialect(adamw_together, {**ADAM, "weight_decay": 1e-4}, words=f"{NO_RATE}; the order changes nothing"),
        "Keras": Dialect(adamw_epsilon_hat, {**KERAS, "weight_decay": 4e-3}),
        "MLX": Dialect(adamw_uncorrected, {**ADAM, "weight_decay": 1e-2}, words=NO_RATE),
        "paper": Dialect(adamw_paper, {**ADAM, "weight_decay": 1e-2}, words="has no default decay, here torch's; a "
                         "schedule multiplies it, lr does not"),
    },
    "SGD": {
        "torch": Dialect(momentum_outside, MOMENTUM), "optax": Dialect(momentum_outside, MOMENTUM, words=NO_RATE),
        "MLX": Dialect(momentum_outside, MOMENTUM, words=NO_RATE),
        "Keras": Dialect(momentum_inside, {**MOMENTUM, "lr": 1e-2}, words=WHILE),
        "Chainer": Dialect(momentum_inside, {**MOMENTUM, "lr": 1e-2}, words=WHILE),
    },
    "Nesterov": {
        "torch": Dialect(nesterov_outside, MOMENTUM), "optax": Dialect(nesterov_outside, MOMENTUM, words=NO_RATE),
        "MLX": Dialect(nesterov_outside, MOMENTUM, words=NO_RATE),
        "Keras": Dialect(nesterov_inside, {**MOMENTUM, "lr": 1e-2}, words=WHILE),
    },
    "RMSprop": {
        "torch": Dialect(rmsprop, dict(lr=1e-2, alpha=0.99, eps=1e-8)),
        "MLX": Dialect(rmsprop, dict(lr=1e-2, alpha=0.99, eps=1e-8), words=NO_RATE),
        "optax": Dialect(rmsprop_inside, dict(lr=1e-2, alpha=0.9, eps=1e-8), words=f"{NO_RATE}; eps_in_sqrt=False, "
                         "decay=0.99 is torch's"),
        "Keras": Dialect(rmsprop_inside, dict(lr=1e-3, alpha=0.9, eps=1e-7)),
    },
    "Adagrad": {
        "torch": Dialect(adagrad, dict(lr=1e-2, eps=1e-10)),
        "MLX": Dialect(adagrad, dict(lr=1e-2, eps=1e-8), words=NO_RATE),
        "optax": Dialect(adagrad_inside, dict(lr=1e-2, eps=1e-7), dict(s=0.1), words=NO_RATE),
        "Keras": Dialect(adagrad_inside, dict(lr=1e-3, eps=1e-7), dict(s=0.1)),
    },
    "NAdam": {
        "torch": Dialect(nadam, {**ADAM, "lr": 2e-3, "momentum_decay": 4e-3}, dict(mu_product=1.0)),
        "optax": Dialect(nadam_constant, {**ADAM, "lr": 2e-3}, words=f"{NO_RATE}; the momentum does not rise"),
        "Keras": Dialect(nadam_quick, KERAS, dict(mu_product=1.0), words="torch's with momentum_decay=1"),
    },
    "Adamax": {
        "torch": Dialect(adamax, {**ADAM, "lr": 2e-3}),
        "optax": Dialect(adamax, {**ADAM, "lr": 2e-3}, words=NO_RATE),
        "Keras": Dialect(adamax_outside, KERAS),
        "MLX": Dialect(adamax_uncorrected, {**ADAM, "lr": 2e-3}, words=f"{NO_RATE}; corrects no bias"),
    },
    "Adan": {
        "paper": Dialect(adan, dict(lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8)),
        "optax": Dialect(adan_optax, dict(lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8), words=NO_RATE),
    },
}


@dataclass(eq=False)
class Dialects:
    """What a comparison found; it prints as a text.

    Attributes
    ----------
    name : str
        Of the optimizer.
    dialects : dict of str to Dialect
        By framework, the one first that the others are held against.
    surface : Surface
        Where they ran.
    traces : dict of str to Trace
        A run of each from the same start, with the same lr.
    """

    name: str
    dialects: dict[str, Dialect]
    surface: Surface
    traces: dict[str, Trace]

    @property
    def first(self) -> str:
        """The framework that the others are held against."""
        return next(iter(self.dialects))

    @property
    def lines(self) -> dict[str, list[tuple[str, str]]]:
        """For each framework the lines that differ: what the first one has, what stands there instead; "" for none."""
        mine = self.dialects[self.first].formula
        return {name: _differing(mine, dialect.formula) for name, dialect in self.dialects.items()}

    @property
    def defaults(self) -> dict[str, dict[str, tuple[Any, Any]]]:
        """For each framework the defaults that differ: what the first one has, and its own; None for no such option."""
        mine = self.dialects[self.first]
        found = {}
        for name, own in self.dialects.items():
            pairs = {key: (mine.defaults.get(key), own.defaults.get(key)) for key in {**mine.defaults, **own.defaults}}
            pairs |= {f"first {key}": (mine.first[key], own.first[key]) for key in mine.first.keys() & own.first.keys()}
            found[name] = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        return found

    @property
    def distances(self) -> dict[str, np.ndarray]:
        """How far each framework is from the first at each point, (steps + 1,) arrays."""
        mine = self.traces[self.first].path
        return {name: np.linalg.norm(trace.path - mine, axis=1) for name, trace in self.traces.items()}

    @property
    def largest(self) -> dict[str, float]:
        """The largest of these distances."""
        return {name: float(distance.max()) for name, distance in self.distances.items()}

    def draw(self) -> Figure:
        """Draw the paths on the surface, where it is one of the plane, and how far they are from the first."""
        flat = self.traces[self.first].path.shape[1] == 2
        alike: dict[bytes, list[str]] = {}          # one line for all that go the same way
        for name, trace in self.traces.items():
            alike.setdefault(trace.path.tobytes(), []).append(name)
        with styled():
            fig = figure(10.0 if flat else 6.5, 4.0)
            *left, right = fig.subplots(1, 1 + flat, squeeze=False)[0]
            for names, look in zip(alike.values(), looks(range(len(alike))).values()):
                style = dict(color=look.color, linestyle=look.linestyle)
                distance = self.distances[names[0]]
                right.plot(np.where(distance > 0, distance, np.nan), **style)
                for axes in left or [right]:
                    points = self.traces[names[0]].path.T if left else ([], [])
                    axes.plot(*points, label=", ".join(names), **style)
            for axes in left:
                self._ground(axes)
            right.set(xlabel="step", ylabel=f"distance from {self.first}'s path", title="how far apart")
            right.set_yscale("log" if any(self.largest.values()) else "linear")
            fig.suptitle(f"{self.name} in {len(self.dialects)} dialects", fontsize=12)
            fig.legend(loc="outside right upper")
        return fig

    def _ground(self, axes: Any) -> None:
        """Draw the surface where the paths are."""
        points = np.concatenate([trace.path for trace in self.traces.values()])
        points = points[np.isfinite(points).all(axis=1)]
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.1 * (high - low).max() + 1e-9
        box = tuple((float(a - margin), float(b + margin)) for a, b in zip(low, high))
        x, y, heights = self.surface.grid(121, box)
        axes.contour(x, y, np.log10(heights - min(self.surface.lowest, heights.min()) + 1e-3), levels=14, alpha=0.3,
                     linewidths=0.8)
        axes.plot(*points[0], marker="o", color="black", markersize=5)
        axes.set(title=f"on {self.surface.name}", xlabel="x", ylabel="y", xlim=box[0], ylim=box[1])

    def __str__(self) -> str:
        trace = self.traces[self.first]
        rates = " to ".join(dict.fromkeys(f"{lr:g}" for lr in (trace.lr[0], trace.lr[-1])))
        text = [f"{self.name} on {self.surface.name}, {len(trace)} steps, lr {rates}, held against {self.first}:",
                *(f"  {line}" for line in self.dialects[self.first].formula)]
        for name, dialect in self.dialects.items():
            if name == self.first:
                continue
            says = [f"{sign} {line}" for pair in self.lines[name] for sign, line in zip("-+", pair) if line]
            says += [", ".join(f"no {key}" if own is None else f"{key}={own!r} (not {mine!r})"
                               for key, (mine, own) in self.defaults[name].items()), dialect.words]
            says += [f"at most {self.largest[name]:.2g} away" if self.largest[name] else "the same path"]
            text += [f"{name}: {'another rule' if self.lines[name] else 'the same rule'}",
                     *(f"  {line}" for line in says if line)]
        return "\n".join(text)

    __repr__ = __str__


def compare_dialects(name: str, surface: str | Surface = "ravine", steps: int = 100, *, lr: Any = None,
                     start: Any = None, **options: Any) -> Dialects:
    """Run what different frameworks mean by one name, and say in which line and which defaults they differ.

    Parameters
    ----------
    name : str
        One of `tg.lab.DIALECTS`, in any spelling.
    surface : str or Surface, default "ravine"
        Where all run.
    steps : int, default 100
        At least 1.
    lr : float or callable, optional
        For all: a rate or a schedule. 0.05 by default; for SGD, whose dialects differ only where the rate changes,
        0.005 and from the middle on a tenth of it.
    start : array_like, optional
        Where all begin; where the surface says by default.
    **options
        In place of all defaults, in those that have such an option: `eps=1e-3` shows where it stands.

    Returns
    -------
    Dialects

    Raises
    ------
    ValueError, TypeError
        When there are no dialects of that name, naming the nearest; when none has an option; or as `record`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> print(tg.lab.compare_dialects("RMSprop", steps=50))
    RMSprop on ravine, 50 steps, lr 0.05, held against torch:
      v ← α·v + (1 − α)·g^2
      p ← p − lr·g / (sqrt(v) + ε)
    MLX: the same rule
      has no default lr
      the same path
    optax: another rule
      - p ← p − lr·g / (sqrt(v) + ε)
      + p ← p − lr·g / sqrt(v + ε)
      alpha=0.9 (not 0.99)
      has no default lr; eps_in_sqrt=False, decay=0.99 is torch's
      at most 1.1 away
    Keras: another rule
      - p ← p − lr·g / (sqrt(v) + ε)
      + p ← p − lr·g / sqrt(v + ε)
      lr=0.001 (not 0.01), alpha=0.9 (not 0.99), eps=1e-07 (not 1e-08)
      at most 1.1 away
    """
    name = find(name, DIALECTS, "optimizer with dialects", "tg.lab.DIALECTS")
    dialects, place = DIALECTS[name], find_surface(surface)
    known = {key for dialect in dialects.values() for key in dialect.defaults} - {"lr"}
    if unknown := options.keys() - known:
        raise TypeError(f"no dialect of {name} has an option {', '.join(sorted(unknown))}; they have lr, "
                        f"{', '.join(sorted(known))}")
    if lr is None:
        lr = 5e-3 * multistep([steps // 2]) if name in ("SGD", "Nesterov") else 0.05
    traces = {}
    for who, dialect in dialects.items():
        own = {key: value for key, value in options.items() if key in dialect.defaults}
        traces[who] = record(dialect.optimizer(), place, steps, start, lr=lr, **own)
    return Dialects(name, dialects, place, traces)


def _differing(mine: list[str], own: list[str]) -> list[tuple[str, str]]:
    """Return pairs of lines that differ, one of them empty where the other has no counterpart."""
    pairs: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, mine, own, autojunk=False).get_opcodes():
        if kind != "equal":
            short = min(b - a, d - c)               # what stands alone comes first, so that the last lines meet
            pairs += [(line, "") for line in mine[a:b - short]] + [("", line) for line in own[c:d - short]]
            pairs += list(zip(mine[b - short:b], own[d - short:d]))
    return pairs

