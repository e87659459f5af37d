"""LARS and LAMB: every tensor steps in proportion to its own norm, for batches of tens of thousands."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from ..rule import global_norm, maximum, minimum, norm, sqrt, where
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import moments
from .optimizer import Optimizer
from .ranges import Range
from .sgd import SGD, heavy_ball, nesterov


def lars_gradient(p, g, weight_decay, trust_coefficient, eps):
    size = norm(p)
    slope = norm(g)
    ratio = where((size > 0) & (slope > 0), trust_coefficient * size / (slope + weight_decay * size + eps), 1)
    g = ratio * (g + weight_decay * p)
    return g


def lars(p, g, b, t, lr, momentum, dampening, weight_decay, trust_coefficient, eps):
    g = lars_gradient(p, g, weight_decay, trust_coefficient, eps)
    return heavy_ball(p, g, b, t, lr, momentum, dampening)


def lars_nesterov(p, g, b, t, lr, momentum, dampening, weight_decay, trust_coefficient, eps):
    g = lars_gradient(p, g, weight_decay, trust_coefficient, eps)
    return nesterov(p, g, b, t, lr, momentum, dampening)


def lars_plain(p, g, lr, weight_decay, trust_coefficient, eps):
    g = lars_gradient(p, g, weight_decay, trust_coefficient, eps)
    p = p - lr * g
    return p


class LARS(SGD):
    """LARS (You, Gitman & Ginsburg, 2017, arXiv 1708.03888): SGD whose gradients are scaled to the weights, by tensor.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        Learning rate, at least 0.
    momentum : float, default 0.9
        How much of the last direction is kept, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient before it is scaled; its norm counts in the ratio as in the
        paper, `|g| + weight_decay |p|`, where optax has `|g + weight_decay p|`.
    dampening : float, default 0
        The gradient enters the momentum times 1 - dampening, but wholly at the first step.
    trust_coefficient : float, default 0.001
        The share of its own norm by which a tensor moves at lr 1, above 0.
    eps : float, default 1e-8
        Added to the norms below the fraction, at least 0.
    nesterov : bool, default False
        Look ahead along the momentum; needs momentum > 0 and dampening 0.
    exclude_1d : bool, default False
        Leave tensors of fewer than two axes, biases and norms, to plain SGD.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: convolutional networks in batches of thousands, with a warm-up. Begin with lr 1 and leave biases and norms
    out by exclude_1d. In small batches SGD is as good.

    Elsewhere: without decay timm and optax agree with this one. Some collections leave out tensors of one axis
    without being asked, or begin the momentum with a gradient that is not scaled.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.LARS([w], trust_coefficient=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([2.7000, 3.6000], requires_grad=True)
    """

    ranges = {"trust_coefficient": Range("(0, inf)")}

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0,
                 dampening: float = 0.0, trust_coefficient: float = 0.001, eps: float = 1e-8, nesterov: bool = False,
                 exclude_1d: bool = False, *, maximize: bool = False) -> None:
        Optimizer.__init__(self, params, dict(
            lr=lr, momentum=momentum, weight_decay=weight_decay, dampening=dampening, nesterov=nesterov, eps=eps,
            trust_coefficient=trust_coefficient, exclude_1d=exclude_1d, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a parameter: with its ratio or, where it is excluded, SGD's."""
        if group["exclude_1d"] and p.ndim < 2:
            return super().rule_for(group, p)
        return lars_plain if not group["momentum"] else lars_nesterov if group["nesterov"] else lars


def corrected(m, v, t, beta1, beta2, eps):
    u = m / (1 - beta1 ** t) / (sqrt(v / (1 - beta2 ** t)) + eps)
    return u


def uncorrected(m, v, t, beta1, beta2, eps):
    u = m / (sqrt(v) + eps)
    return u


def free(p, u):
    size = norm(p)
    length = norm(u)
    ratio = where((size > 0) & (length > 0), size / length, 1)
    return ratio


def limited(p, u):
    ratio = free(p, u)
    ratio = minimum(ratio, 1)
    return ratio


@cache
def lamb_with(direction, trust):
    """Return the two rules with a direction and a trust ratio: without and with a limit to the common norm."""
    def lamb(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
        m, v = moments(g, m, v, beta1, beta2)
        u = direction(m, v, t, beta1, beta2, eps)
        u = u + weight_decay * p
        ratio = trust(p, u)
        p = p - lr * ratio * u
        return p, m, v

    def lamb_clipped(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay, max_grad_norm):
        g = g / maximum(1, global_norm(g) / max_grad_norm)
        return lamb(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay)
    return lamb, lamb_clipped


class LAMB(AdamFamily, Optimizer):
    """LAMB (You et al., ICLR 2020, arXiv 1904.00962): AdamW whose steps are scaled to the weights, by tensor.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0: the share of its own norm by which a tensor moves.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    eps : float, default 1e-6
        Added to the root after bias correction, at least 0.
    weight_decay : float, default 0
        Added, times the parameter, to the step before it is scaled; at least 0.
    bias_correction : bool, default True
        Divide both means by what they lack in the first steps.
    max_grad_norm : float, optional
        Scale all gradients together so that their common norm is at most this, above 0.
    trust_clip : bool, default False
        Let no ratio exceed 1.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: transformers in batches of thousands, where AdamW's one rate for all layers diverges. Begin with lr 0.001
    and raise it with the root of the batch. In small batches AdamW is as good.

    Elsewhere: timm decays by 0.01 and clips the common norm of the gradients to 1 unless told otherwise:
    weight_decay=0.01 and max_grad_norm=1 here. Some collections correct only the first bias, and keep the decay
    outside the ratio.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.LAMB([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([2.6464, 3.6464], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}
    ranges = {"max_grad_norm": Range("(0, inf]")}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
                 weight_decay: float = 0.0, bias_correction: bool = True, max_grad_norm: float | None = None,
                 trust_clip: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, bias_correction=bias_correction,
            max_grad_norm=math.inf if max_grad_norm is None else max_grad_norm, trust_clip=trust_clip,
            maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: its direction, its ratio, and whether the common norm is limited."""
        rules = lamb_with(corrected if group["bias_correction"] else uncorrected,
                          limited if group["trust_clip"] else free)
        return rules[group["max_grad_norm"] < math.inf]
