"""Matrix products and linear algebra against NumPy and torch: values, dtypes, gradients to second order."""

import numpy as np
import pytest
from _ops import check_op, check_torch, expand, named, ours, public_ops, sample, theirs

import tinygrad_opt as tg
from tinygrad_opt.ops import affine, linalg

PRODUCTS = [
    ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((1, 3), (3, 1)), ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (1, 3, 4)),
    ((1, 2, 3), (5, 3, 4)), ((4, 1, 2, 3), (5, 3, 4)), ((0, 3), (3, 4)), ((2, 0), (0, 4)),
    ((0, 2, 3), (3, 4))]
VECTORS = [((3,), (3,)), ((0,), (0,))]
SQUARE = [((3, 3),), ((1, 1),), ((2, 3, 3),), ((2, 1, 2, 2),)]

# formula, shapes of the arguments, options
CASES = {
    "matmul": (np.matmul, PRODUCTS, {}),
    "mv": (np.matmul, [((2, 3), (3,)), ((0, 3), (3,))], {}),
    "mm": (np.matmul, [((2, 3), (3, 4)), ((1, 1), (1, 1))], {}),
    "bmm": (np.matmul, [((5, 2, 3), (5, 3, 4))], {}),
    "dot": (np.dot, VECTORS, {}),
    "dot as in NumPy": (np.dot, [((), ()), ((), (3,)), ((2, 3), (3, 4)), ((2, 3), (5, 3, 4))], {}),
    "inner": (np.inner, [*VECTORS, ((), (3,)), ((2, 3), (4, 3)), ((2, 3), (5, 4, 3))], {}),
    "outer": (np.outer, VECTORS, {}),
    "outer as in NumPy": (np.outer, [((2,), (3,)), ((), (3,)), ((2, 2), (3,))], {}),
    "addmm": (lambda x, a, b: 0.5 * x + 2 * a @ b,
              [((2, 4), (2, 3), (3, 4)), ((4,), (2, 3), (3, 4)), ((), (2, 3), (3, 4))],
              {"beta": 0.5, "alpha": 2}),
    "baddbmm": (lambda x, a, b: 0.5 * x + 2 * a @ b,
                [((5, 2, 4), (5, 2, 3), (5, 3, 4)), ((4,), (5, 2, 3), (5, 3, 4))], {"beta": 0.5, "alpha": 2}),
    "addmv": (lambda x, a, b: 0.5 * x + 2 * a @ b, [((2,), (2, 3), (3,)), ((), (2, 3), (3,))],
              {"beta": 0.5, "alpha": 2}),
    "linear": (lambda x, w: x @ w.T,
               [((5, 3), (4, 3)), ((3,), (4, 3)), ((2, 5, 3), (4, 3)), ((0, 3), (4, 3)), ((2, 0, 3), (4, 3)),
                ((5, 0), (4, 0)), ((2, 5, 0), (4, 0)), ((1, 1), (1, 1))], {}),
    "linear bias": (lambda x, w, b: x @ w.T + b,
                    [((5, 3), (4, 3), (4,)), ((3,), (4, 3), (4,)), ((2, 5, 3), (4, 3), (4,)),
                     ((0, 3), (4, 3), (4,)), ((2, 3, 2, 3), (1, 3), (1,))], {}),
    "linear_relu": (lambda x, w, b: np.maximum(x @ w.T + b, 0),
                    [((5, 3), (4, 3), (4,)), ((3,), (4, 3), (4,)), ((2, 5, 3), (4, 3), (4,)),
                     ((0, 3), (4, 3), (4,))], {}),
    "linear_relu without bias": (lambda x, w: np.maximum(x @ w.T, 0), [((5, 3), (4, 3)), ((2, 5, 3), (4, 3))], {}),
    "kron": (np.kron, [((2,), (3,)), ((2, 3), (3, 2)), ((2,), (3, 2)), ((2, 1, 2), (3,)), ((), (2,))], {}),
    "tensordot": (np.tensordot, [((2, 3), (2, 3)), ((4, 2, 3), (2, 3, 5))], {}),
    "tensordot one": (lambda a, b: np.tensordot(a, b, 1), [((2, 3), (3, 4)), ((3,), (3,))], {"axes": 1}),
    "tensordot none": (lambda a, b: np.tensordot(a, b, 0), [((2, 3), (4,))], {"dims": 0}),
    "tensordot lists": (lambda a, b: np.tensordot(a, b, ([0, -1], [2, 0])), [((2, 5, 3), (3, 4, 2))],
                        {"axes": ([0, -1], [2, 0])}),
    "tensordot axes": (lambda a, b: np.tensordot(a, b, (0, 1)), [((2, 5), (3, 2))], {"axes": (0, 1)}),
}


