"""Beyond one process: the same training script on several ranks, by threads for lessons and by MPI for work.

    >>> import tinygrad_opt as tg
    >>> tg.distributed.world()                  # without a launcher the world is this process alone
    <rank 0 of 1, by ThreadCommunicator>
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from .communicator import Communicator
from .mpi import LAUNCHED
from .threads import Board, ThreadCommunicator, current, simulate

# These are read when they are first asked for; each file is one method.
_LATER: dict[str, str] = {
    **dict.fromkeys(("check_parameters", "check_same"), "checks"), **dict.fromkeys(("Report", "report"), "reports"),
    "DataParallel": "data_parallel", "DistributedSampler": "sampler", "ShardedOptimizer": "sharded",
    **dict.fromkeys(("Compression", "Float16", "PowerSGD", "RandomK", "ScaledSign", "TopK"), "compression"),
    **dict.fromkeys(("RingAllReduce", "ring_all_reduce"), "ring"),
    "Pipeline": "pipeline", **dict.fromkeys(("PipelineSchedule", "pipeline_schedule"), "pipeline_schedules"),
    **dict.fromkeys(("ColumnParallelLinear", "RowParallelLinear", "full_state_dict", "load_full_state_dict"),
                    "tensor_parallel"),
    **dict.fromkeys(("Grid", "average_gradients", "grid"), "grids"),
    **dict.fromkeys(("ParameterServer", "RandomDelays", "ServerLog", "server_schedule"), "parameter_server"),
    **dict.fromkeys(("Federation", "federated"), "federation"),
    **dict.fromkeys(("class_counts", "split_by_class", "split_dirichlet"), "client_data"), "LocalSGD": "local_sgd",
}
__all__ = ["Communicator", "simulate", "world", *_LATER]

_world: list[Communicator] = []


def world() -> Communicator:
    """Return the communicator of this rank among all ranks.

    Inside `simulate` it is that of the thread. In a process that MPI has started it is MPI's; without a launcher, a
    world of one, so that the same script runs alone, unchanged.
    """
    if hasattr(current, "world"):
        return current.world
    if not _world:
        if any(name in os.environ for name in LAUNCHED):
            from .mpi import MPICommunicator
            from .nccl import NCCLCommunicator, own_device
            device = own_device()
            _world.append(MPICommunicator() if device is None else NCCLCommunicator(device))
        else:
            _world.append(ThreadCommunicator(Board(1), 0))
    return _world[0]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
