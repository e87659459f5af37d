"""How the parameters of a group meet the kernels of their rule.

A plan is made once and used until something but the numbers changes: a gradient appears or goes, somebody
replaces an array. In between a step is one kernel call a pass, however many parameters there are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from operator import is_
from typing import Any

import numpy

from .. import backend
from ..backend import xp
from ..language import REDUCTIONS
from ..rule import Pass, Rule, RuleError
from ..tensor import Tensor

SMALL = 256             # numbers of a group: copying a few times as many costs less than the Python of a step


@cache
def read_rule(function: Callable, maximize: bool) -> Rule:
    """Return a rule, read once for all optimizers that use it."""
    return Rule(function, maximize=maximize)


@cache
def _kernel(walk: Pass, dtype: Any) -> Callable:
    return backend.compile(walk, dtype)


def advance(runs: list[Run | MatrixRun]) -> list[Tensor]:
    """Take a step with runs that have begun it; return parameters that have become NaN."""
    spoilt = []
    for run in runs:
        if run.levels:
            _sum_up(runs)
            break
    for run in runs:
        p = run.step()
        if p is not None:
            spoilt.append(p)
    return spoilt


def _sum_up(runs: list[Run | MatrixRun]) -> None:
    """Run the passes that sum, and tell each run what was found: of each parameter, or of all together."""
    for level in range(max(run.levels for run in runs)):
        summing = [run for run in runs if level < run.levels]
        sums = [run.add_up(level) for run in summing]
        for run, own in zip(summing, sums):
            for place, term in enumerate(run.rule.passes[level].terms):
                reduction = REDUCTIONS[run.rule.reductions[term]]
                everything = sum(float(other[:, place].sum()) for other in sums) if reduction.everywhere else None
                run.found.append(reduction.finish(own[:, place]) if everything is None
                                 else float(reduction.finish(everything)))


class State(dict):
    """State by parameter, which counts how often an entry came, went or was replaced.

    Asking for a parameter that has none gives it an empty one.
    """

    changes = 0

    def __missing__(self, p: Tensor) -> dict[str, Any]:
        self[p] = {}
        return self[p]


def _counted(method: Callable) -> Callable:
    @wraps(method)
    def call(self: State, *args: Any, **kwargs: Any) -> Any:
        self.changes += 1
        return method(self, *args, **kwargs)
    return call


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(State, _name, _counted(getattr(dict, _name)))


class Plan:
    """The runs of one group.

    Attributes
    ----------
    runs : list of Run or MatrixRun
        One for each rule, dtype and count of steps among the parameters that have a gradient.
    small : bool
        Whether the numbers before a step are so few that they are remembered for whoever asks afterwards.
    """

    def __init__(self, kinds: dict[Rule, list[Tensor]], group: dict[str, Any], told: dict[str, float],
                 state: State, state_names: dict[str, str]) -> None:
        self.params, self.changes = list(group["params"]), state.changes
        self.absent = [p for p in self.params if p._grad is None]
        self.examples = [(rule, params[0]) for rule, params in kinds.items()]
        self.runs: list[Run | MatrixRun] = []
        for rule, params in kinds.items():
            numbers = Numbers(rule, {**group, **told})
            names = {letter: state_names.get(letter, letter) for letter in (*rule.states, *rule.memory)}
            alike: dict[Any, list[Tensor]] = {}
            for p in params:
                own = [names[name] for name in rule.memory if names[name] not in group and not rule.each]
                alike.setdefault((p.dtype, state[p]["step"], *(state[p][name] for name in own)), []).append(p)
            self.runs += ([MatrixRun(numbers, params, state, names)] if rule.matrix
                          else [Run(numbers, params, state, names) for params in alike.values()])
        self.small = sum(p._data.size for p in self.params) <= SMALL

    def fits(self, optimizer: Any, k: int, params: list[Tensor]) -> bool:
        """Whether the same arrays of group k are still in the same places, under the same rules."""
        if (len(params) != len(self.params) or not all(map(is_, params, self.params))
                or optimizer.state.changes != self.changes):
            return False
        for rule, p in self.examples:
            if optimizer._rule(k, p) is not rule:
                return False
        for p in self.absent:
            if p._grad is not None:
                return False
        for run in self.runs:
            if not run.fits():
                return False
        return True


class Numbers:
    """The options of a group in the order in which a rule takes them; the count of steps stands as 0."""

    def __init__(self, rule: Rule, group: dict[str, Any]) -> None:
        self.rule, self.sources = rule, [_source(name, rule, group) for name in rule.options]
        self.keys = list(dict.fromkeys(key for key, _ in self.sources if key is not None))
        self.clock = rule.options.index("t") if "t" in rule.options else None
        self.seen: list[Any] | None = None
        self.values: list[Any] = []

    def read(self, group: dict[str, Any], told: dict[str, float], check: Callable[[dict[str, Any]], None]) -> None:
        """Take the values of a group and what the step was told, checked when they have changed."""
        if told:
            group = {**group, **told}
        seen = [group[key] for key in self.keys]
        if seen != self.seen:
            check(group)
            self.values = [0 if key is None else self._number(group[key] if place is None else group[key][place])
                           for key, place in self.sources]
            # An array could change in place and still be equal to itself.
            self.seen = seen if all(isinstance(value, (int, float, tuple)) for value in seen) else None

    def _number(self, value: Any) -> Any:
        return value if self.rule.matrix else float(value)

    def at(self, t: int) -> list[Any]:
        """Return the values at step t."""
        return self.values if self.clock is None else [*self.values[:self.clock], t, *self.values[self.clock + 1:]]


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
    """Parameters that share rule, dtype and count of steps: one call of the kernel of each pass."""

    def __init__(self, numbers: Numbers, params: list[Tensor], state: dict[Tensor, dict],
                 names: dict[str, str]) -> None:
        self.numbers, self.rule, self.params = numbers, numbers.rule, params
        self.levels = len(self.rule.passes) - 1
        kept, self.memory = [names[name] for name in self.rule.states], [names[name] for name in self.rule.memory]
        self.states = [state[p] for p in params]
        held = [(p._data, p._grad._data, *(s[name]._data for name in kept)) for p, s in zip(params, self.states)]
        self.seen = [(p, p._grad, p._data) for p in params]
        self.kept = list(zip(kept, list(zip(*held))[2:]))
        self.own = [] if self.rule.each else [name for name in self.memory if name in self.states[0]]
        self.versions = [p._version for p in params]
        # The kernels walk flat memory of one precision: a half or a strided array is copied in before a step and out
        # after it. A half parameter is the rounded copy of its master, which the state keeps.
        dtype = working_dtype(params[0])
        self.kernels = [_kernel(walk, dtype) for walk in self.rule.passes]
        flat = [[s["master"]._data if place == 0 and "master" in s
                 else a if a.flags.c_contiguous and a.dtype == dtype else xp.array(a, dtype, order="C")
                 for place, a in enumerate(arrays)] for arrays, s in zip(held, self.states)]
        self.flat, self.before = flat, None
        self.terms = [term for walk in self.rule.passes for term in walk.terms]
        self.loose = [(place, a, copy) for arrays, copies in zip(held, flat)
                      for place, (a, copy) in enumerate(zip(arrays, copies)) if a is not copy]
        rows = [(k, tuple(a.reshape(-1)[start:start + backend.ROW] for a in arrays)) for k, arrays in enumerate(flat)
                for start in range(0, arrays[0].size, backend.ROW)]
        self.owners = numpy.array([k for k, _ in rows], dtype=numpy.intp)
        self.table = backend.table([row for _, row in rows]) if rows else None

    def fits(self) -> bool:
        """Whether nothing has changed since but the numbers in the arrays."""
        # One short loop for each thing to look at is the fastest: a step of many small tensors is mostly this.
        for p, g, a in self.seen:
            if p._grad is not g or p._data is not a:
                return False
        states, first = self.states, self.states[0]
        try:
            step = first["step"]
            for s in states:
                if s["step"] != step:
                    return False
            for name, arrays in self.kept:
                for s, a in zip(states, arrays):
                    if s[name]._data is not a:
                        return False
            for name in self.own:
                if any(s[name] != first[name] for s in states):
                    return False
        except (KeyError, AttributeError):          # an entry of the state is gone, or no Tensor any more
            return False
        return True

    def remember(self) -> None:
        """Copy the arrays as they are before the step that has begun, for a `Replay`."""
        self.before = [tuple([a.copy() for a in arrays]) for arrays in self.flat]

    def remembered(self, k: int) -> dict[str, Any]:
        """Return what the last step of parameter k started from, and was told, by the rule's names."""
        numbers = dict(zip((*self.rule.options, *self.rule.memory), self.values)) | dict(zip(self.terms, self.found))
        if self.rule.each:
            numbers = {name: value[k:k + 1] if numpy.ndim(value) else value for name, value in numbers.items()}
        return dict(zip(self.rule.arrays, self.before[k])) | numbers

    def begin(self, group: dict[str, Any], told: dict[str, float], check: Callable[[dict[str, Any]], None]) -> None:
        """Take the numbers of the coming step."""
        self.group, self.t = group, self.states[0]["step"] + 1
        self.numbers.read(group, told, check)
        self.values, self.found = self.numbers.at(self.t), []
        if self.memory:
            self.values = [*self.values, *map(self._recall, self.memory)]
        for place, a, copy in self.loose:
            if place == 0:                          # a master keeps what its rounded copy has not
                xp.copyto(copy, a.astype(copy.dtype), where=copy.astype(a.dtype) != a)
            else:
                copy[...] = a

    def _recall(self, name: str) -> Any:
        if name in self.group:
            return self.group[name]
        return numpy.array([s[name] for s in self.states]) if self.rule.each else self.states[0][name]

    def add_up(self, level: int) -> numpy.ndarray:
        """Return the sums of a pass, a line for each parameter."""
        walk = self.rule.passes[level]
        own = numpy.zeros((len(self.params), len(walk.terms)))
        if self.table is not None:
            sums = self.kernels[level](self.table, self._constants(walk)[0]).sum(axis=-1)
            numpy.add.at(own, self.owners, backend.to_numpy(sums))
        return own

    def _constants(self, walk: Pass) -> tuple[Any, tuple]:
        """Return the constants of a pass, with a line for each row where they differ, and the new memory."""
        if not self.rule.each:
            return walk.host(*self.values, *self.found)
        with numpy.errstate(all="ignore"):
            constants, memory = walk.host(*self.values, *self.found)
        lines = numpy.empty((len(self.params), len(constants)))
        for k, constant in enumerate(constants):
            lines[:, k] = constant
        return lines[self.owners], memory

    def step(self) -> Tensor | None:
        """Update the parameters in place; return the first that has become NaN."""
        constants, memory = self._constants(self.rule.passes[-1])
        spoilt = None if self.table is None else self.kernels[-1](self.table, constants)
        for place, a, copy in self.loose:
            if place != 1:
                a[...] = copy
        for s, version in zip(self.states, self.versions):
            s["step"] = self.t
            version[0] += 1
        for name, value in zip(self.memory, memory):
            if name in self.group:
                self.group[name] = float(value)
            else:
                for s, own in zip(self.states, numpy.broadcast_to(value, len(self.states)).tolist()):
                    s[name] = own
        return None if spoilt is None else self.params[self.owners[spoilt]]


