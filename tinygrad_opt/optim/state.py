"""Reading a saved state back: everything is checked before anything changes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy

from ..backend import asarray, xp
from ..tensor import Tensor
from .plan import read_rule, working_dtype

if TYPE_CHECKING:
    from .optimizer import Optimizer

COUNT = object()                        # the form of a number of steps
SPEED = {"foreach", "fused", "capturable", "differentiable"}    # PyTorch's switches of how to compute
UNCOUNTED = {"SGD", "Muon"}             # of which PyTorch keeps no count of steps; here the first alone is special
BESIDE = {"slow", "grad_sum"}           # what Lookahead and Accumulate keep in the state beside the rule's


def read(optimizer: Optimizer, saved: dict[str, Any], strict: bool) -> tuple[list[dict[str, Any]], dict[Tensor, dict]]:
    """Return the options of each group and the state of each parameter that a saved state holds for an optimizer."""
    reader = _Reader(optimizer, saved, strict)
    found = reader.read()
    if reader.left_out:
        warnings.warn(f"{reader.owner}: what did not fit was left out: {'; '.join(reader.left_out)}", stacklevel=3)
    return found


def expected(optimizer: Optimizer, group: dict[str, Any], p: Tensor) -> dict[str, Any]:
    """Return what the state of a parameter starts from under the options of a group; nothing is kept of it."""
    rule, double = read_rule(optimizer.rule_for(group, p), bool(group["maximize"])), Tensor._wrap(p._data)
    double._grad = Tensor._wrap(xp.zeros_like(p._data))
    try:
        optimizer._begin(rule, group, double)
        return optimizer.state[double]
    finally:
        optimizer.state.pop(double, None)


class _Reader:
    """One reading: what does not fit is refused, or left out and remembered."""

    def __init__(self, optimizer: Optimizer, saved: dict[str, Any], strict: bool) -> None:
        self.optimizer, self.owner, self.saved, self.strict = optimizer, type(optimizer).__name__, saved, strict
        self.left_out: list[str] = []

    def _leave_out(self, what: str) -> None:
        if self.strict:
            raise ValueError(f"{self.owner}: {what}; pass strict=False to take over what fits")
        self.left_out.append(what)

    def read(self) -> tuple[list[dict[str, Any]], dict[Tensor, dict]]:
        self._check_form()
        live, saved = self.optimizer.param_groups, self.saved["param_groups"]
        pairs = self._pairs(live, saved)
        options = [self._options(group, saved[k], k) if k < len(saved) else {} for k, group in enumerate(live)]
        entries = {str(number): entry for number, entry in self.saved["state"].items()}
        state = {}
        for k, p, name, number in pairs:
            entry = entries.get(str(number))
            if entry is not None and (own := self._entry({**live[k], **options[k]}, p, entry, name)):
                state[p] = own
        return options, state

    def _check_form(self) -> None:
        """Refuse what is no saved state of this class."""
        saved = self.saved if isinstance(self.saved, dict) else {}
        groups, state = saved.get("param_groups"), saved.get("state")
        if not (isinstance(groups, list) and isinstance(state, dict)
                and all(isinstance(part, dict) for part in (*groups, *state.values()))
                and all(isinstance(group.get("params"), list) for group in groups)):
            raise ValueError(f"{self.owner}: a saved state is a dict with 'state', a dict of dicts, and "
                             "'param_groups', a list of dicts with a list 'params' each")
        if self.strict and saved.get("optimizer", self.owner) != self.owner:
            raise ValueError(f"{self.owner}: this is the state of {saved['optimizer']}; load it into that, or pass "
                             "strict=False to take over what fits")
        fitted(f"{self.owner}: step_count", COUNT, saved.get("step_count", 0))
        orphans = {*map(str, state)} - {str(n) for group in groups for n in group["params"]}
        if orphans:
            self._leave_out(f"state is saved for number {', '.join(sorted(orphans))}, which is in no saved group")

    def _pairs(self, live: list[dict], saved: list[dict]) -> list[tuple[int, Tensor, str, Any]]:
        """Return group, name and saved number of each parameter: by name where both have names, else by position."""
        named = all("param_names" in group for group in (*live, *saved))
        if self.strict or not named:
            self._check_counts(live, saved)
        if not named:
            return [(k, p, f"number {i} of group {k}", number) for k, (group, old) in enumerate(zip(live, saved))
                    for i, (p, number) in enumerate(zip(group["params"], old["params"]))]
        if self.strict:
            for k, (group, old) in enumerate(zip(live, saved)):
                missing = [name for name in group["param_names"] if name not in old["param_names"]]
                if missing:
                    raise ValueError(f"{self.owner}: the saved group {k} has no state for {', '.join(missing)}; it has "
                                     f"{', '.join(old['param_names'])}")
        numbers = {name: number for old in saved for name, number in zip(old["param_names"], old["params"])}
        own = [(k, p, name) for k, group in enumerate(live) for p, name in zip(group["params"], group["param_names"])]
        for names, words in (([n for *_, n in own if n not in numbers], "nothing is saved for"),
                             (numbers.keys() - {n for *_, n in own}, "there is no parameter here for")):
            if names:
                self._leave_out(f"{words} {', '.join(sorted(names))}")
        return [(k, p, name, numbers.get(name)) for k, p, name in own]

    def _check_counts(self, live: list[dict], saved: list[dict]) -> None:
        if len(live) != len(saved):
            raise ValueError(f"{self.owner}: has {len(live)} groups, the saved state {len(saved)}")
        for k, (group, old) in enumerate(zip(live, saved)):
            if len(group["params"]) != len(old["params"]):
                raise ValueError(f"{self.owner}: group {k} has {len(group['params'])} parameters, the saved one "
                                 f"{len(old['params'])}")

    def _options(self, live: dict[str, Any], old: dict[str, Any], k: int) -> dict[str, Any]:
        """Return the saved options of a group, in range and known."""
        options = {key: _option(value) for key, value in old.items() if key not in {"params", "param_names", *SPEED}}
        unknown = options.keys() - live.keys() - {"initial_lr"}
        if unknown:
            self._leave_out(f"the saved group {k} has options {', '.join(sorted(unknown))}, unknown to this optimizer")
        options = {key: value for key, value in options.items() if key not in unknown}
        self.optimizer._check_options({**live, **options})
        return options

    def _entry(self, group: dict[str, Any], p: Tensor, entry: dict[str, Any], name: str) -> dict[str, Any] | None:
        """Return a copy of the state of one parameter, or None where it does not fit."""
        like = {**expected(self.optimizer, group, p), "step": COUNT}
        shaped = Tensor._wrap(xp.empty(p.shape, working_dtype(p)))
        entry = {key: value for key, value in entry.items() if value is not None}
        needed = set(like) if entry.get("step", 1) else {"step"}    # before the first step all may still begin
        if "optimizer" not in self.saved:                           # PyTorch's
            needed.discard("master")
            if self.owner in UNCOUNTED:
                entry.setdefault("step", 1)
        spare = BESIDE | {*self.optimizer.state_names.values()}     # also of other rules of the class
        unknown, missing = entry.keys() - like.keys() - spare, needed - entry.keys()
        for keys, words in ((unknown, "is not kept by this optimizer"), (missing, "is missing")):
            if keys:
                self._leave_out(f"of the saved state of parameter {name}, {', '.join(sorted(keys))} {words}")
        kept = entry.keys() - unknown
        if "step" in missing or missing and kept == {"step"}:
            return None
        try:
            return {key: fitted(f"the saved {key} of parameter {name}", like.get(key, shaped), value)
                    for key, value in entry.items() if key in kept}
        except ValueError as misfit:
            self._leave_out(str(misfit))
            return None


def fitted(what: str, like: Any, value: Any) -> Any:
    """Return a copy of what was saved, in the form of what the state starts from."""
    if isinstance(like, list):
        if not isinstance(value, (list, tuple)) or len(value) != len(like):
            raise ValueError(f"{what} is not a list of {len(like)}")
        return [fitted(f"{what}, at {k},", one, own) for k, (one, own) in enumerate(zip(like, value))]
    if like is None:
        if value is not None:
            raise ValueError(f"{what} is kept where nothing is, for an axis without a factor")
        return None
    host = numpy.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if host.dtype.kind not in "biuf":
        raise ValueError(f"{what} has no numbers, but {host.dtype}")
    if not isinstance(like, Tensor):
        return _number(what, host, whole=like is COUNT)
    if host.shape != like.shape:
        raise ValueError(f"{what} has shape {host.shape}, not {like.shape}")
    return Tensor._wrap(xp.array(asarray(host), like.dtype, order="C"))


def _number(what: str, host: numpy.ndarray, whole: bool) -> float:
    if host.size != 1:
        raise ValueError(f"{what} is one number, got an array of shape {host.shape}")
    number = float(host.item())
    if whole and not (number >= 0 and number % 1 == 0):
        raise ValueError(f"{what} is a count, got {number!r}")
    return int(number) if whole else number


def _option(value: Any) -> Any:
    """Return an option as Python keeps it: pairs as tuples, arrays of one number as that number."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_option, value))
    return value.item() if hasattr(value, "item") else value
