"""NumPy's own functions on Tensors (NEP 13 and 18): each finds the op that means the same, and its gradient.

What an op is called here may mean something else in NumPy, so array functions are listed one by one, with NumPy's
order and names of arguments. A function that is not listed, or is given an argument that the list does not know,
works on the numbers of Tensors that require no gradient, and for others says that it has none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy

from ..backend import asarray, xp
from ..tensor import Tensor
from . import elementwise, index, linalg, reduce
from . import shape as shapes
from .writing import recorded, refuse_leaf, write

UFUNCS = {                                           # where the op has another name
    "subtract": "sub", "multiply": "mul", "divide": "div", "negative": "neg", "positive": "clone", "power": "pow",
    "absolute": "abs", "fabs": "abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "rint": "round", "equal": "eq", "not_equal": "ne",
    "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge", "invert": "bitwise_not",
}
REDUCE = {"add": reduce.sum, "multiply": reduce.prod, "maximum": reduce.amax, "minimum": reduce.amin,
          "logical_and": reduce.all, "logical_or": reduce.any}


def _reduction(op: Callable) -> Callable:
    return lambda a, axis=None, *, keepdims=False: op(a, axis=axis, keepdims=keepdims)


def _deviation(op: Callable) -> Callable:
    return lambda a, axis=None, *, ddof=0, keepdims=False: op(a, axis=axis, correction=ddof, keepdims=keepdims)


def _clip(a, a_min=None, a_max=None, *, min=None, max=None):
    return elementwise.clamp(a, a_min if min is None else min, a_max if max is None else max)


def _concatenate(arrays, axis=0):
    return shapes.cat([shapes.ravel(a) for a in arrays], 0) if axis is None else shapes.cat(arrays, axis)


def _split(a, parts, axis=0):
    if isinstance(parts, int) and a.shape[axis] % parts:
        raise ValueError(f"axis {axis} of length {a.shape[axis]} has no {parts} equal parts; use numpy.array_split")
    return shapes.tensor_split(a, parts, axis)


def _pad(a, pad_width, mode="constant", *, constant_values=0):
    names = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}
    if mode not in names or numpy.ndim(constant_values):
        return NotImplemented
    ends = numpy.broadcast_to(pad_width, (a.ndim, 2)).tolist()
    return shapes.pad(a, [n for pair in reversed(ends) for n in pair], names[mode], constant_values)


def _norm(x, ord=None, axis=None, keepdims=False):
    of_vectors = ord in (None, "fro") or (x.ndim == 1 if axis is None else isinstance(axis, int))
    return reduce.norm(x, 2 if ord is None else ord, axis, keepdims) if of_vectors else NotImplemented


def _same(module: Any, names: str) -> dict[str, Callable]:
    """Return the functions of a module that mean what NumPy means by their names."""
    return {name: getattr(module, name) for name in names.split()}


FUNCTIONS: dict[str, Callable] = {
    **{name: _reduction(op) for name, op in _same(reduce, "sum mean prod all any argmax argmin count_nonzero").items()},
    "max": _reduction(reduce.amax), "min": _reduction(reduce.amin),
    "std": _deviation(reduce.std), "var": _deviation(reduce.var), **_same(reduce, "cumsum cumprod"),
    "sort": lambda a, axis=-1: reduce.sort(a, axis)[0], "argsort": lambda a, axis=-1: reduce.argsort(a, axis),
    **_same(elementwise, "round where astype"), "around": elementwise.round, "clip": _clip, "copy": elementwise.clone,
    "zeros_like": lambda a, dtype=None: elementwise.zeros_like(a, dtype=dtype),
    "ones_like": lambda a, dtype=None: elementwise.ones_like(a, dtype=dtype),
    "full_like": lambda a, fill_value, dtype=None: elementwise.full_like(a, fill_value, dtype=dtype),
    **_same(shapes, "ravel squeeze swapaxes broadcast_to atleast_1d atleast_2d tile flip roll"),
    **_same(shapes, "stack hstack vstack dstack"),
    "reshape": lambda a, shape: shapes.reshape(a, shape), "expand_dims": shapes.unsqueeze, "moveaxis": shapes.movedim,
    "transpose": lambda a, axes=None: shapes.transpose(a) if axes is None else shapes.permute(a, *axes),
    "broadcast_arrays": shapes.broadcast_tensors, "repeat": shapes.repeat_interleave, "pad": _pad,
    "concatenate": _concatenate, "split": _split, "array_split": shapes.tensor_split,
    "meshgrid": lambda *vectors, indexing="xy": shapes.meshgrid(*vectors, indexing=indexing),
    **_same(index, "take take_along_axis diagonal"), "nonzero": lambda a: index.nonzero(a, as_tuple=True),
    "diag": lambda v, k=0: index.diag(v, k),
    "tril": lambda m, k=0: index.tril(m, k), "triu": lambda m, k=0: index.triu(m, k),
    "trace": lambda a, offset=0, axis1=0, axis2=1: reduce.sum(index.diagonal(a, offset, axis1, axis2), -1),
    **_same(linalg, "dot inner outer kron einsum"), "tensordot": lambda a, b, axes=2: linalg.tensordot(a, b, axes),
    **{f"linalg.{name}": op for name, op in _same(linalg, "inv det slogdet cholesky").items()},
    "linalg.norm": _norm,
    "linalg.solve": lambda a, b: linalg.solve(a, b) if b.ndim == 1 else linalg._solve(a, b),
}
# These answer about values, so that a Tensor on the tape may ask them too.
ABOUT_VALUES = set("""
    allclose array_equal array_equiv isclose shape ndim size result_type can_cast may_share_memory shares_memory
    array_repr array_str array2string iscomplexobj isrealobj searchsorted unique empty_like
    save savez savez_compressed savetxt""".split())
WRITERS = {"copyto", "put", "putmask", "place", "put_along_axis", "fill_diagonal"}


def attach(ops: dict[str, Callable]) -> None:
    """Give Tensor the two protocols by which NumPy's functions find it."""
    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        op, kwargs = None, {k: v for k, v in kwargs.items() if v is not None or k == "axis"}
        if method == "__call__" and kwargs.keys() <= {"dtype"} and xp.dtype(kwargs.get("dtype", "f")).kind == "f":
            op = ops.get(UFUNCS.get(ufunc.__name__, ufunc.__name__))
            if "dtype" in kwargs:                       # the precision to compute in
                dtype = kwargs.pop("dtype")
                inputs = [x.to(dtype) if isinstance(x, Tensor) else x for x in inputs]
        elif method == "reduce" and kwargs.keys() <= {"axis", "keepdims"}:
            op, kwargs = REDUCE.get(ufunc.__name__), {"axis": 0, **kwargs}
        if op is not None:
            result = op(*_arrays(inputs), **kwargs)
            return result if out is None else _out(*out, result)
        if out is None and method != "at":
            return _on_values(getattr(ufunc, method), inputs, kwargs)
        _written(inputs[:1] if out is None else out, getattr(ufunc, method), inputs,
                 kwargs if out is None else {**kwargs, "out": out})
        return out if out is None or len(out) > 1 else out[0]

    Tensor.__array_ufunc__, Tensor.__array_function__ = __array_ufunc__, _array_function
    Tensor.__cupy_get_ndarray__ = property(_for_cupy)


