"""The schedulers: closed forms, resuming at any step, changes from outside, errors, warnings."""

import copy
import json
import math
import pickle

import pytest
from _schedulers import ALL, CONTAINERS, LRS, SINGLE, momenta, ours, rates, run
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_opt as tg
from tinygrad_opt.optim import lr_scheduler as ls
from tinygrad_opt.optim import schedule

every = pytest.mark.parametrize("make", [make for _, make in ALL], ids=[name for name, _ in ALL])


def test_the_table_is_complete():
    made = {name for name, _ in SINGLE} | {"SequentialLR", "ChainedScheduler"}
    assert made | {"LRScheduler", "ReduceLROnPlateau"} == set(ls.__all__)
    assert all(issubclass(getattr(ls, name), ls.HyperScheduler) for name in ls.__all__)


# ---- closed forms -----------------------------------------------------------------------------------------

CLOSED = {
    "StepLR": (dict(step_size=3, gamma=0.5), lambda t: 0.5 ** (t // 3)),
    "MultiStepLR": (dict(milestones=[2, 5], gamma=0.5), lambda t: 0.5 ** ((t >= 2) + (t >= 5))),
    "ConstantLR": (dict(factor=0.0, total_iters=3), lambda t: float(t >= 3)),
    "LinearLR": (dict(start_factor=0.5, total_iters=4), lambda t: 0.5 + 0.5 * min(t, 4) / 4),
    "ExponentialLR": (dict(gamma=0.9), lambda t: 0.9 ** t),
    "PolynomialLR": (dict(total_iters=4, power=2), lambda t: (1 - min(t, 4) / 4) ** 2),
    "CosineAnnealingLR": (dict(T_max=4), lambda t: (1 + math.cos(math.pi * t / 4)) / 2),
    "CosineAnnealingWarmRestarts": (dict(T_0=4), lambda t: (1 + math.cos(math.pi * (t % 4) / 4)) / 2),
    "InverseTimeDecay": (dict(decay_steps=2, decay_rate=3), lambda t: 1 / (1 + 3 * t / 2)),
    "LinearToZero": (dict(total_steps=5), lambda t: max(0, 1 - t / 5)),
    "REX": (dict(total_steps=5), lambda t: 0 if t > 5 else (1 - t / 5) / (0.5 + 0.5 * (1 - t / 5))),
    "WarmupCosine": (dict(warmup_steps=2, total_steps=6),
                     lambda t: t / 2 if t < 2 else (1 + math.cos(math.pi * min(1, (t - 2) / 4))) / 2),
    "WSD": (dict(warmup_steps=2, stable_steps=2, decay_steps=4),
            lambda t: t / 2 if t < 2 else 1 - math.sqrt(min(1, max(0, (t - 4) / 4)))),
    "InverseSqrt": (dict(warmup_steps=4), lambda t: t / 4 if t < 4 else 1 / math.sqrt(t / 4)),
    "PiecewiseLinear": (dict(points={2: 0.5}), lambda t: 1 - min(t, 2) / 4),
    "WarmupLR": (dict(warmup_steps=4, start_factor=0.2), lambda t: 0.2 + 0.8 * min(t, 4) / 4),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name):
    options, factor = CLOSED[name]
    values = run(getattr(ls, name)(optimizer=ours(), **options), 12)
    assert values == [pytest.approx([lr * factor(t) for lr in LRS], abs=1e-15) for t in range(13)]


def test_the_floor_of_warmup_cosine_begins_after_the_warm_up():
    values = run(ls.WarmupCosine(ours(lrs=[0.1]), warmup_steps=2, total_steps=4, min_lr=0.02), 5)
    assert [lr for lr, in values] == pytest.approx([0, 0.05, 0.1, 0.06, 0.02, 0.02], abs=1e-15)


def test_what_follows_a_chain_begins_from_the_learning_rate_before_it():
    optimizer = ours(lrs=[0.1])
    chain = ls.ChainedScheduler([ls.ExponentialLR(optimizer, 0.9), ls.StepLR(optimizer, 2, gamma=0.5)])
    scheduler = ls.SequentialLR(optimizer, [chain, ls.ExponentialLR(optimizer, 0.8)], [5])
    run(scheduler, 3)
    optimizer.lr *= 0.5
    assert [lr for lr, in run(scheduler, 4)] == pytest.approx(
        [0.05 * 0.9 ** 3 * 0.5, 0.05 * 0.9 ** 4 * 0.25, 0.05, 0.05 * 0.8, 0.05 * 0.8 ** 2])


def test_noam_sets_the_rate_of_the_paper():
    values = run(ls.Noam(ours(), model_dim=512, warmup_steps=4, scale=2.0), 9)
    paper = [2 * 512 ** -0.5 * min(max(t, 1) ** -0.5, max(t, 1) * 4 ** -1.5) for t in range(10)]
    assert values == [pytest.approx([lr, lr], rel=1e-14) for lr in paper]


def test_one_cycle_of_a_thousand_steps():
    optimizer = ours("AdamW")
    scheduler = ls.OneCycleLR(optimizer, max_lr=0.1, total_steps=1000)
    values = []
    for _ in range(1000):
        values.append(optimizer.lr)
        optimizer.step()
        scheduler.step()
    assert values[0] == pytest.approx(0.004) and max(values) == pytest.approx(0.1)
    assert values.index(max(values)) == 299 and values[-1] == pytest.approx(4e-7)
    with pytest.raises(ValueError, match="Tried to step 1001 times. The specified number of total steps is 1000;"):
        scheduler.step()
    assert scheduler.last_epoch == 1000


@pytest.mark.parametrize("total, share", [(1, 0.3), (2, 0.3), (3, 1 / 3), (3, 0.3), (1, 1.0), (4, 0.25), (5, 1.0)])
@pytest.mark.parametrize("three", [False, True])
def test_one_cycle_of_few_steps(total, share, three):
    values = run(ls.OneCycleLR(ours(), max_lr=0.1, total_steps=total, pct_start=share, three_phase=three), total)
    assert all(math.isfinite(lr) for row in values for lr in row)


def test_a_scheduler_of_ones_own_as_in_torch():
    class Own(ls.LRScheduler):
        def get_lr(self):
            return [base / (1 + self.last_epoch) for base in self.base_lrs]
    optimizer = ours(lrs=[0.6])
    scheduler = Own(optimizer)
    assert run(scheduler, 2) == [[0.6], [0.3], [pytest.approx(0.2)]]
    optimizer.lr *= 0.5
    assert run(scheduler, 1) == [[pytest.approx(0.1)], [pytest.approx(0.075)]]
    with pytest.raises(NotImplementedError, match="schedule.*get_lr"):
        ls.LRScheduler(ours())


# ---- resuming ---------------------------------------------------------------------------------------------


def whole(optimizer, scheduler):
    return {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}


@every
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "scheduler alone"])
def test_resuming_at_any_step_gives_the_same_bits(make, order):
    n = 33
    optimizer = ours()
    scheduler = make(optimizer)
    saved, values = [], []
    for t in range(n):
        saved.append(copy.deepcopy(whole(optimizer, scheduler)))
        if t == 3:
            optimizer.lr *= 0.5
        if t == 20:
            optimizer.param_groups[1]["lr"] = 0.02
        scheduler.step()
        values.append((rates(optimizer), momenta(optimizer)))
    for t in range(21 if order == "scheduler alone" else 0, n, 3):
        again = ours()
        resumed = make(again)
        state = {"optimizer": lambda t=t: again.load_state_dict(saved[t]["optimizer"]),
                 "scheduler": lambda t=t: resumed.load_state_dict(json.loads(json.dumps(saved[t]["scheduler"])))}
        for part in {"optimizer first": ["optimizer", "scheduler"], "scheduler first": ["scheduler", "optimizer"],
                     "scheduler alone": ["scheduler"]}[order]:
            state[part]()
        assert resumed.last_epoch == t
        for k in range(t, n):
            if k == 3:
                again.lr *= 0.5
            if k == 20:
                again.param_groups[1]["lr"] = 0.02
            resumed.step()
            assert (rates(again), momenta(again)) == values[k], (t, k)


