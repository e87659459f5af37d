"""Contours: paths over a function of two numbers, seen from above and in space, and along one of a single number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...tensor import Tensor, no_grad
from ..arguments import one_number, whole
from ..style import HEIGHTS, INK, figure, looks, styled
from ..surfaces import Surface, surface
from ..traces import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Interval = tuple[float, float]


def draw_contour(function: Any, traces: Any = (), box: tuple[Interval, Interval] | None = None,
                 points: int = 151) -> Figure:
    """Draw the heights of a function of two numbers, and the paths of runs over them.

    Colours follow the logarithm of 1 + height above the minimum, so that a valley shows beside its walls.

    Parameters
    ----------
    function : Surface, str or callable
        A surface, its name, or a function from a Tensor of two numbers to a scalar.
    traces : Trace, iterable of Trace, or mapping of labels to Traces
        What `record` returned for runs in the plane.
    box : ((x_low, x_high), (y_low, y_high)), optional
        What to draw, exactly. A surface has a box of its own, which is widened for paths that leave it; by half its
        width at most, and the picture says whose path goes on outside.
    points : int, default 151
        Of the grid along each side, at least 2.

    Returns
    -------
    Figure
        Of matplotlib; a notebook shows it, and `savefig` writes it.

    Raises
    ------
    TypeError, ValueError
        When the function has another number of coordinates, or is no surface and no box is given.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> traces = [tg.lab.record(name, "himmelblau", 60, lr=0.1) for name in ("adam", "rmsprop")]
    >>> figure = tg.lab.draw_contour("himmelblau", traces)
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['Adam, lr 0.1', 'RMSprop, lr 0.1', 'start', 'minimum']
    """
    scene = Scene(function, traces, box, points)
    with styled():
        fig = figure(7.0, 5.4)
        axes = fig.add_subplot()
        bands = scene.draw_ground(axes)
        for label in scene.paths:
            scene.draw_path(axes, label)
        bar = fig.colorbar(bands, ax=axes, pad=0.02, aspect=32, label=f"height above the {scene.zero}")
        bar.outline.set_visible(False)
        places, labels = scene.ticks()
        bar.set_ticks(places, labels=labels)
        draw_legend(fig, axes)
    return fig


def draw_surface_3d(function: Any, traces: Any = (), box: tuple[Interval, Interval] | None = None, points: int = 71,
                    view: tuple[float, float] = (48.0, -120.0)) -> Figure:
    """Draw a function of two numbers as a surface in space, with the paths of runs lying on it.

    Parameters
    ----------
    function, traces, box, points
        As for `draw_contour`; heights are on the same logarithmic scale.
    view : (float, float), default (48, -120)
        Elevation and azimuth of the eye in degrees.

    Returns
    -------
    Figure

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> trace = tg.lab.record("sgd", "saddle", 60, lr=0.05, momentum=0.9)
    >>> tg.lab.draw_surface_3d("saddle", trace).axes[0].name
    '3d'
    """
    from matplotlib.patheffects import withStroke
    scene = Scene(function, traces, box, points)
    with styled():
        fig = figure(7.0, 5.6)
        # By default the nearer of two things hides the other as a whole, and a path would vanish under its surface.
        axes = fig.add_subplot(projection="3d", computed_zorder=False, elev=view[0], azim=view[1])
        axes.plot_surface(*np.meshgrid(scene.x, scene.y), scene.raised(scene.heights), cmap=pale(), linewidth=0.3,
                          edgecolor="#00000030", rcount=points, ccount=points)
        for label, look in scene.looks.items():
            way = inside(_finely(scene.paths[label]), scene.box)
            z = scene.raised(heights_at(scene.function, way.T))
            axes.plot(*way.T, z, color=look.color, linestyle=look.linestyle, label=label, linewidth=2,
                      path_effects=[withStroke(linewidth=3.6, foreground="white")])
            axes.plot(*way[-1:].T, z[-1:], look.marker, color=look.color, markeredgecolor="white", markersize=8)
        axes.set(title=scene.name, xlabel="x", ylabel="y", xlim=scene.box[0], ylim=scene.box[1])
        axes.set_zticks(*scene.ticks(5))
        axes.set_zlabel(f"height above the {scene.zero}")
        draw_legend(fig, axes)
    return fig


def draw_descent(function: Any, traces: Any, box: Interval | None = None) -> Figure:
    """Draw steps down a function of one number: where each stood, the slope that it saw, how far it went.

    Parameters
    ----------
    function : Surface, str or callable
        A surface of one coordinate, its name, or a function from a Tensor of one number to a scalar.
    traces : Trace, iterable of Trace, or mapping of labels to Traces
        Runs on it; each has a panel of its own, side by side on the same axes.
    box : (low, high), optional
        What to draw. By default that of the surface, or twice what starts and lowest point ask for.

    Returns
    -------
    Figure

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def parabola(w):
    ...     return (w ** 2).sum()
    >>> runs = {f"lr {lr}": tg.lab.record("sgd", parabola, 8, start=[2.0], lr=lr) for lr in (0.03, 0.3, 0.95)}
    >>> [axes.get_title("left") for axes in tg.lab.draw_descent(parabola, runs).axes]
    ['lr 0.03', 'lr 0.3', 'lr 0.95']
    """
    function, traces = _resolved(function), by_label(traces)
    if not traces:
        raise ValueError("traces is empty; give the record of a run, from tg.lab.record(...)")
    for label, trace in traces.items():
        _check_coordinates(function, label, trace, 1)
    if box is None:
        box = function.box[0] if isinstance(function, Surface) else _reach(list(traces.values()))
    low, high = box = _interval("box", box)
    x = np.linspace(low, high, 241)
    y = heights_at(function, x[None])
    with styled():
        fig = figure(min(3.6 + 2.4 * len(traces), 13.0), 3.9)
        panels = fig.subplots(1, len(traces), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (label, trace), look in zip(panels, traces.items(), looks(traces).values()):
            axes.plot(x, y, color="#999999", linewidth=1.4)
            axes.set(title=label, xlabel="w")
            axes.locator_params("x", nbins=5)
            _draw_steps(axes, trace, heights_at(function, trace.path.T), look, box)
        span = np.nanmax(y) - np.nanmin(y) or 1.0
        panels[0].set(ylabel="height", xlim=box, ylim=(np.nanmin(y) - 0.08 * span, np.nanmax(y) + 0.08 * span))
    return fig


def _draw_steps(axes: Any, trace: Trace, heights: np.ndarray, look: Any, box: Interval) -> None:
    """Draw the points of a run, and of steps long enough to see the slope, an arrow and a number."""
    w, slopes = trace.path[:, 0], next(iter(trace.gradients.values())).reshape(-1)
    width = box[1] - box[0]
    shown = np.isfinite(w) & np.isfinite(heights) & (box[0] <= w) & (w <= box[1])
    written: list[float] = []
    for k in np.flatnonzero(shown):
        here = w[k], heights[k]
        if k < len(slopes) and shown[k + 1] and abs(w[k + 1] - w[k]) > 0.03 * width:
            axes.annotate("", (w[k + 1], heights[k + 1]), here, arrowprops=dict(
                arrowstyle="-|>", color=look.color, alpha=0.8, shrinkA=2, shrinkB=3, connectionstyle="arc3,rad=0.12"))
        if len(written) < 6 and all(abs(w[k] - other) > 0.045 * width for other in written):
            written.append(w[k])
            axes.annotate(str(k), here, (0, -14), textcoords="offset points", ha="center", fontsize=9)
            if k < len(slopes):
                tangent = np.array([-0.09, 0.09]) * width / np.hypot(1, slopes[k] / _steepness(axes))
                axes.plot(w[k] + tangent, heights[k] + slopes[k] * tangent, color=INK, linewidth=1.1)
    axes.plot(w[shown], heights[shown], look.marker, color=look.color, markersize=6.5, markeredgecolor="white")
    if not shown.all():
        axes.text(0.5, 0.98, f"step {np.argmin(shown)} leaves the picture", transform=axes.transAxes, ha="center",
                  va="top", fontsize=9, style="italic")


def _steepness(axes: Any) -> float:
    """Return the slope that looks like 45 degrees over the curve that was drawn."""
    x, y = axes.lines[0].get_data()
    return (np.nanmax(y) - np.nanmin(y) or 1.0) / (x[-1] - x[0])


def _reach(traces: list[Trace]) -> Interval:
    """Return an interval around the lowest point of all runs, twice as wide as the starts ask for."""
    w, loss = (np.concatenate(parts) for parts in zip(*((trace.path[:, 0], trace.loss) for trace in traces)))
    if not all(np.isfinite(trace.path[0]).all() for trace in traces):
        raise ValueError("a run does not begin at a finite number, so there is no telling what to draw; give box=, "
                         "such as (-2, 2)")
    lowest = w[np.nanargmin(np.where(np.isfinite(w), loss, np.inf))]
    reach = 2 * max(abs(trace.path[0, 0] - lowest) for trace in traces) or 1.0
    return lowest - reach, lowest + reach


class Scene:
    """Paths over a part of the plane and the heights there: what a contour, a view in space and an animation show.

    Parameters
    ----------
    function, traces, box, points
        As for `draw_contour`.

    Attributes
    ----------
    name : str
    paths : dict of str to (n + 1, 2) array
    looks : dict of str to Look
    box : two intervals
    x, y, heights : arrays
        The grid, a row for each y.
    lowest : float
        Of the surface, or of what is seen here.
    zero : str
        What that is.
    outside : list of str
        Whose paths leave the box.
    """

    def __init__(self, function: Any, traces: Any, box: tuple[Interval, Interval] | None, points: int) -> None:
        self.function, traces = _resolved(function), by_label(traces)
        self.name = getattr(self.function, "name", getattr(self.function, "__name__", "function"))
        known = isinstance(self.function, Surface)
        if known and self.function.dimensions != 2:
            raise ValueError(f"a contour shows two coordinates, {self.name} has {self.function.dimensions}")
        if not known and box is None:
            raise ValueError(f"{self.name} is no surface and does not know what part of the plane to show; give box=, "
                             "such as ((-2, 2), (-1, 3))")
        points = whole("points", points, 2)
        for label, trace in traces.items():
            _check_coordinates(self.function, label, trace, 2)
        paths = {label: trace.path for label, trace in traces.items()}
        self.looks, self.box = looks(paths), _checked(box) if box is not None else _widened(self.function.box, paths)
        self.x, self.y = (np.linspace(*interval, points) for interval in self.box)
        self.heights = heights_at(self.function, np.stack(np.meshgrid(self.x, self.y)))
        self.heights[~np.isfinite(self.heights)] = np.nan
        if np.isnan(self.heights).all():
            raise ValueError(f"{self.name} is finite nowhere in the box {self.box}; show another part of the plane")
        self.zero = "minimum" if known and np.isfinite(self.function.lowest) else "lowest point shown"
        self.lowest = self.function.lowest if self.zero == "minimum" else float(np.nanmin(self.heights))
        low, high = np.transpose(self.box)
        self.outside = [label for label, path in paths.items() if not ((low <= path) & (path <= high)).all()]
        # Agg cannot draw to points very far away; ten pictures away, a line still leaves in its direction.
        far = 10 * (high - low)
        self.paths = {label: np.clip(path, low - far, high + far) for label, path in paths.items()}

    def raised(self, heights: Any) -> np.ndarray:
        """Return heights as they are drawn: the logarithm of 1 + height above the lowest."""
        return np.log1p(np.maximum(np.asarray(heights) - self.lowest, 0))

    def ticks(self, most: int = 7) -> tuple[np.ndarray, list[str]]:
        """Return where on that scale to write which heights, few enough to read."""
        top = float(np.nanmax(self.raised(self.heights)))
        values = [0.0] + [digit * 10.0 ** k for k in range(-6, 13) for digit in (1, 3)]
        chosen = [0.0]
        for value in values:
            if np.log1p(value) <= top and np.log1p(value) - np.log1p(chosen[-1]) >= top / most:
                chosen.append(value)
        return np.log1p(chosen), [f"{value:g}" if value < 1e5 else f"$10^{{{np.log10(value):.0f}}}$"
                                  for value in chosen]

    def draw_ground(self, axes: Any) -> Any:
        """Draw bands of height, minima, starts and what leaves the picture; return the bands."""
        raised = self.raised(self.heights)
        levels = np.linspace(0, float(np.nanmax(raised)) or 1.0, 25)
        bands = axes.contourf(self.x, self.y, raised, levels, cmap=pale())
        axes.contour(self.x, self.y, raised, levels[1::2], colors="white", linewidths=0.5, alpha=0.6)
        minima = getattr(self.function, "minima", np.empty((0, 2)))
        seen = minima[[all(a <= w <= b for w, (a, b) in zip(point, self.box)) for point in minima]]
        if len(seen):
            axes.plot(*seen.T, "*", color="white", markeredgecolor=INK, markersize=13, zorder=4, label="minimum",
                      linestyle="none")
        starts = np.unique([path[0] for path in self.paths.values()], axis=0) if self.paths else ()
        if len(starts):
            axes.plot(*starts.T, "o", color="white", markeredgecolor=INK, markersize=8, zorder=7, label="start",
                      linestyle="none")
        axes.set(title=self.name, xlabel="x", ylabel="y", xlim=self.box[0], ylim=self.box[1])
        axes.grid(False)
        if self.outside:
            axes.text(0.015, 0.02, f"leaves the picture: {', '.join(self.outside)}", transform=axes.transAxes,
                      fontsize="small", style="italic", bbox=dict(facecolor="white", alpha=0.7, linewidth=0, pad=2))
        return bands

    def draw_path(self, axes: Any, label: str) -> tuple[Any, Any]:
        """Draw one path and a larger mark where it ends; return both."""
        from matplotlib.patheffects import withStroke
        path, look = self.paths[label], self.looks[label]
        every = max(1, len(path) // 12)
        line, = axes.plot(*path.T, color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=4,
                          markevery=(every, every), label=label, zorder=5,
                          path_effects=[withStroke(linewidth=3.4, foreground="white")])
        head, = axes.plot(*path[-1:].T, look.marker, color=look.color, markersize=9, markeredgecolor="white", zorder=6)
        return line, head


def heights_at(function: Callable, points: np.ndarray) -> np.ndarray:
    """Return the heights of a function at points, an array whose first axis holds the coordinates.

    A surface takes all points at once; another function is asked for one after the other, as an optimizer asks it.
    """
    with np.errstate(all="ignore"), no_grad():
        if isinstance(function, Surface):
            return np.array(function(points), dtype="float64")
        flat = points.reshape(len(points), -1).T
        what = f"{getattr(function, '__name__', 'the function')}, of a point of {len(points)} coordinates,"
        values = [one_number(function(Tensor(np.array(point))), what) for point in flat]
    return np.array(values).reshape(points.shape[1:])


def by_label(traces: Any) -> dict[str, Trace]:
    """Return traces by label; those without one are called after their optimizer and its learning rate."""
    if isinstance(traces, Mapping):
        found = dict(traces)
    elif not isinstance(traces, (Trace, Iterable)):
        raise TypeError(f"traces must be what tg.lab.record returns, or several of these; got {type(traces).__name__}")
    else:
        found = {}
        for trace in [traces] if isinstance(traces, Trace) else traces:
            lr = getattr(trace, "options", {}).get("lr")
            name = getattr(trace, "optimizer", "") + (f", lr {lr:.2g}" if isinstance(lr, (int, float)) else "")
            same = sum(label == name or label.startswith(f"{name} (") for label in found)
            found[f"{name} ({same + 1})" if same else name] = trace
    for label, trace in found.items():
        if not isinstance(trace, Trace):
            raise TypeError(f"{label!r} in traces must be what tg.lab.record returns, got {type(trace).__name__}")
    return found


def inside(path: np.ndarray, box: Any) -> np.ndarray:
    """Return a path without what lies outside of a box: NaN there."""
    low, high = np.transpose(box)
    return np.where(((low <= path) & (path <= high)).all(axis=1, keepdims=True), path, np.nan)


def pale() -> Any:
    """Return the colours of heights, mixed with white, so that paths stand out from them."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap
    return ListedColormap(0.5 + 0.5 * mpl.colormaps[HEIGHTS](np.linspace(0, 1, 256))[:, :3])


