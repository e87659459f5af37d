"""Adamax: Adam with the largest gradient in place of the root mean square."""

from __future__ import annotations

from typing import Any

from ..rule import abs, maximum
from .optimizer import Optimizer


class Adamax(Optimizer):
    """Adamax (Kingma & Ba, ICLR 2015, arXiv 1412.6980, section 7).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 2e-3
        Learning rate, at least 0: the largest step of a parameter, but for bias correction.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the largest one, each in [0, 1).
    eps : float, default 1e-8
        Added to the size of each gradient, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: gradients that are mostly small and now and then huge, as those of embeddings: a huge one is forgotten
    slowly, and no square overflows. Begin with lr 0.002.

    Elsewhere: eps is added to the size of the gradient before the maximum is taken, as in PyTorch and optax. MLX
    corrects no bias.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.Adamax([w], lr=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.5000, -29.5000], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "u": "exp_inf"}

    def __init__(self, params: Any, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      maximize=maximize))

    def rule(p, g, m, u, t, lr, beta1, beta2, eps, weight_decay):
        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        u = maximum(beta2 * u, abs(g) + eps)
        p = p - lr / (1 - beta1 ** t) * m / u
        return p, m, u
