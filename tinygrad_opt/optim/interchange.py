"""States of optimizers to and from PyTorch, for those that both have.

From PyTorch is what `load_state_dict` reads in any case; to PyTorch adds what its own checkpoints contain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from .state import BESIDE, UNCOUNTED

if TYPE_CHECKING:
    from .optimizer import Optimizer

COMMON = ("SGD", "ASGD", "Adagrad", "Adadelta", "RMSprop", "Rprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam",
          "Adafactor", "Muon", "LBFGS")
OWN = {"LBFGS": {"prev_point", "al"}}   # what is kept here and not there, or made there anew


def to_torch(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of an optimizer as `load_state_dict` of PyTorch's optimizer of the same name takes it.

    Parameters
    ----------
    optimizer : Optimizer
        One that PyTorch has, too. Its step goes on there as it would have here.

    Returns
    -------
    dict
        `state`: number -> state of that parameter, copies as torch tensors; `param_groups`: the options, with
        PyTorch's own options at their defaults. The float32 copy of a half-precision parameter is not part of it.

    Raises
    ------
    ImportError
        Without PyTorch.
    ValueError
        When PyTorch has no such optimizer, or no such option.

    Examples
    --------
    >>> import importlib.util
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.interchange import to_torch
    >>> w = tg.ones(2, requires_grad=True)
    >>> optimizer = tg.optim.Adam([w], lr=0.1)
    >>> if importlib.util.find_spec("torch"):
    ...     import torch
    ...     theirs = torch.optim.Adam([torch.ones(2, requires_grad=True)])
    ...     theirs.load_state_dict(to_torch(optimizer))
    ...     assert theirs.param_groups[0]["lr"] == 0.1
    """
    name = _common(optimizer)
    try:
        import torch
    except ImportError:
        raise ImportError("a state for PyTorch is made of its tensors, and torch is not installed: pip install torch, "
                          "or save optimizer.state_dict() with tg.save") from None
    if not hasattr(torch.optim, name):
        raise ValueError(f"{name}: PyTorch {torch.__version__} has none yet")

    def tensor(value: Any) -> Any:
        if isinstance(value, list):
            return [tensor(part) for part in value]
        if hasattr(value, "numpy"):
            return torch.from_numpy(numpy.array(value.numpy()))
        return value if name == "LBFGS" else torch.tensor(float(value), dtype=torch.float64)

    saved = optimizer.state_dict()
    beside = {"master", *OWN.get(name, ()), *BESIDE, *({"step"} if name in UNCOUNTED else ())}
    state = {number: {key: tensor(value) for key, value in entry.items() if key not in beside}
             for number, entry in saved["state"].items()}
    known = getattr(torch.optim, name)([torch.zeros(1, 1)]).defaults
    groups = [{**known, **_options(name, group, known)} for group in saved["param_groups"]]
    if name == "LBFGS":                             # PyTorch fills this in when it is made
        groups = [{**group, "max_eval": group["max_eval"] or group["max_iter"] * 5 // 4} for group in groups]
    return {"state": {number: entry for number, entry in state.items() if entry.keys() - {"step"}},
            "param_groups": groups}


def from_torch(optimizer: Optimizer, state: dict[str, Any], strict: bool = True) -> None:
    """Continue from what `state_dict` of PyTorch's optimizer of the same name returned.

    Parameters
    ----------
    optimizer : Optimizer
        Parameters are matched by name where both sides have names, else by position.
    state : dict
        Its tensors may be on any device. SGD and Muon count no steps there: the count here begins at 1.
    strict : bool, default True
        As for `Optimizer.load_state_dict`.

    Raises
    ------
    ValueError
        When PyTorch has no such optimizer, or the state does not fit. Nothing is changed then.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.interchange import from_torch
    >>> w = tg.ones(2, requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.1, momentum=0.9)
    >>> group = {"lr": 0.5, "momentum": 0.9, "foreach": None, "params": [0]}
    >>> from_torch(optimizer, {"state": {0: {"momentum_buffer": [3.0, 4.0]}}, "param_groups": [group]})
    >>> optimizer.lr, optimizer.state[w]
    (0.5, {'momentum_buffer': tensor([3., 4.]), 'step': 1})
    """
    state = _on_host(state)
    if _common(optimizer) == "LBFGS":               # what PyTorch filled in is no limit that somebody set
        state["param_groups"] = [{**group, "max_eval": None} if group.get("max_eval") == group["max_iter"] * 5 // 4
                                 else group for group in state["param_groups"]]
    optimizer.load_state_dict(state, strict)


def _common(optimizer: Optimizer) -> str:
    name = type(optimizer).__name__
    if name not in COMMON:
        inner = "; for what it wraps, call this of optimizer.optimizer" if hasattr(optimizer, "optimizer") else ""
        raise ValueError(f"PyTorch has no {name} with the same state; it has {', '.join(COMMON)}{inner}")
    return name


def _options(name: str, group: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a group that PyTorch has, if the others are at their defaults."""
    beside = {key: value for key, value in group.items() if key not in {"params", "param_names", "initial_lr", *known}}
    for key, value in beside.items():
        if value:
            raise ValueError(f"{name}: PyTorch's has no option {key}, which is {value!r} here")
    return {key: value for key, value in group.items() if key not in beside}


def _on_host(value: Any) -> Any:
    """Return a state with its tensors in the memory of the host, in a dtype that NumPy has."""
    if isinstance(value, dict):
        return {key: _on_host(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_on_host, value))
    if type(value).__module__.partition(".")[0] == "torch":
        value = value.detach().cpu()
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return value
