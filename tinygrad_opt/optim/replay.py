"""Replay: the last step of a parameter once more, one line of its rule after the other.

The lines are those that the kernels are printed from, computed on the numbers that the step started from. So a
replay ends at the very parameter that the step wrote, and every name on the way has its value: `m_hat`, `v_hat`,
the rate after a correction, a norm.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy

from ..backend import to_numpy, xp
from ..backend.numpy import cbrt
from ..language import FUNCTIONS, letter, text
from ..lowering import Line
from ..rule import Rule
from ..tensor import Tensor
from .plan import MatrixRun, Run
from .wrapper import Wrapper

ON_ARRAYS = {name: function.array for name, function in FUNCTIONS.items()} | {"cbrt": cbrt}


class Moment(NamedTuple):
    """A line of a rule and what came out of it."""

    target: str                     # the name that the line assigns, as the rule has it
    formula: str                    # "m ← β₁·m + (1 − β₁)·g"
    value: Any                      # a NumPy array of the parameter's shape, or a number


class Replay:
    """The last step of one parameter, line by line.

    Parameters
    ----------
    run : Run or MatrixRun
        That has remembered the step.
    k : int
        Which of its parameters.

    Attributes
    ----------
    rule : Rule
    before : dict
        What the step started from and was told, by the rule's names: `p`, `g` and state as NumPy arrays, `t` and
        options as numbers.
    moments : list of Moment
        One a line, in order.
    after : dict
        The last value of each name.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.replay import replays
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.Adam([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> (p, replay), = replays(optimizer)
    >>> replay.after["m_hat"], replay.moments[-1].formula
    (array([2.], dtype=float32), 'p ← p − lr·m̂ / (sqrt(v̂) + ε)')
    """

    def __init__(self, run: Run | MatrixRun, k: int) -> None:
        self.rule, self._shape = run.rule, run.params[k].shape
        values = {name: self._walked(value) for name, value in run.remembered(k).items()}
        self.before = {name: self._shown(name, value) for name, value in values.items()}
        self.moments = []
        cast = values["p"].dtype.type
        with numpy.errstate(all="ignore"):
            for line, formula in _lines(self.rule):
                if formula:                         # a sum has been found by the step itself
                    name = line.target
                    values[name] = line(values, ON_ARRAYS, cast)
                    self.moments.append(Moment(name, formula, self._shown(name, values[name])))
        self.after = {name: self._shown(name, value) for name, value in values.items()}

    def _walked(self, value: Any) -> Any:
        """Return an array as the lines take it: as it is for matrices, else NumPy's and flat."""
        if self.rule.matrix or not isinstance(value, xp.ndarray):
            return value
        return to_numpy(value).reshape(-1)

    def _shown(self, name: str, value: Any) -> Any:
        """Return an array of the host in the parameter's shape, and a number as a Python float."""
        if isinstance(value, (list, tuple)):
            return type(value)(self._shown(name, part) for part in value)
        if not hasattr(value, "dtype"):
            return value
        value = numpy.asarray(to_numpy(value))
        if self.rule.matrix:
            return value if value.ndim or not self._shape else value.item()
        return value.reshape(self._shape) if name in self.rule.touched else value.item()


def replays(optimizer: Any) -> Iterator[tuple[Tensor, Replay]]:
    """Yield each parameter that moved in the last step, with its replay, where the step was remembered."""
    for inner in stepping(optimizer):
        for plan in inner._plans.values():
            for run in plan.runs:
                if run.before is not None:
                    yield from ((p, Replay(run, k)) for k, p in enumerate(run.params) if p._data.size)


def stepping(optimizer: Any) -> list[Any]:
    """Return the optimizers whose rules move the parameters: what is inside of wrappers, or the optimizer itself."""
    inside = [optimizer.optimizer] if isinstance(optimizer, Wrapper) else getattr(optimizer, "optimizers", None)
    return [optimizer] if inside is None else [inner for part in inside for inner in stepping(part)]


class MatrixLine:
    """One line of a rule of matrices: Python, run where the rule was written."""

    def __init__(self, rule: Rule, target: str, expression: ast.expr) -> None:
        self.target, self.space = target, _names(rule.function)
        self.value = compile(ast.unparse(expression), f"<{rule.name}: {target}>", "eval")

    def __call__(self, known: dict[str, Any], arrays: dict[str, Callable], cast: Callable) -> Any:
        """Return the value of the line, given the names known so far."""
        return eval(self.value, self.space | known)


@cache
def _lines(rule: Rule) -> list[tuple[Line | MatrixLine, str]]:
    """Return the lines of a rule, ready to run, each with its formula; a sum over elements has none."""
    formulas = (f"{letter(target)} ← {text(expression)}" for target, expression in rule.statements)
    line, program = (MatrixLine, rule.statements) if rule.matrix else (Line, rule.program)
    return [(line(rule, target, expression), "" if target in rule.reductions else next(formulas))
            for target, expression in program]


def _names(function: Callable) -> dict[str, Any]:
    """Return what a rule sees of the world, and what the rules see that it calls."""
    seen = inspect.getclosurevars(function)
    names = {**seen.builtins, **seen.globals, **seen.nonlocals}
    called = [value for value in names.values() if inspect.isfunction(value) and not hasattr(value, "latex")]
    return {name: value for rule in called for name, value in _names(rule).items()} | names
