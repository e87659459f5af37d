"""The page of a race, and JavaScript as one more reading of a rule: what node computes is what was recorded."""

import ast
import base64
import json
import re
import shutil
import subprocess
import warnings

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab.racing import javascript
from tinygrad_opt.lab.racing.contours import Scene
from tinygrad_opt.language import RuleError, scalar
from tinygrad_opt.rule import Rule, maximum, minimum, sqrt

NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium")
needs_node = pytest.mark.skipif(NODE is None, reason="runs the printed programs with node")
PLANE = [name for name in tg.lab.list_surfaces() if name not in ("chain", "noisy_moons", "reddi")]


def node(expression, *lines):
    """Return what an expression is in JavaScript, after some lines; NaN and infinities come back as None."""
    program = "\n".join([javascript.runtime(), *lines, f"console.log(JSON.stringify({expression}))"])
    done = subprocess.run([NODE, "-"], input=program, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


RUNS = {"sgd": dict(lr=1e-3, momentum=0.9), "lion": dict(lr=0.02), "rmsprop": dict(lr=0.02), "adagrad": dict(lr=0.3),
        "rprop": {}, "adam": dict(lr=0.1), "adamw": dict(lr=0.1, weight_decay=0.1), "nadam": dict(lr=0.1),
        "radam": dict(lr=0.01), "schedule_free_adamw": dict(lr=0.05)}
EXACT = {"sgd", "lion", "rmsprop", "adagrad", "rprop"}                      # the others raise beta to the power t


@pytest.fixture(scope="module")
def walked():
    traces = {name: tg.lab.record(name, "rosenbrock", 100, **options) for name, options in RUNS.items()}
    runs = ", ".join(f"{json.dumps(name)}: {javascript.run_program(trace)}" for name, trace in traces.items())
    surface = javascript.surface_program(tg.lab.surface("rosenbrock"), 2)
    found = node("Object.fromEntries(Object.entries(runs).map(([name, run]) => [name, walk(f, run, [-1.5, 2], 100)]))",
                 f"const f = {surface}, runs = {{{runs}}};") if NODE else {}
    return traces, found


@needs_node
@pytest.mark.parametrize("name", RUNS)
def test_javascript_walks_the_recorded_path(walked, name):
    trace, path = walked[0][name], walked[1][name]
    close = np.testing.assert_array_equal if name in EXACT else (
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13 * np.abs(b).max()))
    close(np.array(path["points"]), trace.path)
    close(np.array(path["heights"]), trace.loss)
    close(np.array(path["slopes"]), trace.gradients["w"])
    for quantity, values in trace.quantities["w"].items():
        if values.ndim == 2 and quantity in path["values"][0][0]:
            close(np.array([[own[quantity] for own in both] for both in path["values"]]), values)


@needs_node
def test_the_surfaces_are_what_they_are():
    points = np.random.default_rng(0).uniform(-2, 2, (4, 2))
    programs = [javascript.surface_program(tg.lab.surface(name), 2) for name in PLANE]
    found = node(f"[{', '.join(programs)}].map((f) => {json.dumps(points.tolist())}.map(f))")
    for name, rows in zip(PLANE, found, strict=True):
        for point, (height, slope) in zip(points, rows):
            w = tg.tensor(point, requires_grad=True)
            value = tg.lab.surface(name)(w)
            value.backward()
            np.testing.assert_allclose([height, *slope], [value.item(), *w.grad.tolist()], rtol=1e-12, atol=1e-12)


@needs_node
def test_a_nan_stays_one_and_powers_keep_their_places():
    def clipped(p, g, lr):
        step = minimum(maximum(g, -1.0), 1.0)
        p = p - lr * step ** 2 ** 0.5 * (-lr) ** 2
        return p
    program = javascript.rule_program(Rule(clipped))
    assert "power(step, power(2, 0.5)) * power(-lr, 2)" in program
    given = [dict(p=1, g=3, lr=0.5), dict(p=1, g=0.25, lr=0.5)]
    results = node(f"[...{json.dumps(given)}, {{p: 1, g: NaN, lr: 1}}].map({program})")
    assert results[0] == {"step": 1, "p": 0.875}
    assert results[1]["p"] == pytest.approx(1 - 0.125 * 0.25 ** 2 ** 0.5, rel=1e-15)
    assert results[2] == {"step": None, "p": None}


