"""Adafactor: the mean squares of a matrix kept as one number for each row and each column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import xp
from ..rule import matrix, maximum, named, sqrt
from ..tensor import Tensor
from .matrix import at_least, at_most, column_mean, column_mean_squares, rms, row_mean_squares
from .optimizer import Optimizer
from .plan import working_dtype
from .ranges import NONNEGATIVE, Range, check


@named(r"\epsilon_{{1}}")
def least_root(eps, p):
    """Return the first of eps, or where it is None the distance from 1 to the next number of the dtype."""
    return float(xp.finfo(p.dtype).eps) if eps[0] is None else eps[0]


@named(r"\max\left(\epsilon_{{2}}, \mathrm{{RMS}}\left({1}\right)\right)")
def own_size(eps, p):
    """Return the root mean square of a parameter, at least the second of eps."""
    return at_least(rms(p), eps[1])


@named(r"\frac{{{0}}}{{\max\left({1}, {2}\right)}}")
def over(g, root, least):
    """Return g divided by the root, at least so much, in the memory of the root."""
    u = xp.asarray(root)
    xp.maximum(u, least, out=u)
    return xp.divide(g, u, out=u)


# In place where it can be: a fresh array of this size costs more than the arithmetic on it.
def adafactor_step(p, u, t, lr, eps, d, weight_decay):
    alpha = own_size(eps, p) * at_most(lr, 1 / t ** 0.5)
    u *= alpha / at_least(rms(u) / d, 1)
    p *= 1 - lr * weight_decay
    p -= u
    return p, u


@matrix
def factored(p, g, R, C, t, lr, beta2_decay, eps, d, weight_decay):
    w = t ** beta2_decay
    R = (1 - w) * R + w * row_mean_squares(g)
    C = (1 - w) * C + w * column_mean_squares(g)
    e = least_root(eps, p)
    u = over(g, sqrt(R) * sqrt(C / maximum(column_mean(R), e)), e)
    p, u = adafactor_step(p, u, t, lr, eps, d, weight_decay)
    return p, R, C


@matrix
def unfactored(p, g, V, t, lr, beta2_decay, eps, d, weight_decay):
    w = t ** beta2_decay
    V = (1 - w) * V + w * g ** 2
    u = over(g, sqrt(V), least_root(eps, p))
    p, u = adafactor_step(p, u, t, lr, eps, d, weight_decay)
    return p, V


class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern, ICML 2018, arXiv 1804.04235): Adam's mean square in the memory of rows and columns.

    As in PyTorch: the mean square of an entry is the product of the means of its row and its column over the mean
    of all. A parameter of more than two axes is a stack of matrices, its last two axes; one of fewer keeps the
    mean square of each entry. Steps are relative to the size of the parameter, and a step that is large beside
    what the mean squares lead one to expect is scaled down.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-2
        Largest relative step, at least 0; from step 1 / lr**2 on, 1 / sqrt(t) is smaller and rules.
    beta2_decay : float, default -0.8
        At step t the newest square has the weight t ** beta2_decay in the mean; at most 0.
    eps : (float or None, float), default (None, 1e-3)
        The least root of a mean square, None for the machine epsilon of the dtype, and the least size of a
        parameter that steps are relative to; at least 0.
    d : float, default 1.0
        How large the root mean square of a step before scaling may be, at least 1.
    weight_decay : float, default 0
        The share of lr by which a parameter shrinks at each step, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: models whose optimizer state must be small: a matrix costs a number for each row and each column, and there
    is no momentum. Where Adam fits into memory it is mostly a little better. lr is relative to the size of a
    parameter: begin with lr 0.01.

    Elsewhere: Keras, MLX and optax follow the paper and add eps, 1e-30, to each square; PyTorch, and so this one,
    keeps the root of the mean square from falling below it. PyTorch's documentation says weight_decay 0.01, its
    code 0.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([[3.0, -3.0]], requires_grad=True)
    >>> optimizer = tg.optim.Adafactor([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([[ 2.7000, -2.7000]], requires_grad=True)
    """

    state_names = {"R": "row_var", "C": "col_var", "V": "variance"}
    ranges = {"beta2_decay": Range("(-inf, 0]"), "d": Range("[1, inf)")}

    def __init__(self, params: Any, lr: float = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d, weight_decay=weight_decay,
                                      maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options({name: value for name, value in group.items() if name != "eps"})
        eps = group["eps"]
        if not isinstance(eps, (tuple, list)) or len(eps) != 2:
            raise ValueError(f"Adafactor: eps is a pair, (None, 1e-3) for example, got {eps!r}")
        for name, value in zip(("eps1", "eps2"), eps):
            if name == "eps2" or value is not None:
                check("Adafactor", name, value, NONNEGATIVE)

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a parameter: factored where it has rows and columns."""
        return factored if p.ndim > 1 else unfactored

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return zeros: a column of row means, a row of column means, or a mean for each entry."""
        *stack, rows, columns = (1, 1, *p.shape)[-max(p.ndim, 2):]
        shape = {"R": (*stack, rows, 1), "C": (*stack, 1, columns), "V": p.shape}[name]
        return xp.zeros(shape, working_dtype(p))
