"""Newton-CG and trust region: against SciPy on the problems of Moré, Garbow & Hillstrom, and where there is no way."""

import copy
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from _mgh import PROBLEMS

import tinygrad_opt as tg
from tinygrad_opt.optim.second_order.newton_cg import NewtonCG
from tinygrad_opt.optim.second_order.trust_region import Dogleg, Steihaug, TrustRegion

STEIHAUG, DOGLEG = (TrustRegion, dict(subproblem="steihaug")), (TrustRegion, dict(subproblem="dogleg"))
ALL = pytest.mark.parametrize("method, options", [(NewtonCG, {}), STEIHAUG, DOGLEG],
                              ids=["Newton-CG", "steihaug", "dogleg"])


def leaf(values, dtype=tg.float64):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


def quadratic(n=6, seed=0):
    """Return the loss of a random convex quadratic as a function of x, and its minimum."""
    random = np.random.default_rng(seed)
    Q = np.linalg.qr(random.standard_normal((n, n)))[0]
    A, c = Q @ np.diag(np.linspace(1, 9, n)) @ Q.T, random.standard_normal(n)
    return lambda x: ((x - c) * (A @ (x - c))).sum() / 2, c


# ---- what they reach --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, options", [
    (NewtonCG, dict(forcing=0)), (TrustRegion, dict(subproblem="dogleg", initial_trust_radius=100.0))])
def test_newton_solves_a_quadratic_in_one_iteration(method, options):
    loss, c = quadratic()
    x = leaf(np.zeros(6))
    optimizer = method([x], max_iter=1, **options)
    assert optimizer.step(lambda: loss(x)).item() == pytest.approx(loss(leaf(np.zeros(6))).item(), rel=1e-15)
    assert x.numpy() == pytest.approx(c, abs=1e-8)
    assert (optimizer.report.functions, optimizer.report.gradients) == (2, 2)


def scipys(name, problem, **options):
    """Return SciPy's result on a problem, with our gradients and Hessian products, and the points on its way."""
    optimize = pytest.importorskip("scipy.optimize")

    def at(x):
        return tg.tensor(x, dtype=tg.float64)
    curvature = ({"hess": lambda x: np.stack([tg.hvp(problem.loss, at(x), e)[1].numpy() for e in np.eye(len(x))])}
                 if name == "dogleg" else {"hessp": lambda x, v: tg.hvp(problem.loss, at(x), v)[1].numpy()})
    return optimize.minimize(lambda x: problem.loss(at(x)).item(), problem.start, method=name,
                             jac=lambda x: tg.vjp(problem.loss, at(x))[1].numpy(), **curvature, options=options)


@pytest.mark.parametrize("name, subproblem, problem", [
    ("trust-ncg", "steihaug", "Rosenbrock"), ("trust-ncg", "steihaug", "Wood"), ("trust-ncg", "steihaug", "Beale"),
    ("trust-ncg", "steihaug", "Osborne 2"), ("dogleg", "dogleg", "Rosenbrock"),
    ("dogleg", "dogleg", "variably dimensioned"), ("dogleg", "dogleg", "Freudenstein and Roth")])
def test_trust_region_takes_the_steps_of_scipy(name, subproblem, problem):
    problem = PROBLEMS[problem]
    x = leaf(problem.start)
    optimizer = TrustRegion([x], subproblem=subproblem, max_iter=1)
    for wanted in scipys(name, problem, gtol=1e-4, return_all=True).allvecs:         # each is the one before a step
        assert x.numpy() == pytest.approx(wanted, rel=1e-7, abs=1e-9)
        optimizer.step(lambda: problem.loss(x))


FAST = ["Rosenbrock", "Beale", "helical valley", "Powell singular", "Biggs EXP6", "Watson 6", "penalty I 4",
        "Chebyquad 6"]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    return pytest.importorskip("bench_minimize")


@pytest.mark.parametrize("name", ["L-BFGS-B", "Newton-CG", "trust-ncg", "dogleg"])
def test_no_dearer_than_scipy(name, bench, capsys):
    pytest.importorskip("scipy")
    mine, theirs, ratio = bench.compare(name, [PROBLEMS[problem] for problem in FAST])
    assert mine == len(FAST) and mine >= theirs and ratio <= 1.1
    assert f"solved {mine} : {theirs} of {len(FAST)}" in capsys.readouterr().out


@ALL
@pytest.mark.parametrize("name", ["Rosenbrock", "Freudenstein and Roth", "Bard", "Box three-dimensional"])
def test_the_closure_may_call_backward(method, options, name):
    problem, ends = PROBLEMS[name], []
    for calls in (False, True):
        x = leaf(problem.start)

        def closure(x=x, calls=calls):
            x.grad = None
            loss = problem.loss(x)
            if calls:
                loss.backward()
            return loss
        optimizer = method([x], max_iter=15, **options)
        optimizer.step(closure)
        ends.append(x.numpy())
        assert problem.loss(x).item() < problem.loss(leaf(problem.start)).item()
    assert np.array_equal(*ends)


