"""Races: what is drawn is what ran, rates are tuned on one grid, and everyone pays by the gradient."""

import warnings

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import lab, optim

GRID = [1e-3, 1e-2, 1e-1, 1.0]
MOMENTUM = ("sgd", dict(momentum=0.9))


def sam(params, lr):
    return optim.SAM(params, optim.SGD, lr=lr)


def recorded(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)             # that it diverges
        return lab.record(*args, **kwargs)


def same(trace, other):
    return all(np.array_equal(trace.parameters[name], other.parameters[name]) for name in other.parameters)


# ---- what ran -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["rosenbrock", "chain", "noisy_moons", "reddi"])
def test_traces_are_direct_runs_to_the_bit(surface):
    race = lab.race(["sgd", MOMENTUM, "adam", sam, "schedulefreesgd", "lbfgs", "polyaksgd"], surface, 40, rates=GRID)
    makers = dict(zip(race.traces, [optim.SGD, optim.SGD, optim.Adam, sam, optim.ScheduleFreeSGD]))
    for label, maker in makers.items():
        options = {"momentum": 0.9} if label == "SGD(momentum=0.9)" else {}
        direct = recorded(maker, surface, 20 if label == "sam" else 40, lr=race.rates[label], **options)
        assert same(race.traces[label], direct), label
    for label in ("LBFGS", "PolyakSGD"):
        trace = race.traces[label]
        assert same(trace, lab.record(label, surface, len(trace))) and label not in race.tried
    assert race.rates["LBFGS"] == 1 and race.rates["PolyakSGD"] is None
    assert not same(race.traces["SGD"], race.traces["Adam"])


def test_a_method_that_draws_numbers_runs_again():
    before = tg.random.default_generator().get_state()
    race = lab.race(["adahessian"], "ravine", 30, rates=[0.1], seeds=[7])
    assert tg.random.default_generator().get_state() == before
    tg.manual_seed(7)
    assert same(race.traces["AdaHessian"], lab.record("adahessian", "ravine", 15, lr=0.1, seed=7))


# ---- what it costs ------------------------------------------------------------------------------------------------


def test_gradients_are_the_budget():
    entries = {"sgd": {}, "sam": sam, "lbfgs": {}, "newton_cg": dict(max_iter=1)}
    race = lab.race(entries, "rosenbrock", 61, rates=[1e-3])
    assert len(race.traces["sgd"]) == 61 and len(race.traces["sam"]) == 30      # a 31st step would cost the 62nd
    for label, options in (("lbfgs", {}), ("newton_cg", dict(max_iter=1))):
        longer = lab.record(label, "rosenbrock", len(race.traces[label]) + 1, **options)
        assert longer.evaluations[-2] <= 61 < longer.evaluations[-1]
    steps = lab.race(entries, "rosenbrock", 11, rates=[1e-3], budget="steps")
    assert {len(trace) for trace in steps.traces.values()} == {11}
    assert steps.traces["sam"].evaluations[-1] == 22


def test_losses_are_the_heights_that_were_paid_for():
    race = lab.race(["adam", sam], "beale", 31, rates=[1e-2])
    for label, trace in race.traces.items():
        curve = race.losses[label]
        spent = np.append(0, trace.evaluations)
        assert len(curve) == 32 and np.array_equal(curve[spent], trace.loss)
        between = np.setdiff1d(np.arange(31), spent)
        assert np.array_equal(curve[between], curve[between - 1])


# ---- the rate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "lion"])
def test_every_rate_is_tried_and_the_best_is_taken(name):
    race = lab.race([name], "himmelblau", 50)
    label, = race.tried
    assert list(race.tried[label]) == [10 ** (k / 4) for k in range(-16, 5)]
    for rate, reached in race.tried[label].items():
        trace = recorded(name, "himmelblau", 50, lr=rate)
        fine = np.isfinite(trace.path).all()
        assert reached == (np.median(trace.loss[-5:]) if fine else np.inf)
    assert race.reached[label] == race.tried[label][race.rates[label]] == min(race.tried[label].values())


