"""DAdaptSGD, DAdaptAdam and Prodigy: they estimate how far away the minimum is, and step accordingly."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

from ..rule import abs, global_dot, global_norm, global_total, maximum, minimum, sqrt
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import moments
from .optimizer import Optimizer
from .ranges import POSITIVE, UNIT, Range

# The distance and its parts belong to all parameters together, so they live in the groups.
RANGES = {"d0": POSITIVE, "growth_rate": Range("(1, inf]"), "d_coef": POSITIVE, "beta3": UNIT}


class DAdaptSGD(Optimizer):
    """SGD with D-adaptation (Defazio & Mishchenko, ICML 2023, arXiv 2301.07733): no rate to tune.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        What the estimated rate is multiplied by, at least 0; a schedule may change it.
    momentum : float, default 0
        How much of the last point is kept, in [0, 1).
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    d0 : float, default 1e-6
        The first estimate of the distance to the minimum, above 0; too small costs a few steps.
    growth_rate : float, default inf
        By how much the estimate may grow in a step, above 1.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: convolutional networks without a rate to tune: leave lr at 1 and lower it by a schedule. The estimate of
    the distance only grows, so that a bad start may leave it too large.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.DAdaptSGD([w])
    >>> for _ in range(40):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> 1 < optimizer.param_groups[0]["d"] < 5            # the true distance
    True
    """

    ranges = {**RANGES, "momentum": UNIT}

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = 0.0, weight_decay: float = 0,
                 d0: float = 1e-6, growth_rate: float = math.inf, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, d0=d0,
                                      growth_rate=growth_rate, d=d0, numerator=0.0, g0=0.0, maximize=maximize))

    def rule(p, g, s, x0, d, numerator, g0, lr, momentum, weight_decay, growth_rate):
        g0 = g0 if g0 > 0 else global_norm(g)
        g = g + weight_decay * p
        rate = d * lr / g0 if g0 > 0 else 0
        numerator = numerator + rate * global_dot(g, s)
        s = s + rate * g
        length = global_norm(s)
        d_hat = 2 * numerator / length if length > 0 else d
        d = maximum(d, minimum(d_hat, d * growth_rate))
        p = momentum * p + (1 - momentum) * (x0 - s)
        return p, s, x0, d, numerator, g0

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return the start of the parameter itself, and 0 for the sum of steps."""
        return p if name == "x0" else 0.0


def plain_rate(d, t, lr, beta1, beta2):
    rate = d * lr
    return rate


def corrected_rate(d, t, lr, beta1, beta2):
    rate = d * lr * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
    return rate


def coupled(p, g, rate, weight_decay):
    g = g + weight_decay * p
    return p, g


def decoupled(p, g, rate, weight_decay):
    p = p - rate * weight_decay * p
    return p, g


@cache
def dadapt_adam_with(rate_of, decouple):
    """Return the rule with a rate and a weight decay."""
    decay = decoupled if decouple else coupled

    def dadapt_adam(p, g, m, v, s, d, numerator, t, lr, beta1, beta2, eps, weight_decay, growth_rate):
        rate = rate_of(d, t, lr, beta1, beta2)
        p, g = decay(p, g, rate, weight_decay)
        beta = sqrt(beta2)
        numerator = beta * numerator + (1 - beta) * rate * global_dot(g, s / (sqrt(v) + eps))
        m = beta1 * m + (1 - beta1) * rate * g
        v = beta2 * v + (1 - beta2) * g ** 2
        s = beta * s + (1 - beta) * rate * g
        length = global_total(abs(s))
        d_hat = numerator / ((1 - beta) * length) if length > 0 else d
        d = maximum(d, minimum(d_hat, d * growth_rate))
        p = p - m / (sqrt(v) + eps)
        return p, m, v, s, d, numerator
    return dadapt_adam


class DAdaptAdam(AdamFamily, Optimizer):
    """Adam with D-adaptation (Defazio & Mishchenko, ICML 2023, arXiv 2301.07733): no rate to tune.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        What the estimated rate is multiplied by, at least 0; a schedule may change it.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean step and of the mean square, each in [0, 1).
    eps : float, default 1e-8
        Added to the root, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    decouple : bool, default False
        Shrink the parameters instead, as AdamW does.
    use_bias_correction : bool, default False
        Correct the rate for what the means lack in the first steps.
    d0 : float, default 1e-6
        The first estimate of the distance to the minimum, above 0.
    growth_rate : float, default inf
        By how much the estimate may grow in a step, above 1.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: networks for which one would take Adam, without a rate to tune: leave lr at 1 and lower it by a schedule.
    Prodigy is its successor and mostly the better choice.

    Elsewhere: optax always corrects the bias and decouples the decay; the authors' defaults, and these, do neither.
    Some collections multiply by the norm by which the method divides.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.DAdaptAdam([w])
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> bool((abs(w) < 1e-3).all())
    True
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}
    ranges = RANGES

    def __init__(self, params: Any, lr: float = 1.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, decouple: bool = False, use_bias_correction: bool = False,
                 d0: float = 1e-6, growth_rate: float = math.inf, *, maximize: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decouple=decouple,
            use_bias_correction=use_bias_correction, d0=d0, growth_rate=growth_rate, d=d0, numerator=0.0,
            maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: its rate, and its weight decay."""
        return dadapt_adam_with(corrected_rate if group["use_bias_correction"] else plain_rate, bool(group["decouple"]))


