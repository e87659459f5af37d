"""Landscape: `tinygrad-opt landscape` is `tg.lab.path_plane`, `random_plane` and `interpolate` of a trained net."""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .charts import curve, shaded
from .parsing import PICTURES, Parser, add_out, draw, whole, write
from .training import open_run

COLUMNS = 72                                        # of a chart
START, END = "()", "><"                             # of a path, in a map
STEPS = 100                                         # of the small net


def add_options(parser: Parser) -> None:
    """Make a parser that of `landscape`."""
    parser.set_defaults(run=show_landscape)
    parser.add_argument("--run", dest="folder", type=Path, metavar="DIR", help="folder of a run of `tinygrad-opt train "
                        "digits` (default: a small net is trained on two moons here)")
    parser.add_argument("--plane", choices=("path", "random", "line"), default="path",
                        help="the plane that the training chose, with a random one beside it; a random plane; or the "
                        "straight line from the first weights to the last")
    parser.add_argument("--points", type=whole(2), default=25, metavar="N", help="along each side, or on the line")
    parser.add_argument("--seed", type=whole(0), default=0, metavar="SEED", help="of random directions, and the small "
                        "net's")
    add_out(parser, WRITERS, ".png .svg .pdf a picture, .csv the heights")


@dataclass
class _Trained:
    """A model, words on it, what its loss is made of, and what its parameters were on the way."""

    words: str
    model: Any
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    path: list[dict[str, np.ndarray]]


def show_landscape(given: argparse.Namespace) -> int:
    """Print the loss around a net, and what share of its training that shows; write what is asked for."""
    from .. import lab
    from ..nn.functional import cross_entropy
    from ..random import Generator
    trained = _small_net(given) if given.folder is None else _from_run(given)
    model, data, generator = trained.model, trained.train, Generator(given.seed)
    with given.parser.refusing():
        if given.plane == "line":
            result = lab.interpolate(model, trained.path[0], trained.path[-1], data, cross_entropy, given.points,
                                     test=trained.test)
        elif given.plane == "random":
            result = lab.random_plane(model, data, cross_entropy, given.points, generator=generator)
        else:
            result = lab.path_plane(trained.path, model, data, cross_entropy, given.points, generator=generator)
    print(trained.words)
    print("\n".join(_line(result) if given.plane == "line" else _planes(result)))
    write(given, result)
    return 0


def _small_net(given: argparse.Namespace) -> _Trained:
    from .. import nn, optim
    from ..data import moons
    from ..nn.functional import cross_entropy
    from ..random import manual_seed
    manual_seed(given.seed)
    train, test = (moons(200, noise=0.2, generator=given.seed + k) for k in range(2))
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = optim.AdamW(model.parameters(), lr=0.05)
    path = [_now(model)]
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(model(train[0]), train[1]).backward()
        optimizer.step()
        path.append(_now(model))
    return _Trained(f"two moons: a net of 2, 16 and 2 units after {STEPS} steps of AdamW", model, train, test, path)


def _from_run(given: argparse.Namespace) -> _Trained:
    """Return the model of a finished run; its way is walked again, since the same settings give the same bits."""
    from tqdm import tqdm

    from ..data import digits
    from ..train import Run
    train, test = digits()
    run = open_run(given.parser, "--run", given.folder, train, test)
    if run.epoch + run.batch == 0:
        given.parser.error(f"--run: the run in {given.folder} has not begun; there is no way to look at")
    again = Run(run.settings, train, test)
    path = [_now(again.model)]
    if given.plane == "path":
        epochs = tqdm(again.epochs(run.epoch), total=run.epoch * (1 + -(-len(train) // run.settings.batch_size)),
                      desc="walking the run again", unit="step", leave=False, disable=None)
        path += [_now(again.model) for entry in epochs if entry]
    end = _now(run.model)
    if given.plane == "path" and run.batch == 0 and any((end[name] != path[-1][name]).any() for name in end):
        print("note: walked again, the run ends elsewhere; was it trained on another machine or backend?",
              file=sys.stderr)
    words = f"{given.folder}: {run.settings.model} after {run.epoch} epochs of {run.settings.optimizer}"
    return _Trained(words, run.model, train.tensors, test.tensors, [*path, end])


def _now(model: Any) -> dict[str, np.ndarray]:
    return {name: p.numpy().copy() for name, p in model.named_parameters()}


def _line(line: Any) -> list[str]:
    """Return the words on a line: its curve, and how high it climbs."""
    losses = ((name, *map(_number, values[[0, -1]])) for name, values in (("training", line.loss), ("test", line.test)))
    return ["loss on the line from the first weights to the last", "", *curve(line.loss, COLUMNS, 6),
            "first" + "last".rjust(COLUMNS - 5), "",
            *(f"{name + ' loss':<25}{first} to {last}" for name, first, last in losses),
            f"{'barrier above the chord':<25}{_number(line.barrier)}",
            f"{'rise above both ends':<25}{_number(line.rise)}"]


def _planes(plane: Any) -> list[str]:
    """Return the words on a plane: its map, and what share of the path it and a random one show."""
    marks = {} if plane.path is None else {_cell(plane, plane.path[0]): START}
    words = [f"loss on {plane.kind}, the darker the lower", f"{'start ' + START + ', ' if marks else ''}"
             f"end {END}", "", *shaded(plane.loss, COLUMNS, marks | {_cell(plane, (0, 0)): END}), ""]
    rows = [("", "lowest", "highest", "variance", "squared steps")]
    for each in filter(None, (plane, plane.beside)):
        shares = ("", "") if each.path is None else (f"{each.variance:.1%}", f"{each.movement:.1%}")
        rows.append((each.kind, _number(np.nanmin(each.loss)), _number(np.nanmax(each.loss)), *shares))
    if plane.path is None:
        return [*words, *(f"{name:<8} {value}" for name, value in zip(rows[0][1:3], rows[1][1:3]))]
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = ["  ".join(cell.rjust(width) if k else cell.ljust(width)
                       for k, (cell, width) in enumerate(zip(row, widths))) for row in rows]
    return [*words, *table, "", "shares shown of the path's variance around its end, and of its squared steps"]


def _cell(plane: Any, point: Any) -> tuple[int, int]:
    """Return row and column of the height next to a point."""
    return tuple(int(abs(side - place).argmin()) for side, place in zip((plane.y, plane.x), reversed(tuple(point))))


def _number(value: float) -> str:
    return f"{value:.4g}"


def _write_heights(result: Any, path: Path) -> None:
    """Write the loss at each point: `t,loss,test` of a line, `plane,x,y,loss` of one or two planes."""
    from ..lab import Interpolation
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if isinstance(result, Interpolation):
            writer.writerow(["t", "loss", "test"])
            writer.writerows(zip(result.t.tolist(), result.loss.tolist(), result.test.tolist()))
            return
        writer.writerow(["plane", "x", "y", "loss"])
        for plane in filter(None, (result, result.beside)):
            writer.writerows([plane.kind, x, y, loss] for y, row in zip(plane.y.tolist(), plane.loss.tolist())
                             for x, loss in zip(plane.x.tolist(), row))


WRITERS = {**dict.fromkeys(PICTURES, draw), ".csv": _write_heights}
