"""Communicator: a few verbs by which ranks exchange arrays, counted and timed.

What carries them is an implementation: threads of one process, for lessons (`threads.py`), or MPI, for real work
(`mpi.py`). Both are held to the same contract, and both give all ranks the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import to_numpy, xp
from ..tensor import Tensor

OPERATIONS = ("sum", "mean", "max", "min")


@dataclass
class Account:
    """What a verb has cost this rank so far.

    Attributes
    ----------
    calls, bytes : int
        How often it was called, and the bytes of the arrays that this rank handed over.
    seconds : float
        From the beginning of each call until its result was there.
    waited : float
        Of these, the seconds in which nothing else was done.
    """

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    @property
    def hidden(self) -> float:
        """The share of the seconds in which something else was done meanwhile."""
        return 1 - self.waited / self.seconds if self.seconds else 0.0


class Work:
    """A call under way; `wait()` returns its result, a second time too."""

    def __init__(self, finish: Callable[[], Any], account: Account) -> None:
        self._finish, self._account, self._start = finish, account, time.perf_counter()
        self._done, self._result = False, None

    def wait(self) -> Any:
        """Wait until the call is done and return its result."""
        if not self._done:
            asked = time.perf_counter()
            self._result, self._done = self._finish(), True
            now = time.perf_counter()
            self._account.seconds += now - self._start
            self._account.waited += now - asked
        return self._result


class Communicator:
    """Ranks 0 to size - 1 that call the same verbs in the same order.

    A verb takes an array of any backend or a Tensor, of any shape, and returns an array of the backend; what it was
    given stays as it is, unless it says otherwise. Arrays of a GPU travel through the host.

    Attributes
    ----------
    rank, size : int
        Which one this is, of how many.
    accounts : dict of str to Account
        What each verb has cost this rank.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     return world.all_reduce([1.0, world.rank]).tolist()
    >>> tg.distributed.simulate(3, rank)
    [[3.0, 3.0], [3.0, 3.0], [3.0, 3.0]]
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.accounts: dict[str, Account] = {}

    # ---- verbs --------------------------------------------------------------------------------------------

    def all_reduce(self, x: Any, op: str = "sum") -> Any:
        """Return the sum, mean, maximum or minimum over all ranks, the same bits on each."""
        return self.begin_all_reduce(x, op).wait()

    def begin_all_reduce(self, x: Any, op: str = "sum") -> Work:
        """Begin an `all_reduce` and return at once; `.wait()` on what comes back gives the result."""
        if op not in OPERATIONS:
            raise ValueError(f"op must be one of {', '.join(OPERATIONS)}; got {op!r}")
        sent = _sendable(x)
        finish = self._begin_all_reduce(sent, "sum" if op == "mean" else op)

        def result() -> Any:
            total = finish()
            return _back(total / total.dtype.type(self.size) if op == "mean" else total)
        return Work(result, self._count("all_reduce", sent.nbytes))

    def reduce_scatter(self, x: Any, op: str = "sum") -> Any:
        """Return this rank's share of the sum over all ranks: the rows of x, divided evenly in order of the ranks.

        Raises
        ------
        ValueError
            When the number of rows is no multiple of the number of ranks.
        """
        sent = _sendable(x)
        if op not in ("sum", "mean") or not sent.ndim or len(sent) % self.size:
            raise ValueError(f"reduce_scatter: op must be sum or mean, and the rows a multiple of {self.size}; "
                             f"got op {op!r} and shape {sent.shape}")
        share = self._timed("reduce_scatter", sent.nbytes, lambda: self._reduce_scatter(sent))
        return _back(share / share.dtype.type(self.size) if op == "mean" else share)

    def all_gather(self, x: Any) -> Any:
        """Return the arrays of all ranks, which have one shape, one below the other: (size, ...)."""
        sent = _sendable(x)
        return _back(self._timed("all_gather", sent.nbytes, lambda: self._all_gather(sent)))

    def broadcast(self, x: Any, root: int = 0) -> Any:
        """Return the array of rank `root`; the others give one of the same shape and dtype."""
        self._check_rank("root", root)
        sent = _sendable(x)
        return _back(self._timed("broadcast", sent.nbytes * (self.rank == root), lambda: self._broadcast(sent, root)))

    def send(self, x: Any, to: int, tag: int = 0) -> None:
        """Send an array to a rank, which receives it; returns when x may be changed again."""
        self.begin_send(x, to, tag).wait()

    def begin_send(self, x: Any, to: int, tag: int = 0) -> Work:
        """Begin to send an array to a rank and return at once."""
        self._check_rank("to", to)
        sent = _sendable(x)
        return Work(self._begin_send(sent, to, tag), self._count("send", sent.nbytes))

    def receive(self, like: Any, source: int, tag: int = 0) -> Any:
        """Wait for an array from a rank, of the shape and dtype of `like`, and return it."""
        self._check_rank("source", source)
        room = np.empty_like(_sendable(like))
        return _back(self._timed("receive", 0, lambda: self._receive(room, source, tag)))

    def gather_objects(self, value: Any) -> list[Any]:
        """Return what every rank gives, any Python object, in the order of the ranks; for settings and checks."""
        return self._timed("gather_objects", 0, lambda: self._gather_objects(value))

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self._timed("barrier", 0, lambda: self._gather_objects(None))

    def split(self, color: int, key: int | None = None) -> Communicator:
        """Return a communicator among the ranks that give the same color, in the order of their keys, else ranks."""
        return self._split(color, self.rank if key is None else key)

    # ---- what an implementation writes, on contiguous NumPy arrays -------------------------------------------

    def _begin_all_reduce(self, x: np.ndarray, op: str) -> Callable[[], np.ndarray]:
        raise NotImplementedError

    def _reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _all_gather(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _broadcast(self, x: np.ndarray, root: int) -> np.ndarray:
        raise NotImplementedError

    def _begin_send(self, x: np.ndarray, to: int, tag: int) -> Callable[[], None]:
        raise NotImplementedError

    def _receive(self, room: np.ndarray, source: int, tag: int) -> np.ndarray:
        raise NotImplementedError

    def _gather_objects(self, value: Any) -> list[Any]:
        raise NotImplementedError

    def _split(self, color: int, key: int) -> Communicator:
        raise NotImplementedError

    # ---- accounts -----------------------------------------------------------------------------------------

    def _count(self, verb: str, size: int) -> Account:
        account = self.accounts.setdefault(verb, Account())
        account.calls += 1
        account.bytes += size
        return account

    def _timed(self, verb: str, size: int, call: Callable[[], Any]) -> Any:
        return Work(call, self._count(verb, size)).wait()

    def _check_rank(self, name: str, rank: Any) -> None:
        if not isinstance(rank, int) or not 0 <= rank < self.size:
            raise ValueError(f"{name} must be a rank from 0 to {self.size - 1}, got {rank!r}")

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}, by {type(self).__name__}>"


def _sendable(x: Any) -> np.ndarray:
    """Return an array of the host in one piece, with its shape."""
    x = x._data if isinstance(x, Tensor) else x
    array = np.asarray(to_numpy(x) if isinstance(x, xp.ndarray) else x, order="C")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"ranks exchange arrays of numbers, got dtype {array.dtype}; gather_objects takes anything")
    return array


def _back(x: np.ndarray) -> Any:
    return x if xp is np else xp.asarray(x)
