"""Training in mixed precision: `autocast` beside the scaler that keeps small gradients from rounding to 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from .backend import xp
from .precision import autocast, widen
from .tensor import Tensor, float16, float32

__all__ = ["GradScaler", "autocast"]

SMALLEST, LARGEST = float(xp.finfo(float32).tiny), float(xp.finfo(float32).max)
STATE = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


class GradScaler:
    """Multiply the loss before backward and divide the gradients after it, so that float16 can hold them.

    Where a gradient is infinite or NaN nevertheless, the step is left out and the scale falls; after
    `growth_interval` good steps it grows. Micikevicius et al., Mixed precision training, arXiv:1710.03740.

    Parameters
    ----------
    init_scale : float, default 65536.0
        What the loss is multiplied by at first; positive.
    growth_factor : float, default 2.0
        What the scale is multiplied by after `growth_interval` steps without a skip; above 1.
    backoff_factor : float, default 0.5
        What the scale is multiplied by after a skipped step; in (0, 1).
    growth_interval : int, default 2000
        At least 1.
    enabled : bool, default True
        Whether to scale at all; otherwise `step` is the optimizer's.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.amp import GradScaler
    >>> w = tg.tensor([3.0], requires_grad=True)
    >>> optimizer, scaler = tg.optim.SGD([w], lr=1.0), GradScaler(init_scale=4.0)
    >>> scaler.scale((w * 2.0).sum()).backward()
    >>> w.grad
    tensor([8.])
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w
    tensor([1.], requires_grad=True)
    """

    def __init__(self, init_scale: float = 65536.0, growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True) -> None:
        self._enabled = enabled
        self._scaling = False                       # whether scale() was called at all
        self._steps: dict[Any, _Step] = {}          # since the last update, by optimizer
        self._load(dict(zip(STATE, (init_scale, growth_factor, backoff_factor, growth_interval, 0))))

    def scale(self, outputs: Any) -> Any:
        """Return a loss, or each of several in a list or tuple, times the scale; in float32 at least.

        Raises
        ------
        TypeError
            When there is something other than Tensors.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(map(self.scale, outputs))
        if not isinstance(outputs, Tensor):
            raise TypeError("GradScaler.scale takes a Tensor, or a list or tuple of them; got "
                            f"{type(outputs).__name__}")
        self._scaling = True
        with numpy.errstate(over="ignore"):         # the gradients will tell
            return (widen(outputs) if outputs.dtype == float16 else outputs) * self._scale

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale now, to clip them before `step`.

        Raises
        ------
        RuntimeError
            The second time since the last `update`, after `step`, or when no gradient was scaled.
        ValueError
            For float16 gradients, which round to 0 when they are divided.
        """
        if not self._enabled:
            return
        self._ask("unscale_")
        done = self._steps.get(optimizer)
        if done is not None:
            raise RuntimeError(f"GradScaler: unscale_() after {'step' if done.stepped else 'unscale_'}() on the same "
                               "optimizer; call update() in between")
        grads = [p._grad for group in optimizer.param_groups for p in group["params"] if p._grad is not None]
        if not grads:
            raise RuntimeError("GradScaler: no parameter of this optimizer has a gradient; call backward() on what "
                               "scale() returned")
        if any(g.dtype == float16 for g in grads):
            raise ValueError("GradScaler: float16 gradients cannot be unscaled, the small ones would round to 0; keep "
                             "the parameters in float32 and compute inside autocast()")
        self._steps[optimizer] = _Step(_unscale(grads, 1 / self._scale))

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """Unscale the gradients, unless that is done, and step the optimizer if they are all finite.

        A step that is left out adds 1 to `optimizer.skipped`.

        Returns
        -------
        What the optimizer's `step` returned, or None.

        Raises
        ------
        RuntimeError
            The second time since the last `update`, when no gradient was scaled, or with a closure.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if args or kwargs:
            raise RuntimeError("GradScaler: a closure computes gradients that were not scaled; call backward() and "
                               "step(optimizer) without one")
        self._ask("step")
        if optimizer in self._steps and self._steps[optimizer].stepped:
            raise RuntimeError("GradScaler: step() after step() on the same optimizer; call update() in between")
        if optimizer not in self._steps:
            self.unscale_(optimizer)
        step = self._steps[optimizer]
        step.stepped = True
        if step.finite:
            return optimizer.step()
        optimizer.skipped = getattr(optimizer, "skipped", 0) + 1
        return None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Lower the scale if a step was skipped since the last update, raise it if it is time; once an iteration.

        Parameters
        ----------
        new_scale : float or Tensor of one element, optional
            The scale to take instead.

        Raises
        ------
        RuntimeError
            When there was no step to judge by; when so many steps were skipped that no scale is left.
        """
        if not self._enabled:
            return
        self._ask("update")
        if new_scale is not None:
            self._scale = _checked("new_scale", float(new_scale), *CHECKS["scale"])
        elif not self._steps:
            raise RuntimeError("GradScaler: update() without a step() or unscale_() since the last one; they look for "
                               "inf and NaN")
        elif not all(step.finite for step in self._steps.values()):
            self._scale, self._growth_tracker = self._scale * self._backoff_factor, 0
            if self._scale < SMALLEST:
                raise RuntimeError("GradScaler: step after step was skipped, until no scale is left; the loss itself "
                                   "is not finite. Look for a logarithm or a quotient of zero, or lower lr")
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                grown, self._growth_tracker = self._scale * self._growth_factor, 0
                self._scale = grown if grown <= LARGEST else self._scale
        self._steps = {}

    def _ask(self, method: str) -> None:
        if not self._scaling:
            raise RuntimeError(f"GradScaler: {method}() before scale(); write scaler.scale(loss).backward()")

    def get_scale(self) -> float:
        """Return the scale; 1.0 when not enabled."""
        return self._scale if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Return whether there is any scaling."""
        return self._enabled

    def state_dict(self) -> dict[str, float]:
        """Return scale, factors, interval and the count of good steps, in torch's layout; {} when not enabled."""
        return {name: getattr(self, "_" + name.lstrip("_")) for name in STATE} if self._enabled else {}

    def load_state_dict(self, state_dict: Mapping[str, float]) -> None:
        """Continue from what `state_dict` returned; does nothing when not enabled.

        Raises
        ------
        RuntimeError
            When the state is empty: that of a scaler that was not enabled.
        ValueError
            When something is missing, unknown or out of its range. Nothing is changed then.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("GradScaler: the saved state is empty, that of a scaler with enabled=False; there is "
                               "nothing to continue from")
        if set(state_dict) != set(STATE):
            raise ValueError(f"GradScaler: a saved state has {', '.join(STATE)}; got {', '.join(map(str, state_dict))}")
        self._load(state_dict)

    def _load(self, state: Mapping[str, float]) -> None:
        checked = {name: _checked(name if name != "scale" else "init_scale", state[name], *CHECKS[name])
                   for name in STATE}
        for name, value in checked.items():
            setattr(self, "_" + name.lstrip("_"), value)


class _Step:
    """What is known of an optimizer's step since the last update."""

    def __init__(self, finite: bool) -> None:
        self.finite, self.stepped = finite, False


