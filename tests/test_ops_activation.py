"""Activations against NumPy formulas and torch: values, dtypes, gradients, kinks, large arguments."""

import math

import numpy as np
import pytest
from _ops import check_op, check_torch, expand, named, ours, public_ops, sample, theirs

import tinygrad_opt as tg
from tinygrad_opt.ops import activation

SHAPES = ((), (4,), (2, 3), (1, 4), (0, 3))
ROWS = SHAPES[1:]
HALVES = ((4,), (2, 6), (0, 2))
MATRICES = ((2, 3), (1, 4), (0, 3), (2, 3, 2))

erf = np.vectorize(math.erf, otypes="d")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=-1):
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def glu(x, axis=-1):
    a, b = np.split(x, 2, axis)
    return a * sigmoid(b)


def norm(x, p=2, axis=1):
    return (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)


# formula, shapes, options (the same for torch, but for dim in the place of axis)
CASES = {
    "sigmoid": (sigmoid, SHAPES, {}),
    "logsigmoid": (lambda x: np.log(sigmoid(x)), SHAPES, {}),
    "softplus": (lambda x: np.log1p(np.exp(x)), SHAPES, {}),
    "softplus beta": (lambda x: np.log1p(np.exp(3 * x)) / 3, SHAPES, {"beta": 3}),
    "softplus threshold": (lambda x: np.where(x > 0.5, x, np.log1p(np.exp(x))), SHAPES, {"threshold": 0.5}),
    "silu": (lambda x: x * sigmoid(x), SHAPES, {}),
    "mish": (lambda x: x * np.tanh(np.log1p(np.exp(x))), SHAPES, {}),
    "softsign": (lambda x: x / (1 + np.abs(x)), SHAPES, {}),
    "tanhshrink": (lambda x: x - np.tanh(x), SHAPES, {}),
    "relu": (lambda x: np.maximum(x, 0), SHAPES, {}),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), SHAPES, {}),
    "leaky_relu slope": (lambda x: np.where(x > 0, x, 0.3 * x), SHAPES, {"negative_slope": 0.3}),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(x)), SHAPES, {}),
    "elu alpha": (lambda x: np.where(x > 0, x, 2 * np.expm1(x)), SHAPES, {"alpha": 2.0}),
    "selu": (lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)), SHAPES, {}),
    "celu": (lambda x: np.where(x > 0, x, np.expm1(x)), SHAPES, {}),
    "celu alpha": (lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2)), SHAPES, {"alpha": 2.0}),
    "gelu": (lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))), SHAPES, {}),
    "gelu tanh": (lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3))), SHAPES,
                  {"approximate": "tanh"}),
    "hardtanh": (lambda x: np.clip(x, -1, 1), SHAPES, {}),
    "hardtanh limits": (lambda x: np.clip(x, -0.5, 0.2), SHAPES, {"min_val": -0.5, "max_val": 0.2}),
    "relu6": (lambda x: np.clip(x, 0, 6), SHAPES, {}),
    "hardsigmoid": (lambda x: np.clip(x + 3, 0, 6) / 6, SHAPES, {}),
    "hardswish": (lambda x: x * np.clip(x + 3, 0, 6) / 6, SHAPES, {}),
    "hardshrink": (lambda x: np.where(np.abs(x) > 0.5, x, 0), SHAPES, {}),
    "softshrink": (lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0), SHAPES, {}),
    "threshold": (lambda x: np.where(x > 0.1, x, 9), SHAPES, {"threshold": 0.1, "value": 9.0}),
    "softmax": (softmax, ROWS, {"axis": -1}),
    "softmax columns": (lambda x: softmax(x, 0), ROWS[:3], {"axis": 0}),
    "log_softmax": (lambda x: np.log(softmax(x)), ROWS, {"axis": -1}),
    "log_softmax columns": (lambda x: np.log(softmax(x, 0)), ROWS[:3], {"axis": 0}),
    "softmin": (lambda x: softmax(-x), ROWS, {"axis": -1}),
    "glu": (glu, HALVES, {}),
    "glu columns": (lambda x: glu(x, 0), ((2, 3),), {"axis": 0}),
    "normalize": (lambda x: x / norm(x), MATRICES, {}),
    "normalize p": (lambda x: x / norm(x, 3, -1), MATRICES, {"p": 3.0, "axis": -1}),
}
PAIRS = {
    "prelu": (lambda x, w: np.where(x > 0, x, w * x), (((4,), (1,)), ((2, 3), (3,)), ((0, 3), (3,)))),
    "prelu channels": (lambda x, w: np.where(x > 0, x, w[:, None] * x), (((2, 3, 4), (3,)),)),
    "cosine_similarity": (lambda a, b: (a * b).sum(1) / (norm(a) * norm(b))[:, 0],
                          (((2, 3), (2, 3)), ((2, 3), (1, 3)), ((0, 3), (0, 3)), ((2, 3, 2), (2, 3, 2)))),
}


