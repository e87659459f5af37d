"""Surfaces: famous functions of a few numbers, with where to start and where the minima are.

Each is an ordinary function of a Tensor, so an optimizer walks on it with the library's own gradients, and of an
array of any number of points, so that it can be drawn. The first axis of the argument holds the coordinates.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import e, pi
from typing import Any

import numpy as np

from .. import ops
from ..data import moons
from ..optim.ranges import Range, check
from ..optim.registry import find
from ..tensor import Tensor
from .arguments import refuse_unknown, whole

Interval = tuple[float, float]
CONDITION = Range("[1, inf)")                   # the steepest curvature over the flattest


@dataclass(frozen=True, eq=False)
class Surface:
    """A function to minimise.

    Attributes
    ----------
    name : str
    function : callable
        From an array or a Tensor, whose first axis holds the coordinates, to the heights.
    start : array of float64
        Where runs begin.
    minima : array of float64, (k, n)
        Where it is lowest; several where these are equal; none where it has no minimum.
    lowest : float
        The height there; -inf without a minimum.
    box : tuple of (float, float)
        What to draw, an interval a coordinate.
    teaches : str
        What it is good for.
    sample : callable, optional
        For a mean over samples: `sample(t, random)`, with the number of the step from 0 and a NumPy generator,
        returns the function of the samples that a step sees.
    walled : bool
        Whether the box is part of the problem: whoever steps out is put back on its edge.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> surface = tg.lab.surface("rosenbrock")
    >>> w = tg.tensor(surface.start, requires_grad=True)
    >>> surface(w).backward()
    >>> surface(w).item(), w.grad.tolist()
    (12.5, [-155.0, -50.0])
    """

    name: str
    function: Callable[[Any], Any]
    start: np.ndarray
    minima: np.ndarray
    lowest: float
    box: tuple[Interval, ...]
    teaches: str
    sample: Callable[[int, Any], Callable[[Any], Any]] | None = None
    walled: bool = False

    def __call__(self, w: Any) -> Any:
        if isinstance(w, (list, tuple)) and not any(isinstance(part, Tensor) for part in w):
            w = np.asarray(w, dtype="float64")
        self.check_point(getattr(w, "shape", (len(w),) if isinstance(w, (list, tuple)) else ()))
        return self.function(w)

    def check_point(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless an array of this shape holds the coordinates of a point, or of several.

        Parameters
        ----------
        shape : tuple of int
        """
        if shape[:1] != (self.dimensions,):
            raise ValueError(f"a point on {self.name} has {self.dimensions} coordinates, which are the first axis; got "
                             f"shape {tuple(shape)}")

    @property
    def dimensions(self) -> int:
        """The number of coordinates."""
        return len(self.start)

    def grid(self, points: int = 101, box: tuple[Interval, ...] | None = None) -> tuple[np.ndarray, ...]:
        """Return x, y and the heights on a grid of a surface in the plane.

        Parameters
        ----------
        points : int, default 101
            Along each side, at least 2.
        box : two intervals, optional
            Another part of the plane.

        Returns
        -------
        x, y : (points,) arrays
        heights : (points, points) array
            A row for each y.
        """
        if self.dimensions != 2:
            raise ValueError(f"{self.name} has {self.dimensions} coordinates; only a surface in the plane has a grid")
        points = whole("points", points, 2)
        x, y = (np.linspace(*interval, points) for interval in box or self.box)
        with np.errstate(all="ignore"):
            return x, y, self(np.stack(np.meshgrid(x, y)))

    def __repr__(self) -> str:
        return f"<surface {self.name}: {self.teaches}>"


def surface(name: str | Surface, **options: float) -> Surface:
    """Return a surface by its name, whatever the case and punctuation.

    Parameters
    ----------
    name : str
        One of `list_surfaces()`; a Surface is returned as it is.
    **options
        `kappa`, the condition number, of ravine, noisy_ravine and chain; `n`, the number of coordinates, of chain;
        `samples` and `batch`, how many there are and a step sees, of noisy_ravine and noisy_moons; `C`, the rare slope,
        of reddi. A Surface has been made with its own.

    Raises
    ------
    TypeError, ValueError
        When there is none, naming the three nearest, or an option is unknown or out of range.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.lab.surface("three-hump camel").name, tg.lab.surface("ravine", kappa=4)([1.0, 1.0]).item()
    ('three_hump_camel', 2.5)
    >>> tg.lab.surface("rosenbrok")                 # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: there is no surface named 'rosenbrok'; the nearest are rosenbrock, ... (see tg.lab.list_surfaces())
    """
    if isinstance(name, Surface):
        refuse_unknown(f"a Surface, {name.name}, which is made already,", options, ())
        return name
    name = find(name, SURFACES, "surface", "tg.lab.list_surfaces()")
    refuse_unknown(name, options, inspect.signature(SURFACES[name]).parameters)
    return SURFACES[name](**options)


