"""torch's schedulers are the oracle: values over 1,000 steps, signatures, resuming with last_epoch."""

import inspect
import itertools
import math
import warnings
from types import SimpleNamespace

import pytest
from _schedulers import CONTAINERS, LRS, TORCH, momenta, ours, rates

import tinygrad_opt as tg
from tinygrad_opt.optim import lr_scheduler as ls

torch = pytest.importorskip("torch")


def torchs(name="SGD"):
    groups = [{"params": [torch.zeros(2, requires_grad=True)], "lr": lr} for lr in LRS]
    optimizer = getattr(torch.optim, name)(groups, **{"momentum": 0.9} if name == "SGD" else {})
    optimizer.step()
    return optimizer


TorchSchedulers = SimpleNamespace(**vars(torch.optim.lr_scheduler), SWALR=torch.optim.swa_utils.SWALR)


def assert_same_as_torch(mine, theirs, optimizer, reference, n=1000):
    for t in range(n + 1):
        assert rates(optimizer) == pytest.approx(rates(reference), abs=1e-12, rel=1e-12), t
        assert momenta(optimizer) == pytest.approx(momenta(reference), abs=1e-12), t
        assert mine.get_last_lr() == pytest.approx(theirs.get_last_lr(), abs=1e-12, rel=1e-12)
        if t < n:
            reference.step()
            mine.step(), theirs.step()


@pytest.mark.parametrize("name, options", TORCH, ids=[f"{name} {k}" for k, (name, _) in enumerate(TORCH)])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_values_of_torch(name, options, optimizer):
    a, b = ours(optimizer), torchs(optimizer)
    assert_same_as_torch(getattr(ls, name)(a, **options), getattr(TorchSchedulers, name)(b, **options), a, b)


@pytest.mark.parametrize("name", CONTAINERS)
def test_values_of_torch_in_containers(name):
    a, b = ours(), torchs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                 # torch's own, of its children
        theirs = CONTAINERS[name](b, TorchSchedulers)
        assert_same_as_torch(CONTAINERS[name](a), theirs, a, b)


def test_values_of_torch_two_schedulers_in_turn():
    a, b = ours(), torchs()
    pairs = [(x(a, ls), x(b, TorchSchedulers)) for x in (
        lambda o, m: m.ExponentialLR(o, 0.999), lambda o, m: m.MultiStepLR(o, [100, 200], 0.5),
        lambda o, m: m.CosineAnnealingLR(o, T_max=2000, eta_min=1e-4))]
    b.step()
    for t in range(1000):
        for mine, theirs in pairs[t % 2:]:              # every other step leaves one out
            mine.step(), theirs.step()
        assert rates(a) == pytest.approx(rates(b), abs=1e-12, rel=1e-12)


# Beyond the bottom of a wave, and after the end of an annealing, torch forgets the change.
CHANGED = [(name, options) for name, options in TORCH if getattr(ls, name).chainable
           and options.get("T_max") != 1 and options.get("anneal_epochs") != 0]


@pytest.mark.parametrize("name, options", CHANGED, ids=[f"{name} {k}" for k, (name, _) in enumerate(CHANGED)])
def test_values_of_torch_after_a_change_from_outside(name, options):
    a, b = ours(), torchs()
    mine, theirs = getattr(ls, name)(a, **options), getattr(TorchSchedulers, name)(b, **options)
    b.step()
    for t in range(4):
        for optimizer in (a, b):
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
        mine.step(), theirs.step()
        assert rates(a) == pytest.approx(rates(b), abs=1e-12, rel=1e-12), t


@pytest.mark.parametrize("options", [
    {}, dict(patience=2, cooldown=3, min_lr=[1e-3, 1e-4]), dict(mode="max", patience=1, factor=0.5, threshold=0.1),
    dict(threshold_mode="abs", threshold=0.05, patience=0),
    dict(mode="max", threshold_mode="abs", patience=3, eps=1e-3)])
