"""The grader: the right work passes, and each known mistake is told from the right one and from every other."""

import itertools
import linecache

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab.school.grader import TOLERANCE, _exam, resolve
from tinygrad_opt.lab.school.mutants import MISTAKES, Mutant, change
from tinygrad_opt.rule import sign, sqrt

FAMILIES = [("SGD", {}), ("momentum", {}), ("Nesterov", {}), ("Adagrad", {}), ("RMSprop", {}), ("Adam", {}),
            ("AMSGrad", {}), ("AdamW", {}), ("Lion", {})]
RULES = [("Nesterov", {}), ("Adagrad", {}), ("RMSprop", {"momentum": 0.9, "centered": True}),
         ("AMSGrad", {}), ("AdamW", {}), ("Lion", {})]


# ---- the bank ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("like, options", FAMILIES)
def test_every_mutant_differs_from_the_right_rule_and_from_every_other(like, options):
    _, reference = resolve(like, options)
    with np.errstate(all="ignore"):
        exam = _exam(reference, frozenset(reference.options), frozenset(options), True)
        assert len(exam.mistakes) >= 12

        def walked(*mistakes):
            return np.concatenate([p for task in exam.tasks
                                   for p in reference.walk(Mutant(reference.rule(task), *mistakes), task)])
        runs = {"": np.concatenate(sum(exam.right, [])), **{m.name: walked(m) for m in exam.mistakes}}
        same = [(a, b) for a, b in itertools.combinations(runs, 2)
                if np.allclose(runs[a], runs[b], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)]
        np.testing.assert_allclose(walked(), runs[""], rtol=1e-13, atol=1e-13)
    assert same == []


CELLS = itertools.count()


def function_of(mutant):
    """Return a mutant's rule as a function whose source can be read, as that of a notebook cell can."""
    name, space = f"<cell {next(CELLS)}>", {}
    linecache.cache[name] = (1, None, mutant.source.splitlines(True), name)
    exec(compile(mutant.source, name, "exec"), space)
    return next(value for key, value in space.items() if key != "__builtins__")


@pytest.mark.parametrize("like, options", RULES)
def test_every_mutant_handed_in_is_named(like, options):
    named = {}
    for mutant in tg.lab.list_mutants(like, **options):
        if not mutant.manners:
            found = tg.lab.grade(function_of(mutant), like, **options)
            named[mutant.name] = found.mistake
            assert not found.passed and found.hint == mutant.mistakes[0].hint and found.difference is not None
    assert len(named) > 12 and named == {name: name for name in named}


def test_names_are_names_and_hints_do_not_tell():
    assert len({m.name for m in MISTAKES}) == len({m.words for m in MISTAKES}) == len(MISTAKES)
    assert all(m.hint.endswith(("?", ".")) and m.name not in m.hint for m in MISTAKES)


def test_an_edit_is_a_visible_change_of_the_lines():
    mutants = {m.name: m for m in tg.lab.list_mutants("Adam")}
    assert mutants["eps inside the root"].lines == [("p ← p − lr·m̂ / (sqrt(v̂) + ε)", "p ← p − lr·m̂ / sqrt(v̂ + ε)")]
    assert mutants["decoupled decay for L2"].lines == [("g ← g + weight_decay·p", "p ← p·(1 − lr·weight_decay)")]
    assert [target for target, _ in mutants["denominator one step late"].statements][-1] == "v"
    rule = mutants["ascends"].rule
    assert not Mutant(rule).changed and [t for t, _ in change(("S = A", ""))(rule.statements)] == []


# ---- what is right -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("like, options", FAMILIES)
def test_the_library_passes_its_own_exam(like, options):
    _, reference = resolve(like, options)
    found = tg.lab.grade(reference.cls, reference.cls, **reference.base)
    assert found.passed and found.score == 1 and found.mistake is None and found.hint == ""


