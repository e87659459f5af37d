"""Charts: curves and maps in the letters of a terminal."""

from __future__ import annotations

import numpy as np

STEPS = " ▁▂▃▄▅▆▇█"
SHADES = " ·░▒▓█"


def curve(values: np.ndarray, columns: int, rows: int) -> list[str]:
    """Return a curve as lines of text, the highest value at the top; what is not finite is a gap.

    Parameters
    ----------
    values : (n,) array
    columns, rows : int
        Of the text.

    Examples
    --------
    >>> from tinygrad_opt.cli.charts import curve
    >>> curve([0, 1, 2, 3, 4, 3, 2, 1], columns=8, rows=1)
    ['▁▃▅▆█▆▅▃']
    """
    values = np.asarray(values, dtype="float64")
    with np.errstate(invalid="ignore"):
        values = np.interp(np.linspace(0, len(values) - 1, columns), np.arange(len(values)), values)
    eighths = 1 + np.round(_scaled(values) * (8 * rows - 1))
    eighths = np.where(np.isfinite(values), eighths, 0).astype(int)
    return ["".join(STEPS[k] for k in np.clip(eighths - 8 * row, 0, 8)) for row in reversed(range(rows))]


def shaded(heights: np.ndarray, columns: int, marks: dict[tuple[int, int], str] | None = None) -> list[str]:
    """Return heights as lines of text, the darker the lower; rows grow upwards, and a value is two letters wide.

    Parameters
    ----------
    heights : (n, m) array
        A row for each y.
    columns : int
        How many letters a line may have; rows and columns are left out where there are more.
    marks : dict of (int, int) to str, optional
        Two letters to put at a row and a column.

    Examples
    --------
    >>> from tinygrad_opt.cli.charts import shaded
    >>> shaded([[0, 1], [2, 3]], columns=10)
    ['░░  ', '██▒▒']
    """
    heights = np.asarray(heights, dtype="float64")
    apart = -(-2 * heights.shape[1] // columns)
    heights = heights[::apart, ::apart]
    finite = np.isfinite(heights)
    depth = 1 - _scaled(_ranks(heights))
    shades = np.where(finite, np.round(depth * (len(SHADES) - 1)), 0).astype(int)
    cells = [[2 * SHADES[k] for k in row] for row in shades]
    for (row, column), mark in (marks or {}).items():
        cells[row // apart][column // apart] = mark
    return ["".join(row) for row in reversed(cells)]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the place of each value among all, so that a narrow valley is seen however high its walls are."""
    _, places = np.unique(values, return_inverse=True)
    return places.reshape(values.shape).astype("float64")


def _scaled(values: np.ndarray) -> np.ndarray:
    """Return values with the lowest finite one at 0 and the highest at 1."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    return (np.where(np.isfinite(values), values, high) - low) / (high - low or 1.0)
