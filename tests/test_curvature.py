"""Curvature: matrices written out, products, operators and what is estimated from them."""

from functools import partial

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.autograd import Problem

random = np.random.default_rng(0)
X, TARGET, LABELS = random.normal(size=(6, 3)), random.normal(size=(6, 4)), random.integers(0, 4, 6)
BITS = random.integers(0, 2, (6, 4)).astype(float)
LOSSES = {"cross_entropy": LABELS, "mse_loss": TARGET, "binary_cross_entropy_with_logits": BITS}


def scalar(a, b, unused):
    return (tg.sin(a) * b).sum() ** 2 + tg.exp(a * 0.3).sum()


def vector(a, b, unused):
    return tg.tanh(a.reshape(-1) * b.sum()) + b[0] ** 2


def points(dtype="float64"):
    return [tg.tensor(random.normal(size=shape).astype(dtype)) for shape in [(2, 3), (3,), (2,)]]


def flat(parts):
    return np.concatenate([part.numpy().ravel() for part in parts])


def central(f, x, h=1e-5):
    """The Jacobian of a function of flat arrays."""
    return np.stack([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))], axis=-1)


def shaped(f, like):
    """A function of Tensors like these as one of a flat array."""
    ends = np.cumsum([x.numel() for x in like])[:-1]
    return lambda x: f([tg.tensor(part.reshape(p.shape)) for part, p in zip(np.split(x, ends), like)])


def network(dtype="float64", seed=0):
    generator = tg.Generator(seed)
    layers = [tg.nn.Linear(3, 5, dtype=dtype, generator=generator), tg.nn.Tanh(),
              tg.nn.Linear(5, 4, dtype=dtype, generator=generator)]
    return tg.nn.Sequential(*layers)


def problem_of(loss, dtype="float64", **options):
    target = LOSSES[loss]
    function = getattr(tg, loss)
    target = tg.tensor(target if loss == "cross_entropy" else target.astype(dtype))
    return Problem.of_model(network(dtype), partial(function, **options) if options else function,
                            tg.tensor(X.astype(dtype)), target)


def directions(inputs, dtype="float64"):
    return [random.normal(size=x.shape).astype(dtype) for x in inputs]


def block_matrix(blocks, inputs):
    sizes = [x.numel() for x in inputs]
    return np.block([[block.numpy().reshape(m, n) for block, n in zip(row, sizes)] for row, m in zip(blocks, sizes)])


def outputs_jacobian(problem):
    blocks = tg.autograd.jacobian(problem.outputs, problem.parameters)
    return np.concatenate([block.numpy().reshape(*block.shape[:2], -1) for block in blocks], axis=-1)


# ---- Jacobians and Hessians -------------------------------------------------------------------------------


def test_jacobian_of_several_inputs_by_rows_and_by_columns():
    inputs = points()
    for function in (vector, lambda *x: tg.cat([vector(*x), tg.sin(vector(*x)), vector(*x)]).reshape(2, 9)):
        blocks = tg.autograd.jacobian(function, inputs)
        shape = function(*inputs).shape
        assert [block.shape for block in blocks] == [(*shape, *x.shape) for x in inputs]
        expected = central(shaped(lambda x, f=function: f(*x).numpy().ravel(), inputs), flat(inputs))
        got = np.concatenate([block.numpy().reshape(len(expected), -1) for block in blocks], axis=1)
        np.testing.assert_allclose(got, expected, atol=1e-8)
        assert not blocks[2].numpy().any()


def test_hessian_of_several_inputs_is_that_of_central_differences_and_symmetric():
    inputs = points()
    blocks = tg.autograd.hessian(scalar, inputs)
    assert [[block.shape for block in row] for row in blocks] == [[a.shape + b.shape for b in inputs] for a in inputs]
    H = block_matrix(blocks, inputs)
    np.testing.assert_allclose(H, H.T, atol=1e-12)
    slopes = shaped(lambda x: flat(tg.vjp(scalar, x)[1]), inputs)
    np.testing.assert_allclose(H, central(slopes, flat(inputs)), atol=1e-8)
    assert not H[-2:].any()
    np.testing.assert_array_equal(tg.autograd.hessian_operator(scalar, inputs).dense().numpy(), H.T)


