"""Gradients: the only walker of the tape.

The walk goes from results to leaves, the latest call first, by node and without recursion. For an
ordinary gradient it hands raw arrays to the VJPs, so that `g * b` is the array library's own product and
nothing is recorded; with `create_graph=True` it hands them Tensors, and the gradient is itself on the tape.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from heapq import heapify, heappop, heappush
from importlib import import_module
from typing import Any

from ..backend import xp
from ..ops import astype, clone, sum_to
from ..tensor import Handle, Hooks, Node, Tensor, enable_grad, mode, no_grad, open_tapes, serial

__all__ = ["backward", "grad", "vjp", "jvp", "hvp", "no_grad", "enable_grad"]

FREED = ("this part of the graph has been used by an earlier backward and freed; pass retain_graph=True to that "
         "backward, or run the forward pass again")


def backward(tensor: Tensor, gradient: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False) -> None:
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
    keep = create_graph or mode.keeping if retain_graph is None else retain_graph
    if tensor._node is None:
        queued = len(mode.queue)
        _serve(tensor, seed, create_graph)
        _call_queued(queued)
        return
    began, root = next(serial) if create_graph else 0, tensor._node
    _walk([tensor], [seed], None, create_graph, keep)
    if create_graph:
        mode.derivatives.append((began, next(serial), root.serial))


def grad(outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], grad_outputs: Any = None,
         retain_graph: bool | None = None, create_graph: bool = False,
         allow_unused: bool = False) -> tuple[Tensor | None, ...]:
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
    outputs, inputs = _tensors(outputs, "outputs"), _tensors(inputs, "inputs")
    cotangents = grad_outputs if isinstance(grad_outputs, (list, tuple)) else [grad_outputs] * len(outputs)
    if len(cotangents) != len(outputs):
        raise ValueError(f"grad_outputs needs one cotangent an output: {len(outputs)}, got {len(cotangents)}")
    for k, x in enumerate(inputs):
        if not x._requires_grad:
            raise RuntimeError(f"input {k} of grad() does not require a gradient; make it with requires_grad=True")
    keep = create_graph or mode.keeping if retain_graph is None else retain_graph
    live = [(y, _seed(y, c, create_graph)) for y, c in zip(outputs, cotangents) if y._requires_grad]
    if not live and not allow_unused:
        raise RuntimeError("grad() needs an output that depends on one with requires_grad=True; none does. Were they "
                           "detached, computed under no_grad(), or gradients taken without create_graph=True?")
    found: dict[Any, Any] = dict.fromkeys(x._node or x for x in inputs)
    for y, seed in live:
        if y._node is None and y in found:
            found[y] = seed if found[y] is None else found[y] + seed
    began, traced = next(serial) if create_graph else 0, [(y, seed) for y, seed in live if y._node is not None]
    if traced:
        _walk([y for y, _ in traced], [seed for _, seed in traced], found, create_graph, keep)
    for x, c in found.items():
        if c is not None and type(x) is not Node and x._hooks:
            found[x] = _hooked(x._hooks, c, create_graph)
    results = [found[x._node or x] for x in inputs]
    for k, c in enumerate(results):
        if c is None and not allow_unused:
            raise RuntimeError(f"input {k} of grad() was not used to compute the outputs; "
                               "pass allow_unused=True to get None for it")
    owned = tuple(c if c is None else _own(c, create_graph) for c in results)
    if create_graph and traced:
        mode.derivatives.append((began, next(serial), max(y._node.serial for y, _ in traced)))
    return owned


def _tensors(given: Tensor | Sequence[Tensor], name: str) -> list[Tensor]:
    """Return one Tensor, or a sequence of them, as a list."""
    tensors = list(given) if isinstance(given, (list, tuple)) else [given]
    for x in tensors:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a Tensor, or a list or tuple of Tensors; got {type(x).__name__}")
    return tensors


def _own(c: Any, create_graph: bool) -> Tensor:
    """Return a cotangent as a Tensor that shares its memory with no other: two arguments may be handed the same one."""
    if not create_graph:
        return Tensor._wrap(xp.array(c, order="C"))
    with enable_grad():
        return clone(c)


def _seed(y: Tensor, gradient: Any, create_graph: bool) -> Any:
    if gradient is None:
        if y._data.size != 1:
            raise RuntimeError(f"backward starts from a scalar, this Tensor has shape {y.shape}; reduce it first, "
                               "say with .sum(), or pass gradient=")
        gradient = _ones(y.shape, y.dtype)
    elif not isinstance(gradient, Tensor):
        gradient = xp.asarray(gradient, dtype=y.dtype)
    elif gradient.dtype != y.dtype:
        gradient = astype(gradient, y.dtype)
    if gradient.shape != y.shape:
        raise RuntimeError(f"gradient= must have the shape of the Tensor, {y.shape}; got {gradient.shape}")
    if create_graph:
        return gradient if isinstance(gradient, Tensor) else Tensor._wrap(gradient)
    return gradient._data if isinstance(gradient, Tensor) else gradient


@lru_cache(16)
def _ones(shape: tuple[int, ...], dtype: Any) -> Any:
    """Return the cotangent to start from; it is only read."""
    return xp.ones(shape, dtype)


def _walk(roots: list[Tensor], seeds: list[Any], found: dict | None, create_graph: bool, keep: bool) -> None:
    """Carry the cotangents of the roots back; into leaves, or only into the keys of `found` when it is given.

    Nodes wait in a heap, the latest first: a call is always later than those it depends on.
    """
    useful = None if found is None else _useful([root._node for root in roots], found)
    cotangents: dict[Node, Any] = {}
    for root, seed in zip(roots, seeds):
        known = cotangents.get(root._node)
        cotangents[root._node] = seed if known is None else known + seed
    waiting = [(-node.serial, node) for node in cotangents]
    heapify(waiting)
    arrivals: _Arrivals | None = None               # at leaves with hooks: made when the first of them is met
    owned: set[Node] = set()                        # cotangents that were summed here: nobody else holds them
    straight = found is None and not create_graph   # whether a VJP may write into the memory of a leaf's last gradient
    recording, watch = mode.recording, mode.watch if open_tapes else None
    queue, queued = mode.queue, len(mode.queue)
    if create_graph:                                # arrays are never recorded: an ordinary backward needs no mode
        mode.recording = True
    try:
        while waiting:
            node = heappop(waiting)[1]
            g = cotangents.pop(node)
            if node._hooks:
                g = _hooked(node._hooks, g, create_graph)
            if watch is not None:
                watch.reached(node, g)
            if found is not None:
                if node in found:
                    found[node] = g
                if node not in useful:
                    continue
            y, args, kwargs = *_values(node, create_graph), node.kwargs
            common = node.op.common
            if common is not None:
                g = (common if create_graph else getattr(common, "raw", common))(g, y, *args, **kwargs)
            for vjp, (raw, takes_out), parent in zip(node.plan.vjps, node.plan.raws, node.parents):
                is_leaf = type(parent) is not Node
                if (straight and takes_out and is_leaf and parent._grad is None and parent._buffer is not None
                        and not (hooks := parent._hooks)):
                    raw(g, y, *args, out=parent._buffer._data, **kwargs)
                    parent._grad = parent._buffer
                    if hooks is not None:
                        arrivals = arrivals or _Arrivals(node, waiting, create_graph)
                        arrivals.take(parent)
                    continue
                if found is not None and parent not in found and (is_leaf or parent not in useful):
                    continue
                c = vjp(g, y, *args, **kwargs) if create_graph else raw(g, y, *args, **kwargs)
                if create_graph and not isinstance(c, Tensor):
                    c = Tensor._wrap(c)
                if c.shape != parent.shape or c.dtype is not parent.dtype:
                    c = _fitted(c, parent, node)
                if is_leaf:
                    if found is not None:
                        found[parent] = c if found[parent] is None else found[parent] + c
                    elif parent._hooks is not None:
                        arrivals = arrivals or _Arrivals(node, waiting, create_graph)
                        arrivals.take(parent, c)
                    else:
                        _into_leaf(parent, c, create_graph)
                    continue
                if parent not in cotangents:
                    cotangents[parent] = c
                    heappush(waiting, (-parent.serial, parent))
                elif parent in owned:
                    cotangents[parent] += c
                else:
                    cotangents[parent] = cotangents[parent] + c
                    if not create_graph and c.shape:
                        owned.add(parent)
            if not keep:
                node.args, node.raw, node.y, node.parents = None, None, None, ()
        if arrivals is not None:
            arrivals.end()
        if found is None and len(queue) > queued:
            _call_queued(queued)
    finally:
        mode.recording = recording
        if len(queue) > queued:
            del queue[queued:]
        if watch is not None:
            watch.finished()


def _values(node: Node, create_graph: bool) -> tuple[Any, Sequence[Any]]:
    """Return the result and the arguments of a call, for its VJPs: arrays, or Tensors to be recorded."""
    if node.args is None:
        raise RuntimeError(f"backward a second time through {node}: {FREED}")
    stamp = 0
    for version in node.versions:
        stamp += version[0]
    if stamp != node.stamp:
        raise RuntimeError(f"a Tensor that the gradient of {node.op.name} needs (result of shape {node.shape}) was "
                           "written to after the forward pass; write into a copy, .clone(), or update after backward")
    y = node.y
    if y is None:
        y = node                                    # a formula that does not need its numbers may ask for its shape
    elif create_graph:
        y = Tensor._wrap(y)
        y._node, y._requires_grad, y._version = node, True, node.versions[-1]
    return y, node.args if create_graph else node.raw


def _fitted(c: Any, parent: Tensor | Node, node: Node) -> Any:
    """Return a cotangent in the shape and dtype of the argument that it belongs to, summed where that was broadcast."""
    summed = sum_to(c, parent.shape) if c.shape != parent.shape else c
    if summed.shape != parent.shape:
        raise RuntimeError(f"a gradient of {node.op.name} has shape {c.shape}, the argument {parent.shape}")
    return summed if summed.dtype == parent.dtype else astype(summed, parent.dtype)


def _into_leaf(leaf: Tensor, c: Any, create_graph: bool) -> None:
    """Add a cotangent to the gradient of a leaf, in memory that belongs to that leaf alone."""
    if create_graph:
        leaf._grad = _own(c, True) if leaf._grad is None else leaf._grad + c
        leaf._buffer = None
    elif leaf._grad is None:
        if leaf._buffer is None:
            leaf._buffer = _own(c, False)
        else:
            leaf._buffer._data[...] = c
        leaf._grad = leaf._buffer
    elif leaf._grad is leaf._buffer:
        leaf._grad._data += c
    else:                                           # somebody has seen this gradient: leave it as it is
        leaf._buffer = leaf._grad = Tensor._wrap(xp.asarray(leaf._grad._data + c))


class _Arrivals:
    """The leaves with hooks that a walk will still reach: each is served as soon as its whole gradient is there.

    That is when the last call that used the leaf has been walked, so its uses are counted first.
    """

    def __init__(self, node: Node, waiting: list[tuple[int, Node]], create_graph: bool) -> None:
        self.uses: Counter[Tensor] = Counter()
        self.sums: dict[Tensor, Any] = {}           # of leaves whose hooks will see them
        self.create_graph = create_graph
        stack = [node, *(other for _, other in waiting)]
        seen = set(stack)
        while stack:
            for parent in stack.pop().parents:
                if type(parent) is not Node:
                    self.uses[parent] += 1
                elif parent not in seen:
                    seen.add(parent)
                    stack.append(parent)

    def take(self, leaf: Tensor, c: Any = None) -> None:
        """Add the cotangent of one use of a leaf, unless it is in its gradient already."""
        if c is not None and leaf._hooks:
            self.sums[leaf] = c if leaf not in self.sums else self.sums[leaf] + c
        elif c is not None:
            _into_leaf(leaf, c, self.create_graph)
        self.uses[leaf] -= 1
        if not self.uses[leaf]:
            _serve(leaf, self.sums.pop(leaf, None), self.create_graph)

    def end(self) -> None:
        """Serve leaves that were given their hooks during the walk, by a hook: not all of their uses were seen."""
        for leaf, c in self.sums.items():
            _serve(leaf, c, self.create_graph)


def _serve(leaf: Tensor, c: Any, create_graph: bool) -> None:
    """Add what is left of the whole gradient of a leaf when its hooks have seen it, and call those that come after."""
    if c is not None:
        _into_leaf(leaf, _hooked(leaf._hooks, c, create_graph) if leaf._hooks else c, create_graph)
    for hook in list(leaf._hooks.after) if leaf._hooks is not None else ():
        hook(leaf)


def queue_callback(callback: Callable[[], Any]) -> None:
    """Call `callback()` when the backward that is under way in this thread has walked everything.

    It is for hooks. What is queued during `grad`, or a backward that ends by an error, is dropped.
    """
    mode.queue.append(callback)


def _call_queued(queued: int) -> None:
    """Call what has been queued since there were so many."""
    callbacks = mode.queue[queued:]
    del mode.queue[queued:]
    for callback in callbacks:
        callback()


def _hooked(hooks: list[Callable], g: Any, create_graph: bool) -> Any:
    """Let hooks see, and replace, a gradient."""
    g = g if create_graph else Tensor._wrap(xp.array(g))
    with enable_grad() if create_graph else no_grad():
        for hook in list(hooks):
            changed = hook(g)
            if changed is None:
                continue
            if not isinstance(changed, Tensor) or changed.shape != g.shape:
                raise RuntimeError(f"a gradient hook returns None or a Tensor of shape {g.shape}; it returned "
                                   f"{getattr(changed, 'shape', type(changed).__name__)}")
            g = changed if changed.dtype == g.dtype else astype(changed, g.dtype)
    return g if create_graph else g._data


def _useful(roots: list[Node], targets: dict) -> set[Node]:
    """Return the nodes that lead to a target."""
    below, stack = set(), list(roots)
    while stack:
        node = stack.pop()
        if node not in below:
            below.add(node)
            stack += [parent for parent in node.parents if type(parent) is Node]
    useful: set[Node] = set()
    for node in sorted(below, key=lambda node: node.serial):
        if node.args is None and (node not in targets or len(targets) > 1):    # what was below it is forgotten
            raise RuntimeError(f"grad() through {node}: {FREED}")
        if any(parent in useful or parent in targets for parent in node.parents):
            useful.add(node)
    return useful


@contextmanager
def keep_graph() -> Iterator[None]:
    """Let every backward inside keep its graph, unless it says otherwise: whoever called it may differentiate again."""
    before, mode.keeping = mode.keeping, True
    try:
        yield
    finally:
        mode.keeping = before


def leaves(tensor: Tensor) -> list[Tensor]:
    """Return the leaves that the gradient of a Tensor flows to, in the order in which they were used."""
    seen: dict[Tensor | Node, None] = {}
    waiting = [tensor._node or tensor]
    while waiting:
        x = waiting.pop()
        if x not in seen:
            seen[x] = None
            waiting += x.parents if type(x) is Node else ()
    return [x for x in reversed(seen) if type(x) is not Node]


def retain_grad(tensor: Tensor) -> None:
    """Accumulate the gradient of a computed Tensor in its `.grad` too."""
    if not tensor._requires_grad:
        raise RuntimeError("retain_grad needs a Tensor that requires a gradient")
    if tensor._node is not None and not any(isinstance(hook, _Retain) for hook in tensor._node._hooks or ()):
        tensor.register_hook(_Retain(tensor))


class _Retain:
    """A hook that hands the gradient to the Tensor itself, if it still exists."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = weakref.ref(tensor)

    def __call__(self, g: Tensor) -> None:
        if (tensor := self.tensor()) is not None:
            _into_leaf(tensor, g if mode.recording else g._data, mode.recording)


