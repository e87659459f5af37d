"""The losses that are minus the logarithm of p(label | output), and what the Fisher matrix needs of each.

`expected(z, v)` is the expectation of s s' times v, where s is the slope of the loss at an output z; `slope(z, target)`
is s for labels that are known, `drawn(z, numbers)` for labels drawn from the model; `roots(z)` are the slopes whose
s s' sum up to the expectation, for outputs of shape (examples, outputs). `terms(z)` counts the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..backend import asarray, xp
from ..ops import sigmoid, softmax

Array = Any


class Categorical:
    """`cross_entropy`: classes along axis 1, from logits."""

    @staticmethod
    def expected(z: Array, v: Array) -> Array:
        """Return (diag(p) - p p') v for the probabilities p."""
        pv = softmax(z, 1) * v
        return pv - softmax(z, 1) * pv.sum(axis=1, keepdims=True)

    @staticmethod
    def slope(z: Array, target: Array) -> Array:
        """Return p less 1 at the labels, or less the probabilities that were given for them."""
        if target.shape == z.shape:
            return softmax(z, 1) - target
        classes = xp.arange(z.shape[1]).reshape(-1, *[1] * (z.ndim - 2))
        return softmax(z, 1) - (xp.expand_dims(target, 1) == classes)

    @staticmethod
    def drawn(z: Array, numbers: Any) -> Array:
        """Draw by inversion."""
        below = xp.cumsum(softmax(z, 1), axis=1)[:, :-1]
        u = asarray(numbers.random((len(z), 1, *z.shape[2:])))
        return Categorical.slope(z, (below <= u).sum(axis=1))

    @staticmethod
    def roots(z: Array) -> Iterator[Array]:
        """Yield the slope for each label, times the root of its probability."""
        p = softmax(z, 1)
        for k in range(z.shape[1]):
            yield xp.sqrt(p[:, k:k + 1]) * (p - (xp.arange(z.shape[1]) == k))

    @staticmethod
    def terms(z: Array) -> int:
        """Return one a label."""
        return z.size // z.shape[1]


class Normal:
    """`mse_loss`: independent normal distributions around the outputs, of variance 1/2."""

    @staticmethod
    def expected(z: Array, v: Array) -> Array:
        """Return 2 v: the slope is twice a deviation of variance 1/2."""
        return 2 * v

    @staticmethod
    def slope(z: Array, target: Array) -> Array:
        """Return twice the deviation."""
        return 2 * (z - target)

    @staticmethod
    def drawn(z: Array, numbers: Any) -> Array:
        """Draw the deviation."""
        return 2 ** 0.5 * asarray(numbers.standard_normal(z.shape)).astype(z.dtype)

    @staticmethod
    def roots(z: Array) -> Iterator[Array]:
        """Yield the deviation of each output alone."""
        return (2 ** 0.5 * unit for unit in _units(z))

    @staticmethod
    def terms(z: Array) -> int:
        """Return one a number."""
        return z.size


class Bernoulli:
    """`binary_cross_entropy_with_logits`: independent labels 0 and 1, from logits."""

    terms = Normal.terms

    @staticmethod
    def expected(z: Array, v: Array) -> Array:
        """Return p (1 - p) v."""
        return sigmoid(z) * sigmoid(-z) * v

    @staticmethod
    def slope(z: Array, target: Array) -> Array:
        """Return p less the label."""
        return sigmoid(z) - target.astype(z.dtype)

    @staticmethod
    def drawn(z: Array, numbers: Any) -> Array:
        """Draw by inversion."""
        return Bernoulli.slope(z, asarray(numbers.random(z.shape)) < sigmoid(z))

    @staticmethod
    def roots(z: Array) -> Iterator[Array]:
        """Yield the deviation of each output alone."""
        return (xp.sqrt(sigmoid(z) * sigmoid(-z)) * unit for unit in _units(z))


def _units(z: Array) -> Iterator[Array]:
    """Yield 1 for one output of each example, and 0 for the others."""
    for k in range(z.shape[1]):
        yield xp.broadcast_to(xp.arange(z.shape[1]) == k, z.shape).astype(z.dtype)


LIKELIHOODS = {"cross_entropy": Categorical, "CrossEntropyLoss": Categorical, "mse_loss": Normal, "MSELoss": Normal,
               "binary_cross_entropy_with_logits": Bernoulli, "BCEWithLogitsLoss": Bernoulli}
PLAIN = {"weight": None, "pos_weight": None, "ignore_index": -100, "label_smoothing": 0}
PACKAGE = __package__.partition(".")[0]


def likelihood_of(loss: Callable, z: Array, target: Array) -> tuple[Any, float]:
    """Return what a loss of outputs and labels is the likelihood of, and the factor of each of its terms."""
    kind, options = ((loss.func, loss.keywords) if isinstance(loss, partial) else
                     (loss, {}) if hasattr(loss, "__name__") else (type(loss), vars(loss)))
    name = getattr(kind, "__name__", repr(kind))
    likelihood = LIKELIHOODS.get(name) if kind.__module__.partition(".")[0] == PACKAGE else None
    if likelihood is None:
        raise TypeError(f"the Fisher matrix is known of the losses {', '.join(LIKELIHOODS)}; got {name}. Give one as "
                        "it is, or its options by functools.partial; ggn_vp takes any loss")
    for option, plain in PLAIN.items():
        value = options.get(option, plain)
        if value is not plain and not (isinstance(value, (int, float)) and value == plain):
            raise ValueError(f"the Fisher matrix is of a likelihood, and with {option}= the loss is none; leave it out")
    if z.ndim < (2 if likelihood is Categorical else 1):
        raise ValueError(f"the Fisher matrix needs outputs with examples along the first axis, got the shape {z.shape}")
    if likelihood is Categorical and target.dtype.kind != "f" and (target < 0).any():
        raise ValueError("the Fisher matrix is of a likelihood, and where labels are ignored (below 0) there is none; "
                         "leave these examples out")
    return likelihood, 1 if options.get("reduction", "mean") == "sum" else 1 / likelihood.terms(z)
