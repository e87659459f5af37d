"""One contract for every optimizer of the table, and the errors."""

import copy
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _optimizers import (
    LOSS,
    NAMES,
    TOGETHER,
    each,
    each_name,
    each_of,
    label,
    make,
    parameters,
    rule_of,
    run,
    same,
    step,
)

import tinygrad_opt as tg
from tinygrad_opt import optim


def test_the_table_is_complete():
    public = [getattr(optim, name) for name in optim.__all__]
    exported = {x.__name__ for x in public if isinstance(x, type) and issubclass(x, optim.Optimizer)}
    wrappers = {"SAM", "Lookahead", "Accumulate", "ApplyIfFinite", "Freeze", "MultiOptimizer"}
    assert set(NAMES) == set(optim.OPTIMIZERS) == exported - {"Optimizer"} - wrappers - set(optim.SECOND_ORDER)


FACTORED = {"Adafactor", "Shampoo", "SOAP"}                 # whose state has shapes of its own


FACTORED = {"Adafactor", "Shampoo", "SOAP"}                 # whose state has shapes of its own

# ---- the contract -----------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shape_dtype_memory_and_gradient_are_kept(name, options, dtype):
    params = parameters(dtype, name=name)
    memory = [p.data for p in params]
    optimizer = make(name, options, params)
    for p in params:
        p.grad = tg.ones(p.shape, dtype=dtype)
    step(optimizer)
    for p, m in zip(params, memory):
        assert p.data is m and p.dtype == dtype
        np.testing.assert_array_equal(p.grad.numpy(), 1)
        for key, value in optimizer.state[p].items():
            for part in value if isinstance(value, list) else [value]:
                shaped = name in FACTORED or getattr(part, "shape", None) == p.shape
                assert part is None or isinstance(part, (int, float)) or shaped and part.dtype == dtype, key


@pytest.fixture(scope="module")
def numpys(tmp_path_factory):
    """What the NumPy backend makes of every row of the table, in a process of its own."""
    path = tmp_path_factory.mktemp("numpy") / "results.npz"
    program = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
               "import numpy; from _optimizers import *\n"
               "results = [run(make(*row, ps := parameters('float32', name=row[0])), ps, steps=100) for row in TABLE]\n"
               f"assert tg.backend.name == 'numpy'; numpy.savez({str(path)!r}, "
               "**{f'{label(*row)} {k}': a for row, arrays in zip(TABLE, results) for k, a in enumerate(arrays)})")
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "TINYGRAD_OPT_BACKEND": "numpy"})
    with np.load(path) as results:
        return dict(results)


@pytest.mark.skipif(tg.backend.name == "cupy", reason="a GPU contracts a * b + c")
@each
def test_numpy_and_this_backend_are_bit_equal_over_100_steps(name, options, numpys):
    mine = run(make(name, options, ps := parameters("float32", name=name)), ps, steps=100)
    theirs = [numpys[f"{label(name, options)} {k}"] for k in range(len(ps))]
    same(mine, theirs)


@each
def test_a_parameter_without_gradient_is_skipped_wholly(name, options):
    params = parameters(name=name)
    optimizer = make(name, options, params)
    before = params[2].numpy().copy()
    for p in params:
        p.grad = None if p is params[2] else tg.ones(p.shape, dtype=p.dtype)
    step(optimizer)
    same([params[2].numpy()], [before])
    assert (params[2] in optimizer.state) == (name == "Adagrad")             # whose state begins with the optimizer
    assert optimizer.state[params[2]].get("step", 0) == 0 and optimizer.state[params[1]]["step"] == (
        name != "SOAP")                                     # whose first gradient only sets its bases
    assert optimizer.step_count == 1


@each_of(set(NAMES) - TOGETHER)
def test_interleaved_gradients_equal_separate_optimizers(name, options):
    """Parameters in one optimizer whose counts of steps differ do what each would do alone."""
    together, apart = parameters(name=name), parameters(name=name)
    one, many = make(name, options, together), [make(name, options, [p]) for p in apart]
    random = np.random.default_rng(3)
    for n in range(12):
        for k, (p, q) in enumerate(zip(together, apart)):
            g = None if (n + k) % 3 == 0 else tg.Tensor(np.asarray(random.standard_normal(p.shape)))
            p.grad = q.grad = g
            if g is not None:
                step(many[k])
        step(one)
    same([p.numpy() for p in together], [p.numpy() for p in apart])


