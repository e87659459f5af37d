"""How a drawn graph looks: the text in its boxes, as SVG for light and dark pages, and as DOT."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..style import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, YELLOW

if TYPE_CHECKING:
    from .graphs import Graph, GraphNode

MARGIN, PADDING, LINE = 18.0, 10.0, 17.0            # pixels around the graph, inside a box, from line to line
CELL, FONT = 7.3, 12                                # pixels: the width of a letter, all being equally wide; its size
LONGEST = 30                                        # letters of a name
NUMBERS = 4                                         # most numbers that are shown one by one


class Text(NamedTuple):
    """What is written in a box: two words in the first line, then one or two lines."""

    title: str
    shape: str
    value: str
    gradient: str


def text(node: GraphNode, shapes: bool) -> Text:
    """Return what is written in a box."""
    if node.kind == "more":
        title, _, details = node.label.partition(": ")
        return Text(title, "", details, "")
    dtype = "" if node.dtype == "float32" else node.dtype
    shape = " ".join(filter(None, (str(node.shape) if node.shape else "", dtype))) if shapes else ""
    return Text(shortened(_title(node)), shape, "" if node.value is None else numbers(node.value),
                "" if node.gradient is None else f"grad {numbers(node.gradient)}")


def _title(node: GraphNode) -> str:
    return printable(" = ".join(filter(None, (node.name, node.label))))


def numbers(array: np.ndarray) -> str:
    """Return a few numbers one by one, of more their mean and norm.

    Examples
    --------
    >>> import numpy as np
    >>> from tinygrad_opt.lab.drawing.boxes import numbers
    >>> numbers(np.float32(1 / 3)), numbers(np.array([[1.0], [-2.5]])), numbers(np.ones((3, 3)))
    ('0.3333', '[[1], [-2.5]]', 'mean 1, norm 3')
    """
    if array.size == 1 and not array.ndim:
        return f"{array.item():.4g}" if array.dtype.kind == "f" else str(array.item())
    if not array.size:
        return "empty"
    if array.size <= NUMBERS:
        words = np.array2string(array, separator=", ", max_line_width=1000, formatter={"float": lambda x: f"{x:.3g}"})
        words = " ".join(words.split())
        if len(words) <= LONGEST:
            return words
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        return f"mean {wide.mean():.3g}, norm {np.sqrt(np.square(wide).sum()):.3g}"


def shortened(words: str) -> str:
    """Return words without their middle where they are long."""
    return words if len(words) <= LONGEST else f"{words[:LONGEST // 2 - 1]}…{words[-LONGEST // 2:]}"


def printable(words: str) -> str:
    """Return words with question marks for letters that cannot be shown."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)


def cells(words: str) -> int:
    """Return how many letters wide words are: of East Asian writing each is as wide as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in words)


def size(words: Text) -> tuple[float, float]:
    """Return the width and the height of the box around a text."""
    first = cells(words.title) + (2 + cells(words.shape) if words.shape else 0)
    widest = max(first, cells(words.value), cells(words.gradient))
    lines = 1 + bool(words.value) + bool(words.gradient)
    return max(widest * CELL, 24.0) + 2 * PADDING, lines * LINE + PADDING


# ---- SVG --------------------------------------------------------------------------------------------------

LOOKS = {                                           # fill and line on a light page, then on a dark one
    "leaf": ("#E1EFF8", BLUE, "#0D2C45", SKY),
    "constant": ("#F2F3F4", "#8C959F", "#21262D", "#7D858E"),
    "operation": ("#FFFFFF", "#57606A", "#161B22", "#9198A1"),
    "order1": ("#DDF3EB", GREEN, "#0B3327", "#3FC79A"),
    "order2": ("#F9E8F2", PURPLE, "#3A1F30", "#D993BB"),
    "order3": ("#FAF5D2", YELLOW, "#333005", "#D3C032"),
    "result": ("#FDF0D5", ORANGE, "#3B2A05", ORANGE),
    "more": ("#FFFFFF", "#8C959F", "#161B22", "#9198A1"),
    "panel": ("#FFFFFF", "#D8DEE4", "#161B22", "#30363D"),
    "way": ("none", VERMILION, "none", "#FF8C42"),
    "plain": ("none", "#A3ABB3", "none", "#6E7681"),
    "wayhead": (VERMILION, "none", "#FF8C42", "none"),
    "plainhead": ("#A3ABB3", "none", "#6E7681", "none"),
    "title": ("#1F2328", "none", "#E6EDF3", "none"),
    "muted": ("#656D76", "none", "#9DA5AE", "none"),
    "gradient": ("#A84300", "none", "#FFA657", "none"),
}
WORDS = {"leaf": "requires a gradient", "constant": "constant", "operation": "computed", "result": "result",
         "order1": "for a gradient", "order2": "for a second derivative", "order3": "for a third or higher",
         "way": "the gradient's way"}
DARK = "".join(f".tgg-{name}{{fill:{fill};stroke:{line}}}" for name, (_, _, fill, line) in LOOKS.items())


def svg(graph: Graph, texts: Sequence[Text]) -> str:
    """Return the picture of a graph."""
    rows = _legend(graph)
    width = max(graph.width, MARGIN + max(x + w for row in rows for *_, x, w in row))
    height = graph.height + len(rows) * LINE + 10
    shift = (width - graph.width) / 2
    lines = [_curve(edge.points, "way" if edge.flows else "plain")
             for edge in sorted(graph.edges, key=lambda edge: edge.flows)]             # the way lies on top
    drawn = [_box(node, words) for node, words in zip(graph.nodes, texts)]
    notes = [_note(*note, graph.height + 8 + LINE * k) for k, row in enumerate(rows) for note in row]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(repr(graph))}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" font-size="{FONT}" '
        "font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\">",
        f"<style>@media (prefers-color-scheme: dark){{{DARK}}}</style>",
        f'<rect {_look("panel")} x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8"/>',
        f'<g transform="translate({shift:.1f} 0)">', *lines, *drawn, "</g>", *notes, "</svg>"])


def _look(name: str) -> str:
    fill, line, *_ = LOOKS[name]
    return f'class="tgg-{name}" fill="{fill}" stroke="{line}"'


def _curve(points: Sequence[tuple[float, float]], name: str) -> str:
    """Return a line with its arrow: it leaves and arrives vertically, and so does each curve in it."""
    (x, y), path = points[0], []
    end, bottom = points[-1]
    for (x0, y0), (x1, y1) in pairwise([*points[:-1], (end, bottom - 6)]):
        middle = (y0 + y1) / 2
        path.append(f"V{y1:.1f}" if abs(x1 - x0) < 0.05 else
                    f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
    return (f'<path {_look(name)} stroke-width="{2 if name == "way" else 1.3}" d="M{x:.1f} {y:.1f}{"".join(path)}"/>'
            f'<path {_look(name + "head")} d="M{end:.1f} {bottom:.1f}l-4 -8h8z"/>')


def _kind(node: GraphNode) -> str:
    """Return the name of a box's look."""
    return f"order{min(node.order, 3)}" if node.kind == "operation" and node.order else node.kind


