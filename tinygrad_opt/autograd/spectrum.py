"""Curvature from products alone: operators, their diagonal and trace, their largest eigenvalues, their spectrum.

The functions take an operator, or what `hessian_operator` takes: a function and its inputs, or a Problem.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy

from ..backend import asarray, xp
from ..random import Generator, default_generator
from ..tensor import Tensor
from . import _points
from .curvature import Problem, _curved, _fisher, _ggn, at_least_one

Array = Any


class LinearOperator:
    """A symmetric matrix that is known by its products with vectors.

    What does not depend on the vector, the forward pass and the first backward, was computed once.

    Parameters
    ----------
    product : callable
        From a list of arrays like the inputs to a list of arrays or Tensors like them, None for zeros.
    inputs : Tensor or sequence of Tensors
        Whose numbers, one after the other, the rows and columns belong to.

    Attributes
    ----------
    shape : (int, int)
    dtype : dtype
    value : Tensor or None
        The function's value there, when it is the curvature of one.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> H = tg.autograd.hessian_operator(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]))
    >>> H.shape, H @ [1.0, 1.0], H.dense().tolist()
    ((2, 2), tensor([ 6., 12.]), [[6.0, 0.0], [0.0, 12.0]])
    """

    def __init__(self, product: Callable, inputs: Tensor | Sequence[Tensor], value: Tensor | None = None) -> None:
        self.product, self.inputs, self.value = product, inputs, value
        self._points = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        n = sum(x.numel() for x in self._points)
        self.shape, self.dtype = (n, n), xp.result_type(*(x.dtype for x in self._points))

    def __matmul__(self, v: Any) -> Tensor:
        """Return the product with a vector of shape (n,), or with the columns of a matrix (n, m)."""
        v = asarray(v._data if isinstance(v, Tensor) else v)
        if v.ndim not in (1, 2) or len(v) != self.shape[1]:
            raise ValueError(f"a matrix of shape {self.shape} multiplies vectors of shape ({self.shape[1]},) or "
                             f"matrices of shape ({self.shape[1]}, m), got {v.shape}")
        if v.ndim == 1:
            return Tensor._wrap(self.times(v))
        return Tensor._wrap(xp.stack([self.times(column) for column in v.T], axis=1))

    def times(self, v: Array) -> Array:
        """Return the product with an array of shape (n,), as an array: `@` without its checks."""
        w = self.join(self.product(list(self._parts(v))))
        if not xp.isfinite(w).all():
            raise ValueError("the product is not finite: the vector is not, or the function has no curvature at the "
                             "inputs as they are. Look for a root or a logarithm of zero")
        return w

    def dense(self) -> Tensor:
        """Return the matrix, written out by n products."""
        return self @ xp.eye(self.shape[0], dtype=self.dtype)

    def join(self, parts: Sequence[Any]) -> Array:
        """Return arrays or Tensors like the inputs, None for zeros, as one vector."""
        arrays = [part._data if isinstance(part, Tensor) else part for part in parts]
        return xp.concatenate([(xp.zeros(x.shape, x.dtype) if a is None else a).reshape(-1)
                               for x, a in zip(self._points, arrays)]).astype(self.dtype, copy=False)

    def split(self, v: Any) -> Any:
        """Return a vector of shape (n,) in the form of the inputs: a Tensor, or a tuple of them."""
        parts = tuple(map(Tensor._wrap, self._parts(v._data if isinstance(v, Tensor) else asarray(v))))
        return parts[0] if isinstance(self.inputs, Tensor) else parts

    def _parts(self, v: Array) -> Iterator[Array]:
        start = 0
        for x in self._points:
            yield v[start:start + x.numel()].reshape(x.shape).astype(x.dtype, copy=False)
            start += x.numel()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"


def hessian_operator(function: Callable, inputs: Tensor | Sequence[Tensor] | None = None) -> LinearOperator:
    """Return the Hessian of a scalar function as an operator; of a Problem, by default at its parameters.

    Parameters
    ----------
    function : callable or Problem
    inputs : Tensor or sequence of Tensors
        The point, as for `hvp`; it may not be written to while the operator is in use.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.autograd.hessian_operator(lambda x, y: x * y, [tg.tensor(1.0), tg.tensor(5.0)]).dense().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return _operator(_curved, function, inputs)


