"""The doctor finds each trap where it is, and nothing where training is as it should be."""

import numpy as np
import pytest
from _optimizers import NAMES, make, parameters, run, step

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim import lr_scheduler as ls
from tinygrad_opt.optim.doctor import Finding, Report, Watch, doctor
from tinygrad_opt.optim.freeze import Freeze
from tinygrad_opt.optim.lookahead import Lookahead
from tinygrad_opt.optim.multi import MultiOptimizer


def mlp():
    tg.manual_seed(0)
    return tg.nn.Sequential(tg.nn.Linear(4, 8), tg.nn.Tanh(), tg.nn.Linear(8, 2))


def loss_of(model, seed=0):
    x = tg.Tensor(np.random.default_rng(seed).standard_normal((16, 4)).astype("float32"))
    return ((model(x) - 1) ** 2).mean()


def train(optimizer, model, steps=3, then=lambda: None):
    for seed in range(steps):
        optimizer.zero_grad()
        loss_of(model, seed).backward()
        optimizer.step()
        then()


def only(report, what):
    """Return the one finding of a report, which must be this one."""
    assert [finding.what for finding in report] == [what], report
    assert all((report[0].where, report[0].why, report[0].way_out))
    return report[0]


def weight(*values, dtype="float64"):
    return tg.tensor(list(values), requires_grad=True, dtype=dtype)


# ---- nothing where nothing is ---------------------------------------------------------------------------------


CLEAN = {
    "AdamW": lambda model: optim.AdamW(optim.decay_groups(model, 0.01), grad_transforms=[optim.ClipNorm(1.0)]),
    "SGD": lambda model: optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda model: optim.Adam(model.named_parameters(), amsgrad=True),
    "Rprop": lambda model: optim.Rprop(model.parameters()),
    "SOAP": lambda model: optim.SOAP(optim.decay_groups(model, 0.01)),
    "Lookahead": lambda model: Lookahead(optim.SGD(model.parameters())),
    "Freeze": lambda model: Freeze(optim.Adam(model.named_parameters()), lambda name, p: name.startswith("0.")),
    "MultiOptimizer": lambda model: MultiOptimizer(model, [
        (lambda name, p: p.ndim == 2, lambda named: optim.AdamW(named, weight_decay=0.1)), optim.SGD]),
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_ordinary_training(name):
    model = mlp()
    optimizer = CLEAN[name](model)
    assert doctor(optimizer, model) == []
    with Watch(optimizer, model) as watch:
        train(optimizer, model)
    assert watch.report() == [], watch.report()
    optimizer.zero_grad()
    assert doctor(optimizer, model) == [] and str(doctor(optimizer)) == repr(doctor(optimizer)) == "nothing found"


@pytest.mark.parametrize("schedule", [
    lambda o: ls.StepLR(o, 2), lambda o: ls.LinearLR(o, start_factor=0.1), lambda o: ls.OneCycleLR(o, 0.1, 10),
    lambda o: ls.SequentialLR(o, [ls.ConstantLR(o), ls.ExponentialLR(o, 0.9)], [2]),
    lambda o: ls.LambdaLR(o, lambda t: t / 10), lambda o: ls.HyperScheduler(o, "eps", lambda t: 1 + t)])
def test_nothing_is_found_with_schedulers(schedule):
    model = mlp()
    optimizer = optim.Adam(model.parameters())
    scheduler = schedule(optimizer)
    assert doctor(optimizer, model, scheduler) == doctor(optimizer, model) == []
    train(optimizer, model, 4, then=scheduler.step)
    assert doctor(optimizer, model, [scheduler]) == doctor(optimizer, model) == []


def test_nothing_is_found_where_lr_is_a_schedule_that_begins_at_0():
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=lambda t: 0.01 * t)
    assert doctor(optimizer, model) == []
    train(optimizer, model)
    assert doctor(optimizer, model) == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_found_in_any_optimizer_with_its_defaults(name):
    params = [p for p in parameters(name=name) if p.ndim > 1 and p.numel()]
    optimizer = make(name, {}, params)
    run(optimizer, params, 3)
    assert doctor(optimizer) == []


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_that_are_cleared_or_accumulated_on_purpose_are_not_forgotten(set_to_none, parts):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    with Watch(optimizer, model) as watch:
        for _ in range(5):
            optimizer.zero_grad(set_to_none)
            for seed in range(parts):
                loss_of(model, seed).backward()
            tg.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    assert watch.report() == []


