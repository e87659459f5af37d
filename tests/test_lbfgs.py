"""L-BFGS against recorded runs, against PyTorch step by step, and where PyTorch's breaks."""

import copy
import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.optim.second_order.lbfgs import LBFGS
from tinygrad_opt.optim.second_order.line_search import Trial, strong_wolfe
from tinygrad_opt.optim.verify import records, replay

X, W = np.linspace(-1, 1.3, 6), np.array([[1.0, 2.0], [3.0, 0.5]])


def loss_of(x, w):
    chain = sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(5))
    return chain + ((w - 2) ** 4).sum() + (w.sum() * x[0]) ** 2


def parameters(dtype=tg.float64):
    return [tg.tensor(a, dtype=dtype, requires_grad=True) for a in (X, W)]


def closure_of(optimizer, params, loss=loss_of):
    def closure():
        optimizer.zero_grad()
        value = loss(*params)
        value.backward()
        return value
    return closure


def made(loss=loss_of, params=None, **options):
    """Return parameters, an optimizer of them, and its closure."""
    params = params or parameters()
    optimizer = LBFGS(params, **options)
    return params, optimizer, closure_of(optimizer, params, loss)


def values(params):
    return np.concatenate([p.numpy().ravel() for p in params])


# ---- oracles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", records("LBFGS"), ids=lambda record: record.id)
def test_recorded_runs(record):
    assert replay(LBFGS, "LBFGS", record).ok


@pytest.mark.parametrize("options, steps", [
    (dict(line_search_fn="strong_wolfe", max_iter=4, max_eval=100), 40),
    (dict(line_search_fn="strong_wolfe", max_iter=7, max_eval=100, history_size=2, lr=0.4), 8),
    (dict(line_search_fn="strong_wolfe", max_iter=1, max_eval=100), 15), (dict(lr=0.01, max_iter=3), 40),
    (dict(lr=0.1, max_iter=2, history_size=1), 20), (dict(lr=0.01, max_iter=8, max_eval=3), 20)])
def test_torch_step_by_step(options, steps):
    torch = pytest.importorskip("torch")
    params, optimizer, closure = made(**options)
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in (X, W)]
    reference = torch.optim.LBFGS(theirs, **options)
    again = closure_of(reference, theirs)
    for _ in range(steps):
        assert optimizer.step(closure).item() == pytest.approx(reference.step(again).item(), rel=1e-10)
        for p, q in zip(params, theirs):
            assert p.numpy() == pytest.approx(q.detach().numpy(), rel=1e-10, abs=1e-10)
        mine, its = optimizer.state[params[0]], reference.state[theirs[0]]
        assert (mine["func_evals"], mine["n_iter"]) == (its["func_evals"], its["n_iter"])
        if mine["t"]:                               # torch keeps the length of a step that it did not take
            assert float(mine["t"]) == pytest.approx(float(its["t"]), rel=1e-6)


def test_a_saved_state_of_torch_goes_on_here():
    torch = pytest.importorskip("torch")
    options = dict(line_search_fn="strong_wolfe", max_iter=5, max_eval=100)
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in (X, W)]
    reference = torch.optim.LBFGS(theirs, **options)
    reference.step(closure_of(reference, theirs))
    params, optimizer, closure = made(**options)
    for p, q in zip(params, theirs):
        p.data = q.detach().numpy().copy()
    optimizer.load_state_dict(reference.state_dict())
    for _ in range(2):
        optimizer.step(closure)
        reference.step(closure_of(reference, theirs))
    assert values(params) == pytest.approx(np.concatenate([q.detach().numpy().ravel() for q in theirs]), rel=1e-9)


def test_state_has_torchs_names():
    params, optimizer, closure = made(line_search_fn="strong_wolfe")
    optimizer.step(closure)
    assert set(optimizer.state) == {params[0]}
    assert set(optimizer.state[params[0]]) - {"prev_point"} == {
        "func_evals", "n_iter", "d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss", "al"}


# ---- the line search --------------------------------------------------------------------------------------


