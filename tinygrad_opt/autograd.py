"""Gradients: the only walker of the tape.

The walk goes from results to leaves in reverse topological order, by node and without recursion. For an
ordinary gradient it hands raw arrays to the VJPs, so that `g * b` is the array library's own product and
nothing is recorded; with `create_graph=True` it hands them Tensors, and the gradient is itself on the tape.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from .backend import xp
from .ops import astype, sum_to
from .tensor import Node, Tensor, enable_grad, mode, no_grad

__all__ = ["backward", "grad", "vjp", "jvp", "hvp", "no_grad", "enable_grad"]

FREED = ("this part of the graph has been used by an earlier backward and freed; pass retain_graph=True to that "
         "backward, or run the forward pass again")


def backward(tensor: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False) -> None:
    """Accumulate the gradient of `tensor` in the `.grad` of every leaf that it depends on.

    Parameters
    ----------
    tensor : Tensor
        Where to start; a scalar unless `gradient` is given.
    gradient : array_like, optional
        The cotangent of `tensor`, of its shape; 1 for a scalar.
    retain_graph : bool, optional
        Keep the graph for another backward; by default the value of `create_graph`.
    create_graph : bool, default False
        Record the gradients themselves, for derivatives of higher order.

    Raises
    ------
    RuntimeError
        When nothing requires a gradient, the tensor is not a scalar and no gradient is given, the graph has
        been freed, or something that it needs was written to.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
    >>> (w ** 2).sum().backward()
    >>> w.grad
    tensor([ 2., -4.])
    """
    if not tensor._requires_grad:
        raise RuntimeError("backward() needs a Tensor that depends on one with requires_grad=True; this one does not. "
                           "Was it detached, or computed under no_grad()?")
    seed = _seed(tensor, gradient, create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    if tensor._node is None:
        _into_leaf(tensor, seed, create_graph)
    else:
        _walk([tensor], [seed], None, create_graph, keep)


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], grad_outputs: Any = None,
         retain_graph: bool | None = None, create_graph: bool = False, allow_unused: bool = False) -> tuple[Tensor | None, ...]:
    """Return the gradients of outputs with respect to inputs, leaving every `.grad` alone.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensors
        Inputs may be leaves or intermediate results.
    grad_outputs : array_like or sequence, optional
        A cotangent for each output; 1 for scalars.
    retain_graph, create_graph : bool
        As for `backward`.
    allow_unused : bool, default False
        Return None for an input that no output depends on, in place of an error.

    Returns
    -------
    tuple of Tensor
        One gradient an input.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor(3.0, requires_grad=True)
    >>> slope, = tg.grad(x ** 3, x, create_graph=True)
    >>> tg.grad(slope, x)
    (tensor(18.),)
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    cotangents = grad_outputs if isinstance(grad_outputs, (list, tuple)) else [grad_outputs] * len(outputs)
    if len(cotangents) != len(outputs):
        raise ValueError(f"grad_outputs needs one cotangent an output: {len(outputs)}, got {len(cotangents)}")
    for k, x in enumerate(inputs):
        if not x._requires_grad:
            raise RuntimeError(f"input {k} of grad() does not require a gradient; make it with requires_grad=True")
    keep = create_graph if retain_graph is None else retain_graph
    live = [(y, _seed(y, c, create_graph)) for y, c in zip(outputs, cotangents) if y._requires_grad]
    found: dict[Any, Any] = dict.fromkeys(x._node or x for x in inputs)
    for y, seed in live:
        if y._node is None and y in found:
            found[y] = seed if found[y] is None else found[y] + seed
    traced = [(y, seed) for y, seed in live if y._node is not None]
    if traced:
        _walk([y for y, _ in traced], [seed for _, seed in traced], found, create_graph, keep)
    results = [found[x._node or x] for x in inputs]
    for k, c in enumerate(results):
        if c is None and not allow_unused:
            raise RuntimeError(f"input {k} of grad() was not used to compute the outputs; "
                               "pass allow_unused=True to get None for it")
    # A copy: two inputs may have been handed the very same array.
    return tuple(c if c is None or create_graph else Tensor._wrap(xp.array(c)) for c in results)


def _seed(y: Tensor, gradient: Any, create_graph: bool) -> Any:
    if gradient is None:
        if y._data.size != 1:
            raise RuntimeError(f"backward starts from a scalar, this Tensor has shape {y.shape}; reduce it first, "
                               "say with .sum(), or pass gradient=")
        gradient = xp.ones_like(y._data)
    elif not isinstance(gradient, Tensor):
        gradient = xp.asarray(gradient, dtype=y.dtype)
    if gradient.shape != y.shape:
        raise RuntimeError(f"gradient= must have the shape of the Tensor, {y.shape}; got {gradient.shape}")
    if create_graph:
        return gradient if isinstance(gradient, Tensor) else Tensor._wrap(gradient)
    return gradient._data if isinstance(gradient, Tensor) else gradient