def shifted(x):
    """Return matrices far from singular, of an array or a Tensor."""
    return x + 4 * tg.backend.xp.eye(x.shape[-1], dtype=x.dtype)


def squared(x):
    """Return symmetric, positive definite matrices, of an array or a Tensor."""
    return shifted(x @ x.swapaxes(-1, -2))


def np_shifted(x):
    return x + 4 * np.eye(x.shape[-1])


# The op on matrices that it can take, the same in NumPy, shapes of the arguments.
SOLVERS = {
    "inverse": (lambda x: tg.inverse(shifted(x)), lambda x: np.linalg.inv(np_shifted(x)), SQUARE),
    "inv": (lambda x: tg.inv(shifted(x)), lambda x: np.linalg.inv(np_shifted(x)), [((2, 2),)]),
    "solve": (lambda a, b: tg.solve(shifted(a), b), lambda a, b: np.linalg.solve(np_shifted(a), b),
              [((3, 3), (3,)), ((3, 3), (3, 2)), ((4, 3, 3), (4, 3, 2)), ((4, 3, 3), (3, 2)),
               ((3, 3), (4, 3, 2)), ((4, 3, 3), (3,)), ((1, 1), (1,))]),
    "solve stack of vectors": (
        lambda a, b: tg.solve(shifted(a), b),
        lambda a, b: np.linalg.solve(np_shifted(a), b[..., None])[..., 0],
        [((4, 3, 3), (4, 3)), ((3, 3, 3), (3, 3))]),
    "det": (lambda x: tg.det(shifted(x)), lambda x: np.linalg.det(np_shifted(x)), SQUARE),
    "slogdet": (lambda x: tg.slogdet(shifted(x))[1], lambda x: np.linalg.slogdet(np_shifted(x))[1], SQUARE),
    "cholesky": (lambda x: tg.cholesky(squared(x)),
                 lambda x: np.linalg.cholesky(np_shifted(x @ x.swapaxes(-1, -2))), SQUARE),
}
# equation (what follows a bracket is a variant), shapes
EQUATIONS = {
    "ij,jk->ik": [(2, 3), (3, 4)],
    "ij,jk": [(2, 3), (3, 4)],
    "Ab,bc->Ac": [(2, 3), (3, 4)],
    "ji": [(2, 3)],
    "ij->ji": [(2, 3)],
    "ij->": [(2, 3)],
    "ij->i": [(2, 3)],
    "ij->ij": [(0, 3)],
    "i,j->ij": [(2,), (3,)],
    "i,i": [(3,), (3,)],
    "i,->i": [(3,), ()],
    "ij,k->i": [(2, 3), (4,)],
    "ij,ij,ij->i": [(2, 3), (2, 3), (2, 3)],
    "a,b,c->cab": [(2,), (3,), (4,)],
    "ij,jk,kl->il": [(2, 3), (3, 4), (4, 2)],
    "ii->i": [(3, 3)],
    "ii": [(3, 3)],
    "iij->j": [(3, 3, 2)],
    "iji->ij": [(3, 2, 3)],
    "iii->i": [(2, 2, 2)],
    "ij,jj->i": [(2, 3), (3, 3)],
    "bij,bjk->bik": [(5, 2, 3), (5, 3, 4)],
    "...ij,...jk->...ik": [(5, 2, 3), (3, 4)],
    "...ij,...jk": [(4, 1, 2, 3), (5, 3, 4)],
    "i...->...": [(2, 3, 4)],
    "...,...": [(2, 3), (3,)],
    "...ii->...i": [(2, 3, 3)],
    "i ... , j -> ... j i": [(2, 3), (4,)],
    "ij,jk->ik (length 1)": [(2, 1), (3, 4)],
    "ij,ij->ij (length 1)": [(1, 3), (2, 3)],
}


def arguments(shapes):
    return sample(shapes, *[(-1, 1)] * len(shapes))


@pytest.mark.parametrize("name, shapes", expand(CASES, 1))
def test_products(name, shapes):
    formula, _, options = CASES[name]
    check_op(ours(name, **options), formula, arguments(shapes), rtol=1e-10)


@pytest.mark.parametrize("name, shapes", expand(SOLVERS, 2))
def test_solvers(name, shapes):
    op, formula, _ = SOLVERS[name]
    check_op(op, formula, arguments(shapes), rtol=1e-10)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation):
    text, arrays = equation.partition(" (")[0], arguments(EQUATIONS[equation])
    check_op(lambda *x: tg.einsum(text, *x), lambda *x: np.einsum(text, *x), arrays, rtol=1e-10)


