"""AdaBound: Adam at first, SGD in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import maximum, minimum, sqrt
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import moments
from .optimizer import Optimizer
from .ranges import NONNEGATIVE, Range


def bounded_step(p, m, v, t, lr, beta1, beta2, eps, final_lr, gamma):
    rate = lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t) / (sqrt(v) + eps)
    low = final_lr * (1 - 1 / (gamma * t + 1))
    high = final_lr * (1 + 1 / (gamma * t))
    p = p - minimum(maximum(rate, low), high) * m
    return p


def adabound(p, g, m, v, t, lr, beta1, beta2, eps, final_lr, gamma, weight_decay):
    g = g + weight_decay * p
    m, v = moments(g, m, v, beta1, beta2)
    p = bounded_step(p, m, v, t, lr, beta1, beta2, eps, final_lr, gamma)
    return p, m, v


def amsbound(p, g, m, v, v_max, t, lr, beta1, beta2, eps, final_lr, gamma, weight_decay):
    g = g + weight_decay * p
    m, v = moments(g, m, v, beta1, beta2)
    v_max = maximum(v_max, v)
    p = bounded_step(p, m, v_max, t, lr, beta1, beta2, eps, final_lr, gamma)
    return p, m, v, v_max


class AdaBound(AdamFamily, Optimizer):
    """AdaBound and AMSBound (Luo, Xiong, Liu & Sun, ICLR 2019, OpenReview Bkg3g2R9FX).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate of the beginning, at least 0.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    final_lr : float, default 0.1
        Learning rate of the end, at least 0. The bounds close in on it whatever lr does, as in the paper; a
        schedule should set it together with lr.
    gamma : float, default 1e-3
        How fast they close, in (0, 1).
    eps : float, default 1e-8
        Added to the root before bias correction, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    amsbound : bool, default False
        Divide by the largest mean square so far.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: a quick start like Adam's and an end like SGD's without a switch between the two. It needs both rates:
    begin with lr 0.001 and final_lr 0.1, or what SGD would take.

    Elsewhere: the authors' code lets final_lr follow a schedule of lr; here, as in the paper, it stands.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.AdaBound([w], lr=0.01, gamma=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.9867, -29.8000], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}
    ranges = {"final_lr": NONNEGATIVE, "gamma": Range("(0, 1)")}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 final_lr: float = 0.1, gamma: float = 1e-3, eps: float = 1e-8, weight_decay: float = 0,
                 amsbound: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, final_lr=final_lr, gamma=gamma, eps=eps,
                                      weight_decay=weight_decay, amsbound=amsbound, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with or without the running maximum."""
        return amsbound if group["amsbound"] else adabound
