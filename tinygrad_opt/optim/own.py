"""`from_rule`: a rule becomes an optimizer, with nothing else to write."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..rule import RuleError
from .optimizer import Optimizer
from .plan import read_rule


def from_rule(**defaults: float) -> Callable[[Callable], type[Optimizer]]:
    """Turn a rule into an optimizer.

    Parameters
    ----------
    **defaults
        The options of the rule, with their default values.

    Returns
    -------
    callable
        A decorator of the rule. What it returns is a class, used as `Name(params, lr=..., ...)`.

    Raises
    ------
    RuleError
        When the rule cannot be read, or asks for an option that has no default here.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.rule import sign
    >>> @tg.optim.from_rule(lr=1e-3, beta=0.9)
    ... def SignMomentum(p, g, m, lr, beta):
    ...     m = beta * m + (1 - beta) * g
    ...     p = p - lr * sign(m)
    ...     return p, m
    >>> w = tg.tensor([1.0, -1.0], requires_grad=True)
    >>> optimizer = SignMomentum([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 0.9000, -0.9000], requires_grad=True)
    """
    def make(rule: Callable) -> type[Optimizer]:
        wanted = set(read_rule(rule, False).options) - {"t"}
        absent = sorted(name for name in wanted - set(defaults)
                        if not (name[-1].isdigit() and name[:-1] + "s" in defaults))
        if absent:
            raise RuleError(f"rule {rule.__name__} asks for {', '.join(absent)}, which has no default; "
                            f"write @from_rule({', '.join(f'{name}=...' for name in (*defaults, *absent))})")

        def __init__(self: Optimizer, params: Any, *, maximize: bool = False, **options: float) -> None:
            unknown = sorted(set(options) - set(defaults))
            if unknown:
                raise TypeError(f"{rule.__name__} has no option {', '.join(unknown)}; it has {', '.join(defaults)}")
            Optimizer.__init__(self, params, {**defaults, **options, "maximize": maximize})
        keyword = inspect.Parameter.KEYWORD_ONLY
        taken = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", "params")]
        taken += [inspect.Parameter(name, keyword, default=value) for name, value in defaults.items()]
        __init__.__signature__ = inspect.Signature(                                      # type: ignore[attr-defined]
            [*taken, inspect.Parameter("maximize", keyword, default=False)])
        return type(rule.__name__, (Optimizer,), {"rule": rule, "__init__": __init__, "__doc__": rule.__doc__,
                                                  "__module__": rule.__module__})
    return make
