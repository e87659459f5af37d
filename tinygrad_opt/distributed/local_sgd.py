"""Local SGD: every rank trains by itself, and now and then all take the mean of their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..optim import Optimizer
from ..optim.ranges import Whole
from ..optim.wrapper import Wrapper
from . import world as this_world
from .buckets import fill_buckets, share_tensors
from .communicator import Communicator


class LocalSGD(Wrapper):
    """Step on this rank's gradients alone, and average the parameters over the ranks at every k-th step.

    Of k steps only one is paid for with an exchange. At the start the parameters of rank 0 are given to all. Means
    of the optimizer, such as momentum, stay each rank's own.

    Parameters
    ----------
    optimizer : Optimizer
        What makes the steps; with SGD and every=1 it is data parallel training, of other optimizers something near it.
    every : int
        How many steps lie between two averages, at least 1.
    world : Communicator, optional
        By default that of this rank.

    Attributes
    ----------
    count : int
        Steps since the last average; 0 right after it.

    References
    ----------
    Stich, 2019, Local SGD converges fast and communicates little, arXiv 1805.09767; Lin et al., 2020, arXiv 1808.07217.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     w = tg.tensor([0.0], requires_grad=True)
    ...     optimizer = tg.distributed.LocalSGD(tg.optim.SGD([w], lr=0.5), every=2, world=world)
    ...     path = []
    ...     for _ in range(4):
    ...         optimizer.zero_grad()
    ...         ((w - world.rank) ** 2 / 2).sum().backward()        # rank 0 would like w = 0, rank 1 w = 1
    ...         optimizer.step()
    ...         path.append(w.item())
    ...     return path
    >>> tg.distributed.simulate(2, rank)
    [[0.0, 0.375, 0.1875, 0.46875], [0.5, 0.375, 0.6875, 0.46875]]
    """

    ranges = {"every": Whole("[1, inf)"), "count": Whole("[0, inf)")}

    def __init__(self, optimizer: Optimizer, every: int, world: Communicator | None = None) -> None:
        super().__init__(optimizer, every=every, count=0)
        self.world = this_world() if world is None else world
        share_tensors(self.world, optimizer._named())

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of the wrapped optimizer and, when it is time, the mean of the parameters of all ranks."""
        loss = super().step(closure)
        self.count = (self.count + 1) % self.every
        if not self.count:
            self._average()
        return loss

    def _average(self) -> None:
        for bucket in fill_buckets(p for _, p in self._named()):
            for k, p in enumerate(bucket.tensors):
                bucket.put(k, p._data)
            for p, part in zip(bucket.tensors, bucket.parts(self.world.all_reduce(bucket.flat, "mean"))):
                p.data = part
