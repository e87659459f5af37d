"""The registry: every optimizer by its name, however it is spelled."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..backend import xp
from ..tensor import Tensor
from .optimizer import Optimizer


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find(name: str, names: Iterable[str], what: str = "optimizer", see: str = "tg.optim.list_optimizers()") -> str:
    """Return the one of `names` that is meant, whatever its case and punctuation.

    Raises
    ------
    TypeError
        When the name is no string.
    ValueError
        When there is none, naming the three nearest.

    Examples
    --------
    >>> from tinygrad_opt.optim.registry import find
    >>> find("ada_grad", ["Adagrad", "Adam"])
    'Adagrad'
    """
    if not isinstance(name, str):
        raise TypeError(f"a name is a string, that of one {what} here; got {type(name).__name__}")
    known = {_plain(each): each for each in names}
    if _plain(name) not in known:
        near = difflib.get_close_matches(_plain(name), known, n=3, cutoff=0)
        raise ValueError(f"there is no {what} named {name!r}; the nearest are "
                         f"{', '.join(known[each] for each in near)} (see {see})")
    return known[_plain(name)]


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the class of an optimizer of the suite, whatever the case and punctuation of its name."""
    from .. import optim
    return getattr(optim, find(name, [*optim.OPTIMIZERS, *optim.SECOND_ORDER]))


def list_optimizers(pattern: str = "*") -> list[str]:
    """Return the names of the optimizers of the suite that match a pattern, in alphabetical order.

    Parameters
    ----------
    pattern : str, default "*"
        `*` stands for anything, `?` for one letter, `[abc]` for one of these; upper and lower case are the same.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.optim.list_optimizers("*prop")
    ['RMSprop', 'Rprop']
    """
    from . import OPTIMIZERS, SECOND_ORDER
    return sorted((name for name in [*OPTIMIZERS, *SECOND_ORDER] if fnmatchcase(name.lower(), pattern.lower())),
                  key=str.lower)


def create(name: str, params: Any, **options: Any) -> Optimizer:
    """Make an optimizer by its name.

    Parameters
    ----------
    name : str
        Of its class; case and punctuation do not matter: "adamw", "ada_grad", "RMSProp".
    params : iterable
        As the class takes them: Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    **options
        As the class takes them.

    Raises
    ------
    ValueError
        When there is no such optimizer, naming the nearest; and what the class raises.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.ones(2, requires_grad=True)
    >>> type(tg.optim.create("ada_grad", [w], lr=0.1)).__name__
    'Adagrad'
    >>> tg.optim.create("adanw", [w])
    Traceback (most recent call last):
        ...
    ValueError: there is no optimizer named 'adanw'; the nearest are Adan, AdamW, Adam (see tg.optim.list_optimizers())
    """
    return optimizer_class(name)(params, **options)


REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class OptimizerInfo:
    """What is known of an optimizer; printed as a few lines.

    Attributes
    ----------
    name, description : str
        Of its class, and what its documentation says in one line.
    papers : tuple of str
        Where it comes from.
    defaults : dict
        Its options with their defaults, `inspect.Parameter.empty` where it must be given.
    state : dict
        Name of each array that it keeps, and its bytes for each float32 parameter, measured after a step on a 64 by
        64 matrix; numbers that it keeps for a whole tensor count nothing.
    settings : dict
        What had to be given for that, where not everything has a default.
    """

    name: str
    description: str
    papers: tuple[str, ...]
    defaults: dict[str, Any]
    state: dict[str, float]
    settings: dict[str, Any]

    def __str__(self) -> str:
        options = ", ".join(name if value is REQUIRED else f"{name}={value!r}"
                            for name, value in self.defaults.items())
        kept = ", ".join(f"{name} {size:g}" for name, size in self.state.items()) or "none"
        given = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        title = "" if self.description.startswith(self.name) else f"{self.name}: "
        return (f"{title}{self.description}\n  options: {options}\n"
                f"  state, bytes for each float32 parameter{given}: {kept}")

    __repr__ = __str__


def optimizer_info(name: str) -> OptimizerInfo:
    """Describe an optimizer: what it is, its options, what it keeps for each parameter, where it comes from.

    Parameters
    ----------
    name : str
        Of its class; case and punctuation do not matter.

    Raises
    ------
    ValueError
        When there is no such optimizer, naming the nearest.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.optim.optimizer_info("lion")
    Lion (Chen et al., NeurIPS 2023, arXiv 2302.06675).
      options: lr=0.0001, betas=(0.9, 0.99), weight_decay=0.0, maximize=False
      state, bytes for each float32 parameter: exp_avg 4
    """
    cls = optimizer_class(name)
    description = inspect.getdoc(cls).splitlines()[0]
    papers = re.findall(r"\(([^()]*\b(?:19|20)\d\d[^()]*)\)", description)
    signature = list(inspect.signature(cls.__init__).parameters.values())[2:]
    defaults = {option.name: option.default for option in signature if option.kind is not option.VAR_KEYWORD}
    return OptimizerInfo(cls.__name__, description, tuple(papers), defaults, *_measure(cls, defaults))


def _measure(cls: type[Optimizer], defaults: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the bytes of each array of the state; what has no default is given as in the first recorded run."""
    from . import SECOND_ORDER
    from .verify import driver, recorded, records
    if cls.__name__ in SECOND_ORDER and cls.__name__ not in recorded():         # of vectors that last for a step
        return {}, {}
    first = records(cls.__name__)[0].settings if cls.__name__ in recorded() else {}
    settings = {name: value for name, value in first.items() if defaults.get(name, REQUIRED) is REQUIRED}
    p = Tensor(xp.ones((64, 64), "float32"), requires_grad=True)

    def gradients() -> Tensor:
        p.grad = Tensor(xp.ones_like(p.data))
        return (p * p).sum()

    optimizer, step = driver(cls.__name__)(cls, [p], settings, gradients)
    step(1)
    kept = {name: [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, Tensor)]
            for name, value in optimizer.state[p].items()}
    size = p.data.size
    return {name: sum(part.data.nbytes for part in parts) / size for name, parts in kept.items() if parts}, settings
