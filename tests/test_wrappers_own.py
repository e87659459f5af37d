"""What each wrapper adds to the optimizer inside."""

import math
import warnings

import numpy as np
import pytest
from _optimizers import parameters, same
from _wrappers import adam, is_vector, named, run

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.amp import GradScaler
from tinygrad_opt.optim.accumulate import Accumulate
from tinygrad_opt.optim.apply_if_finite import ApplyIfFinite
from tinygrad_opt.optim.freeze import Freeze
from tinygrad_opt.optim.lookahead import Lookahead
from tinygrad_opt.optim.multi import MultiOptimizer, muon_with_adamw
from tinygrad_opt.optim.sam import SAM
from tinygrad_opt.optim.swa_utils import EMA

# ---- SAM --------------------------------------------------------------------------------------------------


def parabola(w, optimizer, curvature):
    def closure():
        optimizer.zero_grad()
        loss = (curvature * w ** 2).sum()
        loss.backward()
        return loss
    return closure


def test_both_ways_to_call_sam_go_the_same_way():
    """`step(closure)` where the user has computed the first gradient, where not, and the two steps by hand."""
    ends = []
    for way in range(3):
        w = tg.tensor([3.0, 4.0], requires_grad=True)
        optimizer = SAM([w], optim.SGD, rho=0.5, lr=0.1, momentum=0.9)
        closure = parabola(w, optimizer, tg.tensor([1.0, 2.0]))
        for _ in range(5):
            if way == 0:
                closure()
                optimizer.step(closure)
                optimizer.zero_grad()
            elif way == 1:
                optimizer.step(closure)
            else:
                closure()
                optimizer.first_step(zero_grad=True)
                closure()
                optimizer.second_step(zero_grad=True)
        assert w.grad is None and optimizer.step_count == 5
        ends.append(w.tolist())
    assert ends[0] == ends[1] == ends[2]


def test_the_norm_is_over_all_parameters_and_groups_have_their_own_rho():
    a, b, c = (tg.tensor([x], requires_grad=True) for x in (3.0, 4.0, 2.0))
    optimizer = SAM([{"params": [a, b]}, {"params": [c], "rho": 0.0}], optim.SGD, rho=1.0, lr=0.1)
    a.grad, b.grad, c.grad = tg.tensor([3.0]), tg.tensor([4.0]), tg.tensor([12.0])
    optimizer.first_step()
    assert [p.item() for p in (a, b, c)] == pytest.approx([3 + 3 / 13, 4 + 4 / 13, 2])
    assert [group["rho"] for group in optimizer.param_groups] == [1, 0]


def test_adaptive_sam_does_not_see_the_scale_of_a_weight():
    """Weights and gradients in other units, w * s and g / s, go up to the same point in these units."""
    ends = []
    for scale in (1.0, 8.0):
        w = tg.tensor([3.0 * scale, -2.0], requires_grad=True)
        optimizer = SAM([w], optim.SGD, rho=0.5, adaptive=True, lr=0.1)
        w.grad = tg.tensor([1.0 / scale, 5.0])
        optimizer.first_step()
        ends.append([w[0].item() / scale, w[1].item()])
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


def test_sam_goes_down_to_the_worst_point_when_it_maximizes():
    w = tg.tensor([3.0], requires_grad=True)
    optimizer = SAM([w], optim.SGD, rho=0.5, lr=0.1, maximize=True)
    w.grad = tg.tensor([2.0])
    optimizer.first_step()
    assert w.item() == 2.5
    optimizer.second_step()
    assert w.item() == pytest.approx(3.2)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_sam_returns_to_the_bit(dtype):
    params = [p for p in parameters(dtype) if p.ndim]
    optimizer = SAM(params, optim.SGD, rho=0.3, lr=0.0)
    before = [p.numpy().copy() for p in params]
    run(optimizer, params, 5)
    same([p.numpy() for p in params], before)


def test_sam_returns_when_the_closure_raises():
    w = tg.tensor([3.0, 4.0], requires_grad=True)
    optimizer = SAM([w], optim.SGD, rho=0.5, lr=0.1)
    w.grad = tg.ones(2)

    def closure():
        assert w.tolist() != [3, 4]
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert w.tolist() == [3, 4] and optimizer.step_count == 0
    optimizer.step(parabola(w, optimizer, 1.0))
    assert optimizer.step_count == 1


