"""Launching: `tinygrad-opt launch` runs a script as several ranks by MPI."""

from __future__ import annotations

import argparse

from .parsing import Parser, whole


def add_options(parser: Parser) -> None:
    """Make a parser that of `launch`."""
    parser.set_defaults(run=launch)
    parser.add_argument("-n", dest="size", type=whole(1), required=True, metavar="RANKS",
                        help="how many ranks; there may be more than cores")
    parser.add_argument("script", metavar="SCRIPT", help="a Python file, which gets its rank by "
                        "tinygrad_opt.distributed.world()")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what the script is given")


def launch(given: argparse.Namespace) -> int:
    """Run a script as several ranks, and return the status of the first that failed, else 0."""
    from ..distributed.launch import launch_script
    with given.parser.refusing():
        return launch_script(given.size, given.script, given.arguments)
