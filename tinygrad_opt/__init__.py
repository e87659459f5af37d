"""tinygrad_opt: a Tensor with gradients of any order, and optimizers that can be read, run and watched.

    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x ** 3).sum().backward()
    >>> x.grad
    tensor([ 3., 12.])
"""

__version__ = "0.1.0"

import sys as _sys
from importlib import import_module as _import
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import autograd, backend, creation, ops
from .autograd import grad, hvp, jvp, vjp
from .creation import *  # noqa: F403
from .ops import *  # noqa: F403
from .precision import autocast, is_autocast_enabled, set_autocast_enabled
from .random import Generator, default_generator, manual_seed
from .spelling import ROOT as _ROOT
from .tensor import (
    Tensor,
    bool_,
    enable_grad,
    float16,
    float32,
    float64,
    int64,
    is_grad_enabled,
    no_grad,
    primitive,
    tensor,
)

if _TYPE_CHECKING:
    from . import amp, data, distributed, lab, nn, optim, tune
    from .gradcheck import check_grads
    from .io import CheckpointError, load, save
    from .tape import Tape

# These are read when they are first asked for: whoever wants a gradient need not wait for the rest.
_LATER = {**{name: name for name in ("amp", "data", "distributed", "lab", "nn", "optim", "sklearn", "tune")},
          **{name: f"io.{name}" for name in ("save", "load", "CheckpointError")},
          "Tape": "tape.Tape", "check_grads": "gradcheck.check_grads", **_ROOT}

__all__ = ["CheckpointError", "Generator", "Tape", "Tensor", "amp", "autocast", "autograd", "backend", "bool_",
           "check_grads", "data", "default_generator", "distributed", "enable_grad", "float16", "float32", "float64",
           "grad", "hvp", "int64", "is_grad_enabled", "jvp", "lab", "load", "manual_seed", "nn", "no_grad", "optim",
           "ops", "primitive", "save", "tensor", "tune", "vjp", *_ROOT, *creation.__all__, *ops.__all__]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LATER[name].partition(".")
    value = _import(f".{module}", __name__)
    value = getattr(value, attribute) if attribute else value
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(_ModuleType):
    @property
    def enable_autocast(self) -> bool:
        """Whether products are computed in float16, as inside `autocast`; set it for the whole process."""
        return is_autocast_enabled()

    @enable_autocast.setter
    def enable_autocast(self, enabled: bool) -> None:
        set_autocast_enabled(bool(enabled))


_sys.modules[__name__].__class__ = _Package
