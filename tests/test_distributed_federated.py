"""Federated learning and local SGD: against plain SGD, against a walk by hand, and on any number of ranks."""

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import (
    LocalSGD,
    average_gradients,
    class_counts,
    federated,
    simulate,
    split_by_class,
    split_dirichlet,
)

METHODS = ["fedavg", "fedprox", "scaffold", "fedadam"]


def linear():
    return tg.nn.Linear(3, 1, dtype=tg.float64)


def dataset(rows, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 3))
    return tg.data.TensorDataset(tg.tensor(x), tg.tensor(x.sum(axis=1, keepdims=True) + draw.normal(size=(rows, 1))))


def run(clients, method="fedavg", rounds=3, model_fn=linear, **options):
    return federated(model_fn, clients, method, rounds, **{"loss": tg.nn.MSELoss(), "lr": 0.05, **options})


def start(seed=0):
    """Return the model that a run begins with."""
    return run([dataset(4)], rounds=1, lr=1e-300, seed=seed).model


def gradient(model, data):
    model.zero_grad()
    loss = tg.nn.MSELoss()(model(data.tensors[0]), data.tensors[1])
    loss.backward()
    return [p.grad.numpy().copy() for p in model.parameters()], loss.item()


def numbers(model):
    return np.concatenate([p.numpy().ravel() for p in model.parameters()])


# ---- one client -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "scaffold"])
def test_one_client_and_one_step_is_sgd_to_the_bit(method):
    data, model = dataset(20), start()
    optimizer, losses = tg.optim.SGD(model.parameters(), lr=0.05), []
    for _ in range(6):
        losses.append(gradient(model, data)[1])
        optimizer.step()
    result = run([data], method, rounds=6, local_steps=1, batch_size=None)
    assert (numbers(result.model) == numbers(model)).all()
    assert result.loss[:-1].tolist() == pytest.approx(losses, rel=1e-15)


def test_one_client_and_one_step_under_fedadam_is_adam():
    """The pseudo-gradient of one step is lr times the gradient."""
    data, model = dataset(20), start()
    optimizer = tg.optim.Adam(model.parameters(), lr=0.3, betas=(0.9, 0.99), eps=1e-3)
    for _ in range(6):
        for p, g in zip(model.parameters(), gradient(model, data)[0]):
            p.grad = 0.05 * g
        optimizer.step()
    result = run([data], "fedadam", rounds=6, local_steps=1, batch_size=None, server_lr=0.3)
    np.testing.assert_allclose(numbers(result.model), numbers(model), rtol=0, atol=1e-12)


# ---- several clients, by hand -----------------------------------------------------------------------------


def walk(x, model, data, steps, lr, correction):
    """Walk by hand from x, with what is added to each gradient."""
    for _ in range(steps):
        tg.nn.utils.vector_to_parameters(tg.tensor(x), model.parameters())
        g = np.concatenate([part.ravel() for part in gradient(model, data)[0]])
        x = x - lr * (g + correction(x))
    return x


def by_hand(method, clients, rounds, steps, lr, server_lr, mu):
    model = start()
    w, shares = numbers(model), np.array([len(client) for client in clients]) / sum(map(len, clients))
    c, own = np.zeros_like(w), [np.zeros_like(w) for _ in clients]
    for _ in range(rounds):
        ends = []
        for k, client in enumerate(clients):
            correction = {"fedavg": lambda x: 0.0, "fedprox": lambda x: mu * (x - w),
                          "scaffold": lambda x: c - own[k]}[method]
            ends.append(walk(w, model, client, steps, lr, correction))
        own = [own_k - c + (w - x) / (steps * lr) for own_k, x in zip(own, ends)]
        c = shares @ own
        w = w + server_lr * (shares @ ends - w)
    return w, c, own


@pytest.mark.parametrize("method, mu", [("fedavg", None), ("fedprox", 0.7), ("scaffold", None)])
@pytest.mark.parametrize("server_lr", [1.0, 0.6])
def test_unequal_clients_by_hand(method, mu, server_lr):
    clients = [dataset(n, seed) for seed, n in enumerate((5, 30, 12))]
    result = run(clients, method, rounds=4, local_steps=3, batch_size=None, server_lr=server_lr, mu=mu)
    w, c, own = by_hand(method, clients, 4, 3, 0.05, server_lr, mu)
    np.testing.assert_allclose(numbers(result.model), w, rtol=0, atol=1e-12)
    if method == "scaffold":
        np.testing.assert_allclose(result.control, c, rtol=0, atol=1e-12)
        np.testing.assert_allclose(result.controls, own, rtol=0, atol=1e-12)
    else:
        assert result.control is result.controls is None


def parabola(scale, goal):
    """A client whose loss is scale * (w - goal)^2."""
    x = np.full((1, 1), scale ** 0.5)
    return tg.data.TensorDataset(tg.tensor(x), tg.tensor(goal * x))