def draw_legend(fig: Figure, axes: Any, places: bool = True) -> None:
    """Put the legend of axes below a figure, in as many columns as have room; with or without start and minimum."""
    entries = {label: handle for handle, label in zip(*axes.get_legend_handles_labels())}
    known = {label: entries.pop(label) for label in ("start", "minimum") if label in entries}
    entries |= known if places else {}
    if entries:
        room = 12.5 * fig.get_figwidth() // (max(map(len, entries)) + 8)      # of letters, and of a line before them
        fig.legend(entries.values(), entries.keys(), loc="outside lower center", handlelength=3.2,
                   ncols=int(max(1, min(room, len(entries)))))


def _resolved(function: Any) -> Callable:
    """Return a surface for its name, and a function as it is."""
    if isinstance(function, str):
        return surface(function)
    if not callable(function):
        raise TypeError("function must be a surface, its name, or a function of a Tensor; got "
                        f"{type(function).__name__}")
    return function


def _check_coordinates(function: Any, label: str, trace: Trace, wanted: int) -> None:
    found, known = trace.path.shape[1], getattr(function, "dimensions", wanted)
    if len(trace.parameters) > 1:
        raise ValueError(f"a picture is drawn of a function of one Tensor, and the run {label!r} has "
                         f"{len(trace.parameters)}: {', '.join(trace.parameters)}")
    if found != wanted or known != wanted:
        raise ValueError(f"a picture of {'one coordinate' if wanted == 1 else 'two coordinates'} is asked for, and the "
                         f"run {label!r} on {trace.function} has {found}")


