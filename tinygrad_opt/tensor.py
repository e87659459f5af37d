"""Tensor, and `@primitive`: how a call is recorded. No mathematics here.

A Tensor holds an array of the backend. An op is a plain function on arrays, wrapped by `primitive`
together with its vector-Jacobian products. When an argument requires a gradient, the op's result points
at a `Node`: the op, what its gradient formulas mention of the arguments, and where those came from.
Nothing points the other way, so there are no reference cycles, and a Tensor that no formula needs is
freed at once.
"""

from __future__ import annotations

import dis
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import update_wrapper
from inspect import signature
from typing import Any, NamedTuple

import numpy

from .backend import asarray, to_numpy, xp

serial = itertools.count()                                    # numbers calls in their order
float16, float32, float64 = xp.dtype("float16"), xp.dtype("float32"), xp.dtype("float64")
int64, bool_ = xp.dtype("int64"), xp.dtype("bool")
ndarray = xp.ndarray
FOREIGN = None if ndarray is numpy.ndarray else numpy.ndarray       # arrays of the host, beside Tensors on a GPU


class _Mode(threading.local):
    """Whether calls are recorded: true when a thread starts."""

    recording = True
    keeping = False                                 # whether a backward keeps its graph unless it is told otherwise
    watch: Any = None                               # who looks on at calls and at backward, for the Tapes that are open

    def __init__(self) -> None:
        # Of the latest gradients that were recorded themselves: between which numbers their calls lie, and the number
        # of the call that was differentiated. By it a drawing tells derivatives apart.
        self.derivatives: deque[tuple[int, int, int]] = deque(maxlen=1000)
        self.queue: list[Callable[[], Any]] = []    # what hooks have asked to be called when the backward is done


mode = _Mode()
open_tapes: list[Any] = []                          # of all threads: while there is none, no call asks for `mode.watch`


@contextmanager
def _recording(on: bool) -> Iterator[None]:
    before, mode.recording = mode.recording, on
    try:
        yield
    finally:
        mode.recording = before


def no_grad() -> AbstractContextManager:
    """Record nothing inside: a context manager, and a decorator.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> with tg.no_grad():
    ...     (x * x).requires_grad
    False
    """
    return _recording(False)


def enable_grad() -> AbstractContextManager:
    """Record again inside `no_grad`: a context manager, and a decorator."""
    return _recording(True)


def is_grad_enabled() -> bool:
    """Return whether calls are being recorded in this thread."""
    return mode.recording


