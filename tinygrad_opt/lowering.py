"""How a rule is split: into what the host computes once a step, and passes over the elements.

Every expression that touches no array is hoisted: it becomes a constant, computed in float64. A sum over all
elements, `norm(g)`, is a number too, but only after a pass has summed it; so the body falls into passes.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from .language import FUNCTIONS, REDUCTIONS, RuleError, called, operands, scalar

if TYPE_CHECKING:
    from .rule import Rule


class Pass:
    """A walk over the elements of a rule's arrays: to sum something, or, the last one, to write.

    Attributes
    ----------
    name : str
        Of the printed kernel.
    constants : tuple of str
        The numbers of its body, as `host` returns them.
    body : list of (str, ast.expr)
        Target and expression of each line; the target of a sum is one of `terms`.
    terms : tuple of str
        What the pass sums; empty for the one that writes.
    written : tuple of str
        The arrays that it writes: all but the gradient and what stays as it was.
    host : callable
        From options, memory and the results of earlier passes to `(constants, memory)`.
    """

    def __init__(self, rule: Rule, k: int, writes: bool, program: list[tuple[str, ast.expr]], levels: list[int],
                 arrays: set[str]) -> None:
        self.rule, self.arrays = rule, rule.arrays
        self.name = rule.name if writes else f"{rule.name}_pass{k + 1}"
        found = [target for (target, _), level in zip(program, levels) if target in rule.reductions and level < k]
        self.terms = tuple(target for (target, _), level in zip(program, levels)
                           if target in rule.reductions and level == k)
        changed = {target for target, _ in program}
        self.written = tuple(name for name in rule.arrays if writes and name != "g" and name in changed)
        live = _live(program, arrays, {"p", *rule.states} if writes else set(), self.terms)
        hoist, self.body = _Hoist(arrays), []
        for (target, expression), level, needed in zip(program, levels, live):
            if target in arrays or target in self.terms:
                if needed:
                    self.body.append((target, hoist.visit(deepcopy(expression))))
            elif level <= k and target not in rule.reductions:
                hoist.assign(target, expression)
        self.constants = tuple(hoist.names.values())
        results = ", ".join("(" + "".join(f"{name}, " for name in names) + ")"
                            for names in (self.constants, rule.memory if writes else ()))
        self.host_source = "\n    ".join([f"def host({', '.join([*rule.options, *rule.memory, *found])}):",
                                          *hoist.lines, f"return {results}"]) + "\n"
        # Numbers of single parameters come as arrays, one place for each.
        space = {name: function.array if rule.each else function.host for name, function in FUNCTIONS.items()}
        exec(self.host_source, space)
        self.host: Callable[..., tuple[tuple, tuple]] = space["host"]

    def numpy(self) -> str:
        """Return NumPy source: a function from blocks of arrays and constants to the new `p` and state, or terms."""
        results = self.terms or self.written
        return "\n    ".join([f"def {self.name}({', '.join([*self.arrays, *self.constants])}):",
                              *(f"{target} = {ast.unparse(expression)}" for target, expression in self.body),
                              f"return {', '.join(results)},"]) + "\n"

    def lines(self, language: str) -> list[tuple[str, str]]:
        """Return target and expression of each line of the body on one element, in "python" or "c"."""
        return [(scalar(ast.Name(target), language), scalar(expression, language)) for target, expression in self.body]


class Line:
    """One line of a rule, to be run alone: on the host where it touches no array, else on arrays as the kernels do.

    Attributes
    ----------
    target : str
        The name that it assigns.
    """

    def __init__(self, rule: Rule, target: str, expression: ast.expr) -> None:
        self.target, self.on_arrays = target, target in rule.touched
        hoist = _Hoist(rule.touched)
        value = hoist.visit(deepcopy(expression)) if self.on_arrays else expression
        self.constants = tuple(hoist.names)
        self.host = compile("\n".join(hoist.lines), f"<{rule.name}: {target}>", "exec")
        self.value = compile(ast.unparse(value), f"<{rule.name}: {target}>", "eval")
        # Numbers of single parameters, such as norms, are computed as the passes do it: as arrays of one place.
        self.each = rule.each

    def __call__(self, known: dict[str, Any], arrays: dict[str, Callable], cast: Callable) -> Any:
        """Return the value of the line, given the names known so far and functions on arrays."""
        space = {name: function.array if self.each else function.host for name, function in FUNCTIONS.items()} | known
        exec(self.host, space)
        if not self.on_arrays:
            return eval(self.value, space)
        constants = {name: cast(space[name]) for name in self.constants}
        return eval(self.value, arrays | known | constants)


class _Number(ast.NodeTransformer):
    """Give each sum over all elements a line of its own, before the line that uses it."""

    def __init__(self) -> None:
        self.reductions: dict[str, str] = {}
        self.before: list[tuple[str, ast.expr]] = []

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if called(node) not in REDUCTIONS:
            return node
        name = f"total{len(self.reductions)}"
        self.reductions[name] = called(node)
        self.before.append((name, ast.Call(ast.Name(called(node)), node.args, [])))
        return ast.Name(name)


def number_reductions(statements: list[tuple[str, ast.expr]]) -> tuple[list[tuple[str, ast.expr]], dict[str, str]]:
    """Return the statements with every reduction as a numbered line of its own, and the kind of each."""
    number, program = _Number(), []
    for target, expression in statements:
        changed = number.visit(deepcopy(expression))
        program += [*number.before, (target, changed)]
        number.before = []
    return program, number.reductions


def find_arrays(program: list[tuple[str, ast.expr]], reductions: dict[str, str], returned: list[str]) -> set[str]:
    """Return the names that hold arrays: `p`, `g` and whatever they reach but through a sum over all elements.

    What is returned as it came is an array too, such as the point where training began.
    """
    arrays, before = {"p", "g", *returned} - {target for target, _ in program} | {"p", "g"}, 0
    while len(arrays) > before:
        before = len(arrays)
        arrays |= {target for target, expression in program
                   if target not in reductions and _touches(expression, arrays)}
    return arrays


def find_levels(program: list[tuple[str, ast.expr]], reductions: dict[str, str]) -> list[int]:
    """Return for each line how many passes must have summed before it can be computed."""
    level, levels = {}, []
    for target, expression in program:
        here = max((level.get(name, 0) for name in _names(expression)), default=0)
        levels.append(here)
        level[target] = here + 1 if target in reductions else here
    return levels


def _live(program: list[tuple[str, ast.expr]], arrays: set[str], results: set[str],
          terms: tuple[str, ...]) -> list[bool]:
    """Return which lines of the body a pass needs for its results or its terms."""
    wanted, live = set(results), []
    for target, expression in reversed(program):
        needed = target in wanted or target in terms
        live.append(needed)
        if needed and (target in arrays or target in terms):
            wanted = (wanted - {target}) | (_names(expression) & arrays)
    return live[::-1]


def _names(expression: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}


def _touches(expression: ast.AST, names: set[str]) -> bool:
    return not names.isdisjoint(_names(expression))


class _Hoist(ast.NodeTransformer):
    """Replace every expression that touches no array by a constant `c0`, `c1`, ... computed on the host.

    `x ** 2` becomes `square(x)` and `x ** 0.5` becomes `sqrt(x)`: these are exact and the same everywhere,
    a general power is not.
    """

    def __init__(self, arrays: set[str]) -> None:
        self.arrays, self.names, self.lines = arrays, {}, []
        self.seen: dict[str, str] = {}

    def assign(self, target: str, expression: ast.expr) -> None:
        self.lines.append(f"{target} = {ast.unparse(expression)}")
        self.seen = {}                                          # the same text may now mean another number

    def visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, ast.expr):                      # + - * / themselves
            return node
        if not _touches(node, self.arrays):
            return ast.Name(self._constant(ast.unparse(node)))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            match node.right:
                case ast.Constant(value=2):
                    return self._call("square", node.left)
                case ast.Constant(value=0.5):
                    return self._call("sqrt", node.left)
            return self._call("power", node.left, node.right)
        if isinstance(node, ast.Call):
            return self._call(called(node), *node.args)
        if isinstance(node, ast.Name):
            return ast.Name(node.id)
        if operands(node) is None or isinstance(getattr(node, "op", None), ast.MatMult):
            raise RuleError(f"cannot read `{ast.unparse(node)}`; arrays meet in + - * / ** comparisons, & | ~ "
                            "and function calls")
        return super().generic_visit(node)

    def _call(self, name: str, *arguments: ast.expr) -> ast.Call:
        return ast.Call(ast.Name(name), [self.visit(argument) for argument in arguments], [])

    def _constant(self, source: str) -> str:
        if source not in self.seen:
            self.seen[source] = name = f"c{len(self.names)}"
            self.names[name] = name
            self.lines.append(f"{name} = {source}")
        return self.seen[source]
