"""Ranks with a GPU each, on a stand-in for CuPy and its NCCL: who carries what, on which stream, and the contract."""

import os

import numpy as np
import pytest
from _mpi import ROOT, needs_mpi, run_mpi

EMULATED = str(ROOT / "tests" / "emulated")
WAITS = ["side waits for current", "host waits for side"]


def carried(world, kind):
    """Check what has gone by NCCL."""
    import tinygrad_opt as tg
    xp, log = tg.backend.xp, tg.backend.xp.cuda.LOG
    assert type(world).__name__ == kind

    def logged(call):
        del log[:]
        result = call()
        assert isinstance(result, xp.ndarray)
        return result, [line for line in log if line not in WAITS], [line for line in log if line in WAITS]
    nccl = kind == "NCCLCommunicator"
    assert xp.cuda.Device.current == (world.rank if nccl else 0)
    assert not nccl or log == [f"device {world.rank}"]
    x = xp.ones((4, 2), xp.float32)
    for name, call in {"all_reduce": lambda: world.all_reduce(x.T, "mean"), "all_gather": lambda: world.all_gather(x),
                       "reduce_scatter": lambda: world.reduce_scatter(x), "broadcast": lambda: world.broadcast(x)
                       }.items():
        result, calls, waits = logged(call)
        assert (tg.backend.to_numpy(result) == (2 if name == "reduce_scatter" else 1)).all()
        assert (calls, waits) == (([f"{name} float32"], WAITS) if nccl else ([], []))
    assert logged(lambda: world.all_reduce(x, "max"))[1] == ["all_gather float32"] * nccl
    for other in (xp.ones(2, bool), xp.ones(2, xp.int16), np.ones(2)):          # what NCCL lacks, or is on the host
        assert logged(lambda other=other: world.all_gather(other))[1] == []
    world.send(x, to=world.rank)
    assert logged(lambda: world.receive(x, world.rank))[1] == []
    assert logged(lambda: world.split(0).all_reduce(x))[1] == []
    work = world.begin_all_reduce(xp.full(3, 2.0))
    assert work.wait().tolist() == [4, 4, 4]


def on_gpus(n, gpus, code, **environment):
    path = os.pathsep.join([EMULATED, str(ROOT), str(ROOT / "tests")])
    done = run_mpi(n, f"import tinygrad_opt as tg\n{code}", backend="cupy", PYTHONPATH=path,
                   TINYGRAD_OPT_EMULATED=str(gpus), **environment)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_mpi
@pytest.mark.parametrize("gpus, nccl, kind", [(2, "", "NCCLCommunicator"), (1, "", "MPICommunicator"),
                                              (2, "none", "MPICommunicator")])
def test_nccl_carries_where_every_rank_has_a_gpu(gpus, nccl, kind):
    on_gpus(2, gpus, f"from test_distributed_nccl import carried\ncarried(tg.distributed.world(), {kind!r})",
            TINYGRAD_OPT_EMULATED_NCCL=nccl)


@needs_mpi
def test_nccl_keeps_the_contract():
    on_gpus(2, 2, "from test_distributed_communicator import contract\ncontract(tg.distributed.world())")
