"""Arguments: what several instruments ask of what they are given, each question in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number, once it is one and large enough.

    Examples
    --------
    >>> from tinygrad_opt.lab.arguments import whole
    >>> whole("steps", 2.5)
    Traceback (most recent call last):
        ...
    ValueError: steps must be a whole number of at least 1, got 2.5
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError where an option is none of those that something takes, naming them.

    Examples
    --------
    >>> from tinygrad_opt.lab.arguments import refuse_unknown
    >>> refuse_unknown("ravine", ["kapa"], ["kappa"])
    Traceback (most recent call last):
        ...
    TypeError: ravine has no option 'kapa'; it takes kappa
    """
    known = list(known)
    for option in given:
        if option not in known:
            raise TypeError(f"{owner} has no option {option!r}; it takes {', '.join(known) or 'none'}")


def one_number(value: Any, name: str) -> float:
    """Return what a function gave as a number, once it is one.

    Examples
    --------
    >>> from tinygrad_opt.lab.arguments import one_number
    >>> one_number([1.0, 2.0], "loss")
    Traceback (most recent call last):
        ...
    TypeError: loss must return one number, it returned shape (2,); reduce it, say with .mean()
    """
    value = value.numpy() if hasattr(value, "numpy") else value
    if np.size(value) != 1:
        raise TypeError(f"{name} must return one number, it returned shape {np.shape(value)}; reduce it, say with "
                        ".mean()")
    try:
        return float(np.asarray(value).reshape(()))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must return one number, it returned {value!r}") from None
