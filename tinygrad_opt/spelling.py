"""What other frameworks call the same thing, so that code written for them runs here.

Everything here is another spelling, never another meaning. The rest of the package knows one name for each thing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

# Names at the root of the package, and where the thing lives.
ROOT = {
    **{name: f"nn.{name}" for name in ("Module", "Parameter", "Sequential", "Linear", "ReLU", "CrossEntropyLoss",
                                       "MSELoss")},
    **{name: f"optim.{name}" for name in ("SGD", "Adam", "AdamW", "RMSprop", "RMSProp", "Adagrad", "AdaGrad",
                                          "lr_scheduler")},
    **{name: f"gradients.{name}" for name in ("clip_grad_norm_", "clip_grad_value_")},
    "DataLoader": "data.DataLoader", "GradScaler": "amp.GradScaler", "cross_entropy_loss": "ops.cross_entropy",
    "clip_grad_norm": "gradients.clip_grad_norm_", "clip_grad_value": "gradients.clip_grad_value_",
}
# Names in a module, and what it is called here.
OPTIM = {"RMSProp": "RMSprop", "AdaGrad": "Adagrad", "AdaDelta": "Adadelta"}
CLIPPING = {"clip_grad_norm": "clip_grad_norm_", "clip_grad_value": "clip_grad_value_"}
# Arguments of PyTorch's optimizers that say how to compute and not what: taken, and without effect.
SPEED = {"foreach", "fused", "capturable"}


def spelled(init: Callable[..., None]) -> Callable[..., None]:
    """Let the constructor of an optimizer take what every optimizer takes, and other spellings of its own arguments.

    `parameters` is `params`; `beta1` and `beta2` are the parts of `betas`; foreach, fused and capturable are
    ignored; `grad_transforms` is a list of what is done to the gradients before each step.
    """
    @wraps(init)
    def __init__(self: Any, *args: Any, grad_transforms: Any = (), **options: Any) -> None:
        if options:
            options = _respell(type(self).__name__, inspect.signature(init).parameters, args, options)
        init(self, *args, **options)
        if grad_transforms:
            self.grad_transforms = list(grad_transforms)
    return __init__


def _respell(owner: str, taken: Any, args: tuple, options: dict[str, Any]) -> dict[str, Any]:
    options = {name: value for name, value in options.items() if name in taken or name not in SPEED}
    if "parameters" in options and "parameters" not in taken:
        if args or "params" in options:
            raise TypeError(f"{owner}: parameters is another name of params; give one of the two")
        options["params"] = options.pop("parameters")
    apart = sorted({"beta1", "beta2"} & options.keys() - taken.keys())
    if apart and "betas" in taken:
        given = [options.pop(name) for name in apart]
        place = list(taken).index("betas") - 1                                  # after self
        whole = options.get("betas", args[place] if place < len(args) else None)
        betas = list(taken["betas"].default if whole is None else whole)
        for name, beta in zip(apart, given):
            k = int(name[-1]) - 1
            if whole is not None and betas[k] != beta:
                raise TypeError(f"{owner}: betas = {tuple(betas)} and {name} = {beta} disagree; give one of the two")
            betas[k] = beta
        if place >= len(args):
            options["betas"] = tuple(betas)
    return options


class AdamFamily:
    """What the Adam family's running means are also called; only its classes have `m` and `v`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> layer = tg.nn.Linear(3, 2)
    >>> optimizer = tg.optim.Adam(layer.named_parameters(), beta1=0.5)
    >>> layer(tg.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.m["bias"].tolist(), hasattr(tg.optim.SGD(layer.parameters()), "m")
    ([0.5, 0.5], False)
    """

    @property
    def m(self) -> dict[str | int, Any]:
        """The mean of each gradient, `exp_avg` in `state`: the arrays themselves, by name, or by number from 0."""
        return self._by_name("exp_avg")

    @property
    def v(self) -> dict[str | int, Any]:
        """The mean of each squared gradient, `exp_avg_sq` in `state`: as `m`."""
        return self._by_name("exp_avg_sq")

    def _by_name(self: Any, key: str) -> dict[str | int, Any]:
        """Return what is in the state of each parameter; by number where names are missing, or not unique."""
        params = [p for group in self.param_groups for p in group["params"]]
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        keys = names if len(set(names)) == len(params) else range(len(params))
        return {name: self.state[p][key].data for name, p in zip(keys, params) if key in self.state.get(p, ())}
