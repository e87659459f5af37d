"""Parameter server: one rank keeps the parameters, all ranks fetch them, compute gradients and bring them back.

Who is how fast is a model of delays, and time is virtual: a queue of events says beforehand who arrives when, so that
a run that would be different every time is the same bits every time, on threads and on MPI. What is computed is real.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lab.style import HEIGHTS, VERMILION, figure, styled
from ..optim import Optimizer
from ..random import Generator
from . import world as this_world
from .buckets import broadcast_tensors, fill_buckets, share_tensors
from .communicator import Communicator
from .pipeline_schedules import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRADIENT, PARAMETERS = 4, 5                         # tags of messages
FIELDS = ("worker", "number", "begun", "arrived", "pulled", "updated", "version")


@dataclass(frozen=True)
class RandomDelays:
    """How long a worker takes for a gradient: its mean times a random factor, the same for the same seed.

    Parameters
    ----------
    means : sequence of float
        The mean time of each worker, in any unit.
    spread : float, default 0.2
        The standard deviation of the logarithm of the factor, at least 0.
    seed : int, default 0

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> delays = tg.distributed.RandomDelays([1.0, 4.0], spread=0.3, seed=1)
    >>> round(delays(1, 0), 3), delays(1, 0) == delays(1, 0)
    (4.488, True)
    """

    means: Sequence[float]
    spread: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.spread >= 0:
            raise ValueError(f"spread must be at least 0, got {self.spread!r}")

    def __call__(self, worker: int, number: int) -> float:
        """Return the time that a worker takes for one of its gradients."""
        z = Generator([self.seed, worker, number]).numpy.standard_normal()
        return self.means[worker] * math.exp(self.spread * z - self.spread ** 2 / 2)


@dataclass(eq=False)
class ServerLog:
    """What a parameter server has done: a line for each gradient, in the order of the steps that it went into.

    Attributes
    ----------
    workers, steps : int
        How many ranks computed, and how many steps the server made.
    bound : float
        The staleness that was allowed.
    worker, number : (gradients,) arrays of int
        Who computed it, and its how manieth that was, from 0.
    begun, arrived, updated : (gradients,) arrays
        When the worker fetched the parameters, when its gradient was there, and when the step was made.
    pulled, version : (gradients,) arrays of int
        How many steps the server had made when the parameters were fetched, and when the gradient was used.
    loss : (gradients,) array
        On the batch of the worker, at the parameters that it had.
    """

    workers: int
    steps: int
    bound: float
    worker: np.ndarray
    number: np.ndarray
    begun: np.ndarray
    arrived: np.ndarray
    pulled: np.ndarray
    updated: np.ndarray
    version: np.ndarray
    loss: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def staleness(self) -> np.ndarray:
        """By how many steps the parameters were old when the gradient was used."""
        return self.version - self.pulled

    @property
    def waiting(self) -> float:
        """The share of their time that workers wait for others."""
        return float((self.updated - self.arrived).sum() / (self.updated - self.begun).sum())

    def __str__(self) -> str:
        return (f"{self.workers} workers, {len(self.worker)} gradients in {self.steps} steps until "
                f"{self.updated[-1]:.4g}; staleness {self.staleness.mean():.2f} on average, {self.staleness.max()} at "
                f"most, {self.bound:g} allowed; workers wait {self.waiting:.0%} of their time")

    def draw(self, steps: int = 30) -> Figure:
        """Draw who computed and waited when, and the losses over time, coloured by staleness.

        Parameters
        ----------
        steps : int, default 30
            How many steps the picture of the workers shows; that of the losses has all.

        Returns
        -------
        Figure
            Of matplotlib.
        """
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import BoundaryNorm
        end, old, has_loss = self.updated[self.version < steps].max(), self.staleness, len(self.loss) > 0
        shown, levels = self.begun < end, colormaps[HEIGHTS].resampled(max(2, old.max() + 1))
        colours = ScalarMappable(BoundaryNorm(np.arange(levels.N + 1) - 0.5, levels.N), levels)
        with styled():
            fig = figure(8.6, 1.3 + 0.42 * self.workers + 2.4 * has_loss)
            axes, *below = fig.subplots(1 + has_loss, height_ratios=[0.4 + 0.42 * self.workers] + [2.0] * has_loss,
                                        squeeze=False)[:, 0]
            axes.barh(self.worker[shown], (self.updated - self.arrived)[shown], left=self.arrived[shown], height=0.7,
                      facecolor="#F4F4F4", edgecolor="#BBBBBB", hatch="////", linewidth=0)
            axes.barh(self.worker[shown], (self.arrived - self.begun)[shown], left=self.begun[shown], height=0.7,
                      color=colours.to_rgba(old[shown]), edgecolor="white", linewidth=0.8)
            for time in np.unique(self.updated[self.version < steps]):
                axes.axvline(time, color=VERMILION, linewidth=0.9, linestyle=(0, (1, 2)))
            axes.set(xlim=(0, end), ylim=(self.workers - 0.5, -0.5), yticks=range(self.workers),
                     yticklabels=[f"worker {k}" for k in range(self.workers)],
                     xlabel="virtual time (hatched: waiting; dotted: a step of the server)")
            axes.grid(False)
            axes.tick_params(axis="y", length=0)
            bound = "no bound on staleness" if self.bound == math.inf else f"staleness at most {self.bound}"
            axes.set_title(f"{bound}: {self.steps} steps from {len(self.worker)} gradients; workers wait "
                           f"{self.waiting:.0%} of their time", fontsize="medium")
            for panel in below:
                panel.scatter(self.arrived, self.loss, s=14, color=colours.to_rgba(old), linewidths=0)
                panel.set(xlabel="virtual time", ylabel="loss of a worker's batch", xlim=(0, self.updated.max()))
            if old.any():
                fig.colorbar(colours, ax=[axes, *below], label="steps by which\na gradient is late", aspect=30,
                             pad=0.02, ticks=range(0, levels.N, -(-levels.N // 8)))
        return fig


def server_schedule(workers: int, steps: int, staleness: float = 0,
                    delays: Sequence[float] | Callable[[int, int], float] | None = None) -> ServerLog:
    """Return who fetches parameters, brings gradients and waits when, before anything is computed.

    A gradient that arrives is used at once, together with those that wait, unless somebody who is still computing
    would be more than `staleness` steps late by it; then it waits. So with 0 all wait for all, and a step is made
    of everybody's gradients; without a bound each gradient is a step of its own.

    Parameters
    ----------
    workers, steps : int
        Each at least 1.
    staleness : int or inf, default 0
    delays : sequence of float, or callable, optional
        The time that each worker takes for a gradient, or `delays(worker, number)` for each of its gradients, such as
        `RandomDelays`; by default 1 for all.

    Returns
    -------
    ServerLog
        Without losses.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> for bound in (0, 1, float("inf")):
    ...     print(tg.distributed.server_schedule(workers=2, steps=6, staleness=bound, delays=[1.0, 3.0]))
    2 workers, 12 gradients in 6 steps until 18; staleness 0.00 on average, 0 at most, 0 allowed; workers wait 33% of \