def on(function, slope):
    return lambda t: Trial(t, function(t), slope(t))


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
def test_line_search_meets_the_strong_wolfe_condition(first):
    line = on(lambda t: -t / (t ** 2 + 2), lambda t: (t ** 2 - 2) / (t ** 2 + 2) ** 2)     # Moré & Thuente's first
    start = line(0.0)
    found = strong_wolfe(line, start, first, c1=1e-3, c2=0.1)
    assert found.value <= start.value + 1e-3 * found.t * start.slope and abs(found.slope) <= 0.1 * abs(start.slope)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_line_search_takes_what_is_not_finite_as_too_far(bad):
    line = on(lambda t: (t - 1) ** 2 if t < 1.5 else bad, lambda t: 2 * (t - 1) if t < 1.5 else bad)
    found = strong_wolfe(line, line(0.0), 100.0)
    assert 0 < found.t < 1.5 and found.value < 1


@pytest.mark.parametrize("most", [1, 2, 5])
def test_line_search_keeps_its_limit(most):
    trials = []

    def uphill(t):
        trials.append(t)
        return Trial(t, 1 + t, -1.0)
    start = Trial(0.0, 1.0, -1.0)
    assert strong_wolfe(uphill, start, 1.0, most=most) is start
    assert len(trials) == most


# ---- what torch's users ask for ---------------------------------------------------------------------------


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_max_eval_holds_inside_the_line_search(most, line_search_fn):
    calls = []
    params, optimizer, closure = made(max_iter=50, max_eval=most, lr=1e-3 if line_search_fn is None else 5.0,
                                      line_search_fn=line_search_fn)
    optimizer.step(lambda: (calls.append(0), closure())[1])
    assert len(calls) == optimizer.report.functions == most
    assert optimizer.report.reason == "max_eval evaluations are made"


def test_back_at_the_best_point_where_the_loss_becomes_nan():
    w = tg.tensor([1.0], dtype=tg.float64, requires_grad=True)
    _, optimizer, closure = made(lambda w: (w - tg.log(w)).sum() * 10 - w.sum() * 9.999, [w], lr=50, max_iter=10)
    before = closure().item()
    with np.errstate(all="ignore"):
        optimizer.step(closure)
    assert math.isfinite(w.item()) and closure().item() <= before
    assert "not finite" in optimizer.report.reason and "n_iter" not in optimizer.state[w]


def test_nan_found_only_at_the_next_step():
    w = tg.tensor([0.3], dtype=tg.float64, requires_grad=True)
    _, optimizer, closure = made(lambda w: (w * 2 - tg.log(w)).sum() + w.sum(), [w], lr=5, max_iter=1)
    w.data = np.array([10.0])
    with np.errstate(all="ignore"):
        optimizer.step(closure)
        w.data = np.array([-3.0])                   # as after a step that was too long
        assert math.isnan(optimizer.step(closure).item())
    assert w.item() == 10.0 and optimizer.report.accepted is False
    assert "not finite" in optimizer.report.reason


def test_line_search_survives_a_pole():
    w = tg.tensor([0.01], dtype=tg.float64, requires_grad=True)
    _, optimizer, closure = made(lambda w: (w - tg.log(w)).sum(), [w], lr=100, max_iter=30,
                                 line_search_fn="strong_wolfe")
    with np.errstate(all="ignore"):
        optimizer.step(closure)
    assert w.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_maximize_is_the_mirror(line_search_fn):
    options = dict(max_iter=6, lr=0.01, line_search_fn=line_search_fn)
    down, optimizer, closure = made(**options)
    optimizer.step(closure)
    up, mirrored, other = made(lambda *params: -loss_of(*params), maximize=True, **options)
    assert mirrored.step(other).item() == -loss_of(*parameters()).item()
    assert np.array_equal(values(down), values(up))


def test_rates_of_groups_scale_their_part_of_the_step():
    x, w = parameters()
    optimizer = LBFGS([{"params": [x], "lr": 0.5}, {"params": [w], "lr": 0.1}], max_iter=1)
    optimizer.step(closure_of(optimizer, [x, w]))
    other, single, closure = made(lr=0.5, max_iter=1)
    single.step(closure)
    assert x.numpy() == pytest.approx(other[0].numpy(), rel=1e-12)
    assert (w.numpy() - W) == pytest.approx((other[1].numpy() - W) / 5, rel=1e-12)


