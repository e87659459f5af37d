"""NovoGrad: one mean square for a whole tensor, so that its state is hardly more than momentum's."""

from __future__ import annotations

from typing import Any

from ..rule import norm, sqrt
from ..spelling import AdamFamily
from .optimizer import Optimizer


class NovoGrad(AdamFamily, Optimizer):
    """NovoGrad (Ginsburg et al., 2019, arXiv 1905.11286).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.25)
        How much is kept of the last direction and of the tensor's squared norm, each in [0, 1).
    eps : float, default 1e-8
        Added to the norm, at least 0.
    weight_decay : float, default 0
        Added, times the parameter, to the scaled gradient; at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: speech and other networks in large batches: the state of SGD with momentum, and for each tensor one number.
    Begin with lr 0.01.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.NovoGrad([w], lr=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w, optimizer.state[w]["exp_avg_sq"]
    (tensor([2.7000, 3.6000], requires_grad=True), 100.0)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.25), eps: float = 1e-8,
                 weight_decay: float = 0.0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize))

    def rule(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
        v = beta2 * v + (1 - beta2) * norm(g) ** 2 if t > 1 else norm(g) ** 2
        m = beta1 * m + (g / (sqrt(v) + eps) + weight_decay * p)
        p = p - lr * m
        return p, m, v
