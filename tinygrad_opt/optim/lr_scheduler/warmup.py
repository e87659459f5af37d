"""Schedulers that begin with a warm-up of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import schedule as schedules
from .base import LRScheduler

if TYPE_CHECKING:
    from ..optimizer import Optimizer


class WSD(LRScheduler):
    """Warm up, stay, decay (Hu et al., MiniCPM, arXiv 2404.06395).

    Parameters
    ----------
    optimizer : Optimizer
    warmup_steps, stable_steps, decay_steps : int
    min_lr_ratio : float, default 0.0
        The last factor.
    decay : {"1-sqrt", "linear", "cosine", "1-square"}
        The shape of the decay; each arrives at `min_lr_ratio` without a jump.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import WSD
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> WSD(optimizer, warmup_steps=1, stable_steps=1, decay_steps=4).table(7)
    t  lr
    0  0
    1  0.1
    2  0.1
    3  0.05
    4  0.0292893
    5  0.0133975
    6  0
    """

    formula, settings = schedules.wsd, ("warmup_steps", "stable_steps", "decay_steps", "min_lr_ratio", "decay")

    def __init__(self, optimizer: Optimizer, warmup_steps: int, stable_steps: int, decay_steps: int,
                 min_lr_ratio: float = 0.0, decay: str = "1-sqrt", last_epoch: int = -1) -> None:
        self.warmup_steps, self.stable_steps, self.decay_steps = warmup_steps, stable_steps, decay_steps
        self.min_lr_ratio, self.decay = min_lr_ratio, decay
        super().__init__(optimizer, last_epoch)


class InverseSqrt(LRScheduler):
    """Warm up, then fall as one over the root of the step, as transformers do.

    Parameters
    ----------
    optimizer : Optimizer
    warmup_steps : int
    timescale : int, optional
        Steps that count as 1 under the root; as many as the warm-up has, or 10,000 without one.
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import InverseSqrt
    >>> optimizer = tg.optim.SGD([tg.zeros(3, requires_grad=True)], lr=0.1)
    >>> InverseSqrt(optimizer, warmup_steps=1).table(5)
    t  lr
    0  0
    1  0.1
    2  0.0707107
    3  0.057735
    4  0.05
    """

    formula, settings = schedules.inverse_sqrt, ("warmup_steps", "timescale")

    def __init__(self, optimizer: Optimizer, warmup_steps: int, timescale: int | None = None,
                 last_epoch: int = -1) -> None:
        self.warmup_steps, self.timescale = warmup_steps, timescale
        super().__init__(optimizer, last_epoch)


class Noam(LRScheduler):
    """Set scale / sqrt(model_dim) * min(1 / sqrt(t), t / warmup_steps ** 1.5) (Vaswani et al., arXiv 1706.03762).

    Parameters
    ----------
    optimizer : Optimizer
        Its own learning rates are replaced.
    model_dim : int
    warmup_steps : int, default 4000
    scale : float, default 1.0
    last_epoch : int, default -1

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.lr_scheduler import Noam
    >>> optimizer = tg.optim.Adam([tg.zeros(3, requires_grad=True)])
    >>> Noam(optimizer, model_dim=100, warmup_steps=4).table(6)
    t  lr
    0  0.0125
    1  0.0125
    2  0.025
    3  0.0375
    4  0.05
    5  0.0447214
    """

    absolute = True
    formula, settings = schedules.noam, ("model_dim", "warmup_steps")

    def __init__(self, optimizer: Optimizer, model_dim: int, warmup_steps: int = 4000, scale: float = 1.0,
                 last_epoch: int = -1) -> None:
        self.model_dim, self.warmup_steps, self.scale = model_dim, warmup_steps, scale
        super().__init__(optimizer, last_epoch)

    def _own_starts(self, origin: list[float]) -> list[float]:
        return [self.scale] * len(origin)
