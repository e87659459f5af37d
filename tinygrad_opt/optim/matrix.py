"""The words that rules of matrices share: means, orthogonalisation, Kronecker factors and their bases.

Each is a word of the language of rules: a formula prints its name, and what it does stands here. A parameter of k
axes has k factors, one for each axis: lists, in the order of the axes, with None for an axis that has none.
"""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..rule import maximum, named

Array = Any
Factors = list


# ---- numbers --------------------------------------------------------------------------------------------------


@named(r"\max\left({0}, {1}\right)")
def at_least(x: float, least: float) -> float:
    """Return the larger of two numbers, as a Python float: it leaves the dtype of arrays alone; NaN stays."""
    return max(x, least)


@named(r"\min\left({0}, {1}\right)")
def at_most(x: float, most: float) -> float:
    """Return the smaller of two numbers, as a Python float."""
    return min(x, most)


@named(r"\mathrm{{RMS}}\left({0}\right)")
def rms(x: Array) -> float:
    """Return the root mean square of all elements."""
    return float(xp.linalg.norm(x)) / x.size ** 0.5


@named(r"{1} \mid {0}")
def due(t: int, every: int) -> bool:
    """Return whether something that happens every so many steps happens at step t."""
    return t % every == 0


# ---- means of the rows and columns of the last two axes ---------------------------------------------------------


@named(r"\operatorname{{mean}}_{{\mathrm{{row}}}}\left({0}^{{2}}\right)")
def row_mean_squares(x: Array) -> Array:
    """Return the mean square of each row, as a column."""
    return xp.einsum("...ij,...ij->...i", x, x)[..., None] / x.shape[-1]


@named(r"\operatorname{{mean}}_{{\mathrm{{column}}}}\left({0}^{{2}}\right)")
def column_mean_squares(x: Array) -> Array:
    """Return the mean square of each column, as a row."""
    return xp.einsum("...ij,...ij->...j", x, x)[..., None, :] / x.shape[-2]


@named(r"\operatorname{{mean}}\left({0}\right)")
def column_mean(x: Array) -> Array:
    """Return the mean of a column, or of each of a stack."""
    return x.mean(axis=-2, keepdims=True)


# ---- orthogonalisation ------------------------------------------------------------------------------------------


@named(r"\mathrm{{NS}}\left({0}\right)")
def newton_schulz(u: Array, coefficients: tuple[float, float, float], steps: int, eps: float) -> Array:
    """Return a matrix with its singular values driven to about 1, by a polynomial of odd degree 5, iterated.

    The usual coefficients are steep at 0 rather than flat at 1: after 5 steps the singular values lie between
    about 0.68 and 1.14, the singular vectors are those of u.
    """
    a, b, c = coefficients
    tall = u.shape[0] > u.shape[1]
    x = u.T if tall else u
    x = x / at_least(float(xp.linalg.norm(x)), eps)
    for _ in range(int(steps)):
        s = x @ x.T
        q = s @ s.T                                 # s is symmetric, and a product with the own transpose costs less
        q *= c
        s *= b
        q += s
        y = q @ x
        x *= a
        x += y                                      # that is x = a x + (b s + c s s) x
    return x.T if tall else x


# ---- Kronecker factors ------------------------------------------------------------------------------------------


def gram(x: Array, axis: int) -> Array:
    """Return the products of all slices of x along an axis with each other: X Xᵀ of its unfolding."""
    others = [k for k in range(x.ndim) if k != axis]
    return xp.tensordot(x, x, (others, others))


def eigh(a: Array) -> tuple[Array, Array]:
    """Return eigenvalues and eigenvectors of a symmetric matrix: NaN where LAPACK would stop at one that is not finite.

    So a gradient of NaN spoils its own parameter, as everywhere, and the optimizer tells which.
    """
    if not bool(xp.isfinite(a).all()):
        return xp.full(len(a), xp.nan, a.dtype), xp.full(a.shape, xp.nan, a.dtype)
    return xp.linalg.eigh(a)


