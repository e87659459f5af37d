"""Estimators for scikit-learn: networks of this framework, by any of its optimizers, in pipelines and grid searches.

    >>> import tinygrad_opt as tg
    >>> from sklearn.model_selection import GridSearchCV
    >>> images, labels = (t.numpy() for t in tg.data.digits()[0].tensors)
    >>> grid = {"optimizer": ["adamw", "lion"], "learning_rate_init": [1e-3, 1e-2]}
    >>> classifier = tg.sklearn.MLPClassifier((32,), max_iter=20, tol=0, random_state=0, n_iter_no_change=20)
    >>> search = GridSearchCV(classifier, grid, cv=3)
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")         # 20 epochs are few, and scikit-learn says so
    ...     _ = search.fit(images, labels)
    >>> bool(search.best_score_ > 0.9)
    True
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError(f"tinygrad_opt.sklearn needs scikit-learn of at least 1.6: {error}. "
                      "pip install 'tinygrad-opt[sklearn]' installs it") from error

from . import nn
from .data import DataLoader, TensorDataset
from .lab.objective import Objective
from .lab.traces import drive
from .ops import cross_entropy, log_softmax, mse_loss, softmax
from .optim import Muon, Optimizer, decay_groups, muon_with_adamw
from .optim.registry import REQUIRED, find, optimizer_class
from .optim.replay import stepping
from .optim.second_order.base import SecondOrder
from .optim.second_order.gauss_newton import GaussNewton
from .optim.second_order.outputs import OfOutputs
from .random import Generator, own_generator
from .tensor import Tensor, no_grad

__all__ = ["MLPClassifier", "MLPRegressor"]

DTYPES = (np.float64, np.float32)               # these are kept, others become the first
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "softplus": nn.Softplus,
}


class _Batches:
    """Batches, epoch after epoch, as pairs: inputs, and what the loss needs beside the outputs."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, list[Tensor]]]:
        for x, *rest in self.loader:
            yield x, rest


