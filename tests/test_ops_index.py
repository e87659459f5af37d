"""Reading from and writing to parts: values, gradients of two orders, and contracts."""
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_opt as tg
from tinygrad_opt.ops import index as module

RANDOM = np.random.default_rng(0)
CASES = []


def ints(*shape, below):
    return RANDOM.integers(0, below, shape)


def case(name, *args, equals, **kwargs):
    """Add the op `name` with arguments, whose arrays become Tensors; `equals` says the same in NumPy."""
    CASES.append(pytest.param(name, args, kwargs, equals, id=f"{name}-{len(CASES)}"))


def floats(*shape):
    return RANDOM.standard_normal(shape)


def put(x, index, value):
    y = x.copy()
    y[index] = value
    return y


def put_along(x, index, value, axis):
    y = x.copy()
    np.put_along_axis(y, index, value, axis)
    return y


def add_along(x, index, value, axis):
    y = x.copy()
    for place in np.ndindex(index.shape):
        target = list(place)
        target[axis] = index[place]
        y[tuple(target)] += value[place]
    return y


def on_diagonal(x, shape, k):
    return np.diag(x, k).reshape(shape)


MASK = np.array([[True, False, True], [False, False, True]])
INDICES = [
    0, -1, slice(None), slice(1, None), slice(None, None, -2), None, ..., (0, 1), (slice(None), 2), (..., -1),
    (None, 1, ..., None), (slice(0, 0),), [1, 0, 1], [[0, 1], [1, 1]], ([0, 1, 1], [2, 0, 0]),
    (slice(None), [2, 2, 0]), ([1, 0], slice(1, None)), (0, [1, 1]), ([1, 1], None, [0]),
    ([[0], [1]], [2, 0]), [], (slice(None), []), np.array(1), (np.array([-1, -2]), -3), True, range(2),
    MASK, ~MASK, np.zeros((2, 3), bool), (MASK[:, 0],), (slice(None), MASK[1]), (MASK[:, 0], [1]),
]
for place in INDICES:
    case("getitem", floats(2, 3), place, equals=lambda x, place: x[place])
    if place is not True:
        case("put", floats(2, 3), place, floats(), equals=put)
case("getitem", floats(), (), equals=lambda x, place: x)
case("getitem", floats(), None, equals=lambda x, place: x[None])
case("getitem", floats(2, 0, 3), (slice(None), None, ..., 1), equals=lambda x, place: x[place])
case("getitem", floats(2, 3, 4), ([0, 1], slice(None), [3, 3]), equals=lambda x, place: x[place])
case("put", floats(2, 3), (slice(None), 1), floats(2), equals=put)
if tg.backend.name != "cupy":                       # which of the values stays is a race there
    case("put", floats(2, 3), ([1, 0, 1],), floats(3, 3), equals=put)
    case("put", floats(2, 3), ([1, 0, 1], 2), floats(3), equals=put)
case("put", floats(2, 3), 0, floats(1, 1, 3), equals=put)
case("put", floats(2, 3), MASK, floats(3), equals=put)
case("put", floats(2, 3), ..., floats(2, 1), equals=put)
case("select", floats(2, 3, 4), 1, -1, equals=lambda x, axis, k: x[:, -1])
case("select", floats(2, 3, 4), 2, slice(1, 3), equals=lambda x, axis, k: x[..., 1:3])

case("take", floats(2, 3), ints(4, below=6), equals=np.take)
case("take", floats(2, 3), np.array([[-1, 2], [0, 0]]), axis=1, equals=np.take)
case("take", floats(2, 3, 4), ints(below=3), dim=1, equals=lambda x, k, dim: np.take(x, k, dim))
case("take", floats(5), ints(0, below=5), equals=np.take)
case("index_select", floats(3, 4), 0, np.array([2, 0, 2]), equals=lambda x, axis, k: x[k])
case("index_select", floats(3, 4), -1, np.array([1]), equals=lambda x, axis, k: x[:, k])
case("embedding", floats(5, 3), np.array([[0, 4, 0], [1, 0, 4]]), equals=lambda w, k: w[k])
case("embedding", floats(5), np.array([4, 4]), equals=lambda w, k: w[k])
case("embedding", floats(5, 2, 3), ints(below=5), equals=lambda w, k: w[k])
case("embedding", floats(5, 3), ints(0, below=5), equals=lambda w, k: w[k])
case("one_hot", ints(2, 3, below=4), 4, equals=lambda k, n: np.eye(n, dtype=int)[k])
case("one_hot", np.array([0, 2]), equals=lambda k: np.eye(3, dtype=int)[k])
case("one_hot", ints(0, below=1), 2, equals=lambda k, n: np.zeros((0, 2), int))
case("take_along_axis", floats(2, 3), ints(2, 5, below=3), equals=lambda x, k: np.take_along_axis(x, k, -1))
case("take_along_axis", floats(2, 3), ints(1, 3, below=2), 0, equals=np.take_along_axis)
case("take_along_axis", floats(1, 3), ints(4, 2, below=3), 1, equals=np.take_along_axis)
case("take_along_axis", floats(2, 3), ints(4, below=6), None, equals=np.take_along_axis)
case("take_along_dim", floats(2, 3), ints(4, below=6), equals=lambda x, k: x.ravel()[k])
case("take_along_dim", floats(2, 3), ints(2, 1, below=3), dim=1,
     equals=lambda x, k, dim: np.take_along_axis(x, k, dim))
