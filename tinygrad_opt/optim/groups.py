"""Groups of parameters for an optimizer: which are decayed, and how fast each layer learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..tensor import Tensor
from .ranges import NONNEGATIVE, Range, check

Skip = Iterable[str] | Callable[[str, Tensor], bool]


class ParameterGroups(list):
    """Groups of parameters with names, which print as a table."""

    def __repr__(self) -> str:
        rows = [("name", "shape", "numbers", "weight decay", "lr")]
        for group in self:
            values = [group.get(key, "default") for key in ("weight_decay", "lr")]
            options = [f"{value:.4g}" if isinstance(value, (int, float)) else str(value) for value in values]
            rows += [(name, str(p.shape), f"{p.numel():,}", *options)
                     for name, p in zip(group["param_names"], group["params"])]
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join(
            "  ".join([name.ljust(widths[0]), shape.ljust(widths[1]), *map(str.rjust, rest, widths[2:])])
            for name, shape, *rest in rows)


def decay_groups(model: Any, weight_decay: float, skip: Skip = ()) -> ParameterGroups:
    """Return parameters in two groups: those that are decayed, and biases, norms and the like.

    Parameters
    ----------
    model : Module, mapping of names to Tensors, or iterable of (name, Tensor)
        Whose parameters.
    weight_decay : float
        That of the first group, in [0, inf); the second has 0.
    skip : str, iterable of str, or callable(name, parameter) -> bool
        What is not decayed. Texts are looked for in the names, and tensors of fewer than two axes are skipped
        in any case; a callable decides alone.

    Returns
    -------
    ParameterGroups
        A list for an optimizer's `params`; groups that would be empty are left out. It prints as a table.

    Raises
    ------
    TypeError, ValueError
        When there is nothing with a name, or weight_decay is out of range.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.groups import decay_groups
    >>> model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.LayerNorm(32), tg.nn.Linear(32, 10))
    >>> groups = decay_groups(model, weight_decay=0.05)
    >>> print(groups)
    name      shape     numbers  weight decay       lr
    0.weight  (32, 64)    2,048          0.05  default
    2.weight  (10, 32)      320          0.05  default
    0.bias    (32,)          32             0  default
    1.weight  (32,)          32             0  default
    1.bias    (32,)          32             0  default
    2.bias    (10,)          10             0  default
    >>> optimizer = tg.optim.AdamW(groups, lr=3e-4)
    """
    return _grouped("decay_groups", _named(model), weight_decay, skip)


def layer_decay_groups(model: Any, lr: float, layer_decay: float = 0.75, weight_decay: float = 0.0,
                       skip: Skip = ()) -> ParameterGroups:
    """Return parameters in groups whose learning rate falls from the last layer to the first, to fine-tune.

    The last layer learns with lr, each earlier one with layer_decay times the rate of the next. A layer is a
    module that owns parameters itself; layers are in the order in which the model names them.

    Parameters
    ----------
    model : Module, mapping of names to Tensors, or iterable of (name, Tensor)
        Whose parameters.
    lr : float
        The rate of the last layer, in [0, inf).
    layer_decay : float, default 0.75
        In (0, 1].
    weight_decay : float, default 0.0
        In [0, inf).
    skip : str, iterable of str, or callable(name, parameter) -> bool
        What is not decayed, as for `decay_groups`.

    Returns
    -------
    ParameterGroups
        A list for an optimizer's `params`, first layer first. It prints as a table.

    Raises
    ------
    TypeError, ValueError
        When there is nothing with a name, or a number is out of range.

    Notes
    -----
    As param_groups_layer_decay of timm, with the rates themselves in the place of `lr_scale`. Clark, Luong,
    Le, Manning: ELECTRA, arXiv 2003.10555; Bao, Dong, Piao, Wei: BEiT, arXiv 2106.08254.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.groups import layer_decay_groups
    >>> model = tg.nn.Sequential(tg.nn.Linear(8, 8), tg.nn.ReLU(), tg.nn.Linear(8, 2))
    >>> print(layer_decay_groups(model, lr=0.1, layer_decay=0.5, weight_decay=0.01))
    name      shape   numbers  weight decay    lr
    0.weight  (8, 8)       64          0.01  0.05
    0.bias    (8,)          8             0  0.05
    2.weight  (2, 8)       16          0.01   0.1
    2.bias    (2,)          2             0   0.1
    """
    check("layer_decay_groups", "lr", lr, NONNEGATIVE)
    check("layer_decay_groups", "layer_decay", layer_decay, Range("(0, 1]"))
    named = _named(model)
    layers = list(dict.fromkeys(_layer(name) for name, _ in named))
    rates = {layer: lr * layer_decay ** k for k, layer in enumerate(reversed(layers))}
    return _grouped("layer_decay_groups", named, weight_decay, skip, lambda name: {"lr": rates[_layer(name)]})


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _grouped(owner: str, named: list[tuple[str, Tensor]], weight_decay: float, skip: Skip,
             options: Callable[[str], dict[str, float]] = lambda name: {}) -> ParameterGroups:
    """Return parameters by their options, slow layers first, and in a layer those that are decayed."""
    check(owner, "weight_decay", weight_decay, NONNEGATIVE)
    skips = _skips(skip)
    groups: dict[tuple, dict[str, Any]] = {}
    for name, parameter in named:
        own = {**options(name), "weight_decay": 0.0 if skips(name, parameter) else weight_decay}
        group = groups.setdefault(tuple(own.values()), {"params": [], "param_names": [], **own})
        group["params"].append(parameter)
        group["param_names"].append(name)
    return ParameterGroups(sorted(groups.values(), key=lambda g: (g.get("lr", 0), -g["weight_decay"])))


def _skips(skip: Skip) -> Callable[[str, Tensor], bool]:
    if callable(skip):
        return skip
    parts = [skip] if isinstance(skip, str) else list(skip)
    return lambda name, parameter: parameter.ndim < 2 or any(part in name for part in parts)


def _named(model: Any) -> list[tuple[str, Tensor]]:
    if hasattr(model, "named_parameters"):
        model = model.named_parameters()
    named = list(model.items() if isinstance(model, Mapping) else model)
    for pair in named:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
                and isinstance(pair[1], Tensor)):
            raise TypeError(f"groups are made of (name, Tensor), got {type(pair).__name__}; pass the model "
                            "or model.named_parameters()")
    if not named:
        raise ValueError("no parameters to group; was the iterator used up before? Pass the model")
    return named