def ggn_operator(problem: Problem, inputs: Tensor | Sequence[Tensor] | None = None) -> LinearOperator:
    """Return the generalised Gauss-Newton matrix as an operator; arguments as for `ggn_vp`."""
    return _operator(_ggn, problem, inputs)


def fisher_operator(problem: Problem, inputs: Tensor | Sequence[Tensor] | None = None, kind: str = "exact",
                    samples: int = 1, generator: Generator | None = None) -> LinearOperator:
    """Return the Fisher matrix as an operator, labels drawn once; arguments as for `fisher_vp`."""
    return _operator(_fisher(kind, samples, generator), problem, inputs)


def _operator(product: Callable, function: Callable, inputs: Any) -> LinearOperator:
    if inputs is None:
        inputs = getattr(function, "parameters", ())
        if not inputs:
            raise ValueError("inputs= is missing: the Tensors at which the curvature is wanted; only a "
                             "Problem.of_model knows its own")
    value, product = product(function, _points(inputs))
    return LinearOperator(product, inputs, value)


def _operator_of(function: Any, inputs: Any) -> LinearOperator:
    if not isinstance(function, LinearOperator):
        return hessian_operator(function, inputs)
    if inputs is not None:
        raise ValueError("inputs= is for functions; an operator has its own")
    return function


# ---- estimates from random vectors ------------------------------------------------------------------------


def hutchinson_diag(function: Callable | LinearOperator, inputs: Any = None, samples: int = 100,
                    generator: Generator | None = None) -> Any:
    """Return an estimate of a symmetric matrix's diagonal (Bekas, Kokiopoulou and Saad, 2007).

    It is the mean of z * (A z) over vectors z of +1 and -1: exact for a diagonal matrix; else entry i has the
    variance of the sum of A[i, j] ** 2 over all j but i, divided by `samples`.

    Parameters
    ----------
    function : callable, Problem or LinearOperator
        Whose Hessian is meant, or the matrix itself.
    inputs : Tensor or sequence of Tensors, optional
        The point; left out for an operator, or for a Problem at its own parameters.
    samples : int, default 100
        How many products to take, at least 1.
    generator : Generator, optional
        Where z is drawn from; the default one when not given.

    Returns
    -------
    Tensor or tuple of Tensors
        As the inputs.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.autograd.hutchinson_diag(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]), samples=1)
    tensor([ 6., 12.])
    """
    A = _operator_of(function, inputs)
    return A.split(sum(z * A.times(z) for z in _signs(A, samples, generator)) / samples)


def hutchinson_trace(function: Callable | LinearOperator, inputs: Any = None, samples: int = 100,
                     generator: Generator | None = None) -> Tensor:
    """Return an estimate of a symmetric matrix's trace (Hutchinson, 1990).

    It is the mean of z' A z over vectors z of +1 and -1; its variance is 2 / `samples` times the sum of the squares
    of all entries off the diagonal. The parameters are those of `hutchinson_diag`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.autograd.hutchinson_trace(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]), samples=1)
    tensor(18.)
    """
    A = _operator_of(function, inputs)
    return Tensor._wrap(sum(z @ A.times(z) for z in _signs(A, samples, generator)) / samples)


def _signs(A: LinearOperator, samples: int, generator: Generator | None) -> Iterator[Array]:
    """Yield vectors of +1 and -1."""
    numbers = (generator or default_generator()).numpy
    for _ in range(at_least_one("samples", samples)):
        yield asarray(numbers.integers(0, 2, A.shape[0]) * 2 - 1).astype(A.dtype)


