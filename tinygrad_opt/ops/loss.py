"""Losses, with torch's names, arguments and defaults.

`reduction` is "mean", "sum" or "none" throughout. Targets may be Tensors, arrays or lists; those that are
compared with the input number by number must have its shape, and whole numbers are taken in its dtype.
"""

from __future__ import annotations

import math
from typing import Any

from .. import backend
from ..backend import asarray, xp
from ..precision import in_float32
from ..tensor import Tensor, primitive
from .activation import _softmax_vjp, cosine_similarity, log_softmax, logsigmoid, relu, softmax
from .elementwise import abs, astype, clamp, exp, log, log1p, maximum, minimum, square, where
from .index import take_along_axis
from .reduce import mean, norm, sum
from .shape import reshape, squeeze, unsqueeze


def _reduced(loss, reduction: str):
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum(loss)
    if reduction == "none":
        return loss
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _beside(input, value):
    """Return an array_like as what the input is, Tensor or array, in its dtype unless it has a float one."""
    if not isinstance(value, Tensor):
        value = asarray(value) if hasattr(value, "dtype") else xp.asarray(value, dtype=input.dtype)
        if isinstance(input, Tensor):
            value = Tensor._wrap(value)
    return value if value.dtype.kind == "f" else astype(value, input.dtype)


def _same(name: str, input, target, what: str = "target", signs: bool = False):
    """Return the target beside the input; it must have the same shape and, if `signs`, hold 1 and -1 only."""
    target = _beside(input, target)
    if target.shape != input.shape:
        raise ValueError(f"{name}: {what} has shape {target.shape}, it must be {input.shape}; to broadcast "
                         "would mix what does not belong together. Use .squeeze() or .unsqueeze()")
    if signs and not (xp.abs(_array(target)) == 1).all():
        raise ValueError(f"{name}: {what} must hold 1 and -1 only")
    return target


# ---- classes ----------------------------------------------------------------------------------------------


def _cross_entropy_vjp(g, y, z, loss, gradient, share):
    return g * _known_gradient(z, gradient, share)


_cross_entropy_vjp.raw = lambda g, y, z, loss, gradient, share: g * gradient


@primitive(_cross_entropy_vjp)
def _cross_entropy(z, loss, gradient, share):
    """The loss of the logits z, which the kernel has computed together with its gradient."""
    return loss


@primitive(lambda g, y, z, gradient, share: share * _softmax_vjp(g, softmax(z, 1), z, 1))
def _known_gradient(z, gradient, share):
    """The gradient of that loss, share * (softmax(z) - one_hot(labels)), known too."""
    return gradient


