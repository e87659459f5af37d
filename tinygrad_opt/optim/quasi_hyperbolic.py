"""QHM and QHAdam: a weighted mean of a plain step and one with momentum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import sqrt
from ..spelling import AdamFamily
from ..tensor import Tensor
from .adam import moments
from .optimizer import Optimizer
from .ranges import UNIT, Range

REAL = Range("(-inf, inf)")


def qhm(p, g, b, lr, momentum, nu):
    b = momentum * b + (1 - momentum) * g
    p = p - lr * ((1 - nu) * g + nu * b)
    return p, b


def qhm_l2(p, g, b, lr, momentum, nu, weight_decay):
    g = g + weight_decay * p
    return qhm(p, g, b, lr, momentum, nu)


def qhm_direct(p, g, b, lr, momentum, nu, weight_decay):
    p = p * (1 - lr * weight_decay)
    return qhm(p, g, b, lr, momentum, nu)


class QHM(Optimizer):
    """Quasi-hyperbolic momentum (Ma & Yarats, ICLR 2019, arXiv 1810.06801), whose advice the defaults are.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    momentum : float, default 0.999
        How much of the mean gradient is kept, in [0, 1).
    nu : float, default 0.7
        The weight of the mean gradient beside the newest one. 0 is SGD, 1 is momentum with lr inside, and
        nu = momentum is Nesterov's.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    weight_decay_type : {"grad", "direct"}, default "grad"
        "direct" shrinks the parameters instead, as AdamW does.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as SGD with momentum, less sensitive to the momentum. The mean gradient is a mean here and no sum, so
    multiply the lr that SGD takes with momentum 0.9 by 10: begin with 0.1 to 1.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.QHM([w], lr=0.1, momentum=0.75, nu=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([1.7500], requires_grad=True)
    """

    state_names = {"b": "momentum_buffer"}
    ranges = {"momentum": UNIT, "nu": REAL}

    def __init__(self, params: Any, lr: float = 1e-3, momentum: float = 0.999, nu: float = 0.7,
                 weight_decay: float = 0.0, weight_decay_type: str = "grad", *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, nu=nu, weight_decay=weight_decay,
                                      weight_decay_type=weight_decay_type, maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group["weight_decay_type"] not in ("grad", "direct"):
            raise ValueError("QHM: weight_decay_type must be 'grad' or 'direct', got "
                             f"{group['weight_decay_type']!r}")

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with decay coupled or decoupled."""
        return qhm_direct if group["weight_decay_type"] == "direct" else qhm_l2


def qhadam(p, g, m, v, t, lr, beta1, beta2, nu1, nu2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * ((1 - nu1) * g + nu1 * m_hat) / (sqrt((1 - nu2) * g ** 2 + nu2 * v_hat) + eps)
    return p, m, v


def qhadam_l2(p, g, m, v, t, lr, beta1, beta2, nu1, nu2, weight_decay, eps):
    g = g + weight_decay * p
    return qhadam(p, g, m, v, t, lr, beta1, beta2, nu1, nu2, eps)


def qhadamw(p, g, m, v, t, lr, beta1, beta2, nu1, nu2, weight_decay, eps):
    p = p * (1 - lr * weight_decay)
    return qhadam(p, g, m, v, t, lr, beta1, beta2, nu1, nu2, eps)


class QHAdam(AdamFamily, Optimizer):
    """QHAdam (Ma & Yarats, ICLR 2019, arXiv 1810.06801).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    nus : (float, float), default (1.0, 1.0)
        The weights of the mean gradient and of the mean square beside the newest ones, the second in [0, 1].
        With the default it is Adam; the paper advises (0.7, 1.0).
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    decouple_weight_decay : bool, default False
        Shrink the parameters instead, as AdamW does.
    eps : float, default 1e-8
        Added to the root, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as Adam, where its momentum makes training unstable: the paper advises nus (0.7, 1.0) with betas (0.995,
    0.999). Begin with lr 0.001.

    Elsewhere: some collections lose parentheses in the mean square, which then may be negative; this is the
    paper's.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.QHAdam([w], lr=0.5, nus=(0.7, 1.0))
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([  1.5000, -29.5000], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq"}
    ranges = {"nus": (REAL, Range("[0, 1]"))}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 nus: tuple[float, float] = (1.0, 1.0), weight_decay: float = 0.0,
                 decouple_weight_decay: bool = False, eps: float = 1e-8, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, nus=nus, weight_decay=weight_decay, eps=eps,
                                      decouple_weight_decay=decouple_weight_decay, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with decay coupled or decoupled."""
        return qhadamw if group["decouple_weight_decay"] else qhadam_l2
