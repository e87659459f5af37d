"""Schedules: their values, their algebra, their tables and lines."""

import copy
import inspect
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_opt as tg
from tinygrad_opt.optim import schedule as s

# Each block with its value at the start and after its end.
BLOCKS = [
    (s.hold(5), 1, 1), (s.hold(5, 0.3), 0.3, 0.3), (s.warmup(5), 0, 1), (s.warmup(5, 0.1, "exp"), 0.1, 1),
    (s.warmup(5, 0.1, mode="constant"), 0.1, 1), (s.warmup(0), 1, 1), (s.linear(5), 1, 0),
    (s.linear(5, end=2, start=0.5), 0.5, 2), (s.linear_to_zero(5), 1, 0), (s.cosine(5), 1, 0),
    (s.cosine(5, end=0.2), 1, 0.2), (s.cosine(5, cycles=1), 1, 1), (s.cosine(0), 0, 0), (s.cosine_wave(50), 1, 1),
    (s.polynomial(5, 2), 1, 0), (s.polynomial(5, end=0.1), 1, 0.1), (s.polynomial(5, cycle=True), 1, 0),
    (s.exponential(0.5), 1, 2.0 ** -100), (s.step(10, 0.5), 1, 2.0 ** -10), (s.multistep([3, 3, 200], 0.5), 1, 0.25),
    (s.piecewise({5: 0.5}), 1, 0.5), (s.piecewise({0: 0.1, 5: 0.5}, "linear"), 0.1, 0.5),
    (s.piecewise({5: 0.5, 2: 3}, "cosine"), 1, 0.5), (s.inverse_sqrt(4), 0, 0.2),
    (s.inverse_sqrt(0, 300), 1, 0.75 ** 0.5),
    (s.noam(4, 100), 0.5 * 1e-3, 0.05), (s.inverse_time(50, 2), 1, 0.2),
    (s.inverse_time(40, 2, staircase=True), 1, 0.2), (s.wsd(2, 3, 4), 0, 0), (s.wsd(2, 3, 4, 0.1, "cosine"), 0, 0.1),
    (s.wsd(0, 3, 4, 0.1, "linear"), 1, 0.1), (s.wsd(0, 0, 4, 0.1, "1-square"), 1, 0.1), (s.rex(5), 1, 0),
    (s.rex(5, end=0.1), 1, 0.1), (s.warmup_cosine(5, 9), 0, 0), (s.warmup_cosine(5, 9, 0.1, cycles=1.5), 0, 0.1),
    (s.restarts(25), 1, 1), (s.restarts(20, 2, 0.5, 0.1), 1, 0.1 + 0.9 * 0.25 * (1 + math.cos(math.pi / 2)) / 2),
    (s.cyclic(25), 0, 0), (s.cyclic(20, 80, "triangular2"), 0, 0), (s.cyclic(50, 150, "exp_range", 0.99), 0, None),
    (s.cyclic(10, scale_fn=lambda x: 1 / x), 0, 0), (s.one_cycle(101), 0.04, 4e-6),
    (s.one_cycle(101, 0.5, "linear", 0.1, 1.0, 0.0), 0.1, 0.0),
    (s.one_cycle(101, 0.4, "linear", 0.1, three_phase=True), 0.1, 4e-6),
    (s.cumulative(lambda t: 2.0 if t < 9 else 1.0), 1, 256),
]
each = pytest.mark.parametrize("schedule, first, last", BLOCKS, ids=[repr(block) for block, _, _ in BLOCKS])


def test_the_table_is_complete():
    builders = {block.recipe[0].__name__ for block, _, _ in BLOCKS}
    assert builders == set(s.__all__) - {"Schedule", "Table", "as_schedule"}


@each
def test_first_and_last_value(schedule, first, last):
    assert schedule(0) == pytest.approx(first, abs=1e-15)
    if last is not None:
        assert schedule(100) == pytest.approx(last, rel=1e-12, abs=1e-15)
    assert isinstance(schedule(0), float)


@each
def test_a_schedule_is_a_pure_function(schedule, first, last):
    steps = [0, 1, 2, 3, 7, 50, 101]
    values = [schedule(t) for t in steps]
    assert [schedule(t) for t in reversed(steps)] == values[::-1]
    assert [copy.deepcopy(schedule)(t) for t in steps] == values
    assert all(math.isfinite(schedule(t + 0.5)) for t in steps)
    with pytest.raises(ValueError, match="counted from 0, got t = -1"):
        schedule(-1)


@each
def test_what_ends_goes_on_where_it_ended(schedule, first, last):
    if schedule.length < 100 and schedule.recipe[0] is not s.polynomial:
        assert schedule(schedule.length) == schedule(schedule.length + 1) == schedule(100)


