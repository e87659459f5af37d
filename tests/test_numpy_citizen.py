"""NumPy's own functions and operators on Tensors: NumPy's values, dtypes and defaults, and gradients through them."""

import operator

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.backend import asarray
from tinygrad_opt.ops.protocols import FUNCTIONS, REDUCE, UFUNCS

ON_HOST = tg.backend.name != "cupy"
random = np.random.default_rng(0)
X, Y, Z = random.normal(size=(2, 3)), random.uniform(0.5, 1.5, size=(2, 3)), random.uniform(0.1, 0.9, size=3)
SQUARE, CUBE = random.normal(size=(3, 3)) + 3 * np.eye(3), random.normal(size=(2, 3, 4))


def same(got, wanted):
    """Compare a result made of Tensors with NumPy's own."""
    if isinstance(wanted, (list, tuple)):
        assert len(got) == len(wanted)
        for g, w in zip(got, wanted):
            same(g, w)
        return
    assert isinstance(got, tg.Tensor) and (got.dtype, got.shape) == (np.asarray(wanted).dtype, np.shape(wanted))
    np.testing.assert_allclose(got.numpy(), wanted, 1e-12, 1e-12)


def tensors(args):
    """Return arguments with Tensors in the place of arrays, also inside of lists."""
    if isinstance(args, np.ndarray):
        return tg.tensor(args)
    return type(args)(map(tensors, args)) if type(args) in (list, tuple) else args


def first(result):
    return result[0] if isinstance(result, (list, tuple)) else result


# ---- ufuncs -----------------------------------------------------------------------------------------------

UNARY = """
    negative positive absolute fabs sign sqrt exp exp2 expm1 log log1p log2 log10 square reciprocal sin cos tan arcsin
    arccos arctan sinh cosh tanh arcsinh arctanh floor ceil rint isnan isinf isfinite logical_not""".split()
BINARY = """
    add subtract multiply divide true_divide power arctan2 maximum minimum logaddexp hypot floor_divide remainder mod
    equal not_equal less less_equal greater greater_equal logical_and logical_or logical_xor""".split()


@pytest.mark.parametrize("name", UNARY)
def test_unary_ufuncs(name):
    function, x = getattr(np, name), random.uniform(0.1, 0.9, size=(2, 3))
    same(function(tg.tensor(x)), function(x))
    if function(x).dtype != bool:
        tg.check_grads(function, x)


def test_arccosh():
    same(np.arccosh(tg.tensor(1 + Y)), np.arccosh(1 + Y))
    tg.check_grads(np.arccosh, 1 + Y)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("b", [Y, Z, Z[0]], ids=["matrix", "row", "number"])
def test_binary_ufuncs(name, b):
    function, a = getattr(np, name), Y + 1
    for u, v in ((tg.tensor(a), tg.tensor(b)), (a, tg.tensor(b)), (tg.tensor(a), b), (tg.tensor(a), np.float64(0.5))):
        same(function(u, v), function(*(x.numpy() if isinstance(x, tg.Tensor) else x for x in (u, v))))
    if function(a, b).dtype != bool:
        tg.check_grads(function, [a, b])


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
def test_bitwise_ufuncs(name):
    function = getattr(np, name)
    for a, b in ((np.array([5, 6]), np.array([3, 4])), (np.array([True, False]), np.array([True, True]))):
        same(function(tg.tensor(a), b), function(a, b))
        same(np.invert(tg.tensor(a)), ~a)


def test_every_ufunc_of_the_table_is_tested():
    assert set(UFUNCS) <= {*UNARY, *BINARY, "arccosh", "invert"}
    assert all(name in tg.ops.__all__ for name in UFUNCS.values())


def test_ufuncs_keep_float32():
    x = tg.tensor([0.25, 0.5])
    for y in (np.exp(x), np.add(x, 1.5), np.maximum(x, 0.1), np.power(x, 2), np.sqrt(x), np.float32(2) * x, np.rint(x)):
        assert isinstance(y, tg.Tensor) and y.dtype == "float32"


