"""The grader: does a learner's optimizer go where the library's goes, and if not, which known mistake is it?"""

from __future__ import annotations

import html
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, permutations
from textwrap import fill
from typing import Any, NamedTuple

import numpy as np

from ...optim import OPTIMIZERS, SECOND_ORDER
from ...optim.optimizer import Optimizer
from ...optim.registry import find, optimizer_class
from ...rule import RuleError
from ...tensor import Tensor
from ..traces import check_options
from .mutants import Mistake, Mutant, made, mutants_of
from .submissions import NO_GRADIENT, Reference, Spoilt, Submission, Task, flat, make_tasks

TOLERANCE = 1e-9                    # of a parameter, beside as much of its size: the order of operations is free
ROUGH = 4e-7                        # the same where numbers pass through single precision
# Names of what is no class of its own.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "momentum": ("SGD", {"momentum": 0.9}), "heavy ball": ("SGD", {"momentum": 0.9}),
    "Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}), "AMSGrad": ("Adam", {"amsgrad": True}),
}


@dataclass(frozen=True)
class Difference:
    """Where a run first leaves the right one.

    Attributes
    ----------
    step : int
        From 1.
    place : str
        Which number of which parameter: "w[2]".
    expected, got : float
    """

    step: int
    place: str
    expected: float
    got: float

    def __str__(self) -> str:
        digits = next((n for n in range(6, 17) if f"{self.expected:.{n}g}" != f"{self.got:.{n}g}"), 17)
        return f"step {self.step}, {self.place}: expected {self.expected:.{digits}g}, got {self.got:.{digits}g}"


@dataclass(frozen=True)
class Verdict:
    """How a task went: right, different, or stopped with a complaint."""

    task: str
    difference: Difference | None = None
    complaint: str = ""
    cause: Mistake | None = None

    @property
    def right(self) -> bool:
        """Whether the run was the right one to its end."""
        return self.difference is None and not self.complaint


