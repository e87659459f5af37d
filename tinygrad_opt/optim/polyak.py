"""PolyakSGD and DoG: SGD that finds its own rate, from the loss or from how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import global_norm, maximum, minimum, sqrt
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import NONNEGATIVE, POSITIVE, Range


class PolyakSGD(Optimizer):
    """SGD with Polyak's step (Polyak 1969; Loizou et al., AISTATS 2021, arXiv 2002.10542).

    Its rate is what would bring the loss to f_star if the loss were linear. It reads the loss: call `step` with a
    closure that returns it.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    max_lr : float, default 1.0
        The largest rate, above 0.
    f_star : float, default 0
        The smallest value that the loss can take.
    eps : float, default 0
        Added to the squared norm of all gradients, at least 0. While that sum is no more than the rounding of 1,
        nothing moves.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: where the smallest loss is known, for example 0 because the model can fit all the data; nothing else needs
    tuning. Begin with max_lr 1, which bounds the steps of noisy batches.

    Elsewhere: the paper has a factor c below the fraction, which is 1 here.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> def closure():
    ...     loss = (w ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer = tg.optim.PolyakSGD([w])
    >>> optimizer.step(closure).item(), w.tolist()
    (25.0, [1.5, 2.0])
    """

    ranges = {"max_lr": POSITIVE, "f_star": Range("(-inf, inf)")}

    def __init__(self, params: Any, max_lr: float = 1.0, f_star: float = 0.0, eps: float = 0.0, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(max_lr=max_lr, f_star=f_star, eps=eps, maximize=maximize))

    def rule(p, g, loss, max_lr, f_star, eps):
        slope = global_norm(g) ** 2 + eps
        lr = minimum(max_lr, (loss - f_star) / slope) if slope > 2.0 ** -52 else 0
        p = p - lr * g
        return p

    def step(self, closure: Callable[[], Any]) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable
            Clears the gradients, computes the loss, calls its backward and returns it.

        Returns
        -------
        The loss that the closure returned.

        Raises
        ------
        TypeError
            Without a closure: the rate depends on the loss.
        """
        return super().step(closure)

    def _advance(self, loss: Any, told: Any = None) -> None:
        if loss is None:
            raise TypeError("PolyakSGD: the rate depends on the loss; call step(closure) with a function that clears "
                            "the gradients, computes the loss, calls its backward and returns it")
        sign = -1 if self.param_groups[0]["maximize"] else 1
        super()._advance(loss, {"loss": sign * float(loss)})


class DoG(Optimizer):
    """Distance over gradients (Ivgi, Hinder & Carmon, ICML 2023, arXiv 2302.12022): no rate to tune.

    The rate is the largest distance from the start over the root of all squared gradients, of all parameters together.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        What the rate is multiplied by, at least 0.
    reps_rel : float, default 1e-6
        The first distance, relative to 1 + the norm of the start; above 0.
    eps : float, default 1e-8
        Added to the sum of squares under the root, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: fine-tuning and convex problems without a rate to choose: leave lr at 1, and evaluate an average of the
    path, `tg.optim.EMA`. A quarter of Prodigy's state, and less sure on networks from scratch.

    Elsewhere: the authors also have a variant with a rate for each tensor; this is the one with a common rate.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.DoG([w], reps_rel=0.25)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w, optimizer.param_groups[0]["distance"]
    (tensor([2.1000, 2.8000], requires_grad=True), 1.5)
    """

    ranges = {"reps_rel": POSITIVE, "distance": NONNEGATIVE, "squares": NONNEGATIVE}

    def __init__(self, params: Any, lr: float = 1.0, reps_rel: float = 1e-6, eps: float = 1e-8,
                 weight_decay: float = 0.0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, reps_rel=reps_rel, eps=eps, weight_decay=weight_decay, distance=0.0,
                                      squares=0.0, maximize=maximize))

    def rule(p, g, x0, distance, squares, lr, reps_rel, eps, weight_decay):
        g = g + weight_decay * p
        distance = maximum(distance, maximum(global_norm(p - x0), reps_rel * (1 + global_norm(x0))))
        squares = squares + global_norm(g) ** 2
        rate = lr * distance / sqrt(squares + eps) if squares + eps > 0 else 0
        p = p - rate * g
        return p, x0, distance, squares

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return the start of the parameter itself."""
        return p