def test_every_public_op_is_in_a_table():
    assert named(CASES) | named(SOLVERS) | {"einsum"} == public_ops(linalg) | public_ops(affine)


@pytest.mark.parametrize("name, shapes", expand(
    {name: case for name, case in CASES.items()
     if not any(word in name for word in ("NumPy", "tensordot", "relu"))}, 1))
def test_torch(name, shapes):
    options = CASES[name][2]
    check_torch(ours(name, **options), theirs(name, **options), arguments(shapes))


@pytest.mark.parametrize("name", ["inv", "det", "cholesky", "solve"])
def test_torch_linalg(name):
    torch = pytest.importorskip("torch")
    x, b = arguments([(2, 3, 3), (2, 3, 3)])
    x = np_shifted(x @ x.swapaxes(-1, -2))
    function = getattr(torch.linalg, name)
    for arrays in ([x, b], [x, b[0]], [x, b[:, 0]]) if name == "solve" else [[x]]:
        check_torch(ours(name), function, arrays)


# ---- linear: the gradients that go straight into their memory ---------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3)])
@pytest.mark.parametrize("layout", ["plain", "transposed", "strided"])
@pytest.mark.parametrize("dtypes", [
    ("float32", "float32", "float32"), ("float64", "float32", "float32"), ("float32", "float64", "float32"),
    ("float32", "float32", "float64")])
def test_linear_step_after_step(shape, layout, dtypes):
    arrays = [a.astype(dtype) for a, dtype in zip(arguments([shape, (4, 3), (4,)]), dtypes)]
    if layout == "transposed":
        arrays = [np.asfortranarray(a) for a in arrays]
    elif layout == "strided":
        arrays = [np.repeat(a, 2, -1)[..., ::2] for a in arrays]
    x, weight, bias = (tg.from_numpy(a).requires_grad_() for a in arrays)
    g = np.random.default_rng(1).standard_normal((*shape[:-1], 4))
    wanted = {weight: g.reshape(-1, 4).T @ x.numpy().reshape(-1, 3), bias: g.reshape(-1, 4).sum(0),
              x: g @ weight.numpy()}
    buffers = {}
    for _ in range(3):
        y = tg.linear(x, weight, bias=bias)
        assert y.dtype == np.result_type(*dtypes)
        np.testing.assert_allclose(y.numpy(), x.numpy() @ weight.numpy().T + bias.numpy(), 1e-5, 1e-6)
        y.backward(g)
        for leaf, gradient in wanted.items():       # by ._grad, for who asks .grad may keep the memory
            assert leaf._grad is buffers.setdefault(leaf, leaf._grad)
            assert leaf._grad.dtype == leaf.dtype
            np.testing.assert_allclose(leaf._grad.numpy(), gradient, 1e-5, 1e-6)
            leaf._grad = None


@pytest.mark.parametrize("op", [tg.linear, tg.linear_relu])
def test_the_memory_a_gradient_is_written_to_does_not_change_it(op):
    """A run that was resumed, whose first gradients are in new memory, goes on bit for bit."""
    x, weight, bias = tg.randn(33, 65), tg.randn(47, 65).requires_grad_(), tg.randn(47).requires_grad_()
    seen = []
    for _ in range(2):
        weight.grad = bias.grad = None
        (op(x, weight, bias) ** 2).sum().backward()
        seen.append([p._grad.numpy().copy() for p in (weight, bias)])
    for first, second in zip(*seen):
        np.testing.assert_array_equal(first, second)


def test_linear_used_twice_adds_up():
    x, weight = (tg.Tensor(a) for a in arguments([(5, 3), (3, 3)]))
    weight.requires_grad_()
    for _ in range(2):
        tg.linear(tg.linear(x, weight), weight).sum().backward()
        gradient, weight._grad = weight._grad.numpy().copy(), None
    np.testing.assert_allclose(gradient, tg.grad((x @ weight.T @ weight.T).sum(), weight)[0].numpy())


def test_linear_takes_whole_numbers():
    assert tg.linear(tg.Tensor([[1, 2]]), tg.Tensor([[3, 4]])).tolist() == [[11]]
    assert tg.linear(tg.Tensor([[1, 2]]), tg.Tensor([[3, 4]]), tg.Tensor([0.5])).tolist() == [[11.5]]


# ---- the rest ---------------------------------------------------------------------------------------------


