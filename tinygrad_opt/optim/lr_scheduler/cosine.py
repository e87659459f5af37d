"""Schedulers along a cosine, and SWALR, which ends where stochastic weight averaging wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import schedule as schedules
from ..ranges import NONNEGATIVE, POSITIVE, check
from ..schedule import Schedule
from .base import LRScheduler, per_group

if TYPE_CHECKING:
    from ..optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """Fall to `eta_min` in `T_max` steps along a cosine, and rise again (Loshchilov & Hutter, arXiv 1608.03983).

    Parameters
    ----------
    optimizer : Optimizer
    T_max : int
        Half of the period. (optax's cosine_decay_schedule stays at the bottom; so does schedule.cosine.)
    eta_min : float, default 0.0
        The lowest learning rate.
    last_epoch : int, default -1

    Notes
    -----
    At the bottom of the wave it forgets what other schedulers have done to the base, as torch does; a change by a
    user lasts.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import CosineAnnealingLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> CosineAnnealingLR(optimizer, T_max=2).table(4)
    t  lr
    0  0.1
    1  0.05
    2  0
    3  0.05
    """

    chainable = True
    formula, settings = schedules.cosine_wave, ("T_max",)

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        check("CosineAnnealingLR", "T_max", T_max, POSITIVE)
        self.T_max, self.eta_min = T_max, eta_min
        self.floors = per_group("eta_min", optimizer, eta_min)
        super().__init__(optimizer, last_epoch)

    def _attach(self, optimizer: Optimizer, key: str, last_epoch: int) -> None:
        self.optimizer, self.key = optimizer, key
        tops = self._unscheduled(self._now())
        super()._attach(optimizer, key, last_epoch)
        self._tops = tops

    def _begin(self, origin: list[float], t: float = 0, starts: list[float] | None = None) -> None:
        self._tops = list(origin)
        super()._begin(origin, t, starts)

    def _folded(self, k: int, factor: float) -> None:
        self._tops[k] *= factor

    def _fold(self, k: int, current: float, written: float) -> None:
        if self.share(self.last_epoch, k):          # at the bottom the base has no share in what is there
            super()._fold(k, current, written)

    def _fold_all(self) -> None:
        super()._fold_all()
        for k, (top, floor, now) in enumerate(zip(self._tops, self.floors, self._written)):
            if self._written and not self.share(self.last_epoch, k):
                self.bases[k] = top + (now - floor) / self.share(self.last_epoch + 1, k)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Fall to `eta_min` along a cosine, start again, each time `T_mult` times longer (arXiv 1608.03983).

    Parameters
    ----------
    optimizer : Optimizer
    T_0 : int
        Steps of the first cycle.
    T_mult : int, default 1
        At least 1.
    eta_min : float, default 0.0
        The lowest learning rate.
    last_epoch : int, default -1

    Notes
    -----
    `step(epoch)` takes fractions: `scheduler.step(epoch + batch / batches)`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import CosineAnnealingWarmRestarts
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> CosineAnnealingWarmRestarts(optimizer, T_0=2).table(4)
    t  lr
    0  0.1
    1  0.05
    2  0.1
    3  0.05
    """

    closed = True
    formula, settings = schedules.restarts, ("T_0", "T_mult")

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        if not isinstance(eta_min, (float, int)):
            raise ValueError(f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        self.floors = per_group("eta_min", optimizer, eta_min)
        super().__init__(optimizer, last_epoch)


class CosineRestarts(LRScheduler):
    """Fall along a cosine, start again with another length and height, as Keras's CosineDecayRestarts.

    Parameters
    ----------
    optimizer : Optimizer
    first_decay_steps : int
        Steps of the first cycle.
    t_mul : float, default 2.0
        How many times longer each cycle is than the one before; at least 1.
    m_mul : float, default 1.0
        How many times higher its peak is.
    alpha : float, default 0.0
        The lowest factor.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import CosineRestarts
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> CosineRestarts(optimizer, first_decay_steps=1, m_mul=0.5).table(4)
    t  lr
    0  0.1
    1  0.05
    2  0.025
    3  0.025
    """

    formula, settings = schedules.restarts, ("first_decay_steps", "t_mul", "m_mul", "alpha")

    def __init__(self, optimizer: Optimizer, first_decay_steps: int, t_mul: float = 2.0, m_mul: float = 1.0,
                 alpha: float = 0.0, last_epoch: int = -1) -> None:
        check("CosineRestarts", "first_decay_steps", first_decay_steps, POSITIVE)
        self.first_decay_steps, self.t_mul, self.m_mul, self.alpha = first_decay_steps, t_mul, m_mul, alpha
        super().__init__(optimizer, last_epoch)


class WarmupCosine(LRScheduler):
    """Rise from 0 in `warmup_steps`, then fall along a cosine to `min_lr` at `total_steps`, as transformers do.

    Parameters
    ----------
    optimizer : Optimizer
    warmup_steps, total_steps : int
    min_lr : float, or list of floats, default 0
        The lowest learning rate, for all groups or one for each.
    num_cycles : float, default 0.5
        Whole waves after the warm-up; more than a half goes up again. After `total_steps` it stays.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import WarmupCosine
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> WarmupCosine(optimizer, warmup_steps=2, total_steps=4, min_lr=0.01).table(5)
    t  lr
    0  0
    1  0.05
    2  0.1
    3  0.055
    4  0.01
    """

    settings = "warmup_steps", "total_steps", "num_cycles"

    @staticmethod
    def formula(warmup_steps: float, total_steps: float, cycles: float) -> Schedule:
        """Return the factors; after the warm-up, the share of what lies above `min_lr`."""
        return schedules.warmup_cosine(warmup_steps, total_steps, cycles=cycles)

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int, min_lr: float | list = 0.0,
                 num_cycles: float = 0.5, last_epoch: int = -1) -> None:
        self.warmup_steps, self.total_steps, self.num_cycles = warmup_steps, total_steps, num_cycles
        self.floors = per_group("min_lr", optimizer, min_lr)
        super().__init__(optimizer, last_epoch)

    def _weights(self, t: float, k: int) -> tuple[float, float]:
        share, rest = super()._weights(t, k)
        return share, rest if t >= self.warmup_steps else 0.0


class SWALR(LRScheduler):
    """Go from the present learning rate to `swa_lr` in `anneal_epochs` steps (Izmailov et al., arXiv 1803.05407).

    Another scheduler may run before it: it counts its own steps only.

    Parameters
    ----------
    optimizer : Optimizer
    swa_lr : float, or list of floats
        For all groups or one for each.
    anneal_epochs : int, default 10
        0 sets `swa_lr` at once.
    anneal_strategy : {"cos", "linear"}
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import SWALR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> SWALR(optimizer, swa_lr=0.05, anneal_epochs=2).table(4)
    t  lr
    0  0.1
    1  0.075
    2  0.05
    3  0.05
    """

    chainable = True
    settings = "anneal_epochs", "anneal_strategy"

    @staticmethod
    def formula(n: int, strategy: str) -> Schedule:
        """Return the share of the learning rate that it began with, by its own steps."""
        return (schedules.cosine if strategy == "cos" else schedules.linear)(n)

    def __init__(self, optimizer: Optimizer, swa_lr: float | list, anneal_epochs: int = 10,
                 anneal_strategy: str = "cos", last_epoch: int = -1) -> None:
        self.floors = per_group("swa_lr", optimizer, swa_lr)
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int):
            raise ValueError(f"anneal_epochs must be a whole number, got {anneal_epochs}")
        check("SWALR", "anneal_epochs", anneal_epochs, NONNEGATIVE)
        self.anneal_epochs, self.anneal_strategy, self._first = anneal_epochs, anneal_strategy, last_epoch + 1
        super().__init__(optimizer, last_epoch)

    def share(self, t: float, k: int) -> float:
        """Return the share of the learning rate that it began with."""
        return self.schedule(max(0, t - self._first))

    def _join(self, origin: list[float], t: float) -> None:
        self._begin(origin, t, self._now())
