"""Reductions, cumulative ops and orderings: values, gradients of two orders, and contracts."""
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

import tinygrad_opt as tg
from tinygrad_opt.ops import reduce

SHAPES = [(), (1,), (5,), (3, 4), (1, 4), (2, 3, 4)]
INF = float("inf")


def drawn(shape, seed=0):
    """Return random numbers of which no two are close."""
    rng = np.random.default_rng(seed)
    n = int(np.prod(shape))
    return (rng.permutation(n).reshape(shape) - n / 2 + rng.uniform(0.2, 0.8, shape)) / max(n, 1)


def logsumexp(x, axis=None, keepdims=False):
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


def norm(x, p=2, axis=None, keepdims=False):
    return np.sum(np.abs(x) ** p, axis=axis, keepdims=keepdims) ** (1 / p)


def median(x, axis, keepdims=False):
    """The lower of the two in the middle, as torch has it."""
    return np.quantile(x, 0.5, axis=axis, method="inverted_cdf", keepdims=keepdims)


# An op and what it must equal, of an axis: called without one, with each axis, negative, and several at once.
REDUCTIONS = {
    "sum": np.sum, "mean": np.mean, "prod": np.prod, "amax": np.amax, "amin": np.amin, "logsumexp": logsumexp,
    "norm": norm, "all": np.all, "any": np.any, "count_nonzero": np.count_nonzero,
    "var": lambda x, **kw: np.var(x, ddof=1, **kw), "std": lambda x, **kw: np.std(x, ddof=1, **kw),
}
INDICES = {"argmax": np.argmax, "argmin": np.argmin}
PAIRS = {"max": (np.max, np.argmax), "min": (np.min, np.argmin)}
CUMULATIVE = {"cumsum": np.cumsum, "cumprod": np.cumprod}
ELSEWHERE = ["sum_to", "median", "sort", "argsort", "topk"]


def test_the_tables_cover_every_op():
    public = {name for name, op in tg.ops.TABLE.items() if op.__module__ == reduce.__name__}
    assert public == {*REDUCTIONS, *INDICES, *PAIRS, *CUMULATIVE, *ELSEWHERE}


def axes_of(ndim):
    return [None, *range(-ndim, ndim), *([(0, 1), (-1, 0)] if ndim > 1 else [])]


def close(y, expected):
    y = y.numpy() if isinstance(y, tg.Tensor) else tg.backend.to_numpy(y)
    assert y.shape == np.shape(expected)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, shape):
    op, expected, x = getattr(tg, name), REDUCTIONS[name], drawn(shape)
    for axis in axes_of(len(shape)):
        n = np.size(x) if axis is None else np.prod([shape[k] for k in np.atleast_1d(axis)])
        if name in ("var", "std") and n < 2:
            continue
        for keepdims in (False, True):
            y = expected(x, axis=axis, keepdims=keepdims)
            close(op(tg.Tensor(x), axis=axis, keepdims=keepdims), y)
            close(getattr(tg.Tensor(x), name)(dim=axis, keepdim=keepdims), y)
            if name not in ("all", "any", "count_nonzero"):
                tg.check_grads(lambda x: op(x, axis=axis, keepdims=keepdims), x)


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("name", PAIRS)
def test_extremes_along_an_axis_come_with_indices(name, shape):
    op, (values, indices), x = getattr(tg, name), PAIRS[name], drawn(shape)
    close(op(tg.Tensor(x)), values(x))
    tg.check_grads(op, x)
    for axis in range(-len(shape), len(shape)):
        for keepdims in (False, True):
            found = op(tg.Tensor(x), axis, keepdims)
            close(found.values, values(x, axis=axis, keepdims=keepdims))
            close(found.indices, indices(x, axis=axis, keepdims=keepdims))
            close(getattr(tg, f"arg{name}")(tg.Tensor(x), dim=axis, keepdim=keepdims), found.indices.numpy())
            tg.check_grads(lambda x: op(x, axis, keepdims)[0], x)
    close(getattr(tg, f"arg{name}")(tg.Tensor(x)), indices(x))


def test_extremes_of_two_tensors():
    a, b = drawn((3, 4)), drawn((1, 4), seed=1)
    close(tg.max(tg.Tensor(a), tg.Tensor(b)), np.maximum(a, b))
    close(tg.Tensor(a).min(tg.Tensor(b)), np.minimum(a, b))
    tg.check_grads(tg.max, [a, b])


