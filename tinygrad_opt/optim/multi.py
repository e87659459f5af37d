"""MultiOptimizer: each parameter to its own kind of optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..nn.module import Module
from ..nn.sparse import Embedding
from ..rule import Rule
from ..tensor import Tensor
from .adam import AdamW
from .groups import _named
from .muon import Muon
from .optimizer import Optimizer


class MultiOptimizer(Optimizer):
    """Several optimizers as one, each with the parameters that a predicate gives it.

    Groups are those of all optimizers, one after another, so that schedules and `lr *= 0.1` reach all of them.
    Hooks that are registered here run once a step, around all.

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
    >>> print(optimizer.table())
    bias    (3,)    SGD
    weight  (3, 2)  AdamW
    """

    def __init__(self, params: Any, routes: Iterable) -> None:
        routes = [route if isinstance(route, tuple) else (lambda name, p: True, route) for route in routes]
        shares: list[list[tuple[str, Tensor]]] = [[] for _ in routes]
        for name, p in _named(params):
            taken = next((k for k, (predicate, _) in enumerate(routes) if predicate(name, p)), None)
            if taken is None:
                raise ValueError(f"MultiOptimizer: parameter {name}, shape {p.shape}, has no route; end the routes "
                                 "with an optimizer for the rest, without a predicate")
            shares[taken].append((name, p))
        for k, ((_, factory), share) in enumerate(zip(routes, shares)):
            if not share:
                raise ValueError(f"MultiOptimizer: route {k}, to {getattr(factory, '__name__', factory)}, receives no "
                                 "parameter; its predicate holds for none that is left to it")
        self.optimizers = [factory(share) for (_, factory), share in zip(routes, shares)]
        self.step_count, self.skipped, self.defaults = 0, 0, {}
        self.grad_transforms, self._schedules, self._hooks, self._remembers, self._raw = [], [], {}, False, {}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """The state of each parameter, with its optimizer."""
        return {p: optimizer.state[p] for optimizer in self.optimizers for group in optimizer.param_groups
                for p in group["params"]}

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Refuse: a group belongs to one of the optimizers."""
        raise TypeError("MultiOptimizer: a group belongs to one of the optimizers; call "
                        "optimizer.optimizers[k].add_param_group(group)")

    def _advance(self, loss: Any) -> None:
        for optimizer in self.optimizers:
            optimizer.step() if loss is None else optimizer.step(lambda: loss)

    def _rule(self, k: int, p: Tensor | None = None) -> Rule:
        for optimizer in self.optimizers:
            if k < len(optimizer.param_groups):
                break
            k -= len(optimizer.param_groups)
        return optimizer._rule(k, p)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all optimizers as the list `wrapped`, beside the name of the class and `step_count`."""
        return {"optimizer": type(self).__name__, "wrapped": [optimizer.state_dict() for optimizer in self.optimizers],
                "step_count": self.step_count}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` returned; see `Optimizer.load_state_dict`.

        Raises
        ------
        ValueError
            When it is not the state of as many such optimizers. Nothing is changed then.
        """
        saved = state_dict.get("wrapped") if isinstance(state_dict, dict) else None
        if not isinstance(saved, list) or len(saved) != len(self.optimizers):
            raise ValueError(f"MultiOptimizer: a saved state has a list 'wrapped' of {len(self.optimizers)} states, "
                             "one for each optimizer")
        before = [optimizer.state_dict() for optimizer in self.optimizers]
        try:
            for optimizer, own in zip(self.optimizers, saved):
                optimizer.load_state_dict(own, strict)
        except Exception:
            for optimizer, own in zip(self.optimizers, before):
                optimizer.load_state_dict(own)
            raise
        self.step_count = int(state_dict["step_count"])

    def table(self) -> str:
        """Return which parameter went where: name, shape and optimizer, one a line."""
        rows = [(name, str(p.shape), type(optimizer).__name__) for optimizer in self.optimizers
                for name, p in optimizer._named()]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def __repr__(self) -> str:
        return "\n".join(["MultiOptimizer of", self.table(), *map(repr, self.optimizers)])


def muon_with_adamw(model: Module, lr: float = 0.02, adamw_lr: float = 3e-4, weight_decay: float = 0.01,
                    adamw_betas: tuple[float, float] = (0.9, 0.95), skip: Iterable[str] = (),
                    **muon_options: Any) -> MultiOptimizer:
    """Give the weight matrices inside a model to Muon and the rest to AdamW, as the authors of Muon advise.

    The rest are embeddings, the last matrix (the output layer), and what is no matrix: biases, norms. The defaults are
    those of https://github.com/KellerJordan/Muon, where the two differ from the classes'.

    Parameters
    ----------
    model : Module
        What to optimize.
    lr, adamw_lr : float
        Learning rates of the two, at least 0.
    weight_decay : float, default 0.01
        Of both, at least 0.
    adamw_betas : (float, float), default (0.9, 0.95)
        AdamW's.
    skip : iterable of str
        Matrices whose name contains one of these go to AdamW, too: an output layer that is not the last, or such.
    **muon_options
        For Muon.

    Raises
    ------
    ValueError
        When no matrix is left for Muon.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Sequential(tg.nn.Embedding(9, 4), tg.nn.Linear(4, 8), tg.nn.Linear(8, 2))
    >>> print(tg.optim.muon_with_adamw(model).table())
    1.weight  (8, 4)  Muon
    0.weight  (9, 4)  AdamW
    1.bias    (8,)    AdamW
    2.weight  (2, 8)  AdamW
    2.bias    (2,)    AdamW
    """
    skip = [skip] if isinstance(skip, str) else list(skip)
    outside = [p for module in model.modules() if isinstance(module, Embedding) for p in module.parameters()]
    outside += [p for p in model.parameters() if p.ndim == 2][-1:]

    def hidden(name: str, p: Tensor) -> bool:
        return p.ndim == 2 and not any(p is q for q in outside) and not any(part in name for part in skip)

    return MultiOptimizer(model, [
        (hidden, lambda named: Muon(named, lr=lr, weight_decay=weight_decay, **muon_options)),
        lambda named: AdamW(named, lr=adamw_lr, betas=adamw_betas, weight_decay=weight_decay)])