def test_sam_in_the_wrong_order_says_what_to_do():
    w = tg.ones(2, requires_grad=True)
    optimizer = SAM([w], optim.SGD, lr=0.1)
    with pytest.raises(RuntimeError, match=r"loss.backward\(\) before first_step"):
        optimizer.first_step()
    with pytest.raises(RuntimeError, match="without first_step"):
        optimizer.second_step()
    with pytest.raises(RuntimeError, match=r"step\(closure\)"):
        optimizer.step()
    with pytest.raises(RuntimeError, match="left no gradients"):
        w.grad = tg.ones(2)
        optimizer.step(lambda: None)
    assert w.tolist() == [1, 1]
    w.grad = tg.ones(2)
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="after first_step"):
        optimizer.first_step()
    with pytest.raises(RuntimeError, match="before saving"):
        optimizer.state_dict()
    with pytest.raises(ValueError, match="rho must lie"):
        optimizer.add_param_group({"params": [tg.ones(1, requires_grad=True)], "rho": -1})


# ---- Lookahead --------------------------------------------------------------------------------------------


def test_slow_weights_start_at_the_first_step_and_follow():
    w = tg.zeros(2, requires_grad=True, dtype="float64")
    optimizer = Lookahead(optim.SGD([w], lr=1.0), k=2, alpha=0.5)
    w.data = np.array([10.0, 20.0])                         # as a checkpoint that is loaded after
    path = []
    for _ in range(4):
        w.grad = np.ones(2)
        optimizer.step()
        path.append(w.tolist())
    assert path == [[9, 19], [9, 19], [8, 18], [8, 18]]
    assert optimizer.state[w]["slow"].tolist() == [8, 18]


def test_an_average_over_lookahead_sees_the_slow_weights():
    w = tg.ones(1, requires_grad=True)
    optimizer = Lookahead(optim.SGD([w], lr=0.5), k=1, alpha=0.5)
    ema = EMA(optimizer, decay=0.0, warmup=False)
    w.grad = tg.ones(1)
    optimizer.step()
    with ema.applied():
        assert w.item() == 0.75


def test_lookahead_of_half_precision_follows_its_master():
    half = tg.Tensor(np.linspace(-1, 1, 5), dtype="float16", requires_grad=True)
    single = tg.Tensor(half.numpy().astype("float32"), requires_grad=True)
    a, b = (Lookahead(optim.SGD([p], lr=1e-4), k=3) for p in (half, single))
    for _ in range(30):
        half.grad, single.grad = tg.ones(5, dtype="float16"), tg.ones(5)
        a.step()
        b.step()
    np.testing.assert_array_equal(half.numpy(), single.numpy().astype("float16"))


# ---- Accumulate -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clears", ["never", "each batch", "after the step", "closure"])
def test_accumulating_is_the_large_batch_however_the_loop_is_written(clears):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((5, 4, 3, 6)), random.standard_normal((5, 4, 3))
    small, large = (tg.Tensor(np.ones(6), requires_grad=True) for _ in range(2))
    one, many = adam([large]), Accumulate(adam([small]), k=4)

    def loss(w, x, y):
        return ((tg.Tensor(x) @ w - tg.Tensor(y)) ** 2).mean()
    for step in range(5):
        one.zero_grad()
        loss(large, x[step].reshape(12, 6), y[step].reshape(12)).backward()
        one.step()
        for k in range(4):
            def closure(step=step, k=k):
                value = loss(small, x[step, k], y[step, k])
                value.backward()
                return value
            if clears == "each batch":
                many.zero_grad()
            if clears == "closure":
                assert many.step(closure).item() > 0
            else:
                closure()
                many.step()
            assert many.count == (k + 1) % 4 and many.step_count == step + (k == 3)
            if clears == "after the step" and many.count == 0:
                many.zero_grad()
    np.testing.assert_allclose(small.numpy(), large.numpy(), rtol=1e-13)
    assert many.state[small]["step"] == 5 and "grad_sum" not in many.state[small]


def test_between_real_steps_nothing_moves_and_the_gradient_is_not_shared():
    p, q = tg.ones(2, requires_grad=True), tg.ones(2, requires_grad=True)
    optimizer = Accumulate(optim.SGD([p, q], lr=1.0, weight_decay=0.5), k=2)
    g = tg.ones(2)
    p.grad = g
    optimizer.step()
    assert p.tolist() == [1, 1] and p.grad is None and optimizer.step_count == 0
    p.grad = g
    optimizer.step()
    assert p.tolist() == [-0.5, -0.5] and g.tolist() == [1, 1]
    assert q.tolist() == [1, 1]                             # never had a gradient


def test_a_checkpoint_amid_accumulation_keeps_the_sum():
    p = tg.ones(2, requires_grad=True)
    optimizer = Accumulate(optim.SGD([p], lr=1.0), k=2)
    p.grad = tg.tensor([2.0, 4.0])
    optimizer.step()
    q = tg.ones(2, requires_grad=True)
    again = Accumulate(optim.SGD([q], lr=1.0), k=2)
    again.load_state_dict(optimizer.state_dict())
    q.grad = tg.zeros(2)
    again.step()
    assert q.tolist() == [0, -1] and again.count == 0 and again.step_count == 1


