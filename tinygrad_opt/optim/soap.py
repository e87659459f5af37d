"""SOAP: Adam in the eigenbases of Shampoo's factors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..backend import xp
from ..rule import matrix, sqrt
from ..spelling import AdamFamily
from ..tensor import Tensor
from .matrix import due, eigenbases, in_order, mean_grams, rms, rotated, rotated_back, turned
from .optimizer import NOTHING, Optimizer
from .plan import working_dtype
from .ranges import NONNEGATIVE, Range, Whole


def soap_direction(g, m, v, Q, beta1, beta2, eps):
    r = rotated(g, Q)
    m = beta1 * m + (1 - beta1) * r
    v = beta2 * v + (1 - beta2) * r ** 2
    u = rotated_back(m / (sqrt(v) + eps), Q)
    return m, v, u


def soap_bases(g, m, v, L, Q, t, beta, precondition_frequency):
    L = mean_grams(L, g, beta)
    now = due(t, precondition_frequency)
    B = turned(L, Q) if now else Q
    m = rotated(rotated_back(m, Q), B) if now else m
    v = in_order(v, L, Q) if now else v
    return m, v, L, B


def corrected(lr, t, beta1, beta2):
    rate = lr * (1 - beta2 ** t) ** 0.5 / (1 - beta1 ** t)
    return rate


def uncorrected(lr, t, beta1, beta2):
    rate = lr
    return rate


def as_it_is(u):
    return u


def normalized(u):
    u = u / (rms(u) + 1e-30)
    return u


@cache
def soap_with(correction, scaling):
    """Return the rule with a correction of the rate and a scaling of the step."""
    @matrix
    def soap(p, g, m, v, L, Q, t, lr, beta1, beta2, shampoo_beta, eps, weight_decay, precondition_frequency):
        m, v, u = soap_direction(g, m, v, Q, beta1, beta2, eps)
        u = scaling(u)
        rate = correction(lr, t, beta1, beta2)
        p = p - rate * u
        p = p - lr * weight_decay * p
        beta = shampoo_beta if shampoo_beta >= 0 else beta2
        m, v, L, Q = soap_bases(g, m, v, L, Q, t, beta, precondition_frequency)
        return p, m, v, L, Q
    return soap


class SOAP(AdamFamily, Optimizer):
    """SOAP (Vyas et al., ICLR 2025, arXiv 2409.11321): Adam in the eigenbases of Shampoo's factors.

    As in the authors' code, the first gradient of a parameter moves nothing: it only sets the bases, and is no
    step. Their code computes the bases in float32, this one in the dtype of the parameter.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 3e-3
        Learning rate, at least 0.
    betas : (float, float), default (0.95, 0.95)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    shampoo_beta : float, default -1
        How much is kept of the factors, below 1; negative for the second of betas.
    eps : float, default 1e-8
        Added to the root, at least 0.
    weight_decay : float, default 0.01
        The share of lr by which a parameter shrinks after each step, at least 0.
    precondition_frequency : int, default 10
        After every so many steps the bases follow the factors by one power iteration.
    max_precond_dim : int, default 10000
        A longer axis keeps its own basis.
    correct_bias : bool, default True
        Correct the rate for what both means lack in the first steps.
    normalize_grads : bool, default False
        Scale each step, before lr, to a root mean square of 1.
    precondition_1d : bool, default False
        Give parameters of one axis a basis too; without it they are left to plain Adam, as numbers are.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: language models, and wherever Shampoo would be worth its price: fewer steps than AdamW, with less to tune
    than Shampoo. Two square matrices for each axis, beside Adam's state. Begin with lr 0.003, and let
    max_precond_dim lie below the size of a vocabulary.

    Elsewhere: the authors keep the mean gradient in the rotated basis, and so does this one; some collections keep
    it as it came.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([[3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    >>> optimizer = tg.optim.SOAP([w], lr=0.1, weight_decay=0)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> w
    tensor([[2.9000, 0.0000],
            [0.0000, 0.9000]], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq", "L": "GG"}
    ranges = {"shampoo_beta": Range("[-1, 1)"), "precondition_frequency": Whole("[1, inf)"),
              "max_precond_dim": NONNEGATIVE}

    def __init__(self, params: Any, lr: float = 3e-3, betas: tuple[float, float] = (0.95, 0.95),
                 shampoo_beta: float = -1, eps: float = 1e-8, weight_decay: float = 0.01,
                 precondition_frequency: int = 10, max_precond_dim: int = 10000, correct_bias: bool = True,
                 normalize_grads: bool = False, *, precondition_1d: bool = False, maximize: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, betas=betas, shampoo_beta=shampoo_beta, eps=eps, weight_decay=weight_decay,
            precondition_frequency=precondition_frequency, max_precond_dim=max_precond_dim, correct_bias=correct_bias,
            normalize_grads=normalize_grads, precondition_1d=precondition_1d, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: its correction of the rate and its scaling of the step."""
        return soap_with(corrected if group["correct_bias"] else uncorrected,
                         normalized if group["normalize_grads"] else as_it_is)

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return the factors of the first gradient, and their eigenbases."""
        if name not in ("L", "Q"):
            return 0.0
        beta = group["shampoo_beta"] if group["shampoo_beta"] >= 0 else group["betas"][1]
        most = group["max_precond_dim"] if p.ndim > 1 or group["precondition_1d"] else 0
        zeros = [xp.zeros((n, n), working_dtype(p)) if n <= most else None for n in p.shape]
        factors = mean_grams(zeros, p._grad._data.astype(working_dtype(p), copy=False), beta)
        return factors if name == "L" else eigenbases(factors)

    def _advance(self, loss: Any, told: dict[str, float] = NOTHING) -> None:
        fresh = {p: p._grad for group in self.param_groups for p in group["params"]
                 if p._grad is not None and "GG" not in self.state.get(p, {})}
        for k, group in enumerate(self.param_groups):
            for p in fresh.keys() & {*group["params"]}:
                self._begin(self._rule(k, p), group, p)
                p._grad = None
        try:
            super()._advance(loss, told)
        finally:
            for p, g in fresh.items():
                p._grad = g
