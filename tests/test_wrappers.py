"""What all wrappers have in common, and that each is nothing where it should be nothing."""

import copy
import math
import pickle

import numpy as np
import pytest
from _optimizers import parameters, same
from _wrappers import adam, fill, is_vector, named, run

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim.accumulate import Accumulate
from tinygrad_opt.optim.apply_if_finite import ApplyIfFinite
from tinygrad_opt.optim.freeze import Freeze
from tinygrad_opt.optim.lookahead import Lookahead
from tinygrad_opt.optim.lr_scheduler import StepLR
from tinygrad_opt.optim.multi import MultiOptimizer
from tinygrad_opt.optim.sam import SAM
from tinygrad_opt.optim.verify import records, replay

RECORDS = [(cls, record) for cls in (SAM, Lookahead) for record in records(cls.__name__)]


WRAPPED = {
    "SAM": lambda ps: SAM(ps, optim.Adam, rho=0.1, lr=0.05, weight_decay=0.1),
    "ASAM": lambda ps: SAM(ps, optim.SGD, rho=0.5, adaptive=True, lr=0.05, momentum=0.9),
    "Lookahead": lambda ps: Lookahead(adam(ps), k=3, alpha=0.7),
    "Accumulate": lambda ps: Accumulate(adam(ps), k=3),
    "ApplyIfFinite": lambda ps: ApplyIfFinite(adam(ps)),
    "Freeze": lambda ps: Freeze(adam(ps), is_vector),
    "MultiOptimizer": lambda ps: MultiOptimizer(named(ps), [(is_vector, adam), optim.RMSprop]),
    "nested": lambda ps: Accumulate(Lookahead(adam(ps), k=2), k=2),
    "finite": lambda ps: ApplyIfFinite(Freeze(Lookahead(adam(ps), k=2), is_vector)),
    "lookahead of two": lambda ps: Lookahead(MultiOptimizer(named(ps), [(is_vector, adam), optim.RMSprop]), k=2),
}
each = pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)


# ---- what all have in common ------------------------------------------------------------------------------


@each
def test_a_wrapper_behaves_as_an_optimizer(make):
    params = parameters()
    optimizer = make(params)
    assert isinstance(optimizer, optim.Optimizer)
    assert {p for group in optimizer.param_groups for p in group["params"]} == set(params)
    before = [group["lr"] for group in optimizer.param_groups]
    optimizer.lr *= 0.5
    assert [group["lr"] for group in optimizer.param_groups] == [lr / 2 for lr in before]
    assert "p ← " in optimizer.formula("text") and "def host" in optimizer.source("numpy")
    last = len(optimizer.param_groups) - 1
    assert "p ← " in optimizer.formula("text", last)
    run(optimizer, params, 6)
    assert optimizer.step_count in (6, 3, 2) and optimizer.skipped == 0
    assert optimizer.state[params[2]]["step"] == optimizer.step_count
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    assert type(optimizer).__name__ in repr(optimizer) and "Parameter Group 0" in repr(optimizer)


@each
def test_state_dict_continues_bit_for_bit(make, tmp_path):
    params = parameters()
    optimizer = make(params)
    run(optimizer, params, 7)
    tg.save({"model": [p.detach() for p in params], "optimizer": optimizer.state_dict()}, tmp_path / "c.npz")
    saved = tg.load(tmp_path / "c.npz")
    fresh = [tg.Tensor(p.numpy(), requires_grad=True) for p in saved["model"]]
    again = make(fresh)
    again.lr = 1.0
    again.load_state_dict(saved["optimizer"])
    assert again.step_count == optimizer.step_count and again.lr == optimizer.lr
    same(run(again, fresh, 8, seed=2), run(optimizer, params, 8, seed=2))


@each
def test_copy_and_pickle_together_with_the_parameters(make):
    params = parameters()
    optimizer = make(params)
    run(optimizer, params, 4)
    twins = [copy.deepcopy((optimizer, params))]
    if "Multi" not in repr(optimizer):                      # no: it holds no predicate
        twins.append(pickle.loads(pickle.dumps((optimizer, params))))
    straight = run(optimizer, params, 5, seed=5)
    for twin, ps in twins:
        same(run(twin, ps, 5, seed=5), straight)


