"""Averaged SGD: the path may be noisy, its average is not."""

from __future__ import annotations

from typing import Any

from ..rule import maximum, where
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import NONNEGATIVE


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak & Juditsky, SIAM J. Control Optim. 30, 1992).

    The average is `state[p]["ax"]`; the parameters themselves go on like SGD's.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-2
        Learning rate, at least 0. As in PyTorch a change arrives one step late: each step computes the rate of
        the next.
    lambd : float, default 1e-4
        How much the parameters shrink and how fast the rate falls, at least 0.
    alpha : float, default 0.75
        The power with which the rate falls: lr / (1 + lambd * lr * t) ** alpha; at least 0.
    t0 : float, default 1e6
        The step after which averaging begins, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: convex problems, and the last stretch of a run, where the path is noisy and its average is wanted: let t0
    be the step at which the loss stops falling, and evaluate the average. Begin with SGD's lr, 0.01.

    Elsewhere: PyTorch rounds the rate and the weight of the average to single precision unless its default dtype is
    double, which moves a float64 run by about 1e-8. Some collections give the name to an adaptive SGD, which is not
    this.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.ASGD([w], lr=0.25, lambd=0, t0=0)
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> w.tolist(), optimizer.state[w]["ax"].tolist()
    ([0.25], [0.375])
    """

    state_names = {"gamma": "eta"}
    ranges = {"lambd": NONNEGATIVE, "t0": NONNEGATIVE}

    def __init__(self, params: Any, lr: float = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
                 t0: float = 1e6, weight_decay: float = 0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay,
                                      maximize=maximize))

    def rule(p, g, ax, gamma, mu, t, lr, lambd, alpha, t0, weight_decay):
        g = g + weight_decay * p
        p = p * (1 - lambd * gamma)
        p = p - gamma * g
        ax = where(mu < 1, ax + mu * (p - ax), p)
        gamma = lr / (1 + lambd * lr * t) ** alpha
        mu = 1 / maximum(1, t - t0)
        return p, ax, gamma, mu

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return lr for the rate, 1 for the weight of the newest point, 0 for the average."""
        return {"gamma": group["lr"], "mu": 1.0}.get(name, 0.0)
