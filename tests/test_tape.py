"""A Tape that is read: its operations, times, and the gradient's way. What it hands out: seeds/test_mojo.py."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import tape as module
from tinygrad_opt.tensor import mode, open_tapes


def weight(*data):
    return tg.tensor(data, requires_grad=True, dtype=tg.float64)


def lines(tape):
    return [operation.name for operation in tape.operations]


def test_operations_in_order_with_shapes_bytes_and_what_is_kept():
    w, x = weight(1.0, -2.0, 3.0), tg.ones(4, 3, dtype=tg.float64)
    with tg.Tape() as tape:
        y = tg.tanh(x * w)
        hits = y > 0
        loss = y.reshape(-1).sum()
    assert lines(tape) == ["mul", "tanh", "greater", "reshape", "sum"] and len(tape) == 5
    mul, tanh, greater, reshape, total = tape.operations
    assert mul.arguments == ((4, 3), (3,)) and mul.shape == (4, 3) and mul.dtype == tg.float64 and mul.bytes == 96
    assert [operation.kept for operation in tape.operations] == [("a",), ("result",), (), (), ()]
    assert [operation.recorded for operation in tape.operations] == [True, True, False, True, True]
    assert reshape.bytes == 0 and greater.bytes == 12 == hits.numel() and total.shape == ()
    assert all(operation.forward > 0 and operation.backward is operation.gradient is None
               for operation in tape.operations)
    tape.backward(loss)
    slope = 1 - np.tanh([1.0, -2.0, 3.0]) ** 2
    assert [operation.gradient for operation in tape.operations] == pytest.approx(
        [2 * np.linalg.norm(slope), 12 ** 0.5, None, 12 ** 0.5, 1.0], abs=1e-12)
    assert greater.backward is None and mul.backward > 0


def test_kept_are_exactly_the_arrays_that_a_node_holds():
    x, y = weight(1.0, 2.0), weight(3.0, 4.0)
    calls = [lambda: x + y, lambda: x * y, lambda: x / y, lambda: tg.exp(x), lambda: tg.sin(x),
             lambda: tg.stack([x, y]), lambda: tg.linear(x, y.reshape(1, 2)), lambda: tg.where(x > 1, x, y)]
    for call in calls:
        with tg.Tape() as tape:
            node = call()._node
        held = sum(isinstance(a, np.ndarray) for a in node.raw) + (node.y is not None)
        assert len(tape.operations[-1].kept) == held


def test_times_are_of_the_call_and_of_its_gradient():
    def slow_vjp(g, y, x):
        time.sleep(0.04)
        return g

    @tg.primitive(slow_vjp)
    def slow(x):
        time.sleep(0.02)
        return x + 0
    w = weight(1.0)
    with tg.Tape() as tape:
        loss = (slow(w * 2) * 3).sum()
        time.sleep(0.3)                                 # which is nobody's
    tape.backward(loss)
    times = {operation.name: (operation.forward, operation.backward) for operation in tape.operations}
    assert times["slow"][0] >= 0.02 and times["slow"][1] >= 0.04
    assert sum(forward for forward, _ in times.values()) < 0.3
    assert max(times, key=lambda name: times[name][1]) == "slow"


def test_a_tape_changes_no_bit():
    def gradients(tape):
        tg.manual_seed(0)
        model = tg.nn.Sequential(tg.nn.Linear(3, 8), tg.nn.ReLU(), tg.nn.Linear(8, 4))
        if tape is None:
            tg.nn.functional.cross_entropy(model(tg.randn(5, 3)), [0, 1, 2, 3, 0]).backward()
        else:
            with tape:
                loss = tg.nn.functional.cross_entropy(model(tg.randn(5, 3)), [0, 1, 2, 3, 0])
            tape.backward(loss)
        return [p.grad.tolist() for p in model.parameters()]
    assert gradients(tg.Tape()) == gradients(None)


def test_backward_and_gradients_of_gradients_inside_are_on_it():
    x = weight(0.5)
    with tg.Tape() as tape:
        slope, = tg.grad(tg.sin(x).sum(), x, create_graph=True)
        slope.sum().backward()
    assert lines(tape)[:2] == ["sin", "sum"] and {"cos", "mul"} <= {*lines(tape)[2:]}
    assert tape.operations[lines(tape).index("cos")].gradient == 1.0
    assert x.grad.item() == pytest.approx(-np.sin(0.5))


def test_tapes_in_each_other_share_their_operations():
    w = weight(2.0)
    with tg.Tape() as outer:
        a = w * w
        with tg.Tape() as inner:
            b = a * w
        c = b.sum()
    assert lines(outer) == ["mul", "mul", "sum"] and lines(inner) == ["mul"]
    assert inner.operations[0] is outer.operations[1]
    outer.backward(c)
    assert inner.operations[0].gradient == 1.0 and outer.operations[0].gradient == 2.0


def test_nobody_looks_on_after_the_end_not_even_of_an_error():
    w, tape = weight(1.0, 2.0), tg.Tape()
    with pytest.raises(ValueError), tape:
        w * w
        w * weight(1.0, 2.0, 3.0)
    assert lines(tape) == ["mul"] and open_tapes == [] and mode.watch is None
    w * w
    assert len(tape) == 1
    with tape, tg.no_grad():
        y = w * 3.0
    assert lines(tape) == ["mul"] and not tape.operations[0].recorded and not y.requires_grad
    with pytest.raises(RuntimeError), tape:
        tape.backward((w * w).sum().detach())
    assert open_tapes == [] and mode.watch is None


def test_each_thread_has_its_own():
    w, ready, done = weight(1.0), threading.Barrier(2), []

    def work(op, count):
        with tg.Tape() as tape:
            ready.wait()
            for _ in range(count):
                loss = op(w).sum()
            ready.wait()
        done.append((op.__name__, lines(tape)))
        tape.backward(loss)
    threads = [threading.Thread(target=work, args=job) for job in ((tg.sin, 50), (tg.exp, 70))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [("exp", ["exp", "sum"] * 70), ("sin", ["sin", "sum"] * 50)] and open_tapes == []


def test_it_holds_no_tensor_and_not_too_many_lines(monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 5)
    w, tape = weight(1.0), tg.Tape()
    with tape:
        for _ in range(4):
            y = tg.sin(w).sum()
        seen = weakref.ref(y)
        del y
        gc.collect()
        assert seen() is None
    assert lines(tape) == ["sum", "sin", "sum", "sin", "sum"]
    assert "5 operations, and 3 forgotten" in str(tape) and str(tape).splitlines()[1].split()[0] == "3"
    with tape:
        pass
    assert tape and len(tape) == 0 and "0 operations" in str(tape)


def test_printed_and_in_a_notebook():
    w = weight(1.0, 2.0)
    with tg.Tape() as tape:
        y = (w * 3).sum()
        assert (w > 0).all()
    tape.backward(y)
    head, mul, total, greater, every, last = str(tape).splitlines()
    assert head.split() == ["operation", "arguments", "result", "bytes", "kept", "for", "backward", "forward",
                            "backward", "|gradient|"]
    assert mul.startswith("^  0  mul") and "(2,) float64" in mul and "nothing" in mul and mul.endswith("1.41")
    assert greater.startswith("   2  greater") and "not recorded" in greater
    assert last.split()[:6] == ["4", "operations", "27", "B", "^", "gradient"] and "came through 2" in last
    assert repr(tape) == "<Tape of 4 operations>"
    html = tape._repr_html_()
    assert html.count("<tr") == 6 and html.count("background") == 2 and "(2,) float64" in html

    with tg.Tape() as tape:
        for _ in range(100):
            y = tg.stack([w] * 9)
    assert len(str(tape).splitlines()) == 1 + 60 + 1 + 1 and "... 40 more" in str(tape)
    assert "(2,) (2,) (2,) (2,) ... 5 more" in str(tape)


@pytest.mark.parametrize("value, text", [(0.0, "0 us"), (1.5e-6, "1.5 us"), (9.996e-4, "1 ms"), (0.25, "250 ms"),
                                         (2.0, "2 s")])
def test_units_of_time(value, text):
    assert module._seconds(value) == text


def test_a_gradient_beyond_float32_squares_has_its_norm():
    with tg.Tape() as tape:
        loss = (tg.tensor([3e30, 4e30], requires_grad=True) * tg.tensor([3e30, 4e30], dtype=tg.float64)).sum()
    tape.backward(loss)
    assert tape.operations[0].gradient == pytest.approx(2 ** 0.5)
    assert module._norm(np.float32([3e30, 4e30])) == pytest.approx(5e30)
    assert module._norm(np.float64([1e200, 1e200])) == np.inf


def test_a_graph_that_is_kept_is_gone_through_again():
    w = tg.tensor([1.0, 2.0], requires_grad=True)
    with tg.Tape() as tape:
        loss = (w ** 2).sum()
    tape.backward(loss, retain_graph=True)
    tape.backward(loss)
    assert w.grad.tolist() == [4.0, 8.0]
    with pytest.raises(RuntimeError, match="retain_graph"):
        tape.backward(loss)
