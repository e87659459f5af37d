"""Installation: what runs here."""

from __future__ import annotations

import argparse

from .. import __version__, backend
from .parsing import Parser


def add_options(parser: Parser) -> None:
    """Make a parser that of `info`."""
    parser.set_defaults(run=info)


def info(given: argparse.Namespace) -> int:
    """Print the backend and what it runs on."""
    for name, value in {"tinygrad_opt": __version__, "backend": backend.name, **backend.versions()}.items():
        print(f"{name:<14}{value}")
    return 0