class _Perceptron(BaseEstimator):
    """What classifier and regressor share: a network of layers that are linear, and its training."""

    _numeric: bool                                  # whether y is numbers, not labels
    _likelihood: str                                # what methods of second order take the loss for

    def __init__(self, hidden_layer_sizes: Any = (100,), activation: str = "relu", *, optimizer: str = "adamw",
                 learning_rate_init: float | None = None, alpha: float = 1e-4,
                 optimizer_options: dict[str, Any] | None = None, batch_size: Any = "auto", max_iter: int = 200,
                 shuffle: bool = True, random_state: Any = None, tol: float = 1e-4, verbose: bool = False,
                 warm_start: bool = False, early_stopping: bool = False, validation_fraction: float = 0.1,
                 n_iter_no_change: int = 10) -> None:
        self.hidden_layer_sizes, self.activation = hidden_layer_sizes, activation
        self.optimizer, self.optimizer_options = optimizer, optimizer_options
        self.learning_rate_init, self.alpha = learning_rate_init, alpha
        self.batch_size, self.max_iter, self.shuffle, self.random_state = batch_size, max_iter, shuffle, random_state
        self.tol, self.n_iter_no_change, self.verbose, self.warm_start = tol, n_iter_no_change, verbose, warm_start
        self.early_stopping, self.validation_fraction = early_stopping, validation_fraction

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train until the loss, or with early stopping the score, no longer gets better; return the estimator.

        Parameters
        ----------
        X : array_like, (n, features)
            float32 and float64 are kept and computed in, others become float64.
        y : array_like, (n,) labels, or (n,) or (n, outputs) numbers
        sample_weight : array_like, (n,), optional
            What each sample counts, at least 0; by their ratios. Samples of weight 0 are left out.

        Raises
        ------
        TypeError, ValueError
            When a setting, X or y is none that can be; when the loss is no longer finite.
        """
        fresh = not (self.warm_start and hasattr(self, "model_"))
        self._check_settings()
        return self._fit(X, y, sample_weight, self.max_iter, fresh, None)

    def _fit(self, X: Any, y: Any, sample_weight: Any, epochs: int | None, fresh: bool, classes: Any) -> Self:
        """Train for some epochs at most; None is one, of those that `partial_fit` adds to others."""
        X, y = validate_data(self, X, y, dtype=DTYPES, multi_output=True, y_numeric=self._numeric, reset=fresh)
        weight = None if sample_weight is None else _check_sample_weight(
            sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        if weight is not None:
            counts = weight > 0
            if not counts.any():                    # newer versions of scikit-learn have said so
                raise ValueError("sample_weight is zero for every sample, so that nothing is left to learn from")
            X, y, weight = X[counts], y[counts], weight[counts]
        if fresh:
            seed = check_random_state(self.random_state).randint(2 ** 31 - 1)
            self._generator, self.loss_curve_ = Generator(seed), []
        targets = self._targets(y, fresh, classes)
        if fresh:
            self.model_ = self._network(X.shape[1], targets, X.dtype)
            self.optimizer_ = self._make_optimizer()
        dtype = self._dtype
        arrays = [X.astype(dtype, copy=False), targets.astype(dtype, copy=False) if self._numeric else targets]
        if weight is not None:
            arrays.append(weight[:, None])
        held_out = None
        if self.early_stopping and epochs is not None:
            parts = train_test_split(*arrays, test_size=self.validation_fraction,
                                     random_state=int(self._generator.numpy.integers(2 ** 31)),
                                     stratify=None if self._numeric else targets)
            arrays, held_out = parts[::2], parts[1::2]
        if weight is not None:
            arrays[2] = arrays[2] / arrays[2].mean()
        with own_generator(0) as default:           # that of optimizers which draw
            default.numpy = self._generator.numpy
            self._train(TensorDataset(*arrays), held_out, epochs)
        return self

    # ---- network and optimizer ------------------------------------------------------------------------------

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(str(next(self.model_.parameters()).dtype))

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of each layer, (inputs, outputs), as scikit-learn's."""
        return [layer.weight.numpy().T for layer in self.model_ if isinstance(layer, nn.Linear)]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of each layer, (outputs,)."""
        return [layer.bias.numpy() for layer in self.model_ if isinstance(layer, nn.Linear)]

    def _network(self, inputs: int, targets: np.ndarray, dtype: np.dtype) -> nn.Sequential:
        """Return a network with its first weights."""
        widths, layers = [inputs, *self._hidden(), self._outputs_of(targets)], []
        for fan_in, fan_out in zip(widths, widths[1:]):
            layers += [nn.Linear(fan_in, fan_out, dtype=dtype.name, generator=self._generator),
                       ACTIVATIONS[find(self.activation, ACTIVATIONS, "activation", "its documentation")]()]
        return nn.Sequential(*layers[:-1])

    def _hidden(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        return list(sizes) if isinstance(sizes, Iterable) else [sizes]

    def _make_optimizer(self) -> Optimizer:
        """Return the optimizer over the network, its weights decayed where it knows how."""
        cls, options = optimizer_class(self.optimizer), dict(self.optimizer_options or {})
        takes = inspect.signature(cls).parameters
        if self.learning_rate_init is not None:
            if "lr" not in takes:
                raise ValueError(f"{cls.__name__} finds its own rate; leave learning_rate_init at None")
            options["lr"] = self.learning_rate_init
        elif "lr" in takes and takes["lr"].default is REQUIRED:
            raise ValueError(f"{cls.__name__} has no rate of its own; give learning_rate_init, say 0.01")
        if "line_search_fn" in takes:
            options.setdefault("line_search_fn", "strong_wolfe")
        if cls is Muon:
            return muon_with_adamw(self.model_, weight_decay=self.alpha, **options)
        if issubclass(cls, OfOutputs):
            if "likelihood" in takes:
                options.setdefault("likelihood", self._likelihood)
            return cls(self.model_, **options)
        decays = "weight_decay" in takes
        return cls(decay_groups(self.model_, self.alpha) if decays else self.model_.named_parameters(), **options)

    def _loss_of(self) -> Callable[[Tensor, list[Tensor]], Tensor]:
        """Return the loss of outputs and a batch; it has the penalty where the optimizer has no weight decay."""
        penalised = [p for p in self.model_.parameters() if p.ndim == 2]
        if not self.alpha or any("weight_decay" in group for group in self.optimizer_.param_groups):
            penalised = []

        def loss(outputs: Tensor, batch: list[Tensor]) -> Tensor:
            target, *weight = batch
            if not weight:
                mean = self._error(outputs, target)
            else:
                each = self._error(outputs, target, reduction="none")
                mean = (each.reshape(len(target), -1) * weight[0]).mean()
            return sum([(p ** 2).sum() * (self.alpha / 2) for p in penalised], start=mean)
        return loss

    # ---- training -------------------------------------------------------------------------------------------

    def _train(self, data: TensorDataset, held_out: list[np.ndarray] | None, epochs: int | None) -> None:
        size = self._batch_size(len(data))
        loader = DataLoader(data, size, self.shuffle, generator=self._generator)
        objective = Objective(self.model_, data=_Batches(loader), loss=self._loss_of())
        sizes = [min(size, len(data) - start) for start in range(0, len(data), size)]
        best, stale, kept = -math.inf, 0, None
        self.validation_scores_ = None if held_out is None else []
        for self.n_iter_ in range(1, (epochs or 1) + 1):
            self.loss_ = self._epoch(objective, sizes)
            self.loss_curve_.append(self.loss_)
            score = -self.loss_ if held_out is None else self._validate(held_out)
            if self.verbose:
                print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}"
                      + (f", validation score = {score:.6f}" if held_out is not None else ""))
            stale = stale + 1 if score < best + self.tol else 0
            if score > best:
                best = score
                kept = None if held_out is None else [p.data.copy() for p in self.model_.parameters()]
            if stale > self.n_iter_no_change:
                break
        else:
            if epochs is not None:
                warnings.warn(f"the {epochs} epochs of max_iter are over, and the training has not converged: raise "
                              "max_iter or learning_rate_init, or scale X", ConvergenceWarning, stacklevel=4)
        self.best_loss_ = min(self.loss_curve_)
        self.best_validation_score_ = None if held_out is None else best
        for p, values in zip(self.model_.parameters(), kept or ()):
            p.data = values

    def _epoch(self, objective: Objective, sizes: list[int]) -> float:
        """Take a step for each batch and return the mean loss."""
        self._mode("train")
        losses = []
        for t in range(len(sizes)):
            objective.begin(t)
            losses.append(float(drive(self.optimizer_, objective, t)))
        self._mode("eval")
        if not np.isfinite(losses).all():
            raise ValueError(f"the loss is {losses[-1]} in epoch {self.n_iter_}: X may hold large values, which a "
                             f"StandardScaler mends, or learning_rate_init={self.learning_rate_init!r} be too large")
        return float(np.average(losses, weights=sizes))

    def _mode(self, name: str) -> None:
        for inner in stepping(self.optimizer_):         # a schedule-free one has two points, one for each mode
            if hasattr(inner, name):
                getattr(inner, name)()

    def _validate(self, held_out: list[np.ndarray]) -> float:
        X, targets, *weight = held_out
        score = self._score(targets, self._outputs(X), weight[0][:, 0] if weight else None)
        self.validation_scores_.append(score)
        return score

    def _outputs(self, X: np.ndarray, then: Callable[[Any], Any] = lambda outputs: outputs) -> np.ndarray:
        with no_grad():
            return then(self.model_(Tensor(X))).numpy()

    def _read(self, X: Any) -> np.ndarray:
        """Return inputs to predict for, in the dtype of the network."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=DTYPES, reset=False).astype(self._dtype, copy=False)

    # ---- settings -------------------------------------------------------------------------------------------

    def _batch_size(self, n: int) -> int:
        if self.batch_size == "auto":
            return n if isinstance(self.optimizer_, SecondOrder) else min(200, n)
        return min(self.batch_size, n)

    def _check_settings(self) -> None:
        """Raise unless each setting can be; what the optimizer takes is its own affair."""
        def whole(value: Any, least: int = 1) -> bool:
            return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least
        rules = {
            "hidden_layer_sizes": (all(map(whole, self._hidden())), "a width or widths of at least 1"),
            "batch_size": (self.batch_size == "auto" or whole(self.batch_size), "'auto' or at least 1"),
            "max_iter": (whole(self.max_iter), "a whole number of at least 1"),
            "n_iter_no_change": (whole(self.n_iter_no_change), "a whole number of at least 1"),
            "alpha": (0 <= self.alpha < math.inf, "in [0, inf)"), "tol": (0 <= self.tol < math.inf, "in [0, inf)"),
            "validation_fraction": (0 < self.validation_fraction < 1, "in (0, 1)"),
        }
        for name, (fine, allowed) in rules.items():
            if not fine:
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")
        find(self.activation, ACTIVATIONS, "activation", "its documentation")
        cls = optimizer_class(self.optimizer)
        for option, instead in (("lr", "learning_rate_init"), ("weight_decay", "alpha")):
            if option in (self.optimizer_options or {}):
                raise ValueError(f"optimizer_options: {option} is given as {instead} here")
        if cls is GaussNewton:
            raise ValueError("GaussNewton goes by residuals, not by a loss; NaturalGradient, HessianFree and KFAC are "
                             "its relatives for networks")


