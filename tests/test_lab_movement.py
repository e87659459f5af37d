"""Who moved a run, where the answer is known; and a step of a record, told as the optimizer tells it."""

import csv

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab import Trace, explain, record, who_moved
from tinygrad_opt.optim.attribution import attribute
from tinygrad_opt.optim.transforms import ClipNorm

LINE = dict(function=lambda w: (w * tg.tensor([3.0, 4.0], dtype="float64")).sum(), start=np.zeros(2))


def clipped(named):
    optimizer = tg.optim.SGD(named, lr=1)
    optimizer.grad_transforms = [ClipNorm(2.5)]
    return optimizer


def test_the_gradient_moves_plain_descent():
    moved = who_moved(record("sgd", steps=4, lr=1, **LINE))
    assert moved.total == pytest.approx({"gradient": 20}) and moved.percent == pytest.approx({"gradient": 100})
    assert moved.displacement == 20 and moved.path == moved.total


@pytest.mark.parametrize("n", [1, 2, 40])
def test_memory_has_its_closed_form(n):
    moved = who_moved(record("sgd", steps=n, lr=0.1, momentum=0.9, **LINE))
    forward = 0.5 * 0.9 * (1 - 0.9 ** np.arange(n)) / 0.1
    np.testing.assert_allclose(moved.forward.get("memory", np.zeros(n)), forward, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moved.forward["gradient"], 0.5, rtol=1e-12)
    assert sum(moved.percent.values()) == pytest.approx(100)


def test_decay_alone():
    moved = who_moved(record("adamw", lambda w: (0 * w).sum(), 9, [1.0, -3.0], lr=0.1, weight_decay=0.5))
    assert moved.percent["decay"] == pytest.approx(100) and moved.total["gradient"] == 0


def test_clipping_to_half():
    moved = who_moved(record(clipped, steps=3, **LINE))
    assert moved.percent == pytest.approx({"gradient": 200, "clipping": -100}, rel=1e-6)
    assert moved.path == pytest.approx({"gradient": 15, "clipping": 7.5}, rel=1e-6)


def test_pushes_that_were_taken_back_are_path():
    moved = who_moved(record("sgd", lambda w: (w ** 2).sum(), 4, [1.0], lr=1.0))        # there and back
    assert moved.displacement == 0 and moved.path["gradient"] == 8 and np.isnan(moved.percent["gradient"])
    assert "– %" in str(moved) and "nan" not in str(moved) and moved.draw().axes


def test_what_is_outside_of_the_rule():
    def lookahead(named):
        return tg.optim.Lookahead(tg.optim.SGD(named, lr=1), k=2, alpha=0.5)
    moved = who_moved(record(lookahead, steps=4, **LINE))
    assert moved.percent == pytest.approx({"gradient": 200, "outside": -100})
    assert who_moved(record("adam", "reddi", 30, lr=0.5)).path["outside"] > 0           # the wall
    assert "outside" not in who_moved(record("adam", "rosenbrock", 30, lr=0.5)).path


def test_several_parameters_are_one_vector_or_each_its_own():
    start = {"a": np.zeros(1), "b": np.zeros((1, 2))}
    trace = record("sgd", lambda a, b: 2 * a.sum() + 2 * b[0, 0] + b[0, 1], 1, start, lr=1)
    assert who_moved(trace).displacement == 3 and who_moved(trace).title.startswith("Who moved a, b: SGD on")
    assert who_moved(trace, "a").displacement == 2 and who_moved(trace, "b").displacement == pytest.approx(5 ** 0.5)


def test_rules_of_matrices_move_beside_others():
    def both(named):
        return tg.optim.MultiOptimizer(dict(named), [(lambda name, p: p.ndim == 2, tg.optim.Muon), tg.optim.SGD])
    start = {"a": np.ones(2), "b": np.ones((2, 2))}
    moved = who_moved(record(both, lambda a, b: (a ** 2).sum() + (b ** 2).sum(), 3, start))
    assert moved.path.keys() == {"gradient", "rule"} and sum(moved.percent.values()) == pytest.approx(100)


def test_the_figure_shows_every_source():
    moved = who_moved(record("adamw", "rosenbrock", 250, lr=0.1, weight_decay=0.1))
    axes, = moved.draw().axes
    bars = [bar.get_height() for container in axes.containers for bar in container]
    assert len(axes.containers) == 3 and len(bars) == 300
    assert sum(bars) == pytest.approx(moved.displacement)
    assert str(moved).splitlines()[0] == "Who moved w: AdamW on rosenbrock, 250 steps"
    assert len({line.rstrip().rindex("%") for line in str(moved).splitlines()[2:]}) == 1


# ---- the record -------------------------------------------------------------------------------------------


