"""The decision region of a classifier in the plane: which class each point is given, and how surely."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import ops
from ...nn import Module
from ...tensor import Tensor, no_grad
from ..arguments import whole
from ..style import INK, figure, looks, styled
from .monitors import evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DecisionRegion(NamedTuple):
    """What a classifier makes of a grid of points."""

    horizontal: np.ndarray          # (k,)
    vertical: np.ndarray            # (k,)
    shares: np.ndarray              # (k, k, classes): the probability of each, a row for each vertical place

    @property
    def chosen(self) -> np.ndarray:
        """The class that is given to each point, (k, k)."""
        return self.shares.argmax(axis=2)

    @property
    def sureness(self) -> np.ndarray:
        """The probability of the class that is chosen, (k, k)."""
        return self.shares.max(axis=2)


def decision_region(model: Module, x: Any, points: int = 150) -> DecisionRegion:
    """Return which class a model gives to each point of a grid around some samples, and how surely.

    Parameters
    ----------
    model : Module
        From (n, 2) points to (n, classes) scores before softmax, or to one score a point before a sigmoid. It is
        asked as in use, and afterwards is in the mode in which it was.
    x : Tensor or array, (n, 2)
        The samples; the grid reaches a little further.
    points : int, default 150
        Along each side, at least 2.

    Raises
    ------
    TypeError, ValueError
        When the samples are not in the plane, or the model does not give one line of scores for each.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x, y = tg.data.moons(50, generator=0)
    >>> region = tg.lab.decision_region(tg.nn.Linear(2, 2), x, points=20)
    >>> region.chosen.shape, bool((region.sureness >= 0.5).all())
    ((20, 20), True)
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    x = x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise ValueError(f"x must be samples in the plane, of shape (n, 2); got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("x holds numbers that are not finite; tg.isfinite(x) tells which")
    points = whole("points", points, 2)
    low, high = x.min(axis=0), x.max(axis=0)
    margin = 0.15 * np.maximum(high - low, 1e-3)
    horizontal, vertical = (np.linspace(a - m, b + m, points) for a, b, m in zip(low, high, margin))
    places = np.stack(np.meshgrid(horizontal, vertical), axis=-1).reshape(-1, 2)
    return DecisionRegion(horizontal, vertical, _shares(model, places).reshape(points, points, -1))


def _shares(model: Module, places: np.ndarray) -> np.ndarray:
    """Return the probability of each class at (n, 2) places, (n, classes)."""
    dtype = next((p.dtype for p in model.parameters()), "float32")
    with evaluating(model), no_grad():
        scores = model(Tensor(places.astype(dtype)))
        if scores.shape in ((len(places),), (len(places), 1)):
            one = ops.sigmoid(scores).numpy().reshape(-1)
            return np.stack([1 - one, one], axis=1)
        if scores.ndim != 2 or len(scores) != len(places):
            raise ValueError(f"the model gives scores of shape {scores.shape} for {len(places)} points; it must be "
                             f"({len(places)}, classes)")
        return ops.softmax(scores, -1).numpy()


def draw_decision(model: Module, x: Any, y: Any, points: int = 150) -> Figure:
    """Draw the decision region of a model in the plane under its samples: deeper where it is more sure.

    Parameters
    ----------
    model, x, points
        As for `decision_region`.
    y : Tensor or array of int, (n,)
        The class of each sample, from 0.

    Returns
    -------
    Figure
        A frame of an animation, if drawn every few steps.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x, y = tg.data.moons(50, generator=0)
    >>> len(tg.lab.draw_decision(tg.nn.Linear(2, 2), x, y).axes)
    1
    """
    region = decision_region(model, x, points)
    x, y = (part.detach().numpy() if isinstance(part, Tensor) else np.asarray(part) for part in (x, y))
    if y.shape != (len(x),) or y.dtype.kind not in "iub" or y.min() < 0:
        raise ValueError(f"y must hold a class for each of the {len(x)} samples, whole numbers from 0; got {y.dtype} "
                         f"of shape {y.shape}")
    given = region.shares.shape[2]
    if y.max() >= given:
        raise ValueError(f"y holds class {y.max()}, the model tells {given} classes apart, from 0")
    styles = list(looks(range(given)).values())
    with styled():
        from matplotlib.colors import to_rgb
        colours = np.array([to_rgb(look.color) for look in styles])
        # White where all classes are as likely, and never so deep that a sample of that class is lost on it.
        depth = 0.55 * (region.sureness - 1 / given).clip(0) / (1 - 1 / given)
        image = 1 + depth[..., None] * (colours[region.chosen] - 1)
        picture = figure(5.4, 4.6)
        axes = picture.add_subplot()
        axes.imshow(image, origin="lower", aspect="auto", interpolation="bilinear",
                    extent=(*region.horizontal[[0, -1]], *region.vertical[[0, -1]]))
        for k in range(given):
            lead = region.shares[..., k] - np.delete(region.shares, k, axis=2).max(axis=2)
            if lead.min() < 0 < lead.max():
                axes.contour(region.horizontal, region.vertical, lead, [0], colors=INK, linewidths=1)
            axes.scatter(*x[y == k].T, s=26, color=styles[k].color, marker=styles[k].marker, edgecolors="white",
                         linewidths=0.6, label=f"class {k}", zorder=3)
        axes.grid(False)
        axes.legend(loc="upper right", frameon=True, fontsize=9)
        right = (_shares(model, x).argmax(axis=1) == y).mean()
        axes.set_title(f"{right:.1%} of the samples on their side", fontsize=11)
    return picture