def list_surfaces() -> list[str]:
    """Return the names of all surfaces."""
    return list(SURFACES)


# ---- those with a number to choose --------------------------------------------------------------------------------


def ravine(kappa: float = 100.0) -> Surface:
    """Return a quadratic bowl, kappa times as steep along y as along x."""
    check("ravine", "kappa", kappa, CONDITION)

    def function(w: Any) -> Any:
        x, y = w
        return (x ** 2 + kappa * y ** 2) / 2
    return _surface("ravine", function, (-2.5, 1.0), [(0, 0)], 0, ((-3, 3), (-1.5, 1.5)),
                    "the condition number: zig-zag, and rates that can be computed")


def chain(n: int = 20, kappa: float = 100.0) -> Surface:
    """Return Nesterov's chain: each coordinate pulls at the next, and only the first at its goal.

    A method that adds up gradients moves one coordinate further in each step, whatever its rate (Nesterov,
    Introductory Lectures on Convex Optimization, 2004, section 2.1.4; kappa as in Goh, Distill 2017).
    """
    n = whole("n", n, 2)
    check("chain", "kappa", kappa, Range("(1, inf)"))
    pull = 4 / (kappa - 1)                                          # twice the factor of the squared norm

    def function(w: Any) -> Any:
        bonds = ((w[:-1] - w[1:]) ** 2).sum(0)
        return ((w[0] - 1) ** 2 + bonds + pull * (w ** 2).sum(0)) / 2
    matrix = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1) + pull * np.eye(n)
    matrix[-1, -1] -= 1
    goal = np.linalg.solve(matrix, np.eye(n)[0])
    return _surface("chain", function, np.zeros(n), [goal], float(function(goal)), ((-0.5, 1.5),) * n,
                    "a light cone: what a step can know of coordinates far away")


def noisy_ravine(kappa: float = 20.0, samples: int = 200, batch: int = 8) -> Surface:
    """Return the mean of ravines whose centres are scattered around 0; a step sees `batch` of them."""
    check("noisy_ravine", "kappa", kappa, CONDITION)
    samples, batch = whole("samples", samples), whole("batch", batch)
    centres = np.random.default_rng(0).standard_normal((2, samples, 1)) * [[[0.8]], [[0.8]]]
    centres -= centres.mean(axis=1, keepdims=True)

    def of(chosen: np.ndarray) -> Callable[[Any], Any]:
        # The mean over centres of (w - c)^2 is (w - mean)^2 and a constant, which keeps a drawing fast.
        middle, spread = chosen.mean(axis=1)[:, 0], (centres ** 2).mean(axis=1)[:, 0]

        def function(w: Any) -> Any:
            x, y = w
            return ((x - middle[0]) ** 2 + kappa * (y - middle[1]) ** 2 + spread[0] + kappa * spread[1]) / 2
        return function
    everything = of(centres)
    return _surface("noisy_ravine", everything, (-2.5, 1.0), [(0, 0)], float(everything(np.zeros(2))),
                    ((-3, 3), (-1.5, 1.5)), "the noise of small batches: what averaging and a falling rate are for",
                    sample=lambda t, random: of(centres[:, random.integers(0, samples, batch)]))


