"""Ops that move elements about: values, gradients of two orders, views, and contracts."""
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_opt as tg
from tinygrad_opt.ops import shape as module

V, M, C = (6,), (2, 3), (2, 3, 4)                   # a vector, a matrix, a cube
NUMBER, ROW, COLUMN, EMPTY = (), (1, 3), (2, 1), (2, 0, 3)
ALL = [NUMBER, V, M, ROW, C, EMPTY]
OF_LISTS = {"cat", "concatenate", "concat", "stack", "hstack", "vstack", "dstack"}
CASES = []


def case(name, *args, on, equals=None, **kwargs):
    """Add the op `name` with arguments on Tensors of given shapes; it equals NumPy's namesake or `equals`."""
    theirs = equals or (lambda *x: getattr(np, name)(*((x,) if name in OF_LISTS else x), *args, **kwargs))

    def ours(*x):
        return getattr(tg, name)(*((x,) if name in OF_LISTS else x), *args, **kwargs)
    said = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in kwargs.items())])
    for shapes in on:
        shapes = shapes if shapes and isinstance(shapes[0], tuple) else (shapes,)
        CASES.append(pytest.param(ours, theirs, shapes, id=f"{name}({said}) of {' '.join(map(str, shapes))}"))


case("reshape", (3, 2), on=[V, M])
case("reshape", 3, -1, on=[V, M, C], equals=lambda x: x.reshape(3, -1))
case("reshape", -1, on=ALL)
case("reshape", (), on=[NUMBER, (1, 1)])
case("reshape", (0, 7), on=[EMPTY])
case("reshape_as", on=[(V, M), (NUMBER, (1,))], equals=lambda x, y: x.reshape(y.shape))
case("view", 3, 2, on=[V, M], equals=lambda x: x.reshape(3, 2))
case("view", (-1,), on=ALL, equals=np.ravel)
case("view_as", on=[(V, M)], equals=lambda x, y: x.reshape(y.shape))
case("ravel", on=ALL)
case("flatten", on=ALL, equals=np.ravel)
case("flatten", 1, on=[M, C], equals=lambda x: x.reshape(2, -1))
case("flatten", 0, 1, on=[C], equals=lambda x: x.reshape(6, 4))
case("flatten", end_dim=-2, on=[EMPTY], equals=lambda x: x.reshape(0, 3))
case("squeeze", on=[*ALL, (1, 3, 1)])
case("squeeze", 0, on=[ROW])
case("squeeze", (0, -1), on=[(1, 3, 1)])
case("unsqueeze", 0, on=ALL, equals=lambda x: np.expand_dims(x, 0))
case("unsqueeze", dim=-1, on=ALL, equals=lambda x: np.expand_dims(x, -1))
case("unsqueeze", (0, 2), on=[V, M], equals=lambda x: np.expand_dims(x, (0, 2)))
case("atleast_1d", on=ALL)
case("atleast_2d", on=ALL)
case("transpose", on=ALL)
case("transpose", (1, 0, 2), on=[C])
case("transpose", (-1, 0, 1), on=[C])
case("transpose", 0, 1, on=[M, C], equals=lambda x: x.swapaxes(0, 1))
case("transpose", -1, -1, on=[V, M], equals=lambda x: x)
case("transpose", 2, 0, 1, on=[C], equals=lambda x: x.transpose(2, 0, 1))
case("permute", 2, 0, 1, on=[C], equals=lambda x: x.transpose(2, 0, 1))
case("permute", (1, 0), on=[M], equals=np.transpose)
case("permute", -2, 0, -1, on=[C], equals=lambda x: x.transpose(1, 0, 2))
case("swapaxes", 0, -1, on=[V, M, C, EMPTY])
case("swapdims", dim0=0, dim1=1, on=[M, C], equals=lambda x: x.swapaxes(0, 1))
case("movedim", 0, -1, on=[V, M, C], equals=lambda x: np.moveaxis(x, 0, -1))
case("movedim", (0, 2), (1, 0), on=[C], equals=lambda x: np.moveaxis(x, (0, 2), (1, 0)))