def test_matrices_of_one_input_and_their_graph():
    x = tg.tensor(random.normal(size=3), requires_grad=True)
    J = tg.autograd.jacobian(lambda x: x ** 3, x, create_graph=True)
    H = tg.autograd.hessian(lambda x: (x ** 4).sum(), x, create_graph=True)
    np.testing.assert_allclose(J.numpy(), np.diag(3 * x.numpy() ** 2))
    np.testing.assert_allclose(H.numpy(), np.diag(12 * x.numpy() ** 2))
    np.testing.assert_allclose(tg.grad(J.sum() + H.sum(), x)[0].numpy(), (6 + 24) * x.numpy())
    wide = tg.autograd.jacobian(lambda x: tg.cat([x, x ** 2]), x, create_graph=True)          # by columns
    np.testing.assert_allclose(tg.grad(wide.sum(), x)[0].numpy(), [2, 2, 2])
    assert x.grad is None and not tg.autograd.jacobian(lambda x: x ** 3, x).requires_grad


@pytest.mark.parametrize("shape", [(), (0,), (1, 1)])
def test_matrices_of_small_shapes(shape):
    x = tg.tensor(np.full(shape, 2.0))
    assert tg.autograd.jacobian(lambda x: x * x, x).shape == shape * 2
    assert tg.autograd.hessian(lambda x: (x * x).sum(), x).tolist() == np.full(shape * 2, 2.0).tolist()
    assert tg.autograd.jacobian(lambda x: tg.ones(2), x).tolist() == np.zeros((2, *shape)).tolist()
    assert not tg.autograd.hessian(lambda x: tg.tensor(1.0), x).numpy().any()


def test_vhp_is_hvp():
    inputs, v = points(), directions(points())
    (value, left), (expected, right) = tg.autograd.vhp(scalar, inputs, v), tg.hvp(scalar, inputs, v)
    assert value.item() == expected.item()
    for a, b in zip(left, right):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_against_torch():
    torch = pytest.importorskip("torch")
    f, theirs = (lambda a, b, c: tg.sin(a @ b).sum() * (b ** 3).sum()), (
        lambda a, b, c: torch.sin(a @ b).sum() * (b ** 3).sum())
    inputs = points()
    others = tuple(torch.tensor(x.numpy()) for x in inputs)
    v = directions(inputs)
    v_theirs = tuple(torch.tensor(part) for part in v)
    functional = torch.autograd.functional
    for a, b in zip(tg.autograd.hessian(f, inputs), functional.hessian(theirs, others), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x.numpy(), y.numpy(), atol=1e-12)
    for product in ("vhp", "hvp"):
        expected = getattr(functional, product)(theirs, others, v_theirs)[1]
        for a, b in zip(getattr(tg.autograd, product)(f, inputs, v)[1], expected, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-12)
    g, theirs = (lambda a, b, c: a @ b * b[:2]), (lambda a, b, c: a @ b * b[:2])
    for a, b in zip(tg.autograd.jacobian(g, inputs), functional.jacobian(theirs, others), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-12)


# ---- models -----------------------------------------------------------------------------------------------


def test_a_problem_is_a_function_of_the_models_parameters():
    model = network()
    problem = Problem.of_model(model, tg.nn.CrossEntropyLoss(), tg.tensor(X), tg.tensor(LABELS))
    before = [p.numpy().copy() for p in problem.parameters]
    assert list(problem.parameters) == list(model.parameters())
    assert problem(*problem.parameters).item() == tg.cross_entropy(model(tg.tensor(X)), LABELS).item()
    expected = tg.grad(problem(*problem.parameters), problem.parameters)
    slopes = central(shaped(lambda x: np.atleast_1d(problem(*x).numpy()), problem.parameters), flat(problem.parameters))
    np.testing.assert_allclose(flat(expected), slopes[0], atol=1e-8)
    assert all(a is b for a, b in zip(problem.parameters, model.parameters(), strict=True))
    for p, numbers in zip(problem.parameters, before):
        np.testing.assert_array_equal(p.numpy(), numbers)
        assert p.grad is None
    with pytest.raises(ValueError, match="shapes"):
        problem(*problem.parameters[:-1])
    assert list(model.parameters()) == list(problem.parameters)