def test_groups_of_one_rate_are_as_one_and_a_rate_of_zero_freezes():
    a, together, closure = made(line_search_fn="strong_wolfe")
    b = parameters()
    apart = LBFGS([{"params": [b[0]]}, {"params": [b[1]]}], line_search_fn="strong_wolfe")
    together.step(closure)
    apart.step(closure_of(apart, b))
    assert np.array_equal(values(a), values(b))
    c = parameters()
    frozen = LBFGS([{"params": [c[0]]}, {"params": [c[1]], "lr": 0}], line_search_fn="strong_wolfe", max_iter=60)
    frozen.step(closure_of(frozen, c))
    assert np.array_equal(c[1].numpy(), W)
    assert loss_of(*c).item() < 0.1 * loss_of(*parameters()).item()


def test_float32_and_unused_and_frozen_parameters():
    x, w = parameters(tg.float32)
    unused, fixed = tg.ones(3, requires_grad=True), tg.ones(2)
    optimizer = LBFGS([x, unused, fixed, w], max_iter=100, line_search_fn="strong_wolfe")
    optimizer.step(closure_of(optimizer, [x, w]))
    assert optimizer.report.accepted and loss_of(x, w).item() < 6 and x.dtype == "float32"
    assert unused.tolist() == [1] * 3 and fixed.tolist() == [1] * 2


