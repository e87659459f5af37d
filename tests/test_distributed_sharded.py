"""Sharded state: every elementwise optimizer steps as undivided, to the bit, and each rank keeps its part alone."""

import copy

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks
from _optimizers import SHAPES, TABLE, WHOLE, label

import tinygrad_opt as tg
from tinygrad_opt.distributed import DataParallel, ShardedOptimizer, simulate
from tinygrad_opt.optim import schedule
from tinygrad_opt.optim.transforms import ClipNorm

TOLD = {"SophiaG", "SophiaH", "PolyakSGD"}
ROWS = [row for row in TABLE if row[0] not in WHOLE | TOLD]
STEPS = 6


def leaves(dtype="float64"):
    random = np.random.default_rng(0)
    return [tg.tensor(np.asarray(random.standard_normal(s)).astype(dtype), requires_grad=True) for s in SHAPES]


def pushes(rank, step, dtype="float64"):
    """The gradients of a rank in a step: of the third tensor from the third step on alone."""
    random = np.random.default_rng([rank, step])
    return [None if k == 2 and step < 2 else np.asarray(random.standard_normal(s)).astype(dtype)
            for k, s in enumerate(SHAPES)]


def push(params, gradients):
    """Run backward on a loss with such gradients; a rank that has none uses the tensor not at all."""
    sum(((p * tg.tensor(g)).sum() for p, g in zip(params, gradients) if g is not None), tg.tensor(0.0)).backward()


def mean(step, size, dtype="float64"):
    """The means over the ranks, added up in their order."""
    return [None if parts[0] is None else np.asarray(sum(parts[1:], parts[0]) / parts[0].dtype.type(size))
            for parts in zip(*(pushes(rank, step, dtype) for rank in range(size)))]


def numbers(params):
    return [p.numpy().copy() for p in params]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def undivided(name, options, size, params=None, steps=range(STEPS), state=None, dtype="float64", **groups):
    params = leaves(dtype) if params is None else params
    optimizer = getattr(tg.optim, name)(groups.get("params", params), **options)
    if state:
        optimizer.load_state_dict(state)
    for mode in ("train",) * hasattr(optimizer, "train"):
        getattr(optimizer, mode)()
    for step in steps:
        optimizer.zero_grad()
        for p, g in zip(params, mean(step, size, dtype)):
            p.grad = g
        optimizer.step()
    return params, optimizer