@each
def test_a_state_of_another_kind_changes_nothing(make):
    params = parameters()
    optimizer = make(params)
    run(optimizer, params, 4)
    before, other = copy.deepcopy(optimizer.state_dict()), optim.Adadelta(params).state_dict()
    good = optimizer.state_dict()
    wrapped = [good["wrapped"][0], other] if isinstance(good["wrapped"], list) else other
    for bad in (other, 3, {**good, "wrapped": wrapped}, {**good, "wrapped": []}):
        with pytest.raises(ValueError, match="state"):
            optimizer.load_state_dict(bad)
    assert repr(optimizer.state_dict()) == repr(before)


def test_a_state_that_fits_in_part_is_taken_back():
    params, other = parameters(), parameters()

    def two(ps):
        return Accumulate(MultiOptimizer(named(ps), [(is_vector, adam), optim.RMSprop]), k=3)
    optimizer, donor = two(params), two(other)
    run(optimizer, params, 3)
    run(donor, other, 7, seed=2)
    before, given = copy.deepcopy(optimizer.state_dict()), donor.state_dict()
    adams, rest = given["wrapped"]["wrapped"]
    bad = {**given, "wrapped": {**given["wrapped"], "wrapped": [adams, {**rest, "optimizer": "Lion"}]}}
    with pytest.raises(ValueError, match="Lion"):
        optimizer.load_state_dict(bad)
    assert repr(optimizer.state_dict()) == repr(before)


@each
def test_a_schedule_works_on_it(make):
    params = parameters()
    optimizer = make(params)
    schedule = StepLR(optimizer, step_size=1, gamma=0.5)
    before = [group["lr"] for group in optimizer.param_groups]
    for _ in range(2):
        run(optimizer, params, 4)
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [lr / 4 for lr in before]


@each
def test_hooks_run_at_real_steps(make):
    params, seen = parameters(), []
    optimizer = make(params)
    handles = [optimizer.register_step_pre_hook(lambda o, a, k: seen.append("pre")),
               optimizer.register_step_post_hook(lambda o, a, k: seen.append("post"))]
    run(optimizer, params, 6)
    assert seen == ["pre", "post"] * optimizer.step_count
    for handle in handles:
        handle.remove()
    run(optimizer, params, 6)
    assert len(seen) == optimizer.step_count


@each
def test_groups_can_be_added(make):
    params = parameters()
    optimizer = make(params)
    q = tg.ones(3, requires_grad=True)
    group = {"params": [q], "lr": 0.5}
    if "Multi" in repr(optimizer):
        with pytest.raises(TypeError, match="one of the optimizers"):
            optimizer.add_param_group(group)
        return
    optimizer.add_param_group(group)
    run(optimizer, [*params, q], 6)
    assert optimizer.param_groups[1]["lr"] == 0.5 and bool((q != 1).all())


@pytest.mark.parametrize("cls, record", RECORDS, ids=[record.id for _, record in RECORDS])
def test_recorded_runs(cls, record):
    result = replay(cls, cls.__name__, record)
    assert result.ok, result.largest


NOTHING = {
    "Lookahead(alpha=1)": lambda ps: Lookahead(adam(ps), k=2, alpha=1),
    "Accumulate(k=1)": lambda ps: Accumulate(adam(ps), k=1),
    "ApplyIfFinite": lambda ps: ApplyIfFinite(adam(ps)),
    "MultiOptimizer of one": lambda ps: MultiOptimizer(named(ps), [adam]),
    "all of them": lambda ps: ApplyIfFinite(Accumulate(Lookahead(MultiOptimizer(named(ps), [adam]), alpha=1), k=1)),
}


@pytest.mark.parametrize("make", NOTHING.values(), ids=NOTHING)
def test_it_is_what_it_wraps_to_the_bit(make):
    same(run(make(ps := parameters("float32")), ps, 20), run(adam(qs := parameters("float32")), qs, 20))


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_with_rho_0_is_its_base_to_the_bit(adaptive):
    ps, qs = parameters("float32"), parameters("float32")
    a, b = SAM(ps, optim.Adam, rho=0, adaptive=adaptive, lr=0.05), optim.Adam(qs, lr=0.05)
    random = np.random.default_rng(0)
    for _ in range(10):
        fill(ps, random)
        for p, q in zip(ps, qs):
            q.grad = p.grad
        a.first_step()
        same([p.numpy() for p in ps], [q.numpy() for q in qs])
        a.second_step()
        b.step()
        same([p.numpy() for p in ps], [q.numpy() for q in qs])


