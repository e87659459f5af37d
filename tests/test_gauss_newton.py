"""GaussNewton: certified fits, exactness on linear problems, both solvers, and honest reports."""

import _nist
import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.optim.second_order.gauss_newton import GaussNewton

RIGHT_ANGLES = "the residuals are at right angles to every column of the Jacobian"


def leaf(values, dtype="float64"):
    return tg.tensor(values, dtype=dtype, requires_grad=True)


def linear(A, y, start=None):
    """Return a parameter and the closure of A·w − y."""
    w, A, y = leaf(np.zeros(A.shape[1]) if start is None else start), tg.tensor(A), tg.tensor(y)
    return w, lambda: A @ w - y


def decay(start=(1.0, 1.0), dtype="float64"):
    """Return parameters and the closure of a decay that (2, 0.5) fits exactly."""
    t = tg.tensor(np.linspace(0, 4, 9), dtype=dtype)
    y, b = 2 * tg.exp(-0.5 * t), leaf(start, dtype)
    return b, lambda: b[0] * tg.exp(-b[1] * t) - y


# ---- certified fits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", _nist.MODELS)
def test_nist_to_seven_digits_without_an_option(name, start):
    problem = _nist.read(name, tg.tensor)
    b = [leaf(value) for value in problem.starts[start]]
    optimizer = GaussNewton(b)
    optimizer.step(lambda: problem.residuals(b))
    assert problem.digits([value.item() for value in b]) > 7
    assert 2 * optimizer.report.numbers["loss"] == pytest.approx(problem.squares, rel=1e-9, abs=1e-20)
    assert optimizer.report.numbers["rank"] == len(b)


def test_the_certified_values_are_read_as_they_are_printed():
    for name in _nist.MODELS:
        problem = _nist.read(name)
        if name != "Lanczos1":                      # whose sum of squares is lost in the 11 digits of its parameters
            assert (problem.residuals(problem.b) ** 2).sum() == pytest.approx(problem.squares, rel=1e-9)


def test_it_changes_its_scaling_where_a_parameter_loses_its_influence():
    problem = _nist.read("BoxBOD", tg.tensor)
    b = [leaf(value) for value in problem.starts[0]]
    optimizer = GaussNewton(b)
    optimizer.step(lambda: problem.residuals(b))
    assert "reached with the identity: a parameter has lost its influence" in optimizer.report.reason
    assert not optimizer.param_groups[0]["scaled"]
    optimizer.step(lambda: problem.residuals(b))    # and keeps to it
    assert not optimizer.report.accepted or optimizer.report.functions < 3