def test_equal_extremes_share_the_gradient_or_the_first_one_has_it():
    def gradient(f, numbers):
        x = tg.tensor(numbers, requires_grad=True)
        f(x).backward()
        return x.grad.tolist()

    assert gradient(tg.max, [1.0, 4.0, 4.0]) == gradient(tg.amax, [1.0, 4.0, 4.0]) == [0.0, 0.5, 0.5]
    assert gradient(lambda x: x.amin(1).sum(), [[2.0, 2.0], [3.0, 1.0]]) == [[0.5, 0.5], [0.0, 1.0]]
    assert gradient(lambda x: x.max(0).values, [1.0, 4.0, 4.0]) == [0.0, 1.0, 0.0]
    assert gradient(lambda x: x.amax(), [1.0, float("nan")]) == [0.0, 1.0]


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_median(shape):
    x = drawn(shape)
    close(tg.median(tg.Tensor(x)), median(x, None))
    close(tg.median(tg.Tensor(x), keepdim=True), median(x, None, True))
    tg.check_grads(tg.median, x)
    for axis in range(-len(shape), len(shape)):
        for keepdims in (False, True):
            values, indices = tg.median(tg.Tensor(x), axis, keepdims)
            close(values, median(x, axis, keepdims))
            places = indices.numpy() if keepdims else np.expand_dims(indices.numpy(), axis)
            close(tg.median(tg.Tensor(x), axis, True).values, np.take_along_axis(x, places, axis))
            tg.check_grads(lambda x: tg.median(x, axis, keepdims).values, x)


def test_a_nan_is_the_median_and_the_last_in_order():
    x = tg.tensor([[1.0, float("nan"), 0.0], [1.0, 2.0, 3.0]])
    assert np.isnan(x.median().item())
    values, indices = x.median(1)
    assert np.isnan(values[0].item()) and values[1].item() == 2.0 and indices.tolist() == [1, 1]
    assert x.argsort(1).tolist() == [[2, 0, 1], [0, 1, 2]]
    assert x.argsort(1, descending=True).tolist() == [[1, 0, 2], [2, 1, 0]]


@pytest.mark.parametrize("shape", [*SHAPES[1:], (0,), (2, 0)])
@pytest.mark.parametrize("descending", [False, True])
def test_order(shape, descending):
    x = drawn(shape)
    for axis in range(-len(shape), len(shape)):
        expected = np.flip(np.sort(x, axis), axis) if descending else np.sort(x, axis)
        values, indices = tg.sort(tg.Tensor(x), axis, descending)
        close(values, expected)
        close(indices, tg.argsort(tg.Tensor(x), dim=axis, descending=descending).numpy())
        close(values, np.take_along_axis(x, indices.numpy(), axis))
        tg.check_grads(lambda x: tg.sort(x, dim=axis, descending=descending).values, x)
        for k in {0, shape[axis] // 2, shape[axis]}:
            top, places = tg.topk(tg.Tensor(x), k, axis, largest=descending)
            close(top, np.take(expected, range(k), axis))
            close(top, np.take_along_axis(x, places.numpy(), axis))
            tg.check_grads(lambda x: tg.topk(x, k, dim=axis, largest=descending).values, x)


def test_equal_elements_keep_their_order():
    x = tg.tensor([1, 0, 1, 0, 1])
    assert x.sort().indices.tolist() == [1, 3, 0, 2, 4]
    assert x.sort(descending=True).indices.tolist() == x.topk(5).indices.tolist() == [0, 2, 4, 1, 3]
    assert tg.tensor([True, False, True]).argsort(descending=True).tolist() == [0, 2, 1]


@pytest.mark.parametrize("shape", [*SHAPES, (0,), (2, 0)])
@pytest.mark.parametrize("name", CUMULATIVE)
def test_cumulative(name, shape):
    op, expected, x = getattr(tg, name), CUMULATIVE[name], drawn(shape)
    for axis in [None, *range(-len(shape), len(shape))]:
        close(op(tg.Tensor(x), dim=axis), expected(x, axis))
        tg.check_grads(lambda x: op(x, axis), x)


@pytest.mark.parametrize("zeros", [[], [0], [2], [0, 3], [1, 2], [0, 1, 2, 3]])
def test_products_with_zeros(zeros):
    x = drawn((2, 4)) + 1.5
    x[0, zeros] = 0
    tg.check_grads(tg.prod, x, order=3)
    tg.check_grads(lambda x: tg.prod(x, 1), x, order=3)
    tg.check_grads(lambda x: tg.prod(x, (0, 1)), x)
    tg.check_grads(lambda x: tg.cumprod(x, 1), x, order=3)


@pytest.mark.parametrize("p", [2, "fro", 1, 3, 1.5, 0.5, -1, INF, -INF, 0])
def test_norms(p):
    x = drawn((3, 4)) + 2
    for axis in (None, 0, -1, (0, 1)):
        if p in (INF, -INF):
            expected = (np.max if p > 0 else np.min)(np.abs(x), axis)
        else:
            expected = np.count_nonzero(x, axis) if p == 0 else norm(x, 2 if p == "fro" else p, axis)
        close(tg.norm(tg.Tensor(x), p, axis), expected)
        if p != 0:
            tg.check_grads(lambda x: tg.norm(x, p, axis), x)
    assert tg.norm(tg.tensor([3, 4])).item() == 5.0 and tg.norm(tg.tensor([3, 4])).dtype == np.float64


@pytest.mark.parametrize("f", [tg.norm, lambda x: tg.norm(x, 3), lambda x: tg.norm(x, 1), tg.std])
def test_the_gradient_of_a_norm_is_zero_where_the_norm_is(f):
    x = tg.zeros(3, requires_grad=True)
    slope, = tg.grad(f(x), x, create_graph=True)
    assert slope.tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(tg.grad(slope.sum(), x, allow_unused=True)[0].numpy()).all()


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3])
def test_an_element_of_zero_has_no_part_in_the_gradient_of_a_norm(p):
    x = tg.tensor([0.0, 2.0], requires_grad=True)
    assert tg.grad(x.norm(p), x)[0].tolist() == pytest.approx([0.0, 1.0])


