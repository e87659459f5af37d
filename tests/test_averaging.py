"""Averages of parameters: AveragedModel and update_bn as in torch, and EMA attached to an optimizer."""

import copy
import pickle

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn, optim
from tinygrad_opt.optim import swa_utils
from tinygrad_opt.optim.swa_utils import (
    EMA,
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
    update_bn,
)


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def move(model, rng):
    """Give a model new parameters, and statistics of a new batch."""
    with tg.no_grad():
        for p in model.parameters():
            p.data = rng.standard_normal(p.shape).astype("float32")
        model(tg.tensor(rng.standard_normal((6, 3)).astype("float32")))


# ---- AveragedModel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("functions", [{}, {"avg_fn": get_swa_avg_fn()}, {"multi_avg_fn": get_swa_multi_avg_fn()}])
def test_the_default_is_the_mean_over_all_updates(functions):
    model, rng = nn.Linear(3, 2), np.random.default_rng(0)
    average, seen = AveragedModel(model, **functions), []
    for _ in range(5):
        model.weight.data = rng.standard_normal((2, 3)).astype("float32")
        average.update_parameters(model)
        seen.append(model.weight.numpy().copy())
    np.testing.assert_allclose(average.module.weight.numpy(), np.mean(seen, axis=0), rtol=1e-5, atol=1e-6)
    assert average.n_averaged.item() == 5


@pytest.mark.parametrize("functions", [{"avg_fn": get_ema_avg_fn(0.9)}, {"multi_avg_fn": get_ema_multi_avg_fn(0.9)}])
def test_an_exponential_average_by_hand(functions):
    model = nn.Linear(1, 1, bias=False)
    average, expected = AveragedModel(model, **functions), None
    for value in (1.0, 5.0, -3.0):
        model.weight.data = np.full((1, 1), value, "float32")
        average.update_parameters(model)
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_buffers_are_copied_or_averaged(use_buffers):
    model, rng = network(), np.random.default_rng(1)
    average, seen = AveragedModel(model, use_buffers=use_buffers), []
    for _ in range(3):
        move(model, rng)
        average.update_parameters(model)
        seen.append(model[1].running_mean.numpy().copy())
    expected = np.mean(seen, axis=0) if use_buffers else seen[-1]
    np.testing.assert_allclose(average.module[1].running_mean.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert average.module[1].num_batches_tracked.item() == (1 if use_buffers else 3)          # cut to whole numbers


def test_the_copy_is_a_module_of_its_own():
    model = network()
    average = AveragedModel(model)
    before = model[0].weight.numpy().copy()
    move(average.module, np.random.default_rng(2))
    np.testing.assert_array_equal(model[0].weight.numpy(), before)
    assert [name for name, _ in average.named_parameters()][0] == "module.0.weight"
    again = AveragedModel(model)
    again.load_state_dict(average.state_dict())
    x = tg.ones(2, 3)
    average.eval(), again.eval()
    assert again(x).tolist() == average(x).tolist() == pickle.loads(pickle.dumps(average))(x).tolist()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="avg_fn or multi_avg_fn"):
        AveragedModel(nn.Linear(1, 1), get_swa_avg_fn(), get_swa_multi_avg_fn())
    average = AveragedModel(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"weight has the shape \(2, 3\) in the model and \(2, 2\)"):
        average.update_parameters(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="bias has the shape None"):
        average.update_parameters(nn.Linear(2, 2, bias=False))
    assert average.n_averaged.item() == 0
    for make in (get_ema_avg_fn, get_ema_multi_avg_fn):
        with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\], got 1.5"):
            make(1.5)


KINDS = ("default", "ema", "swa", "multi_ema", "multi_swa")


@pytest.mark.parametrize("kind, use_buffers", [
    (kind, use_buffers) for kind in KINDS for use_buffers in (False, True)
    if (kind, use_buffers) != ("multi_swa", True)])              # torch refuses whole numbers there