@each
def test_state_dict_continues_bit_for_bit(name, options, tmp_path):
    params = parameters(name=name)
    optimizer = make(name, options, params)
    run(optimizer, params, 7)
    tg.save({"model": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, tmp_path / "c.npz")
    straight = run(optimizer, params, 5, seed=2)
    saved = tg.load(tmp_path / "c.npz")
    fresh = [tg.Tensor(p.numpy(), requires_grad=True) for p in saved["model"]]
    again = make(name, options, fresh, lr=1.0)
    again.load_state_dict(saved["optimizer"])
    before, after = saved["optimizer"]["param_groups"][0], again.param_groups[0]
    assert again.step_count == 7 and {**before, "params": None} == {**after, "params": None}
    same(run(again, fresh, 5, seed=2), straight)


@each
def test_copy_and_pickle_together_with_the_parameters(name, options):
    params = parameters(name=name)
    optimizer = make(name, options, params)
    run(optimizer, params, 3)
    for twin, ps in (copy.deepcopy((optimizer, params)), pickle.loads(pickle.dumps((optimizer, params)))):
        assert all(a is b for a, b in zip(twin.param_groups[0]["params"], ps))
        same(run(twin, ps, 3, seed=5), run(*copy.deepcopy((optimizer, params)), 3, seed=5))


@each
def test_maximize_is_the_negated_gradient(name, options):
    up, down = parameters(name=name), parameters(name=name)
    flipped = {**options, "maximize": not options.get("maximize", False)}
    a, b = make(name, options, up), make(name, flipped, down)
    for p, q in zip(up, down):
        p.grad, q.grad = tg.ones(p.shape, dtype=p.dtype), -tg.ones(p.shape, dtype=p.dtype)
    step(a, LOSS)
    step(b, -LOSS)
    same([p.numpy() for p in up], [p.numpy() for p in down])


@each
def test_a_strided_parameter_is_updated_in_its_place(name, options):
    base = tg.Tensor(np.arange(24.0).reshape(4, 6))
    p, q = base[:, ::2].requires_grad_(), tg.Tensor(base.numpy()[:, ::2].copy(), requires_grad=True)
    a, b = make(name, options, [p]), make(name, options, [q])
    for _ in range(3):
        p.grad, q.grad = tg.randn(4, 3, dtype="float64").T.T, None
        q.grad = p.grad
        step(a)
        step(b)
    same([p.numpy(), base.numpy()[:, 1::2]], [q.numpy(), np.arange(24.0).reshape(4, 6)[:, 1::2]])


@each
def test_converges_on_a_parabola(name, options):
    sign = -1 if options.get("maximize") else 1
    x = tg.tensor([[3.0, -2.0]] if name == "Muon" else [3.0, -2.0], requires_grad=True)
    lr = {"Shampoo": 0.3, "Muon": 0.1 if "eps" in options else 0.02, "Adagrad": 1.0, "Adadelta": 3.0, "Signum": 0.02,
          "SophiaG": 0.02, "LARS": 15 if "momentum" in options else 1}
    at = {"weight_decay": 0, "f_star": 0}                   # where no penalty moves the minimum
    options = {**options, **{key: at[key] for key in at if key in rule_of(name, options).options}}
    optimizer = make(name, options, [x], lr.get(name, 1.0 if name in TOGETHER else 0.05))
    for _ in range(400):
        optimizer.zero_grad()
        loss = sign * (x ** 2).sum()
        loss.backward()
        step(optimizer, loss)
    assert float((x ** 2).sum()) < 1e-2


@each_of(set(NAMES) - {"Rprop", "AdaBound", "MADGRAD"} - TOGETHER)
def test_groups_have_their_own_options(name, options):
    """But for some, whose smallest step is not lr's affair, a group with lr 0 stands still."""
    p, q = tg.ones(1, 3, requires_grad=True), tg.ones(1, 3, requires_grad=True)
    optimizer = make(name, options, [{"params": [p]}, {"params": [q], "lr": 0.0}])

    def steps():
        for _ in range(2):                                  # ADOPT's first only looks
            p.grad = q.grad = tg.ones(1, 3)
            step(optimizer)
    steps()
    assert bool((p != 1).all()) and bool((q == 1).all())
    optimizer.param_groups[1]["lr"] = 0.1
    steps()
    assert bool((q != 1).all())


# Another value for every option that is a number.
OTHER = {
    "lr": 0.06, "eps": 0.1, "weight_decay": 0.5, "momentum": 0.5, "dampening": 0.5, "alpha": 0.5, "lambd": 0.5, "t0": 2,
    "lr_decay": 0.5, "initial_accumulator_value": 0.5, "rho": 0.5, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.03),
    "momentum_decay": 0.5, "nus": (0.7, 0.8), "nu": 0.3, "beta3_warmup": 10, "alpha_warmup": 10, "final_lr": 0.2,
    "gamma": 0.2, "weight_decay_type": "direct", "trust_coefficient": 0.1, "max_grad_norm": 0.5, "f_star": 1.0,
    "reps_rel": 0.1, "d0": 0.1, "growth_rate": 1.1, "d_coef": 0.5, "beta3": 0.5, "clip_threshold": 0.1, "max_lr": 0.06,
    "warmup_steps": 3, "r": 0.5, "weight_lr_power": 1.0, "beta2_decay": -0.5, "d": 1.5, "ns_steps": 3,
    "ns_coefficients": (3.0, -3.2, 1.2), "adjust_lr_fn": "match_rms_adamw", "update_freq": 3, "exponent": 0.3,
    "shampoo_beta": 0.5, "precondition_frequency": 2, "max_precond_dim": 4,
}
# Or for one optimizer, where the name means something else.
OWN_OTHER = {("Adafactor", "eps"): (1e-3, 0.3), ("Muon", "eps"): 10.0}
# Options that show only beside others.
BESIDE = {"dampening": {"momentum": 0.5}, "nesterov": {"momentum": 0.5}, "amsgrad": {"betas": (0.5, 0.5)},
          "amsbound": {"betas": (0.5, 0.5)}, "final_lr": {"gamma": 0.5}, "weight_decay_type": {"weight_decay": 0.5},
          "safeguard_warmup": {"lr": 0.5}, "weight_lr_power": {"warmup_steps": 3}}
