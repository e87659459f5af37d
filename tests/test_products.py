"""Products with Jacobians and Hessians: `vjp`, `jvp`, `hvp`."""

import numpy as np
import pytest

import tinygrad_opt as tg

random = np.random.default_rng(0)
A, X, V, W = random.normal(size=(3, 4)), random.normal(size=4), random.normal(size=4), random.normal(size=3)


def test_products_of_a_linear_map():
    a = tg.tensor(A)
    y, product = tg.vjp(lambda x: a @ x, tg.tensor(X), W)
    np.testing.assert_allclose(y.numpy(), A @ X)
    np.testing.assert_allclose(product.numpy(), A.T @ W)
    y, product = tg.jvp(lambda x: a @ x, tg.tensor(X), V)
    np.testing.assert_allclose(y.numpy(), A @ X)
    np.testing.assert_allclose(product.numpy(), A @ V)
    assert not y.requires_grad and not product.requires_grad


def test_products_of_several_inputs():
    def f(x, y, unused):
        return tg.sin(x) * y ** 2
    x, y, u = X[:2], X[2:], np.ones(3)
    value, products = tg.vjp(f, [tg.tensor(x), tg.tensor(y), tg.tensor(u)], np.array([1.0, 2.0]))
    assert isinstance(products, tuple) and products[2].tolist() == [0, 0, 0]
    np.testing.assert_allclose(products[0].numpy(), np.cos(x) * y ** 2 * [1, 2])
    np.testing.assert_allclose(products[1].numpy(), 2 * np.sin(x) * y * [1, 2])
    _, tangent = tg.jvp(f, (tg.tensor(x), tg.tensor(y), tg.tensor(u)), (V[:2], V[2:], u))
    np.testing.assert_allclose(tangent.numpy(), np.cos(x) * y ** 2 * V[:2] + 2 * np.sin(x) * y * V[2:])
    value, (hx, hy, hu) = tg.hvp(lambda *z: f(*z).sum(), (tg.tensor(x), tg.tensor(y), tg.tensor(u)), (V[:2], V[2:], u))
    np.testing.assert_allclose(value.item(), (np.sin(x) * y ** 2).sum())
    np.testing.assert_allclose(hx.numpy(), -np.sin(x) * y ** 2 * V[:2] + 2 * np.cos(x) * y * V[2:])
    np.testing.assert_allclose(hy.numpy(), 2 * np.cos(x) * y * V[:2] + 2 * np.sin(x) * V[2:])
    assert hu.tolist() == [0, 0, 0]


def test_products_are_on_the_tape_where_asked():
    x = tg.tensor(X, requires_grad=True)
    y, product = tg.hvp(lambda x: (x ** 4).sum(), x, V, create_graph=True)       # 12 x^2 v
    np.testing.assert_allclose(tg.grad(product.sum(), x, retain_graph=True)[0].numpy(), 24 * X * V)
    np.testing.assert_allclose(tg.grad(y, x)[0].numpy(), 4 * X ** 3)
    _, product = tg.jvp(lambda x: x ** 3, x, V, create_graph=True)
    np.testing.assert_allclose(tg.grad(product.sum(), x)[0].numpy(), 6 * X * V)
    _, product = tg.vjp(lambda x: x ** 3, x, V, create_graph=True)
    np.testing.assert_allclose(tg.grad(product.sum(), x)[0].numpy(), 6 * X * V)
    assert x.grad is None


def test_products_of_what_does_not_depend_on_the_input():
    x = tg.tensor(X)
    assert tg.vjp(lambda x: tg.tensor(2.0), x)[1].tolist() == [0] * 4
    assert tg.jvp(lambda x: tg.ones(3), x, V)[1].tolist() == [0] * 3
    assert tg.hvp(lambda x: x.sum(), x, V)[1].tolist() == [0] * 4
    assert tg.jvp(lambda x: x, x, V)[1].tolist() == V.tolist() and tg.vjp(lambda x: x, x, V)[1].tolist() == V.tolist()


def test_products_under_no_grad_and_of_plain_tensors():
    x = tg.tensor(X)
    with tg.no_grad():
        np.testing.assert_allclose(tg.hvp(lambda x: (x ** 3).sum(), x, V)[1].numpy(), 6 * X * V)
    assert not x.requires_grad and x.grad is None


def test_products_refuse_what_does_not_fit():
    x = tg.tensor(X)
    for product in (tg.jvp, tg.hvp):
        with pytest.raises(ValueError, match="one direction an input, 2 here; got 1"):
            product(lambda a, b: (a * b).sum(), [x, x], [V])
        with pytest.raises(ValueError, match="one direction an input, 1 here; got ndarray"):
            product(lambda a: a.sum(), [x], V)
        with pytest.raises(RuntimeError, match=r"must have the shape of the Tensor, \(4,\); got \(3,\)"):
            product(lambda a: (a * a).sum(), x, W)
        with pytest.raises(TypeError, match="one Tensor, it returned tuple"):
            product(lambda a: (a, a), x, V)
    with pytest.raises(RuntimeError, match="starts from a scalar"):
        tg.hvp(lambda x: x * x, x, V)
    with pytest.raises(TypeError, match="inputs must be a Tensor"):
        tg.vjp(lambda x: x, X)
    with pytest.raises(TypeError, match="only a floating-point Tensor"):
        tg.vjp(lambda x: x, tg.tensor([1, 2]))
