"""What a scheduler saves: numbers, text, lists and dicts; and how that is put back."""

from __future__ import annotations

import warnings
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np

from ..schedule import Schedule

FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, type, np.ufunc, Schedule)


def plain(value: Any, name: str) -> Any:
    """Return a value as plain data; None, with a warning, for what has no such form."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "check_state"):                       # a scheduler
        return value.state_dict()
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{name}[{k}]") for k, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, FUNCTIONS):
        return None                                         # code is not data: the same function is given again
    if callable(value):
        return {key: plain(item, f"{name}.{key}") for key, item in vars(value).items()}
    warnings.warn(f"{name}, {type(value).__name__}, is not in the saved state; put it back yourself", stacklevel=4)
    return None


def restored(old: Any, saved: Any) -> Any:
    """Return saved plain data in the form of the value that it replaces; functions stay what they are."""
    if hasattr(old, "check_state"):
        old.load_state_dict(saved)
        return old
    if isinstance(old, (list, tuple)):
        pairs = zip(old, saved) if len(old) == len(saved) else ((None, item) for item in saved)
        return type(old)([restored(was, item) for was, item in pairs])
    if isinstance(saved, dict) and callable(old):
        vars(old).update({key: restored(vars(old).get(key), item) for key, item in saved.items()})
        return old
    if isinstance(saved, dict):
        return {key: restored((old or {}).get(key), item) for key, item in saved.items()}
    if saved is None and old is not None and not isinstance(old, (bool, int, float, str)):
        return old
    return restored([], saved) if isinstance(saved, list) else saved
