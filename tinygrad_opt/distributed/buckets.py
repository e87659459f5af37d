"""Buckets: gradients that travel together as one flat array, sent while the backward walk still runs.

A message costs a latency and then a time for each byte, so many small gradients are sent as one. The gradients of the
last layers are there first; a bucket of them is under way while the walk goes on through the layers before.
"""

from __future__ import annotations

import os
import platform
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from numbers import Real
from typing import Any

from ..autograd import queue_callback
from ..backend import xp
from ..tensor import Tensor, mode
from .checks import check_parameters
from .communicator import Communicator


class Bucket:
    """Tensors of one dtype, and the flat array in which their numbers travel.

    Parameters
    ----------
    tensors : list of Tensor
    multiple : int, default 1
        Of what the length of the flat array is a multiple; zeros fill it up.
    """

    def __init__(self, tensors: list[Tensor], multiple: int = 1) -> None:
        self.tensors, sizes = tensors, [t._data.size for t in tensors]
        ends = list(accumulate(sizes))
        self.places = [slice(end - size, end) for end, size in zip(ends, sizes)]
        self.size, self.dtype = -(-ends[-1] // multiple) * multiple, tensors[0].dtype
        self._flat: Any = None

    @property
    def flat(self) -> Any:
        """The flat array, made when it is first asked for."""
        if self._flat is None:
            self._flat = xp.zeros(self.size, self.dtype)
        return self._flat

    def free(self) -> None:
        """Give the memory of the flat array back."""
        self._flat = None

    def put(self, k: int, array: Any, weight: float = 1.0) -> None:
        """Write the numbers of tensor k, times a weight; those of None are zeros."""
        part = self.flat[self.places[k]]
        if array is None or weight == 0:            # what is not a number has no weight either
            part[...] = 0
        elif weight == 1:
            part[...] = array.reshape(-1)
        else:
            xp.multiply(array.reshape(-1), weight, out=part)

    def parts(self, flat: Any) -> list[Any]:
        """Return what belongs to each tensor in a flat array, in its shape, without a copy."""
        flat = flat.reshape(-1)
        return [flat[place].reshape(t.shape) for t, place in zip(self.tensors, self.places)]


def fill_buckets(tensors: Iterable[Tensor], limit: float = float("inf"), multiple: int = 1) -> list[Bucket]:
    """Deal Tensors, in their order, into buckets of one dtype and at most `limit` bytes; a larger one has its own."""
    filled: list[list[Tensor]] = []
    room = 0.0
    for t in tensors:
        room -= t._data.nbytes
        if not filled or room < 0 or filled[-1][0].dtype != t.dtype:
            filled.append([])
            room = limit - t._data.nbytes
        filled[-1].append(t)
    return [Bucket(together, multiple) for together in filled]


def broadcast_tensors(world: Communicator, tensors: Iterable[Tensor], root: int = 0) -> None:
    """Write the numbers of rank `root` into the Tensors of all ranks."""
    for bucket in fill_buckets(tensors):
        for k, t in enumerate(bucket.tensors):
            bucket.put(k, t._data)
        for t, part in zip(bucket.tensors, bucket.parts(world.broadcast(bucket.flat, root))):
            t._data[...] = part
            t._version[0] += 1


def share_tensors(world: Communicator, named: Iterable[tuple[str, Tensor]]) -> None:
    """Give all ranks the numbers that rank 0 has, once their Tensors have the same names, shapes and dtypes.

    Raises
    ------
    ValueError
        Naming what differs, or when several ranks have the very same Tensors.
    """
    named = list(named)
    check_parameters(named, world)
    place = (platform.node(), os.getpid(), id(named[0][1])) if named else None
    if named and len(set(world.gather_objects(place))) < world.size:
        raise ValueError("several ranks have one and the same model; build or copy.deepcopy one on each, inside the "
                         "function that all ranks run")
    broadcast_tensors(world, [t for _, t in named])


class Reducer:
    """Sends gradients in buckets, in one order on all ranks, each as soon as its gradients are there.

    The buckets are filled from the last parameter to the first: where a model names its layers in the order in which
    it uses them, that is the order in which a backward walk comes by. When the walk has ended what is left is sent,
    the gradients of unused parameters as zeros, and what comes back is awaited.

    A subclass says how a bucket is sent and what becomes of the answer.

    Parameters
    ----------
    world : Communicator
    named : iterable of (str, Tensor)
        The parameters.
    bucket_bytes : float
        What a bucket holds at most, unless a single gradient is larger.
    multiple : int, default 1
        Of what the length of a bucket is a multiple.

    Attributes
    ----------
    sends : bool
        Whether a backward sends its gradients, or leaves them here to be added to.
    weight : float
        What the gradients of this rank are multiplied by.
    """

    def __init__(self, world: Communicator, named: Iterable[tuple[str, Tensor]], bucket_bytes: float,
                 multiple: int = 1) -> None:
        if not isinstance(bucket_bytes, Real) or not bucket_bytes >= 0:
            raise ValueError(f"bucket_bytes must be at least 0, got {bucket_bytes!r}")
        named = list(named)
        self.world, self.sends, self.weight = world, True, 1.0
        self.names = {p: name for name, p in named}
        self.buckets = fill_buckets([p for _, p in reversed(named)], bucket_bytes, multiple)
        self.places = {p: (n, k) for n, bucket in enumerate(self.buckets) for k, p in enumerate(bucket.tensors)}
        for name, p in named:
            self._follow(name, p)

    def begin(self, n: int) -> Callable[[], Any]:
        """Begin to send bucket n; what is returned waits for the answer and returns it."""
        raise NotImplementedError

    def deliver(self, n: int, answer: Any, used: list[bool]) -> None:
        """Do with the answer for bucket n what is to be done; `used` says which parameters had a gradient anywhere."""
        raise NotImplementedError

    def reached(self, gradient: Tensor) -> None:
        """Take notice, as a hook of a result, that a backward has begun which is to end with all buckets sent."""
        if self.sends:
            self._begin_walk()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Send nothing inside."""
        before, self.sends = self.sends, False
        try:
            yield
        finally:
            self.sends = before

    @contextmanager
    def weighted(self, samples: float) -> Iterator[None]:
        """Weigh the ranks by their numbers of samples inside."""
        if not isinstance(samples, Real) or not samples >= 0:
            raise ValueError(f"samples must be at least 0, got {samples!r}")
        total = float(self.world.all_reduce(xp.asarray([samples], dtype="float64"))[0])
        if not total:
            raise ValueError("samples must be above 0 on some rank, it is 0 on all")
        self.weight = samples * self.world.size / total
        try:
            yield
        finally:
            self.weight = 1.0

    def _follow(self, name: str, p: Tensor) -> None:
        """Be told when the gradient of a parameter is there, in the place of whoever was told of it before."""
        p.register_post_accumulate_grad_hook(hook := _Follower(self))
        for other in [h for h in p._hooks.after if isinstance(h, _Follower) and h is not hook]:
            if other.reducer() is not None and type(other.reducer()) is not type(self):
                p._hooks.after.remove(hook)
                raise ValueError(f"the gradient of parameter {name} is averaged over the ranks already; take either "
                                 "DataParallel or ShardedOptimizer(stage=2)")
            p._hooks.after.remove(other)

    def _begin_walk(self) -> None:
        if self._end_walk not in mode.queue:
            queue_callback(self._end_walk)
            self._missing = [set(range(len(bucket.tensors))) for bucket in self.buckets]
            self._answers: list[Callable[[], Any]] = []
            self._used = [[False] * len(bucket.tensors) for bucket in self.buckets]

    def arrived(self, p: Tensor) -> None:
        """Take the whole gradient of a parameter, and send the buckets whose turn it is."""
        if not self.sends:
            return
        self._begin_walk()
        n, k = self.places[p]
        if k not in self._missing[n]:
            raise RuntimeError(f"the gradient of parameter {self.names[p]} was sent before it was whole: another "
                               "backward ran inside this one")
        self._put(n, k)
        while len(self._answers) < len(self.buckets) and not self._missing[len(self._answers)]:
            self._answers.append(self.begin(len(self._answers)))

    def _put(self, n: int, k: int) -> None:
        """Put the gradient of a parameter into its bucket; None where it is not used."""
        bucket = self.buckets[n]
        p, self._used[n][k] = bucket.tensors[k], bucket.tensors[k]._grad is not None
        if p._grad is not None and (p._grad._node is not None or p._grad.dtype != bucket.dtype):
            raise RuntimeError(
                f"parameter {self.names[p]}: a gradient with a graph of its own (create_graph=True) cannot be averaged"
                if p._grad._node is not None else f"parameter {self.names[p]} was {bucket.dtype} and is {p.dtype} "
                "now; convert a model before it is made parallel")
        bucket.put(k, None if p._grad is None else p._grad._data, self.weight)
        self._missing[n].discard(k)

    def _end_walk(self) -> None:
        """Send what is left, wait for all answers and deliver them."""
        for n, missing in enumerate(self._missing):
            for k in list(missing):
                self._put(n, k)
        for n in range(len(self._answers), len(self.buckets)):
            self._answers.append(self.begin(n))
        flags = [flag for used in self._used for flag in used]
        anywhere = self.world.begin_all_reduce(xp.asarray(flags, dtype="uint8"), "max")
        answers = [wait() for wait in self._answers]
        flags = iter(anywhere.wait().tolist())
        for n, answer in enumerate(answers):
            self.deliver(n, answer, [bool(next(flags)) for _ in self.buckets[n].tensors])


class _Follower:
    """A hook that tells a reducer, if there still is one, that a gradient is there."""

    def __init__(self, reducer: Reducer) -> None:
        self.reducer = weakref.ref(reducer)

    def __call__(self, p: Tensor) -> None:
        if (reducer := self.reducer()) is not None:
            reducer.arrived(p)


def reducer_of(p: Tensor) -> Reducer | None:
    """Return who sends the gradient of a parameter."""
    followers = [hook for hook in (p._hooks.after if p._hooks is not None else ()) if isinstance(hook, _Follower)]
    return followers[-1].reducer() if followers else None