@pytest.mark.parametrize(("residuals", "start"), [
    (lambda x: tg.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]), [-1.2, 1.0]),
    (lambda x: tg.stack([x[0] + 10 * x[1], 5 ** 0.5 * (x[2] - x[3]), (x[1] - 2 * x[2]) ** 2,
                         10 ** 0.5 * (x[0] - x[3]) ** 2]), [3.0, -1.0, 0.0, 1.0]),
    (lambda x: tg.stack([-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]]),
     [0.5, -2.0]),
], ids=["Rosenbrock", "Powell singular", "Freudenstein and Roth"])
def test_no_more_evaluations_than_minpack(residuals, start):
    optimize = pytest.importorskip("scipy.optimize")
    x = leaf(start)
    optimizer = GaussNewton([x])
    optimizer.step(lambda: residuals(x))

    def jacobian(b):
        columns = [tg.jvp(residuals, tg.tensor(b), e)[1].numpy() for e in np.eye(len(b))]
        return np.stack(columns, 1)

    theirs = optimize.least_squares(lambda b: residuals(tg.tensor(b)).numpy(), start, jacobian, method="lm",
                                    xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert optimizer.report.numbers["loss"] == pytest.approx(theirs.cost, rel=1e-9, abs=1e-20)
    assert optimizer.report.functions + optimizer.report.gradients <= 1.1 * (theirs.nfev + theirs.njev)


# ---- exactness --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "scales"), [("dense", 1.0), ("cg", 1.0), ("dense", [1e-3, 1.0, 1e3, 10.0])])
def test_linear_least_squares_in_one_iteration(scales, solver):
    rng = np.random.default_rng(0)
    A, y = rng.standard_normal((20, 4)) * np.array(scales), rng.standard_normal(20)
    w, closure = linear(A, y)
    optimizer = GaussNewton([w], max_iter=1, solver=solver, adaptive=solver == "dense")
    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx(0.5 * y @ y)
    assert optimizer.report.functions == 2
    np.testing.assert_allclose(w.numpy(), np.linalg.lstsq(A, y)[0], rtol=1e-8)


def test_it_stops_by_itself_after_that_iteration():
    rng = np.random.default_rng(0)
    w, closure = linear(rng.standard_normal((20, 4)), rng.standard_normal(20))
    optimizer = GaussNewton([w])
    optimizer.step(closure)
    assert (optimizer.report.functions, optimizer.report.gradients) == (2, 2)
    assert optimizer.report.reason == RIGHT_ANGLES


def test_a_rank_deficient_jacobian_takes_the_shortest_step_and_says_so():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((20, 1))
    A, y = np.hstack([one, one]), rng.standard_normal(20)
    w, closure = linear(A, y)
    optimizer = GaussNewton([w])
    optimizer.step(closure)
    np.testing.assert_allclose(w.numpy(), np.linalg.pinv(A) @ y, rtol=1e-8)
    assert optimizer.report.numbers["rank"] == 1
    assert "the Jacobian has rank 1 of 2" in optimizer.report.reason


def test_more_parameters_than_residuals():
    rng = np.random.default_rng(0)
    A, y = rng.standard_normal((3, 5)), rng.standard_normal(3)
    A /= np.linalg.norm(A, axis=0)                  # the shortest in the metric of the columns is then the shortest
    w, closure = linear(A, y)
    optimizer = GaussNewton([w])
    optimizer.step(closure)
    np.testing.assert_allclose(w.numpy(), np.linalg.pinv(A) @ y, rtol=1e-8)
    assert "rank 3 of 5" in optimizer.report.reason


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_constant_damping_is_the_formula(solver):
    rng = np.random.default_rng(0)
    A, y, start = rng.standard_normal((20, 4)), rng.standard_normal(20), rng.standard_normal(4)
    w, closure = linear(A, y, start)
    GaussNewton([w], damping=3.0, adaptive=False, max_iter=1, solver=solver).step(closure)
    step = -np.linalg.solve(A.T @ A + 3 * np.eye(4), A.T @ (A @ start - y))
    np.testing.assert_allclose(w.numpy(), start + step, rtol=1e-10)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_damping_is_the_least_that_is_used(solver):
    b, closure = decay((1.0, 3.0))
    optimizer = GaussNewton([b], damping=0.5, max_iter=3, solver=solver)
    optimizer.step(closure)
    used = [float(line.split("damping ")[1].split(",")[0]) for line in optimizer.report.log]
    assert min(used) >= 0.5 and optimizer.param_groups[0]["mu"] >= 0.5
    assert optimizer.report.accepted


def test_a_refused_step_is_bent_along_a_curved_valley():
    x = leaf([-1.2, 1.0])
    optimizer = GaussNewton([x])
    optimizer.step(lambda: tg.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]))
    assert any(line.endswith("bent and taken") for line in optimizer.report.log)
    np.testing.assert_allclose(x.numpy(), [1, 1], rtol=1e-12)


def network():
    """Return a small network and the closure of its residuals against a curve."""
    tg.manual_seed(0)
    model = tg.nn.Sequential(tg.nn.Linear(1, 5), tg.nn.Tanh(), tg.nn.Linear(5, 1)).to("float64")
    x = tg.tensor(np.linspace(-1, 1, 30)[:, None])
    y = tg.sin(3 * x)
    return model, lambda: (model(x) - y).reshape(-1)


