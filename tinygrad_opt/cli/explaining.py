"""Explaining: `tinygrad-opt explain` is `optimizer.explain` after a run on a surface, and what a rule prints."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from .parsing import WIDTH, Parser, add_out, named, optimizer_of, options, positive, surface_of, whole, write


def add_options(parser: Parser) -> None:
    """Make a parser that of `explain`."""
    parser.set_defaults(run=explain_step)
    parser.add_argument("optimizer", nargs="?", type=named, default="adamw", metavar="OPTIMIZER",
                        help="a name, with options after a colon where you like, as in sgd:momentum=0.9")
    parser.add_argument("--lr", type=positive, metavar="LR", help="learning rate (default: the optimizer's own)")
    parser.add_argument("-o", "--option", action="append", type=options, metavar="NAME=VALUE",
                        help="an option of the optimizer, such as betas=0.5,0.9; may be given several times (default: "
                        "the optimizer's own)")
    parser.add_argument("--surface", type=named, default="booth", metavar="NAME", help="what to go down")
    parser.add_argument("--steps", type=whole(1), default=3, metavar="N", help="how many steps to run")
    parser.add_argument("--step", type=whole(1), metavar="T",
                        help="which of them to explain, counted from 1 as t in the rule (default: the last)")
    parser.add_argument("--index", type=int, metavar="K",
                        help="which coordinate, counted from 0 (default: the one that moved most)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--formula", nargs="?", const="text", choices=("text", "latex"),
                         help="print the rule for a matrix of weights instead, as text (default) or latex")
    instead.add_argument("--source", choices=("numpy", "numba", "cuda"),
                         help="print the program that runs for such a matrix instead (default: the step is printed)")
    instead.add_argument("--options", action="store_true", help="print the options with their defaults instead")
    add_out(parser, WRITERS, ".csv and .json the record of the whole run, .html a page that shows each of its steps")


def explain_step(given: argparse.Namespace) -> int:
    """Run, print the step, write what is asked for; or print what the optimizer is."""
    described = given.options or given.formula or given.source
    with given.parser.refusing():
        name, written = given.optimizer
        for more in given.option or ():
            written |= more
        cls, written = optimizer_of((name, written | ({} if given.lr is None else {"lr": given.lr})))
        surface = surface_of(given.surface)
        _check(given, surface)
        text, trace = (_described(cls, written, given), None) if described else _run(cls, written, given, surface)
    print(text)
    write(given, (trace, surface))
    return 0


def _described(cls: Any, written: dict[str, Any], given: argparse.Namespace) -> str:
    """Return what the optimizer is: its options, its rule, or the source of it."""
    from .. import creation, optim
    if given.options:
        return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    ")
                         for line in str(optim.optimizer_info(cls.__name__)).splitlines())
    try:
        optimizer = cls([("w", creation.ones((2, 2), requires_grad=True))], **written)
        return optimizer.formula(given.formula) if given.formula else optimizer.source(given.source)
    except NotImplementedError:
        raise ValueError(f"{cls.__name__} has no rule to print: it solves for its step") from None


def _check(given: argparse.Namespace, surface: Any) -> None:
    """Raise for what does not go together, in the words of the command line."""
    if given.out and (given.options or given.formula or given.source):
        raise ValueError("--out is for the record of a run; send what is printed to a file with >")
    if given.step is not None and given.step > given.steps:
        raise ValueError(f"--step must be one of the {given.steps} that are run, got {given.step}; raise --steps")
    if given.index is not None and not 0 <= given.index < surface.dimensions:
        raise ValueError(f"--index counts the {surface.dimensions} numbers of a point on {surface.name} from 0; got "
                         f"{given.index}")
    if surface.dimensions != 2 and any(path.suffix.lower() == ".html" for path in given.out or ()):
        raise ValueError(f"--out: a page shows two coordinates, {surface.name} has {surface.dimensions}; write a .csv "
                         "or .json")


def _run(cls: Any, written: dict[str, Any], given: argparse.Namespace, surface: Any) -> tuple[Any, Any]:
    """Return the explanation of a step, and the record of all steps."""
    from ..lab.objective import Objective
    from ..lab.traces import Recorder
    objective, step = Objective(surface), given.step or given.steps
    optimizer = cls(list(objective.parameters.items()), **written)
    recorder = Recorder(optimizer, objective)
    recorder.run(step)
    return optimizer.explain("w", given.index), recorder.run(given.steps - step)


def _write_page(run: tuple[Any, Any], path: Path) -> None:
    from .. import lab
    path.write_text(lab.html_page(*run), encoding="utf-8")


WRITERS = {".csv": lambda run, path: run[0].to_csv(path), ".json": lambda run, path: run[0].to_json(path),
           ".html": _write_page}