class Tensor:
    """An array that remembers how it was made, so that gradients can flow back through it.

    Parameters
    ----------
    data : array_like
        Numbers, nested lists, an array or a Tensor; copied. Python floats become float32, integers int64,
        booleans bool; arrays keep their dtype.
    requires_grad : bool, default False
        Whether `backward()` fills `.grad`. Only for floating-point data.
    dtype : dtype, optional
        The dtype of the result.

    Raises
    ------
    TypeError
        When the data is not numeric, or not floating-point where a gradient is asked for.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    __slots__ = ("_data", "_requires_grad", "_grad", "_node", "_version", "_hooks", "_buffer", "__weakref__")
    __hash__ = object.__hash__                      # by identity: == compares elements

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None) -> None:
        _fill(self, _as_array(data, dtype))
        if requires_grad:
            self.requires_grad = True

    @classmethod
    def _wrap(cls, data: Any) -> Tensor:
        """Return a Tensor around an array of the backend, without a copy."""
        self = cls.__new__(cls)
        _fill(self, data if type(data) is ndarray else xp.asarray(data))
        return self

    @property
    def data(self) -> Any:
        """The array itself. Writing into it is not seen by the tape; assigning copies, keeping shape and dtype."""
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        array = value._data if isinstance(value, Tensor) else asarray(value)
        if array is not self._data:
            if array.shape != self.shape or array.dtype != self.dtype:
                raise ValueError(f"data keeps its shape and dtype, {self.shape} and {self.dtype}; got {array.shape} "
                                 f"and {array.dtype}. Make a new Tensor, or convert with .astype({str(self.dtype)!r})")
            self._data[...] = array
        self._version[0] += 1

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this Tensor."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self._data.dtype.kind != "f":
            raise TypeError(f"only a floating-point Tensor can require a gradient, this one is {self.dtype}; "
                            "write its numbers with a point or pass dtype=tg.float32")
        if self._node is not None and not value:
            raise RuntimeError("requires_grad of a computed Tensor cannot be switched off; use .detach()")
        self._requires_grad = bool(value)

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward()` has accumulated here, or None."""
        self._buffer = None                         # whoever looks may keep it: the engine will not write here again
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            value = value if isinstance(value, Tensor) else Tensor._wrap(asarray(value))
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ValueError(f"a gradient has its Tensor's shape and dtype, {self.shape} and {self.dtype}; "
                                 f"got {value.shape} and {value.dtype}")
            self._buffer = None
        self._grad = value

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def dtype(self) -> Any:
        """The NumPy dtype of the elements."""
        return self._data.dtype

    @property
    def is_leaf(self) -> bool:
        """Whether this Tensor was made by the user, not by a recorded op."""
        return self._node is None

    @property
    def grad_fn(self) -> Node | None:
        """The tape's record of the op that made this Tensor, or None."""
        return self._node

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or its entry `dim`."""
        return self._data.shape if dim is None else self._data.shape[dim]

    def numel(self) -> int:
        """Return the number of elements."""
        return self._data.size

    def item(self) -> Any:
        """Return the only element as a Python number."""
        if self._data.size != 1:
            raise ValueError(f"item() needs a Tensor of one element, this one has shape {self.shape}; use .tolist()")
        return self._data.item()

    def numpy(self) -> Any:
        """Return the elements as a NumPy array on the host, sharing memory where possible."""
        return to_numpy(self._data)

    def tolist(self) -> Any:
        """Return the elements as nested Python lists."""
        return self._data.tolist()

    def detach(self) -> Tensor:
        """Return a Tensor on the same memory that the tape knows nothing of."""
        y = Tensor._wrap(self._data)
        y._version = self._version
        return y

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return this Tensor."""
        self.requires_grad = requires_grad
        return self

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Handle:
        """Call `hook(gradient)` whenever backward reaches this Tensor; what it returns replaces the gradient.

        Returns
        -------
        Handle
            Its `remove()` takes the hook away again.
        """
        if not self._requires_grad:
            raise RuntimeError("a hook needs a Tensor that requires a gradient")
        owner = self if self._node is None else self._node
        if owner._hooks is None:
            owner._hooks = Hooks()
        return Handle.register(owner._hooks, hook)

    def __len__(self) -> int:
        if not self._data.ndim:
            raise TypeError("a Tensor without axes has no length")
        return self._data.shape[0]

    def __bool__(self) -> bool:
        if self._data.size != 1:
            raise ValueError(f"the truth of a Tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        return bool(self._data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self._data.dtype.kind not in "iu":
            raise TypeError(f"only an integer Tensor of one element is an index, this one is {self.dtype}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        alone = not self._data.ndim or (spec and self._data.size == 1)
        return format(self.item() if alone else str(self), spec)

    def __repr__(self) -> str:
        notes = [_text(self.numpy())]
        if not self._data.size and self.ndim > 1:
            notes.append(f"size={self.shape}")
        if self.dtype not in ((float32, int64, bool_) if self._data.size else (float32,)):
            notes.append(f"dtype={self.dtype}")
        if self._node is not None:
            notes.append(f"grad_fn=<{self._node.op.name}>")
        elif self._requires_grad:
            notes.append("requires_grad=True")
        return f"tensor({', '.join(notes)})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return numpy.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a leaf as a NumPy array, so that a GPU's checkpoint opens on a laptop."""
        if self._node is not None:
            raise TypeError("only a leaf can be copied or pickled, this Tensor was computed; use .detach() first")
        grad = None if self._grad is None else self._grad.numpy()
        return _rebuild, (type(self), self.numpy(), self._requires_grad, grad)


def _fill(x: Tensor, data: Any) -> None:
    x._data, x._requires_grad, x._version = data, False, [0]
    x._grad = x._node = x._hooks = x._buffer = None


def _rebuild(cls: type, data: Any, requires_grad: bool, grad: Any) -> Tensor:
    x = cls.__new__(cls)
    _fill(x, xp.array(data))
    x._requires_grad, x._grad = requires_grad, None if grad is None else Tensor._wrap(xp.array(grad))
    return x


def _text(array: Any) -> str:
    """Print an array of the host as torch does: four places, unless every number is whole."""
    sizes = numpy.abs(array[numpy.isfinite(array) & (array != 0)])
    whole = not sizes.size or ((sizes == numpy.floor(sizes)).all() and float(sizes.max()) < 1e8
                               and sizes.max() / 1000 <= sizes.min())
    return numpy.array2string(array, max_line_width=80, precision=4, separator=", ", prefix="tensor(",
                              threshold=1000, floatmode="maxprec" if whole else "fixed")


def _as_array(data: Any, dtype: Any) -> Any:
    """Copy any array_like into a new array of the backend."""
    plain = data._data if isinstance(data, Tensor) else _without_tensors(data)
    array = xp.array(plain, order="C") if isinstance(plain, ndarray) else numpy.array(plain, order="C")
    array = asarray(real(array, data))
    if dtype is not None:
        return real(array.astype(dtype, copy=False), data)
    return array.astype(float32) if array.dtype == float64 and not _typed(plain) else array


def real(array: Any, given: Any) -> Any:
    """Return what was made into an array, refusing all but real numbers and booleans."""
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a Tensor holds real numbers or booleans, got {type(given).__name__} of dtype {array.dtype}")
    return array


def _without_tensors(data: Any) -> Any:
    """Return nested lists with NumPy arrays in the place of Tensors."""
    if isinstance(data, Tensor):
        return data.numpy()
    if isinstance(data, (list, tuple)) and any(isinstance(x, (Tensor, list, tuple)) for x in data):
        return [_without_tensors(x) for x in data]
    return data


def _typed(data: Any) -> bool:
    """Whether data is an array, or lists of arrays, which know their dtype, rather than of Python numbers."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return hasattr(data, "dtype")


tensor = Tensor


class Handle:
    """A registered hook; `remove()` takes it away."""

    def __init__(self, hooks: list[Callable], hook: Callable) -> None:
        self.hooks, self.hook = hooks, hook

    @classmethod
    def register(cls, hooks: list[Callable], hook: Callable) -> Handle:
        """Append a hook to a list and return its handle."""
        hooks.append(hook)
        return cls(hooks, hook)

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        for k, hook in enumerate(self.hooks):
            if hook is self.hook:
                del self.hooks[k]
                break
        self.hooks = []


class Hooks(list):
    """The hooks of a Tensor: those that see its gradient and, of a leaf, `after`, those that see it accumulated."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[Callable] = []


class Node:
    """One recorded call: the op, what its gradients need of the arguments, and where those came from.

    It has the `shape`, `dtype` and `ndim` of its result, so that it can stand in for an argument of which
    a gradient formula mentions no more than that.
    """

    __slots__ = ("op", "plan", "args", "raw", "kwargs", "y", "shape", "dtype", "parents", "versions", "stamp", "serial",
                 "_hooks")

    @property
    def ndim(self) -> int:
        """The number of axes of the result."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<{self.op.name}>"


class Plan(NamedTuple):
    """What to keep of a call, given which arguments are Tensors and which of them require a gradient."""

    wanted: tuple[int, ...]                         # arguments that require a gradient and can have one
    vjps: tuple[Callable, ...]                      # theirs, for Tensors
    raws: tuple[tuple[Callable, bool], ...]         # theirs for arrays, and whether that takes `out`
    droppable: tuple[int, ...]                      # of these, arguments whose values no VJP mentions
    watched: tuple[int, ...]                        # Tensors whose values some VJP mentions
    keeps_y: bool                                   # whether some VJP mentions the result


class Op:
    """A primitive: `forward` on arrays; `vjp(k)` pulls the cotangent of its result back to argument k."""

    def __init__(self, forward: Callable, vjps: tuple[Callable | None, ...], each: Callable | None,
                 common: Callable | None) -> None:
        self.name, self.forward = forward.__name__.strip("_"), forward
        self.vjps, self.each, self.common = vjps, each, common
        self.plans: dict[tuple[int, int], Plan | None] = {}

    def vjp(self, k: int) -> Callable | None:
        """Return the vector-Jacobian product of argument k, or None where there is no gradient."""
        if self.each is not None:
            each = self.each
            return lambda *args, **kwargs: each(k, *args, **kwargs)
        return self.vjps[k] if k < len(self.vjps) else None

    def plan(self, tensors: int, grads: int, count: int) -> Plan | None:
        """Return what to keep when `tensors` and `grads` are the bit sets of such arguments; None for nothing."""
        wanted = [(k, vjp) for k in range(count) if grads >> k & 1 and (vjp := self.vjp(k)) is not None]
        read = [vjp for _, vjp in wanted] if self.each is None else []
        read += [vjp.raw for vjp in read if hasattr(vjp, "raw")] + ([] if self.common is None else [self.common])
        needs = set().union(*(mentioned(vjp, count) for vjp in read))
        if self.each is not None:
            needs |= mentioned(self.each, count, skip=1)
        plan = Plan(tuple(k for k, _ in wanted), tuple(vjp for _, vjp in wanted),
                    tuple((getattr(vjp, "raw", vjp), hasattr(vjp, "raw") and "out" in signature(vjp.raw).parameters)
                          for _, vjp in wanted),
                    tuple(k for k, _ in wanted if k not in needs),
                    tuple(k for k in range(count) if tensors >> k & 1 and k in needs), "y" in needs) if wanted else None
        self.plans[tensors, grads] = plan
        return plan


_METADATA = {"shape", "ndim", "dtype"}


def mentioned(vjp: Callable, count: int, skip: int = 0) -> set[int | str]:
    """Return which values a VJP `(g, y, *args)` of `count` arguments mentions: "y" and positions of arguments.

    Read from its bytecode: a name that is loaded counts, unless only its shape, ndim or dtype is taken.
    """
    code = getattr(vjp, "__code__", None)
    if code is None:
        return {"y", *range(count)}
    named = code.co_varnames[skip + 1:code.co_argcount]                        # y, then arguments
    rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if code.co_flags & 0x04 else None       # *args
    loads: list[str | None] = []
    for step in dis.get_instructions(code):
        if "LOAD_FAST" in step.opname or step.opname in ("LOAD_DEREF", "LOAD_CLOSURE"):    # some load two at once
            loads += step.argval if isinstance(step.argval, tuple) else [step.argval]
        elif step.opname == "LOAD_ATTR" and loads and step.argval in _METADATA:
            loads[-1] = None
        elif loads:
            loads.append(None)                                                 # an attribute of something else follows
    places = {name: place - 1 for place, name in enumerate(named)}             # y comes out at -1
    found = {places[name] for name in loads if name in places}
    found |= set(range(len(named) - 1, count)) if rest in loads and rest is not None else set()
    return {"y" if place == -1 else place for place in found}


def primitive(*vjps: Callable | None, each: Callable | None = None, common: Callable | None = None,
              view: bool = False) -> Callable[[Callable], Callable]:
    """Turn a function on arrays into an op that also accepts Tensors.

    Parameters
    ----------
    *vjps : callable or None
        `vjps[k](g, y, *args, **kwargs)` pulls the cotangent g of `y = f(*args, **kwargs)` back to argument k.
        It is handed arrays, or Tensors when the gradient itself will be differentiated, so it is written
        in ops. None where there is no gradient. The engine sums a broadcast cotangent to its argument's
        shape; no VJP mentions broadcasting.
    each : callable, optional
        For any number of arguments, in place of `vjps`: `each(k, g, y, *args, **kwargs)`.
    common : callable, optional
        What all VJPs would do to g first, done once: they are handed `common(g, y, *args, **kwargs)` for g.
        A VJP may have an attribute `raw`, the same function for arrays alone. With a parameter `out=None` it
        is handed the memory of a leaf's last gradient to write into and return; the numbers must not depend on it.
    view : bool, default False
        Whether the result may share the first argument's memory.

    Returns
    -------
    callable
        The decorator. The op takes arrays to arrays, and Tensors to a Tensor.

    Examples
    --------
    >>> import numpy as np, tinygrad_opt as tg
    >>> @tg.primitive(lambda g, y, x: g * 3 * x * x)
    ... def cube(x):
    ...     return x ** 3
    >>> x = tg.tensor(2.0, requires_grad=True)
    >>> cube(x).backward()
    >>> x.grad
    tensor(12.)
    """
    def wrap(forward: Callable) -> Callable:
        record = Op(forward, vjps, each, common)
        plans, new = record.plans, Tensor.__new__

        def op(*args, **kwargs):
            if open_tapes and mode.watch is not None:
                return mode.watch.call(op, args, kwargs)
            tensors, grads, bit, raw = 0, 0, 1, []
            if kwargs:
                for a in kwargs.values():
                    if isinstance(a, Tensor):       # the tape looks for Tensors by position
                        args, kwargs = _by_position(forward, args, kwargs)
                        break
            for a in args:
                if isinstance(a, Tensor):
                    tensors |= bit
                    if a._requires_grad:
                        grads |= bit
                    raw.append(a._data)
                else:
                    raw.append(asarray(a) if type(a) is FOREIGN else a)
                bit <<= 1
            data = forward(*raw, **kwargs)
            if not tensors:
                return data
            y = new(Tensor)
            y._data = data = data if type(data) is ndarray else xp.asarray(data)
            y._requires_grad, y._grad, y._node, y._hooks, y._buffer = False, None, None, None, None
            y._version = _shared_version(args[0], data) if view else [0]
            if not grads or not mode.recording:
                return y
            try:
                plan = plans[tensors, grads]
            except KeyError:
                plan = record.plan(tensors, grads, len(args))
            if plan is None:
                return y
            y._node, y._requires_grad = _node(record, plan, args, raw, kwargs, y), True
            return y

        op.op = record
        return update_wrapper(op, forward)
    return wrap


def _node(op: Op, plan: Plan, args: Sequence[Any], raw: list[Any], kwargs: dict[str, Any], y: Tensor) -> Node:
    """Return the record of a call: of its arguments and its result, what the plan says is needed."""
    node, data = Node(), y._data
    node.op, node.plan, node.kwargs, node.shape, node.dtype, node.serial, node._hooks = (
        op, plan, kwargs, data.shape, data.dtype, next(serial), None)
    node.parents = parents = []
    for k in plan.wanted:
        a = args[k]
        parents.append(a._node or a)
    node.versions = versions = []
    stamp = 0                                       # versions only grow: their sum stays if and only if each does
    for k in plan.watched:
        version = args[k]._version
        versions.append(version)
        stamp += version[0]
    if plan.keeps_y:
        node.y = data
        versions.append(y._version)
        stamp += y._version[0]
    else:
        node.y = None
    node.stamp = stamp
    if plan.droppable:
        args = list(args)
        for k in plan.droppable:
            args[k] = raw[k] = args[k]._node or args[k]
    node.args, node.raw = args, raw
    return node


def _by_position(forward: Callable, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Return the arguments of a call with those that came by name in their positions."""
    call = signature(forward).bind(*args, **kwargs)
    call.apply_defaults()
    if any(isinstance(a, Tensor) and a._requires_grad for a in call.kwargs.values()):
        raise TypeError(f"{forward.__name__}: no gradient flows to an argument that can only be given by name")
    return call.args, call.kwargs


def _shared_version(x: Any, data: Any) -> list[int]:
    """Return the count of writes of a view: that of the memory it lies in."""
    if isinstance(x, Tensor) and (data is x._data or data.base is x._data or
                                  (data.base is not None and data.base is x._data.base)):
        return x._version
    return [0]