def test_gradients_that_are_assigned_are_neither_forgotten_nor_stale():
    optimizer = optim.SGD([p := weight(1.0, 2.0)])
    with Watch(optimizer) as watch:
        for _ in range(3):
            p.grad = tg.grad((3 * p).sum(), [p])[0]
            optimizer.step()
        for _ in range(3):
            p.grad = tg.tensor([1.0, 1.0], dtype="float64")
            optimizer.step()
    assert watch.report() == []


# ---- options ----------------------------------------------------------------------------------------------------


def test_options_that_nobody_reads():
    optimizer = optim.Adam([weight(1.0)])
    optimizer.param_groups[0]["learning_rate"] = 5
    assert only(doctor(optimizer), "a group has options that nobody reads").where == "group 0: learning_rate"


def test_options_out_of_range():
    optimizer = optim.Adam([weight(1.0)])
    optimizer.param_groups[0]["weight_decay"] = -1.0
    finding = only(doctor(optimizer), "an option is out of its range")
    assert "weight_decay must lie in [0, inf), got -1.0" in finding.where


def test_a_learning_rate_of_0():
    optimizer = optim.SGD([{"params": [weight(1.0)]}, {"params": [weight(1.0)], "lr": 0.0}])
    assert only(doctor(optimizer), "the learning rate is 0").where == "group 1"


def test_betas_in_the_other_order():
    finding = only(doctor(optim.Adam([weight(1.0)], betas=(0.999, 0.9))), "betas fall where they usually rise")
    assert finding.way_out == "Set group['betas'] = (0.9, 0.999)."


@pytest.mark.parametrize("dtype, eps", [("float32", 1e-40), ("float64", 1e-310), ("float16", 1e-40), ("float32", 0)])
def test_eps_that_vanishes(dtype, eps):
    assert only(doctor(optim.Adam([weight(1.0, dtype=dtype)], eps=eps)), "eps is too small to do anything")
    assert doctor(optim.Adam([weight(1.0, dtype=dtype)])) == []            # in float16 too, which is updated in float32


def takes_eps_0(name):                                     # DoG refuses to divide, by an error
    try:
        return name != "DoG" and bool(make(name, {"eps": 0.0}, [tg.ones(3, 2, requires_grad=True)]))
    except (TypeError, ValueError):
        return False


@pytest.mark.filterwarnings("ignore:.*has become NaN")
@pytest.mark.parametrize("name", [*filter(takes_eps_0, NAMES)])
def test_where_eps_0_is_said_to_make_nan_it_does(name):
    optimizer = make(name, {"eps": 0.0}, [p := tg.ones(3, 2, requires_grad=True)])
    found = doctor(optimizer)
    for _ in range(8):                                      # RAdam divides from the sixth step on
        p.grad = tg.zeros(3, 2)
        step(optimizer)
    assert [finding.what for finding in found] == ["eps is too small to do anything"] * bool(np.isnan(p.numpy()).all())


def test_weight_decay_on_biases():
    model = mlp()
    finding = only(doctor(optim.AdamW(model.parameters()), model), "biases and norms decay")
    assert finding.where == "group 0, weight_decay = 0.01: 0.bias, 2.bias"
    assert finding.way_out == "tg.optim.decay_groups(model, 0.01) as params."


def test_maximize():
    assert only(doctor(optim.SGD([weight(1.0)], maximize=True)), "steps go uphill").where == "group 0: maximize = True"


# ---- parameters, gradients, state ---------------------------------------------------------------------------------


def test_parameters_that_the_optimizer_lacks():
    model = mlp()
    optimizer = optim.SGD(model[0].parameters())
    finding = only(doctor(optimizer, model), "parameters of the model are not in the optimizer")
    assert finding.where == "2.weight, 2.bias"
    for p in model[2].parameters():
        p.requires_grad_(False)
    assert doctor(optimizer, model) == doctor(optimizer) == []


def test_parameters_that_the_model_lacks():
    finding = only(doctor(optim.SGD([*(model := mlp()).parameters(), weight(1.0)]), model),
                   "parameters of the optimizer are not in the model")
    assert finding.where == "4 of group 0"


@pytest.mark.parametrize("cleared", [True, False])
def test_parameters_without_gradient(cleared):
    model = mlp()
    model.spare = tg.nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters())
    for seed in range(3):
        loss_of(model[:3], seed).backward()
        optimizer.step()
        optimizer.zero_grad() if cleared else None
    finding = only(doctor(optimizer, model), "parameters get no gradient")
    assert finding.where == "group 0, spare.weight (0 of 3 steps), spare.bias (0 of 3 steps)"


