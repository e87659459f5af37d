"""The parameter server: what it promises of staleness, against data parallel training, and against a walk by hand."""

import copy
import math

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import ParameterServer, RandomDelays, average_gradients, server_schedule, simulate

SLOW_ONE = RandomDelays([1.0, 1.0, 1.3, 5.0], spread=0.4, seed=2)


# ---- the schedule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0, 1, 2, 5, math.inf])
@pytest.mark.parametrize("delays", [None, [1.0, 2.0, 3.0, 7.0], SLOW_ONE, lambda k, n: 1 + (k + n) % 3])
def test_staleness_keeps_its_bound(bound, delays):
    log = server_schedule(4, 60, bound, delays)
    assert 0 <= log.staleness.min() and log.staleness.max() <= bound
    assert (log.begun < log.arrived).all() and (log.arrived <= log.updated).all()
    assert (np.diff(log.version) >= 0).all() and set(log.version.tolist()) == set(range(60))
    for k in range(4):
        own = log.worker == k
        assert log.number[own].tolist() == list(range(own.sum()))
        assert (log.begun[own][1:] == log.updated[own][:-1]).all() and log.begun[own][0] == 0
        assert (log.pulled[own][1:] == log.version[own][:-1] + 1).all()
    if bound in (0, math.inf):
        assert len(log.worker) == 60 * (4 if bound == 0 else 1)
        assert log.waiting == 0 or bound == 0


def test_a_looser_bound_waits_less():
    waits = [server_schedule(4, 60, bound, SLOW_ONE).waiting for bound in (0, 1, 2, 4, 8, 1000)]
    assert waits == sorted(waits, reverse=True) and waits[0] > 0.5 and waits[-1] == 0


def test_a_schedule_by_hand():
    """Worker 1 takes 3; with a bound of 1, worker 0 makes a step alone, then waits for it."""
    log = server_schedule(2, 3, 1, [1.0, 3.0])
    assert log.worker.tolist() == [0, 0, 1, 0]
    assert log.arrived.tolist() == [1, 2, 3, 4] and log.updated.tolist() == [1, 3, 3, 4]
    assert log.pulled.tolist() == [0, 1, 0, 2] and log.version.tolist() == [0, 1, 1, 2]
    assert str(log) == ("2 workers, 4 gradients in 3 steps until 4; staleness 0.25 on average, 1 at most, 1 allowed; "
                        "workers wait 14% of their time")


def test_delays_are_seeded():
    assert SLOW_ONE(3, 7) == copy.deepcopy(SLOW_ONE)(3, 7) != SLOW_ONE(3, 8)
    drawn = [RandomDelays([2.0], 0.3, 0)(0, n) for n in range(2000)]
    assert np.mean(drawn) == pytest.approx(2, rel=0.02) and np.std(np.log(drawn)) == pytest.approx(0.3, rel=0.05)


def test_the_picture_shows_every_gradient():
    log = server_schedule(3, 9, 2, [1.0, 2.0, 4.0])
    log.loss = np.arange(len(log.worker)) / 10
    axes, below, bar = log.draw().axes
    assert len(axes.patches) == 2 * len(log.worker) and len(below.collections[0].get_offsets()) == len(log.worker)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["worker 0", "worker 1", "worker 2"]
    assert len(server_schedule(1, 2).draw().axes) == 1                  # neither losses nor staleness


# ---- the server -------------------------------------------------------------------------------------------

ROWS = 24


def model():
    draw = tg.Generator(0)
    return tg.nn.Sequential(tg.nn.Linear(3, 5, dtype=tg.float64, generator=draw), tg.nn.Tanh(),
                            tg.nn.Linear(5, 1, dtype=tg.float64, generator=draw))


