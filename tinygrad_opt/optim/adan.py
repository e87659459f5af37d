"""Adan: Nesterov's momentum from the difference of successive gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import sqrt, where
from ..spelling import AdamFamily
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import UNIT


def direction(g, m, d, n, prev, t, lr, beta1, beta2, beta3, eps):
    delta = where(t > 1, g - prev, 0)
    m = beta1 * m + (1 - beta1) * g
    d = beta2 * d + (1 - beta2) * delta
    n = beta3 * n + (1 - beta3) * (g + beta2 * delta) ** 2
    m_hat = m / (1 - beta1 ** t)
    d_hat = d / (1 - beta2 ** t)
    n_hat = n / (1 - beta3 ** t)
    step = lr * (m_hat + beta2 * d_hat) / (sqrt(n_hat) + eps)
    prev = g
    return step, m, d, n, prev


def adan(p, g, m, d, n, prev, t, lr, beta1, beta2, beta3, eps, weight_decay):
    step, m, d, n, prev = direction(g, m, d, n, prev, t, lr, beta1, beta2, beta3, eps)
    p = (p - step) / (1 + lr * weight_decay)
    return p, m, d, n, prev


def adan_no_prox(p, g, m, d, n, prev, t, lr, beta1, beta2, beta3, eps, weight_decay):
    step, m, d, n, prev = direction(g, m, d, n, prev, t, lr, beta1, beta2, beta3, eps)
    p = p * (1 - lr * weight_decay) - step
    return p, m, d, n, prev


class Adan(AdamFamily, Optimizer):
    """Adan (Xie, Zhou, Li, Lin & Yan, TPAMI 2024, arXiv 2208.06677).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : (float, float, float), default (0.98, 0.92, 0.99)
        How much is kept of the mean gradient, of the mean difference and of the mean square, each in [0, 1), as
        in the authors' code; the paper's are 1 minus these.
    eps : float, default 1e-8
        Added to the root after bias correction, at least 0.
    weight_decay : float, default 0
        The share of lr by which a parameter shrinks at each step, at least 0: after the step, by division.
    no_prox : bool, default False
        Shrink before the step, by multiplication, as AdamW does.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: vision and language models in large batches; it bears rates several times those of AdamW, for four arrays
    of state, twice Adam's. Begin with lr 0.001.

    Elsewhere: optax weights the difference of gradients in the mean square by 1 - beta2, 0.08 with the defaults,
    where the paper and the authors' code have 0.92.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.Adan([w], lr=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.5000, -29.5000], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "d": "exp_avg_diff", "n": "exp_avg_sq"}
    ranges = {"betas": (UNIT, UNIT, UNIT)}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
                 eps: float = 1e-8, weight_decay: float = 0.0, no_prox: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, no_prox=no_prox,
                                      maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: decay after the step, or before it."""
        return adan_no_prox if group["no_prox"] else adan
