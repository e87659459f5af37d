"""The contract of a communicator, for threads and for MPI; and that in a simulation nobody waits in vain."""

import _thread
import hashlib
import re
import signal
import threading
import time

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks, run_mpi

import tinygrad_opt as tg
from tinygrad_opt.distributed import simulate, world
from tinygrad_opt.distributed.communicator import Account

SHAPES = [(), (0,), (1,), (5,), (3, 4), (2, 0, 3), (20_000,)]
DTYPES = [np.float16, np.float32, np.float64, np.int64, np.uint8]
LARGE = 300_000                                     # numbers, more than any MPI sends before somebody receives


def numbers(rank, shape, dtype=np.float64):
    x = np.random.default_rng([rank, 7]).standard_normal(shape) * 10
    return (abs(x) if dtype is np.uint8 else x).astype(dtype)


def same(a, b):
    a, b = tg.backend.to_numpy(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, a.shape, b.dtype, b.shape)
    np.testing.assert_array_equal(a, b)


def others(world, shape, dtype=np.float64):
    return [numbers(rank, shape, dtype) for rank in range(world.size)]


# ---- what each verb does ----------------------------------------------------------------------------------------


def sums_are_right_and_the_same_bits_on_all(world):
    for dtype in DTYPES:
        for shape in SHAPES:
            x = numbers(world.rank, shape, dtype)
            before = x.copy()
            total = world.all_reduce(x)
            assert total.dtype == dtype and total.shape == shape
            exact = sum(y.astype(np.float64) for y in others(world, shape, dtype))
            error = 0.05 if dtype == np.float16 else 1e-4 if dtype == np.float32 else 1e-12
            np.testing.assert_allclose(tg.backend.to_numpy(total).astype(float), exact, rtol=error, atol=20 * error)
            for other in world.all_gather(total):
                assert other.tobytes() == total.tobytes()
            same(x, before)


def means_maxima_and_minima(world):
    for dtype in DTYPES:
        all_ranks = np.stack(others(world, (3, 4), dtype))
        x = all_ranks[world.rank]
        same(world.all_reduce(x, "max"), all_ranks.max(0))
        same(world.all_reduce(x, "min"), all_ranks.min(0))
        mean = world.all_reduce(x, "mean")
        assert mean.dtype == (x[0, 0] / x[0, 0]).dtype
        if dtype == np.float64:
            np.testing.assert_allclose(mean, all_ranks.mean(0), rtol=1e-14)
    same(world.all_reduce(np.bool_(world.rank == 0), "max"), np.bool_(True))
    same(world.all_reduce(np.array([True, world.rank == 0]), "min"), np.array([True, world.size == 1]))
    for op in ("max", "min", "sum"):
        assert np.isnan(world.all_reduce(np.nan if world.rank == 0 else 1.0, op))


def shares_of_a_sum(world):
    for shape in ((world.size,), (2 * world.size, 3), (0, 4), (world.size * 4000,)):
        for op in ("sum", "mean"):
            x = numbers(world.rank, shape)
            share = world.reduce_scatter(x, op)
            rows = shape[0] // world.size
            exact = sum(others(world, shape))[world.rank * rows:(world.rank + 1) * rows]
            np.testing.assert_allclose(share, exact / (world.size if op == "mean" else 1), rtol=1e-12, atol=1e-13)
            assert share.shape == (rows, *shape[1:])
    same(world.reduce_scatter(np.arange(world.size)), np.array([world.rank * world.size]))


def gathers_and_broadcasts(world):
    for dtype in (*DTYPES, bool):
        for shape in SHAPES:
            x = numbers(world.rank, shape, dtype)
            same(world.all_gather(x), np.stack(others(world, shape, dtype)))
            root = world.size - 1
            same(world.broadcast(x, root), others(world, shape, dtype)[root])
    x = np.zeros(3)
    world.broadcast(x)[:] = 1                       # what is given back is one's own
    same(x, np.zeros(3))


def anything_that_is_an_array_of_numbers(world):
    strided = np.arange(24.0).reshape(4, 6)[::2, 1::2].T
    same(world.all_reduce(strided), strided * world.size)
    same(world.all_gather(strided)[0], strided)
    same(world.all_reduce(tg.tensor([1.0, 2.0], requires_grad=True)), np.float32([1, 2]) * world.size)
    same(world.all_reduce([1, 2]), np.array([1, 2]) * world.size)
    same(world.all_reduce(2.0), np.array(2.0 * world.size))
    same(world.all_reduce(np.arange(3.0).astype(">f8")), np.arange(3.0) * world.size)
    same(world.receive(tg.zeros(2), source=world.rank) if world.send(tg.ones(2), to=world.rank) is None else None,
         np.ones(2, np.float32))


