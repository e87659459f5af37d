"""NAdam: Adam that looks ahead along its mean gradient, as Nesterov's momentum does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import sqrt
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import moments
from .optimizer import Optimizer
from .ranges import NONNEGATIVE


def nadam(p, g, m, v, mu_product, t, lr, beta1, beta2, eps, momentum_decay):
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    mu_product = mu_product * mu
    m, v = moments(g, m, v, beta1, beta2)
    d = sqrt(v / (1 - beta2 ** t)) + eps
    p = p - lr * (1 - mu) / (1 - mu_product) * g / d
    p = p - lr * mu_next / (1 - mu_product * mu_next) * m / d
    return p, m, v, mu_product


def nadam_l2(p, g, m, v, mu_product, t, lr, beta1, beta2, eps, momentum_decay, weight_decay):
    g = g + weight_decay * p
    return nadam(p, g, m, v, mu_product, t, lr, beta1, beta2, eps, momentum_decay)


def nadamw(p, g, m, v, mu_product, t, lr, beta1, beta2, eps, momentum_decay, weight_decay):
    p = p * (1 - lr * weight_decay)
    return nadam(p, g, m, v, mu_product, t, lr, beta1, beta2, eps, momentum_decay)


class NAdam(AdamFamily, Optimizer):
    """NAdam (Dozat, ICLR workshop 2016), as in PyTorch with the paper's schedule of the momentum.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 2e-3
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    eps : float, default 1e-8
        Added to the root after bias correction, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    momentum_decay : float, default 4e-3
        How fast the momentum rises from half of beta1 to beta1, at least 0.
    decoupled_weight_decay : bool, default False
        Shrink the parameters instead, as AdamW does.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as Adam, where its first steps are to be quicker: it looks ahead along the mean gradient. Same state, same
    lr: begin with 0.001 to 0.002.

    Elsewhere: two methods bear this name. PyTorch's, which this is, lets the momentum rise by momentum_decay;
    optax's keeps it constant. They meet at momentum_decay=1e9.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.NAdam([w], lr=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.4718, -29.4718], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}
    ranges = {"momentum_decay": NONNEGATIVE}

    def __init__(self, params: Any, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
                 decoupled_weight_decay: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      maximize=maximize, momentum_decay=momentum_decay,
                                      decoupled_weight_decay=decoupled_weight_decay))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with decay coupled or decoupled."""
        return nadamw if group["decoupled_weight_decay"] else nadam_l2

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> float:
        """Return 1 for the product of the momenta so far, 0 for the rest."""
        return 1.0 if name == "mu_product" else 0.0
