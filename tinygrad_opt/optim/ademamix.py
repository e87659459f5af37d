"""AdEMAMix: Adam with a second mean gradient that remembers for a long time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import exp, log, sqrt
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import moments
from .optimizer import Optimizer
from .ranges import NONNEGATIVE, UNIT


def ademamix(p, g, m, m_slow, v, t, lr, beta1, beta2, beta3, alpha, eps, weight_decay):
    m, v = moments(g, m, v, beta1, beta2)
    m_slow = beta3 * m_slow + (1 - beta3) * g
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * ((m_hat + alpha * m_slow) / (sqrt(v_hat) + eps) + weight_decay * p)
    return p, m, m_slow, v


def warming(p, g, m, m_slow, v, t, lr, beta1, beta2, beta3, alpha, beta3_warmup, alpha_warmup, eps, weight_decay):
    alpha = alpha * t / alpha_warmup if t < alpha_warmup else alpha
    a = t / beta3_warmup if t < beta3_warmup else 1
    beta3 = exp(log(beta1) * log(beta3) / ((1 - a) * log(beta3) + a * log(beta1))) if a < 1 else beta3
    return ademamix(p, g, m, m_slow, v, t, lr, beta1, beta2, beta3, alpha, eps, weight_decay)


class AdEMAMix(AdamFamily, Optimizer):
    """AdEMAMix (Pagliardini, Ablin & Grangier, ICLR 2025, arXiv 2409.03137).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : (float, float, float), default (0.9, 0.999, 0.9999)
        How much is kept of the fast mean gradient, of the mean square and of the slow mean gradient, each in
        [0, 1). The slow mean has no bias correction.
    alpha : float, default 2.0
        The weight of the slow mean, at least 0.
    beta3_warmup : float, optional
        For so many steps beta3 rises from beta1, evenly in its half-life. Needs beta1 and beta3 above 0.
    alpha_warmup : float, optional
        For so many steps alpha rises from 0.
    eps : float, default 1e-8
        Added to the root after bias correction, at least 0.
    weight_decay : float, default 0
        The share of lr by which a parameter shrinks at each step, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: long runs of language models, in which old gradients still tell something. Take both warm-ups as long as
    the run: without them the slow mean unsettles the beginning. One array more than Adam. Begin with AdamW's lr,
    0.001.

    Elsewhere: optax's alpha is 5. The authors' code adds 1e-8 to the betas inside the logarithms of the warm-up,
    which the paper does not and this does not. Some collections correct the bias of the slow mean.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.AdEMAMix([w], lr=0.5, alpha=100)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.4950, -29.4950], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "m_slow": "exp_avg_slow", "v": "exp_avg_sq"}
    ranges = {"betas": (UNIT, UNIT, UNIT), "beta3_warmup": NONNEGATIVE, "alpha_warmup": NONNEGATIVE}

    def __init__(self, params: Any, lr: float = 1e-3,
                 betas: tuple[float, float, float] = (0.9, 0.999, 0.9999), alpha: float = 2.0,
                 beta3_warmup: float | None = None, alpha_warmup: float | None = None, eps: float = 1e-8,
                 weight_decay: float = 0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, alpha=alpha, beta3_warmup=beta3_warmup or 0,
                                      alpha_warmup=alpha_warmup or 0, eps=eps, weight_decay=weight_decay,
                                      maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        beta1, _, beta3 = group["betas"]
        if group["beta3_warmup"] and not (beta1 and beta3):
            raise ValueError("AdEMAMix: beta3_warmup needs beta1 and beta3 above 0, whose half-life it takes, got "
                             f"{beta1} and {beta3}")

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with or without warm-up."""
        return warming if group["beta3_warmup"] or group["alpha_warmup"] else ademamix
