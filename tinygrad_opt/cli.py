"""The command `tinygrad-opt`: what is installed, and real digits trained end to end."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

EPOCHS = 30


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _Parser(prog="tinygrad-opt", description=__doc__.partition(": ")[2])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    commands.add_parser("info", help="print backend, versions, threads and GPU").set_defaults(run=info)
    training = commands.add_parser("train", help="train a model and report on it").add_subparsers(
        dest="task", required=True, parser_class=_Parser)
    digits = training.add_parser("digits", help="read handwritten digits, 8 by 8 pixels",
                                 formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    digits.set_defaults(run=train_digits, parser=digits)
    _add_settings(digits)
    given = parser.parse_args(arguments)
    return given.run(given)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Give a parser an option for each setting; only those that the user writes are set."""
    from .train import MODELS, Settings, optimizers
    help_texts = {"model": f"one of {', '.join(MODELS)}", "hidden": "widths of the hidden layers",
                  "dropout": "share of hidden numbers left out in training",
                  "optimizer": f"one of {', '.join(optimizers())}", "lr": "learning rate",
                  "batch_size": "images in a step",
                  "seed": "the same seed gives the same bits"}
    for field in fields(Settings):
        kind = _widths if field.name == "hidden" else type(field.default)
        shown = ",".join(map(str, field.default)) if field.name == "hidden" else field.default
        parser.add_argument("--" + field.name.replace("_", "-"), type=kind, metavar=field.name.upper(),
                            default=argparse.SUPPRESS, help=f"{help_texts[field.name]} (default: {shown})")
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="EPOCHS", help="passes over the training images")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR",
                        help="folder for picture, log and checkpoint (runs/digits, or the next number that is free)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"widths are whole numbers with commas between, such as 128,64; got {text!r}") from None


def info(given: argparse.Namespace) -> int:
    """Print the backend and what it runs on."""
    from . import __version__, backend
    for name, value in {"tinygrad_opt": __version__, "backend": backend.name, **backend.versions()}.items():
        print(f"{name:<14}{value}")
    return 0


def train_digits(given: argparse.Namespace) -> int:
    """Train on the UCI digits, showing progress, and leave picture, log and checkpoint."""
    from tqdm import tqdm

    from . import data
    from .train import interruptible
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
    from .train import CHECKPOINT, Run, Settings
    wanted = {field.name: getattr(given, field.name) for field in fields(Settings) if hasattr(given, field.name)}
    if given.epochs < 1:
        given.parser.error(f"--epochs must be at least 1, got {given.epochs}")
    try:
        settings = Settings(**wanted)
        if not given.resume:
            return Run(settings, train, test), _new_folder(given)
        if given.out is None:
            given.parser.error("--resume needs --out, the folder of the run to continue")
        run = Run.resume(given.out, train, test)
    except FileNotFoundError:
        given.parser.error(f"--resume: there is no {CHECKPOINT} in {given.out}")
    except (ValueError, OSError) as error:
        given.parser.error(str(error))
    for name, value in wanted.items():
        if asdict(run.settings)[name] != value:
            given.parser.error(f"--resume: the run in {given.out} has --{name.replace('_', '-')} "
                               f"{asdict(run.settings)[name]}, not {value}; only --epochs may change")
    if run.epoch > given.epochs:
        given.parser.error(f"--resume: the run in {given.out} already has {run.epoch} epochs, more than "
                           f"--epochs {given.epochs}")
    return run, given.out


def _new_folder(given: argparse.Namespace) -> Path:
    from .train import CHECKPOINT
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


if __name__ == "__main__":
    sys.exit(main())
