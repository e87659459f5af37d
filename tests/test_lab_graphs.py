"""Drawn graphs: the numbers in them, what is left out, and a layout in which nothing lies on anything else."""

import re
import time
import xml.etree.ElementTree as ElementTree
from itertools import combinations, pairwise

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab.drawing import boxes
from tinygrad_opt.lab.drawing.layered import Layout, _Web, arrange

SVG = "{http://www.w3.org/2000/svg}"
draw = tg.lab.draw_graph


def leaf(value):
    return tg.tensor(value, requires_grad=True, dtype=tg.float64)


def lesson():
    w, x, b = leaf(0.5), leaf(3.0), leaf(-1.0)
    u = w * x
    v = u + b
    return tg.tanh(v), {"w": w, "x": x, "b": b, "u": u, "v": v}


def network():
    tg.manual_seed(0)
    model = tg.nn.Sequential(tg.nn.Linear(2, 16), tg.nn.ReLU(), tg.nn.Linear(16, 16), tg.nn.ReLU(), tg.nn.Linear(16, 1))
    return model, ((model(tg.randn(8, 2)) - tg.randn(8, 1)) ** 2).mean()


def derivative(function, times):
    x = leaf(1.0)
    y = function(x)
    for _ in range(times):
        y, = tg.grad(y, x, create_graph=True)
    return y, x


def crossed():
    xs = [leaf(float(k)) for k in range(4)]
    products = [a * b for a, b in combinations(xs, 2)]
    sums = [products[k] + products[(2 * k + 3) % 6] for k in range(6)]
    return sum(a * b for a, b in zip(sums, reversed(products)))


def chain(count):
    y = leaf(0.5)
    for k in range(count):
        y = tg.sin(y) if k % 3 else 1.01 * y
    return y


PICTURES = {"lesson": lambda: lesson()[0], "network": lambda: network()[1], "crossed": crossed,
            "tanh": lambda: derivative(tg.tanh, 3)[0], "chain": lambda: chain(300), "leaf": lambda: leaf(1.0),
            "stack": lambda: tg.stack([leaf(float(k)) for k in range(100)]).sum(),
            "square": lambda: (lambda x: x * x)(leaf(2.0)), "constant": lambda: tg.ones(3, 2)}


# ---- what is in it ----------------------------------------------------------------------------------------


def test_the_lesson_shows_every_value_and_gradient():
    y, names = lesson()
    graph = draw(y, names={**names, "y": y})
    boxes_of = {node.name: node for node in graph.nodes}
    slope = 1 - np.tanh(0.5) ** 2
    values = {"w": 0.5, "x": 3.0, "b": -1.0, "u": 1.5, "v": 0.5, "y": np.tanh(0.5)}
    slopes = {"w": 3 * slope, "x": 0.5 * slope, "b": slope, "u": slope, "v": slope, "y": 1.0}
    assert {name: node.value.item() for name, node in boxes_of.items()} == values
    assert {name: node.gradient.item() for name, node in boxes_of.items()} == pytest.approx(slopes, rel=1e-12)
    assert [(node.kind, node.label) for node in graph.nodes] == [
        ("leaf", ""), ("leaf", ""), ("operation", "w * x"), ("leaf", ""), ("operation", "u + b"), ("result", "tanh(v)")]
    assert [(graph.nodes[edge.source].name, graph.nodes[edge.target].name) for edge in graph.edges] == [
        ("w", "u"), ("x", "u"), ("u", "v"), ("b", "v"), ("v", "y")]
    assert all(edge.flows for edge in graph.edges)
    assert names["w"].grad is None
    y.backward()                                        # nothing was freed
    assert names["w"].grad.item() == boxes_of["w"].gradient.item()


def test_what_was_not_kept_is_computed_again_to_the_bit():
    tg.manual_seed(0)
    x, made = tg.randn(3, 4).requires_grad_(), {}

    def keep(y):
        made[f"t{len(made)}"] = y
        return y
    a = keep(keep(x + 1.0) * np.float32([1, 2, 3, 4]))
    b = keep(keep(tg.concatenate([a, x], 0))[1:5])
    c = keep(tg.where(b > 0, keep(-b), keep(b.reshape(4, 4).T)))
    d = keep(tg.linear_relu(keep(c.mean(axis=0, keepdims=True)), keep(c - 1)))
    graph = draw(keep(d.sum()), names=made)
    shown = {node.name: node.value for node in graph.nodes if node.name}
    assert shown.keys() == made.keys()
    assert all(shown[name].tobytes() == np.ascontiguousarray(y.numpy()).tobytes() for name, y in made.items())