def test_a_problem_replaces_shared_parameters_and_leaves_frozen_ones():
    model = network()
    model[2] = tg.nn.Linear(5, 5, dtype="float64")
    model = tg.nn.Sequential(model, model[2])
    model[0][0].requires_grad_(False)
    problem = Problem.of_model(model, lambda z: (z * z).sum(), tg.tensor(X))
    weight, bias = problem.parameters
    zeros = [tg.zeros(*p.shape, dtype="float64") for p in (weight, bias)]
    assert weight is model[1].weight and problem(*zeros).item() == 0
    assert model[1].weight is model[0][2].weight is weight
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        Problem.of_model(model.requires_grad_(False), lambda z: z.sum(), tg.tensor(X))


def test_hessian_of_a_model():
    problem = problem_of("cross_entropy")
    inputs = problem.parameters
    H = block_matrix(tg.autograd.hessian(problem, inputs), inputs)
    slopes = shaped(lambda x: flat(tg.vjp(problem, x)[1]), inputs)
    np.testing.assert_allclose(H, central(slopes, flat(inputs)), atol=1e-8)
    v = directions(inputs)
    np.testing.assert_allclose(flat(tg.hvp(problem, inputs, v)[1]), H @ flat(map(tg.tensor, v)), atol=1e-12)
    elsewhere = [tg.tensor(x.numpy() + 0.1) for x in inputs]
    copies = network()
    copies.load_state_dict(dict(zip(copies.state_dict(), elsewhere)))
    there = Problem.of_model(copies, tg.cross_entropy, tg.tensor(X), LABELS)
    np.testing.assert_allclose(flat(tg.hvp(problem, elsewhere, v)[1]), flat(tg.hvp(there, there.parameters, v)[1]))