def noisy_moons(samples: int = 200, batch: int = 10) -> Surface:
    """Return the loss of logistic regression without a bias on two moons, a small L2 penalty with it."""
    samples, batch = whole("samples", samples), whole("batch", batch)
    points, labels = (t.numpy() for t in moons(samples, noise=0.2, generator=0))
    signed = ((points - points.mean(axis=0)) * (2.0 * labels[:, None] - 1)).astype("float64")   # right where x·w > 0

    def of(chosen: np.ndarray) -> Callable[[Any], Any]:
        def function(w: Any) -> Any:
            if len(np.shape(w)) == 1:
                return ops.softplus(-ops.matmul(chosen, w)).mean() + 0.01 * (w ** 2).sum()
            return ops.softplus(-np.tensordot(chosen, w, 1)).mean(axis=0) + 0.01 * (w ** 2).sum(axis=0)
        return function
    everything = of(signed)
    return _surface("noisy_moons", everything, (-4.0, 4.0), [(1.2461565609134642, -1.7086132394215439)],
                    0.4053602549649464, ((-6, 6), (-6, 6)), "a real loss with the noise of small batches",
                    sample=lambda t, random: of(signed[random.integers(0, samples, batch)]))


def reddi(C: float = 3.0) -> Surface:
    """Return the online problem on which Adam ends at the worst point (Reddi, Kale & Kumar, ICLR 2018, section 3).

    Every third step sees C x, the others -x, on [-1, 1]: the mean falls towards -1, and Adam with betas (0, 1/(1+C^2))
    goes to +1.
    """
    check("reddi", "C", C, Range("(2, inf)"))              # so that the mean slope is positive

    def of(slope: float) -> Callable[[Any], Any]:
        return lambda w: slope * w[0]
    return _surface("reddi", of((C - 2) / 3), (0.0,), [(-1,)], (2 - C) / 3, ((-1, 1),),
                    "rare large gradients among small ones: Adam goes the wrong way, AMSGrad does not",
                    sample=lambda t, random: of(C if t % 3 == 0 else -1.0), walled=True)


# ---- those that are what they are ---------------------------------------------------------------------------------


def rosenbrock(w: Any) -> Any:
    """(1 - x)^2 + 100 (y - x^2)^2."""
    x, y = w
    return (1 - x) ** 2 + 100 * (y - x ** 2) ** 2


def beale(w: Any) -> Any:
    """(1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2."""
    x, y = w
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y ** 2) ** 2 + (2.625 - x + x * y ** 3) ** 2


def himmelblau(w: Any) -> Any:
    """(x^2 + y - 11)^2 + (x + y^2 - 7)^2."""
    x, y = w
    return (x ** 2 + y - 11) ** 2 + (x + y ** 2 - 7) ** 2


def rastrigin(w: Any) -> Any:
    """20 + x^2 - 10 cos(2 pi x) + y^2 - 10 cos(2 pi y)."""
    x, y = w
    return 20 + x ** 2 - 10 * ops.cos(2 * pi * x) + y ** 2 - 10 * ops.cos(2 * pi * y)


def ackley(w: Any) -> Any:
    """-20 exp(-0.2 sqrt((x^2 + y^2) / 2)) - exp((cos(2 pi x) + cos(2 pi y)) / 2) + 20 + e."""
    x, y = w
    waves = ops.exp((ops.cos(2 * pi * x) + ops.cos(2 * pi * y)) / 2)
    return -20 * ops.exp(-0.2 * ops.sqrt((x ** 2 + y ** 2) / 2)) - waves + 20 + e


def saddle(w: Any) -> Any:
    """x^2 - y^2 + y^4 / 4: a saddle with a floor."""
    x, y = w
    return x ** 2 - y ** 2 + y ** 4 / 4


def monkey_saddle(w: Any) -> Any:
    """x^3 - 3 x y^2."""
    x, y = w
    return x ** 3 - 3 * x * y ** 2


def double_well(w: Any) -> Any:
    """x^2 + y^2 less two Gaussian wells, the deeper one at the left."""
    x, y = w
    right, left = ((x - 1) ** 2 + y ** 2) / 0.2, ((x + 1) ** 2 + y ** 2) / 0.2
    return x ** 2 + y ** 2 - 2 * ops.exp(-right) - 3 * ops.exp(-left)


def three_hump_camel(w: Any) -> Any:
    """2 x^2 - 1.05 x^4 + x^6 / 6 + x y + y^2."""
    x, y = w
    return 2 * x ** 2 - 1.05 * x ** 4 + x ** 6 / 6 + x * y + y ** 2


def styblinski_tang(w: Any) -> Any:
    """The half of x^4 - 16 x^2 + 5 x, and of the same in y."""
    return (w ** 4 - 16 * w ** 2 + 5 * w).sum(0) / 2


