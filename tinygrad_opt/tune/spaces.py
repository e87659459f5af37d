"""Spaces: what each hyper-parameter may be, and how a trial draws from that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Space = dict[str, "Interval | Choice"]


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high, both among them; what `log`, `uniform` and `integer` return."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        kinds = (int,) if self.whole else (int, float)
        if not all(isinstance(end, kinds) and not isinstance(end, bool) for end in (self.low, self.high)):
            raise TypeError(f"{self}: the ends are {'whole ' * self.whole}numbers")
        if not -math.inf < self.low < self.high < math.inf or self.log and self.low <= 0:
            least = (1 if self.whole else 0) if self.log else "-inf"
            raise ValueError(f"{self}: needs {least} {'<=' if self.log and self.whole else '<'} low < high < inf")

    def __repr__(self) -> str:
        name = "integer" if self.whole else "log" if self.log else "uniform"
        return f"{name}({self.low!r}, {self.high!r}{', log=True' * (self.log and self.whole)})"


@dataclass(frozen=True)
class Choice:
    """One of several things, which differ in their names; what `choice` returns.

    Attributes
    ----------
    options : dict of str to anything
        By the name that tables and storage have for it.
    spaces : dict of str to dict
        What is to be chosen too when that option is.
    """

    options: dict[str, Any]
    spaces: dict[str, Space]

    def __repr__(self) -> str:
        inner = [f"{name}: {self.spaces[name]}" if self.spaces.get(name) else name for name in self.options]
        return f"choice({', '.join(inner)})"


def log(low: float, high: float) -> Interval:
    """Return the numbers from low to high, each power of ten as likely as the next; 0 < low < high.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.tune.log(1e-5, 1e-1)
    log(1e-05, 0.1)
    """
    return Interval(low, high, log=True)


def uniform(low: float, high: float) -> Interval:
    """Return the numbers from low to high, all as likely."""
    return Interval(low, high)


def integer(low: int, high: int, log: bool = False) -> Interval:
    """Return the whole numbers from low to high; with `log` small ones are as likely as large ones."""
    return Interval(low, high, log, whole=True)


def choice(options: Any) -> Choice:
    """Return one of several things, as likely as the others.

    Parameters
    ----------
    options : iterable, or mapping of str to mapping
        What to choose from. Of a mapping the keys; the values are spaces, which are drawn from when the key is chosen.

    Raises
    ------
    ValueError
        When there is nothing to choose from, or two options cannot be told apart.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.tune.choice({"sgd": {"momentum": tg.tune.uniform(0.0, 0.99)}, "adam": {}})
    choice(sgd: {'momentum': uniform(0.0, 0.99)}, adam)
    """
    spaces = {}
    if isinstance(options, Mapping):
        spaces = {str(name): read_space(space) for name, space in options.items()}
    options = list(options)
    named = {_name(option): option for option in options}
    if not options or len(named) < len(options):
        raise ValueError(f"a choice is between one or more things that print differently, got {options!r}")
    return Choice(named, spaces)


def _name(option: Any) -> str:
    return option if isinstance(option, str) else getattr(option, "__name__", repr(option))


def read_space(space: Any) -> Space:
    """Return a space as it is drawn from: lists are choices.

    Raises
    ------
    TypeError, ValueError
        Naming the hyper-parameter that is none.
    """
    if not isinstance(space, Mapping):
        raise TypeError("space is a dict of names, such as {'lr': tune.log(1e-4, 1.0)}; got "
                        f"{type(space).__name__}")
    found: Space = {}
    for name, part in space.items():
        if not isinstance(name, str):
            raise TypeError(f"a hyper-parameter has a name, a string; got {name!r}")
        if not isinstance(part, (Interval, Choice)):
            if not isinstance(part, (list, tuple, Mapping)):
                raise TypeError(f"{name} must be tune.log, uniform or integer of two ends, or a list to choose from; "
                                f"got {part!r}. A list of one fixes it: [{part!r}]")
            part = choice(part)
        found[name] = part
    known = list(found)
    for part in found.values():
        known += {name for inner in _inside(part) for name in names_in(inner)}
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} could stand in a trial twice; give the two different names")
    return found


def _inside(part: Interval | Choice) -> list[Space]:
    return list(part.spaces.values()) if isinstance(part, Choice) else []


def names_in(space: Space) -> list[str]:
    """Return the names of all hyper-parameters of a space, those too that come with a choice."""
    return [*space, *dict.fromkeys(name for part in space.values() for inner in _inside(part)
                                   for name in names_in(inner))]


def draw(space: Space, suggest: Callable[[str, Interval | Choice], Any], path: str = "") -> dict[str, Any]:
    """Return a value for each hyper-parameter of a space, and of those that its choices bring with them.

    Parameters
    ----------
    space : dict
    suggest : callable
        From a name that is unique in the whole space, and an Interval or Choice, to a number or the name of an option.
    path : str
        What stands before the names.
    """
    values = {}
    for name, part in space.items():
        value = suggest(path + name, part)
        values[name] = part.options[value] if isinstance(part, Choice) else value
        if isinstance(part, Choice):
            values.update(draw(part.spaces.get(value, {}), suggest, f"{path}{name}={value}/"))
    return values


def is_log(space: Space, name: str) -> bool:
    """Return whether a hyper-parameter, wherever in the space it stands, goes by powers."""
    if name in space:
        return isinstance(space[name], Interval) and space[name].log
    return any(is_log(inner, name) for part in space.values() for inner in _inside(part))
