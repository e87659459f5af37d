"""Training: the digits, read by a model of the settings that the user writes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .parsing import LIST, Parser

EPOCHS = 30


def add_options(parser: Parser) -> None:
    """Make a parser that of `train`, with a command for each task."""
    tasks = parser.add_subparsers(required=True, metavar="TASK")
    digits = tasks.add_parser("digits", help="read handwritten digits, 8 by 8 pixels",
                              description="Train a model to read handwritten digits, 8 by 8 pixels.")
    digits.set_defaults(run=train_digits, parser=digits)
    add_settings(digits)
    digits.add_argument("--epochs", type=int, default=EPOCHS, metavar="EPOCHS", help="passes over the training images")
    digits.add_argument("--out", type=Path, default=None, metavar="DIR", help="folder for picture, log and checkpoint "
                        "(default: runs/digits, or the next number that is free)")
    digits.add_argument("--resume", action="store_true", help="continue the run in --out")


def add_settings(parser: Parser, without: Sequence[str] = ()) -> None:
    """Give a parser an option for each setting of a run; only those that the user writes are set."""
    from ..train import MODELS, Settings, optimizers
    help_texts = {"model": f"one of {', '.join(MODELS)}", "hidden": "widths of the hidden layers",
                  "dropout": "share of hidden numbers left out in training",
                  "optimizer": f"one of {', '.join(optimizers())}", "lr": "learning rate",
                  "batch_size": "images in a step",
                  "seed": "the same seed gives the same bits"}
    kinds = {"hidden": _widths, "optimizer": _optimizer}
    for field in fields(Settings):
        if field.name in without:
            continue
        shown = ",".join(map(str, field.default)) if field.name == "hidden" else field.default
        parser.add_argument("--" + field.name.replace("_", "-"), type=kinds.get(field.name, type(field.default)),
                            metavar=field.name.upper(), default=argparse.SUPPRESS,
                            help=f"{help_texts[field.name]} (default: {shown})")


def written_settings(given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the user wrote."""
    from ..train import Settings
    return {field.name: getattr(given, field.name) for field in fields(Settings) if hasattr(given, field.name)}


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"widths are whole numbers with commas between, such as 128,64; got {text!r}") from None


def _optimizer(text: str) -> str:
    from ..optim.registry import find
    from ..train import optimizers
    try:
        return find(text, optimizers(), see=LIST)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; it must be one of {', '.join(optimizers())}") from None


def open_run(parser: Parser, option: str, folder: Path, train: Any, test: Any) -> Any:
    """Return the run in a folder that an option names, or end with one line."""
    from ..train import CHECKPOINT, Run
    try:
        return Run.resume(folder, train, test)
    except FileNotFoundError:
        parser.error(f"{option}: there is no {CHECKPOINT} in {folder}")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    except (KeyError, TypeError):
        parser.error(f"{option}: {folder / CHECKPOINT} is not that of a run of train digits")


def train_digits(given: argparse.Namespace) -> int:
    """Train on the UCI digits, showing progress, and leave picture, log and checkpoint."""
    from tqdm import tqdm

    from .. import data
    from ..train import interruptible
    run, folder = _begin(given, *data.digits())
    steps = -(-len(run.train) // run.settings.batch_size)
    print(f"training {run.settings.model} with {run.settings.optimizer} on {len(run.train)} images, into {folder}")
    done = run.epoch * steps + run.batch
    with interruptible() as caught, tqdm(total=given.epochs * steps, initial=done, unit="step", mininterval=0.2,
                                         bar_format="{l_bar}{bar:24}| {n}/{total} steps, {elapsed}{postfix}") as bar:
        for entry in run.epochs(given.epochs):
            if not entry:
                bar.update()
            else:
                bar.set_postfix_str(f"loss {entry['loss']:.4f}, test accuracy {entry['test_accuracy']:.1%}",
                                    refresh=False)
                if entry["epoch"] % 10 == 0:
                    run.save(folder)
            if caught:
                break
    run.save(folder)
    if caught:
        print(f"stopped in epoch {run.epoch + 1}; continue with --resume --out {folder}", file=sys.stderr)
        return 128 + caught[0]
    picture = run.draw(folder)
    last = run.history[-1]
    print(f"test accuracy {last['test_accuracy']:.2%} after {run.epoch} epochs, training loss {last['loss']:.4f}; "
          f"picture: {picture}")
    return 0


def _begin(given: argparse.Namespace, train: Any, test: Any) -> tuple[Any, Path]:
    """Return the run to train and its folder, or end with one line; nothing has been written then."""
    from ..train import Run, Settings
    wanted = written_settings(given)
    if given.epochs < 1:
        given.parser.error(f"--epochs must be at least 1, got {given.epochs}")
    with given.parser.refusing():
        settings = Settings(**wanted)
        if not given.resume:
            return Run(settings, train, test), _new_folder(given)
    if given.out is None:
        given.parser.error("--resume needs --out, the folder of the run to continue")
    run = open_run(given.parser, "--resume", given.out, train, test)
    for name, value in wanted.items():
        if asdict(run.settings)[name] != value:
            given.parser.error(f"--resume: the run in {given.out} has --{name.replace('_', '-')} "
                               f"{asdict(run.settings)[name]}, not {value}; only --epochs may change")
    if run.epoch > given.epochs:
        given.parser.error(f"--resume: the run in {given.out} already has {run.epoch} epochs, more than "
                           f"--epochs {given.epochs}")
    return run, given.out


def _new_folder(given: argparse.Namespace) -> Path:
    from ..train import CHECKPOINT
    if given.out is None:
        names = (Path("runs") / f"digits{suffix}" for suffix in ("", *(f"-{k}" for k in range(2, 10 ** 6))))
        return next(folder for folder in names if not folder.exists())
    if (given.out / CHECKPOINT).exists():
        given.parser.error(f"--out: {given.out} holds a run already; continue it with --resume, or name another folder")
    for part in (given.out, *given.out.parents):
        if part.exists():
            if not part.is_dir():
                given.parser.error(f"--out: {part} is a file, not a folder")
            break
    return given.out