DECAY = {"decouple", "decoupled_weight_decay", "weight_decouple", "decouple_weight_decay", "no_prox"}


@each_name
def test_every_hyperparameter_changes_the_result(name):
    def result(**options):
        optimizer = make(name, options, params := parameters(name=name), 1.0 if name in TOGETHER else 0.05)
        grows = "d0" in optimizer.defaults                  # an estimate that only steady gradients raise
        run(optimizer, params, 20 if grows else 6, drift=2.0 if grows else 0.0)
        return {(k, key): [np.asarray(part) for part in (x if isinstance(x, list) else [x])]
                for k, p in enumerate(params) for key, x in {"p": p, **optimizer.state[p]}.items()}
    optimizer = make(name, {}, parameters(name=name))
    for key, value in optimizer.defaults.items():
        if key in optimizer._rule(0).memory:                                   # written by the rule
            continue
        if name == "AdamW" and key == "decoupled_weight_decay":                # no argument of its constructor
            continue
        beside = {"weight_decay": 0.5} if key in DECAY else BESIDE.get(key, {})
        if (name, key) == ("PolyakSGD", "maximize"):                           # (f - 0) / g ** 2 * g has no sign
            beside = {"f_star": 1.0}
        other = (not value if isinstance(value, bool) else tuple(0.9 * beta for beta in value) if key == "betas"
                 else OWN_OTHER.get((name, key), OTHER.get(key)))
        assert other is not None, key
        before, after = result(**beside), result(**{**beside, key: other})
        assert any(not np.array_equal(a, b) for x in before.keys() & after.keys()
                   for a, b in zip(before[x], after[x])), key