@pytest.mark.parametrize("name", REDUCE)
def test_reduce(name):
    function, x = getattr(np, name), X > 0 if "logical" in name else X
    for options in ({}, {"axis": 1}, {"axis": None}, {"axis": (0, 1)}, {"axis": 0, "keepdims": True}):
        same(function.reduce(tg.tensor(x), **options), function.reduce(x, **options))
    same(function.reduce(tg.tensor(x), 1), function.reduce(x, 1))
    if "logical" not in name:
        tg.check_grads(function.reduce, X)


def test_other_methods_of_ufuncs():
    x = tg.tensor(X)
    if ON_HOST:
        same(np.add.accumulate(x), np.add.accumulate(X))
        same(np.multiply.outer(x, x), np.multiply.outer(X, X))
        same(np.add.reduce(x, initial=1.0), np.add.reduce(X, initial=1.0))
    with pytest.raises(TypeError, match=r"numpy.accumulate has no gradient here.*\.detach\(\)"):
        np.add.accumulate(x.requires_grad_())


def test_matmul():
    for a, b in ((X, SQUARE), (X, Z), (Z, SQUARE), (CUBE, CUBE.swapaxes(1, 2))):
        same(np.matmul(tg.tensor(a), b), a @ b)
        same(a @ tg.tensor(b), a @ b)
        same(tg.tensor(a) @ b, a @ b)
        tg.check_grads(np.matmul, [a, b])


# ---- operators with an array or a NumPy scalar on the left ------------------------------------------------

SIGNS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
         operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
LEFT = [Y, Z, Y.astype("float32"), np.ones((2, 3), "int64"), np.array(2.0), np.float64(1.5), np.float32(1.5),
        np.int64(2)]


