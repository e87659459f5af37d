"""Rate finding: `tinygrad-opt lr-find` is `tg.lab.lr_find` for the digits, with the settings of `train digits`."""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from .charts import curve
from .parsing import PICTURES, Parser, add_out, busy, draw, positive, whole, write
from .training import add_settings, written_settings

COLUMNS = 72


def add_options(parser: Parser) -> None:
    """Make a parser that of `lr-find`."""
    parser.set_defaults(run=find_rate)
    add_settings(parser, without=("lr",))
    parser.add_argument("--smallest", type=positive, default=1e-7, metavar="LR", help="the first rate")
    parser.add_argument("--largest", type=positive, default=10.0, metavar="LR", help="the last rate")
    parser.add_argument("--steps", type=whole(3), default=100, metavar="N", help="how many rates, by equal ratios")
    parser.add_argument("--smoothing", type=float, default=0.8, metavar="SHARE",
                        help="how much of the weight of a loss the next one has in the smoothed curve, in [0, 1)")
    add_out(parser, WRITERS, ".png .svg .pdf a picture, .csv the losses")


def find_rate(given: argparse.Namespace) -> int:
    """Print the curve of the range test, what it suggests, and the command that trains with it."""
    from .. import lab
    from ..data import DataLoader, digits
    from ..nn.functional import cross_entropy
    from ..train import Run, Settings, optimizers
    with given.parser.refusing():
        run = Run(Settings(**written_settings(given)), *digits())
        batches = DataLoader(run.train, run.settings.batch_size, shuffle=True, generator=run.order)
        with busy(f"trying {given.steps} rates for {run.settings.optimizer} on the digits ..."):
            found = lab.lr_find(run.model, batches, cross_entropy, optimizers()[run.settings.optimizer],
                                given.smallest, given.largest, given.steps, smoothing=given.smoothing)
    print("\n".join([*_chart(found), "", *_words(found, given)]))
    write(given, found)
    return 0


def _chart(found: Any) -> list[str]:
    """Return the smoothed losses over the rates, with the suggested rate below."""
    low, high = found.smoothed.min(), found.smoothed.max()
    ends = f"{found.rates[0]:.2g}", f"{found.rates[-1]:.2g}"
    lines = [f"{found.optimizer}: smoothed loss, {low:.3g} to {high:.3g}, over the learning rate", "",
             *curve(found.smoothed, COLUMNS, 6), ends[0] + ends[1].rjust(COLUMNS - len(ends[0]))]
    if not math.isnan(found.suggestion):
        share = np.log(found.suggestion / found.rates[0]) / np.log(found.rates[-1] / found.rates[0])
        lines.append(f"{' ' * round(share * (COLUMNS - 1))}▲")
    return lines


def _words(found: Any, given: argparse.Namespace) -> list[str]:
    if math.isnan(found.suggestion):
        return ["no rate lowers the loss; try other settings, or --smallest and --largest"]
    stop = f"the loss left its range at {found.divergence:.2g}" if not math.isnan(found.divergence) else ""
    settings = "".join(f" --{name.replace('_', '-')} {','.join(map(str, value)) if name == 'hidden' else value}"
                       for name, value in written_settings(given).items())
    return [f"steepest fall at {found.suggestion:.2g}, the suggested rate",
            f"lowest loss at {found.minimum:.2g}; take a tenth of that at most, {found.minimum / 10:.2g}",
            *filter(None, [stop]), f"train with it: tinygrad-opt train digits{settings} --lr {found.suggestion:.2g}"]


def _write_losses(found: Any, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["lr", "loss", "smoothed"])
        writer.writerows(zip(found.rates.tolist(), found.losses.tolist(), found.smoothed.tolist()))


WRITERS = {**dict.fromkeys(PICTURES, draw), ".csv": _write_losses}