@each_name
def test_formula_and_source_are_printed(name):
    optimizer = make(name, {}, [tg.ones(2, 2, requires_grad=True)])
    assert "aligned" in optimizer.formula() and "p ← " in optimizer.formula("text")
    if optimizer._rule(0).matrix:                           # it runs as it stands
        assert all("@matrix" in optimizer.source(language) for language in ("numpy", "numba", "cuda"))
    else:
        assert "__global__" in optimizer.source("cuda") and "njit" in optimizer.source("numba")
        assert "def host" in optimizer.source("numpy")
    for call in (lambda: optimizer.formula("html"), lambda: optimizer.source("fortran")):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_the_second_step_plans_nothing_new(monkeypatch):
    params = parameters()
    optimizer = optim.Adam(params)
    run(optimizer, params, 1)
    for p in params:
        p.grad = tg.ones(p.shape, dtype=p.dtype)
    optimizer.step()
    plans = []
    monkeypatch.setattr(optim.Optimizer, "_plan", lambda *a: plans.append(a))
    optimizer.step()
    assert not plans


def test_whatever_the_user_replaces_is_seen():
    p = tg.ones(3, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1)

    def step():
        p.grad = tg.ones(3)
        optimizer.step()
    step()
    step()
    optimizer.state[p]["exp_avg"] = tg.zeros(3)
    step()
    assert optimizer.state[p]["exp_avg"].numpy()[0] == pytest.approx(0.1)
    optimizer.state.clear()
    step()
    assert optimizer.state[p]["step"] == 1
    optimizer.param_groups[0]["amsgrad"] = True
    step()
    assert "max_exp_avg_sq" in optimizer.state[p]
    q = tg.ones(2, requires_grad=True)
    optimizer.param_groups[0]["params"].append(q)
    q.grad = tg.ones(2)
    step()
    assert q.numpy()[0] != 1
    p._data = tg.full(3, 5.0).data
    step()
    assert p.numpy()[0] == pytest.approx(4.9, abs=0.05)


# ---- construction, options, errors ------------------------------------------------------------------------


def weight(*shape, **options):
    return tg.ones(*shape, requires_grad=True, **options)


def test_parameters_may_be_named():
    a, b = weight(2), weight(3)
    for params in ([("a", a), ("b", b)], {"a": a, "b": b},
                   [{"params": [("a", a), ("b", b)]}], {"params": {"a": a, "b": b}}):
        optimizer = optim.SGD(params)
        assert optimizer.param_groups[0]["params"] == [a, b] and optimizer.param_groups[0]["param_names"] == ["a", "b"]
    assert optim.SGD(iter([a, b])).param_groups[0]["params"] == [a, b]
    assert optim.SGD([{"params": a}]).param_groups[0]["params"] == [a]


