"""Randomness: only through a generator, so that the same seed gives the same bits on every backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Generator", "manual_seed", "default_generator"]


class Generator:
    """A seeded source of random numbers, drawn on the host by NumPy's PCG64.

    Parameters
    ----------
    seed : int, optional
        At least 0; from the operating system's entropy when not given.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> a, b = tg.Generator(1), tg.Generator(1)
    >>> bool((tg.randn(3, generator=a) == tg.randn(3, generator=b)).all())
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        import numpy.random  # not with the package: it takes longer than all the rest
        self.numpy = numpy.random.default_rng(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start over from a seed and return the generator."""
        self.__init__(seed)
        return self

    def permutation(self, n: int) -> Any:
        """Return 0 to n - 1 in random order, as a NumPy array."""
        return self.numpy.permutation(n)

    def get_state(self) -> dict[str, Any]:
        """Return the state as a plain dict, which `tg.save` can write."""
        return self.numpy.bit_generator.state

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state that `get_state` returned."""
        self.numpy.bit_generator.state = state


_default: list[Generator] = []
_own = threading.local()                            # of a thread that has a generator of its own


def default_generator() -> Generator:
    """Return the generator that is used where none is given."""
    if getattr(_own, "generator", None) is not None:
        return _own.generator
    if not _default:
        _default.append(Generator())
    return _default[0]


@contextmanager
def own_generator(seed: int | None) -> Iterator[Generator]:
    """Give this thread a default generator of its own inside: other threads do not take from it."""
    before = getattr(_own, "generator", None)
    _own.generator = Generator(seed)
    try:
        yield _own.generator
    finally:
        _own.generator = before


def manual_seed(seed: int) -> Generator:
    """Seed the default generator and return it.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> _ = tg.manual_seed(0)
    >>> a = tg.rand(2)
    >>> _ = tg.manual_seed(0)
    >>> bool((tg.rand(2) == a).all())
    True
    """
    return default_generator().manual_seed(seed)
