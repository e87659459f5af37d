"""Writing into a Tensor: what shares memory, what goes on the tape, and what the tape notices."""

import operator

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.backend import xp

ON_HOST = tg.backend.name != "cupy"


def leaf(*numbers):
    return tg.tensor(list(numbers), requires_grad=True)


# ---- writing in place -------------------------------------------------------------------------------------

IN_PLACE = {"+=": operator.iadd, "-=": operator.isub, "*=": operator.imul, "/=": operator.itruediv,
            "//=": operator.ifloordiv, "%=": operator.imod, "**=": operator.ipow}


@pytest.mark.parametrize("sign", IN_PLACE)
def test_in_place_operators_write_into_memory(sign):
    x = tg.tensor([3.0, 5.0])
    view, memory, wanted = x[:1], x.data, IN_PLACE[sign](np.array([3, 5], "float32"), 2)
    y = IN_PLACE[sign](x, 2)
    assert y is x and x.data is memory and x.tolist() == wanted.tolist() and view.tolist() == wanted[:1].tolist()
    x = IN_PLACE[sign](x, np.ones(2))
    assert x.dtype == "float32" and x.data is memory


def test_in_place_matmul_and_logic():
    x = tg.eye(2)
    x @= tg.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert x.tolist() == [[0, 1], [1, 0]]
    mask = tg.tensor([True, False])
    mask |= tg.tensor([False, False])
    mask &= True
    mask ^= tg.tensor([True, True])
    assert mask.tolist() == [False, True] and mask.dtype == "bool"


def test_in_place_operators_rebind_where_gradients_are_recorded():
    w = leaf(2.0)
    x = total = tg.zeros(1)
    x += w
    assert x is not total and total.tolist() == [0] and x.requires_grad
    x *= w
    x.sum().backward()
    assert w.grad.tolist() == [4]


def test_a_leaf_is_not_written_to_while_recording():
    w = leaf(2.0)
    writes = [lambda: w.add_(1), lambda: w.zero_(), lambda: w.fill_(1), lambda: w.copy_(np.ones(1)),
              lambda: w.clamp_(0), lambda: w.__setitem__(0, 1.0), *(lambda op=op: op(w, 1) for op in IN_PLACE.values())]
    for write in writes:
        with pytest.raises(RuntimeError, match=r"with tg.no_grad\(\):`, or write to its .data"):
            write()
    assert w.tolist() == [2]
    with tg.no_grad():
        for write in writes:
            write()
    assert w.is_leaf and w.requires_grad


def test_in_place_methods():
    x = tg.tensor([1.0, 4.0])
    memory = x.data
    assert x.add_(1) is x and x.sub_(1).mul_(4).div_(2).sqrt_() is x and x.data is memory
    np.testing.assert_allclose(x.numpy(), np.sqrt([2, 8]), rtol=1e-6)
    assert x.clamp_(0, 2).pow_(2).neg_().abs_().tolist() == pytest.approx([2, 4])
    assert x.copy_([5.0, 6.0]).tolist() == [5, 6] and x.zero_().tolist() == [0, 0] and x.fill_(7).tolist() == [7, 7]
    assert x.copy_(tg.tensor([1, 2])).dtype == "float32" and x.data is memory
    assert tg.ones(2).addcmul_(x, x, value=2).tolist() == [3, 9]
    with pytest.raises(ValueError, match=r"copy_ needs the shape \(2,\), got \(3,\)"):
        x.copy_(np.ones(3, "float32"))


def test_in_place_methods_refuse_where_gradients_are_recorded():
    w = leaf(2.0)
    x, y = tg.zeros(1), w * 1
    for call in (lambda: x.add_(w), lambda: x.add_(b=w), lambda: y.mul_(2), lambda: y.exp_()):
        with pytest.raises(RuntimeError, match=r"cannot write in place where gradients are recorded; use x = x\."):
            call()
    assert x.tolist() == [0] and y.tolist() == [2]


def test_filling_what_is_on_the_tape_cuts_the_gradient():
    w = leaf(2.0)
    for fill in (lambda y: y.zero_(), lambda y: y.fill_(3), lambda y: y.copy_(np.ones(1))):
        y = w * 2
        assert fill(y) is y
        assert tg.grad(y.sum(), w)[0].tolist() == [0]
    y = (w * 2).copy_(w * w)
    assert y.tolist() == [4] and tg.grad(y.sum(), w)[0].tolist() == [4]


