"""ScheduleFreeSGD and ScheduleFreeAdamW: recorded runs, the two points, and what belongs to which mode."""

import copy
import math

import numpy as np
import pytest
from _optimizers import parameters, same

import tinygrad_opt as tg
from tinygrad_opt.optim.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from tinygrad_opt.optim.verify import records, replay

CLASSES = [ScheduleFreeSGD, ScheduleFreeAdamW]
each_class = pytest.mark.parametrize("cls", CLASSES)
OPTIONS = dict(weight_decay=0.1, warmup_steps=4, r=1.0, weight_lr_power=1.0)
RECORDS = [(cls, record) for cls in CLASSES for record in records(cls.__name__)]


def training(cls, params, lr=0.05, **options):
    optimizer = cls(params, lr=lr, **options)
    optimizer.train()
    return optimizer


def run(optimizer, params, steps=10, seed=1):
    random = np.random.default_rng(seed)
    for _ in range(steps):
        for p in params:
            p.grad = np.asarray(random.standard_normal(p.shape)).astype(p.dtype)
        optimizer.step()
    return [p.numpy().copy() for p in params]


@pytest.mark.parametrize("cls, record", RECORDS, ids=[record.id for _, record in RECORDS])
def test_recorded_runs(cls, record):
    result = replay(cls, cls.__name__, record)
    assert result.ok, result.largest
    assert set(record.curves) == {"params", "x", "z"}


@each_class
def test_a_step_outside_train_mode_says_what_to_do(cls):
    params = parameters()
    optimizer = cls(params)
    with pytest.raises(RuntimeError, match=r"call optimizer.train\(\) before training and optimizer.eval\(\) before"):
        optimizer.step()
    optimizer.train()
    run(optimizer, params, 1)
    optimizer.eval()
    before = [p.numpy().copy() for p in params]
    with pytest.raises(RuntimeError, match="not in train mode"):
        optimizer.step()
    same([p.numpy() for p in params], before)
    assert optimizer.step_count == 1


@each_class
def test_x_is_the_weighted_mean_of_z(cls):
    """With a constant rate every z enters with the same weight."""
    params = parameters()
    optimizer = training(cls, params)
    path = []
    for seed in range(7):
        run(optimizer, params, 1, seed)
        path.append([optimizer.state[p]["z"].numpy().copy() for p in params])
    y = [p.numpy().copy() for p in params]
    optimizer.eval()
    x = [p.numpy().copy() for p in params]
    for k, mean in enumerate(x):
        np.testing.assert_allclose(mean, np.mean([z[k] for z in path], axis=0), atol=1e-12)
        np.testing.assert_allclose(y[k], 0.9 * mean + 0.1 * path[-1][k], atol=1e-12)


@each_class
def test_switching_twice_is_once_and_there_and_back_is_rounding(cls):
    params = parameters()
    optimizer = training(cls, params, **OPTIONS)
    y = run(optimizer, params)
    optimizer.train()
    same([p.numpy() for p in params], y)
    optimizer.eval()
    x = [p.numpy().copy() for p in params]
    assert all(not np.array_equal(a, b) for a, b in zip(x, y) if a.size)
    optimizer.eval()
    same([p.numpy() for p in params], x)
    optimizer.train()
    for p, a in zip(params, y):
        np.testing.assert_allclose(p.numpy(), a, rtol=0, atol=1e-13)


@each_class
def test_a_parameter_without_a_gradient_stays_in_both_modes(cls):
    a, b = tg.ones(3, requires_grad=True), tg.ones(3, requires_grad=True)
    optimizer = training(cls, [a, b])
    a.grad = tg.ones(3)
    optimizer.step()
    optimizer.eval()
    assert b.tolist() == [1, 1, 1] and b not in optimizer.state and bool((a != 1).all())


