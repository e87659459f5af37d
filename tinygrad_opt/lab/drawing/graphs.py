"""Draw what a Tensor was computed from: every call with its numbers, and the way that the gradient takes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...backend import to_numpy
from ...tensor import Node, Tensor
from . import boxes
from .calls import Record, Rest, Source, written
from .layered import Point, arrange


@dataclass(eq=False)
class GraphNode:
    """A box of a drawn graph.

    Attributes
    ----------
    kind : {"leaf", "constant", "operation", "result", "more"}
        A Tensor that requires a gradient, one that does not, a call, the call that made what is drawn, and
        what stands for all that is not shown.
    name : str
        As it was given; may be empty.
    label : str
        What was called, or what else it is.
    shape : tuple, or None
        Of the result.
    dtype : str
        Of the result.
    order : int
        1 for what was computed for a gradient taken with `create_graph=True`, and from it, 2 for a gradient of that,
        and so on; 0 for the rest.
    value, gradient : array or None
        The result, and the gradient of what is drawn with respect to it.
    rank : int
        0 at the top.
    x, y, width, height : float
        The center and the size of the box, in pixels.
    """

    kind: str
    name: str
    label: str
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    order: int = 0
    value: np.ndarray | None = field(default=None, repr=False)
    gradient: np.ndarray | None = field(default=None, repr=False)
    rank: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


@dataclass
class GraphEdge:
    """A line of a drawn graph, from what was computed first to what was computed from it.

    Attributes
    ----------
    source, target : int
        Places in `Graph.nodes`.
    flows : bool
        Whether the gradient takes this way, from target to source.
    points : list of (x, y)
        Straight between two points with the same x, a curve that begins and ends vertically between others.
    """

    source: int
    target: int
    flows: bool
    points: list[Point] = field(default_factory=list, repr=False)


class Graph:
    """A drawn graph; a notebook shows it.

    Attributes
    ----------
    nodes : list of GraphNode
        The boxes, each after those that it was computed from.
    edges : list of GraphEdge
    svg : str
        The picture, complete in itself, for light and dark pages.
    """

    def __init__(self, nodes: list[GraphNode], edges: list[GraphEdge], shapes: bool = True) -> None:
        self.nodes, self.edges = nodes, edges
        self._texts = [boxes.text(node, shapes) for node in nodes]
        layout = arrange([boxes.size(text) for text in self._texts], [(edge.source, edge.target) for edge in edges])
        for node, text, rank, (x, y) in zip(nodes, self._texts, layout.ranks, layout.centers):
            node.width, node.height = boxes.size(text)
            node.rank, node.x, node.y = rank, x + boxes.MARGIN, y + boxes.MARGIN
        for edge, points in zip(edges, layout.routes):
            edge.points = [(x + boxes.MARGIN, y + boxes.MARGIN) for x, y in points]
        self.width, self.height = layout.width + 2 * boxes.MARGIN, layout.height + 2 * boxes.MARGIN
        self.svg = boxes.svg(self, self._texts)

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<graph of {len(self.nodes)} boxes and {len(self.edges)} lines; .svg, .dot(), .save(path)>"

    def dot(self) -> str:
        """Return the graph in the language of Graphviz, for those who have it."""
        return boxes.dot(self, self._texts)

    def save(self, path: str | PathLike) -> Path:
        """Write the picture to a path that ends in .svg, or the text of `dot` where it ends in .dot or .gv; return it.

        Raises
        ------
        ValueError
            When the path ends otherwise.
        """
        path = Path(path)
        kinds = {".svg": lambda: self.svg, ".dot": self.dot, ".gv": self.dot}
        if path.suffix.lower() not in kinds:
            raise ValueError(f"save: the path must end in {', '.join(kinds)}; got {str(path)!r}")
        path.write_text(kinds[path.suffix.lower()](), encoding="utf-8")
        return path


def draw_graph(tensor: Tensor, *, values: bool = True, gradients: bool | None = None, shapes: bool = True,
               names: Mapping[Any, Any] | None = None, model: Any = None, limit: int = 60) -> Graph:
    """Draw what a Tensor was computed from, and the gradient at every place of it.

    Arguments stand above what is computed from them. Gradients are taken for the drawing, and every `.grad` stays as
    it is. Derivatives taken with `create_graph=True` are Tensors like others: their graphs can be drawn too, and
    `order` tells first and second derivatives apart.

    Parameters
    ----------
    tensor : Tensor
        The result. Draw it before `backward`, which frees the graph, or call `backward(retain_graph=True)`.
    values : bool, default True
        Whether to show numbers: those of small Tensors, mean and norm of others. What no gradient needs was not
        kept; it is computed once more.
    gradients : bool, optional
        Whether to show the gradient of `tensor` at each place; by default where it is a scalar that has one.
    shapes : bool, default True
        Whether to show shapes, and dtypes other than float32.
    names : mapping, optional
        Names to Tensors, or Tensors to names: of leaves, constants and results.
    model : Module, optional
        Its parameters and buffers have the names that it knows them by.
    limit : int, default 60
        The most boxes to draw, at least 10. Of a longer graph the middle becomes one box that says what is in it.

    Returns
    -------
    Graph

    Raises
    ------
    TypeError
        When something is no Tensor that has to be one.
    ValueError
        When gradients are asked for of what is no scalar or depends on nothing that requires a gradient, or the
        limit is below 10.
    RuntimeError
        When a backward has freed the graph, or something that the gradients need was written to since.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w, x = tg.tensor(2.0, requires_grad=True), tg.tensor(-3.0)
    >>> graph = tg.lab.draw_graph(tg.tanh(w * x), names={"w": w, "x": x})
    >>> [(node.kind, node.name, node.label) for node in graph.nodes]
    [('leaf', 'w', ''), ('constant', 'x', ''), ('operation', '', 'w * x'), ('result', '', 'tanh')]
    >>> graph.nodes[2].value, graph.edges[0].flows, graph.edges[1].flows
    (array(-6., dtype=float32), True, False)
    """
    known = _names(names, model)
    if not isinstance(tensor, Tensor):
        raise TypeError("draw_graph draws what a Tensor was computed from: pass a loss or another result; got "
                        f"{type(tensor).__name__}")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 10:
        raise ValueError(f"limit is a number of boxes, at least 10; got {limit!r}")
    root = tensor._node or tensor
    if isinstance(root, Node) and root.args is None:
        raise RuntimeError("draw_graph: a backward has used the graph of this Tensor and freed it; draw it before "
                           "backward(), gradients are taken for the drawing, or call backward(retain_graph=True)")
    record = Record(tensor)
    if gradients is None:
        gradients = tensor.requires_grad and tensor.numel() == 1 and not record.freed
    elif gradients and not (tensor.requires_grad and tensor.numel() == 1):
        raise ValueError(f"gradients=True needs a scalar that requires a gradient; this Tensor has shape {tensor.shape}"
                         f" and requires_grad={tensor.requires_grad}")
    shown, links = record.folded(limit)
    nodes = [_box(source, record, known) for source in shown]
    for wanted, read, attribute in ((values, record.values, "value"), (gradients, record.gradients, "gradient")):
        found = read(shown) if wanted else {}
        for source, node in zip(shown, nodes):
            if source in found:
                setattr(node, attribute, np.array(to_numpy(found[source])))
    return Graph(nodes, [GraphEdge(*link) for link in links], shapes)


def _box(source: Source | Rest, record: Record, names: dict[Source, str]) -> GraphNode:
    """Return the box of a call, of a leaf, or of what is left out."""
    if isinstance(source, Rest):
        return GraphNode("more", "", str(source))
    name, shape, dtype = names.get(source, ""), tuple(source.shape), str(source.dtype)
    if isinstance(source, Node):
        return GraphNode("result" if source is record.root else "operation", name,
                         written(source, record.inputs[source], names), shape, dtype, record.orders[source])
    kind = "leaf" if source.requires_grad else "constant"
    return GraphNode(kind, name, "" if name else kind, shape, dtype)


def _names(names: Mapping[Any, Any] | None, model: Any) -> dict[Source, str]:
    """Return the names of calls and leaves."""
    if names is not None and not isinstance(names, Mapping):
        raise TypeError(f"names maps names to Tensors, or Tensors to names; got {type(names).__name__}")
    found: dict[Source, str] = {}
    if model is not None:
        if not hasattr(model, "named_parameters"):
            raise TypeError(f"model is a Module, whose parameters have names; got {type(model).__name__}")
        found |= {x: name for name, x in [*model.named_parameters(), *model.named_buffers()]}
    for key, value in (names or {}).items():
        name, x = (value, key) if isinstance(key, Tensor) else (key, value)
        if not isinstance(x, Tensor) or not isinstance(name, str):
            raise TypeError("names maps names to Tensors, or Tensors to names; "
                            f"{key if isinstance(key, str) else type(key).__name__!s} -> {type(value).__name__} does "
                            "neither")
        found[x._node or x] = name
    return found
