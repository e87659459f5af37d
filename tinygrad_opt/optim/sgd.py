"""Stochastic gradient descent, with momentum as Polyak and as Nesterov have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer


def heavy_ball(p, g, b, t, lr, momentum, dampening):
    b = momentum * b + (1 - dampening if t > 1 else 1) * g
    p = p - lr * b
    return p, b


def nesterov(p, g, b, t, lr, momentum, dampening):
    b = momentum * b + (1 - dampening if t > 1 else 1) * g
    p = p - lr * (g + momentum * b)
    return p, b


def plain_l2(p, g, lr, weight_decay):
    g = g + weight_decay * p
    p = p - lr * g
    return p


def heavy_ball_l2(p, g, b, t, lr, momentum, dampening, weight_decay):
    g = g + weight_decay * p
    return heavy_ball(p, g, b, t, lr, momentum, dampening)


def nesterov_l2(p, g, b, t, lr, momentum, dampening, weight_decay):
    g = g + weight_decay * p
    return nesterov(p, g, b, t, lr, momentum, dampening)


class SGD(Optimizer):
    """Stochastic gradient descent (Robbins & Monro 1951; Polyak 1964; Nesterov 1983; Sutskever et al., ICML 2013).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0. It stands outside the momentum, as in PyTorch; Keras has it inside.
    momentum : float, default 0
        How much of the last direction is kept, at least 0.
    dampening : float, default 0
        The gradient enters the momentum times 1 - dampening, but wholly at the first step.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    nesterov : bool, default False
        Look ahead along the momentum; needs momentum > 0 and dampening 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: the plain choice, and with momentum 0.9 still the usual one for convolutional networks. It needs a tuned lr
    and a schedule that lowers it, and pays with the least memory of all. Begin with lr 0.1 beside batch
    normalisation, with 0.01 without.

    Elsewhere: Keras and Chainer have lr inside the momentum, which is the same while lr is constant and another
    path under a schedule.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> w
    tensor([0.9200], requires_grad=True)
    """

    state_names = {"b": "momentum_buffer"}

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                                      nesterov=nesterov, maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening = 0, got momentum {group['momentum']} "
                             f"and dampening {group['dampening']}")

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: plain, heavy ball or Nesterov."""
        return plain_l2 if not group["momentum"] else nesterov_l2 if group["nesterov"] else heavy_ball_l2
