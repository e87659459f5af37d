"""A record is of the run that would have been without one, to the bit, and goes out and back whole."""

import csv
import json

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab import Trace, record, surface
from tinygrad_opt.optim import OPTIMIZERS, SECOND_ORDER

PLAIN = [name for name in OPTIMIZERS if name not in ("Muon", "SophiaG", "SophiaH", "PolyakSGD")]


def by_hand(optimizer, f, w, steps):
    """Return the points of a run without a record, their losses and gradients."""
    points, losses, slopes = [w.numpy().copy()], [], []
    if hasattr(optimizer, "train"):
        optimizer.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = f(w)
        loss.backward()
        losses.append(loss.item())
        slopes.append(w.grad.numpy().copy())
        optimizer.step()
        points.append(w.numpy().copy())
    return points, losses, slopes


@pytest.mark.parametrize("name", PLAIN)
def test_the_record_is_of_the_same_run(name):
    f = surface("rosenbrock")
    trace = record(name, f, 12, lr=1e-3)
    w = tg.tensor(f.start, requires_grad=True)
    points, losses, slopes = by_hand(getattr(tg.optim, name)([w], lr=1e-3), f, w, 12)
    np.testing.assert_array_equal(trace.parameters["w"], points)
    np.testing.assert_array_equal(trace.loss[:-1], losses)
    np.testing.assert_array_equal(trace.gradients["w"], slopes)
    assert trace.evaluations.tolist() == list(range(1, 13)) and set(trace.lr) == {1e-3}


@pytest.mark.parametrize("name", [name for name in SECOND_ORDER if name in ("LBFGS", "NewtonCG", "TrustRegion",
                                                                            "AdaHessian")])
def test_methods_that_use_curvature_count_what_they_ask_for(name):
    trace = record(name, "ravine", 3)
    assert trace.loss[-1] < trace.loss[0] and trace.evaluations[-1] > 3
    assert trace.gradients["w"].shape == (3, 2)


def test_sam_pays_twice_and_starts_from_where_it_was():
    trace = record(lambda params: tg.optim.SAM(params, tg.optim.SGD, lr=0.01), "booth", 5)
    assert trace.evaluations.tolist() == [2, 4, 6, 8, 10] and trace.optimizer == "SAM"
    assert (trace.gradients["w"][0] != [-34, -38]).any() and trace.loss[0] == float(surface("booth")([-8.0, -6.0]))


def test_quantities_are_the_rules():
    trace = record("adam", "booth", 3, lr=0.1, betas=(0.5, 0.9))
    g = trace.gradients["w"]
    np.testing.assert_allclose(trace.quantities["w"]["m_hat"][0], g[0])
    np.testing.assert_allclose(trace.quantities["w"]["m"][1], 0.25 * g[0] + 0.5 * g[1])
    np.testing.assert_array_equal(trace.quantities["w"]["v"], trace.state["w"]["exp_avg_sq"])
    np.testing.assert_array_equal(trace.quantities["w"]["p"], trace.parameters["w"][1:])
    assert trace.quantities["w"]["t"].tolist() == [1, 2, 3] and trace.formula.startswith("g ← g + weight_decay·p")


def test_rates_are_effective():
    trace = record("sgd", "booth", 4, lr=0.01)
    np.testing.assert_allclose(trace.rates["w"], 0.01)
    assert trace.updates["w"].shape == (4, 2) and trace.path.shape == (5, 2)


def test_several_parameters_by_name():
    trace = record("sgd", lambda a, b: (a * b).sum(), 2, {"a": [1.0, 2.0], "b": 3.0}, lr=0.1)
    assert trace.path[0].tolist() == [1, 2, 3] and trace.parameters["b"].shape == (3,)
    np.testing.assert_allclose(trace.parameters["b"][1], 3 - 0.1 * 3, rtol=1e-6)


def test_a_model_is_trained_on_batches():
    x, y = tg.data.moons(64, generator=0)
    runs = []
    for recorded in (True, False):
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(2, 4), tg.nn.ReLU(), tg.nn.Dropout(0.5), tg.nn.Linear(4, 2))
        batches = tg.data.DataLoader(tg.data.TensorDataset(x, y), 24, shuffle=True, generator=0)
        if recorded:
            trace = record("adamw", model, 7, data=batches, loss=tg.cross_entropy, lr=0.05)
        else:
            optimizer, t = tg.optim.AdamW(model.parameters(), lr=0.05), 0
            while t < 7:
                for inputs, labels in batches:
                    if t < 7:
                        optimizer.zero_grad()
                        tg.cross_entropy(model(inputs), labels).backward()
                        optimizer.step()
                        t += 1
        runs.append([p.numpy() for p in model.parameters()])
    for a, b in zip(*runs):
        np.testing.assert_array_equal(a, b)
    assert list(trace.parameters) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert np.isnan(trace.loss[-1]) and "loss 0." in repr(trace)
    np.testing.assert_array_equal(trace.parameters["0.weight"][-1], runs[0][0])