case("broadcast_to", (2, 3), on=[NUMBER, ROW, COLUMN, M, (3,)])
case("broadcast_to", (0, 3), on=[ROW])
case("expand", 4, -1, 3, on=[COLUMN, M], equals=lambda x: np.broadcast_to(x, (4, 2, 3)))
case("expand", (2, 3), on=[NUMBER, ROW, COLUMN], equals=lambda x: np.broadcast_to(x, (2, 3)))
case("expand_as", on=[(ROW, M), (NUMBER, C)], equals=lambda x, y: np.broadcast_to(x, y.shape))
case("broadcast_tensors", on=[(ROW, COLUMN), (NUMBER, M), (V, (1, 1, 6), NUMBER)], equals=np.broadcast_arrays)
case("tile", (2,), on=[NUMBER, V, M])
case("tile", (2, 1, 3), on=[V, M, C, EMPTY])
case("tile", (0, 2), on=[M])
case("tile", 2, 2, on=[V, M], equals=lambda x: np.tile(x, (2, 2)))
case("repeat", 2, 1, 3, on=[NUMBER, V, M, C], equals=lambda x: np.tile(x, (2, 1, 3)))
case("repeat", (1, 1), on=[M], equals=lambda x: x)
case("repeat_interleave", 2, on=ALL, equals=lambda x: np.repeat(x, 2))
case("repeat_interleave", 3, dim=-1, on=[V, M, C, EMPTY], equals=lambda x: np.repeat(x, 3, -1))
case("repeat_interleave", [2, 0, 1], 1, on=[M, C], equals=lambda x: np.repeat(x, [2, 0, 1], 1))
case("repeat_interleave", tg.tensor([2, 0]), 0, on=[M, C, EMPTY], equals=lambda x: np.repeat(x, [2, 0], 0))

case("flip", on=ALL)
case("flip", 0, on=[V, M])
case("flip", dims=(0, -1), on=[M, C, EMPTY], equals=lambda x: np.flip(x, (0, -1)))
case("roll", 2, on=ALL)
case("roll", -1, 0, on=[V, M])
case("roll", (1, 5), dims=(0, 1), on=[M, C], equals=lambda x: np.roll(x, (1, 5), (0, 1)))
case("pad", (1, 2), on=[V, M, C, EMPTY], equals=lambda x: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 2)]))
case("pad", (1, 2, 3, 0), value=5, on=[M, (0, 3)],
     equals=lambda x: np.pad(x, ((3, 0), (1, 2)), constant_values=5))
case("pad", (-1, 2, 0, 1), on=[M], equals=lambda x: np.pad(x[:, 1:], ((0, 1), (0, 2))))
case("pad", (-9, 9), on=[V], equals=np.zeros_like)
case("pad", (9, -7), on=[V], equals=lambda x: np.zeros(8))
case("pad", (2, 0, 1, 1), "reflect", on=[M, (4, 5)], equals=lambda x: np.pad(x, ((1, 1), (2, 0)), "reflect"))
case("pad", (2, 0, 1, 1), "replicate", on=[M, (4, 5)], equals=lambda x: np.pad(x, ((1, 1), (2, 0)), "edge"))
case("pad", (2, 0, 1, 1), "circular", on=[M, (4, 5)], equals=lambda x: np.pad(x, ((1, 1), (2, 0)), "wrap"))
case("pad", (7, 8), "reflect", on=[(3,), (1,)], equals=lambda x: np.pad(x, (7, 8), "reflect"))
case("pad", (-1, 2), "replicate", on=[V], equals=lambda x: np.pad(x[1:], (0, 2), "edge"))

case("cat", on=[(M, ROW), (M,), (V, (0,), V)], equals=lambda *x: np.concatenate(x))
case("cat", dim=-1, on=[(M, COLUMN), (C, (2, 3, 0))], equals=lambda *x: np.concatenate(x, -1))
case("concatenate", 1, on=[(M, COLUMN)])
case("concat", on=[(M, M)])
case("stack", on=[(V, V), (M,), (NUMBER, NUMBER), (EMPTY, EMPTY)])
case("stack", 1, on=[(M, M, M)])
case("stack", dim=-1, on=[(M, M), (V, V)], equals=lambda *x: np.stack(x, -1))
case("hstack", on=[(V, V), (M, M), (NUMBER, NUMBER), (C, C)])
case("vstack", on=[(V, V), (M, M), (NUMBER, NUMBER), (C, C)])
case("dstack", on=[(V, V), (M, M), (NUMBER, NUMBER), (C, C)])
case("meshgrid", indexing="ij", on=[(V,), (V, (2,)), (V, (1,), (2,))])
case("meshgrid", indexing="xy", on=[(V,), (V, (2,)), (V, (1,), (2,))])