def _direction(A: LinearOperator, numbers: Any) -> Array:
    """Return a random vector of length 1."""
    v = asarray(numbers.standard_normal(A.shape[0])).astype(A.dtype)
    return v / xp.linalg.norm(v)


# ---- eigenvalues ------------------------------------------------------------------------------------------


def power_iteration(function: Callable | LinearOperator, inputs: Any = None, k: int = 1, max_iter: int = 100,
                    tol: float = 1e-4, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Return the k eigenvalues of a symmetric matrix that are largest in magnitude, with their vectors.

    Power iteration, with what has been found deflated. An iteration takes two products, v, A v and A A v, so that
    eigenvalues a and -a, between which plain iteration swings for ever, come apart as v + A v / a and v - A v / a.

    Parameters
    ----------
    function, inputs
        As for `hutchinson_diag`.
    k : int, default 1
        From 1 to the number of rows.
    max_iter : int, default 100
        The most iterations for each, at least 1.
    tol : float, default 1e-4
        Done when the length of A v - a v, with v of length 1, is at most tol * abs(a); a is then wrong by no more
        than that, and mostly by its square.
    generator : Generator, optional
        Where the first vectors are drawn from; the default one when not given.

    Returns
    -------
    values : Tensor, shape (k,)
        With their signs, the largest in magnitude first.
    vectors : Tensor, shape (n, k)
        Column i, of length 1, belongs to value i; `LinearOperator.split` gives it the form of the inputs.

    Warns
    -----
    RuntimeWarning
        When max_iter was reached; what has been found is returned.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> values, vectors = tg.autograd.power_iteration(lambda x: x[0] ** 2 - 3 * x[1] ** 2, tg.ones(2), k=2)
    >>> values
    tensor([-6.,  2.])
    """
    A = _operator_of(function, inputs)
    k, max_iter = at_least_one("k", k), at_least_one("max_iter", max_iter)
    if k > A.shape[0]:
        raise ValueError(f"k must be at most the number of rows, {A.shape[0]}; got {k}")
    numbers = (generator or default_generator()).numpy
    values, vectors = xp.zeros(0, A.dtype), xp.zeros((A.shape[0], 0), A.dtype)
    for _ in range(k):
        value, vector = _largest(A, values, vectors, max_iter, tol, numbers)
        values, vectors = xp.append(values, value), xp.column_stack([vectors, vector])
    order = xp.argsort(-xp.abs(values))
    return Tensor._wrap(values[order]), Tensor._wrap(vectors[:, order])


def _largest(A: LinearOperator, values: Array, vectors: Array, max_iter: int, tol: float,
             numbers: Any) -> tuple[Array, Array]:
    """Return the largest eigenvalue that is left, and its vector."""
    def across(v):
        return v - vectors @ (vectors.T @ v)

    def times(v):
        return across(A.times(v))

    floor = 10 * xp.finfo(A.dtype).eps * (abs(values[0]) if len(values) else 0)         # what deflation leaves
    v = across(_direction(A, numbers))
    for _ in range(max_iter):
        v = v / xp.linalg.norm(v)
        w = times(v)
        size = xp.linalg.norm(w)
        if size <= floor:                           # nothing is left
            return v @ w, v
        x = times(w)
        sign = 1 if v @ w >= 0 else -1
        u, Au = v + sign * w / size, w + sign * x / size
        length = xp.linalg.norm(u)
        u, Au = u / length, Au / length
        value = u @ Au
        error = xp.linalg.norm(Au - value * u)
        if error <= max(tol * abs(value), floor):
            return value, u
        v = x
    warnings.warn(f"power_iteration: eigenvalue {len(values) + 1} is {float(value):.6g} with a residual of "
                  f"{float(error):.2g} after {max_iter} iterations, tol allows {tol * abs(float(value)):.2g}; the next "
                  "one is about as large. Raise max_iter or tol, or see lanczos_spectrum", RuntimeWarning, stacklevel=3)
    return value, u


class Spectrum(NamedTuple):
    """How the eigenvalues of a matrix are distributed: `lanczos_spectrum` says what each of these is."""

    grid: Tensor
    density: Tensor
    values: Tensor
    weights: Tensor


def lanczos_spectrum(function: Callable | LinearOperator, inputs: Any = None, steps: int = 50, samples: int = 10,
                     grid: Any = 1000, sigma: float | None = None, generator: Generator | None = None) -> Spectrum:
    """Return the density of a symmetric matrix's eigenvalues, by stochastic Lanczos quadrature (Lin et al., 2016).

    Lanczos iteration from a random vector v of length 1 yields Ritz values and weights that stand for the whole
    spectrum: the sum of weights * f(values) is v' f(A) v, exactly so for polynomials f of degree below 2 * steps,
    and its mean over v is the mean of f over all eigenvalues. The density is each weight, spread as a normal
    distribution.

    Parameters
    ----------
    function, inputs
        As for `hutchinson_diag`.
    steps : int, default 50
        Products, and at most so many Ritz values, a sample; at least 1. All vectors of a sample are kept, and made
        orthogonal to each other twice.
    samples : int, default 10
        How many random vectors, at least 1.
    grid : int or array_like, default 1000
        Where the density is wanted, or in how many points from end to end.
    sigma : float, optional
        The width of a peak, above 0; a hundredth of the range of the Ritz values when not given.
    generator : Generator, optional
        Where the vectors are drawn from; the default one when not given.

    Returns
    -------
    Spectrum
        `grid` and `density`, whose integral is 1; the raw Ritz `values`, in order, and their `weights`, whose sum
        is 1. All are one-dimensional, in float64.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> _ = tg.manual_seed(0)
    >>> spectrum = tg.autograd.lanczos_spectrum(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]), samples=1)
    >>> spectrum.values.numpy().round(4).tolist()
    [6.0, 12.0]
    """
    A = _operator_of(function, inputs)
    steps, samples = min(at_least_one("steps", steps), A.shape[0]), at_least_one("samples", samples)
    numbers = (generator or default_generator()).numpy
    runs = [_ritz(A, _direction(A, numbers), steps) for _ in range(samples)]
    values, weights = (numpy.concatenate(parts) for parts in zip(*runs))
    order = numpy.argsort(values)
    values, weights = values[order], weights[order] / samples
    if sigma is None:
        sigma = max(values[-1] - values[0], abs(values).max() / 1000) / 100 or 0.01
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    if hasattr(grid, "__index__"):
        grid = numpy.linspace(values[0] - 5 * sigma, values[-1] + 5 * sigma, at_least_one("grid", grid))
    grid = numpy.asarray(grid, dtype=float)
    peaks = numpy.exp(-((grid[:, None] - values) / sigma) ** 2 / 2) / (sigma * (2 * numpy.pi) ** 0.5)
    return Spectrum(*(Tensor._wrap(asarray(a)) for a in (grid, peaks @ weights, values, weights)))


def _ritz(A: LinearOperator, v: Array, steps: int) -> tuple[Any, Any]:
    """Return the Ritz values of the Krylov space of a vector, and its shares in theirs, on the host."""
    basis = xp.zeros((steps, len(v)), A.dtype)
    T = numpy.zeros((steps, steps))
    for k in range(steps):
        basis[k] = v
        w = A.times(v)
        T[k, k] = float(v @ w)
        for _ in range(2):                          # once is not enough where much cancels
            w = w - basis[:k + 1].T @ (basis[:k + 1] @ w)
        size = float(xp.linalg.norm(w))
        if k + 1 == steps or size <= 10 * xp.finfo(A.dtype).eps * numpy.abs(T).max():
            break                                   # the space is exhausted
        T[k, k + 1] = T[k + 1, k] = size
        v = w / size
    values, vectors = numpy.linalg.eigh(T[:k + 1, :k + 1])
    return values, vectors[0] ** 2
