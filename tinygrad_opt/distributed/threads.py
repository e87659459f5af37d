"""Ranks as threads of one process: nothing to install, so that a lesson runs in a notebook.

Every collective is one idea: each rank posts what it has under the number of the call, and takes what all have posted.
Sums are made in the order of the ranks, so that all have the same bits, in every run.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from ..random import own_generator
from .communicator import Communicator, demand_kind, kind

current = threading.local()                         # the communicator of a thread that is a rank


class Stopped(RuntimeError):
    """What this rank waits for will not come: another has failed, or all wait for each other."""


class Waiting:
    """Who of a world waits for what, so that nobody waits in vain.

    Attributes
    ----------
    changed : threading.Condition
        Held by whoever looks at or changes what the ranks share.
    reason : str
        Why nobody can go on; empty until then.
    """

    def __init__(self, size: int) -> None:
        self.size, self.changed, self.reason = size, threading.Condition(), ""
        self._ranks: dict[int, int] = {}                                    # by thread
        self._waits: dict[int, tuple[str, Callable[[], Any]]] = {}          # by rank: words, and whether it has come
        self._ended: set[int] = set()

    def enter(self, rank: int) -> None:
        """Note that this thread is a rank, which it stays in all groups."""
        self._ranks.setdefault(threading.get_ident(), rank)

    def leave(self) -> None:
        """Note that this rank has ended."""
        with self.changed:
            self._ended.add(self._ranks.pop(threading.get_ident()))
            self.changed.notify_all()

    def stop(self, reason: str) -> None:
        """Stop all ranks at the next verb, those that wait at once."""
        with self.changed:
            self.reason = self.reason or reason
            self.changed.notify_all()

    def check(self) -> None:
        """Raise Stopped when there is a reason why nobody can go on."""
        if self.reason:
            raise Stopped(self.reason)

    def wait(self, words: str, ready: Callable[[], Any]) -> None:
        """Wait until something is ready, or raise Stopped when it never will be."""
        # A thread that a rank has started itself may wait, but that does not say what the rank does.
        rank = self._ranks.get(threading.get_ident())
        if rank is not None:
            self._waits[rank] = words, ready
        try:
            while not ready():
                if not self.reason and self._all_wait():
                    if self.size == 1:              # which goes on when it catches this
                        raise Stopped(self._words())
                    self.stop(self._words())
                self.check()
                self.changed.wait()
        finally:
            self._waits.pop(rank, None)                                                  # type: ignore[arg-type]

    def _all_wait(self) -> bool:
        return (len(self._waits) + len(self._ended) >= self.size
                and not any(ready() for _, ready in self._waits.values()))

    def _words(self) -> str:
        doing = {k: f"rank {k} waits for {words}" for k, (words, _) in self._waits.items()}
        doing |= {k: f"rank {k} has ended" for k in self._ended}
        return f"no rank can go on: {'; '.join(doing[k] for k in sorted(doing))}"


class Board:
    """Where the threads of a group post: values by the number of the call, messages by sender, receiver and tag."""

    def __init__(self, size: int, waiting: Waiting | None = None) -> None:
        self.size, self.waiting = size, waiting or Waiting(size)
        self.posts: dict[int, dict[int, Any]] = {}
        self.taken: dict[int, int] = {}
        self.messages: dict[tuple[int, int, int], list[np.ndarray]] = {}
        self.parts: dict[tuple[int, int], Board] = {}

    def post(self, call: int, rank: int, value: Any) -> None:
        """Post a rank's value of a call."""
        with self.waiting.changed:
            self.waiting.check()
            self.posts.setdefault(call, {})[rank] = value
            self.waiting.changed.notify_all()

    def take(self, call: int, words: str) -> list[Any]:
        """Wait until all ranks have posted and return their values; the last to take them clears them away."""
        with self.waiting.changed:
            posts = self.posts[call]
            self.waiting.wait(words, lambda: len(posts) == self.size)
            self.taken[call] = self.taken.get(call, 0) + 1
            if self.taken[call] == self.size:
                del self.posts[call], self.taken[call]
            return [posts[k] for k in range(self.size)]

    def send(self, place: tuple[int, int, int], x: np.ndarray) -> None:
        """Leave a message."""
        with self.waiting.changed:
            self.waiting.check()
            self.messages.setdefault(place, []).append(x)
            self.waiting.changed.notify_all()

    def receive(self, place: tuple[int, int, int]) -> np.ndarray:
        """Wait for a message and take it."""
        with self.waiting.changed:
            self.waiting.wait(f"a message from rank {place[0]} with tag {place[2]}", lambda: self.messages.get(place))
            return self.messages[place].pop(0)


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
        board.waiting.enter(rank)

    def _post(self, value: Any) -> int:
        self._calls += 1
        self._board.post(self._calls, self.rank, value)
        return self._calls

    def _all(self, words: str, value: Any) -> list[Any]:
        return self._board.take(self._post(value), words)

    def _begin_together(self, call: str, start: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
        number, finish = self._post(call), start()

        def result() -> Any:
            self._demand_same(self._board.take(number, f"all to call {call}"))
            return finish()
        return result

    def _begin_sum(self, x: np.ndarray) -> Callable[[], np.ndarray]:
        call = self._post(x)
        return lambda: reduce(np.add, self._board.take(call, "all_reduce"))

    def _begin_all_gather(self, x: np.ndarray) -> Callable[[], np.ndarray]:
        call = self._post(x.copy())
        return lambda: np.stack(self._board.take(call, "all_gather"))

    def _reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        count = len(x) // self.size
        rows = slice(self.rank * count, (self.rank + 1) * count)
        return reduce(np.add, [other[rows] for other in self._all("reduce_scatter", x.copy())])

    def _broadcast(self, x: np.ndarray, root: int) -> np.ndarray:
        return self._all("broadcast", x.copy() if self.rank == root else None)[root].copy()

    def _begin_send(self, x: np.ndarray, to: int, tag: int) -> Callable[[], None]:
        self._board.send((self.rank, to, tag), x.copy())
        return lambda: None

    def _receive(self, like: np.ndarray, source: int, tag: int) -> np.ndarray:
        x = self._board.receive((source, self.rank, tag))
        demand_kind(source, kind(x), like)
        return x

    def _gather_objects(self, value: Any) -> list[Any]:
        return [pickle.loads(each) for each in self._all("gather_objects", pickle.dumps(value))]

    def _split(self, color: int, key: int) -> ThreadCommunicator:
        chosen = self._all("split", (color, key))
        ranks = [rank for _, rank in sorted((k, rank) for rank, (c, k) in enumerate(chosen) if c == color)]
        with self._board.waiting.changed:
            board = self._board.parts.setdefault((self._calls, color), Board(len(ranks), self._board.waiting))
        return ThreadCommunicator(board, ranks.index(self.rank))


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
        That of the lowest rank that failed by itself, with its number in a note; the others are stopped.
    RuntimeError
        When no rank can go on, because each waits for another or for one that has ended; it says who for what.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.distributed.simulate(2, lambda world: (world.rank, world.size))
    [(0, 2), (1, 2)]
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
    board, results = Board(size), [None] * size
    errors: dict[int, BaseException] = {}

    def rank(k: int) -> None:
        current.world = ThreadCommunicator(board, k)
        try:
            with own_generator(None if seed is None else seed + k):
                results[k] = function(current.world, *args)
        except BaseException as error:
            errors[k] = error
            board.waiting.stop(f"rank {k} has ended by {type(error).__name__}: {error}")
        board.waiting.leave()
    threads = [threading.Thread(target=rank, args=(k,), daemon=True) for k in range(size)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException as error:                  # Ctrl-C interrupts the main thread only
        board.waiting.stop(f"the simulation was stopped by {type(error).__name__}")
        raise
    if errors:
        k = min(errors, key=lambda k: (isinstance(errors[k], Stopped), k))
        errors[k].add_note(f"on rank {k} of {size}")
        raise errors[k]
    return results