CONSTRUCTION = [
    (lambda: optim.SGD(weight(2)), TypeError, "put a single one in a list"),
    (lambda: optim.SGD([]), ValueError, "no parameters"),
    (lambda: optim.SGD(x for x in ()), ValueError, "generator"),
    (lambda: optim.SGD([{"params": []}]), ValueError, "without parameters"),
    (lambda: optim.SGD({weight(2)}), TypeError, "set"),
    (lambda: optim.SGD([{"params": {weight(2)}}]), TypeError, "set"),
    (lambda: optim.SGD(3), TypeError, "iterable"),
    (lambda: optim.SGD([3]), TypeError, "must be a Tensor, got int"),
    (lambda: optim.SGD([weight(2) * 2]), ValueError, "leaf"),
    (lambda: optim.SGD([tg.tensor([1])]), TypeError, "float32, float64 or float16"),
    (lambda: optim.SGD([w := weight(2), w]), ValueError, "twice"),
    (lambda: optim.SGD([{"params": [w := weight(2)]}, {"params": [w]}]), ValueError, "already in group 0"),
    (lambda: optim.SGD([("a", weight(1)), weight(1)]), ValueError, "either all"),
    (lambda: optim.SGD([{"params": [("a", weight(1))]}, {"params": [weight(1)]}]), ValueError, "either all groups"),
    (lambda: optim.SGD([{"params": [weight(1)], "learning_rate": 5}]), ValueError,
     "'learning_rate'; the options are lr"),
    (lambda: optim.SGD([{"params": [weight(1)], "lr": -3}]), ValueError, r"SGD: lr must lie in \[0, inf\), got -3"),
    (lambda: optim.SGD([{"lr": 1}]), TypeError, "'params'"),
    (lambda: optim.SGD([weight(1)], lr=float("nan")), ValueError, "got nan"),
    (lambda: optim.SGD([weight(1)], lr=float("inf")), ValueError, "got inf"),
    (lambda: optim.SGD([weight(1)], lr="fast"), TypeError, "must be a number"),
    (lambda: optim.SGD([weight(1)], lr=None), TypeError, "must be a number"),
    (lambda: optim.SGD([weight(1)], momentum=-1), ValueError, "momentum must lie"),
    (lambda: optim.SGD([weight(1)], weight_decay=-1), ValueError, "weight_decay must lie"),
    (lambda: optim.SGD([weight(1)], nesterov=True), ValueError, "nesterov needs momentum > 0"),
    (lambda: optim.SGD([weight(1)], nesterov=True, momentum=0.9, dampening=0.1), ValueError, "dampening = 0"),
    (lambda: optim.Adam([weight(1)], betas=(1.0, 0.9)), ValueError, r"Adam: beta1 must lie in \[0, 1\), got 1.0"),
    (lambda: optim.Adam([weight(1)], betas=(0.9, -0.1)), ValueError, "beta2 must lie"),
    (lambda: optim.Adam([weight(1)], betas=0.9), ValueError, "betas needs 2 numbers"),
    (lambda: optim.Adam([weight(1)], betas=(0.9,)), ValueError, "betas needs 2 numbers"),
    (lambda: optim.Adam([weight(1)], eps=-1), ValueError, "eps must lie"),
    (lambda: optim.AdamW([weight(1)], eps=float("nan")), ValueError, "eps must lie"),
    (lambda: optim.RMSprop([weight(1)], alpha=-0.1), ValueError, "alpha must lie"),
    (lambda: optim.Optimizer([weight(1)], {}).formula(), NotImplementedError, "rule"),
]


@pytest.mark.parametrize("call, error, words", CONSTRUCTION, ids=[words for _, _, words in CONSTRUCTION])
def test_bad_input_says_what_came_and_what_to_do(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_zero_lr_is_legal_and_an_option_is_checked_when_it_changes():
    p = weight(2)
    optimizer = optim.Adam([p], lr=0)
    p.grad = tg.ones(2)
    optimizer.step()
    assert p.tolist() == [1, 1]
    optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.raises(ValueError, match="lr must lie"):
        optimizer.step()
    assert p.tolist() == [1, 1] and optimizer.state[p]["step"] == 1


def test_add_param_group_refuses_without_a_trace():
    p, q = weight(2), weight(2)
    optimizer = optim.SGD([p])
    for bad in ({"params": [p]}, {"params": [q], "lr": -1}, {"params": [q], "typo": 1}, [q]):
        with pytest.raises((TypeError, ValueError)):
            optimizer.add_param_group(bad)
    assert len(optimizer.param_groups) == 1
    mine = {"params": [q], "lr": 0.5}
    optimizer.add_param_group(mine)
    assert optimizer.param_groups[1]["lr"] == 0.5 and mine == {"params": [q], "lr": 0.5}


def test_lr_reads_and_scales_every_group():
    optimizer = optim.SGD([{"params": [weight(1)], "lr": 1.0}, {"params": [weight(1)], "lr": 0.1}])
    optimizer.lr *= 0.5
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.05]
    with pytest.raises(ValueError, match="lr must lie"):
        optimizer.lr = -1
    alike = optim.SGD([{"params": [weight(1)]}, {"params": [weight(1)]}], lr=0.2)
    alike.lr = 0.3
    assert [g["lr"] for g in alike.param_groups] == [0.3, 0.3]