def test_resuming_on_a_plateau():
    optimizer, metrics = ours(), [1 / (1 + t // 5) for t in range(40)]
    scheduler, values, saved = ls.ReduceLROnPlateau(optimizer, patience=1, cooldown=1), [], []
    for metric in metrics:
        saved.append(json.loads(json.dumps(scheduler.state_dict())))
        scheduler.step(metric)
        values.append(rates(optimizer))
    for t in range(40):
        again = ours()
        resumed = ls.ReduceLROnPlateau(again, patience=1, cooldown=1)
        resumed.load_state_dict(saved[t])
        for k in range(t, 40):
            resumed.step(metrics[k])
            assert rates(again) == values[k]


@every
def test_a_state_is_plain_and_a_copy(make):
    scheduler = make(ours())
    before = scheduler.state_dict()
    assert json.loads(json.dumps(before)) == before
    text = json.dumps(before)
    scheduler.step()
    assert json.dumps(before) == text


@pytest.mark.parametrize("name, options", [row for row in SINGLE if not getattr(ls, row[0]).chainable])
def test_last_epoch_begins_in_the_middle(name, options):
    values = run(getattr(ls, name)(ours(), **options), 20)
    optimizer = ours()
    for group in optimizer.param_groups:
        group["initial_lr"], group["lr"] = group["lr"], 7.0
    assert run(getattr(ls, name)(optimizer, **options, last_epoch=11), 8) == values[12:]


def test_settings_come_with_the_state():
    old, new = ls.StepLR(ours(), 3, gamma=0.5), ls.StepLR(ours(), 7, gamma=0.1)
    run(old, 2)
    new.load_state_dict(old.state_dict())
    assert (new.step_size, new.gamma) == (3, 0.5)
    assert run(old, 9) == run(new, 9)


def test_a_state_that_does_not_fit_changes_nothing():
    scheduler = ls.StepLR(ours(), 3)
    other, alone = ls.ExponentialLR(ours(), 0.9), ls.StepLR(ours(lrs=[0.1]), 3)
    before = scheduler.state_dict()
    for state, message in [(other.state_dict(), "state of ExponentialLR, not of StepLR"),
                           (alone.state_dict(), "has 2 groups, the saved state 1"),
                           ({**before, "more": 1}, "more besides"), (7, "int"),
                           ({k: v for k, v in before.items() if k != "gamma"}, "no gamma")]:
        with pytest.raises(ValueError, match=message):
            scheduler.load_state_dict(state)
    assert scheduler.state_dict() == before
    chain, longer = (ls.ChainedScheduler([ls.StepLR(o, 3) for _ in range(n)]) for n, o in ((1, ours()), (2, ours())))
    with pytest.raises(ValueError, match="holds 1 schedulers, the saved state 2"):
        chain.load_state_dict(longer.state_dict())


class Decay:
    def __init__(self, rate):
        self.rate, self.calls = rate, [0]

    def __call__(self, t):
        self.calls[0] += 1
        return self.rate ** t


def test_functions_are_not_saved_and_objects_are():
    scheduler = ls.LambdaLR(ours(), [lambda t: 1.0, Decay(0.9)])
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [None, {"rate": 0.9, "calls": [1]}]
    other = ls.LambdaLR(ours(), [lambda t: 1.0, Decay(0.5)])
    other.load_state_dict(state)
    assert run(other, 3)[3] == [0.1, pytest.approx(0.03 * 0.9 ** 3)]
    decay = Decay(0.9)
    decay.model = object()
    with pytest.warns(UserWarning, match=r"lr_lambdas\[1\].model, object, is not in the saved state"):
        ls.LambdaLR(ours(), [lambda t: 1.0, decay]).state_dict()


def test_copies_and_pickles_go_their_own_way():
    scheduler = ls.SequentialLR(o := ours(), [ls.StepLR(o, 2), ls.WarmupLR(o, 3, schedule.cosine(9))], [4])
    run(scheduler, 2)
    for twin in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert twin.optimizer is not o
        assert twin.table(9) == scheduler.table(9)
        run(twin, 5)
    assert scheduler.last_epoch == 2


# ---- changes from outside ---------------------------------------------------------------------------------


def stands_on_a_floor(scheduler):
    """Whether a part of the values (eta_min, swa_lr) stays where it is when the rest is scaled."""
    return any(scheduler.floors) and not scheduler.absolute or any(
        map(stands_on_a_floor, getattr(scheduler, "_schedulers", ())))


@every
def test_a_change_from_outside_lasts(make):
    left, changed = make(ours()), make(a := ours())
    run(left, 4), run(changed, 4)
    now = rates(a)
    a.lr *= 0.5
    assert changed.get_last_lr() == rates(a) == [pytest.approx(0.5 * lr) for lr in now]
    if not stands_on_a_floor(left):
        for was, now in zip(run(left, 20)[1:], run(changed, 20)[1:]):
            assert now == pytest.approx([0.5 * lr for lr in was], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", ["sequential", "sequential from cyclic", "sequential into one cycle",
                                  "sequential of closed", "chained many"])
def test_a_change_from_outside_lasts_beyond_a_milestone(name):
    left, changed = CONTAINERS[name](ours()), CONTAINERS[name](a := ours())
    run(left, 4), run(changed, 4)
    a.lr *= 0.5
    for t, (was, now) in enumerate(zip(run(left, 400)[1:], run(changed, 400)[1:])):
        floor = 1e-4 if "closed" in name else 0         # of the second of three
        assert now == pytest.approx([0.5 * lr for lr in was], rel=1e-9, abs=floor + 1e-15), t


def test_a_change_from_outside_lasts_beyond_the_bottom_of_a_wave():
    optimizer = ours(lrs=[0.1])
    scheduler = ls.CosineAnnealingLR(optimizer, T_max=4)
    run(scheduler, 2)
    optimizer.lr *= 0.5
    assert run(scheduler, 6)[-1] == [pytest.approx(0.05)]


def test_zero_is_legal_and_left_again():
    optimizer = ours(lrs=[0.0])
    scheduler = ls.ExponentialLR(optimizer, 0.5)
    assert run(scheduler, 3) == [[0.0]] * 4
    optimizer.lr = 0.2
    assert run(scheduler, 2) == [[0.2], [pytest.approx(0.1)], [pytest.approx(0.05)]]
    optimizer.lr = 0.0
    assert run(scheduler, 2) == [[0.0]] * 3

    optimizer = ours(lrs=[0.1])
    scheduler = ls.LambdaLR(optimizer, lambda t: t / 4)
    assert optimizer.lr == 0.0
    optimizer.lr = 0.4                                  # while the factor is 0: the new base
    assert run(scheduler, 2) == [[0.4], [pytest.approx(0.1)], [pytest.approx(0.2)]]


def test_schedulers_of_one_option_multiply():
    optimizer = ours(lrs=[0.1])
    warm, fall = ls.HyperScheduler(optimizer, "lr", lambda t: min(1, t / 5)), ls.WSD(optimizer, 0, 3, 10)
    for t in range(1, 13):
        optimizer.step(), warm.step(), fall.step()
        assert optimizer.lr == pytest.approx(0.1 * min(1, t / 5) * (1 - math.sqrt(max(0, t - 3) / 10) if t < 13 else 0))


def test_a_schedule_in_the_optimizer_and_a_scheduler_multiply():
    fall = 0.1 * schedule.linear(20)
    optimizer = tg.optim.SGD([tg.zeros(2, requires_grad=True)], lr=fall)
    scheduler = ls.StepLR(optimizer, 3, gamma=0.5)
    for t in range(15):
        assert optimizer.lr == pytest.approx(fall(t) * 0.5 ** (t // 3))
        optimizer.step()
        scheduler.step()


def test_change_after_the_end_of_swa():
    optimizer = ours(lrs=[0.1])
    scheduler = ls.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    run(scheduler, 3)
    optimizer.lr *= 0.1
    assert run(scheduler, 3) == [[pytest.approx(0.005)]] * 4


# ---- other options ----------------------------------------------------------------------------------------


def test_any_option_can_be_scheduled():
    optimizer = ours("AdamW", weight_decay=0.2)
    decay = ls.HyperScheduler(optimizer, "weight_decay", lambda t: 1 / (1 + t))
    beta = ls.HyperScheduler(optimizer, "beta2", schedule.linear(10, end=0.9))
    eps = ls.HyperScheduler(optimizer, "eps", [schedule.exponential(0.1), schedule.exponential(0.01)])
    decay.step(), beta.step(), eps.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, pytest.approx(0.999 * 0.99))] * 2
    assert [group["eps"] for group in optimizer.param_groups] == pytest.approx([1e-9, 1e-10])
    assert decay.get_last_lr() == list(LRS)
    optimizer.param_groups[0]["weight_decay"] = 0.4
    decay.step()
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.8 / 3)
    optimizer.load_state_dict(optimizer.state_dict())   # no key of ours is in the way


