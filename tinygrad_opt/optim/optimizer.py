"""Optimizer: groups of parameters, their state, and the step that meets both with a rule.

A subclass says its rule and the names of its state; everything else is here.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ..backend import xp
from ..rule import Rule
from ..spelling import spelled
from ..tensor import Handle, Tensor, enable_grad
from .plan import SMALL, MatrixRun, Plan, Run, State, advance, read_rule, tensors, working_dtype
from .ranges import RANGES, check

NOTHING: dict[str, float] = {}
STEP_HOOKS: dict[str, list[Callable]] = {"pre": [], "post": []}        # of every optimizer


def register_optimizer_step_pre_hook(hook: Callable) -> Handle:
    """Call `hook(optimizer, args, kwargs)` before each step of every optimizer."""
    return Handle.register(STEP_HOOKS["pre"], hook)


def register_optimizer_step_post_hook(hook: Callable) -> Handle:
    """Call `hook(optimizer, args, kwargs)` after each step of every optimizer."""
    return Handle.register(STEP_HOOKS["post"], hook)


class Optimizer:
    """Base of every optimizer.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), of group dicts, or a mapping of names to Tensors
        What to optimize. A group dict has `params` and any options that differ from the defaults.
    defaults : dict
        The options of a group that does not give its own. A callable option, such as a schedule as lr, is asked for
        its value before each step, with the number of steps made so far.
    grad_transforms : list of callable, optional
        What is done to the gradients before each step, in this order; every optimizer takes it, by keyword. Each is
        called as `transform(named, t)` with the list of (name, Tensor) that have a gradient and the number of the
        coming step, from 1, and changes the gradients in place. See `tinygrad_opt.optim.transforms`.

    Raises
    ------
    TypeError, ValueError
        When something is no parameter, is given twice, or an option is unknown or out of range.

    Notes
    -----
    To write your own, give a rule; its source is the NumPy, Numba and CUDA kernel and the formula.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.rule import sign
    >>> class SignMomentum(tg.optim.Optimizer):
    ...     def __init__(self, params, lr=1e-3, beta=0.9):
    ...         super().__init__(params, dict(lr=lr, beta=beta))
    ...     def rule(p, g, m, lr, beta):
    ...         m = beta * m + (1 - beta) * g
    ...         p = p - lr * sign(m)
    ...         return p, m
    >>> w = tg.tensor([1.0, -1.0], requires_grad=True)
    >>> optimizer = SignMomentum([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.9000, -0.9000], requires_grad=True)
    >>> print(optimizer.formula("text"))
    m ← β·m + (1 − β)·g
    p ← p − lr·sign(m)
    """

    rule: ClassVar[Callable | None] = None
    state_names: ClassVar[dict[str, str]] = {}      # the rule's letter -> the name in `state`, where it differs
    ranges: ClassVar[dict[str, Any]] = {}           # of options, where RANGES does not say
    read_once: ClassVar[frozenset[str]] = frozenset()       # options that are read at the first step alone

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = spelled(cls.__init__)

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = {**defaults, "maximize": defaults.get("maximize", False)}
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = State()
        self.step_count = 0
        self.skipped = 0                            # steps that a loss scaler or the like has left out
        self.grad_transforms: list[Callable] = []
        self._schedules: list[Scheduled] = []
        self._hooks: dict[str, list[Callable]] = {}
        self._plans: dict[int, Plan] = {}
        self._warned = self._remembers = False      # whether the numbers before a step are kept for `explain`
        self._raw: dict[Tensor, Any] = {}           # and the gradients as they were before grad_transforms
        for group in _groups(params, type(self).__name__):
            self.add_param_group(group)

    # ---- parameters and options ---------------------------------------------------------------------------

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own.

        Parameters
        ----------
        group : dict
            `params`, and any options; those that are missing take the defaults. It is copied.

        Raises
        ------
        TypeError, ValueError
            As the constructor. Nothing is added then.
        """
        owner = type(self).__name__
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"{owner}: a group is a dict with 'params', got {type(group).__name__}")
        unknown = set(group) - {"params", "param_names", "initial_lr", *self.defaults}
        if unknown:
            raise ValueError(f"{owner}: unknown option {', '.join(map(repr, sorted(unknown)))}; "
                             f"the options are {', '.join(self.defaults)}")
        new = {"params": None, **self.defaults, **group}
        new["params"], names = _parameters(group["params"], owner)
        names = names or group.get("param_names")
        if not new["params"]:
            raise ValueError(f"{owner}: a group without parameters; is it model.parameters() of a model that has none, "
                             "or a generator that was already used?")
        known = {p: f"group {k}" for k, other in enumerate(self.param_groups) for p in other["params"]}
        for k, p in enumerate(new["params"]):
            self._check_parameter(p, names[k] if names else f"number {k}")
            if p in known:
                name = names[k] if names else f"number {k}"
                raise ValueError(f"{owner}: parameter {name} of shape {p.shape} is given twice, already in {known[p]}; "
                                 "it would be updated twice")
            known[p] = "this group"
        if self.param_groups and bool(names) != ("param_names" in self.param_groups[0]):
            raise ValueError(f"{owner}: either all groups name their parameters or none does")
        if names:
            new["param_names"] = list(names)
        scheduled = [Scheduled(new, key, new[key]) for key in self.defaults if callable(new[key])]
        for option in scheduled:
            option.write(self.step_count)
        self._check_options(new)
        self.param_groups.append(new)
        self._schedules += scheduled
        self._plans.clear()

    def _check_parameter(self, p: Any, name: str) -> None:
        owner = type(self).__name__
        if not isinstance(p, Tensor):
            raise TypeError(f"{owner}: parameter {name} must be a Tensor, got {type(p).__name__}")
        if p._node is not None:
            raise ValueError(f"{owner}: parameter {name} was computed, so no gradient stays with it; optimize a leaf, "
                             "for example its .detach().requires_grad_()")
        if p.dtype not in ("float32", "float64", "float16"):
            raise TypeError(f"{owner}: parameter {name} is {p.dtype}; parameters are float32, float64 or float16")

    def _check_options(self, group: dict[str, Any]) -> None:
        """Raise unless every option of a group is in its range; a subclass adds what depends on several."""
        ranges = {**RANGES, **self.ranges}
        for name in ranges.keys() & group.keys():
            check(type(self).__name__, name, group[name], ranges[name])

    @property
    def lr(self) -> float:
        """The learning rate, of the first group where they differ; setting scales every group alike."""
        if "lr" not in self.param_groups[0]:
            raise AttributeError(f"{type(self).__name__} has no lr, it finds its own; its options are "
                                 f"{', '.join(self.defaults)}")
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        check(type(self).__name__, "lr", value, {**RANGES, **self.ranges}["lr"])
        before = self.lr
        same = all(group["lr"] == before for group in self.param_groups)
        if not same and not before:
            raise ValueError(f"{type(self).__name__}: the groups have different learning rates and the first is 0, so "
                             "they cannot be scaled alike; set each group['lr']")
        for group in self.param_groups:
            group["lr"] = value if same else group["lr"] * (value / before)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients.

        Parameters
        ----------
        set_to_none : bool, default True
            Set them to None: such a parameter is skipped by `step`. Otherwise fill them with zeros: momentum
            and weight decay then still move it.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p._grad is None:
                    p._grad = None
                else:
                    p._grad.detach().zero_()        # counted as a write, in case the tape holds this gradient

    # ---- the step -----------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Clears the gradients, computes the loss, calls its backward and returns it; called once.

        Returns
        -------
        The loss that the closure returned, else None.
        """
        hooked = self._hooks or STEP_HOOKS["pre"] or STEP_HOOKS["post"]
        if hooked:
            arguments = ((closure,), {}) if closure is not None else ((), {})
            arguments = self._call_pre_hooks(arguments)
            closure = arguments[0][0] if arguments[0] else arguments[1].get("closure")
        loss = self._step(closure)
        self.step_count += 1
        for option in self._schedules:
            option.write(self.step_count)
        if hooked:
            for hook in (*self._hooks.get("step_post", ()), *STEP_HOOKS["post"]):
                hook(self, *arguments)
        return loss

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        """Evaluate the closure, process the gradients, advance; return the loss."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        if self.grad_transforms:
            named = self._with_gradient()
            if self._remembers or sum(p._data.size for _, p in named) <= SMALL:
                self._raw = {p: p._grad._data.copy() for _, p in named}
            for transform in self.grad_transforms:
                transform(named, self.step_count + 1)
        self._advance(loss)
        return loss

    def _call_pre_hooks(self, arguments: tuple[tuple, dict]) -> tuple[tuple, dict]:
        for hook in (*STEP_HOOKS["pre"], *self._hooks.get("step_pre", ())):
            changed = hook(self, *arguments)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise RuntimeError(f"a step hook returns None or (args, kwargs), got {changed!r}")
                arguments = changed
        return arguments

    def _named(self) -> list[tuple[str, Tensor]]:
        """Return all parameters with their names, or with their numbers where they have none."""
        return [(group["param_names"][k] if "param_names" in group else f"{k} of group {n}", p)
                for n, group in enumerate(self.param_groups) for k, p in enumerate(group["params"])]

    def _with_gradient(self) -> list[tuple[str, Tensor]]:
        return [(name, p) for name, p in self._named() if p._grad is not None]

    def _advance(self, loss: Any, told: dict[str, float] = NOTHING) -> None:
        """Run the rules over all groups; `told` are numbers that they are given beside the options.

        A subclass whose rule needs more than gradients and options gives it here.
        """
        runs: list[Run | MatrixRun] = []
        for k, group in enumerate(self.param_groups):
            plan = self._plans.get(k)
            if plan is None or not plan.fits(self, k, group["params"]):
                plan = self._plans[k] = self._plan(k, group, told)
            for run in plan.runs:
                run.begin(group, told, self._check_options)
                if self._remembers or plan.small:
                    run.remember()
                else:
                    run.before = None
            runs += plan.runs
        for spoilt in advance(runs):
            if not self._warned:
                self._warned = True
                self._warn(spoilt)

    def _plan(self, k: int, group: dict[str, Any], told: dict[str, float]) -> Plan:
        """Give state to parameters that have their first gradient, and plan the group's kernel calls."""
        kinds: dict[Rule, list[Tensor]] = {}
        for p in group["params"]:
            if p._grad is not None:
                kinds.setdefault(self._rule(k, p), []).append(p)
        for rule, params in kinds.items():
            for p in params:
                self._begin(rule, group, p)
        return Plan(kinds, group, told, self.state, self.state_names)

    def _begin(self, rule: Rule, group: dict[str, Any], p: Tensor) -> None:
        """Give a parameter the state that it does not have yet."""
        state, dtype = self.state[p], working_dtype(p)
        state.setdefault("step", 0)
        if dtype != p.dtype and "master" not in state:
            state["master"] = Tensor._wrap(p._data.astype(dtype))
        for letter in (*rule.states, *rule.memory):
            name = self.state_names.get(letter, letter)
            if name not in state and name not in group:
                state[name] = self._start(rule, letter, group, p)

    def _start(self, rule: Rule, letter: str, group: dict[str, Any], p: Tensor) -> Any:
        first = self.initial(letter, group, p)
        if first is p:
            return Tensor._wrap(start(p))
        if isinstance(first, list) or getattr(first, "ndim", 0):
            return tensors(first)
        number, dtype = float(first), working_dtype(p)
        if letter in rule.memory:
            return number
        return Tensor._wrap(xp.full(p.shape, number, dtype) if number else xp.zeros(p.shape, dtype))

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return what the rule's state `name` starts from: a number (0 here), an array of any shape, or p as it is."""
        return 0.0

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a parameter; a subclass with variants chooses here, by options or by shape."""
        if type(self).rule is None:
            raise NotImplementedError(f"{type(self).__name__} has no rule: define `def rule(p, g, ..., lr)` in the "
                                      "class, or override rule_for")
        return type(self).rule

    def _warn(self, p: Tensor) -> None:
        name = next(name for name, other in self._named() if other is p)
        warnings.warn(f"{type(self).__name__}: parameter {name}, shape {p.shape}, has become NaN at step "
                      f"{self.state[p]['step']}. The loss or its gradient was not finite: lower lr, "
                      "clip the gradients, or look for a logarithm or a quotient of zero", RuntimeWarning, stacklevel=4)

    # ---- saving -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return state and options in torch's layout, parameters replaced by running numbers.

        Returns
        -------
        dict
            `state`: number -> state of that parameter (references, not copies); `param_groups`: the options,
            with `params` a list of numbers; `optimizer`: the name of the class; `step_count`.
        """
        for hook in self._hooks.get("state_dict_pre", ()):
            hook(self)
        number = {p: k for k, p in enumerate(p for group in self.param_groups for p in group["params"])}
        result = {
            "state": {number[p]: dict(state) for p, state in self.state.items() if p in number and state},
            "param_groups": [{**{key: value for key, value in group.items() if key != "params"},
                              "params": [number[p] for p in group["params"]]} for group in self.param_groups],
            "optimizer": type(self).__name__, "step_count": self.step_count,
        }
        for hook in self._hooks.get("state_dict_post", ()):
            changed = hook(self, result)
            result = result if changed is None else changed
        return result

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` returned; everything is checked first and copied.

        Parameters are matched by name where both sides have names, else by position.

        Parameters
        ----------
        state_dict : dict
            As `state_dict` or torch's optimizer of the same name returns it.
        strict : bool, default True
            Refuse the state of another class of optimizer, unknown options, and names, keys or shapes that differ.
            Otherwise take what fits, and warn of the rest.

        Raises
        ------
        ValueError
            Naming the group or parameter that does not fit. Nothing is changed then.
        """
        for hook in self._hooks.get("load_state_dict_pre", ()):
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        from .state import read  # a third of this file otherwise, and read once in a while
        groups, state = read(self, state_dict, strict)
        for group, saved in zip(self.param_groups, groups):
            group.update(saved)
        self.state.clear()
        self.state.update(state)
        self.step_count = int(state_dict.get("step_count", max((s["step"] for s in state.values()), default=0)))
        self._plans.clear()
        for option in self._schedules:
            option.resume(self.step_count)
        for hook in self._hooks.get("load_state_dict_post", ()):
            hook(self)

    def to_torch_state_dict(self) -> dict[str, Any]:
        """Return the state as torch's optimizer of the same name loads it; needs torch."""
        from .interchange import to_torch
        return to_torch(self)

    def from_torch_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from the state_dict of torch's optimizer of the same name."""
        from .interchange import from_torch
        from_torch(self, state_dict, strict)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_plans", "_hooks", "_raw")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _plans={}, _hooks={}, _raw={})

    def fork(self, **options: Any) -> Optimizer:
        """Return a copy that goes on by itself: over copies of the parameters, with the state, without the hooks.

        Parameters
        ----------
        **options
            What is different there, in every group that has such an option.

        Raises
        ------
        ValueError
            When no group has an option, or a value is out of range.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> w = tg.tensor([1.0], requires_grad=True)
        >>> optimizer = tg.optim.SGD([w], lr=0.1)
        >>> twin = optimizer.fork(lr=0.5)
        >>> twin.param_groups[0]["params"][0] is w, twin.lr, optimizer.lr
        (False, 0.5, 0.1)
        """
        twin = copy.deepcopy(self)
        twin._change(options)
        return twin

    def _change(self, options: dict[str, Any]) -> None:
        """Give options other values in the groups that have them."""
        known = list(dict.fromkeys(key for group in self.param_groups for key in group if not key.startswith("param")))
        if unknown := options.keys() - set(known):
            raise ValueError(f"{type(self).__name__}: unknown option {', '.join(map(repr, sorted(unknown)))}; "
                             f"the options are {', '.join(known)}")
        for group in self.param_groups:
            new = {key: value for key, value in options.items() if key in group}
            self._check_options({**group, **new})
            group.update(new)

    # ---- reading ------------------------------------------------------------------------------------------

    def formula(self, form: str = "latex", group: int = 0) -> str:
        """Return the rule of a group as a formula.

        Parameters
        ----------
        form : {"latex", "text"}
            An aligned LaTeX display, or plain text.
        """
        rule = self._rule(group)
        if form not in ("latex", "text"):
            raise ValueError(f"form must be 'latex' or 'text', got {form!r}")
        return getattr(rule, form)()

    def source(self, language: str, group: int = 0) -> str:
        """Return the source that runs for a group.

        Parameters
        ----------
        language : {"numpy", "numba", "cuda"}
            Which backend's; all can be printed on any machine.
        """
        from ..backend.source import cuda_source, numba_source
        rule, dtype = self._rule(group), self.param_groups[group]["params"][0].dtype
        printers = {"numpy": lambda walk: walk.host_source + "\n\n" + walk.numpy(),
                    "numba": lambda walk: numba_source(walk, dtype), "cuda": lambda walk: cuda_source(walk, dtype)}
        if language not in printers:
            raise ValueError(f"language must be one of {', '.join(printers)}; got {language!r}")
        return rule.source if rule.matrix else "\n\n".join(map(printers[language], rule.passes))

    def doctor(self, model: Any = None, schedulers: Any = ()) -> Any:
        """Return a report of the silent traps that are present now, in plain words.

        Parameters
        ----------
        model : Module, optional
            Whose parameters should be here.
        schedulers : iterable, optional
            What writes the options of this optimizer.
        """
        from .doctor import doctor
        return doctor(self, model, schedulers)

    def explain(self, param: Tensor | str | int, index: int | tuple[int, ...] | None = None) -> Any:
        """Explain the last step of one number: the rule line by line with its values, and what moved the number.

        Parameters
        ----------
        param : Tensor, str or int
            A parameter, its name, or its number among all.
        index : int or tuple of int, optional
            Which of its numbers, a single int counting all of them; by default the one that moved most.

        Returns
        -------
        Explanation
            It prints as text and is a table in a notebook; `.shares`, `.lines` and `.to_dict()` are for programs.

        Raises
        ------
        RuntimeError
            Before the first step, for a parameter that it skipped, and where a group is so large (more than 256
            numbers) that the step was not remembered. From then on it is.
        TypeError, ValueError, IndexError
            When there is no such parameter, or no such number in it.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
        >>> optimizer = tg.optim.SGD([("w", w)], lr=0.1, momentum=0.5)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     (w ** 2).sum().backward()
        ...     optimizer.step()
        >>> explanation = optimizer.explain("w", 0)             # print it
        >>> explanation.lines[-1].formula, round(explanation.percent["memory"], 1)
        ('p ← p − lr·b', 38.5)
        """
        from .explain import explain
        return explain(self, param, index)

    def watch(self, model: Any = None, schedulers: Any = ()) -> Any:
        """Return a context that looks at each step inside; its `report()` tells the traps that show over steps."""
        from .doctor import Watch
        return Watch(self, model, schedulers)

    def _rule(self, k: int, p: Tensor | None = None) -> Rule:
        group = self.param_groups[k]
        return read_rule(self.rule_for(group, group["params"][0] if p is None else p), bool(group["maximize"]))

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for k, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {k}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key not in ("params", "param_names")]
        lines += [f"before each step: {transform!r}" for transform in self.grad_transforms]
        return "\n".join([*lines, ")"])

    def register_step_pre_hook(self, hook: Callable) -> Handle:
        """Call `hook(optimizer, args, kwargs)` before each step; it may return new (args, kwargs)."""
        return self._register("step_pre", hook)

    def register_step_post_hook(self, hook: Callable) -> Handle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return self._register("step_post", hook)

    def register_state_dict_pre_hook(self, hook: Callable) -> Handle:
        """Call `hook(optimizer)` before `state_dict`."""
        return self._register("state_dict_pre", hook)

    def register_state_dict_post_hook(self, hook: Callable) -> Handle:
        """Call `hook(optimizer, state_dict)` after `state_dict`; it may return another."""
        return self._register("state_dict_post", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable) -> Handle:
        """Call `hook(optimizer, state_dict)` before `load_state_dict`; it may return another."""
        return self._register("load_state_dict_pre", hook)

    def register_load_state_dict_post_hook(self, hook: Callable) -> Handle:
        """Call `hook(optimizer)` after `load_state_dict`."""
        return self._register("load_state_dict_post", hook)

    def _register(self, event: str, hook: Callable) -> Handle:
        return Handle.register(self._hooks.setdefault(event, []), hook)


def start(p: Tensor) -> Any:
    """Return a copy of a parameter as it is now, in the dtype in which it is updated."""
    return xp.array(p._data, working_dtype(p))


class Scheduled:
    """An option of a group that is a function of the step; a change from outside is kept as a factor."""

    def __init__(self, group: dict[str, Any], key: str, function: Callable[[int], float]) -> None:
        self.group, self.key, self.function, self.factor = group, key, function, 1.0
        self.written: float | None = None

    def write(self, t: int) -> None:
        """Give the group the value for the step after t steps."""
        now = self.group[self.key]
        if self.written and now != self.written:
            self.factor *= now / self.written
        self.written = self.group[self.key] = float(self.function(t)) * self.factor

    def resume(self, t: int) -> None:
        """Take over a group that was loaded after t steps."""
        self.written, own = self.group[self.key], float(self.function(t))
        self.factor = self.written / own if own else 1.0


def _groups(params: Any, owner: str) -> list[dict[str, Any]]:
    """Return whatever was given as parameters as a list of groups."""
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise TypeError(f"{owner}: params is an iterable of Tensors, of (name, Tensor) or of groups, or a mapping of "
                        f"names to Tensors, got {type(params).__name__}; put a single one in a list")
    if isinstance(params, Mapping):
        is_group = "params" in params and not isinstance(params["params"], Tensor)
        return [params if is_group else {"params": params}]
    if isinstance(params, (set, frozenset)):
        raise TypeError(f"{owner}: params has no order in a set, so its state could not be saved; pass a list")
    params = list(params)
    if not params:
        raise ValueError(f"{owner}: got no parameters; is it model.parameters() of a model that has none, or a "
                         "generator that was already used?")
    return params if isinstance(params[0], Mapping) else [{"params": params}]


def _parameters(params: Any, owner: str) -> tuple[list[Tensor], list[str] | None]:
    """Return the Tensors of a group as a list, and their names where they were given."""
    if isinstance(params, (set, frozenset)):
        raise TypeError(f"{owner}: params has no order in a set, so its state could not be saved; pass a list")
    items = [params] if isinstance(params, Tensor) else list(params.items() if isinstance(params, Mapping) else params)
    named = [isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items]
    if any(named) and not all(named):
        raise ValueError(f"{owner}: either all parameters of a group are (name, Tensor) or none is")
    return ([p for _, p in items], [name for name, _ in items]) if items and named[0] else (items, None)
