"""Schedule-free SGD and AdamW: an average of the path in place of a schedule of lr."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import maximum, sqrt
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import NONNEGATIVE, UNIT, Range

INSIDE = Range("(0, 1)")


def averaged(p, z, g, lr_max, weight_sum, t, lr, beta, warmup_steps, r, weight_lr_power):
    gamma = lr * (t / maximum(t, warmup_steps))
    lr_max = maximum(lr_max, gamma)
    weight = t ** r * lr_max ** weight_lr_power
    weight_sum = weight_sum + weight
    c = weight / weight_sum if weight_sum > 0 else 0
    p = p + c * (z - p) + gamma * (beta * (1 - c) - 1) * g
    z = z - gamma * g
    return p, z, lr_max, weight_sum


class _ScheduleFree(Optimizer):
    """Gradients are taken at y, which lies between z, where the steps go, and x, the average to evaluate."""

    ranges = {"warmup_steps": NONNEGATIVE, "r": NONNEGATIVE, "weight_lr_power": NONNEGATIVE}

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        self.training = False

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return the parameter for z; the rest starts from 0."""
        return p if name == "z" else 0.0

    def train(self) -> None:
        """Put y into the parameters, the point to train at."""
        self._switch(True, lambda beta: 1 - beta)

    def eval(self) -> None:
        """Put x into the parameters, the average to evaluate or to keep."""
        self._switch(False, lambda beta: 1 - 1 / beta)

    def _switch(self, training: bool, share: Callable[[float], float]) -> None:
        """Move each parameter by a share of its way to z, unless that has been done."""
        if self.training != training:
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state.get(p, {})
                    if "z" in state:
                        own = state.get("master", p)._data
                        own += share(self._beta(group)) * (state["z"]._data - own)
                        p._data[...] = own
                        p._version[0] += 1
        self.training = training

    def _beta(self, group: dict[str, Any]) -> float:
        return group["betas"][0] if "betas" in group else group["momentum"]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Clears the gradients, computes the loss, calls its backward and returns it; called once.

        Raises
        ------
        RuntimeError
            Unless `train` was called: gradients belong to y.
        """
        if not self.training:
            raise RuntimeError(f"{type(self).__name__} is not in train mode: call optimizer.train() before training "
                               "and optimizer.eval() before evaluating or saving")
        return super().step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Return state and options as every optimizer does, with the mode as `training`."""
        return {**super().state_dict(), "training": self.training}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` returned; the parameters must be those of that moment and mode."""
        super().load_state_dict(state_dict, strict)
        self.training = bool(state_dict.get("training", False))


class ScheduleFreeSGD(_ScheduleFree):
    """Schedule-free SGD (Defazio et al., NeurIPS 2024, arXiv 2405.15682).

    Call `train()` before training and `eval()` before evaluating or saving: the parameters hold different points then.
    With batch normalisation, `update_bn` estimates the statistics of the second.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        Learning rate, at least 0. Larger than for SGD: 10 to 50 times that.
    momentum : float, default 0.9
        Where the gradient is taken: 0 at z, which SGD moves, 1 at its average; in (0, 1).
    weight_decay : float, default 0
        L2 penalty at y, at least 0: added to the gradient.
    warmup_steps : int, default 0
        Over so many steps lr rises linearly.
    r : float, default 0
        A point enters the average with the weight t ** r, at least 0.
    weight_lr_power : float, default 2
        Times the largest lr so far to this power, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as SGD, where the number of steps is not known beforehand: there is no schedule, and the average may be
    evaluated at any time, for the memory of SGD with momentum. Begin with lr 1 and a warm-up.

    Elsewhere: optax has no modes: `schedule_free_eval_params` returns the average.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.ScheduleFreeSGD([w], lr=0.1)
    >>> optimizer.train()
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> optimizer.eval()
    >>> bool(abs(w).item() < 0.1)
    True
    """

    ranges = {**_ScheduleFree.ranges, "momentum": INSIDE}

    def __init__(self, params: Any, lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 0,
                 warmup_steps: int = 0, r: float = 0.0, weight_lr_power: float = 2.0, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, warmup_steps=warmup_steps,
                                      r=r, weight_lr_power=weight_lr_power, maximize=maximize))

    def rule(p, g, z, lr_max, weight_sum, t, lr, momentum, weight_decay, warmup_steps, r, weight_lr_power):
        g = g + weight_decay * p
        p, z, lr_max, weight_sum = averaged(p, z, g, lr_max, weight_sum, t, lr, momentum, warmup_steps, r,
                                            weight_lr_power)
        return p, z, lr_max, weight_sum


class ScheduleFreeAdamW(_ScheduleFree):
    """Schedule-free AdamW (Defazio et al., NeurIPS 2024, arXiv 2405.15682).

    Call `train()` before training and `eval()` before evaluating or saving: the parameters hold different points then.
    With batch normalisation, `update_bn` estimates the statistics of the second.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 0.0025
        Learning rate, at least 0. Larger than for AdamW: 1 to 10 times that.
    betas : (float, float), default (0.9, 0.999)
        Where the gradient is taken, 0 at z and 1 at its average, in (0, 1); how much is kept of the mean square, in
        [0, 1).
    eps : float, default 1e-8
        Added to the root after bias correction, at least 0.
    weight_decay : float, default 0
        The share of lr by which a parameter shrinks at each step, at least 0: taken at y.
    warmup_steps, r, weight_lr_power, maximize
        As for ScheduleFreeSGD.

    Notes
    -----
    Use: as AdamW, where the number of steps is not known beforehand: there is no schedule, and the average may be
    evaluated at any time, for the memory of AdamW. Begin with lr 0.0025 and a warm-up of some hundred steps.

    Elsewhere: optax has no modes: `schedule_free_eval_params` returns the average.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.ScheduleFreeAdamW([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    Traceback (most recent call last):
        ...
    RuntimeError: ScheduleFreeAdamW is not in train mode: call optimizer.train() before training and optimizer.eval() \
before evaluating or saving
    >>> optimizer.train()
    >>> optimizer.step()
    >>> w
    tensor([1.9000], requires_grad=True)
    """

    state_names = {"v": "exp_avg_sq"}
    ranges = {**_ScheduleFree.ranges, "betas": (INSIDE, UNIT)}

    def __init__(self, params: Any, lr: float = 0.0025, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, warmup_steps: int = 0, r: float = 0.0, weight_lr_power: float = 2.0, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      warmup_steps=warmup_steps, r=r, weight_lr_power=weight_lr_power,
                                      maximize=maximize))

    def rule(p, g, z, v, lr_max, weight_sum, t, lr, beta1, beta2, eps, weight_decay, warmup_steps, r, weight_lr_power):
        v = beta2 * v + (1 - beta2) * g ** 2
        u = g / (sqrt(v / (1 - beta2 ** t)) + eps) + weight_decay * p
        p, z, lr_max, weight_sum = averaged(p, z, u, lr_max, weight_sum, t, lr, beta1, warmup_steps, r,
                                            weight_lr_power)
        return p, z, v, lr_max, weight_sum