their time
    2 workers, 9 gradients in 6 steps until 9; staleness 0.33 on average, 1 at most, 1 allowed; workers wait 17% of \
their time
    2 workers, 6 gradients in 6 steps until 5; staleness 0.67 on average, 3 at most, inf allowed; workers wait 0% of \
their time
    """
    whole("workers", workers), whole("steps", steps)
    if not (staleness == math.inf or isinstance(staleness, int) and staleness >= 0):
        raise ValueError(f"staleness must be a whole number of at least 0, or inf, got {staleness!r}")
    delay = _delay(delays, workers)
    begun, number, pulled = [0.0] * workers, [0] * workers, [0] * workers
    coming = [(delay(k, 0), k) for k in range(workers)]
    heapify(coming)
    waiting: list[tuple[int, float]] = []
    lines: list[tuple] = []
    version = 0
    while version < steps:
        time, worker = heappop(coming)
        waiting.append((worker, time))
        if any(version - pulled[k] >= staleness for _, k in coming):
            continue
        for k, arrived in sorted(waiting):
            lines.append((k, number[k], begun[k], arrived, pulled[k], time, version))
            begun[k], pulled[k] = time, version + 1
            number[k] += 1
            heappush(coming, (time + delay(k, number[k]), k))
        waiting.clear()
        version += 1
    columns = {name: np.array(column) for name, column in zip(FIELDS, zip(*lines))}
    return ServerLog(workers, steps, staleness, **columns)


def _delay(delays: Any, workers: int) -> Callable[[int, int], float]:
    """Return the delays as a function, which says what is wrong with a value."""
    known = getattr(delays, "means", delays)
    if not callable(known) and known is not None and np.shape(known) != (workers,):
        raise ValueError(f"delays must be one number a worker, {workers}, or a function of worker and number; "
                         f"got {known!r}")
    function = delays if callable(delays) else lambda worker, number: 1.0 if delays is None else delays[worker]

    def delay(worker: int, number: int) -> float:
        time = float(function(worker, number))
        if not 0 < time < math.inf:
            raise ValueError(f"delays must be positive and finite, got {time} for gradient {number} of worker {worker}")
        return time
    return delay


class ParameterServer:
    """Optimize by the gradients of all ranks, of which rank 0 keeps the parameters and makes the steps.

    All ranks compute, rank 0 too. At the start the parameters of rank 0 are given to all. A step takes the mean of
    the gradients that are there (`server_schedule` says which); with `staleness=0` those of all, so that the run is
    data parallel training, to the bit. The state of the optimizer is on rank 0 alone.

    Parameters
    ----------
    optimizer : Optimizer
        On each rank over its own copy of the parameters.
    world : Communicator, optional
        By default that of this rank.
    staleness : int or inf, default 0
        By how many steps the parameters may be old, at most, for which a gradient was computed.
    delays : sequence of float, or callable, optional
        How long each rank takes for a gradient, in virtual time; see `server_schedule`. Nobody sleeps: on MPI a rank
        that is late in truth is waited for.

    Raises
    ------
    TypeError, ValueError
        When an argument is out of range, or the ranks have different parameters.

    References
    ----------
    Ho et al., 2013, More effective distributed ML via a stale synchronous parallel parameter server; Li et al., 2014,
    Scaling distributed machine learning with the parameter server.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     w = tg.tensor([0.0], requires_grad=True)
    ...     server = tg.distributed.ParameterServer(tg.optim.SGD([w], lr=0.1), world, staleness=2, delays=[1.0, 2.5])
    ...     def closure(number):                                # rank 0 would like w = 1, rank 1 w = 3
    ...         loss = ((w - 1 - 2 * world.rank) ** 2).sum()
    ...         loss.backward()
    ...         return loss
    ...     log = server.run(closure, steps=40)
    ...     return round(w.item(), 2), int(log.staleness.max()), (log.worker == world.rank).sum().item()
    >>> tg.distributed.simulate(2, rank)                        # the fast rank is heard more often
    [(1.57, 2, 33), (1.57, 2, 13)]
    """

    def __init__(self, optimizer: Optimizer, world: Communicator | None = None, staleness: float = 0,
                 delays: Sequence[float] | Callable[[int, int], float] | None = None) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"ParameterServer: optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer, self.world = optimizer, this_world() if world is None else world
        self.staleness, self.delays = staleness, delays
        server_schedule(self.world.size, 1, staleness, delays)          # refuses what it cannot work with
        named = optimizer._named()
        share_tensors(self.world, named)
        self._buckets = fill_buckets(p for _, p in named)

    def run(self, closure: Callable[[int], Any], steps: int) -> ServerLog:
        """Make steps; afterwards all ranks have the same parameters.

        Parameters
        ----------
        closure : callable
            `closure(number)` computes the loss of this rank's batch of that number, from 0, calls its backward and
            returns it. Gradients are cleared before; a parameter that it leaves without one counts as zero.
        steps : int
            How many steps the server makes, at least 1.

        Returns
        -------
        ServerLog
            The same on all ranks.
        """
        log = server_schedule(self.world.size, steps, self.staleness, self.delays)
        log = self.world.gather_objects(log if self.world.rank == 0 else None)[0]
        losses = self._serve(log, closure) if self.world.rank == 0 else self._work(log, closure)
        broadcast_tensors(self.world, (p for _, p in self.optimizer._named()))
        everyone = self.world.gather_objects(losses)
        log.loss = np.array([everyone[worker][number] for worker, number in zip(log.worker, log.number)])
        return log

    def _serve(self, log: ServerLog, closure: Callable[[int], Any]) -> list[float]:
        """Make the steps, and compute this rank's own gradients in between."""
        losses: list[float] = []
        left = np.bincount(log.worker, minlength=log.workers)       # gradients that are still to come
        own = self._compute(closure, losses) if left[0] else None
        for version in range(log.steps):
            workers = log.worker[log.version == version].tolist()
            self._step([own if k == 0 else self._receive(k, GRADIENT) for k in workers])
            left[workers] -= 1
            going_on = [k for k in workers if left[k]]
            for k in going_on:
                if k != 0:
                    self._send(self._packed(lambda p: p._data), k, PARAMETERS)
            if 0 in going_on:
                own = self._compute(closure, losses)
        return losses

    def _work(self, log: ServerLog, closure: Callable[[int], Any]) -> list[float]:
        """Compute a gradient, bring it, fetch the parameters, and so on."""
        losses: list[float] = []
        for number in range((log.worker == self.world.rank).sum()):
            if number:
                for bucket, flat in zip(self._buckets, self._receive(0, PARAMETERS)):
                    for p, part in zip(bucket.tensors, bucket.parts(flat)):
                        p.data = part
            self._send(self._compute(closure, losses), 0, GRADIENT)
        return losses

    def _compute(self, closure: Callable[[int], Any], losses: list[float]) -> list[Any]:
        """Return the next gradient of this rank, and note its loss."""
        self.optimizer.zero_grad()
        loss = closure(len(losses))
        if loss is None:
            raise TypeError("the closure must return the loss, it returned None")
        losses.append(float(loss))
        return self._packed(lambda p: None if p._grad is None else p._grad._data)

    def _packed(self, array_of: Callable[[Any], Any]) -> list[Any]:
        """Return arrays of all parameters as a few flat ones."""
        for bucket in self._buckets:
            for k, p in enumerate(bucket.tensors):
                bucket.put(k, array_of(p))
        return [bucket.flat.copy() for bucket in self._buckets]

    def _step(self, gradients: list[list[Any]]) -> None:
        """Step by the mean of gradients, added up in the order of the ranks."""
        for bucket, *flats in zip(self._buckets, *gradients):
            total = reduce(lambda a, b: a + b, flats)
            for p, part in zip(bucket.tensors, bucket.parts(total / total.dtype.type(len(flats)))):
                p.grad = part
        self.optimizer.step()

    def _send(self, flats: list[Any], to: int, tag: int) -> None:
        for flat in flats:
            self.world.send(flat, to, tag)

    def _receive(self, source: int, tag: int) -> list[Any]:
        return [self.world.receive(bucket.flat, source, tag) for bucket in self._buckets]