def _interval(name: str, interval: Any) -> Interval:
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be (low, high), got {interval!r}") from None
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"{name} must be finite numbers (low, high) with low < high, got {interval!r}")
    return low, high


def _checked(box: Any) -> tuple[Interval, Interval]:
    try:
        x, y = box
    except (TypeError, ValueError):
        raise ValueError(f"box must be two intervals, ((x_low, x_high), (y_low, y_high)); got {box!r}") from None
    return _interval("box: that of x", x), _interval("box: that of y", y)


def _widened(box: tuple[Interval, ...], paths: dict[str, np.ndarray]) -> tuple[Interval, ...]:
    """Return a box with the paths in it, widened by half its width at most; starts are always in it."""
    low, high = np.transpose(box)
    margin = 0.04 * (high - low)
    for path in paths.values():
        if np.isfinite(path[0]).all():
            low, high = np.minimum(low, path[0] - margin), np.maximum(high, path[0] + margin)
    room = (high - low) / 2
    for path in paths.values():
        near = path[((low - room <= path) & (path <= high + room)).all(axis=1)]
        if len(near):
            low, high = np.minimum(low, near.min(axis=0)), np.maximum(high, near.max(axis=0))
    return tuple((float(a), float(b)) for a, b in zip(low, high))


def _finely(path: np.ndarray, pieces: int = 12) -> np.ndarray:
    """Return a path with points between its points, so that it can follow a surface."""
    steps = np.arange(len(path))
    fine = np.linspace(0, len(path) - 1, pieces * (len(path) - 1) + 1)
    return np.stack([np.interp(fine, steps, column) for column in path.T], axis=1)
