"""What a Tensor was computed from: its calls and leaves, the numbers at each, and what of many not to show."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ...autograd import grad
from ...tensor import Node, Tensor, mode, ndarray

SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@", "floor_divide": "//",
         "remainder": "%"}
WIDEST = 7                                          # leaves beside each other, where there are too many to show
LONGEST = 26                                        # characters of a call that is written out
# Beside their first argument these are given what a kernel has computed from it, which is no input.
PRECOMPUTED = {"cross_entropy", "known_gradient"}
Source = Node | Tensor                              # a call, or a Tensor that no call made


class Input(NamedTuple):
    """An argument of a call: where it came from, whether the gradient goes there, and its position."""

    source: Source
    flows: bool
    place: int


class Rest(list):
    """Calls and leaves that are not shown one by one."""

    __hash__, __eq__ = object.__hash__, object.__eq__

    def __str__(self) -> str:
        kinds = Counter(x.op.name for x in self if isinstance(x, Node)).most_common()
        words = [f"{count} {name}" for name, count in kinds[:3]] + ["..."] * (len(kinds) > 3)
        leaves = sum(isinstance(x, Tensor) for x in self)
        return f"+{len(self)} more: {', '.join(words + [f'{leaves} leaves'] * (leaves > 0))}"


class Record:
    """Everything that a Tensor was computed from.

    Attributes
    ----------
    inputs : dict
        Of each call and leaf, its inputs.
    calls : list of Node
        In their order.
    freed : bool
        Whether a backward has freed a part.
    orders : dict
        Of each call: 0 for one that belongs to no gradient, 1 for one of a first derivative, and so on.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.root = tensor, tensor._node or tensor
        self.inputs: dict[Source, list[Input]] = {}
        arrays: dict[int, Tensor] = {}              # among arguments, each as one Tensor
        waiting = [self.root]
        while waiting:
            source = waiting.pop()
            if source not in self.inputs:
                self.inputs[source] = _inputs(source, arrays)
                waiting += [x.source for x in self.inputs[source]]
        self.calls = sorted((x for x in self.inputs if isinstance(x, Node)), key=lambda node: node.serial)
        self.freed = any(node.args is None for node in self.calls)
        self.orders = self._orders()

    def _orders(self) -> dict[Node, int]:
        """Return the order of each call.

        Between which numbers the calls of a gradient lie is known, and the number of what was differentiated; not
        its order where it is no part of this record. Then the gradients that are a part of it, and older, count.
        """
        spans = sorted(mode.derivatives)
        starts, numbered = [began for began, _, _ in spans], {call.serial: call for call in self.calls}
        found: dict[Node, int] = {}
        orders: list[int] = []                      # of the spans
        seen: set[int] = set()                      # those with calls of this record

        def span_of(number: int) -> int | None:
            k = bisect_right(starts, number) - 1
            return k if k >= 0 and number < spans[k][1] else None

        for call in self.calls:
            k = span_of(call.serial)
            if k is None:
                found[call] = max((found[x.source] for x in self.inputs[call] if x.source in found), default=0)
                continue
            while len(orders) <= k:
                root = spans[len(orders)][2]
                inside = span_of(root)
                orders.append(1 + (orders[inside] if inside is not None else found[numbered[root]] if root in numbered
                                   else max((orders[j] for j in seen if spans[j][1] < root), default=0)))
            seen.add(k)
            found[call] = orders[k]
        return found

    def values(self, shown: list[Any]) -> dict[Source, Any]:
        """Return the results of calls and the numbers of leaves: as they were kept, or else computed once more."""
        known: dict[Source, Any] = {x: x._data for x in self.inputs if isinstance(x, Tensor)}
        known[self.root] = self.tensor._data
        for call in self.calls:
            if call.y is not None:
                known[call] = call.y
            known |= {x.source: call.raw[x.place] for x in self.inputs[call] if isinstance(call.raw[x.place], ndarray)}
        needed, waiting = set(), [x for x in shown if isinstance(x, Node)]
        while waiting:
            call = waiting.pop()
            if call not in known and call not in needed:
                needed.add(call)
                waiting += [x.source for x in self.inputs[call]]
        with np.errstate(all="ignore"):             # a picture of NaN is wanted, not another warning
            for call in self.calls:
                if call in needed and all(x.source in known for x in self.inputs[call]) and call.args is not None:
                    raw = list(call.raw)
                    for x in self.inputs[call]:
                        raw[x.place] = known[x.source]
                    known[call] = call.op.forward(*raw, **call.kwargs)
        return known

    def gradients(self, shown: list[Any]) -> dict[Source, Any]:
        """Return the gradients of the Tensor with respect to calls and leaves, changing nothing."""
        wanted = {}
        for x in shown:
            if isinstance(x, Tensor) and x._requires_grad:
                wanted[x] = x
            elif isinstance(x, Node):
                wanted[x] = Tensor._wrap(0.0)
                wanted[x]._node, wanted[x]._requires_grad = x, True
        with self._without_hooks(), np.errstate(all="ignore"):
            found = grad(self.tensor, [*wanted.values()], retain_graph=True, allow_unused=True)
        return {x: g._data for x, g in zip(wanted, found) if g is not None}

    @contextmanager
    def _without_hooks(self) -> Iterator[None]:
        """Let no hook see the gradients that are only looked at."""
        hooks = {x: x._hooks for x in self.inputs if x._hooks}
        for x in hooks:
            x._hooks = None
        try:
            yield
        finally:
            for x, own in hooks.items():
                x._hooks = own

    def folded(self, limit: int) -> tuple[list[Any], list[tuple[int, int, bool]]]:
        """Return what to show, at most `limit`, each after its inputs, and the links between (from, to, flows).

        The first and the last calls are shown, with the leaves that they use; a `Rest` stands for those in between.
        What lies in one stretch of the record is never both before and after a call outside: links stay acyclic.
        """
        calls, middle, others = self.calls, Rest(), Rest()
        kept, leaves = calls, [x for x in self.inputs if isinstance(x, Tensor)]
        if len(self.inputs) > limit:
            most = min(limit - 1, len(calls))
            for count in range(most, min(most, limit // 8) - 1, -1):
                kept = calls[:count // 2] + calls[len(calls) - (count - count // 2):]
                leaves = list(dict.fromkeys(x.source for call in kept for x in self.inputs[call]
                                            if isinstance(x.source, Tensor)))
                if count + len(leaves) < limit:
                    break
            room = limit - len(kept) - 1
            if len(leaves) > room:                  # of one call, then
                leaves, others = leaves[:WIDEST], Rest(leaves[WIDEST:])
        home: dict[Source, Any] = {**{x: x for x in [*kept, *leaves]}, **dict.fromkeys(others, others)}
        middle += [x for x in self.inputs if x not in home]
        home |= dict.fromkeys(middle, middle)
        return self._linked(home, middle)

    def _linked(self, home: dict[Source, Any], middle: Rest) -> tuple[list[Any], list[tuple[int, int, bool]]]:
        places: dict[Any, int] = {}
        links: list[tuple[Any, Any, bool]] = []
        merged: dict[tuple[Any, Any], bool] = {}
        for call in self.calls or [self.root]:
            box = home[call]
            if box not in places:
                for x in self.inputs[call] if box is call else [x for hidden in middle for x in self.inputs[hidden]]:
                    source = home[x.source]
                    if source is box:
                        continue
                    places.setdefault(source, len(places))
                    if isinstance(source, Rest) or box is middle:
                        merged[source, box] = merged.get((source, box), False) or x.flows
                    else:
                        links.append((source, box, x.flows))
                places[box] = len(places)
        links += [(source, box, flows) for (source, box), flows in merged.items()]
        return list(places), [(places[source], places[box], flows) for source, box, flows in links]


def _inputs(source: Source, arrays: dict[int, Tensor]) -> list[Input]:
    if isinstance(source, Tensor) or source.args is None:
        return []
    found, parents = [], iter(source.parents)
    for k, a in enumerate(_arguments(source)):
        if k in source.plan.wanted:
            found.append(Input(next(parents), True, k))
        elif isinstance(a, Tensor):
            found.append(Input(a._node or a, False, k))
        elif isinstance(a, ndarray):
            found.append(Input(arrays.setdefault(id(a), Tensor._wrap(a)), False, k))
    return found


def _arguments(call: Node) -> Sequence[Any]:
    return call.args[:1] if call.op.name in PRECOMPUTED else call.args


# ---- a call in words --------------------------------------------------------------------------------------


def written(call: Node, inputs: list[Input], names: Mapping[Source, str]) -> str:
    """Return a call as one would write it, a dot for what has no name: `w * x`, `· ** 2`; its name where that is long.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.lab.drawing.calls import Record, written
    >>> x = tg.ones(2, 3, requires_grad=True)
    >>> for y in (1 - x, x ** 2, x.sum(axis=1), x[:, 1:], x.tanh().exp()):
    ...     written(y.grad_fn, Record(y).inputs[y.grad_fn], {x: "x"})
    '1 - x'
    'x ** 2'
    'sum(x, axis=1)'
    'x[:, 1:]'
    'exp'
    """
    name = call.op.name
    if call.args is None:
        return f"{name}, freed"
    given = {x.place: names.get(x.source, "·") for x in inputs}
    words = [given.get(k) or _literal(a) for k, a in enumerate(_arguments(call))]
    options = [f"{key}={word}" for key, value in call.kwargs.items()
               if value is not None and not isinstance(value, bool) and (word := _literal(value))]
    sign = SIGNS.get(name)
    if sign and len(words) == 2 and all(words):
        text = f"{words[0]} {sign} {words[1]}"
    elif name == "getitem":
        index = _literal(call.kwargs["index"])
        text = f"{words[0]}[{index.removeprefix('(').removesuffix(')')}]" if index else ""
    else:
        text = f"{name}({', '.join([*filter(None, words), *options])})"
    if name != "getitem" and not options and all(word in ("", "·") for word in words):
        return sign or name                         # which says as much
    return text if text and len(text) <= LONGEST else sign or name


def _literal(value: Any) -> str:
    """Return a plain argument as it is written; nothing for an array, or what else cannot be."""
    if isinstance(value, slice):
        parts = ["" if x is None else str(x) for x in (value.start, value.stop, value.step)]
        return ":".join(parts if value.step is not None else parts[:2])
    if isinstance(value, (tuple, list)):
        words = [_literal(x) for x in value]
        return f"({', '.join(words)}{',' * (len(words) == 1)})" if all(words) else ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(value)
    return "..." if value is Ellipsis else str(value) if isinstance(value, (int, np.dtype, np.generic)) else ""