def _box(node: GraphNode, words: Text) -> str:
    left, top = node.x - node.width / 2, node.y - node.height / 2
    edge = ' stroke-width="2.5"' if node.kind == "result" else ""
    edge += ' stroke-dasharray="5 3"' if node.kind in ("more", "constant") else ""
    corner = 3 if node.kind in ("leaf", "constant") else 11
    x, y = left + PADDING, top + PADDING / 2 + LINE - 4.5
    parts = [f"<g><title>{escape(_described(node))}</title>",
             f'<rect {_look(_kind(node))}{edge} x="{left:.1f}" y="{top:.1f}" width="{node.width:.1f}" '
             f'height="{node.height:.1f}" rx="{corner}"/>', _words(words.title, "title", x, y, bold=True)]
    if words.shape:
        parts.append(_words(words.shape, "muted", left + node.width - PADDING, y, "end"))
    for line, name in ((words.value, "title"), (words.gradient, "gradient")):
        if line:
            y += LINE
            parts.append(_words(line, name, x, y))
    return "".join(parts) + "</g>"


def _words(words: str, name: str, x: float, y: float, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text {_look(name)} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def _described(node: GraphNode) -> str:
    """Return what a box shows when one points at it: all that is known, in full."""
    lines = [_title(node)]
    lines += [f"shape {node.shape}, {node.dtype}"] if node.shape is not None else []
    for word, array in (("value", node.value), ("gradient", node.gradient)):
        lines += [f"{word}: {np.array2string(array, threshold=20)}"] if array is not None else []
    return "\n".join(lines)


def _legend(graph: Graph) -> list[list[tuple[str, float, float]]]:
    """Return rows of (look, x, width): what the looks in this picture mean."""
    present = {_kind(node) for node in graph.nodes} | {"way" for edge in graph.edges if edge.flows}
    rows, x = [[]], MARGIN
    for name, words in WORDS.items():
        if name in present:
            width = 22 + len(words) * CELL
            if rows[-1] and x + width > max(graph.width, 340.0):
                rows.append([])
                x = MARGIN
            rows[-1].append((name, x, width))
            x += width + 18
    return rows


def _note(name: str, x: float, width: float, y: float) -> str:
    if name == "way":
        mark = f'<path {_look(name)} stroke-width="2" d="M{x:.1f} {y - 4:.1f}h14"/>'
    else:
        mark = f'<rect {_look(name)} x="{x:.1f}" y="{y - 9:.1f}" width="14" height="10" rx="3"/>'
    return mark + _words(WORDS[name], "muted", x + 22, y)


# ---- DOT --------------------------------------------------------------------------------------------------


def dot(graph: Graph, texts: Sequence[Text]) -> str:
    """Return a graph in the language of Graphviz."""
    def quoted(words: str) -> str:
        return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'
    lines = ["digraph {", '  node [shape=box, fontname="monospace"]']
    for k, (node, words) in enumerate(zip(graph.nodes, texts)):
        fill, line, *_ = LOOKS[_kind(node)]
        style = "filled" if node.kind in ("leaf", "constant") else "filled,rounded"
        label = quoted("\n".join([f"{words.title}  {words.shape}".strip(), *filter(None, words[2:])]))
        lines.append(f'  n{k} [label={label.replace(chr(10), chr(92) + "n")}, style="{style}", fillcolor="{fill}", '
                     f'color="{line}"]')
    for edge in graph.edges:
        line = LOOKS["way" if edge.flows else "plain"][1]
        lines.append(f'  n{edge.source} -> n{edge.target} [color="{line}"]')
    return "\n".join([*lines, "}"]) + "\n"
