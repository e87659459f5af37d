"""Submissions: what a learner may hand in, and how each kind is run on the same tasks as the library's optimizer.

A task is a start and the gradients of every step, given and not computed: so whoever is wrong at one step is not led
to other gradients by it, and the first difference is the mistake itself.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...optim.optimizer import Optimizer
from ...optim.plan import Numbers
from ...rule import Rule
from ...tensor import Tensor
from .mutants import Mistake, Mutant

# What tasks set an option to, where it is taken: every one then matters to nine digits.
VALUES = {"lr": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "momentum": 0.8, "dampening": 0.3, "alpha": 0.9,
          "rho": 0.8, "weight_decay": 0.2, "lr_decay": 0.1, "initial_accumulator_value": 0.5}
# What learners call the same options.
SPELLINGS = {"lr": ("learning_rate", "eta", "step_size"), "eps": ("epsilon",), "momentum": ("mu", "beta"),
             "alpha": ("rho", "decay", "beta"), "rho": ("alpha", "decay", "beta"), "weight_decay": ("wd", "decay"),
             "beta1": ("b1",), "beta2": ("b2",)}


# ---- the tasks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A start, and the gradients of every step.

    Attributes
    ----------
    title : str
    start : tuple of arrays
        The parameters.
    gradients : tuple of tuples of arrays
        For each step one of each parameter, None where it has none.
    options : dict
        What the optimizer is given.
    rates : tuple of float
        lr in each step is its option times this.
    same_array : bool
        Whether each gradient is written where the last one was, as `zero_grad(set_to_none=False)` leads to.
    """

    title: str
    start: tuple[np.ndarray, ...]
    gradients: tuple[tuple[np.ndarray | None, ...], ...]
    options: dict[str, Any]
    rates: tuple[float, ...] = ()
    same_array: bool = False

    def lr(self, t: int) -> float | None:
        """Return the learning rate of step t, from 0; None where it stays as it was made."""
        return self.options["lr"] * self.rates[t] if self.rates else None


def make_tasks(options: Mapping[str, Any], taken: Collection[str], fixed: Collection[str]) -> list[Task]:
    """Return the tasks for an optimizer.

    Parameters
    ----------
    options : mapping
        Of the library's optimizer, flat: `beta1` and `beta2`, not `betas`.
    taken : collection of str
        Which of them the learner's work takes.
    fixed : collection of str
        Which of them stay as they are.
    """
    free = [name for name in options if name in taken and name not in fixed]
    plain = {**options, **{name: VALUES[name] for name in free if name in VALUES and options[name]}}
    tasks = _plain_tasks(plain)
    extras = {name: VALUES[name] for name in free if name in VALUES and not options[name]}
    full = {**plain, **{name: value for name, value in extras.items()
                        if not (name == "dampening" and options.get("nesterov"))}}
    if full != plain:
        for name in [name for name in full if full[name] != plain[name]]:
            tasks.append(_varied(f"with {name}", {**plain, name: full[name]}))
        tasks.append(_two(f"two parameters, with {_listed(extras)}", full))
        if "momentum" in extras:
            tasks.append(_varied("gradients in the same array, with momentum", {**plain, "momentum": full["momentum"]},
                                 same_array=True))
        tasks.append(replace(_varied(f"a falling lr, with {_listed(extras)}", full), rates=_FALLING))
    for name in free:
        if options[name] is False:
            flagged = {**full, name: True}
            if name == "nesterov":
                flagged |= {"dampening": 0} | ({} if flagged.get("momentum") else {"momentum": 0.9})
            if name != "nesterov" or "momentum" in taken:
                tasks.append(_varied(f"with {name}", flagged))
    return tasks


def _listed(names: Any) -> str:
    return " and ".join(names)


def _wave(k: int, size: int) -> np.ndarray:
    """Return numbers of mixed signs and sizes, the same on every machine."""
    return np.array([((7 * k + 3 * j + k * j) % 13 - 5.5) / 4 for j in range(size)])


_START, _FALLING = np.array([1.5, -2.0, 0.75]), (1.0, 1.0, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)


def _varied(title: str, options: dict[str, Any], steps: int = 12, scale: float = 1.0, **more: Any) -> Task:
    return Task(title, (_START,), tuple((scale * _wave(k, 3),) for k in range(steps)), options, **more)


def _two(title: str, options: dict[str, Any]) -> Task:
    """Two parameters, one of which has no gradient after some steps, and one that never has any."""
    start = (_START, np.array([-1.0, 0.5, 2.0]), np.array([[3.0, -3.0]]))
    return Task(title, start, tuple((_wave(k, 3), _wave(k + 5, 3) if k < 6 else None, None) for k in range(9)), options)


