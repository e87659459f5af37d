"""What a search has found: its trials, as a table and as pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lab.style import BLUE, INK, VERMILION, figure, styled
from .desk import quiet
from .spaces import Space, is_log, names_in
from .trials import TrialRecord, show_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(eq=False)
class Search:
    """What a search has found; printed as a table.

    Attributes
    ----------
    name : str
    direction : {"minimize", "maximize"}
    space : dict
    trials : list of TrialRecord
        Those that came to an end, in order.
    gradients : int
        What all have spent, also those that were cut off by an error.
    """

    name: str
    direction: str
    space: Space
    trials: list[TrialRecord]
    gradients: int
    _study: Any = field(repr=False)

    def ranking(self) -> list[TrialRecord]:
        """Return the trials that were completed, the best first."""
        sign = 1 if self.direction == "minimize" else -1
        return sorted((t for t in self.trials if t.state == "complete"), key=lambda t: sign * t.value)

    @property
    def best_trial(self) -> TrialRecord:
        """The trial of the best value, the first of equals."""
        ranking = self.ranking()
        if not ranking:
            raise ValueError("no trial was completed, so that none is the best; give a larger budget, or prune=False")
        return ranking[0]

    @property
    def best(self) -> dict[str, Any]:
        """The hyper-parameters of the best trial."""
        return dict(self.best_trial.values)

    @property
    def value(self) -> float:
        """The value of the best trial."""
        return self.best_trial.value

    def importances(self) -> dict[str, float]:
        """Return what share of being among the best each hyper-parameter decides, the largest first; the sum is 1.

        PED-ANOVA (Watanabe, Bansal & Hutter, IJCAI 2023, arXiv 2304.10255).

        Raises
        ------
        ValueError
            When fewer than two trials were completed.
        """
        if len(self.ranking()) < 2:
            raise ValueError("importances compare trials, and need two that were completed")
        with quiet() as optuna:
            shares = optuna.importance.get_param_importances(
                self._study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
        sums = dict.fromkeys(names_in(self.space), 0.0)
        for path, share in shares.items():
            sums[path.rpartition("/")[2]] += float(share)
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def table(self, count: int = 10) -> str:
        """Return the best trials as aligned text."""
        best, names = self.ranking()[:count], names_in(self.space)
        rows = [["", "trial", "value", *names]]
        for place, trial in enumerate(best, start=1):
            rows.append([str(place), str(trial.number), f"{trial.value:.4g}",
                         *(show_value(trial.values[name]) if name in trial.values else "" for name in names)])
        return "\n".join([self._heading(), *align(rows)])

    def _heading(self) -> str:
        pruned = sum(trial.state == "pruned" for trial in self.trials)
        notes = f", {pruned} pruned" * bool(pruned) + f", {self.gradients:,} gradients" * bool(self.gradients)
        return (f"{self.name}: {len(self.trials)} trials{notes}; "
                f"the {'lowest' if self.direction == 'minimize' else 'highest'} first")

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__

    def draw(self) -> Figure:
        """Draw the values as they were found, with the best so far, and over each hyper-parameter."""
        names = names_in(self.space)
        panels = len(names) + 1
        columns = min(3, panels)
        with styled():
            fig = figure(1 + 3.4 * columns, 0.6 + 2.9 * math.ceil(panels / columns))
            grid = fig.subplots(math.ceil(panels / columns), columns, sharey=True, squeeze=False)
            places = list(grid.flat)
            self._draw_values(places[0], [trial.number for trial in self.trials])
            self._draw_best(places[0])
            for axes, name in zip(places[1:], names):
                shown = [trial for trial in self.trials if name in trial.values]
                values = [trial.values[name] for trial in shown]
                if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
                    values = [show_value(value) for value in values]
                self._draw_values(axes, values, shown)
                axes.set_title(name)
                if is_log(self.space, name):
                    _by_powers(axes, values)
            for axes in places[panels:]:
                axes.remove()
            for row in grid:
                row[0].set_ylabel("value")
            self._scale(places[0])
            fig.legend(*places[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return fig

    def _draw_values(self, axes: Any, x: list[Any], trials: list[TrialRecord] | None = None) -> None:
        """Draw the value of each trial over something: a disc where it was completed, a ring where it was pruned."""
        trials = self.trials if trials is None else trials
        for state, label, face in (("complete", "completed", BLUE), ("pruned", "pruned, as reported last", "none")):
            chosen = [k for k, trial in enumerate(trials) if trial.state == state and math.isfinite(trial.value)]
            if chosen:
                axes.scatter([x[k] for k in chosen], [trials[k].value for k in chosen], s=22, facecolors=face,
                             edgecolors=BLUE, linewidths=1, alpha=0.75, label=label)
        best = self.ranking()[:1]
        if best and best[0] in trials:
            axes.scatter([x[trials.index(best[0])]], [best[0].value], s=70, marker="*", color=VERMILION, zorder=3,
                         label="the best")

    def _draw_best(self, axes: Any) -> None:
        done = [trial for trial in self.trials if trial.state == "complete"]
        gather = np.minimum if self.direction == "minimize" else np.maximum
        best = gather.accumulate([trial.value for trial in done]) if done else []
        axes.step([trial.number for trial in done], best, where="post", color=INK, linewidth=1.2, label="best so far")
        axes.set_title("trial")

    def _scale(self, axes: Any) -> None:
        """Choose an axis on which good trials can be told apart, whatever the worst ones came to."""
        finite = np.array([trial.value for trial in self.trials if math.isfinite(trial.value)])
        if len(finite) and finite.min() > 0 and finite.max() > 20 * finite.min():
            axes.set_yscale("log")
            if self.direction == "minimize":
                axes.set_ylim(top=2 * min(finite.max(), 1e3 * np.median(finite)))


def _by_powers(axes: Any, values: list[float]) -> None:
    """Give an axis powers, and marks between them where it spans but a few."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter("")
    if values and max(values) < 100 * min(values):
        axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
        axes.xaxis.set_major_formatter("{x:g}")


def align(rows: list[list[str]], left: tuple[int, ...] = ()) -> list[str]:
    """Return rows of cells as lines, every column as wide as its widest cell and set to the right, some to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) if k in left else cell.rjust(width)
                      for k, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]
