"""The ranges of options: one text is both the check and the message."""

from __future__ import annotations

from typing import Any


class Range:
    """An interval of numbers, written as mathematics writes it: `[0, 1)`, `[0, inf)`, `(1, inf)`.

    Examples
    --------
    >>> from tinygrad_opt.optim.ranges import Range
    >>> 0 in Range("[0, 1)"), 1 in Range("[0, 1)"), float("nan") in Range("[0, inf)")
    (True, False, False)
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.low, self.high = (float(end) for end in text[1:-1].split(","))

    def __contains__(self, value: float) -> bool:
        return ((self.low < value or self.text[0] == "[" and value == self.low)
                and (value < self.high or self.text[-1] == "]" and value == self.high))


class Whole(Range):
    """The whole numbers of an interval."""

    def __init__(self, interval: str) -> None:
        self.interval, self.text = Range(interval), f"the whole numbers of {interval}"

    def __contains__(self, value: float) -> bool:
        return value in self.interval and value % 1 == 0


POSITIVE, NONNEGATIVE, UNIT = Range("(0, inf)"), Range("[0, inf)"), Range("[0, 1)")

# What an option of this name allows unless its optimizer says otherwise. A tuple has a range for each number, and
# (UNIT, ...) is any number of them.
RANGES = {"lr": NONNEGATIVE, "weight_decay": NONNEGATIVE, "eps": NONNEGATIVE, "betas": (UNIT, UNIT),
          "momentum": NONNEGATIVE, "alpha": NONNEGATIVE}


def check(owner: str, name: str, value: Any, allowed: Range | tuple) -> None:
    """Raise ValueError or TypeError unless an option lies in its range; the message says which, and what came."""
    if isinstance(allowed, tuple):
        count = len(value) if isinstance(value, (tuple, list)) else 0
        ranges = allowed[:1] * count if ... in allowed else allowed
        if not count or count != len(ranges):
            wanted = "one or more" if ... in allowed else len(allowed)
            raise ValueError(f"{owner}: {name} needs {wanted} numbers, got {value!r}")
        for k, (number, interval) in enumerate(zip(value, ranges), start=1):
            check(owner, f"{name[:-1]}{k}", number, interval)
        return
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: {name} must be a number in {allowed.text}, got {value!r}") from None
    if number not in allowed:                       # NaN is in none
        raise ValueError(f"{owner}: {name} must lie in {allowed.text}, got {number!r}")
