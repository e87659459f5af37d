"""Ranks as processes that MPI has started, by mpi4py: MPICH, Open MPI, or what the cluster has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .communicator import Communicator

# What the launchers of MPICH, Open MPI, PMIx and Intel MPI tell a process about the world that it belongs to.
LAUNCHED = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS")
INSTALL = "pip install 'tinygrad-opt[mpi]' installs mpi4py and MPICH"


class MPICommunicator(Communicator):
    """A rank that is a process.

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
        self._mpi = _import()
        self._comm = self._mpi.COMM_WORLD if comm is None else comm
        super().__init__(self._comm.Get_rank(), self._comm.Get_size())

    def _begin_all_reduce(self, x: np.ndarray, op: str) -> Callable[[], np.ndarray]:
        result = np.empty_like(x)
        request = self._comm.Iallreduce(x, result, getattr(self._mpi, op.upper()))

        def finish(sent: np.ndarray = x) -> np.ndarray:             # which must live until then
            request.Wait()
            return result
        return finish

    def _reduce_scatter(self, x: np.ndarray) -> np.ndarray:
        share = np.empty((len(x) // self.size, *x.shape[1:]), x.dtype)
        self._comm.Reduce_scatter_block(x, share, self._mpi.SUM)
        return share

    def _all_gather(self, x: np.ndarray) -> np.ndarray:
        result = np.empty((self.size, *x.shape), x.dtype)
        self._comm.Allgather(x, result)
        return result

    def _broadcast(self, x: np.ndarray, root: int) -> np.ndarray:
        result = x.copy()
        self._comm.Bcast(result, root)
        return result

    def _begin_send(self, x: np.ndarray, to: int, tag: int) -> Callable[[], None]:
        sent = x.copy()
        request = self._comm.Isend(sent, to, tag)

        def finish(sent: np.ndarray = sent) -> None:
            request.Wait()
        return finish

    def _receive(self, room: np.ndarray, source: int, tag: int) -> np.ndarray:
        self._comm.Recv(room, source, tag)
        return room

    def _gather_objects(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def _split(self, color: int, key: int) -> MPICommunicator:
        return MPICommunicator(self._comm.Split(color, key))


def _import() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:                    # mpi4py without a library fails here too
        raise ImportError(f"MPI cannot be used: {error}. {INSTALL}") from error
    return MPI