# ---- Gauss-Newton and Fisher ------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gauss_newton_and_fisher_are_the_matrices_of_their_definition(loss, reduction):
    problem = problem_of(loss, reduction=reduction)
    inputs, v = problem.parameters, directions(problem.parameters)
    J, z = outputs_jacobian(problem), problem.outputs(*inputs).detach()
    S = tg.autograd.hessian(problem.loss, z).numpy()
    expected = np.einsum("abp,abcd,cdq->pq", J, S, J)
    G = tg.autograd.ggn_operator(problem)
    np.testing.assert_allclose(G.dense().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(tg.autograd.fisher_operator(problem).dense().numpy(), expected, atol=1e-12)
    for product in (tg.autograd.ggn_vp, tg.autograd.fisher_vp):
        value, parts = product(problem, inputs, v)
        assert value.item() == problem(*inputs).item() and [p.shape for p in parts] == [p.shape for p in inputs]
        np.testing.assert_allclose(flat(parts), expected @ flat(map(tg.tensor, v)), atol=1e-12)
    empirical = tg.autograd.fisher_operator(problem, kind="empirical").dense().numpy()
    terms = z.numel() / (4 if loss == "cross_entropy" else 1) if reduction == "mean" else 1
    rows = []                                       # the gradients of single examples, one backward each
    for n in range(len(X)):
        one = Problem.of_model(network(), partial(getattr(tg, loss), reduction="sum"), tg.tensor(X[n:n + 1]),
                               tg.tensor(LOSSES[loss][n:n + 1]))
        rows.append(flat(tg.grad(one(*one.parameters), one.parameters)))
    np.testing.assert_allclose(empirical, sum(np.outer(g, g) for g in rows) / terms, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_monte_carlo_fisher_comes_near_the_exact_one_and_is_reproducible(loss):
    problem = problem_of(loss)
    exact = tg.autograd.fisher_operator(problem).dense().numpy()
    few, many = (tg.autograd.fisher_operator(problem, None, "mc", samples, tg.Generator(3)) for samples in (20, 2000))
    far, near = (np.linalg.norm(F.dense().numpy() - exact) / np.linalg.norm(exact) for F in (few, many))
    assert near < 0.05 and near < far / 3
    v = directions(problem.parameters)
    one, two, other = (tg.autograd.fisher_vp(problem, problem.parameters, v, "mc", generator=tg.Generator(seed))[1]
                       for seed in (5, 5, 6))
    one, two, other = flat(one), flat(two), flat(other)
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    operator = tg.autograd.fisher_operator(problem, kind="mc")
    v = flat(map(tg.tensor, v))
    np.testing.assert_array_equal((operator @ v).numpy(), (operator @ v).numpy())


def test_classes_along_axis_one_and_probabilities_as_targets():
    logits, labels = tg.tensor(random.normal(size=(2, 3, 4))), random.integers(0, 3, (2, 4))
    spread = np.moveaxis(np.eye(3)[labels], -1, 1)
    F, G, E, P = (operator.dense().numpy() for operator in (
        tg.autograd.fisher_operator(Problem(lambda z: z, tg.cross_entropy, labels), logits),
        tg.autograd.ggn_operator(Problem(lambda z: z, tg.cross_entropy, labels), logits),
        tg.autograd.fisher_operator(Problem(lambda z: z, tg.cross_entropy, labels), logits, "empirical"),
        tg.autograd.fisher_operator(Problem(lambda z: z, tg.cross_entropy, spread), logits, "empirical")))
    np.testing.assert_allclose(F, G, atol=1e-14)
    np.testing.assert_allclose(E, P, atol=1e-14)
    samples = tg.autograd.fisher_operator(Problem(lambda z: z, tg.cross_entropy, labels), logits, "mc", 4000,
                                          tg.Generator(0)).dense().numpy()
    assert np.linalg.norm(samples - F) < 0.1 * np.linalg.norm(F)


def test_outputs_with_one_number_an_example():
    x, y, w = tg.tensor(X), TARGET[:, 0], tg.tensor(X[0])
    problem = Problem(lambda w: x @ w, tg.mse_loss, y)
    residual = X @ X[0] - y
    np.testing.assert_allclose(tg.autograd.fisher_operator(problem, w).dense().numpy(), X.T @ X / 3, atol=1e-12)
    np.testing.assert_allclose(tg.autograd.fisher_operator(problem, w, "empirical").dense().numpy(),
                               (X.T * 4 * residual ** 2) @ X / 6, atol=1e-12)


def test_gauss_newton_of_residuals_is_the_product_with_jacobians_transpose_and_jacobian():
    inputs = points()
    problem = Problem(vector, lambda r: (r * r).sum() / 2)
    J = np.concatenate([b.numpy().reshape(len(b), -1) for b in tg.autograd.jacobian(vector, inputs)], axis=1)
    G = tg.autograd.ggn_operator(problem, inputs)
    np.testing.assert_allclose(G.dense().numpy(), J.T @ J, atol=1e-12)
    assert not tg.autograd.ggn_vp(problem, inputs, directions(inputs))[1][2].numpy().any()
    flat_loss = Problem(vector, lambda r: r.sum())
    assert not any(p.numpy().any() for p in tg.autograd.ggn_vp(flat_loss, inputs, directions(inputs))[1])
    constant = Problem(lambda *x: tg.ones(2, dtype="float64"), lambda r: (r * r).sum())
    assert not any(p.numpy().any() for p in tg.autograd.ggn_vp(constant, inputs, directions(inputs))[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes(dtype):
    problem = problem_of("cross_entropy", dtype)
    inputs, v = problem.parameters, directions(problem.parameters)
    for product in (tg.hvp, tg.autograd.vhp, tg.autograd.ggn_vp, *(partial(tg.autograd.fisher_vp, kind=kind)
                                                                   for kind in ("exact", "mc", "empirical"))):
        value, parts = product(problem, inputs, v)
        assert value.dtype == dtype and {str(part.dtype) for part in parts} == {dtype}
    operator = tg.autograd.ggn_operator(problem)
    assert operator.dtype == dtype and operator.dense().dtype == dtype
    values, vectors = tg.autograd.power_iteration(operator, tol=1e-3)
    assert values.dtype == vectors.dtype == tg.autograd.hutchinson_trace(operator).dtype == dtype
    mixed = [tg.tensor([1.0]), tg.tensor(np.ones(2))]
    H = tg.autograd.hessian_operator(lambda a, b: (a * b).sum() ** 2, mixed)
    assert H.dtype == "float64" and [part.dtype for part in H.split(H @ np.ones(3))] == ["float32", "float64"]


def test_products_in_no_grad_leave_gradients_and_parameters_alone():
    problem = problem_of("mse_loss")
    v = directions(problem.parameters)
    with tg.no_grad():
        inside = flat(tg.autograd.ggn_vp(problem, problem.parameters, v)[1])
        tg.autograd.hessian_operator(problem).dense()
    np.testing.assert_array_equal(inside, flat(tg.autograd.ggn_vp(problem, problem.parameters, v)[1]))
    assert all(p.grad is None and p.requires_grad for p in problem.parameters)


def test_the_model_is_called_once_for_a_product_and_once_for_any_number_by_an_operator():
    model, calls = network(), []
    model.register_forward_hook(lambda *call: calls.append(1))
    problem = Problem.of_model(model, tg.cross_entropy, tg.tensor(X), LABELS)
    v = directions(problem.parameters)
    for product in (tg.hvp, tg.autograd.ggn_vp, *(partial(tg.autograd.fisher_vp, kind=kind, samples=3)
                                                  for kind in ("exact", "mc", "empirical"))):
        calls.clear()
        product(problem, problem.parameters, v)
        assert len(calls) == 1
    for operator in (tg.autograd.hessian_operator, tg.autograd.ggn_operator, tg.autograd.fisher_operator):
        calls.clear()
        operator(problem).dense()
        assert len(calls) == 1


# ---- operators and what is made of their products ---------------------------------------------------------


def quadratic(A):
    """A function whose Hessian is a given symmetric matrix."""
    A = tg.tensor(A)
    return lambda x: (x @ (A @ x)) / 2


def symmetric(values):
    Q = np.linalg.qr(random.normal(size=(len(values), len(values))))[0]
    return Q * values @ Q.T


def test_an_operator_multiplies_vectors_and_columns():
    A = symmetric(np.arange(1.0, 7.0))
    H = tg.autograd.hessian_operator(quadratic(A), tg.tensor(X[0].repeat(2)))
    V = random.normal(size=(6, 2))
    np.testing.assert_allclose((H @ V).numpy(), A @ V)
    np.testing.assert_allclose((H @ tg.tensor(V[:, 0])).numpy(), A @ V[:, 0])
    x = tg.tensor(X[0], requires_grad=True)
    stale = tg.autograd.hessian_operator(lambda x: (x ** 3).sum(), x)
    x.data = X[1]
    with pytest.raises(RuntimeError, match="written to after the forward pass"):
        stale @ X[0]
    assert H.shape == (6, 6) and H.value.item() == quadratic(A)(H.inputs).item()
    assert "shape=(6, 6)" in repr(H)


def test_hutchinson():
    A = symmetric(np.linspace(-1, 3, 8))
    f, x = quadratic(A), tg.zeros(8, dtype="float64")
    diagonal = tg.autograd.hutchinson_diag(f, x, samples=4000, generator=tg.Generator(0)).numpy()
    spread = np.sqrt(((A ** 2).sum(1) - A.diagonal() ** 2) / 4000)
    assert (abs(diagonal - A.diagonal()) < 4 * spread).all()
    trace = tg.autograd.hutchinson_trace(f, x, samples=4000, generator=tg.Generator(0)).item()
    assert abs(trace - np.trace(A)) < 4 * np.sqrt(2 / 4000 * ((A ** 2).sum() - (A.diagonal() ** 2).sum()))
    np.testing.assert_allclose(trace, diagonal.sum())
    parts = tg.autograd.hutchinson_diag(lambda a, b: (a ** 4).sum() + (b ** 3).sum(), points()[:2], samples=1)
    assert [part.shape for part in parts] == [(2, 3), (3,)]
    problem = problem_of("cross_entropy")
    G = tg.autograd.ggn_operator(problem)
    exact = np.trace(G.dense().numpy())
    assert abs(tg.autograd.hutchinson_trace(G, samples=500, generator=tg.Generator(0)).item() - exact) < 0.1 * exact


def test_estimates_are_reproducible():
    f, x = quadratic(symmetric(np.arange(6.0))), tg.zeros(6, dtype="float64")
    for estimate in (tg.autograd.hutchinson_diag, tg.autograd.hutchinson_trace,
                     lambda *a, generator: tg.autograd.power_iteration(*a, generator=generator)[1],
                     lambda *a, generator: tg.autograd.lanczos_spectrum(*a, generator=generator, samples=1).weights):
        one, two, other = (estimate(f, x, generator=tg.Generator(seed)).numpy() for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, two)
        assert (one != other).any()
        tg.manual_seed(1)
        np.testing.assert_array_equal(estimate(f, x, generator=None).numpy(), one)


@pytest.mark.parametrize("values", [[5, -4, 3, 0.5, 0.2], [3, -3, 1, -1, 0], [2, 2, 2, 1, 1], [0, 0, 0, 0, 0]])
def test_power_iteration(values):
    A = symmetric(np.array(values, float))
    found, vectors = tg.autograd.power_iteration(quadratic(A), tg.zeros(5, dtype="float64"), k=5, max_iter=500,
                                                 tol=1e-10, generator=tg.Generator(0))
    found, vectors = found.numpy(), vectors.numpy()
    np.testing.assert_allclose(np.sort(found), np.sort(values), atol=1e-8)
    assert (np.diff(abs(found)) < 1e-8).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=1e-8)
    np.testing.assert_allclose(A @ vectors, vectors * found, atol=1e-8)


def test_power_iteration_of_a_model_finds_what_eigh_finds():
    problem = problem_of("cross_entropy")
    for operator in (tg.autograd.hessian_operator(problem), tg.autograd.ggn_operator(problem)):
        values = np.linalg.eigvalsh(operator.dense().numpy())
        values = values[np.argsort(-abs(values))][:3]
        found, vectors = tg.autograd.power_iteration(operator, k=3, max_iter=1000, tol=1e-6)
        np.testing.assert_allclose(found.numpy(), values, rtol=1e-8)
        assert [p.shape for p in operator.split(vectors[:, 0])] == [p.shape for p in problem.parameters]
    with pytest.warns(RuntimeWarning, match="eigenvalue 1 .* after 1 iterations.*Raise max_iter"):
        tg.autograd.power_iteration(operator, max_iter=1, tol=1e-12)
    narrow = tg.autograd.ggn_operator(problem_of("mse_loss", "float32"))              # 24 of its 44 eigenvalues are 0
    assert (abs(tg.autograd.power_iteration(narrow, k=26, max_iter=2000, tol=1e-2)[0].numpy()[24:]) < 1e-5).all()


def test_lanczos_spectrum_is_exact_where_the_matrix_is_small():
    values = np.array([-1.0, 0.5, 2.0, 4.0])
    f, x = quadratic(symmetric(values)), tg.zeros(4, dtype="float64")
    spectrum = tg.autograd.lanczos_spectrum(f, x, samples=400, generator=tg.Generator(0))
    np.testing.assert_allclose(spectrum.values.numpy(), values.repeat(400), atol=1e-8)
    weights = spectrum.weights.numpy().reshape(4, 400).sum(1)
    np.testing.assert_allclose(weights, 0.25, atol=0.04)
    grid, density = spectrum.grid.numpy(), spectrum.density.numpy()
    np.testing.assert_allclose(np.trapezoid(density, grid), 1, atol=1e-5)
    assert all(density[abs(grid - value).argmin()] > 10 * density[abs(grid - 1.2).argmin()] for value in values)


def test_lanczos_spectrum_of_many_eigenvalues_has_their_moments():
    values = np.concatenate([np.linspace(0, 1, 60), [5, 9]])
    f, x = quadratic(symmetric(values)), tg.zeros(62, dtype="float64")
    spectrum = tg.autograd.lanczos_spectrum(f, x, steps=20, samples=200, generator=tg.Generator(0))
    raw, weights = spectrum.values.numpy(), spectrum.weights.numpy()
    assert len(raw) == 4000 and (np.diff(raw) >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1)
    for power in (1, 2, 3):
        np.testing.assert_allclose((weights * raw ** power).sum(), (values ** power).mean(), rtol=0.15)
    np.testing.assert_allclose([raw.min(), raw.max()], [0, 9], atol=1e-2)
    at = tg.autograd.lanczos_spectrum(f, x, steps=20, samples=1, grid=[0.5, 5.0], sigma=0.1, generator=tg.Generator(0))
    few, share = at.values.numpy(), at.weights.numpy()
    expected = [(share * np.exp(-((few - g) / 0.1) ** 2 / 2)).sum() / (0.1 * np.sqrt(2 * np.pi)) for g in (0.5, 5.0)]
    np.testing.assert_allclose(at.density.numpy(), expected)


def test_lanczos_spectrum_of_multiples_of_the_identity():
    for scale in (0.0, 3.0):
        spectrum = tg.autograd.lanczos_spectrum(quadratic(scale * np.eye(3)), tg.zeros(3, dtype="float64"), samples=2)
        np.testing.assert_allclose(spectrum.values.numpy(), [scale, scale], atol=1e-12)
        np.testing.assert_allclose(np.trapezoid(spectrum.density.numpy(), spectrum.grid.numpy()), 1, atol=1e-5)


# ---- bad input --------------------------------------------------------------------------------------------


def test_functions_that_are_not_scalar_or_no_tensor():
    x = tg.tensor(X[0])
    for tool in (tg.autograd.hessian, tg.autograd.hessian_operator, tg.autograd.power_iteration,
                 tg.autograd.hutchinson_trace, partial(tg.autograd.vhp, v=X[1])):
        with pytest.raises(RuntimeError, match="starts from a scalar"):
            tool(lambda x: x * x, x)
        with pytest.raises(TypeError, match="one Tensor, it returned float"):
            tool(lambda x: 1.0, x)
    with pytest.raises(TypeError, match="one Tensor, it returned tuple"):
        tg.autograd.jacobian(lambda x: (x, x), x)
    with pytest.raises(TypeError, match="inputs must be a Tensor"):
        tg.autograd.jacobian(lambda x: x, X)
    with pytest.raises(RuntimeError, match="starts from a scalar"):
        tg.autograd.ggn_vp(Problem(lambda x: x, lambda z: z * z), x, X[0])


def test_vectors_that_do_not_fit():
    problem = problem_of("mse_loss")
    v = directions(problem.parameters)
    for product in (tg.autograd.ggn_vp, tg.autograd.fisher_vp):
        with pytest.raises(ValueError, match="one direction an input, 4 here; got 3"):
            product(problem, problem.parameters, v[1:])
        with pytest.raises(ValueError, match="one direction an input, 4 here; got ndarray"):
            product(problem, problem.parameters, v[0])
        with pytest.raises(ValueError, match=r"input 0 has \(5, 3\), its direction \(5,\)"):
            product(problem, problem.parameters, [v[1], *v[1:]])
    operator = tg.autograd.ggn_operator(problem)
    for bad in (np.ones(3), np.ones((1, 44)), 1.0):
        with pytest.raises(ValueError, match=r"multiplies vectors of shape \(44,\)"):
            operator @ bad


def test_fisher_and_gauss_newton_need_to_know_the_loss():
    x, v = tg.tensor(X), X
    for product in (tg.autograd.ggn_vp, tg.autograd.fisher_vp):
        with pytest.raises(TypeError, match=r"Problem.of_model\(model, loss, x, y\), got function"):
            product(lambda x: x.sum(), x, v)
    with pytest.raises(TypeError, match="got <lambda>. Give one as it is"):
        tg.autograd.fisher_vp(Problem(lambda x: x, lambda z: z.sum()), x, v)
    with pytest.raises(TypeError, match="got HuberLoss"):
        tg.autograd.fisher_vp(Problem(lambda x: x, tg.nn.HuberLoss(), x), x, v)
    labels = np.array([0, 1, 2, 0, 1, 2])
    for loss, match in [(tg.nn.CrossEntropyLoss(weight=tg.ones(3, dtype="float64")), "weight="),
                        (partial(tg.cross_entropy, label_smoothing=0.1), "label_smoothing="),
                        (partial(tg.cross_entropy, ignore_index=0), "ignore_index=")]:
        with pytest.raises(ValueError, match=match):
            tg.autograd.fisher_vp(Problem(lambda x: x, loss, labels), x, v)
    with pytest.raises(ValueError, match="labels are ignored"):
        tg.autograd.fisher_vp(Problem(lambda x: x, tg.cross_entropy, np.array([0, 1, 2, -100, 1, 2])), x, v)
    with pytest.raises(ValueError, match=r"examples along the first axis, got the shape \(3,\)"):
        tg.autograd.fisher_vp(Problem(lambda x: x[0], tg.cross_entropy, 1), x, v)
    with pytest.raises(ValueError, match="kind must be 'exact', 'mc' or 'empirical', got 'true'"):
        tg.autograd.fisher_vp(Problem(lambda x: x, tg.cross_entropy, labels), x, v, "true")
    module = tg.autograd.fisher_vp(Problem(lambda x: x, tg.nn.CrossEntropyLoss(label_smoothing=0.0), labels), x, v)
    np.testing.assert_array_equal(
        module[1].numpy(), tg.autograd.fisher_vp(Problem(lambda x: x, tg.cross_entropy, labels), x, v)[1].numpy())


def test_numbers_out_of_range():
    f, x = quadratic(np.eye(3)), tg.zeros(3, dtype="float64")
    for call in (partial(tg.autograd.hutchinson_diag, samples=0), partial(tg.autograd.hutchinson_trace, samples=1.5),
                 partial(tg.autograd.power_iteration, k=0), partial(tg.autograd.power_iteration, max_iter=0),
                 partial(tg.autograd.lanczos_spectrum, steps=0), partial(tg.autograd.lanczos_spectrum, samples=-1),
                 partial(tg.autograd.lanczos_spectrum, grid=0)):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            call(f, x)
    with pytest.raises(ValueError, match="at most the number of rows, 3; got 4"):
        tg.autograd.power_iteration(f, x, k=4)
    with pytest.raises(ValueError, match="sigma must be above 0, got -1"):
        tg.autograd.lanczos_spectrum(f, x, sigma=-1)
    with pytest.raises(ValueError, match="inputs= is missing"):
        tg.autograd.hutchinson_trace(f)
    with pytest.raises(ValueError, match="inputs= is for functions"):
        tg.autograd.hutchinson_trace(tg.autograd.hessian_operator(f, x), x)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="not finite"):
        tg.autograd.power_iteration(lambda x: tg.sqrt(x).sum(), x)


def test_the_tools_are_found_in_autograd():
    for name in tg.autograd._LATER:
        assert getattr(tg.autograd, name).__doc__ and name in dir(tg.autograd)
    with pytest.raises(AttributeError, match="no attribute 'hesian'"):
        tg.autograd.hesian  # noqa: B018
