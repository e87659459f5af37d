"""Ranks as processes that MPI has started, by mpi4py: MPICH, Open MPI, or what the cluster has."""

from __future__ import annotations

import atexit
import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .communicator import Communicator, demand_kind, kind

# What the launchers of MPICH, Open MPI, PMIx and Intel MPI tell a process about the world that it belongs to.
LAUNCHED = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS")
INSTALL = "pip install 'tinygrad-opt[mpi]' installs mpi4py and MPICH"
HEADER = 256                                        # bytes before each message, which say what it is
NAP = 2e-5                                          # seconds


@dataclass
class _Begun:
    """What this rank has called, while it is not known whether all ranks have."""

    call: str
    digest: np.ndarray                              # which must live until the request is done
    ends: np.ndarray
    request: Any
    start: Callable[[], Callable[[], Any]]
    finish: Callable[[], Any] | None = None


class MPICommunicator(Communicator):
    """A rank that is a process.

    MPI itself does not notice when ranks disagree: it hangs, mixes up numbers, or crashes. So before each collective
    goes one of two integers, a digest of what is called.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default all processes that were started together.

    Raises
    ------
    ImportError
        When mpi4py is not installed, or finds no MPI library.
    """

    def __init__(self, comm: Any = None) -> None:
        self._mpi = import_mpi()
        self._comm = self._mpi.COMM_WORLD if comm is None else comm
        self._compared = self._comm.Dup()
        self._begun: deque[_Begun] = deque()
        node = self._comm.Split_type(self._mpi.COMM_TYPE_SHARED)
        self._crowded = node.Get_size() > (os.cpu_count() or 1)
        node.Free()
        self._unsent: list[tuple[Any, np.ndarray]] = []
        if not _open:
            atexit.register(_end_together)
        _open.append(self)
        super().__init__(self._comm.Get_rank(), self._comm.Get_size())

    def _begin_together(self, call: str, start: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
        digest, ends = np.array([_digest(call), -_digest(call)]), np.empty(2, np.int64)
        begun = _Begun(call, digest, ends, self._compared.Iallreduce(digest, ends, self._mpi.MAX), start)
        self._begun.append(begun)
        self._start_known()

        def result() -> Any:
            while begun.finish is None:
                self._start_first()
            return begun.finish()
        return result

    def _start_known(self) -> bool:
        """Start what is known to have begun on all ranks, and return whether that is everything."""
        while self._begun and self._begun[0].request.Test():
            self._start_first()
        return not self._begun

    def _start_first(self) -> None:
        """Start the first of what has been begun, when it is known that all ranks have begun the same."""
        first = self._begun[0]
        self._wait(first.request)
        if first.ends[0] != -first.ends[1]:         # the largest digest is not the smallest
            # By messages: other comparisons may be under way, and collectives must keep their order.
            told = [self._compared.isend(first.call, k) for k in range(self.size)]
            calls = [self._compared.recv(source=k) for k in range(self.size)]
            self._mpi.Request.waitall(told)
            self._demand_same(calls)
        self._begun.popleft()
        first.finish = first.start()

    def _begin_sum(self, x: np.ndarray) -> Callable[[], np.ndarray]:
        return self._finish(self._comm.Iallreduce(self._mpi.IN_PLACE, x, self._mpi.SUM), x, x)

    def _begin_all_gather(self, x: np.ndarray) -> Callable[[], np.ndarray]:
        result = np.empty((self.size, *x.shape), x.dtype)
        return self._finish(self._comm.Iallgather(x, result), result, x)

    def _reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        share = np.empty((len(x) // self.size, *x.shape[1:]), x.dtype)
        self._wait(self._comm.Ireduce_scatter_block(x, share, self._mpi.SUM))
        return share

    def _broadcast(self, x: np.ndarray, root: int) -> np.ndarray:
        result = x.copy()
        self._wait(self._comm.Ibcast(result, root))
        return result

    def _begin_send(self, x: np.ndarray, to: int, tag: int) -> Callable[[], None]:
        message = np.empty(HEADER + x.nbytes, np.uint8)
        message[:HEADER] = np.frombuffer(kind(x).encode().ljust(HEADER), np.uint8)
        message[HEADER:] = x.reshape(-1).view(np.uint8)
        self._unsent = [(request, sent) for request, sent in self._unsent if not request.Test()]
        self._unsent.append((self._comm.Isend(message, to, tag), message))
        return lambda: None

    def _receive(self, like: np.ndarray, source: int, tag: int) -> np.ndarray:
        status = self._mpi.Status()
        self._wait_for(lambda: self._comm.Iprobe(source, tag))
        coming = self._comm.Mprobe(source, tag, status)
        message = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
        self._wait(coming.Irecv(message))
        demand_kind(source, message[:HEADER].tobytes().decode().rstrip(), like)
        return message[HEADER:].view(like.dtype).reshape(like.shape)

    def _gather_objects(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def _split(self, color: int, key: int) -> MPICommunicator:
        part = MPICommunicator(self._comm.Split(color, key))
        part._crowded = self._crowded
        return part

    def _finish(self, request: Any, result: np.ndarray, sent: np.ndarray) -> Callable[[], np.ndarray]:
        def finish(alive: np.ndarray = sent) -> np.ndarray:         # until then
            self._wait(request)
            return result
        return finish

    def _wait(self, request: Any) -> None:
        self._wait_for(request.Test)
        request.Wait()

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait asleep where there are more ranks than cores: MPI waits busily, and would keep the others from work."""
        while self._crowded and not ready():
            time.sleep(NAP)


_open: list[MPICommunicator] = []


def _end_together() -> None:
    """End this process in good order: when the others end too, and what it has sent is with those who receive it.

    The end is one more call that all ranks must make alike: who calls another verb is told that this one has ended.
    """
    if hasattr(sys, "last_type") or import_mpi().Is_finalized():       # the former of an exception that nobody caught
        return
    ending = [world for world in _open if not world._disagreement]
    with suppress(ValueError):
        for world in ending:
            world._begin_together("the end of the script", lambda: lambda: None)
        waiting = ending
        while waiting:
            waiting = [world for world in waiting if not world._start_known()]
            time.sleep(100 * NAP if waiting else 0)
        for world in ending:
            for request, _ in world._unsent:
                request.Wait()


@lru_cache(maxsize=4096)
def _digest(call: str) -> int:
    return int.from_bytes(hashlib.blake2b(call.encode(), digest_size=7).digest(), "big")


def import_mpi() -> Any:
    """Return mpi4py.MPI, or raise ImportError with what to install."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:    # mpi4py without a library fails here too
        raise ImportError(f"MPI cannot be used: {error}. {INSTALL}") from error
    return MPI
