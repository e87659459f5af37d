"""Accumulate: small batches that add up to a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import xp
from ..tensor import Tensor, enable_grad
from .optimizer import Optimizer
from .plan import working_dtype
from .ranges import Whole
from .wrapper import Wrapper


class Accumulate(Wrapper):
    """Step every k-th time, by the mean gradient: k small batches are one large batch.

    `step` takes the gradients into a sum and clears them, so it does not matter whether the loop calls `zero_grad`.
    Decay, counts of steps, hooks and gradient transforms belong to the real step alone; `count` is 0 after it, which is
    when to step a schedule. A parameter that has a gradient in none of the k batches is skipped; in a batch where it is
    missing it counts as zero.

    Parameters
    ----------
    optimizer : Optimizer
        The one that makes the real steps.
    k : int
        How many batches make one, at least 1; with 1 nothing changes.

    Attributes
    ----------
    count : int
        How many gradients are in the sum, which the state keeps as `grad_sum`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.Accumulate(tg.optim.SGD([w], lr=0.1), k=2)
    >>> for x in (1.0, 3.0):
    ...     (w * x).sum().backward()
    ...     optimizer.step()
    >>> w, optimizer.step_count
    (tensor([0.8000], requires_grad=True), 1)
    """

    ranges = {"k": Whole("[1, inf)"), "count": Whole("[0, inf)")}

    def __init__(self, optimizer: Optimizer, k: int) -> None:
        super().__init__(optimizer, k=k, count=0)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take the gradients of a batch; with those of the k-th, step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss of the batch, calls its backward and returns it; called once.

        Returns
        -------
        The loss that the closure returned, else None.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        states = self.state
        params = [p for group in self.param_groups for p in group["params"]]
        for p in params:
            if p._grad is not None:
                self._add(p, states[p])
        self.zero_grad()
        self.count += 1
        if self.count >= self.k:
            for p in params:
                if "grad_sum" in states.get(p, ()):
                    p.grad = xp.asarray(states[p].pop("grad_sum")._data / self.count, p.dtype)
            self.count = 0
            self.optimizer.step()
            self.zero_grad()
        return loss

    def _add(self, p: Tensor, state: dict[str, Any]) -> None:
        if "grad_sum" in state:
            state["grad_sum"]._data += p._grad._data
        else:
            state.setdefault("step", 0)
            state["grad_sum"] = Tensor._wrap(xp.array(p._grad._data, working_dtype(p)))
