"""TrainingRecord: what a Monitor has measured inside a model, in plain arrays, and what is off in it, in words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...io import load, save
from ..traces import _jsonable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEAD, RATIO, APART, DEEP = 0.5, 1e-3, 30, 1e3   # beyond these the table has a word to say


@dataclass(eq=False)
class Activations:
    """The outputs of a layer in n steps.

    Attributes
    ----------
    mean, std : (n,) arrays
        Over all units and the whole batch.
    dead : (n,) array
        The share of units that are 0 for the whole batch; under a ReLU no gradient reaches them.
    histogram : (n, bins) array of int
        How many outputs lie in each bin, the lower edge included.
    edges : (bins + 1,) array
        Of the bins, the same for all steps.
    """

    mean: np.ndarray
    std: np.ndarray
    dead: np.ndarray
    histogram: np.ndarray
    edges: np.ndarray


@dataclass(eq=False)
class Gradients:
    """The gradient of a parameter in n steps, as it came from backward.

    Attributes
    ----------
    norm : (n,) array
        The root of the sum of squares; NaN also in a step that left no gradient.
    zeros : (n,) array
        The share of its numbers that are 0; NaN where there is no gradient.
    histogram : (n, bins) array of int
        How many sizes, without sign, lie in each bin; the outer bins hold what lies beyond, the last NaN too.
    edges : (bins + 1,) array
        Powers of two.
    """

    norm: np.ndarray
    zeros: np.ndarray
    histogram: np.ndarray
    edges: np.ndarray


@dataclass(eq=False)
class TrainingRecord:
    """What a Monitor has measured, in n steps of a training run.

    Attributes
    ----------
    model, optimizer : str
    layers, sizes : dict of str
        The kind of each layer, and the count of numbers of each parameter, by name.
    steps : (n,) array of int
        Which steps were measured, from 0.
    loss, lr : (n,) arrays
        NaN where they were not told, or there is none.
    norms : (n,) array
        Of all gradients together.
    activations : dict of str to Activations
    gradients : dict of str to Gradients
    ratios : dict of str to (n,) arrays
        How far the step moved a parameter for its size, the norm of the update over that of the parameter before;
        about 1e-3 where training goes well (Karpathy et al., CS231n). NaN for a parameter of zeros.
    sharpness : (n,) array
        The largest eigenvalue of the Hessian, before the step; NaN where it was not measured.
    sources : dict of str to dict of str to (n,) arrays
        How far each source moved a parameter: the sum of its sizes over all numbers of the parameter.
    """

    model: str
    optimizer: str
    layers: dict[str, str]
    sizes: dict[str, int]
    steps: np.ndarray
    loss: np.ndarray
    lr: np.ndarray
    norms: np.ndarray
    activations: dict[str, Activations]
    gradients: dict[str, Gradients]
    ratios: dict[str, np.ndarray]
    sharpness: np.ndarray
    sources: dict[str, dict[str, np.ndarray]]

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def limit(self) -> np.ndarray:
        """The sharpness 2 / lr above which plain gradient descent diverges on a quadratic; (n,).

        Momentum moves it to (2 + 2 momentum) / lr (Cohen et al., ICLR 2021, arXiv 2103.00065).
        """
        with np.errstate(divide="ignore"):
            return 2 / self.lr

    def weight_of(self, layer: str) -> str | None:
        """Return the name of a layer's largest parameter, None where it has none."""
        own = [name for name in self.sizes if name.rpartition(".")[0] == layer]
        return max(own, key=self.sizes.__getitem__, default=None)

    def rms(self, name: str) -> np.ndarray:
        """Return the root mean square of a parameter's gradient; (n,)."""
        return self.gradients[name].norm / math.sqrt(self.sizes[name])

    def findings(self, at: int = -1) -> dict[str, list[str]]:
        """Return what is off in each layer, in words; layers without fault are left out.

        Said of a layer of which more than half of the units are dead; whose weight moves 30 times more or less than
        1e-3 of itself; whose gradient is, root mean square, 1000 times smaller or larger than that of the last weight,
        or missing, as that of a frozen layer is.

        Parameters
        ----------
        at : int, default -1
            Which of the measured steps.

        Raises
        ------
        IndexError
            When there are not so many.
        """
        if not isinstance(at, (int, np.integer)) or not -len(self) <= at < len(self):
            raise IndexError(f"at must be the place of one of the {len(self)} measured steps, from 0, or from -1 "
                             f"backwards; got {at}")
        weights = {layer: name for layer in self.layers if (name := self.weight_of(layer))}
        found: dict[str, list[str]] = {layer: [] for layer in self.layers}
        with np.errstate(all="ignore"):
            for layer, output in self.activations.items():
                if output.dead[at] > DEAD:
                    found[layer].append(f"{output.dead[at]:.0%} of the units are dead")
            given = [name for name in weights.values() if not np.isnan(self.gradients[name].zeros[at])]
            for layer, name in weights.items() if given else ():
                if name in given:
                    last = given[-1]
                    found[layer] += _remarks(self.rms(name)[at], self.rms(last)[at], last, self.ratios[name][at])
                else:
                    found[layer].append("has no gradient")
        return {layer: words for layer, words in found.items() if words}

    def table(self, at: int = -1) -> str:
        """Return a step as text: a line for each layer, with words where something is off.

        Beside the outputs stand, of the layer's weight, the root mean square of the gradient, and how far it moved.

        Parameters
        ----------
        at : int, default -1
            Which of the measured steps.

        Raises
        ------
        IndexError
            When there are not so many.
        """
        if not len(self):
            return f"{self.model} under {self.optimizer}: no step was measured yet"
        rows, findings = [("layer", "mean", "std", "dead", "gradient", "update/weight", "")], self.findings(at)
        for layer, kind in self.layers.items():
            output, name = self.activations[layer], self.weight_of(layer)
            rows.append((f"{layer} {kind}".strip(), f"{output.mean[at]:.3g}", f"{output.std[at]:.3g}",
                         f"{output.dead[at]:.0%}", self._rms(name, at),
                         f"{self.ratios[name][at]:.1e}" if name else "", "; ".join(findings.get(layer, ()))))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [f"{self.model} under {self.optimizer}, step {self.steps[at]}: loss {self.loss[at]:.4g}, "
                 f"lr {self.lr[at]:.3g}, norm of all gradients {self.norms[at]:.3g}"]
        lines += ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:]), row[-1]]).rstrip()
                  for row in rows]
        measured = np.flatnonzero(~np.isnan(self.sharpness[:len(self) if at == -1 else at + 1]))
        if len(measured):
            k = measured[-1]
            lines.append(f"sharpness at step {self.steps[k]}: {self.sharpness[k]:.4g}, 2/lr is {self.limit[k]:.4g}")
        return "\n".join(lines)

    def _rms(self, name: str | None, at: int) -> str:
        """Return a root mean square for the table, empty where there is no gradient."""
        return "" if name is None or np.isnan(self.gradients[name].zeros[at]) else f"{self.rms(name)[at]:.1e}"

    def draw(self, *panels: str) -> Figure:
        """Draw the record; `tg.lab.draw_training` tells about the panels."""
        from .strips import draw_training
        return draw_training(self, *panels)

    def to_json(self, path: str | PathLike | None = None) -> str:
        """Return the record as JSON, NaN and infinities as null; write it too where a path is given."""
        text = json.dumps(_jsonable(asdict(self)), allow_nan=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def save(self, path: str | PathLike) -> Path:
        """Write a file that `TrainingRecord.load` reads back to the bit, and return its path."""
        save(asdict(self), path)
        return Path(path)

    @classmethod
    def load(cls, path: str | PathLike) -> TrainingRecord:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            When the file is damaged, or no such record.
        """
        tree = load(path)
        if not isinstance(tree, dict) or tree.keys() != {part.name for part in fields(cls)}:
            raise ValueError(f"{path}: a checkpoint, but not the record of a monitor; write one with record.save()")
        for key, kind in (("activations", Activations), ("gradients", Gradients)):
            tree[key] = {name: kind(**parts) for name, parts in tree[key].items()}
        return cls(**tree)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        span = f" from {self.steps[0]} to {self.steps[-1]}" if len(self) else ""
        return f"<record of {self.model} under {self.optimizer}: {len(self)} steps{span}, {len(self.layers)} layers>"


def _remarks(own: float, last: float, name: str, ratio: float) -> Iterator[str]:
    """Yield what is to be said of a weight: of its gradient beside the last layer's, of its update beside itself."""
    if not math.isfinite(own):
        yield "the gradient is not finite"
    elif own == 0:
        yield "the gradient is zero"
    elif own < last / DEEP:
        yield f"the gradient vanishes: {last / own:,.0f} times smaller than that of {name}"
    elif own > last * DEEP:
        yield f"the gradient explodes: {own / last:,.0f} times that of {name}"
    if ratio > RATIO * APART:
        yield f"moves fast: {ratio:.1%} of itself in a step, about {RATIO:.1%} is usual"
    elif 0 < ratio < RATIO / APART:
        yield f"hardly moves: {ratio:.1e} of itself in a step, about {RATIO:g} is usual"