def test_a_gradient_that_has_stopped_coming():
    a, b = weight(1.0), weight(1.0)
    optimizer = optim.Adam([("a", a), ("b", b)])
    for k in range(3):
        optimizer.zero_grad()
        (a * b.detach() if k else a * b).sum().backward()
        optimizer.step()
    assert only(doctor(optimizer), "parameters get no gradient").where == "group 0, b (1 of 3 steps)"


def test_a_group_that_came_later_gets_its_gradients():
    a, b = weight(1.0), weight(1.0)
    optimizer = optim.Adam([a])
    a.grad = tg.ones(1, dtype="float64")
    optimizer.step()
    optimizer.add_param_group({"params": [b]})
    a.grad = b.grad = tg.ones(1, dtype="float64")
    optimizer.step()
    optimizer.zero_grad()
    assert doctor(optimizer) == []


def test_frozen_parameters_with_an_old_gradient():
    model = mlp()
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    train(optimizer, model, 1)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.tolist()
    assert only(doctor(optimizer, model), "frozen parameters still move").where == "0.weight"
    optimizer.step()
    assert model[0].weight.tolist() != before               # it is true
    optimizer.zero_grad()
    assert doctor(optimizer, model) == []


def test_what_is_not_finite():
    a, b, c = (weight(1.0, 2.0) for _ in "abc")
    optimizer = optim.Adam([("a", a), ("b", b), ("c", c)])
    for p in (a, b, c):
        p.grad = tg.ones(2, dtype="float64")
    optimizer.step()
    b.data[0] = float("nan")
    assert only(doctor(optimizer), "a parameter is not finite").where == "b: 1 numbers; the first that is"
    b.data[0] = 1.0
    optimizer.state[c]["exp_avg_sq"].data[...] = float("inf")
    assert only(doctor(optimizer), "the state is not finite").where.startswith("c, exp_avg_sq: 2 numbers")
    optimizer.state[c]["exp_avg_sq"].data[...] = 1.0
    a.grad.data[...] = c.grad.data[...] = float("nan")
    assert only(doctor(optimizer), "a gradient is not finite").where.startswith("a: 2 numbers")


def test_state_of_another_shape():
    optimizer = optim.Adam([("a", p := weight(1.0, 2.0))])
    p.grad = tg.ones(2, dtype="float64")
    optimizer.step()
    optimizer.state[p]["exp_avg"] = tg.zeros(3, dtype="float64")
    finding = only(doctor(optimizer), "the state does not fit its parameter")
    assert finding.where == "a: exp_avg has shape (3,), not (2,)"


def test_state_that_no_step_reads():
    model = mlp()
    optimizer = optim.Adam(model.parameters(), amsgrad=True)
    train(optimizer, model)
    optimizer.param_groups[0]["amsgrad"] = False
    numbers = sum(p.numel() for p in model.parameters())
    assert only(doctor(optimizer), "state that no step reads").where == f"max_exp_avg_sq: {4 * numbers} bytes"
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.zero_grad()
    model[0].weight.requires_grad_(False)
    assert only(doctor(optimizer), "state that no step reads").where == f"frozen parameters: {3 * 4 * 32} bytes"
    model[0].weight.requires_grad_(True)
    gone = optimizer.param_groups[0]["params"].pop()
    assert only(doctor(optimizer), "state that no step reads").where == "tensors that are in no group: 24 bytes"
    assert gone.shape == (2,)


def test_parameters_that_share_memory():
    a = weight(1.0, 2.0)
    b = a.detach().requires_grad_()
    assert only(doctor(optim.SGD([("a", a), ("b", b)])), "two parameters share memory").where == "a, b"


# ---- schedulers -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*can have no effect")
def test_a_scheduler_on_rprop():
    optimizer = optim.Rprop([weight(1.0)])
    assert only(doctor(optimizer, schedulers=ls.StepLR(optimizer, 1)), "a schedule without effect").where == "StepLR"
    assert only(doctor(optim.Rprop([weight(1.0)], lr=lambda t: 0.1)), "a schedule without effect")


def test_a_scheduler_on_asgd():
    optimizer = optim.ASGD([weight(1.0)])
    assert only(doctor(optimizer, schedulers=[ls.StepLR(optimizer, 1)]), "a schedule that comes one step late")


def test_a_scheduler_of_another_optimizer():
    scheduler = ls.StepLR(optim.SGD([weight(1.0)]), 1)
    finding = only(doctor(optim.SGD([weight(1.0)]), schedulers=scheduler), "a scheduler writes into another optimizer")
    assert finding.where == "StepLR"


