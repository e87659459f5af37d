"""LiveCurve: a curve that grows while a run goes on, in a notebook's cell or on a terminal's line."""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...optim.ranges import NONNEGATIVE, check
from ...optim.registry import find
from ..arguments import whole
from ..progress import in_notebook
from ..style import figure, looks, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LiveCurve:
    """Curves of a run, shown while it goes on.

    In a notebook the picture in the cell is drawn anew, in a terminal the last numbers stand on one line, and
    elsewhere nothing is shown. Use it by `with`, or `close()` it: so the last points are shown too.

    Parameters
    ----------
    keys : iterable of str, default ("loss",)
        What is drawn, a panel each.
    every : float, default 0.5
        Seconds between two pictures, at least 0; more where drawing would take over a tenth of the time.

    Attributes
    ----------
    steps : (n,) array of int
    values : dict of str to (n,) arrays
        By key; NaN at steps at which it was not told.

    Raises
    ------
    TypeError, ValueError
        When keys names nothing, or every is negative.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> with tg.lab.LiveCurve(keys=("loss", "accuracy")) as curve:
    ...     for step in range(3):
    ...         curve.add(step, loss=1 / (step + 1))
    ...     curve.add(2, accuracy=0.5)
    >>> curve.steps.tolist(), curve.values["accuracy"].tolist()
    ([0, 1, 2], [nan, nan, 0.5])
    """

    def __init__(self, keys: Iterable[str] = ("loss",), every: float = 0.5) -> None:
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys) if isinstance(keys, Iterable) else ()
        if not self.keys or not all(isinstance(key, str) for key in self.keys):
            raise TypeError(f"keys must be names, such as ('loss', 'accuracy'); got {keys!r}")
        check("LiveCurve", "every", every, NONNEGATIVE)
        self.every = every
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._display = _Cell() if in_notebook() else _Line() if sys.stderr.isatty() else None
        self._next, self._shown = -math.inf, False

    @property
    def steps(self) -> np.ndarray:
        """The steps, (n,)."""
        return np.array([step for step, _ in self._rows], dtype=int)

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The numbers by key, (n,) each."""
        return {key: np.array([row.get(key, np.nan) for _, row in self._rows], dtype=float) for key in self.keys}

    def add(self, step: int, **values: Any) -> None:
        """Add what is known of a step, and show it when it is time; what is told of one step later joins it.

        Parameters
        ----------
        step : int
        **values
            Numbers or Tensors of one number, each by one of the keys.
        """
        named = {key if key in self.keys else find(key, self.keys, "curve", "the keys of this LiveCurve"):
                 float(value) for key, value in values.items()}
        step = whole("step", step, 0)
        if self._rows and self._rows[-1][0] == step:
            self._rows[-1][1].update(named)
        else:
            self._rows.append((step, named))
        self._shown = False
        if self._display is not None and time.monotonic() >= self._next:
            self.show()

    def add_scalar(self, tag: str, value: Any, step: int) -> None:
        """Add a number if its tag is one of the keys: so a `Monitor` can have it as its writer."""
        if tag in self.keys:
            self.add(step, **{tag: value})

    def show(self) -> None:
        """Show all that was added so far."""
        if self._display is not None and self._rows and not self._shown:
            start, first = time.monotonic(), self._next == -math.inf
            self._display.show(self)
            end = time.monotonic()
            # The first picture also loads matplotlib, which says nothing about the others.
            self._next, self._shown = end + max(self.every, 0 if first else 9 * (end - start)), True

    def close(self) -> None:
        """Show the last points."""
        self.show()
        if self._display is not None:
            self._display.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def draw(self) -> Figure:
        """Draw the curves, a panel for each key."""
        with styled():
            picture = figure(4.6 * len(self.keys), 2.8)
            places = np.atleast_1d(picture.subplots(1, len(self.keys)))
            for (key, look), values, axes in zip(looks(self.keys).items(), self.values.values(), places):
                known = ~np.isnan(values)
                axes.plot(self.steps[known], values[known], color=look.color,
                          marker="o" if known.sum() < 12 else None, markersize=3)
                axes.set_title(f"{key}  {values[known][-1]:.4g}" if known.any() else key)
                axes.set_xlabel("step")
        return picture

    def __str__(self) -> str:
        if not self._rows:
            return "no step yet"
        last = {key: values[~np.isnan(values)] for key, values in self.values.items()}
        return "  ".join([f"step {self._rows[-1][0]}", *(f"{key} {values[-1]:.4g}" for key, values in last.items()
                                                        if len(values))])

    def __repr__(self) -> str:
        return f"<live curve of {', '.join(self.keys)}: {self}>"


class _Cell:
    """The output of the cell in which the first picture is shown."""

    handle: Any = None

    def show(self, curve: LiveCurve) -> None:
        """Put a new picture in the place of the last one."""
        content = io.BytesIO()
        with styled():
            curve.draw().savefig(content, format="png", dpi=90)
        picture = {"image/png": content.getvalue(), "text/plain": str(curve)}
        if self.handle is None:
            self.handle = sys.modules["IPython"].display.display(picture, raw=True, display_id=True)
        else:
            self.handle.update(picture, raw=True)

    def close(self) -> None:
        """Leave the last picture where it is."""


class _Line:
    """A line of a terminal that is written over."""

    width = 0

    def show(self, curve: LiveCurve) -> None:
        """Write the last numbers over those before."""
        text = str(curve)
        print("\r" + text.ljust(self.width), end="", file=sys.stderr, flush=True)
        self.width = len(text)

    def close(self) -> None:
        """Go to the next line."""
        if self.width:
            print(file=sys.stderr)
            self.width = 0
