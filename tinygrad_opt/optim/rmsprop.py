"""RMSprop: divide the gradient by its running root mean square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import sqrt
from ..tensor import Tensor
from .optimizer import Optimizer


def rmsprop(p, g, v, lr, alpha, eps, weight_decay):
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g ** 2
    p = p - lr * g / (sqrt(v) + eps)
    return p, v


def rmsprop_momentum(p, g, v, b, lr, alpha, eps, weight_decay, momentum):
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g ** 2
    b = momentum * b + g / (sqrt(v) + eps)
    p = p - lr * b
    return p, v, b


def centered(p, g, v, m, lr, alpha, eps, weight_decay):
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g ** 2
    m = alpha * m + (1 - alpha) * g
    p = p - lr * g / (sqrt(v - m ** 2) + eps)
    return p, v, m


def centered_momentum(p, g, v, m, b, lr, alpha, eps, weight_decay, momentum):
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g ** 2
    m = alpha * m + (1 - alpha) * g
    b = momentum * b + g / (sqrt(v - m ** 2) + eps)
    p = p - lr * b
    return p, v, m, b


class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton, Coursera lecture 6e, 2012); centered (Graves, arXiv 1308.0850, 2013).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-2
        Learning rate, at least 0.
    alpha : float, default 0.99
        How much of the mean square is kept, at least 0.
    eps : float, default 1e-8
        Added to the root, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    momentum : float, default 0
        How much of the last direction is kept, at least 0.
    centered : bool, default False
        Divide by the standard deviation in place of the root mean square.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: recurrent networks and reinforcement learning, where gradients change their size and a memory of their
    direction may mislead. Half the state of Adam. Begin with lr 0.001; PyTorch's default 0.01 is often too large.

    Elsewhere: optax keeps 0.9 of the mean square and adds eps under the root unless told otherwise (`decay=0.99,
    eps_in_sqrt=False` is this one). As in PyTorch nothing keeps the centered mean square from falling below 0 by
    rounding.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.RMSprop([w], lr=0.01)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([1.9000], requires_grad=True)
    """

    state_names = {"v": "square_avg", "m": "grad_avg", "b": "momentum_buffer"}

    def __init__(self, params: Any, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
                 momentum: float = 0, centered: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum,
                                      centered=centered, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: centered or not, with momentum or without."""
        if group["centered"]:
            return centered_momentum if group["momentum"] else centered
        return rmsprop_momentum if group["momentum"] else rmsprop
