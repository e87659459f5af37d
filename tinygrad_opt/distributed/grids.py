"""Grid: ranks in rows and columns, so that several kinds of parallelism go together."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from ..tensor import Tensor
from . import world as this_world
from .communicator import Communicator
from .pipeline_schedules import whole


class Grid:
    """The ranks of a world along axes; `grid` makes it.

    Attributes
    ----------
    world : Communicator
        All ranks.
    sizes : dict of str to int
        The length of each axis.
    axes : dict of str to Communicator
        The ranks that differ from this one along an axis alone; `grid.data` is short for `grid.axes["data"]`.
    """

    def __init__(self, world: Communicator, sizes: dict[str, int]) -> None:
        self.world, self.sizes = world, sizes
        self._ranks = np.arange(world.size).reshape(*sizes.values())
        here = np.argwhere(self._ranks == world.rank)[0].tolist()
        self.axes = {name: world.split(int(self._ranks[*here[:k], 0, *here[k + 1:]]), here[k])
                     for k, name in enumerate(sizes)}

    def __getattr__(self, name: str) -> Communicator:
        axes = self.__dict__.get("axes", {})
        if name not in axes:
            raise AttributeError(f"the grid has no axis {name!r}; it has {', '.join(axes)}")
        return axes[name]

    def __repr__(self) -> str:
        shape = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        place = ", ".join(f"{name} {axis.rank}" for name, axis in self.axes.items())
        return f"<grid of {shape}; rank {self.world.rank} is {place}>"


def grid(world: Communicator | None = None, **sizes: int) -> Grid:
    """Arrange the ranks of a world along axes, with a communicator along each.

    What a model is cut over goes along one axis (`model`, `pipeline`), copies of it along another (`data`). Ranks
    that are next to each other along the last axis are neighbours in the world: what talks most belongs there.

    Parameters
    ----------
    world : Communicator, optional
        By default that of this rank.
    **sizes : int
        The length of each axis by its name; together they multiply to the number of ranks. One may be -1: what is
        left.

    Returns
    -------
    Grid

    Raises
    ------
    ValueError
        When the sizes do not multiply to the number of ranks.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     grid = tg.distributed.grid(world, data=2, model=2)
    ...     return grid.model.all_reduce([world.rank]).item(), grid.data.all_reduce([world.rank]).item()
    >>> tg.distributed.simulate(4, rank)                    # rows are 0 and 1, 2 and 3; columns 0 and 2, 1 and 3
    [(1, 2), (1, 4), (5, 2), (5, 4)]
    """
    world = this_world() if world is None else world
    if not sizes:
        raise ValueError("grid: name its axes and their lengths, such as grid(world, data=2, model=2)")
    for name, size in sizes.items():
        if size != -1:
            whole(name, size)
    known = prod(size for size in sizes.values() if size != -1)
    if list(sizes.values()).count(-1) == 1:
        sizes = {name: world.size // known if size == -1 else size for name, size in sizes.items()}
    if prod(sizes.values()) != world.size or -1 in sizes.values():
        shown = " x ".join(map(str, sizes.values()))
        raise ValueError(f"grid: the axes {', '.join(sizes)} must multiply to the {world.size} ranks, or one of them "
                         f"be -1; got {shown}")
    return Grid(world, sizes)


def average_gradients(parameters: Iterable[Tensor], world: Communicator | None = None) -> None:
    """Put the mean over the ranks in the place of each gradient, once the backward pass is over.

    Along the data axis of a grid it makes copies of a cut model, each with its share of the batch, one model. Where
    the whole model is on every rank, `DataParallel` does so while the backward pass still runs.

    Parameters
    ----------
    parameters : iterable of Tensor
        In the same order on all ranks; without a gradient on any of them, or with one on all.
    world : Communicator, optional
        By default that of this rank.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     w = tg.tensor([1.0], requires_grad=True)
    ...     (w * world.rank).sum().backward()
    ...     tg.distributed.average_gradients([w], world)
    ...     return w.grad.item()
    >>> tg.distributed.simulate(2, rank)
    [0.5, 0.5]
    """
    world = this_world() if world is None else world
    under_way: list[tuple[Tensor, Any]] = [(p, world.begin_all_reduce(p._grad, "mean")) for p in parameters
                                           if p._grad is not None]
    for p, work in under_way:
        p._grad.data = work.wait()
