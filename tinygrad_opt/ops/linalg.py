"""Matrix products and linear algebra."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy

from ..backend import xp
from ..precision import mode, product, through_float32
from ..tensor import Tensor, float16, primitive
from .elementwise import mul
from .shape import permute, reshape, squeeze, swapaxes, unsqueeze

# ---- products of matrices and vectors ---------------------------------------------------------------------


@primitive(lambda g, y, a, b: _matmul(g, _mT(b)), lambda g, y, a, b: _matmul(_mT(a), g))
def _matmul(a, b):
    if a.dtype is float16 is b.dtype:
        return through_float32(xp.matmul, a, b)
    return xp.matmul(a, b)


def _product(a, b):
    """Return the product of matrices as a user asks for it: rounded inside `autocast`."""
    return _matmul(a, b) if mode.rounding is None else product(_matmul, a, b)


def _mT(x):
    """Return x with its last two axes swapped."""
    return swapaxes(x, -1, -2)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product over the last axis of a and the last but one of b.

    Parameters
    ----------
    a : Tensor or array, shape (n,) or (..., m, n)
    b : Tensor or array, shape (n,) or (..., n, k)
        Leading axes broadcast; a vector is a row on the left and a column on the right.

    Returns
    -------
    Tensor or array, shape (..., m, k)
        Without the axis m or k where a vector stood.

    Raises
    ------
    ValueError
        When the shapes do not fit.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.matmul(tg.tensor([[1.0, 2.0], [3.0, 4.0]]), tg.tensor([1.0, 10.0]))
    tensor([21., 43.])
    """
    if not a.ndim or not b.ndim or a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit; the last axis of a must be as "
                         "long as the last but one of b (as b itself, if b is a vector)")
    if b.ndim == 1:
        return squeeze(matmul(a, unsqueeze(b, 1)), -1)
    if a.ndim == 1:
        return squeeze(matmul(unsqueeze(a, 0), b), -2)
    if b.ndim == 2 < a.ndim:                        # one large product forward and backward, not many
        return reshape(_product(_flat(a), b), (*a.shape[:-1], b.shape[1]))
    try:
        return _product(a, b)
    except ValueError:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit; the leading axes must "
                         f"broadcast, {a.shape[:-2]} and {b.shape[:-2]} do not") from None


def _flat(x):
    """Return x as a matrix, its leading axes made one."""
    return x if x.ndim == 2 else reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _strict(name: str, a, b, axes: tuple[int, int]):
    """The matrix product of arguments with just so many axes."""
    if (a.ndim, b.ndim) != axes:
        raise ValueError(f"{name} takes {axes[0]} and {axes[1]} axes, got shapes {a.shape} and {b.shape}; "
                         "matmul takes any number")
    return matmul(a, b)


def mv(a: Tensor, vec: Tensor) -> Tensor:
    """Return the product of a matrix and a vector."""
    return _strict("mv", a, vec, (2, 1))


def mm(a: Tensor, mat2: Tensor) -> Tensor:
    """Return the product of two matrices."""
    return _strict("mm", a, mat2, (2, 2))


def bmm(a: Tensor, mat2: Tensor) -> Tensor:
    """Return the products of two stacks of matrices, one by one."""
    return _strict("bmm", a, mat2, (3, 3))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of the products of two vectors; for more axes, what NumPy's `dot` returns."""
    if not a.ndim or not b.ndim:
        return mul(a, b)
    return matmul(a, b) if b.ndim <= 2 else tensordot(a, b, ([-1], [-2]))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the sums of products over the last axis of both."""
    return tensordot(a, b, ([-1], [-1])) if a.ndim and b.ndim else mul(a, b)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of every element of a with every element of b, shape (a's size, b's size).

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.outer(tg.tensor([1, 2]), tg.tensor([1, 10, 100]))
    tensor([[  1,  10, 100],
            [  2,  20, 200]])
    """
    return mul(reshape(a, (-1, 1)), reshape(b, (1, -1)))