@pytest.mark.parametrize("wrap", [Lookahead, lambda x: Accumulate(x, 2), ApplyIfFinite,
                                  lambda x: Freeze(x, lambda name, p: True)])
def test_only_an_optimizer_can_be_wrapped(wrap):
    with pytest.raises(TypeError, match="wraps an Optimizer, got list"):
        wrap([tg.ones(2, requires_grad=True)])


@pytest.mark.parametrize("wrap, words", [
    (lambda x: Lookahead(x, k=0), r"Lookahead: k must lie in the whole numbers of \[1, inf\), got 0"),
    (lambda x: Lookahead(x, k=2.5), "got 2.5"),
    (lambda x: Lookahead(x, alpha=1.5), r"alpha must lie in \[0, 1\], got 1.5"),
    (lambda x: Accumulate(x, k=0), "Accumulate: k must lie"),
    (lambda x: Accumulate(x, k=math.inf), "got inf"),
    (lambda x: ApplyIfFinite(x, -1), "max_consecutive_errors must lie"),
    (lambda x: Freeze(x, lambda name, p: "head" in name), "holds for no parameter; they are 0 of group 0. If these"),
    (lambda x: SAM(x.param_groups[0]["params"], optim.SGD, rho=-1), r"SAM: rho must lie in \[0, inf\), got -1"),
], ids=["k", "k is whole", "alpha", "Accumulate", "infinite", "errors", "Freeze", "rho"])
def test_bad_numbers(wrap, words):
    with pytest.raises(ValueError, match=words):
        wrap(optim.SGD([tg.ones(2, requires_grad=True)]))


# ---- optax ------------------------------------------------------------------------------------------------


def optax_run(transformation, start, gradients, lookahead=False):
    """Return the parameters after each step of an optax optimizer, in double precision."""
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    with jax.enable_x64(True):
        optimizer = transformation(optax)
        p = jax.numpy.asarray(start)
        p = optax.LookaheadParams.init_synced(p) if lookahead else p
        state, path = optimizer.init(p), []
        for g in gradients:
            updates, state = optimizer.update(jax.numpy.asarray(g), state, p)
            p = optax.apply_updates(p, updates)
            path.append(np.asarray(p.fast if lookahead else p))
    return path


def our_run(wrap, start, gradients):
    p = tg.Tensor(start, requires_grad=True)
    optimizer, path = wrap([p]), []
    for g in gradients:
        p.grad = g
        optimizer.step()
        path.append(p.numpy().copy())
    return path


START, GRADIENTS = np.linspace(-1, 1, 7), np.random.default_rng(0).standard_normal((50, 7))
SPOILT = GRADIENTS.copy()
SPOILT[[3, 10, 11, 30], 2] = [np.nan, np.inf, np.nan, -np.inf]
SIDES = {
    "Lookahead": (lambda optax: optax.lookahead(optax.adam(0.05), 4, 0.3),
                  lambda ps: Lookahead(optim.Adam(ps, lr=0.05), 4, 0.3), GRADIENTS),
    "MultiSteps": (lambda optax: optax.MultiSteps(optax.adamw(0.05, weight_decay=0.1), 3, accumulator_dtype="float64"),
                   lambda ps: Accumulate(optim.AdamW(ps, lr=0.05, weight_decay=0.1), 3), GRADIENTS),
    "apply_if_finite": (lambda optax: optax.apply_if_finite(optax.adam(0.05), 2),
                        lambda ps: ApplyIfFinite(optim.Adam(ps, lr=0.05), 2), SPOILT),
}


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.filterwarnings("ignore:ApplyIfFinite")
def test_optax_agrees(name):
    theirs, ours, gradients = SIDES[name]
    wanted = optax_run(theirs, START, gradients, name == "Lookahead")
    np.testing.assert_allclose(our_run(ours, START, gradients), wanted, rtol=0, atol=1e-10)
