"""The command `tinygrad-opt`: what is installed, digits trained end to end, and the laboratory on the command line."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from .parsing import Parser

# What each command does, and the file that holds it, which is read when it is asked for.
COMMANDS = {
    "info": ("print backend, versions, threads and GPU", "installation"),
    "train": ("train a model and report on it", "training"),
    "race": ("let optimizers race down a surface, and print who came how far", "racing"),
    "explain": ("print a step of an optimizer line by line, with numbers; its formula; its source", "explaining"),
    "landscape": ("print and draw the loss around a trained net", "landscape"),
    "lr-find": ("find a learning rate for the digits", "rate_finding"),
    "launch": ("run a script as several ranks, by MPI", "launching"),
}
STOPPED, PIPE_CLOSED = 130, 141                     # as a shell reports the end by SIGINT and by SIGPIPE


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status; wrong arguments end it with status 2 and one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")    # a terminal that has no β is no reason to stop
    parser = Parser(prog="tinygrad-opt", description=__doc__.partition(": ")[2].capitalize())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (words, module) in COMMANDS.items():
        command = commands.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        if name in arguments:
            command.set_defaults(parser=command)
            import_module(f".{module}", __name__).add_options(command)
    try:
        given, unknown = parser.parse_known_args(arguments)
        if unknown:
            given.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        status = given.run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(f"tinygrad-opt {arguments[0]}: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:                         # whoever read has read enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
