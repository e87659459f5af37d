"""CyclicLR and OneCycleLR: learning rates of their own, and momentum against them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from .. import schedule as schedules
from ..ranges import POSITIVE, check
from ..schedule import Schedule
from .base import HyperScheduler, LRScheduler, per_group

if TYPE_CHECKING:
    from ..optimizer import Optimizer


class _Momentum(HyperScheduler):
    """Momentum, or the first beta, between two values of its own."""

    absolute, chainable = True, False

    def __init__(self, optimizer: Optimizer, high: float | list, low: float | list, share: Callable[[float], float],
                 last_epoch: int) -> None:
        self.highs = per_group("max_momentum", optimizer, high)
        self.floors = per_group("base_momentum", optimizer, low)
        self.fns = [share] * len(self.highs)
        key = next((key for option, key in (("betas", "beta1"), ("momentum", "momentum"))
                    if option in optimizer.defaults), None)
        if key is None:
            raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled; "
                             f"{type(optimizer).__name__} has neither, pass cycle_momentum=False")
        self._attach(optimizer, key, last_epoch)

    def _own_starts(self, origin: list[float]) -> list[float]:
        return self.highs


class CyclicLR(LRScheduler):
    """Swing between `base_lr` and `max_lr` (Smith, arXiv 1506.01186), momentum the other way.

    Parameters
    ----------
    optimizer : Optimizer
        Its own learning rates are replaced.
    base_lr, max_lr : float, or list of floats
        For all groups or one for each.
    step_size_up, step_size_down : int, default 2000
        Steps of the rise and of the fall; the fall is as long unless given.
    mode : {"triangular", "triangular2", "exp_range"}
        Each time as high, half as high, or gamma ** t times as high.
    gamma : float, default 1.0
    scale_fn : callable, optional
        In place of a mode: the height as a function of the cycle (from 1) or the step.
    scale_mode : {"cycle", "iterations"}
        Which of the two.
    cycle_momentum : bool, default True
        Write `momentum`, or the first of `betas`, too.
    base_momentum, max_momentum : float, or list of floats, default 0.8 and 0.9
        Momentum at the highest and at the lowest learning rate.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import CyclicLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1, momentum=0.9)
    >>> CyclicLR(optimizer, base_lr=0.01, max_lr=0.03, step_size_up=2).table(5)
    t  lr
    0  0.01
    1  0.02
    2  0.03
    3  0.02
    4  0.01
    """

    absolute = closed = True
    formula = schedules.cyclic
    settings = "step_size_up", "step_size_down", "mode", "gamma", "scale_fn", "scale_mode"

    def __init__(self, optimizer: Optimizer, base_lr: float | list, max_lr: float | list, step_size_up: int = 2000,
                 step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
                 scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: float | list = 0.8, max_momentum: float | list = 0.9,
                 last_epoch: int = -1) -> None:
        self.floors, self.max_lrs = per_group("base_lr", optimizer, base_lr), per_group("max_lr", optimizer, max_lr)
        self.step_size_up, self.step_size_down = step_size_up, step_size_down
        self.mode, self.gamma, self.scale_fn, self.scale_mode = mode, gamma, scale_fn, scale_mode
        check("CyclicLR", "step_size_up", step_size_up, POSITIVE)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.parts = [_Momentum(optimizer, max_momentum, base_momentum, self._momentum_share, last_epoch)]
        if last_epoch == -1:
            for group, low in zip(optimizer.param_groups, self.floors):
                group["lr"] = low
        super().__init__(optimizer, last_epoch)

    @property
    def base_lrs(self) -> list[float]:
        """The lowest learning rate of each group."""
        return self.floors

    def _momentum_share(self, t: float) -> float:
        return 1 - self.schedule(t)

    def _own_starts(self, origin: list[float]) -> list[float]:
        return self.max_lrs


@lru_cache
def _phases(steps: int, pct_start: float, anneal_strategy: str, three_phase: bool, start: float, peak: float,
            end: float) -> Schedule:
    shape = "cosine" if anneal_strategy == "cos" else "linear"
    return schedules.one_cycle(steps, pct_start, shape, start, peak, end, three_phase)


class OneCycleLR(LRScheduler):
    """Go up to `max_lr` and down to almost nothing, once (Smith & Topin, arXiv 1708.07120), momentum the other way.

    Parameters
    ----------
    optimizer : Optimizer
        Its own learning rates are replaced.
    max_lr : float, or list of floats
        For all groups or one for each.
    total_steps : int, optional
        How many times `step()` may be called; or
    epochs, steps_per_epoch : int, optional
        its factors.
    pct_start : float, default 0.3
        The share of the steps that goes up, in [0, 1].
    anneal_strategy : {"cos", "linear"}
    cycle_momentum : bool, default True
        Write `momentum`, or the first of `betas`, too.
    base_momentum, max_momentum : float, or list of floats, default 0.85 and 0.95
        Momentum at the highest and at the lowest learning rate.
    div_factor : float, default 25
        It begins at max_lr / div_factor
    final_div_factor : float, default 1e4
        and ends at 1 / final_div_factor of that.
    three_phase : bool, default False
        Come down to where it began as fast as it went up, and then go to the end.
    last_epoch : int, default -1

    Raises
    ------
    ValueError
        At the step after the last, saying how the number of steps came about. (What the last step leaves lies a
        little beyond the end of the curve, as in torch; no step of the optimizer is meant to use it.)

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import OneCycleLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1, momentum=0.9)
    >>> OneCycleLR(optimizer, max_lr=0.1, total_steps=10).table(4)
    t  lr
    0  0.004
    1  0.052
    2  0.1
    3  0.0950485
    """

    absolute = closed = True
    settings = "total_steps", "pct_start", "anneal_strategy", "three_phase", "div_factor", "final_div_factor"

    @staticmethod
    def formula(steps: int, pct_start: float, anneal_strategy: str, three_phase: bool, div_factor: float,
                final_div_factor: float) -> Schedule:
        """Return the factors of `max_lr`."""
        return _phases(steps, pct_start, anneal_strategy, three_phase, 1 / div_factor, 1.0,
                       1 / div_factor / final_div_factor)

    def __init__(self, optimizer: Optimizer, max_lr: float | list, total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float | list = 0.85,
                 max_momentum: float | list = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4,
                 three_phase: bool = False, last_epoch: int = -1) -> None:
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
        given = (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)) if total_steps is None else (
            ("total_steps", total_steps),)
        for name, value in given:
            if not isinstance(value, int) or value <= 0:
                raise ValueError(f"Expected positive integer {name}, but got {value}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        check("OneCycleLR", "div_factor", div_factor, POSITIVE)
        check("OneCycleLR", "final_div_factor", final_div_factor, POSITIVE)
        self.total_steps = total_steps if total_steps is not None else epochs * steps_per_epoch
        self._count = f"{self.total_steps}" + (f" = epochs ({epochs}) x steps_per_epoch ({steps_per_epoch})"
                                               if total_steps is None else "")
        self.pct_start, self.anneal_strategy, self.three_phase = pct_start, anneal_strategy, three_phase
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.parts = [_Momentum(optimizer, max_momentum, base_momentum, self._momentum_share, last_epoch)]
        if last_epoch == -1:
            for group, high in zip(optimizer.param_groups, self.max_lrs):
                group["initial_lr"] = high / div_factor
        super().__init__(optimizer, last_epoch)

    @property
    def base_lrs(self) -> list[float]:
        """The learning rate that each group begins with."""
        return [high / self.div_factor for high in self.bases]

    def share(self, t: float, k: int) -> float:
        """Return the factor of `max_lr`."""
        if t > self.total_steps:
            raise ValueError(f"Tried to step {t} times. The specified number of total steps is {self._count}; make "
                             "that as many as there are calls of step(): batches of the loader x epochs")
        return super().share(t, k)

    def _momentum_share(self, t: float) -> float:
        return _phases(self.total_steps, self.pct_start, self.anneal_strategy, self.three_phase, 1.0, 0.0, 1.0)(t)

    def _own_starts(self, origin: list[float]) -> list[float]:
        return self.max_lrs
