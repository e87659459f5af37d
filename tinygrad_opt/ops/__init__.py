"""Every op with its gradient, by kind. Imported together they become the methods of Tensor."""

from . import activation, affine, elementwise, index, linalg, loss, methods, normalization, reduce, shape

HELPERS = {"axis_or_dim", "plain"}              # for other ops, not for users
TABLE = {name: op for module in (elementwise, reduce, shape, index, linalg, affine, activation, normalization, loss)
         for name, op in vars(module).items()
         if callable(op) and not isinstance(op, type) and not name.startswith("_") and name not in HELPERS
         and getattr(op, "__module__", None) == module.__name__}
globals().update(TABLE)
__all__ = list(TABLE)
methods.attach(TABLE)
