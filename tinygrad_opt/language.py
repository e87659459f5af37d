"""The expressions of a rule in other languages: scalar Python for Numba, CUDA C, JavaScript, LaTeX, plain text.

`FUNCTIONS` is the one list of what a rule may call. Each printer walks an expression of Python's own
syntax tree; parentheses appear where precedence asks for them and nowhere else.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import numpy


class RuleError(TypeError):
    """A rule says something that cannot be read; the message shows the line and the way out."""


class Function(NamedTuple):
    """An elementwise function that a rule may call, in every language that a rule is printed in."""

    host: Callable[..., Any]      # on Python floats, for what is computed once a step
    array: Callable[..., Any]     # on arrays and, by NumPy's protocols, on Tensors
    python: str                   # scalar Python for Numba; {0}, {1}, ... are the arguments
    c: str                        # C++ and CUDA
    javascript: str
    latex: str


def _same(name: str, host: Callable[..., Any], latex: str) -> Function:
    """A function that has the same name everywhere."""
    call = f"{name}({{0}})"
    return Function(host, getattr(numpy, name), call, call, call, latex)


def _pair(name: str, latex: str) -> Function:
    array = getattr(numpy, name)
    call = f"{name}({{0}}, {{1}})"
    return Function(lambda a, b: float(array(a, b)), array, call, call, call, latex)


# The scalar `sign`, `square`, `maximum` and `minimum` are defined by each backend beside its kernels, because
# the ready-made ones differ from NumPy: Numba's numpy.where allocates an array per element, CUDA's max drops NaN.
# Those of JavaScript, and its `power`, are in lab/walk.js.
FUNCTIONS = {
    "sqrt": _same("sqrt", math.sqrt, r"\sqrt{{{0}}}"),
    "exp": _same("exp", math.exp, r"e^{{{0}}}"),
    "log": _same("log", math.log, r"\log\left({0}\right)"),
    "tanh": _same("tanh", math.tanh, r"\tanh\left({0}\right)"),
    "cbrt": _same("cbrt", math.cbrt, r"\sqrt[3]{{{0}}}"),
    "square": _same("square", lambda x: x * x, r"\left({0}\right)^2"),
    "sign": _same("sign", lambda x: float(numpy.sign(x)), r"\operatorname{{sign}}\left({0}\right)"),
    "abs": Function(abs, numpy.abs, "abs({0})", "fabs({0})", "abs({0})", r"\left|{0}\right|"),
    "isnan": Function(math.isnan, numpy.isnan, "isnan({0})", "isnan({0})", "isNaN({0})",
                      r"\operatorname{{isnan}}\left({0}\right)"),
    "maximum": _pair("maximum", r"\max\left({0}, {1}\right)"),
    "minimum": _pair("minimum", r"\min\left({0}, {1}\right)"),
    "power": Function(math.pow, numpy.power, "({0}) ** ({1})", "pow({0}, {1})", "power({0}, {1})",
                      r"\left({0}\right)^{{{1}}}"),
    "where": Function(lambda c, a, b: a if c else b, numpy.where, "({1} if {0} else {2})", "({0} ? {1} : {2})",
                      "({0} ? {1} : {2})", r"\left({1}\;\mathrm{{if}}\;{0}\;\mathrm{{else}}\;{2}\right)"),
}

class Reduction(NamedTuple):
    """A sum over all elements that a rule may ask for: of one parameter or, `everywhere`, of all together."""

    term: Callable[..., Any]      # from arrays to what is summed, in double precision
    finish: Callable[..., Any]    # from the sum to the result
    everywhere: bool
    latex: str
    text: str


def _twice(x: Any) -> Any:
    return numpy.multiply(x, x, dtype=numpy.float64)


def _product(a: Any, b: Any) -> Any:
    return numpy.multiply(a, b, dtype=numpy.float64)


def _itself(x: Any) -> Any:
    return numpy.multiply(x, 1, dtype=numpy.float64)


_NORM, _DOT = r"\left\| {0} \right\|", r"\left\langle {0}, {1} \right\rangle"
_ALL = r"_{{\mathrm{{all}}}}"

# A compiled kernel has the terms as functions of the same names.
REDUCTIONS = {
    "norm": Reduction(_twice, numpy.sqrt, False, _NORM, "‖{0}‖"),
    "total": Reduction(_itself, lambda total: total, False, r"\sum\left({0}\right)", "Σ({0})"),
    "global_norm": Reduction(_twice, numpy.sqrt, True, _NORM + _ALL, "‖{0}‖ₐₗₗ"),
    "global_dot": Reduction(_product, lambda total: total, True, _DOT + _ALL, "⟨{0}, {1}⟩ₐₗₗ"),
    "global_total": Reduction(_itself, lambda total: total, True,
                              r"\sum_{{\mathrm{{all}}}}\left({0}\right)", "Σₐₗₗ({0})"),
}


def named(latex: str) -> Callable[[Callable], Callable]:
    """Mark a function as one word of the language: a rule of matrices prints its name, not its lines."""
    def mark(function: Callable) -> Callable:
        function.latex = latex                                                           # type: ignore[attr-defined]
        NAMED[function.__name__] = function
        return function
    return mark


NAMED: dict[str, Callable] = {}

# What binds tighter has the larger number. Python and C disagree about & and |, which therefore stand in
# parentheses, and so do their operands.
_OPERATORS: dict[type, tuple[str, int]] = {
    ast.BitOr: ("|", 0), ast.BitAnd: ("&", 0), ast.Lt: ("<", 1), ast.LtE: ("<=", 1), ast.Gt: (">", 1),
    ast.GtE: (">=", 1), ast.Eq: ("==", 1), ast.NotEq: ("!=", 1), ast.Add: ("+", 2), ast.Sub: ("-", 2),
    ast.Mult: ("*", 3), ast.MatMult: ("@", 3), ast.Div: ("/", 3), ast.USub: ("-", 4), ast.Invert: ("!", 4),
    ast.Pow: ("**", 5),
}
_SIGNS = {
    "c": {},
    "python": {"!": "not "},
    "javascript": {},
    "latex": {"<=": r"\leq", ">=": r"\geq", "!=": r"\ne", "==": "=", "&": r"\wedge", "|": r"\vee", "!": r"\neg ",
              "*": r"\,", "@": r"\,", "()": r"\left({}\right)"},
}
_TEXT = {" - ": " − ", " * ": "·", " / ": " / ", " <= ": " ≤ ", " >= ": " ≥ ", " ** ": "^", "-": "−"}
_GREEK = {name: chr(code) for code, name in enumerate(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho _ sigma tau upsilon "
    "phi chi psi omega".split(), start=0x3B1)} | {"eps": "ε", "lambd": "λ"}
_MEANING = {"p": r"\theta", "lr": r"\eta", "weight_decay": r"\lambda", "momentum": r"\mu", "eps": r"\epsilon",
            "lambd": r"\lambda_{0}"}                # beside weight_decay


def operands(node: ast.expr) -> tuple[str, int, list[ast.expr]] | None:
    """Return symbol, precedence and operands of an operator; None for everything else."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return *_OPERATORS[type(op)], [left, right]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
            return *_OPERATORS[type(op)], [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return *_OPERATORS[type(op)], [operand]
    return None


def called(node: ast.Call) -> str:
    """Return the last part of the called name: `sqrt` for `sqrt(x)`, `np.sqrt(x)` and `tg.sqrt(x)`."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def _infix(node: ast.expr, walk: Callable[[ast.expr, int], str], outer: int, signs: dict[str, str]) -> str:
    """Print an operator between its operands, in parentheses where the outer operator binds tighter."""
    sign, level, terms = operands(node)                                                  # type: ignore[misc]
    sign, inner = signs.get(sign, sign), level or 2
    # What follows - or / must bind tighter than they do; floating point forgives no regrouping of + and * either.
    shown = [walk(term, inner + (place > 0)) for place, term in enumerate(terms)]
    text = f" {sign} ".join(shown) if len(shown) > 1 else sign + shown[0]
    return signs.get("()", "({})").format(text) if level < outer or level == 0 else text


def scalar(node: ast.expr, language: str, outer: int = 0) -> str:
    """Print an expression on one element, in "python" (for Numba), "c" or "javascript".

    The kernels are printed from what `lowering` leaves, calls and operators; JavaScript also from a rule as it stands.
    """
    match node:
        case ast.Name(id=name):
            return name if name.isascii() else re.sub(r"[^\x00-\x7f]", lambda m: f"u{ord(m[0]):x}", name)
        case ast.Call():
            known = FUNCTIONS.get(called(node))
            arguments = [scalar(a, language) for a in node.args]
            return getattr(known, language).format(*arguments) if known else f"{called(node)}({', '.join(arguments)})"
        case ast.Constant(value=bool() | int() | float() as value):
            return repr(value).lower()
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return scalar(ast.Call(ast.Name("power"), [left, right], []), language)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return scalar(ast.Call(ast.Name("where"), [test, body, orelse], []), language)
        case _ if operands(node) is None or isinstance(getattr(node, "op", None), ast.MatMult):
            raise RuleError(f"cannot print `{ast.unparse(node)}` in {language}")
        case _:
            return _infix(node, lambda term, level: scalar(term, language, level), outer, _SIGNS[language])


def latex(node: ast.expr, outer: int = 0) -> str:
    """Print an expression as LaTeX; quotients become fractions."""
    match node:
        case ast.Name(id=name):
            return symbol(name)
        case ast.Constant(value=value):
            return format(value, "g")
        case ast.Call():
            known = FUNCTIONS.get(called(node)) or REDUCTIONS.get(called(node)) or NAMED[called(node)]
            return known.latex.format(*(latex(a) for a in node.args))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return rf"\frac{{{latex(left)}}}{{{latex(right)}}}"
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"{latex(left, 6)}^{{{latex(right)}}}"
        case ast.Attribute(value=value, attr="T"):
            return rf"{latex(value, 6)}^{{\top}}"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return FUNCTIONS["where"].latex.format(latex(test), latex(body), latex(orelse))
    if operands(node) is None:
        return rf"\mathtt{{{ast.unparse(node)}}}"
    return _infix(node, latex, outer, _SIGNS["latex"])


def symbol(name: str) -> str:
    """Return a rule's name as LaTeX: `beta1` is \\beta_{1}, `m_hat` is \\hat{m}, `lr` is \\eta."""
    if name in _MEANING:
        return _MEANING[name]
    stem, hat, _ = name.partition("_hat")
    word, index = re.fullmatch(r"(.*?)_?(\d*)", stem).groups()                           # type: ignore[union-attr]
    shown = "\\" + word if word in _GREEK else word if len(word) == 1 else rf"\mathrm{{{word}}}".replace("_", r"\_")
    shown = rf"\hat{{{shown}}}" if hat else shown
    return f"{shown}_{{{index}}}" if index else shown


class _Signs(ast.NodeTransformer):
    """Put a placeholder where plain text has a sign in place of a function."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}

    def visit_Call(self, node: ast.Call) -> ast.AST:
        known = REDUCTIONS.get(called(node))
        if known is None:
            return self.generic_visit(node)
        name = f"_{len(self.shown)}_"
        self.shown[name] = known.text.format(*(text(a) for a in node.args))
        return ast.Name(name)


def text(node: ast.expr) -> str:
    """Print an expression as plain text, with Greek letters and the signs of a printed page."""
    signs = _Signs()
    shown = ast.unparse(signs.visit(deepcopy(node)))
    for plain, nice in _TEXT.items():
        shown = shown.replace(plain, nice)
    return re.sub(r"[A-Za-z_]\w*", lambda word: signs.shown.get(word[0]) or letter(word[0]), shown)


def letter(name: str) -> str:
    """Return a rule's name as plain text: `beta1` is β₁, `m_hat` is m̂."""
    stem, hat, _ = name.partition("_hat")
    word, index = re.fullmatch(r"(.*?)_?(\d*)", stem).groups()                           # type: ignore[union-attr]
    if not (word in _GREEK or len(word) == 1):
        return name
    return _GREEK.get(word, word) + "̂" * bool(hat) + "".join(chr(0x2080 + int(d)) for d in index)
