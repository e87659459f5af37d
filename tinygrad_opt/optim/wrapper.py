"""Wrapper: an optimizer around another one, which keeps groups, state, hooks and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..rule import Rule
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import Range, check


def _of_the_wrapped(name: str) -> property:
    return property(lambda self: getattr(self.optimizer, name),
                    lambda self, value: setattr(self.optimizer, name, value), doc=f"The wrapped optimizer's `{name}`.")


class Wrapper(Optimizer):
    """Base of what wraps an optimizer and behaves as one: groups, state, lr, counts and hooks are the wrapped one's.

    A subclass names its own numbers in `ranges`: they are checked, shown and saved.

    Parameters
    ----------
    optimizer : Optimizer
        What is wrapped; it stays reachable as `.optimizer`.
    **own
        A value for each of `ranges`.
    """

    ranges: ClassVar[dict[str, Range]] = {}

    param_groups, state, defaults, lr, step_count, skipped, grad_transforms, read_once, _hooks, _remembers = map(
        _of_the_wrapped, ("param_groups", "state", "defaults", "lr", "step_count", "skipped", "grad_transforms",
                          "read_once", "_hooks", "_remembers"))

    def __init__(self, optimizer: Optimizer, **own: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: wraps an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self._set(own)

    def _own(self) -> dict[str, Any]:
        """Return what is shown and saved beside the wrapped optimizer."""
        return {name: getattr(self, name) for name in self.ranges}

    def _set(self, own: dict[str, Any]) -> None:
        """Take what `_own` returned, all of it or nothing."""
        for name, allowed in self.ranges.items():
            check(type(self).__name__, name, own[name], allowed)
        vars(self).update((name, own[name]) for name in self.ranges)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group of parameters to the wrapped optimizer; see `Optimizer.add_param_group`."""
        self.optimizer.add_param_group(group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of the wrapped optimizer; see `Optimizer.step`."""
        if closure is None:
            self._look(None)
            return self.optimizer.step()

        def looked_at() -> Any:
            loss = closure()
            self._look(loss)
            return loss
        return self.optimizer.step(looked_at)

    def _look(self, loss: Any) -> None:
        """See the gradients before the wrapped optimizer does."""

    def _rule(self, k: int, p: Tensor | None = None) -> Rule:
        return self.optimizer._rule(k, p)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the wrapped optimizer as `wrapped`, beside the name of the class and own numbers."""
        return {"optimizer": type(self).__name__, "wrapped": self.optimizer.state_dict(), **self._own()}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` returned; everything is checked first and copied.

        Raises
        ------
        ValueError
            When it is not the state of such a wrapper, or does not fit the wrapped optimizer. Nothing is changed then.
        """
        owner, before = type(self).__name__, self._own()
        given = state_dict.get("optimizer") if isinstance(state_dict, dict) else None
        if given != owner or not state_dict.keys() >= {"wrapped", *before}:
            raise ValueError(f"{owner}: a saved state is a dict with {', '.join(map(repr, ['wrapped', *before]))} "
                             f"whose 'optimizer' is {owner!r}, this one's is {given!r}; the state of what is wrapped "
                             "goes into optimizer.optimizer.load_state_dict")
        self._set(state_dict)
        try:
            self.optimizer.load_state_dict(state_dict["wrapped"], strict)
        except Exception:
            self._set(before)
            raise

    def __repr__(self) -> str:
        own = ", ".join(f"{name}={value!r}" for name, value in self._own().items())
        return f"{type(self).__name__}({own}) of\n{self.optimizer!r}"
