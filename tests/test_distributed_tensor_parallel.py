"""Linear layers cut over ranks against the whole ones, and grids of ranks."""

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import (
    ColumnParallelLinear,
    DataParallel,
    Pipeline,
    RowParallelLinear,
    average_gradients,
    full_state_dict,
    grid,
    load_full_state_dict,
    simulate,
)
from tinygrad_opt.distributed.tensor_parallel import copy_to_ranks, gather_columns, sum_over_ranks, take_columns


def close(a, b):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-12)


def numbers(*shape, seed=0):
    return tg.tensor(np.random.default_rng(seed).normal(size=shape))


def whole_block():
    draw = tg.Generator(0)
    return tg.nn.Sequential(tg.nn.Linear(4, 12, dtype=tg.float64, generator=draw), tg.nn.GELU(),
                            tg.nn.Linear(12, 8, dtype=tg.float64, generator=draw))


def cut_block(world, **options):
    first, activation, second = whole_block()
    apart = {"gather_output": False, "input_is_parallel": True} | options
    return tg.nn.Sequential(
        ColumnParallelLinear.from_linear(first, world, gather_output=apart["gather_output"]), activation,
        RowParallelLinear.from_linear(second, world, input_is_parallel=apart["input_is_parallel"]))


# ---- the four functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("there, back", [(copy_to_ranks, sum_over_ranks), (take_columns, gather_columns)])
def test_each_function_is_the_transpose_of_its_partner(there, back):
    """Summed over the ranks, <there(x), y> is <x, back(y)>, for x the same on all ranks."""
    def rank(world):
        x = numbers(3, 4)
        y = numbers(*there(x, world).shape, seed=1 + world.rank)
        left = world.all_reduce((there(x, world) * y).sum())
        return left.item(), (x * back(y, world)).sum().item()
    for left, right in simulate(2, rank):
        assert left == pytest.approx(right, rel=1e-13)


def test_gradients_of_second_order():
    def f(first, second):
        return lambda x: (second(first(x)) ** 2).sum()

    def rank(world):
        whole, cut = whole_block(), cut_block(world)
        x, v = numbers(5, 4), numbers(5, 4, seed=1)
        expected = tg.hvp(lambda x: (whole(x) ** 2).sum(), x, v)[1]
        close(tg.hvp(lambda x: (cut(x) ** 2).sum(), x, v)[1], expected)
    simulate(2, rank)


# ---- the layers -------------------------------------------------------------------------------------------


def equals_the_whole(world, options):
    whole, cut = whole_block(), cut_block(world, **options)
    ends = [numbers(5, 4).requires_grad_() for _ in range(2)]
    results = [model(x) for model, x in zip((whole, cut), ends)]
    close(results[1].detach(), results[0].detach())
    for y in results:
        (y * numbers(5, 8, seed=1)).sum().backward()
    close(ends[1].grad, ends[0].grad)
    for k, layer in ((0, cut[0]), (2, cut[2])):
        for name in ("weight", "bias"):
            close(getattr(layer, name).grad, layer._part(name, getattr(whole[k], name).grad.data))
    return results[1].numpy().tobytes()


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"gather_output": True, "input_is_parallel": False}])
def test_cut_layers_equal_the_whole(size, options):
    assert len(set(simulate(size, equals_the_whole, options))) == 1


def test_the_block_exchanges_one_sum_each_way():
    def rank(world):
        cut = cut_block(world)
        world.accounts.clear()
        cut(numbers(5, 4).requires_grad_()).sum().backward()
        return {verb: (account.calls, account.bytes) for verb, account in world.accounts.items()}
    assert simulate(2, rank) == [{"all_reduce": (2, 8 * (5 * 8 + 5 * 4))}] * 2


