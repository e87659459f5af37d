"""What an optimizer does to its gradients before its rule runs: `grad_transforms=[...]`, in that order.

A transform is any callable `transform(named, t)` that changes `.grad` in place. `named` is a list of the
(name, Tensor) that have a gradient, `t` the number of the coming step, from 1. These are the functions of
`gradients` with their settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..gradients import (
    add_grad_noise_,
    add_weight_decay_,
    centralize_grad_,
    clip_grad_agc_,
    clip_grad_block_rms_,
    clip_grad_norm_,
    clip_grad_value_,
    guard_grad_,
    normalize_grad_,
)
from ..random import Generator
from ..tensor import Tensor

__all__ = ["ClipNorm", "ClipValue", "ClipAGC", "ClipBlockRMS", "Normalize", "Centralize", "Noise", "Guard",
           "WeightDecay"]
Named = list[tuple[str, Tensor]]


class Transform:
    """A function of `gradients` with its settings, which are checked at once: it runs over no gradients."""

    def __post_init__(self) -> None:
        self([], 1)

    def __call__(self, named: Named, t: int) -> None:
        """Change the gradients of some parameters, in place, before step t."""
        raise NotImplementedError


@dataclass
class ClipNorm(Transform):
    """`clip_grad_norm_`: one factor for all gradients, so that their common norm is at most max_norm.

    Examples
    --------
    >>> from tinygrad_opt.optim.transforms import Centralize, ClipNorm
    >>> [Centralize(), ClipNorm(1.0)]
    [Centralize(), ClipNorm(max_norm=1.0, norm_type=2.0)]
    """

    max_norm: float
    norm_type: float = 2.0

    def __call__(self, named: Named, t: int) -> None:
        clip_grad_norm_(named, self.max_norm, self.norm_type)


@dataclass
class ClipValue(Transform):
    """`clip_grad_value_`: every number limited to [-clip_value, clip_value]."""

    clip_value: float

    def __call__(self, named: Named, t: int) -> None:
        clip_grad_value_(named, self.clip_value)


@dataclass
class ClipAGC(Transform):
    """`clip_grad_agc_`: the norm of each unit's gradient limited by the norm of its weights."""

    clip_factor: float = 0.01
    eps: float = 1e-3

    def __call__(self, named: Named, t: int) -> None:
        clip_grad_agc_(named, self.clip_factor, self.eps)


@dataclass
class ClipBlockRMS(Transform):
    """`clip_grad_block_rms_`: the root mean square of each tensor's gradient limited."""

    threshold: float

    def __call__(self, named: Named, t: int) -> None:
        clip_grad_block_rms_(named, self.threshold)


@dataclass
class Normalize(Transform):
    """`normalize_grad_`: all gradients together, or each by itself, to the norm 1."""

    scope: str = "global"

    def __call__(self, named: Named, t: int) -> None:
        normalize_grad_(named, self.scope)


@dataclass
class Centralize(Transform):
    """`centralize_grad_`: the mean of each unit's gradient subtracted."""

    def __call__(self, named: Named, t: int) -> None:
        centralize_grad_(named)


@dataclass
class Noise(Transform):
    """`add_grad_noise_`: Gaussian noise of variance eta at the first step, eta / t**gamma at step t.

    The generator's state is not part of the optimizer's `state_dict`; save it with `generator.get_state()`.
    """

    eta: float = 0.3
    gamma: float = 0.55
    generator: Generator | None = field(default=None, repr=False)

    def __call__(self, named: Named, t: int) -> None:
        add_grad_noise_(named, t - 1, self.eta, self.gamma, self.generator)


@dataclass
class Guard(Transform):
    """`guard_grad_`: every finite number limited to [-limit, limit], one warning the first time it acts.

    It runs inside `optimizer.step()`, when a GradScaler has already taken its scale out of the gradients: so
    large scaled gradients never meet it, and it need not be switched off.
    """

    limit: float = 1e6

    def __post_init__(self) -> None:
        self._acted = False
        super().__post_init__()

    def __call__(self, named: Named, t: int) -> None:
        self._acted |= bool(guard_grad_(named, self.limit, quiet=self._acted))


@dataclass
class WeightDecay(Transform):
    """`add_weight_decay_`: weight_decay times the parameter added to its gradient, an L2 penalty.

    For an optimizer with maximize=True use its own weight_decay: here the penalty would be maximized too.
    """

    weight_decay: float

    def __call__(self, named: Named, t: int) -> None:
        add_weight_decay_(named, self.weight_decay)