def test_half_gradients_are_summed_in_float32():
    p = tg.zeros(1, requires_grad=True, dtype="float16")
    optimizer = Accumulate(optim.SGD([p], lr=1.0), k=4)
    for _ in range(4):
        p.grad = tg.tensor([40000.0], dtype="float16")      # their sum is beyond float16
        optimizer.step()
    assert p.item() == -40000


# ---- ApplyIfFinite ----------------------------------------------------------------------------------------


def test_steps_that_are_not_finite_are_left_out_and_named_once():
    a, b = tg.ones(2, requires_grad=True), tg.ones(3, requires_grad=True)
    optimizer = ApplyIfFinite(optim.Adam([("first", a), ("second", b)], lr=0.1, weight_decay=0.1), 2)

    def step(value):
        a.grad, b.grad = tg.ones(2), tg.tensor([1.0, value, 1.0])
        optimizer.step()
    with pytest.warns(RuntimeWarning, match="gradient of parameter second has NaN or infinite entries"):
        step(math.nan)
    assert a.tolist() == [1, 1] and not optimizer.state and optimizer.skipped == optimizer.errors == 1
    step(math.inf)                                          # no second warning
    step(1.0)
    assert optimizer.errors == 0 and optimizer.skipped == 2 and optimizer.step_count == 1
    step(-math.inf)
    step(math.nan)
    before = a.tolist()
    with pytest.raises(RuntimeError, match="parameter second .* step 3 in a row of at most 2. The run has diverged"):
        step(math.nan)
    assert a.tolist() == before and optimizer.step_count == 1


def test_a_closure_may_leave_its_step():
    w = tg.ones(2, requires_grad=True)
    factors = iter([math.inf, 1.0])
    optimizer = ApplyIfFinite(SAM([w], optim.SGD, lr=0.1))

    def closure():
        optimizer.zero_grad()
        loss = (w * factor).sum()
        loss.backward()
        return loss
    factor = next(factors)
    with pytest.warns(RuntimeWarning, match="left out"):
        assert optimizer.step(closure).item() == math.inf
    assert w.tolist() == [1, 1] and optimizer.step_count == 0
    factor = next(factors)
    optimizer.zero_grad()
    assert optimizer.step(closure).item() == 2
    assert optimizer.step_count == 1 and optimizer.skipped == 1