def test_gradients_are_those_of_grad_and_hooks_do_not_see_them():
    model, loss = network()
    seen = []
    model[0].weight.register_hook(lambda g: seen.append(g))
    hidden = loss._node.parents[0]
    graph = draw(loss, model=model)
    expected = tg.grad(loss, list(model.parameters()), retain_graph=True)
    count = len(seen)
    drawn = {node.name: node.gradient for node in graph.nodes if node.kind == "leaf"}
    assert drawn.keys() == dict(model.named_parameters()).keys() and hidden.args is not None
    assert all(np.array_equal(drawn[name], g.numpy()) for (name, _), g in zip(model.named_parameters(), expected))
    draw(loss)
    assert len(seen) == count == 1 and model[0].weight.grad is None


def test_the_way_of_the_gradient_and_what_stands_beside_it():
    x, w = tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0], requires_grad=True)
    graph = draw((w * x).sum(), names={"x": x, w: "w"})
    assert [(node.kind, node.name, node.gradient is None) for node in graph.nodes] == [
        ("leaf", "w", False), ("constant", "x", True), ("operation", "", False), ("result", "", False)]
    assert [edge.flows for edge in graph.edges] == [True, False, True]
    assert 'class="tgg-way"' in graph.svg and 'class="tgg-plain"' in graph.svg


def test_derivatives_are_told_apart():
    # Of the first derivative of tanh the second needs nothing, and the third something of the second.
    for times, orders in enumerate([{0}, {0, 1}, {0, 2}, {0, 2, 3}]):
        graph = draw(derivative(tg.tanh, times)[0] + 0.0)
        assert {node.order for node in graph.nodes if node.kind == "operation"} == orders
        assert graph.nodes[-1].order == times
    y, x = derivative(tg.sin, 3)
    shown = {node.label: (node.order, node.value.item()) for node in draw(y, names={"x": x}).nodes}
    assert shown == {"": (0, 1.0), "cos(x)": (3, np.cos(1.0)), "constant": (0, -1.0), "*": (3, -np.cos(1.0)),
                     "clone": (3, -np.cos(1.0))}
    u, v = leaf(1.0), leaf(2.0)
    slopes = tg.grad(u * u * v * v, (u, v), create_graph=True)
    laplacian = sum(tg.grad(slope, z, create_graph=True)[0] for slope, z in zip(slopes, (u, v)))
    assert draw(laplacian).nodes[-1].order == 2         # of two second derivatives
    assert draw(tg.exp(u)).nodes[-1].order == 0         # computed later, and no derivative
    assert draw((slopes[0] ** 2).sum()).nodes[-1].order == 1


def test_words_of_calls():
    x, y = tg.ones(4, 3, requires_grad=True), tg.ones(4, 3, requires_grad=True)
    labels = {"x - y": x - y, "2 / x": 2 / x, "x ** 0.5": x ** 0.5, "x[0]": x[0], "x[..., 1:3]": x[..., 1:3],
              "x[1, 2]": x[1, 2], "sum(x, axis=(0, 1))": x.sum(axis=(0, 1)), "reshape(x, (12,))": x.reshape(12),
              "clamp(x, 0, 1)": tg.clamp(x, 0, 1), "exp(x)": tg.exp(x), "x - ·": x - tg.exp(y), "+": x.exp() + y.exp(),
              "tanh": tg.tanh(x.exp()), "getitem": x[[0, 1]],
              "cross_entropy(x)": tg.nn.functional.cross_entropy(x, [0, 1, 2, 0])}
    assert [draw(z, names={"x": x, "y": y}).nodes[-1].label for z in labels.values()] == [*labels]
    assert draw(x * y, names={"x" * 20: x, "y": y}).nodes[-1].label == "x" * 20 + " * y"
    assert draw(x * y, names={"x" * 30: x, "y": y}).nodes[-1].label == "*"