case("narrow", 1, 1, 2, on=[M, C], equals=lambda x: x[:, 1:3])
case("narrow", dim=0, start=-2, length=1, on=[V, M], equals=lambda x: x[-2:][:1])
case("split", 4, on=[V], equals=lambda x: [x[:4], x[4:]])
case("split", 2, 1, on=[EMPTY], equals=lambda x: [x])
case("split", [1, 0, 2], dim=1, on=[M], equals=lambda x: [x[:, :1], x[:, 1:1], x[:, 1:]])
case("tensor_split", 4, on=[V, M], equals=lambda x: np.array_split(x, 4))
case("tensor_split", (1, 2), 1, on=[M, C], equals=lambda x: np.array_split(x, [1, 2], 1))
case("chunk", 2, dim=1, on=[M, C], equals=lambda x: [x[:, :2], x[:, 2:]])
case("chunk", 4, on=[V], equals=lambda x: [x[:2], x[2:4], x[4:]])
case("unbind", on=[V, M, C, EMPTY], equals=list)
case("unbind", -1, on=[V, M, C], equals=lambda x: [x[..., k] for k in range(x.shape[-1])])


def several(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


def drawn(shapes):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape) for shape in shapes]


def test_the_table_covers_every_op():
    public = {name for name, op in tg.ops.TABLE.items() if op.__module__ == module.__name__}
    assert public == {case.id.partition("(")[0] for case in CASES}


@pytest.mark.parametrize("ours, theirs, shapes", CASES)
def test_values_and_gradients(ours, theirs, shapes):
    arrays = drawn(shapes)
    results, expected = several(ours(*map(tg.Tensor, arrays))), several(theirs(*arrays))
    assert len(results) == len(expected)
    for y, e in zip(results, expected):
        assert isinstance(y, tg.Tensor) and y.shape == np.shape(e)
        assert np.array_equal(y.numpy(), e)
    for k in range(len(results)):
        tg.check_grads(lambda *x: several(ours(*x))[k], arrays)


@pytest.mark.parametrize("ours, theirs, shapes", CASES)
def test_arrays_in_arrays_out(ours, theirs, shapes):
    for dtype in ("float32", "int64"):
        arrays = [x.astype(dtype) for x in drawn(shapes)]
        for y, e in zip(several(ours(*map(tg.backend.asarray, arrays))), several(theirs(*arrays))):
            assert not isinstance(y, tg.Tensor) and y.dtype == dtype
            assert np.array_equal(tg.backend.to_numpy(y), e)


VIEWS = [
    lambda x: x.reshape(3, 2), lambda x: x.view(-1), lambda x: x.flatten(), lambda x: x.ravel(),
    lambda x: x.T, lambda x: x.mT, lambda x: x.transpose(0, 1), lambda x: x.permute(1, 0),
    lambda x: x.swapaxes(0, 1), lambda x: x.movedim(0, 1), lambda x: x.unsqueeze(0),
    lambda x: x[None].squeeze(), lambda x: x.flip(0), lambda x: x.narrow(1, 1, 2), lambda x: x.split(1, 1)[0],
    lambda x: x.chunk(2)[1], lambda x: x.unbind()[1], lambda x: x.reshape_as(tg.zeros(6)),
    lambda x: x.view_as(tg.zeros(6)), lambda x: x.tensor_split(2)[0], lambda x: tg.atleast_2d(x),
    lambda x: x.expand(4, 2, 3),
]


@pytest.mark.parametrize("view", VIEWS)
def test_views_share_memory_and_the_count_of_writes(view):
    x = tg.Tensor(np.arange(6.0).reshape(2, 3))
    y = view(x)
    before = y.tolist()
    x += 10
    assert np.array_equal(y.numpy(), np.array(before) + 10)
    w = tg.tensor(2.0, requires_grad=True)
    z = (w * y).sum()                                   # the gradient of w needs the values of y
    with tg.no_grad():
        x.zero_()
    with pytest.raises(RuntimeError, match="written to"):
        z.backward()


