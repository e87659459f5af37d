"""Drawings of a TrainingRecord: histograms as strips over time, and curves, a look for each layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...optim.registry import find
from ..movement import COLORS, HATCHES
from ..style import INK, VERMILION, Look, figure, looks, styled
from .training_record import RATIO, TrainingRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FAINTEST = -3.5                                 # log10 of the share of a bin that is darkest


def draw_training(record: TrainingRecord, *panels: str) -> Figure:
    """Draw the record of a monitor.

    Parameters
    ----------
    record : TrainingRecord or Monitor
    *panels : str
        "activations" and "gradients": histograms as strips over time, on a logarithmic scale, dark where few are;
        "loss", "norms", "mean", "std", "dead", "ratios", "sharpness", "sources": curves. All that were measured by
        default. A weight has the look of its layer; biases are left out.

    Returns
    -------
    Figure

    Raises
    ------
    TypeError, ValueError
        When it is no record, no step was measured, or there is no such panel or nothing to draw in it.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Linear(2, 2)
    >>> optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    >>> x, y = tg.data.moons(100, generator=0)
    >>> with tg.lab.Monitor(model, optimizer, every=1) as monitor:
    ...     for _ in range(20):
    ...         optimizer.zero_grad()
    ...         monitor.loss(tg.cross_entropy(model(x), y)).backward()
    ...         optimizer.step()
    >>> [axes.get_title("left") for axes in tg.lab.draw_training(monitor.record, "loss", "ratios").axes]
    ['loss', 'log10 of update : weight']
    """
    record = getattr(record, "record", record)
    if not isinstance(record, TrainingRecord):
        raise TypeError(f"record must be a Monitor or its record, got {type(record).__name__}")
    if not len(record):
        raise ValueError(f"{record!r}: nothing to draw; take steps inside `with Monitor(...)` first, or lower every")
    measured = _measured(record)
    names = [find(name, PANELS, "panel", "tg.lab.draw_training") for name in panels] or measured
    for name in names:
        if name not in measured:
            raise ValueError(f"{name} was not measured; Monitor(sources=True), Monitor(sharpness=(loss, x, y)) and "
                             f"monitor.loss(value) ask for more than {', '.join(measured)}")
    strips, curves = ([name for name in names if (name in STRIPS) is kind] for kind in (True, False))
    rows, columns = math.ceil(len(curves) / 2), min(len(curves), 2)
    tall = max([len(STRIPS[name](record)) for name in strips], default=0)
    widths = [3.1] * len(strips) + [3.3 * columns + 0.6 * (columns == 1)] * bool(curves)
    with styled():
        picture = figure(max(sum(widths), 5), max(0.95 * tall, 2.15 * rows, 2.4) + 0.9)
        picture.suptitle(f"{record.model} under {record.optimizer}, steps {record.steps[0]} to {record.steps[-1]}",
                         fontsize=12)
        parts = np.atleast_1d(picture.subfigures(1, len(widths), width_ratios=widths))
        for name, part in zip(strips, parts):
            _draw_strips(part, name, record)
        if curves:
            places = np.atleast_1d(parts[-1].subplots(rows, columns)).flat
            for name, axes in zip(curves, places):
                CURVES[name](axes, record)
                axes.set_xlim(*_span(record))
                axes.set_xlabel("step")
            for axes in places:
                axes.set_axis_off()
            if set(curves) - ALONE:
                _add_legend(parts[-1], record)
    return picture


def _measured(record: TrainingRecord) -> list[str]:
    """Return the panels that there is something to draw in."""
    something = {"activations": record.activations, "gradients": _weights(record), "sources": record.sources,
                 "loss": not np.isnan(record.loss).all(), "sharpness": not np.isnan(record.sharpness).all(),
                 "ratios": _weights(record), **dict.fromkeys(("mean", "std", "dead"), record.activations)}
    return [name for name in PANELS if something.get(name, True)]


def _add_legend(part: Any, record: TrainingRecord) -> None:
    from matplotlib.lines import Line2D
    lines = [Line2D([], [], markersize=4, **look._asdict()) for look in _looks(record).values()]
    part.legend(lines, [f"{layer} {kind}".strip() for layer, kind in record.layers.items()],
                loc="outside lower center", ncols=min(len(lines), 4), fontsize=9)


def _looks(record: TrainingRecord) -> dict[str, Look]:
    """Return colour and marker of each layer that has weights; what follows it has the same, dotted."""
    found, own = {}, looks([*_weights(record), ""])
    now = ""                                    # of what stands before all weights
    for layer in record.layers:
        now = layer if layer in own else now
        found[layer] = own[now]._replace(linestyle="-" if layer == now else (0, (1.5, 1.5)))
    return found


def _weights(record: TrainingRecord) -> dict[str, str]:
    """Return the weight of each layer that has one, by layer."""
    return {layer: name for layer in record.layers if (name := record.weight_of(layer))}


def _span(record: TrainingRecord) -> tuple[float, float]:
    first, last = record.steps[0], record.steps[-1]
    return (first, last) if first < last else (first - 0.5, first + 0.5)


# ---- strips -------------------------------------------------------------------------------------------------


def _of_outputs(record: TrainingRecord) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return what each strip shows: its name, the counts, and the edges of the bins."""
    return [(f"{layer} {record.layers[layer]}".strip(), part.histogram, part.edges)
            for layer, part in record.activations.items()]


def _of_gradients(record: TrainingRecord) -> list[tuple[str, np.ndarray, np.ndarray]]:
    return [(name, record.gradients[name].histogram, np.log10(record.gradients[name].edges))
            for name in _weights(record).values()]


