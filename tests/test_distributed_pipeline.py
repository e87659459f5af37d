"""Pipelines: the table of the work, and layers on ranks against the same layers on one."""

import copy

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import pipeline_schedule, simulate
from tinygrad_opt.distributed.pipeline import balanced_split

KINDS = ("gpipe", "1f1b")


# ---- the table --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 9])
def test_the_table_keeps_its_promises(kind, ranks, chunks):
    schedule = pipeline_schedule(ranks, chunks, kind)
    when = {(rank, cell): time for rank, row in enumerate(schedule.table) for time, cell in enumerate(row) if cell}
    assert len(when) == 2 * ranks * chunks
    for rank, cell in when:
        turned = (rank, "F" + cell[1:]) if rank == ranks - 1 else (rank + 1, cell)
        before = (rank - 1, cell) if cell[0] == "F" else turned
        assert when.get(before, -1) < when[rank, cell]
    assert schedule.bubble == pytest.approx((ranks - 1) / (chunks + ranks - 1), abs=1e-15)
    assert len(schedule.table[0]) == 2 * (chunks + ranks - 1)
    assert schedule.live == tuple(chunks if kind == "gpipe" else min(chunks, ranks - rank) for rank in range(ranks))


def test_the_table_of_a_small_pipeline():
    gpipe, one_by_one = pipeline_schedule(2, 2, "gpipe"), pipeline_schedule(2, 2)
    assert gpipe.table == (("F0", "F1", "", "", "B0", "B1"), ("", "F0", "F1", "B0", "B1", ""))
    assert one_by_one.table == (("F0", "F1", "", "B0", "", "B1"), ("", "F0", "B0", "F1", "B1", ""))
    assert "bubble 33.3%\nrank 0  F0 F1 .  .  B0 B1\n" in str(pipeline_schedule(2, 2, "gpipe"))


def test_the_picture_has_a_cell_for_each_pass():
    axes = pipeline_schedule(3, 2).draw().axes[0]
    assert len(axes.patches) == 3 * 8 and sorted(text.get_text() for text in axes.texts) == ["0"] * 6 + ["1"] * 6
    assert axes.get_title(loc="left") == "1F1B, 2 micro-batches: ranks wait 50% of the time"


def test_balanced_split():
    assert balanced_split([1, 1, 1, 1], 4) == (1, 1, 1, 1)
    assert balanced_split([10, 0, 1, 0, 1], 2) == (2, 3)
    assert balanced_split([0, 0, 0], 2) == (2, 1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        weights, cost = rng.integers(0, 20, 6).tolist(), []
        for a in range(1, 5):
            cost += [sum(weights[:a]) ** 2 + sum(weights[a:b]) ** 2 + sum(weights[b:]) ** 2 for b in range(a + 1, 6)]
        a, b, _ = balanced_split(weights, 3)
        assert sum(weights[:a]) ** 2 + sum(weights[a:a + b]) ** 2 + sum(weights[a + b:]) ** 2 == min(cost)


# ---- the pipeline -----------------------------------------------------------------------------------------


def model():
    draw = tg.Generator(0)
    return tg.nn.Sequential(*(tg.nn.Linear(a, b, dtype=tg.float64, generator=draw) if a else tg.nn.Tanh()
                              for a, b in [(6, 8), (0, 0), (8, 8), (0, 0), (8, 8), (8, 3)]))


def batch(rows=13):
    draw = np.random.default_rng(1)
    return tg.tensor(draw.normal(size=(rows, 6))), tg.tensor(draw.integers(0, 3, rows))


LOSS = tg.nn.CrossEntropyLoss()


def alone(rows=13):
    whole, (x, y) = model(), batch(rows)
    loss = LOSS(whole(x), y)
    loss.backward()
    return whole, loss.item()


def equals_one_process(world, chunks, kind, split=None):
    whole, expected = alone()
    pipeline = tg.distributed.Pipeline(model(), LOSS, world, chunks, kind, split)
    x, y = batch()
    loss = pipeline.step(x if world.rank == 0 else None, y if world.rank == world.size - 1 else None)
    assert loss == pytest.approx(expected, abs=1e-12)
    for name, p in pipeline.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), whole.get_parameter(name).grad.numpy(), rtol=0, atol=1e-12)
    assert pipeline.most_live == (chunks if kind == "gpipe" else min(chunks, world.size - world.rank))
    np.testing.assert_allclose(pipeline(x).numpy(), whole(x).numpy(), rtol=0, atol=1e-12)
    return {name: p.grad.numpy().tobytes() for name, p in pipeline.named_parameters()}, loss, pipeline.split


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("chunks", [1, 4, 13])
def test_pipeline_equals_one_process(size, chunks):
    results = {kind: simulate(size, equals_one_process, chunks, kind) for kind in KINDS}
    assert results["gpipe"] == results["1f1b"] == [simulate(size, equals_one_process, chunks, k) for k in KINDS][1]
    assert len({loss for _, loss, _ in results["1f1b"]}) == 1


