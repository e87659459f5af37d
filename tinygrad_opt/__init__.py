"""tinygrad_opt: a Tensor with gradients of any order, and optimizers that can be read, run and watched.

    >>> import tinygrad_opt as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x ** 3).sum().backward()
    >>> x.grad
    tensor([ 3., 12.])
"""

__version__ = "0.1.0"

from . import autograd, backend, creation, data, nn, ops, optim
from .autograd import grad, hvp, jvp, vjp
from .creation import *  # noqa: F403
from .gradcheck import check_grads
from .io import CheckpointError, load, save
from .ops import *  # noqa: F403
from .random import Generator, default_generator, manual_seed
from .tensor import Tensor, bool_, enable_grad, float32, float64, int64, is_grad_enabled, no_grad, primitive, tensor

__all__ = ["CheckpointError", "Generator", "Tensor", "autograd", "backend", "bool_", "check_grads", "data",
           "default_generator", "enable_grad", "float32", "float64", "grad", "hvp", "int64", "is_grad_enabled", "jvp",
           "load", "manual_seed", "nn", "no_grad", "optim", "ops", "primitive", "save", "tensor", "vjp",
           *creation.__all__, *ops.__all__]