case("gather", floats(2, 3), 1, ints(2, 5, below=3), equals=lambda x, axis, k: np.take_along_axis(x, k, 1))
case("gather", floats(4, 3), 1, ints(2, 2, below=3),
     equals=lambda x, axis, k: np.take_along_axis(x[:2], k, 1))
case("gather", floats(4, 3, 2), -2, ints(2, 1, 2, below=3),
     equals=lambda x, axis, k: np.take_along_axis(x[:2], k, 1))
case("gather", floats(4), 0, np.array([-1, 0, -1]), equals=lambda x, axis, k: x[k])
case("gather", floats(4, 3), 0, ints(0, 3, below=4), equals=lambda x, axis, k: np.zeros((0, 3)))
case("gather", floats(200, 2), 0, np.array([[150, 199]], "uint8"), equals=lambda x, axis, k: x[k, [0, 1]])
case("take", floats(2, 200), np.array([100, -3, 100], "int8"), 1, equals=np.take)
case("scatter", floats(2, 3), 1, np.array([[2], [0]]), floats(2, 1),
     equals=lambda x, axis, k, v: put_along(x, k, v, 1))
case("scatter", floats(2, 3), 1, np.array([[2, 1], [0, 1]]), floats(4, 3),
     equals=lambda x, axis, k, v: put_along(x, k, v[:2, :2], 1))
case("scatter", floats(4), -1, np.array([1, 3]), 7.0, equals=lambda x, axis, k, v: put(x, k, v))
case("scatter_add", floats(2, 3), 1, ints(2, 4, below=3), floats(2, 4),
     equals=lambda x, axis, k, v: add_along(x, k, v, 1))
case("scatter_add", floats(4, 3), 0, ints(5, 2, below=4), floats(6, 3),
     equals=lambda x, axis, k, v: add_along(x, k, v[:5, :2], 0))
case("scatter_add", floats(4), 0, ints(0, below=4), floats(2), equals=lambda x, axis, k, v: x)

case("masked_fill", floats(2, 3), MASK, 0.5, equals=lambda x, mask, v: np.where(mask, v, x))
case("masked_fill", floats(2, 3), MASK[0], floats(2, 1), equals=lambda x, mask, v: np.where(mask, v, x))
case("masked_select", floats(2, 3), MASK, equals=lambda x, mask: x[mask])
case("masked_select", floats(2, 3), MASK[:, :1], equals=lambda x, mask: x[np.broadcast_to(mask, x.shape)])
case("nonzero", ints(3, 4, below=2), equals=np.argwhere)
case("nonzero", np.array(1), equals=np.argwhere)
case("nonzero", MASK, as_tuple=True, equals=lambda x, as_tuple: np.nonzero(x))

for shape in [(3, 3), (2, 4), (4, 2), (2, 3, 4), (0, 3)]:
    for k in (0, 1, -2):
        case("tril", floats(*shape), k, equals=np.tril)
        case("triu", floats(*shape), diagonal=k, equals=lambda x, diagonal: np.triu(x, diagonal))
        case("diagonal", floats(*shape), k, -1, -2, equals=np.diagonal)
        case("diagonal", floats(*shape), dim1=0, dim2=1, offset=k,
             equals=lambda x, dim1, dim2, offset: np.diagonal(x, offset))
        if len(shape) == 2:
            case("diag", floats(*shape), k, equals=np.diag)
            case("diag", floats(shape[1]), k, equals=np.diag)
    case("trace", floats(*shape), equals=np.trace)

NOT_OPS = {"axis_or_dim", "plain"}