@each_class
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_checkpoint_keeps_the_mode(cls, mode, tmp_path):
    params = parameters()
    optimizer = training(cls, params, **OPTIONS)
    run(optimizer, params)
    getattr(optimizer, mode)()
    tg.save({"model": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, tmp_path / "c.npz")
    saved = tg.load(tmp_path / "c.npz")
    fresh = [tg.Tensor(p.numpy(), requires_grad=True) for p in saved["model"]]
    again = cls(fresh, lr=1.0)
    again.load_state_dict(saved["optimizer"])
    assert again.training == (mode == "train") and again.lr == 0.05
    again.train()
    optimizer.train()
    same(run(again, fresh, seed=2), run(optimizer, params, seed=2))
    twin, ps = copy.deepcopy((again, fresh))
    same(run(twin, ps, seed=3), run(again, fresh, seed=3))


@each_class
def test_a_rate_of_zero_stands_still_and_may_rise_later(cls):
    p = tg.ones(3, requires_grad=True)
    optimizer = training(cls, [p], lr=0)
    p.grad = tg.ones(3)
    optimizer.step()
    assert p.tolist() == [1, 1, 1]
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert bool((p < 1).all())


@each_class
def test_the_warm_up_is_a_smaller_rate(cls):
    """At its first step z has moved by lr / warmup_steps."""
    moved = {}
    for warmup in (0, 10):
        p = tg.zeros(3, requires_grad=True, dtype="float64")
        optimizer = training(cls, [p], lr=0.5, warmup_steps=warmup)
        p.grad = np.ones(3)
        optimizer.step()
        moved[warmup] = optimizer.state[p]["z"].numpy()
    np.testing.assert_allclose(moved[10], moved[0] / 10, rtol=1e-12)


@each_class
def test_half_precision_keeps_its_master_in_both_modes(cls):
    half = tg.Tensor(np.linspace(-1, 1, 5), dtype="float16", requires_grad=True)
    single = tg.Tensor(half.numpy().astype("float32"), requires_grad=True)
    a, b = training(cls, [half], lr=1e-3), training(cls, [single], lr=1e-3)
    for _ in range(50):
        half.grad, single.grad = tg.ones(5, dtype="float16"), tg.ones(5)
        a.step()
        b.step()
    for mode in ("eval", "train", "eval"):
        getattr(a, mode)()
        getattr(b, mode)()
        np.testing.assert_array_equal(half.numpy(), single.numpy().astype("float16"))


@each_class
def test_it_needs_no_schedule(cls):
    """With noise in the gradients the average is nearer to the minimum than the path, at a constant rate."""
    random = np.random.default_rng(0)
    p = tg.Tensor(np.full(20, 3.0), requires_grad=True)
    optimizer = training(cls, [p], lr=0.1)
    for _ in range(1000):
        p.grad = p.numpy() + random.standard_normal(20)
        optimizer.step()
    z = optimizer.state[p]["z"].numpy()
    optimizer.eval()
    assert np.linalg.norm(p.numpy()) < 0.7 * np.linalg.norm(z)


@pytest.mark.parametrize("call, words", [
    (lambda p: ScheduleFreeSGD([p], momentum=0), r"momentum must lie in \(0, 1\), got 0"),
    (lambda p: ScheduleFreeSGD([p], momentum=1), r"momentum must lie in \(0, 1\), got 1"),
    (lambda p: ScheduleFreeAdamW([p], betas=(0, 0.9)), r"beta1 must lie in \(0, 1\), got 0"),
    (lambda p: ScheduleFreeAdamW([p], warmup_steps=-1), "warmup_steps must lie"),
    (lambda p: ScheduleFreeAdamW([p], r=math.nan), "r must lie"),
    (lambda p: ScheduleFreeAdamW([p], weight_lr_power=-1), "weight_lr_power must lie"),
], ids=["momentum 0", "momentum 1", "beta1", "warm-up", "r", "power"])
def test_bad_options(call, words):
    with pytest.raises(ValueError, match=words):
        call(tg.ones(2, requires_grad=True))