def test_zero_grad_none_freezes_and_zero_does_not():
    """With momentum and decay a zero gradient still moves the weight."""
    moved = {}
    for to_none in (True, False):
        p = weight(1)
        optimizer = optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1)
        p.grad = tg.ones(1)
        optimizer.step()
        before = p.item()
        optimizer.zero_grad(set_to_none=to_none)
        optimizer.step()
        moved[to_none] = p.item() != before
    assert moved == {True: False, False: True}


def test_closure_returns_its_loss_and_runs_with_gradients():
    p = weight(2)
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p ** 2).sum()
        loss.backward()
        return loss
    with tg.no_grad():
        assert optimizer.step(closure).item() == 2
    assert p.tolist() == pytest.approx([0.8, 0.8])
    assert optimizer.step() is None


def test_hooks_run_in_order_and_can_be_removed():
    seen = []
    p = weight(1)
    optimizer = optim.SGD([p], lr=0.1)
    handles = [optim.register_optimizer_step_pre_hook(lambda o, a, k: seen.append("global pre")),
               optimizer.register_step_pre_hook(lambda o, a, k: seen.append("pre")),
               optimizer.register_step_post_hook(lambda o, a, k: seen.append("post")),
               optim.register_optimizer_step_post_hook(lambda o, a, k: seen.append("global post")),
               optimizer.register_state_dict_post_hook(lambda o, s: {**s, "extra": 1}),
               optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append("load"))]
    p.grad = tg.ones(1)
    optimizer.step()
    assert seen == ["global pre", "pre", "post", "global post"]
    assert optimizer.state_dict()["extra"] == 1
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen[-1] == "load"
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert len(seen) == 5 and "extra" not in optimizer.state_dict()
    handle = optimizer.register_step_pre_hook(lambda o, a, k: 3)
    with pytest.raises(RuntimeError, match="None or"):
        optimizer.step()
    handle.remove()


def test_repr_lists_the_options():
    text = repr(optim.SGD([weight(1)], lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n    lr: 0.5\n")


def test_nan_in_training_is_one_warning_that_names_the_parameter():
    a, b = weight(2), weight(3)
    optimizer = optim.SGD([("first", a), ("second", b)], lr=0.1)
    with pytest.warns(RuntimeWarning, match="parameter second, shape \\(3,\\), has become NaN at step") as caught:
        for _ in range(70):                                 # a GPU is looked at once in a while
            a.grad, b.grad = tg.ones(2), tg.tensor([1.0, math.nan, 1.0])
            optimizer.step()
    assert len(caught) == 1
    assert np.isnan(b.numpy()).tolist() == [False, True, False] and not np.isnan(a.numpy()).any()


def test_the_state_of_adam_is_two_arrays():
    p = weight(1000)
    optimizer = optim.Adam([p])
    p.grad = tg.ones(1000)
    optimizer.step()
    state = optimizer.state[p]
    assert sorted(state) == ["exp_avg", "exp_avg_sq", "step"] and state["step"] == 1
    assert sum(s.data.nbytes for k, s in state.items() if k != "step") == 2 * p.data.nbytes


def test_a_large_parameter_is_shared_by_threads_without_a_difference():
    n = 3 * 2 ** 20 + 5                                       # no cache holds it
    random = np.random.default_rng(0)
    whole = tg.Tensor(random.standard_normal(n).astype("float32"), requires_grad=True)
    parts = [tg.Tensor(whole.numpy()[k:k + 100000], requires_grad=True) for k in range(0, n, 100000)]
    g = random.standard_normal(n).astype("float32")
    one, many = optim.Adam([whole]), [optim.Adam([p]) for p in parts]
    whole.grad = g
    for k, p in enumerate(parts):
        p.grad = g[100000 * k:100000 * (k + 1)]
    for optimizer in (one, *many):
        optimizer.step()
    same([whole.numpy()], [np.concatenate([p.numpy() for p in parts])])
