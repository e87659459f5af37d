"""AdaHessian: Adam, with the diagonal of the Hessian in place of the gradient in the denominator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...random import Generator
from ...rule import sqrt
from ...tensor import Tensor
from ..hutchinson import diagonal_sample
from ..optimizer import Optimizer
from ..ranges import Range
from .base import Report


class AdaHessian(Optimizer):
    """AdaHessian (Yao et al., AAAI 2021, arXiv 2006.00719), without its averaging over convolution kernels.

    The diagonal is estimated by z * (H z) with z of +1 and -1 (Hutchinson), at each `step(closure)`, or less often by
    `update_hessian(closure)` between ordinary steps.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 0.1
        Learning rate, at least 0.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square of the estimates, each in [0, 1).
    eps : float, default 1e-8
        Added to the denominator, at least 0.
    weight_decay : float, default 0.0
        The share of lr by which a parameter shrinks at each step, at least 0.
    hessian_power : float, default 1.0
        The power of the curvature that the step is divided by, in (0, 1]; less is closer to momentum.
    maximize : bool, default False
        Ascend.
    generator : Generator, optional
        Where z is drawn from.

    Notes
    -----
    Use: losses that can be differentiated twice, where Adam's lr is hard to find: the step is scaled by curvature, at
    about three gradients a step. Begin with lr 0.1, and with hessian_power 0.5 where the estimate is noisy.

    Elsewhere: the authors' code averages the estimate over the cells of a kernel; here every element has its own. A
    popular implementation draws +1 and -1 that are always -1, and so estimates sums of rows.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.AdaHessian([w], lr=1.0)
    >>> optimizer.step(lambda: (w ** 2 * tg.tensor([1.0, 5.0])).sum()).item()
    4504.0
    >>> w
    tensor([0., 0.], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_hessian_diag_sq", "h": "hessian"}
    ranges = {"hessian_power": Range("(0, 1]")}

    def __init__(self, params: Any, lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, hessian_power: float = 1.0, *, maximize: bool = False,
                 generator: Generator | None = None) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      hessian_power=hessian_power, maximize=maximize))
        self.generator = generator
        self.report = Report()

    def rule(p, g, m, v, h, t, lr, beta1, beta2, eps, weight_decay, hessian_power):
        p = p * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * h * h
        m_hat = m / (1 - beta1 ** t)
        v_hat = v / (1 - beta2 ** t)
        p = p - lr * m_hat / (sqrt(v_hat) ** hessian_power + eps)
        return p, m, v, h

    def update_hessian(self, closure: Callable[[], Tensor]) -> None:
        """Estimate the diagonal anew; it serves until the next time.

        Parameters
        ----------
        closure : callable
            Returns the loss, with its graph. Costs about three gradients.
        """
        self._estimate(closure)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Returns the loss, with its graph: gradient and diagonal are taken from it. Without one, the gradients are
            those that are there, and the diagonal the last estimate.

        Returns
        -------
        The loss that the closure returned, else None.

        Raises
        ------
        RuntimeError
            When the diagonal has never been estimated.
        """
        return super().step(closure)

    def _step(self, closure: Callable[[], Tensor] | None) -> Any:
        loss = None
        self.report = Report(accepted=True, reason="one step by the gradient and the last estimate of the diagonal")
        if closure is not None:
            loss, slopes = self._estimate(closure)
            self.report.functions = self.report.gradients = self.report.products = 1
            for p, g in slopes.items():
                p._grad = g
        elif any("hessian" not in self.state[p] for _, p in self._with_gradient()):
            raise RuntimeError("AdaHessian: the Hessian has not been estimated; call step(closure) with a function "
                               "that returns the loss, or update_hessian(closure) before step()")
        super()._step(None)
        return loss

    def _estimate(self, closure: Callable[[], Tensor]) -> tuple[Tensor, dict[Tensor, Tensor | None]]:
        """Write a sample of the diagonal into the state; return the loss, and its gradient for each parameter."""
        places = [(k, p) for k, group in enumerate(self.param_groups) for p in group["params"] if p.requires_grad]
        params = [p for _, p in places]
        loss, slopes, samples = diagonal_sample("AdaHessian", closure, params, self.generator)
        for (k, p), sample in zip(places, samples):
            if sample is not None:
                self._begin(self._rule(k), self.param_groups[k], p)
                self.state[p]["hessian"]._data[...] = sample
        return loss, dict(zip(params, slopes))
