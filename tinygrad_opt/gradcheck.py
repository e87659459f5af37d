"""`check_grads`: compare gradients with differences, in a random direction and to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .autograd import enable_grad, grad
from .tensor import Tensor, float64


def check_grads(f: Callable[..., Tensor], args: Any, order: int = 2, tol: float = 1e-6, step: float = 1e-5,
                seed: int = 0) -> None:
    """Check the gradients of f at args against central differences in float64.

    For random cotangents w and directions v, the derivative of <w, f(x)> along v is computed twice: by the
    tape, and as (<w, f(x + h v)> - <w, f(x - h v)>) / 2h. For second order the tape's gradient takes the
    place of f, and so on.

    Parameters
    ----------
    f : callable
        From Tensors to one floating-point Tensor.
    args : Tensor, array_like or sequence of them
        Where to check; converted to float64, integer and boolean Tensors are passed as they are.
    order : int, default 2
        The highest derivative to check, at least 1.
    tol : float, default 1e-6
        The largest difference allowed, relative to the larger of 1 and the sizes compared.
    step : float, default 1e-5
        The h above.
    seed : int, default 0
        For the random directions.

    Raises
    ------
    AssertionError
        With both numbers, the order and the difference, when they disagree.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.check_grads(lambda x: (x * x).sum(), tg.tensor([1.0, 2.0]))
    >>> @tg.primitive(lambda g, y, x: 2.002 * g * x)
    ... def square(x):
    ...     return x * x
    >>> tg.check_grads(square, tg.tensor([1.0, 2.0]))
    Traceback (most recent call last):
        ...
    AssertionError: gradient of order 1: the tape says 0.105715, differences say 0.10561
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    random = numpy.random.default_rng(seed)
    points = [x if isinstance(x, Tensor) else Tensor(x) for x in (args if isinstance(args, (list, tuple)) else [args])]
    points = [Tensor(x, dtype=float64) if x.dtype.kind == "f" else x for x in points]
    _check(f, points, order, 1, tol, step, random)


def _check(f: Callable, points: Sequence[Tensor], order: int, level: int, tol: float, step: float,
           random: numpy.random.Generator) -> None:
    moving = [k for k, x in enumerate(points) if x.dtype.kind == "f"]
    directions = {k: random.standard_normal(points[k].shape) for k in moving}

    def at(h: float, requires_grad: bool) -> tuple[list[Tensor], Tensor]:
        moved = [Tensor(x.numpy() + h * directions[k], requires_grad) if k in directions else x
                 for k, x in enumerate(points)]
        return moved, f(*moved)

    with enable_grad():
        moved, y = at(0.0, True)
        w = random.standard_normal(y.shape)
        slopes = grad(y, [moved[k] for k in moving], w, allow_unused=True)
    tape = sum(float((c.numpy() * directions[k]).sum()) for k, c in zip(moving, slopes) if c is not None)
    ends = [float((at(h, False)[1].numpy() * w).sum()) for h in (step, -step)]
    differences = (ends[0] - ends[1]) / (2 * step)
    # What rounding in f alone can do to the difference quotient sets a floor to the tolerance.
    noise = 2.0 ** -50 * max(1.0, float(numpy.abs(y.numpy() * w).sum())) / step
    if not abs(tape - differences) <= tol * max(1.0, abs(tape), abs(differences)) + noise:
        raise AssertionError(f"gradient of order {level}: the tape says {tape:.6g}, differences say {differences:.6g}")
    if level < order and y._requires_grad:
        cotangent = Tensor(w)

        def slope(*inside: Tensor) -> Tensor:
            """The gradient of <w, f> along the fixed directions, as a function of the point."""
            with enable_grad():
                x = [p if p._requires_grad or p.dtype.kind != "f" else p.detach().requires_grad_() for p in inside]
                gradients = grad(f(*x), [x[k] for k in moving], cotangent, create_graph=True, allow_unused=True)
                terms = [(c * Tensor(directions[k])).sum() for k, c in zip(moving, gradients) if c is not None]
                return sum(terms[1:], terms[0]) if terms else Tensor(0.0, dtype=float64)
        _check(slope, points, order, level + 1, tol, step, random)