def test_other_spellings_and_numbers_of_numpy_are_taken():
    plain = record("adam", "booth", 3, betas=(0.5, 0.999))
    assert equal(plain._tree(), record("adam", "booth", np.int64(3), beta1=0.5, fused=True)._tree())


@pytest.mark.parametrize("make", [lambda model: tg.optim.NewtonCG(model.named_parameters()),
                                  lambda model: tg.optim.TrustRegion(model.parameters()), tg.optim.NaturalGradient])
def test_methods_with_curvature_draw_the_same_numbers_in_a_record(make):
    x, y = tg.data.moons(16, generator=0)
    runs = []
    for recorded in (True, False):
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(2, 4), tg.nn.BatchNorm1d(4), tg.nn.Dropout(0.5), tg.nn.Linear(4, 2))
        optimizer = make(model)
        if recorded:
            assert record(optimizer, model, 2, data=(x, y), loss=tg.cross_entropy).gradients["0.weight"].all()
        else:
            for _ in range(2):
                optimizer.step(lambda: tg.cross_entropy(model(x), y))
        runs.append([value.numpy() for value in model.state_dict().values()])
    for a, b in zip(*runs):
        np.testing.assert_array_equal(a, b)


def test_what_the_loss_does_not_depend_on_has_no_gradient():
    trace = record("adam", lambda a, b: (a ** 2).sum(), 3, {"a": [1.0], "b": [2.0]})
    assert np.isnan(trace.gradients["b"]).all() and trace.gradients["b"].dtype == np.float32
    assert np.isnan(trace.columns()["b.gradient[0]"]).all() and (trace.parameters["b"] == 2).all()
    with pytest.raises(ValueError, match="b was not moved in step 0"):
        tg.lab.explain(trace, 0, "b")


def test_a_step_that_a_wrapper_leaves_out_is_none():
    trace = record(lambda params: tg.optim.Accumulate(tg.optim.SGD(params, lr=0.25), 2), lambda w: w.sum(), 4, [0.0])
    assert trace.path.ravel().tolist() == [0, 0, -0.25, -0.25, -0.5]
    assert trace.shares["w"]["gradient"].ravel().tolist() == [0, -0.25, 0, -0.25]
    np.testing.assert_array_equal(trace.gradients["w"].ravel(), [np.nan, 1, np.nan, 1])
    assert tg.lab.who_moved(trace).total == {"gradient": 0.5}
    with pytest.raises(ValueError, match="a wrapper left the step out"):
        tg.lab.explain(trace, 2)


def test_a_made_optimizer_goes_on():
    model = tg.nn.Linear(2, 1)
    x, y = tg.ones(3, 2), tg.zeros(3, 1)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    first = record(optimizer, model, 2, data=(x, y), loss=tg.mse_loss)
    second = record(optimizer, model, 2, data=(x, y), loss=tg.mse_loss)
    np.testing.assert_array_equal(first.parameters["weight"][-1], second.parameters["weight"][0])
    assert optimizer.step_count == 4 and not optimizer._remembers


def test_samples_depend_on_the_seed_alone():
    a, b, c = (record("sgd", "noisy_ravine", 5, lr=0.01, seed=seed).path for seed in (1, 1, 2))
    assert (a == b).all() and (a[1:] != c[1:]).any()


def test_walls_hold():
    trace = record("adam", "reddi", 60, lr=0.5, betas=(0, 0.1))
    assert np.abs(trace.path).max() <= 1 and trace.path[-1] == 1


def test_schedules_and_transforms_are_seen():
    trace = record("sgd", "booth", 4, lr=lambda t: 0.01 / (t + 1), grad_transforms=[tg.optim.ClipNorm(1.0)])
    np.testing.assert_allclose(trace.lr, [0.01, 0.005, 0.01 / 3, 0.0025])
    np.testing.assert_allclose(np.linalg.norm(trace.quantities["w"]["g"], axis=1), 1, rtol=1e-5)
    assert np.linalg.norm(trace.gradients["w"][0]) > 50


def equal(a, b):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return all(equal(a[key], b[key]) for key in a)
    return np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b


