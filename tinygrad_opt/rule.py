"""A rule is the heart of an optimizer, written once and read in many ways.

A rule is a straight-line Python function, assignments and a return, as the paper writes it::

    def momentum(p, g, b, lr, mu):
        b = mu * b + g
        p = p - lr * b
        return p, b

`p` is the parameter, `g` its gradient, every other array is state: an argument that is returned
again. The remaining arguments are numbers: `t` counts the steps of the parameter from 1, the others
are options of the parameter's group. A rule may call another rule; the call is written out in place.

This file reads such a function (`Rule`), hoists what touches no array so that it is computed once a
step on the host in float64, and prints what remains, the per-element body, as NumPy, Numba or CUDA
source, as LaTeX and as plain text. Running it is the business of a backend.

A rule may ask for a norm or a sum over all elements of an array (`norm(g)`; `global_norm(g)` takes all
parameters as one vector). What comes back is a number, so such a rule runs in several passes: those
that only sum, then the one that writes (`Pass`).

A rule that works on whole matrices, `@` and functions that are `named`, is marked `@matrix`. It is
read for its formula and its state; it runs as it stands, on one parameter after the other.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from .language import FUNCTIONS, REDUCTIONS, Reduction, RuleError, called, latex, letter, named, symbol, text
from .lowering import Pass, find_arrays, find_levels, number_reductions

sqrt, exp, log, tanh, cbrt, square, sign, abs, isnan, maximum, minimum, power, where = (
    function.array for function in FUNCTIONS.values())


def _reduce(name: str, reduction: Reduction) -> Callable[..., Any]:
    """Return a reduction as a function of whole arrays: one parameter is then all there are."""
    def reduce(*arrays: Any) -> Any:
        return reduction.finish(reduction.term(*arrays).sum())
    reduce.__name__ = name
    reduce.__doc__ = f"Return {reduction.text.format('x', 'y')} of whole arrays."
    return reduce


norm, total, global_norm, global_dot, global_total = (_reduce(*item) for item in REDUCTIONS.items())

__all__ = ["Pass", "Rule", "RuleError", "matrix", "named", *FUNCTIONS, *REDUCTIONS]


# Words of C and of the printed kernels.
RESERVED = {"auto", "bool", "char", "const", "double", "float", "int", "long", "real", "short", "signed", "static",
            "struct", "switch", "typedef", "unsigned", "void", "kernel", "numpy", "carray", "njit",
            "address", "product", *FUNCTIONS, *REDUCTIONS}


def matrix(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a rule that works on whole arrays."""
    function.matrix = True                                                               # type: ignore[attr-defined]
    return function


