"""Muon: momentum whose singular values are all made about 1, for the matrices inside a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import matrix, named
from ..tensor import Tensor
from .matrix import newton_schulz
from .optimizer import Optimizer
from .ranges import POSITIVE, Range, Whole

RATES: dict[str | None, Callable[[int, int], float]] = {
    "original": lambda rows, columns: max(1, rows / columns) ** 0.5,
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
}
RATES[None] = RATES["original"]


@named(r"\gamma")
def shape_factor(p, adjust_lr_fn):
    """Return the factor of the rate that the shape of a matrix asks for."""
    return RATES[adjust_lr_fn](*p.shape)


def muon_step(p, u, lr, weight_decay, ns_coefficients, eps, ns_steps, adjust_lr_fn):
    p = p * (1 - lr * weight_decay)
    p = p - lr * shape_factor(p, adjust_lr_fn) * newton_schulz(u, ns_coefficients, ns_steps, eps)
    return p


@matrix
def muon(p, g, b, lr, weight_decay, momentum, ns_coefficients, eps, ns_steps, adjust_lr_fn):
    b = momentum * b + (1 - momentum) * g
    p = muon_step(p, b, lr, weight_decay, ns_coefficients, eps, ns_steps, adjust_lr_fn)
    return p, b


@matrix
def muon_nesterov(p, g, b, lr, weight_decay, momentum, ns_coefficients, eps, ns_steps, adjust_lr_fn):
    b = momentum * b + (1 - momentum) * g
    u = momentum * b + (1 - momentum) * g
    p = muon_step(p, u, lr, weight_decay, ns_coefficients, eps, ns_steps, adjust_lr_fn)
    return p, b


class Muon(Optimizer):
    """Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; Liu et al., 2025, arXiv 2502.16982).

    The momentum of a matrix is replaced by nearly the nearest orthogonal one, so that all its directions move
    alike. For the weight matrices inside a network; embeddings, the last layer, biases and norms go to AdamW.
    It computes in the dtype of the parameter; PyTorch rounds to bfloat16 inside, and so differs by up to about
    1e-2 in an entry of the orthogonal matrix.

    Parameters
    ----------
    params : iterable
        Tensors of two axes, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0: about the size of a step in the spectral norm.
    weight_decay : float, default 0.1
        The share of lr by which a parameter shrinks at each step, at least 0.
    momentum : float, default 0.95
        How much is kept of the mean gradient, at least 0.
    nesterov : bool, default True
        Look ahead along the momentum.
    ns_coefficients : (float, float, float), default (3.4445, -4.775, 2.0315)
        a, b, c of the polynomial a x + b x**3 + c x**5 that drives singular values to about 1.
    eps : float, default 1e-7
        The least norm by which a matrix is divided before, above 0.
    ns_steps : int, default 5
        How often the polynomial is applied, 0 to 99.
    adjust_lr_fn : {"original", "match_rms_adamw"}, optional
        The factor of lr for a matrix: sqrt(max(1, rows / columns)), as without a name, or
        0.2 sqrt(max(rows, columns)), with which the rate and decay of AdamW may be kept.
    maximize : bool, default False
        Ascend. PyTorch's has no such argument.

    Raises
    ------
    ValueError
        When a parameter is no matrix.

    Notes
    -----
    Use: the weight matrices inside a network, in fewer steps than AdamW takes and with half its state, for fifteen
    matrix products a step; `tg.optim.muon_with_adamw(model)` gives the rest to AdamW. Begin with lr 0.02, or with
    AdamW's and adjust_lr_fn="match_rms_adamw".

    Elsewhere: optax corrects the bias of the momentum; MLX adds the decay to the gradient.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([[3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    >>> optimizer = tg.optim.Muon([w], lr=0.1, weight_decay=0)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([[2.9247, 0.0000],
            [0.0000, 0.8866]], requires_grad=True)
    """

    state_names = {"b": "momentum_buffer"}
    ranges = {"ns_coefficients": (Range("(-inf, inf)"),) * 3, "ns_steps": Whole("[0, 100)"), "eps": POSITIVE}

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
                 nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
                 eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
                                      ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps,
                                      adjust_lr_fn=adjust_lr_fn, maximize=maximize))

    def _check_parameter(self, p: Any, name: str) -> None:
        super()._check_parameter(p, name)
        if p.ndim != 2:
            raise ValueError(f"Muon: parameter {name} of shape {p.shape} is no matrix; give Muon the matrices and the "
                             "rest to AdamW: tg.optim.muon_with_adamw(model)")

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group["adjust_lr_fn"] not in RATES:
            raise ValueError(f"Muon: adjust_lr_fn must be 'original', 'match_rms_adamw' or None, got "
                             f"{group['adjust_lr_fn']!r}")

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with or without a look ahead."""
        return muon_nesterov if group["nesterov"] else muon