def _walk(roots: list[Tensor], seeds: list[Any], found: dict | None, create_graph: bool, keep: bool) -> None:
    """Carry the cotangents of the roots back; into leaves, or only into the keys of `found` when it is given."""
    order = _topological([root._node for root in roots])
    useful = None if found is None else _useful(order, found)
    cotangents: dict[Node, Any] = {}
    for root, seed in zip(roots, seeds):
        known = cotangents.get(root._node)
        cotangents[root._node] = seed if known is None else known + seed
    late: dict[Tensor, Any] = {}                    # leaves with hooks wait for their whole gradient
    owned: set[Node] = set()                        # cotangents that were summed here: nobody else holds them
    # Arrays are never recorded, so an ordinary backward needs no mode.
    with enable_grad() if create_graph else nullcontext():
        for node in reversed(order):
            g = cotangents.pop(node, None)
            if g is None or (useful is not None and node not in useful):
                continue
            if node._hooks:
                g = _hooked(node._hooks, g, create_graph)
            if found is not None and node in found:
                found[node] = g
                if node not in useful:
                    continue
            _pull(node, g, create_graph, cotangents, owned, found, useful, late)
            if not keep:
                node.args, node.y, node.parents = None, None, ()
        for leaf, c in late.items():
            _into_leaf(leaf, _hooked(leaf._hooks, c, create_graph), create_graph)


def _pull(node: Node, g: Any, create_graph: bool, cotangents: dict, owned: set, found: dict | None,
          useful: set | None, late: dict) -> None:
    """Pull g back through one node, to each parent that wants it."""
    args, y = node.args, node.y
    if args is None:
        raise RuntimeError(f"backward a second time through {node}: {FREED}")
    stamp = 0
    for version in node.versions:
        stamp += version[0]
    if stamp != node.stamp:
        raise RuntimeError(f"a Tensor that the gradient of {node.op.name} needs (result of shape {node.shape}) was "
                           "written to after the forward pass; write into a copy, .clone(), or update after backward")
    if create_graph:
        if y is not None:
            y = Tensor._wrap(y)
            y._node, y._requires_grad = node, True
    else:
        args = [a._data if isinstance(a, Tensor) else a for a in args]
    for (k, vjp), parent in zip(node.plan.wanted, node.parents):
        is_node = type(parent) is Node
        if useful is not None and parent not in (useful if is_node else found) and parent not in found:
            continue
        direct = None
        if not (is_node or create_graph or found is not None or parent._hooks or parent._grad is not None):
            direct = parent._buffer                 # the leaf's own memory, from a step before
        if direct is not None and hasattr(vjp, "into"):
            vjp.into(direct._data, g, y, *args, **node.kwargs)
            parent._grad = direct
            continue
        c = vjp(g, y, *args, **node.kwargs)
        if c.shape != parent.shape:
            c = sum_to(c, parent.shape)
        if c.dtype != parent.dtype:
            c = astype(c, parent.dtype)
        if found is not None and parent in found and not is_node:
            found[parent] = c if found[parent] is None else found[parent] + c
        elif not is_node:
            if parent._hooks:
                late[parent] = c if parent not in late else late[parent] + c
            else:
                _into_leaf(parent, c, create_graph)
        elif parent not in cotangents:
            cotangents[parent] = c
        elif parent in owned:
            cotangents[parent] += c
        else:
            cotangents[parent] = cotangents[parent] + c
            if not create_graph and c.shape:
                owned.add(parent)


def _into_leaf(leaf: Tensor, c: Any, create_graph: bool) -> None:
    """Add a cotangent to the gradient of a leaf, in memory that belongs to that leaf alone."""
    if create_graph:
        leaf._grad = c if leaf._grad is None else leaf._grad + c
        leaf._buffer = None
    elif leaf._grad is None:
        if leaf._buffer is None:
            leaf._buffer = Tensor._wrap(xp.array(c, order="C"))
        else:
            leaf._buffer._data[...] = c
        leaf._grad = leaf._buffer
    elif leaf._grad is leaf._buffer:
        leaf._grad._data += c
    else:                                           # somebody has seen this gradient: leave it as it is
        leaf._buffer = leaf._grad = Tensor._wrap(xp.asarray(leaf._grad._data + c))


def _hooked(hooks: list[Callable], g: Any, create_graph: bool) -> Any:
    """Let hooks see, and replace, a gradient."""
    g = g if create_graph else Tensor._wrap(xp.array(g))
    for hook in list(hooks):
        changed = hook(g)
        if changed is not None:
            if changed.shape != g.shape:
                raise RuntimeError(f"a gradient hook must keep the shape {g.shape}; it returned {changed.shape}")
            g = changed
    return g if create_graph else g._data


