"""What makes Tensor a citizen of Python and of NumPy: operators, methods, in-place writing, protocols.

Every public op whose first argument is called `x` or `a` is a method of Tensor under the same name, and
every elementwise one has a twin with an underscore that writes in place. NumPy's own functions find the
op of their name, or of the name in `NUMPY`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy

from ..backend import asarray, xp
from ..tensor import Tensor, mode
from . import elementwise, index, reduce, shape

OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

# NumPy's name for an op that is called otherwise here, or what NumPy means by a name that torch uses differently.
NUMPY: dict[str, str | Callable] = {
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "negative": "neg", "power": "pow",
    "mod": "remainder", "absolute": "abs", "fabs": "abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arctan2": "atan2", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "rint": "round", "around": "round",
    "clip": "clamp", "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt",
    "greater_equal": "ge", "invert": "bitwise_not", "concatenate": "cat", "expand_dims": "unsqueeze",
    "moveaxis": "movedim", "copy": "clone", "max": "amax", "min": "amin", "linalg.inv": "inverse",
    "repeat": "repeat_interleave",
    "std": lambda x, axis=None, ddof=0, keepdims=False: reduce.std(x, axis, correction=ddof, keepdims=keepdims),
    "var": lambda x, axis=None, ddof=0, keepdims=False: reduce.var(x, axis, correction=ddof, keepdims=keepdims),
    "sort": lambda x, axis=-1: reduce.sort(x, axis)[0],
    "split": lambda x, parts, axis=0: (shape.split(x, x.shape[axis] // parts, axis) if isinstance(parts, int) else
                                       shape.split(x, numpy.diff([0, *parts, x.shape[axis]]).tolist(), axis)),
}
REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "amax", "minimum": "amin", "logical_and": "all",
              "logical_or": "any"}
# These answer about values, so that a Tensor on the tape may ask them too; what torch means by `median` differs.
ABOUT_VALUES = {"allclose", "array_equal", "array_equiv", "isclose", "shape", "ndim", "size", "result_type", "can_cast",
                "may_share_memory", "shares_memory", "array_repr", "array_str", "array2string", "iscomplexobj",
                "isrealobj", "argmax", "argmin", "argsort", "nonzero", "count_nonzero", "searchsorted", "unique"}


def attach(ops: dict[str, Callable]) -> None:
    """Give Tensor its operators, methods and protocols from the table of ops."""
    for name, op in ops.items():
        code = getattr(getattr(op, "__wrapped__", op), "__code__", None)
        if code is not None and code.co_varnames[:1] in (("x",), ("a",)) and not hasattr(Tensor, name):
            setattr(Tensor, name, op)
            if name in vars(elementwise) and not hasattr(Tensor, name + "_"):
                setattr(Tensor, name + "_", _in_place(op, rebind=False))
    for sign, name in OPERATORS.items():
        setattr(Tensor, f"__{sign}__", ops[name])
        setattr(Tensor, f"__r{sign}__", _reflected(ops[name]))
        setattr(Tensor, f"__i{sign}__", _in_place(ops[name], rebind=True))
    for name in COMPARISONS:
        setattr(Tensor, f"__{name}__", ops[name])
    Tensor.__hash__ = object.__hash__                # by identity, although == compares elements
    Tensor.__neg__, Tensor.__abs__, Tensor.__invert__ = ops["neg"], ops["abs"], ops["bitwise_not"]
    Tensor.__pos__ = lambda x: x
    Tensor.__getitem__, Tensor.__setitem__, Tensor.__iter__ = index.getitem, _setitem, _iterate
    Tensor.T = property(lambda x: shape.transpose(x), doc="The Tensor with its axes reversed.")
    Tensor.mT = property(lambda x: shape.swapaxes(x, -1, -2), doc="The Tensor with its last two axes swapped.")
    Tensor.zero_, Tensor.fill_, Tensor.copy_ = _zero, _fill, _copy
    Tensor.float, Tensor.double = lambda x: _to(x, "float32"), lambda x: _to(x, "float64")
    Tensor.long, Tensor.bool = lambda x: _to(x, "int64"), lambda x: _to(x, "bool")
    Tensor.__array_ufunc__, Tensor.__array_function__ = _ufunc(ops), _function(ops)


def _reflected(op: Callable) -> Callable:
    def method(b, a):
        return op(a, b)
    return method


def _to(x: Tensor, dtype: str) -> Tensor:
    """Return x in a dtype: itself where it already has it."""
    return x if x.dtype == dtype else elementwise.astype(x, dtype)


def _iterate(x: Tensor) -> Iterator[Tensor]:
    return (index.getitem(x, k) for k in range(len(x)))


def _recorded(*values: Any) -> bool:
    return mode.recording and any(isinstance(v, Tensor) and v._requires_grad for v in values)


def _refuse_leaf(x: Tensor) -> None:
    if x._requires_grad and x._node is None and mode.recording:
        raise RuntimeError("a leaf that requires a gradient cannot be written to while calls are recorded; "
                           "do it inside `with tg.no_grad():`, or write to its .data")


def _write(x: Tensor, place: Any, value: Any) -> Tensor:
    """Write into the memory of x and count it, so that a backward that needs the old values can refuse."""
    value = value._data if isinstance(value, Tensor) else asarray(value)
    if not xp.can_cast(value.dtype, x.dtype, "same_kind"):
        raise TypeError(f"cannot write {value.dtype} into a Tensor of {x.dtype}; convert one of them with .astype()")
    x._data[place] = value
    x._version[0] += 1
    return x


def _in_place(op: Callable, rebind: bool) -> Callable:
    """Return the op that writes its result into its first argument.

    While gradients are recorded there is nothing to write into: `x += y` then means `x = x + y`, and the method
    with an underscore refuses.
    """
    def method(x, *args, **kwargs):
        _refuse_leaf(x)
        if _recorded(x, *args):
            if not rebind:
                raise RuntimeError(f"{op.__name__}_ cannot write in place where gradients are recorded; "
                                   f"use x = x.{op.__name__}(...)")
            return op(x, *args)
        y = op(x, *args, **kwargs)
        if y.shape != x.shape:
            raise ValueError(f"cannot write a result of shape {y.shape} into a Tensor of shape {x.shape}")
        return _write(x, ..., y)
    method.__name__, method.__doc__ = op.__name__ + "_", f"Like `{op.__name__}`, written into the Tensor itself."
    return method


def _setitem(x: Tensor, place: Any, value: Any) -> None:
    """Write into a part of x. Where gradients are recorded, x continues in new memory and its older views stay."""
    _refuse_leaf(x)
    if not _recorded(x, value):
        _write(x, index.plain(place), value)
        return
    before = Tensor._wrap(x._data)
    before._node, before._requires_grad, before._version = x._node, x._requires_grad, x._version
    after = index.put(before, place, value)
    x._data, x._node, x._requires_grad, x._version = after._data, after._node, after._requires_grad, after._version


def _zero(x: Tensor) -> Tensor:
    """Set every element to 0 and return the Tensor."""
    return _fill(x, 0)


def _fill(x: Tensor, value: float) -> Tensor:
    """Set every element to a value and return the Tensor."""
    _refuse_leaf(x)
    return _write(x, ..., value)


def _copy(x: Tensor, source: Any) -> Tensor:
    """Take over the elements of another Tensor or array of the same shape and return the Tensor."""
    _refuse_leaf(x)
    shape = source.shape if hasattr(source, "shape") else numpy.shape(source)
    if tuple(shape) != x.shape:
        raise ValueError(f"copy_ needs the shape {x.shape}, got {tuple(shape)}")
    return _write(x, ..., source)


def _find(ops: dict[str, Callable], name: str) -> Callable | None:
    ours = NUMPY.get(name, name)
    return ours if callable(ours) else ops.get(ours)


def _plain(value: Any, needs_values: bool) -> Any:
    """Return the arguments of a NumPy function with arrays in the place of Tensors."""
    if isinstance(value, Tensor):
        if value._requires_grad and not needs_values:
            raise TypeError("this NumPy function has no gradient here; call it on .detach() or .numpy()")
        return value._data
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v, needs_values) for v in value)
    return value


def _wrapped(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_wrapped(v) for v in value)
    return Tensor._wrap(value) if isinstance(value, (xp.ndarray, numpy.generic)) else value


def _ufunc(ops: dict[str, Callable]) -> Callable:
    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        name = ufunc.__name__
        op = _find(ops, name) if method == "__call__" else None
        if method == "reduce" and name in REDUCTIONS:
            op, kwargs = ops[REDUCTIONS[name]], {"axis": kwargs.get("axis", 0), "keepdims": kwargs.get("keepdims", False)}
        elif kwargs:
            op = None
        if op is not None:
            result = op(*(asarray(x) if isinstance(x, numpy.ndarray) else x for x in inputs), **kwargs)
        else:
            result = _wrapped(getattr(ufunc, method)(*_plain(inputs, False), **kwargs))
        if out is None:
            return result
        (target,) = out
        if isinstance(target, Tensor):
            _refuse_leaf(target)
            return _write(target, ..., result)
        target[...] = asarray(result._data)
        return target
    return __array_ufunc__


def _function(ops: dict[str, Callable]) -> Callable:
    def __array_function__(self, function, types, args, kwargs):
        module, name = function.__module__ or "", function.__name__
        op = _find(ops, f"linalg.{name}") if "linalg" in module else None
        op = op or _find(ops, name)
        if op is not None and name not in ("median",):
            return op(*args, **kwargs)
        needs_values = name in ABOUT_VALUES
        result = function(*_plain(args, needs_values), **{k: _plain(v, needs_values) for k, v in kwargs.items()})
        return result if needs_values and not isinstance(result, xp.ndarray) else _wrapped(result)
    return __array_function__
