"""The functional form: the numbers of the class, and gradients through its steps."""

import math

import numpy as np
import pytest
from _optimizers import BATCH, CURVATURE, TABLE, label, make, rule_of, step

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim.differentiable import functional

ROWS = [row for row in TABLE if getattr(optim, row[0])._step is optim.Optimizer._step and not rule_of(*row).matrix]
each = pytest.mark.parametrize("name, options", ROWS, ids=[label(*row) for row in ROWS])
WEIGHTS = [[4.0, -3.5, 3.1], [[3.2, -4.1], [3.7, -3.3]]]                # further from 0 than the steps lead


def weights(along=0.0):
    """Return the start, moved along a direction."""
    random = np.random.default_rng(5)
    return [tg.tensor(np.array(w) + along * random.standard_normal(np.shape(w)), requires_grad=True) for w in WEIGHTS]


def loss_of(params):
    """Return a loss that is smooth, couples all weights and is no parabola."""
    a, b = params
    return (a ** 2).sum() / 2 + (1 + b ** 2).sqrt().sum() + (4 + (a[:2] * b).sum() ** 2).sqrt() / 4


def outcome(params, kept):
    """Return what is differentiated: the loss, and something of every array that is kept."""
    return loss_of(params) + sum((x * x).mean() for x in kept) / 10


def options_inside(name, options):
    """Return all options, each number that is read in the inside of its range and away from kinks, and their places."""
    def inside(value):
        if value in (0, 1):
            return 0.9 * value or 0.05
        return value - 0.5 if value % 1 == 0 else max(value, 0.01) if value > 0 else value

    made = make(name, options, [tg.ones(2, 2, requires_grad=True)])
    rule, group = made._rule(0), made.param_groups[0]
    read = {letter.rstrip("0123456789") for letter in rule.options} | {"initial_accumulator_value", "d0"}
    fixed = {"maximize", *(["dampening"] if options.get("nesterov") else [])}       # 0, or there is no nesterov
    chosen, places = {}, []
    for key in optim.optimizer_info(name).defaults:
        chosen[key] = value = group[key]
        if key in fixed or isinstance(value, str) or not {key, key[:-1]} & read or value == math.inf:
            continue
        chosen[key] = tuple(map(inside, value)) if isinstance(value, tuple) else inside(value)
        places += [(key, k) for k in range(len(value))] if isinstance(value, tuple) else [(key, None)]
    return chosen, places


def told(name, loss, state, grads, betas):
    """Return what some rules are told, and the curvature that Sophia's state is given from outside."""
    if name.startswith("Sophia"):
        fresh = {key: g ** 2 if name == "SophiaG" else tg.full(g.shape, CURVATURE, dtype=g.dtype)
                 for key, g in grads.items()}
        state = {key: {**s, "hessian": betas[1] * s["hessian"] + (1 - betas[1]) * fresh[key]}
                 for key, s in state.items()}
    return {"PolyakSGD": dict(loss=loss), "SophiaG": dict(bs=BATCH)}.get(name, {}), state


def by_class(name, options, along=0.0, steps=20):
    params = weights(along)
    optimizer = make(name, options, params)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(params)
        loss.backward()
        step(optimizer, loss)
    return params, arrays(params, [optimizer.state[p] for p in params])


def arrays(params, state):
    return [value for p, s in zip(params, state) for value in s.values() if getattr(value, "shape", None) == p.shape]


def by_functional(name, options, params, steps=20):
    f = functional(getattr(optim, name), **options)
    betas = options.get("betas", optim.optimizer_info(name).defaults.get("betas"))
    params = dict(zip("ab", params))
    state = f.init(params)
    for _ in range(steps):
        loss = loss_of(params.values())
        grads = dict(zip(params, tg.grad(loss, list(params.values()), create_graph=True)))
        numbers, state = told(name, loss, state, grads, betas)
        params, state = f.update(grads, state, params, **numbers)
    return list(params.values()), arrays(params.values(), state.values())


def agrees(found, function, x, h):
    """Whether a derivative is that by central differences of the fourth order; a kink may lie in reach of the wider."""
    def slope(h):
        return (8 * (function(x + h) - function(x - h)) - function(x + 2 * h) + function(x - 2 * h)) / (12 * h)
    return found == pytest.approx(slope(h), rel=1e-6, abs=1e-9) or found == pytest.approx(slope(h / 10), rel=1e-6)