def easom(w: Any) -> Any:
    """-cos(x) cos(y) exp(-(x - pi)^2 - (y - pi)^2)."""
    x, y = w
    return -ops.cos(x) * ops.cos(y) * ops.exp(-(x - pi) ** 2 - (y - pi) ** 2)


def goldstein_price(w: Any) -> Any:
    """Two polynomials multiplied: six orders of magnitude on a small square."""
    x, y = w
    hill = (x + y + 1) ** 2 * (19 - 14 * x + 3 * x ** 2 - 14 * y + 6 * x * y + 3 * y ** 2)
    dale = (2 * x - 3 * y) ** 2 * (18 - 32 * x + 12 * x ** 2 + 48 * y - 36 * x * y + 27 * y ** 2)
    return (1 + hill) * (30 + dale)


def booth(w: Any) -> Any:
    """(x + 2 y - 7)^2 + (2 x + y - 5)^2."""
    x, y = w
    return (x + 2 * y - 7) ** 2 + (2 * x + y - 5) ** 2


def mccormick(w: Any) -> Any:
    """sin(x + y) + (x - y)^2 - 1.5 x + 2.5 y + 1."""
    x, y = w
    return ops.sin(x + y) + (x - y) ** 2 - 1.5 * x + 2.5 * y + 1


def _surface(name: str, function: Callable, start: Any, minima: list, lowest: float, box: tuple, teaches: str,
             sample: Callable | None = None, walled: bool = False) -> Surface:
    start = np.array(start, dtype="float64")
    return Surface(name, function, start, np.array(minima, dtype="float64").reshape(-1, len(start)), float(lowest),
                   tuple((float(a), float(b)) for a, b in box), teaches, sample,
                   walled)


def _always(row: tuple) -> Callable[[], Surface]:
    """Return what makes a surface without options."""
    return lambda: _surface(row[0].__name__, *row)


def _square(half: float) -> tuple[Interval, Interval]:
    return (-half, half), (-half, half)


# What each function is called is its name here; start, minima, their height, what to draw, what it teaches.
_FIXED = [
    (rosenbrock, (-1.5, 2), [(1, 1)], 0, ((-2, 2), (-1, 3)), "a curved valley"),
    (beale, (1, 1.5), [(3, 0.5)], 0, _square(4.5), "gradients that are huge, then tiny"),
    (himmelblau, (0, 0), [(3, 2), (-2.8051180869527, 3.1313125182506), (-3.7793102533777, -3.2831859912862),
                          (3.5844283403305, -1.8481265269645)], 0, _square(5), "four minima: which basin?"),
    (rastrigin, (-2, 3.5), [(0, 0)], 0, _square(5.12), "many traps"),
    (ackley, (-3, 2.5), [(0, 0)], 0, _square(5), "flat outside, a spike inside, and a kink where no gradient is"),
    (saddle, (-1.5, 1e-3), [(0, 2 ** 0.5), (0, -2 ** 0.5)], -1, _square(2.5), "the escape from a saddle"),
    (monkey_saddle, (0.8, 1e-3), [], -np.inf, _square(1.5), "a point where the Hessian is zero"),
    (double_well, (0.1, 1.2), [(-0.9363006340109187, 0)], -2.0630902517681946, _square(2), "the start decides"),
    (three_hump_camel, (1.9, 1.5), [(0, 0)], 0, _square(2.2), "two false minima"),
    (styblinski_tang, (0.5, 0.5), [(-2.9035340276896, -2.9035340276896)], -78.332331406, _square(5),
     "traps along each coordinate"),
    (easom, (1, 1), [(pi, pi)], -1, ((0, 2 * pi), (0, 2 * pi)), "a plateau: methods without a scale walk, SGD stays"),
    (goldstein_price, (-1.5, 1), [(0, -1)], 3, _square(2), "six orders of magnitude"),
    (booth, (-8, -6), [(1, 3)], 0, _square(10), "an easy control"),
    (mccormick, (3, 3.5), [(-0.5471975511966, -1.5471975511966)], -1.9132229549810, ((-1.5, 4), (-3, 4)),
     "an easy control that is no polynomial"),
]

SURFACES: dict[str, Callable[..., Surface]] = {
    "ravine": ravine,
    **{row[0].__name__: _always(row) for row in _FIXED},
    "chain": chain, "noisy_ravine": noisy_ravine, "noisy_moons": noisy_moons, "reddi": reddi,
}
