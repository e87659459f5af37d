"""Ring all-reduce, written out: how n ranks add up their arrays while each speaks to one neighbour only.

The array is cut into n chunks. In n - 1 steps every rank sends one chunk to the next and adds the one that it is sent:
then each rank has one chunk of the whole sum. In n - 1 more steps the finished chunks go round. So every rank sends
2 (n - 1) / n of the array, however many ranks there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backend import xp
from ..tensor import Tensor
from . import world as current_world
from .communicator import Communicator

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Sending(NamedTuple):
    """A chunk sent to the next rank: in which step, by whom, which chunk, how many ranks it sums, its bytes."""

    step: int
    rank: int
    chunk: int
    summed: int
    bytes: int


@dataclass
class RingAllReduce:
    """What an all-reduce in a ring gave, and how.

    Attributes
    ----------
    result : array
        The sum over all ranks.
    size : int
        How many ranks.
    log : list of Sending
        What was sent, by all ranks, in the order of the steps.
    """

    result: Any
    size: int
    log: list[Sending] = field(repr=False)

    def bytes_sent(self, rank: int) -> int:
        """Return how many bytes a rank has sent."""
        return sum(sending.bytes for sending in self.log if sending.rank == rank)

    def draw(self) -> Figure:
        """Draw who sends which chunk when: a row for each rank, a column for each step.

        Raises
        ------
        ValueError
            When there was one rank, which sends nothing.
        """
        if self.size == 1:
            raise ValueError("a ring of one rank sends nothing to draw; take at least 2 ranks")
        from ..lab.style import INK, figure, looks, styled
        steps, chunks = 2 * (self.size - 1), looks(range(self.size))
        with styled():
            drawing = figure(1.6 + 0.95 * steps, 1.5 + 0.62 * self.size)
            axes = drawing.add_subplot()
            axes.grid(False)
            for step, rank, chunk, summed, _ in self.log:
                axes.add_patch(_box(step, rank, chunks[chunk].color, done=summed == self.size))
                for height, text, points in ((-0.09, f"chunk {chunk}", 9), (0.17, f"{summed} of {self.size}", 7.5)):
                    axes.text(step, rank + height, text, ha="center", va="center", color=INK, fontsize=points)
            axes.axvline(self.size - 0.5, color="#888888", linewidth=1, linestyle=":")
            for place, text in ((self.size / 2, "add up"), (1.5 * self.size - 1, "pass on")):
                axes.text(place, -0.62, text, ha="center", va="bottom", fontsize=11)
            axes.set(xlim=(0.45, steps + 0.55), ylim=(self.size - 0.5, -0.6), xlabel="step",
                     xticks=range(1, steps + 1), yticks=range(self.size),
                     yticklabels=[f"rank {rank} → {(rank + 1) % self.size}" for rank in range(self.size)])
            axes.tick_params(length=0)
            axes.spines[["left", "bottom"]].set_visible(False)
        return drawing


def _box(step: int, rank: int, colour: str, done: bool) -> Any:
    """Return the box of a sending: dashed while the chunk is a part of the sum, full when it is all."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch
    return FancyBboxPatch((step - 0.38, rank - 0.3), 0.76, 0.6, boxstyle="round,pad=0,rounding_size=0.08",
                          facecolor=to_rgba(colour, 0.55 if done else 0.18), edgecolor=colour, linewidth=1.3,
                          linestyle="-" if done else "--")


def ring_all_reduce(x: Any, world: Communicator | None = None) -> RingAllReduce:
    """Add up the arrays of all ranks by messages between neighbours; all receive the same bits.

    Parameters
    ----------
    x : array_like or Tensor
        Of one shape and dtype on all ranks; its length need not be a multiple of their number.
    world : Communicator, optional
        By default `tg.distributed.world()`.

    Returns
    -------
    RingAllReduce
        The sum as `.result`, and the log of what was sent; `.draw()` draws it.

    Notes
    -----
    Patarasuk, Yuan: Bandwidth optimal all-reduce algorithms for clusters of workstations, JPDC 69, 2009.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     return tg.distributed.ring_all_reduce([1.0, 2.0, 3.0, 10.0 * world.rank], world)
    >>> rings = tg.distributed.simulate(2, rank)
    >>> rings[0].result.tolist(), rings[1].result.tolist()
    ([2.0, 4.0, 6.0, 10.0], [2.0, 4.0, 6.0, 10.0])
    >>> for sending in rings[0].log:
    ...     print(*sending)                     # step, rank, chunk, how many ranks it sums, bytes
    1 0 0 1 16
    1 1 1 1 16
    2 0 1 2 16
    2 1 0 2 16
    """
    world = current_world() if world is None else world
    x = xp.array(x._data if isinstance(x, Tensor) else x, order="C")
    n, r, log = world.size, world.rank, []
    chunks = xp.array_split(x.reshape(-1), n)                   # views: what is written here is written to x
    for step in range(1, 2 * n - 1):
        leaving, coming = (r + 1 - step) % n, (r - step) % n
        sent = world.begin_send(chunks[leaving], (r + 1) % n, tag=step)
        received = world.receive(chunks[coming], (r - 1) % n, tag=step)
        chunks[coming][...] = chunks[coming] + received if step < n else received
        sent.wait()
        log.append(Sending(step, r, leaving, min(step, n), chunks[leaving].nbytes))
    logs = world.gather_objects(log)                            # for the drawing: each rank knows its own alone
    return RingAllReduce(x, n, [sending for column in zip(*logs) for sending in column])
