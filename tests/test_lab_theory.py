"""Theory beside the run: linear maps from the rules, rates, limits and best numbers against their closed forms."""

import time

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.lab import analyse, linear_map, rate_map, record
from tinygrad_opt.lab.quadratics.theory import measure_rate
from tinygrad_opt.rule import minimum

LINEAR = [
    ("SGD", dict(lr=0.0198)), ("SGD", dict(lr=0.005, weight_decay=0.5)), ("SGD", dict(lr=0.01, momentum=0.9)),
    ("SGD", dict(lr=0.01, momentum=0.9, dampening=0.5, weight_decay=0.3)),
    ("SGD", dict(lr=0.008, momentum=0.9, nesterov=True)), ("QHM", dict(lr=0.03, momentum=0.9)),
    ("QHM", dict(lr=0.03, momentum=0.9, weight_decay=0.1, weight_decay_type="direct")),
    ("AggMo", dict(lr=0.01, betas=(0, 0.9, 0.95), weight_decay=0.2)),
]
linear = pytest.mark.parametrize("name, options", LINEAR, ids=[f"{n}-{'-'.join(o)}" for n, o in LINEAR])


class Corrected(optim.Optimizer):
    """Momentum with Adam's bias correction: another map at each step, the same in the long run."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, dict(lr=lr, beta=beta))

    def rule(p, g, m, t, lr, beta):
        m = beta * m + (1 - beta) * g
        p = p - lr * m / (1 - beta ** t)
        return p, m


class Slower(Corrected):
    def rule(p, g, t, lr):
        p = p - lr / t ** 0.5 * g
        return p


class Clipped(Corrected):
    def rule(p, g, lr):
        p = p - lr * minimum(g, 100.0)
        return p


class Told(Corrected):
    def rule(p, g, lr, loss):
        p = p - lr * loss * g
        return p


# ---- the map ------------------------------------------------------------------------------------------------------


def test_the_matrices_are_those_of_the_textbook():
    h, lr, b = 3.0, 0.1, 0.8
    np.testing.assert_allclose(linear_map("sgd", h, lr=lr), [[1 - lr * h]], rtol=1e-15)
    np.testing.assert_allclose(linear_map("sgd", h, lr=lr, momentum=b), [[1 - lr * h, -lr * b], [h, b]], rtol=1e-15)
    np.testing.assert_allclose(linear_map("sgd", h, lr=lr, momentum=b, nesterov=True),
                               [[1 - lr * h * (1 + b), -lr * b * b], [h, b]], rtol=1e-15)
    np.testing.assert_allclose(linear_map("sgd", h, lr=lr, maximize=True), [[1 + lr * h]], rtol=1e-15)
    assert linear_map(optim.AggMo, [[1.0, 2.0]], betas=(0, 0.5)).shape == (1, 2, 3, 3)


@linear
def test_the_map_goes_where_the_optimizer_goes(name, options):
    trace = record(name, "chain", 60, **options)                       # its eigenvectors are not the axes
    theory = analyse(name, "chain", **options).against(trace)
    np.testing.assert_allclose(theory.predictions, theory.deviations, rtol=0, atol=1e-13)
    assert abs(theory.deviations).max() > 0.1


def test_an_optimizer_that_is_made_already_is_asked_for_its_first_group():
    made = optim.SGD([tg.ones(3, requires_grad=True)], lr=0.1, momentum=0.8)
    np.testing.assert_array_equal(linear_map(made, 3.0), linear_map("sgd", 3.0, lr=0.1, momentum=0.8))


@pytest.mark.parametrize("name, why", [
    ("Adam", "twice the gradient"), ("Lion", "twice the gradient"), ("Rprop", "twice the gradient"),
    (Clipped, "twice the gradient"), ("LAMB", "single elements"), ("Muon", "single elements"),
    ("ASGD", "single elements"), (Slower, "no single rate"), (Told, "told more"),
    ("SophiaG", "more than a rule"), ("LBFGS", "more than a rule"),
    (lambda p: optim.Lookahead(optim.SGD(p)), "the optimizer inside"),
    (lambda p: optim.SGD(p, lr=lambda t: 0.1), "fixed numbers")])
def test_what_is_not_linear_is_refused(name, why):
    with pytest.raises(ValueError, match=f"no linear map.*{why}"):
        linear_map(name, 1.0)


def test_a_rule_that_counts_its_steps_is_read_in_the_long_run():
    np.testing.assert_allclose(linear_map(Corrected, 2.0), [[1 - 0.1 * 0.1 * 2, -0.09], [0.2, 0.9]])
    theory = analyse(Corrected, "ravine", lr=0.01)
    theory = theory.against(record(Corrected, "ravine", 400, lr=0.01))
    np.testing.assert_allclose(theory.predictions, theory.deviations, rtol=0, atol=1e-13)
    np.testing.assert_allclose(theory.measured, theory.rates, rtol=0.01)


# ---- rates --------------------------------------------------------------------------------------------------------


@linear
def test_the_measured_rate_is_the_predicted_one(name, options):
    theory = analyse(name, "ravine", **options)
    theory = theory.against(record(name, "ravine", 600, **options))
    assert np.isfinite(theory.measured).all()
    np.testing.assert_allclose(theory.measured, theory.rates, rtol=0.01)


def test_the_measure_can_tell_rates_apart():
    k = np.arange(200)
    assert measure_rate(0.9 ** k) == pytest.approx(0.9, rel=1e-12)
    assert measure_rate(0.95 ** k * np.cos(0.3 * k)) == pytest.approx(0.95, rel=1e-3)
    assert measure_rate((-1.1) ** k) == pytest.approx(1.1, rel=1e-12)
    assert measure_rate(0.9 ** k + 1e-6, noise=1e-5) == pytest.approx(0.9, rel=0.01)
    assert np.isnan(measure_rate(0.1 ** k, noise=1e-9))


@pytest.mark.parametrize("momentum", [0, 0.3, 0.9, 0.99])
def test_the_largest_stable_lr(momentum):
    h = np.array([0.5, 20.0])
    theory = analyse("sgd", h, lr=0.01, momentum=momentum)
    assert theory.stable_lr == pytest.approx(2 * (1 + momentum) / 20, rel=1e-9)
    if momentum:
        nesterov = analyse("sgd", h, lr=0.01, momentum=momentum, nesterov=True)
        assert nesterov.stable_lr == pytest.approx(2 * (1 + momentum) / (1 + 2 * momentum) / 20, rel=1e-9)
    for lr, diverges in ((0.999, False), (1.001, True)):
        assert (analyse("sgd", h, lr=lr * theory.stable_lr, momentum=momentum).rate > 1) == diverges
    assert analyse("sgd", [-1.0, 2.0]).stable_lr == 0


@pytest.mark.parametrize("kappa", [2.0, 100.0, 1e4])
def test_the_best_numbers(kappa):
    ends, root = [1.0, kappa], kappa ** 0.5
    plain = analyse("sgd", ends, lr=0.1 / kappa)
    assert plain.condition == kappa
    np.testing.assert_allclose(plain.best_lr[::2], (2 / (1 + kappa), (kappa - 1) / (kappa + 1)), rtol=1e-9)
    polyak = (2 / (1 + root)) ** 2, ((root - 1) / (root + 1)) ** 2, (root - 1) / (root + 1)
    np.testing.assert_allclose(plain.best, polyak, rtol=1e-7)
    three = (3 * kappa + 1) ** 0.5                                      # Lessard, Recht & Packard, 2016, table 1
    nesterov = analyse("sgd", ends, lr=0.1 / kappa, momentum=0.5, nesterov=True)
    lessard = 4 / (3 * kappa + 1), (three - 2) / (three + 2), 1 - 2 / three
    np.testing.assert_allclose(nesterov.best, lessard, rtol=1e-7)


def test_motions_and_steps():
    theory = analyse("sgd", [0.1, 1.0, 1.8, 2.5], lr=1.0)
    assert theory.motions == ["monotone", "monotone", "zig-zags", "diverges"]
    np.testing.assert_allclose(theory.rates, [0.9, 0, 0.8, 1.5], atol=1e-15)
    assert theory.steps == np.inf and theory.best is not None
    assert analyse("sgd", [0.1], lr=1.0).steps == 132                   # 0.9^132 < 1e-6 < 0.9^131
    assert analyse("sgd", [1.0], lr=0.5, momentum=0.81).motions == ["oscillates"]
    assert analyse("aggmo", [1.0]).best is None and analyse("sgd", [0.0, 1.0]).best_lr is None


# ---- problems -----------------------------------------------------------------------------------------------------


def test_weight_decay_moves_where_it_comes_to_rest():
    chain = tg.lab.surface("chain", n=5, kappa=10.0)
    matrix = tg.autograd.hessian(chain.function, tg.tensor(chain.start)).numpy()
    theory = analyse("sgd", chain, lr=0.2, momentum=0.5, weight_decay=0.3)
    np.testing.assert_allclose(theory.minimum, chain.minima[0])
    np.testing.assert_allclose(theory.rest, np.linalg.solve(matrix + 0.3 * np.eye(5), np.eye(5)[0]), rtol=1e-12)
    trace = record("sgd", chain, 300, lr=0.2, momentum=0.5, weight_decay=0.3)
    np.testing.assert_allclose(trace.path[-1], theory.rest, rtol=1e-12)
    same = analyse("sgd", matrix, minimum=chain.minima[0], lr=0.2, momentum=0.5, weight_decay=0.3).against(trace)
    np.testing.assert_allclose(same.measured, theory.against(trace).measured)


def test_a_surface_that_is_no_quadratic_is_one_near_its_minimum():
    options = dict(lr=0.0005, momentum=0.9)
    theory = analyse("sgd", "rosenbrock", **options).against(record("sgd", "rosenbrock", 2500, **options))
    assert theory.curvatures[0] == pytest.approx(0.39936, abs=1e-4)
    assert theory.measured[0] == pytest.approx(theory.rates[0], rel=1e-3)


def test_a_run_that_diverges_is_measured_too():
    options = dict(lr=0.05, momentum=0.9)
    theory = analyse("sgd", "ravine", **options).against(record("sgd", "ravine", 300, **options))
    assert theory.motions[1] == "diverges" and theory.measured[1] == pytest.approx(theory.rates[1], rel=1e-6)


def test_it_prints_a_table_and_draws():
    options = dict(lr=0.01, momentum=0.9)
    before = analyse("sgd", "chain", **options)
    theory = before.against(record("sgd", "chain", 100, **options))
    lines = str(theory).splitlines()
    assert lines[0] == "SGD (lr 0.01, momentum 0.9) on chain, condition number 86.81"
    assert lines[2].split() == ["curvature", "rate", "measured", "motion", "steps", "to", "1e-6"]
    assert len({len(line) for line in lines[2:15]}) == 1 and "12 of them" in lines[15]
    assert "measured" not in str(before) and before.measured is None
    left, right = theory.draw().axes
    assert len(left.lines) == 12                                        # six of the eigenvectors, run and prediction
    assert len(before.draw(steps=7).axes[0].lines[0].get_ydata()) == 8


@pytest.mark.parametrize("arguments, why", [
    (("sgd", "ackley"), "kink"), (("sgd", "monkey saddle"), "no minimum"), (("sgd", [[1, 2], [3, 4]]), "symmetric"),
    (("sgd", [[1.0, 2.0]]), "symmetric"), (("sgd", [np.nan]), "finite"), (("sgd", "ravin"), "nearest are ravine")])
def test_bad_problems(arguments, why):
    with pytest.raises(ValueError, match=why):
        analyse(*arguments)
    with pytest.raises(TypeError, match="a surface or its name"):
        analyse("sgd", lambda w: w)
    with pytest.raises(ValueError, match="2 coordinates"):
        analyse("sgd", "ravine", minimum=[0.0])
    with pytest.raises(TypeError, match="no coordinates"):
        analyse("sgd", [1.0, 2.0], minimum=[0.0, 0.0])


def test_a_run_of_something_else_is_refused():
    theory, trace = analyse("sgd", "ravine", lr=0.01), record("sgd", "ravine", 3, lr=0.02)
    with pytest.raises(ValueError, match="its lr is 0.01, that of the trace is 0.02"):
        theory.against(trace)
    with pytest.raises(TypeError, match="what tg.lab.record returns, got int"):
        theory.against(3)
    with pytest.raises(ValueError, match="its function is rosenbrock"):
        analyse("sgd", "rosenbrock", lr=0.02).against(trace)
    with pytest.raises(ValueError, match="its optimizer is QHM"):
        analyse("qhm", "ravine", lr=0.02).against(trace)
    with pytest.raises(ValueError, match="eigenvalues alone"):
        analyse("sgd", [1.0, 2.0], lr=0.02).against(trace)
    trace.lr[-1] = 1.0
    with pytest.raises(ValueError, match="changes from step to step"):
        analyse("sgd", "ravine", lr=0.02).against(trace)


# ---- maps of rates ------------------------------------------------------------------------------------------------


def test_the_map_of_one_curvature_is_that_of_the_distill_article():
    lr, momentum = np.linspace(0.013, 4.4, 40), np.linspace(0, 0.99, 30)
    rates = rate_map("sgd", 1.0, lr=lr, momentum=momentum)
    a, b = np.meshgrid(lr, momentum)
    complex_pair = (1 + b - a) ** 2 < 4 * b
    size = np.where(complex_pair, np.sqrt(b), (abs(1 + b - a) + np.sqrt(np.maximum((1 + b - a) ** 2 - 4 * b, 0))) / 2)
    np.testing.assert_allclose(rates.rate, size, rtol=1e-9, atol=1e-12)
    expected = np.where(a > 2 * (1 + b), 3, np.where(complex_pair, 1, np.where(a > 1 + b, 2, 0)))
    np.testing.assert_array_equal(rates.motion, expected)
    np.testing.assert_allclose(rates.edge, 2 * (1 + momentum), rtol=1e-9)
    assert rates.best.rate < 1e-6 and rates.best.lr == pytest.approx(1)     # a step to the minimum


def test_the_map_of_a_condition_number_is_made_quickly():
    start = time.perf_counter()
    rates = rate_map("sgd", 50.0, kappa=25.0)
    assert time.perf_counter() - start < 3
    assert rates.rate.shape == (100, 100) and rates.curvatures.tolist() == [2, 50]
    np.testing.assert_allclose(rates.edge, 2 * (1 + rates.momentum) / 50, rtol=1e-9)
    np.testing.assert_allclose(rates.best, ((2 / (50 ** 0.5 + 2 ** 0.5)) ** 2, (4 / 6) ** 2, 4 / 6), rtol=1e-7)
    assert rates.rate.min() >= rates.best.rate
    theory = analyse("sgd", [2.0, 50.0], lr=rates.lr[30], momentum=rates.momentum[40])
    assert rates.rate[40, 30] == pytest.approx(theory.rate, rel=1e-12)
    names = {text.get_text() for text in rates.draw().axes[0].texts}
    assert names == {"monotone", "oscillates", "diverges"}


def test_maps_of_other_rules():
    momentum = np.linspace(0, 0.9, 5)
    nesterov = rate_map(optim.SGD, 4.0, momentum=momentum, nesterov=True)
    np.testing.assert_allclose(nesterov.edge, (1 + momentum) / (1 + 2 * momentum) / 2, rtol=1e-9)
    made = rate_map(optim.SGD([tg.ones(2, requires_grad=True)], lr=0.1), 4.0, momentum=momentum)
    np.testing.assert_allclose(made.edge, (1 + momentum) / 2, rtol=1e-9)
    assert rate_map("qhm", 4.0, kappa=10.0, momentum=momentum).best.rate < 0.7


@pytest.mark.parametrize("arguments, why", [
    (dict(optimizer="adam"), "an option momentum"), (dict(optimizer="aggmo"), "an option momentum"),
    (dict(optimizer="rmsprop"), "no linear map"), (dict(lr=[1, 0]), "rising"),
    (dict(momentum=[-1, 0.5]), "momentum must"), (dict(lr="small"), "lr must be a grid"),
    (dict(curvature=[1, 2], kappa=3), "kappa"), (dict(curvature=-1), "positive"), (dict(kappa=0.5), "at least 1")])
def test_bad_maps(arguments, why):
    with pytest.raises(ValueError, match=why):
        rate_map(**arguments)


def test_an_option_that_there_is_not_is_named():
    with pytest.raises(TypeError, match="SGD has no option 'nestrov'; it takes lr, momentum"):
        rate_map("sgd", nestrov=True)
    with pytest.raises(TypeError, match="SGD has no option 'nestrov'"):
        analyse("sgd", "ravine", nestrov=True)


def test_a_best_point_outside_of_a_map_is_told_and_not_drawn():
    figure = rate_map("sgd", 1.0, lr=[0.1, 0.2], momentum=[0, 0.5]).draw()
    figure.canvas.draw()
    edge, best = figure.axes[0].lines
    assert best.get_label().startswith("best, outside: lr 1,") and np.isnan(best.get_xdata()).all()
