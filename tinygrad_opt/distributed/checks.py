"""Checks at the start: what ranks must have alike is compared by its words, and what differs is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..nn import Module
from ..tensor import Tensor
from . import world as current_world
from .communicator import Communicator, kind, name_differing

SHOWN = 3                                           # of what differs


def check_same(what: str, value: Any, world: Communicator | None = None) -> None:
    """Raise ValueError on all ranks where they do not give the same value, which is compared by its `repr`.

    Parameters
    ----------
    what : str
        What it is, for the message.
    value : object
        Of a mapping, each name is compared, and then their order.
    world : Communicator, optional
        By default `tg.distributed.world()`.

    Raises
    ------
    ValueError
        Naming the ranks, and what each has.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     tg.distributed.check_same("batch_size", 32 if world.rank == 2 else 64, world)
    >>> tg.distributed.simulate(4, rank)
    Traceback (most recent call last):
        ...
    ValueError: batch_size must be the same on all ranks; ranks 0, 1, 3: 64; rank 2: 32
    on rank 0 of 4
    """
    world = current_world() if world is None else world
    own = dict(value) if isinstance(value, Mapping) else {"": value}
    all_ranks = world.gather_objects({str(name): x if isinstance(x, str) else repr(x) for name, x in own.items()})
    names = list(dict.fromkeys(name for one in all_ranks for name in one))
    differing = [name for name in names if len({one.get(name) for one in all_ranks}) > 1]
    said = [f"{name} of " * bool(name) + name_differing([one.get(name, "nothing") for one in all_ranks])
            for name in differing[:SHOWN]]
    if not differing:
        orders = [", ".join(one) for one in all_ranks]
        said = [f"the order of {name_differing(orders)}"] if len(set(orders)) > 1 else []
    if said:
        more = f"; and {len(differing) - SHOWN} more" * (len(differing) > SHOWN)
        raise ValueError(f"{what} must be the same on all ranks; {'; '.join(said)}{more}")


def check_parameters(parameters: Any, world: Communicator | None = None) -> None:
    """Raise ValueError on all ranks where names, shapes, dtypes, order or `requires_grad` of their parameters differ.

    Parameters
    ----------
    parameters : Module, mapping, or iterable of (str, Tensor)
        Of a module, its parameters and buffers.
    world : Communicator, optional
        By default `tg.distributed.world()`.

    Raises
    ------
    ValueError
        Naming the ranks, and what each has.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     tg.distributed.check_parameters(tg.nn.Linear(2, 3 + world.rank, bias=False), world)
    >>> tg.distributed.simulate(2, rank)
    Traceback (most recent call last):
        ...
    ValueError: parameters must be the same on all ranks; weight of rank 0: (3, 2) float32; rank 1: (4, 2) float32
    on rank 0 of 2
    """
    named: Iterable[tuple[str, Tensor]]
    if isinstance(parameters, Module):
        named = [*parameters.named_parameters(), *parameters.named_buffers()]
    else:
        named = parameters.items() if isinstance(parameters, Mapping) else parameters
    check_same("parameters", {name: kind(p) if p.requires_grad else f"{kind(p)} without gradient"
                              for name, p in named}, world)