def test_a_split_is_kept():
    assert simulate(2, equals_one_process, 2, "1f1b", [5, 1])[0][2] == (5, 1)


def trains_as_one_process(world, steps):
    whole = model()
    pipeline = tg.distributed.Pipeline(model(), LOSS, world, chunks=3)
    optimizers = [tg.optim.Adam(m.parameters(), lr=0.05) for m in (whole, pipeline)]
    for _ in range(steps):
        whole.zero_grad()
        pipeline.zero_grad()
        x, y = batch()
        LOSS(whole(x), y).backward()
        pipeline.step(x, y)
        for optimizer in optimizers:
            optimizer.step()
    state = pipeline.state_dict()
    assert list(state) == list(whole.state_dict())
    for name, value in whole.state_dict().items():
        np.testing.assert_allclose(state[name].numpy(), value.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_training_equals_one_process(size):
    simulate(size, trains_as_one_process, 20)


@needs_mpi
@pytest.mark.parametrize("kind", KINDS)
def test_pipeline_by_mpi(kind):
    on_ranks(3, equals_one_process, 4, kind)


def test_gradients_accumulate_and_state_goes_round():
    def rank(world):
        pipeline = tg.distributed.Pipeline(model(), LOSS, world)
        pipeline.step(*batch())
        once = [p.grad.numpy().copy() for p in pipeline.parameters()]
        pipeline.step(*batch())
        for p, g in zip(pipeline.parameters(), once):
            np.testing.assert_allclose(p.grad.numpy(), 2 * g, rtol=1e-12, atol=1e-15)
        other = tg.distributed.Pipeline(tg.nn.Sequential(*map(copy.deepcopy, model())).apply(blank), LOSS, world)
        other.load_state_dict(pipeline.state_dict())
        assert all((a.numpy() == b.numpy()).all() for a, b in zip(other.parameters(), pipeline.parameters()))
    simulate(2, rank)


def blank(module):
    for p in module.parameters(recurse=False):
        p.data = np.zeros(p.shape)


def test_integers_between_layers_need_no_gradient():
    """A stage without parameters hands on whole numbers, which an Embedding takes."""
    def rank(world):
        layers = tg.nn.Sequential(tg.nn.Flatten(), tg.nn.Embedding(5, 4, dtype=tg.float64), tg.nn.Flatten())
        pipeline = tg.distributed.Pipeline(layers, tg.nn.MSELoss(), world, chunks=2, split=[1, 2])
        pipeline.step(tg.tensor([[1, 2], [3, 4]]), tg.zeros(2, 8, dtype=tg.float64))
        return [p.grad.numpy()[0].any() or p.grad.numpy()[1].any() for p in pipeline.parameters()]
    assert simulate(2, rank) == [[], [True]]


@pytest.mark.parametrize("wrong, error, words", [
    (dict(layers=tg.nn.Linear(2, 2)), TypeError, "Sequential"),
    (dict(layers=tg.nn.Sequential(tg.nn.Linear(2, 2))), ValueError, "1 layers cannot be spread over 2"),
    (dict(split=[3, 4]), ValueError, "sum to the 6"),
    (dict(layers=tg.nn.Sequential(tg.nn.Flatten(), tg.nn.Linear(2, 2))), ValueError, "1 of the 2 layers have"),
    (dict(chunks=0), ValueError, "chunks"),
    (dict(schedule="2f2b"), ValueError, "1f1b"),
])
def test_pipeline_says_what_is_wrong(wrong, error, words):
    arguments = {"layers": model(), "loss": LOSS, **wrong}
    with pytest.raises(error, match=words):
        simulate(2, lambda world: tg.distributed.Pipeline(world=world, **arguments))


def test_ranks_that_differ_are_named():
    with pytest.raises(ValueError, match="Pipeline must be the same on all ranks; chunks of rank 0: 1; rank 1: 2"):
        simulate(2, lambda world: tg.distributed.Pipeline(model(), LOSS, world, chunks=1 + world.rank))
    with pytest.raises(ValueError, match=r"2.weight of rank 0: \(3, 2\) float32; rank 1: \(4, 2\) float32"):
        simulate(2, lambda world: tg.distributed.Pipeline(
            tg.nn.Sequential(tg.nn.Linear(2, 2), tg.nn.ReLU(), tg.nn.Linear(2, 3 + world.rank)), LOSS, world))


def test_too_small_a_batch_and_shared_parameters_are_refused():
    with pytest.raises(ValueError, match="too few for 4 micro-batches"):
        simulate(2, lambda world: tg.distributed.Pipeline(model(), LOSS, world).step(*batch(3)))
    shared = tg.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="a parameter that layers share"):
        simulate(2, lambda world: tg.distributed.Pipeline(tg.nn.Sequential(shared, shared), LOSS, world))