def test_a_scaler_works_through_wrappers():
    w = tg.ones(2, requires_grad=True)
    optimizer, scaler = Accumulate(optim.SGD([w], lr=1.0), k=2), GradScaler(init_scale=8.0)
    for factor in (1.0, math.inf, 3.0):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scaler.scale((w * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert w.tolist() == [-1, -1] and optimizer.skipped == 1 and optimizer.optimizer.skipped == 1


# ---- Freeze -----------------------------------------------------------------------------------------------


def test_what_is_frozen_neither_moves_nor_has_state_until_it_is_let_go():
    params = parameters()
    optimizer = Freeze(adam(named(params)), lambda name, p: name in ("p1", "p2"))
    before = [p.numpy().copy() for p in params]
    after = run(optimizer, params, 5)
    assert optimizer.frozen == ("p1", "p2")
    for k, (a, b) in enumerate(zip(before, after)):
        assert np.array_equal(a, b) == (k in (1, 2, 4))     # the last is empty
        assert (params[k] in optimizer.state) == (k not in (1, 2))
    optimizer.thaw(is_vector)
    assert optimizer.frozen == ("p2",)
    run(optimizer, params, 1)
    assert optimizer.state[params[1]]["step"] == 1
    optimizer.thaw()
    run(optimizer, params, 1)
    assert not optimizer.frozen and optimizer.state[params[2]]["step"] == 1


def test_frozen_wholly_nothing_moves_even_amid_momentum():
    params = parameters()
    inner = optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1)
    before = run(inner, params, 3)
    optimizer = Freeze(inner, lambda name, p: True)
    same(run(optimizer, params, 5), before)
    optimizer.thaw()
    assert not np.array_equal(run(optimizer, params, 1)[2], before[2])


def test_freezing_drops_what_a_closure_computes():
    a, b = tg.ones(1, requires_grad=True), tg.ones(1, requires_grad=True)
    optimizer = Freeze(optim.SGD([("a", a), ("b", b)], lr=0.5), lambda name, p: name == "a")

    def closure():
        loss = (a * b).sum()
        loss.backward()
        return loss
    assert optimizer.step(closure).item() == 1
    assert a.item() == 1 and b.item() == 0.5 and a.grad is None


def test_a_checkpoint_knows_what_was_frozen():
    params = parameters()
    optimizer = Freeze(adam(named(params)), lambda name, p: p.ndim < 3)
    optimizer.thaw(is_vector)
    again = Freeze(adam(named(params)), lambda name, p: True)
    again.load_state_dict(optimizer.state_dict())
    assert again.frozen == optimizer.frozen == ("p0", "p2", "p4")
    with pytest.raises(ValueError, match="no parameter q"):
        again.load_state_dict({**optimizer.state_dict(), "frozen": ["q"]})
    assert again.frozen == ("p0", "p2", "p4")


# ---- MultiOptimizer ---------------------------------------------------------------------------------------


def test_each_parameter_goes_where_its_optimizer_takes_it():
    params, alone = parameters(), parameters()
    optimizer = MultiOptimizer(named(params), [(is_vector, adam), lambda ps: optim.SGD(ps, lr=0.3, momentum=0.9)])
    run(optimizer, params)
    for k in range(5):
        run([adam, lambda ps: optim.SGD(ps, lr=0.3, momentum=0.9)][k != 1](alone), alone)
        np.testing.assert_array_equal(alone[k].numpy(), params[k].numpy())
        alone = parameters()
    assert "p1  (3,)          Adam\np0  ()            SGD" in repr(optimizer)
    assert [type(each).__name__ for each in optimizer.optimizers] == ["Adam", "SGD"]


def test_routes_that_lead_nowhere_are_named():
    params = named(parameters())
    with pytest.raises(ValueError, match=r"parameter p0, shape \(\), has no route"):
        MultiOptimizer(params, [(is_vector, adam)])
    with pytest.raises(ValueError, match="route 0, to adam, receives no parameter"):
        MultiOptimizer(params, [(lambda name, p: p.ndim == 7, adam), optim.SGD])
    with pytest.raises(ValueError, match="route 1, to SGD, receives no parameter"):
        MultiOptimizer(params, [adam, optim.SGD])
    with pytest.raises(TypeError, match="name, Tensor"):
        MultiOptimizer(parameters(), [adam])


def test_a_loss_reaches_those_that_ask_for_it():
    a, b = tg.ones(1, requires_grad=True), tg.ones(2, requires_grad=True)
    optimizer = MultiOptimizer([("a", a), ("b", b)], [
        (lambda name, p: name == "a", optim.PolyakSGD), lambda ps: optim.SGD(ps, lr=0.1)])

    def closure():
        loss = (a ** 2).sum() + b.sum()
        loss.backward()
        return loss
    assert optimizer.step(closure).item() == 3
    assert a.item() == pytest.approx(1 - 3 / 4 * 2) and b.tolist() == pytest.approx([0.9, 0.9])


def test_muon_takes_the_matrices_inside():
    model = tg.nn.Sequential(tg.nn.Embedding(5, 8), tg.nn.Linear(8, 8), tg.nn.LayerNorm(8), tg.nn.Linear(8, 8),
                             tg.nn.Linear(8, 2))
    optimizer = muon_with_adamw(model, lr=0.05, adamw_lr=1e-3, momentum=0.8)
    where = {line.split()[0]: line.split()[-1] for line in optimizer.table().splitlines()}
    assert {name for name, kind in where.items() if kind == "Muon"} == {"1.weight", "3.weight"}
    assert set(where) == {name for name, _ in model.named_parameters()}
    muon, adamw = optimizer.param_groups
    assert (muon["lr"], muon["momentum"], adamw["lr"], adamw["betas"]) == (0.05, 0.8, 1e-3, (0.9, 0.95))
    assert muon["weight_decay"] == adamw["weight_decay"] == 0.01
    assert "3.weight  (8, 8)  AdamW" in muon_with_adamw(model, skip="3.").table()
    with pytest.raises(ValueError, match="receives no parameter"):
        muon_with_adamw(tg.nn.Linear(3, 2))


def test_muon_with_adamw_trains():
    tg.manual_seed(0)
    model = tg.nn.Sequential(tg.nn.Linear(4, 16), tg.nn.Tanh(), tg.nn.Linear(16, 16), tg.nn.Tanh(), tg.nn.Linear(16, 1))
    x = tg.randn(64, 4)
    y = tg.sin(x.sum(axis=1, keepdims=True)).detach()
    optimizer = muon_with_adamw(model, adamw_lr=3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_transforms_come_before_all_the_optimizers():
    a, b = (tg.tensor([3.0], requires_grad=True) for _ in range(2))
    optimizer = tg.optim.MultiOptimizer([("a", a), ("b", b)], [
        (lambda name, p: name == "a", lambda named: tg.optim.SGD(named, lr=1.0)),
        lambda named: tg.optim.SGD(named, lr=0.5)])
    optimizer.grad_transforms = [tg.optim.ClipValue(1.0)]
    a.grad, b.grad = tg.tensor([5.0]), tg.tensor([5.0])
    optimizer.step()
    assert (a.item(), b.item()) == (2.0, 2.5)
