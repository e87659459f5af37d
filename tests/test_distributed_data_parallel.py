"""Data parallelism: as one process with the whole batch, the same bits on all ranks, sent while the walk still runs."""

import copy
import warnings

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import DataParallel, DistributedSampler, simulate

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.standard_normal((24, 5)), RANDOM.integers(0, 3, 24)


def network(seed=0):
    tg.manual_seed(seed)
    return tg.nn.Sequential(tg.nn.Linear(5, 7), tg.nn.Tanh(), tg.nn.Linear(7, 4), tg.nn.Tanh(),
                            tg.nn.Linear(4, 3)).double()


def loss_of(model, x, y):
    return tg.nn.functional.cross_entropy(model(tg.tensor(x)), tg.tensor(y))


def train(model, parts, name="AdamW", steps=5, around=lambda x: warnings.catch_warnings(), **options):
    """Steps on one part of the samples after the other, with clipping; the parameters afterwards."""
    optimizer = tg.optim.create(name, model.named_parameters(), lr=0.05, **options)
    for step in range(steps):
        x, y = parts[step % len(parts)]
        optimizer.zero_grad()
        with around(x):
            loss_of(model, x, y).backward()
        tg.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
    return numbers(model)


def numbers(model):
    return [p.numpy().copy() for p in model.parameters()]


def gradients(model):
    return [None if p.grad is None else p.grad.numpy().copy() for p in model.parameters()]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def close(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-12)


def parallel(world, name="AdamW", **options):
    """Ranks begin with different models, and each has every size-th sample."""
    model = DataParallel(network(world.rank), world, **options)
    return train(model, [(X[world.rank::world.size], Y[world.rank::world.size])], name)


# ---- equal to one process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("bucket_bytes", [0, 400, 1 << 20])
def test_as_one_process_with_the_whole_batch(n, bucket_bytes):
    ranks, again = (simulate(n, parallel, "AdamW") if not bucket_bytes else
                    simulate(n, lambda world: parallel(world, bucket_bytes=bucket_bytes)) for _ in range(2))
    close(ranks[0], train(network(), [(X, Y)]))
    for other in (*ranks, *again):
        same(ranks[0], other)


@pytest.mark.parametrize("name", ["SGD", "LAMB", "Muon", "Prodigy", "Shampoo"])
def test_with_any_optimizer(name):
    def matrices(world=None):
        model = tg.nn.Sequential(tg.nn.Linear(5, 4, bias=False), tg.nn.Tanh(), tg.nn.Linear(4, 3, bias=False)).double()
        for k, p in enumerate(model.parameters()):
            p.data[...] = np.random.default_rng(k).standard_normal(p.shape)
        part = slice(None) if world is None else slice(world.rank, None, world.size)
        return train(model if world is None else DataParallel(model), [(X[part], Y[part])], name)
    close(simulate(2, matrices)[1], matrices())


def check_mpi(world):
    assert world.size > 1
    own = parallel(world, bucket_bytes=400)
    close(own, train(network(), [(X, Y)]))
    for p in own:
        assert (world.all_gather(p) == p).all()


@needs_mpi
@pytest.mark.parametrize("n", [2, 4])
def test_by_mpi(n):
    on_ranks(n, check_mpi)


def test_batches_of_different_lengths_are_weighted_by_their_samples():
    def rank(world):
        model = DataParallel(network(), world)
        parts = [(X[part], Y[part]) for part in np.split(np.arange(24), [3, 10, 23])]       # 3, 7, 13 and 1
        return train(model, [parts[world.rank]], around=lambda x: model.weighted(len(x)))
    whole, ranks = train(network(), [(X, Y)]), simulate(4, rank)
    close(ranks[0], whole)
    same(ranks[0], ranks[3])

    def without(world):
        model = DataParallel(network(), world)
        model(tg.tensor(X[:2])).sum().backward()
        before = gradients(model)
        tg.optim.SGD(model.parameters(), lr=0).zero_grad()
        with model.weighted(5 * world.rank):                                # the first rank has none: its NaN too
            (model(tg.tensor(X[:2])).sum() * (float("nan") if world.rank == 0 else 1)).backward()
        same(before, gradients(model))
        with pytest.raises(ValueError, match="samples must be at least 0, got -1"), model.weighted(-1):
            pass
        with pytest.raises(ValueError, match="samples must be above 0 on some rank"), model.weighted(0):
            pass
    simulate(2, without)


