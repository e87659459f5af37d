"""What every optimizer takes beside its own options: schedules as options, gradient transforms, half precision."""

import copy

import numpy as np
import pytest
from _optimizers import NAMES, TOGETHER, each_of, make, parameters, run, same, step

import tinygrad_opt as tg
from tinygrad_opt import optim


def weight(*values, dtype="float64"):
    return tg.tensor(list(values), dtype=dtype, requires_grad=True)


# ---- options that are functions of the step ---------------------------------------------------------------


def test_an_option_may_be_a_function_of_the_step():
    p = weight(0.0)
    optimizer = optim.SGD([p], lr=lambda t: 1.0 / (t + 1))
    seen = []
    for _ in range(4):
        seen.append(optimizer.lr)
        p.grad = np.ones(1)
        optimizer.step()
    assert seen == [1, 1 / 2, 1 / 3, 1 / 4] and optimizer.lr == 1 / 5
    assert p.item() == pytest.approx(-sum(seen), rel=1e-15)


@pytest.mark.parametrize("key, values", [("weight_decay", [0.5, 0.25, 0.125]), ("momentum", [0.5, 0.25, 0.125])])
def test_any_option_may(key, values):
    p, q = weight(1.0), weight(1.0)
    scheduled = optim.SGD([p], lr=0.1, **{"momentum": 0.9, key: lambda t: 0.5 ** (t + 1)})
    by_hand = optim.SGD([q], lr=0.1, **{"momentum": 0.9, key: values[0]})
    for value in values:
        by_hand.param_groups[0][key] = value
        p.grad = q.grad = np.ones(1)
        scheduled.step()
        by_hand.step()
    assert p.item() == q.item()


def test_each_group_may_have_its_own_function_and_a_change_from_outside_lasts():
    p, q = weight(0.0), weight(0.0)
    optimizer = optim.SGD([{"params": [p], "lr": lambda t: 0.1 * 2.0 ** t}, {"params": [q], "lr": 0.5}])
    run(optimizer, [p, q], 1)
    optimizer.param_groups[0]["lr"] *= 10
    run(optimizer, [p, q], 2)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(8.0), 0.5]


def test_a_schedule_of_the_suite_is_such_a_function_and_a_saved_run_goes_on():
    shape = optim.schedule.warmup(3) >> optim.schedule.cosine(5)
    params = parameters()
    optimizer = optim.AdamW(params, lr=0.1 * shape)
    assert optimizer.lr == 0
    run(optimizer, params, 4)
    optimizer.lr *= 0.5
    again = copy.deepcopy(params)
    other = optim.AdamW(again, lr=0.1 * shape)
    other.load_state_dict(optimizer.state_dict())
    same(run(optimizer, params, 3, seed=2), run(other, again, 3, seed=2))
    assert other.lr == pytest.approx(optimizer.lr, rel=1e-15) and optimizer.lr == pytest.approx(0.05 * shape(7))


def test_a_function_that_leaves_the_range_is_stopped():
    with pytest.raises(ValueError, match="lr must lie"):
        optim.SGD([weight(1.0)], lr=lambda t: -1.0)
    p = weight(1.0)
    optimizer = optim.SGD([p], lr=lambda t: 1.0 - t)
    for _ in range(2):
        p.grad = np.ones(1)
        optimizer.step()
    with pytest.raises(ValueError, match="lr must lie"):
        optimizer.step()


# ---- what is done to the gradients ------------------------------------------------------------------------


def test_transforms_run_in_their_order_and_see_names_and_the_step():
    a, b = weight(1.0), weight(1.0)
    calls = []

    def halve(named, t):
        calls.append((t, [name for name, _ in named]))
        for _, p in named:
            p.grad = p.grad * 0.5
    optimizer = optim.SGD([("a", a), ("b", b)], lr=1.0, grad_transforms=[halve, optim.ClipValue(1.0)])
    a.grad = np.full(1, 3.0)
    optimizer.step()
    assert (a.item(), b.item()) == (0.0, 1.0) and calls == [(1, ["a"])]
    optimizer.grad_transforms.reverse()
    b.grad = np.full(1, 3.0)
    optimizer.step()
    assert b.item() == 0.5 and calls[1] == (2, ["a", "b"])
    assert "before each step: ClipValue" in repr(optimizer)


