"""The walk over the tape: right at every order, over every shape of graph, and without side effects."""

import copy
import gc
import math
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinygrad_opt as tg

random = np.random.default_rng(0)


def leaf(*numbers, dtype=None):
    return tg.tensor(list(numbers), requires_grad=True, dtype=dtype)


def scalar(number):
    return tg.tensor(number, requires_grad=True, dtype="float64")


# ---- closed forms -----------------------------------------------------------------------------------------

CLOSED = {
    "x ** 3": (lambda x: x ** 3, [lambda x: 3 * x ** 2, lambda x: 6 * x, lambda x: 6.0]),
    "x * x * x": (lambda x: x * x * x, [lambda x: 3 * x ** 2, lambda x: 6 * x, lambda x: 6.0]),
    "1 / x": (lambda x: 1 / x, [lambda x: -x ** -2, lambda x: 2 * x ** -3, lambda x: -6 * x ** -4]),
    "sin": (tg.sin, [math.cos, lambda x: -math.sin(x), lambda x: -math.cos(x)]),
    "exp(2 x)": (lambda x: tg.exp(2 * x), [lambda x: 2 * math.exp(2 * x), lambda x: 4 * math.exp(2 * x),
                                          lambda x: 8 * math.exp(2 * x)]),
    "log": (tg.log, [lambda x: 1 / x, lambda x: -x ** -2, lambda x: 2 * x ** -3]),
    "sqrt": (tg.sqrt, [lambda x: x ** -0.5 / 2, lambda x: -x ** -1.5 / 4, lambda x: 3 * x ** -2.5 / 8]),
    "tanh": (tg.tanh, [lambda x: 1 - math.tanh(x) ** 2, lambda x: -2 * math.tanh(x) * (1 - math.tanh(x) ** 2),
                       lambda x: (6 * math.tanh(x) ** 2 - 2) * (1 - math.tanh(x) ** 2)]),
    "x ** x": (lambda x: x ** x, [lambda x: x ** x * (1 + math.log(x)),
                                  lambda x: x ** x * ((1 + math.log(x)) ** 2 + 1 / x),
                                  lambda x: x ** x * ((1 + math.log(x)) ** 3 + 3 * (1 + math.log(x)) / x - x ** -2)]),
}


@pytest.mark.parametrize("name", CLOSED)
def test_three_orders_against_closed_forms(name):
    f, derivatives = CLOSED[name]
    x = scalar(0.7)
    y = f(x)
    for order, wanted in enumerate(derivatives):
        y, = tg.grad(y, x, create_graph=order < 2)
        assert y.item() == pytest.approx(wanted(0.7), rel=1e-12)


def test_backward_of_backward():
    x = scalar(3.0)
    (x ** 3).backward(create_graph=True)
    assert x.grad.item() == 27 and x.grad.requires_grad
    first, x.grad = x.grad, None
    first.backward()
    assert x.grad.item() == 18 and first.item() == 27 and not x.grad.requires_grad


def test_gradients_through_a_step_of_gradient_descent():
    w, lr = scalar(2.0), scalar(0.1)
    slope, = tg.grad(w ** 2, w, create_graph=True)
    ((w - lr * slope) ** 2).backward()                  # (w - 2 lr w)^2
    assert w.grad.item() == pytest.approx(2 * 2 * (1 - 0.2) ** 2) and lr.grad.item() == pytest.approx(-4 * 4 * 0.8)


@pytest.mark.parametrize("a, b", [((), (3,)), ((2, 1), (1, 3)), ((3,), (2, 3)), ((1,), (2, 3)), ((1, 1), ()),
                                  ((0, 1), (3,)), ((2, 1, 3), (4, 1))])
def test_broadcasting(a, b):
    x, y = np.full(a, 2.0), np.full(b, 3.0)
    tg.check_grads(lambda x, y: x * y + x / y - tg.maximum(x, y) ** 2, [x, y])
    u, v = tg.tensor(x, True), tg.tensor(y, True)
    (u * v).sum().backward()
    size = np.broadcast(x, y).size
    assert (u.grad.shape, v.grad.shape) == (a, b)
    assert u.grad.sum().item() == 3 * size and v.grad.sum().item() == 2 * size


