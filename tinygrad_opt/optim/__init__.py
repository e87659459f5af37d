"""The optimizer suite: each optimizer is a rule, written once."""

from .adabelief import AdaBelief
from .adabound import AdaBound
from .adagrad import Adadelta, Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .adan import Adan
from .ademamix import AdEMAMix
from .adopt import ADOPT
from .aggmo import AggMo
from .asgd import ASGD
from .madgrad import MADGRAD
from .nadam import NAdam
from .optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from .own import from_rule
from .quasi_hyperbolic import QHM, QHAdam
from .radam import RAdam
from .rmsprop import RMSprop
from .rprop import Rprop
from .sgd import SGD
from .sign import Lion, Signum
from .yogi import Yogi

OPTIMIZERS = {cls.__name__: cls for cls in (
    SGD, ASGD, Adagrad, Adadelta, RMSprop, Rprop, Adam, AdamW, Adamax, NAdam, RAdam, AdaBelief, AdaBound, Adan,
    AdEMAMix, ADOPT, AggMo, Lion, MADGRAD, QHAdam, QHM, Signum, Yogi)}

__all__ = [*OPTIMIZERS, "OPTIMIZERS", "Optimizer", "from_rule", "register_optimizer_step_post_hook",
           "register_optimizer_step_pre_hook"]
