"""Activation functions as modules."""

from __future__ import annotations

from .. import ops
from ..creation import full
from ..tensor import Tensor, float32
from .function import module_of
from .linear import _positive
from .module import Module
from .parameter import Parameter

CELU = module_of(ops.celu, "CELU")
ELU = module_of(ops.elu, "ELU")
GELU = module_of(ops.gelu, "GELU")
GLU = module_of(ops.glu, "GLU")
Hardshrink = module_of(ops.hardshrink, "Hardshrink")
Hardsigmoid = module_of(ops.hardsigmoid, "Hardsigmoid")
Hardswish = module_of(ops.hardswish, "Hardswish")
Hardtanh = module_of(ops.hardtanh, "Hardtanh")
LeakyReLU = module_of(ops.leaky_relu, "LeakyReLU")
LogSigmoid = module_of(ops.logsigmoid, "LogSigmoid")
LogSoftmax = module_of(ops.log_softmax, "LogSoftmax")
Mish = module_of(ops.mish, "Mish")
ReLU = module_of(ops.relu, "ReLU")
ReLU6 = module_of(ops.relu6, "ReLU6")
SELU = module_of(ops.selu, "SELU")
Sigmoid = module_of(ops.sigmoid, "Sigmoid")
SiLU = module_of(ops.silu, "SiLU")
Softmax = module_of(ops.softmax, "Softmax")
Softmin = module_of(ops.softmin, "Softmin")
Softplus = module_of(ops.softplus, "Softplus")
Softshrink = module_of(ops.softshrink, "Softshrink")
Softsign = module_of(ops.softsign, "Softsign")
Tanh = module_of(ops.tanh, "Tanh")
Tanhshrink = module_of(ops.tanhshrink, "Tanhshrink")
Threshold = module_of(ops.threshold, "Threshold", inputs=1)


class PReLU(Module):
    """Return x where positive, and weight * x elsewhere, for a learned weight.

    He, Zhang, Ren and Sun, Delving deep into rectifiers, 2015.

    Parameters
    ----------
    num_parameters : int, default 1
        One weight for all, or one for each channel, which is axis 1 of the input.
    init : float, default 0.25
        The first value of the weight.
    dtype : dtype, default float32

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.PReLU()(tg.tensor([-4.0, 4.0])).tolist()
    [-1.0, 4.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype=float32) -> None:
        super().__init__()
        self.num_parameters, self.init = _positive("num_parameters", num_parameters), init
        self.weight = Parameter(full(num_parameters, init, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return x after the activation."""
        return ops.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
