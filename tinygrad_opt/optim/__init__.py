"""The optimizer suite: each optimizer is a rule, written once."""

# ruff: noqa: F401

from importlib import import_module

from .. import gradients
from ..spelling import CLIPPING, OPTIM
from .adabelief import AdaBelief
from .adabound import AdaBound
from .adafactor import Adafactor
from .adagrad import Adadelta, Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .adan import Adan
from .ademamix import AdEMAMix
from .adopt import ADOPT
from .aggmo import AggMo
from .asgd import ASGD
from .d_adaptation import DAdaptAdam, DAdaptSGD, Prodigy
from .lineage import lineage
from .madgrad import MADGRAD
from .muon import Muon
from .nadam import NAdam
from .novograd import NovoGrad
from .optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from .own import from_rule
from .polyak import DoG, PolyakSGD
from .quasi_hyperbolic import QHM, QHAdam
from .radam import RAdam
from .registry import create, list_optimizers, optimizer_info
from .rmsprop import RMSprop
from .rprop import Rprop
from .schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from .sgd import SGD
from .shampoo import Shampoo
from .sign import Lion, Signum
from .soap import SOAP
from .sophia import SophiaG, SophiaH
from .trust_ratio import LAMB, LARS
from .verify import verify
from .yogi import Yogi

# Wrappers, which are read later, are none.
OPTIMIZERS = {cls.__name__: cls for cls in list(globals().values())
              if isinstance(cls, type) and issubclass(cls, Optimizer) and cls is not Optimizer}
_SPELLINGS = {other: OPTIMIZERS[name] for other, name in OPTIM.items()}
globals().update(_SPELLINGS)

# Methods that use curvature, and where they are.
SECOND_ORDER = {"LBFGS": "lbfgs", "NewtonCG": "newton_cg", "TrustRegion": "trust_region",
                "GaussNewton": "gauss_newton", "NaturalGradient": "natural_gradient", "KFAC": "kfac",
                "HessianFree": "hessian_free", "AdaHessian": "adahessian"}

# These are read when they are first asked for, and the functions on gradients are found here too.
_LATER = {"lr_scheduler": ".lr_scheduler", "schedule": ".schedule", "swa_utils": ".swa_utils",
          **dict.fromkeys(("AveragedModel", "EMA", "update_bn"), ".swa_utils"),
          **dict.fromkeys(("ClipNorm", "ClipValue", "ClipAGC", "ClipBlockRMS", "Normalize", "Centralize", "Noise",
                           "Guard", "WeightDecay"), ".transforms"),
          "SAM": ".sam", "Lookahead": ".lookahead", "Accumulate": ".accumulate", "ApplyIfFinite": ".apply_if_finite",
          "Freeze": ".freeze", **dict.fromkeys(("MultiOptimizer", "muon_with_adamw"), ".multi"),
          "functional": ".differentiable", **{name: f".second_order.{file}" for name, file in SECOND_ORDER.items()},
          **dict.fromkeys(("decay_groups", "layer_decay_groups"), ".groups"),
          **dict.fromkeys([*gradients.__all__, *CLIPPING], "..gradients")}

__all__ = [*OPTIMIZERS, *_SPELLINGS, *_LATER, "OPTIMIZERS", "SECOND_ORDER", "Optimizer", "create", "from_rule",
           "lineage", "list_optimizers", "optimizer_info", "register_optimizer_step_post_hook",
           "register_optimizer_step_pre_hook", "verify"]


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LATER[name], __name__)
    value = module if name == _LATER[name].strip(".") else getattr(module, CLIPPING.get(name, name))
    globals()[name] = value
    return value