def _plain_tasks(options: dict[str, Any]) -> list[Task]:
    zeros = tuple((np.array([0.0, 0.0, 1.0]) * _wave(k, 3) if k else np.zeros(3),) for k in range(6))
    tiny = options.get("eps") or 1e-6
    tasks = [
        Task("one number", (np.array([2.0]),), tuple((_wave(k, 1),) for k in range(6)), options),
        _varied("a vector, signs that change", options),
        Task("gradients of zero", (_START,), zeros, options),
        _varied("tiny gradients", options, 6, tiny),
        Task("gradients of many sizes", (_START,), tuple((_wave(k, 3) * 10.0 ** np.array([-3, 0, 2]),)
                                                         for k in range(8)), options),
        _two("two parameters, and one without a gradient", options),
        _varied("gradients that come in the same array", options, 6, same_array=True),
        _varied("many steps", options, 60),
    ]
    if "lr" in options:
        tasks.append(_varied("a falling lr", options, rates=_FALLING))
    return tasks


# ---- options ------------------------------------------------------------------------------------------------------


def flat(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with each tuple taken apart: `betas` is `beta1` and `beta2`."""
    result: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, tuple) and name.endswith("s"):
            result |= {f"{name[:-1]}{k}": part for k, part in enumerate(value, start=1)}
        else:
            result[name] = value
    return result


def grouped(options: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat options as `like` has them."""
    return {name: tuple(options[f"{name[:-1]}{k}"] for k in range(1, len(value) + 1))
            if isinstance(value, tuple) and name.endswith("s") else options[name] for name, value in like.items()}


def spelled(options: Mapping[str, Any], names: set[str]) -> dict[str, str]:
    """Return which of a learner's names stands for which option: option -> name."""
    found = {option: option for option in options if option in names}
    for option in options:
        stem = option.rstrip("0123456789") + "s"
        for name in (stem, *SPELLINGS.get(option, ())):
            if option not in found and name in names and (name == stem or name not in found.values()):
                found[option] = name
    return found


# ---- the library's own, and rules ----------------------------------------------------------------------------------


class Reference:
    """An optimizer of the library, and what it starts a rule with.

    Parameters
    ----------
    cls : type
    base : dict
        Options that choose what is graded against, such as `momentum=0.9`.
    """

    def __init__(self, cls: type[Optimizer], base: Mapping[str, Any]) -> None:
        self.cls, self.base = cls, dict(base)
        made = self.make([Tensor(np.ones(1), requires_grad=True)], {})
        names = inspect.signature(cls.__init__).parameters
        self.defaults = {name: value for name, value in made.defaults.items() if name in names}
        self.options = flat(self.defaults)

    def make(self, params: list[Tensor], options: Mapping[str, Any]) -> Optimizer:
        """Return the optimizer over parameters."""
        return self.cls(params, **(self.base | (grouped(options, self.defaults) if options else {})))

    def rule(self, task: Task) -> Rule:
        """Return the rule that a task follows."""
        return self.make([Tensor(task.start[0], requires_grad=True)], task.options)._rule(0)

    def run(self, task: Task) -> Iterator[np.ndarray]:
        """Yield all parameters as one vector after each step of the library's optimizer."""
        return run_class(lambda params: self.make(params, task.options), task)

    def walk(self, mutant: Mutant, task: Task, names: Mapping[str, str] | None = None) -> Iterator[np.ndarray]:
        """Yield all parameters as one vector after each step of a rule, right or wrong, in plain NumPy.

        Parameters
        ----------
        mutant : Mutant
        task : Task
        names : mapping, optional
            For a rule of a learner's: what it calls the options.
        """
        params = [Tensor(p, requires_grad=True) for p in task.start]
        optimizer = self.make(params, task.options)
        group, rule, manners = optimizer.param_groups[0], mutant.rule, mutant.manners
        if names is not None:
            group = {**group, **{name: task.options[option] for option, name in names.items()}}
        lr = "lr" if names is None else names.get("lr", "lr")
        numbers = Numbers(rule, group)

        def first(letter: str, p: Tensor) -> Any:
            value = 0.0 if "state from zero" in manners else optimizer.initial(letter, group, p)
            return p.numpy().copy() if value is p else np.full(p.shape, float(value))
        points = [p.copy() for p in task.start]
        kept: list[list[Any] | None] = [None] * len(points)
        counts, steps = [0] * len(points), 0
        for k, gradients in enumerate(task.gradients):
            if task.rates:
                group[lr] = task.lr(k)
            numbers.read(group, {}, lambda group: None)
            for place, (p, g) in enumerate(zip(params, gradients)):
                if g is None and "None is zero" not in manners:
                    continue
                g, counts[place], steps = np.zeros(p.shape) if g is None else g, counts[place] + 1, steps + 1
                old = kept[0 if "state shared" in manners else place]
                if old is None or "state anew" in manners:
                    old = [first(letter, p) for letter in mutant.kept]
                elif "state is the gradient" in manners and task.same_array:
                    old = [g if np.array_equal(value, task.gradients[k - 1][place]) else value for value in old]
                t = steps if "t of the optimizer" in manners else counts[place]
                values = [np.float64(value) for name, value in zip(rule.options, numbers.at(t)) if name != "t"]
                points[place], new = mutant(points[place], g, old, np.float64(t), values)
                kept[0 if "state shared" in manners else place] = new
            yield _vector(points)


def _vector(points: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(p) for p in points])