def test_matrix_free_equals_dense_on_a_network():
    ends = []
    for solver in ("dense", "cg"):
        model, closure = network()
        optimizer = GaussNewton(model.parameters(), damping=0.1, adaptive=False, max_iter=5, solver=solver)
        before = optimizer.step(closure).item()
        assert optimizer.report.numbers["loss"] < before / 10
        ends.append(np.concatenate([p.numpy().ravel() for p in model.parameters()]))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_both_solvers_train_a_network(solver):
    model, closure = network()
    optimizer = GaussNewton(model.parameters(), solver=solver, max_iter=100)
    before = optimizer.step(closure).item()
    assert optimizer.report.numbers["loss"] < 1e-4 * before
    assert (optimizer.report.products > 0) == (solver == "cg")


@pytest.mark.parametrize("solver", ["dense", "cg"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
def test_dtypes(dtype, tolerance, solver):
    b, closure = decay(dtype=dtype)
    GaussNewton([b], solver=solver).step(closure)
    assert b.dtype == dtype
    np.testing.assert_allclose(b.numpy(), [2, 0.5], rtol=tolerance)


def test_several_groups_and_parameters_are_one_vector():
    together, closure = decay()
    GaussNewton([together]).step(closure)
    t = tg.tensor(np.linspace(0, 4, 9))
    a, b, fixed = leaf(1.0), leaf([1.0]), tg.tensor([7.0])
    GaussNewton([{"params": [a, fixed]}, {"params": [b]}]).step(lambda: a * tg.exp(-b * t) - 2 * tg.exp(-0.5 * t))
    assert [a.item(), b.item(), fixed.item()] == pytest.approx([*together.tolist(), 7.0], rel=1e-12)


# ---- continuing -------------------------------------------------------------------------------------------


def test_a_group_may_be_added_between_steps():
    a, b, t = leaf(1.0), leaf(1.0), tg.tensor(np.linspace(0, 4, 9))
    optimizer = GaussNewton([a])
    optimizer.step(lambda: a * tg.exp(-b * t) - 2 * tg.exp(-0.5 * t))
    optimizer.add_param_group({"params": [b]})
    optimizer.step(lambda: a * tg.exp(-b * t) - 2 * tg.exp(-0.5 * t))
    assert [a.item(), b.item()] == pytest.approx([2, 0.5], rel=1e-9)


def test_one_iteration_a_call_arrives_too():
    b, closure = decay((1.0, 3.0))
    optimizer = GaussNewton([b], max_iter=1)
    for _ in range(20):
        optimizer.step(closure)
    np.testing.assert_allclose(b.numpy(), [2, 0.5], rtol=1e-9)


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_a_saved_state_continues_to_the_bit(solver):
    b, closure = decay((1.0, 30.0))
    optimizer = GaussNewton([b], max_iter=2, solver=solver)
    optimizer.step(closure)
    other, same_closure = decay(b.tolist())
    loaded = GaussNewton([other])
    loaded.load_state_dict(optimizer.state_dict())
    assert loaded.param_groups[0]["radius"] == optimizer.param_groups[0]["radius"] > 0
    for _ in range(3):
        optimizer.step(closure)
        loaded.step(same_closure)
        assert other.tolist() == b.tolist()


def test_the_closure_may_call_backward():
    b, closure = decay()

    def with_backward():
        r = closure()
        (r ** 2).sum().backward()
        return r

    GaussNewton([b]).step(with_backward)
    np.testing.assert_allclose(b.numpy(), [2, 0.5], rtol=1e-9)
    assert b.grad is None


# ---- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("result", "error", "words"), [
    (lambda r: (r ** 2).sum(), TypeError, r"shape \(m,\).* it returned shape \(\)"),
    (lambda r: r.reshape(3, 3), TypeError, r"returned shape \(3, 3\)\. Flatten"),
    (lambda r: r.numpy(), TypeError, "returned ndarray"),
    (lambda r: None, TypeError, "returned NoneType"),
    (lambda r: r[:0], TypeError, r"returned shape \(0,\)"),
    (lambda r: r.detach(), RuntimeError, "do not depend on the parameters"),
    (lambda r: r * float("nan"), ValueError, "loss is not finite"),
    (lambda r: tg.sqrt(0 * r), ValueError, "gradient of the loss is not finite"),
])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_what_a_closure_must_return(result, error, words):
    b, closure = decay()
    with pytest.raises(error, match=words):
        GaussNewton([b]).step(lambda: result(closure()))
    assert b.tolist() == [1, 1]


