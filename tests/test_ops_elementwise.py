"""Elementwise ops against NumPy: values, dtypes, and gradients to second order by differences."""

import math

import numpy as np
import pytest
from _ops import SHAPES, check_op, check_torch, host, named, ours, public_ops, sample

import tinygrad_opt as tg
from tinygrad_opt.ops import elementwise

NEAR, UNIT, POSITIVE, ABOVE_ONE = (-2, 2), (-0.9, 0.9), (0.2, 3), (1.1, 3)

# formula, domain of each argument, options
CASES = {
    "add": (np.add, (NEAR, NEAR), {}),
    "sub": (np.subtract, (NEAR, NEAR), {}),
    "mul": (np.multiply, (NEAR, NEAR), {}),
    "div": (np.divide, (NEAR, POSITIVE), {}),
    "floor_divide": (np.floor_divide, ((-9, 9), (1, 3)), {}),
    "remainder": (np.remainder, ((-9, 9), (-3, -1)), {}),
    "neg": (np.negative, (NEAR,), {}),
    "pow": (np.power, (POSITIVE, NEAR), {}),
    "pow cube": (lambda x: x ** 3, (NEAR,), {"b": 3}),
    "abs": (np.abs, (NEAR,), {}),
    "square": (np.square, (NEAR,), {}),
    "reciprocal": (np.reciprocal, (POSITIVE,), {}),
    "lerp": (lambda a, b, w: a + w * (b - a), (NEAR, NEAR, NEAR), {}),
    "lerp number": (lambda a, b: a + 0.3 * (b - a), (NEAR, NEAR), {"weight": 0.3}),
    "addcmul": (lambda x, a, b: x + 0.5 * a * b, (NEAR, NEAR, NEAR), {"value": 0.5}),
    "addcdiv": (lambda x, a, b: x + 0.5 * a / b, (NEAR, NEAR, POSITIVE), {"value": 0.5}),
    "sqrt": (np.sqrt, (POSITIVE,), {}),
    "rsqrt": (lambda x: x ** -0.5, (POSITIVE,), {}),
    "exp": (np.exp, (NEAR,), {}),
    "exp2": (np.exp2, (NEAR,), {}),
    "expm1": (np.expm1, (NEAR,), {}),
    "log": (np.log, (POSITIVE,), {}),
    "log1p": (np.log1p, (UNIT,), {}),
    "log2": (np.log2, (POSITIVE,), {}),
    "log10": (np.log10, (POSITIVE,), {}),
    "logaddexp": (np.logaddexp, (NEAR, NEAR), {}),
    "hypot": (np.hypot, (NEAR, NEAR), {}),
    "erf": (np.vectorize(math.erf, otypes="d"), (NEAR,), {}),
    "sin": (np.sin, (NEAR,), {}),
    "cos": (np.cos, (NEAR,), {}),
    "tan": (np.tan, (UNIT,), {}),
    "asin": (np.arcsin, (UNIT,), {}),
    "acos": (np.arccos, (UNIT,), {}),
    "atan": (np.arctan, (NEAR,), {}),
    "atan2": (np.arctan2, (NEAR, NEAR), {}),
    "sinh": (np.sinh, (NEAR,), {}),
    "cosh": (np.cosh, (NEAR,), {}),
    "tanh": (np.tanh, (NEAR,), {}),
    "asinh": (np.arcsinh, (NEAR,), {}),
    "acosh": (np.arccosh, (ABOVE_ONE,), {}),
    "atanh": (np.arctanh, (UNIT,), {}),
    "sign": (np.sign, (NEAR,), {}),
    "floor": (np.floor, (NEAR,), {}),
    "ceil": (np.ceil, (NEAR,), {}),
    "round": (np.round, (NEAR,), {}),
    "round decimals": (lambda x: np.round(x, 1), (NEAR,), {"decimals": 1}),
    "maximum": (np.maximum, (NEAR, NEAR), {}),
    "minimum": (np.minimum, (NEAR, NEAR), {}),
    "clamp": (lambda x, low, high: np.clip(x, low, high), (NEAR, (-1, 0), (0, 1)), {}),
    "clamp numbers": (lambda x: np.clip(x, -0.5, 0.5), (NEAR,), {"min": -0.5, "max": 0.5}),
    "clip": (lambda x: np.maximum(x, -0.5), (NEAR,), {"min": -0.5}),
    "clone": (np.copy, (NEAR,), {}),
    "zeros_like": (np.zeros_like, (NEAR,), {}),
    "ones_like": (np.ones_like, (NEAR,), {}),
    "full_like": (lambda x: np.full_like(x, 7), (NEAR,), {"fill_value": 7}),
}
# What needs more than its arguments: the op so called, formula, domains.
CALLS = {
    "pow base": (lambda x: tg.pow(2, x), lambda x: 2 ** x, (NEAR,)),
    "where": (lambda a, b: tg.where(a > 0, a, b), lambda a, b: np.where(a > 0, a, b), (NEAR, NEAR)),
    "astype": (lambda x: tg.astype(x, x.dtype), np.copy, (NEAR,)),
}
QUESTIONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite,
    "logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor,
    "logical_not": np.logical_not, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor, "bitwise_not": np.invert,
}


