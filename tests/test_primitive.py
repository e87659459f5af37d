"""Primitives of one's own, and the check that finds what is wrong with their gradients."""

import weakref
from functools import partial

import numpy as np
import pytest

import tinygrad_opt as tg

random = np.random.default_rng(0)
X, V, W = random.normal(size=4), random.normal(size=4), random.normal(size=3)


def leaf(*numbers):
    return tg.tensor(list(numbers), requires_grad=True)


# ---- check_grads ------------------------------------------------------------------------------------------


def test_check_grads_accepts_right_gradients():
    for order in (1, 2, 3):
        tg.check_grads(lambda x, y: tg.sin(x * y) / (1 + x ** 2), [X[:3], W], order)
    tg.check_grads(lambda x: x.sum(), [X], 3)
    tg.check_grads(lambda x: x * 1000, 5.0)
    tg.check_grads(lambda x, k: x[k] ** 2, [X, tg.tensor([0, 2, 2])])
    tg.check_grads(lambda x: tg.ones(3, dtype=tg.float64), X)
    with tg.no_grad():
        tg.check_grads(tg.exp, X)


@tg.primitive(lambda g, y, x: 2.002 * g * x)
def nearly_square(x):
    return x * x


@tg.primitive(lambda g, y, x: g * nearly_square(x) * 3)
def cube(x):
    return x ** 3


@tg.primitive(lambda g, y, x: g * cube(x) * 4)
def quartic(x):
    return x ** 4


@tg.primitive(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a * 1.001)
def nearly_product(a, b):
    return a * b


def test_check_grads_rejects_what_is_off_by_a_thousandth():
    point = np.array([1.0, 2.0, -1.5])
    for seed in range(5):
        with pytest.raises(AssertionError, match="gradient of order 1: the tape says .*, differences say"):
            tg.check_grads(nearly_square, point, 1, seed=seed)
        with pytest.raises(AssertionError, match="gradient of order 1"):
            tg.check_grads(nearly_product, [point, point + 1], 1, seed=seed)
        tg.check_grads(cube, point, 1, seed=seed)
        with pytest.raises(AssertionError, match="gradient of order 2"):
            tg.check_grads(cube, point, 2, seed=seed)
        tg.check_grads(quartic, point, 2, seed=seed)
        with pytest.raises(AssertionError, match="gradient of order 3"):
            tg.check_grads(quartic, point, 3, seed=seed)


def test_check_grads_rejects_a_gradient_that_is_missing_or_bad():
    @tg.primitive(None)
    def without(x):
        return x * x

    @tg.primitive(lambda g, y, x: g * float("nan"))
    def poisoned(x):
        return x * x
    for wrong in (without, poisoned, lambda x: (x.detach() * x), lambda x: tg.tensor(x.numpy() ** 2)):
        with pytest.raises(AssertionError, match="gradient of order 1"):
            tg.check_grads(wrong, np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="order must be at least 1, got 0"):
        tg.check_grads(tg.exp, X, 0)


# ---- primitives of one's own ------------------------------------------------------------------------------


def test_a_primitive_of_arrays_and_of_tensors():
    @tg.primitive(lambda g, y, x, k: g * k * x ** (k - 1))
    def power(x, k):
        """Return x ** k."""
        return x ** k
    array = tg.tensor([1.0, 2.0]).data
    assert type(power(array, 2)) is type(array) and power.__doc__ == "Return x ** k." and power.__name__ == "power"
    tg.check_grads(lambda x: power(x, 3), X, 3)
    assert repr(power(leaf(2.0), 2)) == "tensor([4.], grad_fn=<power>)"


def test_tensors_given_by_name_are_recorded():
    x = leaf(2.0, 3.0)
    assert tg.grad(tg.mul(x, b=x).sum(), x)[0].tolist() == [4, 6]
    assert tg.grad(tg.mul(a=tg.ones(2), b=x).sum(), x)[0].tolist() == [1, 1]
    assert tg.grad(tg.where(x > 2, a=x, b=0.0).sum(), x)[0].tolist() == [0, 1]
    assert tg.maximum(a=x, b=tg.zeros(2)).requires_grad

    @tg.primitive(lambda g, y, x, *, scale: g * scale)
    def scaled(x, *, scale):
        return x * scale
    assert tg.grad(scaled(x, scale=2.0).sum(), x)[0].tolist() == [2, 2]
    with pytest.raises(TypeError, match="no gradient flows to an argument that can only be given by name"):
        scaled(tg.ones(2), scale=x)


def test_a_vjp_may_hand_out_the_same_array_for_ever():
    forever = tg.ones(2).data

    @tg.primitive(lambda g, y, x: forever)
    def total(x):
        return x.sum()
    for create_graph in (False, True):
        x = leaf(1.0, 2.0)
        h = x * 1
        h.retain_grad()
        for _ in range(3):
            (total(h) + total(h) + total(x) + total(x)).backward(retain_graph=True, create_graph=create_graph)
        assert x.grad.tolist() == [12, 12] and h.grad.tolist() == [6, 6]
        with tg.no_grad():
            h.grad.mul_(5)
            x.grad.mul_(5)
        tg.grad(total(x), x, create_graph=create_graph)[0].zero_()
        assert forever.tolist() == [1, 1]


def test_vjps_of_any_kind_and_name():
    def pulled(factor, gradient, result, argument):
        half = argument / 2
        return gradient * result / half * factor
    square = tg.primitive(partial(pulled, 1.0))(lambda x: x * x)
    tg.check_grads(square, np.array([1.0, 2.0]))
    square = tg.primitive(lambda cotangent, out, x: cotangent * out / x * 2)(lambda x: x * x)
    tg.check_grads(square, np.array([1.0, 2.0]))


def test_a_vjp_may_ask_for_no_more_than_shapes():
    @tg.primitive(lambda g, y, x: tg.broadcast_to(g, x.shape) * (y.ndim + 1) * (x.dtype.kind == "f") * len(x.shape))
    def total(x):
        return x.sum()
    w = leaf(1.0, 2.0)
    h = w * 1
    gone = weakref.ref(h)
    y = total(h)
    del h
    assert gone() is None
    y.backward()
    assert w.grad.tolist() == [1, 1]


def test_a_vjp_of_the_wrong_shape_is_refused():
    @tg.primitive(lambda g, y, x: g)
    def total(x):
        return x.sum()
    with pytest.raises(RuntimeError, match=r"gradient of total has shape \(\), the argument \(2,\)"):
        total(leaf(1.0, 2.0)).backward()


def test_each_for_any_number_of_arguments():
    @tg.primitive(each=lambda k, g, y, *args: g * (k + 1) * args[k])
    def weighted(*args):
        return sum((k + 1) * a * a / 2 for k, a in enumerate(args))
    tg.check_grads(weighted, [X, V, 2.0])
    x = leaf(1.0)
    assert [g.item() for g in tg.grad(weighted(x, tg.ones(1), x * 2), x)] == [13]
