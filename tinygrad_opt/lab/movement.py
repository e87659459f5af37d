"""Movement: which part of the way came from gradients, momentum, decay, clipping and the schedule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..language import letter
from ..optim.attribution import ITSELF, SOURCES
from ..optim.explain import Explanation, aligned, element, shown
from ..optim.registry import find
from ..optim.replay import Moment
from .style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, YELLOW, figure, styled
from .traces import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTSIDE = "outside"                     # of the rule: a wrapper that pulls back, the wall of a box
ROUNDING = "rounding"                   # of the parameter's dtype, where it is coarse
COLORS = dict(zip((*SOURCES, ITSELF, OUTSIDE, ROUNDING),
                  (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, "#999999", YELLOW)))
HATCHES = dict(zip(COLORS, ("", "///", "...", "xxx", "\\\\\\", "++", "---", "oo")))
SEEN = 5e-4                             # the share of the way from which rounding is told
BARS = 100                              # that can be told apart in a figure


@dataclass(frozen=True, eq=False)
class Movement:
    """What each source added to the way of some parameters, from the start of a run to its end.

    Attributes
    ----------
    title : str
        Who moved what, where.
    displacement : float
        How far the end lies from the start.
    forward : dict of str to (n,) array
        What each source added in each step along the straight line from start to end; negative is away from the end.
        All of them add up to the displacement.
    pushes : dict of str to (n,) array
        How far each source moved the parameters in each step, whatever the direction.
    """

    title: str
    displacement: float
    forward: dict[str, np.ndarray]
    pushes: dict[str, np.ndarray]

    @property
    def total(self) -> dict[str, float]:
        """How far each source brought the parameters towards the end, over all steps."""
        return {source: float(steps.sum()) for source, steps in self.forward.items()}

    @property
    def path(self) -> dict[str, float]:
        """The length of all pushes of a source, also of those that were taken back."""
        return {source: float(steps.sum()) for source, steps in self.pushes.items()}

    @property
    def percent(self) -> dict[str, float]:
        """`total` in percent of the displacement; NaN where the end is the start, or no number."""
        return {source: 100 * part / self.displacement if self.displacement else float("nan")
                for source, part in self.total.items()}

    def __str__(self) -> str:
        percent = [*self.percent.values(), 100.0 if 0 < self.displacement < np.inf else float("nan")]
        columns = [["", *self.total, "together"], ["forward", *aligned([*self.total.values(), self.displacement])],
                   ["share", *(f"{_shown(number, 1):>7} %" for number in percent)],
                   ["path", *aligned(self.path.values()), ""]]
        widths = [max(map(len, column)) for column in columns]
        return "\n".join([self.title, *("  ".join(map(str.ljust, row, widths)).rstrip() for row in zip(*columns))])

    __repr__ = __str__

    def draw(self) -> Figure:
        """Draw what each source added in each step, stacked, and their sum; many steps are summed in groups."""
        n = len(next(iter(self.forward.values())))
        edges = np.unique(np.linspace(0, n, min(n, BARS) + 1).astype(int))
        summed = {source: np.add.reduceat(steps, edges[:-1]) for source, steps in self.forward.items()}
        with styled():
            result = figure(7.6, 4.2)
            axes = result.add_subplot()
            axes.use_sticky_edges = False           # bars would end at the frame
            above, below = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
            for source, height in summed.items():
                axes.bar(edges[:-1], height, np.diff(edges), np.where(height >= 0, above, below), align="edge",
                         color=COLORS[source], hatch=HATCHES[source], edgecolor="white", linewidth=0,
                         label=f"{source}  {_shown(self.percent[source], 0)} %")
                above, below = above + np.maximum(height, 0), below + np.minimum(height, 0)
            axes.stairs(sum(summed.values()), edges, color=INK, linewidth=1.4, label="together", baseline=None)
            axes.axhline(0, color=INK, linewidth=0.8)
            many = n > BARS
            axes.set(title=self.title, xlabel=f"step, summed in {len(edges) - 1} groups" if many else "step",
                     ylabel="moved towards the end", xlim=(0, n))
            result.legend(loc="outside right center")
        return result


def who_moved(trace: Trace, name: str | None = None) -> Movement:
    """Tell how much of a run's way came from which source.

    Parameters
    ----------
    trace : Trace
    name : str, optional
        One of its parameters; by default all together, as one vector.

    Returns
    -------
    Movement
        It prints as a table and draws itself. The sources are those of `optim.attribution.attribute`; besides there
        are `rule`, for parameters whose rule works on matrices, `outside`, for what moved a parameter after the rule,
        such as Lookahead or the wall of a box, and `rounding`, where half precision loses a part of the steps.

    Raises
    ------
    TypeError, ValueError
        When it is no Trace, there is no such parameter, or no step of the run can be split.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> trace = tg.lab.record("sgd", lambda w: w.sum(), 3, [0.0], lr=1, momentum=0.5)
    >>> print(tg.lab.who_moved(trace))
    Who moved w: SGD on <lambda>, 3 steps
              forward  share      path
    gradient  3           70.6 %  3
    memory    1.25        29.4 %  1.25
    together  4.25       100.0 %
    """
    _check_trace(trace)
    names = [_named(trace, name)] if name is not None else list(trace.parameters)
    if not any(each in trace.shares for each in names):
        raise ValueError(f"the steps of {trace.optimizer} cannot be split: its rule works on whole matrices, or it has "
                         "none; who_moved is for elementwise rules and those with norms")
    ends = [(np.float64(trace.parameters[each][-1]), np.float64(trace.parameters[each][0])) for each in names]
    forward, pushes = {}, {}
    with np.errstate(all="ignore"):                 # of a run that diverged
        way = np.concatenate([(end - start).ravel() for end, start in ends])
        length = float(_lengths(way))
        unit, pieces = way / length if length else np.zeros(len(way)), [_pieces(trace, each) for each in names]
        for source in (source for source in COLORS if any(source in piece for piece in pieces)):
            steps = np.concatenate([piece.get(source, np.zeros_like(piece["gradient" if "gradient" in piece
                                                                          else ITSELF])) for piece in pieces], axis=1)
            along = steps @ unit
            if source != ROUNDING or abs(along.sum()) > SEEN * length:
                forward[source], pushes[source] = along, _lengths(steps)
    what = name if name is not None else ", ".join(names) if len(names) < 4 else f"{len(names)} parameters"
    return Movement(f"Who moved {what}: {trace.optimizer} on {trace.function}, {len(trace)} steps", length, forward,
                    pushes)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Return the norms of rows, also where their squares are too small or too large to be numbers."""
    top = abs(rows).max(axis=-1, initial=0.0)
    scale = np.where((0 < top) & (top < np.inf), top, 1.0)
    return scale * np.linalg.norm(rows / scale[..., None], axis=-1)


