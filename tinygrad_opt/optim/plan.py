"""How the parameters of a group meet the kernel of their rule.

A plan is made once and used until something but the numbers changes: a gradient appears or goes, somebody
replaces an array. In between a step is one kernel call, however many parameters there are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import is_
from typing import Any

from .. import backend
from ..backend import xp
from ..rule import Rule, RuleError
from ..tensor import Tensor


@cache
def read_rule(function: Callable, maximize: bool) -> Rule:
    """Return a rule, read once for all optimizers that use it."""
    return Rule(function, maximize=maximize)


@cache
def _kernel(rule: Rule, dtype: Any) -> Callable:
    return backend.compile(rule, dtype)


class Plan:
    """The kernel calls of one group.

    Attributes
    ----------
    runs : list of Run
        One for each dtype and each count of steps among the parameters that have a gradient.
    """

    def __init__(self, rule: Rule, group: dict[str, Any], state: dict[Tensor, dict], names: dict[str, str]) -> None:
        self.rule, self.params = rule, list(group["params"])
        self.absent = [p for p in self.params if p._grad is None]
        self.sources = [_source(name, rule, group) for name in rule.options]
        self.keys = list(dict.fromkeys(key for key, _ in self.sources if key is not None))
        self.seen: list[Any] | None = None
        self.numbers: list[float] = []
        runs: dict[Any, list[Tensor]] = {}
        for p in self.params:
            if p._grad is not None:
                memory = tuple(state[p][names[name]] for name in rule.memory)
                runs.setdefault((p.dtype, state[p]["step"], memory), []).append(p)
        self.runs = [Run(rule, dtype, params, state, names) for (dtype, _, _), params in runs.items()]

    def fits(self, params: list[Tensor], state: dict[Tensor, dict]) -> bool:
        """Whether the same arrays are still in the same places."""
        if len(params) != len(self.params) or not all(map(is_, params, self.params)):
            return False
        for p in self.absent:
            if p._grad is not None:
                return False
        for run in self.runs:
            if not run.fits(state):
                return False
        return True

    def values(self, group: dict[str, Any], check: Callable[[dict[str, Any]], None]) -> list[float]:
        """Return the options that the rule is given, in its order, checked when they have changed.

        The count of steps stands as 0.
        """
        seen = [group[key] for key in self.keys]
        if seen != self.seen:
            check(group)
            self.numbers = [0 if key is None else float(group[key] if place is None else group[key][place])
                            for key, place in self.sources]
            # An array could change in place and still be equal to itself.
            self.seen = seen if all(isinstance(value, (int, float, tuple)) for value in seen) else None
        return self.numbers


def _source(name: str, rule: Rule, group: dict[str, Any]) -> tuple[str | None, int | None]:
    """Return where a group holds an option of a rule: `lr` under its name, `beta2` as the second of `betas`."""
    if name == "t":
        return None, None
    if name in group:
        return name, None
    stem = name.rstrip("0123456789")
    if stem != name and stem + "s" in group:
        return stem + "s", int(name[len(stem):]) - 1
    raise RuleError(f"rule {rule.name} asks for {name}, which is no option of the group: "
                    f"{', '.join(key for key in group if key != 'params')}")


class Run:
    """Parameters that share rule, dtype and count of steps: one call of the kernel."""

    def __init__(self, rule: Rule, dtype: Any, params: list[Tensor], state: dict[Tensor, dict],
                 names: dict[str, str]) -> None:
        self.rule, self.params, self.kernel = rule, params, _kernel(rule, dtype)
        self.kept, self.memory = [names[name] for name in rule.states], [names[name] for name in rule.memory]
        self.states = [state[p] for p in params]
        self.held = [(p._data, p._grad._data, *(s[name]._data for name in self.kept))
                     for p, s in zip(params, self.states)]
        self.versions = [p._version for p in params]
        self.clock = rule.options.index("t") if "t" in rule.options else None
        # The kernel walks flat memory: what is not contiguous is copied in before a step and out after it.
        flat = [[a if a.flags.c_contiguous else xp.ascontiguousarray(a) for a in arrays] for arrays in self.held]
        self.loose = [(place, a, copy) for arrays, copies in zip(self.held, flat)
                      for place, (a, copy) in enumerate(zip(arrays, copies)) if a is not copy]
        rows = [(p, tuple(a.reshape(-1)[start:start + backend.ROW] for a in arrays)) for p, arrays in zip(params, flat)
                for start in range(0, arrays[0].size, backend.ROW)]
        self.owners = [p for p, _ in rows]
        self.table = backend.table([row for _, row in rows]) if rows else None

    def fits(self, state: dict[Tensor, dict]) -> bool:
        """Whether nothing has changed since but the numbers in the arrays."""
        step = self.states[0].get("step")
        for p, held, s in zip(self.params, self.held, self.states):
            g = p._grad
            if (g is None or g._data is not held[1] or p._data is not held[0] or state.get(p) is not s
                    or s.get("step") != step):
                return False
            for place, name in enumerate(self.kept, start=2):
                if getattr(s.get(name), "_data", None) is not held[place]:
                    return False
            for name in self.memory:
                if s.get(name) != self.states[0].get(name):
                    return False
        return True

    def step(self, values: list[float]) -> Tensor | None:
        """Update the parameters in place; return the first that has become NaN."""
        t = self.states[0]["step"] + 1
        if self.clock is not None:
            values = [*values[:self.clock], t, *values[self.clock + 1:]]
        if self.memory:
            values = [*values, *(self.states[0][name] for name in self.memory)]
        constants, memory = self.rule.host(*values)
        for _, a, copy in self.loose:
            copy[...] = a
        spoilt = None if self.table is None else self.kernel(self.table, constants)
        for place, a, copy in self.loose:
            if place != 1:
                a[...] = copy
        for s, version in zip(self.states, self.versions):
            s["step"] = t
            version[0] += 1
        for name, value in zip(self.memory, memory):
            for s in self.states:
                s[name] = value
        return None if spoilt is None else self.owners[spoilt]
