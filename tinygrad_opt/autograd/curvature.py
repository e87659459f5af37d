"""Curvature: Jacobians, Hessians, Gauss-Newton and Fisher matrices, as products with vectors or written out.

Everything is called as `hvp` is, with a function and its inputs. A model with its loss and a batch is such a
function of the model's parameters, a `Problem`; it also says where the outputs end and the loss begins, which the
Gauss-Newton and the Fisher matrix must know. These two, J' S J with the Jacobian J of the outputs, differ only in
the small S:

====================  ==================================================================================
Gauss-Newton          the Hessian of the loss with respect to the outputs
Fisher, exact         the expectation of s s', where s is the slope of -log p(label | output), an example
Fisher, mc            the mean of s s' over labels drawn from the model
Fisher, empirical     s s' for the labels of the batch: gradients of single examples, without taking one
====================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..backend import asarray, xp
from ..ops import reshape, stack
from ..random import Generator, default_generator
from ..tensor import Tensor, enable_grad
from . import _along, _like, _points, _value, grad, hvp, keep_graph
from .likelihood import likelihood_of

Array = Any
Product = Callable[[Sequence[Array]], Sequence[Tensor | None]]      # from directions to products, one an input


class Problem:
    """A loss of outputs, as one function of what the outputs are computed from.

    Parameters
    ----------
    outputs : callable
        From Tensors to one Tensor.
    loss : callable
        From the outputs, and the target if there is one, to a scalar.
    target : Tensor or array, optional
    parameters : tuple of Tensors, optional
        The inputs at which operators are taken when none are given.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Linear(2, 1, bias=False)
    >>> x, y = tg.tensor([[3.0, 0.0], [0.0, 1.0]]), tg.zeros(2, 1)
    >>> problem = tg.autograd.Problem.of_model(model, tg.mse_loss, x, y)
    >>> value, (product,) = tg.hvp(problem, problem.parameters, [[[1.0, 1.0]]])
    >>> product
    tensor([[9., 1.]])
    >>> residuals = tg.autograd.Problem(lambda w: w ** 2, lambda r: (r * r).sum() / 2)
    >>> tg.autograd.ggn_vp(residuals, tg.tensor([1.0, 2.0]), [1.0, 1.0])
    (tensor(8.5000), tensor([ 4., 16.]))
    """

    def __init__(self, outputs: Callable, loss: Callable, target: Any = None,
                 parameters: tuple[Tensor, ...] = ()) -> None:
        self.outputs, self.criterion, self.target, self.parameters = outputs, loss, target, parameters

    @classmethod
    def of_model(cls, model: Any, loss: Callable, x: Any, y: Any = None) -> Problem:
        """Return the loss of a model on a batch as a function of the parameters that it learns.

        Parameters
        ----------
        model : Module
            Called as it is, in training or in use; its parameters stay untouched, also when the function is asked
            for its value at others.
        loss : callable
            A function such as `tg.cross_entropy`, a loss module, or your own.
        x, y : Tensor or array
            What the model is called with, and the target.
        """
        parameters = tuple(p for p in model.parameters() if p.requires_grad)
        if not parameters:
            raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient; nothing is learned")

        def outputs(*values: Tensor) -> Tensor:
            with replaced(model, parameters, values):
                return model(x)
        return cls(outputs, loss, y, parameters)

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the loss of outputs."""
        return self.criterion(outputs) if self.target is None else self.criterion(outputs, self.target)

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.loss(_value(self.outputs, inputs))


