"""Adam and AdamW: step by the mean gradient over its root mean square. Their relatives start from these lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..rule import maximum, sqrt
from ..spelling import AdamFamily
from ..tensor import Tensor
from .optimizer import Optimizer


def moments(g, m, v, beta1, beta2):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return m, v


def adam_step(p, m, v, t, lr, beta1, beta2, eps):
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * m_hat / (sqrt(v_hat) + eps)
    return p


def adam(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    p = adam_step(p, m, v, t, lr, beta1, beta2, eps)
    return p, m, v


def amsgrad(p, g, m, v, v_max, t, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    v_max = maximum(v_max, v)
    p = adam_step(p, m, v_max, t, lr, beta1, beta2, eps)
    return p, m, v, v_max


def adam_l2(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    g = g + weight_decay * p
    return adam(p, g, m, v, t, lr, beta1, beta2, eps)


def adamw(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    p = p * (1 - lr * weight_decay)
    return adam(p, g, m, v, t, lr, beta1, beta2, eps)


def amsgrad_l2(p, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay):
    g = g + weight_decay * p
    return amsgrad(p, g, m, v, v_max, t, lr, beta1, beta2, eps)


def amsgradw(p, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay):
    p = p * (1 - lr * weight_decay)
    return amsgrad(p, g, m, v, v_max, t, lr, beta1, beta2, eps)


class Adam(AdamFamily, Optimizer):
    """Adam (Kingma & Ba, ICLR 2015, arXiv 1412.6980); AMSGrad (Reddi, Kale & Kumar, ICLR 2018).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-3
        Learning rate, at least 0: about the largest step of a parameter.
    betas : (float, float), default (0.9, 0.999)
        How much is kept of the mean gradient and of the mean square, each in [0, 1).
    eps : float, default 1e-8
        Added to the root after bias correction, at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient, so that it is scaled like it. See AdamW.
    amsgrad : bool, default False
        Divide by the largest mean square so far, taken before bias correction as in PyTorch.
    maximize : bool, default False
        Ascend.
    decoupled_weight_decay : bool, default False
        Shrink the parameters instead, as AdamW does.

    Notes
    -----
    Use: the safe first choice for nearly every network: it forgives a rate that is somewhat wrong, for two arrays
    of state. Begin with lr 0.001. With weight decay take AdamW.

    Elsewhere: eps stands outside the root, after bias correction, as in PyTorch and optax; in Keras it is added
    before, so that the same number means something else, and its default is 1e-7. MLX corrects no bias unless
    asked. AMSGrad's maximum is that of the uncorrected mean square, as in PyTorch; optax takes that of the
    corrected one.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -3.0], requires_grad=True)
    >>> optimizer = tg.optim.Adam([w], lr=0.1)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([ 1.9000, -2.9000], requires_grad=True)
    """

    state_names = {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"}

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False,
                 decoupled_weight_decay: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                                      maximize=maximize, decoupled_weight_decay=decoupled_weight_decay))

    def rule_for(self, group: dict[str, Any], p: Tensor) -> Callable:
        """Return the rule for a group: with or without the running maximum, decay coupled or decoupled."""
        if group["decoupled_weight_decay"]:
            return amsgradw if group["amsgrad"] else adamw
        return amsgrad_l2 if group["amsgrad"] else adam_l2


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019, arXiv 1711.05101).

    As in PyTorch, the parameters shrink by lr * weight_decay before the step, so a schedule of lr scales the
    decay too; in the paper only the schedule's factor does.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize
        As for Adam.
    weight_decay : float, default 1e-2
        The share of lr by which a parameter shrinks at each step, at least 0.

    Notes
    -----
    Use: transformers, and whatever is trained for long with weight decay: today's default. Begin with lr 0.001,
    3e-4 for a large model, with a warm-up and a cosine; `tg.optim.decay_groups` leaves biases and norms without
    decay.

    Elsewhere: that lr multiplies the decay is PyTorch's and optax's habit; the paper multiplies by the factor of
    the schedule alone. optax decays by 1e-4 unless told otherwise. MLX corrects no bias unless asked.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([1.8000], requires_grad=True)
    """

    def __init__(self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
