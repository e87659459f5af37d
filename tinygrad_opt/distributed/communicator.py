"""Communicator: a few verbs by which ranks exchange arrays, counted, timed, and compared before they are used.

What carries them is an implementation: threads of one process, for lessons (`threads.py`), MPI, for real work
(`mpi.py`), or NCCL between GPUs (`nccl.py`). All are held to the same contract, and give all ranks the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from ..backend import to_numpy, xp
from ..tensor import Tensor

OPERATIONS = ("sum", "mean", "max", "min")
TAGS = 2 ** 15                                      # as many as every MPI has


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

    def __init__(self, account: Account, begin: Callable[[], Callable[[], Any]]) -> None:
        self._account, self._start, self._done, self._result = account, time.perf_counter(), False, None
        self._finish = begin()
        account.waited += time.perf_counter() - self._start

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
    given stays as it is. Arrays of a GPU travel through the host, unless NCCL carries them.

    Attributes
    ----------
    rank, size : int
        Which one this is, of how many.
    accounts : dict of str to Account
        What each verb has cost this rank.
    parts : list of Communicator
        What was split from this one.

    Raises
    ------
    ValueError
        On all ranks, from any verb but `send` and `receive`, when they do not call the same one, with the same
        operation or root, on arrays of one shape and dtype; it says which rank calls what. From then on the
        communicator refuses all.

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
        self.parts: list[Communicator] = []
        self._disagreement = ""

    # ---- verbs --------------------------------------------------------------------------------------------

    def all_reduce(self, x: Any, op: str = "sum") -> Any:
        """Return the sum, mean, maximum or minimum over all ranks, the same bits on each."""
        return self.begin_all_reduce(x, op).wait()

    def begin_all_reduce(self, x: Any, op: str = "sum") -> Work:
        """Begin an `all_reduce` and return at once, x may be changed again; `.wait()` on what comes back gives it.

        Several may be under way, and be waited for in any order.
        """
        sent = self._summable(x, op, OPERATIONS).copy()

        def begin() -> Callable[[], Any]:
            # Carriers may forget NaN in a maximum, or give it to some of the ranks only.
            start = self._begin_sum if op in ("sum", "mean") else self._begin_all_gather
            finish = self._begin_together(_call("all_reduce", sent, op), lambda: start(sent))
            return lambda: self._back(_reduced(finish(), op, self.size).reshape(sent.shape))
        return Work(self._count("all_reduce", sent.nbytes), begin)

    def reduce_scatter(self, x: Any, op: str = "sum") -> Any:
        """Return this rank's share of the sum or mean over all ranks: its rows, divided evenly in order of the ranks.

        Raises
        ------
        ValueError
            When the number of rows is no multiple of the number of ranks.
        """
        sent = self._summable(x, op, ("sum", "mean"))
        if not sent.ndim or len(sent) % self.size:
            raise ValueError(f"reduce_scatter: the number of rows must be a multiple of the {self.size} ranks; "
                             f"got shape {sent.shape}")
        return self._together(_call("reduce_scatter", sent, op), sent.nbytes,
                              lambda: self._back(_reduced(self._reduce_scatter(sent), op, self.size)))

    def all_gather(self, x: Any) -> Any:
        """Return the arrays of all ranks, which have one shape, one below the other: (size, ...)."""
        sent = self._sendable(x)
        return self._together(_call("all_gather", sent), sent.nbytes,
                              lambda: self._back(self._begin_all_gather(sent)()))

    def broadcast(self, x: Any, root: int = 0) -> Any:
        """Return the array of rank `root`; the others give one of the same shape and dtype."""
        root = _whole("root", root, self.size)
        sent = self._sendable(x)
        return self._together(_call("broadcast", sent, f"from {root}"), sent.nbytes * (self.rank == root),
                              lambda: self._back(self._broadcast(sent, root)))

    def send(self, x: Any, to: int, tag: int = 0) -> None:
        """Send an array to a rank, which must receive it; return at once, x may be changed again.

        Messages to a rank with the same tag arrive in the order in which they were sent. A rank may send to itself.
        """
        to, tag = _whole("to", to, self.size), _whole("tag", tag, TAGS)
        sent = self._sendable(x)
        self._timed("send", sent.nbytes, lambda: self._begin_send(sent, to, tag)())

    def begin_send(self, x: Any, to: int, tag: int = 0) -> Work:
        """Begin a `send`; what comes back counts the seconds until its `.wait()`, which waits for nobody."""
        to, tag = _whole("to", to, self.size), _whole("tag", tag, TAGS)
        sent = self._sendable(x)
        return Work(self._count("send", sent.nbytes), lambda: self._begin_send(sent, to, tag))

    def receive(self, like: Any, source: int, tag: int = 0) -> Any:
        """Wait for an array from a rank and return it.

        Raises
        ------
        ValueError
            When it has not the shape and dtype of `like`.
        """
        source, tag = _whole("source", source, self.size), _whole("tag", tag, TAGS)
        return self._timed("receive", 0, lambda: self._back(self._receive(self._sendable(like), source, tag)))

    def gather_objects(self, value: Any) -> list[Any]:
        """Return copies of what all ranks give, in the order of the ranks: Python objects that can be pickled."""
        return self._together("gather_objects", 0, lambda: self._gather_objects(value))

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self._together("barrier", 0, lambda: None)

    def split(self, color: int, key: int | None = None) -> Communicator:
        """Return a communicator among the ranks that give the same color, in the order of their keys, else ranks."""
        color, key = _whole("color", color, 2 ** 31), _whole("key", self.rank if key is None else key, 2 ** 31)
        self.parts.append(self._together("split", 0, lambda: self._split(color, key)))
        return self.parts[-1]

    # ---- what an implementation writes, for contiguous NumPy arrays --------------------------------------------

    def _begin_together(self, call: str, start: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
        """Begin what all ranks must call alike, which is started by `start` and finished by what that returns.

        What this returns waits, demands that all ranks have made the same call, and finishes.
        """
        raise NotImplementedError

    def _begin_sum(self, x: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin the sum of what is the communicator's own, and may become the result."""
        raise NotImplementedError

    def _begin_all_gather(self, x: np.ndarray) -> Callable[[], np.ndarray]:
        raise NotImplementedError

    def _reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _broadcast(self, x: np.ndarray, root: int) -> np.ndarray:
        raise NotImplementedError

    def _begin_send(self, x: np.ndarray, to: int, tag: int) -> Callable[[], None]:
        raise NotImplementedError

    def _receive(self, like: np.ndarray, source: int, tag: int) -> np.ndarray:
        raise NotImplementedError

    def _gather_objects(self, value: Any) -> list[Any]:
        raise NotImplementedError

    def _split(self, color: int, key: int) -> Communicator:
        raise NotImplementedError

    # ---- on the way there and back ------------------------------------------------------------------------

    def _sendable(self, x: Any) -> Any:
        """Return an array of the host in one piece, with its shape."""
        x = x._data if isinstance(x, Tensor) else x
        array = np.asarray(to_numpy(x) if isinstance(x, xp.ndarray) else x, order="C")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"ranks exchange arrays of numbers, got dtype {array.dtype}; gather_objects takes anything")
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

    def _back(self, x: np.ndarray) -> Any:
        return x if xp is np else xp.asarray(x)

    def _summable(self, x: Any, op: str, known: tuple[str, ...]) -> Any:
        if op not in known:
            raise ValueError(f"op must be one of {', '.join(known)}; got {op!r}")
        sent = self._sendable(x)
        if sent.dtype == bool and op in ("sum", "mean"):
            raise TypeError(f"op {op!r} of bool would lose the count; give it as a dtype of numbers, such as int64, or "
                            "ask for 'max' (is it true on any rank) or 'min' (on all)")
        return sent

    # ---- accounts -----------------------------------------------------------------------------------------

    def _demand_same(self, calls: list[str]) -> None:
        if len(set(calls)) > 1:
            self._disagreement = ("ranks must call the same verbs on arrays of one shape and dtype; "
                                  + name_differing(calls))
            raise ValueError(self._disagreement)

    def _count(self, verb: str, size: int) -> Account:
        if self._disagreement:                      # what has been begun then is still under way
            raise ValueError(f"this communicator is out of step: {self._disagreement}")
        account = self.accounts.setdefault(verb, Account())
        account.calls += 1
        account.bytes += size
        return account

    def _timed(self, verb: str, size: int, call: Callable[[], Any]) -> Any:
        account, start = self._count(verb, size), time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        account.seconds += seconds
        account.waited += seconds
        return result

    def _together(self, words: str, size: int, call: Callable[[], Any]) -> Any:
        """Call what all ranks call, once it is known that they do."""
        return self._timed(words.partition(" ")[0], size, lambda: self._begin_together(words, lambda: call)())

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}, by {type(self).__name__}>"


