"""The functions behind the modules, under the names of torch.nn.functional."""

# ruff: noqa: F401
from __future__ import annotations

from typing import Any

from .. import ops
from ..ops import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    celu,
    cosine_embedding_loss,
    cosine_similarity,
    cross_entropy,
    dropout,
    elu,
    gaussian_nll_loss,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    leaky_relu,
    linear,
    log_softmax,
    logsigmoid,
    margin_ranking_loss,
    mish,
    mse_loss,
    multi_margin_loss,
    nll_loss,
    normalize,
    one_hot,
    pad,
    poisson_nll_loss,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    smooth_l1_loss,
    soft_margin_loss,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
    triplet_margin_loss,
)
from ..ops.index import plain
from ..ops.normalization import batch_norm, layer_norm, rms_norm
from ..tensor import Tensor


def embedding(input: Any, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Return the rows of a table for some indices: `tinygrad_opt.embedding` with torch's order of arguments.

    Parameters
    ----------
    input : Tensor or array_like of int, any shape
        Each in [0, n - 1].
    weight : Tensor, shape (n, d)
    padding_idx : int, optional
        A row that receives no gradient; negative ones count from the end.

    Returns
    -------
    Tensor, shape input.shape + (d,)

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.functional.embedding([1, 0], tg.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    rows = ops.embedding(weight, input)
    if padding_idx is None:
        return rows
    if not -len(weight) <= padding_idx < len(weight):
        raise ValueError(f"padding_idx must be one of the {len(weight)} rows, got {padding_idx}")
    padding = plain(input)[..., None] == padding_idx % len(weight)
    return ops.where(padding, rows.detach(), rows)