def test_half_precision_and_several_dtypes():
    def rank(world):
        model = tg.nn.Sequential(tg.nn.Linear(2, 2), tg.nn.Linear(2, 1))
        model[0].to("float64")
        model = DataParallel(model)
        (model.module[0].weight.sum() * (1 + world.rank) + (model.module[1].weight * world.rank).sum().double()
         ).backward()
        return [(p.dtype.name, p.grad.tolist()) for p in model.parameters() if p.grad is not None]
    assert simulate(2, rank)[0] == [("float64", [[1.5] * 2] * 2), ("float32", [[0.5] * 2])]


# ---- what is sent, and when ---------------------------------------------------------------------------------


def test_buckets_leave_from_the_last_layer_to_the_first_while_the_walk_runs():
    def rank(world):
        model, log, begin = network(), [], world.begin_all_reduce
        for name, p in model.named_parameters():
            p.register_post_accumulate_grad_hook(lambda p, name=name: log.append(name))
        model = DataParallel(model, world, bucket_bytes=300)

        def logged(x, op="sum"):
            log.append((op, x.size))
            return begin(x, op)
        world.begin_all_reduce = logged
        loss_of(model, X, Y).backward()
        return log
    last, middle, first = (("4.weight", "4.bias", "2.bias"), ("2.weight", "0.bias"), ("0.weight",))
    for log in simulate(2, rank):
        calls = [k for k, entry in enumerate(log) if isinstance(entry, tuple)]
        # The last call says which of the 6 parameters were used.
        assert [log[k] for k in calls] == [("mean", 12 + 3 + 4), ("mean", 28 + 7), ("mean", 35), ("max", 6)]
        assert {*last} <= {*log[:calls[0]]} and {*middle} <= {*log[:calls[1]]} and {*first} <= {*log[:calls[2]]}
        assert not {*first} & {*log[:calls[0]]}


def test_one_message_for_all_when_there_is_room():
    def rank(world):
        model = DataParallel(network(), world)
        loss_of(model, X, Y).backward()
        return world.accounts["all_reduce"].calls, world.accounts["all_reduce"].bytes
    assert simulate(2, rank) == [(2, 8 * (5 * 7 + 7 + 7 * 4 + 4 + 4 * 3 + 3) + 6)] * 2


def test_gradients_accumulate_without_being_sent():
    def rank(world):
        own, plain = slice(world.rank, None, world.size), network()
        model = DataParallel(copy.deepcopy(plain), world)
        calls = 0
        with model.no_sync():
            for part in (slice(0, 8), slice(8, 16)):
                loss_of(model, X[part][own], Y[part][own]).backward()
            calls = world.accounts.get("all_reduce")
        loss_of(model, X[16:][own], Y[16:][own]).backward()
        (loss_of(plain, X, Y) * 3).backward()
        close(gradients(model), gradients(plain))
        loss_of(model, X[own], Y[own]).backward()                       # a mean stays as it is when it is averaged
        (loss_of(plain, X, Y)).backward()
        close(gradients(model), gradients(plain))
        return calls
    assert simulate(2, rank) == [None, None]