def test_scaffold_finds_the_minimum_that_fedavg_misses():
    clients, options = [parabola(1.0, 0.0), parabola(9.0, 1.0)], dict(rounds=200, local_steps=10, lr=0.02)
    options["model_fn"] = lambda: tg.nn.Linear(1, 1, bias=False, dtype=tg.float64)
    ends = {method: numbers(run(clients, method, **options).model)[0] for method in ("fedavg", "scaffold")}
    assert ends["scaffold"] == pytest.approx(0.9, abs=1e-6)
    one, nine = 1 - 0.96 ** 10, 1 - 0.64 ** 10          # how far ten steps lead towards the goal of each
    assert ends["fedavg"] == pytest.approx(nine / (one + nine), abs=1e-6)


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_control_variates_keep_their_mean(fraction):
    clients = [dataset(n, seed) for seed, n in enumerate((5, 30, 12, 9, 21))]
    result = run(clients, "scaffold", rounds=7, local_epochs=2, batch_size=4, fraction=fraction)
    shares = np.array([len(client) for client in clients]) / 77
    np.testing.assert_allclose(shares @ result.controls, result.control, rtol=0, atol=1e-12)
    assert abs(result.control).min() > 0
    took_part = [any(k in some for some in result.chosen) for k in range(5)]
    assert (abs(result.controls).sum(axis=1) > 0).tolist() == took_part


def test_who_takes_part_and_what_is_sent():
    clients = [dataset(6, seed) for seed in range(10)]
    result = run(clients, "scaffold", rounds=20, fraction=0.25)
    assert {len(set(some)) for some in result.chosen} == {2} and len(set(result.chosen)) > 5
    assert result.bytes.tolist() == [turn * 2 * 2 * 2 * 4 * 8 for turn in range(1, 21)]
    assert result.chosen == run(clients, rounds=20, fraction=0.25, lr=0.01).chosen
    assert result.chosen != run(clients, rounds=20, fraction=0.25, seed=1).chosen
    assert len(result.loss) == 21 and len(result.drift) == 20 and np.isnan(result.accuracy).all()
    assert str(result).startswith("SCAFFOLD: 10 clients, 20 rounds; loss ")


# ---- many ranks -------------------------------------------------------------------------------------------


def digits_clients():
    train, test = tg.data.digits()
    return split_by_class(tg.data.Subset(train, range(200)), 5, 2), tg.data.Subset(test, range(100))


def with_dropout():
    return tg.nn.Sequential(tg.nn.Linear(64, 8), tg.nn.ReLU(), tg.nn.Dropout(0.2), tg.nn.Linear(8, 10))


def spread(world, method):
    clients, test = digits_clients()
    tested = test if method == "fedavg" else None
    result = federated(with_dropout, clients, method, rounds=3, fraction=0.6, batch_size=8, test=tested, world=world)
    return (numbers(result.model).tobytes(), result.loss.tobytes(), result.accuracy.tobytes(), result.drift.tobytes(),
            None if result.controls is None else result.controls.tobytes())


@pytest.mark.parametrize("method", METHODS)
def test_clients_spread_over_ranks_change_no_bit(method):
    alone = spread(tg.distributed.world(), method)
    assert spread(tg.distributed.world(), method) == alone
    for size in (2, 4):
        assert simulate(size, spread, method, seed=size) == [alone] * size


def spread_equals_alone(world):
    for method in ("scaffold", "fedadam"):
        assert spread(world, method) == simulate(1, spread, method)[0]


@needs_mpi
def test_clients_by_mpi():
    on_ranks(3, spread_equals_alone)


def test_the_default_generator_is_left_as_it_was():
    tg.manual_seed(4)
    run([dataset(4)], rounds=1)
    drawn = tg.rand(3)
    tg.manual_seed(4)
    assert (tg.rand(3) == drawn).all()


