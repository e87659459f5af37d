"""AggMo: several momenta at once; the fast ones damp what the slow ones start."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import cache
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import UNIT

RULE = """
def aggmo{count}(p, g, {bs}, lr, {betas}, weight_decay):
    g = g + weight_decay * p
    {lines}
    p = p - lr / {count} * ({total})
    return p, {bs}
"""


@cache
def aggmo(count):
    """Return the rule for so many buffers, b1, b2, ...: the text above, filled in."""
    ks = range(1, count + 1)
    source = RULE.format(
        count=count, bs=", ".join(f"b{k}" for k in ks), betas=", ".join(f"beta{k}" for k in ks),
        lines="\n    ".join(f"b{k} = beta{k} * b{k} + g" for k in ks), total=" + ".join(f"b{k}" for k in ks))
    file, space = f"<aggmo of {count}>", {}
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file        # inspect looks here
    exec(compile(source, file, "exec"), space)
    return space[f"aggmo{count}"]


class AggMo(Optimizer):
    """Aggregated momentum (Lucas, Sun, Zemel & Grosse, ICLR 2019, arXiv 1804.00325).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0.
    betas : tuple of float, default (0, 0.9, 0.99)
        How much each momentum keeps, any number of them, each in [0, 1). The state is `b1`, `b2`, ...
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as SGD, where a momentum of 0.99 would be quick but swings: the other momenta damp it. One array for each.
    Begin with the lr that SGD takes with momentum 0.9, 0.01 to 0.1.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.AggMo([w], lr=0.1, betas=(0, 0.5))
    >>> print(optimizer.formula("text"))
    g ← g + weight_decay·p
    b₁ ← β₁·b₁ + g
    b₂ ← β₂·b₂ + g
    p ← p − lr / 2·(b₁ + b₂)
    """

    ranges = {"betas": (UNIT, ...)}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, ...] = (0, 0.9, 0.99),
                 weight_decay: float = 0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group, with a buffer for each of its betas."""
        return aggmo(len(group["betas"]))