@pytest.mark.parametrize("op", SIGNS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("left", LEFT, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_arrays_and_numpys_scalars_on_the_left(op, left):
    for right in (Y, Y.astype("float32")):
        same(op(left, tg.tensor(right)), op(left, right))
        same(op(tg.tensor(right), left), op(right, left))


def test_gradients_through_mixed_operators():
    tg.check_grads(lambda x: Y * x - X / x + Y ** x + np.float64(2) * x, Y)
    x = tg.tensor(Y, requires_grad=True)
    (X @ x.T).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.ones((2, 1)) * X.sum(0))


def test_arrays_of_the_backend_on_the_left():
    x, array = tg.tensor(Y, requires_grad=True), asarray(X.copy())
    for op in (operator.add, operator.mul, operator.truediv):
        y = op(array, x)
        assert isinstance(y, tg.Tensor) and y.requires_grad
        np.testing.assert_allclose(y.numpy(), op(X, Y))
    array -= 0.5 * x.detach()
    np.testing.assert_allclose(tg.backend.to_numpy(array), X - 0.5 * Y)


def test_in_place_operators_of_arrays():
    a, x = np.ones(3), tg.tensor(Z, requires_grad=True)
    view = a
    a += x
    a *= 2 * x
    assert view is a and isinstance(a, np.ndarray)
    np.testing.assert_allclose(a, (1 + Z) * 2 * Z)
    n = np.ones(3, "int64")
    with pytest.raises(TypeError, match="same_kind"):
        n += x
    assert n.tolist() == [1, 1, 1]


# ---- out= -------------------------------------------------------------------------------------------------


def test_out():
    x, array, y = tg.tensor(Z), np.zeros(3), tg.zeros(3)
    memory = y.data
    assert np.exp(x, out=array) is array and np.exp(x, array) is array
    np.testing.assert_allclose(array, np.exp(Z))
    assert np.add(x, 1, out=y) is y and y.data is memory
    np.testing.assert_allclose(y.numpy(), Z + 1, rtol=1e-6)
    np.add.reduce(tg.tensor(X), axis=0, out=y)
    np.testing.assert_allclose(y.numpy(), X.sum(0), rtol=1e-5)
    if ON_HOST:
        assert np.add(Z, 1, out=y) is y
        y.fill_(7)
        assert np.subtract(tg.tensor(Z), 1, where=Z > 0.5, out=y) is y
        np.testing.assert_allclose(y.numpy(), np.where(Z > 0.5, Z - 1, 7), rtol=1e-6)
        quotient, rest = tg.zeros(3), np.zeros(3)
        assert np.divmod(5 * x, 2, out=(quotient, rest)) == (quotient, rest)
        np.testing.assert_allclose(2 * quotient.numpy() + rest, 5 * Z, rtol=1e-6)
    with pytest.raises(TypeError, match="cannot write float64 into a Tensor of int64"):
        np.exp(x, out=tg.tensor([1, 2, 3]))


def test_out_is_not_recorded():
    x = tg.tensor(Z, requires_grad=True)
    y = tg.zeros(3, dtype=tg.float64)
    for target in (y, x, x * 1):
        with pytest.raises(RuntimeError, match="out= cannot be a Tensor where gradients are recorded; use the result"):
            np.exp(x, out=target)
    with tg.no_grad():
        np.exp(x, out=y)
        np.multiply(x, 2, out=x)
    np.testing.assert_allclose(y.numpy(), np.exp(Z))
    np.testing.assert_allclose(x.numpy(), 2 * Z)
    array = np.exp(x, out=np.zeros(3))
    assert isinstance(array, np.ndarray)


# ---- functions --------------------------------------------------------------------------------------------

A, B = random.normal(size=5), random.normal(size=(4, 5))
CALLS = {                                           # arguments for each function; the gradient is checked in the first
    "sum": [(X,), (X, 0), (CUBE, (0, 2)), (X, {"axis": 1, "keepdims": True}), (np.arange(3),)],
    "mean": [(X,), (X, 1), (X, {"axis": 0, "keepdims": True}), (np.arange(3),)],
    "prod": [(X,), (X, 0), (CUBE, (0, 1)), (X, {"axis": 1, "keepdims": True})],
    "max": [(X,), (X, 1), (CUBE, (0, 2)), (X, {"axis": 0, "keepdims": True})],
    "min": [(X,), (X, 0), (CUBE, {"axis": (0, 2)})],
    "all": [(X > 0,), (X > 0, 0)], "any": [(X > 0,), (X > 0, {"axis": 1, "keepdims": True})],
    "count_nonzero": [(X,), (X > 0, 1)],
    "argmax": [(X,), (X, 1), (X, {"axis": 0, "keepdims": True})], "argmin": [(X,), (X, 0)],
    "std": [(X,), (X, 1), (X, {"axis": 0, "ddof": 1}), (CUBE, {"axis": (0, 2), "keepdims": True})],
    "var": [(X,), (X, 1), (X, {"ddof": 1}), (CUBE, {"axis": (0, 2), "keepdims": True})],
    "cumsum": [(X,), (X, 1), (X, {"axis": 0})], "cumprod": [(X,), (X, 1)],
    "sort": [(X,), (X, 0), (X, {"axis": 1})], "argsort": [(X,), (X, 0), (A, {"axis": 0})],
    "clip": [(X, -0.5, 0.5), (X, {"a_min": 0, "a_max": 1}), (X, None, 0.5), (X, 0.1, None), (X, {"min": 0, "max": 1})],
    "round": [(10 * X,), (X, 1), (X, {"decimals": 2})], "around": [(10 * X,), (X, 1)],
    "where": [(X > 0, X, Y), (X > 0, X, 0.0), (X > 0, 1.0, Z)],
    "copy": [(X,)], "astype": [(X, "float32"), (X, "int64")],
    "zeros_like": [(X,), (X, {"dtype": "int64"}), (X, "float32")], "ones_like": [(X,), (X, {"dtype": "float32"})],
    "full_like": [(X, 3.5), (X, 2, "int64")],
    "ravel": [(X,)], "reshape": [(X, (3, 2)), (X, -1), (X, {"shape": (6,)}), (CUBE, (4, -1))],
    "squeeze": [(X[None],), (X[None, :, None], 0), (X[None], {"axis": 0})],
    "expand_dims": [(X, 0), (X, -1), (X, {"axis": (0, 3)})],
    "transpose": [(X,), (CUBE,), (CUBE, (1, 0, 2)), (CUBE, {"axes": (2, 0, 1)}), (X, (1, 0))],
    "swapaxes": [(CUBE, 0, 2)], "moveaxis": [(CUBE, 0, -1), (CUBE, (0, 1), (1, 2))],
    "broadcast_to": [(Z, (2, 3)), (Z, (2, 1, 3))], "broadcast_arrays": [(X, Z)],
    "atleast_1d": [(X,), (np.array(2.0),)], "atleast_2d": [(Z,), (X,)],
    "repeat": [(X, 2), (X, 2, 1), (X, {"repeats": [1, 2], "axis": 0})], "tile": [(X, 2), (X, (2, 2)), (Z, (2, 1, 2))],
    "flip": [(X,), (X, 1), (CUBE, (0, 2))], "roll": [(X, 1), (X, 1, 1), (CUBE, (1, 2), (0, 1)), (X, -1, {"axis": 0})],
    "pad": [(X, 1), (X, ((1, 0), (0, 2))), (X, (1, 2)), (X, 1, "edge"), (X, 1, "reflect"), (X, 1, "wrap"),
            (X, ((1, 2), (0, 1)), "constant", {"constant_values": 5.0}), (CUBE, ((0, 0), (1, 0), (0, 2)))],
    "concatenate": [([X, Y],), ((X, Y), 1), ([X, Z], None), ([X, Y], {"axis": -1})],
    "stack": [([X, Y],), ([X, Y], 1), ([X, Y], {"axis": -1})],
    "hstack": [([X, Y],), ([Z, Z],)], "vstack": [([X, Y],), ([Z, Z],)], "dstack": [([X, Y],), ([Z, Z],)],
    "split": [(X, 3, 1), (X, 2), (X, [1], 1), (X, {"indices_or_sections": 3, "axis": 1})],
    "array_split": [(X, 2, 1), (A, 3), (A, [1, 2])],
    "meshgrid": [(Z, A), (Z, A, {"indexing": "ij"}), (Z, A, Z)],
    "take": [(X, [0, 2, 2], 1), (X, [5, 0]), (X, 1, {"axis": 0})],
    "take_along_axis": [(X, np.argsort(X, 1), 1), (X, np.argsort(X, 0), {"axis": 0})],
    "diagonal": [(SQUARE,), (SQUARE, 1), (CUBE, 0, 1, 2), (CUBE, {"axis1": 2, "axis2": 0, "offset": -1})],
    "nonzero": [(np.round(X),)], "diag": [(Z,), (SQUARE,), (Z, 1), (SQUARE, {"k": -1})],
    "tril": [(SQUARE,), (SQUARE, -1), (CUBE, {"k": 1})], "triu": [(SQUARE,), (SQUARE, 1)],
    "trace": [(SQUARE,), (SQUARE, 1), (CUBE, 0, 1, 2), (SQUARE, {"offset": -1})],
    "dot": [(X, SQUARE), (Z, Z), (X, Z), (CUBE, random.normal(size=(5, 4, 2))), (X, np.array(2.0))],
    "inner": [(X, Y), (Z, Z), (CUBE, random.normal(size=(5, 4)))], "outer": [(Z, A), (X, Z)],
    "kron": [(X, SQUARE), (Z, A)],
    "einsum": [("ij,kj->ik", X, Y), ("ij,ij", X, Y), ("ii", SQUARE), ("...i,i->...", CUBE, CUBE[0, 0])],
    "tensordot": [(X, SQUARE, 1), (X, Y), (CUBE, X, ([0, 1], [0, 1])), (CUBE, X, {"axes": ([0, 1], [0, 1])})],
    "linalg.norm": [(X,), (Z,), (Z, 1), (Z, np.inf), (X, {"axis": 1}), (X, 1, 1), (X, "fro"), (X, None, None, True)],
    "linalg.inv": [(SQUARE,), (np.stack([SQUARE, SQUARE.T]),)], "linalg.det": [(SQUARE,)],
    "linalg.slogdet": [(SQUARE,)], "linalg.cholesky": [(SQUARE @ SQUARE.T,)],
    "linalg.solve": [(SQUARE, X.T), (SQUARE, Z), (np.stack([SQUARE] * 3), SQUARE)],
}
WITHOUT_GRADIENT = {"all", "any", "count_nonzero", "argmax", "argmin", "argsort", "nonzero", "zeros_like", "ones_like",
                    "full_like", "round", "around", "linalg.slogdet", "linalg.cholesky", "take_along_axis", "astype"}


def function(name):
    return getattr(np.linalg, name[7:]) if name.startswith("linalg.") else getattr(np, name)


@pytest.mark.parametrize("name", CALLS)
def test_functions(name):
    if name in ("clip", "reshape") and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("this NumPy does not know all the keywords yet")
    for call in CALLS[name]:
        args, options = (call[:-1], call[-1]) if isinstance(call[-1], dict) else (call, {})
        same(function(name)(*tensors(args), **options), function(name)(*args, **options))


@pytest.mark.parametrize("name", sorted(set(CALLS) - WITHOUT_GRADIENT))
def test_gradients_through_functions(name):
    args = CALLS[name][0]
    args = args[:-1] if isinstance(args[-1], dict) else args
    inside = args[0] if isinstance(args[0], (list, tuple)) else args
    arrays = [a for a in inside if isinstance(a, np.ndarray)]

    def called(*moving):
        moving = iter(moving)
        filled = [next(moving) if isinstance(a, np.ndarray) else a for a in inside]
        return first(function(name)(filled) if inside is args[0] else function(name)(*filled))
    tg.check_grads(called, [a if a.dtype.kind == "f" else tg.tensor(a) for a in arrays])


def test_every_function_of_the_table_is_tested():
    assert set(FUNCTIONS) == set(CALLS)


def test_gradients_that_take_more_than_a_call():
    tg.check_grads(lambda a: np.linalg.slogdet(a)[1], SQUARE)
    tg.check_grads(lambda a: np.linalg.cholesky(a @ a.T), SQUARE)
    tg.check_grads(lambda a: np.take_along_axis(a, np.argsort(X, 1), 1), X)
    tg.check_grads(lambda a: np.round(a) + np.astype(a, "float64"), X)
    assert np.linalg.slogdet(tg.tensor(SQUARE)).logabsdet.shape == ()


def test_lists_may_mix_arrays_and_tensors():
    x = tg.tensor(X, requires_grad=True)
    for y in (np.concatenate([X, x]), np.stack([Y, x]), np.where(X > 0, x, Y), np.hstack((x, X)), np.inner(X, x)):
        assert isinstance(y, tg.Tensor) and y.requires_grad and y.dtype == "float64"
    tg.check_grads(lambda x: np.concatenate([X, x, Y]) ** 2, X)


def test_an_odd_split_is_refused():
    with pytest.raises(ValueError, match="axis 1 of length 3 has no 2 equal parts; use numpy.array_split"):
        np.split(tg.tensor(X), 2, 1)


# ---- functions without gradient ---------------------------------------------------------------------------

OTHERS = {
    "cross": (Z, Z[::-1]), "median": (X,), "cumsum": (X, 0, "float32"), "percentile": (X, 30), "sum": (X, 0, "float32"),
    "linalg.eigvalsh": (SQUARE,), "linalg.norm": (SQUARE, 2), "linalg.svd": (SQUARE,), "gradient": (A,), "diff": (A,),
    "fft.fft": (A,), "interp": (Z, Z, Z), "nan_to_num": (X,), "fliplr": (X,), "rot90": (X,), "average": (X,),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.skipif(not ON_HOST, reason="CuPy has not all of them")
def test_other_functions_work_on_plain_tensors_and_refuse_the_others(name):
    called = operator.attrgetter(name)(np)
    if name == "fft.fft":
        assert called(tg.tensor(A)).shape == (5,)
    else:
        same(called(*tensors(OTHERS[name])), called(*OTHERS[name]))
    on_the_tape = [tg.tensor(a, requires_grad=True) if isinstance(a, np.ndarray) else a for a in OTHERS[name]]
    with pytest.raises(TypeError, match=rf"numpy.{name.split('.')[-1]} has no gradient here.*call it on .detach\(\)"):
        called(*on_the_tape)
    with tg.no_grad():
        assert first(called(*on_the_tape)).shape == first(called(*tensors(OTHERS[name]))).shape


def test_questions_about_values_may_be_asked_on_the_tape():
    x = tg.tensor(X, requires_grad=True) * 1
    np.testing.assert_allclose(x, X)
    np.testing.assert_array_equal(x, X)
    assert np.allclose(x, X) is True and np.array_equal(x, X) is True and np.allclose(x, X + 1) is False
    close = np.isclose(x, X)
    assert isinstance(close, tg.Tensor) and close.dtype == "bool" and close.all()
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2, 3), 2, 6)
    assert np.result_type(x, np.float32) == "float64" and np.argmax(x).item() == X.argmax()
    assert np.empty_like(x).shape == (2, 3) and np.shares_memory(x, x.detach())
    assert np.count_nonzero(x).item() == 6 and (x > 0).tolist() == (X > 0).tolist()


