"""Tasks: what optimizers are compared on. A task is any function `task(make_optimizer, seed, report)`.

It makes a model by the seed and an optimizer by `make_optimizer(named_parameters)`, trains, calls
`report(value, gradients)` now and then with what it would return and the gradients taken so far, and returns the value,
which is the lower the better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import data, nn
from ..lab.objective import Objective
from ..lab.racing.races import _seeded
from ..lab.surfaces import Surface
from ..lab.surfaces import surface as find_surface
from ..lab.traces import drive
from ..ops import cross_entropy
from ..optim.optimizer import Optimizer
from ..optim.replay import stepping
from ..random import Generator
from ..tensor import Tensor, no_grad

Make = Callable[[list[tuple[str, Tensor]]], Optimizer]
Report = Callable[[float, int], None]
Pair = tuple[Tensor, Tensor]


def digits(epochs: int = 5, hidden: tuple[int, ...] = (32,), batch_size: int = 32) -> Training:
    """Return the task to read digits: the cross-entropy on images that were not trained on.

    The seed divides the 1,442 training images into 1,154 to learn from and 288 to be judged by, and draws the first
    weights and the order. The test set is not touched.

    Parameters
    ----------
    epochs : int, default 5
        As many gradients may be taken as these have batches, at least 1.
    hidden : tuple of int, default (32,)
        Widths of the hidden layers, which are ReLU.
    batch_size : int, default 32

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> task = tg.tune.tasks.digits(epochs=2)
    >>> value = task(lambda params: tg.optim.AdamW(params, lr=1e-2), seed=0, report=lambda value, gradients: None)
    >>> value < 0.4
    True
    """
    return _training("digits", partial(_digits, tuple(hidden)), 1154, epochs, batch_size)


def moons(epochs: int = 25, hidden: tuple[int, ...] = (16, 16), batch_size: int = 32) -> Training:
    """Return the task to part two moons of 128 points, noise 0.2: the cross-entropy on 512 others.

    The seed draws points, first weights and order; arguments as for `digits`.
    """
    return _training("moons", partial(_moons, tuple(hidden)), 128, epochs, batch_size)


def surface(name: str | Surface, steps: int = 100) -> Descent:
    """Return the task to go down a surface of the laboratory: the height above its minimum, where it has one.

    The seed draws a start around that of the surface, at a distance of 5 % of its box, and the samples of a step where
    a surface has such.

    Parameters
    ----------
    name : str or Surface
        One of `tg.lab.list_surfaces()`.
    steps : int, default 100
        How many gradients may be taken, at least 1.
    """
    return Descent(find_surface(name).name if isinstance(name, str) else name, steps)


def _training(name: str, problem: Callable, samples: int, epochs: int, batch_size: int) -> Training:
    _check(name, epochs=epochs, batch_size=batch_size)
    return Training(name, problem, epochs * max(1, samples // batch_size), batch_size)


def _network(inputs: int, hidden: tuple[int, ...], outputs: int, generator: Generator) -> nn.Sequential:
    widths, layers = [inputs, *hidden, outputs], []
    for fan_in, fan_out in zip(widths, widths[1:]):
        layers += [nn.Linear(fan_in, fan_out, generator=generator), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _digits(hidden: tuple[int, ...], generator: Generator) -> tuple[nn.Module, Pair, Pair]:
    images, labels = data.digits()[0].tensors
    order = generator.permutation(len(images))
    learned, judged = order[:1154], order[1154:]
    return (_network(64, hidden, 10, generator), (images[learned], labels[learned]), (images[judged], labels[judged]))


def _moons(hidden: tuple[int, ...], generator: Generator) -> tuple[nn.Module, Pair, Pair]:
    learned, judged = (data.moons(n, noise=0.2, generator=generator) for n in (128, 512))
    return _network(2, hidden, 2, generator), learned, judged


@dataclass(frozen=True)
class Training:
    """A classifier to train: what `digits` and `moons` return, and a way to make others.

    Attributes
    ----------
    name : str
    problem : callable
        From a Generator to a model, (x, y) to learn from, and (x, y) to be judged by.
    gradients : int
        How many may be taken.
    batch_size : int
    reports : int, default 20
        How many there are.
    """

    name: str
    problem: Callable[[Generator], tuple[nn.Module, Pair, Pair]]
    gradients: int
    batch_size: int = 32
    reports: int = 20

    def __post_init__(self) -> None:
        _check(self.name, gradients=self.gradients, batch_size=self.batch_size, reports=self.reports)

    def __call__(self, make_optimizer: Make, seed: int, report: Report) -> float:
        """Train, and return the cross-entropy of what was not trained on."""
        generator = Generator(seed)
        model, learned, judged = self.problem(generator)
        # A last batch of two samples, after which the model would be judged, is left out.
        loader = data.DataLoader(data.TensorDataset(*learned), self.batch_size, shuffle=True, generator=generator,
                                 drop_last=len(learned[0]) >= self.batch_size)

        def loss() -> float:
            with no_grad():
                return cross_entropy(model(judged[0]), judged[1]).item()
        objective = Objective(model, data=loader, loss=cross_entropy)
        return _run(objective, loss, make_optimizer, seed, report, self.gradients, self.reports)


@dataclass(frozen=True)
class Descent:
    """A surface to go down: what `surface` returns.

    Attributes
    ----------
    surface : str or Surface
    gradients : int
        How many may be taken.
    """

    surface: Any
    gradients: int = 100

    def __post_init__(self) -> None:
        _check(self.name, gradients=self.gradients)

    @property
    def name(self) -> str:
        """Of the surface."""
        return find_surface(self.surface).name

    def __call__(self, make_optimizer: Make, seed: int, report: Report) -> float:
        """Go down, and return the height at the end."""
        ground, random = find_surface(self.surface), np.random.default_rng(seed)
        widths = np.diff(ground.box, axis=1)[:, 0]
        start = ground.start + 0.05 * widths * random.standard_normal(ground.dimensions)
        objective = Objective(ground, np.clip(start, *np.transpose(ground.box)), seed=seed)
        lowest = ground.lowest if math.isfinite(ground.lowest) else 0.0
        return _run(objective, lambda: objective.whole() - lowest, make_optimizer, seed, report, self.gradients, 20)


def _run(objective: Objective, judge: Callable[[], float], make_optimizer: Make, seed: int, report: Report,
         gradients: int, reports: int) -> float:
    """Take steps until the gradients are spent, and return what the judge says then; infinite once it diverges."""
    with _seeded(seed):
        optimizer = make_optimizer(list(objective.parameters.items()))
        modes = [inner for inner in stepping(optimizer) if hasattr(inner, "eval")]      # of two points, one a mode
        value = judge()
        report(value, 0)
        due: Iterator[float] = iter(np.linspace(0, gradients, reports + 1)[1:])
        limit = next(due)
        for t in range(gradients):
            _to(modes, "train")
            objective.begin(t)
            try:
                drive(optimizer, objective, t)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError):
                if t == 0:
                    raise
                return math.inf                     # what it refuses are numbers that are not finite
            objective.confine()
            if objective.evaluations >= limit:
                _to(modes, "eval")
                value = judge()
                value = value if math.isfinite(value) else math.inf
                report(value, objective.evaluations)
                if value == math.inf or objective.evaluations >= gradients:
                    break
                limit = next(place for place in due if place > objective.evaluations)
    return value


def _to(modes: list[Any], name: str) -> None:
    for inner in modes:
        getattr(inner, name)()


def _check(name: str, **counts: Any) -> None:
    for what, value in counts.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: {what} must be a whole number of at least 1, got {value!r}")