def addmm(x: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Return beta * x + alpha * (mat1 @ mat2), of matrices."""
    return beta * x + alpha * mm(mat1, mat2)


def baddbmm(x: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Return beta * x + alpha * (batch1 @ batch2), of stacks of matrices."""
    return beta * x + alpha * bmm(batch1, batch2)


def addmv(x: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Return beta * x + alpha * (mat @ vec)."""
    return beta * x + alpha * mv(mat, vec)


# ---- sums of products over named axes ---------------------------------------------------------------------


def tensordot(a: Tensor, b: Tensor, axes: Any = 2, dims: Any = None) -> Tensor:
    """Return the sums of products over pairs of axes.

    Parameters
    ----------
    a, b : Tensor or array
    axes : int or pair of sequences of int, default 2
        Those of a and those of b, in order; an int takes the last so many of a and the first of b.
    dims : optional
        Torch's name for `axes`.

    Returns
    -------
    Tensor or array
        The remaining axes of a, then those of b.

    Raises
    ------
    ValueError
        When paired axes differ in length or number.
    """
    axes = axes if dims is None else dims
    if isinstance(axes, int):
        axes = range(a.ndim - axes, a.ndim), range(axes)
    left, right = ([k % x.ndim for k in ((pick,) if isinstance(pick, int) else pick)]
                   for x, pick in zip((a, b), axes))
    if [a.shape[k] for k in left] != [b.shape[k] for k in right]:
        raise ValueError(f"tensordot: axes {left} of a (shape {a.shape}) and {right} of b (shape {b.shape}) "
                         "must be as many and as long")
    rows = [k for k in range(a.ndim) if k not in left]
    columns = [k for k in range(b.ndim) if k not in right]
    shape = [a.shape[k] for k in rows] + [b.shape[k] for k in columns]
    count = math.prod(a.shape[k] for k in left)
    a = reshape(permute(a, (*rows, *left)), (math.prod(shape[:len(rows)]), count))
    b = reshape(permute(b, (*right, *columns)), (count, math.prod(shape[len(rows):])))
    return reshape(_product(a, b), tuple(shape))


def kron(a: Tensor, b: Tensor) -> Tensor:
    """Return the Kronecker product: a with every element replaced by that element times b.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.kron(tg.tensor([1, 10]), tg.tensor([1, 2, 3]))
    tensor([ 1,  2,  3, 10, 20, 30])
    """
    ndim = max(a.ndim, b.ndim)
    left, right = ((1,) * (ndim - x.ndim) + x.shape for x in (a, b))
    product = mul(reshape(a, tuple(n for k in left for n in (k, 1))),
                  reshape(b, tuple(n for k in right for n in (1, k))))
    return reshape(product, tuple(m * n for m, n in zip(left, right)))


def _einsum_vjp(k, g, y, *operands, inputs, output):
    """The same sum with the cotangent in the place of operand k, whose letters become the output."""
    others = [x for i, x in enumerate(operands) if i != k]
    names = [letters for i, letters in enumerate(inputs) if i != k]
    wanted, free = "", iter(sorted(set(string.ascii_letters) - set("".join(inputs))))
    for letter, length in zip(inputs[k], operands[k].shape):
        if letter in wanted:                        # a diagonal was read: all gradient lies on it
            name = next(free)
            others.append(xp.eye(length, dtype=g.dtype))
            names.append(letter + name)
        else:
            name = letter
            known = [x.shape[s.index(letter)] for x, s in zip((g, *others), (output, *names)) if letter in s]
            if length not in known:                 # nothing else has this axis in full
                others.append(xp.ones(length, g.dtype))
                names.append(letter)
        wanted += name
    return _einsum(g, *others, inputs=(output, *names), output=wanted)


@primitive(each=_einsum_vjp)
def _einsum(*operands, inputs, output):
    if {x.dtype for x in operands} == {float16}:
        return through_float32(partial(_einsum, inputs=inputs, output=output), *operands)
    return xp.einsum(f"{','.join(inputs)}->{output}", *operands, optimize=len(operands) > 1)


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Return sums of products over axes named by letters (Einstein's convention).

    Parameters
    ----------
    equation : str
        A letter for each axis of each operand, separated by commas; after `->` those of the result. The
        others are summed over. Without `->` the result has the letters that occur once, in alphabetical
        order. `...` stands for any axes, which broadcast. A letter twice in one operand takes a diagonal.
    *operands : Tensor or array

    Returns
    -------
    Tensor or array

    Raises
    ------
    ValueError
        When the equation does not fit the operands.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> a = tg.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> tg.einsum("ij,jk->ik", a, a)
    tensor([[ 7., 10.],
            [15., 22.]])
    >>> tg.einsum("ii", a)
    tensor(5.)
    """
    inputs, output = _letters(equation, [x.shape for x in operands])
    summed = partial(_einsum, inputs=inputs, output=output)
    return summed(*operands) if mode.rounding is None else product(summed, *operands)


def _letters(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[str, ...], str]:
    """Return the letters of each operand and of the result, with what `...` and a missing `->` stand for."""
    def refuse(reason: str) -> ValueError:
        return ValueError(f"einsum {equation!r}: {reason}")

    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(shapes):
        raise refuse(f"it names {len(inputs)} operands, got {len(shapes)}")
    spare = "".join(sorted(set(string.ascii_letters) - set(equation)))
    widest, lengths = 0, {}
    for k, (letters, shape) in enumerate(zip(inputs, shapes)):
        hidden = len(shape) - len(letters.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in letters):
            raise refuse(f"{letters!r} does not fit operand {k} of shape {shape}")
        widest = max(widest, hidden)
        inputs[k] = letters = letters.replace("...", spare[:hidden][::-1])
        for letter, length in zip(letters, shape):
            if letter not in string.ascii_letters:
                raise refuse(f"an axis is named by a letter, got {letter!r}")
            known = lengths.setdefault(letter, length)
            if length != known and (1 not in (length, known) or letters.count(letter) > 1):
                raise refuse(f"axis {letter!r} of operand {k} has length {length}, before it was {known}")
            lengths[letter] = max(length, known)
    if not arrow:
        output = "..." + "".join(sorted(c for c in lengths if c not in spare[:widest] and left.count(c) == 1))
    output = output.replace("...", spare[:widest][::-1])
    if len(set(output)) < len(output) or not set(output) <= set(lengths):
        raise refuse("each letter of the result must occur in an operand, and once in the result")
    return tuple(inputs), output


# ---- square matrices, or stacks of them -------------------------------------------------------------------


@primitive(lambda g, y, x: -_matmul(_matmul(_mT(y), g), _mT(y)))
def inverse(x: Tensor) -> Tensor:
    """Return the inverse of each matrix; NumPy's LinAlgError where there is none."""
    return xp.linalg.inv(x)


inv = inverse


@primitive(lambda g, y, a, b: -_matmul(_solve(_mT(a), g), _mT(y)), lambda g, y, a, b: _solve(_mT(a), g))
def _solve(a, b):
    if a.shape[:-2] != b.shape[:-2]:                # CuPy does not broadcast here
        batch = numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (xp.broadcast_to(x, batch + x.shape[-2:]) for x in (a, b))
    return xp.linalg.solve(a, b)


def solve(a: Tensor, b: Tensor) -> Tensor:
    """Return the x for which a @ x = b, without forming the inverse of a.

    Parameters
    ----------
    a : Tensor or array, shape (..., n, n)
    b : Tensor or array, shape (n,), (..., n) or (..., n, k)
        Columns, or where it has the shape of a without its last axis, a vector for each matrix (as in torch).

    Returns
    -------
    Tensor or array
        As b, with the leading axes of a and b broadcast.

    Raises
    ------
    numpy.linalg.LinAlgError
        When a is singular or not square.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.solve(tg.tensor([[2.0, 0.0], [0.0, 4.0]]), tg.tensor([2.0, 2.0]))
    tensor([1.0000, 0.5000])
    """
    if b.ndim == 1 or b.shape == a.shape[:-1]:
        return squeeze(_solve(a, unsqueeze(b, -1)), -1)
    return _solve(a, b)


@primitive(lambda g, y, x: reshape(g * y, (*g.shape, 1, 1)) * _mT(inverse(x)))
def det(x: Tensor) -> Tensor:
    """Return the determinant of each matrix. Its gradient needs the inverse."""
    return xp.linalg.det(x)


@primitive(lambda g, y, x: reshape(g, (*g.shape, 1, 1)) * _mT(inverse(x)))
def _logabsdet(x):
    return xp.linalg.slogdet(x)[1]


@primitive()
def _signdet(x):
    return xp.linalg.slogdet(x)[0]


class _Slogdet(NamedTuple):
    sign: Tensor
    logabsdet: Tensor


def slogdet(x: Tensor) -> _Slogdet:
    """Return the sign of the determinant of each matrix and the logarithm of its size, without overflow.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> sign, logabsdet = tg.slogdet(-1000 * tg.eye(301))
    >>> sign, round(logabsdet.item(), 2)
    (tensor(-1.), 2079.23)
    """
    return _Slogdet(_signdet(x), _logabsdet(x))


def _cholesky_vjp(g, y, x):
    """(S + S.T) / 2 with S = y^-T tril(y.T g) y^-1, the tril's diagonal halved (Murray, arXiv:1602.07527)."""
    n, root = y.shape[-1], inverse(y)
    half = xp.tri(n, dtype=y.dtype) - xp.eye(n, dtype=y.dtype) / 2
    s = _matmul(_matmul(_mT(root), _matmul(_mT(y), g) * half), root)
    return (s + _mT(s)) / 2


@primitive(_cholesky_vjp)
def cholesky(x: Tensor) -> Tensor:
    """Return the lower triangular y with x = y @ y.T of each symmetric, positive definite x.

    Only the lower triangle of x is read; NumPy's LinAlgError says that x is not positive definite.
    """
    return xp.linalg.cholesky(x)