@each
def test_twenty_steps_are_those_of_the_class(name, options):
    options = {**options, "max_lr" if name == "PolyakSGD" else "lr": 0.05}
    for ours, theirs in zip(sum(by_functional(name, options, weights()), []), sum(by_class(name, options), [])):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12, atol=1e-14)


@each
def test_hypergradients_are_the_slopes_of_the_class(name, options):
    options, places = options_inside(name, options)
    leaves = {place: tg.tensor(np.array(options[place[0]] if place[1] is None else options[place[0]][place[1]]),
                               dtype="float64", requires_grad=True) for place in places}
    given = {key: leaves.get((key, None)) if (key, None) in leaves
             else tuple(leaves[key, k] for k in range(len(value))) if (key, 0) in leaves else value
             for key, value in options.items()}
    start = weights()
    result = outcome(*by_functional(name, given, start))
    found = tg.grad(result, [*leaves.values(), *start], allow_unused=True)
    random = np.random.default_rng(5)                       # the direction of weights()
    along = sum(float((g.numpy() * random.standard_normal(g.shape)).sum()) for g in found[len(leaves):])
    got = {place: 0.0 if g is None else g.item() for place, g in zip(leaves, found)}

    def replaced(place, x):
        key, k = place
        value = options[key]
        return {**options, key: x if k is None else (*value[:k], x, *value[k + 1:])}
    for place, leaf in leaves.items():
        x = leaf.item()
        assert agrees(got[place], lambda x: outcome(*by_class(name, replaced(place, x))).item(), x,
                      2e-3 * min(abs(x), abs(1 - x))), place
    assert agrees(along, lambda h: outcome(*by_class(name, options, h)).item(), 0.0, 1e-3)


# ---- where a rule has no slope ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Lion", "Signum", "Rprop"])
def test_a_sign_passes_no_gradient(name):
    """The weights follow their start as if the steps were fixed, and do not see the betas; the rate they see."""
    start, (lr, beta) = weights(), numbers(0.05, 0.9)
    options = {"Lion": dict(betas=(beta, 0.99)), "Signum": dict(momentum=beta), "Rprop": {}}[name]
    params, _ = by_functional(name, dict(lr=lr, **options), start, steps=3)
    *moved, of_rate, of_beta = tg.grad(sum(p.sum() for p in params), [*start, lr, beta], allow_unused=True)
    assert all((g.numpy() == 1).all() for g in moved)
    assert of_rate.item() != 0 and (of_beta is None or of_beta.item() == 0)


@each
def test_weights_without_a_gradient_spoil_nothing(name, options):
    """Roots and norms of 0 have an infinite slope or none; a dead unit has just these."""
    lr, = numbers(0.05)
    start = [tg.tensor(np.array(w), requires_grad=True) for w in ([0.0, 0.0], [1.0, 1.0], [2.0, 0.0])]
    f = functional(getattr(optim, name), **{**options, "max_lr" if name == "PolyakSGD" else "lr": lr})
    params, state = start, f.init(start)
    for _ in range(3):
        loss = (params[0] ** 4).sum() + ((params[1] - 1) ** 4).sum() + (params[2] ** 2).sum() + 1
        grads = tg.grad(loss, params, create_graph=True)
        extra = {"PolyakSGD": dict(loss=loss), "SophiaG": dict(bs=BATCH)}.get(name, {})
        params, state = f.update(grads, state, params, **extra)
    found = tg.grad(sum((p ** 2).sum() for p in params), [*start, lr], allow_unused=True)
    assert all(np.isfinite(x.numpy()).all() for x in (*found, *params) if x is not None)


def numbers(*values):
    return [tg.tensor(value, dtype="float64", requires_grad=True) for value in values]


# ---- what goes in and comes out ---------------------------------------------------------------------------


def quadratic(f, params, steps):
    state = f.init(params)
    for _ in range(steps):
        grads = tg.grad(sum((p ** 2).sum() for p in params), params, create_graph=True)
        params, state = f.update(grads, state, params)
    return params, state