@ALL
def test_several_parameters_and_groups_and_unused_ones(method, options):
    problem, x = PROBLEMS["Wood"], leaf(PROBLEMS["Wood"].start)
    a, b = leaf(problem.start[:1]), leaf(problem.start[1:].reshape(3, 1))
    unused, fixed = leaf([1.0, 2.0]), tg.ones(2)
    one, many = method([x], max_iter=30, **options), method(
        [{"params": [a, unused]}, {"params": [fixed, b]}], max_iter=30, **options)
    one.step(lambda: problem.loss(x))
    many.step(lambda: problem.loss(tg.concatenate([a, b.reshape(3)])))
    together = np.concatenate([a.numpy(), b.numpy()[:, 0]])
    assert problem.loss(leaf(together)).item() < 20 and problem.loss(x).item() < 20
    assert unused.tolist() == [1, 2] and fixed.tolist() == [1, 1]


@ALL
def test_maximize_is_the_mirror(method, options):
    problem, ends = PROBLEMS["Beale"], []
    for sign in (1, -1):
        x = leaf(problem.start)
        optimizer = method([x], maximize=sign < 0, max_iter=8, **options)
        assert optimizer.step(lambda x=x, sign=sign: sign * problem.loss(x)).item() == sign * 14.203125
        ends.append(x.numpy())
    assert np.array_equal(*ends)


@ALL
def test_float32(method, options):
    problem, x = PROBLEMS["Rosenbrock"], leaf([-1.2, 1.0], tg.float32)
    optimizer = method([x], max_iter=200, **options)
    optimizer.step(lambda: problem.loss(x))
    assert x.dtype == "float32" and problem.loss(x).item() < 1e-4


@ALL
def test_saved_and_copied_it_goes_on_bit_for_bit(method, options, tmp_path):
    problem = PROBLEMS["Wood"]
    x = leaf(problem.start)
    optimizer = method([x], max_iter=3, **options)
    for _ in range(4):
        optimizer.step(lambda: problem.loss(x))
    tg.save({"x": x.detach(), "optimizer": optimizer.state_dict()}, tmp_path / "file")
    saved = tg.load(tmp_path / "file")
    y = saved["x"].clone().requires_grad_()
    resumed = method([y], **options)
    resumed.load_state_dict(saved["optimizer"])
    z, twin = copy.deepcopy((x, optimizer))
    for _ in range(4):
        optimizer.step(lambda: problem.loss(x))
        resumed.step(lambda: problem.loss(y))
        twin.step(lambda: problem.loss(z))
    assert x.tolist() == y.tolist() == z.tolist() and resumed.step_count == 8


# ---- the model within a radius ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Steihaug, Dogleg])
@pytest.mark.parametrize("low", [1.0, 0.0, -2.0])
@pytest.mark.parametrize("radius", [1e-6, 0.1, 1.0, 10.0])
def test_the_step_stays_inside_and_foretells_what_the_model_says(kind, low, radius):
    random = np.random.default_rng(3)
    Q = np.linalg.qr(random.standard_normal((5, 5)))[0]
    H, g = Q @ np.diag([low, 1, 2, 3, 4]) @ Q.T, random.standard_normal(5)
    array = tg.tensor(g, dtype=tg.float64).data
    model = kind(array, tg.tensor(H, dtype=tg.float64).data.__matmul__)
    step, foretold, at_radius = model.minimize(radius)
    p = tg.backend.to_numpy(step)
    length = np.linalg.norm(p)
    assert length == pytest.approx(radius, rel=1e-9) if at_radius else length <= radius
    assert foretold == pytest.approx(-(g @ p + p @ H @ p / 2), rel=1e-9)
    assert foretold >= 0.5 * np.linalg.norm(g) * min(radius, np.linalg.norm(g) / np.linalg.norm(H, 2)) * (1 - 1e-9)


def test_a_smaller_radius_needs_no_new_products():
    products = []
    H, g = np.diag(np.arange(1.0, 7)), np.ones(6)
    array = tg.tensor(H, dtype=tg.float64).data
    model = Steihaug(tg.tensor(g, dtype=tg.float64).data, lambda v: (products.append(0), array @ v)[1])
    model.minimize(100.0)
    count = len(products)
    ends = [model.minimize(radius)[0] for radius in (0.5, 0.1)]
    fresh = [Steihaug(tg.tensor(g, dtype=tg.float64).data, array.__matmul__).minimize(r)[0] for r in (0.5, 0.1)]
    assert len(products) == count > 0
    assert all(bool((a == b).all()) for a, b in zip(ends, fresh))


# ---- where they cannot go on ------------------------------------------------------------------------------


def saddle(x):
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 4


@ALL
def test_indefinite_hessians_are_left_downhill(method, options):
    x = leaf([1.0, 1e-3])
    optimizer = method([x], max_iter=60, **options)
    optimizer.step(lambda: saddle(x))
    assert saddle(x).item() == pytest.approx(-1, abs=1e-6)


