"""Adagrad and Adadelta: divide the gradient by the root of all its squares, or of the recent ones."""

from __future__ import annotations

from typing import Any

from ..rule import sqrt
from ..tensor import Tensor
from .optimizer import Optimizer
from .ranges import NONNEGATIVE, Range


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer, JMLR 12, 2011).

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1e-2
        Learning rate, at least 0.
    lr_decay : float, default 0
        lr is divided by 1 + lr_decay times the steps before; at least 0.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    initial_accumulator_value : float, default 0
        What the sum of squares starts from, at least 0.
    eps : float, default 1e-10
        Added to the root, at least 0.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: sparse features, such as words and embeddings: a weight that is seldom asked keeps a large rate. The rates
    only fall, so that a long run of a deep network comes to a stand. Begin with lr 0.01 to 0.1.

    Elsewhere: eps is added to the root, as in PyTorch; optax adds it under the root.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0, -30.0], requires_grad=True)
    >>> optimizer = tg.optim.Adagrad([w], lr=0.5)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> w
    tensor([  1.2000, -29.1494], requires_grad=True)
    """

    state_names = {"s": "sum"}
    ranges = {"lr_decay": NONNEGATIVE, "initial_accumulator_value": NONNEGATIVE}

    def __init__(self, params: Any, lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps,
                                      initial_accumulator_value=initial_accumulator_value, maximize=maximize))

    def rule(p, g, s, t, lr, lr_decay, weight_decay, eps):
        g = g + weight_decay * p
        s = s + g ** 2
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)
        return p, s

    def initial(self, name: str, group: dict[str, Any], p: Tensor) -> Any:
        """Return what the sum of squares starts from."""
        return group["initial_accumulator_value"]

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add a group of parameters; as in PyTorch their state begins here and not at the first gradient."""
        super().add_param_group(group)
        group = self.param_groups[-1]
        for p in group["params"]:
            self._begin(self._rule(-1), group, p)


class Adadelta(Optimizer):
    """Adadelta (Zeiler, arXiv 1212.5701, 2012): the step has the size of the recent steps.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors.
    lr : float, default 1.0
        What the step is multiplied by, at least 0; the paper has none.
    rho : float, default 0.9
        How much of both mean squares is kept, in [0, 1].
    eps : float, default 1e-6
        Added under both roots, at least 0; the first steps are about as large as its root.
    weight_decay : float, default 0
        L2 penalty, at least 0: added to the gradient.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: where no rate is to be chosen, and to see where Adam comes from. It starts slowly, since its first steps
    have the size of the root of eps. Leave lr at 1.

    Elsewhere: PyTorch and optax agree to the last digits. Keras sets lr to 0.001 unless told otherwise.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([2.0], requires_grad=True)
    >>> optimizer = tg.optim.Adadelta([w], rho=0.75, eps=1e-2)
    >>> (w ** 2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([1.8002], requires_grad=True)
    """

    state_names = {"s": "square_avg", "a": "acc_delta"}
    ranges = {"rho": Range("[0, 1]")}

    def __init__(self, params: Any, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0, *, maximize: bool = False) -> None:
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize))

    def rule(p, g, s, a, lr, rho, eps, weight_decay):
        g = g + weight_decay * p
        s = rho * s + (1 - rho) * g ** 2
        delta = sqrt(a + eps) / sqrt(s + eps) * g
        a = rho * a + (1 - rho) * delta ** 2
        p = p - lr * delta
        return p, s, a