def vjp(function: Callable, inputs: Tensor | Sequence[Tensor], v: Any = None,
        create_graph: bool = False) -> tuple[Any, Any]:
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
        y = _value(function, points)
        products = grad(y, points, [v], create_graph=create_graph, allow_unused=True)
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
    directions = _directions(inputs, v)
    with enable_grad():
        y = _value(function, points)
        w = Tensor._wrap(xp.zeros_like(y._data)).requires_grad_()
        products = grad(y, points, w, create_graph=True, allow_unused=True)
        tangent, = _along(products, directions, [w], create_graph)
    return (y if create_graph else y.detach()), _like(w, [w], [tangent])


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
    directions = _directions(inputs, v)
    with enable_grad():
        y = _value(function, points)
        slopes = grad(y, points, create_graph=True, allow_unused=True)
        products = _along(slopes, directions, points, create_graph)
    return (y if create_graph else y.detach()), _like(inputs, points, products)


def _value(function: Callable, points: list[Tensor]) -> Tensor:
    y = function(*points)
    if not isinstance(y, Tensor):
        raise TypeError(f"the function must return one Tensor, it returned {type(y).__name__}")
    return y


def _along(slopes: Sequence[Tensor | None], directions: list[Any], points: list[Tensor],
           create_graph: bool) -> Sequence[Tensor | None]:
    """Return the gradients at the points of the sum of slopes along directions."""
    used = [(c, d) for c, d in zip(slopes, directions) if c is not None and c._requires_grad]
    if not used:
        return [None] * len(points)
    return grad([c for c, _ in used], points, [d for _, d in used], create_graph=create_graph, allow_unused=True)