def test_nothing_is_kept_and_nothing_changes():
    f, start = functional(optim.Adam, lr=0.1), weights()
    state = f.init(start)
    grads = [tg.ones_like(p) for p in start]
    before = [p.numpy().copy() for p in start]
    first, after = f.update(grads, state, start)
    again, _ = f.update(grads, state, start)
    f.update(grads, f.init(weights()), weights())
    assert all((a.numpy() == b.numpy()).all() and a is not b for a, b in zip(first, again))
    assert [s["step"] for s in state] == [0, 0] and [s["step"] for s in after] == [1, 1]
    assert all((s["exp_avg"].numpy() == 0).all() for s in state)
    assert all((p.numpy() == b).all() for p, b in zip(start, before))


def test_a_mapping_comes_back_as_a_mapping_in_the_order_of_the_parameters():
    f = functional(optim.SGD, lr=0.25)
    params, grads = dict(a=tg.ones(2), b=tg.ones(3)), dict(b=tg.ones(3), a=tg.zeros(2))
    after, state = f.update(grads, f.init(params), params)
    assert list(after) == list(state) == ["a", "b"]
    assert after["a"].tolist() == [1, 1] and after["b"].tolist() == [0.75] * 3


def test_no_gradient_leaves_a_parameter_alone():
    f, params = functional(optim.Adam), [tg.ones(2), tg.ones(2)]
    after, state = f.update([None, tg.ones(2)], f.init(params), params)
    assert after[0] is params[0] and [s["step"] for s in state] == [0, 1]


def test_an_option_of_one_step():
    """The product of two rates, each given to its step."""
    lrs, (w,) = numbers(0.1, 0.2), numbers(3.0)
    f, params = functional(optim.SGD, lr=5.0), [w]
    state = f.init(params)
    for lr in lrs:
        params, state = f.update([2 * params[0]], state, params, lr=lr)
    assert params[0].item() == pytest.approx(3 * 0.8 * 0.6)
    assert [g.item() for g in tg.grad(params[0], lrs)] == pytest.approx([-2 * 3 * 0.6, -2 * 3 * 0.8])


def test_groups_of_an_optimizer():
    a, b, c = (tg.ones(2, requires_grad=True) for _ in range(3))
    optimizer = optim.SGD([{"params": [a, b]}, {"params": [c], "lr": 0.5}], lr=0.25)
    params, _ = quadratic(functional(optimizer), [a, b, c], 1)
    assert [p.tolist()[0] for p in params] == [0.5, 0.5, 0.0] and a.tolist() == [1, 1] and not optimizer.state
    with pytest.raises(ValueError, match="SGD: 2 parameters, its groups have 3"):
        functional(optimizer).init([a, b])


def test_numbers_that_a_rule_keeps_are_on_the_tape():
    momentum_decay, lr = numbers(0.1, 0.05)
    _, state = quadratic(functional(optim.NAdam, momentum_decay=momentum_decay), weights(), 2)
    assert all(s["mu_product"].requires_grad for s in state)
    _, state = quadratic(functional(optim.ASGD, lr=lr), weights(), 1)
    assert tg.grad(state[0]["eta"], lr)[0].item() == pytest.approx(1, abs=1e-4)
    _, state = quadratic(functional(optim.NAdam), weights(), 2)
    assert all(type(s["mu_product"]) is float for s in state)


