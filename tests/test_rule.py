"""A rule is read once: split into host and body, printed, and run the same by every backend."""

import ctypes
import subprocess
from shutil import which

import numpy as np
import pytest
from _optimizers import rules

import tinygrad_opt as tg
from tinygrad_opt import backend
from tinygrad_opt.backend import numpy as numpy_backend
from tinygrad_opt.backend.source import cuda_source, numba_source
from tinygrad_opt.language import REDUCTIONS
from tinygrad_opt.optim import adam
from tinygrad_opt.rule import Rule, RuleError, cbrt, exp, isnan, log, maximum, minimum, sign, sqrt, tanh, where


def everything(p, g, a, b, k, t, lr, beta1):
    """Every function and operator that a rule may use."""
    rate = lr / (1 - beta1 ** t)
    k = k * beta1
    down = (g < 0) | ~(g * a <= 1) & (a == a)
    a = where(down, beta1 * a + (1 - k) * g, maximum(a, minimum(g, 0.5)))
    b = b + sign(g) * sqrt(abs(a)) - (b - (a - g)) / 3
    step = where(isnan(a), 0, a ** 2 / (1 + b ** 2) ** 0.5)
    p -= rate * step
    return p, a, b, k


def transcendental(p, g, m, lr):
    m = exp(-abs(g)) + log(1 + g ** 2) * tanh(m) + cbrt(g)
    p = p - lr * m ** 3
    return p, m


RULES = {"everything": Rule(everything), **rules()}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
VALUES = {"t": 3, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01, "eta2": 1.2,
          "beta3_warmup": 10, "alpha_warmup": 10}
OTHERWISE = 0.5                     # every other option, and memory
DTYPES = ["float32", "float64"]


def arrays_for(rule, dtype, n=1001):
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(n).astype(dtype) for _ in rule.arrays]
    # A mean square (v) is larger than the square of the mean (m).
    return [{"p": a, "g": a, "v": abs(a) + 10}.get(name, abs(a)) for name, a in zip(rule.arrays, arrays)]


def take(compile, rule, dtype, table):
    """Run all passes of a rule over a table whose rows are one parameter; return what the last one says."""
    found, given = [], [VALUES.get(name, OTHERWISE) for name in (*rule.options, *rule.memory)]
    for walk in rule.passes:
        said = compile(walk, np.dtype(dtype))(table, walk.host(*given, *found)[0])
        if walk.terms:
            sums = backend.to_numpy(said).sum(axis=(0, 2))
            found += [float(REDUCTIONS[rule.reductions[term]].finish(x)) for term, x in zip(walk.terms, sums)]
    return said


def run_numpy(rule, dtype, arrays):
    result = [a.copy() for a in arrays]
    take(numpy_backend.compile, rule, dtype, [tuple(result)])
    return result


def test_reads_states_memory_and_options():
    rule = Rule(everything)
    assert rule.states == ("a", "b")
    assert rule.memory == ("k",)
    assert rule.options == ("t", "lr", "beta1")


def test_hoists_what_touches_no_array():
    rule = Rule(adam.adamw)
    assert "c0 = 1 - lr * weight_decay" in rule.passes[-1].host_source
    assert rule.passes[-1].lines("c")[0] == ("p", "p * c0")
    assert "beta" not in rule.passes[-1].numpy()


@each_rule
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_body_is_the_function_itself(rule, dtype):
    """The lowered rule against the plain Python function on float64 arrays."""
    arrays = arrays_for(rule, dtype)
    named = dict(zip(rule.arrays, (a.astype("float64") for a in arrays)))
    given = {**named, **{name: VALUES.get(name, OTHERWISE) for name in (*rule.options, *rule.memory)}}
    expected = rule.function(**given)
    expected = expected if isinstance(expected, tuple) else (expected,)
    got = run_numpy(rule, dtype, arrays)
    tolerance = 2e-6 if dtype == "float32" else 1e-14
    for a, b in zip(expected[:1 + len(rule.states)], [got[0], *got[2:]]):
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)


@each_rule
@pytest.mark.parametrize("dtype", DTYPES)
def test_this_backend_equals_numpy(rule, dtype):
    """Bit for bit on the CPU. A GPU contracts a * b + c."""
    arrays = arrays_for(rule, dtype)
    expected = run_numpy(rule, dtype, arrays)
    mine = [backend.asarray(a.copy()) for a in arrays]
    take(backend.compile, rule, dtype, backend.table([tuple(mine)]))
    for a, b in zip(expected, mine):
        if backend.name == "cupy":
            ulp = np.finfo(dtype).eps
            np.testing.assert_allclose(backend.to_numpy(b), a, rtol=100 * ulp, atol=4 * ulp)
        else:
            np.testing.assert_array_equal(b, a)


def test_functions_of_the_c_library_agree_to_an_ulp():
    rule = Rule(transcendental)
    arrays = arrays_for(rule, "float64")
    expected = run_numpy(rule, "float64", arrays)
    mine = [backend.asarray(a.copy()) for a in arrays]
    take(backend.compile, rule, "float64", backend.table([tuple(mine)]))
    for a, b in zip(expected, mine):
        np.testing.assert_allclose(backend.to_numpy(b), a, rtol=1e-14, atol=1e-14)


