"""Theory: the rate of an optimizer on a quadratic, told before anything runs, and a run set beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf, log, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import autograd
from ...tensor import Tensor
from ..surfaces import Surface, surface
from ..traces import Trace
from .linear_maps import (
    MOTIONS,
    LinearRule,
    Optimum,
    best_lr,
    best_pair,
    eigenvalues,
    finite_numbers,
    largest_stable_lr,
    motion_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRIX = "a matrix"                     # the name of a problem that is given as one


@dataclass(frozen=True, eq=False, repr=False)
class Theory:
    """What a linear optimizer does on a quadratic, from its matrix; with a run beside it after `against`.

    Attributes
    ----------
    optimizer, problem : str
    options : dict
        Of the optimizer.
    curvatures : (n,) array
        The eigenvalues of A, the smallest first.
    maps : (n, m, m) array
        One step of (p, state) along each.
    roots : (n, m) array of complex
        The eigenvalues of the maps.
    rates : (n,) array
        What is left of the distance after a step, along each: the spectral radius.
    motions : list of str
        How it moves along each: monotone, oscillates, zig-zags or diverges.
    rule : LinearRule
        What the maps are made from.
    basis : (n, n) array or None
        An eigenvector a column; None when only eigenvalues were given.
    minimum, rest : (n,) arrays or None
        Where the quadratic is lowest; and where the optimizer comes to rest, which weight decay moves.
    measured : (n,) array or None
        The rates of a run; NaN where it was too short.
    deviations, predictions : (steps + 1, n) arrays or None
        How far the run was from rest along each eigenvector, and how far it should be by its start alone.
    """

    optimizer: str
    problem: str
    options: dict[str, Any]
    curvatures: np.ndarray
    maps: np.ndarray
    roots: np.ndarray
    rates: np.ndarray
    motions: list[str]
    rule: LinearRule
    basis: np.ndarray | None
    minimum: np.ndarray | None
    rest: np.ndarray | None
    measured: np.ndarray | None = None
    deviations: np.ndarray | None = None
    predictions: np.ndarray | None = None

    @property
    def rate(self) -> float:
        """The rate of the slowest eigenvector, which is that of the whole in the long run."""
        return float(self.rates.max())

    @property
    def condition(self) -> float:
        """The largest curvature over the smallest; infinite unless all are positive."""
        return float(self.curvatures[-1] / self.curvatures[0]) if self.curvatures[0] > 0 else inf

    @property
    def steps(self) -> float:
        """Steps in which the distance falls to a millionth at that rate; infinite at a rate of 1 or more."""
        return _steps(self.rate)

    @cached_property
    def stable_lr(self) -> float:
        """The largest lr at which nothing grows, all other numbers as they are; 0 when there is none."""
        return float(largest_stable_lr(self.rule, self.curvatures))

    @cached_property
    def best_lr(self) -> Optimum | None:
        """The best lr for the smallest and the largest curvature, all other numbers as they are.

        None unless all curvatures are positive.
        """
        if self.curvatures[0] <= 0:
            return None
        lr, rate = best_lr(self.rule, self.curvatures[[0, -1]])
        return Optimum(float(lr), self.options.get("momentum"), float(rate))

    @cached_property
    def best(self) -> Optimum | None:
        """The best lr and momentum together, for the same two; None also for an optimizer without `momentum`."""
        if self.curvatures[0] <= 0 or "momentum" not in self.options:
            return None
        return best_pair(self.rule.given(momentum=0.5), self.curvatures[[0, -1]])

    def against(self, trace: Trace) -> Theory:
        """Return a theory like this one with a run beside it.

        Parameters
        ----------
        trace : Trace
            Of the same optimizer with the same options, on the same function.

        Raises
        ------
        TypeError, ValueError
            When it is no Trace, the run is another's, or no eigenvectors are known.
        """
        self._check(trace)
        path = trace.path
        finite = np.where(np.isfinite(path), path, 0.0)
        noise = 1e3 * np.finfo(path.dtype).eps * max(abs(finite).max(), 1e-300)
        with np.errstate(all="ignore"):
            deviations = (path - self.rest) @ self.basis
        return replace(self, deviations=deviations, predictions=self._predict(path[0], len(trace)),
                       measured=np.array([measure_rate(column, noise) for column in deviations.T]))

    def _check(self, trace: Trace) -> None:
        if not isinstance(trace, Trace):
            raise TypeError(f"trace must be what tg.lab.record returns, got {type(trace).__name__}")
        if self.basis is None:
            raise ValueError("this theory knows eigenvalues alone, and a run has coordinates: analyse the surface or "
                             "the matrix itself")
        wanted = {"optimizer": self.optimizer, "function": self.problem, "coordinates": len(self.curvatures)}
        came = {"optimizer": trace.optimizer, "function": trace.function, "coordinates": trace.path.shape[1]}
        if self.problem == MATRIX:
            del wanted["function"]
        wanted |= {name: value for name, value in self.options.items() if name in trace.options}
        came |= trace.options
        for name, value in wanted.items():
            if came[name] != value:
                raise ValueError(f"the theory is of another run: its {name} is {value}, that of the trace is "
                                 f"{came[name]}; analyse and record with the same arguments")
        if not np.array_equal(trace.lr, np.full_like(trace.lr, trace.lr[0]), equal_nan=True):
            raise ValueError("the lr of the trace changes from step to step; theory takes fixed numbers")

    def _predict(self, start: np.ndarray, steps: int) -> np.ndarray:
        """Return how far from rest a run is along each eigenvector, from its start alone."""
        optimizer, group = self.rule.optimizer, self.rule.group
        p = group["params"][0]
        first = [optimizer.initial(name, group, p) for name in self.rule.rule.states]
        z = np.stack([start, *(start if value is p else np.full(start.shape, float(value)) for value in first)])
        z, lowest = z @ self.basis, self.minimum @ self.basis
        found = [z[0]]
        with np.errstate(all="ignore"):
            for t in range(1, steps + 1):
                z = self.rule.step(z, self.curvatures * (z[0] - lowest), t)
                found.append(z[0])
            return np.array(found) - self.rest @ self.basis

    def __str__(self) -> str:
        measured = np.full(len(self.rates), nan) if self.measured is None else self.measured
        rows = [("curvature", "rate", "measured", "motion", "steps to 1e-6")]
        for k in _chosen(len(self.rates), 12):
            rows.append((f"{self.curvatures[k]:.4g}", f"{self.rates[k]:.6f}",
                         "-" if np.isnan(measured[k]) else f"{measured[k]:.6f}", self.motions[k],
                         f"{_steps(self.rates[k]):.0f}"))
        if self.measured is None:
            rows = [(*row[:2], *row[3:]) for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = ["   ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows]
        if len(self.rates) > 12:
            table.append(f"   ({len(self.rates)} curvatures, 12 of them shown)")
        return "\n".join([f"{self._title()}, condition number {self.condition:.4g}", "", *table, "", *self._advice()])

    __repr__ = __str__

    def _title(self) -> str:
        return f"{describe(self.optimizer, self.options)} on {self.problem}"

    def _advice(self) -> list[str]:
        lines = [f"stable up to lr     {self.stable_lr:.6g}"]
        if self.best_lr is not None:
            lines.append(f"best lr             {self.best_lr.lr:.6g}, all else as it is: rate {self.best_lr.rate:.6f}")
        if self.best is not None:
            lines.append(f"best lr, momentum   {self.best.lr:.6g}, {self.best.momentum:.6g}: rate {self.best.rate:.6f}")
        return lines

    def draw(self, steps: int = 100) -> Figure:
        """Draw the loss along each eigenvector, run and prediction, and the rate over the curvature.

        Parameters
        ----------
        steps : int, default 100
            To predict where there is no run: from a distance of 1 along each eigenvector.
        """
        from ..style import figure, styled
        with styled():
            fig = figure(11.0, 4.9)
            fig.suptitle(self._title(), x=0.01, ha="left")
            left, right = fig.subplots(1, 2, width_ratios=(1.25, 1))
            self._draw_losses(left, steps)
            self._draw_rates(right)
            fig.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=9)
        return fig

    def _draw_losses(self, axes: Any, steps: int) -> None:
        from ..style import INK, looks
        run, expected = self.deviations, self._from_one(steps) if self.predictions is None else self.predictions
        chosen = _chosen(len(self.rates), 6)
        for k, look in looks(chosen).items():
            name = f"curvature {self.curvatures[k]:.3g}: rate {self.rates[k]:.4f}"
            marks = dict(color=look.color, marker=look.marker, markevery=max(1, len(expected) // 8), markersize=6)
            if run is not None:
                name += "" if np.isnan(self.measured[k]) else f", measured {self.measured[k]:.4f}"
                axes.plot(_loss(self.curvatures[k], run[:, k]), linewidth=3, alpha=0.6, label=name, **marks)
            axes.plot(_loss(self.curvatures[k], expected[:, k]), linestyle="--", linewidth=1.1,
                      **(dict(label=name, **marks) if run is None else dict(color=INK)))
        axes.set(yscale="log", xlabel="step", title="loss along each eigenvector; dashed: predicted from the start")
        low = 1e-30 * _loss(self.curvatures, expected[0]).max()         # below is rounding
        axes.set_ylim(bottom=max(axes.get_ylim()[0], low))

    def _from_one(self, steps: int) -> np.ndarray:
        """Return distances along each eigenvector, from 1 and a state of zeros."""
        z = np.zeros((steps + 1, *self.roots.shape))
        z[0, :, 0] = 1.0
        for k in range(steps):
            z[k + 1] = np.einsum("nij,nj->ni", self.maps, z[k])
        return z[..., 0]

    def _draw_rates(self, axes: Any) -> None:
        from ..style import INK, VERMILION, looks
        positive = self.curvatures[self.curvatures > 0]
        if positive.size:
            line = np.geomspace(positive[0] / 3, positive[-1] * 3, 600)
            axes.plot(line, abs(eigenvalues(self.rule.maps(line))).max(axis=-1), color=INK, zorder=2)
            axes.set(xscale="log")
        chosen = _chosen(len(self.rates), 6)
        for k, look in looks(chosen).items():
            axes.plot(self.curvatures[k], self.rates[k], look.marker, color=look.color, markersize=9, zorder=3)
        axes.axhline(1, color=VERMILION, linestyle=":", label="above this line it diverges")
        axes.set(xlabel="curvature", title="rate: what is left of the distance after a step",
                 ylim=(0, min(2.0, 1.1 * max(1.1, self.rate))))
        axes.legend(fontsize=9, loc="lower left")


def analyse(optimizer: Any, problem: Any, *, minimum: Any = None, **options: Any) -> Theory:
    """Return the theory of an optimizer on a quadratic, before anything runs.

    Parameters
    ----------
    optimizer : str, subclass of Optimizer, callable or Optimizer
        As for `tg.lab.record`; its rule is linear in gradient and state.
    problem : Surface, str, (n, n) array_like or (n,) array_like
        A surface or its name, which counts as the quadratic that it is near its minimum; a symmetric matrix A; or the
        eigenvalues of A.
    minimum : (n,) array_like, optional
        Where a surface or a matrix has its minimum: by default the first that a surface knows, and 0 for a matrix.
    **options
        Of the optimizer, such as lr.

    Returns
    -------
    Theory
        It prints as a table; `against(trace)` sets a run beside it, `draw()` shows both.

    Raises
    ------
    ValueError
        When the rule is not linear, or the problem no quadratic; see `linear_map`.

    Notes
    -----
    Sources: Polyak, Some methods of speeding up the convergence of iteration methods, 1964; Goh, Why Momentum Really
    Works, Distill 2017.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> print(tg.lab.analyse("SGD", "ravine", lr=0.015, momentum=0.5))
    SGD (lr 0.015, momentum 0.5) on ravine, condition number 100
    <BLANKLINE>
    curvature       rate       motion   steps to 1e-6
            1   0.969009     monotone             439
          100   0.707107   oscillates              40
    <BLANKLINE>
    stable up to lr     0.03
    best lr             0.029703, all else as it is: rate 0.936254
    best lr, momentum   0.0330579, 0.669421: rate 0.818182
    >>> trace = tg.lab.record("SGD", "ravine", 400, lr=0.015, momentum=0.5)
    >>> tg.lab.analyse("SGD", "ravine", lr=0.015, momentum=0.5).against(trace).measured.round(3).tolist()
    [0.969, 0.707]
    """
    rule = LinearRule.of(optimizer, options)
    name, curvatures, basis, minimum = _quadratic(problem, minimum)
    maps = rule.maps(curvatures)
    roots = eigenvalues(maps)
    rest = None
    if basis is not None:
        force = -(curvatures * (minimum @ basis))[:, None] * rule.parts()[1]
        rest = basis @ (np.linalg.pinv(np.eye(maps.shape[-1]) - maps) @ force[..., None])[:, 0, 0]
    shown = {key: value for key, value in rule.group.items()
             if key not in ("params", "param_names") and isinstance(value, (int, float, str, tuple))}
    return Theory(rule.name, name, shown, curvatures, maps, roots, abs(roots).max(axis=-1),
                  [MOTIONS[k] for k in motion_of(roots)], rule, basis, minimum, rest)


def measure_rate(distances: np.ndarray, noise: float = 0.0) -> float:
    """Return what is left of a distance after a step, in the long run; NaN for fewer than 12 steps above the noise.

    The slope of its logarithm through its peaks, or through all points where it does not swing, over the later two
    thirds of the steps.
    """
    size = abs(distances)
    size = size[:np.argmin(np.isfinite(size))] if not np.isfinite(size).all() else size
    above = np.flatnonzero(size > noise)
    if not above.size or above[-1] < 11:
        return nan
    size = size[:above[-1] + 1]
    places = np.arange(len(size) // 3, len(size) - 1)
    peaks = places[(size[places] >= size[places - 1]) & (size[places] >= size[places + 1])]
    if len(peaks) < 3:
        peaks = places[size[places] > 0]
    return float(np.exp(np.polyfit(peaks, np.log(size[peaks]), 1)[0]))


def _quadratic(problem: Any, minimum: Any) -> tuple[str, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return the name of a problem, its curvatures, their eigenvectors as columns, and where it is lowest."""
    place = surface(problem) if isinstance(problem, (str, Surface)) else None
    if place is not None:
        if minimum is None and not len(place.minima):
            raise ValueError(f"{place.name} has no minimum; theory is of a quadratic around a point: give minimum=")
        n, default = place.dimensions, place.minima[0] if len(place.minima) else None
    else:
        matrix = finite_numbers(problem, "a problem is a surface or its name, a symmetric matrix or its eigenvalues")
        if matrix.ndim < 2:
            if minimum is not None:
                raise TypeError("minimum is for a surface or a matrix; eigenvalues alone have no coordinates")
            return "a quadratic", np.sort(matrix.reshape(-1)), None, None
        n, default = len(matrix), np.zeros(len(matrix))
        if matrix.shape != (n, n) or not np.allclose(matrix, matrix.T):
            raise ValueError(f"the matrix of a quadratic is symmetric; got shape {matrix.shape}"
                             + ", and A differs from A' (take their mean)" * (matrix.shape == (n, n)))
    minimum = finite_numbers(default if minimum is None else minimum, "minimum is a point")
    if minimum.shape != (n,):
        raise ValueError(f"minimum must have {n} coordinates, got shape {minimum.shape}")
    if place is not None:
        with np.errstate(all="ignore"):
            matrix = autograd.hessian(place.function, Tensor(minimum)).numpy()
        if not np.isfinite(matrix).all():
            raise ValueError(f"{place.name} has no curvature at {minimum.tolist()}, it has a kink there; choose "
                             "another point with minimum=, or another surface")
    curvatures, basis = np.linalg.eigh(matrix)
    curvatures[abs(curvatures) < 1e-13 * abs(curvatures).max()] = 0.0
    return place.name if place is not None else MATRIX, curvatures, basis, minimum


def describe(optimizer: str, options: dict[str, Any]) -> str:
    """Return a name with those of its options that are not 0: "SGD (lr 0.1, nesterov)"."""
    told = [name if value is True else f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in options.items() if value]
    return f"{optimizer} ({', '.join(told)})" if told else optimizer


def _loss(curvature: float, deviations: np.ndarray) -> np.ndarray:
    """Return the part of the loss along an eigenvector; for a negative curvature, how far it has fallen."""
    with np.errstate(all="ignore"):
        loss = abs(curvature) * deviations ** 2 / 2
    return np.where(loss < 1e200, loss, nan)        # matplotlib overflows when it makes room above more


def _steps(rate: float) -> float:
    return inf if rate >= 1 else 1 if rate <= 1e-6 else ceil(log(1e-6) / log(rate))


def _chosen(n: int, most: int) -> list[int]:
    """Return places among n, all or evenly spread, the first and the last with them."""
    return sorted({round(k) for k in np.linspace(0, n - 1, min(n, most))})
