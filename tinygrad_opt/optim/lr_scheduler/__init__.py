"""Schedulers: they write what a schedule says into the groups of an optimizer.

torch's, with its names, signatures and values, and more.
"""

from .base import HyperScheduler, LRScheduler
from .container import ChainedScheduler, SequentialLR, WarmupLR
from .cosine import SWALR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CosineRestarts, WarmupCosine
from .cycle import CyclicLR, OneCycleLR
from .decay import (
    REX,
    ConstantLR,
    ExponentialLR,
    InverseTimeDecay,
    LambdaLR,
    LinearLR,
    LinearToZero,
    MultiplicativeLR,
    MultiStepLR,
    PiecewiseConstant,
    PiecewiseCosine,
    PiecewiseLinear,
    PolynomialLR,
    PolynomialWithEnd,
    StepLR,
)
from .plateau import ReduceLROnPlateau
from .warmup import WSD, InverseSqrt, Noam

__all__ = ["ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CosineRestarts",
           "CyclicLR", "ExponentialLR", "HyperScheduler", "InverseSqrt", "InverseTimeDecay", "LRScheduler", "LambdaLR",
           "LinearLR", "LinearToZero", "MultiStepLR", "MultiplicativeLR", "Noam", "OneCycleLR", "PiecewiseConstant",
           "PiecewiseCosine", "PiecewiseLinear", "PolynomialLR", "PolynomialWithEnd", "REX", "ReduceLROnPlateau",
           "SWALR", "SequentialLR", "StepLR", "WSD", "WarmupCosine", "WarmupLR"]