class Rule:
    """A rule, read once.

    Parameters
    ----------
    function : callable
        The rule: `p`, `g`, state and options in, `p` and the new state out, returned by name.
    maximize : bool, default False
        Put the line `g = -g` in front.

    Attributes
    ----------
    states : tuple of str
        The arrays that the rule keeps between steps, in the order of its return.
    memory : tuple of str
        The numbers that it keeps: returned arguments that no array ever reaches.
    options : tuple of str
        The numbers that it is given at each step; `t` among them is the count of steps.
    statements : list of (str, ast.expr)
        Target and expression of every line, calls of other rules written out.
    program : list of (str, ast.expr)
        The statements with every sum over elements as a line of its own, `total0`, `total1`, ...
    touched : set of str
        The names that hold arrays; the others are numbers.
    passes : list of Pass
        What a step runs; the last one writes, those before it sum. Empty for a rule of matrices.

    Raises
    ------
    RuleError
        When the source cannot be found or a line is not a plain assignment.

    Examples
    --------
    >>> from tinygrad_opt.rule import Rule
    >>> def momentum(p, g, b, lr, mu):
    ...     b = mu * b + g
    ...     p = p - lr * b
    ...     return p, b
    >>> rule = Rule(momentum)
    >>> rule.states, rule.options
    (('b',), ('lr', 'mu'))
    >>> print(rule.text())
    b ← μ·b + g
    p ← p − lr·b
    """

    def __init__(self, function: Callable[..., Any], *, maximize: bool = False) -> None:
        self.function = function
        self.name = function.__qualname__.removesuffix(".rule").rpartition(".")[2]      # `Lion.rule` is named Lion
        arguments, statements, returned = _read(function)
        if arguments[:2] != ["p", "g"] or returned[:1] != ["p"]:
            raise RuleError(f"rule {self.name}: takes p, g first and returns p first, got "
                            f"({', '.join(arguments)}) -> ({', '.join(returned)})")
        if not set(returned) <= set(arguments) or len(set(returned)) < len(returned) or "g" in returned:
            raise RuleError(f"rule {self.name}: returns p and its state, each an argument and each once, "
                            f"got ({', '.join(returned)})")
        self.statements = [("g", ast.parse("-g", mode="eval").body)] * maximize + statements
        self.matrix, self.maximize = getattr(function, "matrix", False), maximize
        self.program, self.reductions = number_reductions(self.statements)
        self.touched = ({*arguments[:2], *returned} if self.matrix
                        else find_arrays(self.program, self.reductions, returned))
        self.states = tuple(name for name in returned[1:] if name in self.touched)
        self.memory = tuple(name for name in returned[1:] if name not in self.touched)
        self.arrays = ("p", "g", *self.states)
        self.options = tuple(name for name in arguments if name not in {*self.arrays, *self.memory})
        for name in {*arguments, *(target for target, _ in self.statements)}:
            if name.startswith("_") or name in RESERVED:
                raise RuleError(f"rule {self.name}: the name {name} is taken in the printed kernels; choose another")
        self.passes = [] if self.matrix else self._lower(self.program, self.touched)

    def _lower(self, program: list[tuple[str, ast.expr]], arrays: set[str]) -> list[Pass]:
        known = {*self.arrays, *self.options, *self.memory}
        for target, expression in program:
            self._check(expression, known)
            known.add(target)
        for name in self.options:
            if name in arrays:
                raise RuleError(f"rule {self.name}: {name} becomes an array; return it as state, or give the new "
                                "value another name")
        levels = find_levels(program, self.reductions)
        last = max((level + 1 for (target, _), level in zip(program, levels) if target in self.reductions), default=0)
        return [Pass(self, k, k == last, program, levels, arrays) for k in range(last + 1)]

    def _check(self, expression: ast.expr, known: set[str]) -> None:
        functions = [*FUNCTIONS, *REDUCTIONS]
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and called(node) not in functions:
                raise RuleError(f"rule {self.name}: cannot read `{ast.unparse(node)}`; a rule may call "
                                f"{', '.join(functions)}, and other rules on a line of their own")
        heads = {id(node.func) for node in ast.walk(expression) if isinstance(node, ast.Call)}
        for node in ast.walk(expression):
            if isinstance(node, ast.Name) and id(node) not in heads and node.id not in known:
                raise RuleError(f"rule {self.name}: does not know {node.id}; a rule sees its arguments and what it has "
                                "assigned, so write a constant as a number")

    @property
    def source(self) -> str:
        """Return the Python source of the rule itself."""
        return textwrap.dedent(inspect.getsource(self.function))

    @property
    def each(self) -> bool:
        """Whether some number of the rule belongs to a single parameter, as a norm does."""
        return any(not REDUCTIONS[name].everywhere for name in self.reductions.values())

    def latex(self) -> str:
        """Return the rule as an aligned LaTeX display, one row a line."""
        rows = [rf"{symbol(target)} &\leftarrow {latex(expression)}" for target, expression in self.statements]
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def text(self) -> str:
        """Return the rule as plain text, one line a statement."""
        return "\n".join(f"{letter(target)} ← {text(expression)}" for target, expression in self.statements)