@ALL
def test_singular_hessians(method, options):
    x = leaf([3.0, -1.0, 2.0])
    optimizer = method([x], max_iter=60, **options)
    optimizer.step(lambda: (x[0] + x[1] - 1) ** 2)
    assert (x[0] + x[1]).item() == pytest.approx(1, abs=1e-4) and x[2].item() == 2


@ALL
def test_a_linear_loss_ends(method, options):
    x = leaf([3.0, -1.0])
    optimizer = method([x], max_iter=30, **options)
    optimizer.step(lambda: x.sum())
    assert x.sum().item() < 2 and np.isfinite(x.numpy()).all() and optimizer.report.reason


@ALL
def test_a_pole_is_not_stepped_over(method, options):
    x = leaf([0.01])
    optimizer = method([x], max_iter=100, **options)
    with np.errstate(all="ignore"):
        optimizer.step(lambda: (x - tg.log(x)).sum())
    assert x.item() == pytest.approx(1, abs=1e-4)


@ALL
@pytest.mark.parametrize("loss", [lambda x: (x ** 2).sum(), lambda x: (x * 0).sum()])
def test_nothing_to_do(method, options, loss):
    x = leaf([0.0, 0.0])
    optimizer = method([x], **options)
    optimizer.step(lambda: loss(x))
    assert x.tolist() == [0, 0] and "gradient" in optimizer.report.reason and optimizer.report.accepted is False


@ALL
def test_no_iterations(method, options):
    x = leaf([3.0])
    optimizer = method([x], max_iter=0, **options)
    assert optimizer.step(lambda: (x ** 2).sum()).item() == 9
    assert (x.item(), optimizer.report.reason, optimizer.report.accepted) == (3, "max_iter is 0", False)


@ALL
def test_not_finite_at_the_start(method, options):
    x = leaf([-1.0])
    optimizer = method([x], **options)
    with pytest.raises(ValueError, match="not finite at the parameters as they are"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.step(lambda: tg.log(x).sum())
    assert x.item() == -1


@ALL
def test_finite_at_the_start_alone(method, options):
    x, calls = leaf([3.0]), []

    def closure():
        calls.append(0)
        return (x ** 2).sum() * (1.0 if len(calls) == 1 else math.nan)
    optimizer = method([x], max_iter=1000, **options)
    optimizer.step(closure)
    assert x.item() == 3 and optimizer.report.accepted is False and optimizer.report.reason and len(calls) < 1000


@ALL
def test_closures_that_are_none(method, options):
    x = leaf([3.0])
    optimizer = method([x], **options)
    with pytest.raises(TypeError, match=r"step\(closure\)"):
        optimizer.step()
    with pytest.raises(TypeError, match="it returned float"):
        optimizer.step(lambda: 1.0)
    with pytest.raises(RuntimeError, match="not detached"):
        optimizer.step(lambda: (x ** 2).sum().detach())
    assert x.item() == 3


@pytest.mark.parametrize("method, options, message", [
    (NewtonCG, dict(c1=0.5, c2=0.4), "c1 must be below c2"), (NewtonCG, dict(c2=1.0), "c2"),
    (NewtonCG, dict(lr=-1), "lr"), (NewtonCG, dict(xtol=math.nan), "xtol"), (NewtonCG, dict(forcing=1), "forcing"),
    (NewtonCG, dict(max_iter=-1), "max_iter"), (TrustRegion, dict(eta=0.25), "eta"),
    (TrustRegion, dict(initial_trust_radius=0), "initial_trust_radius"),
    (TrustRegion, dict(initial_trust_radius=2, max_trust_radius=1), "must not exceed"),
    (TrustRegion, dict(subproblem="exact"), "'steihaug' or 'dogleg', got 'exact'"),
    (TrustRegion, dict(gtol=-1), "gtol")])
def test_options_out_of_range(method, options, message):
    with pytest.raises(ValueError, match=message):
        method([leaf([1.0])], **options)


@ALL
def test_groups_share_their_options(method, options):
    x, y = leaf([1.0]), leaf([1.0])
    optimizer = method([{"params": [x]}, {"params": [y], "max_iter": 3}], **options)
    with pytest.raises(ValueError, match="max_iter is 20 in the first group and 3 in another"):
        optimizer.step(lambda: (x * y).sum())


def test_the_report_counts_and_tells():
    calls, x = [], leaf([-1.2, 1.0])
    for method, options in (NewtonCG, {}), STEIHAUG, DOGLEG:
        optimizer = method([x], max_iter=5, **options)
        optimizer.step(lambda: (calls.append(0), PROBLEMS["Rosenbrock"].loss(x))[1])
        report = optimizer.report
        assert report.functions == len(calls) >= report.gradients >= 2 and report.products > 0
        assert report.accepted and len(report.log) == 5 and "5" not in report.reason
        assert str(report).startswith("step accepted: max_iter iterations are made")
        calls.clear()
