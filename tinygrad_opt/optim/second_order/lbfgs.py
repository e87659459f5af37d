"""L-BFGS: the inverse Hessian from the last steps and the changes of the gradient along them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ...backend import asarray, xp
from ...tensor import Tensor, enable_grad
from ..ranges import NONNEGATIVE, Whole
from .base import SecondOrder, Slope
from .line_search import Trial, strong_wolfe

Array = Any
CURVED = 1e-10                      # a pair enters the memory where step and change of gradient agree by more
LISTS = ("old_dirs", "old_stps", "ro", "al")
VECTORS = ("d", "prev_flat_grad", "prev_point")
COUNTS = ("func_evals", "n_iter")
NUMBERS = ("t", "H_diag", "prev_loss")


class LBFGS(SecondOrder):
    """L-BFGS (Liu & Nocedal, Mathematical Programming 45, 1989), as in torch; for smooth losses of all the data.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors; groups may differ in lr.
    lr : float, default 1
        The step along the direction, at least 0: the first that the line search tries, the only one without.
    max_iter : int, default 20
        Iterations a step.
    max_eval : int, optional
        Evaluations a step. If given, no line search goes beyond; else none begins after 1.25 max_iter.
    tolerance_grad : float, default 1e-7
        Stop where no entry of the gradient is larger.
    tolerance_change : float, default 1e-9
        Stop where no entry of the parameters, or not the loss, changes by more.
    history_size : int, default 100
        How many steps are remembered, at least 1.
    line_search_fn : {None, "strong_wolfe"}
        How the step along the direction is found; None takes lr.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: small and middling problems whose loss is smooth and is computed on all the data, with
    line_search_fn="strong_wolfe", without which it may diverge. Small batches spoil it: the change of the gradient
    must come from the step, not from other data.

    Elsewhere: torch leaves the parameters NaN where the loss becomes so; here they return to the best point of this
    step and the memory is forgotten. It allows one group and no maximize, and its line search exceeds max_eval.
    Here the gradients are cleared before the closure is called.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.second_order.lbfgs import LBFGS
    >>> w = tg.tensor([-1.2, 1.0], requires_grad=True, dtype=tg.float64)
    >>> optimizer = LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = 100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2
    ...     loss.backward()
    ...     return loss
    >>> round(optimizer.step(closure).item(), 6)
    24.2
    >>> w.numpy().round(6).tolist(), optimizer.report.accepted
    ([1.0, 1.0], True)
    """

    ranges = {"max_iter": Whole("[0, inf)"), "tolerance_grad": NONNEGATIVE, "tolerance_change": NONNEGATIVE,
              "history_size": Whole("[1, inf)")}

    def __init__(self, params: Any, lr: float = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None, *, maximize: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, max_iter=max_iter, max_eval=max_eval, tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change, history_size=history_size, line_search_fn=line_search_fn,
            maximize=maximize))