def test_a_closure_that_changes_its_data_or_fails_leaves_the_parameters():
    b, closure = decay()
    sizes = iter([9, 8])
    with pytest.raises(ValueError, match="returned 9 residuals and then 8"):
        GaussNewton([b]).step(lambda: closure()[:next(sizes)])
    assert b.tolist() == [1, 1]
    with pytest.raises(StopIteration):
        GaussNewton([b]).step(lambda: closure()[:next(sizes)])
    assert b.tolist() == [1, 1]


@pytest.mark.parametrize(("options", "words"), [
    ({"solver": "svd"}, "solver must be 'auto', 'dense' or 'cg', got 'svd'"),
    ({"damping": -1}, "damping must lie in"), ({"max_iter": 1.5}, "max_iter must lie in"),
    ({"tolerance_grad": float("nan")}, "tolerance_grad must lie in")])
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        GaussNewton([leaf([1.0])], **options)


def test_groups_that_differ_and_maximizing_are_refused():
    with pytest.raises(ValueError, match="no largest value"):
        GaussNewton([{"params": [leaf([1.0])], "maximize": True}])
    optimizer = GaussNewton([{"params": [leaf([1.0])]}, {"params": [leaf([1.0])], "damping": 1.0}])
    with pytest.raises(ValueError, match="damping is 0.0 in the first group and 1.0 in another"):
        optimizer.step(lambda: None)
    with pytest.raises(TypeError, match="step\\(closure\\)"):
        optimizer.step()


def test_max_iter_of_zero_moves_nothing_and_says_so():
    b, closure = decay()
    optimizer = GaussNewton([b], max_iter=0)
    loss = optimizer.step(closure)
    assert b.tolist() == [1, 1]
    assert (optimizer.report.accepted, optimizer.report.reason) == (False, "max_iter is 0: nothing was tried")
    assert optimizer.report.numbers == {"loss": loss.item()}


def test_residuals_of_zero():
    b, closure = decay((2.0, 0.5))
    optimizer = GaussNewton([b])
    assert optimizer.step(lambda: closure() * 0).item() == 0
    assert optimizer.report.reason.startswith("the residuals are zero")
    assert not optimizer.report.accepted


def test_a_singular_jacobian_is_said_to_be_one():
    b = leaf([0.0, 0.0])
    optimizer = GaussNewton([b])
    optimizer.step(lambda: tg.stack([b[0] * b[1] - 1, b[0] ** 2]))
    assert optimizer.report.reason == (f"{RIGHT_ANGLES}; the Jacobian has rank 0 of 2 there, so that the parameters "
                                       "are not determined by the residuals")
    assert b.tolist() == [0, 0]


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_steps_to_what_is_not_finite_are_refused(solver):
    b = leaf([30.0])                                # the first step would lead to the logarithm of a negative number
    optimizer = GaussNewton([b], solver=solver)
    optimizer.step(lambda: tg.log(b) + 3)
    assert b.item() == pytest.approx(np.exp(-3), rel=1e-7)
    assert any("got -inf" in line and line.endswith("refused") for line in optimizer.report.log)


def test_constant_damping_stops_at_what_is_not_finite():
    b = leaf([30.0])
    optimizer = GaussNewton([b], adaptive=False)
    optimizer.step(lambda: tg.log(b) + 3)
    assert b.tolist() == [30]
    assert "not finite where the step leads; it was refused" in optimizer.report.reason


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_residuals_that_are_noise_end_too(solver):
    rng, b = np.random.default_rng(0), leaf([1.0, 2.0])
    optimizer = GaussNewton([b], max_iter=200, solver=solver)
    optimizer.step(lambda: b * tg.tensor(rng.standard_normal(2)) + tg.tensor(rng.standard_normal(2)))
    assert optimizer.report.functions < 1000
    assert np.isfinite(b.numpy()).all()
