"""Snapshots: all that a training holds at a moment, kept with the objects that hold it, and put back in place.

So whoever refers to these objects still does, and nothing can tell, to the bit, that anything was between.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..optim.optimizer import Optimizer
from ..random import Generator, default_generator
from ..tensor import Tensor, ndarray

# Who listens, and what is planned, belongs to the moment and not to the training.
PASSING = {"_plans", "_raw", "_hooks", "_forward_hooks", "_forward_pre_hooks"}
FOREIGN = {*sys.stdlib_module_names, "numpy", "cupy", "matplotlib"}
INSTRUMENTS = __name__.rpartition(".")[0]


class Snapshot:
    """What some objects hold now; `restore` puts it back.

    It walks through all that they hold, and through the objects whose methods are an optimizer's hooks, such as an
    average of the parameters. Instruments of the laboratory stay as they are.

    Parameters
    ----------
    *parts
        Models, optimizers, schedulers, Tensors, or lists and dicts of these.
    data : object, optional
        Where batches come from. Of it, generators and attributes are kept and no array is copied.
    """

    def __init__(self, *parts: Any, data: Any = None) -> None:
        self._kept: dict[int, tuple[Any, Any]] = {}
        self._walk([*parts, default_generator()], whole=True)
        self._walk([data], whole=False)

    def _walk(self, waiting: list[Any], whole: bool) -> None:
        while waiting:
            value = waiting.pop()
            if id(value) in self._kept or not (whole or is_object(value) or hasattr(value, "bit_generator")):
                continue
            content, inside = _read(value)
            if content is not None:
                self._kept[id(value)] = value, content
            waiting += inside

    @property
    def generators(self) -> list[Generator]:
        """The generators among the objects, the default one first."""
        return [value for value, _ in self._kept.values() if isinstance(value, Generator)]

    def restore(self) -> None:
        """Put everything back."""
        for value, content in self._kept.values():
            _write(value, content)


def is_object(value: Any) -> bool:
    """Whether something keeps attributes that may be part of a training: no function, no class, no instrument."""
    home = type(value).__module__
    return (hasattr(value, "__dict__") and home.partition(".")[0] not in FOREIGN
            and not home.startswith(INSTRUMENTS) and not isinstance(value, type))


def _read(value: Any) -> tuple[Any, list[Any]]:
    """Return what is to be put back into an object, or None, and the objects inside."""
    if isinstance(value, Tensor):
        if value._node is not None:                 # a result, which nobody writes to
            return None, []
        return (value._data, value._data.copy(), value._grad, value._requires_grad), [value._grad]
    if isinstance(value, ndarray):
        return value.copy(), []
    if isinstance(value, dict):
        return dict(value), list(value.values())
    if isinstance(value, (list, set)):
        return value.copy(), list(value)
    if isinstance(value, tuple):
        return None, list(value)
    if hasattr(value, "bit_generator"):
        return value.bit_generator.state, []
    if not is_object(value):
        return None, []
    kept = {key: part for key, part in vars(value).items() if key not in PASSING}
    hooks = vars(value).get("_hooks") if isinstance(value, Optimizer) else None
    listening = [getattr(hook, "__self__", None) for some in (hooks or {}).values() for hook in some]
    return kept, [*kept.values(), *filter(is_object, listening)]


def _write(value: Any, content: Any) -> None:
    """Put back what `_read` returned."""
    if isinstance(value, Tensor):
        value._data, numbers, value._grad, value._requires_grad = content
        value._data[...] = numbers
        value._version[0] += 1
        value._buffer = None                        # it may be the memory of a gradient that is back in use
    elif isinstance(value, ndarray):
        value[...] = content
    elif isinstance(value, (dict, set)):
        value.clear()
        value.update(content)
    elif isinstance(value, list):
        value[:] = content
    elif hasattr(value, "bit_generator"):
        value.bit_generator.state = content
    else:
        held = vars(value)
        for key in held.keys() - content.keys() - PASSING:
            del held[key]
        held.update(content)
        held.get("_plans", {}).clear()              # they are made for what has just been replaced


@contextmanager
def untouched(*parts: Any, data: Any = None) -> Iterator[None]:
    """Leave some objects, and the order of the batches, as they were before a `with` block, whatever it does."""
    before = Snapshot(*parts, data=data)
    try:
        yield
    finally:
        before.restore()
