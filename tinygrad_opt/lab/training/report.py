"""One picture of a training run: its curves, its confusions, and what it got wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN, TEST, INK = "#0072B2", "#D55E00", "#333333"             # told apart by colour-blind readers too


def draw_run(history: Sequence[dict[str, Any]], labels: Any, predicted: Any, images: Any, title: str) -> Figure:
    """Draw the curves of loss and accuracy, the confusion matrix, and the images that were misread.

    Parameters
    ----------
    history : sequence of dict
        One an epoch, with `epoch`, `loss`, `accuracy`, `test_loss`, `test_accuracy`.
    labels, predicted : (n,) arrays of int
        What the test images show, and what was read.
    images : (n, side * side) array
        The test images, 0 for paper and 1 for ink.
    title : str

    Returns
    -------
    Figure
        Of matplotlib; `savefig` writes it.
    """
    from matplotlib.figure import Figure  # and not pyplot, which would choose a window system
    figure = Figure(figsize=(13, 6.6), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=14, color=INK)
    grid = figure.add_gridspec(2, 3, width_ratios=[1.1, 1.25, 1.1])
    epochs = [entry["epoch"] for entry in history]
    _curves(figure.add_subplot(grid[0, 0]), epochs, history, "loss", "cross-entropy")
    accuracy = figure.add_subplot(grid[1, 0])
    _curves(accuracy, epochs, history, "accuracy", "accuracy")
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    accuracy.set_xlabel("epoch")
    _confusion(figure.add_subplot(grid[:, 1]), labels, predicted)
    _misread(figure, grid[:, 2], images, labels, predicted)
    return figure


def _curves(axes: Any, epochs: list[int], history: Sequence[dict[str, Any]], key: str, name: str) -> None:
    marker = "o" if len(epochs) < 3 else None
    for prefix, colour, style, label in (("", TRAIN, "-", "training"), ("test_", TEST, "--", "test")):
        axes.plot(epochs, [entry[prefix + key] for entry in history], style, color=colour, label=label, marker=marker,
                  linewidth=1.8)
    axes.set_ylabel(name)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if key == "loss":
        axes.set_yscale("log")


def _confusion(axes: Any, labels: Any, predicted: Any) -> None:
    classes = int(max(labels.max(), predicted.max())) + 1
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    # The diagonal is paler than the errors, which are what one looks for.
    errors = counts - np.diag(np.diag(counts))
    axes.imshow(errors, cmap="Oranges", vmin=0, vmax=max(3, errors.max() * 1.3))
    for row, column in np.argwhere(counts):
        right = row == column
        axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=10,
                  color="#888888" if right else INK, fontweight="normal" if right else "bold")
    axes.set(xticks=range(classes), yticks=range(classes), xlabel="read as", ylabel="the digit",
             title="what was read as what")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _misread(figure: Any, place: Any, images: Any, labels: Any, predicted: Any) -> None:
    wrong = np.flatnonzero(labels != predicted)
    part = figure.add_subfigure(place)
    part.suptitle(f"{len(wrong)} of {len(labels)} misread" if len(wrong) else "every digit was read rightly",
                  fontsize=12)
    if not len(wrong):
        return
    side, columns, rows = int(round(images.shape[1] ** 0.5)), 3, 4
    for axes, k in zip(part.subplots(rows, columns).flat, [*wrong, *[None] * (rows * columns)]):
        axes.axis("off")
        if k is not None:
            axes.imshow(images[k].reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(f"{labels[k]} read as {predicted[k]}", fontsize=9, color=TEST, pad=3)