def _topological(roots: list[Node]) -> list[Node]:
    """Return every node below the roots, each after all that it depends on."""
    order, done, stack = [], {}, list(roots)
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            if not done[node]:
                done[node] = True
                order.append(node)
            continue
        done[node] = False
        for parent in node.parents:
            if type(parent) is Node and parent not in done:
                stack.append(parent)
    return order


def _useful(order: list[Node], targets: dict) -> set[Node]:
    """Return the nodes that lead to a target."""
    useful: set[Node] = set()
    for node in order:
        if any(parent in useful or parent in targets for parent in node.parents):
            useful.add(node)
    return useful


def retain_grad(tensor: Tensor) -> None:
    """Keep the gradient of a computed Tensor in its `.grad` too."""
    if tensor._node is not None:
        itself = weakref.ref(tensor)

        def keep(g: Tensor) -> None:
            if itself() is not None:
                itself()._grad = g
        tensor.register_hook(keep)


def vjp(function: Callable, inputs: Tensor | Sequence[Tensor], v: Any = None, create_graph: bool = False) -> tuple[Any, Any]:
    """Return `function(*inputs)` and its vector-Jacobian product with v.

    Parameters
    ----------
    function : callable
        From Tensors to one Tensor.
    inputs : Tensor or sequence of Tensors
        The point; a single Tensor gives a single product, a sequence a tuple.
    v : array_like, optional
        The cotangent, of the result's shape; 1 for a scalar.
    create_graph : bool, default False
        Record the product, so that it can be differentiated.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.vjp(lambda x: x ** 2, tg.tensor([1.0, 2.0]), [1.0, 10.0])
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    points = _points(inputs)
    with enable_grad():
        y = function(*points)
        products = grad(y, points, v, create_graph=create_graph, allow_unused=True)
    return (y if create_graph else y.detach()), _like(inputs, points, products)


def jvp(function: Callable, inputs: Tensor | Sequence[Tensor], v: Any, create_graph: bool = False) -> tuple[Any, Any]:
    """Return `function(*inputs)` and its Jacobian-vector product with v, of the shape of the result.

    It is the transpose of a transpose: the vector-Jacobian product is linear in its cotangent, and the
    derivative of a linear map is the map itself.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.jvp(lambda x: x ** 2, tg.tensor([1.0, 2.0]), [1.0, 10.0])
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    points = _points(inputs)
    directions = [v] if isinstance(inputs, Tensor) else list(v)
    with enable_grad():
        y = function(*points)
        w = Tensor._wrap(xp.zeros_like(y._data)).requires_grad_()
        products = grad(y, points, w, create_graph=True, allow_unused=True)
        used = [(c, d) for c, d in zip(products, directions) if c is not None and c._requires_grad]
        tangent = grad([c for c, _ in used], w, [d for _, d in used], create_graph=create_graph)[0] if used else w.detach()
    return (y if create_graph else y.detach()), tangent


def hvp(function: Callable, inputs: Tensor | Sequence[Tensor], v: Any, create_graph: bool = False) -> tuple[Any, Any]:
    """Return the scalar `function(*inputs)` and the product of its Hessian with v, without forming the Hessian.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> value, product = tg.hvp(lambda x: (x ** 3).sum(), tg.tensor([1.0, 2.0]), [1.0, 1.0])
    >>> product
    tensor([ 6., 12.])
    """
    points = _points(inputs)
    directions = [v] if isinstance(inputs, Tensor) else list(v)
    with enable_grad():
        y = function(*points)
        slopes = grad(y, points, create_graph=True, allow_unused=True)
        used = [(c, d) for c, d in zip(slopes, directions) if c is not None and c._requires_grad]
        products = (grad([c for c, _ in used], points, [d for _, d in used], create_graph=create_graph, allow_unused=True)
                    if used else [None] * len(points))
    return (y if create_graph else y.detach()), _like(inputs, points, products)


def _points(inputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return the inputs as Tensors that require gradients, leaving the caller's own as they are."""
    inputs = [inputs] if isinstance(inputs, Tensor) else inputs
    return [x if x._requires_grad else x.detach().requires_grad_() for x in inputs]


def _like(inputs: Any, points: list[Tensor], results: Sequence[Tensor | None]) -> Any:
    """Return one result for one input and a tuple for several; zeros where nothing flowed."""
    filled = tuple(Tensor._wrap(xp.zeros_like(x._data)) if c is None else c for x, c in zip(points, results))
    return filled[0] if isinstance(inputs, Tensor) else filled


Tensor.backward, Tensor.retain_grad = backward, retain_grad