def test_a_rule_is_printed_as_it_stands():
    def rule(p, g, v, t, lr, ε):
        v = v + g ** 2
        rate = lr if t > 1 else 2 * lr
        p = p - rate * g / (sqrt(v) + ε)
        return p, v
    assert javascript.rule_program(Rule(rule)) == """({p, g, v, t, lr, ε: u3b5}) => {
  v = v + power(g, 2);
  let rate = (t > 1 ? lr : 2 * lr);
  p = p - rate * g / (sqrt(v) + u3b5);
  return {v, rate, p};
}"""


def test_what_has_no_javascript_says_so():
    def worded(p, g, var, lr):
        var = var + g
        p = p - lr * var
        return p, var
    with pytest.raises(RuleError, match="calls something var"):
        javascript.rule_program(Rule(worded))
    for name, reason in [("soap", "whole matrices"), ("lamb", "sums over all"), ("lbfgs", "no rule")]:
        with pytest.raises(RuleError, match=reason):
            javascript.run_program(tg.lab.record(name, "rosenbrock", 3))
    with pytest.raises(RuleError, match="cannot print `a // b` in javascript"):
        scalar(ast.parse("a // b", mode="eval").body, "javascript")


@pytest.mark.parametrize("function", [
    lambda w: tg.abs(w).sum(0), lambda w: w[0] if w[0] > 0 else -w[0], lambda w: tg.where(w == 0, w, 1.0).sum(0),
    lambda w: w[0] * float(w[1]), lambda w: tg.erf(w).sum(0), lambda w: 3.0])
def test_a_function_that_looks_at_its_numbers_is_not_printed(function):
    with pytest.raises(RuleError, match="cannot be printed as JavaScript"):
        javascript.surface_program(function, 2)


def test_a_run_that_is_more_than_its_rule_is_not_run_again():
    def clip(named, t):
        for _, p in named:
            p.grad.data = p.grad.data.clip(-1, 1)
    clipped = tg.lab.record(lambda params: tg.optim.SGD(params, lr=0.01, grad_transforms=[clip]), "rosenbrock", 5)
    wrapped = tg.lab.record(lambda params: tg.optim.SAM(params, tg.optim.SGD, lr=1e-3), "rosenbrock", 5)
    for trace, reason in [(clipped, "more than its rule"), (wrapped, "more than a gradient"),
                          (tg.lab.record("sophia_h", "rosenbrock", 5), "more than its rule")]:
        with pytest.raises(RuleError, match=reason):
            javascript.run_program(trace)


# ---- the page -----------------------------------------------------------------------------------------------------


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="race">(.*?)</script>', page, re.S)[1])


def test_the_page_holds_the_record_and_asks_nobody():
    traces = {name: tg.lab.record(name, "rosenbrock", 200, **options) for name, options in list(RUNS.items())[:5]}
    page = tg.lab.html_page(traces, "rosenbrock")
    assert len(page.encode()) < 300_000
    assert not re.search(r"https?:|//cdn|@import|url\((?!#)|fetch\(", page.replace("http://www.w3.org/2000/svg", ""))
    assert "default-src 'none'" in page
    data = data_of(page)
    assert data["notes"] == "" and data["heights"] is None and data["minimum"] and data["minima"] == [[1, 1]]
    for path, trace in zip(data["paths"], traces.values(), strict=True):
        np.testing.assert_allclose(np.transpose(path["points"]), trace.path, rtol=1e-5)
        np.testing.assert_allclose(path["heights"], trace.loss, rtol=1e-5)
        assert [line["text"] for line in path["lines"]] == trace.formula.splitlines()
        assert path["spent"] == list(range(201)) and path["label"].endswith(f", lr {trace.options['lr']:.2g}")
        for line in path["lines"]:
            if line["name"] in path["values"]:
                np.testing.assert_allclose(np.transpose(path["values"][line["name"]]).squeeze(),
                                           trace.quantities["w"][line["name"]], rtol=1e-5)


def test_a_page_without_a_click_says_why_and_brings_its_ground():
    traces = {"Adam": tg.lab.record("adam", "noisy_ravine", 5)}
    data, scene = data_of(tg.lab.html_page(traces, "noisy_ravine")), Scene("noisy_ravine", traces, None, 121)
    assert data["notes"] == "A new start cannot be clicked on noisy_ravine: its steps see samples."
    levels = np.frombuffer(base64.b64decode(data["heights"]["levels"]), "<u2").reshape(121, 121)
    np.testing.assert_allclose(levels * data["heights"]["unit"], scene.raised(scene.heights), atol=1e-4)
    page = tg.lab.html_page({"L": tg.lab.record("lbfgs", "booth", 3)}, "booth")
    assert data_of(page)["notes"] == "From a new start these are not run again: L: it has no rule."