def _draw_strips(part: Any, name: str, record: TrainingRecord) -> None:
    strips = STRIPS[name](record)
    part.suptitle({"activations": "outputs", "gradients": "log10 of |gradient|"}[name], fontsize=11.5)
    steps = record.steps
    middles = (steps[1:] + steps[:-1]) / 2
    borders = np.concatenate([_span(record)[:1], middles, _span(record)[1:]])
    for (label, counts, edges), axes in zip(strips, np.atleast_1d(part.subplots(len(strips), 1, sharex=True))):
        used = np.flatnonzero(counts.any(axis=0))
        low, high = (used[0], used[-1] + 1) if len(used) else (0, len(edges) - 1)
        shares = counts[:, low:high] / np.maximum(counts.sum(axis=1, keepdims=True), 1)     # a batch may be smaller
        shown = np.ma.log10(np.ma.masked_equal(shares.T, 0))
        axes.pcolormesh(borders, edges[low:high + 1], shown, vmin=FAINTEST, vmax=0, rasterized=True)
        if not len(used):
            axes.text(0.5, 0.5, "all zero", transform=axes.transAxes, ha="center", va="center")
        axes.set_title(label, fontsize=9.5, pad=3)
        axes.grid(False)
        axes.locator_params(axis="y", nbins=4)
    axes.set_xlabel("step")


# ---- curves -------------------------------------------------------------------------------------------------


def _plot(axes: Axes, record: TrainingRecord, values: np.ndarray, look: Look, **options: Any) -> None:
    apart = max(1, len(record) // 6)            # markers of several lines do not stand over each other
    axes.plot(record.steps, values, **{**look._asdict(), "markersize": 4, **options,
                                       "markevery": (len(axes.lines) * apart // 5 % apart, apart)})


def _stretch(axes: Axes, *curves: np.ndarray) -> None:
    """Make the scale logarithmic where curves are positive and span much."""
    heights = np.concatenate(curves)
    heights = heights[np.isfinite(heights)]
    if len(heights) and heights.min() > 0 and heights.max() > 50 * heights.min():
        axes.set_yscale("log")


def _draw_loss(axes: Axes, record: TrainingRecord) -> None:
    _plot(axes, record, record.loss, Look(INK, "-", "o" if len(record) < 12 else ""))
    _stretch(axes, record.loss)
    axes.set_title("loss")


def _of_layers(quantity: str, title: str) -> Callable[[Axes, TrainingRecord], None]:
    def draw(axes: Axes, record: TrainingRecord) -> None:
        for layer, part in record.activations.items():
            if quantity != "dead" or record.weight_of(layer) is None or part.dead.any():
                _plot(axes, record, getattr(part, quantity), _looks(record)[layer])
        axes.set_title(title)
        if quantity == "std":
            _stretch(axes, *(part.std for part in record.activations.values()))
        if quantity == "dead":
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return draw


def _draw_ratios(axes: Axes, record: TrainingRecord) -> None:
    with np.errstate(divide="ignore"):
        for layer, name in _weights(record).items():
            _plot(axes, record, np.log10(record.ratios[name]), _looks(record)[layer])
    axes.axhline(math.log10(RATIO), color=INK, linestyle=":", linewidth=1.2)
    axes.set_title("log10 of update : weight")


def _draw_norms(axes: Axes, record: TrainingRecord) -> None:
    for layer, name in _weights(record).items():
        _plot(axes, record, record.gradients[name].norm, _looks(record)[layer])
    _plot(axes, record, record.norms, Look(INK, "-", "o"), linewidth=2.4, alpha=0.45, marker=None, label="all")
    if (record.norms > 0).any():
        axes.set_yscale("log")
    axes.legend(loc="best", fontsize=9)
    axes.set_title("norms of gradients")


def _draw_sharpness(axes: Axes, record: TrainingRecord) -> None:
    known = ~np.isnan(record.sharpness)
    axes.plot(record.steps[known], record.sharpness[known], color=INK, marker="o", markersize=3, label="sharpness")
    limit = np.where(np.isfinite(record.limit), record.limit, np.nan)
    axes.plot(record.steps, limit, color=VERMILION, linestyle="--", label="2 / lr, of plain descent")
    _stretch(axes, record.sharpness, limit)
    axes.legend(loc="best", fontsize=9)
    axes.set_title("sharpness")


def _draw_sources(axes: Axes, record: TrainingRecord) -> None:
    moved = {source: sum(parts.get(source, 0.0) for parts in record.sources.values()) for source in COLORS}
    moved = {source: sizes for source, sizes in moved.items() if np.any(sizes)}
    total = np.maximum(sum(moved.values()), np.finfo(float).tiny)
    axes.stackplot(record.steps, *(sizes / total for sizes in moved.values()), labels=list(moved),
                   colors=[COLORS[source] for source in moved], hatch=[HATCHES[source] for source in moved],
                   edgecolor="white", linewidth=0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(loc="upper right", fontsize=8, frameon=True)
    axes.set_title("what moved the parameters")


STRIPS = {"activations": _of_outputs, "gradients": _of_gradients}
CURVES = {"loss": _draw_loss, "norms": _draw_norms, "mean": _of_layers("mean", "mean of outputs"),
          "std": _of_layers("std", "std of outputs"), "dead": _of_layers("dead", "dead units"), "ratios": _draw_ratios,
          "sharpness": _draw_sharpness, "sources": _draw_sources}
ALONE = {"loss", "sharpness", "sources"}         # curves of the whole model
PANELS = (*STRIPS, *CURVES)
