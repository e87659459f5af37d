"""Tape: a stretch of the record with a beginning and an end, which hands out gradients and can be read.

It looks on while it is open: every call with a Tensor in it becomes an `Operation`, a line of its own that points
at no Tensor, and backward fills in what came back. Whoever opens no Tape pays for none.
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from time import perf_counter
from typing import Any

import numpy

from .autograd import backward, leaves
from .backend import xp
from .tensor import Node, Tensor, enable_grad, float32, float64, mode, ndarray, open_tapes, serial

REMEMBERED = 10_000                                 # operations of a Tape: whoever trains on one fills no memory
SHOWN = 60                                          # lines of a printed Tape, before its middle is left out
PASSED = "^"                                        # marks the lines that the gradient passed, on its way up
COLUMNS = ("", "", "operation", "arguments", "result", "bytes", "kept for backward", "forward", "backward",
           "|gradient|")
LEFT = {2, 3, 4, 6}                                 # columns of words


@dataclass(slots=True)
class Operation:
    """One line of a `Tape`: what was called, what it gave, and what came back through it.

    Attributes
    ----------
    name : str
        Of the op.
    arguments : tuple of tuple
        The shapes of its Tensors and arrays.
    shape : tuple
        Of the result.
    dtype : dtype
        Of the result.
    bytes : int
        Of the result; 0 for one that lies in the memory of its argument.
    recorded : bool
        Whether a gradient can come back: an argument requires one, and no `no_grad` stood in the way.
    kept : tuple of str
        Which of its arguments, and whether its `result`, the gradients need: these live until backward.
    forward : float
        Seconds that the call took. On a GPU, until it was launched.
    backward : float or None
        Seconds that backward spent here; None where it did not come by.
    gradient : float or None
        The norm of the gradient of the result, as backward last brought it.
    """

    name: str
    arguments: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    dtype: Any
    bytes: int
    recorded: bool
    kept: tuple[str, ...]
    forward: float
    backward: float | None = None
    gradient: float | None = None

    def _cells(self, number: int) -> tuple[str, ...]:
        """Return this line of a printed Tape."""
        kept = _some(self.kept, ", ") or "nothing" if self.recorded else "not recorded"
        return ("" if self.gradient is None else PASSED, str(number), self.name, _some(self.arguments, " "),
                f"{self.shape}" + f" {self.dtype}" * (self.dtype != float32), _bytes(self.bytes), kept,
                _seconds(self.forward), "" if self.backward is None else _seconds(self.backward),
                "" if self.gradient is None else f"{self.gradient:.3g}")


class Tape:
    """Record what is computed inside `with tape:`, also under `no_grad`, and go back through it.

    Tensors are recorded without a Tape too, and `loss.backward()` is all that training needs. A Tape says where
    a record begins and ends, hands out the gradients, and shows what happened: print it, or read its `operations`.
    It sees the calls of the thread that opened it, remembers the last 10,000, and forgets when it is opened again.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
    >>> with tg.Tape() as tape:
    ...     loss = (w ** 2).sum()
    >>> grads = tape.backward(loss)
    >>> grads[w], grads[w] is w.grad
    (tensor([ 2., -4.]), True)
    >>> [(operation.name, operation.kept, operation.gradient) for operation in tape.operations]
    [('pow', ('a',), 1.4142135623730951), ('sum', (), 1.0)]
    """

    def __init__(self) -> None:
        self._first = self._last = math.inf         # numbers of the calls in between are on this tape
        self._open: list[ExitStack] = []            # what each `with` that is open has to undo
        self._noted: OrderedDict[int, Operation] = OrderedDict()
        self._forgotten = 0

    def __enter__(self) -> Tape:
        undo = ExitStack()
        undo.enter_context(enable_grad())
        undo.enter_context(_watched(self))
        self._open.append(undo)
        self._noted.clear()
        self._forgotten = 0
        self._first, self._last = next(serial), math.inf
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.pop().close()
        self._last = next(serial)

    @property
    def operations(self) -> list[Operation]:
        """The calls since the Tape was last opened, in their order."""
        return list(self._noted.values())

    def __len__(self) -> int:
        return len(self._noted)

    def __bool__(self) -> bool:
        return True                                 # also before anything is on it

    def backward(self, loss: Tensor, retain_graph: bool = False) -> dict[Tensor, Tensor]:
        """Accumulate the gradient of a loss in the `.grad` of every leaf that it depends on, and return these.

        Parameters
        ----------
        loss : Tensor
            A scalar that was computed inside `with tape:`; what it was computed from may be older.
        retain_graph : bool, default False
            Keep the graph for another backward.

        Returns
        -------
        dict
            leaf -> its `.grad`.

        Raises
        ------
        RuntimeError
            When the loss is not on this tape, depends on nothing that requires a gradient, or is no scalar.
        """
        node = getattr(loss, "_node", None)
        if node is None or not self._first < node.serial < self._last:
            raise RuntimeError("backward: the loss is not on this Tape; compute it inside `with tape:`, from a Tensor "
                               "with requires_grad=True")
        reached = leaves(loss)
        with _watched(self):
            backward(loss, retain_graph=retain_graph)
        return {leaf: leaf.grad for leaf in reached}

    def _note(self, number: int, operation: Operation) -> None:
        self._noted[number] = operation
        if len(self._noted) > REMEMBERED:
            self._noted.popitem(last=False)
            self._forgotten += 1

    def __repr__(self) -> str:
        return f"<Tape of {len(self)} operations>"

    def __str__(self) -> str:
        table = [COLUMNS, *self._rows(), self._total()]
        widths = [max(map(len, column)) for column in zip(*table)]
        return "\n".join("  ".join(cell.ljust(width) if k in LEFT else cell.rjust(width)
                                   for k, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in table)

    def _repr_html_(self) -> str:
        def line(row: Sequence[str], tag: str) -> str:
            style = ' style="background: rgba(230, 159, 0, 0.18)"' if row[0] == PASSED else ""
            cells = (f'<{tag} style="text-align: {"left" if k in LEFT else "right"}">{escape(cell)}</{tag}>'
                     for k, cell in enumerate(row))
            return f"<tr{style}>{''.join(cells)}</tr>"
        return (f"<table><thead>{line(COLUMNS, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in self._rows())}"
                f"</tbody><tfoot>{line(self._total(), 'th')}</tfoot></table>")

    def _rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the lines, with one for those in the middle of a long Tape."""
        rows = [operation._cells(k) for k, operation in enumerate(self.operations, self._forgotten)]
        left_out = len(rows) - SHOWN
        if left_out > 0:
            rows[SHOWN // 2:-SHOWN // 2] = [("", "", f"... {left_out} more", *[""] * (len(COLUMNS) - 3))]
        return rows

    def _total(self) -> tuple[str, ...]:
        """Return the cells of the last line: sums, and what the mark means."""
        noted = self.operations
        passed = sum(operation.gradient is not None for operation in noted)
        back = _seconds(sum(operation.backward or 0.0 for operation in noted)) if passed else ""
        forgotten = f", and {self._forgotten} forgotten" if self._forgotten else ""
        return ("", "", f"{len(noted)} operations{forgotten}", "", "", _bytes(sum(line.bytes for line in noted)),
                f"{PASSED} gradient came through {passed}" if passed else "",
                _seconds(sum(operation.forward for operation in noted)), back, "")


class _Watch:
    """Looks on in one thread, for the Tapes that are open there."""

    def __init__(self, tapes: tuple[Tape, ...]) -> None:
        self.tapes = tapes
        self.here: Operation | None = None          # where a backward walk is
        self.since = 0.0

    def call(self, op: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Make a call, and note it if it made a Tensor."""
        mode.watch = None                           # what is called inside is a part of this
        try:
            began = perf_counter()
            y = op(*args, **kwargs)
            seconds = perf_counter() - began
        finally:
            mode.watch = self
        if isinstance(y, Tensor):
            operation, number = _operation(op, args, y, seconds), next(serial) if y._node is None else y._node.serial
            for tape in self.tapes:
                tape._note(number, operation)
        return y

    def reached(self, node: Node, g: Any) -> None:
        """Note that a backward walk arrives at a call with the gradient of its result."""
        self.finished()
        for tape in self.tapes:
            if (operation := tape._noted.get(node.serial)) is not None:
                operation.gradient = _norm(g._data if isinstance(g, Tensor) else g)
                self.here, self.since = operation, perf_counter()
                break

    def finished(self) -> None:
        """Note that the walk leaves the call where it was."""
        if self.here is not None:
            self.here.backward = (self.here.backward or 0.0) + perf_counter() - self.since
            self.here = None


@contextmanager
def _watched(tape: Tape) -> Iterator[None]:
    """Let a Tape look on at what this thread does inside, beside those that do already."""
    before = mode.watch
    others = () if before is None else tuple(other for other in before.tapes if other is not tape)
    mode.watch = _Watch((*others, tape))
    open_tapes.append(tape)
    try:
        yield
    finally:
        open_tapes.remove(tape)
        mode.watch = before


def _operation(op: Any, args: tuple, y: Tensor, seconds: float) -> Operation:
    arguments = [a for a in args if isinstance(a, (Tensor, ndarray))]
    node, data = y._node, y._data
    shares = any(isinstance(a, Tensor) and a._version is y._version for a in arguments)
    kept: list[str] = []
    if node is not None:
        names = _names(op.op.forward, len(args))
        kept = [names[k] for k in node.plan.watched] + ["result"] * node.plan.keeps_y
    return Operation(op.op.name, tuple(a.shape for a in arguments), data.shape, data.dtype,
                     0 if shares else data.nbytes, node is not None, tuple(kept), seconds)


@lru_cache(1024)
def _names(forward: Callable, count: int) -> list[str]:
    """Return the names of the first arguments of a function; those of a starred one with their places."""
    names = []
    for name, argument in inspect.signature(forward).parameters.items():
        starred = argument.kind is argument.VAR_POSITIONAL
        names += [f"{name}[{k}]" for k in range(count - len(names))] if starred else [name]
    return names


def _norm(g: Any) -> float:
    with numpy.errstate(over="ignore"):
        flat = g.reshape(-1).astype(float64, copy=False)
        return math.sqrt(xp.dot(flat, flat))


def _some(words: Sequence[Any], between: str) -> str:
    """Return the first of some words, and how many more there are."""
    more = f" ... {len(words) - 4} more" if len(words) > 5 else ""
    return between.join(map(str, words[:4] if more else words)) + more


def _seconds(seconds: float) -> str:
    """Return a time of three digits with its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _bytes(count: int) -> str:
    """Return a number of bytes with its unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