def _pieces(trace: Trace, name: str) -> dict[str, np.ndarray]:
    """Return the sources of each step of a parameter, flat, with what came from outside of the rule or was rounded."""
    p, eps = trace.parameters[name].astype(float), np.finfo(trace.parameters[name].dtype).eps
    update = np.diff(p, axis=0)
    shares = trace.shares.get(name, {ITSELF: update})
    left = update - sum(shares.values())
    rounding = 8 * eps * (abs(p[:-1]) + abs(p[1:]) + sum(map(abs, shares.values())))
    shares = shares | {OUTSIDE if (abs(left) > rounding).any() else ROUNDING: left}
    return {source: part.reshape(len(trace), -1) for source, part in shares.items()}


def explain(trace: Trace, step: int, name: str | None = None, index: Any = None) -> Explanation:
    """Explain a step of a record as `Optimizer.explain` does the last one.

    Parameters
    ----------
    trace : Trace
    step : int
        From 0, as everywhere in a record; negative ones count from the end.
    name : str, optional
        A parameter; by default the first.
    index : int or tuple of int, optional
        Which of its numbers; by default the one that moved most in this step.

    Returns
    -------
    Explanation
        A record keeps the last value of each name, so that a line whose name is assigned again has none.

    Raises
    ------
    TypeError, ValueError, IndexError
        When there is no such parameter, number or step, or the method has no rule.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> trace = tg.lab.record("adam", "rosenbrock", 20, lr=0.1)
    >>> line = tg.lab.explain(trace, 7, index=1).lines[3]
    >>> line.formula, line.value == trace.quantities["w"]["m_hat"][7, 1].item()
    ('m̂ ← m / (1 − β₁^t)', True)
    """
    _check_trace(trace)
    if not isinstance(step, (int, np.integer)) or not -len(trace) <= step < len(trace):
        raise IndexError(f"the record has steps 0 to {len(trace) - 1}, got {step!r}")
    if not trace.formula:
        raise ValueError(f"{trace.optimizer} has no rule to go through line by line")
    step = int(step) % len(trace)
    name = next(iter(trace.parameters)) if name is None else _named(trace, name)
    p, shape = trace.parameters[name], trace.parameters[name].shape[1:]
    place = element(index, name, p[step + 1] - p[step])
    values = {key: shown(column[step], place, shape) for key, column in trace.quantities.get(name, {}).items()
              if not re.fullmatch(r"total\d+", key)}
    if "p" not in values or np.isnan(values["p"]) and not np.isnan(p[step + 1][place]):
        raise ValueError(f"{name} was not moved in step {step}: it had no gradient, or a wrapper left the step out")
    formulas = trace.formula.splitlines()
    targets, known = [formula.split(" ← ")[0] for formula in formulas], {letter(key): values[key] for key in values}
    raw = float(trace.gradients[name][step][place])
    shares = {source: float(parts[step][place]) for source, parts in trace.shares.get(name, {}).items()}
    given = values["g"] if "g" not in targets else None
    if given is None and shares.get("gradient"):    # a line has changed g, and all that was in it alike
        given = raw * (1 + shares.get("clipping", 0.0) / shares["gradient"])
    kept = {key: shown(column[step - 1], place, shape) for key, column in trace.state.get(name, {}).items()
            if step and key != "step"}
    # A half is the rounded copy of its master, and no other number.
    before, master, now = float(p[step][place]), kept.pop("master", None), float(p[step + 1][place])
    with np.errstate(over="ignore"):
        before = master if master is not None and p.dtype.type(master) == p[step][place] else before
        now = values["p"] if p.dtype.type(values["p"]) == p[step + 1][place] else now
    options = {key: value for key, value in values.items()
               if trace.quantities[name][key].ndim == 1 and letter(key) not in targets}
    lines = [Moment(target, formula, None if target in targets[k + 1:] else known.get(target))
             for k, (target, formula) in enumerate(zip(targets, formulas))]
    return Explanation(f"{trace.optimizer} on {trace.function}", name, shape, place, step, before, values["p"], now,
                       raw, given, "grad_transforms", kept, options, lines, shares)


def _shown(percent: float, digits: int) -> str:
    return "–" if np.isnan(percent) else f"{percent:.{digits}f}"


def _check_trace(trace: Any) -> None:
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be what tg.lab.record returns, got {type(trace).__name__}")


def _named(trace: Trace, name: Any) -> str:
    return name if name in trace.parameters else find(name, trace.parameters, "parameter", "trace.parameters")