CPP = """
#include <cmath>
#include <algorithm>
using std::sqrt; using std::fabs; using std::exp; using std::log; using std::tanh; using std::cbrt; using std::isnan;
using std::pow;
#define __device__
#define __global__
static struct { int x; } blockIdx, threadIdx, blockDim;
static void atomicMin(int* place, int value) { *place = std::min(*place, value); }
"""


@pytest.mark.skipif(which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_text_compiled_as_cpp_agrees_to_a_few_ulp(dtype, tmp_path):
    """The kernel itself, with its table: blocks and threads are two loops around it."""
    rules = {**RULES, "transcendental": Rule(transcendental)}
    walks = {walk: f"{key}_{k}" for key, rule in rules.items() for k, walk in enumerate(rule.passes)}
    text = CPP
    for walk, key in walks.items():
        arguments = ["table", "out", *(["constants"] if walk.rule.each else
                                       [f"constants[{k}]" for k in range(len(walk.constants))])]
        source = cuda_source(walk, np.dtype(dtype)).replace('extern "C"', "")         # which no namespace keeps apart
        text += f"namespace {key}_space {{\n{source}\n}}\n"
        text += f"""extern "C" void run_{key}(const long long* table, int rows, int threads,
            {"double" if walk.terms else "int"}* out, const double* constants) {{
            blockDim.x = threads;
            for (blockIdx.x = 0; blockIdx.x < rows; blockIdx.x++)
                for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
                    {key}_space::{walk.name}({", ".join(arguments)}); }}\n"""
    (tmp_path / "kernels.cpp").write_text(text)
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-o", tmp_path / "kernels.so",
                    tmp_path / "kernels.cpp"], check=True)
    library, threads = ctypes.CDLL(str(tmp_path / "kernels.so")), 7

    def compile(walk, dtype):
        def run(table, constants):
            out = np.zeros((len(table), len(walk.terms), threads)) if walk.terms else np.array([len(table)], np.int32)
            constants = np.array([constants] * len(table) if walk.rule.each else constants, np.float64)
            getattr(library, f"run_{walks[walk]}")(
                *(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a
                  for a in (table, len(table), threads, out, constants)))
            return out
        return run
    for key, rule in rules.items():
        arrays = arrays_for(rule, dtype)
        expected = run_numpy(rule, dtype, arrays)
        mine = [a.copy() for a in arrays]
        cuts = [(0, 400), (400, 1001)]
        table = np.array([[*(a[i:j].ctypes.data for a in mine), j - i] for i, j in cuts], dtype=np.int64)
        spoilt = take(compile, rule, dtype, table)
        for a, b in zip(expected, mine):
            ulp = np.finfo(dtype).eps
            np.testing.assert_allclose(b, a, rtol=8 * ulp, atol=8 * ulp, err_msg=key)
        assert spoilt[0] == (2 if not np.isnan(mine[0]).any() else 0)