class MatrixRun:
    """Parameters under a rule of matrices: one call of the rule for each."""

    levels = 0

    def __init__(self, numbers: Numbers, params: list[Tensor], state: dict[Tensor, dict],
                 names: dict[str, str]) -> None:
        self.numbers, self.rule, self.params, self.names = numbers, numbers.rule, params, names
        self.states = [state[p] for p in params]
        self.before: list[tuple] | None = None

    def fits(self) -> bool:
        """Whether every parameter has its gradient and its state."""
        return all(p._grad is not None and "step" in s and s.keys() >= {*self.names.values()}
                   for p, s in zip(self.params, self.states))

    def remember(self) -> None:
        """Copy what is given to the rule before the step that has begun, for a `Replay`."""
        self.before = [{name: _copied(value) for name, value in self._given(p, s, s["step"] + 1).items()}
                       for p, s in zip(self.params, self.states)]

    def remembered(self, k: int) -> dict[str, Any]:
        """Return what the last step of parameter k started from, and was told, by the rule's names."""
        return self.before[k]

    def _given(self, p: Tensor, s: dict[str, Any], t: int) -> dict[str, Any]:
        """Return what the rule is given for its step t."""
        given = {"p": s["master"]._data if "master" in s else p._data,
                 "g": p._grad._data.astype(working_dtype(p), copy=False)}
        given |= dict(zip(self.rule.options, self.numbers.at(t)))
        return given | {letter: _arrays(s[name]) for letter, name in self.names.items()}

    def begin(self, group: dict[str, Any], told: dict[str, float], check: Callable[[dict[str, Any]], None]) -> None:
        """Take the numbers of the coming step."""
        self.numbers.read(group, told, check)
        for p, s in zip(self.params, self.states):
            if "master" in s:                       # it keeps what its rounded copy has not, unless that was written to
                master = s["master"]._data
                xp.copyto(master, p._data.astype(master.dtype), where=master.astype(p.dtype) != p._data)

    def step(self) -> Tensor | None:
        """Update the parameters in place; return the first that has become NaN."""
        spoilt = None
        with numpy.errstate(all="ignore"):
            for p, s in zip(self.params, self.states):
                self._update(p, s)
                if spoilt is None and s["step"] % backend.LOOK == 0 and bool(xp.isnan(p._data).any()):
                    spoilt = p
        return spoilt

    def _update(self, p: Tensor, s: dict[str, Any]) -> None:
        s["step"] += 1
        if not p._data.size:                        # means of nothing would spoil the state
            return
        master = s.get("master")
        given = self._given(p, s, s["step"])
        if self.rule.maximize:
            given["g"] = -given["g"]
        new = self.rule.function(**given)
        new, *kept = new if isinstance(new, tuple) else (new,)
        if master is not None:
            master._data[...] = new
        p._data[...] = new
        p._version[0] += 1
        for name, value in zip(self.names.values(), kept):
            # An operation on an array without axes gives a number.
            s[name] = tensors(xp.asarray(value) if isinstance(s[name], Tensor) else value)


def working_dtype(p: Tensor) -> Any:
    """Return the dtype in which a parameter is updated: half precision is too coarse to add small steps in."""
    return xp.dtype(xp.float32) if p.dtype == xp.float16 else p.dtype


def _arrays(value: Any) -> Any:
    """Return state as a rule of matrices takes it."""
    return [_arrays(part) for part in value] if isinstance(value, (list, tuple)) else getattr(value, "_data", value)


def _copied(value: Any) -> Any:
    """Return what a rule of matrices is given, in memory of its own."""
    return [_copied(part) for part in value] if isinstance(value, list) else getattr(value, "copy", lambda: value)()


def tensors(value: Any) -> Any:
    """Return what a rule of matrices gives back, or starts from, as state keeps it."""
    if isinstance(value, (list, tuple)):
        return [tensors(part) for part in value]
    return Tensor._wrap(value) if isinstance(value, xp.ndarray) else value
