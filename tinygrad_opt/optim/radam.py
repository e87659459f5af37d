"""RAdam: Adam that waits until its mean square can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import sqrt, where
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import moments
from .optimizer import Optimizer


def rectification(t, beta2):
    """How many squares the mean of t of them is worth, and what mends its root (Liu et al., 2020)."""
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2 ** t / (1 - beta2 ** t)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) if rho > 4 else 0
    return rho, r


def radam(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    m_hat = m / (1 - beta1 ** t)
    rho, r = rectification(t, beta2)
    p = p - lr * m_hat * where(rho > 5, r * sqrt(1 - beta2 ** t) / (sqrt(v) + eps), 1)
    return p, m, v


def radam_l2(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    g = g + weight_decay * p
    return radam(p, g, m, v, t, lr, beta1, beta2, eps)


def radamw(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    p = p * (1 - lr * weight_decay)
    return radam(p, g, m, v, t, lr, beta1, beta2, eps)


class RAdam(AdamFamily, Optimizer):
    """Rectified Adam (Liu et al., ICLR 2020, arXiv 1908.03265).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0. The first steps (5 with the default betas) are lr times the mean gradient.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    eps : float, default 1e-8
        Added to the root before bias correction, as in PyTorch; at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    decoupled_weight_decay : bool, default False
        Shrink the parameters instead, as AdamW does.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as Adam, without a warm-up to tune: until the mean square can be trusted it takes steps of plain momentum,
    as large as the gradients themselves. Begin with lr 0.001.

    Elsewhere: PyTorch adds eps to the root before bias correction, optax after it.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.RAdam([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.6000, -24.0000], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      maximize=maximize, decoupled_weight_decay=decoupled_weight_decay))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with decay coupled or decoupled."""
        return radamw if group["decoupled_weight_decay"] else radam_l2
