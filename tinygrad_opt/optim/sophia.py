"""Sophia: a clipped mean gradient over an estimate of the Hessian's diagonal, taken once in a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..random import Generator
from ..rule import abs, maximum, minimum, sign
from ..tensor import Tensor
from .hutchinson import diagonal_sample
from .optimizer import Optimizer
from .plan import working_dtype
from .ranges import POSITIVE


class _Sophia(Optimizer):
    state_names = {"m": "exp_avg", "h": "hessian"}

    def _mix(self, k: int, p: Tensor, estimate: Any) -> None:
        """Take an estimate of the diagonal into the mean that the state of a parameter of group k keeps."""
        group = self.param_groups[k]
        self._begin(self._rule(k, p), group, p)
        h, beta2 = self.state[p]["hessian"]._data, group["betas"][1]
        h *= beta2
        h += (1 - beta2) * estimate


class SophiaG(_Sophia):
    """Sophia with the Gauss-Newton-Bartlett estimate (Liu et al., ICLR 2024, arXiv 2305.14342).

    Every ten steps or so: draw labels from the model's own prediction, compute the loss for them, call its backward,
    then `update_hessian()`. The other steps are ordinary.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-4
        Learning rate, at least 0: the largest step of a parameter.
    betas : (float, float), default (0.965, 0.99)
        How much is kept of the mean gradient and of the estimate, each in [0, 1).
    rho : float, default 0.04
        With a larger one fewer parameters move at full step, above 0.
    weight_decay : float, default 0.1
        The share of lr by which a parameter shrinks at each step, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: pre-training of language models: the curvature costs one more gradient every ten steps, and two arrays of
    state. Begin with slightly less than AdamW's lr, 1e-4 to 3e-4, and change rho until a tenth to a half of the
    parameters move less than fully.

    Elsewhere: as in the authors' code no bias is corrected and bs enters with the step. optax has the form of
    SophiaH.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.SophiaG([w], lr=0.5, weight_decay=0)
    >>> (w ** 2).sum().backward()
    >>> optimizer.update_hessian()
    >>> optimizer.step(bs=1)
    >>> w
    tensor([  1.5000, -29.5000], requires_grad=True)
    """

    ranges = {"rho": POSITIVE}
    _batch = 5120

    def __init__(self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.965, 0.99), rho: float = 0.04,
                 weight_decay: float = 0.1, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, rho=rho, weight_decay=weight_decay, maximize=maximize))

    def rule(p, g, m, h, bs, lr, beta1, rho, weight_decay):
        p = p * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        p = p - lr * sign(m) * minimum(abs(m) / (rho * bs * h + 1e-15), 1)
        return p, m, h

    def update_hessian(self) -> None:
        """Take the squares of the gradients of the moment into the estimate."""
        for k, group in enumerate(self.param_groups):
            for p in group["params"]:
                if p._grad is not None:
                    self._mix(k, p, p._grad._data.astype(working_dtype(p)) ** 2)

    def step(self, closure: Callable[[], Any] | None = None, bs: float = 5120) -> Any:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Clears the gradients, computes the loss, calls its backward and returns it.
        bs : float, default 5120
            How many labels a batch has: the estimate is of the mean loss, its square of the gradient must be
            multiplied by this.
        """
        self._batch = bs
        return super().step(closure)

    def _advance(self, loss: Any, told: Any = None) -> None:
        super()._advance(loss, {"bs": self._batch})


class SophiaH(_Sophia):
    """Sophia with Hutchinson's estimate (Liu et al., ICLR 2024, arXiv 2305.14342), in the form of optax.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-4
        Learning rate, at least 0.
    betas : (float, float), default (0.965, 0.99)
        How much is kept of the mean gradient and of the estimate, each in [0, 1).
    eps : float, default 1e-8
        The least that is divided by, above 0: where the curvature is less, or negative, the step is full.
    gamma : float, default 0.01
        What the curvature is multiplied by, above 0: with a smaller one more parameters move at full step.
    clip_threshold : float, default 1.0
        The full step, times lr; above 0.
    weight_decay : float, default 0
        The share of lr by which a parameter shrinks at each step, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: as SophiaG, where labels cannot be drawn from the model: any loss that can be differentiated twice will do,
    for about three gradients every ten steps. Begin with lr 1e-4.

    Elsewhere: the authors' PyTorch code has SophiaG alone; in its form the bound is rho, and no bias is corrected.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.SophiaH([w], lr=0.5)
    >>> optimizer.update_hessian(lambda: (w ** 2).sum())
    >>> optimizer.state[w]["hessian"]
    tensor([0.0200, 0.0200])
    """

    ranges = {"eps": POSITIVE, "gamma": POSITIVE, "clip_threshold": POSITIVE}

    def __init__(self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.965, 0.99), eps: float = 1e-8,
                 gamma: float = 0.01, clip_threshold: float = 1.0, weight_decay: float = 0.0, *,
                 maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, gamma=gamma, clip_threshold=clip_threshold,
                                      weight_decay=weight_decay, maximize=maximize))

    def rule(p, g, m, h, t, lr, beta1, eps, gamma, clip_threshold, weight_decay):
        m = beta1 * m + (1 - beta1) * g
        m_hat = m / (1 - beta1 ** t)
        u = maximum(minimum(m_hat / maximum(gamma * h, eps), clip_threshold), -clip_threshold)
        p = p - lr * (u + weight_decay * p)
        return p, m, h

    def update_hessian(self, closure: Callable[[], Tensor], generator: Generator | None = None) -> None:
        """Take one sample z * (H z), with z of +1 and -1, into the estimate.

        Parameters
        ----------
        closure : callable
            Computes the loss and returns it, with its graph. Costs about three gradients.
        generator : Generator, optional
            Where z is drawn from.
        """
        places = [(k, p) for k, group in enumerate(self.param_groups) for p in group["params"] if p.requires_grad]
        _, _, samples = diagonal_sample("SophiaH", closure, [p for _, p in places], generator)
        for (k, p), sample in zip(places, samples):
            if sample is not None:
                self._mix(k, p, -sample if self.param_groups[k]["maximize"] else sample)