# What each number of the state may be, as a test and in words.
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "scale": (lambda x: 0 < x <= LARGEST, "a positive, finite float32"),
    "growth_factor": (lambda x: 1 < x < math.inf, "in (1, inf)"),
    "backoff_factor": (lambda x: 0 < x < 1, "in (0, 1)"),
    "growth_interval": (lambda x: x == int(x) >= 1, "a whole number, at least 1"),
    "_growth_tracker": (lambda x: x == int(x) >= 0, "a whole number, at least 0"),
}


def _checked(name: str, value: Any, fits: Callable[[Any], bool], words: str) -> Any:
    if not fits(value):
        raise ValueError(f"GradScaler: {name} must be {words}; got {value!r}")
    return value


def _unscale(grads: list[Tensor], factor: float) -> bool:
    """Multiply gradients by a factor, in place; return whether they are all finite.

    The sum of all squares is finite only if each number is, and one look at it is one wait for a GPU. Where it is
    not, it may have overflowed by itself: then each is asked.
    """
    total = 0.0
    with numpy.errstate(all="ignore"):
        for g in grads:
            array, version = g._data, g._version
            array *= factor
            version[0] += 1
            flat = array.reshape(-1)
            total = total + xp.dot(flat, flat)
        return bool(xp.isfinite(total)) or all(bool(xp.isfinite(g._data).all()) for g in grads)