# ---- much of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [58, 59, 60, 1000])
def test_a_chain_is_shown_whole_or_without_its_middle(count):
    y = leaf(0.5)
    for _ in range(count):
        y = tg.sin(y)
    graph = draw(y)
    more = [node for node in graph.nodes if node.kind == "more"]
    assert len(graph.nodes) == min(count + 1, 60)
    assert [node.label for node in more] == [f"+{count - 58} more: {count - 58} sin"] * (count > 59)
    assert len(graph.edges) == len(graph.nodes) - 1 and graph.nodes[-1].value == y.item()
    x = leaf(0.5)
    z = x
    for _ in range(count):
        z = tg.sin(z)
    z.backward()
    assert graph.nodes[0].gradient == x.grad.item()


def test_ten_thousand_operations_take_a_moment():
    y = leaf(0.5)
    for _ in range(10_000):
        y = tg.sin(y)
    began = time.perf_counter()
    graph = draw(y)
    assert time.perf_counter() - began < 5              # a third of a second on a quiet machine
    assert len(graph.nodes) == 60 and len(graph.svg) < 100_000


@pytest.mark.parametrize("limit", [10, 11, 25, 60])
def test_no_more_boxes_than_the_limit(limit):
    h, weights = tg.zeros(3), [tg.ones(3, 3, requires_grad=True) for _ in range(40)]
    for w in weights:
        h = tg.tanh(w @ h + weights[0][0] + tg.ones(3))
    many = tg.stack([leaf(1.0) for _ in range(100)]).sum() * h.sum()
    for y in (h.sum(), many, crossed()):
        graph = draw(y, limit=limit)
        assert len(graph.nodes) <= limit
        check(graph)


def test_wide_calls_keep_few_leaves():
    graph = draw(tg.stack([leaf(float(k)) for k in range(1000)]).sum())
    assert [node.label for node in graph.nodes] == ["leaf"] * 7 + ["+993 more: 993 leaves", "stack", "sum"]
    assert graph.width < 1200


# ---- layout -----------------------------------------------------------------------------------------------


def overlaps(rectangles):
    return [(a, b) for a, b in combinations(rectangles, 2) if abs(a[0] - b[0]) < (a[2] + b[2]) / 2 - 1e-6
            and abs(a[1] - b[1]) < (a[3] + b[3]) / 2 - 1e-6]


def along(points):
    """Return points on a drawn line, whose curves are those of Bezier with control points at half height."""
    for (x0, y0), (x1, y1) in pairwise(points):
        for t in np.linspace(0, 1, 21):
            yield (x0 + (x1 - x0) * (3 - 2 * t) * t * t,
                   y0 * (1 - t) ** 3 + 1.5 * (y0 + y1) * t * (1 - t) + y1 * t ** 3)


def check(graph):
    rectangles = [(node.x, node.y, node.width, node.height) for node in graph.nodes]
    assert overlaps(rectangles) == []
    for x, y, width, height in rectangles:
        assert width / 2 < x < graph.width - width / 2 and height / 2 < y < graph.height - height / 2
    for edge in graph.edges:
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        assert edge.source < edge.target and source.rank < target.rank
        assert edge.points[0][1] == pytest.approx(source.y + source.height / 2)
        assert edge.points[-1][1] == pytest.approx(target.y - target.height / 2)
        assert abs(edge.points[0][0] - source.x) < source.width / 2
        assert abs(edge.points[-1][0] - target.x) < target.width / 2
        assert [y for _, y in edge.points] == sorted(y for _, y in edge.points)
        for x, y in along(edge.points):
            assert 0 < x < graph.width
            assert not any(abs(x - a) < w / 2 - 1e-6 and abs(y - b) < h / 2 - 1e-6 for a, b, w, h in rectangles)


@pytest.mark.parametrize("picture", PICTURES)
def test_nothing_lies_on_anything(picture):
    check(draw(PICTURES[picture]()))


def test_the_tester_can_fail():
    assert overlaps([(0, 0, 10, 10), (9, 9, 10, 10)]) and not overlaps([(0, 0, 10, 10), (10, 0, 10, 10)])
    graph = draw(lesson()[0])
    graph.nodes[0].x = graph.nodes[1].x
    with pytest.raises(AssertionError):
        check(graph)
    graph = draw(chain(5))
    graph.edges[0].points[-1] = (graph.edges[0].points[-1][0], graph.nodes[-1].y)
    with pytest.raises(AssertionError):
        check(graph)