def several(y):
    return list(y) if isinstance(y, tuple) else [y]


def test_the_table_covers_every_op():
    public = {name for name, op in tg.ops.TABLE.items() if op.__module__ == module.__name__}
    assert public - NOT_OPS == {case.values[0] for case in CASES}


def wrapped(args, wrap):
    return [wrap(a) if isinstance(a, np.ndarray) else a for a in args]


@pytest.mark.parametrize("name, args, kwargs, equals", CASES)
def test_values_and_gradients(name, args, kwargs, equals):
    op, expected = getattr(tg, name), several(equals(*args, **kwargs))
    results = several(op(*wrapped(args, tg.Tensor), **kwargs))
    assert len(results) == len(expected)
    for y, e in zip(results, expected):
        assert isinstance(y, tg.Tensor) and y.shape == np.shape(e)
        assert np.allclose(y.numpy(), e, rtol=1e-14) and y.dtype == np.asarray(e).dtype
    moving = [k for k, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]

    def of_floats(*xs):
        filled = wrapped(args, tg.Tensor)
        for k, x in zip(moving, xs):
            filled[k] = x
        return op(*filled, **kwargs)

    if moving:
        tg.check_grads(of_floats, [args[k] for k in moving])


@pytest.mark.parametrize("name, args, kwargs, equals", CASES)
def test_arrays_in_arrays_out(name, args, kwargs, equals):
    results = several(getattr(tg, name)(*wrapped(args, tg.backend.asarray), **kwargs))
    for y, e in zip(results, several(equals(*args, **kwargs))):
        assert not isinstance(y, tg.Tensor) and np.allclose(tg.backend.to_numpy(y), e)


# ---- indexing ----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_basic_indexing(data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))
    place = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    check_reading_and_writing(shape, place, place)