@dataclass(frozen=True)
class Grade:
    """What the grader found; printed as a few lines.

    Attributes
    ----------
    work, like : str
        What was handed in, and what it was compared with.
    passed : bool
    score : float
        The share of tasks that went right.
    mistake : str or None
        The known mistake that leads to the very same numbers; two of them joined by "and".
    words : str
        What is wrong, where it shows, and the first two numbers that differ.
    hint : str
        As much as was asked for; empty where there is none.
    verdicts : tuple of Verdict
        One for each task.
    """

    work: str
    like: str
    passed: bool
    score: float
    mistake: str | None
    words: str
    hint: str
    verdicts: tuple[Verdict, ...]

    @property
    def difference(self) -> Difference | None:
        """The first difference; None where there is none."""
        return next((verdict.difference for verdict in self.verdicts if verdict.difference), None)

    @property
    def _head(self) -> str:
        right, of = sum(verdict.right for verdict in self.verdicts), len(self.verdicts)
        found = f"right in all {of} tasks" if self.passed else f"{right} of {of} tasks right" if of else "not run"
        return f"{self.work} against {self.like}: {found}"

    def __str__(self) -> str:
        lines = [*self.words.splitlines(), *(f"Hint: {self.hint}".splitlines() if self.hint else ())]
        return "\n".join([self._head, *(fill(line, 110, initial_indent="  ", subsequent_indent="    ")
                                        if len(line) > 108 and "←" not in line else f"  {line}" for line in lines)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the words, and a table of the tasks that were not right."""
        rows = "".join(f"<tr><td style='text-align:left'>{html.escape(verdict.task)}</td><td style='text-align:left'>"
                       f"{html.escape(verdict.complaint or str(verdict.difference))}</td></tr>"
                       for verdict in self.verdicts if not verdict.right)
        colour = "#009E73" if self.passed else "#D55E00"
        words = html.escape(self.words).replace("\n", "<br>")
        hint = f"<p style='white-space:pre-wrap'><i>Hint:</i> {html.escape(self.hint)}</p>" if self.hint else ""
        table = (f"<details><summary>the tasks that differ</summary><table><tr><th>task</th><th>first difference</th>"
                 f"</tr>{rows}</table></details>") if rows else ""
        return (f"<div style='border-left:4px solid {colour};padding:0.2em 0.9em'><b>{html.escape(self._head)}</b>"
                f"<p>{words}</p>{hint}{table}</div>")


def grade(work: Any, like: str | type[Optimizer], *, hints: int = 1, **options: Any) -> Grade:
    """Run a learner's optimizer against the library's, and name the mistake where it differs.

    Parameters
    ----------
    work : type or function
        A class, made as `work(params, lr=..., ...)`, whose `step()` reads each `p.grad` and writes `p.data`; a
        subclass of `tg.optim.Optimizer`; a rule `(p, g, state and options)` that returns p and its state by name; or a
        function `(w, g, state, t, options)` that returns the new w, with `state` a dictionary of its own for each
        parameter and `t` from 1, each left out where it is not needed.
    like : str or type
        The library's optimizer, or "momentum", "Nesterov", "AMSGrad".
    hints : {0, 1, 2}, default 1
        0 names the mistake, 1 asks a question that leads to its cure, 2 shows the line.
    **options
        Of the library's optimizer, for all tasks. Others are varied where the work takes them, under PyTorch's name
        for them or a usual one; what it does not take stays at the library's default.

    Returns
    -------
    Grade

    Raises
    ------
    TypeError
        When the work is nothing that can be run, or asks for an option that the library's optimizer does not have.
    ValueError
        When there is no such optimizer, naming the nearest.

    Notes
    -----
    A run is right when every parameter after every step is that of the library to a billionth, so formulas may be
    arranged in any order. Gradients are given, in double precision.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.rule import sqrt
    >>> def my_rmsprop(p, g, v, lr, alpha, eps):
    ...     v = alpha * v + (1 - alpha) * g ** 2
    ...     p = p - lr * g / sqrt(v + eps)
    ...     return p, v
    >>> tg.lab.grade(my_rmsprop, like="RMSprop")
    my_rmsprop against RMSprop: 0 of 9 tasks right
      This is a known mistake: eps inside the root. eps is added under the root.
      It shows in the line of p, first in the task "one number" at step 1, w[0]: expected 2.3155, got 2.31539.
      Hint: With a gradient of zero, what is divided by?
    """
    if hints not in (0, 1, 2):
        raise ValueError(f"hints must be 0 for none, 1 for a question or 2 for the line; got {hints!r}")
    name, reference = resolve(like, options)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")             # of what becomes NaN, which the grade tells
        try:
            submission = Submission(work, reference)
        except RuleError as error:
            return Grade(getattr(work, "__name__", "the rule"), name, False, 0.0, None,
                         f"This is no rule that can be read: {error}.", "", ())
        exam = _exam(reference, frozenset(submission.names), frozenset(flat(options)), submission.rated)
        return _Grading(submission, exam, name).grade(hints)


def resolve(like: str | type[Optimizer], options: dict[str, Any]) -> tuple[str, Reference]:
    """Return the name of what is graded against, and the thing, from the name or the class of an optimizer."""
    if not isinstance(like, str):
        if not (inspect.isclass(like) and issubclass(like, Optimizer)):
            raise TypeError(f"like must be the name of an optimizer, or its class; got {like!r}")
        return like.__name__, _resolved(like, tuple(options.items()))
    name = find(like, [*OPTIMIZERS, *SECOND_ORDER, *VARIANTS])
    known, more = VARIANTS.get(name, (name, {}))
    return name, _resolved(optimizer_class(known), tuple({**more, **options}.items()))


@cache
def _resolved(like: type[Optimizer], base: tuple[tuple[str, Any], ...]) -> Reference:
    """Return what is graded against, made once and tried."""
    check_options(like, dict(base))
    try:
        reference = Reference(like, dict(base))
        next(reference.run(make_tasks(reference.options, set(), set())[0]))
    except TypeError as error:
        raise TypeError(f"{like.__name__} steps by more than gradients of vectors ({error}), and what is graded is "
                        "given nothing else") from None
    return reference


def list_mutants(like: str | type[Optimizer], **options: Any) -> list[Mutant]:
    """Return the known mistakes in an optimizer, as the rules that they lead to.

    Parameters
    ----------
    like : str or type
        The library's optimizer, or "momentum", "Nesterov", "AMSGrad".
    **options
        Of the optimizer, where they choose between rules: `momentum=0.9`.

    Returns
    -------
    list of Mutant
        Those that some task tells from the right rule.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> mutants = {mutant.name: mutant for mutant in tg.lab.list_mutants("Adagrad")}
    >>> mutants["mean in place of the sum"].lines
    [('s ← s + g^2', 's ← 0.9·s + 0.1·g^2')]
    """
    _, reference = resolve(like, options)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        exam = _exam(reference, frozenset(reference.options), frozenset(flat(options)), True)
        rule = reference.make([Tensor(np.ones(1), requires_grad=True)], {})._rule(0)
        own = [run for run in zip(exam.tasks, exam.right) if reference.rule(run[0]) is rule]
        return [made(rule, mistake) for mistake in told_apart(reference, own)]


# ---- how it is found ----------------------------------------------------------------------------------------------


ROUNDED = Mistake("rounding", "All goes right but for the seventh digit, as it does where numbers pass through single "
                  "precision: parameters and gradients come in double.",
                  "Of which dtype is the state, and does it follow that of p?")


def _same(a: np.ndarray, b: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    return (abs(a - b) <= tolerance * (1 + abs(b))) | (a == b) | ((a != a) & (b != b))          # infinite, NaN


def _agreement(right: list[np.ndarray], run: Iterator[np.ndarray]) -> int:
    """Return in how many steps a run goes as the other one, until they part."""
    count = 0
    try:
        for a, b in zip(right, run):
            if not _same(a, b).all():
                break
            count += 1
    except (ValueError, ArithmeticError, NameError, TypeError):     # two mistakes together need not run at all
        return -1
    return count


def told_apart(reference: Reference, runs: list[tuple[Task, list[np.ndarray]]]) -> list[Mistake]:
    """Return the mistakes that can be made in the rules of some tasks, and that these tasks tell from the right one.

    Parameters
    ----------
    reference : Reference
    runs : list of (Task, list of arrays)
        Each task with the right run.
    """
    rules = [reference.rule(task) for task, _ in runs]
    # An optimizer that does more than its rule, such as to tell it a number, is not to be judged by the rule alone.
    if not all(not rule.matrix and _agreement(right, reference.walk(made(rule), task)) == len(right)
               for rule, (task, right) in zip(rules, runs)):
        return []
    mistakes = dict.fromkeys(mutant.mistakes[0] for rule in dict.fromkeys(rules) for mutant in mutants_of(rule))
    return [mistake for mistake in mistakes
            if any(0 <= _agreement(right, reference.walk(made(rule, mistake), task)) < len(right)
                   for rule, (task, right) in zip(rules, runs))]


class _Exam(NamedTuple):
    """The tasks, the right runs, and the mistakes that they tell from it."""

    reference: Reference
    tasks: list[Task]
    right: list[list[np.ndarray]]
    mistakes: list[Mistake]


@cache
def _exam(reference: Reference, taken: frozenset[str], fixed: frozenset[str], rated: bool) -> _Exam:
    """Set the tasks for work that takes some options; `rated` says whether its lr can be changed on the way."""
    tasks = [task for task in make_tasks(reference.options, taken, fixed) if rated or not task.rates]
    right = [list(reference.run(task)) for task in tasks]
    return _Exam(reference, tasks, right, told_apart(reference, list(zip(tasks, right))))


class _Grading:
    """One piece of work on all tasks."""

    def __init__(self, submission: Submission, exam: _Exam, like: str) -> None:
        self.submission, self.like = submission, like
        self.reference, self.tasks, self.right, self.mistakes = exam
        self.runs: list[list[np.ndarray]] = []
        self.verdicts = tuple(self._verdict(task, right) for task, right in zip(self.tasks, self.right))

    def _verdict(self, task: Task, right: list[np.ndarray]) -> Verdict:
        """Run a task, keep the run, and say where it leaves the right one."""
        run: list[np.ndarray] = []
        self.runs.append(run)
        try:
            for got in self.submission.run(task):
                run.append(got)
        except Spoilt as error:
            return Verdict(task.title, _difference(task, right, run), str(error), error.mistake)
        except Exception as error:
            line = self.submission.line_of(error)
            said = (f"It stops at step {len(run) + 1} with {type(error).__name__}: {str(error).rstrip('.')}"
                    + (f", in {line}" if line else "") + ".")
            return Verdict(task.title, _difference(task, right, run), said, self._cause(error, task, len(run)))
        return Verdict(task.title, _difference(task, right, run))

    def grade(self, hints: int) -> Grade:
        """Return the grade."""
        right = sum(verdict.right for verdict in self.verdicts)
        passed = right == len(self.verdicts)
        mistakes = () if passed else self._named()
        words = self._praise() if passed else self._words(mistakes)
        hint = "" if passed or not hints else self._hint(mistakes, hints)
        name = " and ".join(mistake.name for mistake in mistakes) or None
        return Grade(self.submission.name, self.like, passed, right / len(self.verdicts), name, words, hint,
                     self.verdicts)

    # ---- which mistake ------------------------------------------------------------------------------------

    def _named(self) -> tuple[Mistake, ...]:
        """Return the mistake, or the two, that lead to the numbers of every task that ran to its end."""
        complaints = tuple(dict.fromkeys(verdict.cause for verdict in self.verdicts if verdict.cause))
        whole = [k for k, task in enumerate(self.tasks) if len(self.runs[k]) == len(task.gradients)]
        order = sorted(whole, key=lambda k: self.verdicts[k].difference is None)
        if not order or self.verdicts[order[0]].difference is None:
            return complaints

        def explains(mistakes: tuple[Mistake, ...]) -> bool:
            return all(self._agreement(k, mistakes) == len(self.runs[k]) for k in order)
        one, two = (filter(explains, permutations(self.mistakes, n)) for n in (1, 2))
        return next(chain(one, self._others(order), self._rounded(order), two), ()) + complaints

    def _rounded(self, order: list[int]) -> Iterator[tuple[Mistake, ...]]:
        """Yield that all is right but for rounding, if it is."""
        if all(_same(got, right, ROUGH).all() for k in order for got, right in zip(self.runs[k], self.right[k])):
            yield ROUNDED,

    def _others(self, order: list[int]) -> Iterator[tuple[Mistake, ...]]:
        """Yield other optimizers of the library that go as the work does, as mistakes."""
        for name in OPTIMIZERS:
            try:
                other = Reference(optimizer_class(name), {})
                same = all(self._goes_as(other, k) for k in order)
            except (TypeError, ValueError):         # it is made of more than one vector, or with other options
                continue
            if same:
                yield Mistake(f"{name} in place of {self.like}", f"It goes exactly as the library's {name} does.",
                              f"In which line do {name} and {self.like} differ?"),

    def _goes_as(self, other: Reference, k: int) -> bool:
        """Whether task k went as another optimizer goes with the same options."""
        options = {name: self.tasks[k].options.get(name, value) for name, value in other.options.items()}
        task = replace(self.tasks[k], options=options)
        rule = other.rule(task)
        return not rule.matrix and _agreement(self.runs[k], other.walk(made(rule), task)) == len(self.runs[k])

    def _cause(self, error: Exception, task: Task, steps: int) -> Mistake | None:
        """Return the mistake that is known to stop in this way."""
        missing = any(g is None for gradients in task.gradients for g in gradients)
        if missing and isinstance(error, (TypeError, AttributeError)) and "None" in str(error):
            return NO_GRADIENT
        if isinstance(error, ZeroDivisionError) and not steps:
            return next((mistake for mistake in self.mistakes if mistake.name == "t from 0"), None)
        return None

    def _agreement(self, k: int, mistakes: tuple[Mistake, ...]) -> int:
        """Return in how many steps of task k the run goes as the rule with these mistakes."""
        task = self.tasks[k]
        return _agreement(self.runs[k], self.reference.walk(made(self.reference.rule(task), *mistakes), task))

    # ---- what is said -------------------------------------------------------------------------------------

    def _praise(self) -> str:
        missing = [name for name in self.reference.options if name not in self.submission.names]
        return ("Every parameter after every step is the library's, to a billionth."
                + (f"\nNot asked for, since it does not take them: {', '.join(missing)}." if missing else ""))

    def _words(self, mistakes: tuple[Mistake, ...]) -> str:
        """Say what is wrong, where it shows, and the first numbers that differ."""
        differing = [verdict for verdict in self.verdicts if verdict.difference]
        lines = [_said(mistakes) if mistakes or differing else ""]
        if not mistakes and differing:
            lines[0] += self._nearest()
        place = self._lines_changed(mistakes)
        if differing:
            first = differing[0]
            lines.append(f'It shows {place}first in the task "{first.task}" at {first.difference}.')
        complaint = next((verdict for verdict in self.verdicts if verdict.complaint), None)
        if complaint and complaint.complaint not in lines[0]:
            lines.append(f'{complaint.complaint} The task is "{complaint.task}".')
        wrong = [verdict.task for verdict in self.verdicts if not verdict.right]
        if 2 * len(wrong) < len(self.verdicts):
            lines.append(f"All is right but {'; '.join(wrong)}.")
        return "\n".join(line for line in lines if line)

    def _lines_changed(self, mistakes: tuple[Mistake, ...]) -> str:
        names = dict.fromkeys(line.partition(" ← ")[0] for pair in self._pairs(mistakes) for line in pair if line)
        return f"in the line{'s' * (len(names) > 1)} of {_listed(list(names))}, " if names else ""

    def _pairs(self, mistakes: tuple[Mistake, ...]) -> list[tuple[str, str]]:
        """Return the lines that differ, of the rule in which most do."""
        rules = dict.fromkeys(self.reference.rule(task) for task in self.tasks)
        return max((made(rule, *mistakes).lines for rule in rules), key=len)

    def _nearest(self) -> str:
        """Say which known mistake goes along the longest, where one goes further than the right rule does."""
        tasks = [k for k, verdict in enumerate(self.verdicts) if verdict.difference]

        def steps(mistakes: tuple[Mistake, ...]) -> int:
            return sum(self._agreement(k, mistakes) for k in tasks)
        best = max(((mistake,) for mistake in self.mistakes), key=steps, default=())
        if not best or steps(best) <= max(steps(()), len(tasks)):
            return ""
        return f' The nearest is "{best[0].name}", which leads to the same numbers in {steps(best)} steps.'

    def _hint(self, mistakes: tuple[Mistake, ...], hints: int) -> str:
        lines = [mistake.hint for mistake in mistakes] or [self._general()]
        if hints == 2:
            for right, wrong in self._pairs(mistakes):
                lines += [f"the library has    {right or 'no line'}", f"yours is as if     {wrong or 'no line'}"]
        return "\n".join(lines)

    def _general(self) -> str:
        """Return what to look at when the mistake is not known."""
        difference = next((verdict.difference for verdict in self.verdicts if verdict.difference), None)
        if difference is None:
            return "Begin with the line that it stops in."
        if difference.step == 1:
            return "The first step is wrong already, where the state is what it was made with: compute it by hand."
        return (f"The first step is right and step {difference.step} is not: look at what is carried from one step to "
                "the next.")


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _said(mistakes: tuple[Mistake, ...]) -> str:
    if not mistakes:
        return "This is none of the known mistakes, nor two of them."
    if len(mistakes) == 1:
        return f"This is a known mistake: {mistakes[0].name}. {mistakes[0].words}"
    return "\n".join(["These are known mistakes, together:",
                      *(f"- {mistake.name}. {mistake.words}" for mistake in mistakes)])


def _difference(task: Task, right: list[np.ndarray], run: list[np.ndarray]) -> Difference | None:
    """Return where a run first leaves the right one."""
    for step, (expected, got) in enumerate(zip(right, run), start=1):
        same = _same(expected, got)
        if not same.all():
            k = int(np.argmin(same))
            return Difference(step, _place(task, k), float(expected[k]), float(got[k]))
    return None


def _place(task: Task, k: int) -> str:
    """Return the name of the number at place k of the parameters as one vector."""
    for name, p in zip("wuv", task.start):
        if k < p.size:
            return f"{name}[{', '.join(map(str, np.unravel_index(k, p.shape)))}]"
        k -= p.size
    raise IndexError(k)