# ---- shapes of graphs -------------------------------------------------------------------------------------


def test_shared_subexpressions():
    x = scalar(3.0)
    a = x * 2
    (a + a).backward()
    assert x.grad.item() == 4
    x.grad, b = None, x * x
    c, d = b + 1, b * 3
    (c * d * b).backward()                              # diamond: (x^2 + 1) 3 x^2 x^2
    assert x.grad.item() == 18 * 3 ** 5 + 12 * 3 ** 3
    x.grad = None
    (x + x * x + x).backward()
    assert x.grad.item() == 8


def test_sixty_doublings():
    x = y = scalar(1.0)
    for _ in range(60):
        y = y + y
    y.backward(create_graph=True)
    assert x.grad.item() == 2.0 ** 60
    x = y = scalar(0.5)
    for _ in range(60):
        y = (y * y + y * y) / (y + y)
    assert tg.grad(y, x)[0].item() == 1


def test_a_chain_of_ten_thousand():
    x = y = leaf(1.0, 2.0)
    for _ in range(10_000):
        y = y + 0.5
    y.sum().backward(create_graph=True)
    assert x.grad.tolist() == [1, 1] and y.tolist() == [5001, 5002]
    z = x
    for _ in range(5_000):
        z = (z * 1.0).detach() * 0 + z * 1.0
    slope, = tg.grad((z * z).sum(), x, create_graph=True)
    slope.sum().backward()
    assert x.grad.tolist() == [3, 3]
    del y, z, slope


def test_a_chain_of_two_hundred_thousand_dies_quietly():
    x = y = tg.tensor(1.0, requires_grad=True)
    for _ in range(200_000):
        y = -y
    first = weakref.ref(x)
    del x, y
    assert first() is None
    x = y = tg.tensor(1.0, requires_grad=True)
    for _ in range(100_000):
        y = -y
    y.backward()
    assert x.grad.item() == 1


def test_a_root_inside_the_graph_of_another():
    x = scalar(3.0)
    a = x * x
    b = a * 2
    grads = tg.grad([a, b], [x, a], [1.0, 10.0], retain_graph=True)
    assert [g.item() for g in grads] == [126, 21]
    assert tg.grad([a, a], x, [1.0, 2.0], retain_graph=True)[0].item() == 18
    assert tg.grad([b, x], x, [1.0, 5.0])[0].item() == 17


def test_zero_size():
    for shape in ((0,), (0, 3), (2, 0)):
        x = tg.zeros(*shape, requires_grad=True)
        ((x * 2 + 1).exp() @ tg.ones(shape[-1], 4)).sum().backward() if len(shape) > 1 else (x * 2).sum().backward()
        assert x.grad.shape == shape
        (x * x).sum().backward()
        assert tg.grad(x.sum(), x)[0].shape == shape
        tg.check_grads(lambda x: (x * x).exp(), np.zeros(shape))


# ---- memory -----------------------------------------------------------------------------------------------


def steps():
    w, b = tg.ones(3, 4, requires_grad=True), tg.zeros(4, requires_grad=True)
    x = tg.ones(5, 3)
    for _ in range(3):
        h = tg.relu(x @ w + b)
        h.retain_grad()
        loss = (h[:, 1:] * h[:, :-1]).mean() + w.norm() + tg.cat([b, b]).sum() + tg.linear(x, w.T).sum()
        loss.register_hook(lambda g: g)
        loss.backward()
        slope, = tg.grad((w ** 2).sum() * b.sum(), w, create_graph=True)
        tg.grad(slope.sum(), b)
        tg.hvp(lambda w: (x @ w).exp().sum(), w, w.detach())
        w.grad = None
    unused = (w * b).sum()
    return [weakref.ref(thing) for y in (h, unused, w, slope) for thing in (y, y.data)]


