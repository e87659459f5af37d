"""Ranks with a GPU each: NCCL carries collectives from one to the other, MPI starts it and carries the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import xp
from ..tensor import Tensor
from .mpi import MPICommunicator, import_mpi

CARRIED = "bBiIlLqQefd"                             # the dtypes that NCCL knows, by their letters


class NCCLCommunicator(MPICommunicator):
    """A rank that is a process with a GPU of its own.

    Sums, shares, gathers and broadcasts of GPU arrays go by NCCL, on a stream of their own. What NCCL does not have
    travels through the host by MPI: bool and small integers, messages, which carry tags and wait for nobody, Python
    objects, and the groups of `split`.

    Parameters
    ----------
    device : int
        The number of the GPU, among those that this process sees.

    Raises
    ------
    RuntimeError
        When NCCL is not installed.

    Notes
    -----
    `tg.distributed.world()` makes it where there is a GPU for each rank. Arrays are made on that GPU from then on,
    so call it first.
    """

    def __init__(self, device: int) -> None:
        super().__init__()
        xp.cuda.Device(device).use()
        from cupyx.distributed import init_process_group
        self._nccl = init_process_group(self.size, self.rank, use_mpi=True)
        self._stream = xp.cuda.Stream(non_blocking=True)

    def _sendable(self, x: Any) -> Any:
        x = x._data if isinstance(x, Tensor) else x
        if isinstance(x, xp.ndarray) and x.dtype.char in CARRIED:
            return x if x.flags.c_contiguous else x.copy(order="C")
        return super()._sendable(x)

    def _back(self, x: Any) -> Any:
        return x if isinstance(x, xp.ndarray) else super()._back(x)

    def _begin(self, result: Any, call: Callable[[], None], sent: Any = None) -> Callable[[], Any]:
        """Enqueue a call behind what the current stream has yet to do; what this returns waits for the result."""
        self._stream.wait_event(xp.cuda.get_current_stream().record())
        call()
        done = self._stream.record()

        def finish(alive: Any = sent) -> Any:       # until then
            done.synchronize()
            return result
        return finish

    def _begin_sum(self, x: Any) -> Callable[[], Any]:
        if not isinstance(x, xp.ndarray):
            return super()._begin_sum(x)
        return self._begin(x, lambda: self._nccl.all_reduce(x, x, "sum", self._stream))

    def _begin_all_gather(self, x: Any) -> Callable[[], Any]:
        if not isinstance(x, xp.ndarray):
            return super()._begin_all_gather(x)
        result = xp.empty((self.size, *x.shape), x.dtype)
        return self._begin(result, lambda: self._nccl.all_gather(x, result, x.size, self._stream), x)

    def _reduce_scatter(self, x: Any) -> Any:
        if not isinstance(x, xp.ndarray):
            return super()._reduce_scatter(x)
        share = xp.empty((len(x) // self.size, *x.shape[1:]), x.dtype)
        return self._begin(share, lambda: self._nccl.reduce_scatter(x, share, share.size, "sum", self._stream), x)()

    def _broadcast(self, x: Any, root: int) -> Any:
        if not isinstance(x, xp.ndarray):
            return super()._broadcast(x, root)
        result = x.copy()
        return self._begin(result, lambda: self._nccl.broadcast(result, root, self._stream))()


def own_device() -> int | None:
    """Return the GPU that this rank has for itself, where NCCL is installed and every rank has one; else None."""
    if xp is np:
        return None
    from cupy.cuda import nccl
    mpi, runtime = import_mpi(), xp.cuda.runtime
    node = mpi.COMM_WORLD.Split_type(mpi.COMM_TYPE_SHARED)
    device = node.Get_rank() % runtime.getDeviceCount()
    # Numbers are of those that a process sees; a cluster may show each process another one.
    chosen = node.allgather(runtime.deviceGetPCIBusId(device))
    alone = bool(nccl.available) and len(set(chosen)) == node.Get_size()
    node.Free()
    return device if all(mpi.COMM_WORLD.allgather(alone)) else None
