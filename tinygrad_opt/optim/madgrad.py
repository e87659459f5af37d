"""MADGRAD: Adagrad with a cube root, stepping from where it began."""

from __future__ import annotations

from typing import Any

from ..rule import cbrt, sqrt
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import UNIT


class MADGRAD(Optimizer):
    """MADGRAD (Defazio & Jelassi, JMLR 23, 2022, arXiv 2101.11075).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-2
        Learning rate, at least 0.
    momentum : float, default 0.9
        How much of the last point is kept, in [0, 1).
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient. The paper advises 0 or very little.
    eps : float, default 1e-6
        Added to the cube root and to lr, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: where Adam generalises less well than SGD, and sparse problems. Its lr must be sought anew, with little or
    no weight decay: begin with 0.01. Three arrays of state.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.MADGRAD([w], lr=0.125, momentum=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([1.8016], requires_grad=True)
    """

    state_names = {"v": "grad_sum_sq"}
    ranges = {"momentum": UNIT}

    def __init__(self, params: Any, lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 0,
                 eps: float = 1e-6, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, eps=eps,
                                      maximize=maximize))

    def rule(p, g, v, s, x0, t, lr, momentum, weight_decay, eps):
        g = g + weight_decay * p
        rate = (lr + eps) * sqrt(t)
        v = v + rate * g ** 2
        s = s + rate * g
        z = x0 - s / (cbrt(v) + eps)
        p = momentum * p + (1 - momentum) * z
        return p, v, s, x0

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return the start of the parameter itself, and 0 for the sums."""
        return p if name == "x0" else 0.0