@pytest.mark.parametrize("seed", range(8))
def test_layouts_of_graphs_at_random(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 60))
    edges = [(int(u), v) for v in range(1, n) for u in random.integers(max(0, v - 12), v, int(random.integers(0, 4)))]
    sizes = [(float(random.integers(20, 200)), float(random.integers(20, 80))) for _ in range(n)]
    layout = arrange(sizes, edges)
    assert layout == arrange(sizes, edges)
    rectangles = [(*center, *size) for center, size in zip(layout.centers, sizes)]
    assert overlaps(rectangles) == []
    assert all(layout.ranks[u] < layout.ranks[v] for u, v in edges)
    assert all(-1e-6 <= x - w / 2 and x + w / 2 <= layout.width + 1e-6 and y + h / 2 <= layout.height + 1e-6
               for x, y, w, h in rectangles)
    for route in layout.routes:
        for x, y in along(route):
            assert not any(abs(x - a) < w / 2 - 1e-6 and abs(y - b) < h / 2 - 1e-6 for a, b, w, h in rectangles)


def test_chains_are_straight_and_lines_do_not_cross_where_they_need_not():
    graph = draw(network()[1])
    assert len({round(node.x, 6) for node in graph.nodes if node.kind in ("operation", "result")}) == 1
    edges = [(0, 7), (1, 6), (2, 5), (3, 4), *((k, 8) for k in range(4, 8))]
    web = _Web([(40, 20)] * 9, edges, [0] * 4 + [1] * 4 + [2])
    web.layers[0].reverse()
    web._number(web.layers[0])
    assert web.crossings() == 6
    web.order()
    assert web.crossings() == 0
    long = arrange([(40, 20)] * 6, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)])
    assert len({x for x, _ in long.routes[-1][2:-2]}) == 1


def test_a_circle_has_no_layers_and_nothing_is_an_empty_layout():
    with pytest.raises(ValueError, match="in a circle"):
        arrange([(10, 10)] * 3, [(0, 1), (1, 2), (2, 1)])
    assert arrange([], []) == Layout([], [], [], 0.0, 0.0)


# ---- SVG and DOT ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", PICTURES)
def test_the_picture_is_whole_and_its_words_stay_in_their_boxes(picture):
    y = PICTURES[picture]()
    graph = draw(y)
    assert graph.svg == draw(y).svg == graph._repr_svg_()
    root = ElementTree.fromstring(graph.svg)
    assert not re.search(r"(href|url\(|<script|<image)", graph.svg)
    groups = [group for group in root.iter(SVG + "g") if group.find(SVG + "title") is not None]
    assert len(groups) == len(graph.nodes)
    for group in groups:
        box = group.find(SVG + "rect")
        left, width = float(box.get("x")), float(box.get("width"))
        for words in group.findall(SVG + "text"):
            room = len(words.text) * 0.602 * 12             # DejaVu Sans Mono, and none of the others is wider
            x = float(words.get("x")) - (room if words.get("text-anchor") == "end" else 0)
            assert left < x and x + room < left + width
    assert "prefers-color-scheme: dark" in graph.svg


def test_names_are_escaped_and_shortened():
    x, wide = leaf(1.0), leaf(2.0)
    graph = draw(x * wide, names={'<&"\x00' + "name" * 20: x, "学习率": wide})
    root = ElementTree.fromstring(graph.svg)
    titles = [words.text for words in root.iter(SVG + "text") if words.get("font-weight")]
    assert titles[0].startswith('<&"?name') and len(titles[0]) == boxes.LONGEST and "…" in titles[0]
    assert graph.nodes[1].width > 3 * 2 * 7 + 2 * boxes.PADDING and titles[2] == "*"