def test_matmul_operator_and_numpy():
    a, b = (tg.Tensor(x) for x in arguments([(2, 3), (3, 4)]))
    expected = a.numpy() @ b.numpy()
    for y in (a @ b, a.matmul(b), np.matmul(a, b), a.numpy() @ b, a @ b.numpy(), np.dot(a, b)):
        assert isinstance(y, tg.Tensor)
        np.testing.assert_allclose(y.numpy(), expected)


def test_slogdet_where_det_overflows():
    x = tg.Tensor(-1000.0 * np.eye(301), requires_grad=True)
    result = tg.slogdet(x)
    assert result.sign.item() == -1
    assert result.logabsdet.item() == pytest.approx(301 * np.log(1000))
    result.logabsdet.backward()
    np.testing.assert_allclose(x.grad.numpy(), -np.eye(301) / 1000)


def test_integers_stay_integers():
    a = tg.Tensor([[1, 2], [3, 4]])
    for y in (a @ a, tg.einsum("ij,jk", a, a), tg.kron(a, a), tg.tensordot(a, a, 1), tg.outer(a, a)):
        assert y.dtype == "int64"


# ---- errors -----------------------------------------------------------------------------------------------


def o(*shape):
    return tg.ones(*shape)


@pytest.mark.parametrize("call, error, message", [
    (lambda: o(2, 3) @ o(4, 5), ValueError, r"shapes \(2, 3\) and \(4, 5\) do not fit"),
    (lambda: o(3) @ o(4), ValueError, r"\(3,\) and \(4,\)"),
    (lambda: o(2, 2, 3) @ o(5, 3, 4), ValueError, r"leading axes must broadcast, \(2,\) and \(5,\)"),
    (lambda: o() @ o(3), ValueError, r"\(\) and \(3,\)"),
    (lambda: tg.mv(o(2, 3), o(3, 1)), ValueError, "mv takes 2 and 1 axes"),
    (lambda: tg.mm(o(2, 2, 3), o(3, 1)), ValueError, "mm takes 2 and 2 axes"),
    (lambda: tg.bmm(o(2, 3), o(3, 1)), ValueError, "bmm takes 3 and 3 axes"),
    (lambda: tg.linear(o(2, 5), o(3, 4)), ValueError,
     r"linear: x has 5 features in its last axis, weight takes 4 \(weight has shape \(3, 4\)\)"),
    (lambda: tg.linear(o(2, 4), o(4)), ValueError, r"weight must have shape \(out, in\), got \(4,\)"),
    (lambda: tg.linear(o(), o(3, 4)), ValueError, "single number"),
    (lambda: tg.linear(o(2, 4), o(3, 4), o(4)), ValueError, r"bias has shape \(4,\), it must be \(3,\)"),
    (lambda: tg.linear(o(2, 4), o(3, 4), o(2, 3)), ValueError, r"bias has shape \(2, 3\)"),
    (lambda: tg.tensordot(o(2, 3), o(2, 3), 1), ValueError, r"\[1\] of a \(shape \(2, 3\)\)"),
    (lambda: tg.tensordot(o(2, 3), o(2, 3), ([0, 1], [0])), ValueError, "as many and as long"),
    (lambda: tg.einsum("ij,jk->ik", o(2, 3)), ValueError, "names 2 operands, got 1"),
    (lambda: tg.einsum("ij,jk->ik", o(2, 3), o(4, 5)), ValueError, "'j' of operand 1 has length 4, .* 3"),
    (lambda: tg.einsum("ijk", o(2, 3)), ValueError, r"'ijk' does not fit operand 0 of shape \(2, 3\)"),
    (lambda: tg.einsum("i", o(2, 3)), ValueError, "does not fit operand 0"),
    (lambda: tg.einsum("ij->ik", o(2, 3)), ValueError, "result must occur in an operand"),
    (lambda: tg.einsum("ij->ii", o(2, 3)), ValueError, "once in the result"),
    (lambda: tg.einsum("ii", o(1, 3)), ValueError, "'i' of operand 0 has length 3, before it was 1"),
    (lambda: tg.einsum("i1", o(2, 3)), ValueError, "named by a letter, got '1'"),
    (lambda: tg.inverse(tg.zeros(2, 2)), np.linalg.LinAlgError, "."),
    (lambda: tg.solve(tg.zeros(2, 2), o(2)), np.linalg.LinAlgError, "."),
    (lambda: tg.cholesky(-tg.eye(2)), np.linalg.LinAlgError, "."),
    (lambda: tg.det(o(2, 3)), np.linalg.LinAlgError, "square"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