def test_what_does_not_fit_is_not_written():
    x, n, mask = tg.zeros(2), tg.tensor([1, 2]), tg.tensor([True, False])
    with pytest.raises(ValueError, match=r"shape \(3, 2\) into a Tensor of shape \(2,\)"):
        x += tg.ones(3, 2)
    with pytest.raises(ValueError):
        x[:] = np.ones(3, "float32")
    for write in (lambda: n.add_(0.5), lambda: n.__setitem__(0, 1.5), lambda: n.__itruediv__(2), lambda: mask.fill_(1),
                  lambda: n.__setitem__(0, np.float32(1)), lambda: n.__setitem__(0, tg.tensor(1.0))):
        with pytest.raises(TypeError, match=r"cannot write .* into a Tensor of .*\.astype\(\)"):
            write()
    assert (x.tolist(), n.tolist(), mask.tolist()) == ([0, 0], [1, 2], [True, False])


def test_python_numbers_take_on_the_dtype():
    pixels = tg.tensor(np.zeros(2, "uint8"))
    pixels[0] = 255
    pixels += 0
    assert pixels.tolist() == [255, 0] and pixels.dtype == "uint8"
    half = tg.tensor(np.zeros(2, "float16"))
    half.fill_(0.5)
    assert half.dtype == "float16" and half.tolist() == [0.5, 0.5]
    mask = tg.tensor([True, True])
    mask[1] = False
    assert mask.tolist() == [True, False]
    if ON_HOST:
        with pytest.raises(OverflowError):
            pixels[0] = 300


# ---- x[place] = value -------------------------------------------------------------------------------------

PLACES = [0, -1, slice(1, None), slice(None, None, -1), ..., (0, 1), (slice(None), 0), [0, 0], ([0, 1], [1, 1]),
          (None, 0), np.array([True, False]), np.array([[True, False], [False, True]]), (slice(None), np.array([1, 0]))]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("value", [7.0, "array"])
def test_setitem_is_that_of_numpy(place, value):
    wanted = np.array([[1, 2], [3, 4]], "float32")
    if value == "array":
        value = np.arange(10, 10 + wanted[place].size, dtype="float32").reshape(wanted[place].shape)
    x = tg.tensor(wanted)
    memory = x.data
    wanted[place] = value
    x[place] = value
    assert x.tolist() == wanted.tolist() and x.data is memory
    y = tg.zeros(2, 2)
    y[place] = tg.tensor(wanted)[place]
    assert y.data is not memory


def test_setitem_with_tensors_as_index():
    x = tg.zeros(3)
    x[tg.tensor([0, 2])] = tg.tensor([1.0, 2.0])
    x[x == 0] = 5.0
    x[tg.tensor(0)] += 10
    assert x.tolist() == [11, 5, 2]


def test_setitem_moves_overlapping_parts():
    x = tg.arange(5)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_setitem_is_recorded(place):
    def written(x, value):
        y = x * 2
        y[place] = value
        return y * y
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    tg.check_grads(written, [x, np.ones(x[place].shape)])
    tg.check_grads(written, [x, np.ones(())])


