"""Trials: one setting of the hyper-parameters, tried out, and the record that stays of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

GO_ON, PRUNE, STOP = "go on", "prune", "stop"       # what an objective that reports is told


class Pruned(Exception):
    """Raised inside of an objective: this trial is not worth going on with, or the budget is spent."""


@dataclass
class TrialRecord:
    """What stays of a trial.

    Attributes
    ----------
    number : int
        Trials are counted from 0, those too that did not come to an end.
    values : dict
        Its hyper-parameters.
    state : {"complete", "pruned"}
    value : float
        What the objective returned; of a pruned trial what it reported last, NaN for nothing.
    reports : dict of int to float
        What it reported, by step.
    gradients : int
        What it spent.
    seconds : float
        How long it took.
    """

    number: int
    values: dict[str, Any]
    state: str
    value: float
    reports: dict[int, float] = field(default_factory=dict)
    gradients: int = 0
    seconds: float = field(default=0.0, compare=False)


class Trial(Mapping):
    """What an objective is given: a mapping of hyper-parameters to values, and where it tells how it fares.

    Parameters
    ----------
    number : int
    values : dict
    listen : callable
        `listen(step, value, gradients)` is told what is reported and spent, and answers whether to go on.
    left : float
        How many gradients may be spent.

    Attributes
    ----------
    gradients : int
        What has been spent so far.
    reports : dict of int to float
        What has been reported so far.
    """

    def __init__(self, number: int, values: dict[str, Any], listen: Callable[[int, float, int], str] | None = None,
                 left: float = math.inf) -> None:
        self.number, self._values, self._listen, self._left = number, values, listen, left
        self.gradients, self.reports = 0, {}

    def __getitem__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise KeyError(f"there is no hyper-parameter {name!r} in this trial; it has "
                           f"{', '.join(self._values)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def report(self, value: float, step: int | None = None) -> None:
        """Tell how good it is so far; raises when others were better at this step.

        Parameters
        ----------
        value : float
            What the objective would return now.
        step : int, optional
            What makes trials comparable, such as the epoch: at least 0 and growing; by default they are counted.

        Raises
        ------
        Pruned
            To end the trial; let it pass.
        """
        last = next(reversed(self.reports), -1)
        step = last + 1 if step is None else int(step)
        if step <= last:
            raise ValueError(f"steps of reports grow from 0; got {step} after {last}")
        self.reports[step] = float(value)
        verdict = self._listen(step, self.reports[step], self.gradients) if self._listen else GO_ON
        if verdict != GO_ON:
            raise Pruned("the budget is spent" if verdict == STOP else f"others were better at step {step}")

    def spend(self, gradient_evaluations: int = 1) -> None:
        """Count gradients that were taken.

        Raises
        ------
        Pruned
            When the budget of the search is spent; let it pass.
        """
        if gradient_evaluations < 0:
            raise ValueError(f"gradient_evaluations must be at least 0, got {gradient_evaluations!r}")
        self.gradients += int(gradient_evaluations)
        if self.gradients > self._left:
            raise Pruned("the budget is spent")

    def __repr__(self) -> str:
        return f"<trial {self.number}: {show(self._values)}>"


def show(values: Mapping[str, Any]) -> str:
    """Return hyper-parameters as one line of text."""
    return ", ".join(f"{name}={show_value(value)}" for name, value in values.items())


def show_value(value: Any) -> str:
    """Return a hyper-parameter as short text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))


def evaluate(objective: Callable[[Trial], float], trial: Trial, worst: float) -> TrialRecord:
    """Let an objective try a trial out, and return the record.

    Parameters
    ----------
    objective : callable
    trial : Trial
    worst : float
        What NaN counts as.

    Raises
    ------
    TypeError
        When the objective returns no number; and what it raises itself, with the trial in a note.
    """
    begin = time.perf_counter()
    try:
        value, state = objective(trial), "complete"
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"an objective returns a number, the value of the trial; it returned "
                            f"{type(value).__name__}") from None
        value = worst if math.isnan(value) else value
    except Pruned:
        value, state = next(reversed(trial.reports.values()), math.nan), "pruned"
    except Exception as error:
        error.add_note(f"in {trial!r}")
        raise
    return TrialRecord(trial.number, dict(trial), state, value, trial.reports, trial.gradients,
                       time.perf_counter() - begin)