def test_an_option_goes_on_with_last_epoch():
    optimizer = ours("AdamW", weight_decay=0.2)
    scheduler = ls.HyperScheduler(optimizer, "weight_decay", lambda t: 1 / (1 + t), last_epoch=3)
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
    scheduler.step()
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(1.0 / 6)


# ---- looking ahead ----------------------------------------------------------------------------------------


@every
def test_the_table_tells_what_will_come(make):
    scheduler = make(ours())
    run(scheduler, 2)
    before = scheduler.state_dict()
    table = scheduler.table(20)
    assert scheduler.state_dict() == before
    assert [list(row[1:]) for row in table] == run(scheduler, 19)
    assert [row[0] for row in table] == list(range(2, 22))
    assert str(table).splitlines()[0].split() == ["t", "lr", "0", "lr", "1"]


def test_plot():
    pytest.importorskip("matplotlib")
    ax = ls.StepLR(ours(), 3).plot(9)
    assert [line.get_label() for line in ax.lines] == ["lr 0", "lr 1"]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3)
    assert ls.StepLR(ours(), 3).plot(9, ax) is ax and len(ax.lines) == 4


@given(st.lists(st.floats(0.5, 1.0), min_size=1, max_size=4), st.integers(1, 30))
def test_chains_are_products(gammas, n):
    optimizer = ours(lrs=[0.1])
    run(ls.ChainedScheduler([ls.ExponentialLR(optimizer, gamma) for gamma in gammas]), n)
    assert optimizer.lr == pytest.approx(0.1 * math.prod(gammas) ** n, rel=1e-12)


