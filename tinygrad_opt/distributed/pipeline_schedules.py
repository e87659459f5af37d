"""The order of work in a pipeline: which rank does what when, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from ..lab.style import GREEN, INK, SKY, figure, styled
from ..optim.registry import find

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {"gpipe": "GPipe", "1f1b": "1F1B"}          # and what a title calls them
FORWARD, BACKWARD, IDLE = "F", "B", ""
LETTERED = 48                                       # time slots up to which the cells of a picture are lettered


def whole(name: str, value: object, least: int = 1) -> int:
    """Return a number that was given as an argument, once it is whole and not too small."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def work_order(rank: int, ranks: int, chunks: int, kind: str) -> list[tuple[str, int]]:
    """Return what a rank does, one after the other: ("F", k) and ("B", k) for the micro-batches k.

    Both kinds run backward in the order in which they ran forward, so that they add up gradients to the same bits.

    Examples
    --------
    >>> from tinygrad_opt.distributed.pipeline_schedules import work_order
    >>> [kind + str(k) for kind, k in work_order(rank=1, ranks=2, chunks=3, kind="1f1b")]
    ['F0', 'B0', 'F1', 'B1', 'F2', 'B2']
    """
    ahead = chunks if kind == "gpipe" else min(ranks - 1 - rank, chunks)
    order = [(FORWARD, k) for k in range(ahead)]
    for k in range(chunks - ahead):
        order += [(FORWARD, ahead + k), (BACKWARD, k)]
    return order + [(BACKWARD, k) for k in range(chunks - ahead, chunks)]


@dataclass(frozen=True)
class PipelineSchedule:
    """Who does what when, where each forward and each backward pass of a micro-batch takes one unit of time.

    Attributes
    ----------
    kind : {"gpipe", "1f1b"}
    ranks, chunks : int
        Stages of the pipeline, and micro-batches of a batch.
    table : tuple of tuple of str
        A row for each rank, a column for each unit of time: "F3" is the forward pass of micro-batch 3, "B3" its
        backward pass, "" is waiting.
    """

    kind: str
    ranks: int
    chunks: int
    table: tuple[tuple[str, ...], ...]

    @property
    def bubble(self) -> float:
        """The share of the time in which ranks wait: (ranks - 1) / (chunks + ranks - 1)."""
        cells = [cell for row in self.table for cell in row]
        return cells.count(IDLE) / len(cells)

    @property
    def live(self) -> tuple[int, ...]:
        """The most micro-batches that each rank holds between their forward and their backward pass."""
        return tuple(max(accumulate({FORWARD: 1, BACKWARD: -1}.get(cell[:1], 0) for cell in row))
                     for row in self.table)

    def _batches(self) -> str:
        return f"{self.chunks} micro-batch{'es' * (self.chunks > 1)}"

    def __str__(self) -> str:
        width = len(str(self.chunks - 1)) + 1
        return "\n".join([f"{self.kind}: {self.ranks} ranks, {self._batches()}, bubble {self.bubble:.1%}",
                          *(f"rank {rank}  {' '.join((cell or '.').ljust(width) for cell in row)}".rstrip()
                            for rank, row in enumerate(self.table))])

    def draw(self) -> Figure:
        """Draw a bar of time for each rank; the bubble is hatched.

        Returns
        -------
        Figure
            Of matplotlib.
        """
        from matplotlib.patches import Patch, Rectangle
        colours, span = {FORWARD: SKY, BACKWARD: GREEN}, len(self.table[0])
        waiting = dict(facecolor="#F4F4F4", edgecolor="#BBBBBB", hatch="////", linewidth=0)
        with styled():
            fig = figure(min(14, 2.2 + 0.36 * max(span, 14)), 1.7 + 0.42 * self.ranks)
            axes = fig.add_subplot()
            for rank, row in enumerate(self.table):
                for time, cell in enumerate(row):
                    looks = dict(facecolor=colours[cell[0]], edgecolor="white", linewidth=1) if cell else waiting
                    axes.add_patch(Rectangle((time, rank - 0.42), 1, 0.84, **looks))
                    if cell and span <= LETTERED:
                        axes.text(time + 0.5, rank, cell[1:], ha="center", va="center", fontsize=9,
                                  color=INK if cell[0] == FORWARD else "white")
            axes.set(xlim=(0, span), ylim=(self.ranks - 0.5, -0.5), xlabel="time, in passes of one micro-batch",
                     yticks=range(self.ranks),
                     yticklabels=[f"rank {rank}, holds {most}" for rank, most in enumerate(self.live)])
            axes.grid(False)
            axes.tick_params(axis="y", length=0)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_title(f"{KINDS[self.kind]}, {self._batches()}: ranks wait {self.bubble:.0%} of the time")
            fig.legend(handles=[Patch(facecolor=SKY, label="forward"), Patch(facecolor=GREEN, label="backward"),
                                Patch(**waiting, label="bubble")], loc="outside lower center", ncols=3)
        return fig


def pipeline_schedule(ranks: int, chunks: int, kind: str = "1f1b") -> PipelineSchedule:
    """Return the table of a pipeline's work: rank by time.

    Both kinds wait equally long. GPipe runs all micro-batches forward before the first goes backward, so that each
    rank holds all of them; 1F1B goes backward as soon as it can, and rank r holds at most ranks - r.

    Parameters
    ----------
    ranks, chunks : int
        Stages, and micro-batches; each at least 1.
    kind : {"1f1b", "gpipe"}

    Returns
    -------
    PipelineSchedule
        `table`, `bubble`, `live`; it prints as text, and `draw()` is a picture.

    Raises
    ------
    ValueError
        When a number is below 1 or there is no such kind.

    References
    ----------
    GPipe: Huang et al., 2019, arXiv 1811.06965. 1F1B with a flush: Narayanan et al., 2021, arXiv 2104.04473.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> print(tg.distributed.pipeline_schedule(ranks=3, chunks=4, kind="1f1b"))
    1f1b: 3 ranks, 4 micro-batches, bubble 33.3%
    rank 0  F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3
    rank 1  .  F0 F1 .  B0 F2 B1 F3 B2 .  B3 .
    rank 2  .  .  F0 B0 F1 B1 F2 B2 F3 B3 .  .
    """
    ranks, chunks = whole("ranks", ranks), whole("chunks", chunks)
    kind = find(kind, KINDS, "schedule", "tg.distributed.pipeline_schedule")
    waiting = [work_order(rank, ranks, chunks, kind)[::-1] for rank in range(ranks)]
    ended: dict[tuple[int, str, int], int] = {}     # when a pass on a rank was over
    rows: list[list[str]] = [[] for _ in range(ranks)]
    while any(waiting):
        for rank, order in enumerate(waiting):
            time, cell = len(rows[rank]), IDLE
            if order:
                work, k = order[-1]
                before = rank - 1 if work == FORWARD else rank + 1
                if not 0 <= before < ranks or ended.get((before, work, k), time + 1) <= time:
                    order.pop()
                    cell, ended[rank, work, k] = f"{work}{k}", time + 1
            rows[rank].append(cell)
    return PipelineSchedule(kind, ranks, chunks, tuple(map(tuple, rows)))
