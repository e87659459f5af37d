"""Freeze: parameters that stay where they are, until they are let go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor
from .optimizer import Optimizer
from .wrapper import Wrapper


class Freeze(Wrapper):
    """Keep some parameters where they are: no step, no decay, no momentum, no state.

    Their gradients are dropped at each step, as if they had none; `requires_grad` stays as it is. Parameters that are
    added later are not frozen.

    Parameters
    ----------
    optimizer : Optimizer
        The one that steps; made of named parameters, if the predicate asks for names.
    predicate : callable(name, parameter) -> bool
        Whether to freeze a parameter. The name of one without a name is "0 of group 0".

    Raises
    ------
    ValueError
        When the predicate holds for none.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Sequential(tg.nn.Linear(2, 3), tg.nn.Linear(3, 1))
    >>> inner = tg.optim.AdamW(model.named_parameters())
    >>> optimizer = tg.optim.Freeze(inner, lambda name, p: name.startswith("0."))
    >>> optimizer.frozen
    ('0.weight', '0.bias')
    >>> optimizer.thaw(lambda name, p: p.ndim == 1)
    >>> optimizer.frozen
    ('0.weight',)
    """

    def __init__(self, optimizer: Optimizer, predicate: Callable[[str, Tensor], bool]) -> None:
        super().__init__(optimizer, frozen=())
        named = dict(self._named())
        self._set({"frozen": [name for name, p in named.items() if predicate(name, p)]})
        if not self._frozen:
            raise ValueError(f"Freeze: the predicate holds for no parameter; they are {', '.join(named)}. If these are "
                             "no names, make the optimizer of model.named_parameters()")

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names of what is frozen."""
        return tuple(self._frozen)

    def thaw(self, predicate: Callable[[str, Tensor], bool] = lambda name, p: True) -> None:
        """Let go of those for which a predicate holds, by default of all."""
        self._frozen = {name: p for name, p in self._frozen.items() if not predicate(name, p)}

    def _own(self) -> dict[str, Any]:
        return {"frozen": list(self._frozen)}

    def _set(self, own: dict[str, Any]) -> None:
        named = dict(self._named())
        unknown = [name for name in own["frozen"] if name not in named]
        if unknown:
            raise ValueError(f"Freeze: there is no parameter {', '.join(unknown)} to freeze; they are "
                             f"{', '.join(named)}")
        self._frozen = {name: named[name] for name in own["frozen"]}

    def _look(self, loss: Any) -> None:
        for p in self._frozen.values():
            p._grad = None
