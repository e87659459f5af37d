"""Wrapper: an optimizer around another one, which keeps groups, state, hooks and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..rule import Rule
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import Range, check


class Whole(Range):
    """The whole numbers of an interval."""

    def __init__(self, interval: str) -> None:
        super().__init__(interval)
        self.text = f"the whole numbers of {interval}"

    def __contains__(self, value: float) -> bool:
        return super().__contains__(value) and value % 1 == 0


def _of_the_wrapped(name: str) -> property:
    return property(lambda self: getattr(self.optimizer, name), lambda self, value: setattr(self.optimizer, name, value),
                    doc=f"The wrapped optimizer's `{name}`.")


class Wrapper(Optimizer):
    """Base of what wraps an optimizer and behaves as one: groups, state, lr, counts and hooks are the wrapped one's.

    A subclass names its own numbers in `ranges`: they are checked, shown and saved.

    Parameters
    ----------
    optimizer : Optimizer
        What is wrapped; it stays reachable as `.optimizer`.
    **numbers
        A value for each of `ranges`.
    """

    ranges: ClassVar[dict[str, Range]] = {}

    param_groups, state, defaults, lr, step_count, skipped, grad_transforms, read_once, _hooks = map(
        _of_the_wrapped, ("param_groups", "state", "defaults", "lr", "step_count", "skipped", "grad_transforms",
                          "read_once", "_hooks"))

    def __init__(self, optimizer: Optimizer, **numbers: float) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: wraps an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self._set(numbers)

    def _set(self, numbers: dict[str, float]) -> None:
        for name, allowed in self.ranges.items():
            check(type(self).__name__, name, numbers[name], allowed)
        vars(self).update((name, numbers[name]) for name in self.ranges)

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

    def _named(self) -> dict[str, Tensor]:
        """Return all parameters by their names, or by their numbers where they have none."""
        return {name: p for n, group in enumerate(self.param_groups) for name, p in zip(
            group.get("param_names", [f"{k} of group {n}" for k in range(len(group["params"]))]), group["params"])}

    def _rule(self, k: int, p: Tensor | None = None) -> Rule:
        return self.optimizer._rule(k, p)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the wrapped optimizer as `wrapped`, beside the name of the class and own numbers."""
        return {"optimizer": type(self).__name__, "wrapped": self.optimizer.state_dict(),
                **{name: getattr(self, name) for name in self.ranges}}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` returned; everything is checked first and copied.

        Raises
        ------
        ValueError
            When it is not the state of such a wrapper, or does not fit the wrapped optimizer. Nothing is changed then.
        """
        owner = type(self).__name__
        given = state_dict.get("optimizer", "another optimizer") if isinstance(state_dict, dict) else "something else"
        if given != owner or not state_dict.keys() >= {"wrapped", *self.ranges}:
            raise ValueError(f"{owner}: this is the state of {given}, not of {owner} with 'wrapped'"
                             f"{''.join(f', {name!r}' for name in self.ranges)}; the state of what it wraps belongs "
                             "into optimizer.optimizer.load_state_dict")
        before = {name: getattr(self, name) for name in self.ranges}
        self._set(state_dict)
        try:
            self.optimizer.load_state_dict(state_dict["wrapped"], strict)
        except Exception:
            self._set(before)
            raise

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.ranges)
        return f"{type(self).__name__}({numbers}) of\n{self.optimizer!r}"
