"""Embedding: a table with a row for each index."""

from __future__ import annotations

from typing import Any

from ..creation import empty
from ..random import Generator
from ..tensor import Tensor, float32
from . import init
from .functional import embedding
from .linear import _positive
from .module import Module
from .parameter import Parameter


class Embedding(Module):
    """A learned vector for each of num_embeddings indices, drawn from the normal distribution.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table, at least 1.
    padding_idx : int, optional
        A row that starts at 0 and is not learned; negative ones count from the end.
    dtype : dtype, default float32
    generator : Generator, optional
        Where the initial values are drawn from; the default one when not given.

    Attributes
    ----------
    weight : Parameter, shape (num_embeddings, embedding_dim)

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> words = tg.nn.Embedding(10, 3, padding_idx=0)
    >>> words(tg.tensor([[1, 2, 0, 0]])).shape
    (1, 4, 3)
    >>> words(tg.tensor(0)).tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *,
                 dtype: Any = float32, generator: Generator | None = None) -> None:
        super().__init__()
        self.num_embeddings = _positive("num_embeddings", num_embeddings)
        self.embedding_dim = _positive("embedding_dim", embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"padding_idx must be one of the {num_embeddings} rows, got {padding_idx}")
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
        self.weight = Parameter(empty(num_embeddings, embedding_dim, dtype=dtype))
        self.reset_parameters(generator)

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True,
                        padding_idx: int | None = None) -> Embedding:
        """Return an Embedding with a copy of a given table, which is learned further unless frozen.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> tg.nn.Embedding.from_pretrained([[1.0, 2.0], [3.0, 4.0]])(tg.tensor(1)).tolist()
        [3.0, 4.0]
        """
        table = Tensor(embeddings)
        layer = cls(*table.shape, padding_idx, dtype=table.dtype)
        layer.weight.data = table
        return layer.requires_grad_(not freeze)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Draw new values."""
        init.normal_(self.weight, generator=generator)
        if self.padding_idx is not None:
            self.weight.detach()[self.padding_idx] = 0

    def forward(self, indices: Any) -> Tensor:
        """Return the rows of integer indices of any shape: indices.shape + (embedding_dim,)."""
        return embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
