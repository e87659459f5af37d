"""The range test of a learning rate: one short run whose rate grows from step to step, and what its losses say.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186, section 3.3; by equal ratios, with
a stop and a suggestion, as Sylvain Gugger wrote it for fastai.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...optim.optimizer import Optimizer
from ...optim.ranges import POSITIVE, UNIT, Range, check
from ...optim.replay import stepping
from ..arguments import whole
from ..objective import Objective
from ..progress import progress_bar
from ..snapshots import untouched
from ..style import BLUE, INK, ORANGE, VERMILION, figure, styled
from ..traces import drive, make_optimizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAN = float("nan")


@dataclass(eq=False)
class RateRange:
    """What a range test found. The suggested rates are NaN where no rate lowers the loss.

    Attributes
    ----------
    optimizer, function : str
        Who ran on what.
    rates : (n,) array
        The rate of each step.
    losses : (n,) array
        The loss after the step, on the batch of the next one.
    smoothed : (n,) array
        Their means with their neighbours, the weights falling by `smoothing` a step to both sides; of the losses
        after the lowest one, none counts for more than the highest before it.
    divergence : float
        The rate at which the loss left the allowed range or stopped being finite; NaN if it never did.
    """

    optimizer: str
    function: str
    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    divergence: float

    @property
    def slopes(self) -> np.ndarray:
        """How fast the smoothed loss changes, for a factor of e in the rate; an (n,) array."""
        return np.gradient(self.smoothed, np.log(self.rates))

    @property
    def suggestion(self) -> float:
        """The rate where the smoothed loss falls fastest, before its minimum."""
        steepest = int(np.argmin(self.slopes[:np.argmin(self.smoothed) + 1]))
        return float(self.rates[steepest]) if self.slopes[steepest] < 0 else NAN

    @property
    def minimum(self) -> float:
        """The rate where the smoothed loss is lowest: too large to train with, take a tenth of it."""
        return NAN if math.isnan(self.suggestion) else float(self.rates[np.argmin(self.smoothed)])

    def draw(self) -> Figure:
        """Draw the losses over the rates, on a log axis, with the suggestion."""
        with styled():
            fig = figure(7.0, 4.2)
            axes = fig.add_subplot()
            axes.plot(self.rates, self.losses, color=BLUE, alpha=0.35, linewidth=1, label="loss after the step")
            axes.plot(self.rates, self.smoothed, color=BLUE, label="smoothed")
            for rate, words, look in ((self.suggestion, "steepest", dict(color=VERMILION, marker="o")),
                                      (self.minimum / 10, "a tenth of the lowest", dict(color=ORANGE, marker="s"))):
                if rate >= self.rates[0]:
                    height = np.interp(math.log(rate), np.log(self.rates), self.smoothed)
                    axes.plot([rate], [height], linestyle="", markersize=8, label=f"{words}: {rate:.2g}", **look)
            if not math.isnan(self.divergence):
                axes.axvline(self.divergence, color=INK, linestyle=":", linewidth=1.2,
                             label=f"stopped: {self.divergence:.2g}")
            low, top = self.losses.min(), _ceiling(self.losses)
            axes.set(xscale="log", xlabel="learning rate", ylabel="loss",
                     title=f"range test of {self.optimizer} on {self.function}")
            if top > low:
                axes.set_ylim(low - 0.1 * (top - low), top + 0.2 * (top - low))
            axes.legend(loc="best")
        return fig

    def __repr__(self) -> str:
        words = (f"steepest at {self.suggestion:.2g}, lowest at {self.minimum:.2g}" if not math.isnan(self.suggestion)
                 else "no rate lowers the loss")
        end = "" if math.isnan(self.divergence) else f", stopped at {self.divergence:.2g}"
        return f"<range test of {self.optimizer} on {self.function}: {words}{end}>"


def lr_find(model: Any, data: Any = None, loss: Callable | None = None, optimizer: Any = "adamw",
            smallest: float = 1e-7, largest: float = 10.0, steps: int = 100, stop: float = 3.0,
            smoothing: float = 0.8, start: Any = None, seed: int = 0, progress: bool = True,
            **options: Any) -> RateRange:
    """Train for some steps with a rate that grows by equal ratios, and find where the loss falls fastest.

    Afterwards the model, a made optimizer, the generators and the order of the batches are as they were, to the bit,
    also when the test fails.

    Parameters
    ----------
    model : Module, Surface, str or callable
        A model; or a surface, its name, or a function of Tensors.
    data : (x, y) or iterable of (x, y), optional
        For a model: a batch, or batches, which are gone through again and again.
    loss : callable, optional
        For a model: from its outputs and y to a scalar.
    optimizer : str, class, callable or Optimizer, default "adamw"
        As `record` takes it; one that is made keeps the ratios between the rates of its groups, and the rates here are
        those of the first.
    smallest, largest : float, default 1e-7 and 10
        The first rate and the last, above 0.
    steps : int, default 100
        How many rates, at least 3.
    stop : float, default 3
        Stop when the smoothed loss so far is so many times the lowest smoothed one, above 1.
    smoothing : float, default 0.8
        How much of the weight a loss has in the mean of the next one, in [0, 1); more for noisier batches.
    start : array_like or mapping, optional
        Where a function begins.
    seed : int, default 0
        Of a surface whose steps see samples.
    progress : bool, default True
        Show a progress bar, in a terminal or a notebook, where it takes longer than a second.
    **options
        Of an optimizer that is given by name or class; not lr.

    Returns
    -------
    RateRange

    Raises
    ------
    TypeError, ValueError
        When an argument is out of range, the optimizer has no rate to find, or the first losses are not finite.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.lab.lr_find("ravine", optimizer="sgd")
    <range test of SGD on ravine: steepest at 0.00076, lowest at 0.031, stopped at 0.11>
    """
    steps = whole("steps", steps, 3)
    _check(smallest, largest, stop, smoothing, options)
    if hasattr(data, "__next__"):
        raise TypeError("data can be gone through only once, and its batches would be lost to the training; pass a "
                        "list or a DataLoader")
    with untouched(model, optimizer, data=data):
        objective = Objective(model, start, data, loss, seed)
        made = make_optimizer(optimizer, objective.parameters, options)
        _check_optimizer(made)
        rates = np.geomspace(smallest, largest, steps)
        with progress_bar([*rates, rates[-1]], steps + 1, f"rates for {objective.name}", progress) as bar:
            losses = _run(made, objective, enumerate(bar), steps, stop, smoothing)
    stopped = len(losses) < steps or not math.isfinite(losses[-1])
    divergence = float(rates[len(losses) - 1]) if stopped else NAN
    losses = losses if math.isfinite(losses[-1]) else losses[:-1]
    if len(losses) < 2:
        raise ValueError(f"the loss is not finite after a step at {divergence:.2g} already; choose a smaller "
                         "`smallest`, or look for a NaN in the model or its data with tg.lab.PostMortem")
    found = np.array(losses)
    return RateRange(type(made).__name__, objective.name, rates[:len(found)], found, _smooth(found, smoothing),
                     divergence)


def _run(optimizer: Optimizer, objective: Objective, rates: Iterable[tuple[int, float]], steps: int, stop: float,
         smoothing: float) -> list[float]:
    """Return the loss after a step at each rate, up to the one at which it diverges."""
    if hasattr(optimizer, "train"):                 # a schedule-free one, which takes gradients at another point
        optimizer.train()
    for inner in stepping(optimizer):
        inner._warned = True                        # it is known here that large rates lead to NaN
    losses: list[float] = []
    mean = weight = 0.0
    lowest = math.inf
    for t, rate in rates:
        optimizer.lr = rate
        objective.begin(t)
        before = float(objective() if t == steps else drive(optimizer, objective, t))
        objective.confine()
        if t == 0 and not math.isfinite(before):
            raise ValueError(f"the loss of {objective.name} is {before} before any step; no rate mends that. Look for "
                             "a NaN in its parameters or its data, or a logarithm or a quotient of zero")
        if t == 0:
            continue
        losses.append(before)
        mean, weight = smoothing * mean + (1 - smoothing) * before, smoothing * weight + 1 - smoothing
        lowest = min(lowest, mean / weight)
        if not math.isfinite(before) or mean / weight - lowest > (stop - 1) * abs(lowest):
            break
    return losses


def _smooth(losses: np.ndarray, smoothing: float) -> np.ndarray:
    """Return means over neighbours at both sides, so that a fall is shown where it is and not later."""
    apart = np.abs(np.subtract.outer(np.arange(len(losses)), np.arange(len(losses))))
    weights = float(smoothing) ** apart
    return weights @ np.minimum(losses, _ceiling(losses)) / weights.sum(axis=1)


def _ceiling(losses: np.ndarray) -> float:
    """Return the highest loss up to the lowest one; what is above it after that is the divergence."""
    return float(losses[:np.argmin(losses) + 1].max())


def _check(smallest: float, largest: float, stop: float, smoothing: float, options: dict) -> None:
    for name, value, allowed in (("smallest", smallest, POSITIVE), ("largest", largest, POSITIVE),
                                 ("stop", stop, Range("(1, inf]")), ("smoothing", smoothing, UNIT)):
        check("lr_find", name, value, allowed)
    if not smallest < largest:
        raise ValueError(f"lr_find: rates go from smallest to largest, 0 < smallest < largest < inf; got {smallest!r} "
                         f"and {largest!r}")
    if "lr" in options:
        raise TypeError("lr_find looks for lr itself; leave it out, and give smallest and largest")


def _check_optimizer(optimizer: Optimizer) -> None:
    name = type(optimizer).__name__
    if "lr" not in optimizer.param_groups[0]:
        raise ValueError(f"{name} has no lr to find: it takes its steps without one")
    if any("lr" in inner.read_once for inner in stepping(optimizer)):
        raise ValueError(f"{name} reads lr at its first step alone, so that a rate that grows would not be seen")