def test_out_and_back(tmp_path):
    trace = record("adamw", "himmelblau", 6, lr=0.1)
    assert equal(trace._tree(), Trace.load(trace.save(tmp_path / "run.npz"))._tree())
    assert not equal(trace._tree(), record("adamw", "himmelblau", 6, lr=0.2)._tree()), "the comparison can fail"
    said = json.loads(trace.to_json(tmp_path / "run.json"))
    assert said == json.loads((tmp_path / "run.json").read_text()) and said["parameters"]["w"][0] == [0.0, 0.0]
    with open(trace.to_csv(tmp_path / "run.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and float(rows[3]["w.m_hat[1]"]) == trace.quantities["w"]["m_hat"][3, 1]


def test_json_has_no_nan():
    with pytest.warns(RuntimeWarning, match="has become NaN"):
        trace = record("sgd", "rosenbrock", 9, lr=1.0)
    assert not np.isfinite(trace.loss).all()
    assert None in json.loads(trace.to_json())["loss"]


def test_what_is_no_trace_is_refused(tmp_path):
    tg.save({"loss": 1}, tmp_path / "other.npz")
    with pytest.raises(ValueError, match="not the record of a run"):
        Trace.load(tmp_path / "other.npz")


BAD = [
    (lambda: record("adm", "booth", 5), ValueError, "nearest are"),
    (lambda: record("adam", "both", 5), ValueError, "nearest are booth"),
    (lambda: record("adam", "booth", 0), ValueError, "at least 1, got 0"),
    (lambda: record("adam", "booth", 2.0), ValueError, "whole number"),
    (lambda: record("adam", lambda w: w * 2, 5, [1.0, 2.0]), TypeError, r"one number.*shape \(2,\)"),
    (lambda: record("adam", lambda w: 2.0, 5, [1.0]), TypeError, "returned float"),
    (lambda: record("adam", lambda w: tg.tensor(1.0), 5, [1.0]), TypeError, "does not depend"),
    (lambda: record("adam", lambda w: w.sum(), 5), TypeError, "needs start="),
    (lambda: record("adam", 3, 5), TypeError, "got int"),
    (lambda: record("adam", tg.nn.Linear(2, 1), 5), TypeError, "needs data="),
    (lambda: record("adam", tg.nn.ReLU(), 5, data=(tg.ones(1), tg.ones(1)), loss=tg.mse_loss), ValueError,
     "no parameter"),
    (lambda: record("adam", "booth", 5, data=(1, 2)), TypeError, "for models"),
    (lambda: record("adam", tg.nn.Linear(2, 1), 5, [1.0], data=(1, 2), loss=tg.mse_loss), TypeError, "own parameters"),
    (lambda: record("adam", tg.nn.Linear(2, 1), 1, data=[], loss=tg.mse_loss), ValueError, "no batches"),
    (lambda: record(lambda params: 3, "booth", 5), TypeError, "not an Optimizer"),
    (lambda: record(3, "booth", 5), TypeError, "got int"),
    (lambda: record(tg.optim.SGD([tg.ones(1, requires_grad=True)]), "booth", 5), ValueError, "not those"),
    (lambda: record("sgd", "booth", 5, beta=3), TypeError, "SGD has no option 'beta'; it takes lr, momentum"),
    (lambda: record(lambda params: tg.optim.SGD(params), "booth", 5, lr=1), TypeError, "no option 'lr'; it takes none"),
    (lambda: record(dict, "booth", 5), TypeError, "got dict"),
    (lambda: record("sgd", lambda w: w.sum(), 5, "here"), TypeError, "start must be numbers.*got 'here'"),
    (lambda: record("sgd", lambda w: w.sum(), 5, [[1.0], [1.0, 2.0]]), TypeError, "start must be numbers"),
    (lambda: record("sgd", lambda w: w.sum(), 5, []), ValueError, "start holds no number"),
    (lambda: record("sgd", lambda w: w.sum(), 5, {}), TypeError, "name such as"),
    (lambda: record("sgd", lambda w: w.sum(), 5, {"a": 1.0, "b": 2.0}), TypeError, "a, b, and does not take these"),
    (lambda: record("sgd", "booth", 5, [1.0, 2.0, 3.0]), ValueError, r"2 coordinates.*got shape \(3,\)"),
    (lambda: record("sgd", "noisy_ravine", 5, seed=-1), ValueError, "seed must be a whole number of at least 0"),
    (lambda: record("sgd", tg.nn.Linear(2, 1), 5, data=tg.ones(2, 2), loss=tg.mse_loss), TypeError, "got Tensor"),
    (lambda: record("sgd", tg.nn.Linear(2, 1), 5, data=[tg.ones(2, 2), tg.ones(2, 1)], loss=tg.mse_loss), TypeError,
     "each batch of data must be an .x, y., got Tensor"),
]


@pytest.mark.parametrize("call, kind, words", BAD, ids=range(len(BAD)))
def test_bad_input(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