def leaf(*values, dtype="float64"):
    return tg.Tensor(values[0] if len(values) == 1 else values, requires_grad=True, dtype=dtype)


def gradients(y, *leaves):
    return [g.tolist() for g in tg.grad(y.sum(), leaves)]


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_value_dtype_and_gradients(name, shapes):
    formula, domains, options = CASES[name]
    check_op(ours(name, **options), formula, sample(shapes, *domains))


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", CALLS)
def test_value_dtype_and_gradients_of_calls(name, shapes):
    call, formula, domains = CALLS[name]
    check_op(call, formula, sample(shapes, *domains))


def test_every_public_op_is_in_a_table():
    assert named(CASES) | named(CALLS) | set(QUESTIONS) == public_ops(elementwise)


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_answer_as_numpy_does_and_have_no_gradient(name):
    values = [-1.0, 0.0, 1.0, math.inf, math.nan]
    if name.startswith("bitwise"):
        a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    else:
        a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    function = QUESTIONS[name]
    arguments = [a, b][:function.nin]
    x = [tg.Tensor(v, requires_grad=v.dtype.kind == "f") for v in arguments]
    y = getattr(tg, name)(*x)
    assert y.dtype == "bool" and not y.requires_grad
    np.testing.assert_array_equal(y.numpy(), function(*arguments))
    np.testing.assert_array_equal(getattr(x[0], name)(*x[1:]).numpy(), function(*arguments))
    raw = getattr(tg, name)(*[v.data for v in x])
    assert not isinstance(raw, tg.Tensor)
    np.testing.assert_array_equal(host(raw), function(*arguments))


@pytest.mark.parametrize("op", [
    tg.add, tg.sub, tg.mul, tg.div, tg.floor_divide, tg.remainder, tg.pow, tg.maximum, tg.minimum, tg.atan2,
    tg.hypot, tg.logaddexp])
@pytest.mark.parametrize("number", [2, 2.5, True])
def test_python_numbers_never_promote(op, number):
    x = tg.Tensor([1.0, 3.0], requires_grad=True)
    for y in (op(x, number), op(number, x)):
        assert y.dtype == "float32"
        x.grad = None
        y.sum().backward()
        assert x.grad.dtype == "float32"


# ---- corners ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base, exponent, value, slope", [
    (0.0, 0, 1.0, 0.0), (0.0, 1, 0.0, 1.0), (0.0, 2, 0.0, 0.0), (0.0, 1.5, 0.0, 0.0), (-2.0, 3, -8.0, 12.0),
    (-2.0, -1, -0.5, -0.25), (-2.0, 0, 1.0, 0.0), (4.0, 0.5, 2.0, 0.25)])
def test_pow_corners(base, exponent, value, slope):
    x = leaf(base)
    for e in (exponent, tg.Tensor(exponent, dtype="float64"), leaf(float(exponent))):
        y = tg.pow(x, e)
        assert y.item() == value
        assert gradients(y, x) == [slope]


def test_pow_in_the_exponent():
    a, b = leaf(-2.0, 0.0, 2.0), leaf(2.0, 0.0, 0.0)
    np.testing.assert_allclose(gradients(a ** b, b)[0], [0, 0, math.log(2)])
    # Across both: d/db (b a^(b-1)) = 1/a at b = 0.
    slope, = tg.grad((a ** b).sum(), a, create_graph=True)
    assert gradients(slope[2], b) == [[0, 0, 0.5]]


def test_pow_of_integers():
    assert (tg.Tensor([2, -3]) ** 2).tolist() == [4, 9]
    assert (tg.Tensor([2, -3]) ** 2).dtype == "int64"
    assert (2 ** tg.Tensor([0, 3])).tolist() == [1, 8]


def test_ties_of_maximum_and_minimum_share_the_gradient():
    a, b = leaf(1.0, 2.0, 3.0), leaf(2.0, 2.0, 2.0)
    assert gradients(tg.maximum(a, b), a, b) == [[0, 0.5, 1], [1, 0.5, 0]]
    assert gradients(tg.minimum(a, b), a, b) == [[1, 0.5, 0], [0, 0.5, 1]]


def test_extremes_keep_nan():
    for op in (tg.maximum, tg.minimum, tg.clamp):
        assert math.isnan(op(tg.Tensor([math.nan]), tg.Tensor([1.0])).item())
    assert math.isnan(tg.clamp(tg.Tensor(math.nan), -1, 1).item())


