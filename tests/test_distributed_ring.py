"""The ring all-reduce: the sum to rounding, the same bits on all ranks, and 2 (n - 1) / n of the array sent by each."""

from pathlib import Path

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import ring_all_reduce, simulate
from tinygrad_opt.distributed.ring import Sending


def part(rank, length, dtype="float64"):
    return np.random.default_rng(rank).standard_normal(length).astype(dtype)


def check(world, length):
    x = part(world.rank, length)
    kept, ring = x.copy(), ring_all_reduce(x, world)
    np.testing.assert_allclose(ring.result, world.all_reduce(x), rtol=0, atol=1e-13)
    assert (world.all_gather(ring.result) == ring.result).all() and (x == kept).all()
    return ring, world.accounts["send"].bytes if world.size > 1 else 0


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("length", [0, 1, 7, 1000, 1003])
def test_it_is_the_sum_for_any_length(n, length):
    runs = simulate(n, check, length)
    for rank, (ring, sent) in enumerate(runs):
        assert ring.log == runs[0][0].log and ring.size == n and ring.bytes_sent(rank) == sent
        if length >= 1000:
            assert abs(sent - 2 * (n - 1) / n * 8 * length) <= 0.01 * 2 * (n - 1) / n * 8 * length
    assert sum(sent for _, sent in runs) == 2 * (n - 1) * 8 * length


@needs_mpi
@pytest.mark.parametrize("n", [2, 4])
def test_it_is_the_sum_of_mpi(n):
    on_ranks(n, check, 1003)


def test_every_chunk_is_added_up_on_its_way_and_then_goes_round():
    n = 4
    log = simulate(n, lambda world: ring_all_reduce(np.arange(8.0), world))[0].log
    assert log[0] == Sending(step=1, rank=0, chunk=0, summed=1, bytes=16) and len(log) == 2 * (n - 1) * n
    assert [sending.step for sending in log] == [step for step in range(1, 7) for _ in range(n)]
    held = {(rank, chunk): 1 for rank in range(n) for chunk in range(n)}        # how many ranks a chunk sums
    for step in range(1, 7):
        now = [sending for sending in log if sending.step == step]
        assert sorted(sending.chunk for sending in now) == list(range(n))       # each chunk is on one link
        for sending in now:
            assert held[sending.rank, sending.chunk] == sending.summed
        for sending in now:
            held[(sending.rank + 1) % n, sending.chunk] = min(sending.summed + 1, n) if step < n else sending.summed
    assert set(held.values()) == {n}


def test_shapes_dtypes_and_tensors():
    def rank(world):
        x = np.asfortranarray(part(world.rank, 12, "float32").reshape(3, 4))
        return ring_all_reduce(tg.tensor(x), world).result, ring_all_reduce(x, world).result
    for a, b in simulate(3, rank):
        assert a.shape == (3, 4) and a.dtype == "float32" and (a == b).all()
    assert simulate(2, lambda world: ring_all_reduce(3, world).result.item()) == [6, 6]


def test_the_drawing_has_a_box_for_every_message():
    ring = simulate(3, lambda world: ring_all_reduce(np.ones(6), world))[1]
    axes, = ring.draw().axes
    assert len(axes.patches) == len(ring.log) == 12
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rank 0 → 1", "rank 1 → 2", "rank 2 → 0"]
    with pytest.raises(ValueError, match="a ring of one rank sends nothing to draw"):
        ring_all_reduce([1.0]).draw()


def test_the_model_of_scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    import bench_scaling
    alpha, beta, sizes = 3e-6, 2e-10, [1 << k for k in range(8, 24)]
    seconds = [bench_scaling.all_reduce_seconds(4, size, alpha, beta) for size in sizes]
    np.testing.assert_allclose(bench_scaling.fit(4, sizes, seconds), (alpha, beta), rtol=1e-9)
    assert seconds[0] == pytest.approx(6 * alpha + 1.5 * 256 * beta)        # 2 (n - 1), and 2 (n - 1) / n
    assert bench_scaling.efficiency(1, 10 ** 6, 0.1, alpha, beta) == 1
    whole = bench_scaling.all_reduce_seconds(8, 4e6, alpha, beta)
    assert bench_scaling.efficiency(8, 10 ** 6, whole, alpha, beta) == pytest.approx(1 / 2)
    assert bench_scaling.efficiency(8, 10 ** 6, whole, alpha, beta, whole / 2) == pytest.approx(2 / 3)