def kind(x: Any) -> str:
    """Return the words on what kind of array this is, such as `(2, 3) float32`."""
    return f"{tuple(x.shape)} {x.dtype}"


def demand_kind(source: int, sent: str, like: Any) -> None:
    """Raise ValueError when what a rank has sent is not of the kind of `like`."""
    if sent != kind(like):
        raise ValueError(f"receive: like is {kind(like)}, but rank {source} has sent {sent}")


def name_differing(values: list[Any]) -> str:
    """Return the words on who has what, such as `ranks 0, 2, 3: 64; rank 1: 32`."""
    ranks: dict[str, list[str]] = {}
    for k, value in enumerate(values):
        ranks.setdefault(str(value), []).append(str(k))
    return "; ".join(f"rank{'s' * (len(who) > 1)} {', '.join(who)}: {value}" for value, who in ranks.items())


def _reduced(x: Any, op: str, size: int) -> Any:
    """Return what an operation makes of a sum over ranks, or, for max and min, of what all have gathered."""
    if op == "mean":
        return x / x.dtype.type(size)
    return x if op == "sum" else getattr(x, op)(axis=0)


def _call(verb: str, x: Any, detail: str = "") -> str:
    return f"{verb} {detail}{' of ' * bool(detail)}{kind(x)}"


def _whole(name: str, value: Any, limit: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= value < limit:
        what = "a rank" if name in ("root", "to", "source") else "a whole number"
        raise ValueError(f"{name} must be {what} from 0 to {limit - 1}, got {value!r}")
    return int(value)
