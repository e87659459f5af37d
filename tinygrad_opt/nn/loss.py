"""Losses as modules: made with a loss function's options, called with its inputs.

>>> import tinygrad_opt as tg
>>> loss = tg.nn.CrossEntropyLoss(label_smoothing=0.1)
>>> loss
CrossEntropyLoss(label_smoothing=0.1)
>>> round(loss(tg.tensor([[2.0, 0.0]]), tg.tensor([0])).item(), 4)
0.2269
"""

from __future__ import annotations

from collections.abc import Callable

from .. import ops
from .function import FunctionModule, module_of


def _loss(function: Callable, name: str) -> type[FunctionModule]:
    return module_of(function, name, shows_defaults=False)


BCELoss = _loss(ops.binary_cross_entropy, "BCELoss")
BCEWithLogitsLoss = _loss(ops.binary_cross_entropy_with_logits, "BCEWithLogitsLoss")
CosineEmbeddingLoss = _loss(ops.cosine_embedding_loss, "CosineEmbeddingLoss")
CrossEntropyLoss = _loss(ops.cross_entropy, "CrossEntropyLoss")
GaussianNLLLoss = _loss(ops.gaussian_nll_loss, "GaussianNLLLoss")
HingeEmbeddingLoss = _loss(ops.hinge_embedding_loss, "HingeEmbeddingLoss")
HuberLoss = _loss(ops.huber_loss, "HuberLoss")
KLDivLoss = _loss(ops.kl_div, "KLDivLoss")
L1Loss = _loss(ops.l1_loss, "L1Loss")
MarginRankingLoss = _loss(ops.margin_ranking_loss, "MarginRankingLoss")
MSELoss = _loss(ops.mse_loss, "MSELoss")
MultiMarginLoss = _loss(ops.multi_margin_loss, "MultiMarginLoss")
NLLLoss = _loss(ops.nll_loss, "NLLLoss")
PoissonNLLLoss = _loss(ops.poisson_nll_loss, "PoissonNLLLoss")
SmoothL1Loss = _loss(ops.smooth_l1_loss, "SmoothL1Loss")
SoftMarginLoss = _loss(ops.soft_margin_loss, "SoftMarginLoss")
TripletMarginLoss = _loss(ops.triplet_margin_loss, "TripletMarginLoss")