def test_a_swing_that_ends_at_the_bottom_does_not_count():
    def parabola(w):
        return ((w - 0.01) ** 2).sum()

    signs = {"signs": ("signum", dict(momentum=0))}                 # with lr 1/2 it jumps between 1/2 and 0
    race = lab.race(signs, parabola, 101, start=[0.5], rates=[4e-3, 0.5])
    swinging = lab.record("signum", parabola, 101, start=[0.5], lr=0.5, momentum=0)
    assert race.rates == {"signs": 4e-3} and swinging.loss[-1] < race.traces["signs"].loss[-1] < swinging.loss[-2]


def test_the_smallest_of_equal_rates_is_taken_and_ends_are_marked():
    race = lab.race(["sgd"], lambda w: 0 * w.sum(), start=[1.0, 2.0], rates=[3, 1, 2])
    assert race.rates == {"SGD": 1} and race.tried == {"SGD": {1: 0, 2: 0, 3: 0}}
    assert "1*" in race.table() and "at an end of the grid" in race.table()
    assert "*" not in lab.race([MOMENTUM], "ravine", 50, rates=[1e-4, 3e-3, 10]).table()


@pytest.mark.filterwarnings("ignore:SGD. parameter")                # of the run that is recorded
def test_who_diverges_is_last():
    race = lab.race({"wild": "sgd", "tame": "adam"}, "rosenbrock", 30, rates=[1, 10])
    assert race.ranking() == ["tame", "wild"] and race.reached["wild"] == race.losses["wild"][-1] == np.inf
    assert "diverged" in race.table().splitlines()[-2]
    assert race.draw().axes[1].get_xlabel() == "gradient evaluations"


def test_an_unfair_race_runs_with_the_rates_that_are_given():
    race = lab.race([("sgd", dict(lr=1e-3)), "adam"], "booth", 20, fair=False)
    assert race.tried == {} and race.rates == {"SGD(lr=0.001)": 1e-3, "Adam": 1e-3}
    assert same(race.traces["Adam"], lab.record("adam", "booth", 20))


def test_functions_without_lr_run_as_they_are():
    race = lab.race({"fixed": lambda params: optim.Adam(params, lr=0.3), "tuned": optim.Adam}, "booth", 20, rates=GRID)
    assert race.rates["fixed"] == 0.3 and list(race.tried) == ["tuned"]


# ---- seeds --------------------------------------------------------------------------------------------------------


def test_the_median_of_seeds_counts():
    race = lab.race(["adam"], "noisy_ravine", 30, rates=GRID, seeds=[3, 4, 5])
    surface, rate = lab.surface("noisy_ravine"), race.rates["Adam"]
    runs = [lab.record("adam", "noisy_ravine", 30, lr=rate, seed=seed) for seed in (3, 4, 5)]
    heights = np.array([[surface(point) for point in run.path] for run in runs])
    ends = np.median(heights[:, -3:], axis=1)
    np.testing.assert_allclose(race.losses["Adam"], np.median(heights, axis=0), rtol=1e-14)
    np.testing.assert_allclose(race.reached["Adam"], np.median(ends), rtol=1e-14)
    assert same(race.traces["Adam"], runs[np.argsort(ends)[1]])
    assert race.seeds == (3, 4, 5) and "median of 3 seeds" in str(race)
    assert lab.race(["adam"], "noisy_ravine", 5, rates=[1], seeds=2).seeds == (0, 1)


# ---- what it shows ------------------------------------------------------------------------------------------------


def test_the_picture_says_rates_and_gradients():
    race = lab.race(["sgd", sam], "ravine", 21, rates=[1e-3])
    fig = race.draw()
    texts = [text.get_text() for text in fig.legends[0].get_texts()]
    assert texts == ["SGD, lr 0.001, 21 gradients", "sam, lr 0.001, 20 gradients", "start", "minimum"]
    assert [axes.get_yscale() for axes in fig.axes] == ["linear", "log"]
    assert len(lab.race(["sgd"], "chain", 5).draw().axes) == len(lab.race(["sgd"], "monkey_saddle", 5).draw().axes) - 1