def test_a_view_never_copies():
    x = tg.zeros(2, 3)
    with pytest.raises(ValueError, match="use reshape"):
        x.T.view(6)
    assert x.T.reshape(6).shape == (6,)


def test_a_gradient_passes_through_views_of_what_is_recorded():
    x = tg.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    (x.T.reshape(6).view(2, 3)[0] * 2).sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0, 0.0], [2.0, 0.0, 0.0]]


@pytest.mark.parametrize("move", [
    lambda x: x.reshape(6), lambda x: x.T, lambda x: x.flip(0), lambda x: x.tile(2, 2), lambda x: x.roll(1),
    lambda x: x.repeat_interleave(2), lambda x: x.pad((1, 1)),
])
def test_what_is_moved_is_not_kept(move):
    x = tg.ones(2, 3, requires_grad=True)
    y = x * 2
    alive = weakref.ref(y)
    result = move(y)
    del y
    assert alive() is None and result.requires_grad


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


@settings(max_examples=50, deadline=None)
@given(shapes, st.data())
def test_round_trips(shape, data):
    array = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    x = tg.Tensor(array, requires_grad=True)
    order = data.draw(st.permutations(range(len(shape))))
    back = [order.index(k) for k in range(len(shape))]
    shifts = data.draw(st.lists(st.integers(-4, 4), min_size=len(shape), max_size=len(shape)))
    axes = tuple(range(len(shape)))
    for there_and_back in (
        lambda x: x.permute(*order).permute(*back) if shape else x.permute(()),
        lambda x: x.reshape(-1).reshape(shape), lambda x: x.flip(axes).flip(axes),
        lambda x: x.unsqueeze(-1).squeeze(-1), lambda x: x.movedim(axes, back).movedim(back, axes),
        lambda x: x.roll(tuple(shifts), axes).roll(tuple(-k for k in shifts), axes) if shape else x.roll(3),
        lambda x: x.T.T, lambda x: x.pad([1] * 2 * len(shape), value=7).pad([-1] * 2 * len(shape)),
        lambda x: tg.stack(x.unbind()) if shape and shape[0] else x * 1,
        lambda x: tg.cat(x.split(2, -1), -1) if shape else x * 1,
    ):
        y = there_and_back(x)
        assert y.shape == shape and np.array_equal(y.numpy(), array)
        w = array + 1
        assert np.array_equal(tg.grad(y, x, w)[0].numpy(), w)


@settings(max_examples=50, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3))
def test_broadcasting(shapes):
    (a, b), whole = shapes
    x, y = (tg.Tensor(v, requires_grad=True) for v in drawn((a, b)))
    p, q = tg.broadcast_tensors(x, y)
    assert p.shape == q.shape == whole
    w, = drawn((whole,))
    for of, product in ((x, tg.grad((x * y), x, w)[0]), (y, tg.grad((p * q), y, w)[0])):
        other = (y if of is x else x).numpy()
        assert np.allclose(product.numpy(), tg.sum_to(tg.Tensor(w * other), of.shape).numpy())