class MLPClassifier(ClassifierMixin, _Perceptron):
    """A network that classifies, with the interface of scikit-learn's estimator of this name.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Widths of the hidden layers, each at least 1; none of them is logistic regression.
    activation : str, default "relu"
        Between the layers: identity, logistic, tanh, relu, leaky_relu, elu, gelu, silu, mish or softplus.
    optimizer : str, default "adamw"
        One of `tg.optim.list_optimizers()` but GaussNewton, in place of scikit-learn's `solver`. Muon takes the hidden
        weights and leaves the rest to AdamW; L-BFGS has its line search.
    learning_rate_init : float, optional
        By default that of the optimizer, 1e-3 for AdamW.
    alpha : float, default 1e-4
        Weight decay, of the weights and not of the biases, at least 0: the optimizer's own where it has one; with
        others alpha / 2 times the sum of squares is added to the loss.
    optimizer_options : dict, optional
        What else the optimizer takes, such as {"momentum": 0.9}.
    batch_size : int or "auto", default "auto"
        Samples in a step, at least 1. "auto" is 200, or all where there are fewer or the optimizer uses curvature.
    max_iter : int, default 200
        The most epochs, at least 1.
    shuffle : bool, default True
        A new order every epoch.
    random_state : int, RandomState or None
        Source of weights, order and held-out part; None is NumPy's global one, as everywhere in scikit-learn.
        `tg.manual_seed` has no part in it, and its generator is left alone.
    tol, n_iter_no_change : float, int, default 1e-4 and 10
        Stop when the loss, or with early stopping the score, was not better than the best by `tol` in more epochs
        than that.
    verbose : bool, default False
        Print the loss of each epoch.
    warm_start : bool, default False
        Let `fit` go on from where it ended, with the optimizer's state.
    early_stopping : bool, default False
        Hold out a part of the samples, stop by the score on it, and return to the weights of the best.
    validation_fraction : float, default 0.1
        Of the samples, what is held out, in (0, 1).

    Attributes
    ----------
    classes_ : (classes,) array
    model_ : Sequential
        The network; its outputs are logits.
    optimizer_ : Optimizer
        As it was after the last step.
    loss_curve_ : list of float
        The mean loss of each epoch.
    n_iter_ : int
        Epochs of the last fit.
    loss_, best_loss_ : float
    validation_scores_, best_validation_score_ : list of float and float, or None
        With early stopping.
    n_features_in_, feature_names_in_, coefs_, intercepts_
        As scikit-learn's.

    Notes
    -----
    Elsewhere: scikit-learn has one output for two classes, here there are two; its first weights are Glorot's, here
    PyTorch's; its alpha is divided by the batch size; it has no optimizers but SGD, Adam and L-BFGS.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> X, y = (t.numpy() for t in tg.data.moons(200, generator=0))
    >>> classifier = tg.sklearn.MLPClassifier((16, 16), optimizer="lbfgs", random_state=0).fit(X, y)
    >>> classifier.score(X, y)
    1.0
    """

    _numeric, _likelihood = False, "softmax"
    _error = staticmethod(cross_entropy)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one more epoch on some samples, and return the estimator.

        Parameters
        ----------
        X : array_like, (n, features)
        y : array_like, (n,)
        classes : array_like, optional
            All that there will ever be; the first call needs them.
        sample_weight : array_like, (n,), optional
        """
        self._check_settings()
        fresh = not hasattr(self, "model_")
        if fresh and classes is None:
            raise ValueError("the first call of partial_fit needs classes=, all labels that there will ever be")
        if not fresh and classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes {np.unique(classes)} are not those of the first call, {self.classes_}")
        return self._fit(X, y, sample_weight, None, fresh, classes)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sample, (n,)."""
        X = self._read(X)
        return self.classes_[self._outputs(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (n, classes), in the order of `classes_`."""
        return self._outputs(self._read(X), lambda outputs: softmax(outputs, 1))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of `predict_proba`, without its rounding to 0."""
        return self._outputs(self._read(X), lambda outputs: log_softmax(outputs, 1))

    def _targets(self, y: np.ndarray, fresh: bool, classes: Any) -> np.ndarray:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if fresh:
            self.classes_ = np.unique(y if classes is None else classes)
        new = np.setdiff1d(y, self.classes_)
        if len(new):
            raise ValueError(f"y has labels that are none of the classes {self.classes_}: {new[:5]}")
        return np.searchsorted(self.classes_, y)

    def _outputs_of(self, targets: np.ndarray) -> int:
        return len(self.classes_)

    @staticmethod
    def _score(targets: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None) -> float:
        return float(accuracy_score(targets, outputs.argmax(axis=1), sample_weight=weight))


class MLPRegressor(RegressorMixin, MultiOutputMixin, _Perceptron):
    """A network that predicts one or several numbers; settings and attributes as of :class:`MLPClassifier`.

    The loss is half the mean squared error, and early stopping goes by R². What is predicted has the shape of the y of
    `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> import tinygrad_opt as tg
    >>> X = np.linspace(-3, 3, 60)[:, None]
    >>> y = np.hstack([np.sin(X), np.cos(X)])
    >>> regressor = tg.sklearn.MLPRegressor((32,), "tanh", optimizer="lbfgs", tol=1e-6, random_state=0).fit(X, y)
    >>> regressor.score(X, y) > 0.99
    True
    """

    _numeric, _likelihood = True, "squared"

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one more epoch on some samples, and return the estimator; arguments as of `fit`."""
        self._check_settings()
        return self._fit(X, y, sample_weight, None, not hasattr(self, "model_"), None)

    def predict(self, X: Any) -> np.ndarray:
        """Return what is predicted for each sample, (n,) or (n, outputs)."""
        outputs = self._outputs(self._read(X))
        return outputs[:, 0] if self._flat else outputs

    def _targets(self, y: np.ndarray, fresh: bool, classes: Any) -> np.ndarray:
        if fresh:
            self._flat = y.ndim == 1
        targets = y.reshape(len(y), -1)
        if not fresh and targets.shape[1] != self.model_[-1].out_features:
            raise ValueError(f"y has {targets.shape[1]} outputs, the network {self.model_[-1].out_features}")
        return targets

    def _outputs_of(self, targets: np.ndarray) -> int:
        return targets.shape[1]

    @staticmethod
    def _error(outputs: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        return mse_loss(outputs, target, reduction) / 2

    @staticmethod
    def _score(targets: np.ndarray, outputs: np.ndarray, weight: np.ndarray | None) -> float:
        return float(r2_score(targets, outputs, sample_weight=weight))