def test_an_ascent_turns_the_loss_too():
    params, p = [tg.tensor([1.0, 2.0], requires_grad=True)], tg.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.PolyakSGD([p], max_lr=10.0, f_star=-20.0, maximize=True)
    p.grad = tg.tensor([-2.0, -4.0])
    optimizer.step(lambda: -5.0)
    f = functional(optim.PolyakSGD, max_lr=10.0, f_star=-20.0, maximize=True)
    after, _ = f.update([tg.tensor([-2.0, -4.0])], f.init(params), params, loss=-5.0)
    np.testing.assert_allclose(after[0].numpy(), p.numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", ["Adam", "LAMB", "DoG", "NovoGrad"])
def test_single_precision_stays_single_whatever_the_options_are(name):
    lr = tg.tensor(0.1, dtype="float64", requires_grad=True)
    params, state = quadratic(functional(getattr(optim, name), lr=lr), [tg.ones(3, requires_grad=True)], 3)
    assert params[0].dtype == "float32" and all(x.dtype == "float32" for x in arrays(params, state))
    optimizer = getattr(optim, name)([p := tg.ones(3, requires_grad=True)], lr=0.1)
    for _ in range(3):
        p.grad = 2 * p.detach()
        optimizer.step()
    np.testing.assert_allclose(params[0].numpy(), p.numpy(), rtol=1e-6)


def test_a_rule_of_ones_own_with_a_tensor_in_single_precision():
    @optim.from_rule(lr=0.1, beta=0.9)
    def Own(p, g, m, t, lr, beta):
        m = beta * m + g
        p = p - lr * m / (1 - beta ** t)
        return p, m
    beta = tg.tensor(0.999, requires_grad=True)
    params, _ = quadratic(functional(Own, beta=beta), [tg.tensor([1.0], requires_grad=True)], 1)
    # Single precision would lose four digits of 1 - 0.999.
    assert params[0].item() == pytest.approx(1 - 0.2 / (1 - np.float64(np.float32(0.999))), rel=1e-6)
    assert tg.grad(params[0].sum(), beta)[0].dtype == "float32"


def test_a_ufunc_may_be_told_the_precision_to_compute_in():
    """It is what the sums of a rule ask for."""
    x = tg.tensor([3.0, 4.0], requires_grad=True)
    y = np.multiply(x, x, dtype=np.float64)
    assert y.dtype == "float64" and np.multiply(x.detach(), 1, dtype="f8").dtype == "float64"
    slope, = tg.grad(y.sum(), x)
    assert slope.tolist() == [6, 8] and slope.dtype == "float32"


# ---- what is refused --------------------------------------------------------------------------------------

W = [tg.ones(2, requires_grad=True)]
G = [tg.ones(2)]


@pytest.mark.parametrize("make_it, error, message", [
    (lambda: functional("Adam"), TypeError, "takes an optimizer or its class"),
    (lambda: functional(optim.Adam, lr=tg.tensor(-1.0)), ValueError, r"lr must lie in \[0, inf\), got -1"),
    (lambda: functional(optim.Adam, lr=tg.ones(2)), TypeError, "Adam: lr must be a number"),
    (lambda: functional(optim.Adam, betas=(0.9, tg.tensor(1.0))), ValueError, "beta2 must lie in"),
    (lambda: functional(optim.Adam, lr=lambda t: 0.1), TypeError, "schedules and grad_transforms"),
    (lambda: functional(optim.SGD, grad_transforms=[optim.ClipNorm(1.0)]), TypeError, "schedules and grad_transforms"),
    (lambda: functional(optim.SGD(W), lr=0.1), TypeError, "from its groups; give lr to update"),
    (lambda: functional(optim.Lookahead(optim.SGD(W))), TypeError, "Lookahead has no functional form"),
    (lambda: functional(optim.Optimizer(W, {})), NotImplementedError, "has no rule"),
    (lambda: functional(optim.LBFGS), TypeError, "LBFGS has no functional form, its step needs more than gradients"),
    (lambda: functional(optim.Shampoo), TypeError, "Shampoo works on whole matrices"),
    (lambda: functional(optim.SGD).init([]), ValueError, "0 parameters"),
    (lambda: functional(optim.SGD).init([np.ones(2)]), TypeError, "parameter 0 must be a Tensor"),
    (lambda: functional(optim.SGD).init([tg.ones(2, dtype="float16")]), TypeError, "float32 or float64, got float16"),
    (lambda: functional(optim.SGD).init(W, rate=1), TypeError, "unknown option rate; the options are dampening"),
    (lambda: step_of(optim.SGD, G, lr=float("nan")), ValueError, "lr must lie in"),
    (lambda: step_of(optim.SGD, G, lr=tg.tensor(-1.0)), ValueError, "lr must lie in"),
    (lambda: step_of(optim.Rprop, G, lr=0.1), ValueError, "Rprop reads lr at the first step alone: give it to init"),
    (lambda: step_of(optim.PolyakSGD, G), TypeError, "loss, .* give it to update"),
    (lambda: step_of(optim.SGD, []), ValueError, "grads must be given as the parameters are, a list of 1"),
    (lambda: step_of(optim.SGD, {"w": G[0]}), ValueError, "grads must be given as .* got by the names w"),
    (lambda: step_of(optim.SGD, [tg.ones(3)]), ValueError, r"gradient of a parameter of shape \(2,\)"),
    (lambda: step_of(optim.SGD, [np.ones(2)]), ValueError, "must be a Tensor"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_refused(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()


def step_of(cls, grads, **options):
    f = functional(cls)
    return f.update(grads, f.init(W), W, **options)
