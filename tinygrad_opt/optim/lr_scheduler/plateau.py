"""ReduceLROnPlateau: the one scheduler that follows a metric instead of the step."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, SupportsFloat

from ..ranges import UNIT, check
from .base import LRScheduler, groups_of, per_group

if TYPE_CHECKING:
    from ..optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Multiply by `factor` when a metric has not become better for more than `patience` epochs.

    Parameters
    ----------
    optimizer : Optimizer
    mode : {"min", "max"}
        Whether lower or higher is better.
    factor : float, default 0.1
        In [0, 1).
    patience : int, default 10
        Epochs without improvement that are let pass.
    threshold : float, default 1e-4
        How much better counts: a share of the best in mode "rel", a difference in "abs".
    threshold_mode : {"rel", "abs"}
        With a negative metric take "abs": a share of it points the wrong way.
    cooldown : int, default 0
        Epochs after a reduction that do not count.
    min_lr : float, or list of floats, default 0
        The lowest learning rate, for all groups or one for each.
    eps : float, default 1e-8
        A smaller reduction is left out.

    Warns
    -----
    UserWarning
        When a metric is NaN (which counts as no improvement), or counts as one without being better; each once.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import ReduceLROnPlateau
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> scheduler = ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (1.0, 0.5, 0.5, 0.5):
    ...     scheduler.step(loss)
    >>> round(optimizer.lr, 6)
    0.01
    """

    def __init__(self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
                 threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
                 min_lr: float | list[float] = 0, eps: float = 1e-8) -> None:
        if not factor < 1.0:
            raise ValueError(f"Factor should be < 1.0. ReduceLROnPlateau got factor = {factor}")
        check("ReduceLROnPlateau", "factor", factor, UNIT)
        count = len(groups_of(optimizer))
        if isinstance(min_lr, (list, tuple)) and len(min_lr) != count:
            raise ValueError(f"expected {count} min_lrs, got {len(min_lr)}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown! It is 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown! It is 'rel' or 'abs'")
        self.optimizer, self.key, self.last_epoch, self._resumed = optimizer, "lr", 0, True
        self.mode, self.factor, self.patience, self.cooldown, self.eps = mode, factor, patience, cooldown, eps
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.min_lrs = per_group("min_lr", optimizer, min_lr)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = 0
        self.bases, self._written, self._warned = self._now(), self._now(), []
        self._warn_if_read_once()

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was so recently that this epoch does not count."""
        return self.cooldown_counter > 0

    def step(self, metrics: SupportsFloat, epoch: int | None = None) -> None:
        """Take note of the metric of an epoch, and reduce the learning rates if it is time.

        Parameters
        ----------
        metrics : float
            A number, or a Tensor of one element.
        epoch : int, optional
            The number of this epoch; otherwise one more than the last.
        """
        current = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            if not (current < self.best if self.mode == "min" else current > self.best):
                self._warn("sign", f"metric {current:.6g} counts as better than the best, {self.best:.6g}, because "
                           f"{self.threshold} of a negative number is negative; use threshold_mode='abs'")
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if math.isnan(current):
            self._warn("nan", f"metric is NaN in epoch {self.last_epoch}; it counts as no improvement "
                       f"({self.num_bad_epochs} now, {self.patience} are let pass)")
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._written = self._now()

    def _is_better(self, current: float) -> bool:
        margin = -self.threshold if self.mode == "min" else self.threshold
        bar = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return current < bar if self.mode == "min" else current > bar

    def _reduce(self) -> None:
        now = self._now()
        if len(now) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(f"The number of param groups in the `optimizer` ({len(now)}) differs from when "
                                   f"`ReduceLROnPlateau` was initialized ({len(self.min_lrs)}), usually due to a new "
                                   "param group being added to the optimizer. Please modify the `min_lrs` field to "
                                   "match the length of the `optimizer` param groups.")
            self.min_lrs = [self.default_min_lr] * len(now)
        lower = [max(lr * self.factor, least) for lr, least in zip(now, self.min_lrs)]
        self._put([new if lr - new > self.eps else lr for lr, new in zip(now, lower)])

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.append(kind)
            warnings.warn(f"ReduceLROnPlateau: {text}", stacklevel=3)

    def _values(self) -> list[float]:
        return self._now()

    def get_lr(self) -> list[float]:
        """Return the learning rate that each group has now."""
        return self._now()

    def _ahead(self) -> None:
        raise TypeError("ReduceLROnPlateau follows a metric, so that its next values cannot be known ahead")