def along_axes(x: Array, factors: Factors) -> Array:
    """Multiply each axis of x by the transpose of its factor."""
    for factor in factors:                          # the first axis is consumed, its successor becomes the last
        x = xp.moveaxis(x, 0, -1) if factor is None else xp.tensordot(x, factor, (0, 0))
    return x


@named(r"{0} + {1}_{{(i)}} {1}_{{(i)}}^{{\top}}")
def with_grams(H: Factors, g: Array) -> Factors:
    """Return the factors H of each axis i with the products of the unfolded gradient added."""
    return [h + gram(g, axis) for axis, h in enumerate(H)]


@named(r"{2}\,{0} + \left(1 - {2}\right) {1}_{{(i)}} {1}_{{(i)}}^{{\top}}")
def mean_grams(L: Factors, g: Array, beta: float) -> Factors:
    """Return the factors L of each axis i as running means of the products of the unfolded gradient."""
    return [None if mean is None else beta * mean + (1 - beta) * gram(g, axis) for axis, mean in enumerate(L)]


@named(r"{0}^{{-{1}}}")
def inverse_powers(H: Factors, exponent: float | None, eps: float) -> Factors:
    """Return each factor to the power of -exponent, that is -1 / (2k) for k axes unless another is given.

    No eigenvalue counts as smaller than eps, which the factors started from.
    """
    exponent = exponent or 1 / max(2 * len(H), 1)
    return [(vectors * maximum(values, eps) ** -exponent) @ vectors.T for values, vectors in map(eigh, H)]


@named(r"{0} \times_1 {1}_1 \cdots \times_k {1}_k")
def preconditioned(g: Array, P: Factors) -> Array:
    """Return the gradient with each axis multiplied by its symmetric factor."""
    return along_axes(g, P)


# ---- eigenbases of the factors ----------------------------------------------------------------------------------


@named(r"{0} \times_1 {1}_1^{{\top}} \cdots \times_k {1}_k^{{\top}}")
def rotated(x: Array, Q: Factors) -> Array:
    """Return x as seen in the bases Q of its axes."""
    return along_axes(x, Q)


@named(r"{0} \times_1 {1}_1 \cdots \times_k {1}_k")
def rotated_back(x: Array, Q: Factors) -> Array:
    """Return x as it was before `rotated`."""
    return along_axes(x, [None if basis is None else basis.T for basis in Q])


def eigenbases(L: Factors) -> Factors:
    """Return the eigenvectors of each factor as columns, the largest eigenvalue first."""
    return [None if factor is None else xp.ascontiguousarray(eigh(factor)[1][:, ::-1]) for factor in L]


def _order(factor: Array, basis: Array) -> tuple[Array, Array]:
    """Return the columns of a basis by falling estimate of their eigenvalue, and the factor times the basis."""
    image = factor @ basis
    return xp.argsort(-(basis * image).sum(axis=0)), image


@named(r"\mathrm{{sorted}}\left({0}\right)")
def in_order(v: Array, L: Factors, Q: Factors) -> Array:
    """Return v, an array over the columns of the bases Q, in the order that `turned` gives them."""
    for axis, (factor, basis) in enumerate(zip(L, Q)):
        v = v if factor is None else xp.take(v, _order(factor, basis)[0], axis=axis)
    return v


@named(r"\mathrm{{QR}}\left({0}\,{1}\right)")
def turned(L: Factors, Q: Factors) -> Factors:
    """Return the bases Q one power iteration nearer to the eigenvectors of L, the largest eigenvalue first."""
    def turn(factor: Array, basis: Array) -> Array:
        order, image = _order(factor, basis)
        return xp.linalg.qr(image[:, order])[0]
    return [None if factor is None else turn(factor, basis) for factor, basis in zip(L, Q)]
