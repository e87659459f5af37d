"""Tuning: a seed fixes the trials, a killed search goes on as if it had not been, and a comparison is fair."""

import doctest
import importlib
import math
import os
import pkgutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from _tuning import SPACE, dying, failing, noisy_task, slow_staircase, staircase, valley

import tinygrad_opt as tg
from tinygrad_opt import lab, optim, tune
from tinygrad_opt.tune.comparison import _aligned, _quartiles
from tinygrad_opt.tune.spaces import names_in, read_space
from tinygrad_opt.tune.trials import Trial, evaluate

optuna = pytest.importorskip("optuna")
search = partial(tune.search, progress=False)


def drawn(found):
    return [(trial.values, trial.state, trial.value, trial.reports, trial.gradients) for trial in found.trials]


@pytest.mark.parametrize("name", ["tinygrad_opt.tune", *(f"tinygrad_opt.tune.{module.name}" for module in
                                                         pkgutil.iter_modules(tune.__path__))])
def test_docstrings(name):
    failures, _ = doctest.testmod(importlib.import_module(name))
    assert not failures


def test_lr_find_is_the_laboratory_s():
    assert tune.lr_find is lab.lr_find


# ---- spaces -------------------------------------------------------------------------------------------------------


def test_values_stay_in_their_space_and_come_with_their_choice():
    space = {**SPACE, "width": [(8,), (8, 8)], "n": tune.integer(1, 512, log=True), "act": [tg.relu, tg.tanh]}
    found = search(lambda trial: trial["x"], space, 60)
    for values in (trial.values for trial in found.trials):
        assert -4 <= values["x"] <= 4 and 1e-4 <= values["lr"] <= 1 and 1 <= values["n"] <= 512
        assert isinstance(values["n"], int)
        assert values["width"] in ((8,), (8, 8)) and values["act"] in (tg.relu, tg.tanh)
        assert (values["method"] == "sgd") == ("momentum" in values)
    first = [trial.values["lr"] for trial in search(lambda trial: 0, {"lr": tune.log(1e-4, 1.0)}, 60).trials]
    assert 15 < sum(lr < 1e-2 for lr in first) < 45             # half of them, by powers
    assert names_in(read_space(space)) == ["x", "lr", "method", "width", "n", "act", "momentum"]


@pytest.mark.parametrize("space, words", [
    (3, "space is a dict"), ({1: [2]}, "has a name"), ({"x": 3}, r"A list of one fixes it: \[3\]"),
    ({"x": []}, "one or more"), ({"x": [1, 1]}, "print differently"),
    ({"x": [1], "y": {"a": {"x": [2]}}}, "x could stand in a trial twice")])
def test_a_space_that_is_none(space, words):
    with pytest.raises((TypeError, ValueError), match=words):
        search(valley, space)


def test_intervals_that_are_none():
    for call in (lambda: tune.log(0, 1), lambda: tune.uniform(1, 1), lambda: tune.uniform(0, math.inf)):
        with pytest.raises(ValueError, match="low < high"):
            call()
    with pytest.raises(TypeError, match="whole numbers"):
        tune.integer(1, 2.5)


# ---- the search ---------------------------------------------------------------------------------------------------


def test_a_seed_fixes_the_trials():
    one, two, other = search(valley, SPACE, 25), search(valley, SPACE, 25), search(valley, SPACE, 25, seed=1)
    assert drawn(one) == drawn(two) != drawn(other)
    assert one.value == min(trial.value for trial in one.trials) == valley(Trial(0, one.best))


def test_it_learns():
    values = [trial.value for trial in search(valley, SPACE, 60).trials]
    assert np.median(values[-20:]) < np.median(values[:10]) / 2


def test_maximize_and_values_that_are_none():
    def objective(trial):
        return math.nan if trial["x"] < 0 else -trial["x"] ** 2
    found = search(objective, {"x": tune.uniform(-1, 1)}, 30, direction="maximize")
    assert found.value == -found.best["x"] ** 2 == max(trial.value for trial in found.trials)
    assert -math.inf in [trial.value for trial in found.trials]