class Branches(tg.nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.idle = (tg.nn.Linear(2, 1, bias=False) for _ in range(3))

    def forward(self, x, left, right):
        return self.left(x) * left + (self.right(x) if right else 0)


@pytest.mark.parametrize("bucket_bytes", [0, 1 << 20])
def test_unused_parameters_count_as_zero_and_those_that_none_uses_stay_none(bucket_bytes):
    def rank(world):
        model = DataParallel(Branches(), world, bucket_bytes=bucket_bytes)
        for _ in range(2):
            tg.optim.SGD(model.parameters(), lr=1.0).zero_grad()
            model(tg.ones(1, 2), 2.0, world.rank == 1).sum().backward()
        return [None if g is None else g.tolist() for g in gradients(model)]
    assert simulate(2, rank) == [[[[2.0, 2.0]], [[0.5, 0.5]], None]] * 2


def test_a_rank_that_uses_no_parameter_at_all_keeps_pace():
    class Sometimes(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = tg.nn.Parameter([2.0])

        def forward(self, x, use):
            return {"y": [x * self.scale if use else x * 1]}

    def rank(world):
        model, x = DataParallel(Sometimes(), world), tg.tensor([3.0], requires_grad=True)
        model(x, world.rank == 0)["y"][0].sum().backward()
        return model.module.scale.grad.tolist()
    assert simulate(2, rank) == [[1.5], [1.5]]


def test_shared_weights_and_two_passes_in_one_backward():
    def rank(world, whole=False):
        model = network()
        model = model if whole else DataParallel(model, world)
        part = slice(None) if whole else slice(world.rank, None, world.size)
        loss = loss_of(model, X[part], Y[part]) + loss_of(model, 2 * X[part], Y[part])
        penalty = sum((p ** 2).sum() for p in model.parameters())
        (loss + 0.1 * penalty).backward()
        return gradients(model)
    close(simulate(2, rank)[0], rank(None, whole=True))


def test_grad_sends_nothing():
    def rank(world):
        model = DataParallel(network(), world)
        loss = loss_of(model, X, Y)
        tg.grad(loss, list(model.parameters()), retain_graph=True)
        assert "all_reduce" not in world.accounts
        loss.backward()
        return world.accounts["all_reduce"].calls
    assert simulate(2, rank) == [2, 2]


def test_a_gradient_that_somebody_holds_stays_as_it_is():
    def rank(world):
        model = DataParallel(tg.nn.Linear(1, 1, bias=False), world)
        model(tg.tensor([[1.0 + world.rank]])).sum().backward()
        held = model.module.weight.grad
        model(tg.tensor([[10.0]])).sum().backward()
        return held.item(), model.module.weight.grad.item()
    assert simulate(2, rank) == [(1.5, 11.5)] * 2


def test_a_backward_that_fails_leaves_the_next_one_alone():
    def rank(world):
        model = DataParallel(network(), world)
        y = model(tg.tensor(X))
        with pytest.raises(ZeroDivisionError):
            broken = (y * 1.0)
            broken.register_hook(lambda g: 1 / 0)
            broken.sum().backward()
        loss_of(model, X, Y).backward()
        return gradients(model)
    plain = network()
    loss_of(plain, X, Y).backward()
    close(simulate(2, rank)[0], gradients(plain))


def test_infinities_reach_all_ranks():
    def rank(world):
        model = DataParallel(tg.nn.Linear(1, 1, bias=False), world)
        model(tg.tensor([[float("inf") if world.rank == 1 else 1.0]])).sum().backward()
        return model.module.weight.grad.item()
    assert simulate(2, rank) == [float("inf")] * 2


# ---- the model ----------------------------------------------------------------------------------------------


def test_the_first_rank_gives_its_parameters_and_buffers():
    def rank(world):
        tg.manual_seed(world.rank)
        model = tg.nn.Sequential(tg.nn.Linear(2, 3), tg.nn.BatchNorm1d(3))
        model[1].running_mean.data[...] = world.rank + 5
        model = DataParallel(model, world)
        first = {name: t.tolist() for name, t in model.state_dict().items()}
        model(tg.tensor(X[world.rank::2, :2].astype("f4")))
        model(tg.tensor(X[world.rank::2, :2].astype("f4")))            # begins with the running means of the first
        model.eval()
        return first, model.module[1].running_mean.tolist() == model.state_dict()["1.running_mean"].tolist()
    (first, agree), (second, _) = simulate(2, rank)
    assert first == second and first["1.running_mean"] == [5.0] * 3 and agree


def test_names_are_those_of_the_model():
    plain, world = network(), tg.distributed.world()
    model = DataParallel(network(1), world)
    assert list(model.state_dict()) == list(plain.state_dict()) and model.module is model.get_submodule("")
    model.load_state_dict(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    same(numbers(model), numbers(plain))
    assert model.get_parameter("2.weight") is model.module[2].weight
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert model.eval().module.training is False and "(module): Sequential" in repr(model)


def test_a_new_wrapper_takes_the_place_of_the_old_one():
    def rank(world):
        plain = network()
        DataParallel(plain, world)
        first, second = DataParallel(plain, world), DataParallel(plain, world)
        loss_of(second, X, Y).backward()
        return first is second, world.accounts["all_reduce"].calls
    assert simulate(2, rank) == [(False, 2)] * 2


def test_what_differs_between_ranks_is_named():
    def differing(world, width, **kind):
        DataParallel(tg.nn.Sequential(tg.nn.Linear(2, 3), tg.nn.Linear(3, width[world.rank], **kind)), world)
    with pytest.raises(ValueError, match=r"1.weight of rank 0: \(4, 3\) float32; rank 1: \(5, 3\) float32"):
        simulate(2, differing, [4, 5])
    with pytest.raises(ValueError, match=r"1.bias of ranks 0, 1: \(4,\) float32; rank 2: nothing"):
        simulate(3, lambda world: differing(world, [4] * 3, bias=world.rank < 2))
    with pytest.raises(ValueError, match="weight of rank 0: .* float32; rank 1: .* float64"):
        simulate(2, lambda world: DataParallel(tg.nn.Linear(1, 1).to(["float32", "float64"][world.rank])))
    shared = network()
    with pytest.raises(ValueError, match="several ranks have one and the same model"):
        simulate(2, lambda world: DataParallel(shared, world))


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(TypeError, match="DataParallel takes a Module, got list"):
        DataParallel([])
    for wrong in (-1, "all"):
        with pytest.raises(ValueError, match=f"bucket_bytes must be at least 0, got {wrong!r}"):
            DataParallel(network(), bucket_bytes=wrong)
    for wrong in ("topk", tg.distributed.TopK):
        with pytest.raises(TypeError, match=r"compression is an object such as .*TopK\(0.01\), got .?[tT]op"):
            DataParallel(network(), compression=wrong)
    with pytest.raises(TypeError, match="dataset must have a length, got int"):
        DistributedSampler(5)

    def rank(world):
        model = network()
        model[0].requires_grad_(False)
        model = DataParallel(model, world)
        with pytest.raises(RuntimeError, match=r"4.weight: a gradient with a graph of its own \(create_graph=True\)"):
            loss_of(model, X, Y).backward(create_graph=True)
        model.module[0].requires_grad_()
        with pytest.raises(RuntimeError, match="parameter 0.weight requires a gradient since DataParallel was made"):
            model(tg.tensor(X))
        model = DataParallel(network(), world).float()
        with pytest.raises(RuntimeError, match="was float64 and is float32 now; convert a model before"):
            model(tg.tensor(X.astype("f4"))).sum().backward()
    simulate(2, rank)


# ---- samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, size, padded", [(12, 3, 4), (13, 4, 4), (3, 4, 1), (1, 4, 1), (7, 2, 4)])
def test_a_sampler_deals_out_each_sample_and_pads_as_pytorch(n, size, padded):
    def rank(world, **options):
        return list(DistributedSampler(range(n), world, **options))
    dealt = simulate(size, rank)
    assert [len(part) for part in dealt] == [padded] * size
    order = [k for column in zip(*dealt) for k in column]
    assert sorted(order[:n]) == list(range(n)) and order[n:] == (order[:n] * size)[:size * padded - n]
    assert simulate(size, lambda world: rank(world, shuffle=False)) == [
        ([*range(n)] * size)[r:size * padded:size] for r in range(size)]
    if n >= size:
        dropped = simulate(size, lambda world: rank(world, drop_last=True))
        together = [k for part in dropped for k in part]
        assert len(together) == len(set(together)) == n // size * size
    else:
        with pytest.raises(ValueError, match=f"no sample for a rank: the dataset has {n}, there are {size} ranks"):
            simulate(size, lambda world: rank(world, drop_last=True))


def test_epochs_have_orders_of_their_own():
    def rank(world):
        sampler = DistributedSampler(range(50), world, seed=3)
        loader, epochs = tg.data.DataLoader(range(50), batch_size=10, sampler=sampler), []
        for epoch in (0, 1, 0):
            sampler.set_epoch(epoch)
            epochs.append([k for batch in loader for k in batch.tolist()])
        assert len(loader) == 3 and epochs[0] == epochs[2] != epochs[1]
        return epochs
    both = simulate(2, rank)
    assert all(sorted(a + b) == list(range(50)) for a, b in zip(*both))
    with pytest.raises(ValueError, match="a sampler decides on the order itself"):
        tg.data.DataLoader(range(3), shuffle=True, sampler=[0])
    with pytest.raises(ValueError, match="the sampler has 0 samples"):
        tg.data.DataLoader(range(3), sampler=[])


def test_an_epoch_by_samplers_is_an_epoch_of_one_process():
    data = tg.data.TensorDataset(tg.tensor(X), tg.tensor(Y))

    def rank(world):
        sampler = DistributedSampler(data, world, seed=1)
        loader = tg.data.DataLoader(data, batch_size=8 // world.size, sampler=sampler)
        model = network()
        return train(DataParallel(model, world), [(x.numpy(), y.numpy()) for x, y in loader], steps=3)
    close(simulate(4, rank)[3], simulate(1, rank)[0])


# ---- the hook that it stands on ---------------------------------------------------------------------------


def test_a_hook_after_accumulation_is_called_once_when_all_uses_are_walked():
    log = []
    w, v = (tg.tensor([2.0], requires_grad=True) for _ in range(2))
    v.register_post_accumulate_grad_hook(lambda p: log.append(("v", p.grad.item())))
    handle = w.register_post_accumulate_grad_hook(lambda p: log.append(("w", p.grad.item())))
    w.register_hook(lambda g: log.append(("before", g.item())))
    h = w * v
    h.register_hook(lambda g: log.append(("h", g.item())))
    (h * w + v * 0).sum().backward()
    assert log == [("h", 2.0), ("before", 8.0), ("w", 8.0), ("v", 4.0)]
    handle.remove()
    log.clear()
    (w * 3).sum().backward()
    assert log == [("before", 3.0)] and w.grad.item() == 11
    w.backward()
    assert log[1:] == [("before", 1.0)]


def test_hooks_after_accumulation_come_while_the_walk_runs():
    log, x = [], tg.ones(1)
    weights = [tg.tensor([1.5], requires_grad=True) for _ in range(3)]
    for k, w in enumerate(weights):
        w.register_post_accumulate_grad_hook(lambda p, k=k: log.append(k))
    for k, w in enumerate(weights):
        x = x * w
        x.register_hook(lambda g, k=k: log.append(f"y{k}"))
    x.sum().backward()
    assert log == ["y2", 2, "y1", 1, "y0", 0]


def test_a_leaf_that_is_hooked_during_the_walk_keeps_its_gradient():
    w, v, u = (tg.tensor([2.0], requires_grad=True) for _ in range(3))
    u.register_hook(lambda g: None)
    v.register_hook(lambda g: w.register_hook(lambda g: None) and None)
    a, b, c, d = w * 3, v * 7, w * 5, u * 2                    # walked from the last to the first
    (a + b + c + d).sum().backward()
    assert (w.grad.item(), v.grad.item(), u.grad.item()) == (8, 7, 2)


def test_callbacks_come_when_the_walk_has_ended_and_never_after_grad_or_an_error():
    from tinygrad_opt.autograd import queue_callback
    log, w = [], tg.tensor([2.0], requires_grad=True)
    y = w * 3
    y.register_hook(lambda g: queue_callback(lambda: log.append(w.grad.item())))
    y.sum().backward(retain_graph=True)
    tg.grad(y.sum(), w, retain_graph=True)
    assert log == [3]
    w.register_hook(lambda g: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.sum().backward(retain_graph=True)
    w._hooks.clear()
    (w * 1).sum().backward()
    assert log == [3]


def test_such_a_hook_needs_a_leaf():
    w = tg.tensor([2.0], requires_grad=True)
    for wrong in (w * 1, tg.ones(1)):
        with pytest.raises(RuntimeError, match="needs a leaf that requires a gradient"):
            wrong.register_post_accumulate_grad_hook(print)
