"""Landscapes: the loss on a line or a plane through parameters, and what share of a path such a plane shows.

A model has as many directions as parameters, and a picture has two. So a plane is drawn with the numbers that say
how much of the movement lies in it, and the plane that a path chose for itself beside one that it did not choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.curvature import replaced
from ..data.dataset import as_generator
from ..nn import Module
from ..optim.ranges import POSITIVE, check
from ..optim.registry import find
from ..random import Generator
from ..tensor import Tensor, no_grad
from .arguments import one_number, whole
from .objective import Objective, batches_of
from .progress import progress_bar
from .traces import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = dict[str, np.ndarray]                   # parameters by name
NORMALISATIONS = ("filter", "layer", "none")


class Ground:
    """The height of a loss at any values of the parameters; a model is asked, and stays as it is.

    Parameters
    ----------
    model : Module, Surface, str or callable
    data : (x, y) or iterable of (x, y), optional
        For a model: a batch, or batches; the height is the mean over all samples.
    loss : callable, optional
        For a model: from its outputs and y to a scalar.
    start : array_like or mapping, optional
        For a function: parameters of the kind that it takes.
    """

    def __init__(self, model: Any, data: Any, loss: Callable | None, start: Any = None) -> None:
        self.batches = None if data is None else list(batches_of(data))
        objective = Objective(model, start, self.batches, loss)
        self.name, self.loss, self.model = objective.name, loss, objective.function
        self.learned = objective.parameters
        self.tensors, self.names = dict(self.learned), set(self.learned)
        if isinstance(self.model, Module):      # running means belong to a point, but no direction changes them
            self.tensors |= {name: tensor for name, tensor in
                             (*self.model.named_parameters(), *self.model.named_buffers())
                             if tensor.dtype in ("float32", "float64", "float16")}
            self.names |= {*self.tensors, *self.model.state_dict()}

    def here(self) -> Point:
        """Return the parameters that are learned, as they are."""
        return {name: p.numpy().astype("float64") for name, p in self.learned.items()}

    def point(self, given: Any, what: str, only: Iterable[str] | None = None) -> Point:
        """Return what was given as parameters by name, in float64, checked.

        A mapping of names; for a model also a list in the order of its parameters, for a function its only one.
        """
        known = {name: self.tensors[name] for name in only or self.tensors}
        if not isinstance(given, Mapping):
            if isinstance(self.model, Module) and not isinstance(given, Iterable):
                raise TypeError(f"{what} must be parameters, by name as in model.state_dict() or a list in the order "
                                f"of model.parameters(); got {type(given).__name__}")
            rows = list(given) if isinstance(self.model, Module) else [given]
            if len(rows) != len(self.learned):
                raise ValueError(f"{what} has {len(rows)} arrays, {self.name} learns {len(self.learned)}: "
                                 f"{', '.join(self.learned)}")
            given = dict(zip(self.learned, rows))
        missing, unknown = self.learned.keys() - given.keys(), given.keys() - self.names
        if missing or unknown:
            lacks, extra = (", ".join(sorted(map(str, names))) or "nothing" for names in (missing, unknown))
            raise ValueError(f"{what} does not fit {self.name}; it lacks {lacks}, and has what {self.name} has not: "
                             f"{extra}")
        values = {name: _numbers(given[name], f"{what}: {name}") for name in known if name in given}
        for name, value in values.items():
            if value.shape != known[name].shape:
                raise ValueError(f"{what}: {name} has shape {value.shape}, in {self.name} it has {known[name].shape}")
        return values

    def heights(self, points: Iterable[Point], total: int, progress: bool, batches: list | None = None) -> np.ndarray:
        """Return the loss at each point."""
        with self._quiet(), progress_bar(points, total, f"loss of {self.name}", progress) as bar:
            return np.array([self._height(point, self.batches if batches is None else batches) for point in bar])

    def _height(self, point: Point, batches: list) -> float:
        values = tuple(Tensor(value.astype(self.tensors[name].dtype)) for name, value in point.items())
        if not isinstance(self.model, Module):
            return one_number(self.model(*values), self.name)
        with replaced(self.model, tuple(self.tensors[name] for name in point), values):
            found = [(one_number(self.loss(self.model(x), y), "loss"), len(x)) for x, y in batches]
        losses, sizes = zip(*found)
        return float(np.average(losses, weights=sizes))

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Have the model as in use, without a tape and without warnings of overflow, and put its modes back."""
        modules = list(self.model.modules()) if isinstance(self.model, Module) else []
        modes = [module.training for module in modules]
        try:
            for module in modules:
                module.training = False
            with no_grad(), np.errstate(all="ignore"):
                yield
        finally:
            for module, mode in zip(modules, modes):
                module.training = mode


