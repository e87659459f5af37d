"""Pipeline: the layers of a Sequential on several ranks, which work on the micro-batches of a batch in turn.

Activations go to the next rank, their gradients to the one before. The order of the work is that of
`pipeline_schedule`, so a rank needs to know nothing of the others but who its neighbours are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..backend import xp
from ..nn import Module, Sequential
from ..nn.module import Keys
from ..optim.registry import find
from ..tensor import Tensor, no_grad
from . import world as this_world
from .checks import check_parameters, check_same
from .communicator import Communicator
from .pipeline_schedules import FORWARD, KINDS, pipeline_schedule, whole, work_order
from .tensor_parallel import full_state_dict, load_full_state_dict

SHAPE, ACTIVATION, GRADIENT = 1, 2, 3               # tags of messages
DTYPES = ("float16", "float32", "float64", "int64", "bool")
AXES = 8                                            # that an activation may have at most


class Pipeline(Module):
    """The layers of a model on the ranks of a world, a stretch on each.

    All ranks make it from the same layers, of which each keeps its own, and call it together. `step` leaves the
    gradients of the whole batch in the local parameters, which the optimizer of each rank then updates:
    `optimizer = tg.optim.Adam(pipeline.parameters())`, as always.

    Parameters
    ----------
    layers : Sequential
        At least as many as there are ranks. Their result and gradients are those of the unsplit model, but a layer
        that looks at other rows of the batch, as BatchNorm1d does, sees only those of its micro-batch.
    loss : callable
        `loss(prediction, y)`, a mean over the rows.
    world : Communicator, optional
        By default that of this rank.
    chunks : int, default 4
        Micro-batches of a batch, at least 1; more of them shorten the time in which ranks wait for each other.
    schedule : {"1f1b", "gpipe"}
        1F1B holds fewer activations, and waits as long.
    split : sequence of int, optional
        How many layers each rank has, at least 1; by default so that parameters are spread as evenly as may be.

    Attributes
    ----------
    layers : Sequential
        Those of this rank, under their names in the whole.
    schedule : PipelineSchedule
        Who does what when; `schedule.draw()` shows it.
    split : tuple of int
        How many layers each rank has.
    most_live : int
        The most micro-batches that this rank held at once in the last step.

    Raises
    ------
    TypeError, ValueError
        When there are fewer layers with parameters than ranks, a split does not fit, or two ranks would share a
        parameter. On all ranks, when they have made it of different arguments.

    References
    ----------
    GPipe: Huang et al., 2019, arXiv 1811.06965. 1F1B with a flush: Narayanan et al., 2021, arXiv 2104.04473.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     tg.manual_seed(0)                                   # the same model on all ranks
    ...     layers = tg.nn.Sequential(tg.nn.Linear(2, 8), tg.nn.Tanh(), tg.nn.Linear(8, 1))
    ...     pipeline = tg.distributed.Pipeline(layers, tg.nn.MSELoss(), world, chunks=2)
    ...     optimizer = tg.optim.Adam(pipeline.parameters(), lr=0.05)
    ...     x = tg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    ...     for _ in range(40):
    ...         optimizer.zero_grad()
    ...         loss = pipeline.step(x, x[:, :1] * x[:, 1:])
    ...         optimizer.step()
    ...     return len(pipeline.layers), loss < 0.05
    >>> tg.distributed.simulate(2, rank)
    [(2, True), (1, True)]
    """

    def __init__(self, layers: Sequential, loss: Any, world: Communicator | None = None, chunks: int = 4,
                 schedule: str = "1f1b", split: Sequence[int] | None = None) -> None:
        super().__init__()
        if not isinstance(layers, Sequential):
            raise TypeError(f"layers must be a Sequential, whose layers can be told apart; got {type(layers).__name__}")
        self.world = this_world() if world is None else world
        rank, size = self.world.rank, self.world.size
        kind = find(schedule, KINDS, "schedule", "tg.distributed.pipeline_schedule")
        named = layers._items(Module)                # also of a layer that comes twice
        self.split = _check_split(split, named, size)
        ends = np.cumsum([0, *self.split]).tolist()
        stages = [Sequential(dict(named[a:b])) for a, b in zip(ends, ends[1:])]
        _check_apart(stages)
        check_same("the arguments of a Pipeline", {"schedule": kind, "chunks": whole("chunks", chunks),
                                                   "split": self.split}, self.world)
        check_parameters(layers, self.world)
        self.layers, self.schedule = stages[rank], pipeline_schedule(size, chunks, kind)
        self._order = work_order(rank, size, chunks, kind)
        self._loss = (loss,)                        # in a tuple, so that a loss module is no part of the model
        self._first, self._last = rank == 0, rank == size - 1
        self.most_live = 0

    def step(self, x: Any, y: Any) -> float:
        """Run a batch forward and backward, and add the gradients to those of the local parameters.

        Parameters
        ----------
        x : Tensor or array, shape (rows, ...)
            Read on the first rank; others may give None.
        y : Tensor or array, shape (rows, ...)
            Read on the last rank; others may give None.

        Returns
        -------
        float
            The mean loss of the batch, on all ranks.

        Raises
        ------
        ValueError
            When there are fewer rows than micro-batches.
        """
        count = self.schedule.chunks
        xs, ys = _cut(x, count, "x") if self._first else None, _cut(y, count, "y") if self._last else None
        kept: dict[int, tuple[Tensor, Tensor]] = {}     # what went into the layers and what came out
        total, self.most_live = 0.0, 0
        for kind, k in self._order:
            if kind == FORWARD:
                into = xs[k] if self._first else self._receive_activation()
                out = self.layers(into)
                if self._last:
                    share = len(ys[k]) / sum(map(len, ys))
                    out = self._loss[0](out, ys[k]) * share
                    total += float(out)
                else:
                    self._send_activation(out)
                kept[k] = into, out
                self.most_live = max(self.most_live, len(kept))
            else:
                self._backward(*kept.pop(k))
        return float(self.world.broadcast(np.array(total), self.world.size - 1))

    def _backward(self, into: Tensor, out: Tensor) -> None:
        """Take the gradient of what a micro-batch gave, and hand on that of what it came from."""
        gradient = None
        if not self._last and _flows(out):
            gradient = Tensor._wrap(self.world.receive(out, self.world.rank + 1, GRADIENT))
        if out.requires_grad:
            out.backward(gradient)
        if not self._first and _flows(into):
            slope = xp.zeros_like(into._data) if into._grad is None else into._grad
            self.world.send(slope, self.world.rank - 1, GRADIENT)

    def forward(self, x: Any) -> Tensor:
        """Return the model's prediction for x on all ranks, without recording gradients.

        Parameters
        ----------
        x : Tensor or array, shape (rows, ...)
            Read on the first rank; others may give None.
        """
        with no_grad():
            into = _tensor(x) if self._first else self._receive_activation()
            out = self.layers(into)
            if not self._last:
                self._send_activation(out)
        last = self.world.size - 1
        header = self.world.broadcast(_header(out) if self._last else np.zeros(AXES + 2, np.int64), last)
        return Tensor._wrap(self.world.broadcast(out if self._last else _room(header), last))

    def _send_activation(self, out: Tensor) -> None:
        self.world.send(_header(out), self.world.rank + 1, SHAPE)
        self.world.send(out, self.world.rank + 1, ACTIVATION)

    def _receive_activation(self) -> Tensor:
        before = self.world.rank - 1
        room = _room(self.world.receive(np.zeros(AXES + 2, np.int64), before, SHAPE))
        into = Tensor._wrap(self.world.receive(room, before, ACTIVATION))
        return into.requires_grad_() if _flows(into) else into

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """Yield every parameter of this rank with its name in the whole model."""
        return self.layers.named_parameters(prefix, recurse, remove_duplicate)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the whole model, as the unsplit Sequential takes it; all ranks call it."""
        parts = self.world.gather_objects({name: value.numpy() for name, value in full_state_dict(self.layers).items()})
        return {name: Tensor(value) for part in parts for name, value in part.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Keys:
        """Copy what belongs to this rank out of the state of the whole model; see `Module.load_state_dict`."""
        own = tuple(f"{name}." for name, _ in self.layers.named_children())
        part = {name: value for name, value in state_dict.items() if name.startswith(own)}
        return load_full_state_dict(self.layers, part, strict)

    def extra_repr(self) -> str:
        return f"rank={self.world.rank}, split={self.split}, chunks={self.schedule.chunks}, {self.schedule.kind}"


def _flows(x: Tensor) -> bool:
    """Whether gradients come back for what is sent."""
    return x.dtype.kind == "f"


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def _cut(x: Any, chunks: int, name: str) -> list[Tensor]:
    """Return the micro-batches of a batch, the first ones a row longer where they do not come out even."""
    x = _tensor(x)
    rows = len(x)
    if rows < chunks:
        raise ValueError(f"{name} has {rows} rows, too few for {chunks} micro-batches; give larger batches, or make "
                         f"the Pipeline with chunks={rows} or fewer")
    ends = [(k * rows + chunks - 1) // chunks for k in range(chunks + 1)]
    return [x[a:b] for a, b in zip(ends, ends[1:])]


def _header(x: Tensor) -> np.ndarray:
    """Return shape and dtype as numbers, which go ahead so that the receiver can make room."""
    if x.ndim > AXES or str(x.dtype) not in DTYPES:
        raise ValueError(f"what one rank hands to the next has at most {AXES} axes and one of the dtypes "
                         f"{', '.join(DTYPES)}; got shape {x.shape} and {x.dtype}")
    return np.array([DTYPES.index(str(x.dtype)), x.ndim, *x.shape, *[0] * (AXES - x.ndim)], np.int64)


def _room(header: Any) -> np.ndarray:
    dtype, ndim, *shape = header.tolist()
    return np.empty(shape[:ndim], DTYPES[dtype])


def _check_split(split: Sequence[int] | None, named: list[tuple[str, Module]], size: int) -> tuple[int, ...]:
    """Return how many layers each rank has, as given or spread evenly."""
    if len(named) < size:
        raise ValueError(f"layers: {len(named)} layers cannot be spread over {size} ranks; each needs one at least")
    if split is None:
        sizes = [sum(p.numel() for p in layer.parameters()) for _, layer in named]
        if (learned := sum(map(bool, sizes))) < size:
            raise ValueError(f"layers: {learned} of the {len(named)} layers have parameters, too few for {size} ranks "
                             "with an optimizer each; take fewer ranks, or give split where one has nothing to learn")
        return balanced_split(sizes, size)
    split = tuple(split)
    if len(split) != size or sum(split) != len(named) or any(not isinstance(n, int) or n < 1 for n in split):
        raise ValueError(f"split must be {size} whole numbers of at least 1, one a rank, that sum to the {len(named)} "
                         f"layers; got {split}")
    return split


def balanced_split(weights: Sequence[float], parts: int) -> tuple[int, ...]:
    """Return the lengths of the stretches into which weights are cut: the least sum of squares of their sums.

    Of equally good cuts it takes the latest, so that a layer without parameters stays with the one before it.

    Examples
    --------
    >>> from tinygrad_opt.distributed.pipeline import balanced_split
    >>> balanced_split([100, 0, 50, 0, 50, 0], 2)
    (2, 4)
    """
    below = np.cumsum([0, *weights]).tolist()

    @lru_cache(None)
    def best(start: int, parts: int) -> tuple[float, tuple[int, ...]]:
        if parts == 1:
            return (below[-1] - below[start]) ** 2, (len(weights) - start,)
        cuts = []
        for end in range(len(weights) - parts + 1, start, -1):
            cost, rest = best(end, parts - 1)
            cuts.append(((below[end] - below[start]) ** 2 + cost, (end - start, *rest)))
        return min(cuts, key=lambda cut: cut[0])
    return best(0, parts)[1]


def _check_apart(stages: list[Sequential]) -> None:
    """Raise where a parameter would be on two ranks, whose gradients nobody adds up."""
    owner: dict[Any, tuple[int, str]] = {}
    for rank, stage in enumerate(stages):
        for name, parameter in stage.named_parameters():
            other, known = owner.setdefault(parameter, (rank, name))
            if other != rank:
                raise ValueError(f"layers: {name} on rank {rank} is {known} on rank {other}; a parameter that layers "
                                 "share must stay on one rank, choose split so that it does")
