"""MultiOptimizer: each parameter to its own kind of optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..nn import Embedding, Module
from ..rule import Rule
from ..tensor import Tensor
from .adam import AdamW
from .optimizer import Optimizer, _parameters
from .wrapper import Wrapper

Predicate = Callable[[str, Tensor], bool]
Factory = Callable[[list[tuple[str, Tensor]]], Optimizer]


class MultiOptimizer(Wrapper):
    """Several optimizers as one, each with the parameters that a predicate gives it.

    Groups are those of all optimizers, one after another, so that schedules and `lr *= 0.1` reach all of them.

    Parameters
    ----------
    params : Module, mapping of names to Tensors, or iterable of (name, Tensor)
        What to optimize; names are what the predicates go by.
    routes : iterable of (predicate, factory)
        A parameter goes to the first route whose `predicate(name, parameter)` holds. `factory(named)` makes the
        optimizer of a list of (name, Tensor): a class, or a lambda with options. A last entry that is a factory alone
        takes the rest.

    Attributes
    ----------
    optimizers : list of Optimizer
        One for each route.

    Raises
    ------
    ValueError
        When a route receives nothing or a parameter has no route, naming it.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Linear(2, 3)
    >>> optimizer = tg.optim.MultiOptimizer(model, [
    ...     (lambda name, p: p.ndim == 1, lambda named: tg.optim.SGD(named, lr=0.1)),
    ...     tg.optim.AdamW])
    >>> [group["lr"] for group in optimizer.param_groups]
    [0.1, 0.001]
    >>> print(optimizer.routing())
    bias    (3,)    SGD
    weight  (3, 2)  AdamW
    """

    def __init__(self, params: Module | Iterable, routes: Iterable) -> None:
        routes = [route if isinstance(route, tuple) else (lambda name, p: True, route) for route in routes]
        shares = _share(params, [predicate for predicate, _ in routes])
        self.optimizers = [factory(named) for (_, factory), named in zip(routes, shares)]
        for optimizer in self.optimizers:
            super().__init__(optimizer)
        self.defaults, self.step_count, self.skipped = {}, 0, 0
        self.grad_transforms, self._schedules, self._hooks = [], [], {}

    # What a wrapper has from what it wraps is of all here, or its own.
    defaults = step_count = skipped = grad_transforms = read_once = _hooks = None
