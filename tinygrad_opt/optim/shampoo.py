"""Shampoo: full-matrix Adagrad with a factor for each axis instead of one matrix for all entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import xp
from ..rule import matrix
from ..tensor import Tensor
from .matrix import due, inverse_powers, preconditioned, with_grams
from .optimizer import Optimizer
from .plan import working_dtype
from .ranges import POSITIVE, Whole


def shampoo_direction(g, H, P, t, eps, update_freq, exponent):
    H = with_grams(H, g)
    P = inverse_powers(H, exponent, eps) if due(t - 1, update_freq) else P
    u = preconditioned(g, P)
    return H, P, u


@matrix
def shampoo(p, g, H, P, t, lr, weight_decay, eps, update_freq, exponent):
    g = g + weight_decay * p
    H, P, u = shampoo_direction(g, H, P, t, eps, update_freq, exponent)
    p = p - lr * u
    return p, H, P


@matrix
def shampoo_momentum(p, g, b, H, P, t, lr, momentum, weight_decay, eps, update_freq, exponent):
    g = g + weight_decay * p
    H, P, u = shampoo_direction(g, H, P, t, eps, update_freq, exponent)
    b = momentum * b + u
    p = p - lr * b
    return p, b, H, P


class Shampoo(Optimizer):
    """Shampoo (Gupta, Koren & Singer, ICML 2018, arXiv 1802.09568).

    As in the paper: the factor of each axis sums the products of the gradient as it came, and a gradient of k axes
    is multiplied along each by that factor to the power of -1 / (2k); for a vector this is full-matrix Adagrad.
    The implementation that went round takes -1 / k, and lets later axes sum a gradient that the earlier ones have
    already changed. A number, which has no axes, takes steps of SGD.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-1
        Learning rate, at least 0.
    momentum : float, default 0
        How much of the last direction is kept, at least 0. What is kept are preconditioned gradients.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    eps : float, default 1e-4
        The factors start from eps times the identity, and no eigenvalue counts as smaller; above 0.
    update_freq : int, default 1
        The powers are computed at the first step and then at every so many steps.
    exponent : float, optional
        The power of each factor is -exponent, above 0; 1 / (2k) unless it is given.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: matrices of moderate size, where curvature runs across the axes of the entries: the strongest step of
    Adagrad's family, and the dearest, with an eigendecomposition for each axis. Begin with lr 0.1, and with
    update_freq 10 where steps cost too much.

    Elsewhere: with momentum, the implementation named above mixes the raw gradient with the preconditioned one of
    the step before; here only preconditioned ones are mixed.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([[3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    >>> optimizer = tg.optim.Shampoo([w])
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([[2.9000, 0.0000],
            [0.0000, 0.9000]], requires_grad=True)
    """

    state_names = {"b": "momentum_buffer", "H": "precond", "P": "inv_precond"}
    ranges = {"eps": POSITIVE, "update_freq": Whole("[1, inf)"), "exponent": POSITIVE}

    def __init__(self, params: Any, lr: float = 1e-1, momentum: float = 0.0, weight_decay: float = 0,
                 eps: float = 1e-4, update_freq: int = 1, exponent: float | None = None, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, eps=eps,
                                      update_freq=update_freq, exponent=exponent, maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options({name: value for name, value in group.items() if value is not None})

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with or without momentum."""
        return shampoo_momentum if group["momentum"] else shampoo

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return eps times the identity for the factor of each axis, and the identity for its power."""
        scale = {"H": group["eps"], "P": 1.0}.get(name)
        return 0.0 if scale is None else [scale * xp.eye(n, dtype=working_dtype(p)) for n in p.shape]
