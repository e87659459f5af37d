"""Dropout: noise that a network learns to live with."""

from __future__ import annotations

from ..ops import dropout
from ..random import Generator
from ..tensor import Tensor
from .module import Module


class Dropout(Module):
    """In training, set each number to 0 with probability p and divide the others by 1 - p.

    Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.

    Parameters
    ----------
    p : float, default 0.5
        From 0 to 1.
    generator : Generator, optional
        Where the random numbers come from; the default one when not given.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> drop = tg.nn.Dropout(0.5)
    >>> sorted(set(drop(tg.ones(100)).tolist()))
    [0.0, 2.0]
    >>> drop.eval()(tg.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability between 0 and 1, got {p}")
        self.p, self.generator = p, generator

    def forward(self, x: Tensor) -> Tensor:
        """Return x with numbers dropped in training, x itself otherwise."""
        return dropout(x, self.p, self.training, self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"
