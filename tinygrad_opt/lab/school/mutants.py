"""Mutants: a rule with a known mistake in it, made by editing the lines of the right one.

A mistake is written as what changes: `sqrt(A) + eps` becomes `sqrt(A + eps)`, where a capital letter stands for any
expression. It fits every rule that has such a line, so one bank serves all optimizers, and no rule is written twice.
Mistakes that are not in the lines, such as one state for all parameters, say in which manner the lines are run.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from ... import rule as language
from ...language import FUNCTIONS, REDUCTIONS, letter, text
from ...rule import Rule

Lines = list[tuple[str, ast.expr]]
Edit = Callable[[Lines], Lines]


# ---- how lines are edited -----------------------------------------------------------------------------------------


def change(*pairs: tuple[str, str]) -> Edit:
    """Return an edit that puts the second of each pair in the place of the first.

    A pair of expressions applies wherever such an expression stands; a pair of lines, `S = A`, to whole lines, and no
    line at all stands for leaving it out. A capital letter is any expression, the same one throughout a pair. Where
    several pairs fit, the first does; what was put in is not read again.
    """
    parsed = [(ast.parse(old).body[0], ast.parse(new).body) for old, new in pairs]
    whole = [pair for pair in parsed if isinstance(pair[0], ast.Assign)]
    parts = [(old.value, new[0].value) for old, new in parsed if isinstance(old, ast.Expr)]

    def put(node: ast.expr) -> ast.expr | None:
        fits = ((new, found) for old, new in parts if (found := _match(old, node)) is not None)
        return next((_fill(new, found) for new, found in fits), None)

    def edit(lines: Lines) -> Lines:
        result: Lines = []
        for target, expression in lines:
            fits = ((new, found) for old, new in whole if (found := _match_line(old, target, expression)) is not None)
            new, found = next(fits, (None, {}))
            result += ([(target, _rebuilt(expression, put))] if new is None else
                       [(_fill(line.targets[0], found).id, _fill(line.value, found)) for line in new])
        return result
    return edit


def late(*names: str, given: str = "S = A") -> Edit:
    """Return an edit that assigns these names in the last lines, so that the others see what they were before.

    It applies where a line has the form `given`.
    """
    def edit(lines: Lines) -> Lines:
        if not _has(lines, given):
            return lines
        return [line for line in lines if line[0] not in names] + [line for line in lines if line[0] in names]
    return edit


def early(*names: str, given: str) -> Edit:
    """Return an edit that assigns these names in the first lines, where a line has the form `given`."""
    def edit(lines: Lines) -> Lines:
        if not _has(lines, given):
            return lines
        return [line for line in lines if line[0] in names] + [line for line in lines if line[0] not in names]
    return edit


def _has(lines: Lines, form: str) -> bool:
    """Whether a line has a form."""
    return any(_match_line(ast.parse(form).body[0], *line) is not None for line in lines)


def after_all(old: str, new: str) -> Edit:
    """Return an edit that takes a line away and puts another one at the end."""
    without, added = change((old, "")), ast.parse(new).body[0]

    def edit(lines: Lines) -> Lines:
        rest = without(lines)
        return [*rest, (added.targets[0].id, added.value)] if len(rest) < len(lines) else lines
    return edit


def _match(pattern: Any, node: Any, found: dict[str, ast.expr] | None = None) -> dict[str, ast.expr] | None:
    """Return what the capital letters of a pattern stand for in a node of its form; None where it has another form."""
    found = {} if found is None else found
    if isinstance(pattern, ast.Name) and len(pattern.id) == 1 and pattern.id.isupper():
        return found if _match(found.setdefault(pattern.id, node), node) is not None else None
    if isinstance(pattern, list):
        same = len(pattern) == len(node) and all(_match(a, b, found) is not None for a, b in zip(pattern, node))
    elif isinstance(pattern, ast.AST):
        same = type(pattern) is type(node) and all(_match(value, getattr(node, name), found) is not None
                                                   for name, value in _fields(pattern))
    else:
        same = pattern == node
    return found if same else None


def _match_line(line: ast.Assign, target: str, expression: ast.expr) -> dict[str, ast.expr] | None:
    found = _match(line.targets[0], ast.Name(target))
    return None if found is None else _match(line.value, expression, found)


def _fields(node: ast.AST) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind")]


def _fill(node: ast.expr, found: dict[str, ast.expr]) -> Any:
    """Return a pattern with what was found in the places of the capital letters."""
    return _rebuilt(node, lambda part: found.get(part.id) if isinstance(part, ast.Name) else None)


def _rebuilt(node: Any, put: Callable[[ast.expr], ast.expr | None]) -> Any:
    """Return an expression with what `put` gives in the places of its parts, from the outside in."""
    if isinstance(node, list):
        return [_rebuilt(part, put) for part in node]
    if not isinstance(node, ast.expr):
        return node
    new = put(node)
    return type(node)(**{name: _rebuilt(value, put) for name, value in _fields(node)}) if new is None else new


# ---- mistakes and mutants -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """Something that is often got wrong in an optimizer.

    Attributes
    ----------
    name : str
        Short: "eps inside the root".
    words : str
        What is wrong, in a sentence.
    hint : str
        A question that leads there and does not say it.
    edit : callable, optional
        From the lines of a rule to the wrong ones.
    manner : str
        How else the lines are run, where they are right in themselves.
    """

    name: str
    words: str
    hint: str
    edit: Edit | None = field(default=None, repr=False)
    manner: str = ""


class Mutant:
    """A rule with mistakes in it; with none it is the rule itself.

    Parameters
    ----------
    rule : Rule
    *mistakes : Mistake
        Made one after the other.

    Attributes
    ----------
    statements : list of (str, ast.expr)
        Target and expression of every line.
    manners : set of str
        How else the lines are run.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> mutants = {mutant.name: mutant for mutant in tg.lab.list_mutants("Lion")}
    >>> print(mutants["sign forgotten"].source)
    def sign_forgotten(p, g, m, t, lr, beta1, beta2, weight_decay):
        p = p * (1 - lr * weight_decay)
        p = p - lr * (beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        return p, m
    """

    def __init__(self, rule: Rule, *mistakes: Mistake) -> None:
        self.rule, self.mistakes = rule, mistakes
        self.manners = {mistake.manner for mistake in mistakes if mistake.manner}
        self.statements: Lines = list(rule.statements)
        for mistake in mistakes:
            if mistake.edit is not None:
                self.statements = mistake.edit(self.statements)
        self.kept = (*rule.states, *rule.memory)
        self.options = tuple(name for name in rule.options if name != "t")
        self._function: Callable | None = None

    @property
    def name(self) -> str:
        """What is wrong, in few words; the rule's own name where nothing is."""
        return " and ".join(mistake.name for mistake in self.mistakes) or self.rule.name

    @property
    def changed(self) -> bool:
        """Whether anything differs from the rule."""
        return bool(self.manners) or _plain(self.statements) != _plain(self.rule.statements)

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The lines that differ, right and wrong, as formulas; empty where a line has no counterpart."""
        right, wrong = _plain(self.rule.statements), _plain(self.statements)
        shown = [[f"{letter(target)} ← {text(expression)}" for target, expression in lines]
                 for lines in (self.rule.statements, self.statements)]
        pairs: list[tuple[str, str]] = []
        for tag, a, b, c, d in difflib.SequenceMatcher(None, right, wrong, autojunk=False).get_opcodes():
            if tag != "equal":
                rows = max(b - a, d - c)
                before, after = shown[0][a:b], shown[1][c:d]
                pairs += zip(before + [""] * (rows - len(before)), after + [""] * (rows - len(after)))
        return pairs

    @property
    def source(self) -> str:
        """The wrong rule as a Python function, which `tg.optim.from_rule` takes from a file or a cell."""
        return "\n    ".join([f"def {self._word}(p, g, {', '.join([*self.kept, 't', *self.options])}):",
                              *_plain(self.statements), f"return {', '.join(['p', *self.kept])}"])

    @property
    def _word(self) -> str:
        return "_".join("".join(c if c.isalnum() else " " for c in self.name).split())

    def __call__(self, p: Any, g: Any, kept: list[Any], t: Any, options: list[Any]) -> tuple[Any, list[Any]]:
        """Return the parameter and what is kept, one step later."""
        if self._function is None:
            space = dict(_WORDS)
            exec(self.source, space)
            self._function = space[self._word]
        result = self._function(p, g, *kept, t, *options)
        return (result[0], list(result[1:])) if isinstance(result, tuple) else (result, [])

    def __repr__(self) -> str:
        return f"<{self.rule.name} with {self.name}>" if self.mistakes else f"<{self.rule.name}>"


_WORDS = {name: function.array for name, function in FUNCTIONS.items()} | {
    name: getattr(language, name) for name in REDUCTIONS}


def _plain(lines: Lines) -> list[str]:
    return [f"{target} = {ast.unparse(expression)}" for target, expression in lines]


made = lru_cache(maxsize=8192)(Mutant)              # a grade asks for the same ones again and again


@cache
def mutants_of(rule: Rule) -> tuple[Mutant, ...]:
    """Return a rule with each mistake of the bank that can be made in it."""
    return tuple(mutant for mistake in MISTAKES if (mutant := made(rule, mistake)).changed)


# ---- the bank -----------------------------------------------------------------------------------------------------

_L2, _DECOUPLED = "g = g + weight_decay * p", "p = p * (1 - lr * weight_decay)"
_OF_CENTERED = ("m = alpha * m + A", "m = alpha * m + A")       # stays: a negative variance is NaN, whoever is wrong

MISTAKES = [
    # of the step
    Mistake("ascends", "The step is added where it should be subtracted: the loss grows.",
            "Which way does the loss fall, along the gradient or against it?", change(("p - A", "p + A"))),
    Mistake("parameter never written", "The new value never reaches the parameter: it stays as it was.",
            "After a step, is p itself another number, or only a name that stands for one?", change(("p = A", ""))),
    Mistake("lr forgotten", "The step is not multiplied by the learning rate.",
            "If lr is halved, is the step halved?",
            change(("lr * weight_decay", "lr * weight_decay"), ("lr * A", "A"), ("lr / A", "1 / A"))),
    Mistake("lr applied twice", "The learning rate multiplies the gradient on its way into the momentum, and the "
            "momentum once more.", "If lr is halved, does the step become a half or a quarter?",
            change(("b = momentum * b + A", "b = momentum * b + lr * A"))),
    Mistake("sign forgotten", "The step has the size of the mean; only its sign should count.",
            "How far does a weight move whose gradients are a thousand times smaller?", change(("sign(A)", "A"))),

    # of weight decay
    Mistake("decay with the wrong sign", "Weight decay lets the weights grow.",
            "With all gradients zero, do the weights shrink?",
            change(("g + weight_decay * p", "g - weight_decay * p"),
                   ("1 - lr * weight_decay", "1 + lr * weight_decay"))),
    Mistake("decay forgotten", "weight_decay is taken and has no effect.",
            "What changes when weight_decay does?", change((_L2, ""), (_DECOUPLED, ""))),
    Mistake("decoupled decay for L2", "The weights shrink beside the step; here the penalty belongs to the gradient, "
            "before anything is done with it.", "Which of the running averages should know of the decay?",
            change((_L2, _DECOUPLED))),
    Mistake("L2 for decoupled decay", "The decay is added to the gradient, so it passes through everything that is "
            "done to gradients; it should shrink the weights directly.",
            "Does a weight with large gradients decay as fast as one with small ones?", change((_DECOUPLED, _L2))),
    Mistake("decay not scaled by lr", "The weights shrink by weight_decay itself, and not by lr times it.",
            "Under a schedule of lr, does the decay follow?",
            change((_L2, "p = p * (1 - weight_decay)"), (_DECOUPLED, "p = p * (1 - weight_decay)"))),
    Mistake("decay after the step", "The weights shrink after they have moved, so that the step shrinks too.",
            "Which comes first, and which value of p is it that decays?", after_all(_DECOUPLED, _DECOUPLED)),
    Mistake("L1 for L2", "The decay pulls with the sign of a weight, not with the weight.",
            "Does a weight that is twice as large decay twice as much?",
            change(("g + weight_decay * p", "g + weight_decay * sign(p)"),
                   (_DECOUPLED, "p = p - lr * weight_decay * sign(p)"))),

    # of momentum
    Mistake("gradient dampened by 1 - momentum", "The gradient enters the momentum times 1 - momentum, as in a mean; "
            "here it enters as it is.", "With a constant gradient, how large does the momentum become?",
            change(("momentum * b + (A if t > 1 else 1) * B", "momentum * b + (1 - momentum) * B"),
                   ("b = momentum * b + A", "b = momentum * b + (1 - momentum) * A"))),
    Mistake("dampened at the first step too", "The first gradient is multiplied by 1 - dampening; PyTorch starts the "
            "momentum with the whole gradient.", "What is the momentum after one step?",
            change(("A if t > 1 else 1", "A"))),
    Mistake("lr inside the momentum", "The learning rate multiplies the gradient before it is remembered, as in Keras, "
            "so old steps keep the lr of their time.", "When lr falls, do the remembered gradients fall with it?",
            change(("b = momentum * b + A", "b = momentum * b + lr * A"), ("lr * b", "b"),
                   ("lr * (g + momentum * b)", "lr * g + momentum * b"))),
    Mistake("momentum subtracted", "The old momentum is subtracted from the gradient.",
            "With a constant gradient, do the steps grow?", change(("momentum * b + A", "A - momentum * b"))),
    Mistake("momentum one step late", "The step uses the momentum from before this gradient.",
            "Does the first step move?", late("b", given="p = p - lr * b")),
    Mistake("look-ahead forgotten", "The step follows the momentum alone: this is the heavy ball, not Nesterov.",
            "Where does the newest gradient enter a second time?", change(("g + momentum * b", "b"))),
    Mistake("look-ahead reversed", "The momentum is subtracted in the look-ahead.",
            "Does the look-ahead point where the momentum goes?", change(("g + momentum * b", "g - momentum * b"))),
    Mistake("look-ahead without the gradient", "The step is the decayed momentum, without the gradient beside it.",
            "What moves the parameter when momentum is close to zero?", change(("g + momentum * b", "momentum * b"))),
    Mistake("look-ahead with g and b exchanged", "The momentum is added whole and the gradient decayed; it is the "
            "other way round.", "Which of the two is multiplied by momentum?",
            change(("g + momentum * b", "b + momentum * g"))),

    # of means
    Mistake("betas exchanged", "Each beta does the work of the other.",
            "Which of the two should be closer to 1?", change(("beta1", "beta2"), ("beta2", "beta1"))),
    Mistake("beta1 in both places", "beta2 has no effect, beta1 stands for it.",
            "What changes when beta2 does?", change(("beta2", "beta1"))),
    Mistake("beta2 in both places", "beta1 has no effect, beta2 stands for it.",
            "What changes when beta1 does?", change(("beta1", "beta2"))),
    Mistake("beta2 beside beta1", "The mean keeps beta1 of the old and takes 1 - beta2 of the new: two weights that do "
            "not sum to one.", "With a constant gradient, is the mean that gradient?",
            change(("beta1 * m + (1 - beta1) * g", "beta1 * m + (1 - beta2) * g"))),
    Mistake("old and new exchanged in the mean", "beta weighs the new gradient and 1 - beta the old mean.",
            "With beta near 1, does the mean follow a single gradient or resist it?",
            change(_OF_CENTERED, ("m = B * m + (1 - B) * A", "m = (1 - B) * m + B * A"))),
    Mistake("old and new exchanged in the mean square", "beta weighs the new square and 1 - beta the old ones.",
            "With beta near 1, does the mean square follow a single gradient or resist it?",
            change(("B * v + (1 - B) * A", "(1 - B) * v + B * A"))),
    Mistake("sum in place of the mean", "The gradient is added whole to the mean, without its factor 1 - beta.",
            "With a constant gradient, is the mean that gradient?",
            change(_OF_CENTERED, ("m = B * m + (1 - B) * g", "m = B * m + g"))),
    Mistake("sum in place of the mean square", "The square is added whole, without its factor: nothing keeps the "
            "mean square at the size of a square.", "With a constant gradient, is the root of v that gradient?",
            change(("v = B * v + (1 - B) * A", "v = B * v + A"))),
    Mistake("mean in place of the sum", "Old squares are forgotten (nine tenths of them are kept); here they are all "
            "summed.", "After a hundred equal gradients, how large is s?",
            change(("s + g ** 2", "0.9 * s + 0.1 * g ** 2"))),
    Mistake("gradient in place of its mean", "The step follows the gradient of this step; the mean is kept and never "
            "used.", "What changes when beta1 does?",
            change(("lr * m_hat", "lr * g"))),
    Mistake("mean without this gradient", "The step follows the mean as it was before this gradient.",
            "Does the first step move?", change(("sign(beta1 * m + A)", "sign(m)"))),
    Mistake("mean one step late", "The step uses the mean from before this gradient.",
            "Does the first step move?", late("m")),
    Mistake("mean updated before the step", "The mean has taken in this gradient before the step mixes it in again.",
            "How often does this gradient enter the step?", early("m", given="p = p - lr * sign(A)")),

    # of squares
    Mistake("square forgotten", "The mean of the gradient itself stands where the mean of its square belongs.",
            "Can the number under the root be negative?", change(("g ** 2", "g"))),
    Mistake("absolute value for the square", "The mean of |g| stands under the root, where that of its square belongs.",
            "If all gradients are ten times as large, is the step the same?", change(("g ** 2", "abs(g)"))),
    Mistake("square of the mean", "The mean square is made from the mean gradient, not from the gradient.",
            "For gradients +1 and -1 in turn, how large is v?",
            change(("v = beta2 * v + A * g ** 2", "v = beta2 * v + A * m ** 2"))),
    Mistake("square of the difference from the mean", "The mean square is that of the surprise g - m: this is "
            "AdaBelief.", "For a constant gradient, how large is v?",
            change(("v = beta2 * v + A * g ** 2", "v = beta2 * v + A * (g - m) ** 2"))),
    Mistake("one mean square for the whole tensor", "The squares are averaged over the tensor, so that all its "
            "weights share one rate.", "Do two weights whose gradients differ a thousandfold get different rates?",
            change(("g ** 2", "total(g ** 2) / total(g ** 0)"))),
    Mistake("root forgotten", "The step is divided by the mean square, not by its root.",
            "If all gradients are ten times as large, is the step the same?", change(("sqrt(A)", "A"))),
    Mistake("denominator one step late", "The step is divided by the root from before this gradient.",
            "What is divided by at the first step?", late("v", "s")),
    Mistake("mean not subtracted", "The mean square stands where the variance belongs.",
            "For a constant gradient, how large is the denominator?", change(("v - m ** 2", "v"))),
    Mistake("mean subtracted without its square", "The mean is subtracted from the mean square, where its "
            "square belongs.", "Have both terms under the root the same unit?", change(("v - m ** 2", "v - m"))),
    Mistake("maximum forgotten", "The step is divided by the present root, not by the largest so far.",
            "Can the effective rate of a weight grow again?", change(("maximum(A, B)", "B"))),
    Mistake("minimum for the maximum", "The smallest mean square so far is kept, not the largest.",
            "Can the effective rate of a weight grow again?", change(("maximum(A, B)", "minimum(A, B)"))),
    Mistake("maximum of the corrected", "The largest corrected mean square is kept, as in optax, not the largest of "
            "the uncorrected ones, which is corrected afterwards.", "Is the maximum taken before the correction, or "
            "after it?", change(("maximum(v_max, v)", "maximum(v_max, v / (1 - beta2 ** t))"),
                                ("v_max / (1 - B ** t)", "v_max"))),

    # of eps
    Mistake("eps inside the root", "eps is added under the root.",
            "With a gradient of zero, what is divided by?", change(("sqrt(A) + eps", "sqrt(A + eps)"))),
    Mistake("eps forgotten", "Nothing is added to the root: a gradient of zero divides zero by zero.",
            "With a gradient of zero, what is divided by?", change(("sqrt(A) + eps", "sqrt(A)"))),
    Mistake("eps before bias correction", "eps is added to the root of v, and the sum is corrected; it should be added "
            "to the root of the corrected v.", "At the first step, how large is what eps adds?",
            change(("sqrt(v_hat) + eps", "(sqrt(v) + eps) / sqrt(1 - beta2 ** t)"))),

    # of bias correction and of the count of steps
    Mistake("no bias correction", "Neither mean is corrected for having started at zero.",
            "At the first step, is the mean the gradient, or a tenth of it?", change(("A / (1 - B ** t)", "A"))),
    Mistake("no bias correction of the mean", "The mean gradient is not corrected for having started at zero.",
            "At the first step, is the mean the gradient, or a tenth of it?", change(("m / (1 - B ** t)", "m"))),
    Mistake("no bias correction of the mean square", "The mean square is not corrected for having started at zero.",
            "How long is the first step? It should be about lr.", change(("v / (1 - B ** t)", "v"),
                                                                         ("v_max / (1 - B ** t)", "v_max"))),
    Mistake("bias correction without t", "The correction is that of the first step, at every step.",
            "What is the correction after a thousand steps?", change(("B ** t", "B"))),
    Mistake("bias correction multiplies", "The means are multiplied by 1 - beta^t; they should be divided by it.",
            "Does the correction make the first mean larger or smaller?",
            change(("A / (1 - B ** t)", "A * (1 - B ** t)"))),
    Mistake("corrected mean kept", "The corrected mean overwrites the mean, and is corrected again at the next step.",
            "Which of the two does the next step start from?", change(("m_hat = A", "m = A"), ("m_hat", "m"))),
    Mistake("corrected mean square kept", "The corrected mean square overwrites the mean square, and is corrected "
            "again at the next step.", "Which of the two does the next step start from?",
            change(("v_hat = v / A", "v = v / A"), ("v_hat", "v"))),
    Mistake("bias correction where there is none", "The mean square is corrected for its start; RMSprop does not do "
            "so, and its first steps are long.", "How long is the first step, in units of lr?",
            change(("sqrt(v) + eps", "sqrt(v / (1 - alpha ** t)) + eps"))),
    Mistake("t from 0", "The steps are counted from 0; the first has the number 1.",
            "What is beta ** t in the first step?", change(("B ** t", "B ** (t - 1)"), ("t - 1", "t - 2"))),
    Mistake("t from 2", "The count of steps is one ahead: the first step has the number 1.",
            "What is t in the first step?", change(("B ** t", "B ** (t + 1)"), ("t - 1", "t"))),

    # of how the lines are run
    Mistake("state begins anew at each step", "Nothing is remembered: each step starts from the first state.",
            "Where is the state made, and how often does that line run?", manner="state anew"),
    Mistake("one state for all parameters", "All parameters write into the same state.",
            "With two parameters of the same shape, how many arrays of state are there?", manner="state shared"),
    Mistake("initial state ignored", "The state starts from zero, whatever the option says.",
            "What changes when initial_accumulator_value does?", manner="state from zero"),
    Mistake("gradient kept without a copy", "The state is the gradient's own array, and changes when the next "
            "gradient is written there.", "Is the state an array of its own?", manner="state is the gradient"),
    Mistake("t counts parameters", "The count of steps grows with every parameter, not with every step.",
            "With three parameters, what is t after one step?", manner="t of the optimizer"),
    Mistake("no gradient taken as zero", "A parameter without a gradient moves on; it should be left alone.",
            "What is to be done where p.grad is None?", manner="None is zero"),
]