def test_the_picture():
    clients, test = digits_clients()
    methods = ("fedavg", "fedavg", "scaffold")
    runs = [federated(with_dropout, clients, method, rounds=2, test=test) for method in methods]
    figure = runs[0].draw(*runs[1:])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["accuracy", "loss", "drift of the clients",
                                                                    f"samples, up to {class_counts(clients).max()}"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["FedAvg", "FedAvg #2", "SCAFFOLD"]
    np.testing.assert_array_equal(figure.axes[1].lines[2].get_ydata(), runs[2].loss)
    assert len(run([dataset(4)]).draw().axes) == 2                      # labels are no classes


# ---- unequal clients --------------------------------------------------------------------------------------


def indices(parts):
    return sorted(i for part in parts for i in part.indices.tolist())


@pytest.mark.parametrize("clients, each", [(5, 2), (10, 2), (7, 3), (3, 10), (1, 10)])
def test_split_by_class(clients, each):
    train, _ = tg.data.digits()
    parts = split_by_class(train, clients, each, seed=clients)
    counts = class_counts(parts)
    assert counts.shape == (clients, 10) and ((counts > 0).sum(axis=1) == each).all()
    owners = (counts > 0).sum(axis=0)
    assert owners.min() >= 1 and owners.max() - owners.min() <= 1
    assert indices(parts) == list(range(len(train)))
    assert [part.indices.tolist() for part in split_by_class(train, clients, each, seed=clients)] == [
        part.indices.tolist() for part in parts]


def test_split_dirichlet():
    train, _ = tg.data.digits()
    spreads = {}
    for alpha in (0.01, 1.0, 1e4):
        parts = split_dirichlet(train, 12, alpha, seed=1)
        assert indices(parts) == list(range(len(train))) and min(map(len, parts)) >= 1
        shares = class_counts(parts) / class_counts([train])
        spreads[alpha] = shares.std(axis=0).mean()
    assert spreads[0.01] > 0.25 > spreads[1.0] > 0.03 > spreads[1e4]
    assert [len(part) for part in split_dirichlet(train, 12, 1.0, seed=1)] != [
        len(part) for part in split_dirichlet(train, 12, 1.0, seed=2)]


# ---- local SGD --------------------------------------------------------------------------------------------


def local_and_parallel(world, every, momentum):
    """Return the parameters after LocalSGD and after data parallel training, on unlike data."""
    ends = []
    for local in (True, False):
        model = tg.nn.Linear(3, 1, dtype=tg.float64, generator=tg.Generator(world.rank if local else 0))
        optimizer = tg.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
        optimizer = LocalSGD(optimizer, every, world) if local else optimizer
        for _ in range(8):
            gradient(model, dataset(6, world.rank))
            if not local:
                average_gradients(model.parameters(), world)
            optimizer.step()
        ends.append(numbers(model))
    return ends


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("momentum", [0, 0.9])
def test_averaging_every_step_is_data_parallel(size, momentum):
    """With momentum too: the mean of linear recurrences is the recurrence of the mean."""
    results = simulate(size, local_and_parallel, 1, momentum)
    for local, parallel in results:
        np.testing.assert_allclose(local, parallel, rtol=0, atol=1e-12)
    assert len({local.tobytes() for local, _ in results}) == 1


def test_averaging_now_and_then_saves_messages_and_is_another_path():
    def rank(world):
        w = tg.tensor([0.0], requires_grad=True)
        optimizer = LocalSGD(tg.optim.SGD([w], lr=0.5), every=3, world=world)
        world.accounts.clear()
        counts = []
        for _ in range(6):
            optimizer.zero_grad()
            optimizer.step(lambda: ((w - world.rank) ** 2 / 2).sum().backward())
            counts.append(optimizer.count)
        return w.item(), world.accounts["all_reduce"].calls, counts, optimizer.state_dict()["count"]
    assert simulate(2, rank) == [(0.4921875, 2, [1, 2, 0, 1, 2, 0], 0)] * 2
    local, parallel = simulate(2, local_and_parallel, 4, 0)[0]
    assert 1e-4 < abs(local - parallel).max()


# ---- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, error, words", [
    (dict(method="fedsgd"), ValueError, "no federated method named 'fedsgd'; the nearest are"),
    (dict(rounds=0), ValueError, "rounds"),
    (dict(local_steps=1, local_epochs=1), ValueError, "give one of them"),
    (dict(fraction=0), ValueError, r"fraction must lie in \(0, 1\]"),
    (dict(lr=0), ValueError, "lr must lie in"),
    (dict(server_lr=-1), ValueError, "server_lr must lie in"),
    (dict(mu=0.1), ValueError, "mu is an option of fedprox alone"),
    (dict(clients=[]), ValueError, "one at least"),
    (dict(model_fn=lambda: tg.nn.BatchNorm1d(3)), ValueError, "buffers, running_mean"),
    (dict(model_fn=lambda: None), TypeError, "must return a Module"),
    (dict(model_fn=tg.nn.ReLU), ValueError, "none"),
])
def test_federated_says_what_is_wrong(options, error, words):
    with pytest.raises(error, match=words):
        run(**{"clients": [dataset(4)], **options})


@pytest.mark.parametrize("call, error, words", [
    (lambda: split_by_class(tg.data.digits()[0], 4, 2), ValueError, "4 clients of 2 classes each must have all 10"),
    (lambda: split_by_class(tg.data.digits()[0], 4, 11), ValueError, "none of them twice"),
    (lambda: split_dirichlet(tg.data.digits()[0], 0), ValueError, "clients"),
    (lambda: split_dirichlet(dataset(4), 2), TypeError, "labels here have dtype float64 and shape"),
    (lambda: split_dirichlet(tg.data.digits()[0], 2, alpha=0), ValueError, "alpha must be positive"),
    (lambda: LocalSGD(tg.optim.SGD([tg.tensor([1.0], requires_grad=True)]), every=0), ValueError, "every must lie in"),
])
def test_parts_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