def test_memory_returns_without_the_collector():
    steps()
    gc.collect()
    gc.disable()
    try:
        gone = steps()
        assert [r() for r in gone] == [None] * len(gone)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_values_that_no_gradient_needs_are_freed_at_once():
    w = tg.ones(4, requires_grad=True)
    h = w + 1
    gone, needed = weakref.ref(h.data), h.exp()
    y = tg.relu(-h).sum() + needed.sum()
    kept = weakref.ref(needed.data)
    del h, needed
    assert gone() is None and kept() is not None
    y.backward()
    assert kept() is None and w.grad.tolist() == pytest.approx([math.exp(2)] * 4)


def test_the_graph_is_freed_by_backward():
    w, x = tg.ones(4, requires_grad=True), tg.ones(4)
    kept = weakref.ref(x.data)
    y = (w * x).sum()
    del x
    assert kept() is not None
    y.backward()
    assert kept() is None and y.item() == 4


# ---- gradients belong to their leaf -----------------------------------------------------------------------


@pytest.mark.parametrize("create_graph", [False, True])
def test_two_leaves_never_share_a_gradient(create_graph):
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    seed = tg.ones(2)
    (a + b).backward(seed, create_graph=create_graph)
    with tg.no_grad():
        a.grad.mul_(10)
    assert (a.grad.tolist(), b.grad.tolist(), seed.tolist()) == ([10, 10], [1, 1], [1, 1])
    a.grad = b.grad = None
    (a + b).sum().backward(create_graph=create_graph)
    a.grad.data[:] = 7
    assert b.grad.tolist() == [1, 1]
    for x, y in [(a, b), (a, a), (a + 0, b)]:
        first, second = tg.grad(x + y, [x, y], seed, create_graph=create_graph)
        with tg.no_grad():
            first.zero_()
        assert seed.tolist() == [1, 1] and second.tolist() == ([2, 2] if x is y else [1, 1])


def test_gradients_accumulate():
    w = leaf(1.0, 2.0)
    for k in range(1, 4):
        (w * w).sum().backward()
        assert w.grad.tolist() == [2 * k, 4 * k]
    w.grad = None
    for _ in range(3):
        (w * 3).sum().backward()
    assert w.grad.tolist() == [9, 9]
    (w * w).sum().backward(create_graph=True)
    assert w.grad.tolist() == [11, 13] and w.grad.requires_grad


LOOKS = {
    "itself": lambda p: p.grad, "a view": lambda p: p.grad[:1], "its data": lambda p: p.grad.data,
    "a detached one": lambda p: p.grad.detach(), "NumPy": lambda p: p.grad.numpy(), "transposed": lambda p: p.grad.T,
    "a copy": lambda p: copy.copy(p).grad,
    "assigned to another": lambda p: give(p.grad, tg.zeros(2, requires_grad=True)),
}


def give(g, q):
    q.grad = g
    return q.grad


@pytest.mark.parametrize("clear", ["none", "accumulate", "again"])
@pytest.mark.parametrize("look", LOOKS)
def test_a_gradient_that_somebody_holds_is_never_overwritten(look, clear):
    p = leaf(1.0, 2.0)
    (p * p).sum().backward()
    held = LOOKS[look](p)
    before = held.tolist()
    for k in range(3):
        if clear != "accumulate":
            p.grad = None
        (p * (k + 5)).sum().backward()
        if clear == "again":
            seen = p.grad.tolist()
            assert seen == [k + 5, k + 5]
    assert held.tolist() == before


def test_what_a_hook_keeps_is_never_overwritten():
    p, kept = leaf(1.0, 2.0), []
    p.register_hook(kept.append)
    h = p * 2
    h.register_hook(kept.append)
    for k in range(3):
        p.grad = None
        ((p * 2 if k else h) * (k + 1)).sum().backward()
    assert [g.tolist() for g in kept] == [[1, 1], [2, 2], [4, 4], [6, 6]]
    kept[-1].zero_()
    assert p.grad.tolist() == [6, 6]