ERRORS = [
    (lambda x: x.reshape(4), ValueError, "cannot reshape"),
    (lambda x: x.flatten(1, 0), ValueError, "start_dim must not lie behind end_dim; got 1 and 0"),
    (lambda x: x.squeeze(0), ValueError, "axis 0 of shape .2, 3. is longer"),
    (lambda x: x.unsqueeze(4), ValueError, "axis 4 is out of bounds"),
    (lambda x: x.transpose(0, 2), ValueError, "axis 2 is out of bounds"),
    (lambda x: x.permute(0), ValueError, "axes don't match"),
    (lambda x: x.movedim((0, 1), 0), ValueError, "as many sources as destinations"),
    (lambda x: x.expand(3), ValueError, "a size for each of the 2 axes"),
    (lambda x: x.expand(2, 4), ValueError, "broadcast"),
    (lambda x: tg.broadcast_tensors(x, x.T), ValueError, "broadcast"),
    (lambda x: x.repeat(2), ValueError, "a count for each of the 2 axes"),
    (lambda x: x.repeat_interleave([1, 2], 1), ValueError,
     "one count for each of the 3 slices along axis 1; got 2"),
    (lambda x: x.repeat_interleave(-1), ValueError, "negative"),
    (lambda x: x.pad((1,)), ValueError, "pad holds two counts an axis"),
    (lambda x: x.pad(1), ValueError, "pad holds two counts an axis"),
    (lambda x: x.pad((1, 1) * 3), ValueError, "at most 2 axes"),
    (lambda x: x.pad((-2, -2)), ValueError, "takes away more than there is"),
    (lambda x: x.pad((1, 1), "mirror"), ValueError,
     "mode must be 'constant', 'replicate', 'reflect', 'circular'; got 'mirror'"),
    (lambda x: x[:0].pad((1, 1), "circular"), ValueError, "has none"),
    (lambda x: tg.pad(tg.tensor([1]), (1, 1), value=0.5), TypeError,
     "cannot write float64 into a Tensor of int64"),
    (lambda x: tg.cat([]), ValueError, "at least one Tensor"),
    (lambda x: tg.cat([x, x[0]]), ValueError, "equally many axes; got shapes"),
    (lambda x: tg.cat([x, x.T]), ValueError, "dimension|shape"),
    (lambda x: tg.stack([x, x.T]), ValueError, "shape"),
    (lambda x: tg.meshgrid(x[0], indexing="yx"), ValueError, "indexing must be 'ij' or 'xy', got 'yx'"),
    (lambda x: x.narrow(1, 2, 2), ValueError, "start=2 and length=2 do not lie within axis 1 of length 3"),
    (lambda x: x.split(0), ValueError, "at least 1, got 0"),
    (lambda x: x.split([1, 1], 1), ValueError, "must add up to 3, the length of axis 1"),
    (lambda x: x.tensor_split(0), ValueError, "at least 1, got 0"),
    (lambda x: x.chunk(0), ValueError, "at least 1, got 0"),
    (lambda x: x.unbind(2), ValueError, "axis 2 is out of bounds"),
    (lambda x: x.swapaxes(0, 1, dim1=1), TypeError, "axis1"),
    (lambda x: x.flip(axis=0, dims=0), TypeError, "two names of one argument"),
]


@pytest.mark.parametrize("call, error, message", ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(tg.ones(2, 3))


def test_what_torch_says():
    torch = pytest.importorskip("torch")
    array = np.arange(24.0).reshape(2, 3, 4)
    ours, theirs = tg.Tensor(array), torch.tensor(array)
    for call in (
        lambda m, x: x.flatten(1), lambda m, x: x.transpose(0, 2), lambda m, x: x.permute(2, 0, 1),
        lambda m, x: x.repeat(2, 1, 1, 2), lambda m, x: x.expand(5, -1, -1, 4),
        lambda m, x: x.repeat_interleave(2, dim=1), lambda m, x: m.tile(x, (2,)),
        lambda m, x: m.flip(x, dims=(0, 2)), lambda m, x: x.roll(1, dims=1), lambda m, x: x.roll(2),
        lambda m, x: x.movedim(0, 2), lambda m, x: x.split(2, dim=2)[1], lambda m, x: x.chunk(3, dim=2)[1],
        lambda m, x: m.tensor_split(x, 3, dim=2)[2],
        lambda m, x: m.meshgrid(x[0, 0], x[1, :, 0], indexing="ij")[1],
        lambda m, x: m.hstack([x[0, 0], x[1, 1]]), lambda m, x: m.dstack([x[0], x[1]]),
        lambda m, x: m.vstack([x[0, 0], x[1, 1]]), lambda m, x: x.narrow(2, 1, 2),
        lambda m, x: x.swapdims(0, 1), lambda m, x: x.unbind(1)[2], lambda m, x: m.atleast_2d(x[0, 0]),
    ):
        assert np.array_equal(call(tg, ours).numpy(), call(torch, theirs).numpy())
    pad = torch.nn.functional.pad
    for counts, mode in (((1, 2), "constant"), ((2, 1, 1, 0), "reflect"), ((2, 1), "replicate"),
                         ((3, 1, 0, 2), "circular")):
        assert np.array_equal(tg.pad(ours, counts, mode).numpy(), pad(theirs, counts, mode).numpy())
