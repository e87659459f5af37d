"""Parsing: what the commands have in common in reading arguments, refusing them in one line, and writing files."""

from __future__ import annotations

import argparse
import ast
import inspect
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

PICTURES = (".png", ".svg", ".pdf")
WIDTH = 79                                          # of a line that is printed
LIST = "tinygrad-opt race --list"                   # where the names are
Named = tuple[str, dict[str, Any]]


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 16                # at least, so that names of commands have room beside their help

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser whose help tells defaults, and whose errors are one line, which names the command, and status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        """End, and send the user to the help."""
        self.refuse(f"{message} (see {self.prog} --help)")

    def refuse(self, message: str) -> NoReturn:
        """End; the message says all."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")

    @contextmanager
    def refusing(self, prefix: str = "") -> Iterator[None]:
        """End where the library refuses what it is given inside of a `with` block."""
        try:
            yield
        except (ValueError, TypeError, IndexError, RuntimeError, OSError) as error:
            self.refuse(f"{prefix}{error}")


@contextmanager
def busy(words: str) -> Iterator[None]:
    """Show words in a terminal while a `with` block works."""
    from tqdm import tqdm
    with tqdm(bar_format=words, leave=False, disable=None):
        yield


# ---- kinds of values ------------------------------------------------------------------------------------------------


def whole(least: int) -> Callable[[str], int]:
    """Return what reads a whole number of at least so much."""
    def read(text: str) -> int:
        try:
            if (value := int(text)) >= least:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return read


def positive(text: str) -> float:
    """Read a number above 0."""
    return _finite(text, "a positive number, such as 0.01", 0.0)


def numbers(text: str) -> np.ndarray:
    """Read numbers with commas between."""
    return np.array([_finite(part, "finite numbers with commas between, such as 1.0,-2.0")
                     for part in text.split(",")])


def _finite(text: str, what: str, above: float = -math.inf) -> float:
    try:
        if above < (value := float(text)) < math.inf:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be {what}; got {text!r}")


def named(text: str) -> Named:
    """Read a name and options, as in `adam`, `sgd:momentum=0.9` or `adam:betas=0.5,0.9,eps=1e-6`."""
    name, colon, rest = text.partition(":")
    return name, options(rest) if colon else {}


def options(text: str) -> dict[str, Any]:
    """Read `option=value` with commas between; what follows a comma without a name belongs to the value before."""
    found = {}
    for part in re.split(r",(?=\s*[A-Za-z_][\w-]*\s*=)", text):
        option, equals, value = part.partition("=")
        if not equals or not value.strip():
            raise argparse.ArgumentTypeError(f"options are written option=value, as in momentum=0.9 or betas=0.5,0.9; "
                                             f"got {part!r}")
        found[option.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    for read in (ast.literal_eval, float):          # the latter knows inf
        try:
            return read(text)
        except (ValueError, TypeError, SyntaxError):
            pass
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


# ---- names ----------------------------------------------------------------------------------------------------------


def optimizer_of(asked: Named) -> tuple[type, dict[str, Any]]:
    """Return the class that is meant, and its options as it calls them; a ValueError names the nearest."""
    from .. import optim
    from ..optim.registry import find
    name, given = asked
    cls = getattr(optim, find(name, optim.list_optimizers(), see=LIST))
    known = list(inspect.signature(cls).parameters)[1:]
    return cls, {find(option, known, f"option of {cls.__name__}", f"tinygrad-opt explain {cls.__name__.lower()} "
                      "--options"): value for option, value in given.items()}


def surface_of(asked: Named) -> Any:
    """Return the surface that is meant, made with its options; a ValueError names the nearest."""
    from ..lab.surfaces import SURFACES, surface
    from ..optim.registry import find
    name, given = asked
    name = find(name, SURFACES, "surface", LIST)
    known = inspect.signature(SURFACES[name]).parameters
    for option, value in given.items():
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name}: {option} must be a number, got {value!r}")
    return surface(name, **given)


# ---- files ----------------------------------------------------------------------------------------------------------


def add_out(parser: Parser, writers: Mapping[str, Callable[[Any, Path], Any]], words: str) -> None:
    """Give a parser the option --out, for files whose ending chooses how they are written."""
    parser.set_defaults(writers=writers)
    parser.add_argument("--out", action="append", type=partial(_file, tuple(writers)), metavar="FILE",
                        help=f"also write a file, which its ending chooses: {words}; may be given several times "
                        "(default: nothing is written)")


def _file(endings: tuple[str, ...], text: str) -> Path:
    """Return a path that can be written, without having written anything."""
    path = Path(text)
    if path.suffix.lower() not in endings:
        raise argparse.ArgumentTypeError(f"a file ends in one of {' '.join(endings)}; got {text!r}")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder, not a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent} to write {path.name} in; make it first")
    try:
        (path.open("r+b") if path.exists() else tempfile.TemporaryFile(dir=path.parent)).close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written: {error.strerror}") from None
    return path


def write(given: argparse.Namespace, result: Any) -> None:
    """Write a result into each file that --out names."""
    for path in given.out or ():
        with given.parser.refusing(f"--out {path}: "):
            given.writers[path.suffix.lower()](result, path)
        print(f"wrote {path}", file=sys.stderr)


def draw(result: Any, path: Path) -> None:
    """Write the picture of a result."""
    result.draw().savefig(path)
