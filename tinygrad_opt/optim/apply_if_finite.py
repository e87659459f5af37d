"""ApplyIfFinite: steps whose gradients hold NaN or infinity are left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..backend import xp
from .optimizer import Optimizer
from .ranges import Whole
from .wrapper import Wrapper


class ApplyIfFinite(Wrapper):
    """Leave out steps whose gradients are not finite.

    The first one is a warning that names the parameter; each counts in `skipped`. More than `max_consecutive_errors`
    in a row are no accident but a diverged run, and raise; optax applies such a step, which makes the parameters NaN.

    Parameters
    ----------
    optimizer : Optimizer
        The one that steps.
    max_consecutive_errors : int, default 3
        How many steps in a row may be left out, at least 0.

    Attributes
    ----------
    errors : int
        How many have just been left out, one after another.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.ApplyIfFinite(tg.optim.SGD([w], lr=0.1), max_consecutive_errors=0)
    >>> w.grad = tg.tensor([float("nan")])
    >>> optimizer.step()
    Traceback (most recent call last):
        ...
    RuntimeError: ApplyIfFinite: the gradient of parameter 0 of group 0 has NaN or infinite entries, step 1 in a row \
of at most 0. The run has diverged: go back to a checkpoint and lower lr (0.1), or look for a logarithm or a quotient \
of zero
    """

    ranges = {"max_consecutive_errors": Whole("[0, inf)"), "errors": Whole("[0, inf)")}

    def __init__(self, optimizer: Optimizer, max_consecutive_errors: int = 3) -> None:
        super().__init__(optimizer, max_consecutive_errors=max_consecutive_errors, errors=0)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, if all gradients are finite.

        Parameters
        ----------
        closure : callable, optional
            Clears the gradients, computes the loss, calls its backward and returns it.

        Returns
        -------
        The loss that the closure returned, else None.

        Raises
        ------
        RuntimeError
            When too many steps in a row had to be left out, naming the parameter of the last. Nothing is changed then.
        """
        try:
            loss = super().step(closure)
        except _NotFinite as found:
            self._leave_out(found.args[0])
            return found.args[1]
        self.errors = 0
        return loss

    def _look(self, loss: Any) -> None:
        named = self._with_gradient()
        finite = xp.stack([xp.isfinite(p._grad._data).all() for _, p in named]).tolist() if named else []
        if not all(finite):
            raise _NotFinite(named[finite.index(False)][0], loss)

    def _leave_out(self, name: str) -> None:
        self.errors += 1
        words = f"ApplyIfFinite: the gradient of parameter {name} has NaN or infinite entries"
        if self.errors > self.max_consecutive_errors:
            raise RuntimeError(f"{words}, step {self.errors} in a row of at most {self.max_consecutive_errors}. The "
                               f"run has diverged: go back to a checkpoint and lower lr ({self.lr}), or look for a "
                               "logarithm or a quotient of zero")
        if not self.skipped:
            warnings.warn(f"{words}: the step is left out, as are others like it; optimizer.skipped counts them",
                          RuntimeWarning, stacklevel=3)
        self.skipped += 1


class _NotFinite(Exception):
    """Raised with the name of a parameter and the loss, to leave a step."""