def test_setitem_into_a_plain_tensor_puts_it_on_the_tape():
    w, x = leaf(2.0), tg.zeros(3)
    older = x[:]
    x[1] = w[0] * 3
    x[2] += w[0]
    assert x.tolist() == [0, 6, 2] and x.requires_grad and older.tolist() == [0, 0, 0]
    (x * tg.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert w.grad.tolist() == [130]


def test_setitem_under_no_grad_writes_into_memory():
    w = leaf(2.0, 3.0)
    memory = w.data
    with tg.no_grad():
        w[0] = 5.0
    assert w.data is memory and w.tolist() == [5, 3] and w.is_leaf


def test_writing_into_a_part_of_what_is_recorded_is_refused():
    y = tg.ones(2, 2, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match=r"with one index, x\[i, j\] = value, or into a .clone"):
        y[0][1] = 5.0
    y[0, 1] = 5.0
    row = y[0].clone()
    row[0] = 1.0
    assert y.tolist() == [[2, 5], [2, 2]] and row.tolist() == [1, 5]
    flat = y.reshape(4)
    flat[3] = 0.0
    assert flat.tolist() == [2, 5, 2, 0]


def test_views_alias():
    x = tg.arange(6).reshape(2, 3)
    views = [x[0], x.T, x.reshape(6), x[:, ::2], x.detach(), x[None], x.view(3, 2), x.unsqueeze(0), x.flatten()]
    for view in views:
        assert xp.may_share_memory(view.data, x.data)
    x[0, 0] = 100
    assert all(100 in view for view in views)
    views[1][2, 1] = -1
    assert x[1, 2].item() == -1


# ---- the tape notices -------------------------------------------------------------------------------------

WRITES = {
    "operator": lambda x: operator.iadd(x, 1), "method": lambda x: x.mul_(2), "fill": lambda x: x.fill_(3),
    "setitem": lambda x: x.__setitem__(0, 9.0), "data": lambda x: setattr(x, "data", x.data * 2),
    "view": lambda x: x[:1].add_(1), "view of a view": lambda x: x[:][:1].add_(1), "T": lambda x: x.T.add_(1),
    "reshaped": lambda x: x.reshape(-1, 1).zero_(), "detached": lambda x: x.detach().add_(1),
    "out": lambda x: np.add(x, 1, out=x), "at": lambda x: np.add.at(x, 0, 1), "copyto": lambda x: np.copyto(x, 1.0),
    "put": lambda x: np.put(x, [0], [1.0]),
}


def write(name, x):
    if name in ("at", "put") and not ON_HOST:
        pytest.skip("CuPy has no such function")
    with tg.no_grad():
        WRITES[name](x)


@pytest.mark.parametrize("name", WRITES)
def test_writing_into_what_the_tape_needs_is_noticed(name):
    x, w = tg.tensor([1.0, 2.0]), leaf(3.0, 4.0)
    y = (x * w).sum()
    write(name, x)
    with pytest.raises(RuntimeError, match=r"the gradient of mul needs \(result of shape \(2,\)\) was written to"):
        y.backward()


@pytest.mark.parametrize("name", WRITES)
def test_writing_into_a_needed_result_is_noticed(name):
    w = leaf(3.0, 4.0)
    h = w.exp()
    y = h.sum()
    write(name, h)
    with pytest.raises(RuntimeError, match="the gradient of exp needs"):
        y.backward()


@pytest.mark.parametrize("name", WRITES)
def test_writing_into_what_the_tape_does_not_need_is_fine(name):
    x, w = tg.tensor([1.0, 2.0]), leaf(3.0, 4.0)
    h = w * 5
    y = tg.relu(h + x).sum()
    write(name, x)
    write(name, h)
    y.backward()
    assert w.grad.tolist() == [5, 5]


def test_a_view_made_before_or_after_counts_alike():
    x, w = tg.tensor([1.0, 2.0]), leaf(3.0, 4.0)
    row = x[:1]
    y = (x * w).sum()
    row += 1
    with pytest.raises(RuntimeError, match="written to"):
        y.backward()
    y = (row * w[:1]).sum()
    x.zero_()
    with pytest.raises(RuntimeError, match="written to"):
        y.backward()


def test_the_tape_notices_a_write_between_two_orders():
    w = leaf(3.0)
    h = w.exp()
    slope, = tg.grad(h.sum(), w, create_graph=True)
    with tg.no_grad():
        h.zero_()
    with pytest.raises(RuntimeError, match="written to"):
        slope.sum().backward()


def test_an_index_is_remembered_as_it_was():
    w, place, mask = leaf(1.0, 2.0, 3.0), tg.tensor([0, 2]), tg.tensor([True, False, True])
    y = w[place].sum() + w[mask].sum()
    place[0] = 1
    mask[0] = False
    y.backward()
    assert w.grad.tolist() == [2, 0, 2]


def test_an_update_after_backward_is_fine():
    w = leaf(3.0)
    for _ in range(3):
        (w * w).sum().backward()
        with tg.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
    np.testing.assert_allclose(w.numpy(), [3 * 0.8 ** 3], rtol=1e-6)