def test_logsumexp_at_the_ends_of_the_numbers():
    x = tg.tensor([[-INF, -INF], [-INF, 5.0], [1e30, 0.0]], requires_grad=True)
    y = x.logsumexp(1)
    assert y.tolist() == [-INF, 5.0, np.float32(1e30)]
    y[1:].sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    assert tg.grad(tg.logsumexp(x, 1)[0], x)[0].tolist()[0] == [0.0, 0.0]


@pytest.mark.parametrize("correction", [0, 1, 2.5])
def test_variance_with_a_correction(correction):
    x = drawn((3, 4))
    squares = (x - x.mean(1, keepdims=True)) ** 2
    close(tg.var(tg.Tensor(x), 1, correction=correction), squares.sum(1) / (4 - correction))
    tg.check_grads(lambda x: tg.var(x, 1, correction), x)
    tg.check_grads(lambda x: tg.std(x, correction=correction), x)


@settings(max_examples=50, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=1, max_dims=4, max_side=3))
def test_sum_to_is_the_transpose_of_broadcasting(shapes):
    (shape,), whole = shapes
    x, v = drawn(whole), drawn(shape, seed=1)
    y = tg.sum_to(tg.Tensor(x), shape)
    assert y.shape == shape
    np.testing.assert_allclose((y.numpy() * v).sum(), (x * np.broadcast_to(v, whole)).sum(), atol=1e-12)


def test_sum_to_gives_axes_of_length_one_in_front():
    assert tg.sum_to(tg.ones(3), (1, 3)).tolist() == [[1.0, 1.0, 1.0]]


# ---- contracts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*REDUCTIONS, *INDICES, *PAIRS, *CUMULATIVE, *ELSEWHERE[1:]])
def test_arrays_in_arrays_out(name):
    op, array = getattr(tg, name), tg.backend.asarray(drawn((3, 4)))
    args = {"topk": (2,)}.get(name, ())
    for kwargs in ({}, {"axis": 1}):
        results = op(array, *args, **kwargs), op(tg.Tensor(array), *args, **kwargs)
        for y, t in zip(*((r if isinstance(r, tuple) else (r,)) for r in results)):
            assert not isinstance(y, tg.Tensor) and isinstance(t, tg.Tensor) and y.dtype == t.dtype
            close(t, tg.backend.to_numpy(y))


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "amax", "amin", "max", "min", "all",
                                  "any", "argmax", "cumsum", "cumprod"])
@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "int64", "float16", "float32", "float64"])
def test_dtypes_are_those_of_numpy(name, dtype):
    x = np.array([[3, 1, 2], [0, 1, 1]]).astype(dtype)
    y = getattr(tg, name)(tg.Tensor(x))
    expected = getattr(np, name)(x, **({"ddof": 1} if name in ("var", "std") else {}))
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-3)


def test_the_mean_of_halves_does_not_overflow():
    assert tg.mean(tg.full((1000,), 1000.0, dtype="float16")).item() == 1000.0


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "std", "norm", "logsumexp", "amax", "cumsum"])
def test_nothing_is_kept_that_no_gradient_needs(name):
    x = tg.Tensor(drawn((3, 4)), requires_grad=True)
    y = x * 2
    alive = weakref.ref(y)
    result = getattr(tg, name)(y, 1)
    del y
    assert result.requires_grad and (alive() is None) == (name in ("sum", "mean", "cumsum"))


