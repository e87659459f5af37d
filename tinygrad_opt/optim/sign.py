"""Lion and Signum: every weight moves by lr, whatever the size of its gradient."""

from __future__ import annotations

from typing import Any

from ..rule import sign
from .optimizer import Optimizer
from .ranges import UNIT


class Lion(Optimizer):
    """Lion (Chen et al., NeurIPS 2023, arXiv 2302.06675).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-4
        Learning rate, at least 0: the step of every weight. The paper advises a third to a tenth of AdamW's.
    betas : (float, float), default (0.9, 0.99)
        How much of the mean gradient is kept for the step, and how much for the next one, each in [0, 1).
    weight_decay : float, default 0
        The share of lr by which a parameter shrinks at each step, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: large models in little memory: one array of state, half of AdamW's. Begin with lr 1e-4, and with three to
    ten times AdamW's weight decay, so that lr * weight_decay stays. It wants batches of 64 or more, and a rate that
    falls: its steps do not shrink by themselves.

    Elsewhere: optax decays by 1e-3 unless told otherwise.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.Lion([w], lr=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.5000, -29.5000], requires_grad=True)
    """

    state_names = {"m": "exp_avg"}

    def __init__(self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize))

    def rule(p, g, m, lr, beta1, beta2, weight_decay):
        p = p * (1 - lr * weight_decay)
        p = p - lr * sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        return p, m


class Signum(Optimizer):
    """Signum (Bernstein et al., ICML 2018, arXiv 1802.04434); with momentum 0 it is signSGD.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0: the step of every weight.
    momentum : float, default 0.9
        How much of the mean gradient is kept, in [0, 1).
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: to see how far signs alone go, and where gradients travel over a slow wire, one bit each. Begin with lr
    1e-4 to 1e-3 and lower it: the steps do not shrink by themselves.

    Elsewhere: whether the gradient enters the momentum wholly or times 1 - momentum makes no difference, the sign
    is the same.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.Signum([w], lr=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.5000, -29.5000], requires_grad=True)
    """

    state_names = {"m": "momentum_buffer"}
    ranges = {"momentum": UNIT}

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.9, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, maximize=maximize))

    def rule(p, g, m, lr, momentum):
        m = momentum * m + (1 - momentum) * g
        p = p - lr * sign(m)
        return p, m
