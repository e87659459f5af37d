"""State of optimizers: saved and read back, refused where it does not fit, exchanged with PyTorch."""

import copy
import re
import sys

import numpy as np
import pytest
from _optimizers import NAMES, TABLE, label, make, parameters, run, same

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim.interchange import COMMON, from_torch, to_torch
from tinygrad_opt.optim.state import expected

MATRICES = [
    ("Adafactor", {}), ("Adafactor", dict(weight_decay=0.1)), ("Muon", {}), ("Muon", dict(nesterov=False)),
    ("Shampoo", {}), ("Shampoo", dict(momentum=0.9, update_freq=2)),
    ("SOAP", {}), ("SOAP", dict(precondition_1d=True, max_precond_dim=4)),
]
ROWS = [*TABLE, *(row for row in MATRICES if row[0] not in NAMES)]


def each_of(names):
    rows = [row for row in ROWS if row[0] in names]
    return pytest.mark.parametrize("name, options", rows, ids=[label(*row) for row in rows])


each = each_of(optim.OPTIMIZERS)


def weight(*shape, dtype="float64"):
    return tg.ones(*shape, requires_grad=True, dtype=dtype)


def plain(value):
    """Return a state with arrays as nested lists beside their dtype, to be compared."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return (str(value.dtype), value.shape, value.tolist()) if isinstance(value, tg.Tensor) else value


def trained(name, options, dtype="float64", steps=3):
    params = [p for p in parameters(dtype) if p.ndim == 2 or name != "Muon"]
    optimizer = make(name, options, params)
    run(optimizer, params, steps)
    return optimizer, params


def twin_of(optimizer, name, options, lr=1.0):
    """Return another optimizer of parameters that are the same now."""
    fresh = [tg.Tensor(p.numpy().copy(), requires_grad=True) for g in optimizer.param_groups for p in g["params"]]
    return make(name, options, fresh, lr=lr), fresh


def refused(optimizer, state, words):
    before = copy.deepcopy(plain(optimizer.state_dict()))
    with pytest.raises(ValueError, match=words):
        optimizer.load_state_dict(state)
    assert plain(optimizer.state_dict()) == before


# ---- every optimizer ------------------------------------------------------------------------------------------


def test_the_rows_are_all_optimizers():
    assert set(dict(ROWS)) == set(optim.OPTIMIZERS) >= set(COMMON) - {"LBFGS"}


@each
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_round_trip_is_exact(name, options, dtype):
    optimizer, params = trained(name, options, dtype)
    twin, fresh = twin_of(optimizer, name, options)
    twin.load_state_dict(optimizer.state_dict())
    assert plain(twin.state_dict()) == plain(optimizer.state_dict())
    same(run(twin, fresh, 3, seed=2), run(optimizer, params, 3, seed=2))


def stretched(value, like):
    """Return each copy of a value of the state in which one array has an axis too many."""
    if isinstance(value, list):
        return [[*value[:k], other, *value[k + 1:]] for k, (part, own) in enumerate(zip(value, like))
                for other in stretched(part, own)]
    return [value.numpy()[None]] if isinstance(like, tg.Tensor) else []


@each
def test_keys_and_shapes_are_checked(name, options):
    optimizer, params = trained(name, options)
    saved, twin = optimizer.state_dict(), twin_of(optimizer, name, options)[0]
    number = len(saved["state"]) // 2
    entry, form = saved["state"][number], expected(optimizer, optimizer.param_groups[0], params[number])

    def with_entry(entry):
        return {**saved, "state": {**saved["state"], number: entry}}

    assert entry.keys() == form.keys()
    where = f"of parameter number {number} of group 0"
    refused(twin, with_entry({**entry, "surplus": 1.0}), f"state {where}, surplus is not kept")
    for key, value in entry.items():
        refused(twin, with_entry({k: v for k, v in entry.items() if k != key}), f"state {where}, {key} is missing")
        for other in stretched(value, form[key]):
            refused(twin, with_entry({**entry, key: other}), f"saved {key} {where}.* has shape \\(1, .* not")
        if not isinstance(value, (tg.Tensor, list)):
            refused(twin, with_entry({**entry, key: [1.0, 2.0]}), f"saved {key} {where} is one number")
        refused(twin, with_entry({**entry, key: "much"}), f"saved {key} {where} (has no numbers|is not a list)")
    twin.load_state_dict(saved)
    assert plain(twin.state_dict()) == plain(saved)


# ---- what is refused, and what strict=False takes ---------------------------------------------------------------


def state_of(cls, *shapes, names=None, **options):
    params = [weight(*shape) for shape in shapes]
    optimizer = cls(list(zip(names, params)) if names else params, **options)
    for k, p in enumerate(params, start=1):
        p.grad = tg.full(p.shape, float(k), dtype="float64")
    optimizer.step()
    return optimizer


def adam(*names, size=2, **options):
    return state_of(optim.Adam, *[(size,)] * len(names), names=names, **options)


def test_loading_matches_names_in_any_order():
    saved = state_of(optim.Adam, (2,), (3,), names=["a", "b"]).state_dict()
    other = state_of(optim.Adam, (3,), (2,), names=["b", "a"])
    other.load_state_dict(saved)
    shapes = [other.state[p]["exp_avg"].shape for p in other.param_groups[0]["params"]]
    assert shapes == [(3,), (2,)] and other.param_groups[0]["param_names"] == ["b", "a"]


def test_loading_copies():
    optimizer = state_of(optim.Adam, (2,))
    saved = optimizer.state_dict()
    other = state_of(optim.Adam, (2,))
    other.load_state_dict(saved)
    before = saved["state"][0]["exp_avg"].numpy().copy()
    other.step()
    np.testing.assert_array_equal(saved["state"][0]["exp_avg"].numpy(), before)


@pytest.mark.parametrize("make_state, words", [
    (lambda: state_of(optim.SGD, (2,), momentum=0.9).state_dict(), "this is the state of SGD; load it into that"),
    (lambda: state_of(optim.Adam, (2,), (3,), names="ab").state_dict(), "1 parameters, the saved one 2"),
    (lambda: state_of(optim.Adam, (2,), names="b").state_dict(), "has no state for a; it has b"),
    (lambda: {"state": {}, "param_groups": []}, "has 1 groups, the saved state 0"),
    (lambda: {"state": {}, "param_groups": [{"params": [0], "lr": -1.0}]}, "lr must lie"),
    (lambda: {"state": {}, "param_groups": [{"params": [0], "speed": 1}]}, "options speed, unknown to this optimizer"),
])
def test_a_state_that_does_not_fit_changes_nothing(make_state, words):
    refused(adam("a"), make_state(), words)


def test_a_number_of_no_group_is_refused():
    saved = adam("a").state_dict()
    saved["state"][7] = saved["state"][0]
    refused(adam("a"), saved, "number 7, which is in no saved group")


@pytest.mark.parametrize("count", [-1, 1.5, float("nan"), "many", [1, 2]])
def test_a_count_of_steps_is_a_whole_number(count):
    saved = adam("a").state_dict()
    refused(adam("a"), {**saved, "step_count": count}, "step_count")
    refused(adam("a"), {**saved, "state": {0: {**saved["state"][0], "step": count}}}, "saved step of parameter a")


@pytest.mark.parametrize("state", [
    None, [], {"state": [], "param_groups": []}, {"state": {}, "param_groups": {}},
    {"state": {}, "param_groups": [[0]]}, {"state": {}, "param_groups": [{"params": 0}]},
    {"state": {0: []}, "param_groups": [{"params": [0]}]}])
def test_what_is_no_saved_state_is_refused(state):
    refused(adam("a"), state, "a saved state is a dict with 'state', a dict of dicts, and 'param_groups'")


def test_an_option_out_of_range_is_refused_without_strict_too():
    saved, optimizer = adam("a").state_dict(), adam("a")
    saved["param_groups"][0]["betas"] = (0.9, 1.0)
    before = plain(optimizer.state_dict())
    for strict in (True, False):
        with pytest.raises(ValueError, match="beta2 must lie in"):
            optimizer.load_state_dict(saved, strict=strict)
    assert plain(optimizer.state_dict()) == before


def test_without_strict_parameters_are_matched_by_name_and_the_rest_is_named():
    saved, optimizer = adam("a", "b", "old").state_dict(), adam("new", "b", "a")
    refused(optimizer, saved, "has no state for new")
    with pytest.warns(UserWarning) as caught:
        optimizer.load_state_dict(saved, strict=False)
    assert str(caught[0].message) == ("Adam: what did not fit was left out: nothing is saved for new; there is no "
                                      "parameter here for old")
    assert caught[0].filename == __file__
    new, b, a = optimizer.param_groups[0]["params"]
    assert new not in optimizer.state
    assert [plain(optimizer.state[p]) for p in (a, b)] == [plain(saved["state"][n]) for n in (0, 1)]


def test_without_strict_another_number_of_groups_is_taken_by_name():
    saved, optimizer = adam("a", "b", lr=0.5).state_dict(), adam("b")
    optimizer.add_param_group({"params": [("a", weight(2))], "lr": 0.1})
    optimizer.load_state_dict(saved, strict=False)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert plain(optimizer.state[optimizer.param_groups[1]["params"][0]]) == plain(saved["state"][0])


def test_without_names_counts_must_agree():
    one, two = optim.SGD([weight(2)]), optim.SGD([weight(2), weight(2)])
    for strict in (True, False):
        with pytest.raises(ValueError, match="group 0 has 1 parameters, the saved one 2"):
            one.load_state_dict(two.state_dict(), strict=strict)


def test_without_strict_a_parameter_of_another_shape_starts_anew():
    optimizer = adam("a", size=3)
    with pytest.warns(UserWarning, match=re.escape("saved exp_avg of parameter a has shape (2,), not (3,)")):
        optimizer.load_state_dict(adam("a").state_dict(), strict=False)
    assert not optimizer.state
    optimizer.step()
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["step"] == 1


def test_without_strict_a_missing_key_starts_anew_and_an_unknown_one_goes():
    saved, optimizer = adam("a").state_dict(), adam("a", amsgrad=True)
    saved["param_groups"][0]["amsgrad"] = True
    refused(optimizer, saved, "max_exp_avg_sq is missing")
    saved["state"][0]["note"] = 1.0
    with pytest.warns(UserWarning, match="note is not kept by this optimizer; .* max_exp_avg_sq is missing"):
        optimizer.load_state_dict(saved, strict=False)
    p = optimizer.param_groups[0]["params"][0]
    assert optimizer.state[p].keys() == {"step", "exp_avg", "exp_avg_sq"}
    optimizer.step()
    assert optimizer.state[p]["step"] == 2 and optimizer.state[p]["max_exp_avg_sq"].shape == (2,)


@pytest.mark.filterwarnings("ignore:.*did not fit was left out")
def test_without_strict_the_state_of_another_class_gives_its_options():
    sgd = optim.SGD([("a", p := weight(2))], lr=0.5, momentum=0.9)
    p.grad = tg.ones(2, dtype="float64")
    sgd.step()
    optimizer = adam("a")
    with pytest.raises(ValueError, match="this is the state of SGD"):
        optimizer.load_state_dict(sgd.state_dict())
    optimizer.load_state_dict(sgd.state_dict(), strict=False)
    assert optimizer.lr == 0.5 and not optimizer.state


def test_what_a_rule_of_the_class_no_longer_uses_stays():
    optimizer = adam("a", amsgrad=True)
    optimizer.param_groups[0]["amsgrad"] = False
    again = adam("a")
    again.load_state_dict(optimizer.state_dict())
    assert plain(again.state_dict()) == plain(optimizer.state_dict())


@pytest.mark.parametrize("wrap", [optim.Accumulate, optim.Lookahead])
def test_what_wrappers_keep_is_saved(wrap):
    def make_one():
        return wrap(optim.Adam([weight(2)], lr=0.1), k=3)

    def train(optimizer, gradients):
        p = optimizer.param_groups[0]["params"][0]
        for g in gradients:
            p.grad = tg.tensor([g, -g], dtype="float64")
            optimizer.step()
        return p.tolist()

    straight, first, second = make_one(), make_one(), make_one()
    train(first, [1.0, 2.0, 3.0, 4.0])
    second.param_groups[0]["params"][0].data = first.param_groups[0]["params"][0].data
    second.load_state_dict(first.state_dict())
    assert train(second, [5.0, 6.0]) == train(straight, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def test_half_precision_keeps_its_master():
    p = weight(2, dtype="float16")
    optimizer = optim.SGD([p], lr=1e-4)
    p.grad = tg.ones(2, dtype="float16")
    optimizer.step()
    saved = optimizer.state_dict()
    assert str(saved["state"][0]["master"].dtype) == "float32"
    twin = optim.SGD([weight(2, dtype="float16")])
    twin.load_state_dict(saved)
    assert plain(twin.state_dict()) == plain(saved)
    refused(optim.SGD([weight(2, dtype="float16")]), {**saved, "state": {0: {"step": 1}}}, "master is missing")
    refused(optim.SGD([weight(2)]), saved, "master is not kept")


# ---- PyTorch --------------------------------------------------------------------------------------------------


@pytest.fixture
def torch(monkeypatch):
    """PyTorch, with scalar state in double, and without the rounding inside of its Muon."""
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    yield torch
    torch.set_default_dtype(torch.float32)


def both(name, options, torch):
    """Return an optimizer here and one there, of parameters that are the same."""
    random = np.random.default_rng(0)
    starts = [random.standard_normal(shape) for shape in [(3, 4), (5, 2)] + [(3,), ()] * (name != "Muon")]
    here = [tg.Tensor(start, requires_grad=True) for start in starts]
    there = [torch.tensor(start, requires_grad=True) for start in starts]
    return make(name, options, here), getattr(torch.optim, name)(there, lr=0.05, **options)


def params_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def train(optimizer, tensor, random):
    for n in range(5):
        for k, p in enumerate(params_of(optimizer)):
            g = random.standard_normal(tuple(p.shape))
            p.grad = None if (k, n) == (1, 2) else tensor(g)        # counts of steps differ
        optimizer.step()


@each_of(COMMON)
@pytest.mark.parametrize("direction", ["to", "from"])
def test_torch_takes_over_in_the_middle_and_hands_back(name, options, direction, torch):
    if not hasattr(torch.optim, name):
        pytest.skip(f"this PyTorch has no {name}")
    mine, theirs = both(name, options, torch)
    whole = both(name, options, torch)[1]
    random = np.random.default_rng(1)
    for _ in range(2):
        train(whole, torch.tensor, random)
    random = np.random.default_rng(1)
    first, last = (mine, theirs) if direction == "to" else (theirs, mine)
    tensors = {mine: tg.Tensor, theirs: torch.tensor}
    train(first, tensors[first], random)
    last.load_state_dict(to_torch(mine)) if last is theirs else from_torch(mine, theirs.state_dict())
    for p, q in zip(params_of(first), params_of(last)):
        q.data = tensors[last](p.detach().numpy().copy())
    train(last, tensors[last], random)
    for p, q in zip(params_of(last), params_of(whole)):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=0, atol=1e-10)


def test_torch_finds_its_own_keys(torch):
    optimizer = adam("a", "b", lr=0.25)
    optimizer.add_param_group({"params": [("c", weight(2))], "lr": 0.5})
    theirs = torch.optim.Adam([("a", torch.ones(2))])
    for g in theirs.param_groups:
        assert [group.keys() for group in to_torch(optimizer)["param_groups"]] == [g.keys()] * 2
    state = to_torch(optimizer)
    assert state["state"].keys() == {0, 1} and state["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert all(type(x) is torch.Tensor for x in state["state"][0].values()) and state["state"][0]["step"].shape == ()
    p = optimizer.param_groups[0]["params"][0]
    before = optimizer.state[p]["exp_avg"].tolist()
    state["state"][0]["exp_avg"].zero_()
    assert optimizer.state[p]["exp_avg"].tolist() == before                 # copies


def test_torch_states_are_matched_by_name(torch):
    q, r = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    theirs = torch.optim.AdamW([("q", q), ("r", r)], lr=torch.tensor(0.25))
    q.grad, r.grad = torch.ones(2), torch.ones(3)
    theirs.step()
    mine = optim.AdamW([("r", weight(3)), ("q", weight(2))])
    from_torch(mine, theirs.state_dict())
    assert [mine.state[p]["exp_avg"].shape for p in params_of(mine)] == [(3,), (2,)]
    assert mine.lr == 0.25 and type(mine.lr) is float and mine.step_count == 1


@pytest.mark.parametrize("theirs, mine", [("bfloat16", "float32"), ("float16", "float16")])
def test_torch_states_in_half_precision_are_read(theirs, mine):
    torch = pytest.importorskip("torch")
    there = torch.optim.Adam([q := torch.ones(2, requires_grad=True, dtype=getattr(torch, theirs))])
    q.grad = torch.ones_like(q)
    there.step()
    here = optim.Adam([p := weight(2, dtype=mine)])
    from_torch(here, there.state_dict())
    assert str(here.state[p]["exp_avg"].dtype) == "float32" and here.state[p]["step"] == 1
    np.testing.assert_allclose(here.state[p]["exp_avg"].numpy(), 0.1, rtol=1e-2)
    p.grad = tg.ones(2, dtype=mine)
    here.step()
    there.load_state_dict(to_torch(here))
    assert there.state[q]["exp_avg"].dtype == q.dtype and there.state[q]["step"].item() == 2


def test_torch_lacks_what_only_this_suite_has(torch):
    for convert in (to_torch, lambda o: from_torch(o, {"state": {}, "param_groups": []})):
        with pytest.raises(ValueError, match="PyTorch has no Lion with the same state"):
            convert(optim.Lion([weight(2)]))
        with pytest.raises(ValueError, match="PyTorch has no Lookahead .* call this of optimizer.optimizer"):
            convert(optim.Lookahead(optim.SGD([weight(2)])))


def test_a_state_for_torch_needs_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install torch, or save optimizer.state_dict\(\) with tg.save"):
        to_torch(optim.SGD([weight(2)]))
