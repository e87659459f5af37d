"""The ranges of options: one text is both the check and the message."""

from __future__ import annotations

import math
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


POSITIVE, NONNEGATIVE, UNIT = Range("(0, inf)"), Range("[0, inf)"), Range("[0, 1)")

# What an option of this name allows unless its optimizer says otherwise. A tuple of numbers (betas) has one
# range for all.
RANGES = {"lr": NONNEGATIVE, "weight_decay": NONNEGATIVE, "eps": NONNEGATIVE, "betas": UNIT, "momentum": NONNEGATIVE,
          "alpha": NONNEGATIVE}


def check(owner: str, name: str, value: Any, ranges: dict[str, Range]) -> None:
    """Raise ValueError or TypeError unless an option lies in its range; the message says which, and what came."""
    allowed = ranges.get(name)
    if allowed is None or value is None:
        return
    several = isinstance(value, (tuple, list))
    for k, number in enumerate(value if several else [value]):
        shown = f"{name[:-1]}{k + 1}" if several and name.endswith("s") else name
        try:
            number = float(number)
        except (TypeError, ValueError):
            raise TypeError(f"{owner}: {shown} must be a number in {allowed.text}, got {number!r}") from None
        if math.isnan(number) or number not in allowed:
            raise ValueError(f"{owner}: {shown} must lie in {allowed.text}, got {number!r}")