ARRAY_KINDS = st.sampled_from([lambda k: k, tg.Tensor, lambda k: k.tolist()])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_indexing_by_arrays(data):
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=4))
    place = data.draw(hnp.integer_array_indices(shape))
    kind = data.draw(ARRAY_KINDS)
    check_reading_and_writing(shape, place, tuple(kind(k) for k in place))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_indexing_by_a_mixture(data):
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=4))
    place = []
    for n in shape:
        place += data.draw(st.lists(st.none(), max_size=1))
        place.append(data.draw(st.one_of(
            st.integers(-n, n - 1), st.slices(n),
            hnp.arrays(np.int64, st.sampled_from([(2,), (1,), (2, 2)]), elements=st.integers(-n, n - 1)))))
    check_reading_and_writing(shape, tuple(place), tuple(wrapped(place, tg.Tensor)))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_indexing_by_masks(data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    mask = data.draw(hnp.arrays(bool, shape[:data.draw(st.integers(1, len(shape)))]))
    check_reading_and_writing(shape, mask, data.draw(ARRAY_KINDS)(mask))


def check_reading_and_writing(shape, theirs, ours):
    array = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    x = tg.Tensor(array, requires_grad=True)
    expected = array[theirs]
    y = x[ours]
    assert y.shape == expected.shape and np.array_equal(y.numpy(), expected)
    w = np.random.default_rng(0).integers(1, 9, expected.shape).astype(float)
    gradient = np.zeros(shape)
    np.add.at(gradient, theirs, w)
    assert np.array_equal(tg.grad(y, x, w)[0].numpy(), gradient)

    counts = np.zeros(shape, int)
    np.add.at(counts, theirs, 1)
    if tg.backend.name == "cupy" and counts.max(initial=0) > 1:
        return                                          # which of the values stays is a race there
    written = array.copy()
    written[theirs] = -w
    value = tg.Tensor(-w, requires_grad=True)
    z = tg.put(x, ours, value)
    assert np.array_equal(z.numpy(), written)
    tag = array + 1
    to_x, to_value = tg.grad(z, [x, value], tag)
    assert np.array_equal(to_x.numpy(), np.where(counts, 0, tag))
    assert to_value.numpy().sum() == tag[counts > 0].sum()      # each written place has one value, the last
    for k in range(w.size):                         # and moving a value moves the result as told
        moved = w.reshape(-1).copy()
        moved[k] += 1
        again = array.copy()
        again[theirs] = -moved.reshape(w.shape)
        assert ((written - again) * tag).sum() == to_value.numpy().reshape(-1)[k]


def test_slices_are_views_and_arrays_copy():
    x = tg.Tensor(np.arange(6.0).reshape(2, 3))
    row, column, picked = x[1], x[:, 1], x[[1]]
    x += 10
    assert row.tolist() == [13.0, 14.0, 15.0] and column.tolist() == [11.0, 14.0]
    assert picked.tolist() == [[3.0, 4.0, 5.0]]
    diagonal = x.diagonal()
    x.zero_()
    assert diagonal.tolist() == [0.0, 0.0]


def test_writing_into_a_part():
    x = tg.zeros(2, 3)
    memory = x.data
    x[0] = 1
    x[:, 2] = tg.tensor([5.0, 6.0])
    x[x == 1] = 2
    x[tg.tensor([1]), [0]] = 9.0
    assert x.tolist() == [[2.0, 2.0, 5.0], [9.0, 0.0, 6.0]] and x.data is memory


def test_writing_where_gradients_are_recorded():
    a, b = tg.tensor([1.0, 2.0, 3.0], requires_grad=True), tg.tensor(5.0, requires_grad=True)
    x = a * 2
    x[1] = b * b
    x[-1] = x[0] * x[1]
    assert x.tolist() == [2.0, 25.0, 50.0]
    x.sum().backward()
    assert a.grad.tolist() == [2 + 2 * 25.0, 0.0, 0.0] and b.grad.item() == 10 + 2 * 10.0
    y = tg.zeros(3)
    y[[0, 2]] = b
    y.sum().backward()
    assert y.requires_grad and b.grad.item() == 30 + 2
    with pytest.raises(RuntimeError, match="leaf"):
        a[0] = 1.0


def test_second_order_through_writing():
    def f(a, b):
        x = a * a
        x[1:, [0, 0, 1]] = b * b * b
        x[a > 0.5] = 2.0
        return (x * x).sum()

    tg.check_grads(f, [floats(3, 2), floats(2, 3)], order=3)


def test_writing_into_what_the_gradient_needs_raises():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    z = y * y
    with tg.no_grad():
        y[0] = 5.0
    with pytest.raises(RuntimeError, match="written to"):
        z.sum().backward()
    weight, indices = tg.ones(3, 2, requires_grad=True), tg.tensor([0, 1])
    z = tg.embedding(weight, indices)
    indices[0] = 2
    with pytest.raises(RuntimeError, match="written to"):
        z.sum().backward()


@pytest.mark.parametrize("read", [
    lambda x, k: x[k], lambda x, k: x[k, 0], lambda x, k: x.gather(0, k[:, None]), lambda x, k: x[k.data],
    lambda x, k: tg.put(tg.zeros(3, 2), k, x[:2]), lambda x, k: tg.scatter_add(x, 0, k[:, None], x),
])
def test_the_gradient_keeps_the_index_as_it_was(read):
    x = tg.Tensor(np.arange(6.0).reshape(3, 2) + 1, requires_grad=True)
    k = tg.tensor([0, 1])
    expected, = tg.grad((read(x, k) ** 2).sum(), x)
    y = read(x, k)
    k[:] = 2
    assert tg.grad((y ** 2).sum(), x)[0].tolist() == expected.tolist()


@pytest.mark.parametrize("read", [
    lambda x: x[0], lambda x: x[[0, 1]], lambda x: x.gather(0, tg.tensor([[1, 0]])), lambda x: x.take([0]),
    lambda x: x.tril(), lambda x: x.diagonal(), lambda x: tg.put(x, 0, 1.0),
])
def test_what_is_read_is_not_kept(read):
    x = tg.ones(2, 2, requires_grad=True)
    y = x * 2
    alive = weakref.ref(y)
    result = read(y)
    del y
    assert alive() is None and result.requires_grad


def test_the_gradient_of_embedding_is_written_where_it_belongs():
    weight = tg.Tensor(floats(4, 3), requires_grad=True)
    for indices in ([0, 2, 2], [1, 1, 3]):              # the second step writes into the memory of the first
        weight._grad = None
        tg.embedding(weight, indices).sum().backward()
        assert weight._grad.numpy()[:, 0].tolist() == np.bincount(indices, minlength=4).tolist()


ERRORS = [
    (lambda x, k: x[2], IndexError,
     "index 2 is out of bounds for axis 0 with size 2|Index 2 is out of bounds"),
    (lambda x, k: x[0, 0, 0], IndexError, "too many indices|Too many indices"),
    (lambda x, k: x[x], IndexError, "integer|boolean"),
    (lambda x, k: tg.put(k, 0, 1.5), TypeError, "cannot write float64 into a Tensor of int64"),
    (lambda x, k: tg.put(x, 0, tg.ones(2)), ValueError, "broadcast"),
    (lambda x, k: x.select(2, 0), ValueError, "axis 2 is out of bounds"),
    (lambda x, k: tg.embedding(x, [0, 2]), IndexError,
     r"index 2 is out of range for axis 0 of length 2: it must lie in \[0, 1\]"),
    (lambda x, k: tg.embedding(x, tg.tensor([-1])), IndexError,
     "index -1 is out of range for axis 0 of length 2"),
    (lambda x, k: tg.embedding(x, tg.tensor([1.0])), TypeError, "an index holds integers, got float32"),
    (lambda x, k: tg.one_hot(tg.tensor([0, 3]), 3), IndexError,
     "index 3 is out of range for axis 1 of length 3"),
    (lambda x, k: tg.one_hot(tg.tensor([-1, 1])), IndexError,
     "index -1 is out of range for axis 1 of length 2"),
    (lambda x, k: x.take([6]), IndexError,
     r"index 6 is out of range for axis 0 of length 6: it must lie in \[-6, 5\]"),
    (lambda x, k: x.take([True, False]), TypeError, "for booleans there is x.mask"),
    (lambda x, k: x.index_select(1, tg.tensor([0, -4])), IndexError,
     "index -4 is out of range for axis 1 of length 3"),
    (lambda x, k: x.gather(1, tg.tensor([[3]])), IndexError,
     "index 3 is out of range for axis 1 of length 3"),
    (lambda x, k: x.gather(1, k), ValueError, "needs 2 axes"),
    (lambda x, k: x.gather(1, tg.tensor([[0]] * 3)), ValueError, "none longer than in .2, 3. except axis 1"),
    (lambda x, k: x.scatter(1, tg.tensor([[0, 1]]), tg.ones(1, 1)), ValueError,
     "src must be at least as large as the index"),
    (lambda x, k: x.scatter_add(0, tg.tensor([[0]]), tg.ones(1)), ValueError,
     "src must be at least as large"),
    (lambda x, k: x.take_along_axis(k, 1), ValueError, "as many axes as the Tensor, 2; it has 1"),
    (lambda x, k: x.masked_fill(k, 0.0), TypeError, "a mask holds booleans, got int64"),
    (lambda x, k: x.masked_select(k), TypeError, "a mask holds booleans, got int64"),
    (lambda x, k: tg.diag(tg.ones(1, 1, 1)), ValueError, "a vector or a matrix"),
    (lambda x, k: x[0].diagonal(), ValueError, "at least two dimensions|two dimensions"),
    (lambda x, k: x.gather(1, k, dim=1), TypeError, "axis"),
]


@pytest.mark.parametrize("call, error, message", ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(tg.ones(2, 3), tg.tensor([0, 1]))


def test_what_torch_says():
    torch = pytest.importorskip("torch")
    numbers, places = floats(3, 4).astype(np.float32), ints(2, 4, below=3)
    for call in (
        lambda m, x, k: m.gather(x, dim=0, index=k), lambda m, x, k: m.index_select(x, 1, k[0]),
        lambda m, x, k: m.take(x, k), lambda m, x, k: x.scatter_add(0, k, x[:2] * 2),
        lambda m, x, k: m.take_along_dim(x, k, dim=0), lambda m, x, k: m.select(x, 1, 2),
        lambda m, x, k: x.masked_fill(x > 0, 2.0), lambda m, x, k: m.masked_select(x, x > 0),
        lambda m, x, k: m.tril(x, -1), lambda m, x, k: m.diagonal(x, 1), lambda m, x, k: m.diag(x),
        lambda m, x, k: m.diag(x[0], 1), lambda m, x, k: m.trace(x[:, :3]), lambda m, x, k: x[k],
        lambda m, x, k: x[k[0], k[1]], lambda m, x, k: x[:, None, 1:], lambda m, x, k: x[x[:, 0] > 0],
    ):
        x, theirs = tg.Tensor(numbers, requires_grad=True), torch.tensor(numbers, requires_grad=True)
        y, z = call(tg, x, tg.Tensor(places)), call(torch, theirs, torch.tensor(places))
        assert np.array_equal(y.detach().numpy(), z.detach().numpy())
        y.sum().backward()
        z.sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=1e-6)
    hot = torch.nn.functional.one_hot(torch.tensor(places), 5)
    assert tg.one_hot(tg.Tensor(places), 5).tolist() == hot.tolist()
    assert tg.nonzero(tg.Tensor(places)).tolist() == torch.nonzero(torch.tensor(places)).tolist()