def test_dot_can_be_read():
    x = leaf(1.0)
    graph = draw(x * 2.0 + 1.0, names={'a"b\\': x})
    head, style, *body, foot = graph.dot().splitlines()
    assert head == "digraph {" and foot == "}" and style.startswith("  node [")
    node = re.compile(r'  n(\d+) \[label="((?:[^"\\]|\\.)*)", style="[a-z,]+", fillcolor="#\w{6}", color="#\w{6}"\]')
    edge = re.compile(r'  n(\d+) -> n(\d+) \[color="#\w{6}"\]')
    found = [node.fullmatch(line) for line in body[:len(graph.nodes)]]
    assert [int(match[1]) for match in found] == [0, 1, 2]
    assert found[0][2] == 'a\\"b\\\\  float64\\n1\\ngrad 2'
    assert [tuple(map(int, edge.fullmatch(line).groups())) for line in body[3:]] == [(0, 1), (1, 2)]


def test_saved(tmp_path):
    graph = draw(lesson()[0])
    assert graph.save(tmp_path / "graph.svg").read_text(encoding="utf-8") == graph.svg
    assert graph.save(str(tmp_path / "graph.gv")).read_text(encoding="utf-8") == graph.dot()
    with pytest.raises(ValueError, match=r"must end in \.svg, \.dot, \.gv; got 'graph.png'"):
        graph.save("graph.png")


def test_without_values_gradients_or_shapes():
    x = tg.ones(2, 3, requires_grad=True)
    graph = draw((x * 2).sum(), values=False, gradients=False, shapes=False)
    assert all(node.value is node.gradient is None for node in graph.nodes) and "(2, 3)</text>" not in graph.svg
    assert "(2, 3)</text>" in draw((x * 2).sum()).svg
    assert all(node.gradient is None for node in draw(x * 2).nodes)


@pytest.mark.parametrize("array, text", [(np.int64(3), "3"), (np.array(True), "True"), (np.zeros((0, 3)), "empty"),
                                         (np.array([np.nan, 1.0]), "[nan, 1]"),
                                         (np.full(5, np.inf), "mean inf, norm inf"),
                                         (np.array([1e-30, 123456.0]), "[1e-30, 1.23e+05]")])
def test_numbers_in_few_letters(array, text):
    assert boxes.numbers(np.asarray(array)) == text


def test_where_a_nan_began_is_seen():
    x = leaf([0.0, 1.0])
    with np.errstate(all="ignore"):
        y = (tg.log(x) * x).sum()
    graph = draw(y, names={"x": x})
    assert [str(node.value) for node in graph.nodes] == ["[0. 1.]", "[-inf   0.]", "[nan  0.]", "nan"]
    assert np.array_equal(graph.nodes[0].gradient, [np.nan, 1.0], equal_nan=True)
    assert "[-inf, 0]" in graph.svg


# ---- bad input --------------------------------------------------------------------------------------------


def test_errors_say_what_came_and_what_to_do():
    x = leaf(2.0)
    for given, message in ((3.0, "got float"), (tg.nn.Linear(1, 1), "pass a loss or another result; got Linear")):
        with pytest.raises(TypeError, match=message):
            draw(given)
    with pytest.raises(TypeError, match="w -> float does neither"):
        draw(x * x, names={"w": 2.0})
    with pytest.raises(TypeError, match="Tensor -> int does neither"):
        draw(x * x, names={x: 2})
    with pytest.raises(TypeError, match="names maps .*got list"):
        draw(x * x, names=[x])
    with pytest.raises(TypeError, match="model is a Module.*got str"):
        draw(x * x, model="model")
    for limit in (9, True, 20.0):
        with pytest.raises(ValueError, match="at least 10"):
            draw(x * x, limit=limit)
    for y in (tg.ones(2), x.reshape(1, 1).expand(2, 2)):
        with pytest.raises(ValueError, match="gradients=True needs a scalar"):
            draw(y, gradients=True)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match="draw it before backward"):
        draw(y)


def test_a_part_that_was_freed_is_shown_as_that():
    x = leaf(2.0)
    trunk = tg.exp(x)
    y, z = trunk * 2, trunk * 3
    z.backward()
    graph = draw(y)
    assert [node.label for node in graph.nodes] == ["exp, freed", "· * 2"]
    assert all(node.gradient is None for node in graph.nodes) and graph.nodes[1].value == y.item()


def test_numbers_that_were_written_to_since_are_no_gradient():
    x = leaf(2.0)
    y = x * x
    x.data -= 1.0
    with pytest.raises(RuntimeError, match="written to after the forward pass"):
        draw(y)
