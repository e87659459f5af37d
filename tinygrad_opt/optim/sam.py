"""SAM and ASAM: the gradient is taken where the loss is largest nearby."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import abs, global_norm
from ..tensor import Tensor, enable_grad
from .optimizer import Optimizer, _groups
from .ranges import NONNEGATIVE, check
from .wrapper import Wrapper


def sam(p, g, rho):
    p = p + rho / (global_norm(g) + 1e-12) * g
    return p


def asam(p, g, rho):
    p = p + rho / (global_norm(abs(p) * g) + 1e-12) * p ** 2 * g
    return p


class SAM(Wrapper):
    """Sharpness-aware minimization (Foret et al., ICLR 2021, arXiv 2010.01412); ASAM (Kwon et al., arXiv 2102.11600).

    Each step takes two gradients: the first leads up to the worst point within rho, and the gradient there is what
    another optimizer uses, from where the parameters were::

        loss.backward(); optimizer.first_step(zero_grad=True)
        loss_again.backward(); optimizer.second_step(zero_grad=True)

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors; groups may have their own rho and
        adaptive.
    base_optimizer : type or callable
        Makes the optimizer that steps, as `base_optimizer(params, **base_kwargs)`.
    rho : float, default 0.05
        How far up, at least 0: the norm of the move of all parameters; with 0 nothing changes.
    adaptive : bool, default False
        Measure that in proportion to the weights (ASAM); rho is then about ten times larger.
    **base_kwargs
        For the base optimizer.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.SAM([w], tg.optim.SGD, rho=0.5, lr=0.1)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (w ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item()
    25.0
    >>> w
    tensor([2.3400, 3.1200], requires_grad=True)
    """

    def __init__(self, params: Any, base_optimizer: Callable[..., Optimizer], rho: float = 0.05,
                 adaptive: bool = False, **base_kwargs: Any) -> None:
        own = {"rho": rho, "adaptive": adaptive}
        groups = [dict(group) for group in _groups(params, "SAM")]
        options = [{name: group.pop(name, default) for name, default in own.items()} for group in groups]
        for group in (own, *options):
            check("SAM", "rho", group["rho"], NONNEGATIVE)
        super().__init__(base_optimizer(groups, **base_kwargs))
        self.defaults.update(own)
        for group, given in zip(self.param_groups, options, strict=True):
            group.update(given)
        self._ascent = _Ascent([{"params": group["params"]} for group in self.param_groups], {})
        self._before: list[tuple[Tensor, Any]] = []

    def first_step(self, zero_grad: bool = False) -> None:
        """Go up to the worst point nearby, by the gradients that are there.

        Parameters
        ----------
        zero_grad : bool, default False
            Forget the gradients then.

        Raises
        ------
        RuntimeError
            When the parameters are up there already, or none has a gradient.
        """
        if self._before:
            raise RuntimeError("SAM: first_step() after first_step(); compute the gradients there and call "
                               "second_step()")
        self._ascent.param_groups = self.param_groups
        before = [(p, p._data.copy()) for p in self._learned()]
        if not before:
            raise RuntimeError("SAM: no parameter has a gradient; call loss.backward() before first_step()")
        self._ascent._advance(None)
        self._before = before
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """Go back, to the bit, and step by the gradients that are there now.

        Parameters
        ----------
        zero_grad : bool, default False
            Forget the gradients then.

        Raises
        ------
        RuntimeError
            Unless first_step() came before.
        """
        if not self._before:
            raise RuntimeError("SAM: second_step() without first_step(); it needs the gradients at the point where "
                               "first_step() goes")
        self._return()
        self.optimizer.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take both steps. Afterwards there are no gradients.

        Parameters
        ----------
        closure : callable
            Clears the gradients, computes the loss, calls its backward and returns it. It is called for the gradients
            at the worst point and, unless there are gradients already, first for those of the parameters as they are.

        Returns
        -------
        The loss that the closure returned first.

        Raises
        ------
        RuntimeError
            Without a closure, or when it leaves no gradients.
        """
        if closure is None:
            raise RuntimeError("SAM takes two gradients a step: call step(closure) with a function that clears the "
                               "gradients, computes the loss, calls its backward and returns it; or first_step() and "
                               "second_step()")
        with enable_grad():
            losses = [] if self._learned() else [closure()]
            self.first_step(zero_grad=True)
            try:
                losses.append(closure())
            finally:
                self._return()                      # also when the closure raises
        if not self._learned():
            raise RuntimeError("SAM: the closure left no gradients; it clears them, computes the loss and calls its "
                               "backward each time that it is called")
        self.optimizer.step()
        self.zero_grad()
        return losses[0]

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group of parameters; see `Optimizer.add_param_group`."""
        check("SAM", "rho", {**self.defaults, **group}["rho"], NONNEGATIVE)
        super().add_param_group(group)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the base optimizer as `wrapped`, beside the name of the class; not amid a step."""
        if self._before:
            raise RuntimeError("SAM: the parameters are at the worst point nearby; call second_step() before saving")
        return super().state_dict()

    def _learned(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p._grad is not None]

    def _return(self) -> None:
        for p, array in self._before:
            p._data[...] = array
            p._version[0] += 1
        self._before = []


class _Ascent(Optimizer):
    """The way up, over the groups of the base optimizer, whose other options are not its affair."""

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        return asam if group["adaptive"] else sam

    def _check_options(self, group: dict[str, Any]) -> None:
        if "rho" in group:
            check("SAM", "rho", group["rho"], NONNEGATIVE)