# ---- a line ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Interpolation:
    """The loss on the straight line from a to b.

    Attributes
    ----------
    name : str
        Of the model or function.
    t : (points,) array
        0 at a, 1 at b.
    loss : (points,) array
    test : (points,) array or None
        The loss on the test data.
    """

    name: str
    t: np.ndarray
    loss: np.ndarray
    test: np.ndarray | None = None

    @property
    def above(self) -> np.ndarray:
        """How far the loss is above the chord between its ends, (points,); NaN where an end is infinite."""
        with np.errstate(invalid="ignore"):
            return self.loss - (1 - self.t) * self.loss[0] - self.t * self.loss[-1]

    @property
    def barrier(self) -> float:
        """How far the loss rises above the chord between its ends; 0 on a line that is convex.

        As in Frankle, Dziugaite, Roy & Carbin (ICML 2020, arXiv 1912.05671) and Entezari et al. (ICLR 2022,
        arXiv 2110.06296).
        """
        return float(self.above.max())

    @property
    def rise(self) -> float:
        """How far the loss rises above the higher of its ends: what a walk along the line must climb."""
        return float(self.loss.max() - max(self.loss[0], self.loss[-1]))

    def __repr__(self) -> str:
        return f"<loss of {self.name} on a line: barrier {self.barrier:.4g}, rise {self.rise:.4g}>"

    def draw(self) -> Figure:
        """Draw the loss along the line, with its chord and the barrier."""
        from .style import BLUE, INK, VERMILION, figure, styled
        with styled():
            fig = figure(7.0, 4.2)
            axes = fig.subplots()
            axes.plot(self.t, self.loss, color=BLUE, label="loss" if self.test is None else "training loss")
            if self.test is not None:
                axes.plot(self.t, self.test, color=VERMILION, linestyle="--", label="test loss")
            axes.plot([0, 1], self.loss[[0, -1]], color=INK, linestyle=":", linewidth=1.2, label="chord")
            if 0 < self.barrier < np.inf:
                k = int(self.above.argmax())
                axes.vlines(self.t[k], self.loss[k] - self.above[k], self.loss[k], color=INK, linewidth=1.2,
                            label=f"barrier {self.barrier:.3g}")
            axes.set(xlabel="share of the way", ylabel="loss", title=f"{self.name} on the line from a to b")
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["a", "0.25", "0.5", "0.75", "b"])
            axes.legend()
        return fig


def interpolate(model: Any, a: Any, b: Any, data: Any = None, loss: Callable | None = None, points: int = 51, *,
                test: Any = None, progress: bool = True) -> Interpolation:
    """Return the loss on the straight line between two sets of parameters.

    Parameters
    ----------
    model : Module, Surface, str or callable
        A model with `data` and `loss`; or a function of Tensors.
    a, b : mapping of str to array, or list of arrays, or array
        For a model as `state_dict()` has it, whose running means are interpolated too, or a list in the order of
        `parameters()`; for a function names and values, or the value of its only Tensor.
    data : (x, y) or iterable of (x, y), optional
        For a model: the loss is the mean over all samples, with the model as in use (`eval`).
    loss : callable, optional
        For a model: from its outputs and y to a scalar.
    points : int, default 51
        At least 2, the ends among them.
    test : (x, y) or iterable of (x, y), optional
        Other data, for a second curve.
    progress : bool, default True
        Show a progress bar, in a terminal or a notebook, where it takes longer than a second.

    Returns
    -------
    Interpolation

    Raises
    ------
    TypeError, ValueError
        When names or shapes do not fit; the model is left as it was, always.

    Notes
    -----
    Source: Goodfellow, Vinyals & Saxe, Qualitatively characterizing neural network optimization problems, ICLR 2015,
    arXiv 1412.6544.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> line = tg.lab.interpolate("double well", [-0.936, 0.0], [0.905, 0.0], points=101)
    >>> round(line.barrier, 2), round(line.rise, 2)
    (1.59, 1.06)
    """
    points, ground = whole("points", points, 2), Ground(model, data, loss, None if isinstance(model, Module) else a)
    a, b = ground.point(a, "a"), ground.point(b, "b")
    if a.keys() != b.keys():
        raise ValueError(f"a and b name different things: {', '.join(sorted(a.keys() ^ b.keys()))} is in one of them")
    t = np.linspace(0, 1, points)

    def line() -> Iterator[Point]:
        return ({name: (1 - s) * a[name] + s * b[name] for name in a} for s in t)
    losses = ground.heights(line(), points, progress)
    return Interpolation(ground.name, t, losses,
                         None if test is None else ground.heights(line(), points, progress, list(batches_of(test))))


