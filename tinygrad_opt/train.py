"""Training as a run: it writes a log, a checkpoint and a picture, can be stopped at any moment and resumed.

A run that was stopped and resumed continues bit for bit as if it never had been: its checkpoint holds the
parameters, the optimizer's state, the random generators, and how many batches of the epoch are done.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from . import data, nn, optim
from .io import load, save
from .nn.functional import cross_entropy
from .random import Generator, manual_seed
from .tensor import Tensor, no_grad

MODELS = ("mlp", "linear")
CHECKPOINT, LOG, PICTURE = "checkpoint.npz", "log.jsonl", "training.png"


@dataclass(frozen=True)
class Settings:
    """What decides a run: the same settings give the same bits.

    Raises
    ------
    ValueError
        Naming the setting, what it may be and what came.
    """

    model: str = "mlp"
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = 0.2
    optimizer: str = "adamw"
    lr: float = 3e-3
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}; got {self.model!r}")
        if self.model == "mlp" and (not self.hidden or min(self.hidden) < 1):
            raise ValueError(f"hidden must be widths of at least 1, such as 128,64; got {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.optimizer not in optimizers():
            raise ValueError(f"optimizer must be one of {', '.join(optimizers())}; got {self.optimizer!r}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr must lie in (0, inf), got {self.lr}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


# One has no learning rate, the other takes matrices alone.
LEFT_OUT = {"PolyakSGD", "Muon"}


def optimizers() -> dict[str, type[optim.Optimizer]]:
    """Return every optimizer that can train a whole network at a given rate, by its name in lower case."""
    return {name.lower(): cls for name, cls in optim.OPTIMIZERS.items() if name not in LEFT_OUT}


def network(settings: Settings, inputs: int, outputs: int) -> nn.Module:
    """Return the model: linear layers of the given widths, with ReLU and dropout between."""
    layers: list[nn.Module] = []
    for width in settings.hidden if settings.model == "mlp" else ():
        layers += [nn.Linear(inputs, width), nn.ReLU(), *[nn.Dropout(settings.dropout)] * (settings.dropout > 0)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Run:
    """A classifier in training.

    Parameters
    ----------
    settings : Settings
    train, test : TensorDataset
        Of images and labels.
    """

    def __init__(self, settings: Settings, train: data.TensorDataset, test: data.TensorDataset) -> None:
        self.settings, self.train, self.test = settings, train, test
        self.chance = manual_seed(settings.seed)
        self.order = Generator(settings.seed)
        images, labels = train.tensors
        self.model = network(settings, images.shape[1], int(labels.numpy().max()) + 1)
        self.optimizer = optimizers()[settings.optimizer](self.model.named_parameters(), lr=settings.lr)
        self.history: list[dict[str, Any]] = []
        self.epoch = self.batch = 0                 # epochs finished, and batches of the one that is not
        self.sums = [0.0, 0.0]                      # of loss and of right answers in that epoch
        self.epoch_order = self.order.get_state()   # as it was when the epoch began: the order is drawn then

    def epochs(self, until: int) -> Iterator[dict[str, Any]]:
        """Train to `until` epochs in all; yield the entry of each for the log."""
        while self.epoch < until:
            start = time.perf_counter()
            self._mode("train")
            loader = data.DataLoader(self.train, self.settings.batch_size, shuffle=True, generator=self.order)
            for images, labels in islice(loader, self.batch, None):
                self._step(images, labels)
                yield {}
            loss, right = (total / len(self.train) for total in self.sums)
            test_loss, predicted = self.evaluate()
            self.epoch, self.batch, self.sums = self.epoch + 1, 0, [0.0, 0.0]
            self.epoch_order = self.order.get_state()
            self.history.append({
                "epoch": self.epoch, "step": self.optimizer.step_count, "loss": loss, "accuracy": right,
                "test_loss": test_loss, "test_accuracy": float((predicted == self.test.tensors[1].numpy()).mean()),
                "lr": self.optimizer.lr, "seconds": round(time.perf_counter() - start, 4)})
            yield self.history[-1]

    def _step(self, images: Tensor, labels: Tensor) -> None:
        self.optimizer.zero_grad()
        scores = self.model(images)
        loss = cross_entropy(scores, labels)
        loss.backward()
        self.optimizer.step()
        self.batch += 1
        self.sums[0] += loss.item() * len(labels)
        self.sums[1] += int((scores.data.argmax(1) == labels.data).sum())

    def _mode(self, name: str) -> None:
        for part in (self.model, self.optimizer):       # a schedule-free optimizer has two points, one for each mode
            if hasattr(part, name):
                getattr(part, name)()

    def evaluate(self) -> tuple[float, np.ndarray]:
        """Return the loss on the test set, and the class that each of its images is read as."""
        self._mode("eval")
        images, labels = self.test.tensors
        with no_grad():
            scores = self.model(images)
            return cross_entropy(scores, labels).item(), scores.numpy().argmax(1)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {"settings": {**asdict(self.settings), "hidden": list(self.settings.hidden)},
                "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "history": self.history,
                "epoch": self.epoch, "batch": self.batch, "sums": self.sums, "chance": self.chance.get_state(),
                "epoch_order": self.epoch_order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.epoch, self.batch, self.sums = (state[key] for key in ("history", "epoch", "batch", "sums"))
        self.epoch_order = state["epoch_order"]
        self.order.set_state(self.epoch_order)
        self.chance.set_state(state["chance"])

    @classmethod
    def resume(cls, folder: Path, train: data.TensorDataset, test: data.TensorDataset) -> Run:
        """Return the run whose checkpoint lies in a folder."""
        state = load(folder / CHECKPOINT)
        settings = state["settings"]
        run = cls(Settings(**{**settings, "hidden": tuple(settings["hidden"])}), train, test)
        run.load_state_dict(state)
        return run

    def save(self, folder: Path) -> None:
        """Write checkpoint and log; a crash at any moment leaves the checkpoint from before."""
        folder.mkdir(parents=True, exist_ok=True)
        save(self.state_dict(), folder / CHECKPOINT)
        (folder / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in self.history))

    def draw(self, folder: Path) -> Path:
        """Draw the run so far into the folder and return the picture's path."""
        from .lab.training.report import draw_run
        images, labels = (t.numpy() for t in self.test.tensors)
        predicted, path = self.evaluate()[1], folder / PICTURE
        settings = self.settings
        shape = "–".join(str(p.shape[1]) for _, p in self.model.named_parameters() if p.ndim == 2)
        title = (f"{settings.model} {shape}–{labels.max() + 1} by {settings.optimizer}, lr {settings.lr:g}: "
                 f"test accuracy {(predicted == labels).mean():.1%} after {self.epoch} epochs")
        draw_run(self.history, labels, predicted, images, title).savefig(path)
        return path


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM in a list instead of stopping at once; a second one stops at once."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: Any) -> None:
        caught.append(number)
        for n, handler in before.items():
            signal.signal(n, handler)
    before.update({n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)})
    try:
        yield caught
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
