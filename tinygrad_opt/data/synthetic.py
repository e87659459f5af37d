"""Toy problems in the plane: points of a few classes that no straight line separates (blobs excepted).

Classes take turns, 0, 1, 0, 1, ..., so that every slice of a set is balanced and can serve as a split. All
take `noise`, the standard deviation of the Gaussian displacement of every point, in the units of the plane.
"""
from collections.abc import Callable
from math import inf, pi
from numbers import Integral

import numpy as np

from ..random import Generator
from ..tensor import Tensor
from .dataset import as_generator


def moons(n: int, noise: float = 0.1, generator: Generator | int | None = None) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles of radius 1.

    Parameters
    ----------
    n : int
        Number of points, at least 1.
    noise : float
        Standard deviation of the displacement of each point, finite and not negative.
    generator : Generator, int seed or None
        Source of randomness; None is the default generator (see `tg.manual_seed`).

    Returns
    -------
    x : Tensor, float32, (n, 2)
        The points.
    y : Tensor, int64, (n,)
        Their classes.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x, y = tg.data.moons(200, generator=0)
    >>> tuple(x.shape), y[:4].tolist()
    ((200, 2), [0, 1, 0, 1])
    """
    def curve(y, rng):
        angle = rng.uniform(0, pi, n)
        return np.where(y, 1 - np.cos(angle), np.cos(angle)), np.where(y, 0.5 - np.sin(angle), np.sin(angle))
    return _sample(n, 2, noise, generator, curve)


def circles(n: int, noise: float = 0.05, generator: Generator | int | None = None, *,
            factor: float = 0.5) -> tuple[Tensor, Tensor]:
    """A circle of radius 1 (class 0) around one of radius `factor` (class 1); else as :func:`moons`."""
    if not 0 < factor < 1:
        raise ValueError(f"factor must lie between 0 and 1, got {factor!r}")

    def curve(y, rng):
        radius, angle = np.where(y, factor, 1.0), rng.uniform(0, 2 * pi, n)
        return radius * np.cos(angle), radius * np.sin(angle)
    return _sample(n, 2, noise, generator, curve)


def spirals(n: int, noise: float = 0.02, generator: Generator | int | None = None, *, classes: int = 2,
            turns: float = 1.5) -> tuple[Tensor, Tensor]:
    """Arms that wind `turns` times from the centre to radius 1, one for each class; else as :func:`moons`."""
    def curve(y, rng):
        radius = np.sqrt(rng.uniform(0, 1, n))           # the root spreads points evenly along an arm
        angle = 2 * pi * (turns * radius + y / classes)
        return radius * np.cos(angle), radius * np.sin(angle)
    return _sample(n, classes, noise, generator, curve)


def blobs(n: int, noise: float = 0.25, generator: Generator | int | None = None, *,
          classes: int = 3) -> tuple[Tensor, Tensor]:
    """Round clouds, centred evenly on a circle of radius 1, one for each class; else as :func:`moons`."""
    def curve(y, rng):
        return np.cos(2 * pi * y / classes), np.sin(2 * pi * y / classes)
    return _sample(n, classes, noise, generator, curve)


def xor(n: int, noise: float = 0.05, generator: Generator | int | None = None) -> tuple[Tensor, Tensor]:
    """The square from -1 to 1; class 1 where the coordinates differ in sign; else as :func:`moons`."""
    def curve(y, rng):
        a, b = rng.uniform(-1, 1, n), rng.uniform(0, 1, n)
        return a, np.where(y, -np.sign(a), np.sign(a)) * b
    return _sample(n, 2, noise, generator, curve)


def _sample(n: int, classes: int, noise: float, generator: Generator | int | None, curve: Callable):
    for name, value in ("n", n), ("classes", classes):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if not 0 <= noise < inf:
        raise ValueError(f"noise must be finite and not negative, got {noise!r}")
    rng = as_generator(generator).numpy
    y = np.arange(n, dtype=np.int64) % classes
    x = np.stack(curve(y, rng), axis=1)
    return Tensor((x + noise * rng.standard_normal(x.shape)).astype(np.float32)), Tensor(y)