def test_state_is_whole_again():
    def rank(world):
        whole, cut = whole_block(), cut_block(world)
        assert cut.state_dict()["0.weight"].shape == (12 // world.size, 4)
        full = full_state_dict(cut)
        assert list(full) == list(whole.state_dict())
        for name, value in whole.state_dict().items():
            np.testing.assert_array_equal(full[name].numpy(), value.numpy())
        np.testing.assert_array_equal(cut[2].to_linear().weight.numpy(), whole[2].weight.numpy())
        load_full_state_dict(cut, {name: np.arange(value.numel()).reshape(value.shape) / 7
                                   for name, value in full.items()})
        np.testing.assert_array_equal(full_state_dict(cut)["2.weight"].numpy().ravel(), np.arange(96) / 7)
        with pytest.raises(RuntimeError, match=r"0.bias: expected the whole shape \(12,\), got \(6,\)"):
            load_full_state_dict(cut, {**full, "0.bias": np.zeros(6)})
    simulate(2, rank)


def test_drawn_layers_are_parts_of_one():
    """Each rank draws from its own generator; all get what rank 0 has drawn."""
    def rank(world):
        return [full_state_dict(kind(4, 4, world=world)) for kind in (ColumnParallelLinear, RowParallelLinear)]
    one, other = simulate(2, rank, seed=3)
    for a, b in zip(one, other):
        assert all((a[name] == b[name]).all() for name in a)
    alone = simulate(1, lambda world: tg.nn.Linear(4, 4).weight.numpy(), seed=3)[0]
    np.testing.assert_array_equal(one[0]["weight"].numpy(), alone)


@pytest.mark.parametrize("make, error, words", [
    (lambda world: ColumnParallelLinear(4, 5, world=world), ValueError, "out_features must be a multiple of the 2 "),
    (lambda world: RowParallelLinear(5, 4, world=world), ValueError, "in_features must be a multiple of the 2 ranks"),
    (lambda world: ColumnParallelLinear.from_linear(tg.nn.ReLU(), world), TypeError, "takes a Linear, got ReLU"),
    (lambda world: grid(world, data=3, model=2), ValueError, "must multiply to the 2 ranks.*got 3 x 2"),
    (lambda world: grid(world, data=-1, model=3), ValueError, "must multiply"),
    (lambda world: grid(world), ValueError, "name its axes"),
    (lambda world: grid(world, data=2).model, AttributeError, "no axis 'model'; it has data"),
])
def test_what_is_wrong_is_said(make, error, words):
    with pytest.raises(error, match=words):
        simulate(2, make)


# ---- grids ------------------------------------------------------------------------------------------------


def test_ranks_of_a_grid():
    def rank(world):
        where = grid(world, data=-1, pipeline=2, model=3)
        assert where.sizes == {"data": 2, "pipeline": 2, "model": 3}
        return [(axis.rank, axis.size, axis.all_gather([world.rank]).ravel().tolist()) for axis in where.axes.values()]
    results = simulate(12, rank)
    assert results[7] == [(1, 2, [1, 7]), (0, 2, [7, 10]), (1, 3, [6, 7, 8])]
    assert [tuple(axis[0] for axis in result) for result in results] == [*np.ndindex(2, 2, 3)]


STEPS, ROWS = 10, 8


def targets():
    return numbers(ROWS, 4, seed=5), numbers(ROWS, 8, seed=6)


def train_alone():
    model, (x, y) = whole_block(), targets()
    optimizer = tg.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(STEPS):
        model.zero_grad()
        tg.nn.MSELoss()(model(x), y).backward()
        optimizer.step()
    return model.state_dict()


def trains_on_a_grid(world, kind):
    """Two copies of a model, each cut over two ranks, by columns and rows or by layers."""
    where = grid(world, data=2, model=2)
    x, y = (t[where.data.rank::2] for t in targets())
    if kind == "pipeline":
        model = Pipeline(whole_block(), tg.nn.MSELoss(), where.model, chunks=2)
    else:
        model = cut_block(where.model) if kind == "tensor" else DataParallel(cut_block(where.model), where.data)
    optimizer = tg.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(STEPS):
        model.zero_grad()
        if kind == "pipeline":
            model.step(x, y)
        else:
            tg.nn.MSELoss()(model(x), y).backward()
        if kind != "data parallel":
            average_gradients(model.parameters(), where.data)
        optimizer.step()
    state = full_state_dict(model)
    for name, value in train_alone().items():
        close(state[name], value)
    load_full_state_dict(model, state)
    assert all((value == state[name]).all() for name, value in full_state_dict(model).items())
    return b"".join(value.numpy().tobytes() for value in state.values())


@pytest.mark.parametrize("kind", ["tensor", "data parallel", "pipeline"])
def test_a_grid_trains_as_one_process(kind):
    once, again = (simulate(4, trains_on_a_grid, kind) for _ in range(2))
    assert once == again and len(set(once)) == 1


@needs_mpi
def test_a_grid_by_mpi():
    on_ranks(4, trains_on_a_grid, "tensor")


def test_a_pipeline_of_cut_layers():
    def rank(world):
        where = grid(world, pipeline=2, model=2)
        pipeline = Pipeline(cut_block(where.model), tg.nn.MSELoss(), where.pipeline, chunks=2)
        whole, (x, y) = whole_block(), targets()
        loss = tg.nn.MSELoss()(whole(x), y)
        assert pipeline.step(x, y) == pytest.approx(loss.item(), abs=1e-12)
        state, before = full_state_dict(pipeline), whole.state_dict()
        pipeline.load_state_dict(before)
        for name, value in before.items():
            np.testing.assert_array_equal(state[name].numpy(), value.numpy())
    simulate(4, rank)