# ---- what learners hand in ----------------------------------------------------------------------------------------


class Spoilt(Exception):
    """Something that a submission did and that no step may do."""

    def __init__(self, mistake: Mistake, what: str = "") -> None:
        super().__init__(what or mistake.words)
        self.mistake = mistake


CHANGED = Mistake("gradient changed in place", "The step leaves another gradient than it was given: whoever reads it "
                  "afterwards, to clip or to log, finds other numbers.",
                  "Which line writes into the gradient's own array?")
NOTHING = Mistake("nothing returned", "The function returns nothing.", "What is the function's last line?")
TOO_MUCH = Mistake("more than the parameter returned", "The function should return the new parameter alone, and keep "
                   "its state in the dictionary `state`.", "What is the function's last line?")
SHAPE = Mistake("another shape returned", "The new parameter has not the shape of the old one.",
                "Which line sums, or multiplies what it should not?")
NO_GRADIENT = Mistake("parameter without a gradient not expected", "Where p.grad is None the parameter is to be left "
                      "alone: it took no part in the loss.", "What is p.grad of a layer that was not used?")


def run_class(make: Callable[[list[Tensor]], Any], task: Task) -> Iterator[np.ndarray]:
    """Yield all parameters as one vector after each step of an optimizer that reads `p.grad` and writes `p.data`."""
    params = [Tensor(p, requires_grad=True) for p in task.start]
    optimizer = make(params)
    if hasattr(optimizer, "train"):                 # a schedule-free one, which takes gradients at another point
        optimizer.train()
    buffers, changed = [Tensor(np.zeros(p.shape)) for p in task.start], False
    for k, gradients in enumerate(task.gradients):
        if task.rates:
            _set_lr(optimizer, task.lr(k))
        for p, g, buffer in zip(params, gradients, buffers):
            if g is not None and task.same_array:
                buffer.data = g
            p.grad = None if g is None else buffer if task.same_array else Tensor(g)
        given = [p.grad for p in params]
        optimizer.step()
        changed |= any(g is not None and not np.array_equal(grad.numpy(), g, equal_nan=True)
                       for grad, g in zip(given, gradients))
        yield _vector([p.numpy() for p in params]).copy()
    if changed:
        raise Spoilt(CHANGED)


def _set_lr(optimizer: Any, lr: float | None) -> None:
    """Set the rate where an optimizer keeps it."""
    if hasattr(optimizer, "param_groups"):
        for group in optimizer.param_groups:
            group["lr"] = lr
    else:
        setattr(optimizer, next(name for name in ("lr", *SPELLINGS["lr"]) if hasattr(optimizer, name)), lr)