# ---- saving -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [dict(line_search_fn="strong_wolfe", max_iter=3), dict(lr=0.01, max_iter=2)])
def test_saved_and_copied_it_goes_on_bit_for_bit(options, tmp_path):
    params, optimizer, closure = made(**options)
    for _ in range(4):
        optimizer.step(closure)
    tg.save({"params": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, tmp_path / "file")
    saved = tg.load(tmp_path / "file")
    others, resumed, again = made(params=[p.clone().requires_grad_() for p in saved["params"]], **options)
    resumed.load_state_dict(saved["optimizer"])
    twins, twin = copy.deepcopy((params, optimizer))
    for _ in range(4):
        optimizer.step(closure)
        resumed.step(again)
        twin.step(closure_of(twin, twins))
    assert np.array_equal(values(params), values(others)) and np.array_equal(values(params), values(twins))
    assert resumed.step_count == 8


def test_a_state_that_does_not_fit_is_refused_whole():
    params, optimizer, closure = made(line_search_fn="strong_wolfe")
    optimizer.step(closure)
    saved = optimizer.state_dict()
    small = LBFGS([tg.ones(3, requires_grad=True, dtype=tg.float64), tg.ones(1, requires_grad=True)], lr=0.5)
    with pytest.raises(ValueError, match=r"LBFGS: the saved \w+.* has shape \(10,\), not \(4,\)"):
        small.load_state_dict(saved)
    assert small.lr == 0.5 and not small.state
    with pytest.warns(UserWarning, match="the memory was left out"):
        small.load_state_dict(saved, strict=False)
    adam = tg.optim.Adam(params)
    adam.zero_grad()
    loss_of(*params).backward()
    adam.step()
    with pytest.raises(ValueError, match="not that of LBFGS"):
        optimizer.load_state_dict(adam.state_dict())
    broken = {**saved, "state": {0: {key: value for key, value in saved["state"][0].items() if key != "d"}}}
    with pytest.raises(ValueError, match="d is missing"):
        optimizer.load_state_dict(broken)


def test_names_in_another_order_are_refused():
    x, w = parameters()
    optimizer = LBFGS({"x": x, "w": w}, line_search_fn="strong_wolfe")
    optimizer.step(closure_of(optimizer, [x, w]))
    with pytest.raises(ValueError, match="x, w, in this order; here w, x"):
        LBFGS({"w": w, "x": x}).load_state_dict(optimizer.state_dict())


# ---- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
@pytest.mark.parametrize("options, reason", [
    (dict(max_iter=0), "max_iter is 0"), (dict(lr=0), "lr is 0"),
    (dict(tolerance_grad=1e9), "the gradient is within tolerance_grad")])
def test_nothing_moves_and_the_report_says_why(options, reason, line_search_fn):
    params, optimizer, closure = made(line_search_fn=line_search_fn, **options)
    assert optimizer.step(closure).item() == loss_of(*params).item()
    assert np.array_equal(values(params), values(parameters()))
    assert (optimizer.report.reason, optimizer.report.accepted, optimizer.report.functions) == (reason, False, 1)


@pytest.mark.parametrize("options", [dict(tolerance_change=1e9), dict(lr=0)])
def test_a_step_not_taken_is_not_remembered(options):
    params, optimizer, closure = made(**options)
    for _ in range(3):
        optimizer.step(closure)
    memory = optimizer.state[params[0]]
    assert memory["t"] == 0 and memory["ro"] == [] and memory["n_iter"] == 3
    assert np.array_equal(values(params), values(parameters()))


@pytest.mark.parametrize("saved", [None, {}, {"state": {0: {}}}, {"state": {0: {}}, "param_groups": [1]}])
def test_what_is_no_saved_state(saved):
    with pytest.raises(ValueError, match="a saved state is a dict with 'state'"):
        LBFGS(parameters()).load_state_dict(saved)


@pytest.mark.parametrize("options, message", [
    (dict(max_iter=-1), "max_iter"), (dict(max_iter=1.5), "whole"), (dict(max_eval=0), "max_eval"),
    (dict(history_size=0), "history_size"), (dict(lr=-1), "lr"), (dict(tolerance_grad=math.nan), "tolerance_grad"),
    (dict(line_search_fn="armijo"), "'strong_wolfe', got 'armijo'")])
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LBFGS(parameters(), **options)


def test_groups_that_differ_in_more_than_lr():
    x, w = parameters()
    optimizer = LBFGS([{"params": [x]}, {"params": [w], "max_iter": 3}])
    with pytest.raises(ValueError, match="max_iter is 20 in the first group and 3 in another"):
        optimizer.step(closure_of(optimizer, [x, w]))


def test_closures_that_are_none():
    params, optimizer, _ = made()
    with pytest.raises(TypeError, match=r"step\(closure\)"):
        optimizer.step()
    with pytest.raises(TypeError, match="a Tensor of one number; it returned float"):
        optimizer.step(lambda: 1.0)
    with pytest.raises(TypeError, match=r"it returned shape \(6,\)"):
        optimizer.step(lambda: params[0] * 2)
    with pytest.raises(RuntimeError, match="calls its backward"):
        optimizer.step(lambda: loss_of(*params))
    assert np.array_equal(values(params), values(parameters()))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_at_the_start(bad):
    params, optimizer, closure = made(lambda x, w: loss_of(x, w) * bad)
    with pytest.raises(ValueError, match="loss is not finite at the parameters as they are"), np.errstate(all="ignore"):
        optimizer.step(closure)
    assert np.array_equal(values(params), values(parameters()))


def test_a_closure_that_forgets_to_clear_is_no_worse():
    params, optimizer, closure = made(max_iter=5, line_search_fn="strong_wolfe")
    others, twin, _ = made(max_iter=5, line_search_fn="strong_wolfe")

    def forgetful():
        value = loss_of(*others)
        value.backward()
        return value
    optimizer.step(closure)
    twin.step(forgetful)
    assert np.array_equal(values(params), values(others))


@pytest.mark.parametrize("options", [
    dict(max_iter=2, lr=0.001), dict(max_iter=3, max_eval=100, line_search_fn="strong_wolfe")])
def test_a_run_goes_on_in_torch_and_back(options):
    torch = pytest.importorskip("torch")
    start = np.array([-1.2, 1.0, 0.5, 0.8])

    def run(optimizer, w, steps=4):
        def closure():
            optimizer.zero_grad()
            loss = (100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2).sum()
            loss.backward()
            return loss
        for _ in range(steps):
            optimizer.step(closure)

    def theirs(values):
        w = torch.tensor(values, requires_grad=True)
        return w, torch.optim.LBFGS([w], **options)

    def mine(values):
        w = tg.Tensor(values, requires_grad=True)
        return w, LBFGS([w], **options)
    w, whole = theirs(start)
    run(whole, w, 8)
    first, there = theirs(start)
    run(there, first)
    second, here = mine(first.detach().numpy())
    here.from_torch_state_dict(there.state_dict())
    run(here, second)
    np.testing.assert_allclose(second.numpy(), w.detach().numpy(), rtol=0, atol=1e-10)
    first, here = mine(start)
    run(here, first)
    second, there = theirs(first.numpy())
    there.load_state_dict(here.to_torch_state_dict())
    run(there, second)
    np.testing.assert_allclose(second.detach().numpy(), w.detach().numpy(), rtol=0, atol=1e-10)
