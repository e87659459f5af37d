"""Hutchinson's sample of the diagonal of the Hessian, z * (H z): what AdaHessian and SophiaH are fed by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import autograd
from ..backend import asarray, xp
from ..random import Generator, default_generator
from ..tensor import Tensor, enable_grad


def diagonal_sample(owner: str, closure: Callable[[], Tensor], params: list[Tensor],
                    generator: Generator | None) -> tuple[Tensor, list[Tensor | None], list[Any]]:
    """Return a loss, its gradients, and z * (H z) for each parameter, with z of +1 and -1.

    Parameters
    ----------
    owner : str
        Who asks, for the message of an error.
    closure : callable
        Computes the loss and returns it, with its graph; it may have called backward.
    params : list of Tensor
        One that the loss does not depend on gets None for both; a gradient that does not curve has the curvature 0.
    generator : Generator, optional
        Where z is drawn from.

    Raises
    ------
    TypeError
        When the closure returns no Tensor with a graph.
    """
    with enable_grad(), autograd.keep_graph():
        loss = closure()
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise TypeError(f"{owner}: the closure returns the loss with its graph, so that it can be differentiated "
                        f"twice; it returned {'one without' if isinstance(loss, Tensor) else type(loss).__name__}")
    slopes = autograd.grad(loss, params, create_graph=True, allow_unused=True)
    random = (generator or default_generator()).numpy
    signs = [asarray(random.integers(0, 2, p.shape) * 2 - 1).astype(p.dtype) for p in params]
    curved = [(g, z) for g, z in zip(slopes, signs) if g is not None and g.requires_grad]
    products = (autograd.grad([g for g, _ in curved], params, [z for _, z in curved], allow_unused=True) if curved
                else [None] * len(params))
    samples = [None if g is None else xp.zeros_like(z) if hz is None else z * hz._data
               for g, z, hz in zip(slopes, signs, products)]
    return loss, [None if g is None else g.detach() for g in slopes], samples