# ---- errors -----------------------------------------------------------------------------------------------


def one_cycle(**options):
    return lambda: ls.OneCycleLR(ours(), **{"max_lr": 0.1, **options})


def sequence(parts, milestones):
    return lambda: ls.SequentialLR(o := ours(), [part(o) for part in parts], milestones)


def steplr(o):
    return ls.StepLR(o, 3)


@pytest.mark.parametrize("make, error, message", [
    (lambda: ls.StepLR(tg.zeros(2), 3), TypeError, "Tensor is not an Optimizer"),
    (lambda: ls.ReduceLROnPlateau(7), TypeError, "int is not an Optimizer"),
    (lambda: ls.StepLR(ours(), 0), ValueError, r"StepLR: step_size must lie in \(0, inf\), got 0.0"),
    (lambda: ls.StepLR(ours(), 3, gamma=math.nan), ValueError, "gamma"),
    (lambda: ls.LambdaLR(ours(), [len]), ValueError, "Expected 2 lr_lambdas, but got 1"),
    (lambda: ls.LambdaLR(ours(), 0.5), TypeError, "lr_lambda should be a function, but got float"),
    (lambda: ls.MultiplicativeLR(ours(), [len, 1]), TypeError, "lr_lambda should be a function, but got int"),
    (lambda: ls.ConstantLR(ours(), factor=1.5), ValueError, r"factor must lie in \[0, 1\]"),
    (lambda: ls.LinearLR(ours(), start_factor=0), ValueError, "Starting multiplicative factor.*start_factor = 0"),
    (lambda: ls.LinearLR(ours(), end_factor=2), ValueError, r"end_factor must lie in \[0, 1\], got 2"),
    (lambda: ls.CosineAnnealingLR(ours(), 0), ValueError, "T_max"),
    (lambda: ls.CosineAnnealingWarmRestarts(ours(), 1.5), ValueError, "Expected positive integer T_0, but got 1.5"),
    (lambda: ls.CosineAnnealingWarmRestarts(ours(), 2, 0), ValueError, "Expected integer T_mult >= 1, but got 0"),
    (lambda: ls.CosineAnnealingWarmRestarts(ours(), 2, eta_min="0"), ValueError, "Expected float or int eta_min"),
    (lambda: ls.CosineAnnealingWarmRestarts(ours(), 2).step(-1), ValueError, "Expected non-negative epoch, but got -1"),
    (lambda: ls.CyclicLR(ours(), 0.1, [1.0]), ValueError, "max_lr must have the same length.*1 values.*has 2"),
    (lambda: ls.CyclicLR(ours(), 0.1, 1.0, mode="square"), ValueError, "mode must be one of triangular"),
    (lambda: ls.CyclicLR(ours("Adagrad"), 0.1, 1.0), ValueError, "optimizer must support momentum or beta1"),
    (one_cycle(), ValueError, r"either total_steps OR \(epochs AND steps_per_epoch\)"),
    (one_cycle(total_steps=0), ValueError, "Expected positive integer total_steps, but got 0"),
    (one_cycle(epochs=2.5, steps_per_epoch=3), ValueError, "Expected positive integer epochs, but got 2.5"),
    (one_cycle(epochs=2, steps_per_epoch=-3), ValueError, "Expected positive integer steps_per_epoch, but got -3"),
    (one_cycle(total_steps=9, pct_start=1.1), ValueError, "between 0 and 1 pct_start, but got 1.1"),
    (one_cycle(total_steps=9, anneal_strategy="x"), ValueError, "anneal_strategy must be one of 'cos' or 'linear'"),
    (lambda: run(one_cycle(epochs=2, steps_per_epoch=5)(), 11), ValueError,
     r"step 11 times.*total steps is 10 = epochs \(2\) x steps_per_epoch \(5\)"),
    (lambda: ls.SWALR(ours(), 0.1, anneal_strategy="x"), ValueError, "anneal_strategy must be one of"),
    (lambda: ls.SWALR(ours(), 0.1, anneal_epochs=-1), ValueError, "anneal_epochs"),
    (lambda: ls.SWALR(ours(), [0.1]), ValueError, "swa_lr must have the same length"),
    (sequence([], []), ValueError, "SequentialLR expects at least one scheduler"),
    (sequence([steplr, steplr], [1, 2]), ValueError, "number of schedulers 2 and the number of milestones.* 2"),
    (sequence([steplr, steplr, steplr], [5, 2]), ValueError, "rising order"),
    (sequence([steplr, ls.ReduceLROnPlateau], [5]), ValueError, "does not support `ReduceLROnPlateau`.* index 1"),
    (sequence([steplr, lambda o: ls.StepLR(ours(), 3)], [5]), ValueError, "belong to the same optimizer.* index 1"),
    (sequence([steplr, lambda o: 5], [5]), TypeError, "index 1 should have `optimizer`"),
    (sequence([steplr, lambda o: ls.HyperScheduler(o, "momentum", schedule.cosine(9))], [5]), ValueError,
     "takes schedulers of the learning rate, got HyperScheduler at index 1"),
    (lambda: ls.ChainedScheduler([]), ValueError, "ChainedScheduler expects at least one scheduler"),
    (lambda: ls.ChainedScheduler([s := steplr(ours()), s]), ValueError, "same StepLR twice, at index 1"),
    (lambda: ls.ReduceLROnPlateau(ours(), factor=1.0), ValueError, "Factor should be < 1.0"),
    (lambda: ls.ReduceLROnPlateau(ours(), mode="least"), ValueError, "mode least is unknown"),
    (lambda: ls.ReduceLROnPlateau(ours(), threshold_mode="x"), ValueError, "threshold mode x is unknown"),
    (lambda: ls.ReduceLROnPlateau(ours(), min_lr=[0.1]), ValueError, "expected 2 min_lrs, got 1"),
    (lambda: ls.ReduceLROnPlateau(ours()).table(2), TypeError, "follows a metric"),
    (lambda: ls.StepLR(ours(), 3, last_epoch=5), KeyError,
     r"param 'initial_lr' is not specified in param_groups\[0\] when resuming scheduler with last_epoch >= 0"),
    (lambda: ls.HyperScheduler(ours(), "wd", len), ValueError, "group 0 has no option 'wd'; it has"),
    (lambda: ls.HyperScheduler(ours(), "maximize", None), TypeError, "fn should be a function"),
    (lambda: ls.HyperScheduler(ours("AdamW"), "betas", len), TypeError, r"betas of group 0 must be a number, got \("),
    (lambda: ls.WSD(ours(), 1, 2, 3, decay="cubic"), ValueError, "shape must be one of 1-sqrt"),
    (lambda: ls.WarmupLR(ours(), 5, mode="exp"), ValueError, r"start must lie in \(0, inf\)"),
])
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_group_added_later_is_named():
    optimizer = ours()
    scheduler, plateau = ls.StepLR(optimizer, 3), ls.ReduceLROnPlateau(optimizer, patience=0)
    listed = ls.ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.0, 0.0])
    optimizer.add_param_group({"params": [tg.zeros(1, requires_grad=True)]})
    with pytest.raises(ValueError, match="made for 2 groups, the optimizer has 3 now"):
        scheduler.step()
    for metric in (1.0, 1.0):
        plateau.step(metric)
    assert plateau.get_last_lr() == pytest.approx([0.01, 0.003, 1e-4])
    listed.step(1.0)
    with pytest.raises(RuntimeError, match=r"\(3\) differs from when .* \(2\)"):
        listed.step(1.0)