def test_a_function_of_ones_own(tmp_path):
    race = lab.race(["sgd"], lambda w: (w ** 2).sum(), start=[1.0, 2.0], steps=9, rates=[0.1])
    assert race.lowest is None and len(race.draw().axes) == 1 and len(race.draw(box=((-3, 3), (-3, 3))).axes) == 2
    page = race.to_html(tmp_path / "race.html", box=((-3, 3), (-3, 3)))
    assert "SGD, lr 0.1" in page.read_text("utf-8")


def test_what_every_optimizer_takes_is_taken():
    options = dict(grad_transforms=[tg.optim.ClipNorm(1.0)], fused=True)
    race = lab.race({"clipped": ("sgd", options), "betas": ("adam", dict(beta1=0.5))}, "booth", 9, rates=[0.1])
    clipped, = race.traces["clipped"].quantities["w"]["g"][:1]
    assert np.linalg.norm(clipped) == pytest.approx(1) and race.traces["betas"].options["betas"] == (0.5, 0.999)


def test_files(tmp_path):
    race = lab.race(["sgd", "adam"], "booth", 20, rates=[0.1])
    assert race.to_gif(tmp_path / "race.gif", frames=5).read_bytes()[:6] == b"GIF89a"
    assert "SGD, lr 0.1" in race.to_html(tmp_path / "race.html").read_text("utf-8")


# ---- bad arguments ------------------------------------------------------------------------------------------------

BAD = [
    (["sgd"], "rosenbrok", {}, "nearest are rosenbrock"), (["adum"], "beale", {}, "nearest are Adam"),
    ([], "beale", {}, "optimizers is empty"), ("sgd", "beale", {}, "must be a list"), ([3], "beale", {}, "got 3"),
    (["sgd", "muon"], "beale", {}, "Muon cannot run on beale: .*no matrix"), (["sgd"], 3, {}, "got int"),
    (["KFAC"], "beale", {}, "KFAC cannot run on beale: .*the model"),
    (["gauss-newton"], "beale", {}, "GaussNewton cannot run on beale: .*residuals"),
    (["sgd", "SGD"], "beale", {}, "SGD takes part twice"), (["sgd"], "beale", dict(steps=0), "steps must be"),
    ([("sgd", dict(lr=1))], "beale", {}, "a fair race finds the lr"), (["sgd"], "beale", dict(seeds=[-1]), "seeds"),
    ([("sgd", dict(momentom=1))], "beale", {}, "no option 'momentom'; it takes lr, momentum"),
    (["lbfgs"], "beale", dict(steps=5), "LBFGS takes 16 gradients in its first step"),
    (["sgd"], "beale", dict(rates=[0]), "rates must be"), (["sgd"], "beale", dict(rates=[1], fair=False), "rates is"),
    (["sgd"], "beale", dict(budget="time"), "budget must be one of gradients, steps"),
    (["sgd"], "beale", dict(start=[1.0]), "a point on beale has 2 coordinates"),
    (["sgd"], "beale", dict(start=[1.0, np.nan]), "start must be finite"),
    (["sgd"], lambda w: w, dict(start=[1.0, 2.0]), "must return a Tensor of one number"),
    (["sgd"], tg.nn.Linear(2, 1), {}, "got a model; tg.tune.compare"),
]


@pytest.mark.parametrize("optimizers, surface, options, message", BAD)
def test_bad_arguments_say_the_way_out(optimizers, surface, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        lab.race(optimizers, surface, **options)


def test_an_optimizer_that_was_made_takes_no_part():
    w = tg.ones(2, requires_grad=True)
    with pytest.raises(TypeError, match="begins afresh"):
        lab.race([optim.SGD([w], lr=0.1)], "beale")
