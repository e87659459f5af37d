"""Curves: named numbers against the step, told apart by colour, line and marker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import whole
from .style import figure, looks, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TALL = 14                                       # names that stand beside a figure one below the other


def draw_curves(curves: Mapping[str, Any], title: str = "", *, xlabel: str = "step", ylabel: str = "",
                xscale: str = "linear", yscale: str = "linear", ylim: tuple[float, float] | None = None,
                first: int = 0) -> Figure:
    """Draw curves by their names.

    Parameters
    ----------
    curves : mapping of str to (n,) array_like, or to a pair of these
        The heights at each step, or places and heights.
    title, xlabel, ylabel : str, optional
    xscale, yscale : {"linear", "log", "symlog"}, default "linear"
    ylim : (float, float), optional
        The lowest and the highest place that is shown.
    first : int, default 0
        The number of the first step, where no places are given.

    Returns
    -------
    Figure

    Raises
    ------
    TypeError, ValueError
        When there is no curve, one is not a row of numbers, or a scale is unknown.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> figure = tg.lab.draw_curves({"slow": [4, 3, 2], "fast": [4, 1, 0]}, "two ways down", ylabel="loss")
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['slow', 'fast']
    """
    if not isinstance(curves, Mapping) or not curves:
        raise TypeError(f"curves must map names to rows of numbers, such as {{'Adam': trace.loss}}; got {curves!r}")
    for name, scale in (("xscale", xscale), ("yscale", yscale)):
        if scale not in ("linear", "log", "symlog"):
            raise ValueError(f"{name} must be linear, log or symlog; got {scale!r}")
    if ylim is not None and (np.shape(ylim) != (2,) or not ylim[0] < ylim[1]):
        raise ValueError(f"ylim must be the lowest and the highest place that is shown, such as (0, 1); got {ylim!r}")
    points = {name: _points(name, curve, whole("first", first, 0)) for name, curve in curves.items()}
    for axis, scale in enumerate((xscale, yscale)):
        if scale == "log" and not any((curve[axis] > 0).any() for curve in points.values()):
            raise ValueError(f"{'xy'[axis]}scale='log' shows numbers above 0, and there are none; take symlog")
    with styled():
        fig = figure(7.4, 3.4)
        axes = fig.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
        for k, ((name, (x, y)), look) in enumerate(zip(points.items(), looks(points).values())):
            every = max(1, len(x) // 8)
            axes.plot(x, y, label=name, color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=4.5,
                      markevery=(k % every, every))
        axes.set_ylim(ylim)
        if all(not isinstance(curve, tuple) for curve in curves.values()) and xscale == "linear":
            axes.xaxis.get_major_locator().set_params(integer=True)         # there is no step between two steps
        fig.legend(loc="outside right center", ncols=1 + (len(points) - 1) // TALL)
    return fig


def _points(name: str, curve: Any, first: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = curve if isinstance(curve, tuple) and len(curve) == 2 and np.ndim(curve[0]) else (None, curve)
    try:
        y = np.asarray(y, dtype="float64")
        x = np.arange(first, first + y.size) if x is None else np.asarray(x, dtype="float64")
    except (TypeError, ValueError):
        raise TypeError(f"curve {name!r} must be a row of numbers, got {curve!r}") from None
    if y.ndim != 1 or not y.size or x.shape != y.shape:
        raise ValueError(f"curve {name!r} must be a row of numbers, with as many places as heights; got shapes "
                         f"{x.shape} and {y.shape}")
    return x, y