# ---- warnings ---------------------------------------------------------------------------------------------


def test_a_step_before_the_optimizers_is_told_in_numbers():
    scheduler = ls.ExponentialLR(ours(started=False), 0.5)
    with pytest.warns(UserWarning, match="first value 0.1, 0.03 was never used;.* lr = 0.05, 0.015 of step 1"):
        scheduler.step()
    scheduler.step()                                    # once
    for name in ("sequential", "chained"):
        container = CONTAINERS[name](ours(started=False))
        with pytest.warns(UserWarning, match="never used") as caught:
            container.step()
        assert len(caught) == 1


def test_it_is_never_told_falsely():
    """A warning is an error in these tests."""
    optimizer = ours(started=False)
    scheduler = ls.ExponentialLR(optimizer, 0.5)
    optimizer.skipped = 1                               # by a loss scaler
    scheduler.step()

    state = scheduler.state_dict()
    resumed = ls.ExponentialLR(ours(started=False), 0.5)
    resumed.load_state_dict(state)
    resumed.step()
    fresh = ls.ExponentialLR(ours(started=False), 0.5)
    fresh.load_state_dict(ls.ExponentialLR(ours(), 0.5).state_dict())
    fresh.step()

    optimizer = ours(started=False)
    for group in optimizer.param_groups:
        group["initial_lr"] = 0.1
    ls.ExponentialLR(optimizer, 0.5, last_epoch=3).step()
    ls.ReduceLROnPlateau(ours(started=False)).step(1.0)

    optimizer = ours(started=False)
    scheduler = ls.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    ls.ExponentialLR(ours(started=False), 0.5).table(5)


