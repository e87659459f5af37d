"""Schedules as curves: what a schedule or a scheduler will write, before it writes it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ...optim.lr_scheduler import HyperScheduler, ReduceLROnPlateau
from ...optim.schedule import Schedule, as_schedule
from ..arguments import whole
from ..style import figure, looks, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def schedule_values(schedules: Any, steps: int, metric: Any = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return what schedules say for the coming steps; none of them moves.

    Parameters
    ----------
    schedules : Schedule, callable, scheduler, list or mapping of names to these
        Functions of the step from 0, which begin there; or schedulers of an optimizer, which begin where they stand.
        A scheduler of several groups gives a curve for each in which they differ.
    steps : int
        How many values, at least 1.
    metric : callable or iterable of float, optional
        For a ReduceLROnPlateau, which follows one: a function of the step from 0, or steps - 1 values, one an epoch.

    Returns
    -------
    t : (steps,) array of int
        The number of the step, from 0: now.
    values : dict of str to (steps,) array
        By name; those of a list are named by what they are.

    Raises
    ------
    TypeError, ValueError
        When something is no schedule, steps is below 1, or a metric is missing or too short.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.schedule import cosine, warmup
    >>> t, values = tg.lab.schedule_values({"mine": 0.1 * (warmup(2) >> cosine(4))}, 5)
    >>> values["mine"].round(3).tolist()
    [0.0, 0.05, 0.1, 0.085, 0.05]
    """
    steps = whole("steps", steps)
    values: dict[str, np.ndarray] = {}
    for name, one in _named(schedules).items():
        rows = np.array(_rows(one, steps, metric), dtype="float64")
        curves = rows.T if np.ptp(rows, axis=1).any() else rows.T[:1]
        values |= {f"{name}, group {k}" if len(curves) > 1 else name: curve for k, curve in enumerate(curves)}
    return np.arange(steps), values


def draw_schedule(schedules: Any, steps: int, metric: Any = None) -> Figure:
    """Draw schedules over the coming steps, several in one figure.

    Parameters
    ----------
    schedules, steps, metric
        As for `schedule_values`, which gives the numbers.

    Returns
    -------
    Figure
        Of matplotlib.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.schedule import cosine, linear, one_cycle
    >>> figure = tg.lab.draw_schedule([cosine(100), linear(100), one_cycle(100)], 100)
    >>> [line.get_label() for line in figure.axes[0].get_lines()]
    ['cosine(100)', 'linear(100)', 'one_cycle(100)']
    """
    t, values = schedule_values(schedules, steps, metric)
    kinds = {getattr(one, "key", "value") for one in _named(schedules).values()}
    with styled():
        fig = figure(7.6, 3.6)
        axes = fig.add_subplot()
        for (name, curve), look in zip(values.items(), looks(values).values()):
            axes.plot(t, curve, label=name, color=look.color, linestyle=look.linestyle,
                      marker=look.marker if steps == 1 else None)
        axes.set(xlabel="step", ylabel=", ".join(sorted(kinds)).replace("lr", "learning rate"))
        axes.set_ylim(min(0.0, axes.get_ylim()[0]) if min(map(np.min, values.values())) < 0 else 0.0)
        if len(values) > 1:
            fig.legend(loc="outside right upper")
        else:
            axes.set_title(next(iter(values)))
    return fig


def _named(schedules: Any) -> dict[str, Any]:
    """Return schedules by name, each name once."""
    several = schedules if isinstance(schedules, (list, tuple, Mapping)) else [schedules]
    if not several:
        raise ValueError("there is no schedule to look at; pass one, or a list or a mapping of names to schedules")
    if isinstance(several, Mapping):
        return dict(several)
    named: dict[str, Any] = {}
    for one in several:
        name = type(one).__name__ if isinstance(one, HyperScheduler) else repr(as_schedule(one))
        taken = sum(other.partition(" #")[0] == name for other in named)
        named[f"{name} #{taken + 1}" if taken else name] = one
    return named


def _rows(one: Any, steps: int, metric: Any) -> list[tuple[float, ...]]:
    """Return the values of all groups at each step."""
    if isinstance(one, ReduceLROnPlateau):
        return _plateau(one, steps, metric)
    table = one.table(steps) if isinstance(one, (HyperScheduler, Schedule)) else as_schedule(one).table(steps)
    return [tuple(row)[1:] for row in table]


def _plateau(scheduler: ReduceLROnPlateau, steps: int, metric: Callable | Iterable[float] | None) -> list[tuple]:
    """Step a copy along a metric."""
    if metric is None:
        raise ValueError("ReduceLROnPlateau follows a metric: pass metric=, a function of the step or a value an epoch")
    told = map(metric, range(steps - 1)) if callable(metric) else islice(metric, steps - 1)
    twin = copy.deepcopy(scheduler)                 # with a copy of its optimizer
    rows = [tuple(twin.get_last_lr())]
    for value in told:
        twin.step(value)
        rows.append(tuple(twin.get_last_lr()))
    if len(rows) < steps:
        raise ValueError(f"metric has {len(rows) - 1} values; {steps} steps need one less than their number, "
                         f"{steps - 1}")
    return rows