def divided(world, name, options, stage, dtype="float64", steps=range(STEPS), bucket_bytes=200):
    params = leaves(dtype)
    for p in params:
        p.data *= 1 + world.rank                            # those of the first rank count
    optimizer = ShardedOptimizer(getattr(tg.optim, name), params, world, stage, bucket_bytes, **options)
    optimizer.train()
    for step in steps:
        optimizer.zero_grad()
        push(params, pushes(world.rank, step, dtype))
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("name, options", ROWS, ids=[label(*row) for row in ROWS])
def test_steps_are_those_of_the_undivided_optimizer_to_the_bit(name, options):
    stage, size = 1 + len(options) % 2, 2 + len(name) % 3
    options = {"lr": 0.05, **options}
    ranks = simulate(size, lambda world: numbers(divided(world, name, options, stage)[0]))
    same(ranks[0], numbers(undivided(name, options, size)[0]))
    for other in ranks:
        same(ranks[0], other)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_on_any_number_of_ranks_in_both_stages_and_all_precisions(stage, size, dtype):
    ranks = simulate(size, lambda world: numbers(divided(world, "AdamW", {"lr": 0.05}, stage, dtype)[0]))
    same(ranks[size - 1], numbers(undivided("AdamW", {"lr": 0.05}, size, dtype=dtype)[0]))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_memory_is_the_formula(size):
    def rank(world):
        params, optimizer = divided(world, "Adam", {"lr": 0.05}, 2, bucket_bytes=1 << 20)
        state = sum(value.numpy().nbytes for own in optimizer.local.state.values()
                    for value in own.values() if isinstance(value, tg.Tensor))
        assert not optimizer.optimizer.state and [p.grad for p in params] == [None] * len(params)
        return state, sum(share.nbytes for share in optimizer._reducer.shares)
    total = sum(int(np.prod(s)) for s in SHAPES)                            # one bucket
    share = -(-total // size)
    kept = [min(share, total - rank * share) for rank in range(size)]
    assert simulate(size, rank) == [(2 * 8 * n, 8 * share) for n in kept]


@pytest.mark.parametrize("stage", [1, 2])
def test_a_state_goes_on_with_other_ranks_and_undivided(stage):
    def first(world):
        params, optimizer = divided(world, "NAdam", {"lr": 0.05}, stage, steps=range(3))
        return params, optimizer.state_dict()
    (params, state), (_, other) = simulate(2, first)
    plain = undivided("NAdam", {"lr": 0.05}, 2, steps=range(3))[1].state_dict()
    assert state.keys() == plain.keys() and state["param_groups"] == plain["param_groups"] == other["param_groups"]
    for saved in (state, other):
        for k, own in plain["state"].items():
            assert own.keys() == saved["state"][k].keys()
            same(*([np.asarray(s[key]) for key in own] for s in (own, saved["state"][k])))

    def second(world):
        own = [tg.tensor(p.numpy().copy(), requires_grad=True) for p in params]
        optimizer = ShardedOptimizer(tg.optim.NAdam, own, world, stage, bucket_bytes=200, lr=9.0)
        optimizer.load_state_dict(state)
        for step in range(3, STEPS):
            optimizer.zero_grad()
            push(own, pushes(world.rank % 2, step))                         # twice each: the means of two
            optimizer.step()
        return numbers(own)
    alone = undivided("NAdam", {"lr": 9.0}, 2, copy.deepcopy(params), range(3, STEPS), state)[0]
    through = undivided("NAdam", {"lr": 0.05}, 2)[0]
    same(numbers(alone), numbers(through))
    for got in simulate(4, second):
        for x, y in zip(got, numbers(through)):
            np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


def test_a_schedule_free_optimizer_changes_its_mode_on_all_ranks():
    def rank(world):
        params, optimizer = divided(world, "ScheduleFreeAdamW", {}, 2)
        optimizer.eval()
        averaged = numbers(params)
        optimizer.train()
        other = ShardedOptimizer(tg.optim.ScheduleFreeAdamW, params, world, 2, 200)
        other.load_state_dict(optimizer.state_dict())           # whose parameters are those to train at
        other.eval()
        return averaged, numbers(params)
    params, optimizer = undivided("ScheduleFreeAdamW", {}, 3)
    optimizer.eval()
    first = numbers(params)
    optimizer.train()
    optimizer.eval()
    for got in simulate(3, rank):
        same(got[0], first)
        same(got[1], numbers(params))


class Tiring(tg.optim.Optimizer):
    """An optimizer of one's own, whose rule keeps a number among the options."""

    def __init__(self, params, lr=0.1, strength=1.0):
        super().__init__(params, dict(lr=lr, strength=strength))

    def rule(p, g, strength, lr):
        strength = strength / 2
        p = p - lr * strength * g
        return p, strength


def test_a_number_that_a_rule_keeps_among_the_options_is_kept():
    def rank(world):
        w = tg.ones(3, requires_grad=True)
        optimizer = ShardedOptimizer(Tiring, [w], world, lr=1.0)
        for _ in range(2):
            w.grad = np.ones(3, "float32")
            optimizer.step()
        return w.tolist(), optimizer.param_groups[0]["strength"]
    assert simulate(2, rank) == [([1 - 0.5 - 0.25] * 3, 0.25)] * 2


def network():
    tg.manual_seed(0)
    return tg.nn.Sequential(tg.nn.Linear(4, 6), tg.nn.Tanh(), tg.nn.Linear(6, 3)).double()


X = np.random.default_rng(0).standard_normal((12, 4))


def train(model, optimizer, part=slice(None), clip=None):
    scheduler = tg.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for _ in range(6):
        optimizer.zero_grad()
        (model(tg.tensor(X[part])) ** 2).mean().backward()
        norm = clip(0.1) if clip else tg.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
    return [norm, *numbers(model.parameters())]


def groups_of(model):
    return [{"params": [model[0].weight, model[2].weight], "weight_decay": 0.1},
            {"params": [model[0].bias, model[2].bias], "weight_decay": 0.0, "lr": 0.3 * schedule.cosine(10)}]


@pytest.mark.parametrize("how", ["data parallel", "stage 1", "stage 2"])
def test_groups_schedules_and_clipping(how):
    def rank(world):
        model, part = network(), slice(world.rank, None, world.size)
        wrapped = DataParallel(model, world) if how == "data parallel" else model
        optimizer = ShardedOptimizer(tg.optim.AdamW, groups_of(model), world, 2 if how == "stage 2" else 1, 100, lr=0.2)
        return train(wrapped, optimizer, part, optimizer.clip_grad_norm_)
    plain = network()
    whole = train(plain, tg.optim.AdamW(groups_of(plain), lr=0.2))
    for size in (2, 3, 4):
        for got in simulate(size, rank):
            for x, y in zip(got, whole, strict=True):
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stage", [1, 2])
def test_gradients_accumulate_and_are_forgotten(stage):
    def rank(world):
        (w, v), own = (tg.zeros(3, requires_grad=True) for _ in range(2)), 1.0 + world.rank
        optimizer = ShardedOptimizer(tg.optim.SGD, [w, v], world, stage, lr=1.0)
        with optimizer.no_sync():
            (w * own).sum().backward()
        with optimizer.weighted(own - 1):                               # the second rank alone
            (w * 10 * own).sum().backward()                             # and 2 of it are 4, twice the mean
        (w * own).sum().backward()
        optimizer.step()
        first = w.tolist()
        optimizer.step() if stage == 2 else None                        # the shares are used up
        (w * own).sum().backward()
        optimizer.zero_grad()
        optimizer.step()
        return first, w.tolist(), v.tolist()
    for first, then, untouched in simulate(2, rank):
        assert first == then and untouched == [0.0] * 3
        assert first == ([-(22 + 1.5)] * 3)


def test_the_gradients_of_stage_2_are_freed_during_the_walk():
    def rank(world):
        model, there = network(), []
        optimizer = ShardedOptimizer(tg.optim.SGD, model.parameters(), world, 2, 0, lr=0.1)
        model[0].bias.register_post_accumulate_grad_hook(
            lambda p: there.append([p._grad is not None for p in model.parameters()]))
        (model(tg.tensor(X)) ** 2).mean().backward()
        assert all(bucket._flat is None for bucket in optimizer._reducer.buckets)
        return there[0][2:], optimizer.clip_grad_norm_(float("inf"))
    plain = network()
    (plain(tg.tensor(X)) ** 2).mean().backward()
    norm = tg.nn.utils.clip_grad_norm_(plain.parameters(), float("inf"))
    for there, got in simulate(2, rank):
        assert there == [False, False] and abs(got - norm) < 1e-12


def test_closures_hooks_and_replaced_memory():
    def rank(world):
        model, seen = network(), []
        optimizer = ShardedOptimizer(tg.optim.Adam, model.named_parameters(), world, 2, 100, lr=0.1)
        optimizer.register_step_post_hook(lambda *_: seen.append(optimizer.step_count))

        def closure():
            optimizer.zero_grad()
            loss = (model(tg.tensor(X)) ** 2).mean()
            loss.backward()
            return loss
        losses = [optimizer.step(closure).item() for _ in range(3)]
        model[0].weight._data = 2 * model[0].weight._data
        optimizer.step(closure)
        assert seen == [1, 2, 3, 4] and losses[2] < losses[0]
        return numbers(model.parameters())
    plain = network()
    optimizer = tg.optim.Adam(plain.parameters(), lr=0.1)
    for k in range(4):
        if k == 3:
            plain[0].weight._data *= 2
        optimizer.zero_grad()
        (plain(tg.tensor(X)) ** 2).mean().backward()
        optimizer.step()
    for got in simulate(2, rank):
        same(got, numbers(plain.parameters()))


@pytest.mark.parametrize("name, options, reason", [
    ("LAMB", {}, "its rule takes .*norm of whole tensors"), ("Prodigy", {}, "its rule takes global_dot"),
    ("Shampoo", {}, "its rule works on whole matrices"), ("SophiaG", {}, "it is told more than gradients"),
    ("LBFGS", {}, "it evaluates the loss itself")])
def test_what_looks_at_whole_tensors_is_refused(name, options, reason):
    with pytest.raises(ValueError, match=f"ShardedOptimizer cannot divide {name}: {reason}"):
        ShardedOptimizer(getattr(tg.optim, name), [tg.ones(2, 2, requires_grad=True)], **options)


def test_errors_say_what_to_do():
    w = tg.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="stage must be 1 or 2, got 3"):
        ShardedOptimizer(tg.optim.SGD, [w], stage=3, lr=0.1)
    with pytest.raises(TypeError, match="optimizer_class is a class of optimizers, such as tg.optim.AdamW, got SGD"):
        ShardedOptimizer(tg.optim.SGD([w], lr=0.1), [w])
    with pytest.raises(RuntimeError, match="the parameters were dealt out when it was made"):
        ShardedOptimizer(tg.optim.SGD, [w], lr=0.1).add_param_group({"params": [tg.ones(1, requires_grad=True)]})

    def rank(world):
        model = network()
        DataParallel(model, world)
        parallel = DataParallel(model, world)
        with pytest.raises(ValueError, match="is averaged over the ranks already; take either DataParallel or"):
            ShardedOptimizer(tg.optim.SGD, parallel.named_parameters(), world, stage=2, lr=0.1)
        (w := tg.ones(2, requires_grad=True)), (frozen := tg.ones(2))
        optimizer = ShardedOptimizer(tg.optim.SGD, [w, frozen], world, 2, lr=0.1,
                                     grad_transforms=[ClipNorm(1.0)])
        w.sum().backward()
        with pytest.raises(ValueError, match="in stage 2 no rank has whole gradients for grad_transforms"):
            optimizer.step()
        optimizer.grad_transforms.clear()
        optimizer.step()
        frozen.requires_grad_().sum().backward()
        with pytest.raises(RuntimeError, match="parameter 1 of group 0 did not require a gradient when"):
            optimizer.step()
        (w * float("nan")).sum().backward()
        with pytest.warns(RuntimeWarning, match="NaN or infinite entries: nothing was clipped"):
            optimizer.clip_grad_norm_(1.0)
        return w.tolist()
    assert simulate(2, rank)[1] == [np.float32(0.9).item()] * 2


def check_mpi(world):
    for stage in (1, 2):
        params, optimizer = divided(world, "AdamW", {"lr": 0.05}, stage)
        whole, plain = undivided("AdamW", {"lr": 0.05}, world.size)
        saved = optimizer.state_dict()["state"]
        for p, q in zip(params, whole):
            np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=0, atol=1e-12)
            assert (world.all_gather(p) == p.numpy()).all()
        for k, own in plain.state_dict()["state"].items():
            np.testing.assert_allclose(saved[k]["exp_avg"].numpy(), own["exp_avg"].numpy(), rtol=0, atol=1e-12)


@needs_mpi
@pytest.mark.parametrize("n", [2, 4])
def test_by_mpi(n):
    on_ranks(n, check_mpi)
