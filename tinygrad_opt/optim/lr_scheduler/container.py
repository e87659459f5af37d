"""Schedulers made of schedulers: one after the other, all at once, and a warm-up before any."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .. import schedule as schedules
from ..ranges import NONNEGATIVE, check
from .base import HyperScheduler, LRScheduler
from .decay import LambdaLR
from .plateau import ReduceLROnPlateau

if TYPE_CHECKING:
    from ..optimizer import Optimizer


class SequentialLR(LRScheduler):
    """One scheduler after the other; each begins with its own step 0 at its milestone.

    Parameters
    ----------
    optimizer : Optimizer
    schedulers : list of LRScheduler
        Of this optimizer. Each multiplies the learning rate that the groups had before the first.
    milestones : list of int
        The steps at which the second, third, ... begin.
    last_epoch : int, default -1

    Notes
    -----
    Its parts may be containers too. (A ChainedScheduler takes a step too many in torch's, or fails there.)

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import ConstantLR, ExponentialLR, SequentialLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> parts = [ConstantLR(optimizer, factor=0.5, total_iters=9), ExponentialLR(optimizer, gamma=0.9)]
    >>> SequentialLR(optimizer, parts, milestones=[2]).table(5)
    t  lr
    0  0.05
    1  0.05
    2  0.1
    3  0.09
    4  0.081
    """

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int],
                 last_epoch: int = -1) -> None:
        _check_parts(self, schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError("Sequential Schedulers expects number of schedulers provided to be one more than the "
                             f"number of milestone points, but got number of schedulers {len(schedulers)} and the "
                             f"number of milestones to be equal to {len(milestones)}")
        if any(after < before for before, after in zip([0, *milestones], milestones)):
            raise ValueError(f"{type(self).__name__}: milestones are steps in rising order, got {list(milestones)}")
        self._schedulers, self._milestones = list(schedulers), list(milestones)
        self.optimizer, self.key, self._resumed = optimizer, "lr", last_epoch != -1
        self._begin([group["initial_lr"] for group in optimizer.param_groups], last_epoch + 1)

    @property
    def bases(self) -> list[float]:
        """Those of the scheduler whose turn it is."""
        return self._schedulers[self._active].base_lrs

    def _part(self, t: float) -> tuple[int, float]:
        """Return which scheduler has its turn at step t, and when it began."""
        k = bisect_right(self._milestones, t)
        return k, self._milestones[k - 1] if k else 0

    def _begin(self, origin: list[float], t: float = 0, starts: list[float] | None = None) -> None:
        self._active, start = self._part(t)
        self._put(origin)
        self._schedulers[self._active]._begin(origin, t - start, starts)
        self.last_epoch = t

    def _go(self, t: float) -> None:
        k, start = self._part(t)
        if k == self._active:
            self._schedulers[k]._go(t - start)
        else:
            self._schedulers[k]._join(self._schedulers[self._active]._plain(), t - start)
        self._active, self.last_epoch = k, t

    def _plain(self) -> list[float]:
        return self._schedulers[self._active]._plain()

    def get_lr(self) -> list[float]:
        """Return the learning rate that each group has now."""
        return self._now()


class ChainedScheduler(LRScheduler):
    """All schedulers at once: each step is a step of each, and their factors multiply.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        Of one optimizer. (They come first here, as in torch.)
    optimizer : Optimizer, optional

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> parts = [ConstantLR(optimizer, factor=0.5, total_iters=2), ExponentialLR(optimizer, gamma=0.9)]
    >>> ChainedScheduler(parts).table(4)
    t  lr
    0  0.05
    1  0.045
    2  0.081
    3  0.0729
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        _check_parts(self, schedulers, optimizer)
        self._schedulers, self.optimizer, self.key = list(schedulers), schedulers[0].optimizer, "lr"
        self._resumed = schedulers[0]._resumed

    @property
    def last_epoch(self) -> float:
        """The step whose value is in force, of the first."""
        return self._schedulers[0].last_epoch

    @property
    def bases(self) -> list[float]:
        """Those of the first."""
        return self._schedulers[0].base_lrs

    def _begin(self, origin: list[float], t: float = 0, starts: list[float] | None = None) -> None:
        self._put(origin if starts is None else starts)
        for scheduler in self._schedulers:
            scheduler._begin(scheduler._now(), t)

    def _go(self, t: float) -> None:
        steps = t - self.last_epoch
        for scheduler in self._schedulers:
            scheduler._go(scheduler.last_epoch + steps)

    def _plain(self) -> list[float]:
        for scheduler in reversed(self._schedulers):
            plain = scheduler._plain()
            self._put(plain)                            # what the one before it had left there
        return plain

    def get_lr(self) -> list[float]:
        """Return the learning rate that each group has now."""
        return self._now()


class WarmupLR(SequentialLR):
    """A warm-up, then anything.

    Parameters
    ----------
    optimizer : Optimizer
    warmup_steps : int
    after : LRScheduler, Schedule or callable, optional
        What follows, from its own step 0; nothing more than the learning rate itself by default.
    start_factor : float, default 0.0
        The first factor; above 0 for "exp".
    mode : {"linear", "exp", "constant"}
        As `schedule.warmup`.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import CosineAnnealingLR, WarmupLR
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> WarmupLR(optimizer, 2, after=CosineAnnealingLR(optimizer, T_max=2)).table(5)
    t  lr
    0  0
    1  0.05
    2  0.1
    3  0.05
    4  0
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, after: LRScheduler | Callable | None = None,
                 start_factor: float = 0.0, mode: str = "linear", last_epoch: int = -1) -> None:
        check("WarmupLR", "warmup_steps", warmup_steps, NONNEGATIVE)
        warmup = LambdaLR(optimizer, schedules.warmup(warmup_steps, start_factor, mode), last_epoch)
        if not isinstance(after, HyperScheduler):
            after = LambdaLR(optimizer, schedules.hold() if after is None else schedules.as_schedule(after), last_epoch)
        super().__init__(optimizer, [warmup, after], [warmup_steps], last_epoch)


def _check_parts(owner: LRScheduler, schedulers: Sequence[Any], optimizer: Optimizer | None) -> None:
    name = type(owner).__name__
    if len(schedulers) < 1:
        raise ValueError(f"{name} expects at least one scheduler, but got no scheduler.")
    for k, scheduler in enumerate(schedulers):
        kind = type(scheduler).__name__
        if not hasattr(scheduler, "optimizer"):
            raise TypeError(f"{name} at index {k} should have `optimizer` as its attribute, got {kind}.")
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(f"{name} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs "
                             f"to be specified when calling `step`, but got one at index {k} in the given schedulers "
                             "sequence.")
        if not isinstance(scheduler, LRScheduler):
            raise ValueError(f"{name} takes schedulers of the learning rate, got {kind} at index {k}; compose the "
                             "schedules of other options with >> and *")
        if scheduler.optimizer is not (optimizer or schedulers[0].optimizer):
            raise ValueError(f"{name} expects all schedulers to belong to the same optimizer, but got scheduler {kind} "
                             f"at index {k} of another {type(scheduler.optimizer).__name__}.")
        if any(scheduler is other for other in schedulers[:k]):
            raise ValueError(f"{name} got the same {kind} twice, at index {k}; make another")
