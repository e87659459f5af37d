"""Reading a saved state back: everything is checked before anything changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..backend import asarray, xp
from ..tensor import Tensor

if TYPE_CHECKING:
    from .optimizer import Optimizer


def read(optimizer: Optimizer, saved: dict[str, Any], strict: bool) -> tuple[list[dict[str, Any]], dict[Tensor, dict]]:
    """Return the options of each group and the state of each parameter that a saved state holds for an optimizer."""
    owner = type(optimizer).__name__
    if not isinstance(saved, dict) or not {"state", "param_groups"} <= set(saved):
        raise ValueError(f"{owner}: a saved state is a dict with 'state' and 'param_groups'")
    if strict and saved.get("optimizer", owner) != owner:
        raise ValueError(f"{owner}: this is the state of {saved['optimizer']}; load it into that, or pass strict=False "
                         "to take over what fits")
    groups = saved["param_groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"{owner}: has {len(optimizer.param_groups)} groups, the saved state {len(groups)}")
    options, state = [], {}
    for k, (live, old) in enumerate(zip(optimizer.param_groups, groups)):
        if len(live["params"]) != len(old["params"]):
            raise ValueError(f"{owner}: group {k} has {len(live['params'])} parameters, the saved one "
                             f"{len(old['params'])}")
        options.append(_options(optimizer, live, old, k, strict))
        numbers = {"step", *(optimizer.state_names.get(name, name) for name in optimizer._rule(k).memory)}
        for p, number, name in _pairs(owner, live, old, k):
            entry = saved["state"].get(number, saved["state"].get(str(number)))
            if entry:
                state[p] = _entry(owner, p, entry, name, numbers)
    return options, state


def _options(optimizer: Optimizer, live: dict, old: dict, k: int, strict: bool) -> dict[str, Any]:
    """Return the saved options of a group, in range and known; torch's switches for speed alone are dropped."""
    speed = {"foreach", "fused", "capturable", "differentiable"}
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in old.items()
               if key not in {"params", "param_names", *speed}}
    unknown = set(options) - set(live) - {"initial_lr"}
    if unknown and strict:
        raise ValueError(f"{type(optimizer).__name__}: the saved group {k} has options {', '.join(sorted(unknown))}, "
                         "which this optimizer does not; pass strict=False to leave them out")
    options = {key: value for key, value in options.items() if key not in unknown}
    optimizer._check_options({**live, **options})
    return options


def _pairs(owner: str, live: dict, old: dict, k: int) -> list[tuple[Tensor, int, str]]:
    """Match live parameters to saved numbers: by name where both have names, else by position."""
    names, saved_names = live.get("param_names"), old.get("param_names")
    if not (names and saved_names):
        return [(p, n, f"number {i} of group {k}") for i, (p, n) in enumerate(zip(live["params"], old["params"]))]
    numbers = dict(zip(saved_names, old["params"]))
    missing = [name for name in names if name not in numbers]
    if missing:
        raise ValueError(f"{owner}: the saved group {k} has no state for {', '.join(missing)}; it has "
                         f"{', '.join(numbers)}")
    return [(p, numbers[name], name) for p, name in zip(live["params"], names)]


def _entry(owner: str, p: Tensor, entry: dict[str, Any], name: str, numbers: set[str]) -> dict[str, Any]:
    """Return a copy of the state of one parameter: numbers as numbers, arrays in its shape and dtype."""
    result: dict[str, Any] = {}
    for key, value in entry.items():
        host = value.numpy() if hasattr(value, "numpy") else value
        if key in numbers:
            result[key] = int(host) if key == "step" else float(host)
            continue
        array = xp.array(asarray(host), dtype=p.dtype, order="C")
        if array.shape != p.shape:
            raise ValueError(f"{owner}: the saved {key} of parameter {name} has shape {array.shape}, the parameter "
                             f"{p.shape}")
        result[key] = Tensor._wrap(array)
    return result
