"""Schedulers that are one factor of the step: constants, lines, powers, stairs, and functions of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .. import schedule as schedules
from ..ranges import NONNEGATIVE, POSITIVE, check
from ..schedule import CLOSED_UNIT, Schedule
from .base import LRScheduler, functions, per_group

if TYPE_CHECKING:
    from ..optimizer import Optimizer


class LambdaLR(LRScheduler):
    """Multiply by a function of the step.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable, or list of callables
        `t -> factor`, for all groups or one for each; a Schedule is one. A factor of 0 is legal.
    last_epoch : int, default -1

    Raises
    ------
    ValueError, TypeError
        When there are not as many functions as groups, or one cannot be called.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import LambdaLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> LambdaLR(optimizer, lambda t: min(1, t / 2)).table(4)
    t  lr
    0  0
    1  0.05
    2  0.1
    3  0.1
    """

    closed = True

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable | Sequence[Callable], last_epoch: int = -1) -> None:
        self.lr_lambdas = functions("lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def share(self, t: float, k: int) -> float:
        """Return what the function of group k says."""
        return self.lr_lambdas[k](t)


class MultiplicativeLR(LRScheduler):
    """Multiply by a function of the step, each step again: the product of its values from step 1.

    Parameters
    ----------
    optimizer : Optimizer
    lr_lambda : callable, or list of callables
        `t -> factor`, for all groups or one for each.
    last_epoch : int, default -1

    Raises
    ------
    ValueError, TypeError
        When there are not as many functions as groups, or one cannot be called.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import MultiplicativeLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> MultiplicativeLR(optimizer, lambda t: 0.5).table(3)
    t  lr
    0  0.1
    1  0.05
    2  0.025
    """

    chainable = True

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable | Sequence[Callable], last_epoch: int = -1) -> None:
        self.lr_lambdas = functions("lr_lambda", optimizer, lr_lambda)
        self._products = [schedules.cumulative(function) for function in self.lr_lambdas]
        super().__init__(optimizer, last_epoch)

    def share(self, t: float, k: int) -> float:
        """Return the product up to step t."""
        return self._products[k](t)

    def _join(self, origin: list[float], t: float) -> None:
        now = [value * function(0) for value, function in zip(self._now(), self.lr_lambdas)]
        self._begin(origin, t, now)


class StepLR(LRScheduler):
    """Multiply by `gamma` every `step_size` steps.

    Parameters
    ----------
    optimizer : Optimizer
    step_size : int
        At least 1.
    gamma : float, default 0.1
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import StepLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> StepLR(optimizer, step_size=2).table(4)
    t  lr
    0  0.1
    1  0.1
    2  0.01
    3  0.01
    """

    chainable = True
    formula, settings = schedules.step, ("step_size", "gamma")

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        check("StepLR", "step_size", step_size, POSITIVE)
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)


class MultiStepLR(LRScheduler):
    """Multiply by `gamma` at each milestone.

    Parameters
    ----------
    optimizer : Optimizer
    milestones : iterable of int
        Steps; one that is given twice counts twice.
    gamma : float, default 0.1
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import MultiStepLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> MultiStepLR(optimizer, milestones=[1, 3]).table(4)
    t  lr
    0  0.1
    1  0.01
    2  0.01
    3  0.001
    """

    chainable = True
    formula, settings = schedules.multistep, ("milestones", "gamma")

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones, self.gamma = tuple(sorted(milestones)), gamma
        super().__init__(optimizer, last_epoch)


class ConstantLR(LRScheduler):
    """Multiply by `factor` for `total_iters` steps.

    Parameters
    ----------
    optimizer : Optimizer
    factor : float, default 1/3
        In [0, 1]. (In torch 0 passes and divides by zero later.)
    total_iters : int, default 5
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import ConstantLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> ConstantLR(optimizer, factor=0.5, total_iters=2).table(3)
    t  lr
    0  0.05
    1  0.05
    2  0.1
    """

    chainable = True
    settings = "total_iters", "factor"

    @staticmethod
    def formula(n: float, factor: float) -> Schedule:
        """Return `factor` for n steps, then 1."""
        return schedules.hold(n, factor) >> 1.0

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5,
                 last_epoch: int = -1) -> None:
        check("ConstantLR", "factor", factor, CLOSED_UNIT)
        check("ConstantLR", "total_iters", total_iters, NONNEGATIVE)
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)


class LinearLR(LRScheduler):
    """Go from one factor to another in `total_iters` steps, and stay.

    Parameters
    ----------
    optimizer : Optimizer
    start_factor : float, default 1/3
        In (0, 1].
    end_factor : float, default 1.0
        In [0, 1].
    total_iters : int, default 5
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import LinearLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> LinearLR(optimizer, start_factor=0.5, total_iters=2).table(4)
    t  lr
    0  0.05
    1  0.075
    2  0.1
    3  0.1
    """

    chainable = True
    formula, settings = schedules.linear, ("total_iters", "end_factor", "start_factor")

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0,
                 total_iters: int = 5, last_epoch: int = -1) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError("Starting multiplicative factor expected to be greater than 0 and less or equal to 1: "
                             f"LinearLR got start_factor = {start_factor}")
        check("LinearLR", "end_factor", end_factor, CLOSED_UNIT)
        check("LinearLR", "total_iters", total_iters, NONNEGATIVE)
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)


class ExponentialLR(LRScheduler):
    """Multiply by `gamma` each step.

    Parameters
    ----------
    optimizer : Optimizer
    gamma : float
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import ExponentialLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> ExponentialLR(optimizer, gamma=0.5).table(3)
    t  lr
    0  0.1
    1  0.05
    2  0.025
    """

    chainable = True
    formula, settings = schedules.exponential, ("gamma",)

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)


class PolynomialLR(LRScheduler):
    """Fall to 0 in `total_iters` steps as (1 - t / total_iters) ** power.

    Parameters
    ----------
    optimizer : Optimizer
    total_iters : int, default 5
    power : float, default 1.0
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import PolynomialLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> PolynomialLR(optimizer, total_iters=2, power=2).table(4)
    t  lr
    0  0.1
    1  0.025
    2  0
    3  0
    """

    chainable = True
    formula, settings = schedules.polynomial, ("total_iters", "power")

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        check("PolynomialLR", "total_iters", total_iters, NONNEGATIVE)
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)


class PolynomialWithEnd(LRScheduler):
    """Fall to `end_lr` in `total_steps` steps as a power of what is left, and stay, as in Keras.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    power : float, default 1.0
    end_lr : float, or list of floats, default 1e-7
        A learning rate, for all groups or one for each.
    cycle : bool, default False
        Stretch `total_steps` to twice, three times, ... as many whenever they are over.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import PolynomialWithEnd
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> PolynomialWithEnd(optimizer, total_steps=2, end_lr=0.01).table(4)
    t  lr
    0  0.1
    1  0.055
    2  0.01
    3  0.01
    """

    settings = "total_steps", "power", "cycle"

    @staticmethod
    def formula(n: float, power: float, cycle: bool) -> Schedule:
        """Return the share of what lies above `end_lr`."""
        return schedules.polynomial(n, power, cycle=cycle)

    def __init__(self, optimizer: Optimizer, total_steps: int, power: float = 1.0, end_lr: float | list = 1e-7,
                 cycle: bool = False, last_epoch: int = -1) -> None:
        check("PolynomialWithEnd", "total_steps", total_steps, POSITIVE)
        self.total_steps, self.power, self.cycle = total_steps, power, cycle
        self.floors = per_group("end_lr", optimizer, end_lr)
        super().__init__(optimizer, last_epoch)


class InverseTimeDecay(LRScheduler):
    """Fall as 1 / (1 + decay_rate * t / decay_steps), as in Keras.

    Parameters
    ----------
    optimizer : Optimizer
    decay_steps : float
        Above 0.
    decay_rate : float
        At least 0.
    staircase : bool, default False
        Take whole quotients t / decay_steps only.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import InverseTimeDecay
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> InverseTimeDecay(optimizer, decay_steps=1, decay_rate=1).table(3)
    t  lr
    0  0.1
    1  0.05
    2  0.0333333
    """

    formula, settings = schedules.inverse_time, ("decay_steps", "decay_rate", "staircase")

    def __init__(self, optimizer: Optimizer, decay_steps: float, decay_rate: float, staircase: bool = False,
                 last_epoch: int = -1) -> None:
        self.decay_steps, self.decay_rate, self.staircase = decay_steps, decay_rate, staircase
        super().__init__(optimizer, last_epoch)


class REX(LRScheduler):
    """Fall to `min_lr_ratio`, slowly first and fast at last (Chen et al., arXiv 2107.04197).

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    min_lr_ratio : float, default 0.0
        The last factor.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import REX
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.3)
    >>> REX(optimizer, total_steps=2).table(3)
    t  lr
    0  0.3
    1  0.2
    2  0
    """

    formula, settings = schedules.rex, ("total_steps", "min_lr_ratio")

    def __init__(self, optimizer: Optimizer, total_steps: int, min_lr_ratio: float = 0.0,
                 last_epoch: int = -1) -> None:
        check("REX", "total_steps", total_steps, NONNEGATIVE)
        self.total_steps, self.min_lr_ratio = total_steps, min_lr_ratio
        super().__init__(optimizer, last_epoch)


class LinearToZero(LRScheduler):
    """Fall to 0 by equal differences: the simple baseline for a fixed number of steps.

    Parameters
    ----------
    optimizer : Optimizer
    total_steps : int
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import LinearToZero
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> LinearToZero(optimizer, total_steps=2).table(3)
    t  lr
    0  0.1
    1  0.05
    2  0
    """

    formula, settings = schedules.linear_to_zero, ("total_steps",)

    def __init__(self, optimizer: Optimizer, total_steps: int, last_epoch: int = -1) -> None:
        check("LinearToZero", "total_steps", total_steps, NONNEGATIVE)
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)


class PiecewiseConstant(LRScheduler):
    """Jump to given factors at given steps.

    Parameters
    ----------
    optimizer : Optimizer
    points : mapping
        Step -> factor of the base; 1 at step 0 unless it says otherwise. (In optax they multiply up.)
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import PiecewiseConstant
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> PiecewiseConstant(optimizer, {1: 0.5, 2: 0.1}).table(3)
    t  lr
    0  0.1
    1  0.05
    2  0.01
    """

    shape = "constant"
    settings = "points", "shape"

    @staticmethod
    def formula(points: Iterable[tuple[float, float]], shape: str) -> Schedule:
        """Return the factors."""
        return schedules.piecewise(dict(points), shape)

    def __init__(self, optimizer: Optimizer, points: Mapping[float, float], last_epoch: int = -1) -> None:
        self.points = tuple(sorted(points.items()))
        super().__init__(optimizer, last_epoch)


class PiecewiseLinear(PiecewiseConstant):
    """Go along lines through given factors at given steps; `points` as in PiecewiseConstant.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import PiecewiseLinear
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> PiecewiseLinear(optimizer, {2: 0.5}).table(3)
    t  lr
    0  0.1
    1  0.075
    2  0.05
    """

    shape = "linear"


class PiecewiseCosine(PiecewiseConstant):
    """Go along half waves through given factors at given steps; `points` as in PiecewiseConstant."""

    shape = "cosine"