@in_float32
def cross_entropy(input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy between the softmax of logits and classes, or probabilities of classes.

    Parameters
    ----------
    input : Tensor or array, shape (N, C), (C,) or (N, C, d1, ...)
        Logits: any real numbers.
    target : array_like
        Classes, integers from 0 to C - 1, of the shape of the input without C; or probabilities of its shape.
    weight : array_like, shape (C,), optional
        What each class counts; the mean divides by the counts of the labels (of N for probabilities).
    ignore_index : int, default -100
        A label whose rows do not count.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float, default 0.0
        The part, from 0 to 1, of each label that is spread evenly over all classes.

    Returns
    -------
    Tensor or array
        A scalar, or for "none" the shape of the input without C.

    Raises
    ------
    IndexError
        When a label is no class.
    TypeError, ValueError
        When the target is of the wrong dtype or shape, or another argument out of its range.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> logits = tg.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> tg.cross_entropy(logits, [0, 1]), tg.cross_entropy(logits, [[0.5, 0.5], [0.0, 1.0]])
    (tensor(0.1269), tensor(0.6269))
    """
    z, labels = _array(input), _array(target)
    if labels.dtype.kind == "f" and labels.shape == z.shape:
        if ignore_index >= 0:
            raise ValueError("cross_entropy: ignore_index is for classes, this target holds probabilities")
        return _of_probabilities(input, _beside(input, target), weight, reduction, label_smoothing)
    if (weight is None and ignore_index < 0 and reduction == "mean" and not label_smoothing
            and labels.dtype.kind in "iu" and z.ndim == 2 and labels.shape == z.shape[:1] and z.size):
        share = 1 / len(labels)
        known = backend.cross_entropy(z, labels, share)
        if known is not None:
            return _cross_entropy(input, *known, share)
    logp = log_softmax(input, _class_axis(input))
    return _nll("cross_entropy", logp, labels, weight, ignore_index, reduction, label_smoothing)


@in_float32
def nll_loss(input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100,
             reduction: str = "mean") -> Tensor:
    """Return minus the log-probability of the right class: what `cross_entropy` does after `log_softmax`.

    Parameters
    ----------
    input : Tensor or array, shape (N, C), (C,) or (N, C, d1, ...)
        Logarithms of probabilities.
    target, weight, ignore_index, reduction
        As for `cross_entropy`, with classes only.
    """
    return _nll("nll_loss", input, _array(target), weight, ignore_index, reduction)


def _array(value: Any) -> Any:
    return value._data if isinstance(value, Tensor) else asarray(value)


def _class_axis(input) -> int:
    if not input.ndim:
        raise ValueError("input needs an axis of classes, got a single number")
    return min(1, input.ndim - 1)


def _nll(name: str, logp, labels, weight, ignore_index: int, reduction: str, label_smoothing: float = 0.0):
    """The loss of labels, from logarithms of probabilities."""
    axis, kept = _class_axis(logp), _kept(name, logp, labels, ignore_index)
    labels, share = xp.where(kept, labels, 0), kept.astype(logp.dtype)
    loss = -squeeze(take_along_axis(logp, xp.expand_dims(labels, axis), axis), axis)
    if weight is not None:
        weight = _class_weight(logp, weight)
        share, loss = share * weight[labels], loss * weight[labels]
    if label_smoothing:
        loss = (1 - label_smoothing) * loss + _smoothing(label_smoothing, logp) * _expected(logp, 1, weight)
    loss = where(kept, loss, 0)
    return sum(loss) / sum(share) if reduction == "mean" else _reduced(loss, reduction)


def _of_probabilities(input, target, weight, reduction: str, label_smoothing: float):
    if label_smoothing:
        target = (1 - label_smoothing) * target + _smoothing(label_smoothing, input)
    if weight is not None:
        weight = _class_weight(input, weight)
    return _reduced(_expected(log_softmax(input, _class_axis(input)), target, weight), reduction)


def _expected(logp, target, weight):
    """Return minus the sum over the classes of target * logp, each class times its weight."""
    if weight is not None:
        target = target * reshape(weight, (-1, *[1] * (logp.ndim - 2)))
    return -sum(logp * target, axis=_class_axis(logp))


def _smoothing(label_smoothing: float, logp) -> float:
    """Return what each class gets of a label."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
    return label_smoothing / logp.shape[_class_axis(logp)]


def _class_weight(logp, weight):
    weight, classes = _beside(logp, weight), logp.shape[_class_axis(logp)]
    if weight.shape != (classes,):
        raise ValueError(f"weight must have shape {(classes,)}, a number for each class; got {weight.shape}")
    return weight


def _kept(name: str, logp, labels, ignore_index: int):
    """Return which labels count, or say what is wrong with them."""
    axis = _class_axis(logp)
    classes, shape = logp.shape[axis], logp.shape[:axis] + logp.shape[axis + 1:]
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: target has dtype {labels.dtype} and shape {labels.shape}; give classes, "
                        f"integers of shape {shape}, or to cross_entropy probabilities of shape {logp.shape}")
    if labels.shape != shape:
        raise ValueError(f"{name}: target has shape {labels.shape}, it must be {shape}: that of the input, "
                         f"{logp.shape}, without the axis of classes")
    kept = labels != ignore_index
    outside = kept & ((labels < 0) | (labels >= classes))
    if outside.any():
        place = tuple(int(k) for k in xp.argwhere(outside)[0])
        raise IndexError(f"{name}: target{list(place) or ''} is {int(labels[place])}; labels of {classes} "
                         f"classes (input has shape {logp.shape}) run from 0 to {classes - 1}")
    return kept


# ---- probabilities ----------------------------------------------------------------------------------------


def _log(x):
    return maximum(log(maximum(x, 1e-44)), -100)


def _log_of_rest(x):
    return where(x < 1, log1p(-where(x < 1, x, 0)), -100)


@primitive(lambda g, y, x, t: g * (x - t) / maximum(x * (1 - x), 1e-12),
           lambda g, y, x, t: g * (_log_of_rest(x) - _log(x)))
def _binary_cross_entropy(x, t):
    return -(t * _log(x) + (1 - t) * _log_of_rest(x))