def test_words_stay_words():
    label = "</script><script>alert(1)</script>{{data}}<!--"
    page = tg.lab.html_page({label: tg.lab.record("adam", "booth", 3)}, "booth", title="<b>&")
    assert page.count("<script") == 3 and page.count("</script>") == 3 and "<!--" not in page
    assert "<title>&lt;b&gt;&amp;</title>" in page and data_of(page)["paths"][0]["label"].startswith(label)


def test_a_run_that_leaves_the_numbers_has_a_page():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)             # a GPU looks for NaN once in a while only
        trace = tg.lab.record("adam", "rosenbrock", 5, lr=1e200)
    path, = data_of(tg.lab.html_page(trace, "rosenbrock"))["paths"]
    assert path["heights"][0] == 12.5 and path["heights"][-1] is None


def test_wrong_arguments():
    chain, fine = tg.lab.record("adam", "chain", 2), tg.lab.record("adam", "booth", 2)
    for arguments, error, message in [
            ((chain, "chain"), ValueError, "chain has 20"), (({}, "booth"), ValueError, "traces is empty"),
            (({"a": 3}, "booth"), TypeError, "traces must be"), ((fine, "boothe"), ValueError, "nearest are booth"),
            ((fine, lambda w: w.sum()), ValueError, "give box=")]:
        with pytest.raises(error, match=message):
            tg.lab.html_page(*arguments)


HOVER = """
const say = (text) => document.body.append(make("pre", {}, text));
const fire = (type, [x, y]) => {
  const {left, top} = map.getBoundingClientRect();
  map.dispatchEvent(new PointerEvent(type, {clientX: left + x, clientY: top + y, bubbles: true}));
};
const rows = () => [...document.querySelectorAll("#numbers tbody tr")].map((row) => row.textContent).join("|");
const ready = () => {
  if (view === null || !map.querySelector("canvas").width) return setTimeout(ready, 20);
  fire("pointermove", view.pens[0].places[17].split(",").map(Number));
  say(`hovered ${find("#when").textContent}|${rows()}`);
  scrub.value = 3; scrub.dispatchEvent(new Event("input"));
  say(`scrubbed ${find("#when").textContent}|${find("#place").textContent}`);
  fire("click", [view.plot.x(1.5), view.plot.y(1.5)]);
  say(`clicked ${paths[0].points.map((column) => column[0].toFixed(1))} ${find("#status").textContent}`);
  find("#x").value = -1.5; find("#y").value = 2; find("#start").requestSubmit();
  say(`typed ${paths[0].heights.at(-1) - race.paths[0].heights.at(-1)} ${paths[1].absent}`);
};
ready();
"""


@pytest.mark.skipif(CHROMIUM is None, reason="opens the page in chromium")
def test_the_page_in_a_browser(tmp_path):
    trace = tg.lab.record("adam", "rosenbrock", 60, lr=0.1)
    other = tg.lab.record("lbfgs", "rosenbrock", 5)
    page = tg.lab.html_page({"Adam": trace, "L-BFGS": other}, "rosenbrock")
    file = tmp_path / "race.html"
    file.write_text(page.replace("</body>", f"<script>{HOVER}</script></body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=3000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = dict(re.findall(r"<pre>(\w+) (.*?)</pre>", done.stdout))
    m_hat = re.search(r"\|m̂ ← m / \(1 − β₁\^t\)(−[\d.]+)(−[\d.]+)\|", told["hovered"])
    assert told["hovered"].startswith("After 17 steps|loss")
    np.testing.assert_allclose([-float(x[1:]) for x in m_hat.groups()], trace.quantities["w"]["m_hat"][17], rtol=1e-4)
    assert told["scrubbed"] == f"After 3 steps|gradient 3 of {max(60, other.evaluations[-1])}"
    assert told["clicked"].startswith("1.5,1.5 Run here, from (") and "L-BFGS: it has no rule" in told["clicked"]
    drift, absent = told["typed"].split()
    assert abs(float(drift)) < 1e-5 and absent == "true"