def batch(world, number):
    draw = np.random.default_rng([world.rank, number])
    x = draw.normal(size=(ROWS // world.size, 3))
    return tg.tensor(x), tg.tensor(np.sin(x.sum(axis=1, keepdims=True)))


def make(kind, params):
    return {"adam": lambda: tg.optim.Adam(params, lr=0.05), "sgd": lambda: tg.optim.SGD(params, lr=0.1)}[kind]()


def serve(world, kind, steps, staleness, delays=None):
    net = model()
    server = ParameterServer(make(kind, net.parameters()), world, staleness, delays)

    def closure(number):
        x, y = batch(world, number)
        loss = tg.nn.MSELoss()(net(x), y)
        loss.backward()
        return loss
    log = server.run(closure, steps)
    return net, log


def synchronous_is_data_parallel(world, exactly):
    net, log = serve(world, "adam", 15, 0, [1.0 + k for k in range(world.size)])
    other = model()
    optimizer = tg.optim.Adam(other.parameters(), lr=0.05)
    for number in range(15):
        optimizer.zero_grad()
        x, y = batch(world, number)
        loss = tg.nn.MSELoss()(other(x), y)
        loss.backward()
        average_gradients(other.parameters(), world)
        optimizer.step()
        assert not exactly or log.loss[(log.worker == world.rank) & (log.number == number)] == loss.item()
    for p, q in zip(net.parameters(), other.parameters()):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=0, atol=0 if exactly else 1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_without_staleness_it_is_data_parallel_to_the_bit(size):
    simulate(size, synchronous_is_data_parallel, True)


def by_hand(log, worlds):
    """Walk through a log in one process: every gradient at the parameters of the version that was fetched."""
    net = model()
    optimizer = tg.optim.SGD(net.parameters(), lr=0.1)
    past = []
    for version in range(log.steps):
        past.append([p.numpy().copy() for p in net.parameters()])
        gradients = []
        for line in np.flatnonzero(log.version == version):
            twin = model()
            for p, value in zip(twin.parameters(), past[log.pulled[line]]):
                p.data = value
            x, y = batch(worlds[log.worker[line]], int(log.number[line]))
            loss = tg.nn.MSELoss()(twin(x), y)
            loss.backward()
            assert loss.item() == log.loss[line]
            gradients.append([p.grad.numpy() for p in twin.parameters()])
        for p, *parts in zip(net.parameters(), *gradients):
            p.grad = sum(parts[1:], parts[0]) / len(parts)
        optimizer.step()
    return b"".join(p.numpy().tobytes() for p in net.parameters())


def stale_run(world, staleness):
    delays = [1.0, 1.3, 4.0, 2.0][:world.size]
    net, log = serve(world, "sgd", 25, staleness, delays)
    return b"".join(p.numpy().tobytes() for p in net.parameters()), log, world


@pytest.mark.parametrize("staleness", [1, 3, math.inf])
def test_stale_gradients_are_those_of_the_parameters_that_were_fetched(staleness):
    results = simulate(4, stale_run, staleness)
    worlds = [world for _, _, world in results]
    assert {bits for bits, _, _ in results} == {by_hand(results[0][1], worlds)}
    for name in ("worker", "pulled", "version", "loss", "arrived"):
        assert all((getattr(log, name) == getattr(results[0][1], name)).all() for _, log, _ in results)
    assert simulate(4, stale_run, staleness)[3][0] == results[0][0]


def by_mpi(world):
    synchronous_is_data_parallel(world, False)
    bits, log, _ = stale_run(world, 2)
    worlds = [type("World", (), {"rank": k, "size": world.size}) for k in range(world.size)]
    assert bits == by_hand(log, worlds) and 0 < log.staleness.max() <= 2


@needs_mpi
def test_server_by_mpi():
    on_ranks(3, by_mpi)


def test_unused_parameters_and_fresh_runs():
    def rank(world):
        w, unused = (tg.tensor([1.0], requires_grad=True) for _ in range(2))
        server = ParameterServer(tg.optim.SGD([w, unused], lr=0.25), world)

        def closure(number):
            loss = (w ** 2).sum()
            loss.backward()
            return loss
        server.run(closure, 1)
        server.run(closure, 1)
        return w.item(), unused.item()
    assert simulate(2, rank) == [(0.25, 1.0)] * 2


W = tg.tensor([1.0], requires_grad=True)


@pytest.mark.parametrize("arguments, error, words", [
    (dict(optimizer=[W]), TypeError, "must be an Optimizer"),
    (dict(staleness=-1), ValueError, "staleness must be a whole number of at least 0, or inf"),
    (dict(staleness=1.5), ValueError, "staleness"),
    (dict(delays=[1.0, 2.0]), ValueError, r"one number a worker, 1, .*got \[1.0, 2.0\]"),
    (dict(delays=RandomDelays([1.0, 2.0])), ValueError, r"one number a worker, 1, .*got \[1.0, 2.0\]"),
    (dict(delays=1.0), ValueError, "one number a worker"),
    (dict(delays=[0.0]), ValueError, "positive and finite, got 0.0 for gradient 0 of worker 0"),
])
def test_server_says_what_is_wrong(arguments, error, words):
    with pytest.raises(error, match=words):
        ParameterServer(**{"optimizer": tg.optim.SGD([W]), **arguments})
    with pytest.raises(ValueError, match="spread"):
        RandomDelays([1.0], spread=-1)


def test_different_models_and_no_loss_are_refused():
    with pytest.raises(TypeError, match="closure must return the loss"):
        ParameterServer(tg.optim.SGD([W])).run(lambda number: None, 1)
    with pytest.raises(ValueError, match="must be the same on all ranks"):
        simulate(2, lambda world: ParameterServer(tg.optim.SGD(tg.nn.Linear(2, 1 + world.rank).parameters()), world))
