"""Racing: `tinygrad-opt race` is `tg.lab.race`, and its files."""

from __future__ import annotations

import argparse
import csv
import json
import textwrap
from pathlib import Path
from typing import Any

from .parsing import (
    PICTURES,
    WIDTH,
    Parser,
    add_out,
    busy,
    draw,
    named,
    numbers,
    optimizer_of,
    positive,
    surface_of,
    whole,
    write,
)

DEFAULT = "sgd sgd:momentum=0.9 adam"
MOVING = {".gif": "a moving picture", ".html": "a page"}        # which lie in the plane


def add_options(parser: Parser) -> None:
    """Make a parser that of `race`."""
    parser.set_defaults(run=race_optimizers)
    parser.add_argument("optimizers", nargs="*", type=named, metavar="OPTIMIZER",
                        help="a name, with options after a colon: adam, sgd:momentum=0.9, adam:betas=0.5,0.9,eps=1e-6 "
                        f"(default: {DEFAULT})")
    parser.add_argument("--surface", type=named, default="rosenbrock", metavar="NAME",
                        help="what to go down; some take options, as in ravine:kappa=1000")
    parser.add_argument("--steps", type=whole(1), default=100, metavar="N",
                        help="how much of the budget each may spend")
    parser.add_argument("--budget", choices=("gradients", "steps"), default="gradients",
                        help="what is counted: gradients, of which some take several a step, or steps, however dear")
    parser.add_argument("--seeds", type=whole(1), default=1, metavar="N",
                        help="of a surface whose steps see samples: how many runs; their median counts")
    parser.add_argument("--start", type=numbers, metavar="X,Y", help="where all begin; write --start=-1,2 where the "
                        "first is negative (default: where the surface says)")
    parser.add_argument("--rates", type=_rates, metavar="LR,LR",
                        help="learning rates of which each optimizer has its best (default: 21 from 0.0001 to 10)")
    parser.add_argument("--unfair", action="store_true",
                        help="run each with the lr of its options, or its default, instead of its best one")
    parser.add_argument("--list", action="store_true", help="print the names of surfaces and optimizers, and no race")
    add_out(parser, WRITERS, ".html a page to play it on, .gif a moving picture, .png .svg .pdf a picture, .csv the "
            "losses, .json everything")


def _rates(text: str) -> list[float]:
    return [positive(part) for part in text.split(",")]


def race_optimizers(given: argparse.Namespace) -> int:
    """Race, print the table, write what is asked for."""
    if given.list:
        return _print_names()
    from .. import lab
    with given.parser.refusing():
        surface = surface_of(given.surface)
        optimizers = [optimizer_of(asked) for asked in given.optimizers or map(named, DEFAULT.split())]
        _check(given, surface, optimizers)
        with busy(f"racing down {surface.name} ..."):
            race = lab.race(optimizers, surface, given.steps, not given.unfair, given.seeds, given.start, given.rates,
                            given.budget)
    print(race.table().replace("rates=", "--rates"))
    write(given, race)
    return 0


def _check(given: argparse.Namespace, surface: Any, optimizers: list) -> None:
    """Raise for what does not go together, in the words of the command line."""
    if given.unfair and given.rates:
        raise ValueError("--rates is for a fair race; with --unfair give each its own, as in sgd:lr=0.1")
    if not given.unfair and any("lr" in options for _, options in optimizers):
        raise ValueError("a fair race finds the lr of each; leave it out of the options, or race --unfair")
    if given.start is not None and len(given.start) != surface.dimensions:
        raise ValueError(f"--start: a point on {surface.name} has {surface.dimensions} numbers, got {len(given.start)}")
    for path in given.out or ():
        if surface.dimensions != 2 and (what := MOVING.get(path.suffix.lower())):
            raise ValueError(f"--out {path}: {what} shows two coordinates, {surface.name} has {surface.dimensions}; "
                             "write a .png")


def _print_names() -> int:
    from .. import lab, optim
    print("surfaces")
    surfaces = [lab.surface(name) for name in lab.list_surfaces()]
    width = max(len(surface.name) for surface in surfaces)
    for surface in surfaces:
        print(textwrap.fill(surface.teaches, WIDTH, initial_indent=f"  {surface.name:<{width}}  ",
                            subsequent_indent=" " * (width + 4)))
    print("\noptimizers")
    print(textwrap.fill(", ".join(optim.list_optimizers()), WIDTH, initial_indent="  ", subsequent_indent="  "))
    return 0


def _write_losses(race: Any, path: Path) -> None:
    """Write the loss of each optimizer after 0, 1, 2, ... of the budget is spent, a column each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([race.budget, *race.losses])
        writer.writerows(zip(range(race.steps + 1), *(losses.tolist() for losses in race.losses.values())))


def _write_everything(race: Any, path: Path) -> None:
    """Write settings, results and the record of each optimizer as JSON, NaN and infinities as null."""
    from ..lab.traces import _jsonable
    optimizers = {label: {"lr": race.rates[label], "reached": race.reached[label], "losses": race.losses[label],
                          "tried": [*race.tried.get(label, {}).items()], "trace": json.loads(trace.to_json())}
                  for label, trace in race.traces.items()}
    path.write_text(json.dumps(_jsonable({
        "surface": race.name, "budget": race.budget, "steps": race.steps, "seeds": race.seeds,
        "ranking": race.ranking(), "optimizers": optimizers}), allow_nan=False), encoding="utf-8")


WRITERS = {".html": lambda race, path: race.to_html(path), ".gif": lambda race, path: race.to_gif(path),
           **dict.fromkeys(PICTURES, draw), ".csv": _write_losses, ".json": _write_everything}
