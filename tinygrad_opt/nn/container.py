"""Modules that hold modules: in a row, in a list, in a dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence
from itertools import count, groupby
from operator import index
from typing import Any, Self

from ..ops import linear_relu
from .activation import ReLU
from .linear import Linear
from .module import Module, _indent, _layout


class _Row(Module, MutableSequence):
    """Modules by position: what Sequential and ModuleList share."""

    def __iter__(self) -> Iterator[Module]:
        return iter([child for child in self.__dict__.values() if isinstance(child, Module)])

    def __len__(self) -> int:
        return len(self._items(Module))

    def __getitem__(self, key: int | slice) -> Module | Self:
        if isinstance(key, slice):
            return type(self)(dict(self._items(Module)[key]))
        return list(self)[self._place(key)]

    def __setitem__(self, key: int, module: Module) -> None:
        setattr(self, self._items(Module)[self._place(key)][0], _module(module))

    def __delitem__(self, key: int | slice) -> None:
        kept = list(self)
        del kept[key if isinstance(key, slice) else self._place(key)]
        self._renamed(_numbered(kept))

    def insert(self, key: int, module: Module) -> Self:
        """Put a module before the one at a position, number all anew, and return the container."""
        modules = list(self)
        modules.insert(key, _module(module))
        return self._renamed(_numbered(modules))

    def append(self, module: Module) -> Self:
        """Put a module at the end and return the container."""
        free = next(name for name in map(str, count(len(self))) if name not in self.__dict__)
        setattr(self, free, _module(module))
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Put several modules at the end and return the container."""
        for module in list(modules):
            self.append(module)
        return self

    def _place(self, key: int) -> int:
        length, place = len(self), index(key)
        if not -length <= place < length:
            raise IndexError(f"{type(self).__name__} of {length} modules has no number {place}")
        return place % length

    def _renamed(self, items: Iterable[tuple[str, Module]]) -> Self:
        for name, _ in self._items(Module):
            delattr(self, name)
        for name, module in items:
            setattr(self, name, module)
        return self


class Sequential(_Row):
    """Modules called one after the other, each with the result of the one before.

    Parameters
    ----------
    *modules : Module, or one mapping of str to Module
        In the order of the calls. Their names are "0", "1", ..., or the keys of the mapping.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))
    >>> model
    Sequential(
      (0): Linear(in_features=64, out_features=32, bias=True)
      (1): ReLU()
      (2): Linear(in_features=32, out_features=10, bias=True)
    )
    >>> model(tg.zeros(5, 64)).shape
    (5, 10)
    >>> model[-1].out_features, len(model[:2])
    (10, 2)
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        named = len(modules) == 1 and isinstance(modules[0], Mapping)
        for name, module in modules[0].items() if named else _numbered(modules):
            self.register_module(name, _module(module))

    def forward(self, x: Any) -> Any:
        """Return x after all modules."""
        modules, k = [*self, None], 0
        while (module := modules[k]) is not None:
            if _as_is(module, *LINEAR) and _as_is(modules[k + 1], *RELU):
                x = linear_relu(x, module.weight, module.bias)
                k += 2
            else:
                x = module(x)
                k += 1
        return x


LINEAR, RELU = (Linear, Linear.forward), (ReLU, ReLU.forward)


def _as_is(module: Module, kind: type[Module], forward: Any) -> bool:
    """Whether a module is of just this kind, nothing looks at its call and nothing stands in for it."""
    return (type(module) is kind and kind.forward is forward and "forward" not in module.__dict__
            and not (module._forward_pre_hooks or module._forward_hooks))


class ModuleList(_Row):
    """A list of modules that a Module counts as its own.

    Parameters
    ----------
    modules : iterable of Module, optional

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> layers = tg.nn.ModuleList(tg.nn.Linear(8, 8) for _ in range(3))
    >>> layers
    ModuleList(
      (0-2): 3 x Linear(in_features=8, out_features=8, bias=True)
    )
    >>> len(list(layers.parameters()))
    6
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __getitem__(self, key: int | slice) -> Module | Self:
        return type(self)(list(self)[key]) if isinstance(key, slice) else super().__getitem__(key)

    def __repr__(self) -> str:
        lines, first = [], 0
        for text, group in groupby(map(repr, self)):
            last = first + len(list(group)) - 1
            lines.append(f"({first}): {_indent(text)}" if first == last else
                         f"({first}-{last}): {last - first + 1} x {_indent(text)}")
            first = last + 1
        return _layout(type(self).__name__, "", lines)


class ModuleDict(Module, MutableMapping):
    """A dict of modules that a Module counts as its own.

    Parameters
    ----------
    modules : mapping of str to Module, or iterable of pairs, optional

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> heads = tg.nn.ModuleDict({"digit": tg.nn.Linear(8, 10), "parity": tg.nn.Linear(8, 2)})
    >>> heads["parity"](tg.zeros(1, 8)).shape
    (1, 2)
    >>> sorted(heads)
    ['digit', 'parity']
    """

    __eq__, __hash__ = Module.__eq__, Module.__hash__          # a Mapping compares its items and has no hash

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        super().__init__()
        self.update(modules)

    def __getitem__(self, key: str) -> Module:
        child = self.__dict__.get(key)
        if not isinstance(child, Module):
            raise KeyError(key)
        return child

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, _module(module))

    def __delitem__(self, key: str) -> None:
        self[key]
        delattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._items(Module)])

    def __len__(self) -> int:
        return len(self._items(Module))


def _numbered(modules: Iterable[Module]) -> list[tuple[str, Module]]:
    return [(str(k), module) for k, module in enumerate(modules)]


def _module(module: Any) -> Module:
    if not isinstance(module, Module):
        raise TypeError(f"a container holds Modules, got {type(module).__name__}; "
                        "a function has a module in nn, or write one with a forward()")
    return module