def several_under_way_are_waited_for_in_any_order(world):
    given = [np.full(n, world.rank + n, float) for n in (4, 50_000, 1)]
    works = [world.begin_all_reduce(x, op) for x, op in zip(given, ("sum", "mean", "max"))]
    given[1][:] = 0                                 # which is too late to be sent
    same(world.all_reduce(1), np.array(world.size))                     # and other verbs between
    ranks = world.size * (world.size - 1) / 2
    for k, result in ((2, world.size), (0, ranks + 4 * world.size), (1, ranks / world.size + 50_000)):
        np.testing.assert_allclose(works[k].wait(), np.full(len(given[k]), float(result)))
        assert works[k].wait() is works[k].wait()


def messages(world):
    n, right, left = world.size, (world.rank + 1) % world.size, (world.rank - 1) % world.size
    x = np.full(LARGE, float(world.rank))
    for _ in range(n):                              # a ring in which all send first
        world.send(x, to=right)
        x = world.receive(x, source=left)
    assert (x == world.rank).all()
    world.send(np.arange(LARGE), to=world.rank, tag=3)
    world.send(np.float16(5), to=world.rank, tag=1)
    world.send(np.array([[True]]), to=world.rank, tag=1)
    same(world.receive(np.float16(0), world.rank, tag=1), np.float16(5))
    same(world.receive(np.array([[False]]), world.rank, tag=1), np.array([[True]]))
    same(world.receive(np.arange(LARGE), world.rank, tag=3), np.arange(LARGE))
    x = np.zeros(2)
    work = world.begin_send(x, to=right)
    x += 1                                          # which is too late to be sent
    work.wait()
    same(world.receive(x, left), np.zeros(2))
    world.send(np.zeros((0, 3)), to=right)
    same(world.receive(np.ones((0, 3)), left), np.zeros((0, 3)))