@contextmanager
def replaced(model: Any, parameters: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> Iterator[None]:
    """Let a model compute with other Tensors in the places of its parameters."""
    if [p.shape for p in parameters] != [v.shape for v in values]:
        raise ValueError(f"the model's parameters have the shapes {[p.shape for p in parameters]}, the inputs "
                         f"{[v.shape for v in values]}; pass problem.parameters, or Tensors like these")
    other = {p: v for p, v in zip(parameters, values) if p is not v}
    places = [(module.__dict__, name, p) for module in (model.modules() if other else ())
              for name, p in module.__dict__.items() if isinstance(p, Tensor) and p in other]
    try:
        for attributes, name, p in places:
            attributes[name] = other[p]
        yield
    finally:
        for attributes, name, p in places:
            attributes[name] = p


# ---- matrices ---------------------------------------------------------------------------------------------


def jacobian(function: Callable, inputs: Tensor | Sequence[Tensor], create_graph: bool = False) -> Any:
    """Return the Jacobian of a function of Tensors, written out.

    Parameters
    ----------
    function : callable
        From Tensors to one Tensor.
    inputs : Tensor or sequence of Tensors
        The point.
    create_graph : bool, default False
        Record it, so that it can be differentiated.

    Returns
    -------
    Tensor, shape result.shape + input.shape, or a tuple of these
        One an input; zeros for an input that is not used. Row by row or column by column, whichever are fewer:
        the cost is that of as many products.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.autograd.jacobian(lambda x: tg.stack([x[0] * x[1], x[0] ** 2]), tg.tensor([2.0, 5.0])).tolist()
    [[5.0, 2.0], [4.0, 0.0]]
    """
    points = _points(inputs)
    with enable_grad():
        y = _value(function, points)
        wide = y.numel() <= sum(x.numel() for x in points)
        blocks = (_by_rows if wide else _by_columns)(y, points, create_graph)
    return blocks[0] if isinstance(inputs, Tensor) else blocks


def hessian(function: Callable, inputs: Tensor | Sequence[Tensor], create_graph: bool = False) -> Any:
    """Return the Hessian of a scalar function of Tensors, written out: as many products as the inputs have numbers.

    Parameters
    ----------
    function, inputs, create_graph
        As for `jacobian`; the function returns a scalar.

    Returns
    -------
    Tensor, shape input.shape + input.shape, or a tuple of tuples of Tensors
        For several inputs block [i][j] holds the derivatives with respect to input i, then input j.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.autograd.hessian(lambda x: x[0] ** 2 * x[1], tg.tensor([1.0, 3.0])).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    points = _points(inputs)
    with enable_grad():
        slopes = _like(points, points, grad(_value(function, points), points, create_graph=True, allow_unused=True))
        blocks = tuple(_by_rows(slope, points, create_graph) for slope in slopes)
    return blocks[0][0] if isinstance(inputs, Tensor) else blocks


def _by_rows(y: Tensor, points: list[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    rows = [_like(points, points, grad(y, points, unit, retain_graph=True, create_graph=create_graph,
                                       allow_unused=True)) for unit in _units(y)]
    return tuple(_stacked([row[k] for row in rows], 0, (*y.shape, *x.shape), x) for k, x in enumerate(points))


def _by_columns(y: Tensor, points: list[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    w, pulled = _pulled(y, points)
    with keep_graph():
        columns = [[_like(w, [w], _along([c], [unit], [w], create_graph)) for unit in _units(x)]
                   for c, x in zip(pulled, points)]
    return tuple(_stacked(column, -1, (*y.shape, *x.shape), y) for column, x in zip(columns, points))


def _units(x: Tensor) -> Iterator[Array]:
    """Yield the unit vectors of the space that a Tensor lies in."""
    for k in range(x.numel()):
        unit = xp.zeros(x.shape, x.dtype)
        unit.reshape(-1)[k] = 1
        yield unit


def _stacked(parts: list[Tensor], axis: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
    return reshape(stack(parts, axis), shape) if parts else Tensor._wrap(xp.zeros(shape, like.dtype))


def _pulled(y: Tensor, points: list[Tensor]) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Return a cotangent of y and its products with the Jacobian: their derivative is the Jacobian's transpose."""
    w = Tensor._wrap(xp.zeros_like(y._data)).requires_grad_()
    return w, grad(y, points, w, create_graph=True, allow_unused=True)


# ---- products, each with what is computed once for any number of them ---------------------------------------


def _curved(function: Callable, points: list[Tensor]) -> tuple[Tensor, Product]:
    """Return a scalar function's value and its products with the Hessian."""
    with enable_grad():
        y = _value(function, points)
        slopes = grad(y, points, create_graph=True, allow_unused=True)

    def product(directions: Sequence[Array]) -> Sequence[Tensor | None]:
        with keep_graph():
            return _along(slopes, directions, points, False)
    return y.detach(), product


def _sandwich(problem: Problem, points: list[Tensor],
              middle: Callable[[Problem, Tensor], tuple[Tensor, Callable]]) -> tuple[Tensor, Product]:
    """Return a problem's value and its products with J' S J; `middle` returns the value and products with S."""
    with enable_grad():
        z = _value(problem.outputs, points)
        w, pulled = _pulled(z, points)
    value, curve = middle(problem, z.detach())

    def product(directions: Sequence[Array]) -> Sequence[Tensor | None]:
        with keep_graph():
            tangent, = _along(pulled, directions, [w], False)
            curved = None if tangent is None else curve(tangent._data)
            if curved is None:
                return [None] * len(points)
            return grad(z, points, curved, allow_unused=True)
    return value, product


def _loss_curvature(problem: Problem, z: Tensor) -> tuple[Tensor, Callable]:
    """Return the loss of outputs, and products with its Hessian there."""
    value, product = _curved(problem.loss, [z.requires_grad_()])
    return value, lambda tangent: product([tangent])[0]


def _fisher_curvature(kind: str, samples: int, generator: Generator | None, problem: Problem,
                      z: Tensor) -> tuple[Tensor, Callable]:
    """Return the loss of outputs, and products with the Fisher matrix of the outputs themselves."""
    value, z = problem.loss(z), z._data
    target = problem.target._data if isinstance(problem.target, Tensor) else asarray(problem.target)
    likelihood, share = likelihood_of(problem.criterion, z, target)
    if kind == "exact":
        return value, lambda tangent: share * likelihood.expected(z, tangent)
    numbers = (generator or default_generator()).numpy
    slopes = ([likelihood.slope(z, target)] if kind == "empirical" else
              [likelihood.drawn(z, numbers) for _ in range(samples)])
    own = tuple(range(1, z.ndim))                   # an example is an index of the first axis
    return value, lambda tangent: share / len(slopes) * sum(
        slope * (slope * tangent).sum(axis=own, keepdims=True) for slope in slopes)


def _one(product: Callable, problem: Any, inputs: Any, v: Any) -> tuple[Tensor, Any]:
    """Return the value and a single product, in the form of the inputs."""
    points = _points(inputs)
    directions = _checked(inputs, points, v)
    value, product = product(problem, points)
    return value, _like(inputs, points, product(directions))


def _checked(inputs: Any, points: list[Tensor], v: Any) -> list[Array]:
    """Return one direction an input, as arrays of their shapes and dtypes, or say what is wrong with them."""
    parts = [v] if isinstance(inputs, Tensor) else list(v) if isinstance(v, (list, tuple)) else None
    if parts is None or len(parts) != len(points):
        raise ValueError(f"v must be a list or tuple of one direction an input, {len(points)} here; got "
                         f"{type(v).__name__ if parts is None else len(parts)}")
    arrays = [asarray(part._data if isinstance(part, Tensor) else part) for part in parts]
    for k, (array, x) in enumerate(zip(arrays, points)):
        if array.shape != x.shape:
            raise ValueError(f"v must have the shapes of the inputs: input {k} has {x.shape}, its direction "
                             f"{array.shape}")
    return [array.astype(x.dtype, copy=False) for array, x in zip(arrays, points)]


def vhp(function: Callable, inputs: Tensor | Sequence[Tensor], v: Any, create_graph: bool = False) -> tuple[Any, Any]:
    """Return the scalar `function(*inputs)` and the product of v with its Hessian.

    The Hessian is symmetric: this is `hvp`, under the other name that torch has for it.

    Parameters
    ----------
    function, inputs, v, create_graph
        As for `hvp`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.autograd.vhp(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]), [1.0, 1.0])
    (tensor(9.), tensor([ 6., 12.]))
    """
    return hvp(function, inputs, v, create_graph)


def ggn_vp(problem: Problem, inputs: Tensor | Sequence[Tensor], v: Any) -> tuple[Tensor, Any]:
    """Return the loss and the product of its generalised Gauss-Newton matrix with v (Schraudolph, 2002).

    The matrix is J' H J, where J is the Jacobian of the outputs and H the Hessian of the loss with respect to them:
    the Hessian without the curvature of the outputs, and positive semidefinite where the loss is convex. A product
    costs about two and a half gradients where arithmetic counts, with `ggn_operator` half of that.

    Parameters
    ----------
    problem : Problem
        What the outputs are, and their loss.
    inputs : Tensor or sequence of Tensors
        The point; `problem.parameters` for those of a model.
    v : array_like, or sequence of them
        One direction an input, of its shape.

    Returns
    -------
    value : Tensor
        The loss.
    product : Tensor or tuple of Tensors
        As the inputs.

    Raises
    ------
    TypeError
        When the function is no Problem.
    ValueError
        When v does not fit the inputs.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> problem = tg.autograd.Problem(lambda w: tg.exp(w), tg.mse_loss, tg.tensor([1.0, 1.0]))
    >>> tg.autograd.ggn_vp(problem, tg.zeros(2), [1.0, 2.0])
    (tensor(0.), tensor([1., 2.]))
    """
    return _one(_ggn, problem, inputs, v)


def fisher_vp(problem: Problem, inputs: Tensor | Sequence[Tensor], v: Any, kind: str = "exact", samples: int = 1,
              generator: Generator | None = None) -> tuple[Tensor, Any]:
    """Return the loss and the product of its Fisher information matrix with v (Amari, 1998).

    Parameters
    ----------
    problem : Problem
        With the loss `cross_entropy` (classes along axis 1), `mse_loss` (a normal distribution of variance 1/2) or
        `binary_cross_entropy_with_logits`, as function or module, of outputs with one example an index of axis 0.
    inputs, v
        As for `ggn_vp`.
    kind : {"exact", "mc", "empirical"}
        The expectation over the model's own labels, which for these losses is the Gauss-Newton matrix; its estimate
        from labels drawn from the model; or the labels of the batch in their place, which is no estimate of it
        (Kunstner et al., 2019).
    samples : int, default 1
        How many labels an example to draw for "mc", at least 1.
    generator : Generator, optional
        Where they are drawn from; the default one when not given.

    Returns
    -------
    value, product
        As from `ggn_vp`. The matrix has the scale of the loss: a mean over the batch when the loss is one.

    Raises
    ------
    TypeError, ValueError
        As `ggn_vp`; when the loss is none of these, or weights, smooths or ignores labels: no likelihood then.

    Notes
    -----
    Every kind costs two products with the Jacobian, as much as `ggn_vp`: the gradient of an example is its slope
    at the outputs times its rows of J, so that no gradient of a single example is ever taken. Where a layer mixes
    examples (BatchNorm1d in training), the gradient that counts is of the example's own loss through all of them.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> problem = tg.autograd.Problem(lambda w: w * tg.tensor([[1.0], [2.0]]), tg.mse_loss, tg.tensor([[1.0], [0.0]]))
    >>> for kind in ("exact", "empirical"):
    ...     print(kind, tg.autograd.fisher_vp(problem, tg.tensor([1.0]), [1.0], kind)[1].item())
    exact 5.0
    empirical 32.0
    """
    return _one(_fisher(kind, samples, generator), problem, inputs, v)


def _ggn(problem: Problem, points: list[Tensor]) -> tuple[Tensor, Product]:
    return _sandwich(_is_problem(problem), points, _loss_curvature)


def _fisher(kind: str, samples: int, generator: Generator | None) -> Callable:
    if kind not in ("exact", "mc", "empirical"):
        raise ValueError(f"kind must be 'exact', 'mc' or 'empirical', got {kind!r}")
    samples = at_least_one("samples", samples)
    middle = partial(_fisher_curvature, kind, samples, generator)
    return lambda problem, points: _sandwich(_is_problem(problem), points, middle)


def _is_problem(problem: Any) -> Problem:
    if not isinstance(problem, Problem):
        raise TypeError("this matrix depends on where the outputs end and the loss begins: give tg.autograd.Problem("
                        "outputs, loss, target) or tg.autograd.Problem.of_model(model, loss, x, y), got "
                        f"{type(problem).__name__}")
    return problem


def at_least_one(name: str, value: Any) -> int:
    """Return a count as an int, or say what is wrong with it."""
    if not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)
