"""AdaBelief: step by how far the gradient is from what was expected."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..rule import maximum, sqrt, where
from ..tensor import Tensor
from .adam import adam_step
from .optimizer import Optimizer
from .radam import rectification


def l2(p, g, lr, weight_decay):
    g = g + weight_decay * p
    return p, g


def decoupled(p, g, lr, weight_decay):
    p = p * (1 - lr * weight_decay)
    return p, g


def belief(g, m, s, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
    return m, s


def rectified_step(p, m, s, t, lr, beta1, beta2, eps):
    m_hat = m / (1 - beta1 ** t)
    rho, r = rectification(t, beta2)
    p = p - lr * m_hat * where(rho >= 5, r * sqrt(1 - beta2 ** t) / (sqrt(s) + eps), 1)
    return p


@cache
def plain(decay, step):
    def adabelief(p, g, m, s, t, lr, beta1, beta2, eps, weight_decay):
        p, g = decay(p, g, lr, weight_decay)
        m, s = belief(g, m, s, beta1, beta2, eps)
        p = step(p, m, s, t, lr, beta1, beta2, eps)
        return p, m, s
    return adabelief


@cache
def amsgrad(decay, step):
    def adabelief(p, g, m, s, s_max, t, lr, beta1, beta2, eps, weight_decay):
        p, g = decay(p, g, lr, weight_decay)
        m, s = belief(g, m, s, beta1, beta2, eps)
        s_max = maximum(s_max, s)
        p = step(p, m, s_max, t, lr, beta1, beta2, eps)
        return p, m, s, s_max
    return adabelief


class AdaBelief(Optimizer):
    """AdaBelief (Zhuang et al., NeurIPS 2020, arXiv 2010.07468).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square of the surprise, each in [0, 1).
    eps : float, default 1e-16
        Added to the mean square at every step, so that it gathers there, and to the root; at least 0.
    weight_decay : float, default 0
        The share of lr by which a parameter shrinks at each step, at least 0.
    amsgrad : bool, default False
        Divide by the largest mean square so far, taken before bias correction.
    weight_decouple : bool, default True
        False adds the decay to the gradient instead.
    rectify : bool, default False
        Wait as RAdam does; the authors' code has True, optax has no such option.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as Adam, with longer steps where gradients agree with each other; worth a try where Adam generalises less
    well than SGD. eps matters more than in Adam. Begin with lr 0.001.

    Elsewhere: the authors' code rectifies by default, optax never does; eps enters the stored mean square at every
    step in both. Some collections go different ways with their fast and their plain code.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.AdaBelief([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.8889, -29.8889], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "s": "exp_avg_var", "s_max": "max_exp_avg_var"}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-16, weight_decay: float = 0, amsgrad: bool = False,
                 weight_decouple: bool = True, rectify: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                                      weight_decouple=weight_decouple, rectify=rectify, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group, made of its decay and its step."""
        make = amsgrad if group["amsgrad"] else plain
        decay = decoupled if group["weight_decouple"] else l2
        return make(decay, rectified_step if group["rectify"] else adam_step)