def test_averages_are_those_of_torch(kind, use_buffers):
    torch = pytest.importorskip("torch")
    from torch.optim import swa_utils as theirs
    functions = {"default": lambda _: {}, "ema": lambda m: {"avg_fn": m.get_ema_avg_fn(0.9)},
                 "swa": lambda m: {"avg_fn": m.get_swa_avg_fn()},
                 "multi_ema": lambda m: {"multi_avg_fn": m.get_ema_multi_avg_fn(0.9)},
                 "multi_swa": lambda m: {"multi_avg_fn": m.get_swa_multi_avg_fn()}}[kind]
    ours, rng = network(), np.random.default_rng(3)
    reference = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    average = AveragedModel(ours, **functions(swa_utils), use_buffers=use_buffers)
    expected = theirs.AveragedModel(reference, **functions(theirs), use_buffers=use_buffers)
    for _ in range(4):
        move(ours, rng)
        reference.load_state_dict({name: torch.tensor(x.numpy()) for name, x in ours.state_dict().items()})
        average.update_parameters(ours)
        expected.update_parameters(reference)
    state = average.state_dict()
    assert set(state) == set(expected.state_dict())
    for name, x in expected.state_dict().items():
        np.testing.assert_allclose(state[name].numpy(), x.numpy(), rtol=1e-6, atol=1e-7, err_msg=name)


# ---- update_bn --------------------------------------------------------------------------------------------


def batches(rng, n=4):
    return [rng.standard_normal((8, 3)).astype("float32") for _ in range(n)]


def test_statistics_are_those_of_torch():
    torch = pytest.importorskip("torch")
    ours, data = network(), batches(np.random.default_rng(4))
    reference = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    reference.load_state_dict({name: torch.tensor(x.numpy()) for name, x in ours.state_dict().items()})
    update_bn([(tg.tensor(x), "label") for x in data], ours)
    torch.optim.swa_utils.update_bn([torch.tensor(x) for x in data], reference)
    for name, x in reference.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name].numpy(), x.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_modes_and_momenta_are_put_back():
    model = network().train()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    update_bn(map(tg.tensor, batches(np.random.default_rng(5))), model)
    assert model[1].num_batches_tracked.item() == 4
    with pytest.raises(ValueError):
        update_bn([tg.ones(2, 7)], model)
    assert [module.training for module in model.modules()] == modes and model[1].momentum == 0.1
    assert all(p.grad is None for p in model.parameters())


def test_an_empty_loader_changes_nothing():
    model = network()
    move(model, np.random.default_rng(6))
    before = model[1].running_mean.numpy().copy()
    with pytest.raises(ValueError, match="no batches"):
        update_bn(iter([]), model)
    np.testing.assert_array_equal(model[1].running_mean.numpy(), before)
    update_bn(None, nn.Linear(1, 1))                             # nothing to estimate: the loader is not touched


# ---- EMA --------------------------------------------------------------------------------------------------


def trained(steps=5, named=False, dtype="float32", **options):
    rng = np.random.default_rng(7)
    params = [tg.tensor(rng.standard_normal(shape), dtype=dtype, requires_grad=True) for shape in ((3,), (2, 2))]
    optimizer = optim.Adam(dict(zip("ab", params)) if named else params, lr=0.1)
    ema = EMA(optimizer, **options)
    trace = [[p.numpy().copy() for p in params]]
    for _ in range(steps):
        push(optimizer)
        trace.append([p.numpy().copy() for p in params])
    return optimizer, ema, trace


def push(optimizer):
    optimizer.zero_grad()
    sum((p ** 2).sum() for group in optimizer.param_groups for p in group["params"]).backward()
    optimizer.step()


def params_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999, 1.0])
def test_averages_by_hand(decay, warmup):
    optimizer, ema, trace = trained(decay=decay, warmup=warmup, dtype="float64")
    expected = trace[0]
    for t, now in enumerate(trace[1:], start=1):
        d = min(decay, (1 + t) / (10 + t)) if warmup else decay
        expected = [d * average + (1 - d) * p for average, p in zip(expected, now)]
    with ema.applied():
        for p, average in zip(params_of(optimizer), expected):
            np.testing.assert_allclose(p.numpy(), average, rtol=1e-12, atol=1e-15)


def test_without_warmup_it_is_the_averaged_model_of_torch():
    torch = pytest.importorskip("torch")
    optimizer, ema, trace = trained(steps=8, decay=0.9, warmup=False, dtype="float64")
    model = torch.nn.Module()
    model.a, model.b = (torch.nn.Parameter(torch.tensor(x)) for x in trace[0])
    average = torch.optim.swa_utils.AveragedModel(model, avg_fn=torch.optim.swa_utils.get_ema_avg_fn(0.9))
    for now in trace:
        model.a.data, model.b.data = map(torch.tensor, now)
        average.update_parameters(model)
    with ema.applied():
        for p, x in zip(params_of(optimizer), (average.module.a, average.module.b)):
            np.testing.assert_allclose(p.numpy(), x.detach().numpy(), rtol=1e-12)


