"""Rate maps: how fast an optimizer with momentum goes on a quadratic, for every lr and momentum at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...optim.optimizer import Optimizer
from ...optim.ranges import RANGES, check
from .linear_maps import (
    MOTIONS,
    LinearRule,
    Optimum,
    best_pair,
    eigenvalues,
    finite_numbers,
    largest_stable_lr,
    motion_of,
)
from .theory import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class RateMap:
    """The rate over lr and momentum.

    Attributes
    ----------
    optimizer : str
    options : dict
        Its other options, those that were given.
    curvatures : (n,) array
        The eigenvalues of the quadratic, the smallest first.
    lr, momentum : arrays
        The grid.
    rate : (len(momentum), len(lr)) array
        What is left of the distance after a step, along the slowest eigenvector.
    motion : (len(momentum), len(lr)) array of int
        How it moves along that one: 0 monotone, 1 oscillates, 2 zig-zags, 3 diverges, as in `linear_maps.MOTIONS`.
    edge : (len(momentum),) array
        For each momentum the largest lr at which nothing grows, by bisection.
    best : Optimum
        The smallest rate that any lr and momentum give, also between the points of the grid.
    """

    optimizer: str
    options: dict[str, Any]
    curvatures: np.ndarray
    lr: np.ndarray
    momentum: np.ndarray
    rate: np.ndarray
    motion: np.ndarray
    edge: np.ndarray
    best: Optimum

    def __repr__(self) -> str:
        return f"<rates of {self._title()}, at best {self.best.rate:.6f}>"

    def _title(self) -> str:
        low, high = self.curvatures[[0, -1]]
        several = f"from {low:.4g} to {high:.4g}" if low < high else f"{high:.4g}"
        return f"{describe(self.optimizer, self.options)} on a quadratic of curvature {several}"

    def draw(self) -> Figure:
        """Draw the rate as heights, the regions with their names, the edge of stability and the best point."""
        from matplotlib.colors import to_rgb

        from ..style import INK, VERMILION, figure, styled
        with styled():
            fig = figure(8.0, 5.2)
            axes = fig.subplots()
            axes.grid(False)
            stable = np.where(self.motion == MOTIONS.index("diverges"), np.nan, self.rate)
            heights = axes.pcolormesh(self.lr, self.momentum, stable, shading="nearest", vmin=np.nanmin(stable),
                                      vmax=1.0, cmap="cividis_r", rasterized=True)
            axes.set_facecolor((*to_rgb(VERMILION), 0.18))
            for k in range(len(MOTIONS) - 1):                       # what diverges has an exact edge
                inside = np.where(np.isnan(stable), np.nan, self.motion == k)
                if 0 < np.nansum(inside) < np.isfinite(inside).sum():
                    axes.contour(self.lr, self.momentum, inside, [0.5], colors="white", linewidths=1.0)
            axes.plot(self.edge, self.momentum, color=VERMILION, linewidth=2.2, label="rate 1: the edge of stability")
            lr, momentum = self.best.lr, self.best.momentum
            seen = self.lr[0] <= lr <= self.lr[-1] and self.momentum[0] <= momentum <= self.momentum[-1]
            axes.plot(*((lr, momentum) if seen else (np.nan, np.nan)), "*", color="white", markeredgecolor=INK,
                      markersize=17, clip_on=False, zorder=4, label=f"best{'' if seen else ', outside'}: lr {lr:.4g}, "
                      f"momentum {momentum:.4f}, rate {self.best.rate:.4f}")
            for k, name in enumerate(MOTIONS):
                self._write(axes, name, self.motion == k)
            axes.set(xlim=self.lr[[0, -1]], ylim=self.momentum[[0, -1]], xlabel="lr", ylabel="momentum",
                     title=self._title())
            fig.colorbar(heights, label="rate: what is left of the distance after a step")
            fig.legend(loc="outside lower left", ncols=2, fontsize=9.5)
        return fig

    def _write(self, axes: Any, name: str, inside: np.ndarray) -> None:
        """Write the name of a region where it is widest."""
        from ..style import INK
        row, column, room = _middle(inside)
        if room >= 4:
            axes.text(self.lr[column], self.momentum[row], name, ha="center", va="center", color=INK,
                      bbox=dict(boxstyle="round,pad=0.25", facecolor="white", alpha=0.8, edgecolor="none"))


def rate_map(optimizer: Any = "SGD", curvature: Any = 1.0, kappa: float | None = None, lr: Any = None,
             momentum: Any = None, **options: Any) -> RateMap:
    """Return the rate of an optimizer on a quadratic for every pair of an lr and a momentum.

    Parameters
    ----------
    optimizer : str, subclass of Optimizer, callable or Optimizer, default "SGD"
        One with an option `momentum` and a linear rule: SGD or QHM, or your own.
    curvature : float or (n,) array_like, default 1.0
        The eigenvalues of the quadratic, all positive.
    kappa : float, optional
        The condition number: the eigenvalues are then `curvature` and `curvature / kappa`.
    lr, momentum : (k,) array_like, optional
        The grid, rising; by default 100 of each, from 0 to past the edge of stability, and from 0 to 0.99.
    **options
        Others of the optimizer, such as nesterov.

    Returns
    -------
    RateMap

    Raises
    ------
    TypeError, ValueError
        When the rule is not linear, has no momentum or not one of the options, or a grid or curvature is out of its
        range.

    Notes
    -----
    Source: Goh, Why Momentum Really Works, Distill 2017. There monotone, oscillating and divergent are regions of a
    single eigenvalue; for several ones the slowest decides.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> rates = tg.lab.rate_map("SGD", curvature=100, kappa=100)
    >>> rates.rate.shape, round(rates.best.rate, 6)                 # 9/11, Polyak's
    ((100, 100), 0.818182)
    >>> rates.edge[:2].round(6).tolist()                            # 2 (1 + momentum) / curvature
    [0.02, 0.0202]
    """
    curvatures = _spread(curvature, kappa)
    momenta = _grid("momentum", np.linspace(0, 0.99, 100) if momentum is None else momentum)
    rule = _with_momentum(optimizer, options, momenta[-1])
    edge = largest_stable_lr(rule, curvatures, momentum=momenta)
    if lr is None:
        furthest = edge[np.isfinite(edge)].max(initial=0.0) or 2 / curvatures[-1]
        lr = np.linspace(0, 1.1 * furthest, 101)[1:]
    rates = _grid("lr", lr)
    roots = eigenvalues(rule.maps(curvatures, lr=rates, momentum=momenta[:, None]))
    roots = roots.reshape(*roots.shape[:2], -1)
    return RateMap(rule.name, options, curvatures, rates, momenta, abs(roots).max(axis=-1), motion_of(roots), edge,
                   best_pair(rule, curvatures[[0, -1]]))


def _spread(curvature: Any, kappa: Any) -> np.ndarray:
    curvatures = finite_numbers(curvature)
    if kappa is not None:
        if curvatures.size > 1 or not kappa >= 1:
            raise ValueError(f"kappa, at least 1, belongs to one curvature, the largest; got {kappa!r} and "
                             f"{curvatures.size} curvatures")
        curvatures = np.array([curvatures.item() / kappa, curvatures.item()])
    if not (curvatures > 0).all():
        raise ValueError(f"curvature must be positive, for a quadratic with a minimum; got {curvature!r}")
    return np.sort(curvatures.reshape(-1))


def _grid(name: str, given: Any) -> np.ndarray:
    try:
        grid = np.asarray(given, dtype="float64")
    except (TypeError, ValueError):
        grid = np.array(np.nan)
    if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) > 0).all():
        raise ValueError(f"{name} must be a grid of at least two rising numbers, such as np.linspace(0, 1, 100); got "
                         f"shape {grid.shape}")
    for end in grid[[0, -1]]:
        check("rate_map", name, end, RANGES[name])
    return grid


def _with_momentum(optimizer: Any, options: dict[str, Any], momentum: float) -> LinearRule:
    """Return the rule that is chosen for a momentum."""
    if isinstance(optimizer, Optimizer):
        rule = LinearRule.of(optimizer, options)
    else:
        try:
            rule = LinearRule.of(optimizer, {**options, "momentum": float(momentum)})
        except TypeError as error:
            if "'momentum'" not in str(error):
                raise
            raise ValueError("rate_map takes an optimizer with an option momentum, such as SGD or QHM: "
                             f"{error}") from None
    if "momentum" not in rule.group:
        raise ValueError(f"rate_map takes an optimizer with an option momentum, such as SGD or QHM; {rule.name} has "
                         f"{', '.join(key for key in rule.group if key not in ('params', 'param_names'))}")
    return rule.given(momentum=float(momentum))


def _middle(inside: np.ndarray) -> tuple[int, int, int]:
    """Return row and column of the point of a region that is furthest from its edge, and how far that is."""
    room, left = 0, np.pad(inside, 1)
    while left.any():
        last, room = left, room + 1
        left = left & np.roll(left, 1, 0) & np.roll(left, -1, 0) & np.roll(left, 1, 1) & np.roll(left, -1, 1)
    if not room:
        return 0, 0, 0
    places = np.argwhere(last) - 1
    row, column = places[len(places) // 2]
    return int(row), int(column), room
