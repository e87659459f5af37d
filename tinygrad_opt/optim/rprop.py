"""Rprop: only the sign of the gradient counts; each weight has a step size of its own."""

from __future__ import annotations

from typing import Any

from ..rule import maximum, minimum, sign, where
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import POSITIVE, Range


class Rprop(Optimizer):
    """Resilient backpropagation (Riedmiller & Braun, ICNN 1993); for whole batches, not for noisy gradients.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-2
        The first step size, at least 0. It is read when a parameter gets its first gradient and never again, so
        that a schedule of it has no effect.
    etas : (float, float), default (0.5, 1.2)
        What a step size is multiplied by when the gradient has changed its sign, in (0, 1), and when it has
        not, in (1, inf).
    step_sizes : (float, float), default (1e-6, 50)
        The smallest and the largest step size, both above 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: small problems with the gradient of all the data; the noise of small batches turns signs and stops it. It
    is fast there and needs no tuning: begin with lr 0.01, which only the first step reads.

    Elsewhere: optax returns the update of the step before, its first being 0.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.Rprop([w], lr=0.5)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> w
    tensor([  0.9000, -28.9000], requires_grad=True)
    """

    state_names = {"size": "step_size"}
    read_once = frozenset({"lr"})
    ranges = {"etas": (Range("(0, 1)"), Range("(1, inf)")), "step_sizes": (POSITIVE, POSITIVE)}

    def __init__(self, params: Any, lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        least, most = group["step_sizes"]
        if least > most:
            raise ValueError("Rprop: step_sizes are the smallest and the largest, in this order, got "
                             f"({least}, {most})")

    def rule(p, g, prev, size, eta1, eta2, step_size1, step_size2):
        s = sign(g * prev)
        factor = where(s > 0, eta2, where(s < 0, eta1, 1))
        size = minimum(maximum(size * factor, step_size1), step_size2)
        g = where(s < 0, 0, g)
        p = p - sign(g) * size
        prev = g
        return p, prev, size

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return lr for the step sizes, 0 for the gradient before the first."""
        return group["lr"] if name == "size" else 0.0
