"""DistributedSampler: which samples of a dataset belong to which rank."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np

from ..random import Generator
from . import world as current_world
from .communicator import Communicator


class DistributedSampler:
    """Deal the samples of a dataset out to the ranks, equally many to each, in an order that all know.

    Of the order of all samples, rank r takes numbers r, r + size, r + 2 size, ...

    Parameters
    ----------
    dataset : Dataset or sequence
        Only its length is asked for.
    world : Communicator, optional
        By default `tg.distributed.world()`.
    shuffle : bool, default True
        A new order every epoch, or always 0, 1, 2, ...
    seed : int, default 0
        Of the order, the same on all ranks; that of epoch e is drawn from seed + e.
    drop_last : bool, default False
        Leave out the samples that are too many to be dealt evenly; otherwise the first are dealt once more to fill up.

    Raises
    ------
    TypeError
        When the dataset has no length.
    ValueError
        When there would be no sample for a rank.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     sampler = tg.distributed.DistributedSampler(range(5), shuffle=False)
    ...     return [x.tolist() for x in tg.data.DataLoader(range(5), batch_size=2, sampler=sampler)]
    >>> tg.distributed.simulate(2, rank)
    [[[0, 2], [4]], [[1, 3], [0]]]
    """

    def __init__(self, dataset: Sized, world: Communicator | None = None, shuffle: bool = True, seed: int = 0,
                 drop_last: bool = False) -> None:
        if not hasattr(dataset, "__len__"):
            raise TypeError(f"dataset must have a length, got {type(dataset).__name__}; give the dataset itself")
        self.dataset, self.world = dataset, current_world() if world is None else world
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        if not len(self):
            raise ValueError(f"no sample for a rank: the dataset has {len(dataset)}, there are {self.world.size} ranks "
                             f"and drop_last is {drop_last}")

    def __len__(self) -> int:
        n, size = len(self.dataset), self.world.size
        return n // size if self.drop_last else -(-n // size)

    def __iter__(self) -> Iterator[int]:
        n, total = len(self.dataset), len(self) * self.world.size
        order = Generator(self.seed + self.epoch).permutation(n) if self.shuffle else np.arange(n)
        return iter(np.resize(order, total)[self.world.rank::self.world.size].tolist())      # repeated, or cut off

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch: call it before each, otherwise all epochs have the order of the first."""
        self.epoch = epoch