def groups(world):
    part = world.split(world.rank % 2)
    assert (part.rank, part.size) == (world.rank // 2, (world.size + 1 - world.rank % 2) // 2)
    assert part.gather_objects(world.rank) == [k for k in range(world.size) if k % 2 == world.rank % 2]
    backwards = world.split(0, key=world.size - world.rank)
    assert backwards.rank == world.size - 1 - world.rank
    alone = part.split(part.rank)
    assert (alone.size, alone.all_reduce(3)) == (1, 3)
    same(part.all_reduce(1.0), np.array(float(part.size)))
    assert part in world.parts and alone in part.parts


def objects(world):
    mine = {"rank": world.rank, "list": []}
    everyone = world.gather_objects(mine)
    assert [one["rank"] for one in everyone] == list(range(world.size))
    everyone[world.rank]["list"].append(1)                              # they are copies
    assert mine["list"] == []
    world.barrier()


def accounts(world):
    world = world.split(0)
    world.all_reduce(np.zeros(100))
    world.begin_all_reduce(np.zeros(10, np.float32)).wait()
    world.broadcast(np.zeros(4), root=0)
    assert world.accounts["all_reduce"].calls == 2 and world.accounts["all_reduce"].bytes == 840
    assert world.accounts["broadcast"].bytes == (32 if world.rank == 0 else 0)
    work = world.begin_all_reduce(1.0)
    time.sleep(0.05)
    work.wait()
    account = world.accounts["all_reduce"]
    assert account.seconds - account.waited >= 0.05 and 0 < account.hidden < 1
    assert Account().hidden == 0


def refusals(world):
    n = world.size
    for error, words, call in [
            (TypeError, "lose the count.*'max'", lambda: world.all_reduce(np.array([True]))),
            (TypeError, "lose the count", lambda: world.reduce_scatter(np.ones(n, bool), "mean")),
            (ValueError, "one of sum, mean, max, min; got 'prod'", lambda: world.all_reduce(1.0, "prod")),
            (ValueError, "one of sum, mean; got 'max'", lambda: world.reduce_scatter(np.ones(n), "max")),
            (ValueError, rf"multiple of the {n} ranks; got shape \(\)", lambda: world.reduce_scatter(1.0)),
            (TypeError, "numbers, got dtype complex128; gather_objects", lambda: world.all_gather(1j)),
            (TypeError, "numbers, got dtype object", lambda: world.broadcast(np.array([None]))),
            (ValueError, f"to must be a rank from 0 to {n - 1}, got {n}", lambda: world.send(1.0, to=n)),
            (ValueError, "source must be a rank .* got -1", lambda: world.receive(1.0, source=-1)),
            (ValueError, "root must be a rank .* got 1.0", lambda: world.broadcast(1.0, root=1.0)),
            (ValueError, "tag must be a whole number from 0", lambda: world.send(1.0, to=0, tag=-1)),
            (ValueError, "color must be a whole number from 0", lambda: world.split(-1))]:
        with pytest.raises(error, match=words):
            call()
    if n > 1:
        with pytest.raises(ValueError, match=f"multiple of the {n} ranks"):
            world.reduce_scatter(np.ones(n + 1))


DISAGREEMENTS = [                                   # what rank 0 calls, what the others call, and what all are told
    (lambda w: w.all_reduce(np.ones(3)), lambda w: w.all_reduce(np.ones(40_000)),
     r"rank 0: all_reduce sum of \(3,\) float64; ranks? 1.*: all_reduce sum of \(40000,\) float64"),
    (lambda w: w.all_reduce(np.ones(2)), lambda w: w.all_reduce(np.ones(4, np.float32)), r"\(4,\) float32"),
    (lambda w: w.all_reduce(1.0), lambda w: w.all_reduce(1.0, "mean"), r"rank 0: all_reduce sum .*: all_reduce mean"),
    (lambda w: w.broadcast(1.0), lambda w: w.broadcast(1.0, root=1), r"broadcast from 0 of .*: broadcast from 1 of"),
    (lambda w: w.all_gather(np.ones((2, 3))), lambda w: w.all_gather(np.ones((3, 2))), r"\(2, 3\).*\(3, 2\)"),
    (lambda w: w.barrier(), lambda w: w.reduce_scatter(np.ones(w.size)), r"rank 0: barrier; .*: reduce_scatter sum"),
    (lambda w: w.split(0), lambda w: w.gather_objects(0), r"rank 0: split; .*: gather_objects"),
]


def disagreements_are_named_on_all_ranks(world):
    if world.size == 1:
        return
    for first, rest, words in DISAGREEMENTS:
        part = world.split(0)
        work = part.begin_all_reduce(1.0)
        with pytest.raises(ValueError, match=words):
            (rest if part.rank else first)(part)
        assert work.wait() == world.size                                # it was begun before
        with pytest.raises(ValueError, match="out of step: .*" + words):
            part.barrier()
    if world.rank == 1:
        world.send(np.ones(2, np.float32), to=0)
    if world.rank == 0:                             # as many bytes, but another thing
        with pytest.raises(ValueError, match=r"like is \(1,\) float64, but rank 1 has sent \(2,\) float32"):
            world.receive(np.ones(1), source=1)


CONTRACT = [sums_are_right_and_the_same_bits_on_all, means_maxima_and_minima, shares_of_a_sum, gathers_and_broadcasts,
            anything_that_is_an_array_of_numbers, several_under_way_are_waited_for_in_any_order, messages, groups,
            objects, accounts, refusals, disagreements_are_named_on_all_ranks]


def contract(world):
    for clause in CONTRACT:
        clause(world)


def digest(world):
    """Print a digest of the bits of sums, once all ranks have the same."""
    bits = b"".join(world.all_reduce(numbers(world.rank, n, dtype)).tobytes() for n in (1, 7, 1000, 50_000)
                    for dtype in (np.float16, np.float32, np.float64))
    mine = hashlib.sha256(bits).hexdigest()
    assert set(world.gather_objects(mine)) == {mine}
    if world.rank == 0:
        print(mine)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_threads_keep_the_contract(clause, size):
    simulate(size, clause)


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_a_world_of_one_keeps_the_contract(clause):
    clause(world())


@needs_mpi
@pytest.mark.parametrize("size", [1, 2, 4])
def test_mpi_keeps_the_contract(size):
    on_ranks(size, contract)


@needs_mpi
def test_mpi_gives_the_same_bits_in_every_run():
    first, second = (on_ranks(3, digest).stdout.split() for _ in range(2))
    assert first == second and len(first) == 1


EARLY = """
import sys
from tinygrad_opt.distributed import world
world = world()
part = world.split(0)
if world.rank != 1:
    {call}
sys.exit({status})
"""


@needs_mpi
@pytest.mark.parametrize("call", ["world.all_reduce([1.0, 2.0])", "part.barrier()"])
@pytest.mark.parametrize("status", [0, 3])
def test_mpi_tells_that_a_rank_has_ended_while_others_wait(call, status):
    done = run_mpi(3, EARLY.format(call=call, status=status), timeout=20)
    assert done.returncode in (1, 3) and done.stdout == ""
    assert re.search(r"ranks 0, 2: (all_reduce sum of \(2,\) float64|barrier); rank 1: the end of the script",
                     done.stderr) or status


def test_sums_of_threads_are_made_in_the_order_of_the_ranks():
    given = [np.float32(x) for x in (1e8, 1.0, -1e8, 1.0)]
    for result in simulate(4, lambda world: world.all_reduce(given[world.rank])):
        assert result == ((given[0] + given[1]) + given[2]) + given[3] != sum(sorted(given))


def test_a_tester_that_finds_nothing_would_be_none():
    with pytest.raises(AssertionError):
        simulate(2, lambda world: same(world.all_reduce(1.0), np.array(3.0)))


# ---- simulations: nobody waits in vain --------------------------------------------------------------------------


def fails(function, size=3, error=RuntimeError):
    start = time.monotonic()
    with pytest.raises(error) as caught:
        simulate(size, function)
    assert time.monotonic() - start < 5
    return str(caught.value), caught.value.__notes__


def test_an_exception_on_one_rank_stops_the_others():
    def rank(world):
        if world.rank == 1:
            raise KeyError("one of a kind")
        world.split(0).barrier()
    assert fails(rank, error=KeyError) == ("'one of a kind'", ["on rank 1 of 3"])


def test_ranks_that_do_not_wait_are_stopped_at_their_next_verb():
    steps = []

    def rank(world):
        if world.rank == 0:
            raise ValueError("no more")
        while True:
            world.send(1.0, to=0)
            steps.append(world.rank)
            time.sleep(0.001)
    fails(rank, error=ValueError)


def test_a_rank_that_ends_while_others_wait():
    said, notes = fails(lambda world: world.all_reduce(1.0) if world.rank else None)
    assert said == ("no rank can go on: rank 0 has ended; rank 1 waits for all to call all_reduce sum of () float64; "
                    "rank 2 waits for all to call all_reduce sum of () float64")
    assert notes == ["on rank 1 of 3"]


def test_ranks_that_wait_for_each_other():
    said, _ = fails(lambda world: world.receive(1.0, source=1 - world.rank, tag=4), size=2)
    assert said == ("no rank can go on: rank 0 waits for a message from rank 1 with tag 4; "
                    "rank 1 waits for a message from rank 0 with tag 4")
    assert "rank 1 waits for all to call barrier" in fails(
        lambda world: world.receive(1.0, 1) if world.rank == 0 else world.barrier(), size=2)[0]


def test_groups_that_wait_for_each_other():
    def rank(world):
        part = world.split(world.rank // 2)
        if world.rank in (0, 3):
            part.barrier()
        else:
            world.barrier()
    assert "no rank can go on" in fails(rank, size=4)[0]


def test_a_rank_at_work_is_waited_for():
    def rank(world):
        if world.rank == 0:
            time.sleep(0.3)
        if world.rank == 2:                         # its thread waits, but the rank is not stuck
            found = []
            helper = threading.Thread(target=lambda: found.append(world.receive(1.0, source=0)))
            helper.start()
            helper.join()
            return found[0]
        world.send(7.0, to=2)
    assert simulate(3, rank)[2] == 7


def test_nobody_sends_to_a_world_of_one():
    with pytest.raises(RuntimeError, match="rank 0 waits for a message from rank 0 with tag 9"):
        world().receive(1.0, source=0, tag=9)
    assert world().all_reduce(1) == 1


def test_a_simulation_in_a_simulation():
    def inner(world, outer):
        return world.size * 10 + outer + world.all_reduce(1)

    def rank(w):
        results = simulate(2, inner, w.rank)
        assert world() is w
        return int(w.all_reduce(results[0]))
    assert simulate(3, rank) == [3 * 22 + 3] * 3
    assert world().size == 1


def test_interrupting_a_simulation_stops_the_ranks():
    stopped = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)       # a job in the background ignores it

    def rank(world):
        if world.rank == 0:
            time.sleep(0.1)
            _thread.interrupt_main()
        try:
            world.receive(1.0, source=0, tag=1 + world.rank) if world.rank else time.sleep(0.5)
        finally:
            stopped.append(world.rank)
    try:
        with pytest.raises(KeyboardInterrupt):
            simulate(3, rank)
    finally:
        signal.signal(signal.SIGINT, before)
    for _ in range(100):
        if sorted(stopped) == [0, 1, 2]:
            return
        time.sleep(0.02)
    pytest.fail(f"only {stopped} were stopped")


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "two"])
def test_a_world_has_a_size(size):
    with pytest.raises(ValueError, match="size must be a whole number of at least 1, got"):
        simulate(size, print)