def test_the_buffer_is_used_again_where_nobody_looks():
    p = tg.ones(1000, requires_grad=True)
    places = set()
    for _ in range(5):
        (p * 2).sum().backward()
        places.add(id(p._grad._data))
        p.grad = None
    assert len(places) == 1


def test_the_order_of_summation_does_not_write_into_foreign_arrays():
    x = leaf(1.0, 2.0)
    seed = tg.tensor([1.0, 1.0])
    h = x * 1
    (h + h + h).backward(seed, retain_graph=True)
    (h + h + x).backward(seed)
    assert seed.tolist() == [1, 1] and x.grad.tolist() == [6, 6]


# ---- backward: what it asks for ---------------------------------------------------------------------------


def test_a_graph_is_used_once():
    x = leaf(1.0, 2.0)
    h = x * x
    y = h.sum()
    y.backward()
    for again in (y.backward, (h * x).sum().backward, lambda: tg.grad(y, x), lambda: tg.grad((h * x).sum(), x),
                  lambda: tg.grad(y, x, allow_unused=True), lambda: tg.grad((h * x).sum(), [h, x])):
        with pytest.raises(RuntimeError, match="used by an earlier backward and freed; pass retain_graph=True to that"):
            again()


def test_below_an_input_a_graph_may_be_freed():
    x = leaf(1.0, 2.0)
    h = x * x
    h.sum().backward()
    assert tg.grad((h * h).sum(), h)[0].tolist() == [2, 8]
    assert tg.grad(h, h, tg.ones(2))[0].tolist() == [1, 1]


def test_retain_graph():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    assert tg.grad(y, x, retain_graph=True)[0].tolist() == [2, 4]
    y.backward()
    assert x.grad.tolist() == [6, 12]
    y = (x * x).sum()
    y.backward(create_graph=True, retain_graph=False)
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_the_gradient_argument():
    x = leaf(1.0, 2.0)
    for seed in ([3.0, 4.0], np.array([3.0, 4.0]), tg.tensor([3.0, 4.0]), tg.tensor([3, 4]), np.array([3, 4], "int8")):
        x.grad = None
        (x * x).backward(seed)
        assert x.grad.tolist() == [6, 16] and x.grad.dtype == "float32"
    (x * x).backward(gradient=tg.ones(2, dtype=tg.float64), create_graph=True)
    assert x.grad.dtype == "float32"
    x.sum().backward(2.0)
    for wrong in (1.0, [1.0], np.ones((1, 2)), tg.ones(2, 1)):
        with pytest.raises(RuntimeError, match=r"gradient= must have the shape of the Tensor, \(2,\); got \("):
            (x * x).backward(wrong)
    with pytest.raises(RuntimeError, match=r"must have the shape of the Tensor, \(\)"):
        x.sum().backward([1.0])


def test_where_backward_may_start():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"starts from a scalar, this Tensor has shape \(2,\); reduce it first"):
        (x * x).backward()
    (x[:1] * x[1:]).backward()                          # one element will do
    assert x.grad.tolist() == [2, 1]
    with tg.no_grad():
        silent = (x * x).sum()
    for none in (silent, tg.ones(1), x.detach().sum(), (x > 0).any(), x.argmax()):
        with pytest.raises(RuntimeError, match="depends on one with requires_grad=True; this one does not"):
            none.backward()
    y = scalar(2.0)
    y.backward()
    y.backward()
    assert y.grad.item() == 2


def test_backward_under_no_grad():
    x = scalar(3.0)
    y, z = x ** 2, x ** 3
    with tg.no_grad():
        y.backward()
        z.backward(create_graph=True)
    assert x.grad.item() == 33
    assert tg.grad(x.grad, x)[0].item() == 18
    with tg.no_grad():
        second, = tg.grad(*tg.grad(enabled_cube(x), x, create_graph=True), x)
    assert second.item() == 18


@tg.enable_grad()
def enabled_cube(x):
    return x ** 3


# ---- tg.grad ----------------------------------------------------------------------------------------------


def test_grad_touches_no_grad():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    w.grad = np.ones(2, "float32")
    h = x * w
    h.retain_grad()
    tg.grad(h.sum(), x)
    assert x.grad is None and w.grad.tolist() == [1, 1]