def test_a_scheduler_of_what_is_wrapped():
    inner = optim.SGD([weight(1.0)])
    outer = Lookahead(inner)
    assert doctor(outer, schedulers=[ls.StepLR(inner, 1), ls.StepLR(outer, 1)]) == []


@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau")
def test_metrics_of_a_plateau():
    optimizer = optim.SGD([weight(1.0)])
    scheduler = ls.ReduceLROnPlateau(optimizer)
    scheduler.step(1.0)
    assert doctor(optimizer, schedulers=scheduler) == []
    scheduler.step(float("nan"))
    assert only(doctor(optimizer, schedulers=scheduler), "a metric was NaN")
    scheduler = ls.ReduceLROnPlateau(optimizer)
    scheduler.step(-1.0)
    finding = only(doctor(optimizer, schedulers=scheduler), "a negative metric under a relative threshold")
    assert finding.where == "ReduceLROnPlateau: best = -1"
    scheduler = ls.ReduceLROnPlateau(optimizer, threshold_mode="abs")
    scheduler.step(-1.0)
    assert doctor(optimizer, schedulers=scheduler) == []


# ---- from step to step ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("closure", [False, True])
def test_a_forgotten_zero_grad(clip, closure):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)

    def once(seed):
        loss = loss_of(model, seed)
        loss.backward()
        if clip:
            tg.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        return loss

    with Watch(optimizer, model) as watch:
        for seed in range(4):
            if closure:
                optimizer.step(lambda seed=seed: once(seed))
            else:
                once(seed)
                optimizer.step()
    assert only(watch.report(), "gradients add up from step to step").where == "3 of 4 steps"


def test_a_gradient_that_doubles():
    optimizer = optim.SGD([p := weight(1.0, 2.0)])
    with Watch(optimizer) as watch:
        for _ in range(3):
            (3 * p).sum().backward()
            optimizer.step()
    assert only(watch.report(), "gradients add up from step to step").where == "2 of 3 steps"


def test_a_step_without_backward():
    model = mlp()
    optimizer = optim.SGD(model.parameters())
    loss_of(model).backward()
    with Watch(optimizer, model) as watch:
        for _ in range(3):
            optimizer.step()
    assert only(watch.report(), "steps without a backward before them").where == "2 of 3 steps"


def test_a_step_without_gradients():
    model = mlp()
    optimizer = optim.SGD(model.parameters())
    with Watch(optimizer) as watch:
        for _ in range(2):
            loss_of(model).backward()
            optimizer.zero_grad()
            optimizer.step()
    report = watch.report()
    assert {finding.what for finding in report} == {"steps without any gradient", "parameters get no gradient"}


@pytest.mark.parametrize("max_norm, word", [(1e-6, "always"), (1e6, "never")])
def test_a_threshold_that_always_or_never_clips(max_norm, word):
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=1e-3, grad_transforms=[optim.Centralize(), optim.ClipNorm(max_norm)])
    before = list(optimizer.grad_transforms)
    with Watch(optimizer) as watch:
        train(optimizer, model, 19)
    assert watch.report() == [] and optimizer.grad_transforms == before
    with Watch(optimizer) as watch:
        train(optimizer, model, 20)
    assert f"ClipNorm(max_norm={max_norm}" in only(watch.report(), f"gradients are {word} clipped").where


def test_watching_changes_nothing_and_leaves_nothing():
    models, optimizers = [mlp(), mlp()], []
    for k, model in enumerate(models):
        optimizers.append(optim.Adam(model.parameters(), grad_transforms=[optim.ClipNorm(0.1)]))
        with Watch(optimizers[k]) if k else tg.no_grad() as _, tg.enable_grad():
            train(optimizers[k], model)
    for p, q in zip(models[0].parameters(), models[1].parameters()):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert optimizers[1].grad_transforms == [optim.ClipNorm(0.1)] and not any(optimizers[1]._hooks.values())
    assert not any(p._hooks for p in models[1].parameters())


# ---- the text -------------------------------------------------------------------------------------------------------


def test_a_report_is_aligned_text():
    report = Report([Finding("what", "where " * 30, "why", "way out"), Finding("a", "b", "c", "d")])
    lines = str(report).splitlines()
    assert lines[0] == "what" and lines[1].startswith("  where    where") and lines[2].startswith(" " * 11 + "where")
    assert lines[-4:] == ["a", "  where    b", "  why      c", "  way out  d"] and max(map(len, lines)) <= 100
