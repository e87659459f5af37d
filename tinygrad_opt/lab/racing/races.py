"""Races: optimizers on one function, from one start, each with its best learning rate, paid by the gradient."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...nn import Module
from ...optim.optimizer import Optimizer
from ...optim.registry import optimizer_class
from ...optim.second_order.base import SecondOrder
from ...random import default_generator
from ...tensor import Tensor
from ..arguments import whole
from ..objective import Objective
from ..style import figure, looks, styled
from ..traces import Trace, check_options, drive, make_optimizer, record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATES = tuple(10 ** (k / 4) for k in range(-16, 5))         # 1e-4 to 10, four to a power of ten
BUDGETS = {"gradients": "gradient evaluations", "steps": "steps"}


@dataclass(eq=False)
class Race:
    """What came out of a race; printed as a table.

    Attributes
    ----------
    surface : Surface or callable
        What was minimised.
    budget : {"gradients", "steps"}
        What each could spend `steps` of.
    steps : int
    traces : dict of str to Trace
        By label, the whole record of a run with the rate below; with several seeds, that whose end is the median.
    rates : dict of str to float
        The learning rate that each ran with; None where it has none.
    reached : dict of str to float
        The loss at the end on the whole function: the median over the last tenth of the points, so that a swing that
        happens to end at the bottom does not count, and over seeds; inf where it diverged.
    tried : dict of str to dict
        Of those whose rate was tuned: for each rate of the grid the loss that it reached.
    losses : dict of str to (steps + 1,) array
        The height on the whole function after 0, 1, 2, ... of the budget is spent, the median over seeds.
    seeds : tuple of int
    """

    surface: Any
    budget: str
    steps: int
    seeds: tuple[int, ...]
    traces: dict[str, Trace] = field(default_factory=dict)
    rates: dict[str, float | None] = field(default_factory=dict)
    reached: dict[str, float] = field(default_factory=dict)
    tried: dict[str, dict[float, float]] = field(default_factory=dict)
    losses: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the function is called."""
        return next(iter(self.traces.values())).function

    @property
    def lowest(self) -> float | None:
        """The height of the minimum, None where it is unknown or there is none."""
        lowest = getattr(self.surface, "lowest", -inf)
        return lowest if isfinite(lowest) else None

    def ranking(self) -> list[str]:
        """Return the labels, whoever reached the lowest loss first; whoever diverged is last."""
        return sorted(self.reached, key=self.reached.__getitem__)

    def legend(self) -> dict[str, str]:
        """Return what a legend says of each: who it is and its rate."""
        return {label: label if rate is None or "lr=" in label else f"{label}, lr {rate:.2g}"
                for label, rate in self.rates.items()}

    def table(self) -> str:
        """Return the ranking as aligned text."""
        above = "loss" if self.lowest is None else "above the minimum"
        rows = [("", "optimizer", "lr", "steps", "gradients", above)]
        for place, label in enumerate(self.ranking(), start=1):
            end, rate, trace = self.reached[label] - (self.lowest or 0), self.rates[label], self.traces[label]
            rows.append((str(place), label, "" if rate is None else f"{rate:.2g}{self._edge(label)}", str(len(trace)),
                         str(trace.evaluations[-1]), f"{end:.4g}" if isfinite(end) else "diverged"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.ljust(width) if k == 1 else cell.rjust(width)
                           for k, (cell, width) in enumerate(zip(row, widths))) for row in rows]
        return "\n".join([self._heading(), *lines, *self._footnote()])

    def _heading(self) -> str:
        grids = [list(tried) for tried in self.tried.values()]
        tuned = f"; lr the best of {len(grids[0])} from {grids[0][0]:g} to {grids[0][-1]:g}" if grids else ""
        many = f"; median of {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        return f"{self.name}: {self.steps} {BUDGETS[self.budget]} each{tuned}{many}"

    def _edge(self, label: str) -> str:
        """Return a mark where the best rate is at an end of the grid, so that a better one may lie outside."""
        grid = list(self.tried.get(label, ()))
        return "*" if len(grid) > 1 and self.rates[label] in (grid[0], grid[-1]) else ""

    def _footnote(self) -> list[str]:
        edge = any(map(self._edge, self.traces))
        return ["* at an end of the grid: a rate outside may be better; give others with rates="] if edge else []

    __str__ = __repr__ = table

    def draw(self, box: Any = None) -> Figure:
        """Draw the paths over the surface, where it lies in the plane, and beside it the losses.

        Parameters
        ----------
        box : two intervals, optional
            What part of the plane to show; needed for the paths over a function that is no Surface.
        """
        from .contours import Scene, draw_legend
        flat = box is not None or getattr(self.surface, "dimensions", None) == 2
        legend = {label: f"{text}, {self.traces[label].evaluations[-1]} gradients"
                  for label, text in self.legend().items()}
        with styled():
            fig = figure(9.0 if flat else 7.0, 5.2)
            panels = fig.subplots(1, 2 if flat else 1, squeeze=False)[0]
            if flat:
                scene = Scene(self.surface, self.traces, box, 151)
                scene.draw_ground(panels[0])
                for label in self.traces:
                    scene.draw_path(panels[0], label)[0].set_label(legend[label])
            else:
                fig.suptitle(self.name, x=0.02, ha="left", fontsize="large")
            self._draw_losses(panels[-1], legend)
            draw_legend(fig, panels[0])
        return fig

    def _draw_losses(self, axes: Any, legend: dict[str, str]) -> None:
        """Draw the losses against what was spent, and bold their running median over a tenth of the points."""
        # Nothing is seen below the rounding of the losses themselves.
        above = {label: curve if self.lowest is None else np.maximum(curve - self.lowest, 1e-16)
                 for label, curve in self.losses.items()}
        for k, (label, look) in enumerate(looks(above).items()):
            trace, curve = self.traces[label], above[label]
            spent = np.append(0, trace.evaluations if self.budget == "gradients" else np.arange(len(trace)) + 1)
            width = _tenth(len(spent))
            median = np.array([np.median(curve[spent[max(0, n - width):n]]) for n in range(1, len(spent) + 1)])
            axes.step(np.arange(len(curve)), _finite(curve), where="post", color=look.color, linewidth=0.9, alpha=0.35)
            axes.plot(spent, _finite(median), color=look.color, linestyle=look.linestyle, marker=look.marker,
                      markersize=5, markevery=(k % len(spent), max(1, len(spent) // 8)), label=legend[label])
        seen = np.concatenate([curve[np.isfinite(curve)] for curve in above.values()])
        if seen.min() > 0:
            axes.set_yscale("log")
            axes.set_ylim(top=2 * min(seen.max(), 1e3 * next(iter(above.values()))[0]))
        else:
            axes.set_yscale("symlog")
            axes.yaxis.get_major_locator().set_params(numticks=8)
        axes.set(xlabel=BUDGETS[self.budget])
        axes.set_title(f"loss{'' if self.lowest is None else ' above the minimum'} (bold: its running median)",
                       fontsize="medium")

    def to_gif(self, path: str | PathLike, **options: Any) -> Path:
        """Write the race as a moving picture; see `tg.lab.to_gif` for the options."""
        from .animations import to_gif
        return to_gif(self._by_legend(), self.surface, path, **options)

    def to_html(self, path: str | PathLike, box: Any = None) -> Path:
        """Write the race as one page that needs nothing else: scrub it, and read the numbers of each step.

        Parameters
        ----------
        path : path-like
        box : two intervals, optional
            What part of the plane to show; needed for a function that is no Surface.
        """
        from . import pages
        page = pages.html_page(self._by_legend(), self.surface, title=f"{self.name}: {', '.join(self.traces)}", box=box)
        Path(path).write_text(page, encoding="utf-8")
        return Path(path)

    def _by_legend(self) -> dict[str, Trace]:
        return {text: self.traces[label] for label, text in self.legend().items()}


def race(optimizers: Any, surface: Any, steps: int = 100, fair: bool = True, seeds: int | Sequence[int] = 1,
         start: Any = None, rates: Iterable[float] | None = None, budget: str = "gradients") -> Race:
    """Let optimizers minimise a function from the same start, and return what they did.

    Parameters
    ----------
    optimizers : iterable or mapping
        Of names, classes, (name or class, options) pairs, and functions of (name, Tensor) pairs and lr; or a mapping
        of labels to such.
    surface : Surface, str or callable
        A surface, its name, or a function of a Tensor, which needs `start`.
    steps : int, default 100
        How many gradients each may take; whoever would exceed it by a whole step stops before.
    fair : bool, default True
        Give each the learning rate, of one grid for all, with which it reaches the lowest loss, the smallest where
        several do. Methods that take no lr, those of second order, for which 1 is Newton's step, and functions
        without an argument `lr` run as they are. False: all run as they are, with the lr of their options.
    seeds : int or sequence of int, default 1
        Of a surface whose steps see samples: how many, or which. The median counts.
    start : array_like, optional
        Where all begin; by default where the surface says.
    rates : iterable of float, optional
        The grid; by default 21 from 1e-4 to 10, four to a power of ten.
    budget : {"gradients", "steps"}, default "gradients"
        What `steps` counts: gradients, of which SAM takes two a step and L-BFGS many, and a product with the Hessian
        is one; or steps, however dear.

    Returns
    -------
    Race

    Raises
    ------
    TypeError, ValueError
        When a name is unknown, an argument out of range, or one of them cannot run on this function.

    Notes
    -----
    What is drawn is what ran: `race.traces[label]` is, to the bit, what `record` returns for the same rate, seed and
    number of steps. A method that draws numbers, such as AdaHessian, finds the default generator seeded likewise.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> race = tg.lab.race(["sgd", ("sgd", dict(momentum=0.9)), "adam"], "ravine", rates=[0.01, 0.1, 1])
    >>> race
    ravine: 100 gradient evaluations each; lr the best of 3 from 0.01 to 1
       optimizer             lr  steps  gradients  above the minimum
    1  Adam                 0.1    100        100          0.0003871
    2  SGD(momentum=0.9)  0.01*    100        100           0.001073
    3  SGD                0.01*    100        100             0.4583
    * at an end of the grid: a rate outside may be better; give others with rates=
    """
    contestants = _contestants(optimizers, fair)
    course = _Course(surface, start, whole("steps", steps), budget)
    seeds, grid = _seeds(seeds), _grid(rates, fair)
    for contestant in contestants:
        _try_out(contestant, course, grid[0], seeds[0])
    found = Race(course.function, budget, steps, seeds)
    for contestant in contestants:
        _enter(found, contestant, course, grid if contestant.tunable else (None,))
    return found


def _enter(result: Race, contestant: _Contestant, course: _Course, grid: tuple[float | None, ...]) -> None:
    """Find the rate of a contestant, run it, and note what happened."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)     # that a rate is too large is what is being found out
        runs = {rate: [course.walk(contestant, rate, seed) for seed in result.seeds] for rate in grid}
    tried = {rate: float(np.median([course.reached(walk) for walk in walks])) for rate, walks in runs.items()}
    rate = min(tried, key=tried.__getitem__)        # the first of equals, which is the smallest
    walks, label = runs[rate], contestant.label
    typical = sorted(range(len(walks)), key=lambda k: course.reached(walks[k]))[(len(walks) - 1) // 2]
    with _seeded(result.seeds[typical]):
        trace = record(lambda params: contestant.make(params, rate), course.function, len(walks[typical].points) - 1,
                       course.start, seed=result.seeds[typical])
    result.traces[label] = trace
    result.rates[label] = rate if rate is not None else trace.options.get("lr")
    result.reached[label] = tried[rate]
    result.losses[label] = np.median([course.curve(walk) for walk in walks], axis=0)
    if contestant.tunable:
        result.tried[label] = tried


@dataclass
class _Contestant:
    """Who takes part: what makes it, and whether its rate is to be tuned."""

    label: str
    maker: Callable[..., Optimizer]
    options: dict[str, Any]
    tunable: bool

    def make(self, params: Any, rate: float | None) -> Optimizer:
        return self.maker(params, **self.options, **({} if rate is None else {"lr": rate}))


@dataclass
class _Walk:
    """A run without a record: the points, what was spent at each, and whether it came to numbers that are none."""

    objective: Objective
    points: list[list[np.ndarray]]
    spent: list[int]
    diverged: bool


class _Course:
    """What is raced on: a function, where all begin, and what each may spend."""

    def __init__(self, function: Any, start: Any, steps: int, budget: str) -> None:
        if budget not in BUDGETS:
            raise ValueError(f"budget must be one of {', '.join(BUDGETS)}; got {budget!r}")
        if isinstance(function, Module):
            raise TypeError("a race is run on a surface or a function of parameters, got a model; tg.tune.compare "
                            "compares optimizers that train one")
        self.start, self.steps, self.budget = _numbers(start), steps, budget
        objective = Objective(function, self.start)
        self.function, self.name = objective.function, objective.name

    def walk(self, contestant: _Contestant, rate: float | None, seed: int, most: int | None = None) -> _Walk:
        """Run until the budget is spent, `most` steps are made or nothing is finite any more."""
        objective = Objective(self.function, self.start, seed=seed)
        parameters = objective.parameters.values()
        walk = _Walk(objective, [[p.numpy().copy() for p in parameters]], [0], False)
        with _seeded(seed):
            optimizer = make_optimizer(lambda params: contestant.make(params, rate), objective.parameters, {})
            if hasattr(optimizer, "train"):         # as the recorder does
                optimizer.train()
            while walk.spent[-1] < self.steps and not walk.diverged and len(walk.points) - 1 != most:
                t = len(walk.points) - 1
                objective.begin(t)
                try:
                    drive(optimizer, objective, t)
                except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                    if t == 0:
                        raise
                    walk.diverged = True            # what it refuses are numbers that are not finite
                    break
                objective.confine()
                spent = objective.evaluations if self.budget == "gradients" else t + 1
                if spent > self.steps:
                    break
                walk.points.append([p.numpy().copy() for p in parameters])
                walk.spent.append(spent)
                walk.diverged = not all(np.isfinite(p).all() for p in walk.points[-1])
        return walk

    def heights(self, walk: _Walk, first: int = 0) -> np.ndarray:
        """Return the heights on the whole function at the points of a walk from the first asked for, inf for none."""
        found = []
        for point in walk.points[first:]:
            for p, value in zip(walk.objective.parameters.values(), point):
                p.data = value.copy()
            found.append(walk.objective.whole())
        return np.nan_to_num(found, nan=inf, posinf=inf, neginf=-inf)

    def reached(self, walk: _Walk) -> float:
        """Return the median height over the last tenth of the points."""
        return inf if walk.diverged else float(np.median(self.heights(walk, -_tenth(len(walk.points)))))

    def curve(self, walk: _Walk) -> np.ndarray:
        """Return the height after each unit of the budget."""
        now = np.arange(self.steps + 1)
        curve = self.heights(walk)[np.searchsorted(walk.spent, now, side="right") - 1]
        if walk.diverged:
            curve[now > walk.spent[-1]] = inf
        return curve


def _tenth(count: int) -> int:
    return max(1, count // 10)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the default generator inside, and leave it as it was."""
    generator = default_generator()
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


# ---- reading the arguments ----------------------------------------------------------------------------------------


def _contestants(optimizers: Any, fair: bool) -> list[_Contestant]:
    """Return who takes part, under labels that differ."""
    if isinstance(optimizers, (str, type, Optimizer)) or not isinstance(optimizers, Iterable):
        raise TypeError("optimizers must be a list of names, classes, (name, options) pairs or functions, or a mapping "
                        f"of labels to these; got {optimizers!r}")
    if isinstance(optimizers, Mapping):
        found = [_contestant(value, fair, str(label)) for label, value in optimizers.items()]
    else:
        found = [_contestant(entry, fair) for entry in optimizers]
    if not found:
        raise ValueError("optimizers is empty; name one or more, such as ['sgd', 'adam']")
    labels = [contestant.label for contestant in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} takes part twice; give different options, or a mapping with labels of your own")
    return found


def _contestant(entry: Any, fair: bool, label: str | None = None) -> _Contestant:
    """Return one, from its name, class, (name, options) pair, function, or the options of whoever the label names."""
    pair = isinstance(entry, (tuple, list)) and len(entry) == 2 and isinstance(entry[1], Mapping)
    what, options = entry if pair else (label, entry) if isinstance(entry, Mapping) else (entry, {})
    maker = optimizer_class(what) if isinstance(what, str) else what
    if not callable(maker) or isinstance(maker, Optimizer):
        raise TypeError("an optimizer in a race is a name, a class, a (name, options) pair or a function of parameters "
                        f"that makes one, so that each run begins afresh; got {entry!r}")
    if fair and "lr" in options:
        raise ValueError(f"a fair race finds the lr of each; leave it out of the options of {label or what}, or race "
                         "with fair=False")
    if label is None:
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        label = getattr(maker, "__name__", type(maker).__name__) + (f"({given})" if given else "")
    check_options(maker, options, label)
    second = isinstance(maker, type) and issubclass(maker, SecondOrder)
    tunable = fair and not second and "lr" in inspect.signature(maker).parameters
    return _Contestant(label, maker, dict(options), tunable)


def _try_out(contestant: _Contestant, course: _Course, rate: float, seed: int) -> None:
    """Raise unless a contestant can take a step on this function, within the budget."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            walk = course.walk(contestant, rate if contestant.tunable else None, seed, most=1)
    except Exception as error:
        raise ValueError(f"{contestant.label} cannot run on {course.name}: {error}") from error
    if len(walk.points) == 1:
        raise ValueError(f"{contestant.label} takes {walk.objective.evaluations} gradients in its first step, and each "
                         f"may take {course.steps}; raise steps, or give it fewer iterations a step, say max_iter=1")


def _numbers(start: Any) -> Any:
    """Return a place to start as it is, once all its numbers are finite."""
    for part in start.values() if isinstance(start, Mapping) else () if start is None else (start,):
        try:
            fine = np.isfinite(np.asarray(part.numpy() if isinstance(part, Tensor) else part, dtype="float64")).all()
        except (TypeError, ValueError):
            fine = False
        if not fine:
            raise ValueError(f"start must be finite numbers, such as [1.0, -2.0]; got {start!r}")
    return start


def _seeds(seeds: Any) -> tuple[int, ...]:
    if isinstance(seeds, (Sequence, range, np.ndarray)) and not isinstance(seeds, str):
        if not len(seeds) or not all(isinstance(s, (int, np.integer)) and s >= 0 for s in seeds):
            raise ValueError(f"seeds must be whole numbers of at least 0, one or more, got {seeds!r}")
        return tuple(map(int, seeds))
    return tuple(range(whole("seeds", seeds)))


def _grid(rates: Any, fair: bool) -> tuple[float, ...]:
    if rates is None:
        return RATES
    if not fair:
        raise TypeError("rates is the grid of a fair race; with fair=False give each its own, as in "
                        "('sgd', dict(lr=0.1))")
    try:
        grid = tuple(sorted({float(rate) for rate in rates}))
    except (TypeError, ValueError):
        grid = ()
    if not grid or not 0 < grid[0] <= grid[-1] < inf:
        raise ValueError(f"rates must be one or more positive numbers, such as [0.001, 0.01, 0.1]; got {rates!r}")
    return grid