@pytest.mark.parametrize("text", [
    "warmup(100) >> hold(200) >> cosine(700)", "0.1 * (warmup(5) >> cosine(9, end=0.1))",
    "cosine(5) * exponential(0.9)",
    "warmup(5, start=0.1, mode='exp') >> (hold(3) * 0.5 >> rex(9))", "(warmup(5) >> hold(1)) * 0.1 * cosine(3)",
    "piecewise({5: 0.5}, 'linear') * 2"])
def test_repr_is_the_expression(text):
    schedule = eval(text, vars(s))
    again = eval(repr(schedule), vars(s))
    assert repr(again) == repr(schedule) == text.replace("(hold(3) * 0.5 >> rex(9))", "hold(3) * 0.5 >> rex(9)")
    for twin in (again, pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert repr(twin) == repr(schedule) and twin.table(30) == schedule.table(30)
        assert twin.length == schedule.length


def test_the_example_of_the_documentation():
    schedule = s.warmup(100) >> s.hold(200) >> s.cosine(700)
    assert schedule.length == 1000
    assert [schedule(t) for t in (0, 50, 100, 299, 300)] == [0, 0.5, 1, 1, 1]
    assert schedule(650) == pytest.approx(0.5) and schedule(999) < 1e-5 and schedule(1000) == schedule(5000) == 0


lengths = st.integers(0, 20)
part = st.one_of(st.builds(s.warmup, lengths), st.builds(s.hold, lengths, st.floats(0, 2)),
                 st.builds(s.cosine, lengths), st.builds(s.linear, lengths, st.floats(0, 1)), st.builds(s.rex, lengths))
endless = st.one_of(part, st.builds(s.exponential, st.floats(0.5, 1)), st.builds(s.step, st.integers(1, 5)))


@given(part, part, endless, st.integers(0, 80))
def test_one_after_the_other(a, b, c, t):
    together = a >> b >> c
    assert together.length == a.length + b.length + c.length
    assert together(t) == (a >> (b >> c))(t)
    if t < a.length:
        assert together(t) == a(t)
    elif t < a.length + b.length:
        assert together(t) == b(t - a.length)
    else:
        assert together(t) == c(t - a.length - b.length)


@given(endless, endless, st.floats(0, 10), st.integers(0, 80))
def test_products(a, b, x, t):
    assert (a * b)(t) == (b * a)(t) == a(t) * b(t)
    assert (x * a)(t) == (a * x)(t) == x * a(t)
    assert (a * (lambda t: t + 1))(t) == ((lambda t: t + 1) * a)(t) == a(t) * (t + 1)
    assert (a * x).length == a.length
    assert (a * b).length == max({a.length, b.length} - {math.inf}, default=math.inf)


def test_functions_and_numbers_take_part():
    schedule = s.warmup(2) >> (lambda t: 1 / (1 + t))
    assert [schedule(t) for t in range(4)] == [0, 0.5, 1, 0.5]
    assert (s.hold(2) >> 0.25)(9) == 0.25
    plain = s.Schedule(math.sqrt, length=4)
    assert repr(plain) == "sqrt" and (plain >> s.hold())(4) == 1
    assert s.as_schedule(plain) is plain and s.as_schedule(math.sqrt)(4) == 2 and s.as_schedule(3)(7) == 3
    with pytest.raises(TypeError, match="a function of the step or a number, got str"):
        s.cosine(3) >> "more"
    with pytest.raises(TypeError, match="got list"):
        [1] * s.cosine(3)


def test_what_has_no_end_has_nothing_after_it():
    with pytest.raises(ValueError, match=r"exponential\(0.9\) has no end.*hold\(100\) \* exponential\(0.9\) >> ..."):
        s.exponential(0.9) >> s.hold(3)
    schedule = s.hold(3) * s.exponential(0.5) >> s.linear(2)
    assert [schedule(t) for t in range(6)] == [1, 0.5, 0.25, 1, 0.5, 0]


def test_table():
    table = (0.1 * s.linear(4)).table(3)
    assert table == [(0, 0.1), (1, pytest.approx(0.075)), (2, 0.05)]
    assert str(table) == repr(table) == "t  value\n0  0.1\n1  0.075\n2  0.05"
    wide = str(s.hold().table(11)).splitlines()
    assert wide[1] == " 0  1" and wide[11] == "10  1"
    assert str(s.hold().table(0)) == "t  value"


def test_plot():
    pytest.importorskip("matplotlib")
    ax = s.cosine(9).plot(10)
    assert list(ax.lines[0].get_xdata()) == list(range(10))
    assert list(ax.lines[0].get_ydata()) == [s.cosine(9)(t) for t in range(10)]
    assert s.rex(9).plot(10, ax=ax) is ax and len(ax.lines) == 2


def test_sparkline():
    assert s.linear(7).sparkline(width=8) == "█▇▆▅▄▃▂▁"
    assert s.hold(5, 0.0).sparkline(width=3) == "▁▁▁"
    assert s.exponential(1.0).sparkline() == "█" * 60
    assert s.step(10, 0.0).sparkline(n=20, width=20) == "█" * 10 + "▁" * 10
    with pytest.raises(ValueError, match="width"):
        s.hold(5).sparkline(width=1)


def test_each_cycle_begins_on_time():
    schedule = s.restarts(3, growth=3)                  # a logarithm of 3 misses some of these
    starts = [3 * (3 ** k - 1) // 2 for k in range(12)]
    assert [schedule(t) for t in starts] == [1.0] * 12
    assert all(schedule(t - 1) < 0.3 for t in starts[1:])


def test_cumulative_calls_once_a_step():
    calls = []
    schedule = s.cumulative(lambda t: calls.append(t) or 0.5)
    assert [schedule(t) for t in (0, 1, 2, 2, 3)] == [1, 0.5, 0.25, 0.25, 0.125]
    assert calls == [1, 2, 3]
    assert schedule(1) == 0.5


def test_torch_lambda_takes_a_schedule():
    torch = pytest.importorskip("torch")
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, s.warmup(4) >> s.cosine(4))
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize("make, message", [
    (lambda: s.warmup(-1), r"warmup: n must lie in \[0, inf\), got -1.0"),
    (lambda: s.warmup(3, 0.1, "square"), "mode must be one of linear, exp, constant; got 'square'"),
    (lambda: s.warmup(3, 0, "exp"), r"start must lie in \(0, inf\), got 0.0"),
    (lambda: s.hold(math.nan), "hold: n"), (lambda: s.cosine(math.inf), "cosine: n"), (lambda: s.cosine_wave(0), "n"),
    (lambda: s.restarts(0), "restarts: n"), (lambda: s.restarts(3, growth=0.5), r"growth must lie in \[1, inf\)"),
    (lambda: s.polynomial(3, power=-1), "power"), (lambda: s.polynomial(0, cycle=True), r"n must lie in \(0, inf\)"),
    (lambda: s.exponential(-0.5), "gamma"), (lambda: s.step(0), "size"), (lambda: s.step(3, math.nan), "gamma"),
    (lambda: s.multistep([3], -1), "gamma"), (lambda: s.piecewise({1: 1}, "cubic"), "shape must be one of constant"),
    (lambda: s.piecewise({-1: 1}), "a point at -1"), (lambda: s.inverse_sqrt(-1), "warmup_steps"),
    (lambda: s.inverse_sqrt(1, 0), "timescale"), (lambda: s.noam(0), "model_dim"),
    (lambda: s.noam(1, 0), "warmup_steps"),
    (lambda: s.inverse_time(0, 1), "decay_steps"), (lambda: s.inverse_time(1, -1), "decay_rate"),
    (lambda: s.wsd(1, 1, 1, shape="constant"), "shape must be one of 1-sqrt, linear, cosine, 1-square"),
    (lambda: s.wsd(1, 1, -1), "decay_steps"), (lambda: s.rex(-1), "rex: n"), (lambda: s.cyclic(0), "cyclic: up"),
    (lambda: s.cyclic(1, -1), "cyclic: down"), (lambda: s.cyclic(1, mode="saw"), "mode must be one of triangular"),
    (lambda: s.warmup_cosine(10, 5), r"total_steps must lie in \[10, inf\), got 5"),
    (lambda: s.one_cycle(0), "total_steps"), (lambda: s.one_cycle(9, 1.5), "pct_start"),
    (lambda: s.one_cycle(9, shape="x"), "shape must be one of cosine, linear"),
    (lambda: s.Schedule(math.sqrt, -1), r"length must lie in \[0, inf\]"),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_block_says_what_it_is():
    for name in s.__all__:
        assert inspect.getdoc(getattr(s, name)) and getattr(s, name).__name__ == name


def test_no_optimizer_is_needed():
    w = tg.ones(1, requires_grad=True)
    lr = 0.5 * s.linear(2)
    seen = []
    for t in range(3):
        optimizer = tg.optim.SGD([w], lr=lr(t))
        w.grad = tg.ones(1)
        optimizer.step()
        seen.append(w.item())
    assert seen == [0.5, 0.25, 0.25]
