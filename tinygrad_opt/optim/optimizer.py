"""Optimizer: groups of parameters, their state, and the step that meets both with a rule.

A subclass says its rule and the names of its state; everything else is here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ..backend import xp
from ..rule import Rule
from ..tensor import Handle, Tensor, enable_grad
from .plan import Plan, read_rule
from .ranges import RANGES, check

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
        The options of a group that does not give its own.

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

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = {**defaults, "maximize": defaults.get("maximize", False)}
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = _State()
        self.step_count = 0
        self._hooks: dict[str, list[Callable]] = {}
        self._plans: dict[int, Plan] = {}
        self._warned = False
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
        self._check_options(new)
        self.param_groups.append(new)
        self._plans.clear()

    def _check_parameter(self, p: Any, name: str) -> None:
        owner = type(self).__name__
        if not isinstance(p, Tensor):
            raise TypeError(f"{owner}: parameter {name} must be a Tensor, got {type(p).__name__}")
        if p._node is not None:
            raise ValueError(f"{owner}: parameter {name} was computed, so no gradient stays with it; optimize a leaf, "
                             "for example its .detach().requires_grad_()")
        if p.dtype not in ("float32", "float64"):
            raise TypeError(f"{owner}: parameter {name} is {p.dtype}; parameters are float32 or float64")

    def _check_options(self, group: dict[str, Any]) -> None:
        """Raise unless every option of a group is in its range; a subclass adds what depends on several."""
        ranges = {**RANGES, **self.ranges}
        for name in ranges.keys() & group.keys():
            check(type(self).__name__, name, group[name], ranges[name])

    @property
    def lr(self) -> float:
        """The learning rate, of the first group where they differ; setting scales every group alike."""
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
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for k, group in enumerate(self.param_groups):
            self._update(k, group)
        self.step_count += 1
        if hooked:
            for hook in (*self._hooks.get("step_post", ()), *STEP_HOOKS["post"]):
                hook(self, *arguments)
        return loss

    def _call_pre_hooks(self, arguments: tuple[tuple, dict]) -> tuple[tuple, dict]:
        for hook in (*STEP_HOOKS["pre"], *self._hooks.get("step_pre", ())):
            changed = hook(self, *arguments)
            if changed is not None:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise RuntimeError(f"a step hook returns None or (args, kwargs), got {changed!r}")
                arguments = changed
        return arguments

    def _update(self, k: int, group: dict[str, Any]) -> None:
        """Run the rule over one group, in as few kernel calls as step counts and dtypes allow."""
        rule = self._rule(k)
        plan = self._plans.get(k)
        if plan is None or plan.rule is not rule or not plan.fits(group["params"], self.state):
            plan = self._plans[k] = self._plan(rule, group)
        values = plan.values(group, self._check_options)
        for run in plan.runs:
            spoilt = run.step(values)
            if spoilt is not None and not self._warned:
                self._warned = True
                self._warn(group, spoilt)

    def _plan(self, rule: Rule, group: dict[str, Any]) -> Plan:
        """Give state to parameters that have their first gradient, and plan the group's kernel calls."""
        names = self._begin(rule, group, [p for p in group["params"] if p._grad is not None])
        return Plan(rule, group, self.state, names)

    def _begin(self, rule: Rule, group: dict[str, Any], params: list[Tensor]) -> dict[str, str]:
        """Give parameters the state that they do not have yet; return its names by the rule's letters."""
        names = {letter: self.state_names.get(letter, letter) for letter in (*rule.states, *rule.memory)}
        for p in params:
            state = self.state[p]
            state.setdefault("step", 0)
            for letter, name in names.items():
                if name not in state:
                    start = self.initial(letter, group)
                    state[name] = Tensor._wrap(xp.full(p.shape, start, p.dtype) if start else xp.zeros(
                        p.shape, p.dtype)) if letter in rule.states else start
        return names

    def initial(self, name: str, group: dict[str, Any]) -> float:
        """Return what the rule's state `name` starts from; 0 unless a subclass says otherwise."""
        return 0.0

    def rule_for(self, group: dict[str, Any]) -> Callable:
        """Return the rule for a group; a subclass with variants chooses here by the group's options."""
        if type(self).rule is None:
            raise NotImplementedError(f"{type(self).__name__} has no rule: define `def rule(p, g, ..., lr)` in the "
                                      "class, or override rule_for")
        return type(self).rule

    def _warn(self, group: dict[str, Any], p: Tensor) -> None:
        place = next(k for k, other in enumerate(group["params"]) if other is p)
        name = group["param_names"][place] if "param_names" in group else f"number {place} of its group"
        warnings.warn(f"{type(self).__name__}: parameter {name}, shape {p.shape}, has become NaN at step "
                      f"{self.state[p]['step']}. The loss or its gradient was not finite: lower lr ({group['lr']}), "
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
            Refuse the state of another class of optimizer, and options that this one does not have.

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
        for hook in self._hooks.get("load_state_dict_post", ()):
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_plans", "_hooks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _plans={}, _hooks={})

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
        printers = {"numpy": lambda: rule.host_source + "\n\n" + rule.numpy(),
                    "numba": lambda: numba_source(rule, dtype), "cuda": lambda: cuda_source(rule, dtype)}
        if language not in printers:
            raise ValueError(f"language must be one of {', '.join(printers)}; got {language!r}")
        return printers[language]()

    def _rule(self, group: int) -> Rule:
        options = self.param_groups[group]
        return read_rule(self.rule_for(options), bool(options["maximize"]))

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for k, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {k}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key not in ("params", "param_names")]
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


class _State(dict):
    """State by parameter; asking for a parameter that has none gives it an empty one."""

    def __missing__(self, p: Tensor) -> dict[str, Any]:
        self[p] = {}
        return self[p]


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
