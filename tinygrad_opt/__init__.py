"""tinygrad_opt: a Tensor with gradients of any order, and optimizers that can be read, run and watched.

    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x ** 3).sum().backward()
    >>> x.grad
    tensor([ 3., 12.])
"""

__version__ = "0.1.0"

from importlib import import_module as _import
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import autograd, backend, creation, ops
from .autograd import grad, hvp, jvp, vjp
from .creation import *  # noqa: F403
from .ops import *  # noqa: F403
from .random import Generator, default_generator, manual_seed
from .tensor import Tensor, bool_, enable_grad, float32, float64, int64, is_grad_enabled, no_grad, primitive, tensor

if _TYPE_CHECKING:
    from . import data, lab, nn, optim
    from .gradcheck import check_grads
    from .io import CheckpointError, load, save

# These are read when they are first asked for: whoever wants a gradient need not wait for the rest.
_LATER = {"data": "data", "lab": "lab", "nn": "nn", "optim": "optim", "check_grads": "gradcheck", "save": "io",
          "load": "io", "CheckpointError": "io"}

__all__ = ["CheckpointError", "Generator", "Tensor", "autograd", "backend", "bool_", "check_grads", "data",
           "default_generator", "enable_grad", "float32", "float64", "grad", "hvp", "int64", "is_grad_enabled", "jvp",
           "lab", "load", "manual_seed", "nn", "no_grad", "optim", "ops", "primitive", "save", "tensor", "vjp",
           *creation.__all__, *ops.__all__]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _import(f".{_LATER[name]}", __name__)
    value = module if name == _LATER[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