def test_clamp_with_tensor_limits():
    x, low, high = leaf(-2.0, 0.0, 0.5, 1.0, 2.0), leaf(0.0), leaf(1.0)
    y = tg.clamp(x, low, high)
    assert y.tolist() == [0, 0, 0.5, 1, 1]
    assert gradients(y, x, low, high) == [[0, 1, 1, 1, 0], 1, 1]
    y = tg.clamp(x, max=high)
    assert y.tolist() == [-2, 0, 0.5, 1, 1]
    assert gradients(y, x, high) == [[1, 1, 1, 1, 0], 1]


def test_clamp_of_integers_stays_integer():
    x = tg.Tensor([-5, 0, 5])
    assert tg.clamp(x, min=-1).tolist() == [-1, 0, 5]
    assert tg.clamp(x, max=1).dtype == tg.clamp(x, -1, 1).dtype == "int64"


@pytest.mark.parametrize("a", [-7, -6, 6, 7])
@pytest.mark.parametrize("b", [-3, 3])
def test_division_rounds_down_as_in_python(a, b):
    for dtype in ("int64", "float64"):
        x, y = tg.Tensor(a, dtype=dtype), tg.Tensor(b, dtype=dtype)
        assert (x // y).item() == a // b
        assert (x % y).item() == a % b
        assert (x // y).dtype == dtype


def test_kinks():
    zero = leaf(0.0)
    for y in (tg.abs(zero), tg.sign(zero), tg.hypot(zero, zero)):
        assert gradients(y, zero) == [0]


@pytest.mark.parametrize("op, x, y", [
    (tg.tanh, 1000, 1), (tg.tanh, -1000, -1), (tg.erf, 1000, 1), (tg.erf, -1000, -1), (tg.exp, -1000, 0),
    (tg.expm1, -1000, -1), (tg.log1p, 1e-300, 1e-300), (tg.expm1, 1e-300, 1e-300),
    (lambda x: tg.logaddexp(x, 0), 1000, 1000), (lambda x: tg.logaddexp(x, 0), -1000, 0),
    (lambda x: tg.hypot(x, x), 1e200, math.sqrt(2) * 1e200)])
def test_large_and_small_arguments(op, x, y):
    x = leaf(float(x))
    assert op(x).item() == pytest.approx(y, rel=1e-15)
    assert math.isfinite(gradients(op(x), x)[0])


def test_a_gradient_does_not_pass_through_integers():
    x = tg.Tensor([1.5, 2.5], requires_grad=True)
    assert not x.astype("int64").requires_grad
    assert not x.bool().requires_grad
    y = x.astype("float64")
    assert y.dtype == "float64" and y.requires_grad
    y.sum().backward()
    assert x.grad.dtype == "float32"


def test_filled_like():
    x = tg.Tensor([1.0, 2.0])
    y = tg.full_like(x, 3, requires_grad=True, dtype="float64")
    assert (y.tolist(), y.requires_grad, y.dtype) == ([3, 3], True, "float64")
    assert tg.zeros_like(tg.Tensor([1, 2])).dtype == "int64"
    assert isinstance(tg.ones_like(x.data), tg.backend.xp.ndarray)


def test_clone_is_a_copy():
    x = tg.Tensor([1.0])
    y = tg.clone(x)
    y.data[0] = 5
    assert x.tolist() == [1]


@pytest.mark.parametrize("points, call", [
    ([-1, 0, 1], lambda m, x: m.clamp(x, -1, 1)),
    ([-1, 0, 1], lambda m, x: m.abs(x)),
    ([-1, 0, 1], lambda m, x: m.sign(x)),
    ([-6, 0, 6], lambda m, x: m.erf(x)),
    ([0, 1, 2], lambda m, x: m.maximum(x, m.ones_like(x))),
    ([-7, 0, 7], lambda m, x: m.remainder(x, -3)),
    ([-0.5, 0.5, 1.5], lambda m, x: m.round(x)),
    ([-2, 0, 2], lambda m, x: m.pow(x, 2)),
])
def test_kinks_as_in_torch(points, call):
    torch = pytest.importorskip("torch")
    check_torch(lambda x: call(tg, x), lambda x: call(torch, x), [np.array(points, "float64")])


# ---- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, error, message", [
    (lambda: tg.clamp(tg.ones(2)), ValueError, "min=, max="),
    (lambda: tg.ones(2) + tg.ones(3), ValueError, r"\(2,\) \(3,\)"),
    (lambda: tg.where(tg.ones(2) > 0, tg.ones(2), tg.ones(3)), ValueError, r"\(2,\) \(2,\) \(3,\)"),
    (lambda: tg.zeros_like(tg.Tensor([1]), requires_grad=True), TypeError, "floating-point"),
    (lambda: tg.Tensor([2]) ** -1, ValueError, "negative integer powers"),
    (lambda: tg.lerp(tg.ones(2), tg.ones(2)), TypeError, "weight"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