@pytest.mark.skipif(not ON_HOST, reason="NumPy writes its own arrays")
def test_numpy_saves_what_is_on_the_tape(tmp_path):
    x = tg.tensor(X, requires_grad=True)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    assert np.load(tmp_path / "x.npy").tolist() == np.load(tmp_path / "x.npz")["x"].tolist() == X.tolist()


@pytest.mark.skipif(not ON_HOST, reason="CuPy has not all of them")
def test_functions_that_write():
    x = tg.tensor(SQUARE)
    np.fill_diagonal(x, 0)
    np.copyto(x[0], 5.0)
    np.put(x, [8], 7.0)
    np.add.at(x, (0, 0), 1.0)
    assert x[0].tolist() == [6, 5, 5] and x[1, 1].item() == 0 and x[2, 2].item() == 7
    with pytest.raises(RuntimeError, match="a leaf that requires a gradient cannot be written to"):
        np.copyto(x.requires_grad_(), 0.0)
    with pytest.raises(TypeError, match="no gradient here"):
        np.copyto(tg.zeros(3, 3), x)
    target = np.zeros((3, 3))
    np.copyto(target, x.detach())
    assert target[2, 2] == 7


# ---- arrays from Tensors ----------------------------------------------------------------------------------


def test_asarray():
    x = tg.tensor(X, requires_grad=True)
    a = np.asarray(x)
    assert type(a) is np.ndarray and a.dtype == "float64" and a.tolist() == X.tolist()
    assert np.asarray(x, dtype="float32").dtype == "float32" and np.array(x, "int64").dtype == "int64"
    copied = np.array(x)
    copied[:] = 0
    assert x.tolist() == X.tolist() and np.asarray(tg.tensor(2)).shape == ()
    if ON_HOST:
        assert np.shares_memory(np.asarray(x), x.data) and np.shares_memory(np.asarray(x, copy=False), x.data)
        assert not np.shares_memory(np.asarray(x, copy=True), x.data)
        with pytest.raises(ValueError):
            np.asarray(x, dtype="float32", copy=False)
    assert np.array([tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0])]).tolist() == [[1, 2], [3, 4]]


def test_tensors_as_index_and_size():
    assert np.arange(5)[np.asarray(tg.tensor([1, 3]))].tolist() == [1, 3]
    assert np.zeros(tg.tensor(2)).shape == (2,) and [7, 8][tg.tensor(1)] == 8
    assert max(tg.tensor([1.0, 3.0, 2.0])).item() == 3 and sum(tg.tensor([1.0, 2.0])).item() == 3
    assert sorted(tg.tensor([3, 1, 2]))[0].item() == 1
