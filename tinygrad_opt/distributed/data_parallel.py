"""Data parallelism: every rank has the whole model and a part of the batch, and gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..backend import xp
from ..nn import Module
from ..tensor import Tensor
from . import world as current_world
from .buckets import Reducer, broadcast_tensors, share_tensors
from .communicator import Communicator
from .compression import Compression


class Averager(Reducer):
    """Gives every rank the mean of all gradients, exactly or compressed."""

    compression: Compression | None = None

    def begin(self, n: int) -> Callable[[], Any]:
        """Begin the all-reduce of a bucket."""
        bucket = self.buckets[n]
        if self.compression is None:
            return self.world.begin_all_reduce(bucket.flat, "mean").wait
        alone = bucket.tensors[0] if len(bucket.tensors) == 1 else bucket.flat
        return self.compression.begin(self.world, bucket.flat.reshape(alone.shape), n)

    def deliver(self, n: int, answer: Any, used: list[bool]) -> None:
        """Make the means the gradients, where there was a gradient on some rank."""
        bucket = self.buckets[n]
        for p, mean, anywhere in zip(bucket.tensors, bucket.parts(answer), used):
            if anywhere:
                _give(p, mean)


def _give(p: Tensor, gradient: Any) -> None:
    """Give a parameter a gradient, in memory that the engine writes to again; what somebody else holds stays."""
    if p._buffer is None or (p._grad is not None and p._grad is not p._buffer):
        p._buffer = Tensor._wrap(xp.array(gradient, order="C"))
    else:
        p._buffer._data[...] = gradient
    p._grad = p._buffer


class DataParallel(Module):
    """A model on every rank, of which each sees a part of the batch.

    At the start the parameters and buffers of rank 0 are given to all. After every `backward()` the gradients are
    their means over all ranks, the same bits on each, so that any optimizer, clipping and the rest go on as alone:
    with equally many samples on each rank and a loss that is a mean, as with the whole batch in one process. They are
    averaged in flat buckets, the last layers first, which are sent while the walk goes on; `backward` returns when
    all are back. All ranks call `backward` equally often; a parameter that some rank does not use counts as a
    gradient of zero there, and one that no rank uses keeps its None.

    Parameters
    ----------
    model : Module
        Called through this, not directly. Names are those of the model: a `state_dict()` of one fits the other.
    world : Communicator, optional
        By default `tg.distributed.world()`.
    bucket_bytes : int, default 1 MiB
        What is sent at once: with more, there are fewer messages, and less is sent during the walk.
    compression : Compression, optional
        What sends less than all, for example `tg.distributed.TopK(0.01)`; one for each DataParallel.
    broadcast_buffers : bool, default True
        Whether in training each forward begins with the buffers of rank 0, such as running means, given to all.

    Attributes
    ----------
    module : Module
        The model.

    Raises
    ------
    TypeError
        When the model is no Module, or the compression none.
    ValueError
        When the models differ in names, shapes or dtypes, naming the first that does; when several ranks of a
        simulation share one model.

    Notes
    -----
    Li et al., PyTorch Distributed: Experiences on Accelerating Data Parallel Training, VLDB 2020, arXiv 2006.15704.
    Other than there, names have no "module." in front, and unused parameters need no flag.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     model = tg.distributed.DataParallel(tg.nn.Linear(1, 1, bias=False))
    ...     x = tg.tensor([[1.0], [3.0]])[world.rank:world.rank + 1]           # a sample each
    ...     model(x).sum().backward()
    ...     return model.module.weight.grad.item()
    >>> tg.distributed.simulate(2, rank)
    [2.0, 2.0]
    """

    def __init__(self, model: Module, world: Communicator | None = None, bucket_bytes: float = 1 << 20,
                 compression: Compression | None = None, broadcast_buffers: bool = True) -> None:
        super().__init__()
        if not isinstance(model, Module):
            raise TypeError(f"DataParallel takes a Module, got {type(model).__name__}")
        if compression is not None and not isinstance(compression, Compression):
            raise TypeError("compression is an object such as tg.distributed.TopK(0.01), got "
                            f"{getattr(compression, '__name__', repr(compression))}")
        self.module, self.broadcast_buffers = model, broadcast_buffers
        self.world = current_world() if world is None else world
        named = list(model.named_parameters())
        share_tensors(self.world, [*named, *model.named_buffers()])
        self._frozen = [(name, p) for name, p in named if not p.requires_grad]
        if compression is not None and compression.whole_tensors:
            bucket_bytes = 0
        alone = self.world.size == 1 and compression is None
        self._averager = Averager(self.world, [(name, p) for name, p in named if p.requires_grad and not alone],
                                  bucket_bytes)
        self._averager.compression = compression

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        for name, p in self._frozen:
            if p._requires_grad:
                raise RuntimeError(f"parameter {name} requires a gradient since DataParallel was made, which would not "
                                   "be averaged; make another")
        if not self._averager.buckets:
            return self.module(*args, **kwargs)
        if self.training and self.broadcast_buffers and self._averager.sends:
            broadcast_tensors(self.world, self.module.buffers())
        result = self.module(*args, **kwargs)
        for y in _tensors(result):
            if y._node is not None:                 # a walk begins here, even if it will come by no parameter
                y.register_hook(self._averager.reached)
        return result

    def no_sync(self) -> AbstractContextManager[None]:
        """Leave the gradients of each backward inside on their ranks, where they add up until one that sends them.

        Returns
        -------
        context manager

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> def rank(world):
        ...     model = tg.distributed.DataParallel(tg.nn.Linear(1, 1, bias=False))
        ...     with model.no_sync():
        ...         model(tg.tensor([[1.0 + world.rank]])).sum().backward()
        ...     model(tg.tensor([[10.0]])).sum().backward()
        ...     return model.module.weight.grad.item(), world.accounts["all_reduce"].calls
        >>> tg.distributed.simulate(2, rank)                    # a bucket, and which parameters were used
        [(11.5, 2), (11.5, 2)]
        """
        return self._averager.paused()

    def weighted(self, samples: float) -> AbstractContextManager[None]:
        """Weigh each rank by its number of samples in the backward inside: for batches that are not equally long.

        Each rank's loss is the mean over its own samples; the gradient is then that of the mean over all.

        Parameters
        ----------
        samples : float
            How many this rank has, at least 0; with 0 its gradients count nothing, whatever they are.

        Returns
        -------
        context manager

        Raises
        ------
        ValueError
            When samples is below 0, or 0 on all ranks.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> def rank(world):
        ...     model = tg.distributed.DataParallel(tg.nn.Linear(1, 1, bias=False))
        ...     x = [tg.tensor([[1.0], [2.0]]), tg.tensor([[6.0]])][world.rank]
        ...     with model.weighted(len(x)):
        ...         model(x).mean().backward()
        ...     return model.module.weight.grad.item()
        >>> tg.distributed.simulate(2, rank)
        [3.0, 3.0]
        """
        return self._averager.weighted(samples)

    # ---- names are the model's --------------------------------------------------------------------------------

    def _walk(self, prefix: str, seen: set[Module] | None) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        yield from self.module._walk(prefix, seen)

    def get_submodule(self, target: str) -> Module:
        """Return the module of the model with a dotted name; "" is the model."""
        return self.module.get_submodule(target)


def _tensors(result: Any) -> Iterator[Tensor]:
    """Yield the Tensors in a result: itself, or in tuples, lists and mappings."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list, Mapping)):
        for part in result.values() if isinstance(result, Mapping) else result:
            yield from _tensors(part)