def _points(inputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return the inputs as Tensors that require gradients, leaving the caller's own as they are."""
    return [x if x._requires_grad else x.detach().requires_grad_() for x in _tensors(inputs, "inputs")]


def _directions(inputs: Tensor | Sequence[Tensor], v: Any) -> list[Any]:
    """Return one direction an input."""
    if isinstance(inputs, Tensor):
        return [v]
    if not isinstance(v, (list, tuple)) or len(v) != len(inputs):
        raise ValueError(f"v must be a list or tuple of one direction an input, {len(inputs)} here; got "
                         f"{len(v) if isinstance(v, (list, tuple)) else type(v).__name__}")
    return list(v)


def _like(inputs: Any, points: list[Tensor], results: Sequence[Tensor | None]) -> Any:
    """Return one result for one input and a tuple for several; zeros where nothing flowed."""
    filled = tuple(Tensor._wrap(xp.zeros_like(x._data)) if c is None else c for x, c in zip(points, results))
    return filled[0] if isinstance(inputs, Tensor) else filled


def register_post_accumulate_grad_hook(tensor: Tensor, hook: Callable[[Tensor], Any]) -> Handle:
    """Call `hook(tensor)` whenever a backward has added its whole gradient to the `.grad` of this leaf.

    It is called during the walk, as soon as the last use of the leaf has been walked.

    Returns
    -------
    Handle
        Its `remove()` takes the hook away again.

    Raises
    ------
    RuntimeError
        When the Tensor is no leaf that requires a gradient.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
    >>> def descend(w):                         # a step of SGD inside backward: no gradient is kept
    ...     w.data -= 0.1 * w.grad.data
    ...     w.grad = None
    >>> handle = w.register_post_accumulate_grad_hook(descend)
    >>> (w ** 2).sum().backward()
    >>> w
    tensor([ 0.8000, -1.6000], requires_grad=True)
    """
    if tensor._node is not None or not tensor._requires_grad:
        raise RuntimeError("a hook after accumulation needs a leaf that requires a gradient; of a computed Tensor, "
                           "register_hook sees the gradient")
    if tensor._hooks is None:
        tensor._hooks = Hooks()
    return Handle.register(tensor._hooks.after, hook)


Tensor.backward, Tensor.retain_grad = backward, retain_grad
Tensor.register_post_accumulate_grad_hook = register_post_accumulate_grad_hook


# These are read when they are first asked for.
_LATER = {**dict.fromkeys(("Problem", "fisher_vp", "ggn_vp", "hessian", "jacobian", "vhp"), "curvature"),
          **dict.fromkeys(("LinearOperator", "Spectrum", "fisher_operator", "ggn_operator", "hessian_operator",
                           "hutchinson_diag", "hutchinson_trace", "lanczos_spectrum", "power_iteration"), "spectrum")}
__all__ += _LATER


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