@pytest.mark.parametrize("name, shape", expand(CASES, 1))
def test_value_dtype_and_gradients(name, shape):
    formula, _, options = CASES[name]
    check_op(ours(name, **options), formula, sample([shape], (-2, 2)))


@pytest.mark.parametrize("name, shapes", expand(PAIRS, 1))
def test_value_dtype_and_gradients_of_two(name, shapes):
    arrays = sample(shapes, (-2, 2), (0.1, 1))
    check_op(ours(name), PAIRS[name][0], arrays)
    check_torch(ours(name), theirs(name), arrays)


def test_every_public_op_is_in_a_table():
    assert named(CASES) | named(PAIRS) | {"dropout"} == public_ops(activation)


@pytest.mark.parametrize("name", CASES)
def test_torch_at_kinks_and_far_out(name):
    options = CASES[name][2]
    points = [-1000, -88.8, -6, -3, -1, -0.5, -0.2, 0, 0.1, 0.2, 0.5, 1, 3, 6, 20, 88.8, 1000, 0]
    shape = (18, 1) if options.get("axis") == 0 else (1, 18)
    rtol = 1e-7 if name == "hardsigmoid" else 1e-10               # torch's slope there is 1/6 in float32
    check_torch(ours(name, **options), theirs(name, **options), [np.reshape(points, shape)], rtol)


# ---- kinks, large arguments, NaN --------------------------------------------------------------------------


def slope(op, *points):
    x = tg.Tensor(points, requires_grad=True)
    return tg.grad(op(x).sum(), x)[0].tolist()


@pytest.mark.parametrize("op, points, slopes", [
    (tg.relu, (0,), [0]),
    (tg.leaky_relu, (0,), [pytest.approx(0.01)]),
    (tg.elu, (0,), [1]),
    (tg.relu6, (0, 6), [0, 0]),
    (tg.hardtanh, (-1, 1), [0, 0]),
    (tg.hardsigmoid, (-3, 3), [0, 0]),
    (tg.hardswish, (-3, 3), [0, 1]),
    (tg.hardshrink, (-0.5, 0, 0.5), [0, 0, 0]),
    (tg.softshrink, (-0.5, 0, 0.5), [0, 0, 0]),
    (tg.softsign, (0,), [1]),
    (lambda x: tg.threshold(x, 1, 5), (1,), [0]),
    (lambda x: tg.prelu(x, tg.Tensor(0.25)), (0,), [0.25]),
    (lambda x: tg.normalize(x, axis=0), (0, 0), [pytest.approx(1e12)] * 2),
])
def test_kinks(op, points, slopes):
    assert slope(op, *map(float, points)) == slopes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op, low, high", [
    (tg.sigmoid, 0, 1), (tg.logsigmoid, -1000, 0), (tg.softplus, 0, 1000),
    (lambda x: tg.softplus(x, beta=10, threshold=1e9), 0, 1000), (tg.silu, 0, 1000), (tg.mish, 0, 1000),
    (tg.elu, -1, 1000), (tg.celu, -1, 1000), (tg.selu, -1.7580993408473766, 1050.7009873554805),
    (tg.gelu, 0, 1000), (lambda x: tg.gelu(x, "tanh"), 0, 1000), (tg.tanhshrink, -999, 999),
    (tg.softsign, -1000 / 1001, 1000 / 1001),
])
def test_large_arguments(op, low, high, dtype):
    x = tg.Tensor([-1000.0, 1000.0], requires_grad=True, dtype=dtype)
    y = op(x)
    np.testing.assert_allclose(y.numpy(), [low, high], rtol=1e-6)
    assert np.isfinite(tg.grad(y.sum(), x)[0].numpy()).all()