def test_the_parameters_come_back_bit_for_bit():
    optimizer, ema, trace = trained()
    arrays = [p.data for p in params_of(optimizer)]
    with pytest.raises(KeyError):
        with ema.applied():
            assert not np.array_equal(params_of(optimizer)[0].numpy(), trace[-1][0])
            raise KeyError
    for p, array, last in zip(params_of(optimizer), arrays, trace[-1]):
        assert p.data is array and p.numpy().tobytes() == last.tobytes()
    with ema.applied():                                          # and it can be entered again
        pass


def test_training_goes_on_as_if_nothing_had_been_looked_at():
    plain, _, _ = trained()
    looked, ema, _ = trained()
    with ema.applied():
        pass
    push(plain), push(looked)
    for p, q in zip(params_of(plain), params_of(looked)):
        assert p.tolist() == q.tolist()


def test_a_graph_from_before_refuses_the_averages():
    optimizer, ema, _ = trained()
    loss = (params_of(optimizer)[0] ** 2).sum()
    with ema.applied(), pytest.raises(RuntimeError, match="written to"):
        loss.backward()


def test_what_must_not_be_done_inside():
    optimizer, ema, _ = trained()
    before = optimizer.step_count
    with ema.applied():
        with pytest.raises(RuntimeError, match="cannot be nested"):
            with ema.applied():
                pass
        with pytest.raises(RuntimeError, match="cannot step inside"):
            push(optimizer)
    assert optimizer.step_count == before
    push(optimizer)
    with pytest.raises(ValueError, match=r"EMA: decay must lie in \[0, 1\]"):
        EMA(optimizer, decay=-0.1)


def test_parameters_that_come_later():
    optimizer, ema, _ = trained(decay=0.5, warmup=False)
    w = tg.tensor([8.0], requires_grad=True)
    optimizer.add_param_group({"params": [w], "lr": 0.0})
    with ema.applied():
        assert w.item() == 8.0
    push(optimizer)
    assert set(ema.state_dict()["averages"]) == {0, 1, 2}


def test_averages_of_float16_are_float32():
    w, hooks = tg.tensor([1.0], dtype="float16", requires_grad=True), []

    class Holder:
        param_groups = [{"params": [w]}]

        def register_step_pre_hook(self, hook):
            pass

        def register_step_post_hook(self, hook):
            hooks.append(hook)
    ema = EMA(Holder(), warmup=False)
    w.data = np.full(1, 1 + 2**-10, "float16")
    hooks[0]()
    average = ema.state_dict()["averages"][0]
    assert average.dtype == "float32" and average.item() == pytest.approx(1 + 1e-3 * 2**-10, abs=1e-7) and average > 1
    with ema.applied():
        assert w.dtype == "float16" and w.item() == 1.0
    assert w.item() == 1 + 2**-10


def test_removed_it_stands_still():
    optimizer, ema, _ = trained()
    before = copy.deepcopy(ema.state_dict())
    ema.remove()
    push(optimizer)
    after = ema.state_dict()
    assert after["step_count"] == before["step_count"] == 5
    assert [x.tolist() for x in after["averages"].values()] == [x.tolist() for x in before["averages"].values()]


@pytest.mark.parametrize("named", [False, True])
def test_saving_and_going_on(named, tmp_path):
    optimizer, ema, _ = trained(steps=6, named=named)
    saved = ema.state_dict()
    assert list(saved["averages"]) == (["a", "b"] if named else [0, 1])
    tg.save(saved, tmp_path / "ema")
    other, again, _ = trained(steps=6, named=named, decay=0.5)
    again.load_state_dict(tg.load(tmp_path / "ema"))
    push(optimizer), push(other)
    assert again.decay == 0.999 and again.step_count == 7
    for x, y in zip(ema.state_dict()["averages"].values(), again.state_dict()["averages"].values()):
        assert x.tolist() == y.tolist()


def test_a_state_that_does_not_fit_changes_nothing():
    _, ema, _ = trained(named=True)
    before = copy.deepcopy(ema.state_dict())
    wrong = {**before, "averages": {"a": tg.zeros(4), "c": tg.zeros(1)}, "step_count": 99}
    with pytest.raises(ValueError, match=r"(?s)a: expected the shape \(3,\), got \(4,\).*missing: b.*unexpected: c"):
        ema.load_state_dict(wrong)
    with pytest.raises(ValueError, match="is a dict with averages, decay"):
        ema.load_state_dict({"averages": {}})
    with pytest.raises(ValueError, match="decay must lie in"):
        ema.load_state_dict({**before, "decay": 2.0})
    after = ema.state_dict()
    assert after["step_count"] == 5 and after["averages"]["a"].tolist() == before["averages"]["a"].tolist()