def test_empty_reductions_are_those_of_numpy():
    x = tg.zeros(2, 0, requires_grad=True)
    assert x.sum().item() == 0.0 and x.prod().item() == 1.0 and x.sum(1).tolist() == [0.0, 0.0]
    assert x.all().item() is True and x.any().item() is False and x.norm().item() == 0.0
    for y in (x.sum(), x.prod(), x.prod(1).sum(), x.cumprod(1).sum(), x.amax(0).sum(), x.norm()):
        assert tg.grad(y, x)[0].shape == (2, 0)
    with np.errstate(invalid="ignore"):
        assert np.isnan(x.mean().item())


def test_writing_into_what_the_gradient_needs_raises():
    for f in (tg.prod, tg.norm, tg.amax, tg.logsumexp, lambda x: tg.cumprod(x, 0)):
        x = tg.Tensor(drawn((4,)) + 2, requires_grad=True)
        y = x * 1
        z = f(y).sum()
        with tg.no_grad():
            y += 1
        with pytest.raises(RuntimeError, match="written to"):
            z.backward()
    x = tg.Tensor(drawn((4,)), requires_grad=True)
    found = x.sort()
    found.indices.zero_()                           # the caller's own: the gradient keeps the true places
    found.values.sum().backward()
    assert x.grad.tolist() == [1.0] * 4


ERRORS = [
    (lambda x: x.sum(2), ValueError, "axis 2 is out of bounds"),
    (lambda x: x.mean((0, 0)), ValueError, "duplicate"),
    (lambda x: x.max(-3), ValueError, "axis -3 is out of bounds"),
    (lambda x: x.cumsum(5), ValueError, "axis 5 is out of bounds"),
    (lambda x: x.sum(0, dim=0), TypeError, "axis"),
    (lambda x: x.sum(axis=0, dim=0), TypeError, r"sum\(\) got two names of one argument, axis, dim"),
    (lambda x: x.amax(0, keepdim=True, keepdims=True), TypeError, "keepdim, keepdims"),
    (lambda x: x.max((0, 1)), TypeError, "use amax or amin"),
    (lambda x: x.sum(dimension=0), TypeError, "dimension"),
    (lambda x: x.topk(4), ValueError, r"k must lie in \[0, 3\], the length of axis -1; got 4"),
    (lambda x: x.norm("nuc"), ValueError, "p must be a number, inf, -inf or 'fro'; got 'nuc'"),
    (lambda x: x.norm(float("nan")), ValueError, "got nan"),
    (lambda x: x[:0].median(), ValueError, "at least one element"),
    (lambda x: x[:0].amax(), ValueError, "zero-size array"),
    (lambda x: x[:0].argmax(), ValueError, "empty"),
    (lambda x: x[:0].max(0), ValueError, "empty|zero-size"),
]


@pytest.mark.parametrize("call, error, message", ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(tg.ones(2, 3))


def test_what_torch_says():
    torch = pytest.importorskip("torch")
    calls = [
        lambda m, x: m.var(x, dim=1), lambda m, x: m.std(x), lambda m, x: m.norm(x, dim=0),
        lambda m, x: m.norm(x, p=1), lambda m, x: m.max(x, dim=0).values,
        lambda m, x: m.min(x, dim=1, keepdim=True)[0], lambda m, x: m.prod(x, dim=0),
        lambda m, x: m.median(x, dim=1).values, lambda m, x: m.sort(x, dim=1, descending=True)[0],
        lambda m, x: m.topk(x, 2, dim=1)[0], lambda m, x: m.logsumexp(x, dim=(0, 1)),
        lambda m, x: m.cumprod(x, dim=1), lambda m, x: m.max(x, m.flip(x, (0,))),
        lambda m, x: m.mean(x, dim=0, keepdim=True),
    ]
    with_equals = [lambda m, x: m.amax(x, dim=1), lambda m, x: m.max(x), lambda m, x: m.median(x)]
    different = drawn((3, 4)).astype(np.float32)
    equal = np.array([[1, 2, 2, 3], [3, 0, 3, 1], [0, 2, 1, 2]], np.float32)
    for call, numbers in [*((call, different) for call in calls), *((call, equal) for call in with_equals)]:
        x, theirs = tg.Tensor(numbers, requires_grad=True), torch.tensor(numbers, requires_grad=True)
        y, z = call(tg, x), call(torch, theirs)
        np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=2e-6)
        y.sum().backward()
        z.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=1e-5, atol=1e-6)