# ---- planes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Plane:
    """The loss on a plane through a point, and the shadow of a path on it.

    Attributes
    ----------
    name, kind : str
        The model or function; and which plane this is.
    origin : dict of str to array
        The point, at (0, 0).
    directions : two dicts of str to array
        What a step of 1 to the right, and upwards, adds to each parameter.
    x, y : (points,) arrays
    loss : (points, points) array
        A row for each y.
    path : (n, 2) array or None
        The points of a path, put onto the plane at a right angle.
    variance : float
        The share of the squared distances of the path's points from the origin that lies in the plane; NaN without
        a path.
    movement : float
        The share of the squared lengths of the path's steps that lies in the plane.
    beside : Plane or None
        A random plane through the same point, with the same path.
    """

    name: str
    kind: str
    origin: Point
    directions: tuple[Point, Point]
    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    path: np.ndarray | None = None
    variance: float = float("nan")
    movement: float = float("nan")
    beside: Plane | None = None

    def __repr__(self) -> str:
        shares = "" if self.path is None else f": {self._shares()}"
        return f"<loss of {self.name} on {self.kind}{shares}>"

    def _shares(self, between: str = " ") -> str:
        return (f"{self.variance:.1%} of the variance around the end,{between}"
                f"{self.movement:.1%} of the squared steps")

    def draw(self) -> Figure:
        """Draw the plane as contours, with the point and the path; and the random plane beside it, if there is one."""
        from .style import figure, styled
        planes = [self] if self.beside is None else [self, self.beside]
        with styled():
            fig = figure(6.4 * len(planes) - 0.4 * (len(planes) - 1), 5.4)
            fig.suptitle(f"Loss of {self.name}", x=0.01, ha="left")
            for axes, plane in zip(fig.subplots(1, len(planes), squeeze=False)[0], planes):
                plane._draw(fig, axes)
        return fig

    def _draw(self, fig: Figure, axes: Any) -> None:
        from matplotlib.colors import LogNorm

        from .style import INK, VERMILION
        axes.grid(False)
        finite = self.loss[np.isfinite(self.loss)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        wide = low > 0 and high > 30 * low
        levels = np.geomspace(low, high, 25) if wide else np.linspace(low, high if high > low else low + 1, 25)
        heights = np.ma.masked_invalid(self.loss)
        filled = axes.contourf(self.x, self.y, heights, levels, norm=LogNorm() if wide else None)
        axes.contour(self.x, self.y, heights, levels[::2], colors="white", linewidths=0.5, alpha=0.6)
        if self.path is not None:
            axes.plot(*self.path.T, color=VERMILION, linewidth=1.8, label="path")
            axes.plot(*self.path[0], "o", color="white", markeredgecolor=INK, markersize=8, label="start")
        axes.plot(0, 0, "*", color="white", markeredgecolor=INK, markersize=15,
                  label="here" if self.path is None else "end")
        shares = "" if self.path is None else "\nit shows " + self._shares("\n")
        axes.set(title=self.kind + shares, xlim=self.x[[0, -1]], ylim=self.y[[0, -1]], xlabel="first direction",
                 ylabel="second direction")
        bar = fig.colorbar(filled, ax=axes, label="loss", format="%.3g")
        bar.ax.minorticks_off()
        axes.legend(fontsize=9, frameon=True, framealpha=0.85, edgecolor="none")


def random_plane(model: Any, data: Any = None, loss: Callable | None = None, points: int = 31, span: float = 1.0,
                 generator: Generator | int | None = None, normalisation: str = "filter", *, start: Any = None,
                 progress: bool = True) -> Plane:
    """Return the loss on a plane of two random directions through the parameters as they are.

    Parameters
    ----------
    model, data, loss, progress
        As for `interpolate`.
    points : int, default 31
        Along each side; an odd number has the point itself among them.
    span : float, default 1.0
        How far to go to each side, in lengths of a direction.
    generator : Generator or int, optional
        Or its seed; by default that of `tg.manual_seed`.
    normalisation : {"filter", "layer", "none"}, default "filter"
        "filter" gives each row of a direction, which leads to one output, the norm of that row of the weights, and
        leaves biases and the weights of norms, all that have one axis or none, alone. Without it a net whose weights
        are large looks flat. "layer" gives each parameter as a whole the norm that it has; "none" leaves normal
        numbers as drawn.
    start : array_like or mapping, optional
        For a function: the point.

    Returns
    -------
    Plane

    Raises
    ------
    TypeError, ValueError
        When an argument is out of range or does not fit, or no parameter has rows.

    Notes
    -----
    Source: Li, Xu, Taylor, Studer & Goldstein, Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018,
    arXiv 1712.09913.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model, (x, y) = tg.nn.Linear(2, 2), tg.data.moons(60, generator=0)
    >>> plane = tg.lab.random_plane(model, (x, y), tg.cross_entropy, points=5, generator=tg.Generator(0))
    >>> plane.loss.shape, float(plane.loss[2, 2]) == tg.cross_entropy(model(x), y).item()
    ((5, 5), True)
    """
    points, ground = whole("points", points, 2), Ground(model, data, loss, start)
    check("random_plane", "span", span, POSITIVE)
    origin = ground.here()
    directions = _random_directions(origin, generator, normalisation)
    side = np.linspace(-span, span, points)
    return _plane(ground, "a random plane", origin, directions, side, side, progress)


def path_plane(path: Any, model: Any, data: Any = None, loss: Callable | None = None, points: int = 31, *,
               beside: bool = True, generator: Generator | int | None = None, progress: bool = True) -> Plane:
    """Return the loss on the plane that a path chose: that of its two principal directions, through its end.

    It shows as much of the path as any plane through the end can. That makes it no picture of the surroundings, so a
    random plane, with the share that it shows, is put beside it.

    Parameters
    ----------
    path : Trace, or list of parameters
        A recorded run; or what the parameters were, the last one last, each as `interpolate` takes it.
    model, data, loss, points, progress
        As for `random_plane`; a function is the one that the path was walked on.
    beside : bool, default True
        Also return a random plane, as `plane.beside`: it takes as long again.
    generator : Generator or int, optional
        For the random one, or its seed.

    Returns
    -------
    Plane

    Raises
    ------
    TypeError, ValueError
        When the path does not fit the model, does not move, or has fewer than two numbers.

    Notes
    -----
    The principal directions are those of the distances from the end, without taking their mean away, so that the end
    lies in the plane. Source: Li et al., arXiv 1712.09913, section 7.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> trace = tg.lab.record("adam", "chain", 50, lr=0.1)
    >>> plane = tg.lab.path_plane(trace, "chain", points=5, generator=tg.Generator(0))
    >>> round(plane.variance, 3), plane.variance > plane.beside.variance
    (0.976, True)
    """
    snapshots = _snapshots(path)
    ground = Ground(model, data, loss, None if isinstance(model, Module) else snapshots[-1])
    points = whole("points", points, 2)
    walked = [ground.point(snapshot, f"snapshot {k} of the path", ground.learned)
              for k, snapshot in enumerate(snapshots)]
    origin = walked[-1]
    away = np.stack([_vector(point) for point in walked]) - _vector(origin)
    if away.shape[1] < 2 or not away.any() or not np.isfinite(away).all():
        raise ValueError(f"a path of {len(away)} points and {away.shape[1]} numbers has no plane: it needs two numbers "
                         "at least, must move, and stay finite")
    _, _, axes = np.linalg.svd(away, full_matrices=False)
    directions = tuple(_parts(axis, origin) for axis in axes[:2])
    plane = _with_path(ground, "the plane that the path chose", origin, directions, away, points, progress)
    if not beside:
        return plane
    normalisation = "filter" if any(value.ndim > 1 for value in origin.values()) else "layer"
    drawn = _random_directions(origin, generator, normalisation)
    return replace(plane, beside=_with_path(ground, "a random plane", origin, drawn, away, points, progress, 1.0))


def _plane(ground: Ground, kind: str, origin: Point, directions: tuple[Point, Point], x: np.ndarray, y: np.ndarray,
           progress: bool) -> Plane:
    right, up = directions
    points = ({name: value + s * right[name] + t * up[name] for name, value in origin.items()} for t in y for s in x)
    losses = ground.heights(points, len(x) * len(y), progress).reshape(len(y), len(x))
    return Plane(ground.name, kind, origin, directions, x, y, losses)


def _with_path(ground: Ground, kind: str, origin: Point, directions: tuple[Point, Point], away: np.ndarray,
               points: int, progress: bool, span: float = 0.0) -> Plane:
    """Return a plane that is as large as the shadow of a path, which is given as distances from the origin."""
    spread = np.stack([_vector(direction) for direction in directions], axis=1)
    shadow = np.linalg.lstsq(spread, away.T, rcond=None)[0].T
    low, high = np.minimum(shadow.min(axis=0), -span), np.maximum(shadow.max(axis=0), span)
    middle, half = (low + high) / 2, (high - low) / 2
    half = 1.2 * np.maximum(half, 0.3 * half.max())                 # a straight path has a width too
    x, y = (np.linspace(m - h, m + h, points) for m, h in zip(middle, half))
    across, _ = np.linalg.qr(spread)
    return replace(_plane(ground, kind, origin, directions, x, y, progress), path=shadow,
                   variance=_share(away, across), movement=_share(np.diff(away, axis=0), across))


def _share(rows: np.ndarray, across: np.ndarray) -> float:
    """Return how much of the squared length of some vectors lies in the plane of orthonormal columns."""
    return float(((rows @ across) ** 2).sum() / (rows ** 2).sum())


def _random_directions(origin: Point, generator: Generator | int | None, normalisation: str) -> tuple[Point, Point]:
    generator = as_generator(generator)
    kind = find(normalisation, NORMALISATIONS, "normalisation", "tg.lab.random_plane")
    if kind == "filter" and not any(value.ndim > 1 and value.any() for value in origin.values()):
        raise ValueError("no parameter has rows that are not 0, so there is no filter to take the norm of; use "
                         "normalisation='layer', or 'none'")
    return tuple({name: _normalised(generator.numpy.standard_normal(value.shape), value, kind)
                  for name, value in origin.items()} for _ in range(2))


def _normalised(direction: np.ndarray, weights: np.ndarray, kind: str) -> np.ndarray:
    if kind == "none":
        return direction
    if kind == "filter" and weights.ndim < 2:
        return np.zeros(weights.shape)
    axes = tuple(range(1, weights.ndim)) if kind == "filter" else None
    own, drawn = (np.sqrt((values ** 2).sum(axis=axes, keepdims=True)) for values in (weights, direction))
    return direction * (own / np.where(drawn == 0, 1, drawn))


def _snapshots(path: Any) -> list[Any]:
    """Return what the parameters were at each point of a path."""
    if isinstance(path, Trace):
        return [{name: p[k] for name, p in path.parameters.items()} for k in range(len(path) + 1)]
    if not isinstance(path, (list, tuple, np.ndarray)) or len(path) < 2:
        raise TypeError("path must be a Trace, or a list of at least two sets of parameters, such as copies of "
                        f"model.state_dict(); got {type(path).__name__}")
    return list(path)


def _vector(point: Point) -> np.ndarray:
    return np.concatenate([value.reshape(-1) for value in point.values()])


def _parts(vector: np.ndarray, like: Point) -> Point:
    ends = np.cumsum([value.size for value in like.values()])[:-1]
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), np.split(vector, ends))}


def _numbers(value: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(value.numpy() if isinstance(value, Tensor) else value, dtype="float64")
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be numbers, got {value!r}") from None
