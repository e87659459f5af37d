"""Comparing: every optimizer is tuned with the same means, and judged on seeds that its tuning has not seen."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lab.racing.races import _Contestant, _contestants
from ..lab.style import figure, looks, styled
from ..optim.second_order.base import SecondOrder
from . import tasks
from .results import Search, align
from .searching import search
from .spaces import Choice, Interval, Space, log
from .trials import Trial, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE = log(1e-4, 10.0)                              # of those whose lr is not given


@dataclass(eq=False)
class Comparison:
    """How optimizers compare; printed as a table.

    Attributes
    ----------
    task : str
    seeds : tuple of int
        What they are judged on.
    searches : dict of str to Search
        By label, the tuning; of those that had something to tune.
    options : dict of str to dict
        What each was judged with: what was given, and what its tuning found.
    values : dict of str to (seeds,) array
        What it came to; inf where it diverged.
    curves : dict of str to (places, heights)
        What it reported: after how many gradients, (n,), and the values then, (seeds, n).
    """

    task: str
    seeds: tuple[int, ...]
    searches: dict[str, Search] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def quartiles(self, label: str) -> tuple[float, float, float]:
        """Return the lower quartile, the median and the upper quartile of an optimizer's values."""
        return tuple(float(value) for value in _quartiles(self.values[label]))

    def ranking(self) -> list[str]:
        """Return the labels, whoever has the lowest median first."""
        return sorted(self.values, key=lambda label: self.quartiles(label)[1])

    def table(self) -> str:
        """Return the ranking as aligned text."""
        rows = [["", "optimizer", "median", "quartiles", "trials", "gradients", "with"]]
        for place, label in enumerate(self.ranking(), start=1):
            low, median, high = (f"{value:.4g}" if math.isfinite(value) else "diverged"
                                 for value in self.quartiles(label))
            tuning = self.searches.get(label)
            rows.append([str(place), label, median, f"{low} to {high}",
                         *(["", ""] if tuning is None else [str(len(tuning.trials)), f"{tuning.gradients:,}"]),
                         show(self.options[label])])
        return "\n".join([f"{self.task}: {len(self.seeds)} seeds that the tuning has not seen", *align(rows, (1, 6))])

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def draw(self) -> Figure:
        """Draw the median of what was reported, with a band from quartile to quartile, over the gradients."""
        with styled():
            fig = figure(8.4, 4.2)
            axes = fig.add_subplot(title=f"{self.task}: median and quartiles of {len(self.seeds)} seeds",
                                   xlabel="gradient evaluations", ylabel="value")
            for label, look in looks(self.curves).items():
                places, heights = self.curves[label]
                low, median, high = (np.where(np.isfinite(line), line, np.nan) for line in _quartiles(heights))
                axes.plot(places, median, color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=4,
                          markevery=max(1, len(places) // 8), label=f"{label}\n{show(self.options[label])}".strip())
                axes.fill_between(places, low, high, color=look.color, alpha=0.15, linewidth=0)
            shown = np.concatenate([heights.ravel() for _, heights in self.curves.values()])
            if shown.min() > 0 and shown[np.isfinite(shown)].max() > 10 * shown.min():
                axes.set_yscale("log")
            fig.legend(loc="outside right center", fontsize="small", labelspacing=1.0)
        return fig


def compare(optimizers: Any, task: Any, trials: int = 20, seeds: int = 5, budget: int | None = None, seed: int = 0,
            prune: Any = False, jobs: int = 1, progress: bool = True) -> Comparison:
    """Tune each optimizer with the same means, and report how it does on seeds that its tuning has not seen.

    Parameters
    ----------
    optimizers : iterable or mapping
        Of names, classes, (name or class, options) pairs, and functions of (name, Tensor) pairs; or a mapping of
        labels to such. An option that is a `tune.log`, `uniform`, `integer` or `choice` is tuned, and so is lr, from
        1e-4 to 10, where it is not given; but not of methods of second order, for which 1 is Newton's step.
    task : callable or str
        `task(make_optimizer, seed, report)`, see `tune.tasks`, where some are ready; or the name of a surface.
    trials : int, default 20
        How many settings are tried for each optimizer, all on one seed, at least 1.
    seeds : int, default 5
        How many others the best setting is judged on, at least 1.
    budget : int, optional
        How many gradients the tuning of each may spend at most.
    seed : int, default 0
        Of the tuning; judged is on those that follow.
    prune : bool, int or optuna.pruners.BasePruner, default False
        As for `search`. Without it, the same number of trials is the same number of gradients.
    jobs, progress
        As for `search`.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError, ValueError
        When an argument is none that can be, or an optimizer cannot run on the task.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> momentum = ("sgd", {"momentum": tg.tune.uniform(0.5, 0.99)})
    >>> comparison = tg.tune.compare(["sgd", momentum, "adam"], "ravine", trials=15, progress=False)
    >>> comparison.ranking()[-1], len(comparison.searches["SGD"].trials), comparison.values["SGD"].shape
    ('SGD', 15, (5,))
    """
    if not callable(task) and not isinstance(task, str):
        raise TypeError("task must be a function of make_optimizer, seed and report, such as tune.tasks.digits(), or "
                        f"the name of a surface; got {task!r}")
    for argument, value in (("seeds", seeds), ("trials", trials)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{argument} must be a whole number of at least 1, got {value!r}")
    task = tasks.surface(task) if isinstance(task, str) else task
    name = getattr(task, "name", getattr(task, "__name__", type(task).__name__))
    found = Comparison(name, tuple(range(seed + 1, seed + 1 + seeds)))
    for contestant in _contestants(optimizers, fair=False):
        space = _space(contestant)
        label = contestant.label
        for name, part in space.items():
            label = label.replace(f"{name}={part!r}", name)
        attempt = Attempt(contestant, task)
        chosen = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)     # that a rate is too large is what is being found out
            if space:
                found.searches[label] = search(
                    partial(attempt.try_out, seed), space, trials, seed, prune=prune, budget=budget, name=label,
                    jobs=jobs, progress=progress)
                chosen = found.searches[label].best
            runs = [attempt.run(chosen, s) for s in found.seeds]
        found.options[label] = {**chosen, **{k: v for k, v in contestant.options.items() if k not in chosen}}
        found.values[label] = np.array([value for value, _ in runs])
        found.curves[label] = _aligned([curve for _, curve in runs])
    return found


def _space(contestant: _Contestant) -> Space:
    """Return what there is to tune."""
    space = {name: part for name, part in contestant.options.items() if isinstance(part, (Interval, Choice))}
    maker = contestant.maker
    second = isinstance(maker, type) and issubclass(maker, SecondOrder)
    takes = inspect.signature(maker.__init__ if isinstance(maker, type) else maker).parameters
    if not second and "lr" in takes and "lr" not in contestant.options:
        space = {"lr": RATE, **space}
    return space


@dataclass(frozen=True)
class Attempt:
    """An optimizer on a task.

    Attributes
    ----------
    contestant : _Contestant
        Who is to be compared.
    task : callable
    """

    contestant: _Contestant
    task: Callable[..., float]

    def make(self, values: dict[str, Any], params: Any) -> Any:
        """Return the optimizer with some values of its hyper-parameters."""
        return self.contestant.maker(params, **{**self.contestant.options, **values})

    def try_out(self, seed: int, trial: Trial) -> float:
        """Run with the hyper-parameters of a trial: the objective of a search."""
        def report(value: float, gradients: int) -> None:
            trial.spend(gradients - trial.gradients)
            trial.report(value, gradients)
        return self.task(partial(self.make, dict(trial)), seed, report)

    def run(self, values: dict[str, Any], seed: int) -> tuple[float, dict[int, float]]:
        """Run, and return the value and what was reported, by gradients."""
        curve: dict[int, float] = {}

        def report(value: float, gradients: int) -> None:
            curve[int(gradients)] = float(value)
        value = float(self.task(partial(self.make, values), seed, report))
        return math.inf if math.isnan(value) else value, curve


def _aligned(curves: Sequence[dict[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return all places at which something was reported, and each curve there: its last report until then."""
    places = np.array(sorted({place for curve in curves for place in curve}))
    heights = np.full((len(curves), len(places)), np.nan)
    for row, curve in zip(heights, curves):
        known = np.array(sorted(curve))
        if len(known):
            last = np.searchsorted(known, places, side="right") - 1
            row[:] = [curve[known[max(0, k)]] for k in last]
    return places, heights


def _quartiles(values: np.ndarray) -> np.ndarray:
    """Return quartiles over the first axis; by ranks, so that one infinite value spoils no other."""
    return np.quantile(values, (0.25, 0.5, 0.75), axis=0, method="nearest")
