"""What moved a number adds up to its step, is what was worked out by hand, and is told line by line."""

import json
import re

import numpy as np
import pytest
from _optimizers import TABLE, label, make, parameters, rule_of, run
from _wrappers import run as run_wrapper

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim.attribution import SOURCES, attribute, attributions
from tinygrad_opt.optim.explain import WIDTH, aligned
from tinygrad_opt.optim.replay import replays
from tinygrad_opt.optim.schedule import warmup
from tinygrad_opt.optim.transforms import ClipNorm

SPLIT = [row for row in TABLE if not rule_of(*row).matrix]
every = pytest.mark.parametrize("name, options", TABLE, ids=[label(*row) for row in TABLE])
ULPS = 8                               # a cancellation in 1 - beta ** t may cost some; most need 4


def misses(change, parts, size):
    """Return how many units in the last place, of the largest that is added, a sum misses a change by."""
    scale = np.maximum(sum(map(abs, parts)), size)
    return np.abs((sum(parts) - change) / scale).max() / np.finfo(size.dtype).eps


def stepped(optimizer, params, seed):
    """Take a step with random gradients and return what there was before."""
    before = [p.numpy().copy() for p in params]
    run(optimizer, params, 1, seed)
    return [(p, x) for p, x in zip(params, before) if x.size]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name, options", SPLIT, ids=[label(*row) for row in SPLIT])
def test_sources_add_up(name, options, dtype):
    params = parameters(dtype)
    optimizer = make(name, options, params)
    optimizer.grad_transforms = [ClipNorm(1.0)]
    optimizer.param_groups[0]["initial_lr"] = 0.08
    moved = dict.fromkeys(SOURCES, 0.0)
    for seed in range(4):
        for p, before in stepped(optimizer, params, seed):
            parts = attribute(optimizer, p)
            assert list(parts) == list(SOURCES) and all(part.shape == p.shape for part in parts.values())
            change = p.numpy().astype(float) - before
            assert misses(change, parts.values(), np.maximum(abs(before), abs(p.numpy()))) < ULPS
            moved = {source: moved[source] + abs(part).sum() for source, part in parts.items()}
    assert moved["gradient"] > 0 and moved["clipping"] > 0
    assert (moved["decay"] > 0) == any(optimizer.param_groups[0].get(key, 0) for key in ("weight_decay", "lambd"))
    assert (moved["schedule"] > 0) == ("lr" in optimizer._rule(0).options and name != "ASGD")


def test_a_wrong_split_would_be_seen():
    params = parameters("float64")
    optimizer = make("Adam", {}, params)
    for _ in range(2):
        pairs = stepped(optimizer, params, 0)
    p, before = pairs[1]
    parts = attribute(optimizer, p)
    parts["memory"] = parts["memory"] * (1 + 1e-12)
    assert misses(p.numpy() - before, parts.values(), abs(before)) > ULPS


# ---- worked out by hand -----------------------------------------------------------------------------------


def after(factory, gradients=(1.0,), start=2.0, transforms=(), dtype="float64", **group):
    """Return what moved one number in the last of some steps: the sources that did."""
    w = tg.tensor([start], dtype=dtype, requires_grad=True)
    optimizer = factory([w])
    optimizer.grad_transforms = [*transforms]
    optimizer.param_groups[0].update(group)
    if hasattr(optimizer, "train"):
        optimizer.train()
    for g in gradients:
        w.grad = tg.tensor([g], dtype=dtype)
        optimizer.step()
    return {source: part.item() for source, part in attribute(optimizer, w).items() if part.any()}


def fill(named, t):
    """Put 8 in place of each gradient."""
    for _, p in named:
        p.grad.data[...] = 8.0


def sgd(**options):
    return lambda params: optim.SGD(params, **{"lr": 0.5, **options})


@tg.optim.from_rule(lr=0.25)
def Drift(p, g, m, lr):
    m = m / 2 + g * g
    p = p - lr * (1 + m / maximum(abs(m), 0) * sqrt(abs(g)))      # noqa: F821
    return p, m