def test_shares_are_those_of_the_optimizer_and_go_out_and_back(tmp_path):
    w = tg.tensor([1.0, -2.0], requires_grad=True)
    optimizer = tg.optim.AdamW([w], lr=0.1)
    trace, found = record("adamw", lambda w: (w ** 2).sum(), 5, [1.0, -2.0], lr=0.1), []
    for _ in range(5):
        optimizer.zero_grad()
        (w ** 2).sum().backward()
        optimizer.step()
        found.append(attribute(optimizer, w))
    assert trace.shares["w"].keys() == {"gradient", "memory", "decay"}                  # and none that never moved it
    for source, parts in trace.shares["w"].items():
        np.testing.assert_array_equal(parts, [step[source] for step in found])
    again = Trace.load(trace.save(tmp_path / "run"))
    np.testing.assert_array_equal(again.shares["w"]["memory"], trace.shares["w"]["memory"])
    with open(trace.to_csv(tmp_path / "run.csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[3]["w.share.decay[1]"]) == trace.shares["w"]["decay"][3, 1]
    assert '"shares": {"w": {"gradient": [[' in trace.to_json()


@pytest.mark.parametrize("name", ["shampoo", "lbfgs"])
def test_what_cannot_be_split_has_no_shares(name):
    trace = record(name, "rosenbrock", 3, lr=0.1)
    assert trace.shares == {}
    with pytest.raises(ValueError, match="cannot be split"):
        who_moved(trace)


# ---- a step of a record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, options", [("sgd", dict(momentum=0.9, weight_decay=0.1)), ("adamw", {}), ("lamb", {}),
                                           ("soap", {})])
def test_a_record_tells_what_the_optimizer_told(name, options):
    w = tg.tensor(tg.lab.surface("rosenbrock").start, requires_grad=True)
    optimizer = tg.optim.create(name, [("w", w)], lr=1e-3, **options)
    for _ in range(6):
        optimizer.zero_grad()
        tg.lab.surface("rosenbrock")(w).backward()
        optimizer.step()
    live, told = optimizer.explain("w"), explain(record(name, "rosenbrock", 7, lr=1e-3, **options), 5)
    assert (told.index, told.step, told.before, told.after) == (live.index, 5, live.before, live.after)
    assert told.optimizer == f"{live.optimizer} on rosenbrock" and told.raw == live.raw
    assert [line.formula for line in told.lines] == [line.formula for line in live.lines]
    last = {line.formula.split(" ")[0]: line for line in live.lines}
    for mine, line in zip(told.lines, live.lines):
        if last[mine.target] is line and name != "soap":                # which keeps matrices, too
            assert mine.value == line.value
        assert mine.value == line.value or mine.value is None
    assert told.shares == {source: part for source, part in live.shares.items() if part and source != "rule"}
    assert str(told).splitlines()[1] == str(live).splitlines()[1]


def test_clipping_is_told():
    told = explain(record(clipped, steps=3, **LINE), -1, "w", 0)
    assert (told.step, told.raw, told.before) == (2, 3, pytest.approx(-3, rel=1e-6))
    assert told.clipping == pytest.approx(0.5, rel=1e-6) and "by grad_transforms" in str(told)


@pytest.mark.parametrize("call, error, words", [
    (lambda t: who_moved(t, "v"), ValueError, "nearest are w"), (lambda t: who_moved(t, 3), TypeError, "string"),
    (lambda t: explain(t, 3), IndexError, "steps 0 to 2"), (lambda t: explain(t, 1.5), IndexError, "steps 0 to 2"),
    (lambda t: explain(t, 1, "v"), ValueError, "nearest are w"),
    (lambda t: explain(t, 1, "w", 9), IndexError, "below 2"),
    (lambda t: explain(record("lbfgs", "rosenbrock", 2), 0), ValueError, "no rule")])
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call(record("sgd", steps=3, lr=1, **LINE))


def test_half_precision_is_told_from_its_master():
    trace = record("adam", lambda w: (w ** 2).sum(), 5, np.array([1, 2], "float16"))
    told = explain(trace, 1, index=0)
    assert told.before == trace.state["w"]["master"][0, 0] and told.after == told.now
    assert sum(told.shares.values()) == pytest.approx(told.change, rel=1e-4) and "master" not in told.state
    moved = who_moved(trace)
    assert moved.total["rounding"] != 0 and sum(moved.total.values()) == pytest.approx(moved.displacement, rel=1e-12)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_ways_of_any_size_have_a_length(size):
    moved = who_moved(record("sgd", lambda w: (w ** 2).sum() / 2, 1, np.array([size, 0.0]), lr=0.5))
    assert moved.displacement == pytest.approx(size / 2) and moved.percent == pytest.approx({"gradient": 100})


def test_a_run_that_diverges_has_no_shares_of_a_way_to_nowhere():
    with pytest.warns(RuntimeWarning, match="has become NaN"):
        trace = record("sgd", lambda w: (w ** 4).sum(), 9, [10.0], lr=1.0)
    assert "100.0 %" not in str(who_moved(trace))
    told = str(explain(trace, 8))
    assert told.count("from backward") == 1 and told.count("  g ") == 2         # given once, and its line