def test_small_results_keep_their_digits():
    x = tg.Tensor([-40.0])
    for y in (tg.sigmoid(x), -tg.logsigmoid(-x), tg.softplus(x)):
        assert y.item() == pytest.approx(math.exp(-40), rel=1e-6)


def test_softmax_far_out_and_masked():
    x = tg.Tensor([[1000.0, 0.0, -1000.0], [0.0, -math.inf, 0.0]], requires_grad=True)
    y, half = tg.softmax(x), pytest.approx(-math.log(2))
    assert y.tolist() == [[1, 0, 0], [0.5, 0, 0.5]]
    assert tg.log_softmax(x).tolist() == [[0, -1000, -2000], [half, -math.inf, half]]
    assert np.isfinite(tg.grad(y[:, 0].sum(), x)[0].numpy()).all()


@pytest.mark.parametrize("name", sorted(named(CASES) - {"glu", "normalize"}))
def test_nan_is_kept(name):
    y = ours(name, **CASES[name][2])(tg.Tensor([math.nan, 1.0]))
    assert math.isnan(y[0].item())


def test_dim_is_another_name_for_axis():
    x = tg.Tensor([[1.0, 2.0], [3.0, 5.0]])
    for op in (tg.softmax, tg.log_softmax, tg.softmin, tg.normalize, tg.glu):
        assert op(x, dim=0).tolist() == op(x, axis=0).tolist()
    assert x.softmax(dim=0).tolist() == tg.softmax(x, axis=0).tolist()
    assert tg.cosine_similarity(x, x.T, dim=0).tolist() == tg.cosine_similarity(x, x.T, axis=0).tolist()


# ---- dropout ----------------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_masks_the_gradient():
    x = tg.ones(100, 100, requires_grad=True)
    y = tg.dropout(x, 0.2, generator=tg.Generator(0))
    assert set(y.numpy().ravel().tolist()) == {0, 1.25}
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_dropout_follows_its_generator():
    def draw(generator=None):
        return tg.dropout(tg.ones(50), generator=generator).tolist()
    assert draw(tg.Generator(1)) == draw(tg.Generator(1)) != draw(tg.Generator(2))
    tg.manual_seed(3)
    first = draw()
    tg.manual_seed(3)
    assert draw() == first != draw()


def test_dropout_at_its_limits():
    x = tg.ones(4)
    assert tg.dropout(x, 0.0) is x
    assert tg.dropout(x, 0.9, training=False) is x
    assert tg.dropout(x, 1.0).tolist() == [0, 0, 0, 0]
    assert tg.dropout(tg.ones(4, dtype="float64")).dtype == "float64"
    assert not isinstance(tg.dropout(x.data), tg.Tensor)


# ---- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, error, message", [
    (lambda x: tg.dropout(x, 1.5), ValueError, "between 0 and 1, got 1.5"),
    (lambda x: tg.dropout(x, math.nan), ValueError, "between 0 and 1, got nan"),
    (lambda x: tg.gelu(x, "fast"), ValueError, "'none' or 'tanh', got 'fast'"),
    (lambda x: tg.glu(x), ValueError, r"even length; x has shape \(2, 3\)"),
    (lambda x: tg.softshrink(x, -1), ValueError, "at least 0, got -1"),
    (lambda x: tg.prelu(x, tg.ones(2)), ValueError, "weight has 2 elements; it needs 1, or 3"),
    (lambda x: tg.celu(x, 0), ZeroDivisionError, "zero"),
    (lambda x: tg.softmax(x, axis=0, dim=0), TypeError, "two names"),
    (lambda x: tg.softmax(x, axis=2), ValueError, "out of bounds"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(tg.ones(2, 3))