def test_values_of_torch_on_a_plateau(options):
    a, b = ours(), torchs()
    mine = ls.ReduceLROnPlateau(optimizer=a, **options)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(b, **options)
    for t in range(1000):
        metric = 1 / (1 + t // 50) + 0.3 * math.sin(t) ** 2
        mine.step(tg.tensor(metric, dtype="float64") if t % 2 else metric), theirs.step(metric)
        assert mine.get_last_lr() == rates(a) == pytest.approx(rates(b), abs=1e-15)
        for name in ("best", "num_bad_epochs", "cooldown_counter", "in_cooldown", "last_epoch"):
            assert getattr(mine, name) == getattr(theirs, name)


def test_signatures_of_torch():
    for name in {name for name, _ in TORCH} | {"SequentialLR", "ChainedScheduler", "ReduceLROnPlateau", "LRScheduler"}:
        theirs = inspect.signature(getattr(TorchSchedulers, name)).parameters
        mine = inspect.signature(getattr(ls, name)).parameters
        assert [(p.name, p.default) for p in mine.values()] == [(p.name, p.default) for p in theirs.values()], name


@pytest.mark.parametrize("name, options", [
    ("LambdaLR", dict(lr_lambda=lambda t: 0.9 ** t)), ("ExponentialLR", dict(gamma=0.9)),
    ("CosineAnnealingLR", dict(T_max=90, eta_min=1e-3)), ("LinearLR", dict(total_iters=30)),
    ("PolynomialLR", dict(total_iters=30, power=2)), ("MultiplicativeLR", dict(lr_lambda=lambda t: 0.97)),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.1, step_size_up=5)), ("OneCycleLR", dict(max_lr=0.1, total_steps=99))])
@pytest.mark.parametrize("moved", [False, True])
def test_values_of_torch_with_last_epoch(name, options, moved):
    a, b = ours(), torchs()
    for optimizer in (a, b):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
            group["lr"] *= 0.5 if moved else 1.0
            group["initial_lr"] = {"OneCycleLR": 0.1 / 25.0, "CyclicLR": 0.01}.get(name, group["initial_lr"])
    for group in b.param_groups:
        group.update(max_lr=0.1, min_lr=0.1 / 25 / 1e4, max_momentum=0.95, base_momentum=0.85)
    mine = getattr(ls, name)(a, **options, last_epoch=11)
    theirs = getattr(torch.optim.lr_scheduler, name)(b, **options, last_epoch=11)
    assert mine.last_epoch == theirs.last_epoch == 12
    assert_same_as_torch(mine, theirs, a, b, n=60)


def test_values_of_torch_at_fractions_of_an_epoch():
    a, b = ours(), torchs()
    mine = ls.CosineAnnealingWarmRestarts(a, T_0=3, T_mult=2)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(b, T_0=3, T_mult=2)
    for k in range(100):
        mine.step(k / 7), theirs.step(k / 7)
        assert rates(a) == pytest.approx(rates(b), abs=1e-12)


PAIRS = [("StepLR", dict(step_size=70, gamma=0.7)), ("MultiStepLR", dict(milestones=[30, 200, 500], gamma=0.5)),
         ("ConstantLR", dict(factor=0.5, total_iters=40)), ("LinearLR", dict(start_factor=0.1, total_iters=60)),
         ("ExponentialLR", dict(gamma=0.999)), ("PolynomialLR", dict(total_iters=900, power=2.0)),
         ("CosineAnnealingLR", dict(T_max=150, eta_min=0.01)),
         ("CosineAnnealingWarmRestarts", dict(T_0=100, T_mult=2)), ("LambdaLR", dict(lr_lambda=lambda t: 0.99 ** t)),
         ("MultiplicativeLR", dict(lr_lambda=lambda t: 0.999))]


@pytest.mark.parametrize("kind", ["ChainedScheduler", "SequentialLR"])
@pytest.mark.parametrize("first, second", list(itertools.permutations(PAIRS, 2)), ids=lambda pair: pair[0])
def test_any_two_of_torch_together_for_1000_steps(first, second, kind):
    def rates(module, optimizer):
        parts = [getattr(module, name)(optimizer, **options) for name, options in (first, second)]
        whole = (module.ChainedScheduler(parts) if kind == "ChainedScheduler"
                 else module.SequentialLR(optimizer, parts, milestones=[120]))
        for _ in range(1000):
            yield optimizer.param_groups[0]["lr"]
            optimizer.step()
            whole.step()
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    mine = tg.optim.SGD([tg.zeros(1, requires_grad=True)], lr=0.5)
    assert list(rates(ls, mine)) == pytest.approx(list(rates(torch.optim.lr_scheduler, theirs)), abs=1e-12, rel=1e-12)
