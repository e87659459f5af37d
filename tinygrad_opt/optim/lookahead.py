"""Lookahead: slow weights that follow the fast ones of another optimizer."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer, start
from .ranges import Range, Whole
from .wrapper import Wrapper


class Lookahead(Wrapper):
    """Go only a part of the way that another optimizer went in k steps (Zhang et al., NeurIPS 2019, arXiv 1907.08610).

    The slow weights start where the parameters are at the first step, and are kept as `slow` in the state. Hooks that
    are registered later see the parameters after they were set back.

    Parameters
    ----------
    optimizer : Optimizer
        The one that makes the fast steps.
    k : int, default 5
        After so many of its steps the slow weights follow, and the fast ones go on from there; at least 1.
    alpha : float, default 0.5
        The part of the way that the slow weights go, in [0, 1]; with 1 nothing changes.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.Lookahead(tg.optim.SGD([w], lr=0.1), k=2, alpha=0.5)
    >>> for _ in range(2):
    ...     w.grad = tg.ones(1)
    ...     optimizer.step()
    >>> w
    tensor([1.9000], requires_grad=True)
    """

    ranges = {"k": Whole("[1, inf)"), "alpha": Range("[0, 1]")}

    def __init__(self, optimizer: Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        super().__init__(optimizer, k=k, alpha=alpha)
        self._watch()

    def _watch(self) -> None:
        self.register_step_pre_hook(self._begin_slow)
        self.register_step_post_hook(self._follow)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._watch()                               # hooks are not copied

    def _begin_slow(self, *hooked: Any) -> None:
        for p, state in self._states():
            if "slow" not in state:
                state.setdefault("step", 0)
                state["slow"] = Tensor._wrap(start(p))

    def _follow(self, *hooked: Any) -> None:
        if self.step_count % self.k == 0:
            for p, state in self._states():
                fast, slow = state.get("master", p)._data, state["slow"]._data
                # This form leaves a weight that has not moved, and any weight where alpha is 1, to the bit.
                fast -= (1 - self.alpha) * (fast - slow)
                slow[...] = fast
                p._data[...] = fast
                p._version[0] += 1

    def _states(self) -> list[tuple[Tensor, dict[str, Any]]]:
        everything = self.state
        return [(p, everything[p]) for group in self.param_groups for p in group["params"]]
