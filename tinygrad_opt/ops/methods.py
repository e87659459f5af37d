"""What makes Tensor a citizen of Python: operators, and every op as a method.

A public op whose first argument is called `x` or `a` is a method of Tensor under the same name, and an
elementwise one has a twin with an underscore that writes in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..tensor import Tensor
from . import elementwise, index, protocols, shape, writing

OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder",
    "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
NOT_IN_PLACE = {"astype", "clone", "isfinite", "isinf", "isnan", "full_like", "ones_like", "zeros_like"}


def attach(ops: dict[str, Callable]) -> None:
    """Give Tensor its operators, methods and protocols from the table of ops."""
    for name, op in ops.items():
        code = getattr(getattr(op, "__wrapped__", op), "__code__", None)
        if code is not None and code.co_varnames[:1] in (("x",), ("a",)) and not hasattr(Tensor, name):
            setattr(Tensor, name, op)
            if name in vars(elementwise) and name not in NOT_IN_PLACE:
                setattr(Tensor, name + "_", writing.in_place(op, rebind=False))
    for sign, name in OPERATORS.items():
        setattr(Tensor, f"__{sign}__", ops[name])
        setattr(Tensor, f"__r{sign}__", _reflected(ops[name]))
        setattr(Tensor, f"__i{sign}__", writing.in_place(ops[name], rebind=True))
    for name in COMPARISONS:
        setattr(Tensor, f"__{name}__", ops[name])
    Tensor.__neg__, Tensor.__abs__, Tensor.__invert__ = ops["neg"], ops["abs"], ops["bitwise_not"]
    Tensor.__pos__ = lambda x: x
    Tensor.__getitem__, Tensor.__setitem__, Tensor.__iter__ = index.getitem, writing.setitem, _iterate
    Tensor.__contains__ = lambda x, value: bool((x == value).any())
    Tensor.T = property(lambda x: shape.transpose(x), doc="The Tensor with its axes reversed.")
    Tensor.mT = property(lambda x: shape.swapaxes(x, -1, -2), doc="The Tensor with its last two axes swapped.")
    Tensor.zero_, Tensor.fill_, Tensor.copy_ = writing.zero_, writing.fill_, writing.copy_
    Tensor.to, Tensor.float, Tensor.double = to, _converter("float32"), _converter("float64")
    Tensor.long, Tensor.bool = _converter("int64"), _converter("bool")
    protocols.attach(ops)


def _reflected(op: Callable) -> Callable:
    def method(b, a):
        return op(a, b)
    return method


def to(x: Tensor, dtype: Any) -> Tensor:
    """Return x in a dtype: itself where it already has it. There is no device to choose, the backend is it."""
    return x if x.dtype == dtype else elementwise.astype(x, dtype)


def _converter(dtype: str) -> Callable:
    def method(x):
        return to(x, dtype)
    method.__doc__ = f"Return x as {dtype}: itself where it already is."
    return method


def _iterate(x: Tensor) -> Iterator[Tensor]:
    return (index.getitem(x, k) for k in range(len(x)))