def _array_function(self, function, types, args, kwargs):
    name = function.__module__.removeprefix("numpy").lstrip(".") + "." + function.__name__
    op = FUNCTIONS.get(name.lstrip("."))
    if op is not None:
        try:
            inspect.signature(op).bind(*args, **kwargs)
        except TypeError:                           # an argument that only NumPy knows
            op = None
    result = NotImplemented if op is None else op(*_arrays(args), **kwargs)
    if result is not NotImplemented:
        return result
    if function.__name__ in WRITERS:
        return _written(args[:1], function, args, kwargs)
    return _on_values(function, args, kwargs)


def _for_cupy(x: Tensor) -> Callable[[], Any]:
    """Let a CuPy array take part: `p.data -= lr * p.grad` asks for this, `array * t` must not get it on the tape."""
    if recorded(x) or not hasattr(x._data, "__cuda_array_interface__"):
        raise AttributeError("__cupy_get_ndarray__")
    return lambda: x._data


def _arrays(value: Any) -> Any:
    """Return arguments with the backend's arrays in the place of NumPy's."""
    if isinstance(value, numpy.ndarray):
        return asarray(value)
    return type(value)(_arrays(v) for v in value) if type(value) in (list, tuple) else value


def _on_values(function: Callable, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call a NumPy function that has no gradient here."""
    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            if recorded(value) and function.__name__ not in ABOUT_VALUES:
                raise TypeError(f"numpy.{function.__name__} has no gradient here, or not with these arguments; "
                                "call it on .detach()")
            return value._data
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else _arrays(value)

    return _wrapped(function(*plain(args), **{k: plain(v) for k, v in kwargs.items()}))


def _wrapped(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return getattr(type(value), "_make", type(value))(map(_wrapped, value))
    return Tensor._wrap(value) if isinstance(value, (xp.ndarray, numpy.ndarray, numpy.generic)) else value


def _written(targets: tuple, function: Callable, args: Any, kwargs: dict[str, Any]) -> None:
    """Call a NumPy function that writes into some of its arguments."""
    targets = [x for x in targets if isinstance(x, Tensor)]
    for x in targets:
        refuse_leaf(x)
    _on_values(function, args, kwargs)
    for x in targets:
        x._version[0] += 1


def _out(target: Any, result: Tensor) -> Any:
    """Write a result where `out=` says."""
    if isinstance(target, Tensor):
        if recorded(target, result):
            raise RuntimeError("out= cannot be a Tensor where gradients are recorded; use the result")
        return write(target, ..., result)
    numpy.copyto(target, result.numpy() if isinstance(target, numpy.ndarray) else result._data, casting="same_kind")
    return target