class ReadsOnce(tg.optim.SGD):
    read_once = frozenset({"lr"})


def test_a_scheduler_without_effect_says_so():
    optimizer = ReadsOnce([tg.zeros(2, requires_grad=True)], lr=0.1)
    for make in (steplr, ls.ReduceLROnPlateau):
        with pytest.warns(UserWarning, match="ReadsOnce reads lr only at its first step, where it will find 0.1"):
            make(optimizer)
    optimizer.step()
    with pytest.warns(UserWarning, match="StepLR can have no effect: ReadsOnce .* its first step, 1 steps ago"):
        steplr(optimizer)
    ls.HyperScheduler(ReadsOnce([tg.zeros(2, requires_grad=True)], momentum=0.5), "momentum", schedule.cosine(9))
    with pytest.warns(UserWarning, match="weight_decay is 0 in every group, and 0 times a factor stays 0"):
        ls.HyperScheduler(ours(), "weight_decay", schedule.cosine(9))
    ls.StepLR(ours(lrs=[0.0]), 3)                       # a learning rate of 0 is legal
    ls.HyperScheduler(ours(lrs=[0.0]), "lr", schedule.cosine(9))


def test_metrics_that_mislead_are_told_once():
    scheduler = ls.ReduceLROnPlateau(ours(), patience=2)
    with pytest.warns(UserWarning, match=r"metric is NaN in epoch 1; it counts as no improvement \(1 now, 2"):
        scheduler.step(math.nan)
    scheduler.step(math.nan)
    scheduler.step(-1.0)
    with pytest.warns(UserWarning, match="metric -1 counts as better than the best, -1, .* threshold_mode='abs'"):
        scheduler.step(-1.0)
    scheduler.step(-1.0)
    falling = ls.ReduceLROnPlateau(ours())
    for t in range(50):
        falling.step(-1.0 - t)
    other = ls.ReduceLROnPlateau(ours(), mode="max", threshold_mode="abs", patience=3)
    for _ in range(5):
        other.step(-1.0)
    assert rates(other.optimizer) == pytest.approx([0.01, 0.003])


