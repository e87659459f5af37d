"""Ranks as threads of one process: nothing to install, so that a lesson runs in a notebook.

Every collective is one idea: each rank posts what it has under the number of the call, and takes what all have posted.
Sums are made in the order of the ranks, so that all have the same bits, in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from ..random import own_generator
from .communicator import Communicator

REDUCE = {"sum": np.add, "max": np.maximum, "min": np.minimum}
current = threading.local()                         # the communicator of a thread that is a rank


class Board:
    """Where the threads of a group post: values by the number of the call, messages by sender, receiver and tag."""

    def __init__(self, size: int) -> None:
        self.size, self.changed, self.failure = size, threading.Condition(), None
        self.posts: dict[Any, dict[int, Any]] = {}
        self.messages: dict[tuple[int, int, int], list[np.ndarray]] = {}
        self.parts: dict[Any, Board] = {}

    def post(self, call: Any, rank: int, value: Any) -> None:
        """Post a rank's value of a call."""
        with self.changed:
            self.posts.setdefault(call, {})[rank] = value
            self.changed.notify_all()

    def take(self, call: Any, rank: int) -> list[Any]:
        """Wait until all ranks have posted and return their values; the last to take them clears them away."""
        with self.changed:
            posts = self.posts[call]
            self._wait(lambda: len(posts) >= self.size)
            values = [posts[k] for k in range(self.size)]
            taken = posts.setdefault("taken", 0) + 1                                     # type: ignore[call-overload]
            posts["taken"] = taken                                                       # type: ignore[index]
            if taken == self.size:
                del self.posts[call]
            return values

    def send(self, place: tuple[int, int, int], x: np.ndarray) -> None:
        """Leave a message."""
        with self.changed:
            self.messages.setdefault(place, []).append(x)
            self.changed.notify_all()

    def receive(self, place: tuple[int, int, int]) -> np.ndarray:
        """Wait for a message and take it."""
        with self.changed:
            self._wait(lambda: self.messages.get(place))
            return self.messages[place].pop(0)

    def fail(self, rank: int, error: BaseException) -> None:
        """Wake all who wait: a rank has ended by an error, what they wait for will not come."""
        with self.changed:
            self.failure = self.failure or (rank, error)
            self.changed.notify_all()
        for part in list(self.parts.values()):
            part.fail(rank, error)

    def _wait(self, ready: Callable[[], Any]) -> None:
        self.changed.wait_for(lambda: self.failure or ready())
        if self.failure and not ready():
            rank, error = self.failure
            raise Stopped(f"rank {rank} has ended by {type(error).__name__}: {error}")


class Stopped(RuntimeError):
    """Another rank has failed, so that this one cannot go on."""


class ThreadCommunicator(Communicator):
    """A rank that is a thread of this process.

    Parameters
    ----------
    board : Board
    rank : int
    """

    def __init__(self, board: Board, rank: int) -> None:
        super().__init__(rank, board.size)
        self._board, self._calls = board, 0

    def _post(self, value: Any) -> int:
        self._calls += 1
        self._board.post(self._calls, self.rank, value)
        return self._calls

    def _all(self, value: Any) -> list[Any]:
        return self._board.take(self._post(value), self.rank)

    def _begin_all_reduce(self, x: np.ndarray, op: str) -> Callable[[], np.ndarray]:
        call = self._post(x.copy())
        return lambda: reduce(REDUCE[op], _alike(self._board.take(call, self.rank), "all_reduce")).reshape(x.shape)

    def _reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        count = len(x) // self.size
        rows = slice(self.rank * count, (self.rank + 1) * count)
        return reduce(np.add, [other[rows] for other in _alike(self._all(x.copy()), "reduce_scatter")])

    def _all_gather(self, x: np.ndarray) -> np.ndarray:
        return np.stack(_alike(self._all(x.copy()), "all_gather"))

    def _broadcast(self, x: np.ndarray, root: int) -> np.ndarray:
        return _alike(self._all(x.copy()), "broadcast")[root].copy()

    def _begin_send(self, x: np.ndarray, to: int, tag: int) -> Callable[[], None]:
        self._board.send((self.rank, to, tag), x.copy())
        return lambda: None

    def _receive(self, room: np.ndarray, source: int, tag: int) -> np.ndarray:
        x = self._board.receive((source, self.rank, tag))
        return _alike([room, x], f"receive from {source}")[1]

    def _gather_objects(self, value: Any) -> list[Any]:
        return self._all(value)

    def _split(self, color: int, key: int) -> ThreadCommunicator:
        chosen = self._all((color, key))
        members = sorted((k, rank) for rank, (c, k) in enumerate(chosen) if c == color)
        ranks = [rank for _, rank in members]
        with self._board.changed:
            board = self._board.parts.setdefault((self._calls, color), Board(len(ranks)))
        return ThreadCommunicator(board, ranks.index(self.rank))


def _alike(arrays: list[np.ndarray], verb: str) -> list[np.ndarray]:
    """Return arrays of all ranks, once they have one shape and dtype."""
    kinds = {(a.shape, a.dtype) for a in arrays}
    if len(kinds) > 1:
        shown = "; ".join(f"rank {k}: {a.shape} {a.dtype}" for k, a in enumerate(arrays))
        raise ValueError(f"{verb}: all ranks give arrays of one shape and dtype, these differ: {shown}")
    return arrays


def simulate(size: int, function: Callable[..., Any], *args: Any, seed: int | None = None) -> list[Any]:
    """Run a function as every rank of a world of threads, and return what each returned.

    Parameters
    ----------
    size : int
        How many ranks, at least 1.
    function : callable
        `function(world, *args)`, with the communicator of the rank; inside, `distributed.world()` is this too.
    *args
        Handed to all; what they share they share.
    seed : int, optional
        Of the default random generator of each rank, which is its own; rank k begins at seed + k.

    Raises
    ------
    Exception
        That of the first rank that failed, with its number in a note; the others are stopped.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.distributed.simulate(2, lambda world: (world.rank, world.size))
    [(0, 2), (1, 2)]
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
    board, results = Board(size), [None] * size
    errors: list[tuple[int, BaseException]] = []

    def rank(k: int) -> None:
        current.world = ThreadCommunicator(board, k)
        try:
            with own_generator(None if seed is None else seed + k):
                results[k] = function(current.world, *args)
        except BaseException as error:
            errors.append((k, error))
            board.fail(k, error)
    threads = [threading.Thread(target=rank, args=(k,), daemon=True) for k in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        k, error = next(((k, e) for k, e in errors if not isinstance(e, Stopped)), errors[0])
        error.add_note(f"on rank {k} of {size}")
        raise error
    return results
