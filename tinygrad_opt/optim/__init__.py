"""The optimizer suite: each optimizer is a rule, written once."""

from .adam import Adam, AdamW
from .optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from .own import from_rule
from .rmsprop import RMSprop
from .sgd import SGD

OPTIMIZERS = {cls.__name__: cls for cls in (SGD, Adam, AdamW, RMSprop)}

__all__ = [*OPTIMIZERS, "OPTIMIZERS", "Optimizer", "from_rule", "register_optimizer_step_post_hook",
           "register_optimizer_step_pre_hook"]