@pytest.mark.parametrize("factor", [4, 2])
def test_pruning_is_successive_halving(factor):
    found = search(staircase, {"x": tune.uniform(-1, 1)}, 40, prune=True if factor == 4 else factor)
    reached = {}                                            # by rung, the values of who came there
    for trial in found.trials[1:]:                          # the first shows how long a trial is
        value, end = abs(trial.values["x"]), ("complete", 16)
        for rung in (factor ** k for k in range(5) if factor ** k <= 16):
            values = reached.setdefault(rung, [])
            values.append(value)
            if value > sorted(values)[max(1, len(values) // factor) - 1]:
                end = "pruned", rung
                break
        assert (trial.state, trial.gradients) == end
    assert 5 < sum(trial.state == "pruned" for trial in found.trials) < 40
    whole = search(staircase, {"x": tune.uniform(-1, 1)}, 9, prune=False)
    assert {trial.state for trial in whole.trials} == {"complete"}


def test_a_budget_is_the_end():
    assert search(valley, SPACE, 100, budget=100).gradients == 100      # which is not cut into
    found = search(staircase, {"x": tune.uniform(-1, 1)}, 100, prune=False, budget=40)
    assert [trial.gradients for trial in found.trials] == [16, 16, 9] and found.trials[-1].state == "pruned"
    with pytest.raises(ValueError, match="no trial was completed"):
        _ = search(valley, SPACE, budget=5).best


@pytest.mark.parametrize("storage", ["search.log", "sqlite:///{}/search.db"])
def test_a_stopped_search_goes_on(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = dict(storage=storage.format(tmp_path), budget=60)
    assert len(search(valley, SPACE, 3, **options).trials) == 3
    assert drawn(search(valley, SPACE, 5, **options)) == drawn(search(valley, SPACE, 5))
    done = search(valley, SPACE, 5, **options)                          # there is nothing left to do
    assert len(done.trials) == 5 and done.gradients == 50
    assert search(valley, SPACE, 30, **options).gradients == 60         # the budget counts what was spent before
    with pytest.raises(ValueError, match="has the space"):
        search(valley, {"x": [1, 2]}, 30, **options)
    with pytest.raises(ValueError, match="has the direction minimize"):
        search(valley, SPACE, 30, direction="maximize", **options)
    assert len(search(staircase, SPACE, 2, **options).trials) == 2      # has another name


def test_a_killed_search_goes_on(tmp_path):
    script = """
import os, signal, sys
from _tuning import *
def objective(trial):
    for step in range(4):
        trial.spend()
        trial.report(abs(trial["x"]))
        if trial.number == 13 and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return abs(trial["x"])
tune.search(objective, SPACE, 20, storage=sys.argv[1], prune=False, progress=False)
"""
    def objective(trial):
        for _ in range(4):
            trial.spend()
            trial.report(abs(trial["x"]))
        return abs(trial["x"])
    done = subprocess.run([sys.executable, "-c", script, "killed.log"], cwd=tmp_path, timeout=120, env={
        **os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(tg.__file__).parents[1]}"})
    assert done.returncode == -9
    found = search(objective, SPACE, 20, storage=tmp_path / "killed.log", prune=False)
    assert drawn(found) == drawn(search(objective, SPACE, 20, prune=False))
    assert [trial.number for trial in found.trials] == [*range(13), *range(14, 21)]
    assert found.gradients == 20 * 4 + 3                    # what the killed trial had spent is not forgotten


def test_processes():
    found = search(slow_staircase, {"x": tune.uniform(-1, 1)}, 12, jobs=2)
    assert len(found.trials) == 12 and len({trial.values["x"] for trial in found.trials}) == 12
    assert all(trial.value == abs(trial.values["x"]) for trial in found.trials)
    assert {trial.state for trial in found.trials} == {"pruned", "complete"}
    with pytest.raises(OSError, match="disk is full") as failure:
        search(failing, {"x": tune.uniform(-1, 1)}, 12, jobs=2)
    assert "in a worker" in "".join(failure.value.__notes__) and "in <trial 3: x=" in "".join(failure.value.__notes__)
    with pytest.raises(RuntimeError, match="worker of the search has ended"):
        search(dying, {"x": tune.uniform(-1, 1)}, 12, jobs=2)
    with pytest.raises(ValueError, match="top of a module"):
        search(lambda trial: 0, SPACE, jobs=2)


def test_ranks(tmp_path):
    path = tmp_path / "ranks.log"

    def rank(world, trials):
        return drawn(search(staircase, {"x": tune.uniform(-1, 1)}, trials, world=world, storage=path))
    tg.distributed.simulate(3, rank, 10)                                # goes on below
    one, *others = tg.distributed.simulate(3, rank, 20)
    assert all(other == one for other in others) and len({str(values) for values, *_ in one}) == len(one) == 20
    assert drawn(search(staircase, {"x": tune.uniform(-1, 1)}, 20, storage=path)) == one
    with pytest.raises(OSError, match="disk is full"):
        tg.distributed.simulate(2, lambda world: search(failing, {"x": [1.0]}, 9, world=world))


def test_errors():
    with pytest.raises(TypeError, match="returns a number") as failure:
        search(lambda trial: "good", {"x": [3]})
    assert failure.value.__notes__ == ["in <trial 0: x=3>"]
    with pytest.raises(KeyError, match="there is no hyper-parameter 'y' in this trial; it has x"):
        search(lambda trial: trial["y"], {"x": [3]})
    with pytest.raises(ValueError, match="steps of reports grow"):
        search(lambda trial: [trial.report(1, 2), trial.report(1, 2)], {"x": [3]})
    for wrong, words in ((dict(trials=0), "trials must be"), (dict(direction="up"), "direction must be"),
                         (dict(prune=1), "at least 2"), (dict(prune="yes"), "prune must be"),
                         (dict(budget=0), "budget must be"), (dict(jobs=0), "jobs must be")):
        with pytest.raises((ValueError, TypeError), match=words):
            search(valley, SPACE, **wrong)
    with pytest.raises(TypeError, match="objective must be"):
        search(3, SPACE)


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'tinygrad-opt\[tune\]'"):
        search(valley, SPACE)


def test_what_is_found_is_shown():
    found = search(valley, SPACE, 15)
    heading, columns, first, *_ = found.table(3).splitlines()
    assert heading == "valley: 15 trials, 150 gradients; the lowest first"
    assert columns.split() == ["trial", "value", "x", "lr", "method", "momentum"]
    assert len(found.table().splitlines()) == 12
    assert first.split()[:2] == ["1", str(found.best_trial.number)]
    assert set(found.importances()) == set(names_in(found.space))
    plane = {"y": tune.uniform(0, 1), "x": tune.uniform(-1, 1)}
    shares = search(lambda trial: trial["x"] ** 2, plane, 20).importances()
    assert list(shares) == ["x", "y"] and shares["x"] > 0.6 and math.isclose(sum(shares.values()), 1)
    picture = found.draw()
    assert [axes.get_title(loc="left") for axes in picture.axes] == ["trial", "x", "lr", "method", "momentum"]
    assert picture.axes[2].get_xscale() == "log" and picture.axes[1].get_xscale() == "linear"


# ---- the comparison -----------------------------------------------------------------------------------------------


def test_every_optimizer_has_the_same_means():
    tuned = ("sgd", {"momentum": tune.uniform(0, 0.99), "nesterov": True})
    found = tune.compare({"plain": "sgd", "heavy": tuned, "adam": ("adam", {"lr": 0.01}), "newton": "newton_cg"},
                         tune.tasks.surface("noisy_ravine", 40), trials=6, seeds=4, progress=False)
    assert {label: (len(s.trials), s.gradients) for label, s in found.searches.items()} == {
        "plain": (6, 240), "heavy": (6, 240)}
    assert found.options["adam"] == {"lr": 0.01} and found.options["newton"] == {}
    assert list(found.options["heavy"]) == ["lr", "momentum", "nesterov"]
    assert found.seeds == (1, 2, 3, 4) and len(set(found.values["heavy"])) == 4
    options = found.options["heavy"]
    reports = {}
    value = tune.tasks.surface("noisy_ravine", 40)(lambda params: optim.SGD(params, **options), 3,
                                                   lambda value, gradients: reports.update({gradients: value}))
    assert value == found.values["heavy"][2]                # by hand, the same to the bit
    places, heights = found.curves["heavy"]
    assert places.tolist() == list(reports) and heights[2].tolist() == list(reports.values())
    assert found.ranking()[0] == min(found.values, key=lambda label: sorted(found.values[label])[1:3][0])
    assert [line.split()[1] for line in found.table().splitlines()[2:]] == found.ranking()
    assert len(found.draw().axes[0].lines) == 4


def test_seeds_of_the_judgement_are_not_those_of_the_tuning():
    def make(params, lr):
        return lr
    found = tune.compare([make], noisy_task, trials=30, seeds=3, seed=7, progress=False)
    lr = found.options["make"]["lr"]
    assert found.values["make"].tolist() == [lr + 8, lr + 9, lr + 10] and found.quartiles("make")[1] == lr + 9
    assert {trial.value - trial.values["lr"] for trial in found.searches["make"].trials} == {7.0} and lr < 1e-3
    assert found.searches["make"].gradients == 90


def test_quartiles_and_curves():
    assert _quartiles(np.array([1.0, 2, 3, math.inf, math.inf])).tolist() == [2, 3, math.inf]
    places, heights = _aligned([{0: 5.0, 2: 3.0}, {0: 6.0, 3: 1.0}])
    assert places.tolist() == [0, 2, 3] and heights.tolist() == [[5, 3, 3], [6, 6, 1]]


@pytest.mark.parametrize("task, gradients", [(tune.tasks.digits(epochs=1), 36), (tune.tasks.moons(epochs=5), 20),
                                             (tune.tasks.surface("rosenbrock", 30), 30)])
@pytest.mark.parametrize("name", ["adamw", "schedulefreesgd", "adahessian", "sophiah"])
def test_tasks_are_fixed_by_their_seed_and_paid_by_the_gradient(task, gradients, name):
    before, reports = tg.random.default_generator().get_state(), {}
    values = [task(lambda params: optim.create(name, params, lr=1e-2), seed,
                   lambda value, spent: reports.update({spent: value})) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2] and max(reports) in (gradients, gradients + 1)
    assert tg.random.default_generator().get_state() == before


def test_a_diverging_optimizer_comes_last():
    value = tune.tasks.surface("rosenbrock")(lambda params: optim.SGD(params, lr=10.0), 0, lambda *_: None)
    assert value == math.inf
    found = tune.compare([("sgd", {"lr": 10.0}), ("adam", {"lr": 0.1})], "rosenbrock", seeds=2)
    assert found.ranking() == ["Adam(lr=0.1)", "SGD(lr=10.0)"] and "diverged" in found.table()


def test_a_comparison_that_is_none():
    for wrong, words in ((("sgd", "ravine"), "must be a list"), ((["sgd"], 3), "task must be"),
                         ((["sgd"], "ravin"), "nearest are ravine"), ((["muon"], tune.tasks.moons()), "no matrix")):
        with pytest.raises((TypeError, ValueError), match=words):
            tune.compare(*wrong, progress=False)
    with pytest.raises(ValueError, match="digits: batch_size must be"):
        tune.tasks.digits(batch_size=0)


def test_evaluate_can_fail():
    assert math.isnan(evaluate(lambda trial: trial.spend(9), Trial(0, {}, left=8), 0.0).value)
