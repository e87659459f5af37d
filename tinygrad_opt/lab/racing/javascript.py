"""JavaScript: one more reading of a rule, and of a function of Tensors, so that a page can run both by itself.

A rule is printed as it stands, a line a statement. A function is run on numbers that are not known yet, which write
down what is done to them; its gradient is what its own backward does to them. `walk.js` beside this file runs both.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np

from ... import autograd
from ...language import RuleError, scalar
from ...optim.optimizer import Optimizer
from ...optim.replay import replays
from ...rule import Rule
from ...tensor import Tensor
from ..traces import Trace, flat

# Names that a rule may have and JavaScript may not.
WORDS = {"arguments", "await", "case", "catch", "const", "debugger", "default", "delete", "do", "enum", "eval",
         "export", "extends", "function", "implements", "instanceof", "interface", "let", "new", "null", "package",
         "private", "protected", "public", "super", "this", "throw", "typeof", "var"}


def runtime() -> str:
    """Return what every printed program needs: the functions by their names, and `walk`, which runs them."""
    return (files(__package__) / "walk.js").read_text(encoding="utf-8")


# ---- a rule -------------------------------------------------------------------------------------------------------


def rule_program(rule: Rule) -> str:
    """Return a rule as a JavaScript function, from an object of names and numbers to that of all names after it.

    It works on one element. In float64 the results are those of the kernels, to the bit but for what C and JavaScript
    round differently: general powers, exp, log and tanh.

    Parameters
    ----------
    rule : Rule
        An elementwise one.

    Raises
    ------
    RuleError
        When it sums over elements or works on whole matrices, or a name is a word of JavaScript.

    Examples
    --------
    >>> from tinygrad_opt.lab.racing.javascript import rule_program
    >>> from tinygrad_opt.rule import Rule
    >>> def momentum(p, g, b, lr, mu):
    ...     b = mu * b + g
    ...     step = lr * b
    ...     p = p - step
    ...     return p, b
    >>> print(rule_program(Rule(momentum)))
    ({p, g, b, lr, mu}) => {
      b = mu * b + g;
      let step = lr * b;
      p = p - step;
      return {b, step, p};
    }
    """
    if rule.matrix or rule.reductions:
        raise RuleError("it works on whole matrices" if rule.matrix else "it sums over all coordinates")
    given = [*rule.arrays, *rule.memory, *rule.options]
    assigned = dict.fromkeys(target for target, _ in rule.statements)
    for name in (*given, *assigned):
        if name in WORDS:
            raise RuleError(f"its rule calls something {name}, a word of JavaScript")
    lines, known = [], set(given)
    for target, expression in rule.statements:
        new = "" if target in known else "let "
        lines.append(f"{new}{scalar(ast.Name(target), 'javascript')} = {scalar(expression, 'javascript')};")
        known.add(target)
    results = dict.fromkeys([*assigned, "p", *rule.states, *rule.memory])
    return _function(f"{{{_names(given)}}}", lines, f"{{{_names(results)}}}")


def _names(names: Any) -> str:
    """Print names as members of an object; what is no ASCII is spelled out inside."""
    shown = {name: scalar(ast.Name(name), "javascript") for name in names}
    return ", ".join(name if name == inside else f"{name}: {inside}" for name, inside in shown.items())


def _function(arguments: str, lines: list[str], result: str) -> str:
    return "\n  ".join([f"({arguments}) => {{", *lines, f"return {result};"]) + "\n}"


# ---- a function ---------------------------------------------------------------------------------------------------


class Symbol:
    """A number that is not known yet. What is computed from it is written down, each expression once.

    Parameters
    ----------
    name : str
        In JavaScript.
    lines : dict of str to str
        The name of each expression that was written so far; all symbols of a function share it.
    """

    __slots__ = ("name", "lines")

    def __init__(self, name: str, lines: dict[str, str]) -> None:
        self.name, self.lines = name, lines

    def write(self, pattern: str, *terms: Any) -> Symbol:
        """Return the symbol of an expression; terms are symbols and numbers."""
        shown = (term.name if isinstance(term, Symbol) else _number(term) for term in terms)
        expression = pattern.format(*shown)
        return Symbol(self.lines.setdefault(expression, f"a{len(self.lines)}"), self.lines)

    def __pow__(self, n: Any) -> Symbol:
        if isinstance(n, (int, float)) and n in (1, 2):
            return self if n == 1 else self.write("{0} * {0}", self)
        return self.write("power({}, {})", self, n)

    def __neg__(self) -> Symbol:
        return self.write("-{}", self)

    def __bool__(self) -> bool:
        raise TypeError("it chooses by numbers that are not known before it runs")

    # An object equals itself and nothing else, unless it says otherwise: a wrong answer here.
    def __eq__(self, other: Any) -> bool:
        return bool(self)

    __hash__ = None                                                                      # type: ignore[assignment]


def _operator(sign: str) -> tuple[Callable, Callable]:
    pattern = f"{{}} {sign} {{}}"
    return lambda a, b: a.write(pattern, a, b), lambda a, b: a.write(pattern, b, a)


# NumPy asks the elements of an array of objects for these: x + y for an operator, x.cos() for np.cos(x).
for _name, _sign in {"add": "+", "sub": "-", "mul": "*", "truediv": "/"}.items():
    for _method, _how in zip((f"__{_name}__", f"__r{_name}__"), _operator(_sign)):
        setattr(Symbol, _method, _how)
for _name in ("cbrt", "cos", "cosh", "exp", "expm1", "log", "log10", "log1p", "log2", "sin", "sinh", "sqrt", "tan",
              "tanh"):
    setattr(Symbol, _name, lambda x, call=_name + "({})": x.write(call, x))


def surface_program(function: Callable[[Any], Any], n: int) -> str:
    """Return a function of Tensors as JavaScript, from a point to its height and its gradient.

    The program is straight: what the function and its backward did with one point, which has to be the same for all.

    Parameters
    ----------
    function : callable
        From a Tensor, whose first axis holds the coordinates, to the height of each point.
    n : int
        The number of coordinates.

    Raises
    ------
    RuleError
        When it uses something that has no JavaScript here, or chooses by the numbers that it is given.

    Examples
    --------
    >>> from tinygrad_opt.lab.racing.javascript import surface_program
    >>> print(surface_program(lambda w: w[0] ** 2 + 3 * w[1], 2))
    (w) => {
      const a0 = w[0] * w[0];
      const a1 = 3 * w[1];
      const a2 = a0 + a1;
      const a3 = 2 * w[0];
      const a4 = 0 + a3;
      return [a2, [a4, 3]];
    }
    """
    lines: dict[str, str] = {}
    try:
        # One point, as a column: NumPy hands out bare objects in place of arrays without axes.
        w = Tensor._wrap(np.array([[Symbol(f"w[{k}]", lines)] for k in range(n)], dtype=object))
        w._requires_grad = True                     # its setter knows real numbers only
        height = function(w)
        slope, = autograd.grad(height, w)
        results = [*np.ravel(height.data), *np.ravel(slope.data)]
        value, *gradient = (x.name if isinstance(x, Symbol) else _number(x) for x in results)
    except Exception as error:                      # it works on numbers: it asked symbols for what they cannot do
        raise RuleError(f"the function cannot be printed as JavaScript: {error}") from error
    return _function("w", [f"const {name} = {expression};" for expression, name in lines.items()],
                     f"[{value}, [{', '.join(gradient)}]]")


def _number(x: Any) -> str:
    """Print a number to the last bit."""
    return json.dumps(float(x)).removesuffix(".0")


# ---- a run --------------------------------------------------------------------------------------------------------


def run_program(trace: Trace) -> str:
    """Return the optimizer of a recorded run as what `walk` in walk.js takes for a rule.

    Parameters
    ----------
    trace : Trace

    Raises
    ------
    RuleError
        When there are several parameters, or the rule is not elementwise; or the run was more than its rule, say
        inside a wrapper or with clipped gradients: then a new optimizer of the same class and options, led along the
        recorded gradients, goes elsewhere.
    """
    kind = _find_class(trace.optimizer)
    if not trace.formula or kind is None:
        raise RuleError("it has no rule" if kind is not None else "its class is not loaded")
    if len(trace.parameters) > 1:
        raise RuleError("it has several parameters")
    (name, recorded), = trace.parameters.items()
    w = Tensor(recorded[0], requires_grad=True)
    accepted = inspect.signature(kind.__init__).parameters
    try:
        optimizer = kind([(name, w)], **{key: value for key, value in trace.options.items() if key in accepted})
        rule = optimizer._rule(0)
        step = rule_program(rule)
        state = {letter: _first(optimizer, letter, w) for letter in (*rule.states, *rule.memory)}
        told = _follow(optimizer, w, trace)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RuleError(str(error) if isinstance(error, RuleError) else "it needs more than a gradient") from error
    options = {key: _number(values[0]) if (values == values[0]).all()
               else f"[{', '.join(map(_number, values))}][k]" for key, values in told.items()}
    members = ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {value}" for key, value in options.items())
    return f"{{state: {json.dumps(state)}, options: (k) => ({{{members}}}), step: {step}}}"


def _find_class(name: str) -> type[Optimizer] | None:
    """Return the class of optimizers of a name, the one defined last where a notebook has defined several."""
    waiting, found = [Optimizer], None
    while waiting:
        kind = waiting.pop(0)
        found = kind if kind.__name__ == name else found
        waiting += kind.__subclasses__()
    return found


def _first(optimizer: Optimizer, letter: str, w: Tensor) -> float | str:
    """Return what a coordinate's state starts from: a number, or "p" for the parameter."""
    group = optimizer.param_groups[0]
    name = optimizer.state_names.get(letter, letter)
    first = group[name] if name in group else optimizer.initial(letter, group, w)
    if first is w:
        return "p"
    if np.ndim(first):
        raise RuleError("its state does not start from a number")
    return float(first)


def _follow(optimizer: Optimizer, w: Tensor, trace: Trace) -> dict[str, np.ndarray]:
    """Lead an optimizer along the recorded gradients, and return the numbers that its rule was told at each step."""
    (name, recorded), = trace.parameters.items()
    group, told = optimizer.param_groups[0], []
    optimizer._warned = True                        # of NaN: the run itself has done that
    if hasattr(optimizer, "train"):
        optimizer.train()
    for lr, gradient, after in zip(trace.lr, trace.gradients[name], recorded[1:]):
        if "lr" in group:
            group["lr"] = float(lr)
        w.grad = gradient
        optimizer.step()
        if not np.array_equal(w.numpy(), after, equal_nan=True):
            raise RuleError("its run was more than its rule on its gradients")
        (_, replay), = replays(optimizer)
        told.append({option: replay.before[option] for option in replay.rule.options if option != "t"})
    if not all(np.array_equal(value, trace.state[name][key][-1], equal_nan=True)
               for key, value in flat(optimizer.state[w])):
        raise RuleError("its run was more than its rule on its gradients")
    return {option: np.array([row[option] for row in told]) for option in told[0]}