@pytest.mark.parametrize("spoiler", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_spoils_its_own_entries_only(spoiler):
    rule = Rule(adam.adamw)
    arrays = arrays_for(rule, "float32", 10)
    clean = run_numpy(rule, "float32", arrays)
    arrays[1][3] = spoiler
    mine = [backend.asarray(a.copy()) for a in arrays]
    spoilt = take(backend.compile, rule, "float32", backend.table([tuple(mine)]))
    others = np.arange(10) != 3
    np.testing.assert_allclose(backend.to_numpy(mine[0])[others], clean[0][others], rtol=1e-6)
    assert np.isnan(backend.to_numpy(mine[0])[3])
    assert spoilt == (None if backend.name == "cupy" else 0)


def test_maximum_and_minimum_keep_nan():
    def clipped(p, g, lr):
        p = p + maximum(minimum(g, lr), -lr) + minimum(lr, maximum(-lr, g))
        return p
    rule = Rule(clipped)
    p, g = backend.asarray(np.zeros(3)), backend.asarray(np.array([np.nan, 5.0, -5.0]))
    backend.compile(rule.passes[-1], np.dtype("float64"))(backend.table([(p, g)]), rule.passes[-1].host(1.0)[0])
    np.testing.assert_array_equal(backend.to_numpy(p), [np.nan, 2.0, -2.0])


def test_a_called_rule_leaves_the_callers_names_alone():
    def inner(p, g, m, lr):
        g = 2 * g
        m = m + g
        p = p - lr * m
        return p, m

    def outer(p, g, m, s, lr):
        q, m = inner(p, g, m, lr)
        s = s + g
        p = (p + q) / 2
        return p, m, s
    rule = Rule(outer)
    expected = outer(1.0, 3.0, 0.5, 0.0, 0.1)
    arrays = [np.array([x]) for x in (1.0, 3.0, 0.5, 0.0)]
    numpy_backend.compile(rule.passes[-1], np.dtype("float64"))([tuple(arrays)], rule.passes[-1].host(0.1)[0])
    assert [arrays[k].item() for k in (0, 2, 3)] == pytest.approx(expected, rel=1e-15)
    assert arrays[3].item() == 3.0


def test_a_call_reads_as_if_its_lines_stood_there():
    """A result that goes back into the name that was passed, or into a new one, needs no other name."""
    def mean(m, x, beta):
        m = beta * m + (1 - beta) * x
        return m

    def outer(p, g, m, lr, beta):
        q = mean(p, g, beta)
        m = mean(m, g + q, beta)
        m = mean(m, m, beta)
        p = p - lr * m
        return p, m
    rule = Rule(outer)
    assert rule.text().splitlines() == [
        "m₁ ← p", "m₁ ← β·m₁ + (1 − β)·g", "q ← m₁",
        "x ← g + q", "m ← β·m + (1 − β)·x",
        "m₁ ← m", "m₁ ← β·m₁ + (1 − β)·m", "m ← m₁",
        "p ← p − lr·m"]
    arrays = [np.array([x]) for x in (1.0, 3.0, 0.5)]
    numpy_backend.compile(rule.passes[-1], np.dtype("float64"))([tuple(arrays)], rule.passes[-1].host(0.1, 0.25)[0])
    assert [arrays[k].item() for k in (0, 2)] == pytest.approx(outer(1.0, 3.0, 0.5, 0.1, 0.25), rel=1e-15)


def two(g):
    h = -g
    return g, h


def takes_one(p, g, lr):
    g = two(g)
    p = p - lr * g
    return p


def test_formula_is_the_rule():
    assert Rule(adam.adamw).text() == (
        "p ← p·(1 − lr·weight_decay)\nm ← β₁·m + (1 − β₁)·g\nv ← β₂·v + (1 − β₂)·g^2\n"
        "m̂ ← m / (1 − β₁^t)\nv̂ ← v / (1 − β₂^t)\np ← p − lr·m̂ / (sqrt(v̂) + ε)")
    latex = Rule(adam.adamw, maximize=True).latex()
    assert r"g &\leftarrow -g \\" in latex
    assert r"\theta &\leftarrow \theta - \frac{\eta \, \hat{m}}{\sqrt{\hat{v}} + \epsilon}" in latex
    assert latex.count("{") == latex.count("}") and latex.count(r"\left(") == latex.count(r"\right)")


def test_every_formula_is_drawn_by_matplotlib():
    from matplotlib.mathtext import MathTextParser
    parser = MathTextParser("path")
    for rule in rules().values():
        for line in rule.latex().splitlines()[1:-1]:
            parser.parse("$" + line.replace("&", "").removesuffix(r" \\") + "$")


def test_rules_differentiate():
    """The rule on Tensors: gradients flow through the update to lr."""
    lr = tg.tensor(0.1, requires_grad=True, dtype=tg.float64)
    p, g = tg.tensor([1.0, 2.0], dtype=tg.float64), tg.tensor([0.5, -1.0], dtype=tg.float64)
    zero = tg.zeros(2, dtype=tg.float64)
    new, *_ = adam.adamw(p, g, zero, zero, 1, lr, 0.9, 0.999, 1e-8, 0.0)
    new.sum().backward()
    assert lr.grad.item() == pytest.approx(0.0, abs=1e-7)          # the two signs cancel


def loops(p, g, lr):
    for _ in range(3):
        p = p - lr * g
    return p


def chooses(p, g, lr):
    p = p if g > 0 else -p
    return p


def calls(p, g, lr):
    p = p - lr * np.fft.fft(g)
    return p


HALF = 0.5


def unknown(p, g, lr):
    p = p - HALF * lr * g
    return p


def nested(p, g, lr):
    p = p - lr * two(g)
    return p


def forgets(p, g, lr):
    p = p - lr * g


def renames(p, g, m, lr):
    q = p - lr * g
    return q, m


def computes(p, g, m, lr):
    return p - lr * g, m


def reserved(p, g, lr):
    double = lr * g
    p = p - double
    return p


@pytest.mark.parametrize("function, words", [
    (loops, "cannot read `for"), (chooses, "cannot read `p if g > 0 else -p`"), (calls, "a rule may call"),
    (unknown, "does not know HALF"),
    (nested, "on a line of their own"),
    (forgets, "without `return p"), (takes_one, "two returns (g, h), which does not fit (g)"),
    (renames, "returns p first"), (computes, "by name"), (reserved, "double is taken"),
    (lambda p, g: p, "def"), (len, "source"),
], ids=lambda x: getattr(x, "__name__", None))
def test_what_cannot_be_read_says_why(function, words):
    with pytest.raises(RuleError) as error:
        Rule(function)
    assert words in str(error.value)


def test_numba_source_has_no_bare_literal():
    """An int or float beside a float32 would make the loop run in float64."""
    body = numba_source(Rule(everything).passes[-1], np.dtype("float32")).split("for _i in range(_length):")[1]
    assert not any(character.isdigit() and before in " (" for before, character in zip(body, body[1:]))
