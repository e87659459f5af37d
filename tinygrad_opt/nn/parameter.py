"""Parameter: a Tensor that a Module counts among what it learns."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor


class Parameter(Tensor):
    """A Tensor that registers itself as a parameter where it becomes an attribute of a Module.

    Parameters
    ----------
    data : array_like
        The initial values; copied, so that nothing is shared with their source.
    requires_grad : bool, default True
        Whether it is learned.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.Parameter(tg.tensor([1.0, 2.0]))
    Parameter containing:
    tensor([1., 2.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