@each_of(set(NAMES) - {"SophiaG"})                          # whose estimate is of the gradients as they came
def test_every_optimizer_takes_transforms(name, options):
    mine, theirs = parameters(name=name), parameters(name=name)
    a = make(name, {**options, "grad_transforms": [optim.ClipValue(0.25)]}, mine)
    b = make(name, options, theirs)
    random = np.random.default_rng(0)
    for _ in range(4):
        for p, q in zip(mine, theirs):
            g = np.asarray(random.standard_normal(p.shape))
            p.grad, q.grad = tg.Tensor(g), tg.Tensor(np.clip(g, -0.25, 0.25))
        step(a)
        step(b)
    same([p.numpy() for p in mine], [p.numpy() for p in theirs])


# ---- half precision ---------------------------------------------------------------------------------------

# Estimates of the distance begin with steps that no float16 shows; SophiaH's curvature is that of a float16 loss.
@pytest.mark.parametrize("name", sorted(set(NAMES) - TOGETHER - {"SophiaH"}))
def test_half_parameters_follow_their_float32_masters(name):
    """What float16 gradients do to a float32 parameter, rounded."""
    half, single = parameters("float16"), [tg.Tensor(p.numpy().astype("float32"), requires_grad=True)
                                           for p in parameters("float16")]
    if name == "Muon":
        half, single = [half[2]], [single[2]]
    a, b = make(name, {}, half), make(name, {}, single)
    random = np.random.default_rng(1)
    for _ in range(10):
        for p, q in zip(half, single):
            g = np.asarray(random.standard_normal(p.shape)).astype("float16")
            p.grad, q.grad = tg.Tensor(g), tg.Tensor(g.astype("float32"))
        step(a)
        step(b)
    for p, q in zip(half, single):
        np.testing.assert_array_equal(p.numpy(), q.numpy().astype("float16"))
        np.testing.assert_array_equal(a.state[p]["master"].numpy(), q.numpy())
        assert p.dtype == "float16" and a.state[p]["master"].dtype == "float32"


def test_small_steps_add_up_in_half_precision():
    p = weight(1.0, dtype="float16")
    optimizer = optim.SGD([p], lr=1e-5)
    for _ in range(1000):
        p.grad = np.ones(1, np.float16)
        optimizer.step()
    assert p.item() == pytest.approx(0.99, abs=1e-3)                    # one step alone rounds back to 1


def test_a_half_parameter_that_was_written_by_someone_else_is_taken_as_it_is():
    p = weight(1.0, 2.0, dtype="float16")
    optimizer = optim.SGD([p], lr=1e-4)
    p.grad = np.ones(2, np.float16)
    optimizer.step()
    with tg.no_grad():
        p.data = np.array([5.0, p.numpy()[1]], np.float16)
    optimizer.step()
    master = optimizer.state[p]["master"].numpy()
    assert master[0] == np.float32(5) - np.float32(1e-4) and master[1] == pytest.approx(2 - 2e-4, abs=1e-6)


def test_a_half_run_is_saved_and_goes_on(tmp_path):
    params = parameters("float16")
    optimizer = optim.Adam(params, lr=1e-3)
    run(optimizer, params, 5)
    tg.save({"p": [p.detach() for p in params], "o": optimizer.state_dict()}, tmp_path / "half.npz")
    straight = run(optimizer, params, 5, seed=2)
    saved = tg.load(tmp_path / "half.npz")
    again = [tg.Tensor(p.numpy(), requires_grad=True) for p in saved["p"]]
    other = optim.Adam(again, lr=1.0)
    other.load_state_dict(saved["o"])
    same(run(other, again, 5, seed=2), straight)