class FromScratch:
    """Adam with everything written in another order; subclasses spoil it."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.params, self.lr, self.betas, self.eps, self.t = list(params), lr, betas, eps, 0
        self.m, self.v = ({p: np.zeros(p.shape) for p in self.params} for _ in "mv")

    def step(self):
        self.t += 1
        for p in self.params:
            if p.grad is not None:
                self.update(p, p.grad.numpy())

    def update(self, p, g):
        beta1, beta2 = self.betas
        self.m[p] += (1 - beta1) * (g - self.m[p])
        self.v[p] += (1 - beta2) * (g * g - self.v[p])
        root = np.sqrt(1 - beta2 ** self.t)
        p.data -= tg.backend.asarray(self.lr * root / (1 - beta1 ** self.t) * self.m[p] /
                                     (np.sqrt(self.v[p]) + self.eps * root))


def test_another_order_of_the_same_arithmetic_is_right():
    found = tg.lab.grade(FromScratch, like="adam")
    assert found.passed and "weight_decay" in found.words and str(found).startswith("FromScratch against Adam: right")
    assert "#009E73" in found._repr_html_() and "<table>" not in found._repr_html_()


def test_a_made_class_a_rule_and_two_functions_pass():
    @tg.optim.from_rule(lr=1e-3, beta=0.9)
    def MySignum(p, g, m, lr, beta):
        m = beta * m + (1 - beta) * g
        p = p - lr * sign(m)
        return p, m

    def rule(p, g, s, learning_rate, epsilon):
        s = s + g ** 2
        p = p - learning_rate * g / (sqrt(s) + epsilon)
        return p, s

    def plain(w, g, lr):
        return w - lr * g

    def adam(w, grad, state, t, lr=1e-3, beta1=0.9, beta2=0.999):
        m = state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * grad
        v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * grad ** 2
        return w - lr * m / (1 - beta1 ** t) / (np.sqrt(v / (1 - beta2 ** t)) + 1e-8)
    for work, like in ((MySignum, "Signum"), (rule, "Adagrad"), (plain, "SGD"), (adam, "Adam")):
        assert tg.lab.grade(work, like).passed, work
    assert tg.lab.grade(plain, tg.optim.SGD).passed and not tg.lab.grade(plain, "momentum").passed


def test_one_millionth_is_a_difference():
    def off(by):
        class Off(FromScratch):
            def update(self, p, g):
                super().update(p, g * (1 + by * (self.t == 3)))
        return tg.lab.grade(Off, "Adam")
    found = off(1e-6)
    assert not found.passed and found.mistake == "rounding" and found.difference.step == 3
    found = off(1e-4)
    assert not found.passed and found.mistake is None and found.difference.step == 3
    assert "none of the known mistakes" in found.words and "step 3" in found.hint


def test_state_of_single_precision_is_named():
    class Single(FromScratch):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
            super().__init__(params, lr, betas, eps)
            self.m, self.v = ({p: m.astype("float32") for p, m in state.items()} for state in (self.m, self.v))
    found = tg.lab.grade(Single, "Adam")
    assert found.mistake == "rounding" and "single precision" in found.words and "dtype" in found.hint


def test_the_maximum_of_the_corrected_is_that_of_optax():
    def amsgrad(w, g, state, t, lr, beta1, beta2, eps):
        m = state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
        v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g ** 2
        top = state["max"] = np.maximum(state.get("max", 0), v / (1 - beta2 ** t))
        return w - lr * m / (1 - beta1 ** t) / (np.sqrt(top) + eps)
    assert tg.lab.grade(amsgrad, "AMSGrad").mistake == "maximum of the corrected"


def test_an_option_that_there_is_not_is_named():
    with pytest.raises(TypeError, match="SGD has no option 'momentun'; it takes lr, momentum"):
        tg.lab.grade(lambda w, g, lr: w - lr * g, "SGD", momentun=0.9)


# ---- mistakes that are not in the lines ----------------------------------------------------------------------------


class Momentum:
    def __init__(self, params, lr=0.1, momentum=0.9):
        self.params, self.lr, self.momentum, self.b = list(params), lr, momentum, {}

    def key(self, p):
        return p

    def step(self):
        for p in self.params:
            if p.grad is not None:
                b = self.b[self.key(p)] = self.momentum * self.b.get(self.key(p), 0) + p.grad.data
                p.data -= self.lr * b


class Shared(Momentum):
    def key(self, p):
        return None


class Forgetful(Momentum):
    def step(self):
        self.b = {}
        super().step()


class Zero(Momentum):
    def step(self):
        for p in self.params:
            p.grad = tg.zeros_like(p) if p.grad is None else p.grad
        super().step()


class Kept(Momentum):
    def step(self):
        for p in self.params:
            if p.grad is not None:
                self.b[p] = self.momentum * self.b[p] + p.grad.data if p in self.b else p.grad.data
                p.data -= self.lr * self.b[p]


class Unprepared(Momentum):
    def step(self):
        for p in self.params:
            self.b[p] = self.momentum * self.b.get(p, 0) + p.grad.data
            p.data -= self.lr * self.b[p]


class Unwritten(Momentum):
    def step(self):
        for p in self.params:
            p = p - self.lr * 1.0


@pytest.mark.parametrize("work, mistake", [
    (Momentum, None), (Shared, "one state for all parameters"), (Forgetful, "state begins anew at each step"),
    (Zero, "no gradient taken as zero"), (Kept, "gradient kept without a copy"),
    (Unprepared, "parameter without a gradient not expected"), (Unwritten, "parameter never written")])
def test_what_a_class_may_get_wrong_beside_its_lines(work, mistake):
    found = tg.lab.grade(work, "momentum")
    assert found.mistake == mistake and found.passed == (mistake is None), found


def test_a_gradient_changed_in_place():
    class InPlace:
        def __init__(self, params, lr):
            self.params, self.lr = params, lr

        def step(self):
            for p in self.params:
                if p.grad is not None:
                    p.grad.data[...] *= self.lr
                    p.data -= p.grad.data
    assert tg.lab.grade(InPlace, "SGD").mistake == "gradient changed in place"

    def step(w, g, lr):
        g *= lr
        return w - g
    assert tg.lab.grade(step, "SGD").mistake == "gradient changed in place"


class CountsParameters(FromScratch):
    def step(self):
        for p in self.params:
            if p.grad is not None:
                self.t += 1
                self.update(p, p.grad.numpy())


class FromZero(FromScratch):
    def step(self):
        self.t -= 1
        super().step()
        self.t += 1


class FromZeroLater(FromScratch):
    def update(self, p, g):
        self.t, t = max(self.t - 1, 0), self.t
        super().update(p, g)
        self.t = t


def test_counts_that_are_wrong():
    assert tg.lab.grade(CountsParameters, "Adam").mistake == "t counts parameters"
    assert tg.lab.grade(FromZeroLater, "Adam").mistake == "t from 0"

    def adam(w, g, state, t, lr, beta1, beta2):
        return w - lr / (1 - beta1 ** (t - 1)) * g
    found = tg.lab.grade(adam, "Adam")
    assert found.mistake == "t from 0" and "ZeroDivisionError" in found.words and "beta1 ** (t - 1)" in found.words


# ---- several at once, other optimizers, and what stops -------------------------------------------------------------


def test_two_mistakes_at_once_are_both_named():
    def adam(p, g, m, v, t, lr, beta1, beta2, eps):
        m = beta2 * m + (1 - beta2) * g
        v = beta1 * v + (1 - beta1) * g ** 2
        p = p + lr * m / (1 - beta2 ** t) / (sqrt(v / (1 - beta1 ** t)) + eps)
        return p, m, v
    found = tg.lab.grade(adam, "Adam", hints=2)
    assert found.mistake == "ascends and betas exchanged"
    assert "lines of m, v, m̂, v̂ and p" in found.words and "p ← p + lr·m̂" in found.hint
    assert tg.lab.grade(adam, "Adam", hints=0).hint == "" and "β₁" not in tg.lab.grade(adam, "Adam").hint


def test_the_wrong_optimizer_is_recognised_and_the_nearest_mistake_told():
    assert tg.lab.grade(FromScratch, "Lion").mistake == "Adam in place of Lion"

    def adagrad(w, g, state, t, lr, eps):
        s = state["s"] = state.get("s", 0) + g ** 2 * (1 if t < 5 else 2)
        return w - lr * g / np.sqrt(s + eps)
    found = tg.lab.grade(adagrad, "Adagrad")
    assert found.mistake is None and 'nearest is "eps inside the root"' in found.words


def test_what_stops_is_told_with_its_line():
    class Misspelt(Momentum):
        def step(self):
            for p in self.params:
                p.data = p.data - self.learning_rate
    found = tg.lab.grade(Misspelt, "momentum")
    line = Misspelt.step.__code__.co_firstlineno + 2
    assert f"in line {line}: `p.data = p.data - self.learning_rate`" in found.words and found.score == 0
    assert "no attribute" in found.words and found.difference is None and "<td" in found._repr_html_()


@pytest.mark.parametrize("body, mistake, words", [
    (lambda w, g: None, "nothing returned", "returns nothing"),
    (lambda w, g: (w, g), "more than the parameter returned", "alone"),
    (lambda w, g: w.sum(), "another shape returned", "shape () for a parameter of shape (1,)")])
def test_what_a_function_may_return(body, mistake, words):
    found = tg.lab.grade(body, "SGD")
    assert found.mistake == mistake and words in found.words


def test_a_rule_that_cannot_be_read_says_why():
    def rule(p, g, lr):
        if lr:
            p = p - lr * g
        return p
    found = tg.lab.grade(rule, "SGD")
    assert not found.passed and "cannot read `if lr:" in found.words and "not run" in str(found)


@pytest.mark.parametrize("call, error, words", [
    (lambda: tg.lab.grade(Momentum, "Lino"), ValueError, "Lion"),
    (lambda: tg.lab.grade(Momentum, 3), TypeError, "like must be the name"),
    (lambda: tg.lab.grade(Momentum([]), "SGD"), TypeError, "hand in the class itself"),
    (lambda: tg.lab.grade(int, "SGD"), TypeError, "no method step"),
    (lambda: tg.lab.grade(lambda w: w, "SGD"), TypeError, "a rule takes p, g"),
    (lambda: tg.lab.grade(lambda w, g, q: w, "SGD"), TypeError, "asks for q, which SGD does not have"),
    (lambda: tg.lab.grade(Momentum, "SGD", hints=3), ValueError, "hints must be 0"),
    (lambda: tg.lab.grade(Momentum, "PolyakSGD"), TypeError, "more than gradients"),
    (lambda: tg.lab.grade(Momentum, "LBFGS"), TypeError, "more than gradients")])
def test_bad_input(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_an_optimizer_that_is_more_than_its_rule_is_graded_without_names():
    assert tg.lab.grade(tg.optim.Shampoo, "Shampoo").passed and tg.lab.list_mutants("Shampoo") == []
