"""Conjugate gradients, as natural gradient and Hessian-free use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...backend import xp

Array = Any


@dataclass
class Solution:
    """What conjugate gradients found.

    Attributes
    ----------
    x : array
        The last iterate.
    iterates : list of (array, float)
        Some of those on the way, the last at the end, with x'Ax/2 - b'x there.
    reason : str
        Why they stopped.
    """

    x: Array
    iterates: list[tuple[Array, float]] = field(default_factory=list)
    reason: str = ""


def conjugate_gradient(product: Callable[[Array], Array], b: Array, max_iter: int, tolerance: float,
                       x: Array | None = None, progress: float = 0.0, keep: float = math.inf) -> Solution:
    """Solve A x = b for a matrix that is not indefinite, given by its products (Hestenes & Stiefel, 1952).

    Parameters
    ----------
    product : callable
        v -> A v.
    b : array
        One vector.
    max_iter : int
        The most products.
    tolerance : float
        Stop at a residual of so much of b.
    x : array, optional
        Where to start; 0 by default.
    progress : float, default 0
        Stop where x'Ax/2 - b'x has fallen, over the last tenth of the iterations and at least ten, by less than so
        much of itself an iteration (Martens, ICML 2010, section 4.4); 0 is never.
    keep : float, default inf
        Keep iterates at numbers that grow by this factor.
    """
    x = xp.zeros_like(b) if x is None else x.copy()
    r = b - product(x) if x.any() else b.copy()
    d, rr, size = r.copy(), float(r @ r), float(b @ b)
    found, values, wanted = Solution(x), [], 1.0
    height = lambda: -0.5 * float(x @ (b + r))
    for i in range(1, max_iter + 1):
        if rr <= tolerance ** 2 * size:
            found.reason = f"solved to {tolerance:g} in {i - 1} iterations"
            break
        Ad = product(d)
        curvature = float(d @ Ad)
        if not curvature > 1e-14 * float(d @ d) ** 0.5 * float(Ad @ Ad) ** 0.5:
            kind = "singular" if curvature >= 0 else "indefinite" if curvature < 0 else "not finite"
            found.reason = f"stopped after {i - 1} iterations, where the curvature is {kind}"
            break
        x = x + rr / curvature * d
        r = r - rr / curvature * Ad
        rr, before = float(r @ r), rr
        d = r + rr / before * d
        values.append(height())
        if i >= wanted:
            found.iterates.append((x, values[-1]))
            wanted = max(i + 1, wanted * keep)
        span = max(10, i // 10)
        if progress and i > span and values[-1] < 0 and values[-1 - span] - values[-1] < -span * progress * values[-1]:
            found.reason = f"progress too slow after {i} iterations"
            break
    else:
        found.reason = f"max_iter {max_iter} reached"
    found.x = x
    if not found.iterates or found.iterates[-1][0] is not x:
        found.iterates.append((x, height()))
    return found