class Submission:
    """What was handed in.

    Parameters
    ----------
    work : type or callable
    reference : Reference

    Attributes
    ----------
    kind : {"class", "rule", "function"}
    names : dict
        The options of the reference that the work takes, and what it calls them.
    """

    def __init__(self, work: Any, reference: Reference) -> None:
        self.work, self.reference = work, reference
        self.name = getattr(work, "__name__", type(work).__name__)
        if inspect.isclass(work):
            self._of_class()
        elif inspect.isfunction(work):
            self._of_function()
        else:
            what = f"a made {type(work).__name__}; hand in the class itself" if hasattr(work, "step") else repr(work)
            raise TypeError("grade takes an optimizer class, a rule, or a function (w, g, state, t, ...) that returns "
                            f"the new w; got {what}")

    def _of_class(self) -> None:
        if not callable(getattr(self.work, "step", None)):
            raise TypeError(f"{self.name} has no method step(); an optimizer is made as {self.name}(params, lr=...), "
                            "and its step() moves the parameters")
        self.kind, self.rule = "class", None
        taken = list(inspect.signature(self.work).parameters.values())
        names = {p.name for p in taken[1:] if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if issubclass(self.work, Optimizer) and any(p.kind is p.VAR_KEYWORD for p in taken):
            names |= self.work([Tensor(np.ones(1), requires_grad=True)]).defaults.keys()    # made by from_rule
        self._match(names)
        absent = [p.name for p in taken[1:] if p.default is p.empty and p.name in names
                  and p.name not in self.names.values()]
        self._refuse(absent)

    def _of_function(self) -> None:
        taken = list(inspect.signature(self.work).parameters)
        self.takes, first = set(taken[2:]), taken[:2]
        if len(first) < 2:
            raise TypeError(f"{self.name} takes ({', '.join(taken)}); a rule takes p, g, its state and options, "
                            "another function w, g, and where it needs them state, t, and options")
        if first == ["p", "g"] and "state" not in taken:
            self.kind, self.rule = "rule", Rule(self.work)
            names = {name for name in self.rule.options if name != "t"}
        else:
            self.kind, self.rule, names = "function", None, self.takes - {"state", "t"}
        self._match(names)
        self._refuse(sorted(name for name in names if name not in self.names.values() and self._required(name)))

    def _required(self, name: str) -> bool:
        return self.kind == "rule" or inspect.signature(self.work).parameters[name].default is inspect.Parameter.empty

    def _match(self, names: set[str]) -> None:
        self.names = spelled(self.reference.options, names)

    def _refuse(self, absent: list[str]) -> None:
        if absent:
            raise TypeError(f"{self.name} asks for {', '.join(absent)}, which {self.reference.cls.__name__} does not "
                            f"have; its options are {', '.join(self.reference.options)}")

    @property
    def rated(self) -> bool:
        """Whether the learning rate can be changed between steps."""
        if self.kind != "class":
            return "lr" in self.names
        try:
            made = self.work([Tensor(np.ones(1), requires_grad=True)])
        except Exception:                           # the first task will tell of it
            return False
        return hasattr(made, "param_groups") or any(hasattr(made, name) for name in ("lr", *SPELLINGS["lr"]))

    def run(self, task: Task) -> Iterator[np.ndarray]:
        """Yield all parameters as one vector after each step."""
        if self.kind == "class":
            return run_class(lambda params: self._make(params, task), task)
        if self.kind == "rule":
            return self.reference.walk(Mutant(self.rule), task, self.names)
        return self._call(task)

    def _given(self, task: Task) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for option, name in self.names.items():
            if name in SPELLINGS.get(option, ()) or name == option:
                given[name] = task.options[option]
            else:                                   # `betas`, which is several
                given[name] = (*given.get(name, ()), task.options[option])
        return given

    def _make(self, params: list[Tensor], task: Task) -> Any:
        return self.work(params, **self._given(task))

    def _call(self, task: Task) -> Iterator[np.ndarray]:
        points = [p.copy() for p in task.start]
        states: list[dict[str, Any]] = [{} for _ in points]
        buffers = [np.zeros(p.shape) for p in points]
        counts, changed = [0] * len(points), False
        for k, gradients in enumerate(task.gradients):
            given = self._given(task) | ({self.names["lr"]: task.lr(k)} if task.rates else {})
            for place, g in enumerate(gradients):
                if g is None:
                    continue
                counts[place] += 1
                buffers[place] = buffers[place] if task.same_array else np.zeros(g.shape)
                buffers[place][...] = g
                more = {"state": states[place], "t": counts[place]}
                more = {name: value for name, value in more.items() if name in self.takes}
                result = self.work(points[place], buffers[place], **given, **more)
                points[place] = self._checked(points[place].shape, result)
                changed |= not np.array_equal(buffers[place], g)
            yield _vector(points).copy()
        if changed:
            raise Spoilt(CHANGED)

    def _checked(self, shape: tuple[int, ...], result: Any) -> np.ndarray:
        if result is None:
            raise Spoilt(NOTHING)
        if isinstance(result, tuple):
            raise Spoilt(TOO_MUCH)
        result = np.asarray(result, dtype="float64")
        if result.shape != shape:
            raise Spoilt(SHAPE, f"It returns shape {result.shape} for a parameter of shape {shape}.")
        return result

    def line_of(self, error: BaseException) -> str:
        """Return where in the learner's own code an error came up, as "line 7: `...`"; empty where it did not."""
        code = {inspect.unwrap(part).__code__.co_filename for part in _functions(self.work)}
        found, trace = "", error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename in code:
                source = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()
                found = f"line {trace.tb_lineno}" + (f": `{source}`" if source else "")
            trace = trace.tb_next
        return found


def _functions(work: Any) -> list[Any]:
    """Return the functions of a piece of work: itself, or the methods that its class defines."""
    return [part for part in vars(work).values() if inspect.isfunction(part)] if inspect.isclass(work) else [work]
