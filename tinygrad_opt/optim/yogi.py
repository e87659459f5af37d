"""Yogi: Adam whose mean square moves by additive steps, so that it cannot fall too fast."""

from __future__ import annotations

from typing import Any

from ..rule import sign
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import adam_step
from .optimizer import Optimizer


class Yogi(AdamFamily, Optimizer):
    """Yogi (Zaheer, Reddi, Sachan, Kale & Kumar, NeurIPS 2018).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-2
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1). Both start at 1e-6.
    eps : float, default 1e-3
        Added to the root after bias correction, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as Adam, where rare large gradients are forgotten too fast, as with sparse features. eps and lr are larger
    than Adam's: begin with lr 0.01.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.Yogi([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([1.9000], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}

    def __init__(self, params: Any, lr: float = 1e-2, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-3, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, maximize=maximize))

    def rule(p, g, m, v, t, lr, beta1, beta2, eps):
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * sign(v - g ** 2) * g ** 2
        p = adam_step(p, m, v, t, lr, beta1, beta2, eps)
        return p, m, v

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> float:
        """Return 1e-6, for both means."""
        return 1e-6