def _read(function: Callable[..., Any]) -> tuple[list[str], list[tuple[str, ast.expr]], list[str]]:
    """Return arguments, statements and returned names of a rule, with the rules that it calls written out."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise RuleError(f"the source of rule {function!r} cannot be found ({error}); define it with `def` in a file "
                        "or a notebook cell") from None
    definition = ast.parse(source).body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise RuleError(f"a rule is a function defined with `def`, got: {source.splitlines()[0].strip()}")
    statements: list[tuple[str, ast.expr]] = []
    for line in definition.body:
        match line:
            case ast.Expr(value=ast.Constant()):                                        # a docstring
                continue
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if not _is_rule(function, value):
                statements.append((target, value))
            case ast.AugAssign(target=ast.Name(id=target), op=op, value=value):
                statements.append((target, ast.BinOp(ast.Name(target), op, value)))
            case ast.Assign(targets=[ast.Tuple() | ast.Name() as target], value=value) if _is_rule(function, value):
                names = [name.id for name in getattr(target, "elts", [target])]
                inner, results = _write_out(function, value, names)
                statements += inner + [(name, ast.Name(x)) for name, x in zip(names, results) if name != x]
            case ast.Return(value=ast.Call() as call) if _is_rule(function, call):
                inner, results = _write_out(function, call, None)
                return [a.arg for a in definition.args.args], statements + inner, results
            case ast.Return(value=ast.Name(id=name)):
                return [a.arg for a in definition.args.args], statements, [name]
            case ast.Return(value=ast.Tuple(elts=names)) if all(isinstance(name, ast.Name) for name in names):
                return [a.arg for a in definition.args.args], statements, [name.id for name in names]
            case _:
                raise RuleError(f"rule {function.__name__}: cannot read `{ast.unparse(line)}`; a rule has only "
                                "`name = expression` and a last `return p, ...` by name; use where(condition, a, b) "
                                "for a choice")
    raise RuleError(f"rule {function.__name__}: ends without `return p, ...`")


def _is_rule(function: Callable[..., Any], node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or called(node) in FUNCTIONS.keys() | REDUCTIONS.keys():
        return False
    found = _lookup(function, node)
    return found is not None and getattr(found, "latex", None) is None                  # a word of matrices has one


def _lookup(function: Callable[..., Any], call: ast.Call) -> Callable[..., Any] | None:
    """Return the Python function that a rule calls, found where Python itself would look."""
    names = inspect.getclosurevars(function)
    found = {**names.globals, **names.nonlocals}.get(called(call).split(".")[0])
    return found if inspect.isfunction(found) else None


def _write_out(function: Callable[..., Any], call: ast.Call, targets: list[str] | None) -> tuple[list, list[str]]:
    """Return the statements of a called rule with its names fitted to the caller's, and its results.

    An argument keeps the caller's name when the callee does not change it, when the result goes back into that
    name, or when nothing comes after the call (`targets` is None). Otherwise the callee works on names of its own,
    so that the caller's stay as they are.
    """
    callee = _lookup(function, call)
    arguments, statements, returned = _read(callee)                                      # type: ignore[arg-type]
    given = dict(zip(arguments, call.args)) | {k.arg: k.value for k in call.keywords}
    if set(given) != set(arguments) or len(call.args) > len(arguments):
        raise RuleError(f"rule {function.__name__}: {called(call)} takes ({', '.join(arguments)}), got "
                        f"`{ast.unparse(call)}`; a rule passes every argument")
    if targets is not None and len(targets) != len(returned):
        raise RuleError(f"rule {function.__name__}: {called(call)} returns ({', '.join(returned)}), which does not "
                        f"fit ({', '.join(targets)})")
    changed = {target for target, _ in statements}
    passed = [value.id for value in given.values() if isinstance(value, ast.Name)]
    used = {node.id for value in given.values() for node in ast.walk(value) if isinstance(node, ast.Name)}
    used |= set(() if targets is None else function.__code__.co_varnames)
    goal = {name: name for name in changed} if targets is None else dict(zip(returned, targets))
    rename, before = {}, []
    for name in dict.fromkeys([*arguments, *(target for target, _ in statements)]):
        value = given.get(name)
        if isinstance(value, ast.Name) and (name not in changed or goal.get(name) == value.id
                                            and passed.count(value.id) == 1):
            rename[name] = value.id
            continue
        if value is None and name in goal and goal[name] not in passed:
            rename[name] = goal[name]
            continue
        rename[name] = next(fresh for fresh in (name, *(f"{name}_{k}" for k in range(1, 99))) if fresh not in used)
        if value is not None:
            before.append((rename[name], value))
    renamed = _Rename(rename)
    inner = [(rename[target], renamed.visit(deepcopy(expression))) for target, expression in statements]
    return before + inner, [rename[name] for name in returned]


class _Rename(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id))