def test_grad_of_intermediates():
    x = scalar(2.0)
    h = x * 3
    k = h * h
    y = k + h
    gh, gx, gk, gy = tg.grad(y, [h, x, k, y])
    assert [g.item() for g in (gh, gx, gk, gy)] == [13, 39, 1, 1]


def test_grad_of_an_intermediate_alone():
    x = scalar(2.0)
    h = x * 3
    y = h * h
    assert tg.grad(y, h, retain_graph=True)[0].item() == 12
    assert tg.grad(y, y, retain_graph=True)[0].item() == 1
    assert tg.grad(y, h, create_graph=True)[0].requires_grad


def test_grad_of_what_is_not_used():
    x, w = scalar(2.0), scalar(3.0)
    y = x * x
    with pytest.raises(RuntimeError, match=r"input 1 of grad\(\) was not used.*allow_unused=True"):
        tg.grad(y, [x, w], retain_graph=True)
    g, none = tg.grad(y, [x, w], allow_unused=True)
    assert g.item() == 4 and none is None
    with pytest.raises(RuntimeError, match=r"input 1 of grad\(\) does not require a gradient"):
        tg.grad(x * x, [x, tg.tensor(1.0)])
    with pytest.raises(RuntimeError, match="without create_graph=True"):
        tg.grad(*tg.grad(x * x, x), x)
    assert tg.grad(tg.tensor(1.0), x, allow_unused=True) == (None,)


def test_inputs_and_outputs_of_grad():
    x, w = scalar(2.0), scalar(3.0)
    assert [g.item() for g in tg.grad(x * x * w, [x, x, w])] == [12, 12, 4]
    assert [g.item() for g in tg.grad([x * w, x + w], (x, w))] == [4, 3]
    assert tg.grad([x * w, w.detach()], x, [2.0, 1.0])[0].item() == 6
    assert tg.grad(x, x, 5.0)[0].item() == 5
    u = leaf(1.0, 2.0)
    assert tg.grad([u * u, u.sum()], u, [np.array([1.0, 10.0]), None])[0].tolist() == [3, 41]
    with pytest.raises(ValueError, match="one cotangent an output: 2, got 1"):
        tg.grad([x * w, x], x, [1.0])
    with pytest.raises(RuntimeError, match="must have the shape"):
        tg.grad([u * u], u, [np.ones(3)])
    for wrong in (1.0, [x, 1.0], np.ones(2)):
        with pytest.raises(TypeError, match="inputs must be a Tensor, or a list or tuple of Tensors; got"):
            tg.grad(x * w, wrong)
        with pytest.raises(TypeError, match="outputs must be a Tensor"):
            tg.grad(wrong, x)


def test_grad_does_no_unrelated_work():
    calls = []

    @tg.primitive(lambda g, y, x: calls.append(1) or g)
    def loud(x):
        return x * 1
    x, w = scalar(2.0), scalar(3.0)
    h = x * 2
    assert tg.grad(loud(w) * h, x)[0].item() == 6 and calls == []
    h = loud(x)
    assert tg.grad(h * h, h)[0].item() == 4 and calls == []
    assert tg.grad(loud(x) * loud(w), x)[0].item() == 3 and calls == [1]
    (loud(x) * w.detach()).backward()
    assert calls == [1, 1]


# ---- recording or not -------------------------------------------------------------------------------------


def test_modes_nest_and_end():
    x = leaf(1.0)
    with tg.no_grad():
        assert not tg.is_grad_enabled() and not (x * 2).requires_grad
        with tg.enable_grad():
            assert (x * 2).requires_grad
            with tg.no_grad():
                assert not (x * 2).requires_grad
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert tg.is_grad_enabled() and (x * 2).requires_grad


def test_modes_as_decorators():
    @tg.no_grad()
    def silent(x):
        """Doc."""
        return x * 2, loud(x)

    @tg.enable_grad()
    def loud(x):
        return x * 2
    x = leaf(1.0)
    for _ in range(2):
        assert [y.requires_grad for y in silent(x)] == [False, True]
    assert silent.__name__ == "silent" and silent.__doc__ == "Doc." and tg.is_grad_enabled()