@in_float32
def binary_cross_entropy(input: Tensor, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """Return -(target * log(input) + (1 - target) * log(1 - input)), the logarithms limited below at -100.

    Parameters
    ----------
    input : Tensor or array
        Probabilities, from 0 to 1.
    target : array_like
        Labels 0 and 1, or probabilities, of the same shape.
    weight : array_like, optional
        What each element counts; broadcasts to the input.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        When the shapes differ or the input is no probability.
    """
    target, p = _same("binary_cross_entropy", input, target), _array(input)
    outside = (p < 0) | (p > 1)
    if outside.any():
        raise ValueError(f"binary_cross_entropy: input must lie in [0, 1], got {p[outside][0]}; for logits "
                         "use binary_cross_entropy_with_logits")
    loss = _binary_cross_entropy(input, target)
    return _reduced(loss if weight is None else loss * _beside(input, weight), reduction)


@in_float32
def binary_cross_entropy_with_logits(input: Tensor, target: Any, weight: Any = None, reduction: str = "mean",
                                     pos_weight: Any = None) -> Tensor:
    """Return the binary cross-entropy of sigmoid(input), accurate for logits of any size.

    Parameters
    ----------
    input : Tensor or array
        Logits: any real numbers.
    target : array_like
        Labels 0 and 1, or probabilities, of the same shape.
    weight, pos_weight : array_like, optional
        What each element, and what each 1 among the labels, counts; they broadcast to the input.
    reduction : {"mean", "sum", "none"}

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.binary_cross_entropy_with_logits(tg.tensor([0.0, -1000.0]), [1, 1], reduction="none")
    tensor([6.9315e-01, 1.0000e+03])
    """
    target = _same("binary_cross_entropy_with_logits", input, target)
    positive = target * logsigmoid(input)
    if pos_weight is not None:
        positive = positive * _beside(input, pos_weight)
    loss = -(positive + (1 - target) * logsigmoid(-input))
    return _reduced(loss if weight is None else loss * _beside(input, weight), reduction)


@in_float32
def kl_div(input: Tensor, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Return the terms target * (log(target) - input) of the Kullback-Leibler divergence.

    Parameters
    ----------
    input : Tensor or array
        Logarithms of probabilities.
    target : array_like
        Probabilities of the same shape, or their logarithms if `log_target`.
    reduction : {"mean", "batchmean", "sum", "none"}
        Only "batchmean", the sum divided by the length of the first axis, is the divergence as defined;
        "mean", the default as in torch, divides by the number of elements.
    """
    target = _same("kl_div", input, target)
    loss = exp(target) * (target - input) if log_target else (
        target * log(where(target == 0, 1, target)) - target * input)
    return sum(loss) / len(loss) if reduction == "batchmean" else _reduced(loss, reduction)


@in_float32
def poisson_nll_loss(input: Tensor, target: Any, log_input: bool = True, full: bool = False,
                     eps: float = 1e-8, reduction: str = "mean") -> Tensor:
    """Return minus the log-likelihood of counts under Poisson distributions, without the term log(target!).

    Parameters
    ----------
    input : Tensor or array
        The logarithm of the expected count, or the count itself if not `log_input`.
    target : array_like
        Counts, of the same shape.
    log_input : bool, default True
    full : bool, default False
        Add Stirling's approximation of log(target!) where the target exceeds 1.
    eps : float, default 1e-8
        Keeps the logarithm finite if not `log_input`.
    reduction : {"mean", "sum", "none"}
    """
    target = _same("poisson_nll_loss", input, target)
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        many = maximum(target, 1)
        loss = loss + where(target > 1, many * log(many) - many + 0.5 * log(2 * math.pi * many), 0)
    return _reduced(loss, reduction)


@in_float32
def gaussian_nll_loss(input: Tensor, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """Return minus the log-likelihood under normal distributions of mean `input` and variance `var`.

    Parameters
    ----------
    input : Tensor or array
    target : array_like
        Of the same shape.
    var : array_like
        At least 0, values below eps count as eps; of the same shape, without the last axis or with 1 in its
        place, or one number.
    full : bool, default False
        Add the constant log(2 pi) / 2.
    eps : float, default 1e-6
    reduction : {"mean", "sum", "none"}
    """
    target, var = _same("gaussian_nll_loss", input, target), _beside(input, var)
    if var.ndim and var.shape == input.shape[:-1]:
        var = unsqueeze(var, -1)
    if var.shape not in ((), input.shape, (*input.shape[:-1], 1)):
        raise ValueError(f"gaussian_nll_loss: var has shape {var.shape}, it must be {input.shape}, or 1 in "
                         "place of the last axis")
    if (_array(var) < 0).any():
        raise ValueError("gaussian_nll_loss: var must be at least 0 everywhere")
    var = clamp(var, min=eps)
    loss = 0.5 * (log(var) + square(input - target) / var)
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


# ---- distances --------------------------------------------------------------------------------------------


@in_float32
def mse_loss(input: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Return the squared differences.

    Parameters
    ----------
    input : Tensor or array
    target : array_like
        Of the same shape.
    reduction : {"mean", "sum", "none"}

    Raises
    ------
    ValueError
        When the shapes differ, even where they would broadcast.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.mse_loss(tg.tensor([1.0, 2.0]), [1.0, 4.0])
    tensor(2.)
    """
    return _reduced(square(input - _same("mse_loss", input, target)), reduction)


@in_float32
def l1_loss(input: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Return the absolute differences; arguments as for `mse_loss`."""
    return _reduced(abs(input - _same("l1_loss", input, target)), reduction)


@primitive(lambda g, y, d, delta: g * clamp(d, -delta, delta))
def _huber(d, delta):
    within = xp.minimum(xp.abs(d), delta)
    return within * (xp.abs(d) - 0.5 * within)


@in_float32
def huber_loss(input: Tensor, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Return half the squared differences d where abs(d) < delta, and delta * (abs(d) - delta / 2) elsewhere.

    Arguments as for `mse_loss`; delta is positive.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    return _reduced(_huber(input - _same("huber_loss", input, target), delta), reduction)


@in_float32
def smooth_l1_loss(input: Tensor, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Return the Huber loss of delta = beta, divided by beta; the absolute differences for beta = 0.

    Arguments as for `mse_loss`.
    """
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must be at least 0, got {beta}")
    d = input - _same("smooth_l1_loss", input, target)
    return _reduced(_huber(d, beta) / beta if beta else abs(d), reduction)


# ---- margins ----------------------------------------------------------------------------------------------


@in_float32
def hinge_embedding_loss(input: Tensor, target: Any, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """Return the input where the target is 1, and max(0, margin - input) where it is -1."""
    target = _same("hinge_embedding_loss", input, target, signs=True)
    return _reduced(where(target == 1, input, clamp(margin - input, min=0)), reduction)


@in_float32
def soft_margin_loss(input: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """Return log(1 + exp(-target * input)) for targets 1 and -1, accurate for inputs of any size."""
    return _reduced(-logsigmoid(input * _same("soft_margin_loss", input, target, signs=True)), reduction)


@in_float32
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Any, margin: float = 0.0,
                        reduction: str = "mean") -> Tensor:
    """Return max(0, margin - target * (input1 - input2)): 1 wants input1 to be larger, -1 input2."""
    difference = input1 - _same("margin_ranking_loss", input1, input2, "input2")
    target = _same("margin_ranking_loss", input1, target, signs=True)
    return _reduced(clamp(margin - target * difference, min=0), reduction)


@in_float32
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Any, margin: float = 0.0,
                          reduction: str = "mean") -> Tensor:
    """Return 1 - cos where the target is 1, and max(0, cos - margin) where it is -1.

    Parameters
    ----------
    input1, input2 : Tensor or array, shape (N, D) or (D,)
    target : array_like, shape (N,) or ()
    margin : float, default 0.0
    reduction : {"mean", "sum", "none"}
    """
    cos = cosine_similarity(input1, _same("cosine_embedding_loss", input1, input2, "input2"), axis=-1)
    target = _same("cosine_embedding_loss", cos, target, signs=True)
    return _reduced(where(target == 1, 1 - cos, clamp(cos - margin, min=0)), reduction)


@in_float32
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                        reduction: str = "mean") -> Tensor:
    """Return max(0, margin + distance(anchor, positive) - distance(anchor, negative)).

    Parameters
    ----------
    anchor, positive, negative : Tensor or array, shape (..., D)
    margin : float, default 1.0
    p : float, default 2.0
        The distance is the p-norm, over the last axis, of the difference plus eps.
    eps : float, default 1e-6
    swap : bool, default False
        Let the positive stand in for the anchor where it is closer to the negative.
    reduction : {"mean", "sum", "none"}
    """
    positive = _same("triplet_margin_loss", anchor, positive, "positive")
    negative = _same("triplet_margin_loss", anchor, negative, "negative")
    far = norm(anchor - negative + eps, p, -1)
    if swap:
        far = minimum(far, norm(positive - negative + eps, p, -1))
    return _reduced(clamp(margin + norm(anchor - positive + eps, p, -1) - far, min=0), reduction)


@in_float32
def multi_margin_loss(input: Tensor, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None,
                      reduction: str = "mean") -> Tensor:
    """Return the mean over the wrong classes' max(0, margin - input[right] + input[wrong]) ** p, C in number.

    Parameters
    ----------
    input : Tensor or array, shape (N, C) or (C,)
        Scores.
    target : array_like of int, shape (N,) or ()
        Classes.
    p : {1, 2}
    margin : float, default 1.0
    weight : array_like, shape (C,), optional
        What each class counts.
    reduction : {"mean", "sum", "none"}
    """
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, got {p}")
    labels = _array(target)
    _kept("multi_margin_loss", input, labels, None)
    right = take_along_axis(input, labels[..., None], -1)
    excess = relu(margin - right + input)
    wrong = labels[..., None] != xp.arange(input.shape[-1])
    loss = mean(where(wrong, excess if p == 1 else square(excess), 0), -1)
    return _reduced(loss if weight is None else loss * _class_weight(input, weight)[labels], reduction)
