"""Tape: a stretch of the record with a beginning and an end, which hands out gradients."""

from __future__ import annotations

import math
from typing import Any

from .autograd import backward, leaves
from .tensor import Tensor, mode, serial


class Tape:
    """Record what is computed inside `with tape:`, also under `no_grad`, and go back through it.

    Tensors are recorded without a Tape too, and `loss.backward()` is all that training needs. A Tape says where
    a record begins and ends, and hands out the gradients.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
    >>> with tg.Tape() as tape:
    ...     loss = (w ** 2).sum()
    >>> grads = tape.backward(loss)
    >>> grads[w], grads[w] is w.grad
    (tensor([ 2., -4.]), True)
    """

    def __init__(self) -> None:
        self._first = self._last = math.inf         # numbers of the calls in between are on this tape
        self._outside: list[bool] = []              # whether calls were recorded, for each `with` that is open

    def __enter__(self) -> Tape:
        self._outside.append(mode.recording)
        mode.recording = True
        self._first, self._last = next(serial), math.inf
        return self

    def __exit__(self, *error: Any) -> None:
        mode.recording = self._outside.pop()
        self._last = next(serial)

    def backward(self, loss: Tensor) -> dict[Tensor, Tensor]:
        """Accumulate the gradient of a loss in the `.grad` of every leaf that it depends on, and return these.

        Parameters
        ----------
        loss : Tensor
            A scalar that was computed inside `with tape:`; what it was computed from may be older.

        Returns
        -------
        dict
            leaf -> its `.grad`.

        Raises
        ------
        RuntimeError
            When the loss is not on this tape, depends on nothing that requires a gradient, or is no scalar.
        """
        node = getattr(loss, "_node", None)
        if node is None or not self._first < node.serial < self._last:
            raise RuntimeError("backward: the loss is not on this Tape; compute it inside `with tape:`, from a Tensor "
                               "with requires_grad=True")
        reached = leaves(loss)
        backward(loss)
        return {leaf: leaf.grad for leaf in reached}