def by_rate(d, rate):
    weight = rate
    return weight


def by_distance(d, rate):
    weight = d
    return weight


@cache
def prodigy_with(rate_of, decouple, weigh):
    """Return the rule with a rate, a weight decay and what weighs the gradients in the denominator."""
    decay = decoupled if decouple else coupled

    def prodigy(p, g, m, v, s, x0, d, d_max, d_numerator, t, lr, beta1, beta2, beta3, eps, weight_decay, d0, d_coef,
                growth_rate):
        rate = rate_of(d, t, lr, beta1, beta2)
        old = p
        p, g = decay(p, g, rate, weight_decay)
        d_numerator = beta3 * d_numerator + d / d0 * rate * global_dot(g, x0 - old)
        m, v = moments(d * g, m, v, beta1, beta2)
        weight = weigh(d, rate)
        s = beta3 * s + d / d0 * weight * g
        length = global_total(abs(s))
        d_hat = d_coef * d_numerator / length if length > 0 else d
        d = maximum(d, d_hat) if d == d0 else d
        d_max = maximum(d_max, d_hat)
        d = minimum(d_max, d * growth_rate)
        p = p - rate * m / (sqrt(v) + d * eps)
        return p, m, v, s, x0, d, d_max, d_numerator
    return prodigy


class Prodigy(AdamFamily, Optimizer):
    """Prodigy (Mishchenko & Defazio, ICML 2024, arXiv 2306.06101): Adam with no rate to tune.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        What the estimated rate is multiplied by, at least 0; a schedule may change it.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    beta3 : float, optional
        How much the sums behind the estimate keep, in [0, 1); the root of beta2 if not given.
    eps : float, default 1e-8
        Added, times the estimate, to the root, at least 0.
    weight_decay : float, default 0
        The share of the rate by which a parameter shrinks at each step, at least 0.
    decouple : bool, default True
        False adds weight decay to the gradient instead.
    use_bias_correction : bool, default False
        Correct the rate for what the means lack in the first steps.
    safeguard_warmup : bool, default False
        Leave lr out of the denominator of the estimate, for a schedule that begins near 0.
    d0 : float, default 1e-6
        The first estimate of the distance to the minimum, above 0.
    d_coef : float, default 1.0
        What the estimate is multiplied by, above 0.
    growth_rate : float, default inf
        By how much the estimate may grow in a step, above 1.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: networks for which one would take AdamW, without a rate to tune: leave lr at 1 and lower it by a cosine;
    where the estimate comes out wrong, change d_coef. Twice the state of AdamW.

    Elsewhere: optax always corrects the bias; the authors' default, and this one, does not.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.Prodigy([w])
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> 1 < optimizer.param_groups[0]["d"] < 5            # the true distance
    True
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq", "x0": "p0"}
    ranges = RANGES

    def __init__(self, params: Any, lr: float = 1.0, betas: tuple[float, float] = (0.9, 0.999),
                 beta3: float | None = None, eps: float = 1e-8, weight_decay: float = 0, decouple: bool = True,
                 use_bias_correction: bool = False, safeguard_warmup: bool = False, d0: float = 1e-6,
                 d_coef: float = 1.0, growth_rate: float = math.inf, *, maximize: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, beta3=betas[1] ** 0.5 if beta3 is None else beta3, eps=eps,
            weight_decay=weight_decay, decouple=decouple, use_bias_correction=use_bias_correction,
            safeguard_warmup=safeguard_warmup, d0=d0, d_coef=d_coef, growth_rate=growth_rate, d=d0, d_max=d0,
            d_numerator=0.0, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: its rate, its weight decay and its safeguard."""
        return prodigy_with(corrected_rate if group["use_bias_correction"] else plain_rate, bool(group["decouple"]),
                            by_distance if group["safeguard_warmup"] else by_rate)

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return the start of the parameter itself, and 0 for the rest."""
        return p if name == "x0" else 0.0