def test_modes_end_with_an_exception():
    with pytest.raises(KeyError), tg.no_grad():
        raise KeyError
    assert tg.is_grad_enabled()
    x = leaf(1.0)
    y = x * x
    y.register_hook(lambda g: 1 / 0)
    for create_graph in (False, True):
        with tg.no_grad(), pytest.raises(ZeroDivisionError):
            y.backward(create_graph=create_graph)
        assert tg.is_grad_enabled()


def test_modes_are_per_thread():
    x, seen = leaf(1.0), {}
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait(5)
        seen["other"] = (x * 2).requires_grad
        with tg.no_grad():
            done.set()
            seen["silent"] = (x * 2).requires_grad
    thread = threading.Thread(target=other)
    thread.start()
    with tg.no_grad():
        inside.set()
        done.wait(5)
        seen["here"] = (x * 2).requires_grad
    thread.join()
    seen["after"] = (x * 2).requires_grad
    assert seen == {"other": True, "silent": False, "here": False, "after": True}


def test_threads_over_shared_parameters():
    w, b = tg.tensor(random.normal(size=(6, 6)), True), tg.tensor(random.normal(size=6), True)
    x = tg.tensor(random.normal(size=(20, 6)))

    def work(k):
        results = []
        for _ in range(20):
            h = x
            for _ in range(4):
                h = tg.tanh(h @ w + b)
            loss = ((h - k) ** 2).mean()
            slopes = tg.grad(loss, [w, b], create_graph=True)
            results.append([g.tolist() for g in (*slopes, *tg.grad(slopes[0].norm(), [w, b]))])
        return results
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, [k % 2 for k in range(8)]))
    alone = [work(0), work(1)]
    assert all(result == alone[k % 2] for k, result in enumerate(together))
    assert w.grad is None and b.grad is None


# ---- numbers that are none, dtypes ------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("f", [
    lambda x: x * 2, lambda x: x + x, tg.relu, tg.exp, tg.tanh, lambda x: x.clamp(-5, 5), lambda x: tg.maximum(x, 0.5),
    lambda x: tg.where(x > 0, x, 2 * x), lambda x: x[[0, 1, 2]], lambda x: x[:] + x[[0, 1, 2]],
    lambda x: tg.cat([x, x]), lambda x: x.reshape(3, 1).T[0]])
def test_a_bad_cotangent_stays_in_its_own_entries(f, bad):
    x = leaf(0.5, 1.0, 2.0, dtype="float64")
    y = f(x)
    seed = np.ones(y.shape)
    good, = tg.grad(y, x, seed, retain_graph=True)
    seed[1] = bad
    y.backward(seed)
    assert not math.isfinite(x.grad[1].item())
    assert x.grad[::2].tolist() == good[::2].tolist()


def test_a_bad_number_stays_in_its_own_entries():
    x = leaf(1.0, float("nan"), float("inf"), 2.0)
    (x * x).sum().backward()
    assert [str(g) for g in x.grad.tolist()] == ["2.0", "nan", "inf", "4.0"]


def test_gradients_have_the_dtype_of_their_leaf():
    a, b, h = leaf(1.0), leaf(2.0, dtype="float64"), tg.tensor(np.ones(1, "float16"), requires_grad=True)
    (a * b * h).sum().backward()
    assert (a.grad.dtype, b.grad.dtype, h.grad.dtype) == ("float32", "float64", "float16")
    (a * np.ones(3)).sum().backward()
    assert a.grad.tolist() == [5] and a.grad.dtype == "float32"
    assert [g.dtype for g in tg.grad((a * b).sum(), [a, b])] == ["float32", "float64"]
    assert [g.dtype for g in tg.grad((a * b).sum(), [a, b], create_graph=True)] == ["float32", "float64"]
    assert tg.hvp(lambda a: (a * a * b).sum(), a, tg.ones(1))[1].dtype == "float32"
