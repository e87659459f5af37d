"""Tuning: a rate by the range test, hyper-parameters by search, and optimizers compared after the same tuning.

    >>> import tinygrad_opt as tg
    >>> search = tg.tune.search(lambda trial: (trial["x"] - 2) ** 2, {"x": tg.tune.uniform(-10, 10)}, progress=False)
    >>> abs(search.best["x"] - 2) < 0.5
    True
"""

from ..lab import lr_find
from . import tasks
from .comparison import Comparison, compare
from .results import Search
from .searching import search
from .spaces import choice, integer, log, uniform
from .trials import Pruned, Trial, TrialRecord

__all__ = ["Comparison", "Pruned", "Search", "Trial", "TrialRecord", "choice", "compare", "integer", "log", "lr_find",
           "search", "tasks", "uniform"]
