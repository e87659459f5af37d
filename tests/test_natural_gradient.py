"""Natural gradient and Hessian-free against dense algebra."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.optim.second_order.conjugate_gradient import conjugate_gradient
from tinygrad_opt.optim.second_order.hessian_free import HessianFree
from tinygrad_opt.optim.second_order.natural_gradient import NaturalGradient

RANDOM = np.random.default_rng(0)
X, T = RANDOM.standard_normal((15, 4)), RANDOM.standard_normal((15, 2))
LABELS = RANDOM.integers(0, 3, 15)


def network(*sizes, seed=0):
    generator, modules = tg.Generator(seed), []
    for a, b in zip(sizes, sizes[1:]):
        modules += [nn.Linear(a, b, dtype="float64", generator=generator), nn.Tanh()]
    return nn.Sequential(*modules[:-1])


def flat(model):
    return np.concatenate([p.numpy().reshape(-1) for p in model.parameters()])


def jacobian(model, x):
    """Return the Jacobian of each output of each example for all parameters, (examples, outputs, parameters)."""
    z = model(tg.Tensor(x))
    rows = []
    for i in range(z.shape[0]):
        for k in range(z.shape[1]):
            grads = tg.grad(z[i, k], list(model.parameters()), retain_graph=True)
            rows.append(np.concatenate([g.numpy().reshape(-1) for g in grads]))
    return np.array(rows).reshape(*z.shape, -1)


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def dense(model, kind, shape="full"):
    """Return the Fisher matrix and the gradient of the mean cross-entropy, by dense algebra."""
    J, p = jacobian(model, X), softmax(model(tg.Tensor(X)).numpy())
    e = p - np.eye(3)[LABELS]
    if kind == "exact":
        F = np.mean([j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(J, p)], axis=0)
    else:
        F = np.mean([np.outer(j.T @ u, j.T @ u) for j, u in zip(J, e)], axis=0)
    return np.diag(np.diag(F)) if shape == "diag" else F, np.einsum("nkp,nk->p", J, e) / len(X)


def test_natural_gradient_is_gauss_newton_on_a_linear_gaussian_model():
    """One step from anywhere to the least squares solution."""
    layer = nn.Linear(4, 2, dtype="float64")
    optimizer = NaturalGradient(layer, lr=1, damping=0, likelihood="squared")
    optimizer.step(lambda: tg.mse_loss(layer(tg.Tensor(X)), tg.Tensor(T)))
    wanted = np.linalg.lstsq(np.c_[X, np.ones(len(X))], T, rcond=None)[0]
    np.testing.assert_allclose(layer.weight.numpy(), wanted[:-1].T, rtol=0, atol=1e-8)
    np.testing.assert_allclose(layer.bias.numpy(), wanted[-1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("damping, lr", [(0.01, 1.0), (0.5, 0.3)])
def test_damped_gauss_newton_of_a_linear_gaussian_model(damping, lr):
    layer = nn.Linear(4, 2, dtype="float64")
    A = np.c_[X, np.ones(len(X))]
    W = np.c_[layer.weight.numpy(), layer.bias.numpy()]
    c = 2 / T.size                                  # the mean of squares curves by this
    step = np.linalg.solve(c * A.T @ A + damping * np.eye(5), c * A.T @ (A @ W.T - T)).T
    NaturalGradient(layer, lr, damping).step(lambda: tg.mse_loss(layer(tg.Tensor(X)), tg.Tensor(T)))
    np.testing.assert_allclose(np.c_[layer.weight.numpy(), layer.bias.numpy()], W - lr * step, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", ["full", "diag"])
@pytest.mark.parametrize("fisher", ["exact", "empirical"])
def test_against_dense_algebra(fisher, shape):
    model = network(4, 3, 3)
    F, g = dense(model, fisher, shape)
    before = flat(model)
    optimizer = NaturalGradient(model, 0.5, 0.01, fisher, shape)
    loss = optimizer.step(lambda: tg.cross_entropy(model(tg.Tensor(X)), LABELS))
    np.testing.assert_allclose(flat(model), before - 0.5 * np.linalg.solve(F + 0.01 * np.eye(len(g)), g), atol=1e-8)
    assert optimizer.report.accepted and optimizer.report.numbers["loss"] == loss.item()


def test_drawn_labels_have_the_exact_fisher_as_their_mean():
    model = network(4, 3)
    F, g = dense(model, "exact")
    draws, start = [], [p.numpy().copy() for p in model.parameters()]
    optimizer = NaturalGradient(model, 1.0, 10.0, "mc", generator=tg.Generator(0))   # (F + 10)^-1 g is nearly linear
    for _ in range(300):
        before = flat(model)
        optimizer.step(lambda: tg.cross_entropy(model(tg.Tensor(X)), LABELS))
        draws.append(before - flat(model))
        for p, value in zip(model.parameters(), start):
            p.data = value
    spread = np.std(draws, axis=0).max()
    assert spread > 1e-6
    np.testing.assert_allclose(np.mean(draws, axis=0), np.linalg.solve(F + 10 * np.eye(len(g)), g), atol=spread)


def test_parameters_and_a_closure_that_returns_the_outputs():
    ends = []
    for whole in (True, False):
        model = network(4, 3, 3)

        def closure():
            z = model(tg.Tensor(X))
            loss = tg.cross_entropy(z, LABELS)
            return loss if whole else (loss, z)
        for cls in (NaturalGradient, HessianFree):
            cls(model if whole else model.parameters()).step(closure)
        ends.append(flat(model))
    np.testing.assert_array_equal(*ends)


def test_a_singular_fisher_without_damping():
    """Two equal inputs: the gradient lies in the range, so a solution exists, and the shortest is found."""
    layer = nn.Linear(2, 1, bias=False, dtype="float64")
    nn.init.zeros_(layer.weight)
    x, t = tg.Tensor(np.array([[1.0, 1.0], [2.0, 2.0]])), tg.Tensor(np.array([[2.0], [4.0]]))
    NaturalGradient(layer, lr=1, damping=0).step(lambda: tg.mse_loss(layer(x), t))
    np.testing.assert_allclose(layer.weight.numpy(), [[1, 1]], atol=1e-10)


def test_conjugate_gradients_say_why_they_stop():
    b = tg.Tensor(np.array([1.0, 1.0])).data
    assert "solved" in conjugate_gradient(lambda v: 2 * v, b, 5, 1e-10).reason
    assert "indefinite" in conjugate_gradient(lambda v: -v, b, 5, 1e-10).reason
    assert "singular" in conjugate_gradient(lambda v: 0 * v, b, 5, 1e-10).reason
    assert "not finite" in conjugate_gradient(lambda v: v * float("nan"), b, 5, 1e-10).reason
    assert "max_iter" in conjugate_gradient(lambda v: v * b.cumsum(), b, 1, 1e-10).reason


@pytest.mark.parametrize("cls", [NaturalGradient, HessianFree])
def test_an_indefinite_curvature_moves_nothing_or_down(cls):
    """A loss that curves downwards with the outputs."""
    layer = nn.Linear(4, 2, dtype="float64")
    before = flat(layer)
    optimizer = cls(layer, damping=1e-3)
    optimizer.step(lambda: -tg.mse_loss(layer(tg.Tensor(X)), tg.Tensor(T)))
    assert "indefinite" in optimizer.report.reason and optimizer.report.accepted is False
    np.testing.assert_array_equal(flat(layer), before)


def test_hessian_free_lowers_the_loss_and_adapts():
    model = network(4, 6, 3)
    optimizer = HessianFree(model, damping=0.1)
    losses = [optimizer.step(lambda: tg.cross_entropy(model(tg.Tensor(X)), LABELS)).item() for _ in range(15)]
    assert all(b <= a for a, b in zip(losses, losses[1:])) and losses[-1] < 0.2 * losses[0]
    assert optimizer.param_groups[0]["damping"] != 0.1 and optimizer.report.products > 1


def test_hessian_free_solves_a_linear_gaussian_model():
    layer = nn.Linear(4, 2, dtype="float64")
    optimizer = HessianFree(layer, damping=1e-9, tolerance=1e-12)
    optimizer.step(lambda: tg.mse_loss(layer(tg.Tensor(X)), tg.Tensor(T)))
    wanted = np.linalg.lstsq(np.c_[X, np.ones(len(X))], T, rcond=None)[0]
    np.testing.assert_allclose(layer.weight.numpy(), wanted[:-1].T, atol=1e-6)
    assert optimizer.report.numbers["ratio"] == pytest.approx(1, abs=1e-6)


def test_hessian_free_continues_bit_for_bit():
    model, other = network(4, 5, 3), network(4, 5, 3, seed=1)
    optimizer, again = HessianFree(model), HessianFree(other)
    for _ in range(3):
        optimizer.step(lambda: tg.cross_entropy(model(tg.Tensor(X)), LABELS))
    other.load_state_dict(model.state_dict())
    again.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        optimizer.step(lambda: tg.cross_entropy(model(tg.Tensor(X)), LABELS))
        again.step(lambda: tg.cross_entropy(other(tg.Tensor(X)), LABELS))
    np.testing.assert_array_equal(flat(model), flat(other))


@pytest.mark.parametrize("cls", [NaturalGradient, HessianFree])
def test_bad_input(cls):
    model, x = network(4, 3), tg.Tensor(X)
    with pytest.raises(TypeError, match="returned float"):
        cls(model).step(lambda: tg.cross_entropy(model(x), LABELS).item())
    with pytest.raises(ValueError, match="does not curve with the outputs"):
        cls(model).step(lambda: model(x).sum())
    with pytest.raises(ValueError, match="takes a closure that returns \\(loss, outputs\\)"):
        cls(model.parameters()).step(lambda: tg.cross_entropy(model(x), LABELS))
    with pytest.raises(ValueError, match="takes no maximize"):
        cls([{"params": list(model.parameters()), "maximize": True}])
    with pytest.raises(ValueError, match="max_iter must lie in"):
        cls(model, max_iter=0)
    nn.init.constant_(model[0].bias, float("nan"))
    before = model[0].weight.numpy().copy()
    with pytest.raises(ValueError, match="not finite"):
        cls(model).step(lambda: tg.cross_entropy(model(x), LABELS))
    np.testing.assert_array_equal(model[0].weight.numpy(), before)


def test_words_of_the_natural_gradient():
    with pytest.raises(ValueError, match="shape must be one of"):
        NaturalGradient(network(4, 3), shape="kron")
    with pytest.raises(ValueError, match="likelihood must be one of"):
        NaturalGradient(network(4, 3), likelihood="poisson")
