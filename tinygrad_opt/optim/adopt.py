"""ADOPT: Adam that divides by the mean square of the gradients before, and so converges with any beta2."""

from __future__ import annotations

from typing import Any

from ..rule import maximum, minimum, sqrt, where
from ..spelling import AdamFamily
from .optimizer import Optimizer
from .ranges import POSITIVE


class ADOPT(AdamFamily, Optimizer):
    """ADOPT (Taniguchi et al., NeurIPS 2024, arXiv 2411.02853); the first step only looks at the gradient.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.9999)
        How much is kept of the mean step and of the mean square, each in [0, 1).
    eps : float, default 1e-6
        The least that is divided by, above 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as Adam, where beta2 is not to be tuned: it converges with any. The same state and lr: begin with 0.001.

    Elsewhere: the bound on the first steps came after the first publication; older copies have none. optax and timm
    have it, and agree to the last digits.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.ADOPT([w], lr=0.5)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> w
    tensor([  1.9500, -29.9500], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}
    ranges = {"eps": POSITIVE}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.9999),
                 eps: float = 1e-6, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, maximize=maximize))

    def rule(p, g, m, v, t, lr, beta1, beta2, eps):
        c = (t - 1) ** 0.25
        u = minimum(maximum(g / maximum(sqrt(v), eps), -c), c)
        m = beta1 * m + (1 - beta1) * u
        p = p - lr * m
        v = where(t > 1, beta2 * v + (1 - beta2) * g ** 2, g ** 2)
        return p, m, v