# ---- the seeds --------------------------------------------------------------------------------------------


def test_what_the_seeds_write():
    model = tg.nn.Linear(2, 1)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    schedulers = [ls.StepLR(optimizer=optimizer, step_size=30, gamma=0.1),
                  ls.ReduceLROnPlateau(optimizer=optimizer, mode="min", factor=0.1, patience=10, threshold=1e-4,
                                       min_lr=0),
                  ls.CosineAnnealingLR(optimizer=optimizer, T_max=100, eta_min=0)]
    x, y = tg.ones(4, 2), tg.zeros(4, 1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = tg.nn.MSELoss()(model(x), y)
        loss.backward()
        optimizer.step()
        for scheduler in schedulers:
            if isinstance(scheduler, ls.ReduceLROnPlateau):
                scheduler.step(loss)
            else:
                scheduler.step()
            assert scheduler.get_last_lr()[0] == optimizer.param_groups[0]["lr"] == optimizer.lr
    assert optimizer.lr == pytest.approx(0.05 * (1 + math.cos(math.pi * 3 / 100)))


def test_warm_up_from_zero_moves_nothing_at_first():
    w = tg.ones(2, requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.5)
    scheduler = ls.LambdaLR(optimizer, lr_lambda=lambda step: min(1.0, step / 2))
    seen = []
    for _ in range(3):
        w.grad = tg.ones(2)
        optimizer.step()
        scheduler.step()
        seen.append(w.tolist()[0])
    assert seen == [1.0, 0.75, 0.25]