# The numbers are exact in binary.
BY_HAND = {
    "the gradient alone": (dict(factory=sgd()), dict(gradient=-0.5)),
    "ascending": (dict(factory=sgd(maximize=True)), dict(gradient=0.5)),
    "momentum": (dict(factory=sgd(momentum=0.5), gradients=(1, 1, 1)), dict(gradient=-0.5, memory=-0.375)),
    "Nesterov": (dict(factory=sgd(momentum=0.5, nesterov=True), gradients=(1, 1)), dict(gradient=-0.75, memory=-0.125)),
    "an L2 penalty": (dict(factory=sgd(weight_decay=0.25)), dict(gradient=-0.5, decay=-0.25)),
    "decoupled decay": (dict(factory=lambda w: optim.AdamW(w, lr=0.5, weight_decay=0.25), gradients=(0, 0)),
                        dict(decay=-0.125 * (2 - 0.25))),
    "clipping to half": (dict(factory=sgd(), gradients=(4,), transforms=[ClipNorm(2.0)]),
                         dict(gradient=-2, clipping=2 - 4 / (4 + 1e-6))),
    "what was not finite": (dict(factory=sgd(), gradients=(float("inf"),), transforms=[fill]), dict(clipping=-4)),
    "a rate below its base": (dict(factory=sgd(), initial_lr=2.0), dict(gradient=-2, schedule=1.5)),
    "a rate of zero": (dict(factory=sgd(lr=0), initial_lr=0.5), dict(gradient=-0.5, schedule=0.5)),
    "a warm-up of a schedule": (dict(factory=sgd(lr=0.5 * warmup(4)), gradients=(1, 1)),
                                dict(gradient=-0.5, schedule=0.375)),
    "another function of the step": (dict(factory=sgd(lr=lambda t: 1 / (t + 1)), gradients=(1, 1)),
                                     dict(gradient=-1, schedule=0.5)),
    "a vote that memory loses": (dict(factory=lambda w: optim.Lion(w, lr=0.5, betas=(0.25, 0.25)), gradients=(-1, 1)),
                                 dict(gradient=-0.5)),
    "a size is no direction": (dict(factory=lambda w: optim.Rprop(w, lr=0.5), gradients=(1, 2, 3)),
                               dict(gradient=-0.72)),
    "a place": (dict(factory=lambda w: optim.ScheduleFreeSGD(w, lr=0.5, momentum=0.5), gradients=(1, 1)),
                dict(gradient=-0.375)),
    "a constant of the rule": (dict(factory=Drift, gradients=(4,)), dict(gradient=-0.5, rule=-0.25)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_by_hand(case):
    given, expected = BY_HAND[case]
    assert after(**given) == pytest.approx(expected, rel=1e-12)


def test_momentum_remembers_in_a_closed_form():
    for t in (1, 2, 5, 30):
        parts = after(sgd(momentum=0.9), (1.0,) * t)
        assert parts.get("memory", 0) == pytest.approx(-0.5 * 0.9 * (1 - 0.9 ** (t - 1)) / 0.1, rel=1e-12, abs=1e-15)


def test_a_rate_that_was_lost_in_rounding_is_not_decay():
    for dtype in ("float32", "float64"):
        found = after(lambda w: optim.MADGRAD(w, lr=0.01, momentum=0.9), (1.0, -0.5, 0.3), 1.1, dtype=dtype)
        assert found.keys() == {"gradient", "memory"}


def test_rules_of_matrices_have_one_source_and_a_record_none():
    params = parameters("float64", name="Muon")
    optimizer = make("Muon", {}, params)
    for p, before in stepped(optimizer, params, 0):
        parts = attribute(optimizer, p)
        assert list(parts) == ["rule"] and (parts["rule"] == p.numpy() - before).all()
    assert list(attributions(optimizer)) == []


# ---- explanations -----------------------------------------------------------------------------------------


@every
def test_every_rule_is_told_line_by_line(name, options):
    params = parameters("float64", name=name)
    optimizer = make(name, options, params)
    optimizer.grad_transforms = [ClipNorm(1.0)]
    for seed in range(3):
        stepped(optimizer, params, seed)
    told = dict(replays(optimizer))
    p = params[2]
    place = (1, 1)
    explanation, replay = optimizer.explain(p, place), told[p]
    assert explanation.index == place and explanation.step == optimizer.state[p]["step"]
    assert (explanation.before, explanation.after) == (replay.before["p"][place], replay.after["p"][place])
    assert explanation.gradient == replay.before["g"][place] and explanation.raw == optimizer._raw[p][place]
    assert explanation.clipping == pytest.approx(explanation.gradient / explanation.raw)
    assert [line.formula for line in explanation.lines] == [line.formula for line in replay.moments]
    for line, moment in zip(explanation.lines, replay.moments):
        if getattr(moment.value, "shape", None) == p.shape:
            assert line.value == moment.value[place] or np.isnan(line.value)
    text, page = str(explanation), explanation._repr_html_()
    assert max(map(len, text.splitlines())) <= WIDTH + text.count("\u0302")            # the hat of m̂ has no width
    assert all(line.formula.split(" ")[0] in text for line in explanation.lines)
    assert page.count("<tr") == page.count("</tr>") and page.count("<td") == page.count("</td>")
    assert json.loads(json.dumps(explanation.to_dict()))["change"] == explanation.change


def trained(optimizer_of=optim.AdamW, steps=3, names=("first", "second"), **options):
    params = [tg.tensor(x, requires_grad=True) for x in ([1.0, -2.0, 3.0], [[0.5, -0.5]])]
    optimizer = optimizer_of(list(zip(names, params)) if names else params, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p ** 2).sum() for p in params).backward()
        optimizer.step()
    return optimizer, params


def test_numbers_stand_under_each_other():
    assert aligned([1.5, -20.25, 3, 1e-08, None, "words"]) == ["  1.5", "-20.25", "  3", "  1e-08", "", "words"]
    assert aligned([]) == []
    optimizer, _ = trained()
    rows = str(optimizer.explain("first")).partition("line by line")[2].splitlines()[1:7]
    points = {sum(letter != "\u0302" for letter in row[:row.rindex(".")]) for row in rows}
    assert len(points) == 1


def test_parameters_and_elements_are_found():
    optimizer, (first, second) = trained()
    told = [optimizer.explain("second", 1), optimizer.explain(1, (0, -1)), optimizer.explain(second, -1)]
    assert len(set(map(str, told))) == 1 and told[0].index == (0, 1)
    assert optimizer.explain(first).index == (int(np.argmax(abs(attribute(optimizer, first)["gradient"]))),)
    assert optimizer.explain("Second").parameter == "second"
    nameless, (w, _) = trained(names=None)
    assert nameless.explain(w).parameter == "parameter 0 of group 0"


def test_shares_and_options_are_shown():
    optimizer, _ = trained(lr=0.5 * warmup(10), weight_decay=0.1)
    explanation = optimizer.explain("first", 0)
    assert explanation.base_lr == 0.5 and explanation.options["lr"] == pytest.approx(0.1)
    assert sum(explanation.percent.values()) == pytest.approx(100, rel=1e-5) and explanation.clipping == 1
    text = str(explanation)
    assert "lr = 0.1 (base 0.5)" in text and "m (exp_avg)" in text and re.search(r"schedule +0\.\d+ +-\d", text)
    assert "clipping" not in text and "rounding" not in text


def test_what_happened_since_is_told():
    optimizer, (first, _) = trained()
    assert "Since then" not in str(optimizer.explain(first))
    first.data[0] = 7.0
    explanation = optimizer.explain(first, 0)
    assert explanation.now == 7 and "something else than the rule has moved it to 7." in str(explanation)
    half = tg.tensor([1.0], dtype="float16", requires_grad=True)
    optimizer = optim.SGD([half], lr=1e-4)
    half.grad = tg.ones(1, dtype="float16")
    optimizer.step()
    explanation = optimizer.explain(half)
    assert explanation.now == explanation.after == np.float32(1) - np.float32(1e-4)     # of the master


@pytest.mark.parametrize("wrap, owner", [
    (lambda inner: optim.Lookahead(inner, k=2), "Adam in Lookahead"), (optim.ApplyIfFinite, "Adam in ApplyIfFinite"),
    (lambda inner: optim.Lookahead(optim.ApplyIfFinite(inner)), "Adam in Lookahead")])
def test_wrappers_are_looked_into(wrap, owner):
    params = parameters("float64")
    optimizer = wrap(optim.Adam(params, lr=0.1))
    run_wrapper(optimizer, params, 2)
    assert optimizer.explain(1).optimizer == owner and len(optimizer.explain(1).lines) == 6


def test_each_of_several_optimizers_is_found():
    model = tg.nn.Linear(2, 3)
    optimizer = optim.MultiOptimizer(model, [(lambda name, p: p.ndim == 1, optim.Lion), optim.Muon])
    model(tg.ones(4, 2)).sum().backward()
    optimizer.step()
    assert [optimizer.explain(name).optimizer for name in ("bias", "weight")] == [
        "Lion in MultiOptimizer", "Muon in MultiOptimizer"]
    params = parameters("float64")
    sam = optim.SAM(params, optim.SGD, lr=0.1)
    run_wrapper(sam, params, 2)
    assert sam.explain(2).percent == {source: pytest.approx(100 * (source == "gradient")) for source in SOURCES}


def test_a_large_group_is_remembered_from_the_next_step_on():
    w = tg.ones(300, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.5)

    def step():
        w.grad = tg.ones(300)
        optimizer.step()
    step()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="ask again after the next step"):
            optimizer.explain(0)
    step()
    assert optimizer.explain(0, 7).after == 0
    optimizer._remembers = False                            # as a recorder leaves it: what is kept grows old
    step()
    with pytest.raises(RuntimeError, match="ask again after the next step"):
        optimizer.explain(0)
    with pytest.raises(RuntimeError, match="ask again after the next step"):
        optimizer.explain(0)


