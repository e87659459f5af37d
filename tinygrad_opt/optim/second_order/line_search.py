"""The strong Wolfe line search, by cubic interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Trial:
    """A point on the line.

    Attributes
    ----------
    t : float
        How far along the direction; 0 is the start.
    value, slope : float
        The loss there and its derivative along the direction.
    at : object
        What the caller wants to keep of this point.
    """

    t: float
    value: float
    slope: float
    at: Any = None

    @property
    def finite(self) -> bool:
        """Whether both numbers are."""
        return math.isfinite(self.value) and math.isfinite(self.slope)


def strong_wolfe(evaluate: Callable[[float], Trial], start: Trial, t: float, c1: float = 1e-4, c2: float = 0.9,
                 least: float = 1e-9, most: float = 26) -> Trial:
    """Search along a line for a point that lowers the loss enough and is flat enough.

    Enough is the strong Wolfe condition (Nocedal & Wright 2006, section 3.5): a loss of at most
    `start.value + c1 * t * start.slope`, a slope of at most c2 times the first in size. The search widens until a
    minimum lies between two trials, then narrows. A trial that is not finite is too far.

    Parameters
    ----------
    evaluate : callable
        `evaluate(t)` returns the trial at t.
    start : Trial
        At t = 0; its slope is negative.
    t : float
        The first trial, above 0.
    c1, c2 : float, default 1e-4 and 0.9
        With 0 < c1 < c2 < 1.
    least : float, default 1e-9
        The interval below which narrowing ends.
    most : int, default 26
        Trials.

    Returns
    -------
    Trial
        The first that is enough, else the lowest of the last interval: `start` itself where no trial was lower.

    Examples
    --------
    >>> from tinygrad_opt.optim.second_order.line_search import Trial, strong_wolfe
    >>> parabola = lambda t: Trial(t, (t - 3) ** 2, 2 * (t - 3))
    >>> found = strong_wolfe(parabola, parabola(0.0), 10.0)
    >>> round(found.t, 6), round(found.value, 6)
    (3.0, 0.0)
    """
    def low(trial: Trial) -> bool:
        return trial.finite and trial.value <= start.value + c1 * trial.t * start.slope

    def flat(trial: Trial) -> bool:
        return abs(trial.slope) <= -c2 * start.slope

    last, trial, count = start, evaluate(t), 1
    while low(trial) and (count < 3 or trial.value < last.value):
        if flat(trial):
            return trial
        if trial.slope >= 0 or count >= most:
            break
        t = _within(_cubic(last, trial), trial.t + 0.01 * (trial.t - last.t), 10 * trial.t)
        last, trial, count = trial, evaluate(t), count + 1
    lower, upper = (trial, last) if low(trial) and trial.value < last.value else (last, trial)
    hesitated = False
    while count < most and abs(upper.t - lower.t) >= least:
        t, hesitated = _between(lower, upper, hesitated)
        trial, count = evaluate(t), count + 1
        if not low(trial) or trial.value >= lower.value:
            upper = trial
        elif flat(trial):
            return trial
        else:
            lower, upper = trial, (lower if trial.slope * (upper.t - lower.t) >= 0 else upper)
    return lower


def _between(lower: Trial, upper: Trial, hesitated: bool) -> tuple[float, bool]:
    """Return the next trial inside an interval, and whether it hesitates near an end.

    Near an end the first such trial is let pass and the second moved a tenth of the interval inwards.
    """
    if not upper.finite:
        return lower.t + 0.2 * (upper.t - lower.t), False
    left, right = sorted((lower.t, upper.t))
    t, margin = _within(_cubic(lower, upper), left, right), 0.1 * (right - left)
    if min(right - t, t - left) >= margin:
        return t, False
    if not hesitated and left < t < right:
        return t, True
    return (right - margin if right - t < t - left else left + margin), False


def _cubic(a: Trial, b: Trial) -> float:
    """Return where the cubic through two values and slopes has its minimum; NaN where it has none."""
    if a.t > b.t:
        a, b = b, a
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1 ** 2 - a.slope * b.slope
    if not square >= 0:
        return math.nan
    d2 = math.sqrt(square)
    divisor = b.slope - a.slope + 2 * d2
    return b.t - (b.t - a.t) * (b.slope + d2 - d1) / divisor if divisor else math.nan


def _within(t: float, low: float, high: float) -> float:
    """Return t inside bounds, their middle for NaN."""
    return (low + high) / 2 if math.isnan(t) else min(max(t, low), high)