@pytest.mark.parametrize("ask, error, words", [
    (lambda o, w: o.explain("frist"), ValueError, "nearest are first"),
    (lambda o, w: o.explain(5), IndexError, "0 to 1"),
    (lambda o, w: o.explain(None), TypeError, "its name or its number"),
    (lambda o, w: o.explain(tg.ones(1)), ValueError, "no such parameter"),
    (lambda o, w: o.explain(0, 3), IndexError, "below 3"), (lambda o, w: o.explain(1, (0,)), IndexError, "2 numbers"),
    (lambda o, w: o.explain(0, 0.5), TypeError, "whole number"), (lambda o, w: o.explain(0, "x"), TypeError, "whole"),
    (lambda o, w: attribute(o, tg.ones(1)), ValueError, "no such parameter"),
    (lambda o, w: trained(steps=0)[0].explain(0), RuntimeError, "has not taken a step"),
    (lambda o, w: trained(names=None)[0].explain("w"), ValueError, "have no names"),
    (lambda o, w: optim.SGD([tg.ones(1, requires_grad=True)], lr=1).explain(0), RuntimeError, "not taken a step")])
def test_bad_input(ask, error, words):
    with pytest.raises(error, match=words):
        ask(*trained())


def test_what_was_skipped_is_said():
    optimizer, (first, _) = trained()
    optimizer.zero_grad()
    (first ** 2).sum().backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="had no gradient in the last step of AdamW"):
        optimizer.explain("second")
    empty = tg.ones(0, requires_grad=True)
    optimizer = optim.SGD([empty, first], lr=0.1)
    empty.grad = tg.ones(0)
    optimizer.step()
    with pytest.raises(ValueError, match="no numbers"):
        optimizer.explain(0)
    newton = optim.NewtonCG([first])
    newton.step(lambda: (first ** 2).sum())
    with pytest.raises(RuntimeError, match="optimizer.report"):
        newton.explain(0)
